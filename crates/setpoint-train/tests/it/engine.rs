//! The fast path against the simple one: packed batches, shared prompts and backward by blocks give the gradients of a whole graph over
//! padded rows.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, FloatDType, Gradients, Int, Tensor, TensorData, activation};
use setpoint_train::{PromptLogps, Sequence, sequence_logps_with};
use setpoint_transformer::{CausalLm, LoadOptions, Part, Recompute, pad_right};

use crate::devices;

/// Gradients by path, as the engine would collect them.
#[derive(Default)]
struct Collected(BTreeMap<String, Vec<f32>>);

impl Collected {
    fn accept<M: Module>(&mut self, prefix: &str, module: &M, gradients: &mut Gradients) {
        let path = prefix.split('.').filter(|part| !part.is_empty()).map(str::to_owned).collect();
        module.visit(&mut Visitor { path, gradients, to: self });
    }
}

struct Visitor<'a> {
    path: Vec<String>,
    gradients: &'a mut Gradients,
    to: &'a mut Collected,
}

impl ModuleVisitor for Visitor<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(gradient) = param.base().grad_remove(self.gradients) else {
            return;
        };
        let values = gradient.into_data().try_into_vec::<f32>().unwrap();
        match self.to.0.get_mut(&self.path.join(".")) {
            Some(sum) => sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += value),
            None => {
                self.to.0.insert(self.path.join("."), values);
            }
        }
    }
}

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

const SEEDS: [f32; 5] = [0.7, -1.1, 0.4, 0.0, -0.6];
const PROMPT_SEEDS: [f32; 5] = [0.2, 0.3, -0.5, 0.1, 0.9];

fn weights(values: [f32; 5], device: &Device) -> Tensor<1> {
    Tensor::from_data(TensorData::from(values), device)
}

/// The whole graph over padded rows: log-softmax of all logits.
fn reference(model: &CausalLm) -> (f32, Collected) {
    let device = model.decoder().device();
    let sequences = sequences();
    let rows: Vec<&[u32]> = sequences.iter().map(|s| s.ids.as_slice()).collect();
    let hidden = model.decoder().forward(pad_right(&rows, &device));
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
        loss = loss + sum(sequence.scored_from, sequence.prompt_len).mul_scalar(PROMPT_SEEDS[i]);
    }
    let value = loss.clone().into_scalar::<f32>();
    let mut collected = Collected::default();
    collected.accept("", model, &mut loss.backward());
    (value, collected)
}

/// The engine's path.
fn packed(model: &CausalLm, recompute: Recompute) -> (f32, Collected) {
    let mut model = model.clone();
    model.model.recompute = recompute;
    let found = sequence_logps_with(&model, &sequences(), PromptLogps::Tracked, &Default::default()).unwrap();
    assert_eq!(found.tape.is_some(), recompute == Recompute::Block);
    let plain = model.decoder().device().without_autodiff();
    let weights = |values| weights(values, &plain).autodiff();
    let loss = (found.response * weights(SEEDS)).sum() + (found.prompt * weights(PROMPT_SEEDS)).sum();
    let value = loss.clone().into_scalar::<f32>();
    let mut gradients = loss.backward();
    let mut collected = Collected::default();
    collected.accept("", &model, &mut gradients);
    if let Some(tape) = found.tape {
        tape.backward(&mut gradients, &mut |part, gradients| match part {
            Part::Block(i, block) => collected.accept(&format!("model.layers.{i}"), block, gradients),
            Part::Embedding(embedding) => collected.accept("model.embed_tokens", embedding, gradients),
        });
    }
    (value, collected)
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
    for device in devices() {
        for dir in checkpoints() {
            let options = LoadOptions { dtype: Some(FloatDType::F32), ..LoadOptions::default() };
            let Ok((model, _)) = CausalLm::load(&dir, &options, &device.clone().autodiff()) else {
                panic!("{} loads", dir.display());
            };
            let (expected, gradients) = reference(&model);
            for recompute in [Recompute::None, Recompute::Block] {
                let (found, collected) = packed(&model, recompute);
                let name = format!("{}, {recompute:?}, {device:?}", dir.display());
                assert!((found - expected).abs() < 1e-5 * (1.0 + expected.abs()), "{name}: {found} {expected}");
                assert_eq!(
                    collected.0.keys().collect::<Vec<_>>(),
                    gradients.0.keys().collect::<Vec<_>>(),
                    "{name}: parameters with a gradient"
                );
                for (path, expected) in &gradients.0 {
                    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
                    let found = &collected.0[path];
                    let size = norm(&mut expected.iter().map(|&x| f64::from(x)));
                    let error = norm(&mut found.iter().zip(expected).map(|(a, b)| f64::from(a - b)));
                    assert!(error <= 1e-5 * size + 1e-7, "{name}, {path}: {error:e} of {size:e}");
                }
            }
        }
    }
}
