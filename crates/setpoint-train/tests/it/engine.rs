//! The fast path against the simple one: packed batches, shared prompts and backward by blocks give the gradients of a whole graph over
//! padded rows; parameters that move inside the backward pass move as they would after it; several devices compute what one does.

use std::path::{Path, PathBuf};

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, FloatDType, Int, Tensor, TensorData, activation};
use setpoint_train::{
    AdamWConfig, DeviceGroup, Fitted, GradientSink, Hooks, PromptLogps, RunDir, Sequence, StepReport, SumOnFirst,
    TrainConfig, backward, fit_on, sequence_logps,
};
use setpoint_transformer::{CausalLm, LoadOptions, ModelConfig, Recompute};

use crate::oracle::hidden_states;
use crate::seeded::Seeded;
use crate::{devices, graphics};

/// Two prompts with three and two responses, one of a single token.
fn sequences() -> Vec<Sequence> {
    let (first, second) = ([1, 5, 9, 3], [1, 8, 2, 2, 7, 4]);
    let of = |prompt: &[u32], response: &[u32]| Sequence {
        ids: [prompt, response].concat(),
        prompt_len: prompt.len(),
        scored_from: 2,
    };
    vec![
        of(&first, &[4, 4, 6, 2]),
        of(&first, &[7, 2]),
        of(&first, &[2]),
        of(&second, &[3, 5, 2]),
        of(&second, &[9, 9, 9, 1, 2]),
    ]
}

/// Two prompts with four responses and one, for a model whose texts of more than 20 tokens are long: texts of 19, 26, 20, 21 and 23 tokens.
fn sequences_at_the_switch() -> Vec<Sequence> {
    let ids =
        |length: usize, step: u32| -> Vec<u32> { (0..length as u32).map(|i| 1 + (step * i + i * i) % 95).collect() };
    let (first, second) = (ids(17, 7), ids(21, 5));
    let of = |prompt: &[u32], response: usize| Sequence {
        ids: [prompt, &ids(response, 11)].concat(),
        prompt_len: prompt.len(),
        scored_from: 2,
    };
    vec![of(&first, 2), of(&first, 9), of(&first, 3), of(&first, 4), of(&second, 2)]
}

const SEEDS: [f32; 5] = [0.7, -1.1, 0.4, 0.0, -0.6];
const PROMPT_SEEDS: [f32; 5] = [0.2, 0.3, -0.5, 0.1, 0.9];

fn weights(values: [f32; 5], device: &Device) -> Tensor<1> {
    Tensor::from_data(TensorData::from(values), device)
}

/// The whole graph over padded rows: log-softmax of all logits, with the prompts' log-probabilities in the loss or without.
fn reference(
    model: &CausalLm,
    config: &ModelConfig,
    sequences: &[Sequence],
    prompt: PromptLogps,
) -> (f32, GradientSink) {
    let device = model.decoder().device();
    let rows: Vec<&[u32]> = sequences.iter().map(|s| s.ids.as_slice()).collect();
    let hidden = hidden_states(model.decoder(), config, &rows);
    let mut loss = Tensor::<1>::zeros([1], &device.clone().without_autodiff()).autodiff();
    for (i, sequence) in sequences.iter().enumerate() {
        let n = sequence.ids.len();
        // [b, s, d] -> [n - 1, d] -> [n - 1, v]
        let states = hidden.clone().narrow(0, i, 1).squeeze_dim::<2>(0).narrow(0, 0, n - 1);
        let all = activation::log_softmax(model.logits(states).cast(FloatDType::F32), 1);
        let next: Vec<i32> = sequence.ids[1..].iter().map(|&id| id as i32).collect();
        let next = Tensor::<1, Int>::from_data(next.as_slice(), &device.clone().without_autodiff());
        let logps = all.gather(1, next.reshape([n - 1, 1])).reshape([n - 1]);
        let sum = |from: usize, to: usize| logps.clone().narrow(0, from - 1, to - from).sum();
        loss = loss + sum(sequence.prompt_len, n).mul_scalar(SEEDS[i]);
        if prompt == PromptLogps::Tracked {
            loss = loss + sum(sequence.scored_from, sequence.prompt_len).mul_scalar(PROMPT_SEEDS[i]);
        }
    }
    let value = loss.clone().into_scalar::<f32>();
    let mut sink = GradientSink::new();
    sink.accept("", model, &mut loss.backward());
    (value, sink)
}

