//! The linear map. Products are shared out by columns and rows of the result, each part computed on one thread from the factors as they lie,
//! into memory that nobody has to clear first.

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

use super::few_rows;
use super::host::{Fresh, Matrix, Shared, Values, multiply_into, share_out};
use super::row_lanes::RowLanes;
use super::weight::{Columns, F32Weight, Plain, Transposed};

/// Rows from which on they are better put into lanes of vectors: fewer would leave too many lanes empty.
const LANES: usize = 12;

/// Rows up to which the weights are better multiplied as they lie: a product of more rows is worth bringing them into an order of its own.
pub(super) const FEW: usize = 112;

/// Weights' rows that a thread takes at a time in a product of few rows.
const PART: usize = 24;

/// Rows that a thread takes at a time if the weight has too few rows to give every thread a part of the usual size.
const SMALL_PART: usize = 8;

/// Multiplications from which on such a product is worth sharing among threads.
const WORTH_SHARING: usize = 1 << 20;

/// Columns that a thread computes at a time in a product of many rows.
const COLUMNS: usize = 64;

/// Rows that are worth bringing such columns of the other factor into order.
pub(super) const ROWS: usize = 384;

/// Parts of a product, where it has so many columns or rows: enough for no thread to wait long for another at the end.
const PARTS: usize = 16;

/// `[t, in]`, `[out, in]` -> `[t, out]`
pub(super) fn forward(x: FlexTensor, weight: &F32Weight) -> FlexTensor {
    let (t, inputs) = (x.shape()[0], x.shape()[1]);
    let x = Values::of(x);
    if t <= FEW {
        return few(&FewRows::new(x.f32(), inputs), weight, None);
    }
    let x = Matrix::new(x.f32(), t, inputs, inputs);
    sum_of_products(Term { a: x, b: Transposed(weight), scale: 1.0 }, None, ROWS)
}

/// The gradient of `x` if there is a `weight`, and that of `weight` if there is an `x`; `gradient` is `[t, out]`.
pub(super) fn backward(
    x: Option<FlexTensor>,
    weight: Option<&F32Weight>,
    gradient: FlexTensor,
) -> [Option<FlexTensor>; 2] {
    let of_x = weight.map(|weight| gradient_of_x(weight, gradient.clone()));
    // [out, t] · [t, in]
    let of_weight = x.map(|x| {
        let [t, outputs, inputs] = [gradient.shape()[0], gradient.shape()[1], x.shape()[1]];
        let (gradient, x) = (Values::of(gradient), Values::of(x));
        let gradient = Matrix::new(gradient.f32(), t, outputs, outputs);
        let x = Matrix::new(x.f32(), t, inputs, inputs);
        sum_of_products(Term { a: gradient.transposed(), b: x, scale: 1.0 }, None, ROWS)
    });
    [of_x, of_weight]
}

/// `[out, in]`, `[t, out]` -> `[t, in]`
pub(super) fn gradient_of_x(weight: &F32Weight, gradient: FlexTensor) -> FlexTensor {
    let [t, outputs] = [gradient.shape()[0], gradient.shape()[1]];
    let gradient = Values::of(gradient);
    let gradient = Matrix::new(gradient.f32(), t, outputs, outputs);
    sum_of_products(Term { a: gradient, b: Plain(weight), scale: 1.0 }, None, ROWS)
}

/// A product of two matrices times a number.
#[derive(Clone, Copy)]
pub(super) struct Term<'a, B = Matrix<'a>> {
    pub(super) a: Matrix<'a>,
    pub(super) b: B,
    pub(super) scale: f32,
}

/// A product, and another one of the same shape added to it, some rows of some columns at a time. `worth`: rows that are worth bringing the
/// columns of a task into order.
pub(super) fn sum_of_products<B: Columns>(first: Term<'_, B>, second: Option<Term<'_>>, worth: usize) -> FlexTensor {
    let (m, n) = (first.a.rows(), first.b.count());
    assert!(second.is_none_or(|term| (term.a.rows(), term.b.columns()) == (m, n)), "products of one shape");
    let mut product = Fresh::new(m * n);
    let to = product.shared();
    let panels = n.div_ceil(COLUMNS);
    let pieces = PARTS.div_ceil(panels).min(m / worth).max(1);
    let rows = m.div_ceil(pieces);
    share_out(panels * pieces, Vec::new, |buffer, i| {
        let (column, row) = (i / pieces * COLUMNS, i % pieces * rows);
        let (rows, columns) = (rows.min(m - row), COLUMNS.min(n - column));
        let add_product = |add, a: Matrix<'_>, b, scale| {
            // SAFETY: no other task has these rows of these columns; the first product gives them values.
            unsafe { multiply_into(to, row * n + column, n, add, a.rows_from(row, rows), b, scale) };
        };
        add_product(false, first.a, first.b.part(buffer, column, columns), first.scale);
        if let Some(Term { a, b, scale }) = second {
            add_product(true, a, b.columns_from(column, columns), scale);
        }
    });
    // SAFETY: the parts are all rows of all columns.
    unsafe { product.tensor([m, n]) }
}

