//! The linear map. Products are shared out by columns and rows of the result, each part computed on one thread from the factors as they lie,
//! into memory that nobody has to clear first.

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

use super::few_rows;
use super::host::{Fresh, Matrix, Values, multiply_into, share_out};
use super::row_lanes::RowLanes;

/// Rows from which on they are better put into lanes of vectors: fewer would leave too many lanes empty.
const LANES: usize = 12;

/// Rows up to which the weights are better multiplied as they lie: a product of more rows is worth bringing them into an order of its own.
const FEW: usize = 112;

/// Weights' rows that a thread takes at a time in a product of few rows.
const PART: usize = 24;

/// Columns that a thread computes at a time in a product of many rows.
const COLUMNS: usize = 64;

/// Rows that are worth bringing such columns of the other factor into order.
const ROWS: usize = 384;

/// Parts of a product, where it has so many columns or rows: enough for no thread to wait long for another at the end.
const PARTS: usize = 16;

/// `[t, in]`, `[out, in]` -> `[t, out]`
pub(super) fn forward(x: FlexTensor, weight: FlexTensor) -> FlexTensor {
    let (t, inputs, outputs) = (x.shape()[0], x.shape()[1], weight.shape()[0]);
    let (x, weight) = (Values::of(x), Values::of(weight));
    if t <= FEW {
        return few(x.f32(), weight.f32(), [t, inputs, outputs]);
    }
    let x = Matrix::new(x.f32(), t, inputs, inputs);
    let weight = Matrix::new(weight.f32(), outputs, inputs, inputs);
    product(x, weight.transposed())
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
    let of_x = wanted[0].then(|| product(gradient, weight));
    let of_weight = wanted[1].then(|| product(gradient.transposed(), x));
    [of_x, of_weight]
}

/// `a · b`, some rows of some columns at a time.
fn product(a: Matrix<'_>, b: Matrix<'_>) -> FlexTensor {
    let (m, n) = (a.rows(), b.columns());
    let mut product = Fresh::new(m * n);
    let to = product.shared();
    let panels = n.div_ceil(COLUMNS);
    let pieces = PARTS.div_ceil(panels).min(m / ROWS).max(1);
    let rows = m.div_ceil(pieces);
    share_out(
        panels * pieces,
        || (),
        |(), i| {
            let (column, row) = (i / pieces * COLUMNS, i % pieces * rows);
            let a = a.rows_from(row, rows.min(m - row));
            let b = b.columns_from(column, COLUMNS.min(n - column));
            // SAFETY: no other task has these rows of these columns.
            unsafe { multiply_into(to, row * n + column, n, false, a, b, 1.0) };
        },
    );
    // SAFETY: the parts are all rows of all columns.
    unsafe { product.tensor([m, n]) }
}

/// `[t, in]`, `[out, in]` -> `[t, out]` for few rows.
fn few(x: &[f32], weight: &[f32], [t, inputs, outputs]: [usize; 3]) -> FlexTensor {
    let mut y = Fresh::new(t * outputs);
    let to = y.shared();
    let parts = weight.par_chunks(PART * inputs).enumerate();
    if t < LANES {
        parts.for_each(|(i, weight)| {
            // SAFETY: no other task has these outputs.
            unsafe { few_rows::times_transposed(to, i * PART, outputs, x, weight, inputs) };
        });
    } else {
        let x = RowLanes::new(x, inputs);
        parts.for_each(|(i, weight)| {
            // SAFETY: no other task has these outputs.
            unsafe { x.times_transposed(to, i * PART, outputs, weight) };
        });
    }
    // SAFETY: the chunks are all weights.
    unsafe { y.tensor([t, outputs]) }
}
