//! An adapter's updates, added to the weights.

use burn::module::Param;
use burn::tensor::{FloatDType, Tensor};
use setpoint_ops::LowRank;

use super::adapter::{HasDecoder, maps};

/// Returns the model without an adapter that computes what `model` computes with it: `W' = round(W + s·(B·A))`, in f32 and rounded once to the
/// dtype of `W`. Rounding aside, both give the same numbers.
pub fn merged<M: HasDecoder>(mut model: M) -> M {
    for (_, map) in maps(model.decoder_mut()) {
        if let Some(update) = map.update() {
            let id = map.weight.id;
            let value = sum(&map.weight, update);
            map.weight = map.weight.clone().transform_for_load(value, id);
            map.remove_update();
        }
    }
    model
}

/// `W + s·(B·A)`, where `W` is.
fn sum(weight: &Param<Tensor<2>>, LowRank { a, b, scale }: LowRank) -> Tensor<2> {
    let weight = weight.val();
    let (device, dtype) = (weight.device(), FloatDType::from(weight.dtype()));
    let update = b.inner().matmul(a.inner()).mul_scalar(scale);
    let sum = (weight.inner().cast(FloatDType::F32) + update).cast(dtype);
    if device.is_autodiff() { sum.autodiff() } else { sum }
}
