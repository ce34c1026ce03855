//! The dropout of an adapter in training: its masks follow from seed, step and text, whatever the work is cut into.

use std::path::PathBuf;
use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use setpoint_ops::{DropoutMask, dropout, extend_key};
use setpoint_train::{
    AdamWConfig, DeviceGroup, Fitted, Hooks, MicroBatch, PromptLogps, RunDir, Sequence, StepReport, StopReason,
    SumOnFirst, Task, TrainConfig, Trainable, fit_on, score_sequences,
};
use setpoint_transformer::lora::{LoraConfig, MaskSeed, attach};
use setpoint_transformer::{CausalLm, LoadOptions, Recompute};

use crate::seeded::Seeded;
use crate::{devices, graphics, ndarray};

/// A prompt with three responses, and rows of other lengths.
fn task() -> Seeded {
    let sequence = |prompt: &[u32], response: &[u32]| Sequence {
        ids: [prompt, response].concat(),
        prompt_len: prompt.len(),
        scored_from: 1,
    };
    let prompt = [3, 17, 5, 44, 9];
    let sequences = vec![
        sequence(&prompt, &[7, 8, 2]),
        sequence(&prompt, &[7, 1, 1, 2]),
        sequence(&prompt, &[2]),
        sequence(&[3, 17, 6], &[20, 21, 22, 23, 24, 2]),
        sequence(&[9], &[8, 7, 6, 2]),
        sequence(&[3, 17, 5, 44, 9, 10, 11], &[12, 2]),
    ];
    let seeds = vec![-1.0, 0.5, -0.25, 1.0, -2.0, 0.75];
    Seeded { sequences, seeds, prompt: PromptLogps::Skip }
}

fn config() -> TrainConfig {
    TrainConfig {
        batch_size: 6,
        micro_batch: MicroBatch::Examples(6),
        max_steps: Some(5),
        learning_rate: 0.02,
        save_steps: Some(1),
        ..TrainConfig::default()
    }
}

fn model(dropout: Option<f64>, recompute: Recompute, device: &Device) -> CausalLm {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/transformer/llama_kv2");
    let (base, _) = CausalLm::load(&dir, &LoadOptions::default(), &device.clone().autodiff()).unwrap();
    let mut model = attach(base, &LoraConfig { rank: 4, dropout, ..LoraConfig::default() }, 7).unwrap();
    model.model.recompute = recompute;
    model
}

/// The log-probabilities of the task's responses, which nothing is dropped from.
fn scores(model: &CausalLm) -> Vec<f64> {
    let scored = score_sequences(model, &task().sequences, 1000, &mut |_| ()).unwrap();
    scored.into_iter().map(|scored| scored.response_logp).collect()
}

/// Writes down the losses, and stops.
#[derive(Default)]
struct Losses {
    losses: Vec<f64>,
    stop_after: Option<u64>,
}

impl Hooks<CausalLm> for Losses {
    fn progress(&mut self, report: &StepReport) {
        self.losses.push(report.loss);
    }

    fn should_stop(&mut self) -> bool {
        self.stop_after.is_some_and(|steps| self.losses.len() as u64 >= steps)
    }
}

/// A way to compute the steps.
struct Way {
    dropout: Option<f64>,
    devices: Vec<Device>,
    recompute: Recompute,
    config: TrainConfig,
}

impl Default for Way {
    fn default() -> Self {
        Self { dropout: Some(0.4), devices: vec![Device::flex()], recompute: Recompute::None, config: config() }
    }
}

impl Way {
    fn go(&self, run: &RunDir, hooks: &mut Losses) -> Fitted<CausalLm> {
        let group = DeviceGroup::new(self.devices.clone(), SumOnFirst);
        let model = model(self.dropout, self.recompute, &self.devices[0]);
        fit_on(&group, &task(), model, &self.config, run, hooks).unwrap()
    }

    /// The losses of the steps, and the scores of the trained model.
    fn train(&self) -> (Vec<f64>, Vec<f64>) {
        let dir = tempfile::tempdir().unwrap();
        let mut hooks = Losses::default();
        let fitted = self.go(&RunDir::create(dir.path()).unwrap(), &mut hooks);
        (hooks.losses, scores(&fitted.model))
    }
}

#[track_caller]
fn assert_close((losses, scores): &(Vec<f64>, Vec<f64>), expected: &(Vec<f64>, Vec<f64>), what: &str) {
    for (found, expected) in losses.iter().zip(&expected.0).chain(scores.iter().zip(&expected.1)) {
        assert!((found - expected).abs() < 1e-4 * (1.0 + expected.abs()), "{what}: {found} against {expected}");
    }
}

