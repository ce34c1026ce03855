//! Weights in 4-bit codes: rows or columns are dequantised just before a product reads them, into memory that stays in the cache, or into
//! registers.

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::tensor::{DType, FloatDType, f16};
use rayon::prelude::*;

use super::host::{Fresh, Matrix, Values};
use super::lookup::{self, CODES, Codes, Lookup, WithLookup};
use crate::composed::nf4::Nf4Tensors;
use crate::nf4::{Nf4Double, Nf4Layout, SCALE_VALUES, VALUES};

/// Rows that a thread dequantises at a time where the whole matrix is wanted.
const ROWS: usize = 16;

/// A weight in codes of one byte.
pub(super) struct Nf4 {
    codes: Values,
    numbers: Values,
    layout: Nf4Layout,
}

impl Nf4 {
    /// Returns the weight if its codes are bytes.
    pub(super) fn of(weight: &Nf4Tensors<Flex>) -> Option<Self> {
        let Nf4Tensors { codes, numbers, layout } = weight.clone();
        (codes.dtype() == DType::U8).then(|| Self { codes: Values::of(codes), numbers: Values::of(numbers), layout })
    }

    /// Returns all numbers, `[out, in]`.
    pub(super) fn dense(&self) -> FlexTensor {
        let [outputs, inputs] = self.layout.shape;
        let mut numbers = Fresh::new(outputs * inputs);
        let parts = numbers.slots().par_chunks_mut((ROWS * inputs).max(1)).enumerate();
        parts.for_each_init(Vec::new, |buffer, (i, part)| {
            let rows = self.rows(buffer, i * ROWS, part.len() / inputs);
            part.write_copy_of_slice(rows);
        });
        // SAFETY: the parts are all numbers.
        unsafe { numbers.tensor([outputs, inputs]) }
    }

    /// Returns whether numbers are rounded to bf16, so that a weight of that format has the same ones.
    pub(super) fn is_bf16(&self) -> bool {
        self.layout.rounding == FloatDType::BF16
    }

    /// Returns what it takes to dequantise.
    pub(super) fn reader(&self) -> Reader<'_> {
        let (codes, numbers) = (self.codes.u8(), self.numbers.f32());
        let Some(values) = numbers.first_chunk() else { unreachable!("a matrix begins with its values") };
        let scales = &numbers[self.layout.first_scale()..];
        let (codes, scales) = match self.layout.double {
            None => (codes, Scales::Single(scales)),
            Some(Nf4Double { group, offset }) => {
                let (codes, of_scales) = codes.split_at(self.layout.count().div_ceil(2));
                let values = &numbers[VALUES..VALUES + SCALE_VALUES];
                (codes, Scales::Double { codes: of_scales, values, absmax: scales, group: Group::new(group), offset })
            }
        };
        Reader { codes, values, scales, block: self.layout.block, rounding: self.layout.rounding }
    }

    /// Returns the numbers in a block.
    pub(super) fn block(&self) -> usize {
        self.layout.block
    }

    pub(super) fn shape(&self) -> [usize; 2] {
        self.layout.shape
    }

    /// Writes `count` rows from `start` on to `buffer`, and returns them.
    pub(super) fn rows<'a>(&self, buffer: &'a mut Vec<f32>, start: usize, count: usize) -> &'a [f32] {
        let [outputs, inputs] = self.layout.shape;
        assert!(start + count <= outputs, "rows of the weight");
        buffer.resize(count * inputs, 0.0);
        lookup::dispatch(Read {
            from: self.reader(),
            start: start * inputs,
            stride: 0,
            count: buffer.len(),
            to: buffer,
        });
        buffer
    }

    /// Writes `count` columns from `start` on to `buffer`, and returns them.
    pub(super) fn columns<'a>(&self, buffer: &'a mut Vec<f32>, start: usize, count: usize) -> Matrix<'a> {
        let [outputs, inputs] = self.layout.shape;
        assert!(start + count <= inputs, "columns of the weight");
        buffer.resize(count * outputs, 0.0);
        lookup::dispatch(Read { from: self.reader(), start, stride: inputs, count, to: buffer });
        Matrix::new(buffer, outputs, count, count)
    }
}

/// Dequantises `count` numbers from `start` on, as many that begin `stride` numbers later, and so on.
struct Read<'a> {
    from: Reader<'a>,
    start: usize,
    stride: usize,
    count: usize,
    to: &'a mut [f32],
}

impl WithLookup for Read<'_> {
    type Output = ();

    #[inline(always)]
    fn with_lookup<S: Lookup>(self, simd: S) {
        for (i, to) in self.to.chunks_mut(self.count.max(1)).enumerate() {
            self.from.read(simd, self.start + i * self.stride, to);
        }
    }
}

/// The parts of a matrix as slices.
pub(super) struct Reader<'a> {
    codes: &'a [u8],
    values: &'a [f32; VALUES],
    scales: Scales<'a>,
    block: usize,
    rounding: FloatDType,
}

