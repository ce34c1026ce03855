//! Products of few rows: the other factor is read once and as it lies, where a product of many rows first brings it into an order of its own.
//!
//! A row of the result is the same, to the bit, whatever rows stand beside it.

// Loops over indices of a constant range are unrolled, and what they index stays in registers.
#![allow(clippy::needless_range_loop)]

use pulp::{Arch, Simd, WithSimd};

use super::host::Shared;
use super::simd::prefetch;

/// Rows of the few that stay in registers at a time.
pub(super) const ROWS: usize = 3;

/// Rows `x`, `[t, k]`, and the rows `w`, `[n, k]`, that they are multiplied with.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) x: &'a [f32],
    pub(super) w: &'a [f32],
    pub(super) k: usize,
}

impl<'a> Rows<'a> {
    /// # Panics
    /// If they are no whole rows of `k`.
    pub(super) fn new(x: &'a [f32], w: &'a [f32], k: usize) -> Self {
        assert!(k > 0 && x.len().is_multiple_of(k) && w.len().is_multiple_of(k), "whole rows of k");
        Self { x, w, k }
    }

    /// Returns `R` rows of `x` from `row` on.
    #[inline(always)]
    pub(super) fn rows_of_x<const R: usize>(&self, row: usize) -> [&'a [f32]; R] {
        let mut x = [&[] as &[f32]; R];
        for r in 0..R {
            x[r] = &self.x[(row + r) * self.k..(row + r + 1) * self.k];
        }
        x
    }

    /// Returns `N` rows of `w` from `first` on; behind the last row, that one again.
    #[inline(always)]
    pub(super) fn rows_of_w<const N: usize>(&self, first: usize) -> [&'a [f32]; N] {
        let last = self.w.len() / self.k - 1;
        let mut w = [&[] as &[f32]; N];
        for j in 0..N {
            let row = (first + j).min(last);
            w[j] = &self.w[row * self.k..(row + 1) * self.k];
        }
        w
    }

    /// Returns `t` and `n`.
    pub(super) fn counts(&self) -> [usize; 2] {
        [self.x.len() / self.k, self.w.len() / self.k]
    }
}

/// On this thread: `x · wᵀ`, into the rows of `n` that begin at `start` of a shared slice, `stride` apart; with an update, `x · wᵀ` of both.
///
/// # Safety
/// Nobody else may touch those elements meanwhile.
pub(super) unsafe fn times_transposed(
    to: Shared<'_>,
    start: usize,
    stride: usize,
    rows: Rows<'_>,
    update: Option<Rows<'_>>,
) {
    assert!(update.is_none_or(|update| update.counts() == rows.counts()), "products of one shape");
    Arch::new().dispatch(Dots { to, start, stride, rows, update });
}

/// [`times_transposed`].
struct Dots<'a> {
    to: Shared<'a>,
    start: usize,
    stride: usize,
    rows: Rows<'a>,
    update: Option<Rows<'a>>,
}

impl WithSimd for Dots<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // As many sums as there are registers for.
        if S::REGISTER_COUNT >= 32 { self.run::<S, 8>(simd) } else { self.run::<S, 4>(simd) }
    }
}

impl Dots<'_> {
    #[inline(always)]
    fn run<S: Simd, const N: usize>(&self, simd: S) {
        let (Rows { w, k, .. }, [t, n]) = (self.rows, self.rows.counts());
        for first in (0..n).step_by(N) {
            // What comes next is on its way while this is multiplied.
            let next = (first + N).min(n) * k..(first + 2 * N).min(n) * k;
            let mut next = w[next].chunks((N * k).div_ceil(t.div_ceil(ROWS).max(1)));
            for row in (0..t).step_by(ROWS) {
                next.next().into_iter().for_each(prefetch);
                match t - row {
                    1 => self.tile::<S, 1, N>(simd, row, first),
                    2 => self.tile::<S, 2, N>(simd, row, first),
                    _ => self.tile::<S, ROWS, N>(simd, row, first),
                }
            }
        }
    }

    /// `R` rows of `x` with up to `N` rows of `w`.
    #[inline(always)]
    fn tile<S: Simd, const R: usize, const N: usize>(&self, simd: S, row: usize, first: usize) {
        let [_, n] = self.rows.counts();
        let zeros = [[simd.splat_f32s(0.0); N]; R];
        let mut sums = add_products(simd, zeros, self.rows.rows_of_x(row), self.rows.rows_of_w(first));
        if let Some(update) = self.update {
            sums = add_products(simd, sums, update.rows_of_x(row), update.rows_of_w(first));
        }
        for r in 0..R {
            let to = self.start + (row + r) * self.stride + first;
            // A copy, so that the sums need not be in memory while they grow.
            let sums = sums[r];
            for j in (0..N).step_by(4) {
                let totals = totals(simd, [sums[j], sums[j + 1], sums[j + 2], sums[j + 3]]);
                // SAFETY: the caller of `times_transposed` keeps these elements to this product.
                unsafe {
                    if first + j + 4 <= n {
                        self.to.write(to + j, totals);
                    } else {
                        (j..n - first).for_each(|j| self.to.write(to + j, [totals[j % 4]]));
                    }
                }
            }
        }
    }
}

