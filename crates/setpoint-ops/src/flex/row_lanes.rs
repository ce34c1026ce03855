//! Products of some dozens of rows: the rows stand in the lanes of vectors, and the other factor is read as it lies, element by element. Nothing
//! of it has to be brought into another order, and no lanes have to be added up.
//!
//! An element of the result is one sum from the first product to the last, so a row's result does not depend on the rows beside it.

// Loops over indices of a constant range are unrolled, and what they index stays in registers.
#![allow(clippy::needless_range_loop)]

use pulp::{Arch, Simd, WithSimd};

use super::host::Shared;

/// Rows of the other factor in registers at a time, at most.
const OUTPUTS: usize = 6;

/// Elements of a cache line.
const LINE: usize = 16;

/// Rows in the order in which products read them: panels of at most [`vectors`] vectors of rows, each panel with the first elements of all its
/// rows, then the second ones, and so on. Missing rows of the last vector are 0.
pub(super) struct RowLanes {
    values: Vec<f32>,
    /// Where they begin in the vector: at a cache line, which no load then crosses.
    start: usize,
    rows: usize,
    k: usize,
    /// Lanes of a vector.
    lanes: usize,
    /// Rows of a panel, at most.
    panel: usize,
}

/// Returns how many vectors of rows are in registers at a time, at most: their sums with [`OUTPUTS`] other rows must find room there, too.
#[inline(always)]
fn vectors<S: Simd>() -> usize {
    if S::REGISTER_COUNT >= 32 { 4 } else { 2 }
}

impl RowLanes {
    /// Brings rows `[t, k]` into that order.
    pub(super) fn new(x: &[f32], k: usize) -> Self {
        struct Widths;
        impl WithSimd for Widths {
            type Output = [usize; 2];

            #[inline(always)]
            fn with_simd<S: Simd>(self, _: S) -> [usize; 2] {
                [S::F32_LANES, vectors::<S>() * S::F32_LANES]
            }
        }
        assert!(k > 0 && x.len().is_multiple_of(k), "whole rows of k");
        let (rows, [lanes, panel]) = (x.len() / k, Arch::new().dispatch(Widths));
        let len = rows.next_multiple_of(lanes) * k;
        let mut values = vec![0.0; len + LINE];
        let start = values.as_ptr().align_offset(LINE * size_of::<f32>()).min(LINE);
        let panels = values[start..start + len].chunks_mut(panel * k).zip(x.chunks(panel * k));
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
        Self { values, start, rows, k, lanes, panel }
    }

    fn panels(&self) -> impl Iterator<Item = &[f32]> {
        let values = &self.values[self.start..self.start + self.rows.next_multiple_of(self.lanes) * self.k];
        values.chunks(self.panel * self.k)
    }

    /// Returns how many rows `w` are.
    fn outputs(&self, w: &[f32]) -> usize {
        assert!(w.len().is_multiple_of(self.k), "whole rows of k");
        w.len() / self.k
    }

    /// On this thread: `x · wᵀ` with the rows `w [n, k]`, into the rows of `n` that begin at `start` of a shared slice, `stride` apart. With
    /// an update, that of as many rows with as many others is added.
    ///
    /// # Safety
    /// Nobody else may touch those elements meanwhile.
    pub(super) unsafe fn times_transposed(
        &self,
        to: Shared<'_>,
        start: usize,
        stride: usize,
        w: &[f32],
        update: Option<(&Self, &[f32])>,
    ) {
        let outputs = self.outputs(w);
        let fits = |(low, b): (&Self, &[f32])| (low.rows, low.outputs(b)) == (self.rows, outputs);
        assert!(update.is_none_or(fits), "products of one shape");
        Arch::new().dispatch(Product { to, start, stride, x: self, w, outputs, update });
    }
}

/// [`RowLanes::times_transposed`].
struct Product<'a> {
    to: Shared<'a>,
    start: usize,
    stride: usize,
    x: &'a RowLanes,
    w: &'a [f32],
    outputs: usize,
    update: Option<(&'a RowLanes, &'a [f32])>,
}

/// Vectors of rows, and the rows that they are multiplied with.
#[derive(Clone, Copy)]
struct Term<'a, S: Simd> {
    panel: &'a [S::f32s],
    w: &'a [f32],
    k: usize,
}

