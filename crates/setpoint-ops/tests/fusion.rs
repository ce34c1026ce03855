//! A GPU behind fusion beside the CPU: values and gradients of a layer and its head, a step of the optimizer, and the switch.
//!
//! ```sh
//! cargo test -p setpoint-ops --features cube,fusion,burn/wgpu --test fusion
//! ```

use burn::tensor::{Device, DeviceKind, FloatDType, Int, Tensor, TensorData};
use setpoint_ops::{
    AdamWStep, DropoutMask, Heads, Logits, Nf4, Nf4Host, Nf4Layout, Packing, adamw, attention, count_launches, dropout,
    geglu, linear, linear_nf4, rms_norm, rotate, sum_of_squares, swiglu, token_logps,
};

const HEADS: (usize, usize, usize) = (4, 2, 16);
const WIDTH: usize = 64;
const INNER: usize = 96;
const VOCABULARY: usize = 50;

fn gpu() -> Device {
    Device::wgpu(DeviceKind::DefaultDevice)
}

/// Numbers around 0, the same on all devices.
fn tensor<const D: usize>(seed: usize, shape: [usize; D], device: &Device) -> Tensor<D> {
    let count: usize = shape.iter().product();
    let values: Vec<f32> = (0..count).map(|i| ((i * 37 + seed * 101) as f32 * 0.7).sin() * 0.5).collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}

fn host<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.into_data().try_into_vec().unwrap()
}

/// Fails unless numbers are those expected, up to 1e-5 of the largest.
#[track_caller]
fn assert_close(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(1f32, |largest, x| largest.max(x.abs()));
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((found - expected).abs() <= 1e-5 * largest, "{what}[{i}]: {found} and {expected}");
    }
}

/// A prompt with two answers, and a text of one token.
fn packing() -> Packing {
    let mut builder = Packing::builder();
    let prompt = builder.push(7, None);
    builder.push(5, Some(prompt));
    builder.push(3, Some(prompt));
    builder.push(1, None);
    builder.build()
}

/// Runs a layer and its head and returns log-probabilities, entropies and the gradients of the input and all weights.
fn layer(device: &Device) -> Vec<(&'static str, Vec<f32>)> {
    let (query, kv, dim) = HEADS;
    let (packing, t) = (packing(), 16);
    let shapes: [[usize; 2]; 8] = [
        [t, WIDTH],
        [query * dim, WIDTH],
        [kv * dim, WIDTH],
        [kv * dim, WIDTH],
        [INNER, WIDTH],
        [INNER, WIDTH],
        [WIDTH, INNER],
        [VOCABULARY, WIDTH],
    ];
    let mut seed = 0;
    let leaves = shapes.map(|shape| {
        seed += 1;
        tensor::<2>(seed, shape, device).autodiff().require_grad()
    });
    let norm = tensor::<1>(9, [WIDTH], device).autodiff().require_grad();
    let [x, q, k, v, gate, up, down, head] = leaves.clone();
    let angles = tensor::<2>(10, [t, dim / 2], device);
    let (cos, sin) = (angles.clone().cos(), angles.sin());
    let mask = DropoutMask::new((0..t as u64).collect(), 0.25);
    let normal = dropout(rms_norm(x.clone(), norm.clone(), 1e-5), &mask);
    let turned = |weight| rotate(linear(normal.clone(), weight, None), cos.clone(), sin.clone());
    let mixed = attention(turned(q), turned(k), linear(normal.clone(), v, None), Heads::new(query, kv, dim), &packing);
    let x = x + mixed;
    let (gate, up) = (linear(x.clone(), gate, None), linear(x.clone(), up, None));
    let inner = swiglu(gate.clone(), up.clone()) + geglu(gate, up);
    let x = x + linear(inner, down, None);
    let index = |of: Vec<i32>| Tensor::<1, Int>::from_data(of.as_slice(), device);
    let (rows, targets) = (index((0..12).collect()), index((0..12).map(|i| 3 * i % 50).collect()));
    let found = token_logps(x, head, rows, targets, Logits { chunk: 5, keep: false, soft_cap: None });
    let weights = tensor::<1>(11, [12], device).autodiff();
    let gradients = (found.logps.clone() * weights).sum().backward();
    let mut all = vec![("log-probabilities", host(found.logps.inner())), ("entropies", host(found.entropy))];
    let names = ["x", "q", "k", "v", "gate", "up", "down", "head"];
    all.extend(names.into_iter().zip(leaves).map(|(name, leaf)| (name, host(leaf.grad(&gradients).unwrap()))));
    all.push(("norm", host(norm.grad(&gradients).unwrap())));
    all
}

