//! The optimizer's passes.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::{IndexingUpdateOp, Shape};

use crate::adamw::AdamWStep;

/// Returns the weight and the two moments after a step.
pub(crate) fn step<B: Backend>(
    [weight, exp_avg, exp_avg_sq]: [FloatTensor<B>; 3],
    gradient: FloatTensor<B>,
    step: AdamWStep,
) -> [FloatTensor<B>; 3] {
    let AdamWStep { decay, beta1, beta2, scale, rate, root, eps } = step;
    let weight = if decay == 1.0 { weight } else { B::float_mul_scalar(weight, decay.into()) };
    let exp_avg = B::float_add(
        B::float_mul_scalar(exp_avg, beta1.into()),
        B::float_mul_scalar(gradient.clone(), (scale * (1.0 - beta1)).into()),
    );
    let square = B::float_mul(gradient.clone(), gradient);
    let exp_avg_sq = B::float_add(
        B::float_mul_scalar(exp_avg_sq, beta2.into()),
        B::float_mul_scalar(square, (scale * scale * (1.0 - beta2)).into()),
    );
    let denominator =
        B::float_add_scalar(B::float_div_scalar(B::float_sqrt(exp_avg_sq.clone()), root.into()), eps.into());
    let update = B::float_mul_scalar(B::float_div(exp_avg.clone(), denominator), rate.into());
    [B::float_sub(weight, update), exp_avg, exp_avg_sq]
}

/// Returns `Σ x²`, `[1]`, added up row by row.
pub(crate) fn sum_of_squares<B: Backend>(x: FloatTensor<B>, row: usize) -> FloatTensor<B> {
    let n = x.shape()[0];
    // [n] -> [rows, row] -> [rows, 1] -> [1, 1] -> [1]
    let x = B::float_reshape(x, Shape::from([n / row.max(1), row]));
    let sums = B::float_sum_dim(B::float_mul(x.clone(), x), 1);
    B::float_reshape(B::float_sum_dim(sums, 0), Shape::from([1]))
}

/// Returns the table with the rows added that their ids name.
pub(crate) fn add_rows<B: Backend>(table: FloatTensor<B>, ids: IntTensor<B>, rows: FloatTensor<B>) -> FloatTensor<B> {
    B::float_select_assign(table, 0, ids, rows, IndexingUpdateOp::Add)
}
