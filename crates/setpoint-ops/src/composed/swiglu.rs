//! The gate of the feed-forward network.

use burn::backend::Backend;
use burn::backend::tensor::FloatTensor;

use super::{dtype, f32};
use crate::backend::Kernels;
use crate::differentiate::Operation;

/// `g · σ(g)` is rounded to the dtype before it meets `up`, as in transformers.
pub(crate) fn forward<B: Backend>(gate: FloatTensor<B>, up: FloatTensor<B>) -> FloatTensor<B> {
    let dtype = dtype::<B>(&gate);
    let gate = f32::<B>(gate);
    let silu = B::float_mul(gate.clone(), B::sigmoid(gate));
    B::float_mul(B::float_cast(silu, dtype), up)
}

/// With `y = silu(g) · u` and `silu' = σ(g) · (1 + g · (1 − σ(g)))`.
pub(crate) fn backward<B: Backend>(
    gate: FloatTensor<B>,
    up: FloatTensor<B>,
    gradient: FloatTensor<B>,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let dtype = dtype::<B>(&gate);
    let (gate, up, gradient) = (f32::<B>(gate), f32::<B>(up), f32::<B>(gradient));
    let sigmoid = B::sigmoid(gate.clone());
    let silu = B::float_mul(gate.clone(), sigmoid.clone());
    let rest = B::float_add_scalar(B::float_neg(sigmoid.clone()), 1.0.into());
    let slope = B::float_mul(sigmoid, B::float_add_scalar(B::float_mul(gate, rest), 1.0.into()));
    let of_gate = B::float_mul(B::float_mul(gradient.clone(), up), slope);
    (B::float_cast(of_gate, dtype), B::float_cast(B::float_mul(gradient, silu), dtype))
}

#[derive(Clone, Debug)]
pub(crate) struct SwiGlu;

impl<B: Kernels> Operation<B, 2> for SwiGlu {
    type Kept = [FloatTensor<B>; 2];

    fn forward(&self, [gate, up]: [FloatTensor<B>; 2], _wanted: [bool; 2]) -> (FloatTensor<B>, Self::Kept) {
        (B::swiglu_forward(gate.clone(), up.clone()), [gate, up])
    }

    fn backward(
        &self,
        [gate, up]: Self::Kept,
        gradient: FloatTensor<B>,
        wanted: [bool; 2],
    ) -> [Option<FloatTensor<B>>; 2] {
        let (of_gate, of_up) = B::swiglu_backward(gate, up, gradient);
        [wanted[0].then_some(of_gate), wanted[1].then_some(of_up)]
    }
}
