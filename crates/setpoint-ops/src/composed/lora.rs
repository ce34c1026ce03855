//! The linear map with a low-rank update: Hu et al., "LoRA", <https://arxiv.org/abs/2106.09685>, equation 3.

use burn::backend::Backend;
use burn::backend::tensor::FloatTensor;

use super::dtype;
use super::nf4::Weight;
use crate::backend::Kernels;
use crate::differentiate::Operation;

/// The tensors that the backward pass needs. The inputs exist anyway; `low` is `x · Aᵀ`.
#[derive(Clone, Debug)]
pub struct Kept<B: Backend> {
    pub(crate) x: FloatTensor<B>,
    pub(crate) weight: Weight<B>,
    pub(crate) a: FloatTensor<B>,
    pub(crate) b: FloatTensor<B>,
    pub(crate) low: FloatTensor<B>,
}

/// `y = x·Wᵀ + s·(x·Aᵀ)·Bᵀ`. The update and the sum are computed in the dtype of `A` and rounded once to that of `x`. Returns `y` and
/// `x·Aᵀ`.
pub(crate) fn forward<B: Kernels>(
    x: FloatTensor<B>,
    weight: Weight<B>,
    [a, b]: [FloatTensor<B>; 2],
    scale: f64,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let (own, wide) = (dtype::<B>(&x), dtype::<B>(&a));
    let base = match weight {
        Weight::Dense(weight) => B::float_matmul(x.clone(), B::float_transpose(weight)),
        Weight::Nf4(weight) => B::linear_nf4_forward(x.clone(), weight),
    };
    let low = B::float_matmul(B::float_cast(x, wide), B::float_transpose(a));
    let update = B::float_mul_scalar(B::float_matmul(low.clone(), B::float_transpose(b)), scale.into());
    (B::float_cast(B::float_add(B::float_cast(base, wide), update), own), low)
}

/// With `g` the gradient of `y` and `u = s·g·B`: `∂x = g·W + u·A`, `∂A = uᵀ·x`, `∂B = s·gᵀ·(x·Aᵀ)`.
pub(crate) fn backward<B: Kernels>(
    kept: Kept<B>,
    gradient: FloatTensor<B>,
    scale: f64,
    [wants_x, wants_a, wants_b]: [bool; 3],
) -> [Option<FloatTensor<B>>; 3] {
    let Kept { x, weight, a, b, low } = kept;
    let (own, wide) = (dtype::<B>(&x), dtype::<B>(&a));
    let wide_gradient = B::float_cast(gradient.clone(), wide);
    let of_b = wants_b
        .then(|| B::float_mul_scalar(B::float_matmul(B::float_transpose(wide_gradient.clone()), low), scale.into()));
    if !wants_x && !wants_a {
        return [None, None, of_b];
    }
    let u = B::float_mul_scalar(B::float_matmul(wide_gradient, b), scale.into());
    let of_x = wants_x.then(|| {
        let through_base = match weight {
            Weight::Dense(weight) => B::float_matmul(gradient, weight),
            Weight::Nf4(weight) => B::linear_nf4_backward(weight, gradient),
        };
        B::float_cast(B::float_add(B::float_cast(through_base, wide), B::float_matmul(u.clone(), a)), own)
    });
    let of_a = wants_a.then(|| B::float_matmul(B::float_transpose(u), B::float_cast(x, wide)));
    [of_x, of_a, of_b]
}

/// The map as an operation on `x`, `A` and `B`. The weight is frozen: it has no gradient.
#[derive(Clone, Debug)]
pub(crate) struct LinearLora<B: Backend> {
    pub(crate) weight: Weight<B>,
    pub(crate) scale: f64,
}

impl<B: Kernels> Operation<B, 3> for LinearLora<B> {
    type Kept = Kept<B>;

    fn forward(&self, [x, a, b]: [FloatTensor<B>; 3], _wanted: [bool; 3]) -> (FloatTensor<B>, Kept<B>) {
        let weight = self.weight.clone();
        let (y, low) = B::linear_lora_forward(x.clone(), weight.clone(), [a.clone(), b.clone()], self.scale);
        (y, Kept { x, weight, a, b, low })
    }

    fn backward(&self, kept: Kept<B>, gradient: FloatTensor<B>, wanted: [bool; 3]) -> [Option<FloatTensor<B>>; 3] {
        B::linear_lora_backward(kept, gradient, self.scale, wanted)
    }
}
