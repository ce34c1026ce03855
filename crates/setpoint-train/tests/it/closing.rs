//! Nothing that happens after a step, or after the last one, costs what was trained.

use std::fs;
use std::path::Path;

use burn::tensor::Device;
use setpoint_train::{
    AdamWConfig, BestConfig, Error, Evaluation, Fitted, Hooks, Measurement, MicroBatch, RunDir, Sample, Schedule,
    ScheduleKind, StepReport, StopReason, Task, TrainConfig, Warmup, fit,
};

use crate::common::{Bag, Poison, Recorder, Regression, metrics_without_times};

/// 10 examples in batches of 4: 3 steps an epoch, 7 steps in all.
fn config() -> TrainConfig {
    TrainConfig {
        batch_size: 4,
        micro_batch: MicroBatch::Examples(2),
        max_steps: Some(7),
        learning_rate: 0.03,
        optimizer: AdamWConfig { weight_decay: 0.1, ..AdamWConfig::default() },
        logging_steps: 2,
        eval_steps: Some(3),
        sample_steps: Some(2),
        save_minutes: 0.0,
        ..TrainConfig::default()
    }
}

fn best(restore: bool) -> Option<BestConfig> {
    let metric = "eval_score".into();
    Some(BestConfig { metric, greater_is_better: true, restore, patience: None, min_delta: 0.0 })
}

/// How a hook fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Error,
    Interrupted,
}

impl Way {
    fn error(self) -> Error {
        match self {
            Self::Error => Error::task("the hook failed"),
            Self::Interrupted => Error::Interrupted,
        }
    }
}

/// A [`Recorder`] whose hooks fail at some steps, and which keeps a list of what was called.
#[derive(Default)]
struct Script {
    recorder: Recorder,
    /// Evaluations that fail, by step.
    evaluations: Vec<(u64, Way)>,
    /// Samples that fail, by step.
    samples: Vec<(u64, Way)>,
    save_fails: bool,
    /// Where the run is, to look at its checkpoints.
    run: Option<std::path::PathBuf>,
    called: Vec<String>,
    saved: Vec<Vec<u32>>,
}

impl Script {
    fn call(&mut self, name: &str, step: u64) {
        let newest = self.run.as_ref().map(|run| {
            let entries = fs::read_dir(run.join(RunDir::CHECKPOINTS)).into_iter().flatten().flatten();
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).max().unwrap_or_default()
        });
        let newest = newest.map(|name| format!(", newest {name}")).unwrap_or_default();
        self.called.push(format!("{name} {step}{newest}"));
    }
}

impl Hooks<Bag> for Script {
    fn evaluate(&mut self, model: &Bag, step: u64) -> Result<Measurement, Error> {
        self.call("evaluate", step);
        match self.evaluations.iter().find(|(at, _)| *at == step) {
            Some((_, way)) => Err(way.error()),
            None => self.recorder.evaluate(model, step),
        }
    }
    fn sample(&mut self, model: &Bag, step: u64) -> Result<Vec<Sample>, Error> {
        self.call("sample", step);
        match self.samples.iter().find(|(at, _)| *at == step) {
            Some((_, way)) => Err(way.error()),
            None => self.recorder.sample(model, step),
        }
    }
    fn begin(&mut self, step: u64, total_steps: u64) {
        self.call("begin", step);
        assert_eq!(total_steps, 7);
    }
    fn save_model(&mut self, model: &Bag, step: u64) -> Result<(), Error> {
        self.call("save", step);
        if self.save_fails {
            return Err(Error::task("no space left"));
        }
        self.saved.push(model.bits());
        Ok(())
    }
    fn progress(&mut self, report: &StepReport) {
        self.recorder.progress(report);
    }
    fn evaluated(&mut self, evaluation: &Evaluation) {
        self.recorder.evaluated(evaluation);
    }
    fn warning(&mut self, message: &str) {
        self.recorder.warning(message);
    }
    fn should_stop(&mut self) -> bool {
        self.recorder.should_stop()
    }
}

