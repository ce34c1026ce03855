//! The linear map with a low-rank update: the update's products are added where those of the weight have just been written, and for few rows
//! to the sums that are still in registers.
//!
//! Maps of the same input, such as queries, keys and values, each multiply it with their own first factor. Stacking these factors would read
//! the input once instead of three times, but save no multiplication, and the input's gradient would need one more addition.

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;

use super::host::{Matrix, Values};
use super::linear::{FEW, FewRows, FewUpdate, ROWS, Term, few, few_narrow, sum_of_products};
use super::weight::{F32Weight, Plain, Transposed};

/// Rows that are worth bringing the few columns of a factor into order: fewer than for the columns of a whole task.
const NARROW: usize = ROWS / 4;

/// `[t, in]`, `[out, in]`, `[r, in]`, `[out, r]` -> `[t, out]`, `[t, r]`
pub(super) fn forward(
    x: FlexTensor,
    weight: &F32Weight,
    [a, b]: [FlexTensor; 2],
    scale: f32,
) -> (FlexTensor, FlexTensor) {
    let (t, [outputs, inputs], rank) = (x.shape()[0], weight.shape(), a.shape()[0]);
    let x = Values::of(x);
    if t <= FEW {
        let rows = FewRows::new(x.f32(), inputs);
        let low = few_narrow(&rows, &F32Weight::dense(a));
        let (lows, b) = (Values::of(low.clone()), Values::of(b));
        let scaled: Vec<f32> = lows.f32().iter().map(|low| scale * low).collect();
        let update = FewUpdate { low: FewRows::new(&scaled, rank), b: b.f32() };
        return (few(&rows, weight, Some(&update)), low);
    }
    let (a, b) = (Values::of(a), Values::of(b));
    let x = Matrix::new(x.f32(), t, inputs, inputs);
    let a = Matrix::new(a.f32(), rank, inputs, inputs);
    let b = Matrix::new(b.f32(), outputs, rank, rank);
    let low = sum_of_products(Term { a: x, b: a.transposed(), scale: 1.0 }, None, NARROW);
    let lows = Values::of(low.clone());
    let update = Term { a: Matrix::new(lows.f32(), t, rank, rank), b: b.transposed(), scale };
    (sum_of_products(Term { a: x, b: Transposed(weight), scale: 1.0 }, Some(update), ROWS), low)
}

/// The tensors that the backward pass needs besides the weight: `x`, `A`, `B` and `x·Aᵀ`.
pub(super) type Kept = [FlexTensor; 4];

/// The gradients of `x`, `A` and `B` that are `wanted`; `gradient` is `[t, out]`.
pub(super) fn backward(
    [x, a, b, low]: Kept,
    weight: &F32Weight,
    gradient: FlexTensor,
    scale: f32,
    wanted: [bool; 3],
) -> [Option<FlexTensor>; 3] {
    let (t, [outputs, inputs], rank) = (x.shape()[0], weight.shape(), a.shape()[0]);
    let [x, a, b, low, gradient] = [x, a, b, low, gradient].map(Values::of);
    let gradient = Matrix::new(gradient.f32(), t, outputs, outputs);
    let x = Matrix::new(x.f32(), t, inputs, inputs);
    let low = Matrix::new(low.f32(), t, rank, rank);
    // s · [out, t] · [t, r]
    let of_b = wanted[2].then(|| sum_of_products(Term { a: gradient.transposed(), b: low, scale }, None, NARROW));
    if !wanted[0] && !wanted[1] {
        return [None, None, of_b];
    }
    // s · [t, out] · [out, r]
    let b = Matrix::new(b.f32(), outputs, rank, rank);
    let u = Values::of(sum_of_products(Term { a: gradient, b, scale }, None, NARROW));
    let u = Matrix::new(u.f32(), t, rank, rank);
    // [t, out] · [out, in] + [t, r] · [r, in]
    let of_x = wanted[0].then(|| {
        let through_base = Term { a: gradient, b: Plain(weight), scale: 1.0 };
        let through_update = Term { a: u, b: Matrix::new(a.f32(), rank, inputs, inputs), scale: 1.0 };
        sum_of_products(through_base, Some(through_update), ROWS)
    });
    // [r, t] · [t, in]
    let of_a = wanted[1].then(|| sum_of_products(Term { a: u.transposed(), b: x, scale: 1.0 }, None, ROWS));
    [of_x, of_a, of_b]
}
