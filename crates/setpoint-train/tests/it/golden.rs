//! Against torch and transformers (`tests/golden/make_optim.py`), and against the formula in f64.

use std::path::PathBuf;

use burn::module::{Module, Param};
use burn::tensor::{Device, FloatDType, Tensor, TensorData};
use safetensors::SafeTensors;
use setpoint_train::{AdamW, AdamWConfig, GradientSink, Schedule, ScheduleKind, Warmup, clip_scale};

use crate::devices;

fn golden(name: &str) -> PathBuf {
    golden_path("optim").join(name)
}

/// Returns a path below `tests/golden`.
pub(crate) fn golden_path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(name)
}

#[derive(serde::Deserialize)]
struct ScheduleCase {
    schedule: ScheduleKind,
    warmup_steps: u64,
    total_steps: u64,
    learning_rate: f64,
    lr: Vec<f64>,
}

#[test]
fn schedules_equal_transformers() {
    let text = std::fs::read_to_string(golden("schedules.json")).unwrap();
    let cases: Vec<ScheduleCase> = serde_json::from_str(&text).unwrap();
    assert!(cases.len() >= 3);
    for case in cases {
        let schedule = Schedule { kind: case.schedule, warmup: Warmup::Steps(case.warmup_steps) };
        assert_eq!(case.lr.len() as u64, case.total_steps);
        for (step, expected) in case.lr.iter().enumerate() {
            let found = case.learning_rate * schedule.factor(step as u64, case.total_steps);
            assert!((found - expected).abs() <= 1e-15 * case.learning_rate.max(1.0), "{found}");
        }
    }
}

#[derive(Module, Debug)]
pub(crate) struct Two {
    pub(crate) matrix: Param<Tensor<2>>,
    pub(crate) vector: Param<Tensor<1>>,
}

/// Gives `model` the gradients `matrix` and `vector`: those of the sum of parameter · gradient.
pub(crate) fn sink(model: &Two, matrix: &[f32], vector: &[f32]) -> GradientSink {
    let loss = |value: Tensor<1>, gradient: &[f32]| {
        let gradient = Tensor::<1>::from_data(gradient, &value.device().without_autodiff());
        (value.cast(FloatDType::F32) * gradient).sum_dim(0)
    };
    let [rows, columns] = model.matrix.dims();
    let total = loss(model.matrix.val().reshape([rows * columns]), matrix) + loss(model.vector.val(), vector);
    let mut sink = GradientSink::new();
    sink.accept("", model, &mut total.backward());
    sink
}

#[derive(serde::Deserialize)]
struct AdamWCase {
    lr: Vec<f64>,
    betas: (f64, f64),
    eps: f64,
    weight_decay: Decay,
    max_grad_norm: Option<f64>,
}

#[derive(serde::Deserialize)]
struct Decay {
    matrix: f64,
    vector: f64,
}

/// AdamW in f64, one number at a time.
struct Formula {
    value: Vec<f64>,
    m: Vec<f64>,
    v: Vec<f64>,
    decay: f64,
}

impl Formula {
    fn new(value: &[f32], decay: f64) -> Self {
        let zeros = vec![0.0; value.len()];
        let value = value.iter().map(|&x| f64::from(x)).collect();
        Self { value, m: zeros.clone(), v: zeros, decay }
    }

    fn step(&mut self, t: i32, lr: f64, (b1, b2): (f64, f64), eps: f64, gradient: &[f32], scale: f64) {
        for (i, &g) in gradient.iter().enumerate() {
            let g = f64::from(g) * scale;
            self.m[i] = b1 * self.m[i] + (1.0 - b1) * g;
            self.v[i] = b2 * self.v[i] + (1.0 - b2) * g * g;
            let m_hat = self.m[i] / (1.0 - b1.powi(t));
            let v_hat = self.v[i] / (1.0 - b2.powi(t));
            self.value[i] -= lr * (m_hat / (v_hat.sqrt() + eps) + self.decay * self.value[i]);
        }
    }
}

#[test]
fn ten_steps_of_adamw_equal_torch_and_the_formula() {
    for name in ["adamw_cosine_clip", "adamw_linear"] {
        let text = std::fs::read_to_string(golden(&format!("{name}.json"))).unwrap();
        let case: AdamWCase = serde_json::from_str(&text).unwrap();
        assert_eq!(case.weight_decay.vector, 0.0);
        let bytes = std::fs::read(golden(&format!("{name}.safetensors"))).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let read = |name: &str| -> Vec<f32> {
            let data = file.tensor(name).unwrap().data();
            data.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
        };
        let shape = file.tensor("matrix.init").unwrap().shape().to_vec();
        for device in devices() {
            let mut model = Two {
                matrix: Param::from_data(TensorData::new(read("matrix.init"), shape.clone()), &device),
                vector: Param::from_data(read("vector.init").as_slice(), &device),
            };
            let mut formula =
                [Formula::new(&read("matrix.init"), case.weight_decay.matrix), Formula::new(&read("vector.init"), 0.0)];
            let mut optimizer = AdamW::new(AdamWConfig {
                betas: case.betas,
                eps: case.eps,
                weight_decay: case.weight_decay.matrix,
                ..AdamWConfig::default()
            });
            for (step, &lr) in case.lr.iter().enumerate() {
                let at = |name: &str, size: usize| read(name)[step * size..][..size].to_vec();
                let (rows, vector) = (shape[0] * shape[1], model.vector.dims()[0]);
                let gradients = [at("matrix.grad", rows), at("vector.grad", vector)];
                let sink = sink(&model, &gradients[0], &gradients[1]);
                let norm = sink.norm();
                let expected_norm = f64::from(read("grad_norm")[step]);
                assert!((norm - expected_norm).abs() < 1e-6 * expected_norm, "{norm}");
                let scale = case.max_grad_norm.map_or(1.0, |max| clip_scale(norm, max));
                model = optimizer.step(model, sink, lr, scale).unwrap();

                let found: [Vec<f32>; 2] =
                    [model.matrix.val().into_data().iter().collect(), model.vector.val().into_data().iter().collect()];
                let torch = [at("matrix.after", rows), at("vector.after", vector)];
                for part in 0..2 {
                    let t = step as i32 + 1;
                    formula[part].step(t, lr, case.betas, case.eps, &gradients[part], scale);
                    for ((found, torch), formula) in found[part].iter().zip(&torch[part]).zip(&formula[part].value) {
                        assert!((found - torch).abs() < 1e-5, "{name} {step}: {found} {torch}");
                        let difference = (f64::from(*found) - formula).abs();
                        assert!(difference < 1e-5, "{name} {step}: {found} {formula}");
                    }
                }
            }
        }
    }
}

