//! A linear map whose rows have a trained length: Liu et al., "DoRA", <https://arxiv.org/abs/2402.09353>, equation 5.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};

use super::{dtype, reshape, rows};
use crate::backend::Kernels;
use crate::differentiate::Operation;

/// Elements of the dense sum of weight and update that exist at a time.
const ELEMENTS: usize = 1 << 24;

/// Returns `‖W_o + s·(B·A)_o‖` for each row `o`, in the dtype of `A`; a few rows of the dense sum exist at a time.
///
/// The result divides: a row of zeros has the smallest normal number for its length.
pub(crate) fn norms<B: Backend>(weight: FloatTensor<B>, [a, b]: [FloatTensor<B>; 2], scale: f64) -> FloatTensor<B> {
    let (outputs, inputs, wide) = (weight.shape()[0], weight.shape()[1], dtype::<B>(&a));
    let count = (ELEMENTS / inputs).max(1);
    let squares = |start| {
        let part = start..outputs.min(start + count);
        let update = B::float_matmul(rows::<B>(b.clone(), part.clone()), a.clone());
        let base = B::float_cast(rows::<B>(weight.clone(), part), wide);
        let sum = B::float_add(base, B::float_mul_scalar(update, scale.into()));
        B::float_sum_dim(B::float_mul(sum.clone(), sum), 1)
    };
    let parts: Vec<FloatTensor<B>> = (0..outputs).step_by(count).map(squares).collect();
    // [out, 1] -> [out]
    let norms = B::float_sqrt(reshape::<B, 1>(B::float_cat(parts, 0), [outputs]));
    B::float_clamp_min(norms, f32::MIN_POSITIVE.into())
}

/// `y_o = x_o · f_o` for each column `o`, in the dtype of `f` and rounded to that of `x`.
pub(crate) fn scale<B: Backend>(x: FloatTensor<B>, factors: FloatTensor<B>) -> FloatTensor<B> {
    let (own, wide, columns) = (dtype::<B>(&x), dtype::<B>(&factors), factors.shape()[0]);
    // [out] -> [1, out]
    let factors = reshape::<B, 2>(factors, [1, columns]);
    B::float_cast(B::float_mul(B::float_cast(x, wide), factors), own)
}

/// `∂x = g ∘ f`, and `∂f = Σ_t g ∘ x` if there is an `x`.
pub(crate) fn scale_backward<B: Backend>(
    x: Option<FloatTensor<B>>,
    factors: FloatTensor<B>,
    gradient: FloatTensor<B>,
) -> (FloatTensor<B>, Option<FloatTensor<B>>) {
    let (wide, columns) = (dtype::<B>(&factors), factors.shape()[0]);
    let of_factors = x.map(|x| {
        let products = B::float_mul(B::float_cast(gradient.clone(), wide), B::float_cast(x, wide));
        // [1, out] -> [out]
        reshape::<B, 1>(B::float_sum_dim(products, 0), [columns])
    });
    (scale::<B>(gradient, factors), of_factors)
}

/// Returns `(m/n) ∘ x` and `m/n`.
pub(crate) fn rescale<B: Kernels>(
    x: FloatTensor<B>,
    magnitude: FloatTensor<B>,
    norms: FloatTensor<B>,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let factors = B::float_div(magnitude, norms);
    (B::scale_columns(x, factors.clone()), factors)
}

/// The tensors that the backward pass needs.
#[derive(Clone, Debug)]
pub(crate) struct Kept<B: Backend> {
    /// The scaled matrix, if the magnitude has a gradient.
    x: Option<FloatTensor<B>>,
    /// `m / n`.
    factors: FloatTensor<B>,
}

/// Columns brought to a length: `y = (m/n) ∘ x` as an operation on `x` and the magnitude `m`. The length `n` that they had has no gradient.
#[derive(Clone, Debug)]
pub(crate) struct Rescale<B: Backend> {
    pub(crate) norms: FloatTensor<B>,
}

impl<B: Kernels> Operation<B, 2> for Rescale<B> {
    type Kept = Kept<B>;

    fn forward(&self, [x, magnitude]: [FloatTensor<B>; 2], wanted: [bool; 2]) -> (FloatTensor<B>, Kept<B>) {
        let kept = wanted[1].then(|| x.clone());
        let (y, factors) = rescale::<B>(x, magnitude, self.norms.clone());
        (y, Kept { x: kept, factors })
    }

    fn backward(&self, kept: Kept<B>, gradient: FloatTensor<B>, wanted: [bool; 2]) -> [Option<FloatTensor<B>>; 2] {
        let (of_x, of_factors) = B::scale_columns_backward(kept.x, kept.factors, gradient);
        [wanted[0].then_some(of_x), of_factors.map(|sums| B::float_div(sums, self.norms.clone()))]
    }
}
