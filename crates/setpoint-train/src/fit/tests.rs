//! Every operation on the disk fails once.

use std::fs;

use burn::tensor::Device;
use setpoint_files::fault;

use super::*;
use crate::common::{Bag, Recorder, Regression, metrics_without_times};
use crate::{AdamWConfig, BestConfig, MicroBatch};

fn config() -> TrainConfig {
    TrainConfig {
        batch_size: 4,
        micro_batch: MicroBatch::Examples(3),
        max_steps: Some(3),
        learning_rate: 0.03,
        optimizer: AdamWConfig { weight_decay: 0.1, ..AdamWConfig::default() },
        logging_steps: 2,
        eval_steps: Some(2),
        save_steps: Some(1),
        keep_last: 1,
        best: Some(BestConfig {
            metric: "eval_score".into(),
            greater_is_better: true,
            restore: false,
            patience: None,
            min_delta: 0.0,
        }),
        ..TrainConfig::default()
    }
}

fn train(path: &std::path::Path) -> Result<Fitted<Bag>, Error> {
    let run = if path.exists() { RunDir::open(path)? } else { RunDir::create(path)? };
    let model = Bag::new(&Device::flex().autodiff());
    fit(&Regression::new(10), model, &config(), &run, &mut Recorder::default())
}

#[test]
fn a_process_that_dies_at_any_operation_on_the_disk_resumes_exactly() {
    fault::skip_syncs();
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    let expected = train(&whole).unwrap();
    let mut operations = 0;
    loop {
        let path = dir.path().join(operations.to_string());
        fault::after(Some(operations));
        let died = train(&path).is_err();
        let fired = fault::fired();
        fault::after(None);
        if !fired {
            assert!(!died);
            break;
        }
        let resumed = train(&path).unwrap();
        assert_eq!(resumed.model.bits(), expected.model.bits(), "operation {operations}");
        assert_eq!(resumed.best, expected.best, "operation {operations}");
        assert_eq!(metrics_without_times(&path), metrics_without_times(&whole), "operation {operations}");
        let responses = |path: &std::path::Path| fs::read_to_string(path.join(RunDir::RESPONSES)).unwrap();
        assert_eq!(responses(&path), responses(&whole), "operation {operations}");
        let files = |path: &std::path::Path| {
            let mut names: Vec<_> =
                fs::read_dir(path.join(RunDir::CHECKPOINTS)).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(files(&path), files(&whole), "operation {operations}");
        operations += 1;
    }
    // Three steps, of which the second and the last are evaluated.
    assert_eq!(fs::read_to_string(whole.join(RunDir::RESPONSES)).unwrap().lines().count(), 5);
    // Three checkpoints of two files and a manifest each, and the logs.
    assert!(operations > 50, "{operations}");
}

#[test]
fn a_single_operation_that_fails_ends_the_run_or_is_told_and_costs_nothing() {
    fault::skip_syncs();
    let dir = tempfile::tempdir().unwrap();
    let expected = train(&dir.path().join("whole")).unwrap().model.bits();
    let mut told = 0;
    for operations in 0.. {
        let path = dir.path().join(operations.to_string());
        let run = RunDir::create(&path);
        fault::once_after(operations);
        let mut hooks = Recorder::default();
        let model = Bag::new(&Device::flex().autodiff());
        let outcome = fit(&Regression::new(10), model, &config(), &run.unwrap(), &mut hooks);
        let fired = fault::fired();
        fault::after(None);
        if !fired {
            assert!(operations > 50, "{operations}");
            break;
        }
        match outcome {
            Ok(fitted) => {
                assert_eq!(fitted.model.bits(), expected, "operation {operations}");
                assert!(hooks.warnings.iter().any(|warning| warning.contains("injected")), "operation {operations}");
                told += 1;
            }
            Err(error) => assert!(error.to_string().contains("injected"), "{error}"),
        }
        // Whatever happened, the folder can be gone on with.
        assert_eq!(train(&path).unwrap().model.bits(), expected, "operation {operations}");
    }
    assert!(told > 5, "{told}");
}

#[test]
fn a_disk_without_room_for_two_checkpoints_is_refused_before_the_first_step() {
    let dir = tempfile::tempdir().unwrap();
    let run = RunDir::create(dir.path().join("run")).unwrap();
    let model = || Bag::new(&Device::flex().autodiff());
    let start = |config: &TrainConfig, free: u64| {
        fault::leave(Some(free));
        let mut hooks = Recorder { stop_after: Some(1), ..Recorder::default() };
        let outcome = fit(&Regression::new(10), model(), config, &run, &mut hooks);
        fault::leave(None);
        (outcome, hooks.reports.len())
    };
    // 7 · 4 + 4 · 4 + 4 + 4 parameters in f32, with two moments in a checkpoint.
    let (weights, checkpoint) = (4 * 52, 12 * 52);
    let plain = TrainConfig { best: None, ..config() };
    for (config, needed) in [(&plain, 2 * checkpoint + weights), (&config(), 3 * checkpoint + weights)] {
        let (outcome, steps) = start(config, needed - 1);
        let text = outcome.unwrap_err().to_string();
        assert!(text.contains(&format!("{} bytes free", needed - 1)), "{text}");
        assert!(text.contains(&format!("needs {needed} bytes")) && text.contains("run has"), "{text}");
        assert_eq!(steps, 0);
    }
    assert_eq!(start(&plain, 2 * checkpoint + weights).1, 1);
    // A run that goes on has one of the two already.
    assert!(start(&plain, checkpoint + weights - 1).0.is_err());
    assert!(start(&plain, checkpoint + weights).0.is_ok());
}

#[test]
fn a_disk_that_becomes_full_makes_room_by_an_older_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run");
    let config = TrainConfig { best: None, keep_last: 2, ..config() };
    let run = RunDir::create(&path).unwrap();
    let mut hooks = Filling { recorder: Recorder::default(), at: 3 };
    let fitted = fit(&Regression::new(10), Bag::new(&Device::flex().autodiff()), &config, &run, &mut hooks).unwrap();
    assert_eq!(fitted.steps, 3);
    assert!(hooks.recorder.warnings.iter().any(|w| w.contains("the disk is full")), "{:?}", hooks.recorder.warnings);
    let kept = run.checkpoints().unwrap();
    assert!(kept.len() == 2 && kept[0].ends_with("step-00000002"), "{kept:?}");
}

/// Fills the disk after a step: the next file does not fit.
struct Filling {
    recorder: Recorder,
    at: u64,
}

impl Hooks<Bag> for Filling {
    fn evaluate(&mut self, model: &Bag, step: u64) -> Result<crate::Measurement, Error> {
        self.recorder.evaluate(model, step)
    }
    fn progress(&mut self, report: &crate::StepReport) {
        if report.step == self.at {
            fault::fill();
        }
    }
    fn warning(&mut self, message: &str) {
        self.recorder.warning(message);
    }
}