/// At most [`FEW`] rows, in the order in which products read them.
pub(super) struct FewRows<'a> {
    values: &'a [f32],
    width: usize,
    lanes: Option<RowLanes>,
}

impl<'a> FewRows<'a> {
    /// Takes rows of `width` values.
    pub(super) fn new(values: &'a [f32], width: usize) -> Self {
        let lanes = (values.len() / width >= LANES).then(|| RowLanes::new(values, width));
        Self { values, width, lanes }
    }

    fn count(&self) -> usize {
        self.values.len() / self.width
    }

    /// On this thread: their product with `count` rows of a transposed weight from `first` on, and its update, into these columns of `to`,
    /// `[t, out]`. `buffer` is for rows that are nowhere else.
    ///
    /// # Safety
    /// Nobody else may touch those elements meanwhile.
    unsafe fn times_part(
        &self,
        to: Shared<'_>,
        weight: &F32Weight,
        update: Option<&FewUpdate<'_>>,
        [first, count]: [usize; 2],
        buffer: &mut Vec<f32>,
    ) {
        let [outputs, _] = weight.shape();
        let update = update.map(|FewUpdate { low, b }| (low, &b[first * low.width..(first + count) * low.width]));
        if let Some(lanes) = &self.lanes {
            let update = update.map(|(low, b)| (low.lanes.as_ref().expect("as many rows of both"), b));
            // SAFETY: the caller's promise.
            unsafe { lanes.times_transposed(to, first, outputs, weight.rows(buffer, first, count), update) };
            return;
        }
        let update = update.map(|(low, b)| few_rows::Rows::new(low.values, b, low.width));
        // SAFETY: the caller's promise.
        unsafe {
            match weight {
                F32Weight::Nf4(weight) if weight.multiplies(self.count()) => {
                    weight.times_transposed(to, first, outputs, self.values, [first, count], update);
                }
                _ => {
                    let rows = few_rows::Rows::new(self.values, weight.rows(buffer, first, count), self.width);
                    few_rows::times_transposed(to, first, outputs, rows, update);
                }
            }
        }
    }
}

/// An adapter's update of a product of few rows: `low · Bᵀ`.
pub(super) struct FewUpdate<'a> {
    /// `[t, r]`, times the scale of the update.
    pub(super) low: FewRows<'a>,
    /// `B`, `[out, r]`
    pub(super) b: &'a [f32],
}

/// `[t, in]`, `[out, in]` -> `[t, out]` for few rows. The sums of the update go on where those of the product end.
pub(super) fn few(x: &FewRows<'_>, weight: &F32Weight, update: Option<&FewUpdate<'_>>) -> FlexTensor {
    few_in_parts(x, weight, update, PART)
}

/// As [`few`], for a weight with so few rows, `[r, in]`, that threads share them only if it pays.
pub(super) fn few_narrow(x: &FewRows<'_>, weight: &F32Weight) -> FlexTensor {
    let [outputs, inputs] = weight.shape();
    let is_shared = x.count() * outputs * inputs >= WORTH_SHARING;
    few_in_parts(x, weight, None, if is_shared { SMALL_PART } else { outputs })
}

fn few_in_parts(x: &FewRows<'_>, weight: &F32Weight, update: Option<&FewUpdate<'_>>, part: usize) -> FlexTensor {
    let ([outputs, _], t) = (weight.shape(), x.count());
    let mut y = Fresh::new(t * outputs);
    let to = y.shared();
    let work = |buffer: &mut Vec<f32>, i: usize| {
        let rows = [i * part, part.min(outputs - i * part)];
        // SAFETY: no other task has these outputs; the product gives them values.
        unsafe { x.times_part(to, weight, update, rows, buffer) };
    };
    match outputs.div_ceil(part.max(1)) {
        // Another thread would have to wake for it.
        1 => work(&mut Vec::new(), 0),
        parts => (0..parts).into_par_iter().for_each_init(Vec::new, work),
    }
    // SAFETY: the parts are all outputs.
    unsafe { y.tensor([t, outputs]) }
}
