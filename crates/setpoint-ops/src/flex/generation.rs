//! Passes of generation. Attention of a single new token reads each key and value once for all query heads of the group; that of more
//! tokens goes in tiles.

use burn::backend::flex::FlexTensor;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Flex, TensorMetadata};
use burn::tensor::TensorData;
use rayon::prelude::*;

use super::few_rows;
use super::host::{Matrix, Shared, Values, all_f32, multiply, multiply_into, own, tensor};
use super::simd::{bound, exp_sum, exp_total, highest, vectorised};
use crate::composed;
use crate::generation::{GenerationOps, Spans};
use crate::heads::Heads;

/// Queries of a tile.
const TILE: usize = 64;

impl GenerationOps for Flex {
    fn cache_write(cache: FloatTensor<Self>, new: FloatTensor<Self>, spans: Spans) -> FloatTensor<Self> {
        if all_f32(&[&cache, &new]) {
            write(cache, new, &spans)
        } else {
            composed::cache::write::<Self>(cache, new, &spans)
        }
    }

    fn cache_copy(cache: FloatTensor<Self>, from: usize, to: usize, len: usize) -> FloatTensor<Self> {
        if all_f32(&[&cache]) {
            copy(cache, from, to, len)
        } else {
            composed::cache::copy::<Self>(cache, from, to, len)
        }
    }

    fn cached_attention(
        q: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        heads: Heads,
        spans: Spans,
    ) -> FloatTensor<Self> {
        if all_f32(&[&q, &keys, &values]) {
            attention(q, keys, values, heads, &spans)
        } else {
            composed::cache::attention::<Self>(q, keys, values, heads, &spans)
        }
    }

    fn likeliest(logits: FloatTensor<Self>) -> (IntTensor<Self>, FloatTensor<Self>) {
        if all_f32(&[&logits]) { likeliest(logits) } else { composed::likeliest::<Self>(logits) }
    }
}

/// The dimensions of a cache after the first: heads, capacity and the width of a head.
fn dims(cache: &FlexTensor) -> [usize; 3] {
    let shape = cache.shape();
    [shape[1], shape[2], shape[3]]
}

fn write(cache: FlexTensor, new: FlexTensor, spans: &Spans) -> FlexTensor {
    let [g, capacity, n] = dims(&cache);
    let mut cache = own(cache);
    let cells = cache.storage_mut::<f32>();
    let new = Values::of(new);
    let positions =
        spans.spans().iter().flat_map(|span| (span.start..span.end()).map(|position| (span.slot, position)));
    for (new, (slot, position)) in new.f32().chunks_exact(g * n).zip(positions) {
        for (head, new) in new.chunks_exact(n).enumerate() {
            let at = ((slot * g + head) * capacity + position) * n;
            cells[at..at + n].copy_from_slice(new);
        }
    }
    cache
}

fn copy(cache: FlexTensor, from: usize, to: usize, len: usize) -> FlexTensor {
    let [g, capacity, n] = dims(&cache);
    let mut cache = own(cache);
    let cells = cache.storage_mut::<f32>();
    for head in 0..g {
        let start = |slot| (slot * g + head) * capacity * n;
        cells.copy_within(start(from)..start(from) + len * n, start(to));
    }
    cache
}

/// Some queries of one span, for one key head.
#[derive(Clone, Copy)]
struct Task {
    slot: usize,
    kv_head: usize,
    /// First query, as a place in the pass.
    query: usize,
    /// Number of queries.
    rows: usize,
    /// Tokens that the first query sees beside itself.
    before: usize,
}

impl Task {
    /// Tokens that the last query sees.
    fn seen(&self) -> usize {
        self.before + self.rows
    }
}

fn tasks(spans: &Spans, heads: Heads) -> Vec<Task> {
    let mut tasks = Vec::with_capacity(spans.spans().len() * heads.kv);
    let mut query = 0;
    for span in spans.spans() {
        for (tile, kv_head) in (0..span.len).step_by(TILE).flat_map(|tile| (0..heads.kv).map(move |head| (tile, head)))
        {
            let rows = TILE.min(span.len - tile);
            tasks.push(Task { slot: span.slot, kv_head, query: query + tile, rows, before: span.start + tile });
        }
        query += span.len;
    }
    // The longest first, so that no thread is left alone with one at the end.
    tasks.sort_by_key(|task| std::cmp::Reverse(task.rows * task.seen()));
    tasks
}

