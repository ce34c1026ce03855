//! The gate of the feed-forward network with GELU.

use burn::backend::Backend;
use burn::backend::tensor::FloatTensor;

use super::{dtype, f32};
use crate::backend::Kernels;
use crate::differentiate::Operation;

/// `√(2/π)`.
const ROOT: f64 = std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2;

/// The weight of the cube.
const CUBE: f64 = 0.044_715;

/// `t = tanh(√(2/π) · (g + 0.044715 g³))`, for f32.
fn tanh<B: Backend>(gate: FloatTensor<B>, square: FloatTensor<B>) -> FloatTensor<B> {
    let stretched = B::float_add_scalar(B::float_mul_scalar(square, CUBE.into()), 1.0.into());
    B::float_tanh(B::float_mul_scalar(B::float_mul(gate, stretched), ROOT.into()))
}

/// `(1 + t) / 2`
fn share<B: Backend>(tanh: FloatTensor<B>) -> FloatTensor<B> {
    B::float_mul_scalar(B::float_add_scalar(tanh, 1.0.into()), 0.5.into())
}

/// `gelu(g) = g · (1 + t) / 2` is rounded to the dtype before it meets `up`, as in transformers.
pub(crate) fn forward<B: Backend>(gate: FloatTensor<B>, up: FloatTensor<B>) -> FloatTensor<B> {
    let dtype = dtype::<B>(&gate);
    let gate = f32::<B>(gate);
    let tanh = tanh::<B>(gate.clone(), B::float_mul(gate.clone(), gate.clone()));
    let gelu = B::float_mul(gate, share::<B>(tanh));
    B::float_mul(B::float_cast(gelu, dtype), up)
}

/// With `gelu' = (1 + t)/2 + g/2 · (1 − t²) · √(2/π) · (1 + 3 · 0.044715 g²)`.
pub(crate) fn backward<B: Backend>(
    gate: FloatTensor<B>,
    up: FloatTensor<B>,
    gradient: FloatTensor<B>,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let dtype = dtype::<B>(&gate);
    let (gate, up, gradient) = (f32::<B>(gate), f32::<B>(up), f32::<B>(gradient));
    let square = B::float_mul(gate.clone(), gate.clone());
    let tanh = tanh::<B>(gate.clone(), square.clone());
    let share = share::<B>(tanh.clone());
    let gelu = B::float_mul(gate.clone(), share.clone());
    let rest = B::float_add_scalar(B::float_neg(B::float_mul(tanh.clone(), tanh)), 1.0.into());
    let inner = B::float_add_scalar(B::float_mul_scalar(square, (3.0 * CUBE).into()), 1.0.into());
    let bent = B::float_mul_scalar(B::float_mul(B::float_mul(gate, rest), inner), (0.5 * ROOT).into());
    let of_gate = B::float_mul(B::float_mul(gradient.clone(), up), B::float_add(share, bent));
    (B::float_cast(of_gate, dtype), B::float_cast(B::float_mul(gradient, gelu), dtype))
}

#[derive(Clone, Debug)]
pub(crate) struct GeGlu;

impl<B: Kernels> Operation<B, 2> for GeGlu {
    type Kept = [FloatTensor<B>; 2];

    fn forward(&self, [gate, up]: [FloatTensor<B>; 2], _wanted: [bool; 2]) -> (FloatTensor<B>, Self::Kept) {
        (B::geglu_forward(gate.clone(), up.clone()), [gate, up])
    }

    fn backward(
        &self,
        [gate, up]: Self::Kept,
        gradient: FloatTensor<B>,
        wanted: [bool; 2],
    ) -> [Option<FloatTensor<B>>; 2] {
        let (of_gate, of_up) = B::geglu_backward(gate, up, gradient);
        [wanted[0].then_some(of_gate), wanted[1].then_some(of_up)]
    }
}
