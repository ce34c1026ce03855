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
pub(super) const FEW: usize = 112;

/// Weights' rows that a thread takes at a time in a product of few rows.
const PART: usize = 24;

/// Columns that a thread computes at a time in a product of many rows.
const COLUMNS: usize = 64;

/// Rows that are worth bringing such columns of the other factor into order.
pub(super) const ROWS: usize = 384;

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

/// The gradient of `x` if there is a `weight`, and that of `weight` if there is an `x`; `gradient` is `[t, out]`.
pub(super) fn backward(
    x: Option<FlexTensor>,
    weight: Option<FlexTensor>,
    gradient: FlexTensor,
) -> [Option<FlexTensor>; 2] {
    let [t, outputs] = [gradient.shape()[0], gradient.shape()[1]];
    let gradient = Values::of(gradient);
    let gradient = Matrix::new(gradient.f32(), t, outputs, outputs);
    // [t, out] · [out, in]
    let of_x = weight.map(|weight| {
        let (inputs, weight) = (weight.shape()[1], Values::of(weight));
        product(gradient, Matrix::new(weight.f32(), outputs, inputs, inputs))
    });
    // [out, t] · [t, in]
    let of_weight = x.map(|x| {
        let (inputs, x) = (x.shape()[1], Values::of(x));
        product(gradient.transposed(), Matrix::new(x.f32(), t, inputs, inputs))
    });
    [of_x, of_weight]
}

/// `a · b`, some rows of some columns at a time.
fn product(a: Matrix<'_>, b: Matrix<'_>) -> FlexTensor {
    sum_of_products(Term { a, b, scale: 1.0 }, None, ROWS)
}

/// A product of two matrices times a number.
#[derive(Clone, Copy)]
pub(super) struct Term<'a> {
    pub(super) a: Matrix<'a>,
    pub(super) b: Matrix<'a>,
    pub(super) scale: f32,
}

/// A product, and another one of the same shape added to it, some rows of some columns at a time. `worth`: rows that are worth bringing the
/// columns of a task into order.
pub(super) fn sum_of_products(first: Term<'_>, second: Option<Term<'_>>, worth: usize) -> FlexTensor {
    let (m, n) = (first.a.rows(), first.b.columns());
    assert!(second.is_none_or(|term| (term.a.rows(), term.b.columns()) == (m, n)), "products of one shape");
    let mut product = Fresh::new(m * n);
    let to = product.shared();
    let panels = n.div_ceil(COLUMNS);
    let pieces = PARTS.div_ceil(panels).min(m / worth).max(1);
    let rows = m.div_ceil(pieces);
    share_out(
        panels * pieces,
        || (),
        |(), i| {
            let (column, row) = (i / pieces * COLUMNS, i % pieces * rows);
            for (add, term) in [(false, Some(first)), (true, second)] {
                let Some(Term { a, b, scale }) = term else { continue };
                let a = a.rows_from(row, rows.min(m - row));
                let b = b.columns_from(column, COLUMNS.min(n - column));
                // SAFETY: no other task has these rows of these columns; the first product gives them values.
                unsafe { multiply_into(to, row * n + column, n, add, a, b, scale) };
            }
        },
    );
    // SAFETY: the parts are all rows of all columns.
    unsafe { product.tensor([m, n]) }
}

/// `[t, in]`, `[out, in]` -> `[t, out]` for few rows.
pub(super) fn few(x: &[f32], weight: &[f32], [t, inputs, outputs]: [usize; 3]) -> FlexTensor {
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
