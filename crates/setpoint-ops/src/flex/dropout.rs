//! Dropout in one pass: a mask is never in memory.

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

use super::elementwise::PART;
use super::host::{Fresh, Values};
use super::simd::vectorised;
use crate::dropout::{DropoutMask, word};

/// `[t, d] -> [t, d]`
pub(super) fn dropout(x: FlexTensor, mask: &DropoutMask) -> FlexTensor {
    let (t, columns) = (x.shape()[0], x.shape()[1]);
    let x = Values::of(x);
    let x = x.f32();
    let (threshold, scale) = (mask.threshold(), mask.scale() as f32);
    let rows = (PART / columns).max(1);
    let mut y = Fresh::new(t * columns);
    y.slots().par_chunks_mut(rows * columns).zip(x.par_chunks(rows * columns)).enumerate().for_each(
        |(part, (y, x))| {
            vectorised(
                #[inline(always)]
                || {
                    for (i, (y, x)) in y.chunks_exact_mut(columns).zip(x.chunks_exact(columns)).enumerate() {
                        let key = mask.key(part * rows + i);
                        for (column, (y, x)) in y.iter_mut().zip(x).enumerate() {
                            y.write(if word(key, column as u32) < threshold { 0.0 } else { x * scale });
                        }
                    }
                },
            );
        },
    );
    // SAFETY: the parts are all rows, and every element of a row is written.
    unsafe { y.tensor([t, columns]) }
}
