//! Rounds: the examples of a task change on the way, and the run is one run.

use std::num::NonZeroU64;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::tensor::Device;
use setpoint_train::{
    BatchContext, Error, Fitted, Hooks, MicroBatch, RunDir, StepReport, StopReason, Task, TrainConfig, fit,
};

use crate::common::{Bag, Recorder, Regression, metrics_without_times};

/// Examples of each round. The third has none.
const SIZES: [usize; 4] = [5, 4, 0, 2];

/// Regression whose examples are others in each round.
struct Rounds {
    all: Vec<Regression>,
    /// The round, counted from 1; 0 before the first.
    current: AtomicUsize,
}

impl Rounds {
    fn new() -> Self {
        Self { all: SIZES.map(Regression::new).into(), current: AtomicUsize::new(0) }
    }

    /// Forgets the round, as a process that ends does.
    fn forget(&self) {
        self.current.store(0, Ordering::SeqCst);
    }

    /// The present round, if it has this example.
    fn with(&self, example: usize) -> Option<&Regression> {
        let current = self.current.load(Ordering::SeqCst).checked_sub(1)?;
        Some(&self.all[current]).filter(|round| example < round.len())
    }
}

impl Task for Rounds {
    type Model = Bag;
    type Probe = ();
    type Survey = ();

    fn len(&self) -> usize {
        5
    }

    fn weight(&self, example: usize) -> f64 {
        self.with(example).map_or(0.0, |round| round.weight(example))
    }

    fn cost(&self, example: usize) -> usize {
        self.with(example).map_or(0, |round| round.cost(example))
    }

    fn forward(
        &self,
        model: &Bag,
        examples: &[usize],
        batch: &BatchContext<()>,
    ) -> Result<setpoint_train::Forward, Error> {
        self.with(examples[0]).expect("an example that weighs something").forward(model, examples, batch)
    }

    fn order(&self, seed: u64, epoch: u64) -> Vec<usize> {
        let mut order = self.with(0).map_or_else(Vec::new, |round| round.order(seed, epoch));
        order.extend(order.len()..5);
        order
    }

    fn passes_per_round(&self) -> Option<NonZeroU64> {
        NonZeroU64::new(2)
    }
}

/// Makes the rounds, and notes what it was asked for.
struct Maker<'a> {
    task: &'a Rounds,
    recorder: Recorder,
    /// The round, whether it is new, and the model at that time.
    begun: Vec<(u64, bool, Vec<u32>)>,
    /// The round that fails, and with what.
    fails: Option<(u64, fn() -> Error)>,
}

impl<'a> Maker<'a> {
    fn new(task: &'a Rounds) -> Self {
        Self { task, recorder: Recorder::default(), begun: Vec::new(), fails: None }
    }
}

impl Hooks<Bag> for Maker<'_> {
    fn begin_round(&mut self, model: &Bag, round: u64, fresh: bool) -> Result<Vec<(String, f64)>, Error> {
        if let Some((_, error)) = self.fails.filter(|(fails, _)| *fails == round) {
            return Err(error());
        }
        self.begun.push((round, fresh, model.bits()));
        self.task.current.store(round as usize + 1, Ordering::SeqCst);
        Ok(vec![("size".into(), SIZES[round as usize] as f64)])
    }

    fn progress(&mut self, report: &StepReport) {
        self.recorder.progress(report);
    }

    fn warning(&mut self, message: &str) {
        self.recorder.warning(message);
    }

    fn should_stop(&mut self) -> bool {
        self.recorder.should_stop()
    }
}

/// Two passes over up to five examples in batches of two: six steps a round, 24 in all.
fn config() -> TrainConfig {
    TrainConfig {
        epochs: 8.0,
        batch_size: 2,
        micro_batch: MicroBatch::Examples(2),
        learning_rate: 0.03,
        save_minutes: 0.0,
        ..TrainConfig::default()
    }
}

fn train(path: &Path, maker: &mut Maker<'_>) -> Result<Fitted<Bag>, Error> {
    let run = if path.exists() { RunDir::open(path)? } else { RunDir::create(path)? };
    let task = maker.task;
    fit(task, Bag::new(&Device::flex().autodiff()), &config(), &run, maker)
}