fn train(path: &Path, config: &TrainConfig, hooks: &mut Script) -> Result<Fitted<Bag>, Error> {
    let run = if path.exists() { RunDir::open(path)? } else { RunDir::create(path)? };
    fit(&Regression::new(10), Bag::new(&Device::flex().autodiff()), config, &run, hooks)
}

/// A run that nothing disturbs.
fn whole(dir: &Path, config: &TrainConfig) -> Fitted<Bag> {
    train(&dir.join("whole"), config, &mut Script::default()).unwrap()
}

#[track_caller]
fn same_logs(path: &Path, whole: &Path) {
    assert_eq!(metrics_without_times(path), metrics_without_times(whole));
    for log in [RunDir::SAMPLES, RunDir::RESPONSES] {
        let text = |path: &Path| fs::read_to_string(path.join(log)).unwrap();
        assert_eq!(text(path), text(whole), "{log}");
    }
}

#[test]
fn the_checkpoint_comes_first_then_the_model_then_what_may_fail() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let mut hooks = Script { run: Some(run.clone()), ..Script::default() };
    let fitted = train(&run, &config(), &mut hooks).unwrap();
    let last = "newest step-00000007";
    assert_eq!(
        hooks.called,
        [
            "begin 0, newest ".to_owned(),
            "sample 2, newest ".into(),
            "evaluate 3, newest ".into(),
            "sample 4, newest ".into(),
            "evaluate 6, newest ".into(),
            "sample 6, newest ".into(),
            format!("save 7, {last}"),
            format!("evaluate 7, {last}"),
            format!("sample 7, {last}"),
        ]
    );
    assert_eq!(hooks.saved, [fitted.model.bits()]);
    // All is done: the model is written again, and nothing else happens.
    let mut again = Script::default();
    let fitted = train(&run, &config(), &mut again).unwrap();
    assert_eq!((again.called, again.saved), (vec!["save 7".to_owned()], vec![fitted.model.bits()]));
}

#[test]
fn the_last_evaluation_may_decide_which_model_is_saved() {
    let dir = tempfile::tempdir().unwrap();
    for (scores, chosen, step) in [([2.0, 1.0, 3.0], "last", 7), ([2.0, 3.0, 1.0], "sixth", 6)] {
        let run = dir.path().join(chosen);
        let mut hooks = Script { run: Some(run.clone()), ..Script::default() };
        hooks.recorder.scripted = scores.to_vec().into();
        let fitted = train(&run, &TrainConfig { best: best(true), ..config() }, &mut hooks).unwrap();
        let order: Vec<&str> = hooks.called.iter().rev().take(3).rev().map(String::as_str).collect();
        let calls = ["evaluate 7", "save 7", "sample 7"].map(|call| format!("{call}, newest step-00000007"));
        assert_eq!(order, calls);
        assert_eq!(fitted.best.unwrap().step, step);
        assert_eq!(hooks.saved, [fitted.model.bits()]);
        let mut again = Script::default();
        train(&run, &TrainConfig { best: best(true), ..config() }, &mut again).unwrap();
        assert_eq!(again.saved, hooks.saved, "{chosen}");
    }
}

#[test]
fn failing_samples_and_evaluations_are_warnings() {
    let dir = tempfile::tempdir().unwrap();
    let expected = whole(dir.path(), &config());
    let mut hooks = Script {
        evaluations: vec![(3, Way::Error), (7, Way::Error)],
        samples: vec![(2, Way::Error), (7, Way::Error)],
        ..Script::default()
    };
    let fitted = train(&dir.path().join("run"), &config(), &mut hooks).unwrap();
    assert_eq!(fitted.stop, StopReason::Completed);
    assert_eq!(hooks.saved, [expected.model.bits()]);
    let warnings: Vec<&String> = hooks.recorder.warnings.iter().filter(|w| w.contains("the hook failed")).collect();
    for (warning, what) in
        warnings.iter().zip(["samples of step 2", "after step 3", "after step 7", "samples of step 7"])
    {
        assert!(warning.contains(what), "{warning}");
    }
    assert_eq!(warnings.len(), 4, "{warnings:?}");
}

