//! The 16 values, and codes for numbers and back.

use rayon::prelude::*;

/// The values, as multiples of a block's scale.
pub(crate) const VALUES: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// The least scale that numbers are divided by.
const LEAST: f32 = 1e-38;

/// The blocks that a thread quantises at a time: an even number of numbers.
const PART: usize = 1024;

/// Quantises a list in blocks: the codes, two a byte, and the scale of each block.
pub(super) fn quantize(values: &[f32], block: usize) -> (Vec<u8>, Vec<f32>) {
    let mut codes = vec![0; values.len().div_ceil(2)];
    let parts = codes.par_chunks_mut(PART * block / 2).zip(values.par_chunks(PART * block));
    let scales: Vec<Vec<f32>> = parts.map(|(codes, values)| quantize_part(codes, values, block)).collect();
    // The missing half of the last byte is a zero.
    if !values.len().is_multiple_of(2)
        && let Some(last) = codes.last_mut()
    {
        *last |= nearest(0.0);
    }
    (codes, scales.concat())
}

/// Quantises blocks: sets their codes, which are 0, and returns their scales.
fn quantize_part(codes: &mut [u8], values: &[f32], block: usize) -> Vec<f32> {
    let mut scales = Vec::with_capacity(values.len().div_ceil(block));
    for (i, numbers) in values.chunks(block).enumerate() {
        let largest = numbers.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
        let divisor = largest.max(LEAST);
        let is_whole = numbers.len() == block;
        // bitsandbytes multiplies by the reciprocal, but divides in a last block that is short, and stores that one's divisor.
        let inverse = 1.0 / divisor;
        scales.push(if is_whole { largest } else { divisor });
        for (j, x) in numbers.iter().enumerate() {
            let code = nearest(if is_whole { x * inverse } else { x / divisor });
            let place = i * block + j;
            codes[place / 2] |= if place.is_multiple_of(2) { code << 4 } else { code };
        }
    }
    scales
}

/// Returns the code of the nearest value; of two that are equally near, the lower one.
fn nearest(x: f32) -> u8 {
    let above = |pair: &[f32]| (pair[0] + pair[1]) / 2.0 < x;
    VALUES.windows(2).filter(|pair| above(pair)).count() as u8
}

/// Writes the numbers whose codes begin at `place`: value times scale.
pub(super) fn dequantize(codes: &[u8], place: usize, scale: f32, out: &mut [f32]) {
    let value = |code: u8| VALUES[usize::from(code & 15)] * scale;
    let (first, rest) = out.split_at_mut(place % 2);
    for x in first {
        *x = value(codes[place / 2]);
    }
    for (pair, &byte) in rest.chunks_mut(2).zip(&codes[place.div_ceil(2)..]) {
        pair[0] = value(byte >> 4);
        if let Some(second) = pair.get_mut(1) {
            *second = value(byte);
        }
    }
}
