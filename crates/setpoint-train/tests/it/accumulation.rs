//! Gradient accumulation changes nothing.

use std::collections::HashMap;
use std::sync::Mutex;

use setpoint_train::{
    AdamWConfig, BatchContext, DeviceGroup, Error, Forward, GradientSink, MicroBatch, NoHooks, RunDir, SumOnFirst,
    Task, TrainConfig, fit, fit_on,
};

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
    (fitted.model, task.passes.into_inner())
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

/// Notes which survey each pass was given.
struct Surveyed {
    inner: Regression,
    /// Examples of each survey, and of each pass with the survey it was given.
    surveys: Mutex<Vec<Vec<usize>>>,
    passes: Mutex<Vec<(Vec<usize>, BatchContext<Survey>)>>,
}

/// Number of examples of a batch, and the probe of each.
#[derive(Clone, Default)]
struct Survey {
    examples: usize,
    probes: HashMap<usize, Probe>,
}

/// The values of an example that only the model gives.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
struct Probe(f64);

impl Task for Surveyed {
    type Model = Bag;
    type Probe = Probe;
    type Survey = Survey;

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

    fn probe(&self, _: &Bag, examples: &[usize], _: MicroBatch) -> Result<Vec<Probe>, Error> {
        Ok(examples.iter().map(|&e| Probe(e as f64 + 0.5)).collect())
    }

    fn survey(&self, batch: &[usize], probes: &[Probe]) -> Result<Survey, Error> {
        // In the order of the batch, whichever device was asked.
        assert_eq!(probes, batch.iter().map(|&e| Probe(e as f64 + 0.5)).collect::<Vec<_>>());
        self.surveys.lock().unwrap().push(batch.to_vec());
        let probes = batch.iter().copied().zip(probes.iter().copied()).collect();
        Ok(Survey { examples: batch.len(), probes })
    }

    fn forward(&self, model: &Bag, examples: &[usize], batch: &BatchContext<Survey>) -> Result<Forward, Error> {
        self.passes.lock().unwrap().push((examples.to_vec(), batch.clone()));
        let BatchContext { denominator, progress, .. } = *batch;
        self.inner.forward(model, examples, &BatchContext { denominator, progress, survey: () })
    }
}

#[test]
fn every_pass_of_a_step_is_given_the_survey_of_its_whole_batch() {
    let device = devices()[0].clone();
    for count in [1, 2] {
        let group = DeviceGroup::new(vec![device.clone(); count], SumOnFirst);
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::create(dir.path()).unwrap();
        let task = Surveyed { inner: Regression::new(22), surveys: Mutex::default(), passes: Mutex::default() };
        let config = TrainConfig { epochs: 1.0, ..config(MicroBatch::Examples(3)) };
        fit_on(&group, &task, Bag::new(&device), &config, &run, &mut NoHooks).unwrap();
        let (surveys, passes) = (task.surveys.lock().unwrap(), task.passes.lock().unwrap());
        assert_eq!(surveys.iter().map(Vec::len).collect::<Vec<_>>(), [8, 8, 6], "one a step");
        if count == 1 {
            assert_eq!(passes.len(), 3 + 3 + 2);
        }
        let mut seen: Vec<usize> = vec![];
        for (examples, context) in &*passes {
            // Each example is in one batch of the epoch.
            let batch = surveys.iter().find(|batch| batch.contains(&examples[0])).unwrap();
            assert!(examples.iter().all(|example| batch.contains(example)));
            let Survey { examples: counted, probes } = &context.survey;
            assert_eq!((*counted, probes.len()), (batch.len(), batch.len()));
            assert!(batch.iter().all(|e| probes[e] == Probe(*e as f64 + 0.5)));
            assert_eq!(context.denominator, batch.iter().map(|&e| task.inner.weight(e)).sum::<f64>());
            let step = surveys.iter().position(|other| other == batch).unwrap();
            assert_eq!(context.progress, step as f64 / 3.0);
            seen.extend(examples);
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..22).collect::<Vec<_>>());
    }
}

#[test]
fn gradients_of_the_parts_add_up_to_that_of_the_whole() {
    for device in devices() {
        let task = Regression::new(8);
        let model = Bag::new(&device);
        let denominator: f64 = (0..8).map(|example| task.weight(example)).sum();
        let batch = BatchContext { denominator, ..BatchContext::default() };
        let norm = |split: &[&[usize]]| {
            let mut sink = GradientSink::new();
            for examples in split {
                let forward = task.forward(&model, examples, &batch).unwrap();
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
        let passes = task.passes.into_inner();
        assert_eq!(hooks.reports[0].micro_batches as u64, passes);
        (passes, hooks.reports[0].grad_norm)
    };
    let (passes, alone) = norm(MicroBatch::Examples(1));
    assert_eq!(passes, 7);
    let (passes, together) = norm(MicroBatch::Examples(8));
    assert_eq!(passes, 1);
    assert!((alone - together).abs() < 1e-6 * together, "{alone} {together}");
}
