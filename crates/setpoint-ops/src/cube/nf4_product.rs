//! Products with a matrix in 4-bit codes, for few rows: each unit dequantises the numbers that it multiplies, in registers, so the matrix is in
//! memory as codes alone.
//!
//! With few rows, as in generation, a product takes as long as it takes to read the matrix. A number that is dequantised to bf16 first is
//! written once and read once: four bytes besides the half of its code. These kernels multiply without matrix units, so with many rows their
//! arithmetic takes longer than moving those bytes: at 3.35 TB/s and half of an H100's 60 TFLOP/s from some 18 rows on. So they take up to
//! [`FEW_ROWS`] rows. For more, the matrix is dequantised for the length of a product.

use burn_cubecl::CubeBackend;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;

use super::choice::Needs;
use super::launch::{CUBES, UNITS, element, fresh, in_order, problem as problem_with, zeros};
use super::nf4::{self, Codes, byte, rounded, scale};
use crate::composed::nf4::Nf4Tensors;
use crate::nf4::{Nf4Layout, VALUES};

/// Rows up to which a product reads codes.
pub(crate) const FEW_ROWS: usize = 16;

/// Rows in a cube, forward and backward.
const ROWS: [usize; 2] = [16, 8];

/// Outputs of a unit: for more rows, each number of `x` is read for as many.
const OUTPUTS: usize = 4;

/// Neighbouring numbers that a unit takes at a time, if rows and blocks are multiples of them: four bytes of codes.
const RUN: usize = 8;

/// Units that share the sum of an output, forward.
const LANES: usize = 32;

/// Outputs of which the units of a cube take one each, forward; in the backward pass they are the units that share the sum of a column.
const TEAMS: usize = UNITS / LANES;

/// Rows whose sums are added up at a time, forward.
const PART: usize = 8;

/// The distance of sums in shared memory: neighbouring sums begin in different banks.
const PITCH: usize = LANES + 1;

/// Sums that are added up at a time.
const SUMS: usize = TEAMS * PART;

/// The features that a device must have.
pub(super) const NEEDS: Needs = Needs { units: UNITS, shared: (SUMS * PITCH + VALUES) * size_of::<f32>(), buffers: 4 };

/// A product as its kernel is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Product {
    codes: Codes,
    /// Neighbouring numbers that a unit takes at a time: [`RUN`] or one.
    run: usize,
    /// Rows in a cube, a power of two.
    rows: usize,
    /// Outputs of a unit, forward.
    outputs: usize,
}

/// The lengths of a product.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
#[expand(derive(Clone, Copy))]
struct Lengths {
    rows: usize,
    outputs: usize,
    inputs: usize,
    /// The byte with which the codes of scales begin.
    first_scale_code: usize,
    /// The number that is added to every scale.
    offset: f32,
}

/// Returns four bytes, the first in the highest bits.
#[cube]
fn word<C: Int>(codes: &[C], place: usize, #[comptime] bytes: usize) -> u32 {
    if comptime!(bytes == 4) {
        u32::cast_from(codes[place / 4])
    } else {
        (u32::cast_from(codes[place]) << 24u32)
            | (u32::cast_from(codes[place + 1]) << 16u32)
            | (u32::cast_from(codes[place + 2]) << 8u32)
            | u32::cast_from(codes[place + 3])
    }
}

/// Returns the number of a code, as the dequantised matrix has it.
#[cube]
fn number<F: Float>(values: &Shared<[f32]>, code: u32, scale: f32, #[comptime] is_rounded: bool) -> f32 {
    let mut number = values[usize::cast_from(code)] * scale;
    if comptime!(is_rounded) {
        number = rounded(number);
    }
    f32::cast_from(F::cast_from(number))
}

