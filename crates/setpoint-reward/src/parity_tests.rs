//! Against the sequence classifiers of transformers (`tests/golden/README.md`).

use std::path::PathBuf;

use safetensors::SafeTensors;
use serde::Deserialize;
use setpoint_train::{BatchContext, GradientSink, MicroBatch, Task, backward, evaluate};
use setpoint_transformer::RopeSwitch;
use setpoint_transformer::checkpoint::parameters;

use super::*;
use crate::task::{Preference, PreferenceTask};
use crate::testing::devices;

const CASES: [&str; 3] = ["llama", "qwen2", "gemma3"];

/// The largest difference of logits in f32.
const TOLERANCE: f64 = 1e-4;

struct Golden {
    dir: PathBuf,
    bytes: Vec<u8>,
}

#[derive(Deserialize)]
struct Expected {
    margins: Vec<f64>,
    center: f64,
    loss: f64,
    losses: Vec<f64>,
    grad_norm: f64,
}

impl Golden {
    fn open(case: &str) -> Self {
        let dir = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/reward")).join(case);
        let bytes = std::fs::read(dir.join("expected.safetensors")).unwrap();
        Self { dir, bytes }
    }

    fn model(&self, device: &Device) -> RewardModel {
        RewardModel::load(&self.dir, &LoadOptions::default(), device).unwrap().0
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        file.tensor(name).unwrap().data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    }

    fn integers(&self, name: &str) -> Vec<i64> {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        file.tensor(name).unwrap().data().chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap())).collect()
    }

    fn rows(&self) -> Vec<Vec<u32>> {
        let (ids, lengths) = (self.integers("input_ids"), self.integers("lengths"));
        let width = ids.len() / lengths.len();
        ids.chunks(width)
            .zip(lengths)
            .map(|(row, length)| row[..length as usize].iter().map(|id| *id as u32).collect())
            .collect()
    }

    fn expected(&self, key: &str) -> Expected {
        let text = std::fs::read_to_string(self.dir.join("bradley_terry.json")).unwrap();
        let mut all: serde_json::Value = serde_json::from_str(&text).unwrap();
        serde_json::from_value(all[key].take()).unwrap()
    }

    fn task(&self, expected: &Expected) -> PreferenceTask {
        let pairs: Vec<Preference> = (self.rows().chunks(2).zip(&expected.margins))
            .map(|(pair, &margin)| Preference {
                chosen: pair[0].clone(),
                rejected: pair[1].clone(),
                margin,
                name: String::new(),
            })
            .collect();
        PreferenceTask::new(pairs, expected.center, RopeSwitch::default()).unwrap()
    }
}

fn close(got: f64, expected: f64, what: &str) {
    assert!(
        (got - expected).abs() <= TOLERANCE * expected.abs().max(1.0),
        "{what}: {got}, transformers has {expected}"
    );
}

#[test]
fn rewards_equal_those_of_transformers() {
    for case in CASES {
        let golden = Golden::open(case);
        for device in devices() {
            let (model, device) = (golden.model(&device), DeviceGroup::single(device));
            let rewards = score_rows(&device, &model, &golden.rows(), 64, &mut |_| ()).unwrap();
            for (i, (got, expected)) in rewards.iter().zip(golden.floats("rewards")).enumerate() {
                close(*got, f64::from(expected), &format!("{case}, row {i}"));
            }
        }
    }
}

#[test]
fn bradley_terry_losses_and_gradients_equal_those_of_torch() {
    for case in CASES {
        let golden = Golden::open(case);
        for device in devices() {
            let model = golden.model(&device.clone().autodiff());
            for key in ["plain", "margin_center"] {
                let expected = golden.expected(key);
                let task = golden.task(&expected);
                let batch = BatchContext { denominator: 4.0, ..BatchContext::default() };
                let forward = task.forward(&model, &[0, 1, 2, 3], &batch).unwrap();
                close(f64::from(forward.loss.clone().inner().into_scalar::<f32>()), expected.loss, "loss");
                // `losses` of the file are without the centring term.
                let plain = golden.task(&Expected { center: 0.0, ..golden.expected(key) });
                let losses = plain.forward(&model, &[0, 1, 2, 3], &batch).unwrap().numbers.read().per_example;
                for (got, expected) in losses.iter().zip(&expected.losses) {
                    close(f64::from(*got), *expected, "losses");
                }
                let here = DeviceGroup::single(device.clone());
                let measured = evaluate(&task, &here, &model, &mut MicroBatch::Examples(3), 0.0, &|| false).unwrap();
                let loss = measured.metrics.iter().find(|(name, _)| name == "eval_loss").unwrap().1;
                close(loss, expected.loss, "evaluated loss");

                let mut sink = GradientSink::new();
                backward(&model, "model", forward.loss, forward.tape, &mut sink);
                let gradients = collect(&model, &sink);
                let squares: f64 = gradients.iter().flat_map(|(_, g)| g).map(|g| f64::from(*g).powi(2)).sum();
                close(squares.sqrt(), expected.grad_norm, "gradient norm");
                if key == "margin_center" {
                    compare_gradients(&golden, &gradients);
                }
            }
        }
    }
}