/// The engine's path.
fn packed(model: &CausalLm, sequences: &[Sequence], recompute: Recompute, prompt: PromptLogps) -> (f32, GradientSink) {
    let mut model = model.clone();
    model.model.recompute = recompute;
    let found = sequence_logps(&model, sequences, prompt).unwrap();
    assert!(found.tape.is_some());
    let plain = model.decoder().device().without_autodiff();
    let weights = |values| weights(values, &plain).autodiff();
    let loss = (found.response * weights(SEEDS)).sum() + (found.prompt * weights(PROMPT_SEEDS)).sum();
    let value = loss.clone().into_scalar::<f32>();
    let mut sink = GradientSink::new();
    backward(&model, "model", loss, found.tape, &mut sink);
    (value, sink)
}

fn checkpoints() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/transformer");
    let mut found: Vec<PathBuf> = std::fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("config.json").is_file())
        .collect();
    found.sort();
    assert!(found.len() >= 8, "{found:?}");
    found
}

#[test]
fn packed_gradients_equal_those_of_the_whole_graph() {
    packed_equals_whole(&checkpoints(), &sequences());
}

#[test]
fn texts_on_both_sides_of_the_switch_have_the_gradients_of_separate_texts() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/transformer/phi3_longrope_switch");
    packed_equals_whole(&[folder], &sequences_at_the_switch());
}

fn packed_equals_whole(folders: &[PathBuf], sequences: &[Sequence]) {
    const BOTH: &[Recompute] = &[Recompute::None, Recompute::Block];
    // On a software driver, each mode with one kind of recomputation.
    let ways = |is_graphics: bool| match is_graphics {
        false => [(PromptLogps::Tracked, BOTH), (PromptLogps::Skip, BOTH)],
        true => [(PromptLogps::Tracked, &BOTH[..1]), (PromptLogps::Skip, &BOTH[1..])],
    };
    let all = devices().into_iter().map(|device| (device, ways(false)));
    for (device, ways) in all.chain(graphics().map(|device| (device, ways(true)))) {
        for dir in folders {
            let options = LoadOptions { dtype: Some(FloatDType::F32), ..LoadOptions::default() };
            let Ok((model, config)) = CausalLm::load(dir, &options, &device.clone().autodiff()) else {
                panic!("{} loads", dir.display());
            };
            // Where prompts are skipped, the last layer computes few of their tokens.
            for (prompt, kinds) in ways {
                let (expected, gradients) = reference(&model, &config, sequences, prompt);
                let values = |sink: &GradientSink, path: &str| -> Vec<f64> {
                    sink.gradient(path).unwrap().to_data().iter().collect()
                };
                let expected_gradients: Vec<_> =
                    gradients.paths().map(|path| (path.to_owned(), values(&gradients, path))).collect();
                for &recompute in kinds {
                    let (found, sink) = packed(&model, sequences, recompute, prompt);
                    let name = format!("{}, {prompt:?}, {recompute:?}, {device:?}", dir.display());
                    assert!((found - expected).abs() < 1e-5 * (1.0 + expected.abs()), "{name}: {found} {expected}");
                    assert_eq!(sink.len(), gradients.len(), "{name}: parameters with a gradient");
                    for (path, expected) in &expected_gradients {
                        let found = values(&sink, path);
                        let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
                        let size = norm(&mut expected.iter().copied());
                        let error = norm(&mut found.iter().zip(expected).map(|(a, b)| a - b));
                        assert!(error <= 1e-5 * size + 1e-7, "{name}, {path}: {error:e} of {size:e}");
                    }
                }
            }
        }
    }
}

/// The files of parameters and optimizer after four steps, and the gradient norm of each step.
fn trained(model: &CausalLm, in_backward: bool) -> ([Vec<u8>; 2], Vec<f64>) {
    let optimizer = AdamWConfig { weight_decay: 0.1, in_backward, ..AdamWConfig::default() };
    let home = DeviceGroup::single(model.decoder().device());
    let (fitted, norms, _dir) = fitted(model, &home, Recompute::Block, optimizer);
    let file = |name: &str| std::fs::read(fitted.checkpoint.join(name)).unwrap();
    ([file("model.safetensors"), file("optimizer.safetensors")], norms)
}