/// Adds the products of the elements of `R` rows with those of `N` rows, all of one length, to sums in vectors.
#[inline(always)]
pub(super) fn add_products<S: Simd, const R: usize, const N: usize>(
    simd: S,
    mut sums: [[S::f32s; N]; R],
    x: [&[f32]; R],
    w: [&[f32]; N],
) -> [[S::f32s; N]; R] {
    let (mut x_vectors, mut w_vectors) = ([&[] as &[S::f32s]; R], [&[] as &[S::f32s]; N]);
    let (mut x_rest, mut w_rest) = ([&[] as &[f32]; R], [&[] as &[f32]; N]);
    let vectors = x[0].len() / S::F32_LANES;
    for r in 0..R {
        (x_vectors[r], x_rest[r]) = S::as_simd_f32s(x[r]);
        assert_eq!(x_vectors[r].len(), vectors);
    }
    for j in 0..N {
        (w_vectors[j], w_rest[j]) = S::as_simd_f32s(w[j]);
        assert_eq!(w_vectors[j].len(), vectors);
    }
    for i in 0..vectors {
        for j in 0..N {
            let w = w_vectors[j][i];
            for r in 0..R {
                sums[r][j] = simd.mul_add_e_f32s(x_vectors[r][i], w, sums[r][j]);
            }
        }
    }
    if !x_rest[0].is_empty() {
        let x = x_rest.map(
            #[inline(always)]
            |x| simd.partial_load_f32s(x),
        );
        for j in 0..N {
            let w = simd.partial_load_f32s(w_rest[j]);
            for r in 0..R {
                sums[r][j] = simd.mul_add_e_f32s(x[r], w, sums[r][j]);
            }
        }
    }
    sums
}

/// The sum of each vector's lanes.
#[inline(always)]
pub(super) fn totals<S: Simd>(simd: S, sums: [S::f32s; 4]) -> [f32; 4] {
    if S::F32_LANES < 4 {
        return sums.map(
            #[inline(always)]
            |sum| simd.reduce_sum_f32s(sum),
        );
    }
    // Lanes of the same vector stand four apart then.
    let [a, b, c, d]: [S::f32s; 4] = simd.interleave_shfl_f32s(sums);
    let sum = simd.add_f32s(simd.add_f32s(a, b), simd.add_f32s(c, d));
    let mut totals = [0.0; 4];
    for lanes in pulp::bytemuck::cast_slice::<_, f32>(&[sum]).chunks_exact(4) {
        for (total, lane) in totals.iter_mut().zip(lanes) {
            *total += lane;
        }
    }
    totals
}

/// On this thread: `a · b` of `[r, k]` and `[k, n]`, into `to`, `[r, n]`.
pub(super) fn times(to: &mut [f32], a: &[f32], b: &[f32], n: usize) {
    let k = b.len() / n;
    assert!(k > 0 && a.len() / k == to.len() / n && a.len().is_multiple_of(k), "matrices that fit");
    Arch::new().dispatch(Product { to, a, b, n });
}

/// [`times`].
struct Product<'a> {
    to: &'a mut [f32],
    a: &'a [f32],
    b: &'a [f32],
    n: usize,
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let rows = self.to.len() / self.n;
        for row in (0..rows).step_by(ROWS) {
            match rows - row {
                1 => self.rows::<S, 1>(simd, row),
                2 => self.rows::<S, 2>(simd, row),
                _ => self.rows::<S, ROWS>(simd, row),
            }
        }
    }
}

