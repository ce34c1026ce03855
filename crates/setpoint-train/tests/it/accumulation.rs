//! Gradient accumulation changes nothing.

use setpoint_train::{AdamWConfig, GradientSink, MicroBatch, NoHooks, RunDir, Task, TrainConfig, fit};

use crate::common::{Bag, Recorder, Regression};
use crate::devices;

fn config(micro_batch: MicroBatch) -> TrainConfig {
    TrainConfig {
        batch_size: 8,
        micro_batch,
        epochs: 2.0,
        learning_rate: 0.05,
        optimizer: AdamWConfig { weight_decay: 0.1, ..AdamWConfig::default() },
        ..TrainConfig::default()
    }
}

fn train(device: &burn::tensor::Device, micro_batch: MicroBatch) -> (Bag, u64) {
    let dir = tempfile::tempdir().unwrap();
    let run = RunDir::create(dir.path()).unwrap();
    let task = Regression::new(22); // 8, 8 and a partial batch of 6
    let fitted = fit(&task, Bag::new(device), &config(micro_batch), &run, &mut NoHooks).unwrap();
    assert_eq!(fitted.steps, 6);
    (fitted.model, task.passes.get())
}

#[test]
fn one_by_eight_is_eight_by_one_is_two_by_four() {
    for device in devices() {
        let (whole, passes) = train(&device, MicroBatch::Examples(8));
        assert_eq!(passes, 6);
        let whole: Vec<f32> = whole.bits().into_iter().map(f32::from_bits).collect();
        let start: Vec<f32> = Bag::new(&device).bits().into_iter().map(f32::from_bits).collect();
        let moved = whole.iter().zip(&start).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(moved > 0.05, "the model must have moved, by {moved}");
        for (split, expected_passes) in
            [(MicroBatch::Examples(1), 2 * 22), (MicroBatch::Examples(4), 2 * (2 + 2 + 2)), (MicroBatch::Tokens(9), 0)]
        {
            let (model, passes) = train(&device, split);
            if expected_passes > 0 {
                assert_eq!(passes, expected_passes, "{split:?}");
            }
            for (found, expected) in model.bits().into_iter().map(f32::from_bits).zip(&whole) {
                assert!((found - expected).abs() < 1e-5, "{split:?}: {found} {expected}");
            }
        }
    }
}

#[test]
fn gradients_of_the_parts_add_up_to_that_of_the_whole() {
    for device in devices() {
        let task = Regression::new(8);
        let model = Bag::new(&device);
        let weight: f64 = (0..8).map(|example| task.weight(example)).sum();
        let norm = |split: &[&[usize]]| {
            let mut sink = GradientSink::new();
            for examples in split {
                let forward = task.forward(&model, examples, weight).unwrap();
                sink.accept("", &model, &mut forward.loss.backward());
            }
            assert_eq!(sink.len(), 4);
            sink.norm()
        };
        let whole = norm(&[&[0, 1, 2, 3, 4, 5, 6, 7]]);
        let parts = norm(&[&[3, 0], &[1, 2, 4, 5, 6], &[7]]);
        assert!(whole > 0.1);
        assert!((whole - parts).abs() < 1e-6 * whole, "{whole} {parts}");
    }
}

#[test]
fn an_example_without_weight_is_left_out_whatever_the_split() {
    let device = devices()[0].clone();
    let norm = |micro_batch: MicroBatch| {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::create(dir.path()).unwrap();
        let mut task = Regression::new(8);
        // Nothing could be computed for it: it has no tokens.
        task.examples[5].0.clear();
        let config = TrainConfig { max_steps: Some(1), ..config(micro_batch) };
        let mut hooks = Recorder::default();
        fit(&task, Bag::new(&device), &config, &run, &mut hooks).unwrap();
        assert_eq!(hooks.reports[0].micro_batches as u64, task.passes.get());
        (task.passes.get(), hooks.reports[0].grad_norm)
    };
    let (passes, alone) = norm(MicroBatch::Examples(1));
    assert_eq!(passes, 7);
    let (passes, together) = norm(MicroBatch::Examples(8));
    assert_eq!(passes, 1);
    assert!((alone - together).abs() < 1e-6 * together, "{alone} {together}");
}
