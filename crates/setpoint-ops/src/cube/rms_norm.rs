//! Root mean square normalisation, a row in each cube.

use burn::backend::TensorMetadata;
use burn::tensor::DType;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;

use super::launch::{UNITS, cubes, element, fresh, in_order, sum_of_cube, units};

/// Rows that a unit adds up for the gradient of the weight.
const ROWS: usize = 64;

/// `y = w · x̂` with `x̂ = x · r`, `r = 1/sqrt(mean(x²) + eps)`; `x̂` is rounded to the storage's format.
#[cube(launch)]
fn forward_kernel<F: Float>(
    x: &[F],
    weight: &[F],
    y: &mut [F],
    scales: &mut [f32],
    eps: f32,
    #[comptime] units: usize,
    #[define(F)] _element: ElemType,
) {
    let row = CUBE_POS;
    let width = weight.len();
    let unit = UNIT_POS as usize;
    if row >= scales.len() {
        terminate!();
    }
    let mut shared = Shared::<[f32]>::new_slice(units);
    let start = row * width;
    let mut sum = 0.0f32;
    let mut i = unit;
    while i < width {
        let value = f32::cast_from(x[start + i]);
        sum += value * value;
        i += units;
    }
    let mean = sum_of_cube(sum, &mut shared, units) / f32::cast_from(width);
    let scale = 1.0f32 / (mean + eps).sqrt();
    if unit == 0 {
        scales[row] = scale;
    }
    let mut i = unit;
    while i < width {
        let normal = f32::cast_from(F::cast_from(f32::cast_from(x[start + i]) * scale));
        y[start + i] = F::cast_from(normal * f32::cast_from(weight[i]));
        i += units;
    }
}

/// `∂x = r · (g·w − x̂ · mean(g·w·x̂))`.
#[cube(launch)]
fn gradient_kernel<F: Float>(
    x: &[F],
    weight: &[F],
    scales: &[f32],
    gradient: &[F],
    in_x: &mut [F],
    #[comptime] units: usize,
    #[define(F)] _element: ElemType,
) {
    let row = CUBE_POS;
    let width = weight.len();
    let unit = UNIT_POS as usize;
    if row >= scales.len() {
        terminate!();
    }
    let mut shared = Shared::<[f32]>::new_slice(units);
    let start = row * width;
    let scale = scales[row];
    let mut sum = 0.0f32;
    let mut i = unit;
    while i < width {
        let scaled = f32::cast_from(gradient[start + i]) * f32::cast_from(weight[i]);
        sum += scaled * (f32::cast_from(x[start + i]) * scale);
        i += units;
    }
    let along = sum_of_cube(sum, &mut shared, units) / f32::cast_from(width);
    let mut i = unit;
    while i < width {
        let scaled = f32::cast_from(gradient[start + i]) * f32::cast_from(weight[i]);
        let normal = f32::cast_from(x[start + i]) * scale;
        in_x[start + i] = F::cast_from((scaled - normal * along) * scale);
        i += units;
    }
}

/// `Σ_t g · x̂` over some rows, for each column: the parts of `∂w`.
#[cube(launch)]
fn weight_gradient_kernel<F: Float>(
    x: &[F],
    scales: &[f32],
    gradient: &[F],
    parts: &mut [f32],
    width: usize,
    rows: usize,
    #[define(F)] _element: ElemType,
) {
    let place = ABSOLUTE_POS;
    if place >= parts.len() {
        terminate!();
    }
    let column = place % width;
    let mut row = place / width * rows;
    let end = min(row + rows, scales.len());
    let mut sum = 0.0f32;
    while row < end {
        let at = row * width + column;
        sum += f32::cast_from(gradient[at]) * (f32::cast_from(x[at]) * scales[row]);
        row += 1;
    }
    parts[place] = sum;
}

/// Adds up the parts of each column.
#[cube(launch)]
fn add_kernel<F: Float>(parts: &[f32], sums: &mut [F], #[define(F)] _element: ElemType) {
    let column = ABSOLUTE_POS;
    let width = sums.len();
    if column >= width {
        terminate!();
    }
    let mut sum = 0.0f32;
    let mut at = column;
    while at < parts.len() {
        sum += parts[at];
        at += width;
    }
    sums[column] = F::cast_from(sum);
}

/// Answers `y` and `r` `[t, 1]`.
pub(super) fn forward(x: CubeTensor, weight: CubeTensor, eps: f64) -> (CubeTensor, CubeTensor) {
    let [x, weight] = [x, weight].map(in_order);
    let (client, element) = (x.client.clone(), element(&x));
    let [rows, width] = x.shape().dims();
    let (y, scales) = (fresh(&x, [rows, width], x.dtype), fresh(&x, [rows, 1], DType::F32));
    forward_kernel::launch(
        &client,
        cubes(&client, rows),
        CubeDim::new_1d(UNITS as u32),
        x.into_buffer_arg(),
        weight.into_buffer_arg(),
        y.clone().into_buffer_arg(),
        scales.clone().into_buffer_arg(),
        eps as f32,
        UNITS,
        element,
    );
    (y, scales)
}

/// Answers the gradients of `x` and `weight` that are `wanted`.
pub(super) fn backward(
    x: CubeTensor,
    weight: CubeTensor,
    scales: CubeTensor,
    gradient: CubeTensor,
    wanted: [bool; 2],
) -> [Option<CubeTensor>; 2] {
    let [x, weight, scales, gradient] = [x, weight, scales, gradient].map(in_order);
    let in_weight = wanted[1].then(|| gradient_of_weight(&x, &weight, &scales, &gradient));
    let in_x = wanted[0].then(|| gradient_of_x(x, weight, scales, gradient));
    [in_x, in_weight]
}

fn gradient_of_x(x: CubeTensor, weight: CubeTensor, scales: CubeTensor, gradient: CubeTensor) -> CubeTensor {
    let (client, element) = (x.client.clone(), element(&x));
    let [rows, width] = x.shape().dims();
    let in_x = fresh(&x, [rows, width], x.dtype);
    gradient_kernel::launch(
        &client,
        cubes(&client, rows),
        CubeDim::new_1d(UNITS as u32),
        x.into_buffer_arg(),
        weight.into_buffer_arg(),
        scales.into_buffer_arg(),
        gradient.into_buffer_arg(),
        in_x.clone().into_buffer_arg(),
        UNITS,
        element,
    );
    in_x
}

fn gradient_of_weight(x: &CubeTensor, weight: &CubeTensor, scales: &CubeTensor, gradient: &CubeTensor) -> CubeTensor {
    let (client, element) = (x.client.clone(), element(x));
    let [rows, width] = x.shape().dims();
    let parts = fresh(x, [rows.div_ceil(ROWS), width], DType::F32);
    let (count, dim) = units(&client, parts.meta.shape().num_elements());
    weight_gradient_kernel::launch(
        &client,
        count,
        dim,
        x.clone().into_buffer_arg(),
        scales.clone().into_buffer_arg(),
        gradient.clone().into_buffer_arg(),
        parts.clone().into_buffer_arg(),
        width,
        ROWS,
        element,
    );
    let sums = fresh(x, [width], weight.dtype);
    let (count, dim) = units(&client, width);
    add_kernel::launch(&client, count, dim, parts.into_buffer_arg(), sums.clone().into_buffer_arg(), element);
    sums
}
