//! An adapter's updates, added to the weights.

use burn::tensor::{DType, FloatDType, Tensor};
use setpoint_ops::{LowRank, row_norms};

use super::adapter::{HasDecoder, maps};
use super::dropout::Dropout;
use crate::Weight;
use crate::checkpoint::with_stable_ids;

/// Fewer summands than this are few.
const FEW: usize = 8;

/// Returns the model without an adapter that computes what `model` computes with it: `W' = round(W + s·(B·A))`, in f32 and rounded once to the
/// dtype of `W`; with trained lengths `m` of the rows, `round(m/n ∘ (W + s·(B·A)))` with their lengths `n`. Rounding aside, both give the same
/// numbers. Matrices in 4-bit codes are dequantised, with an update or without.
pub fn merged<M: HasDecoder>(mut model: M) -> M {
    for (_, map) in maps(model.decoder_mut()) {
        if let Some(update) = map.update() {
            map.weight.set(sum(&map.weight, update, map.magnitude()));
            map.remove_update();
        } else if map.weight.is_quantized() {
            map.weight.set(map.weight.val());
        }
    }
    model.decoder_mut().dropout = Dropout::default();
    with_stable_ids(model)
}

/// `W + s·(B·A)`, each row brought to its length in `magnitude`, where `W` is.
fn sum(weight: &Weight, LowRank { a, b, scale }: LowRank, magnitude: Option<Tensor<1>>) -> Tensor<2> {
    let weight = weight.val();
    let (device, dtype) = (weight.device(), FloatDType::from(weight.dtype()));
    let (weight, a, b) = (weight.inner(), a.inner(), b.inner());
    let ([rank, inputs], [outputs, _]) = (a.dims(), b.dims());
    let norms = magnitude.is_some().then(|| row_norms(weight.clone(), LowRank { a: a.clone(), b: b.clone(), scale }));
    // Products of few summands may be added up in an order of their own: with zeros the order is that of all others, and PEFT's.
    let missing = FEW.saturating_sub(rank);
    let zeros = |shape| Tensor::zeros(shape, (&a.device(), DType::F32));
    let update = match missing {
        0 => b.matmul(a),
        _ => Tensor::cat(vec![b, zeros([outputs, missing])], 1)
            .matmul(Tensor::cat(vec![a.clone(), zeros([missing, inputs])], 0)),
    };
    let mut sum = weight.cast(FloatDType::F32) + update.mul_scalar(scale);
    if let (Some(magnitude), Some(norms)) = (magnitude, norms) {
        // [out] -> [out, 1]
        sum = sum * (magnitude.inner() / norms).unsqueeze_dim(1);
    }
    let sum = sum.cast(dtype);
    if device.is_autodiff() { sum.autodiff() } else { sum }
}
