//! The optimizer's passes over parameters.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, TensorMetadata, backend_extension};
use burn::tensor::{Shape, Tensor};

/// The numbers of one step of AdamW (Loshchilov and Hutter, <https://arxiv.org/abs/1711.05101>, Algorithm 2), in the order of operations of
/// `torch.optim.AdamW`:
///
/// ```text
/// θ ← decay·θ
/// m ← β₁·m + (1 − β₁)·s·g          v ← β₂·v + (1 − β₂)·(s·g)²
/// θ ← θ − rate · m / (√v/root + ε)
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWStep {
    /// `1 − η·λ`, or 1 where nothing decays.
    pub decay: f64,
    /// β₁.
    pub beta1: f64,
    /// β₂.
    pub beta2: f64,
    /// `s`, the factor on the gradient that clips it.
    pub scale: f64,
    /// `η / (1 − β₁ᵗ)`.
    pub rate: f64,
    /// `√(1 − β₂ᵗ)`.
    pub root: f64,
    /// ε.
    pub eps: f64,
}

/// Passes over parameters and gradients, without autodiff.
#[backend_extension(Flex: cfg(feature = "flex"), NdArray: cfg(feature = "ndarray"), Cube: cfg(feature = "cube"), Remote: cfg(feature = "remote"))]
pub trait OptimizerOps: Backend {
    /// `[weight, m, v]` after the step; all f32 `[n]`.
    fn adamw(
        weight: FloatTensor<Self>,
        exp_avg: FloatTensor<Self>,
        exp_avg_sq: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        step: AdamWStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let AdamWStep { decay, beta1, beta2, scale, rate, root, eps } = step;
        let weight = if decay == 1.0 { weight } else { Self::float_mul_scalar(weight, decay.into()) };
        let exp_avg = Self::float_add(
            Self::float_mul_scalar(exp_avg, beta1.into()),
            Self::float_mul_scalar(gradient.clone(), (scale * (1.0 - beta1)).into()),
        );
        let square = Self::float_mul(gradient.clone(), gradient);
        let exp_avg_sq = Self::float_add(
            Self::float_mul_scalar(exp_avg_sq, beta2.into()),
            Self::float_mul_scalar(square, (scale * scale * (1.0 - beta2)).into()),
        );
        let denominator = Self::float_add_scalar(
            Self::float_div_scalar(Self::float_sqrt(exp_avg_sq.clone()), root.into()),
            eps.into(),
        );
        let update = Self::float_mul_scalar(Self::float_div(exp_avg.clone(), denominator), rate.into());
        (Self::float_sub(weight, update), exp_avg, exp_avg_sq)
    }

    /// `Σ x²`, added up row by row: `[n] -> [1]`.
    fn sum_of_squares(x: FloatTensor<Self>, row: usize) -> FloatTensor<Self> {
        let n = x.shape()[0];
        // [n] -> [rows, row] -> [rows, 1] -> [1, 1] -> [1]
        let x = Self::float_reshape(x, Shape::from([n / row.max(1), row]));
        let sums = Self::float_sum_dim(Self::float_mul(x.clone(), x), 1);
        Self::float_reshape(Self::float_sum_dim(sums, 0), Shape::from([1]))
    }
}

#[cfg(feature = "ndarray")]
impl OptimizerOps for burn::backend::NdArray {}

#[cfg(feature = "cube")]
impl OptimizerOps for burn::backend::Cube {}

#[cfg(feature = "remote")]
impl OptimizerOps for burn::backend::Remote {}

/// One step of AdamW on one parameter: answers the weight and the two moments. Tensors that nobody else holds are changed in place.
///
/// # Shapes
/// f32 `[n]` each, on one device without autodiff.
pub fn adamw(
    weight: Tensor<1>,
    exp_avg: Tensor<1>,
    exp_avg_sq: Tensor<1>,
    gradient: Tensor<1>,
    step: AdamWStep,
) -> (Tensor<1>, Tensor<1>, Tensor<1>) {
    let (weight, exp_avg, exp_avg_sq) = <Dispatch as OptimizerOps>::adamw(
        weight.into_dispatch(),
        exp_avg.into_dispatch(),
        exp_avg_sq.into_dispatch(),
        gradient.into_dispatch(),
        step,
    );
    (Tensor::from_dispatch(weight), Tensor::from_dispatch(exp_avg), Tensor::from_dispatch(exp_avg_sq))
}

/// `Σ x²` in f32, in an order that depends on `n` and `row` alone, so that a repeated run gives the same bits.
///
/// # Shapes
/// f32 `[n]` with `n` a multiple of `row`, on a device without autodiff; the result is `[1]`.
pub fn sum_of_squares(x: Tensor<1>, row: usize) -> Tensor<1> {
    Tensor::from_dispatch(<Dispatch as OptimizerOps>::sum_of_squares(x.into_dispatch(), row))
}
