//! Dropout: a row in each cube, whose units make the mask as they go. The keys of rows are sent to the device once for all matrices of a pass.

use std::cell::RefCell;
use std::sync::Arc;

use burn::backend::TensorMetadata;
use burn_cubecl::CubeDevice;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;

use super::launch::{UNITS, cubes, element, fresh, in_order, upload};
use crate::dropout::{DropoutMask, FACTORS, GOLDEN, GOLDEN_32, MIXER_SHIFTS, MIXERS, SHIFTS};

/// Masks whose keys stay on the device: a pass has one for all tokens and one for those that its last layer answers.
const KEPT: usize = 2;

/// A number of 64 bits, which not every device has.
#[derive(CubeType, Clone, Copy)]
#[expand(derive(Clone, Copy))]
struct Wide {
    low: u32,
    high: u32,
}

/// Returns `z ^ (z >> by)`; `by` is between 0 and 32.
#[cube]
fn folded(z: Wide, #[comptime] by: u32) -> Wide {
    let low = z.low ^ ((z.low >> by) | (z.high << comptime!(32 - by)));
    let high = z.high ^ (z.high >> by);
    Wide { low, high }
}

/// Returns the lower 64 bits of a product.
#[cube]
fn product(z: Wide, #[comptime] by: u64) -> Wide {
    let low = comptime!(by as u32);
    let high = comptime!((by >> 32) as u32);
    // Halves of the lower words, whose products fit 32 bits.
    let a = z.low & 0xFFFFu32;
    let b = z.low >> 16u32;
    let c = comptime!(low & 0xFFFF);
    let d = comptime!(low >> 16);
    let bc = b * c;
    let ad = a * d;
    let middle = ((a * c) >> 16u32) + (bc & 0xFFFFu32) + (ad & 0xFFFFu32);
    let carried = b * d + (bc >> 16u32) + (ad >> 16u32) + (middle >> 16u32);
    Wide { low: z.low * low, high: carried + z.low * high + z.high * low }
}

/// Returns the key of a row of a matrix: [`crate::extend_key`].
#[cube]
fn extended(key: Wide, matrix: Wide) -> Wide {
    let low = (key.low ^ matrix.low) + comptime!(GOLDEN as u32);
    let mut high = (key.high ^ matrix.high) + comptime!((GOLDEN >> 32) as u32);
    if low < comptime!(GOLDEN as u32) {
        high += 1u32;
    }
    let z = Wide { low, high };
    let z = product(folded(z, comptime!(MIXER_SHIFTS[0])), comptime!(MIXERS[0]));
    let z = product(folded(z, comptime!(MIXER_SHIFTS[1])), comptime!(MIXERS[1]));
    folded(z, comptime!(MIXER_SHIFTS[2]))
}

/// Returns the random bits of a column: [`crate::dropout::word`].
#[cube]
fn word(key: Wide, column: u32) -> u32 {
    let z = column * comptime!(GOLDEN_32) + key.low;
    let z = ((z ^ (z >> comptime!(SHIFTS[0]))) * comptime!(FACTORS[0])) ^ key.high;
    let z = (z ^ (z >> comptime!(SHIFTS[1]))) * comptime!(FACTORS[1]);
    z ^ (z >> comptime!(SHIFTS[2]))
}

#[cube(launch)]
fn dropout_kernel<F: Float>(
    x: &[F],
    keys: &[u32],
    y: &mut [F],
    width: usize,
    matrix_low: u32,
    matrix_high: u32,
    threshold: u32,
    scale: f32,
    #[comptime] units: usize,
    #[define(F)] _element: ElemType,
) {
    let row = CUBE_POS;
    if row * width >= y.len() {
        terminate!();
    }
    let matrix = Wide { low: matrix_low, high: matrix_high };
    let key = extended(Wide { low: keys[row * 2], high: keys[row * 2 + 1] }, matrix);
    let mut column = UNIT_POS as usize;
    while column < width {
        let at = row * width + column;
        let mut value = f32::cast_from(x[at]) * scale;
        if word(key, u32::cast_from(column)) < threshold {
            value = 0.0f32;
        }
        y[at] = F::cast_from(value);
        column += units;
    }
}

/// Keys of rows that a device has.
struct Kept {
    rows: Arc<[u64]>,
    device: CubeDevice,
    keys: CubeTensor,
}

thread_local! {
    /// The latest keys of rows, on their device.
    static LATEST: RefCell<Vec<Kept>> = const { RefCell::new(Vec::new()) };
}

/// Returns the keys of a mask's rows on the device of a tensor, `[2 t]`, the lower half of each first.
fn keys(mask: &DropoutMask, like: &CubeTensor) -> CubeTensor {
    let rows = mask.row_keys();
    LATEST.with_borrow_mut(|latest| {
        let is_known = |kept: &&Kept| Arc::ptr_eq(&kept.rows, rows) && kept.device == like.device;
        if let Some(kept) = latest.iter().find(is_known) {
            return kept.keys.clone();
        }
        let keys = upload(like, rows.iter().flat_map(|&key| [key as u32, (key >> 32) as u32]).collect());
        if latest.len() == KEPT {
            latest.remove(0);
        }
        latest.push(Kept { rows: rows.clone(), device: like.device.clone(), keys: keys.clone() });
        keys
    })
}

/// Answers `x / (1 − rate)`, or 0 where the mask drops an element.
pub(super) fn drop_elements(x: CubeTensor, mask: &DropoutMask) -> CubeTensor {
    let x = in_order(x);
    let (client, element) = (x.client.clone(), element(&x));
    let [rows, width] = x.shape().dims();
    let keys = keys(mask, &x);
    let y = fresh(&x, [rows, width], x.dtype);
    let matrix = mask.matrix_key();
    dropout_kernel::launch(
        &client,
        cubes(&client, rows),
        CubeDim::new_1d(UNITS as u32),
        x.into_buffer_arg(),
        keys.into_buffer_arg(),
        y.clone().into_buffer_arg(),
        width,
        matrix as u32,
        (matrix >> 32) as u32,
        mask.threshold(),
        mask.scale() as f32,
        UNITS,
        element,
    );
    y
}