#[test]
fn half_precision_parameters_have_a_master_copy() {
    // Updates of 1e-4 vanish in bf16 next to 1.0, whose neighbour is 2^-7 away; forty add up.
    let device = Device::flex().autodiff();
    let half = |data: TensorData| {
        Tensor::<2>::from_data(data, &device.clone().without_autodiff())
            .cast(FloatDType::BF16)
            .autodiff()
            .set_require_grad(true)
    };
    let data = TensorData::new(vec![1.0f32; 4], [2, 2]);
    let mut model = Two { matrix: Param::from_tensor(half(data)), vector: Param::from_data([1.0f32], &device) };
    let mut optimizer = AdamW::new(AdamWConfig::default());
    for step in 1..=100 {
        let gradients = sink(&model, &[1.0; 4], &[1.0]);
        model = optimizer.step(model, gradients, 1e-4, 1.0).unwrap();
        assert!(model.matrix.val().is_require_grad());
        let found = model.matrix.val().cast(FloatDType::F32).into_data().iter::<f32>().next();
        // With a constant gradient every step is the learning rate, to within eps.
        let exact = 1.0 - 1e-4 * step as f32;
        let nearest = half(TensorData::new(vec![exact; 4], [2, 2]));
        let nearest = nearest.cast(FloatDType::F32).into_data().iter::<f32>().next();
        assert_eq!(found, nearest, "step {step}");
    }
    let vector: f32 = model.vector.val().into_scalar();
    assert!((vector - 0.99).abs() < 1e-5, "{vector}");
}

#[test]
fn only_parameters_with_a_gradient_move_and_a_stray_gradient_is_an_error() {
    for device in devices() {
        let start = || Two {
            matrix: Param::from_data([[1.0f32, 2.0], [3.0, 4.0]], &device),
            vector: Param::from_data([5.0f32], &device).set_require_grad(false),
        };
        let model = start();
        let gradients = sink(&model, &[1.0; 4], &[1.0]);
        assert_eq!(gradients.len(), 1);
        let config = AdamWConfig { weight_decay: 0.5, ..AdamWConfig::default() };
        let model = AdamW::new(config).step(model, gradients, 0.1, 1.0).unwrap();
        assert_eq!(model.vector.val().into_scalar::<f32>(), 5.0);
        assert!(!model.vector.val().is_require_grad());
        // 1 · (1 − 0.1 · 0.5) − 0.1
        let first = model.matrix.val().into_data().iter::<f32>().next().unwrap();
        assert!((first - 0.85).abs() < 1e-6, "{first}");

        let gradients = sink(&model, &[1.0; 4], &[1.0]);
        let frozen = start().no_grad();
        let error = AdamW::new(config).step(frozen, gradients, 0.1, 1.0).unwrap_err();
        assert!(error.to_string().contains("`matrix`"), "{error}");
    }
}

/// A policy with a value network, as PPO trains them.
#[derive(Module, Debug)]
struct Both {
    policy: Two,
    value: Two,
}

#[test]
fn a_value_network_has_its_own_learning_rate() {
    for device in devices() {
        let two = || Two {
            matrix: Param::from_data([[1.0f32, 2.0], [3.0, 4.0]], &device),
            vector: Param::from_data([5.0f32], &device),
        };
        let model = Both { policy: two(), value: two() };
        let sum = |two: &Two| two.matrix.val().reshape([4]).sum_dim(0) + two.vector.val();
        let total: Tensor<1> = sum(&model.policy) + sum(&model.value);
        let mut gradients = GradientSink::new();
        gradients.accept("", &model, &mut total.backward());
        let config = AdamWConfig { value_ratio: 3.0, ..AdamWConfig::default() };
        let model = AdamW::new(config).step(model, gradients, 0.1, 1.0).unwrap();
        for (moved, by) in [(&model.policy, 0.1f32), (&model.value, 0.3)] {
            let matrix: Vec<f32> = moved.matrix.val().into_data().iter().collect();
            let vector: f32 = moved.vector.val().into_scalar();
            assert!((matrix[3] - (4.0 - by)).abs() < 1e-5 && (vector - (5.0 - by)).abs() < 1e-5, "{matrix:?} {vector}");
        }
    }
}