#[test]
fn masks_do_not_depend_on_micro_batches_devices_or_recomputed_blocks() {
    let expected = Way::default().train();
    let without = Way { dropout: None, ..Way::default() }.train();
    let other_seed = Way { config: TrainConfig { seed: 1, ..config() }, ..Way::default() }.train();
    // The first step has no trace of dropout, because B is 0.
    assert_eq!(expected.0[0], without.0[0]);
    // Seeded has one order for all seeds.
    for (other, what) in [(&without, "without dropout"), (&other_seed, "another seed")] {
        let moved = expected.0[4] - other.0[4];
        assert!(moved.abs() > 2e-3, "{what}: {moved}");
    }
    let in_micro_batches = |size| Way { config: TrainConfig { micro_batch: size, ..config() }, ..Way::default() };
    let two = |other| Way { devices: vec![Device::flex(), other], ..Way::default() };
    let ways = [
        (in_micro_batches(MicroBatch::Examples(1)), "one by one"),
        (in_micro_batches(MicroBatch::Examples(2)), "two by two"),
        (in_micro_batches(MicroBatch::Tokens(17)), "by tokens"),
        (Way { recompute: Recompute::Block, ..Way::default() }, "recomputed"),
        (Way { recompute: Recompute::Block, ..in_micro_batches(MicroBatch::Examples(4)) }, "recomputed, by fours"),
        (two(Device::flex()), "two devices"),
        (two(ndarray().without_autodiff()), "two kinds of devices"),
        (Way { devices: vec![ndarray().without_autodiff()], ..Way::default() }, "ndarray"),
    ];
    for (way, what) in ways {
        assert_close(&way.train(), &expected, what);
    }
}

#[test]
fn parameters_that_move_in_the_backward_pass_are_moved_by_the_same_masks() {
    let [found, expected] = [true, false].map(|in_backward| {
        let optimizer = AdamWConfig { in_backward, ..config().optimizer };
        let config = TrainConfig { max_grad_norm: Some(0.0), optimizer, ..config() };
        Way { recompute: Recompute::Block, config, ..Way::default() }.train()
    });
    assert_close(&found, &expected, "in backward");
}

/// A GPU makes the masks itself.
#[test]
fn every_device_drops_the_elements_that_the_mask_names() {
    let [rows, columns] = [40, 70];
    // The words of the greater rate do not fit a signed integer.
    for rate in [0.3, 0.8] {
        let keys: Arc<[u64]> = (0..rows as u64).map(|row| extend_key(3, row)).collect();
        let mask = DropoutMask::new(keys, rate).for_matrix(5);
        let factor = |i: usize| if mask.keeps(i / columns, i % columns) { mask.scale() as f32 } else { 0.0 };
        let expected: Vec<f32> = (0..rows * columns).map(factor).collect();
        for device in devices().into_iter().chain(graphics()) {
            let x = Tensor::<2>::ones([rows, columns], &device).require_grad();
            let y = dropout(x.clone(), &mask);
            let gradient = x.grad(&y.clone().sum().backward()).unwrap();
            for found in [y.inner(), gradient] {
                let found: Vec<f32> = found.into_data().try_into_vec().unwrap();
                let same = |(found, expected): (&f32, &f32)| (found - expected).abs() <= 1e-6 * expected;
                assert!(found.iter().zip(&expected).all(same), "{device:?}, {rate}");
            }
        }
    }
}

#[test]
fn a_rate_of_zero_changes_no_bit() {
    assert_eq!(Way { dropout: Some(0.0), ..Way::default() }.train(), Way { dropout: None, ..Way::default() }.train());
}

#[test]
fn an_interrupted_run_ends_with_the_bits_of_one_that_was_not() {
    for devices in [vec![Device::flex()], vec![Device::flex(); 2]] {
        let way = Way { devices, ..Way::default() };
        let expected = way.train();
        let dir = tempfile::tempdir().unwrap();
        let mut first = Losses { stop_after: Some(3), ..Losses::default() };
        let run = RunDir::create(dir.path()).unwrap();
        assert_eq!(way.go(&run, &mut first).stop, StopReason::Requested);
        drop(run);
        let mut rest = Losses::default();
        let fitted = way.go(&RunDir::open(dir.path()).unwrap(), &mut rest);
        assert_eq!(([first.losses, rest.losses].concat(), scores(&fitted.model)), expected);
    }
}

/// A probe of a step and its loss see the same masks: the log-probabilities are equal although their passes are packed in other ways.
#[test]
fn scores_of_a_step_are_those_of_its_loss() {
    let way = Way::default();
    let dir = tempfile::tempdir().unwrap();
    let trained = way.go(&RunDir::create(dir.path()).unwrap(), &mut Losses::default()).model;
    let at_step = trained.at_step(MaskSeed::of_step(0, 9)).unwrap();
    let task = task();
    let forward = task.forward(&at_step, &[0, 1, 2, 3, 4, 5], &Default::default()).unwrap();
    let found = scores(&at_step);
    for ((loss, seed), logp) in forward.numbers.read().per_example.iter().zip(&task.seeds).zip(&found) {
        assert!((f64::from(loss / seed) - logp).abs() < 1e-4, "{} against {logp}", loss / seed);
    }
    assert!(found.iter().zip(scores(&trained)).all(|(dropped, whole)| (dropped - whole).abs() > 1e-5));
}
