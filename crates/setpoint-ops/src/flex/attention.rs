//! Attention in tiles of queries: scores exist for one tile and one head at a time (Dao et al., <https://arxiv.org/abs/2205.14135>).

use std::ops::Range;

use burn::backend::flex::FlexTensor;

use super::host::{Fresh, Matrix, Shared, Values, multiply, multiply_into, share_out, tensor};
use super::simd::{bound, dot, exp_sum, highest, slope_of_bound, vectorised};
use crate::heads::Heads;
use crate::packing::{Packing, Segment};

/// Queries of a tile.
const TILE: usize = 64;

/// A tile's place in a batch, and what it sees.
#[derive(Clone, Copy)]
struct Tile {
    /// First query, as a position in the batch.
    start: usize,
    /// Number of queries.
    rows: usize,
    /// First token of the segment's prefix, and how many there are.
    prefix: (usize, usize),
    /// First token of the segment.
    own: usize,
    /// Tokens of the segment before the tile's first query.
    before: usize,
    /// First column that a query sees: those before it are in no query's window.
    first: usize,
}

impl Tile {
    /// Tokens of the segment that the tile's last query sees.
    fn seen(&self) -> usize {
        self.before + self.rows
    }

    /// Columns of the tile's scores: the prefix's tokens, then the segment's.
    fn width(&self) -> usize {
        self.prefix.1 + self.seen()
    }

    /// Tokens seen, as places in the batch and columns of the scores: `(first token, first column, how many)`.
    fn ranges(&self) -> impl Iterator<Item = (usize, usize, usize)> {
        let first = self.first;
        [(self.prefix.0, 0, self.prefix.1), (self.own, self.prefix.1, self.seen())]
            .into_iter()
            .map(move |(token, column, count)| {
                let hidden = first.saturating_sub(column).min(count);
                (token + hidden, column + hidden, count - hidden)
            })
            .filter(|range| range.2 > 0)
    }

    /// Columns that query `i` of the tile sees.
    fn visible(&self, i: usize, heads: Heads) -> Range<usize> {
        let end = self.prefix.1 + self.before + i + 1;
        heads.first_seen(end)..end
    }
}

fn tiles<'a>(segment: &'a Segment, packing: &'a Packing, heads: Heads) -> impl Iterator<Item = Tile> + 'a {
    let prefix = packing.prefix(segment);
    (0..segment.len).step_by(TILE).map(move |before| Tile {
        start: segment.start + before,
        rows: TILE.min(segment.len - before),
        prefix: (prefix.start, prefix.len()),
        own: segment.start,
        before,
        first: heads.first_seen(prefix.len() + before + 1),
    })
}

/// Queries, keys or values, `[t, heads · n]`.
#[derive(Clone, Copy)]
struct Rows<'a> {
    values: &'a [f32],
    width: usize,
    n: usize,
}

impl<'a> Rows<'a> {
    /// Some tokens of one head.
    fn head(&self, head: usize, start: usize, rows: usize) -> Matrix<'a> {
        Matrix::new(&self.values[start * self.width + head * self.n..], rows, self.n, self.width)
    }

    /// One token of one head.
    fn token(&self, head: usize, token: usize) -> &'a [f32] {
        let start = token * self.width + head * self.n;
        &self.values[start..start + self.n]
    }
}

/// `scale · q · kᵀ` for a tile, into rows of `tile.width()`.
fn scores(to: &mut [f32], tile: &Tile, q: Rows<'_>, k: Rows<'_>, scale: f32, [head, kv_head]: [usize; 2]) {
    let width = tile.width();
    let queries = q.head(head, tile.start, tile.rows);
    for (token, column, count) in tile.ranges() {
        let keys = k.head(kv_head, token, count).transposed();
        multiply(&mut to[column..], width, false, queries, keys, scale);
    }
}