impl Product<'_> {
    /// `R` rows of the result: four vectors of columns at a time, then one, then single columns.
    #[inline(always)]
    fn rows<S: Simd, const R: usize>(&mut self, simd: S, row: usize) {
        let wide = 4 * S::F32_LANES;
        let mut column = 0;
        while column + wide <= self.n {
            self.tile::<S, R, 4>(simd, row, column);
            column += wide;
        }
        while column + S::F32_LANES <= self.n {
            self.tile::<S, R, 1>(simd, row, column);
            column += S::F32_LANES;
        }
        let k = self.b.len() / self.n;
        for (r, i) in (row..row + R).flat_map(|r| (column..self.n).map(move |i| (r, i))) {
            let b = self.b[i..].iter().step_by(self.n);
            self.to[r * self.n + i] = self.a[r * k..(r + 1) * k].iter().zip(b).fold(0.0, |sum, (a, b)| sum + a * b);
        }
    }

    #[inline(always)]
    fn tile<S: Simd, const R: usize, const V: usize>(&mut self, simd: S, row: usize, column: usize) {
        let (n, k, width) = (self.n, self.b.len() / self.n, V * S::F32_LANES);
        let mut a = [&[] as &[f32]; R];
        for (r, a) in a.iter_mut().enumerate() {
            *a = &self.a[(row + r) * k..(row + r + 1) * k];
        }
        let mut sums = [[simd.splat_f32s(0.0); V]; R];
        for (j, b) in self.b.chunks_exact(n).enumerate() {
            let (b, _) = S::as_simd_f32s(&b[column..column + width]);
            for r in 0..R {
                let a = simd.splat_f32s(a[r][j]);
                for v in 0..V {
                    sums[r][v] = simd.mul_add_e_f32s(a, b[v], sums[r][v]);
                }
            }
        }
        for r in 0..R {
            let start = (row + r) * n + column;
            let (to, _) = S::as_mut_simd_f32s(&mut self.to[start..start + width]);
            to.copy_from_slice(&sums[r]);
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Numbers in [-1, 1), not too round.
    pub(in crate::flex) fn numbers(count: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 7919 + 13) % 2003) as f32 / 1001.5 - 1.0).collect()
    }

    /// Checks that `found` is `x · wᵀ`, in f64.
    pub(in crate::flex) fn assert_product(found: &[f32], x: &[f32], w: &[f32], k: usize) {
        let (t, n) = (x.len() / k, w.len() / k);
        assert_eq!(found.len(), t * n);
        for (at, found) in found.iter().enumerate() {
            let pairs = x[at / n * k..][..k].iter().zip(&w[at % n * k..][..k]);
            let expected: f64 = pairs.map(|(&x, &w)| f64::from(x) * f64::from(w)).sum();
            assert!((f64::from(*found) - expected).abs() < 1e-5 * (k as f64).sqrt(), "{t}·{k}·{n} at {at}");
        }
    }

    /// Checks that some of `t` rows, and each column, have the same bits alone as next to the others.
    pub(in crate::flex) fn assert_independent(
        product: impl Fn(&[f32], &[f32], usize) -> Vec<f32>,
        t: usize,
        rows: impl IntoIterator<Item = usize>,
    ) {
        let (n, k) = (21, 200);
        let (x, w) = (numbers(t * k), numbers(n * k));
        let together = product(&x, &w, k);
        for row in rows {
            assert_eq!(product(&x[row * k..(row + 1) * k], &w, k), together[row * n..(row + 1) * n]);
        }
        for column in 0..n {
            let alone = product(&x, &w[column * k..(column + 1) * k], k);
            let beside: Vec<f32> = together[column..].iter().step_by(n).copied().collect();
            assert_eq!(alone, beside);
        }
    }

    /// Checks that a product with an update is that of both, in f64, that its rows have the same bits alone, and that an update of zeros
    /// changes no bit.
    pub(in crate::flex) fn assert_updated(product: impl Fn(Rows<'_>, Option<Rows<'_>>) -> Vec<f32>) {
        for (t, n, k, r) in
            [(1, 5, 33, 1), (2, 9, 64, 16), (3, 24, 40, 8), (7, 12, 20, 19), (17, 13, 48, 16), (40, 8, 7, 5)]
        {
            let [x, w, low, b] = [t * k, n * k, t * r, n * r].map(numbers);
            let (rows, update) = (Rows::new(&x, &w, k), Rows::new(&low, &b, r));
            let found = product(rows, Some(update));
            let joined = |a: &[f32], b: &[f32]| -> Vec<f32> {
                a.chunks(k).zip(b.chunks(r)).flat_map(|(a, b)| [a, b].concat()).collect()
            };
            assert_product(&found, &joined(&x, &low), &joined(&w, &b), k + r);
            for (row, found) in found.chunks(n).enumerate() {
                let alone = Rows::new(&x[row * k..(row + 1) * k], &w, k);
                let update = Rows::new(&low[row * r..(row + 1) * r], &b, r);
                assert_eq!(product(alone, Some(update)), found, "row {row} of {t}·{n}·{k}·{r}");
            }
            let zeros = vec![0.0; n * r];
            assert_eq!(product(rows, Some(Rows::new(&low, &zeros, r))), product(rows, None));
        }
    }

    fn product(rows: Rows<'_>, update: Option<Rows<'_>>) -> Vec<f32> {
        let [t, n] = rows.counts();
        let mut y = vec![f32::NAN; t * n];
        // SAFETY: the slice is borrowed exclusively.
        unsafe { times_transposed(Shared::new(&mut y), 0, n, rows, update) };
        y
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
            (1, 8, 16),
            (2, 9, 33),
            (3, 12, 48),
            (5, 7, 100),
            (7, 23, 384),
            (4, 70, 20),
            (2, 100, 5),
        ] {
            let (x, w) = (numbers(t * k), numbers(n * k));
            let found = product(Rows::new(&x, &w, k), None);
            let mut transposed = vec![0.0; k * n];
            for (i, w) in w.iter().enumerate() {
                transposed[i % k * n + i / k] = *w;
            }
            let mut plain = vec![f32::NAN; t * n];
            times(&mut plain, &x, &transposed, n);
            assert_product(&found, &x, &w, k);
            assert_product(&plain, &x, &w, k);
        }
    }

    #[test]
    fn rows_do_not_depend_on_their_neighbours() {
        assert_independent(|x, w, k| product(Rows::new(x, w, k), None), 7, 0..7);
    }
}