#[test]
fn a_layer_is_that_of_the_cpu() {
    let expected = layer(&Device::flex());
    // Twice: the second time, the queue knows the plan.
    for _ in 0..2 {
        for ((name, found), (_, expected)) in layer(&gpu()).iter().zip(&expected) {
            assert_close(found, expected, name);
        }
    }
}

#[test]
fn a_step_of_the_optimizer_is_that_of_the_cpu() {
    let step = AdamWStep { decay: 0.99, beta1: 0.9, beta2: 0.999, scale: 0.5, rate: 1e-2, root: 0.03, eps: 1e-8 };
    let run = |device: &Device| {
        let of = |seed| tensor::<1>(seed, [600], device);
        let (weight, m, v) = adamw(of(1), of(2), of(3).abs(), of(4), step);
        [host(weight), host(m), host(v), host(sum_of_squares(of(5), 20))]
    };
    for (found, expected) in run(&gpu()).iter().zip(&run(&Device::flex())) {
        assert_close(found, expected, "AdamW");
    }
}

/// With few rows the product is one operation of the queue, with more a composition.
#[test]
fn products_with_codes_are_those_of_the_cpu() {
    let layout = Nf4Layout { shape: [INNER, WIDTH], block: 64, double: None, rounding: FloatDType::F32 };
    let bytes: Vec<u8> = (0..INNER * WIDTH / 2).map(|i| (i * 37 % 251) as u8).collect();
    let values: [f32; 16] = std::array::from_fn(|i| i as f32 / 7.5 - 1.0);
    let scales: Vec<f32> = (0..INNER * WIDTH / 64).map(|i| 0.02 + i as f32 * 1e-3).collect();
    let host_of = Nf4Host { codes: &bytes, values: &values, scale_codes: None, scales: &scales };
    for rows in [3, 40] {
        let run = |device: &Device| {
            let weight = Nf4::new(host_of, layout, device);
            let x = tensor::<2>(1, [rows, WIDTH], device).autodiff().require_grad();
            let y = linear_nf4(x.clone(), &weight, None);
            let gradients = (y.clone() * tensor::<2>(2, [rows, INNER], device).autodiff()).sum().backward();
            [host(y.inner() + 1.0), host(x.grad(&gradients).unwrap())]
        };
        for (found, expected) in run(&gpu()).iter().zip(&run(&Device::flex())) {
            assert_close(found, expected, &format!("{rows} rows"));
        }
    }
}

/// The variable by which Burn takes no new plan for fused kernels.
const SWITCH: &str = "BURN_FUSION_MAX_EXPLORATIONS";

/// Counts the kernels of a chain of elementwise operations.
fn launches_of_a_chain() -> usize {
    let device = gpu();
    let x = tensor::<2>(1, [64, 64], &device);
    let counts = count_launches(&device, || {
        let y = ((x.mul_scalar(2.0).add_scalar(1.0)).exp() * 0.5).sqrt().neg();
        assert_eq!(y.dims(), [64, 64]);
        drop(host(y));
    });
    counts.values().sum()
}

/// In processes of their own, because all launches of a process are counted.
#[test]
fn fusion_is_on_and_a_variable_turns_it_off() {
    const KERNELS: &str = "SETPOINT_TEST_KERNELS";
    if let Some(file) = std::env::var_os(KERNELS) {
        std::fs::write(file, launches_of_a_chain().to_string()).unwrap();
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let count = |explorations: Option<&str>| -> usize {
        let file = dir.path().join("kernels");
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "fusion_is_on_and_a_variable_turns_it_off"]).env(KERNELS, &file).env_remove(SWITCH);
        let child = child.envs(explorations.map(|most| (SWITCH, most))).output().unwrap();
        assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
        std::fs::read_to_string(file).unwrap().parse().unwrap()
    };
    let (on, off) = (count(None), count(Some("0")));
    assert!((1..=2).contains(&on), "{on} kernels for a chain of six operations");
    assert!(off >= 6, "{off} kernels for six operations");
}
