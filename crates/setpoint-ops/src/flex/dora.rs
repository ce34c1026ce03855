//! Lengths of rows, and columns brought to a length.

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

use super::host::{Fresh, Matrix, Values, multiply, share_out, tensor};
use super::simd::{dot, vectorised};

/// Rows of the dense sum of weight and update that a thread holds at a time.
const ROWS: usize = 32;

/// Elements whose squares are added in f32.
const SHORT: usize = 4096;

/// `[out, in]`, `[r, in]`, `[out, r]` -> `[out]`
pub(super) fn norms(weight: FlexTensor, [a, b]: [FlexTensor; 2], scale: f32) -> FlexTensor {
    let (outputs, inputs, rank) = (weight.shape()[0], weight.shape()[1], a.shape()[0]);
    let (weight, a, b) = (Values::of(weight), Values::of(a), Values::of(b));
    let weight = weight.f32();
    let (a, b) = (Matrix::new(a.f32(), rank, inputs, inputs), Matrix::new(b.f32(), outputs, rank, rank));
    let parts = share_out(outputs.div_ceil(ROWS), Vec::new, |sum: &mut Vec<f32>, part| {
        let start = part * ROWS;
        let count = ROWS.min(outputs - start);
        sum.clear();
        sum.extend_from_slice(&weight[start * inputs..(start + count) * inputs]);
        multiply(sum, inputs, true, b.rows_from(start, count), a, scale);
        vectorised(
            #[inline(always)]
            || sum.chunks_exact(inputs).map(length).collect::<Vec<f32>>(),
        )
    });
    tensor(parts.concat(), [outputs])
}

/// Returns the length of a row, which is at least the smallest normal number.
#[inline(always)]
fn length(row: &[f32]) -> f32 {
    let mut squares = 0.0;
    for part in row.chunks(SHORT) {
        squares += f64::from(dot(part, part));
    }
    let length = squares.sqrt() as f32;
    // A comparison and not max, which would turn NaN into a number.
    if length < f32::MIN_POSITIVE { f32::MIN_POSITIVE } else { length }
}

/// `[t, out]`, `[out]` -> `[t, out]`
pub(super) fn scale(x: FlexTensor, factors: FlexTensor) -> FlexTensor {
    let (t, columns) = (x.shape()[0], x.shape()[1]);
    let (x, factors) = (Values::of(x), Values::of(factors));
    let (x, factors) = (x.f32(), factors.f32());
    assert_eq!(factors.len(), columns, "a factor for each column");
    let mut y = Fresh::new(t * columns);
    y.slots().par_chunks_mut(ROWS * columns).zip(x.par_chunks(ROWS * columns)).for_each(|(y, x)| {
        vectorised(
            #[inline(always)]
            || {
                for (y, x) in y.chunks_exact_mut(columns).zip(x.chunks_exact(columns)) {
                    for ((y, x), factor) in y.iter_mut().zip(x).zip(factors) {
                        y.write(x * factor);
                    }
                }
            },
        );
    });
    // SAFETY: the parts are all rows, and there is a factor for each element of a row.
    unsafe { y.tensor([t, columns]) }
}

/// The gradient of `x`, and that of the factors if there is an `x`; `gradient` is `[t, out]`.
pub(super) fn scale_backward(
    x: Option<FlexTensor>,
    factors: FlexTensor,
    gradient: FlexTensor,
) -> (FlexTensor, Option<FlexTensor>) {
    let Some(x) = x else { return (scale(gradient, factors), None) };
    let columns = x.shape()[1];
    let (x, of_y) = (Values::of(x), Values::of(gradient.clone()));
    assert_eq!(x.f32().len(), of_y.f32().len(), "a gradient of each element");
    let inputs = x.f32().par_chunks(ROWS * columns).zip(of_y.f32().par_chunks(ROWS * columns));
    let parts: Vec<Vec<f32>> = inputs
        .map(|(x, gradient)| {
            let mut sums = vec![0.0; columns];
            vectorised(
                #[inline(always)]
                || {
                    for (x, gradient) in x.chunks_exact(columns).zip(gradient.chunks_exact(columns)) {
                        for ((sum, x), gradient) in sums.iter_mut().zip(x).zip(gradient) {
                            *sum += x * gradient;
                        }
                    }
                },
            );
            sums
        })
        .collect();
    let mut of_factors = vec![0.0; columns];
    for part in parts {
        for (sum, part) in of_factors.iter_mut().zip(part) {
            *sum += part;
        }
    }
    (scale(gradient, factors), Some(tensor(of_factors, [columns])))
}
