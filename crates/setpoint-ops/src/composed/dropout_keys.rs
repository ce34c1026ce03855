//! Dropout by a mask that a device makes of the keys of rows, composed of operations on whole numbers.
//!
//! Numbers of 32 bits lie in integers of 64, so that no sum and no product of them is too large: it does not matter what a device does then.

#![cfg_attr(not(feature = "remote"), allow(dead_code))]

use burn::backend::tensor::{Device, FloatTensor, IntTensor};
use burn::backend::{Backend, TensorMetadata, get_or_init_device_settings};
use burn::tensor::{IntDType, Shape, TensorData};

use super::dropout::shifted;
use super::{dtype, f32};
use crate::dropout::{DropoutMask, FACTORS, GOLDEN, GOLDEN_32, MIXER_SHIFTS, MIXERS, SHIFTS};

/// The lowest 32 bits of a number.
const LOW: i64 = 0xFFFF_FFFF;

/// The lowest 16 bits.
const LOW_16: i64 = 0xFFFF;

/// Drops elements of a device that has integers of 64 bits.
pub(crate) fn from_keys<B: Backend>(x: FloatTensor<B>, mask: &DropoutMask) -> FloatTensor<B> {
    let (own, device, [rows, columns]) = (dtype::<B>(&x), x.device(), [x.shape()[0], x.shape()[1]]);
    let Wide { low, high } = row_keys::<B>(mask, &device).extended(mask.matrix_key());
    // [t, 1] or [1, d] -> [t, d]
    let spread = |z: IntTensor<B>| B::int_expand(z, Shape::from([rows, columns]));
    // 0, 1, 2, ..: a device counts by itself.
    let ones = B::int_ones(Shape::from([1, columns]), &device, IntDType::I64);
    let counters = B::int_sub_scalar(B::int_cumsum(ones, 1), 1i64.into());
    let z = lowest::<B>(B::int_add(spread(times::<B>(counters, GOLDEN_32)), spread(low)));
    let z = B::bitwise_xor(times::<B>(shifted::<B>(z, SHIFTS[0]), FACTORS[0]), spread(high));
    let z = shifted::<B>(times::<B>(shifted::<B>(z, SHIFTS[1]), FACTORS[1]), SHIFTS[2]);
    let bool_dtype = get_or_init_device_settings::<B>(&device).bool_dtype;
    let dropped = B::int_lower_elem(z, i64::from(mask.threshold()).into(), bool_dtype);
    let scaled = B::float_mul_scalar(f32::<B>(x), mask.scale().into());
    B::float_cast(B::float_mask_fill(scaled, dropped, 0f32.into()), own)
}

/// Returns the keys of a mask's rows, which are sent to a device once for the masks of all matrices of a pass.
fn row_keys<B: Backend>(mask: &DropoutMask, device: &Device<B>) -> Wide<B> {
    let make = || (device.clone(), Wide::<B>::of_rows(mask.row_keys(), device));
    let (kept_on, keys) = mask.keep(make);
    if kept_on == *device { keys } else { make().1 }
}

/// Numbers of 64 bits, `[t, 1]`: two halves of 32 bits.
#[derive(Clone)]
struct Wide<B: Backend> {
    low: IntTensor<B>,
    high: IntTensor<B>,
}

impl<B: Backend> Wide<B> {
    /// Sends 8 bytes for each number.
    fn of_rows(numbers: &[u64], device: &Device<B>) -> Self {
        let bits: Vec<i64> = numbers.iter().map(|&number| number as i64).collect();
        let bits = B::int_from_data(TensorData::new(bits, [numbers.len(), 1]), device);
        let high = lowest::<B>(B::bitwise_right_shift_scalar(bits.clone(), 32u32.into()));
        Self { low: lowest::<B>(bits), high }
    }

    /// Returns the keys of rows of a matrix: [`crate::extend_key`].
    fn extended(self, matrix: u64) -> Self {
        let with = |half: IntTensor<B>, shift: u32| -> IntTensor<B> {
            let (matrix, golden) = (half_of(matrix, shift), half_of(GOLDEN, shift));
            B::int_add_scalar(B::bitwise_xor_scalar(half, i64::from(matrix).into()), i64::from(golden).into())
        };
        let (low, high) = (with(self.low, 0), with(self.high, 32));
        let high = lowest::<B>(B::int_add(high, B::bitwise_right_shift_scalar(low.clone(), 32u32.into())));
        let z = Self { low: lowest::<B>(low), high };
        let z = z.folded(MIXER_SHIFTS[0]).product(MIXERS[0]);
        let z = z.folded(MIXER_SHIFTS[1]).product(MIXERS[1]);
        z.folded(MIXER_SHIFTS[2])
    }

