//! Times the products of a model's linear maps on a device, one JSON line each: forward, gradient of the input, gradient of the weight, and
//! products of few rows with 4-bit codes.
//!
//! ```sh
//! cargo run --release --features cuda --example products -- models/Llama-3-8B 2048 bf16 [SECONDS]
//! ```
//!
//! The device is the GPU if the build has one, else the CPU. `benches/gpu/run.py --part products` compares the times with torch's. Each product is
//! computed once, which tunes it, and then as often as a tenth of a second allows, with one wait at the end. After SECONDS nothing more begins.

#![allow(clippy::print_stdout, reason = "it prints times")]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use burn::tensor::{Device, FloatDType, Tensor};
use setpoint_ops::{Nf4, Nf4Host, Nf4Layout, linear, linear_nf4};
use setpoint_transformer::ModelConfig;

/// Rows of products with codes: the last number is more than the kernel takes.
const FEW: [usize; 4] = [1, 4, 16, 17];

/// The time that repetitions of a product take together, at least.
const LEAST: Duration = Duration::from_millis(100);

#[cfg(feature = "cuda")]
fn device() -> Device {
    Device::cuda(0)
}

#[cfg(all(feature = "wgpu", not(feature = "cuda")))]
fn device() -> Device {
    Device::wgpu(burn::tensor::DeviceKind::DefaultDevice)
}

#[cfg(not(any(feature = "wgpu", feature = "cuda")))]
fn device() -> Device {
    Device::flex()
}

/// Returns the seconds that a product takes.
fn time(device: &Device, product: impl Fn() -> Tensor<2>) -> f64 {
    let run = |count: u32| {
        let start = Instant::now();
        for _ in 0..count {
            drop(product());
        }
        device.sync().expect("the device works");
        start.elapsed()
    };
    run(1);
    let mut count = 1;
    loop {
        let taken = run(count);
        if taken >= LEAST || count >= 1 << 12 {
            return taken.as_secs_f64() / f64::from(count);
        }
        count *= 2;
    }
}

fn codes([outputs, inputs]: [usize; 2], device: &Device) -> Nf4 {
    let (count, block) = (outputs * inputs, 64);
    let layout = Nf4Layout { shape: [outputs, inputs], block, double: None, rounding: FloatDType::F32 };
    let values: [f32; 16] = std::array::from_fn(|i| i as f32 / 7.5 - 1.0);
    let bytes: Vec<u8> = (0..count.div_ceil(2)).map(|i| (i * 37 % 251) as u8).collect();
    let scales = vec![0.02; count.div_ceil(block)];
    Nf4::new(Nf4Host { codes: &bytes, values: &values, scale_codes: None, scales: &scales }, layout, device)
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, tokens, dtype, rest @ ..] = arguments.as_slice() else {
        println!("expected a folder with config.json, a number of tokens, and f32 or bf16");
        return;
    };
    let config = ModelConfig::from_dir(&PathBuf::from(folder)).expect("config.json of a model");
    let tokens: usize = tokens.parse().expect("a number of tokens");
    let dtype = if dtype == "bf16" { FloatDType::BF16 } else { FloatDType::F32 };
    let limit = rest.first().map_or(f64::INFINITY, |seconds| seconds.parse().expect("a number of seconds"));
    let (begun, device) = (Instant::now(), device());
    let tensor = |rows: usize, columns: usize| -> Tensor<2> {
        Tensor::<2>::random([rows, columns], burn::tensor::Distribution::Uniform(-1.0, 1.0), &device).cast(dtype)
    };
    let say = |name: &str, rows: usize, [outputs, inputs]: [usize; 2], product: &dyn Fn() -> Tensor<2>| {
        if begun.elapsed().as_secs_f64() > limit {
            return;
        }
        let seconds = time(&device, product);
        let rate = 2.0 * (rows * outputs * inputs) as f64 / seconds;
        println!(
            r#"{{"product": "{name}", "rows": {rows}, "out": {outputs}, "in": {inputs}, "dtype": "{dtype:?}", "seconds": {seconds:e}, "flops": {rate:e}}}"#
        );
    };
    let shapes: BTreeSet<[usize; 2]> = config.map_shapes().into_iter().collect();
    for &shape in &shapes {
        let [outputs, inputs] = shape;
        let (x, weight, gradient) = (tensor(tokens, inputs), tensor(outputs, inputs), tensor(tokens, outputs));
        say("forward", tokens, shape, &|| linear(x.clone(), weight.clone(), None));
        say("input", tokens, shape, &|| gradient.clone().matmul(weight.clone()));
        say("weight", tokens, shape, &|| gradient.clone().transpose().matmul(x.clone()));
    }
    for &shape in &shapes {
        let weight = codes(shape, &device);
        for rows in FEW {
            let x = tensor(rows, shape[1]);
            say("nf4", rows, shape, &|| linear_nf4(x.clone(), &weight, None));
        }
    }
}