/// Dequantises the numbers of the matrix that begin at `at`, all of one block, into `weights` from `start` on.
#[cube]
fn dequantize<C: Int, F: Float>(
    codes: &[C],
    numbers: &[f32],
    values: &Shared<[f32]>,
    weights: &mut Array<f32>,
    at: usize,
    lengths: &Lengths,
    #[comptime] start: usize,
    #[comptime] product: Product,
) {
    let layout = comptime!(product.codes);
    let block = at / comptime!(layout.block);
    let scale = scale::<C>(codes, numbers, block, lengths.offset, lengths.first_scale_code, layout);
    if comptime!(product.run == RUN) {
        let word = word::<C>(codes, at / 2, comptime!(layout.bytes));
        #[unroll]
        for i in 0..comptime!(RUN) {
            let code = (word >> comptime!((28 - 4 * i) as u32)) & 15u32;
            weights[comptime!(start + i)] = number::<F>(values, code, scale, comptime!(layout.is_rounded));
        }
    } else {
        let pair = byte::<C>(codes, at / 2, comptime!(layout.bytes));
        let code = (pair >> (u32::cast_from(1 - at % 2) * 4u32)) & 15u32;
        weights[comptime!(start)] = number::<F>(values, code, scale, comptime!(layout.is_rounded));
    }
}

/// Copies the values of codes into shared memory.
#[cube]
fn load_values(numbers: &[f32], values: &mut Shared<[f32]>) {
    let unit = UNIT_POS as usize;
    if unit < comptime!(VALUES) {
        values[unit] = numbers[unit];
    }
    sync_cube();
}

/// Adds up the numbers of the units that share a sum, in their order.
#[cube]
fn add_up(parts: &Shared<[f32]>, sum: usize) -> f32 {
    let mut total = 0.0f32;
    for i in 0..comptime!(LANES) {
        total += parts[sum * comptime!(PITCH) + i];
    }
    total
}

/// `y = x · Wᵀ`: some outputs of some rows in each cube. The units of a team share the columns.
#[cube(launch)]
fn forward_kernel<C: Int, F: Float>(
    x: &[F],
    codes: &[C],
    numbers: &[f32],
    y: &mut [F],
    lengths: Lengths,
    #[comptime] product: Product,
    #[define(C, F)] _elements: [ElemType; 2],
) {
    let unit = UNIT_POS as usize;
    let lane = unit % comptime!(LANES);
    let team = unit / comptime!(LANES);
    let first_row = CUBE_POS_Y as usize * comptime!(product.rows);
    let first_team = CUBE_POS_X as usize * comptime!(TEAMS);
    let first_output = (first_team + team) * comptime!(product.outputs);
    let mut values = Shared::<[f32]>::new_slice(comptime!(VALUES));
    let mut parts = Shared::<[f32]>::new_slice(comptime!(SUMS * PITCH));
    load_values(numbers, &mut values);
    let mut sums = zeros(comptime!(product.outputs * product.rows));
    let mut column = lane * comptime!(product.run);
    while column < lengths.inputs {
        let mut weights = zeros(comptime!(product.outputs * product.run));
        #[unroll]
        for o in 0..comptime!(product.outputs) {
            let output = first_output + o;
            if output < lengths.outputs {
                let at = output * lengths.inputs + column;
                let start = comptime!(o * product.run);
                dequantize::<C, F>(codes, numbers, &values, &mut weights, at, &lengths, start, product);
            }
        }
        #[unroll]
        for r in 0..comptime!(product.rows) {
            let row = first_row + r;
            if row < lengths.rows {
                #[unroll]
                for i in 0..comptime!(product.run) {
                    let factor = f32::cast_from(x[row * lengths.inputs + column + i]);
                    #[unroll]
                    for o in 0..comptime!(product.outputs) {
                        let at = comptime!(o * product.rows + r);
                        sums[at] += factor * weights[comptime!(o * product.run + i)];
                    }
                }
            }
        }
        column += comptime!(LANES * product.run);
    }
    let at_a_time = comptime!(product.rows.min(PART));
    #[unroll]
    for o in 0..comptime!(product.outputs) {
        #[unroll]
        for part in 0..comptime!(product.rows / at_a_time) {
            #[unroll]
            for r in 0..at_a_time {
                let sum = team + comptime!(r * TEAMS);
                parts[sum * comptime!(PITCH) + lane] = sums[comptime!(o * product.rows + part * at_a_time + r)];
            }
            sync_cube();
            let row = first_row + comptime!(part * at_a_time) + unit / comptime!(TEAMS);
            let output = (first_team + unit % comptime!(TEAMS)) * comptime!(product.outputs) + o;
            if unit < comptime!(at_a_time * TEAMS) && row < lengths.rows && output < lengths.outputs {
                y[row * lengths.outputs + output] = F::cast_from(add_up(&parts, unit));
            }
            sync_cube();
        }
    }
}

