//! Rotary position embedding.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::Slice;

use super::{dtype, f32, reshape};
use crate::backend::Kernels;
use crate::differentiate::Operation;

/// Turns the pairs of each head by the token's angle, or `back` by it.
pub(crate) fn rotate<B: Backend>(
    x: FloatTensor<B>,
    cos: FloatTensor<B>,
    sin: FloatTensor<B>,
    back: bool,
) -> FloatTensor<B> {
    let dtype = dtype::<B>(&x);
    let (t, width, half) = (x.shape()[0], x.shape()[1], cos.shape()[1]);
    let heads = width / (2 * half);
    // [t, heads·n] -> [t, heads, n]
    let x = reshape::<B, 3>(f32::<B>(x), [t, heads, 2 * half]);
    let part = |x: &FloatTensor<B>, start: usize| {
        B::float_slice(x.clone(), &[Slice::from(0..t), Slice::from(0..heads), Slice::from(start..start + half)])
    };
    let (a, b) = (part(&x, 0), part(&x, half));
    // [t, n/2] -> [t, 1, n/2]
    let cos = reshape::<B, 3>(cos, [t, 1, half]);
    let sin = reshape::<B, 3>(if back { B::float_neg(sin) } else { sin }, [t, 1, half]);
    let first = B::float_sub(B::float_mul(a.clone(), cos.clone()), B::float_mul(b.clone(), sin.clone()));
    let second = B::float_add(B::float_mul(b, cos), B::float_mul(a, sin));
    // [t, heads, n] -> [t, heads·n]
    B::float_cast(reshape::<B, 2>(B::float_cat(vec![first, second], 2), [t, width]), dtype)
}

/// The rotation by given angles; its transpose is the rotation back.
#[derive(Clone, Debug)]
pub(crate) struct Rotate<B: Backend> {
    pub(crate) cos: FloatTensor<B>,
    pub(crate) sin: FloatTensor<B>,
}

impl<B: Kernels> Operation<B, 1> for Rotate<B> {
    type Kept = ();

    fn forward(&self, [x]: [FloatTensor<B>; 1], _wanted: [bool; 1]) -> (FloatTensor<B>, ()) {
        (B::rotate_by(x, self.cos.clone(), self.sin.clone(), false), ())
    }

    fn backward(&self, (): (), gradient: FloatTensor<B>, wanted: [bool; 1]) -> [Option<FloatTensor<B>>; 1] {
        [wanted[0].then(|| B::rotate_by(gradient, self.cos.clone(), self.sin.clone(), true))]
    }
}
