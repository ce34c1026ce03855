//! Checkpoints without the optimizer.

use std::fs;

use burn::tensor::Device;
use setpoint_train::{Error, Fitted, MicroBatch, RunDir, TrainConfig, fit};

use crate::common::{Bag, Recorder, Regression};

fn train(run: &RunDir, save_only_model: bool, stop_after: Option<u64>) -> Result<Fitted<Bag>, Error> {
    let config = TrainConfig {
        batch_size: 4,
        micro_batch: MicroBatch::Examples(4),
        max_steps: Some(4),
        learning_rate: 0.03,
        save_steps: Some(1),
        save_only_model,
        ..TrainConfig::default()
    };
    let mut hooks = Recorder { stop_after, ..Recorder::default() };
    fit(&Regression::new(10), Bag::new(&Device::flex().autodiff()), &config, run, &mut hooks)
}

#[test]
fn a_run_cannot_go_on_without_its_optimizer() {
    let dir = tempfile::tempdir().unwrap();
    let run = RunDir::create(dir.path()).unwrap();
    let stopped = train(&run, true, Some(2)).unwrap();
    let names = |path: &std::path::Path| {
        let mut names: Vec<String> =
            fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&stopped.checkpoint), ["model.safetensors", "state.json"]);
    for save_only_model in [true, false] {
        let message = train(&run, save_only_model, None).unwrap_err().to_string();
        assert!(
            message.contains("step-00000002 holds no optimizer, as `train.save_only_model` asked for"),
            "{message}"
        );
    }
}

#[test]
fn a_finished_run_needs_no_optimizer() {
    let dir = tempfile::tempdir().unwrap();
    let [with, without] = ["with", "without"].map(|name| RunDir::create(dir.path().join(name)).unwrap());
    let expected = train(&with, false, None).unwrap().model.bits();
    assert_eq!(train(&without, true, None).unwrap().model.bits(), expected);
    assert_eq!(train(&without, true, None).unwrap().model.bits(), expected, "its model is read again");
    // A run may begin to leave the optimizer out, or to keep it, whenever it goes on.
    let later = RunDir::create(dir.path().join("later")).unwrap();
    train(&later, false, Some(2)).unwrap();
    assert_eq!(train(&later, true, None).unwrap().model.bits(), expected);
}
