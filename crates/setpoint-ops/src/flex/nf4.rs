//! Weights in 4-bit codes: rows or columns are dequantised just before a product reads them, into memory that stays in the cache.

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::tensor::{DType, FloatDType, bf16, f16};
use rayon::prelude::*;

use super::host::{Fresh, Matrix, Values};
use super::simd::vectorised;
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

    /// Returns what it takes to dequantise.
    fn reader(&self) -> Reader<'_> {
        let (codes, numbers) = (self.codes.u8(), self.numbers.f32());
        let Some(values) = numbers.first_chunk() else { unreachable!("a matrix begins with its values") };
        let scales = &numbers[self.layout.first_scale()..];
        let (codes, scales) = match self.layout.double {
            None => (codes, Scales::Single(scales)),
            Some(Nf4Double { group, offset }) => {
                let (codes, of_scales) = codes.split_at(self.layout.count().div_ceil(2));
                let values = &numbers[VALUES..VALUES + SCALE_VALUES];
                (codes, Scales::Double { codes: of_scales, values, absmax: scales, group, offset })
            }
        };
        Reader { codes, values, scales, block: self.layout.block, rounding: self.layout.rounding }
    }

    pub(super) fn shape(&self) -> [usize; 2] {
        self.layout.shape
    }

    /// Writes `count` rows from `start` on to `buffer`, and returns them.
    pub(super) fn rows<'a>(&self, buffer: &'a mut Vec<f32>, start: usize, count: usize) -> &'a [f32] {
        let [outputs, inputs] = self.layout.shape;
        assert!(start + count <= outputs, "rows of the weight");
        buffer.resize(count * inputs, 0.0);
        let reader = self.reader();
        vectorised(
            #[inline(always)]
            || reader.read(start * inputs, buffer),
        );
        buffer
    }

    /// Writes `count` columns from `start` on to `buffer`, and returns them.
    pub(super) fn columns<'a>(&self, buffer: &'a mut Vec<f32>, start: usize, count: usize) -> Matrix<'a> {
        let [outputs, inputs] = self.layout.shape;
        assert!(start + count <= inputs, "columns of the weight");
        buffer.resize(count * outputs, 0.0);
        let reader = self.reader();
        vectorised(
            #[inline(always)]
            || {
                for (row, to) in buffer.chunks_exact_mut(count.max(1)).enumerate() {
                    reader.read(row * inputs + start, to);
                }
            },
        );
        Matrix::new(buffer, outputs, count, count)
    }
}

/// The parts of a matrix as slices.
struct Reader<'a> {
    codes: &'a [u8],
    values: &'a [f32; VALUES],
    scales: Scales<'a>,
    block: usize,
    rounding: FloatDType,
}

/// The scales of the blocks.
enum Scales<'a> {
    Single(&'a [f32]),
    Double { codes: &'a [u8], values: &'a [f32], absmax: &'a [f32], group: usize, offset: f32 },
}

impl Reader<'_> {
    /// Writes the numbers that begin at `place` to `out`.
    #[inline(always)]
    fn read(&self, mut place: usize, mut out: &mut [f32]) {
        while !out.is_empty() {
            let block = place / self.block;
            let len = ((block + 1) * self.block - place).min(out.len());
            let (numbers, rest) = out.split_at_mut(len);
            look_up(self.codes, place, &self.table(block), numbers);
            (place, out) = (place + len, rest);
        }
    }

    /// Returns the numbers that the codes of a block stand for.
    #[inline(always)]
    fn table(&self, block: usize) -> [f32; VALUES] {
        let scale = match self.scales {
            Scales::Single(scales) => scales[block],
            // Rounded twice, as bitsandbytes does.
            Scales::Double { codes, values, absmax, group, offset } => {
                values[usize::from(codes[block])] * absmax[block / group] + offset
            }
        };
        let numbers = self.values.map(|value| value * scale);
        match self.rounding {
            FloatDType::BF16 => numbers.map(|x| bf16::from_f32(x).to_f32()),
            FloatDType::F16 => numbers.map(|x| f16::from_f32(x).to_f32()),
            FloatDType::F64 | FloatDType::F32 | FloatDType::Flex32 => numbers,
        }
    }
}

/// Writes the numbers of a block whose codes begin at `place`.
#[inline(always)]
fn look_up(codes: &[u8], place: usize, table: &[f32; VALUES], out: &mut [f32]) {
    let number = |code: u8| table[usize::from(code & 15)];
    let (first, rest) = out.split_at_mut(place % 2);
    if let [first] = first {
        *first = number(codes[place / 2]);
    }
    let codes = &codes[place.div_ceil(2)..];
    let (pairs, last) = rest.as_chunks_mut::<2>();
    let count = pairs.len();
    for (pair, &code) in pairs.iter_mut().zip(codes) {
        *pair = [number(code >> 4), number(code)];
    }
    if let [last] = last {
        *last = number(codes[count] >> 4);
    }
}