fn compare_gradients(golden: &Golden, gradients: &[(String, Vec<f32>)]) {
    let file = SafeTensors::deserialize(&golden.bytes).unwrap();
    let names: Vec<&str> = file.names().into_iter().filter_map(|name| name.strip_prefix("grad.")).collect();
    assert_eq!(names.len(), 5);
    for name in names {
        let got = &gradients.iter().find(|(n, _)| n == name).unwrap().1;
        let expected = golden.floats(&format!("grad.{name}"));
        assert_eq!(got.len(), expected.len());
        for (got, expected) in got.iter().zip(expected) {
            close(f64::from(*got), f64::from(expected), name);
        }
    }
}

/// The gradient of every parameter by name.
fn collect(model: &RewardModel, sink: &GradientSink) -> Vec<(String, Vec<f32>)> {
    let gradient =
        |name: &str| sink.gradient(name).expect("every parameter is trained").to_data().try_to_vec().unwrap();
    parameters(model)
        .into_iter()
        .map(|p| (gradient(&p.name), p.name))
        .map(|(gradient, name)| (name, gradient))
        .collect()
}

/// An adapter of the model in `tests/golden/reward/llama`, by PEFT (`tests/golden/make_lora.py`).
#[test]
fn scores_and_gradients_of_an_adapter_equal_those_of_peft() {
    let dir = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/lora/reward"));
    let golden = Golden { bytes: std::fs::read(dir.join("expected.safetensors")).unwrap(), dir: dir.clone() };
    let adapter = AdapterFolder::open(&dir).unwrap();
    let base = dir.join(adapter.base.as_ref().unwrap());
    for device in devices() {
        let load = || RewardModel::load_adapter(&adapter, &base, &LoadOptions::default(), &device.clone().autodiff());
        let (model, _) = load().unwrap();
        let rows = golden.rows();
        let scores = to_host(model.scores(&rows).unwrap().inner()).unwrap();
        for (got, expected) in scores.into_iter().zip(golden.floats("scores")) {
            assert!((got - expected).abs() <= 1e-5 * expected.abs().max(1.0), "{got}, PEFT has {expected}");
        }
        let (score, tape) = model.scores_taped(&rows[..1]).unwrap();
        let mut sink = GradientSink::new();
        backward(&model, "model", score.neg(), tape, &mut sink);
        let file = SafeTensors::deserialize(&golden.bytes).unwrap();
        let trained: Vec<&str> = file.names().into_iter().filter_map(|name| name.strip_prefix("grad.")).collect();
        assert_eq!(sink.len(), trained.len());
        for name in trained {
            let got: Vec<f32> = sink.gradient(name).unwrap().to_data().try_to_vec().unwrap();
            let expected = golden.floats(&format!("grad.{name}"));
            let size = expected.iter().fold(1e-3f32, |size, x| size.max(x.abs()));
            for (got, expected) in got.iter().zip(expected) {
                assert!((got - expected).abs() <= 1e-5 * size, "{name}: {got}, PEFT has {expected}");
            }
        }
    }
    let of_policy = AdapterFolder { task: Some(AdapterTask::CausalLm), ..adapter };
    let error = RewardModel::load_adapter(&of_policy, &base, &LoadOptions::default(), &devices()[0]).unwrap_err();
    assert!(matches!(error, Error::NotARewardModel { .. }), "{error}");
}

#[test]
fn a_saved_copy_has_the_same_tensors_and_a_config_that_says_the_same() {
    #[allow(deprecated)]
    let device = Device::flex();
    for case in CASES {
        let golden = Golden::open(case);
        let (model, config) = RewardModel::load(&golden.dir, &LoadOptions::default(), &device).unwrap();
        let dir = tempfile::tempdir().unwrap();
        model.save(&config, dir.path(), &SaveOptions::default()).unwrap();

        let [old, new] = [&golden.dir, dir.path()].map(|dir| std::fs::read(dir.join("model.safetensors")).unwrap());
        let [old, new] = [&old, &new].map(|bytes| SafeTensors::deserialize(bytes).unwrap());
        assert_eq!(old.len(), new.len());
        for (name, tensor) in old.tensors() {
            let copy = new.tensor(&name).unwrap();
            assert_eq!(
                (tensor.shape(), tensor.dtype(), tensor.data()),
                (copy.shape(), copy.dtype(), copy.data()),
                "{name}"
            );
        }

        let [old, new] = [&golden.dir, dir.path()].map(|dir| {
            let text = std::fs::read_to_string(dir.join("config.json")).unwrap();
            serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&text).unwrap()
        });
        for (key, value) in &old {
            assert_eq!(new.get(key), Some(value), "{case}: {key}");
        }
    }
}