/// Each group of connected segments with each key head: parts of the work that write to different places.
fn tasks(packing: &Packing, heads: Heads) -> Vec<(Vec<Segment>, usize)> {
    let mut tasks: Vec<_> =
        packing.groups().into_iter().flat_map(|group| (0..heads.kv).map(move |g| (group.clone(), g))).collect();
    // The longest first, so that no thread is left alone with one at the end.
    tasks.sort_by_key(|(group, _)| std::cmp::Reverse(group.iter().map(|segment| segment.len).sum::<usize>()));
    tasks
}

/// The query heads that read a key head.
fn queries_of(kv_head: usize, heads: Heads) -> Range<usize> {
    assert_eq!(heads.query % heads.kv, 0, "as many queries for each key head");
    let r = heads.query / heads.kv;
    kv_head * r..(kv_head + 1) * r
}

/// Sets what a query does not see to 0, and returns the scores of what it sees.
#[inline(always)]
fn hide(row: &mut [f32], visible: Range<usize>) -> &mut [f32] {
    row[visible.end..].fill(0.0);
    row[..visible.start].fill(0.0);
    &mut row[visible]
}

/// The widest tile's elements.
fn buffer(packing: &Packing) -> usize {
    packing.segments().iter().map(|segment| packing.prefix(segment).len() + segment.len).max().unwrap_or(0) * TILE
}

pub(super) fn forward(
    q: FlexTensor,
    k: FlexTensor,
    v: FlexTensor,
    heads: Heads,
    packing: &Packing,
) -> (FlexTensor, FlexTensor) {
    let (h, g, n, t) = (heads.query, heads.kv, heads.dim, packing.tokens());
    let (q, k, v) = (Values::of(q), Values::of(k), Values::of(v));
    let q = Rows { values: q.f32(), width: h * n, n };
    let k = Rows { values: k.f32(), width: g * n, n };
    let v = Rows { values: v.f32(), width: g * n, n };
    let mut mixed = Fresh::new(t * h * n);
    let mut log_sums = vec![0.0; h * t];
    let (to, sums) = (mixed.shared(), Shared::new(&mut log_sums));
    let size = buffer(packing);
    let tasks = tasks(packing, heads);
    share_out(
        tasks.len(),
        || vec![0.0; size],
        |buffer, task| {
            let &(ref group, kv_head) = &tasks[task];
            for (segment, head) in group.iter().flat_map(|s| queries_of(kv_head, heads).map(move |head| (s, head))) {
                for tile in tiles(segment, packing, heads) {
                    let width = tile.width();
                    let weights = &mut buffer[..tile.rows * width];
                    scores(weights, &tile, q, k, heads.scale as f32, [head, kv_head]);
                    // SAFETY: no other task has these queries of this head.
                    let sums = unsafe { sums.part(head * t + tile.start, tile.rows) };
                    vectorised(
                        #[inline(always)]
                        || {
                            for (i, (row, log_sum)) in weights.chunks_exact_mut(width).zip(sums).enumerate() {
                                let seen = hide(row, tile.visible(i, heads));
                                if let Some(cap) = heads.soft_cap {
                                    bound(seen, cap as f32);
                                }
                                let shift = highest(seen);
                                let sum = exp_sum(seen, shift);
                                let scale = sum.recip();
                                for weight in seen {
                                    *weight *= scale;
                                }
                                *log_sum = shift + sum.ln();
                            }
                        },
                    );
                    for (i, (token, column, count)) in tile.ranges().enumerate() {
                        let weights = Matrix::new(&weights[column..], tile.rows, count, width);
                        let values = v.head(kv_head, token, count);
                        let start = tile.start * h * n + head * n;
                        // SAFETY: no other task has these queries of this head, and what is added to has been written.
                        unsafe { multiply_into(to, start, h * n, i > 0, weights, values, 1.0) };
                    }
                }
            }
        },
    );
    // SAFETY: each query of each head is in a tile.
    (unsafe { mixed.tensor([t, h * n]) }, tensor(log_sums, [h, t]))
}