/// `∂x = ∂y · W`: some columns of some rows in each cube. The units with the same columns share the outputs.
#[cube(launch)]
fn backward_kernel<C: Int, F: Float>(
    gradient: &[F],
    codes: &[C],
    numbers: &[f32],
    in_x: &mut [F],
    lengths: Lengths,
    #[comptime] product: Product,
    #[define(C, F)] _elements: [ElemType; 2],
) {
    let unit = UNIT_POS as usize;
    let lane = unit % comptime!(TEAMS);
    let sharer = unit / comptime!(TEAMS);
    let first_row = CUBE_POS_Y as usize * comptime!(product.rows);
    let first_column = CUBE_POS_X as usize * comptime!(TEAMS * product.run);
    let column = first_column + lane * comptime!(product.run);
    let mut values = Shared::<[f32]>::new_slice(comptime!(VALUES));
    let mut parts = Shared::<[f32]>::new_slice(comptime!(SUMS * PITCH));
    load_values(numbers, &mut values);
    let mut sums = zeros(comptime!(product.rows * product.run));
    let mut output = sharer;
    while output < lengths.outputs {
        if column < lengths.inputs {
            let mut weights = zeros(comptime!(product.run));
            let at = output * lengths.inputs + column;
            dequantize::<C, F>(codes, numbers, &values, &mut weights, at, &lengths, 0usize, product);
            #[unroll]
            for r in 0..comptime!(product.rows) {
                let row = first_row + r;
                if row < lengths.rows {
                    let factor = f32::cast_from(gradient[row * lengths.outputs + output]);
                    #[unroll]
                    for i in 0..comptime!(product.run) {
                        let at = comptime!(r * product.run + i);
                        sums[at] += factor * weights[comptime!(i)];
                    }
                }
            }
        }
        output += comptime!(LANES);
    }
    #[unroll]
    for r in 0..comptime!(product.rows) {
        #[unroll]
        for i in 0..comptime!(product.run) {
            let sum = lane * comptime!(product.run) + i;
            parts[sum * comptime!(PITCH) + sharer] = sums[comptime!(r * product.run + i)];
        }
        sync_cube();
        let row = first_row + r;
        if unit < comptime!(TEAMS * product.run) && row < lengths.rows && first_column + unit < lengths.inputs {
            in_x[row * lengths.inputs + first_column + unit] = F::cast_from(add_up(&parts, unit));
        }
        sync_cube();
    }
}

/// Returns whether the kernels are meant for a product with `x`, or with the gradient of the result.
pub(super) fn has_few_rows(x: &CubeTensor) -> bool {
    (1..=FEW_ROWS).contains(&x.meta.shape()[0])
}

/// Returns why the kernels do not take a product with `x`, or with the gradient of the result, if so.
pub(super) fn problem(x: &CubeTensor, weight: &Nf4Tensors<CubeBackend>) -> Option<String> {
    problem_with(&[x])
        .or_else(|| nf4::problem(&weight.codes, &weight.layout))
        .or_else(|| problem_of_grid(weight.layout.shape))
}

