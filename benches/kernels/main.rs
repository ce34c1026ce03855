//! Times each fused operation and the same formula in Burn's own operations, in turn in one process, and prints medians; then products of
//! few rows, as in generation.
//!
//! `cargo bench --bench kernels [-- small|mid|wide-vocab]`. With `--features cuda` (or `wgpu`) it measures that device instead of the CPU.

#![allow(clippy::print_stdout, reason = "the program prints a table")]

mod few_rows;
mod formulas;
mod shapes;

use std::time::{Duration, Instant};

use burn::tensor::{Device, Distribution, Int, Tensor, TensorData};
use setpoint_ops::{AdamWStep, Logits, adamw, attention, linear, rms_norm, rotate, swiglu, token_logps};
use shapes::Shape;
use tabled::builder::Builder;
use tabled::settings::Style;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Positions whose logits exist at a time: 128 MiB of them, as in training.
const LOGITS: usize = 32 << 20;

fn main() {
    let device = device();
    // Cargo adds a flag of its own.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    println!("device: {device:?}\n");
    matrix_products(&device);
    for shape in shapes::ALL.iter().filter(|shape| wanted.is_empty() || wanted.iter().any(|name| name == shape.name)) {
        operations(shape, &device);
    }
}

fn device() -> Device {
    #[cfg(feature = "cuda")]
    return Device::cuda(0);
    #[cfg(all(feature = "wgpu", not(feature = "cuda")))]
    return Device::wgpu(burn::tensor::DeviceKind::DefaultDevice);
    #[cfg(not(any(feature = "cuda", feature = "wgpu")))]
    return Device::flex();
}

/// The rate of plain matrix products, which every other figure is to be read against.
fn matrix_products(device: &Device) {
    let mut table = Builder::default();
    table.push_record(["matrix product", "GFLOP/s"]);
    for n in [512, 1024, 2048] {
        let (a, b) = (random([n, n], device), random([n, n], device));
        let [time] = medians(device, [&|| keep(a.clone().matmul(b.clone()))]);
        table.push_record([
            format!("{n} x {n} x {n}"),
            format!("{:.0}", 2e-9 * (n * n * n) as f64 / time.as_secs_f64()),
        ]);
    }
    println!("{}\n", table.build().with(Style::markdown()));
}

fn operations(shape: &Shape, device: &Device) {
    let Shape { hidden: d, intermediate: f, vocab, .. } = *shape;
    let heads = shape.heads;
    let (q_width, kv_width) = (heads.query * heads.dim, heads.kv * heads.dim);
    let packing = shapes::packing();
    let t = packing.tokens();
    let x = random([t, d], device);
    let mut report = Report::new(device);

    let (gate, down) = (random([f, d], device), random([d, f], device));
    report.pair("linear, up", &[x.clone(), gate], &|[x, w]| linear(x, w, None), &|[x, w]| x.matmul(w.transpose()));
    report.pair("linear, down", &[random([t, f], device), down], &|[x, w]| linear(x, w, None), &|[x, w]| {
        x.matmul(w.transpose())
    });
    report.pair(
        "rms_norm",
        &[x.clone(), random([1, d], device)],
        &|[x, w]| rms_norm(x, w.squeeze_dim(0), 1e-5),
        &|[x, w]| formulas::rms_norm(x, w, 1e-5),
    );
    let (cos, sin) = (random([t, heads.dim / 2], device), random([t, heads.dim / 2], device));
    report.pair("rotate", &[random([t, q_width], device)], &|[x]| rotate(x, cos.clone(), sin.clone()), &|[x]| {
        formulas::rotate(x, cos.clone(), sin.clone())
    });
    report.pair("swiglu", &[random([t, f], device), random([t, f], device)], &|[gate, up]| swiglu(gate, up), &|[
        gate,
        up,
    ]| {
        formulas::swiglu(gate, up)
    });
    report.pair(
        "attention",
        &[random([t, q_width], device), random([t, kv_width], device), random([t, kv_width], device)],
        &|[q, k, v]| attention(q, k, v, heads, &packing),
        &|[q, k, v]| formulas::attention(q, k, v, heads, &packing),
    );
    let rows: Vec<i32> = (0..t as i32).collect();
    let targets: Vec<i32> = rows.iter().map(|row| row * 7919 % vocab as i32).collect();
    let indices = |values: &[i32]| Tensor::<1, Int>::from_data(TensorData::from(values), device);
    let (rows, targets) = (indices(&rows), indices(&targets));
    let logits = Logits { chunk: LOGITS / vocab, keep: false, soft_cap: None };
    report.pair(
        "token_logps",
        &[x, random([vocab, d], device)],
        &|[x, w]| token_logps(x, w, rows.clone(), targets.clone(), logits).logps.unsqueeze(),
        &|[x, w]| formulas::token_logps(x, w, targets.clone()).unsqueeze(),
    );
    report.step(f * d * shape.layers);
    println!("## {}, {t} tokens in {} segments\n\n{}\n", shape.name, packing.segments().len(), report);
    println!("### {}, few rows with a weight [{f}, {d}]\n\n{}\n", shape.name, few_rows::table(shape, device));
}

