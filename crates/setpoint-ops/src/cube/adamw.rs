//! The optimizer's passes: one reads and writes each number once.

use burn::tensor::DType;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;

use super::launch::{UNITS, cubes, fresh, in_order, owned, sum_of_cube, units, vector_size};
use crate::adamw::AdamWStep;

/// Numbers that a unit squares.
const SQUARES: usize = 64;

/// The factors of a step, as [`AdamWStep`] has them; `gain1` and `gain2` are those of the gradient and its square.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
#[expand(derive(Clone, Copy))]
struct Factors {
    decay: f32,
    beta1: f32,
    gain1: f32,
    beta2: f32,
    gain2: f32,
    rate: f32,
    root: f32,
    eps: f32,
}

#[cube(launch)]
fn step_kernel<N: Size>(
    weight: &mut [Vector<f32, N>],
    exp_avg: &mut [Vector<f32, N>],
    exp_avg_sq: &mut [Vector<f32, N>],
    gradient: &[Vector<f32, N>],
    factors: Factors,
) {
    let place = ABSOLUTE_POS;
    if place >= gradient.len() {
        terminate!();
    }
    let g = gradient[place];
    let decay = Vector::<f32, N>::new(factors.decay);
    let beta1 = Vector::<f32, N>::new(factors.beta1);
    let gain1 = Vector::<f32, N>::new(factors.gain1);
    let beta2 = Vector::<f32, N>::new(factors.beta2);
    let gain2 = Vector::<f32, N>::new(factors.gain2);
    let first = exp_avg[place] * beta1 + g * gain1;
    let second = exp_avg_sq[place] * beta2 + g * g * gain2;
    let root = Vector::<f32, N>::new(factors.root);
    let denominator = second.sqrt() / root + Vector::<f32, N>::new(factors.eps);
    let update = first / denominator * Vector::<f32, N>::new(factors.rate);
    weight[place] = weight[place] * decay - update;
    exp_avg[place] = first;
    exp_avg_sq[place] = second;
}

/// Adds up the squares of some numbers in each cube.
#[cube(launch)]
fn squares_kernel(x: &[f32], parts: &mut [f32], #[comptime] units: usize, #[comptime] of_unit: usize) {
    let part = CUBE_POS;
    if part >= parts.len() {
        terminate!();
    }
    let mut shared = Shared::<[f32]>::new_slice(units);
    let start = part * comptime!(units * of_unit);
    let end = min(start + comptime!(units * of_unit), x.len());
    let mut sum = 0.0f32;
    let mut i = start + UNIT_POS as usize;
    while i < end {
        let value = x[i];
        sum += value * value;
        i += units;
    }
    let total = sum_of_cube(sum, &mut shared, units);
    if UNIT_POS == 0 {
        parts[part] = total;
    }
}

/// Adds up all parts in one cube.
#[cube(launch)]
fn total_kernel(parts: &[f32], total: &mut [f32], #[comptime] units: usize) {
    let mut shared = Shared::<[f32]>::new_slice(units);
    let mut sum = 0.0f32;
    let mut i = UNIT_POS as usize;
    while i < parts.len() {
        sum += parts[i];
        i += units;
    }
    let found = sum_of_cube(sum, &mut shared, units);
    if UNIT_POS == 0 {
        total[0] = found;
    }
}

/// Answers the weight and the two moments after a step. Tensors that nobody else holds are changed in place.
pub(super) fn step(tensors: [CubeTensor; 3], gradient: CubeTensor, step: AdamWStep) -> [CubeTensor; 3] {
    let gradient = in_order(gradient);
    let tensors = tensors.map(owned);
    let (client, size) = (gradient.client.clone(), vector_size(&gradient));
    let (count, dim) = units(&client, gradient.meta.shape().num_elements() / size);
    let AdamWStep { decay, beta1, beta2, scale, rate, root, eps } = step;
    let gains = [scale * (1.0 - beta1), scale * scale * (1.0 - beta2)];
    let [decay, beta1, gain1, beta2, gain2, rate, root, eps] =
        [decay, beta1, gains[0], beta2, gains[1], rate, root, eps].map(|factor| factor as f32);
    let [weight, exp_avg, exp_avg_sq] = tensors.clone();
    step_kernel::launch(
        &client,
        count,
        dim,
        size,
        weight.into_buffer_arg(),
        exp_avg.into_buffer_arg(),
        exp_avg_sq.into_buffer_arg(),
        gradient.into_buffer_arg(),
        FactorsLaunch::new(decay, beta1, gain1, beta2, gain2, rate, root, eps),
    );
    tensors
}

/// Answers `Σ x²`, `[1]`, added up in an order that depends on the length alone.
pub(super) fn sum_of_squares(x: CubeTensor) -> CubeTensor {
    let x = in_order(x);
    let client = x.client.clone();
    let count = x.meta.shape().num_elements().div_ceil(UNITS * SQUARES);
    let (parts, total) = (fresh(&x, [count], DType::F32), fresh(&x, [1], DType::F32));
    let dim = CubeDim::new_1d(UNITS as u32);
    squares_kernel::launch(
        &client,
        cubes(&client, count),
        dim,
        x.into_buffer_arg(),
        parts.clone().into_buffer_arg(),
        UNITS,
        SQUARES,
    );
    total_kernel::launch(
        &client,
        CubeCount::new_single(),
        dim,
        parts.into_buffer_arg(),
        total.clone().into_buffer_arg(),
        UNITS,
    );
    total
}
