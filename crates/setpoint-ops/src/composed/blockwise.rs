//! Numbers in 8-bit codes: the nearest value is found by halving the codes that are left.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, TensorMetadata, get_or_init_device_settings};
use burn::tensor::{FloatDType, IntDType, Shape, Slice};

use super::reshape;
use crate::blockwise::{BLOCK, SMALLEST_SCALE};

/// Cuts numbers into blocks, the last one filled up with zeros: `[n] -> [blocks, BLOCK]`.
fn blocks<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let n = x.shape()[0];
    let count = n.div_ceil(BLOCK);
    let missing = count * BLOCK - n;
    let x = if missing == 0 {
        x
    } else {
        let zeros = B::float_zeros(Shape::from([missing]), &x.device(), FloatDType::F32);
        B::float_cat(vec![x, zeros], 0)
    };
    reshape::<B, 2>(x, [count, BLOCK])
}

/// Returns the first `n` numbers of blocks: `[blocks, BLOCK] -> [n]`.
fn joined<B: Backend>(x: FloatTensor<B>, n: usize) -> FloatTensor<B> {
    let all = x.shape().num_elements();
    B::float_slice(reshape::<B, 1>(x, [all]), &[Slice::from(0..n)])
}

/// `[n]`, `[255]` -> u8 `[n]`, `[blocks]`
pub(crate) fn encode<B: Backend>(numbers: FloatTensor<B>, bounds: FloatTensor<B>) -> (IntTensor<B>, FloatTensor<B>) {
    let n = numbers.shape()[0];
    let device = numbers.device();
    let x = blocks::<B>(numbers);
    let count = x.shape()[0];
    // [blocks, 1]
    let scales = B::float_max_dim(B::float_abs(x.clone()), 1);
    let inverse = B::float_recip(B::float_clamp_min(scales.clone(), SMALLEST_SCALE.into()));
    let fractions = B::float_mul(x, B::float_expand(inverse, Shape::from([count, BLOCK])));
    let fractions = joined::<B>(B::float_clamp(fractions, (-1.0).into(), 1.0.into()), n);
    // The code is the number of bounds below the fraction: at most 255.
    let bools = get_or_init_device_settings::<B>(&device).bool_dtype;
    let mut codes = B::int_zeros(Shape::from([n]), &device, IntDType::I32);
    for half in [128_i64, 64, 32, 16, 8, 4, 2, 1] {
        let bound = B::float_select(bounds.clone(), 0, B::int_add_scalar(codes.clone(), (half - 1).into()));
        let is_above = B::bool_into_int(B::float_greater(fractions.clone(), bound, bools), IntDType::I32);
        codes = B::int_add(codes, B::int_mul_scalar(is_above, half.into()));
    }
    (B::int_cast(codes, IntDType::U8), reshape::<B, 1>(scales, [count]))
}

/// u8 `[n]`, `[blocks]`, `[256]` -> `[n]`
pub(crate) fn decode<B: Backend>(
    codes: IntTensor<B>,
    scales: FloatTensor<B>,
    values: FloatTensor<B>,
) -> FloatTensor<B> {
    let n = codes.shape()[0];
    let fractions = blocks::<B>(B::float_select(values, 0, B::int_cast(codes, IntDType::I32)));
    let count = fractions.shape()[0];
    let scales = B::float_expand(reshape::<B, 2>(scales, [count, 1]), Shape::from([count, BLOCK]));
    joined::<B>(B::float_mul(fractions, scales), n)
}
