//! A device that runs out of memory: the step is tried again with a smaller micro-batch.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use burn::tensor::{Device, ExecutionError};
use setpoint_train::{
    AdamWConfig, BatchContext, DeviceGroup, Error, Fitted, Forward, MicroBatch, RunDir, StopReason, SumOnFirst, Task,
    TrainConfig, evaluate, fit_on,
};

use crate::common::{Bag, Recorder, Regression, metrics_without_times, responses};

const NO_MEMORY: &str = "An IO error happened\nCaused by:\n  out of device memory allocating 4096 bytes\nbacktrace";

/// 22 examples of 1 to 6 tokens in batches of 8, 8 and 6, twice.
fn config(micro_batch: MicroBatch) -> TrainConfig {
    TrainConfig {
        batch_size: 8,
        micro_batch,
        epochs: 2.0,
        learning_rate: 0.05,
        optimizer: AdamWConfig { weight_decay: 0.1, ..AdamWConfig::default() },
        save_steps: Some(1),
        ..TrainConfig::default()
    }
}

/// Fails as Burn does when a result is read.
fn fail(reason: &str) {
    let error = ExecutionError::with_context(reason);
    panic!("Error while reading data: {error:?}");
}

/// A task whose device has room for some tokens.
struct Tight {
    inner: Regression,
    /// Tokens of a forward pass.
    room: usize,
    /// Examples that can be probed at once.
    probe_room: usize,
    /// The name of the only thread whose device is short of memory; all by default.
    thread: Option<&'static str>,
    reason: &'static str,
    probed: AtomicU64,
}

impl Tight {
    fn new(room: usize) -> Self {
        let (thread, probed) = (None, AtomicU64::new(0));
        Self { inner: Regression::new(22), room, probe_room: usize::MAX, thread, reason: NO_MEMORY, probed }
    }

    fn short(&self) -> bool {
        self.thread.is_none_or(|name| std::thread::current().name() == Some(name))
    }
}

impl Task for Tight {
    type Model = Bag;
    type Probe = usize;
    type Survey = usize;

    fn len(&self) -> usize {
        self.inner.len()
    }

    fn weight(&self, example: usize) -> f64 {
        self.inner.weight(example)
    }

    fn cost(&self, example: usize) -> usize {
        self.inner.cost(example)
    }

    fn order(&self, seed: u64, epoch: u64) -> Vec<usize> {
        self.inner.order(seed, epoch)
    }

    fn probe(&self, _: &Bag, examples: &[usize], _: MicroBatch) -> Result<Vec<usize>, Error> {
        if examples.len() > self.probe_room && self.short() {
            fail(self.reason);
        }
        self.probed.fetch_add(examples.len() as u64, Ordering::SeqCst);
        Ok(examples.to_vec())
    }

    fn survey(&self, batch: &[usize], probes: &[usize]) -> Result<usize, Error> {
        assert_eq!(batch, probes);
        Ok(batch.len())
    }

    fn forward(&self, model: &Bag, examples: &[usize], batch: &BatchContext<usize>) -> Result<Forward, Error> {
        let tokens: usize = examples.iter().map(|&example| self.cost(example)).sum();
        if tokens > self.room && self.short() {
            fail(self.reason);
        }
        let BatchContext { denominator, progress, .. } = *batch;
        self.inner.forward(model, examples, &BatchContext { denominator, progress, survey: () })
    }
}

fn group(devices: usize) -> DeviceGroup {
    DeviceGroup::new(vec![Device::flex(); devices], SumOnFirst)
}

struct Run {
    fitted: Fitted<Bag>,
    hooks: Recorder,
    dir: tempfile::TempDir,
}

fn train<T: Task<Model = Bag>>(devices: usize, task: &T, config: &TrainConfig) -> Run {
    let dir = tempfile::tempdir().unwrap();
    let mut hooks = Recorder::default();
    let fitted = go_on(dir.path(), devices, task, config, &mut hooks).unwrap();
    Run { fitted, hooks, dir }
}

/// Begins a run, or resumes it.
fn go_on<T: Task<Model = Bag>>(
    dir: &Path,
    devices: usize,
    task: &T,
    config: &TrainConfig,
    hooks: &mut Recorder,
) -> Result<Fitted<Bag>, Error> {
    let run = if dir.join(RunDir::CHECKPOINTS).exists() { RunDir::open(dir) } else { RunDir::create(dir) };
    fit_on(&group(devices), task, Bag::new(&Device::flex().autodiff()), config, &run.unwrap(), hooks)
}