impl<'a, S: Simd> Term<'a, S> {
    #[inline(always)]
    fn new(panel: &'a [f32], w: &'a [f32], k: usize) -> Self {
        Self { panel: S::as_simd_f32s(panel).0, w, k }
    }
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        assert_eq!(S::F32_LANES, self.x.lanes, "one kind of vectors in a process");
        // Parts of one size: a part of few rows has too few sums to keep the processor busy.
        let parts = self.outputs.div_ceil(OUTPUTS).max(1);
        // A few rows of `w` stay in the first-level cache while all panels pass.
        for part in 0..parts {
            let [first, end] = [part, part + 1].map(|part| part * self.outputs / parts);
            let mut updates = self.update.map(|(x, b)| (x.panels(), &b[first * x.k..end * x.k], x.k));
            let (w, mut row) = (&self.w[first * self.x.k..end * self.x.k], 0);
            for panel in self.x.panels() {
                let update = updates.as_mut().and_then(|(x, b, k)| Some(Term::new(x.next()?, b, *k)));
                let start = self.start + row * self.stride + first;
                let rows = (self.x.rows - row).min(self.x.panel);
                let terms = (Term::new(panel, w, self.x.k), update);
                match terms.0.panel.len() / self.x.k {
                    1 => self.panel::<S, 1>(simd, terms, start, rows),
                    2 => self.panel::<S, 2>(simd, terms, start, rows),
                    3 => self.panel::<S, 3>(simd, terms, start, rows),
                    _ => self.panel::<S, 4>(simd, terms, start, rows),
                }
                row += rows;
            }
        }
    }
}

impl Product<'_> {
    /// Panels of `V` vectors of rows with at most [`OUTPUTS`] rows each.
    #[inline(always)]
    fn panel<S: Simd, const V: usize>(
        &self,
        simd: S,
        terms: (Term<'_, S>, Option<Term<'_, S>>),
        start: usize,
        rows: usize,
    ) {
        match terms.0.w.len() / terms.0.k {
            0 => {}
            1 => self.tile::<S, V, 1>(simd, terms, start, rows),
            2 => self.tile::<S, V, 2>(simd, terms, start, rows),
            3 => self.tile::<S, V, 3>(simd, terms, start, rows),
            4 => self.tile::<S, V, 4>(simd, terms, start, rows),
            5 => self.tile::<S, V, 5>(simd, terms, start, rows),
            _ => self.tile::<S, V, OUTPUTS>(simd, terms, start, rows),
        }
    }

    #[inline(always)]
    fn tile<S: Simd, const V: usize, const R: usize>(
        &self,
        simd: S,
        (product, update): (Term<'_, S>, Option<Term<'_, S>>),
        start: usize,
        rows: usize,
    ) {
        let mut sums = add_products(simd, [[simd.splat_f32s(0.0); R]; V], product);
        if let Some(update) = update {
            sums = add_products(simd, sums, update);
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

/// Adds the products of `V` vectors of rows and `R` other rows to sums.
#[inline(always)]
fn add_products<S: Simd, const V: usize, const R: usize>(
    simd: S,
    mut sums: [[S::f32s; R]; V],
    Term { panel, w, k }: Term<'_, S>,
) -> [[S::f32s; R]; V] {
    let mut w_rows = [w; R];
    for r in 0..R {
        w_rows[r] = &w[r * k..(r + 1) * k];
    }
    for (i, x) in panel.chunks_exact(V).enumerate().take(k) {
        for r in 0..R {
            // SAFETY: each of these rows has k elements.
            let w = simd.splat_f32s(unsafe { *w_rows[r].get_unchecked(i) });
            for v in 0..V {
                sums[v][r] = simd.mul_add_e_f32s(w, x[v], sums[v][r]);
            }
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::super::few_rows::Rows;
    use super::super::few_rows::tests::{assert_independent, assert_product, assert_updated, numbers};
    use super::*;

    fn product(Rows { x, w, k }: Rows<'_>, update: Option<Rows<'_>>) -> Vec<f32> {
        let (t, n) = (x.len() / k, w.len() / k);
        // Two elements between the rows of the result.
        let stride = n + 2;
        let mut y = vec![f32::NAN; t * stride];
        let update = update.map(|update| (RowLanes::new(update.x, update.k), update.w));
        let update = update.as_ref().map(|(low, b)| (low, *b));
        // SAFETY: the slice is borrowed exclusively.
        unsafe { RowLanes::new(x, k).times_transposed(Shared::new(&mut y), 1, stride, w, update) };
        for row in y.chunks(stride) {
            assert!(row[0].is_nan() && row[stride - 1].is_nan(), "nothing is written beside the result");
        }
        y.chunks(stride).flat_map(|row| &row[1..=n]).copied().collect()
    }

    #[test]
    fn updates_are_added() {
        assert_updated(product);
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
            assert_product(&product(Rows::new(&x, &w, k), None), &x, &w, k);
        }
    }

    #[test]
    fn rows_do_not_depend_on_their_neighbours() {
        assert_independent(|x, w, k| product(Rows::new(x, w, k), None), 90, [0, 15, 16, 63, 64, 89]);
    }
}
