//! The linear map. Products are shared out by columns or rows of the result, each part computed on one thread from the factors as they lie,
//! into memory that nobody has to clear first.

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

use super::few_rows;
use super::host::{Fresh, Matrix, Values, multiply_into};

/// Rows up to which the weights are better multiplied as they lie: bringing them into an order of its own costs a product as much as some
/// sixty rows of it.
const FEW: usize = 96;

/// Weights' rows that a thread takes at a time in a product of few rows.
const PART: usize = 64;

/// Columns, or rows, that a thread computes at a time, whatever the number of threads: an eighth of them in whole vectors, within bounds.
fn block(count: usize) -> usize {
    (count / 8).next_multiple_of(32).clamp(96, 384)
}

/// `[t, in]`, `[out, in]` -> `[t, out]`
pub(super) fn forward(x: FlexTensor, weight: FlexTensor) -> FlexTensor {
    let (t, inputs, outputs) = (x.shape()[0], x.shape()[1], weight.shape()[0]);
    let (x, weight) = (Values::of(x), Values::of(weight));
    if t <= FEW {
        return few(x.f32(), weight.f32(), [t, inputs, outputs]);
    }
    let x = Matrix::new(x.f32(), t, inputs, inputs);
    let weight = Matrix::new(weight.f32(), outputs, inputs, inputs);
    by_columns(x, weight.transposed())
}

/// The gradients that are `wanted`, of `x` and `weight`; `gradient` is `[t, out]`.
pub(super) fn backward(
    x: FlexTensor,
    weight: FlexTensor,
    gradient: FlexTensor,
    wanted: [bool; 2],
) -> [Option<FlexTensor>; 2] {
    let (t, inputs, outputs) = (x.shape()[0], x.shape()[1], weight.shape()[0]);
    let (x, weight, gradient) = (Values::of(x), Values::of(weight), Values::of(gradient));
    let gradient = Matrix::new(gradient.f32(), t, outputs, outputs);
    let x = Matrix::new(x.f32(), t, inputs, inputs);
    let weight = Matrix::new(weight.f32(), outputs, inputs, inputs);
    // [t, out] · [out, in], [out, t] · [t, in]
    let of_x = wanted[0].then(|| by_columns(gradient, weight));
    let of_weight = wanted[1].then(|| {
        if outputs > inputs { by_rows(gradient.transposed(), x) } else { by_columns(gradient.transposed(), x) }
    });
    [of_x, of_weight]
}

/// `a · b`, some columns at a time.
fn by_columns(a: Matrix<'_>, b: Matrix<'_>) -> FlexTensor {
    let (m, n) = (a.rows(), b.columns());
    let mut product = Fresh::new(m * n);
    let to = product.shared();
    let block = block(n);
    (0..n.div_ceil(block)).into_par_iter().for_each(|i| {
        let start = i * block;
        let part = b.columns_from(start, block.min(n - start));
        // SAFETY: no other task has these columns.
        unsafe { multiply_into(to, start, n, false, a, part, 1.0) };
    });
    // SAFETY: the blocks are all columns.
    unsafe { product.tensor([m, n]) }
}

/// `a · b`, some rows at a time.
fn by_rows(a: Matrix<'_>, b: Matrix<'_>) -> FlexTensor {
    let (m, n) = (a.rows(), b.columns());
    let mut product = Fresh::new(m * n);
    let to = product.shared();
    let block = block(m);
    (0..m.div_ceil(block)).into_par_iter().for_each(|i| {
        let start = i * block;
        let part = a.rows_from(start, block.min(m - start));
        // SAFETY: no other task has these rows.
        unsafe { multiply_into(to, start * n, n, false, part, b, 1.0) };
    });
    // SAFETY: the blocks are all rows.
    unsafe { product.tensor([m, n]) }
}

/// `[t, in]`, `[out, in]` -> `[t, out]` for few rows.
fn few(x: &[f32], weight: &[f32], [t, inputs, outputs]: [usize; 3]) -> FlexTensor {
    let mut y = Fresh::new(t * outputs);
    let to = y.shared();
    weight.par_chunks(PART * inputs).enumerate().for_each(|(i, weight)| {
        // SAFETY: no other task has these outputs.
        unsafe { few_rows::times_transposed(to, i * PART, outputs, x, weight, inputs) };
    });
    // SAFETY: the chunks are all weights.
    unsafe { y.tensor([t, outputs]) }
}