fn assert_same(found: &Run, expected: &Run, what: &str) {
    assert_eq!(found.fitted.model.bits(), expected.fitted.model.bits(), "{what}");
    let steps = |run: &Run| -> Vec<_> {
        run.hooks.reports.iter().map(|step| (step.loss, step.grad_norm, step.micro_batches, step.num_tokens)).collect()
    };
    assert_eq!(steps(found), steps(expected), "{what}");
    let logs = |run: &Run| (metrics_without_times(run.dir.path()), responses(run.dir.path()));
    assert_eq!(logs(found), logs(expected), "{what}");
}

#[test]
fn the_run_ends_as_one_that_began_with_the_smaller_micro_batch() {
    use MicroBatch::{Examples, Tokens};
    // Devices, the one that is short of memory, tokens that it has room for, size at first, size that fits. The first batch has four
    // examples of four tokens and four of one.
    let cases = [
        (1, None, 12, Tokens(40), Tokens(10)),
        (1, None, 12, Examples(64), Examples(2)),
        (2, None, 8, Tokens(40), Tokens(5)),
        (2, Some("device 1"), 8, Tokens(40), Tokens(5)),
        (2, Some("device 1"), 7, Examples(64), Examples(1)),
        (3, None, 7, Tokens(40), Tokens(5)),
    ];
    for (devices, thread, room, asked, smaller) in cases {
        let what = format!("{devices} devices, short: {thread:?}, {asked}");
        let task = Tight { thread, ..Tight::new(room) };
        let found = train(devices, &task, &config(asked));
        let warning = format!(
            "out of memory in step 1: train.micro_batch is now {smaller} instead of {asked}; \
             set it in the next run to avoid the failed attempt"
        );
        assert_eq!(found.hooks.warnings, [warning], "{what}");
        assert_same(&found, &train(devices, &Regression::new(22), &config(smaller)), &what);
        let unlimited = train(devices, &Regression::new(22), &config(asked));
        let values = |run: &Run| run.fitted.model.bits().into_iter().map(f32::from_bits).collect::<Vec<_>>();
        for (found, expected) in values(&found).iter().zip(values(&unlimited)) {
            assert!((found - expected).abs() < 1e-5, "{what}: {found} {expected}");
        }
    }
}

#[test]
fn a_failure_in_the_middle_of_a_step_leaves_nothing_of_it() {
    // The second micro-batch of the second step, once.
    let before_pass = Box::new(|pass: u64, _: &Bag| {
        if pass == 5 {
            fail(NO_MEMORY);
        }
    });
    let task = Regression { before_pass, ..Regression::new(22) };
    let found = train(1, &task, &config(MicroBatch::Examples(3)));
    assert_eq!(found.hooks.warnings.len(), 1);
    let warning = "out of memory in step 2: train.micro_batch is now { examples = 1 } instead of { examples = 3 }";
    assert!(found.hooks.warnings[0].starts_with(warning), "{:?}", found.hooks.warnings);
    let passes: Vec<usize> = found.hooks.reports.iter().map(|report| report.micro_batches).collect();
    assert_eq!(passes, [3, 8, 6, 8, 8, 6]);
    let whole = train(1, &Regression::new(22), &config(MicroBatch::Examples(3)));
    for (a, b) in found.hooks.reports.iter().zip(&whole.hooks.reports) {
        assert!((a.loss - b.loss).abs() < 1e-5 * b.loss, "{} {}", a.loss, b.loss);
        assert_eq!((a.tokens, a.learning_rate), (b.tokens, b.learning_rate));
        for ((name, found), (_, expected)) in a.metrics.iter().zip(&b.metrics) {
            assert!((found - expected).abs() < 1e-4, "{name}: {found} {expected}");
        }
    }
}

#[test]
fn a_resumed_run_goes_on_with_the_smaller_micro_batch() {
    let (task, config) = (Tight::new(12), config(MicroBatch::Tokens(40)));
    let whole = train(1, &task, &config);
    let dir = tempfile::tempdir().unwrap();
    let mut hooks = Recorder { stop_after: Some(2), ..Recorder::default() };
    assert_eq!(go_on(dir.path(), 1, &task, &config, &mut hooks).unwrap().stop, StopReason::Requested);
    assert_eq!(hooks.warnings.len(), 1);
    let mut hooks = Recorder::default();
    let fitted = go_on(dir.path(), 1, &task, &config, &mut hooks).unwrap();
    assert!(hooks.warnings.is_empty(), "{:?}", hooks.warnings);
    assert_eq!(fitted.model.bits(), whole.fitted.model.bits());
    assert_eq!(metrics_without_times(dir.path()), metrics_without_times(whole.dir.path()));
}

