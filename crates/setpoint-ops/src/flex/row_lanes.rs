//! Products of some dozens of rows: the rows stand in the lanes of vectors, and the other factor is read as it lies, element by element. Nothing
//! of it has to be brought into another order, and no lanes have to be added up.
//!
//! An element of the result is one sum from the first product to the last, so a row's result does not depend on the rows beside it.

// Loops over indices of a constant range are unrolled, and what they index stays in registers.
#![allow(clippy::needless_range_loop)]

use pulp::{Arch, Simd, WithSimd};

use super::host::Shared;

/// Vectors of rows in registers at a time, at most.
const VECTORS: usize = 4;

/// Rows of the other factor in registers at a time.
const OUTPUTS: usize = 6;

/// Elements of a cache line.
const LINE: usize = 16;

/// Rows in the order in which products read them: panels of at most [`VECTORS`] vectors of rows, each panel with the first elements of all its
/// rows, then the second ones, and so on. Missing rows of the last vector are 0.
pub(super) struct RowLanes {
    values: Vec<f32>,
    /// Where they begin in the vector: at a cache line, which no load then crosses.
    start: usize,
    rows: usize,
    k: usize,
    /// Lanes of a vector.
    lanes: usize,
}

impl RowLanes {
    /// Brings rows `[t, k]` into that order.
    pub(super) fn new(x: &[f32], k: usize) -> Self {
        struct LaneCount;
        impl WithSimd for LaneCount {
            type Output = usize;

            #[inline(always)]
            fn with_simd<S: Simd>(self, _: S) -> usize {
                S::F32_LANES
            }
        }
        assert!(k > 0 && x.len().is_multiple_of(k), "whole rows of k");
        let (rows, lanes) = (x.len() / k, Arch::new().dispatch(LaneCount));
        let len = rows.next_multiple_of(lanes) * k;
        let mut values = vec![0.0; len + LINE];
        let start = values.as_ptr().align_offset(LINE * size_of::<f32>()).min(LINE);
        let panels = values[start..start + len].chunks_mut(VECTORS * lanes * k).zip(x.chunks(VECTORS * lanes * k));
        for (panel, x) in panels {
            let width = panel.len() / k;
            // Some elements of all rows at a time: what is written meanwhile stays in the first-level cache.
            for (first, panel) in (0..k).step_by(LINE).zip(panel.chunks_mut(LINE * width)) {
                for (row, x) in x.chunks_exact(k).enumerate() {
                    match x[first..].first_chunk::<LINE>() {
                        Some(x) => (0..LINE).for_each(|i| panel[i * width + row] = x[i]),
                        None => x[first..].iter().enumerate().for_each(|(i, x)| panel[i * width + row] = *x),
                    }
                }
            }
        }
        Self { values, start, rows, k, lanes }
    }

    fn panels(&self) -> &[f32] {
        &self.values[self.start..self.start + self.rows.next_multiple_of(self.lanes) * self.k]
    }

    /// On this thread: `x · wᵀ` with the rows `w [n, k]`, into the rows of `n` that begin at `start` of a shared slice, `stride` apart.
    ///
    /// # Safety
    /// Nobody else may touch those elements meanwhile.
    pub(super) unsafe fn times_transposed(&self, to: Shared<'_>, start: usize, stride: usize, w: &[f32]) {
        assert!(w.len().is_multiple_of(self.k), "whole rows of k");
        Arch::new().dispatch(Product { to, start, stride, x: self, w });
    }
}

/// [`RowLanes::times_transposed`].
struct Product<'a> {
    to: Shared<'a>,
    start: usize,
    stride: usize,
    x: &'a RowLanes,
    w: &'a [f32],
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        assert_eq!(S::F32_LANES, self.x.lanes, "one kind of vectors in a process");
        let k = self.x.k;
        // A few rows of `w` stay in the first-level cache while all panels pass.
        for (i, w) in self.w.chunks(OUTPUTS * k).enumerate() {
            let mut row = 0;
            for panel in self.x.panels().chunks(VECTORS * S::F32_LANES * k) {
                let (panel, _) = S::as_simd_f32s(panel);
                let start = self.start + row * self.stride + i * OUTPUTS;
                let rows = (self.x.rows - row).min(VECTORS * S::F32_LANES);
                match panel.len() / k {
                    1 => self.panel::<S, 1>(simd, panel, w, start, rows),
                    2 => self.panel::<S, 2>(simd, panel, w, start, rows),
                    3 => self.panel::<S, 3>(simd, panel, w, start, rows),
                    _ => self.panel::<S, VECTORS>(simd, panel, w, start, rows),
                }
                row += rows;
            }
        }
    }
}

