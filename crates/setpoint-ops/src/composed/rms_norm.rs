//! Root mean square normalisation.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};

use super::{dtype, f32, reshape};
use crate::backend::Kernels;
use crate::differentiate::Operation;

/// `y = w · x̂` with `x̂ = x · r`, `r = 1/sqrt(mean(x²) + eps)`.
pub(crate) fn forward<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    eps: f64,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let dtype = dtype::<B>(&x);
    let d = x.shape()[1];
    let x = f32::<B>(x);
    let mean = B::float_mean_dim(B::float_mul(x.clone(), x.clone()), 1);
    let scale = B::float_recip(B::float_sqrt(B::float_add_scalar(mean, eps.into())));
    let normal = B::float_cast(B::float_mul(x, scale.clone()), dtype);
    (B::float_mul(normal, reshape::<B, 2>(weight, [1, d])), scale)
}

/// With `g` the gradient of `y`: `∂w = Σ_t g · x̂` and `∂x = r · (g·w − x̂ · mean(g·w·x̂))`.
pub(crate) fn backward<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    scale: FloatTensor<B>,
    gradient: FloatTensor<B>,
    wanted: [bool; 2],
) -> [Option<FloatTensor<B>>; 2] {
    let (of_x, of_weight) = (dtype::<B>(&x), dtype::<B>(&weight));
    let d = x.shape()[1];
    let gradient = f32::<B>(gradient);
    let normal = B::float_mul(f32::<B>(x), scale.clone());
    // [1, d] -> [d]
    let in_weight = wanted[1].then(|| {
        let sum = B::float_sum_dim(B::float_mul(gradient.clone(), normal.clone()), 0);
        B::float_cast(reshape::<B, 1>(sum, [d]), of_weight)
    });
    if !wanted[0] {
        return [None, in_weight];
    }
    let scaled = B::float_mul(gradient, reshape::<B, 2>(f32::<B>(weight), [1, d]));
    let along = B::float_mean_dim(B::float_mul(scaled.clone(), normal.clone()), 1);
    let in_x = B::float_mul(B::float_sub(scaled, B::float_mul(normal, along)), scale);
    [Some(B::float_cast(in_x, of_x)), in_weight]
}

#[derive(Clone, Debug)]
pub(crate) struct RmsNorm {
    pub(crate) eps: f64,
}

impl<B: Kernels> Operation<B, 2> for RmsNorm {
    type Kept = [FloatTensor<B>; 3];

    fn forward(&self, [x, weight]: [FloatTensor<B>; 2], _wanted: [bool; 2]) -> (FloatTensor<B>, Self::Kept) {
        let (y, scale) = B::rms_norm_forward(x.clone(), weight.clone(), self.eps);
        (y, [x, weight, scale])
    }

    fn backward(
        &self,
        [x, weight, scale]: Self::Kept,
        gradient: FloatTensor<B>,
        wanted: [bool; 2],
    ) -> [Option<FloatTensor<B>>; 2] {
        B::rms_norm_backward(x, weight, scale, gradient, wanted)
    }
}