#[test]
fn a_probe_that_runs_out_of_memory_is_asked_about_fewer_examples() {
    for devices in [1, 2] {
        let task = Tight { probe_room: 2, ..Tight::new(usize::MAX) };
        let found = train(devices, &task, &config(MicroBatch::Examples(8)));
        let smaller = MicroBatch::Examples(2);
        assert!(found.hooks.warnings[0].contains(&smaller.to_string()), "{:?}", found.hooks.warnings);
        assert_eq!(found.hooks.warnings.len(), 1);
        assert_same(&found, &train(devices, &Regression::new(22), &config(smaller)), "probes");
        // Those of the attempts that failed aside.
        assert!(task.probed.into_inner() >= 2 * 22);
    }
}

#[test]
fn an_evaluation_that_runs_out_of_memory_begins_anew() {
    let model = Bag::new(&Device::flex().autodiff());
    for devices in [1, 3] {
        for task in [Tight::new(12), Tight { probe_room: 3, ..Tight::new(12) }] {
            let mut micro_batch = MicroBatch::Tokens(40);
            let found = evaluate(&task, &group(devices), &model, &mut micro_batch, 0.0, &|| false).unwrap();
            assert!(matches!(micro_batch, MicroBatch::Tokens(1..=10)), "{micro_batch}");
            let mut same = micro_batch;
            let expected = evaluate(&Regression::new(22), &group(devices), &model, &mut same, 0.0, &|| false).unwrap();
            assert_eq!((found, same), (expected, micro_batch));
        }
        let mut micro_batch = MicroBatch::Tokens(40);
        let error = evaluate(&Tight::new(0), &group(devices), &model, &mut micro_batch, 0.0, &|| false);
        let text = error.unwrap_err().to_string();
        assert!(text.starts_with("the evaluation: the device is out of memory with one example"), "{text}");
        assert!(text.contains("`train.micro_batch`") && text.contains("`setpoint plan`"), "{text}");
    }
}

#[test]
fn a_single_example_that_is_too_large_ends_the_run_with_what_needs_less() {
    for devices in [1, 2] {
        for (task, in_backward) in [
            (Tight::new(0), false),
            (Tight { probe_room: 0, ..Tight::new(usize::MAX) }, false),
            (Tight::new(0), true),
            (Tight { probe_room: 0, ..Tight::new(usize::MAX) }, true),
        ] {
            let mut config = config(MicroBatch::Examples(8));
            if in_backward {
                config.max_grad_norm = Some(0.0);
                config.optimizer.in_backward = true;
            }
            let dir = tempfile::tempdir().unwrap();
            let mut hooks = Recorder::default();
            let error = go_on(dir.path(), devices, &task, &config, &mut hooks).unwrap_err();
            assert!(matches!(error, Error::OutOfMemory { .. }), "{error}");
            let text = error.to_string();
            assert!(text.starts_with("step 1: the device is out of memory"), "{text}");
            assert!(text.ends_with("(out of device memory allocating 4096 bytes)"), "{text}");
            let settings: &[&str] = if in_backward {
                &["`train.optimizer.in_backward`", "`train.batch_size`", "`train.micro_batch`", "`setpoint plan`"]
            } else {
                &["`train.micro_batch`", "`train.recompute = \"block\"`", "`setpoint plan`"]
            };
            for setting in settings {
                assert!(text.contains(setting), "{text}");
            }
            assert!(!text.contains('\n') && hooks.warnings.is_empty(), "{text}: {:?}", hooks.warnings);
        }
    }
}

#[test]
fn any_other_failure_ends_the_run_at_once() {
    // A device that is gone is no device to try again on.
    let task = Tight { reason: "the server is gone", ..Tight::new(12) };
    let dir = tempfile::tempdir().unwrap();
    let mut hooks = Recorder::default();
    let run = || go_on(dir.path(), 1, &task, &config(MicroBatch::Tokens(40)), &mut hooks);
    let panic = catch_unwind(AssertUnwindSafe(run)).unwrap_err();
    let text = panic.downcast::<String>().unwrap();
    assert!(text.contains("the server is gone"), "{text}");
    assert_eq!(task.inner.passes.into_inner(), 0);
    assert!(hooks.warnings.is_empty());
    // On another device than the first, it is found when its thread ends.
    let task = Tight { reason: "the server is gone", thread: Some("device 1"), ..Tight::new(12) };
    let dir = tempfile::tempdir().unwrap();
    let run = || go_on(dir.path(), 2, &task, &config(MicroBatch::Tokens(40)), &mut hooks);
    assert!(catch_unwind(AssertUnwindSafe(run)).is_err());
}