#[test]
fn a_failing_evaluation_that_decides_ends_the_run_with_its_step_saved() {
    let dir = tempfile::tempdir().unwrap();
    let config = TrainConfig { best: best(false), ..config() };
    let expected = whole(dir.path(), &config);
    let run = dir.path().join("run");
    let mut hooks = Script { evaluations: vec![(3, Way::Error)], ..Script::default() };
    let error = train(&run, &config, &mut hooks).unwrap_err();
    assert!(error.to_string().contains("the hook failed"), "{error}");
    assert!(run.join("checkpoints/step-00000003").is_dir());
    // The evaluation is made up for. After the last step one that fails decides nothing more.
    let mut hooks = Script { evaluations: vec![(7, Way::Error)], ..Script::default() };
    let fitted = train(&run, &config, &mut hooks).unwrap();
    assert_eq!(hooks.called[..3], ["begin 3", "evaluate 3", "sample 4"]);
    assert_eq!(hooks.saved, [expected.model.bits()]);
    assert_eq!(fitted.stop, StopReason::Completed);
}

#[test]
fn a_metric_that_is_missing_costs_no_finished_training() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = TrainConfig { best: best(true), eval_steps: None, ..config() };
    if let Some(best) = &mut config.best {
        best.metric = "eval_lose".into();
    }
    let mut hooks = Script::default();
    let fitted = train(&dir.path().join("run"), &config, &mut hooks).unwrap();
    assert_eq!((fitted.steps, hooks.saved.len()), (7, 1));
    assert!(hooks.recorder.warnings.iter().any(|warning| warning.contains("`eval_lose`")));
}

#[test]
fn an_evaluation_that_is_not_finite_is_not_fatal() {
    let dir = tempfile::tempdir().unwrap();
    let mut hooks = Script::default();
    hooks.recorder.scripted = vec![f64::NAN, f64::INFINITY, f64::NAN].into();
    let fitted = train(&dir.path().join("run"), &TrainConfig { best: best(true), ..config() }, &mut hooks).unwrap();
    assert_eq!((fitted.steps, fitted.best), (7, None));
    assert_eq!(hooks.saved, [fitted.model.bits()]);
}

#[test]
fn a_model_that_cannot_be_saved_is_saved_by_the_resumed_run() {
    for restore in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let config = TrainConfig { best: best(restore), ..config() };
        let scores = vec![1.0, 3.0, 2.0];
        let mut hooks = Script::default();
        hooks.recorder.scripted = scores.clone().into();
        let expected = train(&dir.path().join("whole"), &config, &mut hooks).unwrap();

        let run = dir.path().join("run");
        let mut hooks = Script { save_fails: true, ..Script::default() };
        hooks.recorder.scripted = scores.into();
        let error = train(&run, &config, &mut hooks).unwrap_err();
        assert!(error.to_string().contains("no space left"), "{error}");
        let mut hooks = Script::default();
        hooks.recorder.scripted = vec![2.0].into();
        let fitted = train(&run, &config, &mut hooks).unwrap();
        assert!(hooks.recorder.reports.is_empty(), "no step is done again");
        assert_eq!(hooks.saved, [expected.model.bits()]);
        assert_eq!((fitted.best, fitted.evaluation), (expected.best, expected.evaluation));
        same_logs(&run, &dir.path().join("whole"));
    }
}