fn fitted(
    model: &CausalLm,
    devices: &DeviceGroup,
    recompute: Recompute,
    optimizer: AdamWConfig,
) -> (Fitted<CausalLm>, Vec<f64>, tempfile::TempDir) {
    struct Norms(Vec<f64>);
    impl Hooks<CausalLm> for Norms {
        fn progress(&mut self, report: &StepReport) {
            self.0.push(report.grad_norm);
        }
    }
    let mut model = model.clone();
    model.model.recompute = recompute;
    let config = TrainConfig {
        max_steps: Some(4),
        batch_size: 5,
        learning_rate: 1e-3,
        max_grad_norm: Some(0.0),
        optimizer,
        ..TrainConfig::default()
    };
    let dir = tempfile::tempdir().unwrap();
    let run = RunDir::create(dir.path().join("run")).unwrap();
    let mut norms = Norms(vec![]);
    let task = Seeded { sequences: sequences(), seeds: SEEDS.to_vec(), prompt: PromptLogps::Tracked };
    let fitted = fit_on(devices, &task, model, &config, &run, &mut norms).unwrap();
    (fitted, norms.0, dir)
}

/// All parameters, one after another.
fn flat(model: &CausalLm) -> Vec<f64> {
    struct Values(Vec<f64>);
    impl ModuleVisitor for Values {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0.extend(param.val().to_data().iter::<f64>());
        }
    }
    let mut values = Values(vec![]);
    model.visit(&mut values);
    values.0
}

#[test]
fn several_devices_move_a_model_as_one_does() {
    let [flex, ndarray] = devices();
    for dir in checkpoints() {
        let options = LoadOptions { dtype: Some(FloatDType::F32), ..LoadOptions::default() };
        let (model, _) = CausalLm::load(&dir, &options, &flex).unwrap();
        let start = flat(&model);
        // Each of four steps rounds a weight to f32.
        let rounding = 4.0 * f64::from(f32::EPSILON) / 2.0 * start.iter().map(|x| x.abs()).fold(0.0, f64::max);
        for (recompute, in_backward) in [(Recompute::None, false), (Recompute::Block, false), (Recompute::Block, true)]
        {
            // A large ε makes the step a multiple of the gradient, so that rounding is not blown up where the gradient is small.
            let optimizer = AdamWConfig { eps: 1.0, in_backward, ..AdamWConfig::default() };
            let (one, norms, _dir) = fitted(&model, &DeviceGroup::single(flex.clone()), recompute, optimizer);
            let one = flat(&one.model);
            let moved = one.iter().zip(&start).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            for others in [vec![flex.clone()], vec![ndarray.clone(), flex.clone()]] {
                let group = DeviceGroup::new([vec![flex.clone()], others].concat(), SumOnFirst);
                let name = format!("{}, {recompute:?}, in_backward {in_backward}, {group:?}", dir.display());
                let (several, found, _dir) = fitted(&model, &group, recompute, optimizer);
                for (found, expected) in found.iter().zip(&norms) {
                    assert!((found - expected).abs() <= 1e-5 * expected, "{name}: {found} {expected}");
                }
                let error = flat(&several.model).iter().zip(&one).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                assert!(error <= 1e-5 * moved + rounding, "{name}: {error:e} of {moved:e}");
            }
        }
    }
}

#[test]
fn parameters_that_move_inside_the_backward_pass_end_with_the_same_bits() {
    for device in devices() {
        for dir in checkpoints() {
            let options = LoadOptions { dtype: Some(FloatDType::F32), ..LoadOptions::default() };
            let Ok((model, _)) = CausalLm::load(&dir, &options, &device.clone().autodiff()) else {
                panic!("{} loads", dir.display());
            };
            let (after, inside) = (trained(&model, false), trained(&model, true));
            assert!(after.0 == inside.0, "{}", dir.display());
            for (after, inside) in after.1.iter().zip(&inside.1) {
                // The same squares, added in another order.
                assert!((after - inside).abs() <= 1e-12 * after, "{after} {inside}");
            }
        }
    }
}
