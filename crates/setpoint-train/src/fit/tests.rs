//! Every operation on the disk fails once.

use std::fs;

use burn::tensor::Device;

use super::*;
use crate::common::{Bag, Recorder, Regression, metrics_without_times};
use crate::storage::fault;
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
        assert_eq!(died, fired, "operation {operations}");
        if !died {
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