#[test]
fn what_is_interrupted_is_made_up_for() {
    let dir = tempfile::tempdir().unwrap();
    for (name, best) in [("plain", None), ("best", best(true))] {
        let config = TrainConfig { best, ..config() };
        let dir = dir.path().join(name);
        let expected = whole(&dir, &config);
        for (what, step) in
            [("evaluate", 3), ("evaluate", 6), ("sample", 2), ("sample", 6), ("evaluate", 7), ("sample", 7)]
        {
            let run = dir.join(format!("{what} {step}"));
            let mut hooks = Script::default();
            let list = if what == "sample" { &mut hooks.samples } else { &mut hooks.evaluations };
            list.push((step, Way::Interrupted));
            let stopped = train(&run, &config, &mut hooks).unwrap();
            assert_eq!((stopped.stop, stopped.steps), (StopReason::Requested, step));
            assert!(stopped.checkpoint.is_dir());
            let mut hooks = Script::default();
            let fitted = train(&run, &config, &mut hooks).unwrap();
            assert_eq!(
                hooks.called[..2],
                [
                    format!("begin {step}"),
                    match (what, step) {
                        // The model is written again, unless the evaluation decides which.
                        ("evaluate", 7) if name == "plain" => "save 7".to_owned(),
                        ("sample", 7) => "save 7".to_owned(),
                        _ => format!("{what} {step}"),
                    }
                ]
            );
            assert_eq!(fitted.model.bits(), expected.model.bits(), "{what} {step}");
            assert_eq!((fitted.best, fitted.evaluation), (expected.best.clone(), expected.evaluation.clone()));
            same_logs(&run, &dir.join("whole"));
        }
    }
}

#[test]
fn a_stop_before_the_first_step_leaves_a_run_that_begins() {
    let dir = tempfile::tempdir().unwrap();
    let config = TrainConfig { eval_on_start: true, ..config() };
    let expected = whole(dir.path(), &config);
    let run = dir.path().join("run");
    let mut hooks = Script { evaluations: vec![(0, Way::Interrupted)], ..Script::default() };
    let stopped = train(&run, &config, &mut hooks).unwrap();
    assert_eq!((stopped.stop, stopped.steps), (StopReason::Requested, 0));
    let fitted = train(&run, &config, &mut Script::default()).unwrap();
    assert_eq!(fitted.model.bits(), expected.model.bits());
    same_logs(&run, &dir.path().join("whole"));
}

#[test]
fn saving_by_time_changes_no_bit_and_makes_a_kill_cheap() {
    let dir = tempfile::tempdir().unwrap();
    let expected = whole(dir.path(), &config());
    // Any time at all is long enough for the first checkpoint.
    let often = TrainConfig { save_minutes: 1e-9, ..config() };
    let run = dir.path().join("run");
    let mut task = Regression::new(10);
    // The first forward pass of the third step fails.
    task.before_pass = Box::new(|passes, _| assert!(passes < 5, "killed"));
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let folder = RunDir::create(&run).unwrap();
        fit(&task, Bag::new(&Device::flex().autodiff()), &often, &folder, &mut Script::default())
    }));
    assert!(outcome.is_err());
    assert!(run.join("checkpoints/step-00000001").is_dir(), "the first step is saved");
    let mut hooks = Script::default();
    let fitted = train(&run, &often, &mut hooks).unwrap();
    assert_eq!(fitted.model.bits(), expected.model.bits());
    same_logs(&run, &dir.path().join("whole"));
    // Without, all would have been lost.
    let mut hooks = Script { run: Some(dir.path().join("never")), ..Script::default() };
    train(&dir.path().join("never"), &config(), &mut hooks).unwrap();
    assert!(hooks.called.iter().all(|call| call.contains('7') || call.ends_with("newest ")), "{:?}", hooks.called);
}

#[test]
#[cfg(target_os = "linux")]
fn logs_that_cannot_be_written_are_warnings() {
    let dir = tempfile::tempdir().unwrap();
    let expected = whole(dir.path(), &config());
    let run = dir.path().join("run");
    fs::create_dir(&run).unwrap();
    // A file where a folder is needed, and a device that is always full.
    fs::write(run.join(RunDir::TENSORBOARD), "").unwrap();
    for log in [RunDir::SAMPLES, RunDir::RESPONSES] {
        std::os::unix::fs::symlink("/dev/full", run.join(log)).unwrap();
    }
    let mut hooks = Script::default();
    let fitted = train(&run, &config(), &mut hooks).unwrap();
    assert_eq!(fitted.model.bits(), expected.model.bits());
    assert_eq!(metrics_without_times(&run), metrics_without_times(&dir.path().join("whole")));
    for log in [RunDir::TENSORBOARD, RunDir::SAMPLES, RunDir::RESPONSES] {
        let told = hooks.recorder.warnings.iter().filter(|warning| warning.contains(log)).count();
        assert_eq!(told, 1, "{log}: {:?}", hooks.recorder.warnings);
    }
}