fn attention(q: FlexTensor, keys: FlexTensor, values: FlexTensor, heads: Heads, spans: &Spans) -> FlexTensor {
    let (h, g, n, t) = (heads.query, heads.kv, heads.dim, spans.tokens());
    let r = h / g;
    let [_, capacity, _] = dims(&keys);
    let (q, keys, values) = (Values::of(q), Values::of(keys), Values::of(values));
    let (q, keys, values) = (q.f32(), keys.f32(), values.f32());
    let scale = heads.scale as f32;
    let mut mixed = vec![0.0; t * h * n];
    let to = Shared::new(&mut mixed);
    tasks(spans, heads).into_par_iter().for_each_init(Vec::new, |weights: &mut Vec<f32>, task| {
        // Tokens before these are in no query's window.
        let first = heads.first_seen(task.before + 1);
        let (seen, before) = (task.seen() - first, task.before - first);
        let cells = ((task.slot * g + task.kv_head) * capacity + first) * n;
        let (keys, values) = (&keys[cells..cells + seen * n], &values[cells..cells + seen * n]);
        // The query heads of a group stand side by side.
        let start = task.query * h * n + task.kv_head * r * n;
        weights.resize(weights.len().max(task.rows.max(r) * seen), 0.0);
        if task.rows == 1 {
            let weights = &mut weights[..r * seen];
            let scores = Shared::new(weights);
            // SAFETY: the weights are borrowed exclusively.
            unsafe {
                let rows = few_rows::Rows::new(&q[start..start + r * n], keys, n);
                few_rows::times_transposed(scores, 0, seen, rows, None);
            }
            vectorised(
                #[inline(always)]
                || {
                    for scores in weights.chunks_exact_mut(seen) {
                        scores.iter_mut().for_each(|score| *score *= scale);
                        softmax(scores, seen, heads);
                    }
                },
            );
            // SAFETY: no other task has this query of these heads.
            few_rows::times(unsafe { to.part(start, r * n) }, weights, values, n);
            return;
        }
        for head in 0..r {
            let start = start + head * n;
            let weights = &mut weights[..task.rows * seen];
            let queries = Matrix::new(&q[start..], task.rows, n, h * n);
            let transposed = Matrix::new(keys, seen, n, n).transposed();
            multiply(weights, seen, false, queries, transposed, scale);
            vectorised(
                #[inline(always)]
                || {
                    for (i, row) in weights.chunks_exact_mut(seen).enumerate() {
                        softmax(row, before + i + 1, heads);
                    }
                },
            );
            let weights = Matrix::new(weights, task.rows, seen, seen);
            // SAFETY: no other task has these queries of these heads.
            unsafe {
                multiply_into(to, start, h * n, false, weights, Matrix::new(values, seen, n, n), 1.0);
            }
        }
    });
    tensor(mixed, [t, h * n])
}

/// Turns the scores of a token that sees the first `seen` tokens, as far as its window reaches, into weights; those of the others are 0.
#[inline(always)]
fn softmax(scores: &mut [f32], seen: usize, heads: Heads) {
    let first = heads.first_seen(seen);
    scores[seen..].fill(0.0);
    scores[..first].fill(0.0);
    let scores = &mut scores[first..seen];
    if let Some(cap) = heads.soft_cap {
        bound(scores, cap as f32);
    }
    let shift = highest(scores);
    let scale = exp_sum(scores, shift).recip();
    for weight in scores {
        *weight *= scale;
    }
}

fn likeliest(logits: FlexTensor) -> (FlexTensor, FlexTensor) {
    let (b, v) = (logits.shape()[0], logits.shape()[1]);
    let logits = Values::of(logits);
    let mut ids = vec![0i32; b];
    let mut norms = vec![0.0; 2 * b];
    let rows = logits.f32().par_chunks_exact(v);
    ids.par_iter_mut().zip(norms.par_chunks_exact_mut(2)).zip(rows).for_each(|((id, norm), logits)| {
        vectorised(
            #[inline(always)]
            || {
                let shift = highest(logits);
                norm[0] = shift;
                norm[1] = exp_total(logits, shift).ln();
                *id = logits.iter().position(|&logit| logit == shift).unwrap_or(0) as i32;
            },
        );
    });
    (FlexTensor::from_data(TensorData::new(ids, [b])), tensor(norms, [b, 2]))
}