impl Product<'_> {
    /// A panel of `V` vectors of rows with at most [`OUTPUTS`] rows of `w`.
    #[inline(always)]
    fn panel<S: Simd, const V: usize>(&self, simd: S, panel: &[S::f32s], w: &[f32], start: usize, rows: usize) {
        match w.len() / self.x.k {
            1 => self.tile::<S, V, 1>(simd, panel, w, start, rows),
            2 => self.tile::<S, V, 2>(simd, panel, w, start, rows),
            3 => self.tile::<S, V, 3>(simd, panel, w, start, rows),
            4 => self.tile::<S, V, 4>(simd, panel, w, start, rows),
            5 => self.tile::<S, V, 5>(simd, panel, w, start, rows),
            _ => self.tile::<S, V, OUTPUTS>(simd, panel, w, start, rows),
        }
    }

    #[inline(always)]
    fn tile<S: Simd, const V: usize, const R: usize>(
        &self,
        simd: S,
        panel: &[S::f32s],
        w: &[f32],
        start: usize,
        rows: usize,
    ) {
        let k = self.x.k;
        let mut w_rows = [w; R];
        for r in 0..R {
            w_rows[r] = &w[r * k..(r + 1) * k];
        }
        let mut sums = [[simd.splat_f32s(0.0); R]; V];
        for (i, x) in panel.chunks_exact(V).enumerate().take(k) {
            for r in 0..R {
                // SAFETY: each of these rows has k elements.
                let w = simd.splat_f32s(unsafe { *w_rows[r].get_unchecked(i) });
                for v in 0..V {
                    sums[v][r] = simd.mul_add_e_f32s(w, x[v], sums[v][r]);
                }
            }
        }
        for v in 0..V {
            // A copy, so that the sums need not be in memory while they grow.
            let vectors = sums[v];
            let lanes: &[f32] = pulp::bytemuck::cast_slice(&vectors);
            let rows = rows.saturating_sub(v * S::F32_LANES).min(S::F32_LANES);
            for lane in 0..rows {
                let mut results = [0.0; R];
                for r in 0..R {
                    results[r] = lanes[r * S::F32_LANES + lane];
                }
                // SAFETY: the caller of `times_transposed` keeps these elements to this product.
                unsafe { self.to.write(start + (v * S::F32_LANES + lane) * self.stride, results) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::few_rows::tests::{assert_independent, assert_product, numbers};
    use super::*;

    fn product(x: &[f32], w: &[f32], k: usize) -> Vec<f32> {
        let (t, n) = (x.len() / k, w.len() / k);
        // Two elements between the rows of the result.
        let stride = n + 2;
        let mut y = vec![f32::NAN; t * stride];
        // SAFETY: the slice is borrowed exclusively.
        unsafe { RowLanes::new(x, k).times_transposed(Shared::new(&mut y), 1, stride, w) };
        for row in y.chunks(stride) {
            assert!(row[0].is_nan() && row[stride - 1].is_nan(), "nothing is written beside the result");
        }
        y.chunks(stride).flat_map(|row| &row[1..=n]).copied().collect()
    }

    #[test]
    fn products_of_any_shape() {
        for (t, n, k) in [
            (0, 3, 16),
            (1, 1, 1),
            (3, 8, 16),
            (15, 9, 33),
            (16, 12, 48),
            (17, 7, 100),
            (64, 23, 384),
            (70, 6, 20),
            (130, 5, 7),
        ] {
            let (x, w) = (numbers(t * k), numbers(n * k));
            assert_product(&product(&x, &w, k), &x, &w, k);
        }
    }

    #[test]
    fn rows_do_not_depend_on_their_neighbours() {
        assert_independent(product, 90, [0, 15, 16, 63, 64, 89]);
    }
}