pub(super) fn backward(
    [q, k, v, o, log_sums]: [FlexTensor; 5],
    gradient: FlexTensor,
    heads: Heads,
    packing: &Packing,
) -> [FlexTensor; 3] {
    let (h, g, n, t) = (heads.query, heads.kv, heads.dim, packing.tokens());
    let (q, k, v, o, gradient) = (Values::of(q), Values::of(k), Values::of(v), Values::of(o), Values::of(gradient));
    let log_sums = Values::of(log_sums);
    let log_sums = log_sums.f32();
    let q = Rows { values: q.f32(), width: h * n, n };
    let o = Rows { values: o.f32(), width: h * n, n };
    let gradient = Rows { values: gradient.f32(), width: h * n, n };
    let k = Rows { values: k.f32(), width: g * n, n };
    let v = Rows { values: v.f32(), width: g * n, n };
    let scale = heads.scale as f32;
    let mut in_q = Fresh::new(t * h * n);
    let mut in_k = vec![0.0; t * g * n];
    let mut in_v = vec![0.0; t * g * n];
    let (to_q, to_k, to_v) = (in_q.shared(), Shared::new(&mut in_k), Shared::new(&mut in_v));
    let size = buffer(packing);
    let tasks = tasks(packing, heads);
    share_out(
        tasks.len(),
        || (vec![0.0; size], vec![0.0; size]),
        |(weights, in_scores), task| {
            let &(ref group, kv_head) = &tasks[task];
            for (segment, head) in group.iter().flat_map(|s| queries_of(kv_head, heads).map(move |head| (s, head))) {
                for tile in tiles(segment, packing, heads) {
                    let (width, rows) = (tile.width(), tile.rows);
                    let weights = &mut weights[..rows * width];
                    let in_scores = &mut in_scores[..rows * width];
                    scores(weights, &tile, q, k, scale, [head, kv_head]);
                    let from_above = gradient.head(head, tile.start, rows);
                    for (token, column, count) in tile.ranges() {
                        let values = v.head(kv_head, token, count).transposed();
                        multiply(&mut in_scores[column..], width, false, from_above, values, 1.0);
                    }
                    vectorised(
                        #[inline(always)]
                        || {
                            let pairs = weights.chunks_exact_mut(width).zip(in_scores.chunks_exact_mut(width));
                            for (i, (weights, in_scores)) in pairs.enumerate() {
                                let token = tile.start + i;
                                let along = dot(gradient.token(head, token), o.token(head, token));
                                let visible = tile.visible(i, heads);
                                let seen = hide(weights, visible.clone());
                                if let Some(cap) = heads.soft_cap {
                                    bound(seen, cap as f32);
                                    for (slope, score) in in_scores[visible].iter_mut().zip(&*seen) {
                                        // `along` is taken off below: the rest gets the derivative of the bound.
                                        *slope = along + (*slope - along) * slope_of_bound(*score, cap as f32);
                                    }
                                }
                                exp_sum(seen, log_sums[head * t + token]);
                                for (slope, weight) in in_scores.iter_mut().zip(weights) {
                                    *slope = *weight * (*slope - along) * scale;
                                }
                            }
                        },
                    );
                    let queries = q.head(head, tile.start, rows);
                    for (i, (token, column, count)) in tile.ranges().enumerate() {
                        let slopes = Matrix::new(&in_scores[column..], rows, count, width);
                        let weights = Matrix::new(&weights[column..], rows, count, width);
                        let query = tile.start * h * n + head * n;
                        let key = token * g * n + kv_head * n;
                        let keys = k.head(kv_head, token, count);
                        // SAFETY: a task has all queries that read this key head in its group of segments, and all its keys.
                        unsafe {
                            multiply_into(to_q, query, h * n, i > 0, slopes, keys, 1.0);
                            multiply_into(to_k, key, g * n, true, slopes.transposed(), queries, 1.0);
                            multiply_into(to_v, key, g * n, true, weights.transposed(), from_above, 1.0);
                        }
                    }
                }
            }
        },
    );
    // SAFETY: each query of each head is in a tile.
    [unsafe { in_q.tensor([t, h * n]) }, tensor(in_k, [t, g * n]), tensor(in_v, [t, g * n])]
}