#[test]
fn weights_that_are_not_finite_are_never_saved() {
    let dir = tempfile::tempdir().unwrap();
    for keep_last in [1, 2] {
        let path = dir.path().join(keep_last.to_string());
        // Divided by 1 − β₁ it is infinite in f32.
        let schedule = Schedule { kind: ScheduleKind::Constant, warmup: Warmup::Steps(0) };
        let bad = TrainConfig { learning_rate: 1e38, schedule, save_steps: Some(1), keep_last, ..config() };
        let error = train(&path, &bad, &mut Script::default()).unwrap_err();
        // Nothing was saved, as the first step already leaves no finite weights.
        assert!(matches!(error, Error::NonFiniteTensor { step: 1, .. }), "{error}");
        assert!(error.to_string().contains("no checkpoint has been saved yet"), "{error}");
        fs::remove_dir_all(&path).unwrap();

        // With a warm-up the first step moves nothing, and its checkpoint stays.
        let schedule = Schedule { warmup: Warmup::Steps(1), ..schedule };
        let error = train(&path, &TrainConfig { schedule, ..bad }, &mut Script::default()).unwrap_err().to_string();
        assert!(error.contains("after step 2 `") && error.contains("is not saved"), "{error}");
        let kept = path.join("checkpoints/step-00000001");
        assert!(error.ends_with(&format!("the newest good checkpoint is {} (step 1)", kept.display())), "{error}");
        assert!(kept.is_dir());
    }
}

#[test]
fn the_checkpoint_before_stays_until_the_newest_is_known_to_be_good() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run");
    let config = TrainConfig { save_steps: Some(1), keep_last: 1, ..config() };
    // The last example of the first epoch, which is of the third step.
    let row = Regression::new(10).order(0, 0)[9];
    let task = Regression::poisoned(10, row, Poison::Loss);
    let folder = RunDir::create(&path).unwrap();
    let error = fit(&task, Bag::new(&Device::flex().autodiff()), &config, &folder, &mut Script::default()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("step 3: the loss is not finite"), "{text}");
    // Step 2's weights are those that failed; whether they are at fault nothing tells.
    assert!(text.contains("(step 2), the one before it is of step 1"), "{text}");
    drop(folder);
    let kept: Vec<_> = fs::read_dir(path.join(RunDir::CHECKPOINTS)).unwrap().collect();
    assert_eq!(kept.len(), 2);
    // Later on one is enough.
    let fitted = train(&path, &config, &mut Script::default()).unwrap();
    assert_eq!(fitted.steps, 7);
    assert_eq!(fs::read_dir(path.join(RunDir::CHECKPOINTS)).unwrap().count(), 1);
}

#[test]
fn a_run_of_few_steps_is_warned_about() {
    let warned = |steps: u64, warmup: Warmup| {
        let schedule = Schedule { warmup, ..Schedule::default() };
        let config = TrainConfig { max_steps: Some(steps), schedule, ..config() };
        config.few_steps(&config.plan(10).unwrap()).unwrap_or_default()
    };
    assert!(warned(9, Warmup::Auto).contains("only 9 steps (10 examples in batches of 4)"));
    assert_eq!(warned(10, Warmup::Auto), "");
    let one = warned(1, Warmup::Ratio(0.1));
    assert!(one.contains("only 1 step, at a learning rate of 0") && one.contains("does not change"), "{one}");
    let two = warned(2, Warmup::Ratio(0.1));
    assert!(two.contains("only 2 steps, the first of them at a learning rate of 0"), "{two}");
}
