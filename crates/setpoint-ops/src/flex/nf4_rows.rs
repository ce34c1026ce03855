//! Products of one, two or three rows with a weight in 4-bit codes: its numbers are looked up and multiplied in registers, and are never in
//! memory.
//!
//! The same numbers are added in the same order as in a product with the dequantised weight, so the result has the same bits.

// Loops over indices of a constant range are unrolled, and what they index stays in registers.
#![allow(clippy::needless_range_loop)]

use super::few_rows::{ROWS, Rows, add_products, totals};
use super::host::Shared;
use super::lookup::{self, CODES, Codes, Lookup, NUMBERS, WithLookup};
use super::nf4::{Nf4, Reader};

/// Rows of the weight that are looked up at a time: each has a table, and a sum for each row of the other factor.
const OUTPUTS: usize = 4;

impl Nf4 {
    /// Returns whether [`times_transposed`](Self::times_transposed) can multiply `rows` rows with this weight: a block must consist of
    /// whole vectors of one row.
    pub(super) fn multiplies(&self, rows: usize) -> bool {
        let [_, inputs] = self.shape();
        let block = self.block();
        rows <= ROWS && block.is_multiple_of(CODES) && inputs.is_multiple_of(block) && lookup::is_in_registers()
    }

    /// On this thread: `x · wᵀ` of rows `x [t, in]` and `count` rows of the weight from `first` on, into the rows of `count` that begin at
    /// `start` of a shared slice, `stride` apart. With an update, that of as many rows with `count` others is added.
    ///
    /// # Safety
    /// Nobody else may touch those elements meanwhile.
    pub(super) unsafe fn times_transposed(
        &self,
        to: Shared<'_>,
        start: usize,
        stride: usize,
        x: &[f32],
        [first, count]: [usize; 2],
        update: Option<Rows<'_>>,
    ) {
        let [outputs, inputs] = self.shape();
        assert!(first + count <= outputs, "rows of the weight");
        assert!(x.len().is_multiple_of(inputs) && self.multiplies(x.len() / inputs), "few rows of whole blocks");
        assert!(update.is_none_or(|update| update.counts() == [x.len() / inputs, count]), "products of one shape");
        lookup::dispatch(Dots {
            to,
            start,
            stride,
            x,
            weight: self.reader(),
            first,
            count,
            inputs,
            block: self.block(),
            update,
        });
    }
}

/// [`Nf4::times_transposed`].
struct Dots<'a> {
    to: Shared<'a>,
    start: usize,
    stride: usize,
    x: &'a [f32],
    weight: Reader<'a>,
    first: usize,
    count: usize,
    inputs: usize,
    block: usize,
    update: Option<Rows<'a>>,
}

impl WithLookup for Dots<'_> {
    type Output = ();

    #[inline(always)]
    fn with_lookup<S: Lookup>(self, simd: S) {
        for output in (0..self.count).step_by(OUTPUTS) {
            match self.x.len() / self.inputs {
                0 => {}
                1 => self.tile::<S, 1>(simd, output),
                2 => self.tile::<S, 2>(simd, output),
                _ => self.tile::<S, ROWS>(simd, output),
            }
        }
    }
}

impl Dots<'_> {
    /// `R` rows of `x` with up to [`OUTPUTS`] rows of the weight.
    #[inline(always)]
    fn tile<S: Lookup, const R: usize>(&self, simd: S, output: usize) {
        let k = self.inputs;
        let (vectors, blocks, parts) = (k / S::F32_LANES, k / self.block, self.block / CODES);
        let mut x = [&[] as &[S::f32s]; R];
        for r in 0..R {
            (x[r], _) = S::as_simd_f32s(&self.x[r * k..(r + 1) * k]);
            assert_eq!(x[r].len(), vectors);
        }
        let mut sums = [[simd.splat_f32s(0.0); OUTPUTS]; R];
        for i in 0..blocks {
            let mut tables = [simd.table(&[0.0; NUMBERS]); OUTPUTS];
            let mut codes = [&[] as &[Codes]; OUTPUTS];
            for j in 0..OUTPUTS {
                // Beyond the last row, the last one is computed again; its sums are not stored.
                let block = (self.first + (output + j).min(self.count - 1)) * blocks + i;
                tables[j] = simd.table(&self.weight.table(block));
                codes[j] = self.weight.codes(block);
                assert_eq!(codes[j].len(), parts);
            }
            for part in 0..parts {
                let first = (i * parts + part) * (CODES / S::F32_LANES);
                for j in 0..OUTPUTS {
                    let numbers = simd.look_up(codes[j][part], tables[j]);
                    for (v, &w) in numbers.as_ref().iter().enumerate() {
                        for r in 0..R {
                            sums[r][j] = simd.mul_add_e_f32s(x[r][first + v], w, sums[r][j]);
                        }
                    }
                }
            }
        }
        if let Some(update) = self.update {
            sums = add_products(simd, sums, update.rows_of_x(0), update.rows_of_w(output));
        }
        for r in 0..R {
            let (to, totals) = (self.start + r * self.stride + output, totals(simd, sums[r]));
            // SAFETY: the caller of `times_transposed` keeps these elements to this product.
            unsafe {
                if output + OUTPUTS <= self.count {
                    self.to.write(to, totals);
                } else {
                    (0..self.count - output).for_each(|j| self.to.write(to + j, [totals[j]]));
                }
            }
        }
    }
}