/// A table of one shape's operations.
struct Report<'a> {
    device: &'a Device,
    table: Builder,
}

type Operation<'a, const N: usize> = &'a dyn Fn([Tensor<2>; N]) -> Tensor<2>;

impl<'a> Report<'a> {
    fn new(device: &'a Device) -> Self {
        let mut table = Builder::default();
        table.push_record([
            "operation",
            "forward, ms",
            "Burn's, ms",
            "ratio",
            "forward and backward, ms",
            "Burn's, ms",
            "ratio",
        ]);
        Self { device, table }
    }

    fn pair<const N: usize>(
        &mut self,
        name: &str,
        inputs: &[Tensor<2>; N],
        fused: Operation<'_, N>,
        formula: Operation<'_, N>,
    ) {
        let largest = (fused(inputs.clone()) - formula(inputs.clone())).abs().max().into_scalar::<f32>();
        assert!(largest < 1e-2, "{name}: the two must compute the same, and differ by {largest}");
        let forward = |f: Operation<'_, N>| keep(f(inputs.clone()));
        let both = |f: Operation<'_, N>| {
            let leaves = inputs.clone().map(|input| input.autodiff().require_grad());
            let gradients = f(leaves.clone()).sum().backward();
            for leaf in leaves {
                keep(leaf.grad(&gradients).expect("every input has a gradient"));
            }
        };
        let [a, b, c, d] =
            medians(self.device, [&|| forward(fused), &|| forward(formula), &|| both(fused), &|| both(formula)]);
        self.record(name, [Some((a, b)), Some((c, d))]);
    }

    /// The optimizer's step over a number of parameters.
    fn step(&mut self, parameters: usize) {
        let values = || random([parameters], self.device);
        let state = std::cell::RefCell::new([values(), values(), values().abs()]);
        let gradient = values();
        let constants =
            AdamWStep { decay: 0.99, beta1: 0.9, beta2: 0.999, scale: 1.0, rate: 1e-6, root: 1.0, eps: 1e-8 };
        let run = |f: &dyn Fn([Tensor<1>; 3], Tensor<1>) -> [Tensor<1>; 3]| {
            let empty = || Tensor::<1>::zeros([1], self.device);
            let taken = state.replace([empty(), empty(), empty()]);
            let next = f(taken, gradient.clone());
            keep(next[0].clone());
            state.replace(next);
        };
        let [fused, formula] = medians(
            self.device,
            [&|| run(&|[w, m, v], g| adamw(w, m, v, g, constants).into()), &|| {
                run(&|state, g| formulas::adamw(state, g, constants))
            }],
        );
        self.record(&format!("adamw, {:.1} M parameters", parameters as f64 * 1e-6), [Some((fused, formula)), None]);
    }

    fn record(&mut self, name: &str, times: [Option<(Duration, Duration)>; 2]) {
        let milliseconds = |time: Duration| format!("{:.2}", time.as_secs_f64() * 1e3);
        let cells = times.into_iter().flat_map(|times| match times {
            Some((a, b)) => [milliseconds(a), milliseconds(b), format!("{:.2}", a.as_secs_f64() / b.as_secs_f64())],
            None => Default::default(),
        });
        self.table.push_record(std::iter::once(name.to_owned()).chain(cells));
    }
}

impl std::fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.table.clone().build().with(Style::markdown()))
    }
}

fn random<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::random(shape, Distribution::Uniform(-0.5, 0.5), device)
}

/// Lets a result be computed and forgets it.
fn keep<const D: usize>(x: Tensor<D>) {
    std::hint::black_box(x);
}

/// The median time of each of some contenders, which run in turn until each had a second and at least five runs.
fn medians<const N: usize>(device: &Device, contenders: [&dyn Fn(); N]) -> [Duration; N] {
    let synchronised = |run: &dyn Fn()| {
        let start = Instant::now();
        run();
        device.sync().expect("the device finishes its work");
        start.elapsed()
    };
    // The first run of each takes memory from the system, or compiles.
    for run in &contenders {
        synchronised(run);
    }
    let mut times = contenders.map(|_| vec![]);
    let start = Instant::now();
    while times[0].len() < 5 || start.elapsed() < Duration::from_secs(N as u64) {
        for (times, run) in times.iter_mut().zip(&contenders) {
            times.push(synchronised(run));
        }
    }
    times.map(|mut times| {
        times.sort();
        times[times.len() / 2]
    })
}