/// The scales of the blocks.
enum Scales<'a> {
    Single(&'a [f32]),
    Double { codes: &'a [u8], values: &'a [f32], absmax: &'a [f32], group: Group, offset: f32 },
}

/// The number of blocks that share a scale of their scales.
#[derive(Clone, Copy)]
enum Group {
    /// A power of two: shifting is faster than dividing.
    PowerOfTwo(u32),
    Other(usize),
}

impl Group {
    fn new(blocks: usize) -> Self {
        if blocks.is_power_of_two() { Self::PowerOfTwo(blocks.trailing_zeros()) } else { Self::Other(blocks) }
    }

    /// Returns the group of a block.
    #[inline(always)]
    fn of(self, block: usize) -> usize {
        match self {
            Self::PowerOfTwo(shift) => block >> shift,
            Self::Other(blocks) => block / blocks,
        }
    }
}

impl Reader<'_> {
    /// Writes the numbers that begin at `place` to `out`.
    #[inline(always)]
    fn read<S: Lookup>(&self, simd: S, mut place: usize, mut out: &mut [f32]) {
        let mut block = place / self.block;
        while !out.is_empty() {
            let end = (block + 1) * self.block;
            let len = (end - place).min(out.len());
            let (numbers, rest) = out.split_at_mut(len);
            look_up(simd, self.codes, place, &self.table(block), numbers);
            (place, block, out) = (end, block + 1, rest);
        }
    }

    /// Returns the codes of a block whose numbers are a multiple of [`CODES`].
    #[inline(always)]
    pub(super) fn codes(&self, block: usize) -> &[Codes] {
        self.codes[block * self.block / 2..(block + 1) * self.block / 2].as_chunks().0
    }

    /// Returns the numbers that the codes of a block stand for.
    #[inline(always)]
    pub(super) fn table(&self, block: usize) -> [f32; VALUES] {
        let scale = match self.scales {
            Scales::Single(scales) => scales[block],
            // Rounded twice, as bitsandbytes does.
            Scales::Double { codes, values, absmax, group, offset } => {
                values[usize::from(codes[block])] * absmax[group.of(block)] + offset
            }
        };
        // Loops that become a few instructions, which methods with closures might not.
        let mut numbers = *self.values;
        for number in &mut numbers {
            *number *= scale;
        }
        match self.rounding {
            FloatDType::BF16 => {
                for number in &mut numbers {
                    *number = round_to_bf16(*number);
                }
            }
            FloatDType::F16 => {
                for number in &mut numbers {
                    *number = f16::from_f32(*number).to_f32();
                }
            }
            FloatDType::F64 | FloatDType::F32 | FloatDType::Flex32 => {}
        }
        numbers
    }
}

/// Rounds to the nearest number of bf16, ties to even, without a branch.
#[inline(always)]
fn round_to_bf16(x: f32) -> f32 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
    // The addition could make an infinity of NaN, or a zero.
    let bits = if x.is_nan() { bits | 0x40_0000 } else { rounded };
    f32::from_bits(bits & 0xffff_0000)
}

/// Writes the numbers of a block whose codes begin at `place`.
#[inline(always)]
fn look_up<S: Lookup>(simd: S, codes: &[u8], place: usize, table: &[f32; VALUES], out: &mut [f32]) {
    let number = |code: u8| table[usize::from(code & 15)];
    let (first, rest) = out.split_at_mut(place % 2);
    if let [first] = first {
        *first = number(codes[place / 2]);
    }
    let in_registers = simd.table(table);
    let (parts, rest) = rest.as_chunks_mut::<CODES>();
    let (codes, last_codes) = codes[place.div_ceil(2)..].split_at(parts.len() * CODES / 2);
    for (part, &codes) in parts.iter_mut().zip(codes.as_chunks::<{ CODES / 2 }>().0) {
        S::as_mut_simd_f32s(part).0.copy_from_slice(simd.look_up(codes, in_registers).as_ref());
    }
    let (pairs, last) = rest.as_chunks_mut::<2>();
    let count = pairs.len();
    for (pair, &code) in pairs.iter_mut().zip(last_codes) {
        *pair = [number(code >> 4), number(code)];
    }
    if let [last] = last {
        *last = number(last_codes[count] >> 4);
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::bf16;

    use super::*;

    #[test]
    fn numbers_are_rounded_to_bf16_as_half_rounds_them() {
        let ties = [0x3f80_8000u32, 0x3f81_8000, 0x3f80_7fff, 0x3f80_8001, 0x7f7f_8000, 0x0000_8000];
        let special = [0, 0x7f80_0000, 0x7f80_0001, 0x7fff_ffff, 0x7fc0_0000, 0x7f7f_ffff, 1, 0x007f_ffff];
        let all = (0..1u32 << 20).map(|i| i.wrapping_mul(4099)).chain(ties).chain(special);
        for x in all.flat_map(|bits| [f32::from_bits(bits), f32::from_bits(bits | 1 << 31)]) {
            assert_eq!(round_to_bf16(x).to_bits(), bf16::from_f32(x).to_f32().to_bits(), "{x:e} {:08x}", x.to_bits());
        }
    }
}