#[test]
fn each_round_is_made_once_from_the_model_at_its_beginning() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run");
    let task = Rounds::new();
    let mut maker = Maker::new(&task);
    let fitted = train(&path, &mut maker).unwrap();
    assert_eq!((fitted.steps, fitted.stop), (24, StopReason::Completed));
    let begun: Vec<(u64, bool)> = maker.begun.iter().map(|(round, fresh, _)| (*round, *fresh)).collect();
    assert_eq!(begun, [(0, true), (1, true), (2, true), (3, true)]);
    let at = |round: usize| &maker.begun[round].2;
    assert!(at(0) != at(1) && at(1) != at(2));
    assert_eq!(at(2), at(3), "a round without examples leaves the model as it is");
    // Batches that weigh nothing are no steps to be told of: three, two, none and one of three batches are computed.
    let steps: Vec<u64> = maker.recorder.reports.iter().map(|report| report.step).collect();
    assert_eq!(steps, [1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 19, 22]);

    let lines = metrics_without_times(&path);
    let rounds: Vec<(u64, u64, f64)> = lines
        .iter()
        .filter_map(|line| Some((line.get("round")?.as_u64()?, line["step"].as_u64()?, line["size"].as_f64()?)))
        .collect();
    assert_eq!(rounds, [(0, 0, 5.0), (1, 6, 4.0), (2, 12, 0.0), (3, 18, 2.0)]);
    let logged: Vec<u64> =
        lines.iter().filter(|line| line.contains_key("loss")).map(|line| line["step"].as_u64().unwrap()).collect();
    assert_eq!(logged, steps);
}

#[test]
fn a_run_that_stops_after_any_step_goes_on_with_the_same_round_and_ends_in_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    let task = Rounds::new();
    let mut maker = Maker::new(&task);
    let expected = train(&whole, &mut maker).unwrap().model.bits();
    let steps: Vec<u64> = maker.recorder.reports.iter().map(|report| report.step).collect();
    for step in steps.into_iter().filter(|&step| step < 24) {
        let path = dir.path().join(step.to_string());
        let mut first = Maker::new(&task);
        first.recorder.stop_after = Some(step);
        assert_eq!(train(&path, &mut first).unwrap().stop, StopReason::Requested);
        // Another process knows nothing of the round.
        task.forget();
        let mut second = Maker::new(&task);
        let resumed = train(&path, &mut second).unwrap();
        assert_eq!((second.begun[0].0, second.begun[0].1), (step / 6, step % 6 == 0), "step {step}");
        assert_eq!(resumed.model.bits(), expected, "step {step}");
        assert_eq!(metrics_without_times(&path), metrics_without_times(&whole), "step {step}");
    }
}

#[test]
fn a_round_that_cannot_begin_costs_no_step() {
    let dir = tempfile::tempdir().unwrap();
    let task = Rounds::new();
    let expected = train(&dir.path().join("whole"), &mut Maker::new(&task)).unwrap().model.bits();
    let interrupted: fn() -> Error = || Error::Interrupted;
    let failed: fn() -> Error = || Error::task("no judge");
    for (name, round, error) in [("failed", 1, failed), ("interrupted", 1, interrupted), ("at once", 0, interrupted)] {
        let path = dir.path().join(name);
        let mut maker = Maker { fails: Some((round, error)), ..Maker::new(&task) };
        match train(&path, &mut maker) {
            Ok(fitted) => assert_eq!((fitted.stop, fitted.steps), (StopReason::Requested, 6 * round), "{name}"),
            Err(error) => assert!(name == "failed" && error.to_string().contains("no judge"), "{name}: {error}"),
        }
        task.forget();
        let mut maker = Maker::new(&task);
        assert_eq!(train(&path, &mut maker).unwrap().model.bits(), expected, "{name}");
        assert_eq!((maker.begun[0].0, maker.begun[0].1), (round, true), "{name}");
    }
}