/// Returns why the cubes of a product with a matrix do not fit along an axis of a grid, if so.
fn problem_of_grid(shape: [usize; 2]) -> Option<String> {
    let [outputs, inputs] = shape;
    let is_too_long = shape.iter().any(|length| length.div_ceil(TEAMS) > CUBES);
    is_too_long.then(|| format!("a matrix of {outputs} by {inputs} has more tiles than fit into a grid"))
}

/// Returns how the kernel for so many rows is compiled, and the tiles of rows.
fn compiled(codes: &CubeTensor, layout: &Nf4Layout, rows: usize, most: usize) -> (Product, u32) {
    let codes = Codes::new(codes, layout);
    let has_runs = layout.shape[1].is_multiple_of(RUN) && layout.block.is_multiple_of(RUN);
    let of_cube = rows.next_power_of_two().min(most);
    let product = Product { codes, run: if has_runs { RUN } else { 1 }, rows: of_cube, outputs: of_cube.min(OUTPUTS) };
    (product, rows.div_ceil(of_cube) as u32)
}

fn lengths(rows: usize, codes: Codes, layout: &Nf4Layout) -> LengthsLaunch {
    let [outputs, inputs] = layout.shape;
    let offset = layout.double.map_or(0.0, |double| double.offset);
    LengthsLaunch::new(rows, outputs, inputs, codes.first_scale_code(layout), offset)
}

/// Answers `x · Wᵀ`, `[t, in] -> [t, out]`.
pub(super) fn forward(x: CubeTensor, weight: Nf4Tensors<CubeBackend>) -> CubeTensor {
    let Nf4Tensors { codes, numbers, layout } = weight;
    let [x, codes, numbers] = [x, codes, numbers].map(in_order);
    let (client, elements) = (x.client.clone(), [element(&codes), element(&x)]);
    let (rows, [outputs, _]) = (x.meta.shape()[0], layout.shape);
    let (product, row_tiles) = compiled(&codes, &layout, rows, ROWS[0]);
    let y = fresh(&x, [rows, outputs], x.dtype);
    forward_kernel::launch(
        &client,
        CubeCount::new_2d(outputs.div_ceil(TEAMS * product.outputs) as u32, row_tiles),
        CubeDim::new_1d(UNITS as u32),
        x.into_buffer_arg(),
        codes.into_buffer_arg(),
        numbers.into_buffer_arg(),
        y.clone().into_buffer_arg(),
        lengths(rows, product.codes, &layout),
        product,
        elements,
    );
    y
}

/// Answers the gradient of `x`, `[t, out] -> [t, in]`.
pub(super) fn backward(weight: Nf4Tensors<CubeBackend>, gradient: CubeTensor) -> CubeTensor {
    let Nf4Tensors { codes, numbers, layout } = weight;
    let [gradient, codes, numbers] = [gradient, codes, numbers].map(in_order);
    let (client, elements) = (gradient.client.clone(), [element(&codes), element(&gradient)]);
    let (rows, [_, inputs]) = (gradient.meta.shape()[0], layout.shape);
    let (product, row_tiles) = compiled(&codes, &layout, rows, ROWS[1]);
    let in_x = fresh(&gradient, [rows, inputs], gradient.dtype);
    backward_kernel::launch(
        &client,
        CubeCount::new_2d(inputs.div_ceil(TEAMS * product.run) as u32, row_tiles),
        CubeDim::new_1d(UNITS as u32),
        gradient.into_buffer_arg(),
        codes.into_buffer_arg(),
        numbers.into_buffer_arg(),
        in_x.clone().into_buffer_arg(),
        lengths(rows, product.codes, &layout),
        product,
        elements,
    );
    in_x
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_that_no_grid_holds_is_named() {
        // The gate of Llama-3-8B, and the largest vocabulary of known models.
        assert_eq!([[14_336, 4096], [262_208, 5376]].map(problem_of_grid), [None, None]);
        let found = problem_of_grid([600_000, 64]).unwrap();
        assert_eq!(found, "a matrix of 600000 by 64 has more tiles than fit into a grid");
    }
}
