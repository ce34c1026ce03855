//! Linear maps with a weight in 4-bit codes: the weight is dequantised for the length of a product.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::{DType, FloatDType, IntDType, Shape, Slice};

use super::{dtype, f32, reshape};
use crate::backend::Kernels;
use crate::differentiate::Operation;
use crate::nf4::{Nf4Double, Nf4Layout, SCALE_VALUES, VALUES};

/// The tensors of an [`Nf4`](crate::Nf4).
#[derive(Clone, Debug)]
pub struct Nf4Tensors<B: Backend> {
    pub(crate) codes: IntTensor<B>,
    pub(crate) numbers: FloatTensor<B>,
    pub(crate) layout: Nf4Layout,
}

/// The weight of a map with a low-rank update.
#[derive(Clone, Debug)]
pub enum Weight<B: Backend> {
    /// Its numbers.
    Dense(FloatTensor<B>),
    /// Their codes.
    Nf4(Nf4Tensors<B>),
}

impl<B: Kernels> Nf4Tensors<B> {
    /// Returns the numbers in the format `dtype`.
    fn dense(self, dtype: FloatDType) -> FloatTensor<B> {
        B::nf4_numbers(self.codes, self.numbers, self.layout, dtype)
    }
}

pub(crate) fn forward<B: Kernels>(x: FloatTensor<B>, weight: Nf4Tensors<B>) -> FloatTensor<B> {
    let weight = weight.dense(dtype::<B>(&x));
    B::linear_forward(x, weight)
}

/// `∂x = g·W`.
pub(crate) fn backward<B: Kernels>(weight: Nf4Tensors<B>, gradient: FloatTensor<B>) -> FloatTensor<B> {
    let weight = weight.dense(dtype::<B>(&gradient));
    B::float_matmul(gradient, weight)
}

/// `value · scale`, rounded to the format of the layout.
pub(crate) fn numbers<B: Backend>(
    codes: IntTensor<B>,
    numbers: FloatTensor<B>,
    layout: Nf4Layout,
    dtype: FloatDType,
) -> FloatTensor<B> {
    let bytes = if codes.dtype() == DType::U8 { 1 } else { 4 };
    let (count, blocks) = (layout.count(), layout.blocks());
    let length = count.div_ceil(2).div_ceil(bytes);
    let part = |start: usize, len: usize| B::float_slice(numbers.clone(), &[Slice::from(start..start + len)]);
    let stored = part(layout.first_scale(), layout.scales());
    let scales = match layout.double {
        None => stored,
        Some(Nf4Double { group, offset }) => {
            let codes = unpack::<B>(codes.clone(), length, blocks.div_ceil(bytes), [8, bytes]);
            let values = take::<B>(part(VALUES, SCALE_VALUES), codes, blocks);
            B::float_add_scalar(B::float_mul(values, spread::<B>(stored, group, blocks)), offset.into())
        }
    };
    let codes = unpack::<B>(codes, 0, length, [4, 2 * bytes]);
    let values = take::<B>(part(0, VALUES), codes, count);
    let products = B::float_mul(values, spread::<B>(scales, layout.block, count));
    reshape::<B, 2>(B::float_cast(round::<B>(products, layout.rounding), dtype), layout.shape)
}

/// The codes of `bits` bits in `len` integers from `start` on, `each` in an integer, the first in the highest bits.
fn unpack<B: Backend>(codes: IntTensor<B>, start: usize, len: usize, [bits, each]: [usize; 2]) -> IntTensor<B> {
    let codes = B::int_slice(codes, &[Slice::from(start..start + len)]);
    let codes = B::int_reshape(B::int_cast(codes, IntDType::I32), Shape::from([len, 1]));
    let nth = |i: usize| {
        let shifted = B::bitwise_right_shift_scalar(codes.clone(), (bits * (each - 1 - i)).into());
        B::bitwise_and_scalar(shifted, ((1 << bits) - 1).into())
    };
    // [len, 1] each -> [len, each] -> [len · each]
    B::int_reshape(B::int_cat((0..each).map(nth).collect(), 1), Shape::from([len * each]))
}

/// The values of the first `count` codes.
fn take<B: Backend>(values: FloatTensor<B>, codes: IntTensor<B>, count: usize) -> FloatTensor<B> {
    B::float_select(values, 0, B::int_slice(codes, &[Slice::from(0..count)]))
}

/// Each number `times` times, `count` in all.
fn spread<B: Backend>(x: FloatTensor<B>, times: usize, count: usize) -> FloatTensor<B> {
    let len = x.shape()[0];
    // [len] -> [len, times] -> [len · times] -> [count]
    let wide = B::float_expand(reshape::<B, 2>(x, [len, 1]), Shape::from([len, times]));
    B::float_slice(reshape::<B, 1>(wide, [len * times]), &[Slice::from(0..count)])
}

/// Rounds to the nearest number of a format, in f32.
fn round<B: Backend>(x: FloatTensor<B>, to: FloatDType) -> FloatTensor<B> {
    let dropped = match to {
        FloatDType::BF16 => 16,
        FloatDType::F16 => 13,
        FloatDType::F64 | FloatDType::F32 | FloatDType::Flex32 => return x,
    };
    if B::supports_dtype(&x.device(), to.into()) {
        return f32::<B>(B::float_cast(x, to));
    }
    // Veltkamp's splitting: (2^s + 1)·x takes the last s bits away, but for the direction in which ties go.
    let wide = B::float_mul_scalar(x.clone(), ((1_u32 << dropped) as f64 + 1.0).into());
    B::float_sub(wide.clone(), B::float_sub(wide, x))
}

/// The map as an operation on `x`. The weight is frozen: it has no gradient.
#[derive(Clone, Debug)]
pub(crate) struct LinearNf4<B: Backend> {
    pub(crate) weight: Nf4Tensors<B>,
}

impl<B: Kernels> Operation<B, 1> for LinearNf4<B> {
    /// The weight is kept as the codes that it is.
    type Kept = ();

    fn forward(&self, [x]: [FloatTensor<B>; 1], _wanted: [bool; 1]) -> (FloatTensor<B>, ()) {
        (B::linear_nf4_forward(x, self.weight.clone()), ())
    }

    fn backward(&self, _kept: (), gradient: FloatTensor<B>, [wanted]: [bool; 1]) -> [Option<FloatTensor<B>>; 1] {
        [wanted.then(|| B::linear_nf4_backward(self.weight.clone(), gradient))]
    }
}