    /// Returns `z ^ (z >> by)`; `by` is between 0 and 32.
    fn folded(self, by: u32) -> Self {
        let Self { low, high } = self;
        let moved = B::bitwise_left_shift_scalar(high.clone(), (32 - by).into());
        let low = lowest::<B>(B::bitwise_xor(shifted::<B>(low, by), moved));
        Self { low, high: shifted::<B>(high, by) }
    }

    /// Returns the lowest 64 bits of a product.
    fn product(self, by: u64) -> Self {
        let Self { low, high } = self;
        let [a, b] = [half_of(by, 0) & 0xFFFF, half_of(by, 0) >> 16].map(i64::from);
        // low · (a + b · 2^16) = first + second · 2^16
        let first = B::int_mul_scalar(low.clone(), a.into());
        let second = B::int_mul_scalar(low.clone(), b.into());
        let middle = B::bitwise_left_shift_scalar(B::bitwise_and_scalar(second.clone(), LOW_16.into()), 16u32.into());
        let sum = B::int_add(first, middle);
        let carried = B::int_add(
            B::bitwise_right_shift_scalar(sum.clone(), 32u32.into()),
            B::bitwise_right_shift_scalar(second, 16u32.into()),
        );
        let crossed = B::int_add(times::<B>(low, half_of(by, 32)), times::<B>(high, half_of(by, 0)));
        Self { low: lowest::<B>(sum), high: lowest::<B>(B::int_add(carried, crossed)) }
    }
}

/// Returns the 32 bits of a number from `shift` on.
fn half_of(number: u64, shift: u32) -> u32 {
    (number >> shift) as u32
}

/// Returns the lowest 32 bits of numbers.
fn lowest<B: Backend>(z: IntTensor<B>) -> IntTensor<B> {
    B::bitwise_and_scalar(z, LOW.into())
}

/// Returns the lowest 32 bits of products with numbers of 32 bits.
fn times<B: Backend>(z: IntTensor<B>, by: u32) -> IntTensor<B> {
    let [a, b] = [by & 0xFFFF, by >> 16].map(i64::from);
    let high = B::bitwise_and_scalar(B::int_mul_scalar(z.clone(), b.into()), LOW_16.into());
    lowest::<B>(B::int_add(B::int_mul_scalar(z, a.into()), B::bitwise_left_shift_scalar(high, 16u32.into())))
}

#[cfg(test)]
mod tests {
    use burn::backend::{Flex, NdArray};
    use burn::tensor::read_sync;

    use super::*;
    use crate::composed::dropout::from_host;
    use crate::extend_key;

    /// Fails unless a device drops what the host says.
    fn check<B: Backend>() {
        let device = Device::<B>::default();
        for (rate, [rows, columns]) in [(0.0, [1, 1]), (0.1, [7, 33]), (0.5, [3, 300]), (0.9, [40, 5])] {
            let keys: Vec<u64> = (0..rows as u64).map(|row| extend_key(u64::MAX, row)).collect();
            let mask = DropoutMask::new(keys.into(), rate);
            let values: Vec<f32> = (0..rows * columns).map(|i| i as f32 - 20.5).collect();
            let x = || B::float_from_data(TensorData::new(values.clone(), [rows, columns]), &device);
            let host = |x: FloatTensor<B>| read_sync(B::float_into_data(x)).unwrap().iter::<f32>().collect::<Vec<_>>();
            for matrix in [0, 1, u64::MAX, 0x0123_4567_89ab_cdef] {
                let mask = mask.for_matrix(matrix);
                assert_eq!(host(from_keys::<B>(x(), &mask)), host(from_host::<B>(x(), &mask)), "{rate}, {matrix:x}");
            }
        }
    }

    #[test]
    fn a_device_makes_the_mask_of_the_host() {
        check::<Flex>();
        check::<NdArray>();
    }
}
