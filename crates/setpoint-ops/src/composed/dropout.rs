//! Dropout by a mask that follows from keys.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, TensorMetadata, get_or_init_device_settings};
use burn::tensor::{Shape, TensorData};

use super::{dtype, f32};
use crate::backend::Kernels;
use crate::differentiate::Operation;
use crate::dropout::{DropoutMask, FACTORS, GOLDEN_32, SHIFTS, word};

/// Drops elements by a mask that is made on the host.
pub(crate) fn from_host<B: Backend>(x: FloatTensor<B>, mask: &DropoutMask) -> FloatTensor<B> {
    let (own, [rows, columns]) = (dtype::<B>(&x), [x.shape()[0], x.shape()[1]]);
    let (threshold, scale) = (mask.threshold(), mask.scale() as f32);
    let row = |row: usize| {
        let key = mask.key(row);
        (0..columns as u32).map(move |column| if word(key, column) < threshold { 0.0 } else { scale })
    };
    let factors: Vec<f32> = (0..rows).flat_map(row).collect();
    let factors = B::float_from_data(TensorData::new(factors, [rows, columns]), &x.device());
    B::float_cast(B::float_mul(f32::<B>(x), factors), own)
}

/// Returns `z ^ (z >> by)`.
pub(super) fn shifted<B: Backend>(z: IntTensor<B>, by: u32) -> IntTensor<B> {
    B::bitwise_xor(z.clone(), B::bitwise_right_shift_scalar(z, by.into()))
}

/// Drops elements by a mask that the device makes, of whose unsigned products and sums the lowest 32 bits must remain.
#[cfg_attr(not(feature = "cube"), allow(dead_code))]
pub(crate) fn on_device<B: Backend>(x: FloatTensor<B>, mask: &DropoutMask) -> FloatTensor<B> {
    let (device, [rows, columns]) = (x.device(), [x.shape()[0], x.shape()[1]]);
    let shape = Shape::from([rows, columns]);
    let spread = |values: Vec<u32>, own: [usize; 2]| -> IntTensor<B> {
        B::int_expand(B::int_from_data(TensorData::new(values, own), &device), shape.clone())
    };
    // [t, 1] -> [t, d]
    let half = |i: usize| spread((0..rows).map(|row| mask.key(row)[i]).collect(), [rows, 1]);
    // [1, d] -> [t, d]
    let counters = spread((0..columns as u32).map(|column| column.wrapping_mul(GOLDEN_32)).collect(), [1, columns]);
    let z = B::int_add(counters, half(0));
    let z = B::bitwise_xor(B::int_mul_scalar(shifted::<B>(z, SHIFTS[0]), FACTORS[0].into()), half(1));
    let z = shifted::<B>(B::int_mul_scalar(shifted::<B>(z, SHIFTS[1]), FACTORS[1].into()), SHIFTS[2]);
    let bool_dtype = get_or_init_device_settings::<B>(&device).bool_dtype;
    let dropped = B::int_lower_elem(z, mask.threshold().into(), bool_dtype);
    B::float_mask_fill(B::float_mul_scalar(x, mask.scale().into()), dropped, 0f32.into())
}

/// Dropout as an operation: its derivative drops and scales the same elements.
#[derive(Clone, Debug)]
pub(crate) struct Dropout {
    pub(crate) mask: DropoutMask,
}

impl<B: Kernels> Operation<B, 1> for Dropout {
    type Kept = ();

    fn forward(&self, [x]: [FloatTensor<B>; 1], _wanted: [bool; 1]) -> (FloatTensor<B>, ()) {
        (B::drop_elements(x, &self.mask), ())
    }

    fn backward(&self, _kept: (), gradient: FloatTensor<B>, [wanted]: [bool; 1]) -> [Option<FloatTensor<B>>; 1] {
        [wanted.then(|| B::drop_elements(gradient, &self.mask))]
    }
}
