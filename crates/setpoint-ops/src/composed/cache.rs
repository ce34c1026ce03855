//! A cache of keys and values, `[slots, g, capacity, n]`.

use burn::backend::tensor::{Device, FloatTensor};
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::{IndexingUpdateOp, Slice, TensorData};

use super::mask::causal;
use super::{dtype, f32, reshape, rows};
use crate::generation::{Span, Spans};
use crate::heads::Heads;

fn dims<B: Backend>(cache: &FloatTensor<B>) -> [usize; 4] {
    let shape = cache.shape();
    [shape[0], shape[1], shape[2], shape[3]]
}

fn ids<B: Backend>(ids: Vec<i32>, device: &Device<B>) -> burn::backend::tensor::IntTensor<B> {
    let count = ids.len();
    B::int_from_data(TensorData::new(ids, [count]), device)
}

pub(crate) fn write<B: Backend>(cache: FloatTensor<B>, new: FloatTensor<B>, spans: &Spans) -> FloatTensor<B> {
    let [slots, g, capacity, n] = dims::<B>(&cache);
    let places = spans.spans().iter().flat_map(|span| {
        let place = move |position, head| ((span.slot * g + head) * capacity + position) as i32;
        (span.start..span.end()).flat_map(move |position| (0..g).map(move |head| place(position, head)))
    });
    let places = ids::<B>(places.collect(), &cache.device());
    // [slots, g, capacity, n] -> [slots·g·capacity, n], [t, g·n] -> [t·g, n]
    let cells = reshape::<B, 2>(cache, [slots * g * capacity, n]);
    let new = reshape::<B, 2>(new, [spans.tokens() * g, n]);
    let cells = B::float_select_assign(cells, 0, places, new, IndexingUpdateOp::Assign);
    reshape::<B, 4>(cells, [slots, g, capacity, n])
}

pub(crate) fn copy<B: Backend>(cache: FloatTensor<B>, from: usize, to: usize, len: usize) -> FloatTensor<B> {
    let [_, g, _, n] = dims::<B>(&cache);
    let rest = [Slice::from(0..g), Slice::from(0..len), Slice::from(0..n)];
    let part = B::float_select(cache.clone(), 0, ids::<B>(vec![from as i32], &cache.device()));
    let part = B::float_slice(part, &[&[Slice::from(0..1)], &rest[..]].concat());
    B::float_slice_assign(cache, &[&[Slice::from(to..to + 1)], &rest[..]].concat(), part)
}

/// Spans of equal length that follow each other, computed together.
struct Group<'a> {
    spans: &'a [Span],
    /// First token of the group in the pass.
    first: usize,
}

impl Group<'_> {
    fn len(&self) -> usize {
        self.spans[0].len
    }

    /// Tokens of the longest text.
    fn seen(&self) -> usize {
        self.spans.iter().map(Span::end).max().unwrap_or(0)
    }

    /// The group's part of a cache, `[rows, g, seen, n]`.
    fn part<B: Backend>(&self, cache: &FloatTensor<B>) -> FloatTensor<B> {
        let [_, g, _, n] = dims::<B>(cache);
        let first = self.spans[0].slot;
        let cut = |slots| [slots, Slice::from(0..g), Slice::from(0..self.seen()), Slice::from(0..n)];
        let count = self.spans.len();
        if self.spans.iter().enumerate().all(|(i, span)| span.slot == first + i) {
            return B::float_slice(cache.clone(), &cut(Slice::from(first..first + count)));
        }
        let slots = self.spans.iter().map(|span| span.slot as i32).collect();
        let picked = B::float_select(cache.clone(), 0, ids::<B>(slots, &cache.device()));
        B::float_slice(picked, &cut(Slice::from(0..count)))
    }

    /// The positions that each token may not see: `[rows, 1, len, seen]`, as [`causal`] has them.
    fn mask<B: Backend>(&self, window: Option<usize>, device: &Device<B>) -> FloatTensor<B> {
        let positions = self.spans.iter().flat_map(|span| span.start..span.end()).map(|position| position as i32);
        causal::<B>(ids::<B>(positions.collect(), device), [self.spans.len(), self.len()], self.seen(), window)
    }
}

fn groups(spans: &Spans) -> Vec<Group<'_>> {
    let mut first = 0;
    spans
        .spans()
        .chunk_by(|a, b| a.len == b.len)
        .map(|spans| {
            let group = Group { spans, first };
            first += spans.len() * group.len();
            group
        })
        .collect()
}

pub(crate) fn attention<B: Backend>(
    q: FloatTensor<B>,
    keys: FloatTensor<B>,
    values: FloatTensor<B>,
    heads: Heads,
    spans: &Spans,
) -> FloatTensor<B> {
    let (h, g, n) = (heads.query, heads.kv, heads.dim);
    let r = h / g;
    let mixed = groups(spans).into_iter().map(|group| {
        let (b, s, seen) = (group.spans.len(), group.len(), group.seen());
        let queries = rows::<B>(q.clone(), group.first..group.first + b * s);
        // [b·s, h·n] -> [b, s, h, n] -> [b, h, s, n] -> [b, g, r·s, n]
        let queries = B::float_swap_dims(reshape::<B, 4>(queries, [b, s, h, n]), 1, 2);
        let queries = reshape::<B, 4>(queries, [b, g, r * s, n]);
        let scores = f32::<B>(B::float_matmul(queries, B::float_transpose(group.part::<B>(&keys))));
        let scores = B::float_mul_scalar(scores, heads.scale.into());
        let scores = match heads.soft_cap {
            None => scores,
            Some(cap) => {
                B::float_mul_scalar(B::float_tanh(B::float_mul_scalar(scores, cap.recip().into())), cap.into())
            }
        };
        // [b, g, r·s, seen] -> [b, h, s, seen]
        let scores = reshape::<B, 4>(scores, [b, h, s, seen]);
        let scores = B::float_add(scores, group.mask::<B>(heads.window, &q.device()));
        let weights = B::float_exp(B::float_sub(scores.clone(), B::float_max_dim(scores, 3)));
        let weights = B::float_div(weights.clone(), B::float_sum_dim(weights, 3));
        // [b, h, s, seen] -> [b, g, r·s, seen]
        let weights = reshape::<B, 4>(B::float_cast(weights, dtype::<B>(&values)), [b, g, r * s, seen]);
        let mixed = B::float_matmul(weights, group.part::<B>(&values));
        // [b, g, r·s, n] -> [b, h, s, n] -> [b, s, h, n] -> [b·s, h·n]
        let mixed = B::float_swap_dims(reshape::<B, 4>(mixed, [b, h, s, n]), 1, 2);
        reshape::<B, 2>(mixed, [b * s, h * n])
    });
    B::float_cat(mixed.collect(), 0)
}
