//! Matrices of 4-bit codes, exactly as bitsandbytes has them: NF4, "4-bit NormalFloat" (Dettmers et al., "QLoRA",
//! <https://arxiv.org/abs/2305.14314>).
//!
//! A matrix `[out, in]` is read row by row as one list and cut into blocks of 64 numbers, which may cross from one row to the next. A block
//! has a scale, the largest magnitude in it, and each number is the nearest of 16 fixed values times the scale. With double quantisation,
//! the scales are codes as well: 8 bits each, in blocks of 256.

mod codes;
mod scales;

use std::ops::Range;

use burn::tensor::{Device, FloatDType};
use half::{bf16, f16};
use setpoint_ops::{Nf4, Nf4Double, Nf4Host, Nf4Layout};

pub(crate) use codes::VALUES;
pub(crate) use scales::{Double, Scales};

/// The numbers in a block, unless a file says otherwise.
const BLOCK: usize = 64;

/// The form in which the matrices of a model's layers are held in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantize {
    /// In 4-bit codes, NF4, as bitsandbytes has them.
    Nf4 {
        /// True if scales are in codes as well: 0.516 bytes a number rather than 0.5625.
        double_quant: bool,
    },
}

impl Default for Quantize {
    fn default() -> Self {
        Self::Nf4 { double_quant: true }
    }
}

impl Quantize {
    /// Returns the bytes that a matrix `[out, in]` takes.
    pub fn bytes(self, [outputs, inputs]: [usize; 2]) -> u64 {
        let Self::Nf4 { double_quant } = self;
        let count = outputs as u64 * inputs as u64;
        let blocks = count.div_ceil(BLOCK as u64);
        // Codes, scales, and the table of what codes stand for.
        let (scales, table) = if double_quant {
            (blocks + 4 * blocks.div_ceil(scales::BLOCK as u64), 16 + 256)
        } else {
            (4 * blocks, 16)
        };
        count.div_ceil(2) + scales + 4 * table
    }
}

/// A matrix in NF4.
#[derive(Clone, Debug, PartialEq)]
pub struct Nf4Matrix {
    shape: [usize; 2],
    /// Two codes a byte, the first in the upper half.
    codes: Vec<u8>,
    block: usize,
    scales: Scales,
    /// The format that numbers are rounded to when they are dequantised: that of the original.
    dtype: FloatDType,
}

/// A number that has no code: its place in the list of all numbers, and the number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NotFinite {
    /// The place, counted row by row.
    pub place: usize,
    /// Infinite or not a number.
    pub found: f32,
}

impl Nf4Matrix {
    /// Quantises a matrix `[out, in]` of numbers in the format `dtype`, with double quantisation or without.
    ///
    /// The mean of the scales, which double quantisation subtracts, is rounded once from f64. bitsandbytes adds up in f32, so that its
    /// mean may differ in the last bit.
    ///
    /// # Errors
    ///
    /// [`NotFinite`] for the first number that is infinite or not a number.
    ///
    /// # Panics
    ///
    /// If `values` does not have as many numbers as the shape says.
    pub fn quantize(values: &[f32], shape: [usize; 2], dtype: FloatDType, double: bool) -> Result<Self, NotFinite> {
        assert_eq!(values.len(), shape[0] * shape[1], "a matrix of shape {shape:?}");
        if let Some(place) = values.iter().position(|x| !x.is_finite()) {
            return Err(NotFinite { place, found: values[place] });
        }
        let (codes, scales) = codes::quantize(values, BLOCK);
        let scales = if double { Scales::Double(Double::quantize(&scales)) } else { Scales::Single(scales) };
        Ok(Self { shape, codes, block: BLOCK, scales, dtype })
    }

    /// Creates a matrix of the parts that a checkpoint holds. Their lengths must agree with the shape, or it fails with a sentence.
    pub(crate) fn from_parts(
        shape: [usize; 2],
        codes: Vec<u8>,
        block: usize,
        scales: Scales,
        dtype: FloatDType,
    ) -> Result<Self, String> {
        let count = shape[0] * shape[1];
        let check = |what: &str, found: usize, expected: usize| match found == expected {
            true => Ok(()),
            false => Err(format!("holds {found} {what} for a matrix of shape {shape:?}; expected {expected}")),
        };
        check("bytes of codes", codes.len(), count.div_ceil(2))?;
        check("scales", scales.len(), count.div_ceil(block))?;
        if let Scales::Double(double) = &scales {
            check("scales of scales", double.absmax.len(), scales.len().div_ceil(double.block))?;
        }
        Ok(Self { shape, codes, block, scales, dtype })
    }

    /// Copies the matrix to a device.
    pub(crate) fn to_device(&self, device: &Device) -> Nf4 {
        let (double, scale_codes, scales) = match &self.scales {
            Scales::Single(scales) => (None, None, scales),
            Scales::Double(Double { codes, absmax, block, offset, values }) => {
                let double = Nf4Double { group: *block, offset: *offset };
                (Some(double), Some((codes.as_slice(), values.as_slice())), absmax)
            }
        };
        let layout = Nf4Layout { shape: self.shape, block: self.block, double, rounding: self.dtype };
        Nf4::new(Nf4Host { codes: &self.codes, values: &VALUES, scale_codes, scales }, layout, device)
    }

    /// Returns the shape, `[out, in]`.
    pub fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// Returns the bytes that the codes and scales take.
    pub fn bytes(&self) -> usize {
        self.codes.len() + self.scales.bytes()
    }

    /// Returns the format of the numbers.
    pub fn dtype(&self) -> FloatDType {
        self.dtype
    }

    /// Writes the numbers of some rows to `out`, `[rows, in]`: value times scale in f32, rounded once to the format of the original.
    ///
    /// # Panics
    ///
    /// If a row does not exist, or `out` does not have room for just these rows.
    pub fn dequantize_rows(&self, rows: Range<usize>, out: &mut [f32]) {
        let [height, width] = self.shape;
        assert!(rows.end <= height && out.len() == rows.len() * width, "rows {rows:?} of {:?}", self.shape);
        let mut place = rows.start * width;
        let mut rest = &mut *out;
        while !rest.is_empty() {
            let block = place / self.block;
            let length = ((block + 1) * self.block - place).min(rest.len());
            let (numbers, after) = rest.split_at_mut(length);
            codes::dequantize(&self.codes, place, self.scales.get(block), numbers);
            place += length;
            rest = after;
        }
        match self.dtype {
            FloatDType::BF16 => out.iter_mut().for_each(|x| *x = bf16::from_f32(*x).to_f32()),
            FloatDType::F16 => out.iter_mut().for_each(|x| *x = f16::from_f32(*x).to_f32()),
            FloatDType::F64 | FloatDType::F32 | FloatDType::Flex32 => {}
        }
    }
}

#[cfg(test)]
mod tests;
