//! Attention, segment by segment.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::{IntDType, Slice};

use super::mask::causal;
use super::{dtype, f32, reshape, rows};
use crate::backend::Kernels;
use crate::differentiate::Operation;
use crate::heads::Heads;
use crate::packing::{Packing, Segment};

/// A segment's part of `x`, by head: `[t, heads·n] -> [heads, len, n]`, behind that of its prefix where `with_prefix`.
fn heads_of<B: Backend>(
    x: &FloatTensor<B>,
    segment: &Segment,
    packing: &Packing,
    heads: usize,
    with_prefix: bool,
) -> FloatTensor<B> {
    let own = rows::<B>(x.clone(), segment.tokens());
    let prefix = packing.prefix(segment);
    let part =
        if with_prefix && !prefix.is_empty() { B::float_cat(vec![rows::<B>(x.clone(), prefix), own], 0) } else { own };
    let (len, width) = (part.shape()[0], part.shape()[1]);
    // [len, heads·n] -> [len, heads, n] -> [heads, len, n]
    B::float_swap_dims(reshape::<B, 3>(part, [len, heads, width / heads]), 0, 1)
}

/// `[heads, len, n] -> [len, heads·n]`
fn joined<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let (heads, len, n) = (x.shape()[0], x.shape()[1], x.shape()[2]);
    reshape::<B, 2>(B::float_swap_dims(x, 0, 1), [len, heads * n])
}

/// Scaled, bounded and masked scores of a segment, f32 `[g, r·len, keys]`.
struct Scores<B: Backend> {
    scores: FloatTensor<B>,
    /// The derivative of the bounded scores by the scaled ones, if there is a bound.
    slope: Option<FloatTensor<B>>,
}

fn scores<B: Backend>(q: FloatTensor<B>, k: FloatTensor<B>, segment: &Segment, heads: Heads) -> Scores<B> {
    let (g, r, len) = (heads.kv, heads.query / heads.kv, segment.len);
    let keys = k.shape()[1];
    let scores = f32::<B>(B::float_matmul(q, B::float_transpose(k)));
    let scores = B::float_mul_scalar(scores, heads.scale.into());
    let (scores, slope) = match heads.soft_cap {
        None => (scores, None),
        Some(cap) => bounded::<B>(scores, cap),
    };
    // [g, r·len, keys] -> [g, r, len, keys]
    let scores = reshape::<B, 4>(scores, [g, r, len, keys]);
    let positions = B::int_arange((keys - len) as i64..keys as i64, &scores.device(), IntDType::I32);
    let hidden = causal::<B>(positions, [1, len], keys, heads.window);
    Scores { scores: reshape::<B, 3>(B::float_add(scores, hidden), [g, r * len, keys]), slope }
}

/// `c · tanh(s / c)` and its derivative, `1 − tanh²(s / c)`.
fn bounded<B: Backend>(scores: FloatTensor<B>, cap: f64) -> (FloatTensor<B>, Option<FloatTensor<B>>) {
    let tanh = B::float_tanh(B::float_mul_scalar(scores, cap.recip().into()));
    let slope = B::float_add_scalar(B::float_neg(B::float_mul(tanh.clone(), tanh.clone())), 1.0.into());
    (B::float_mul_scalar(tanh, cap.into()), Some(slope))
}

pub(crate) fn forward<B: Backend>(
    q: FloatTensor<B>,
    k: FloatTensor<B>,
    v: FloatTensor<B>,
    heads: Heads,
    packing: &Packing,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let (h, g, n) = (heads.query, heads.kv, heads.dim);
    let mut mixed = vec![];
    let mut log_sums = vec![];
    for segment in packing.segments() {
        let len = segment.len;
        // The queries of a group are rows of one product with their common keys: [h, len, n] -> [g, r·len, n]
        let queries = reshape::<B, 3>(heads_of::<B>(&q, segment, packing, h, false), [g, h / g * len, n]);
        let keys = heads_of::<B>(&k, segment, packing, g, true);
        let values = heads_of::<B>(&v, segment, packing, g, true);
        let Scores { scores, .. } = scores::<B>(queries, keys, segment, heads);
        let highest = B::float_max_dim(scores.clone(), 2);
        let weights = B::float_exp(B::float_sub(scores, highest.clone()));
        let sum = B::float_sum_dim(weights.clone(), 2);
        let weights = B::float_cast(B::float_div(weights, sum.clone()), dtype::<B>(&values));
        // [g, r·len, n] -> [h, len, n] -> [len, h·n]
        mixed.push(joined::<B>(reshape::<B, 3>(B::float_matmul(weights, values), [h, len, n])));
        // [g, r·len, 1] -> [h, len]
        log_sums.push(reshape::<B, 2>(B::float_add(highest, B::float_log(sum)), [h, len]));
    }
    (B::float_cat(mixed, 0), B::float_cat(log_sums, 1))
}

/// With `P` the weights, `O = P V` and a scale `a`: `∂V = Pᵀ ∂O`, `∂S = P ∘ (∂O Vᵀ − rowsum(∂O ∘ O))`, `∂Q = a ∂S K`, `∂K = a ∂Sᵀ Q`; with a
/// bound of the scores `∂S` is also multiplied by its derivative.
pub(crate) fn backward<B: Backend>(
    [q, k, v, o, log_sums]: [FloatTensor<B>; 5],
    gradient: FloatTensor<B>,
    heads: Heads,
    packing: &Packing,
) -> [FloatTensor<B>; 3] {
    let (h, g, n) = (heads.query, heads.kv, heads.dim);
    let dtype = dtype::<B>(&q);
    let zeros = |like: &FloatTensor<B>| B::float_zeros(like.shape(), &like.device(), burn::tensor::FloatDType::F32);
    let mut in_q = vec![];
    let (mut in_k, mut in_v) = (zeros(&k), zeros(&v));
    for segment in packing.segments() {
        let (len, rows_of_group) = (segment.len, h / g * segment.len);
        let grouped =
            |x: &FloatTensor<B>| reshape::<B, 3>(heads_of::<B>(x, segment, packing, h, false), [g, rows_of_group, n]);
        let queries = grouped(&q);
        let keys = heads_of::<B>(&k, segment, packing, g, true);
        let values = heads_of::<B>(&v, segment, packing, g, true);
        let Scores { scores, slope } = scores::<B>(queries.clone(), keys.clone(), segment, heads);
        let log_sum = B::float_slice(log_sums.clone(), &[Slice::from(0..h), Slice::from(segment.tokens())]);
        // [h, len] -> [g, r·len, 1]
        let weights = B::float_exp(B::float_sub(scores, reshape::<B, 3>(log_sum, [g, rows_of_group, 1])));
        let gradient = grouped(&gradient);
        let along = B::float_sum_dim(B::float_mul(f32::<B>(gradient.clone()), f32::<B>(grouped(&o))), 2);
        let in_weights = f32::<B>(B::float_matmul(gradient.clone(), B::float_transpose(values)));
        let in_scores =
            B::float_mul_scalar(B::float_mul(weights.clone(), B::float_sub(in_weights, along)), heads.scale.into());
        let in_scores = match slope {
            None => in_scores,
            Some(slope) => B::float_mul(in_scores, slope),
        };
        let in_scores = B::float_cast(in_scores, dtype);
        let weights = B::float_cast(weights, dtype);
        // [g, r·len, n] -> [h, len, n] -> [len, h·n]
        in_q.push(joined::<B>(reshape::<B, 3>(B::float_matmul(in_scores.clone(), keys), [h, len, n])));
        let of_keys = joined::<B>(f32::<B>(B::float_matmul(B::float_transpose(in_scores), queries)));
        let of_values = joined::<B>(f32::<B>(B::float_matmul(B::float_transpose(weights), gradient)));
        in_k = add_rows::<B>(in_k, of_keys, segment, packing);
        in_v = add_rows::<B>(in_v, of_values, segment, packing);
    }
    [B::float_cat(in_q, 0), B::float_cast(in_k, dtype), B::float_cast(in_v, dtype)]
}

/// Adds the rows of a segment's prefix and of the segment itself to theirs in `sum`.
fn add_rows<B: Backend>(
    sum: FloatTensor<B>,
    part: FloatTensor<B>,
    segment: &Segment,
    packing: &Packing,
) -> FloatTensor<B> {
    let prefix = packing.prefix(segment);
    let before = prefix.len();
    let columns = sum.shape()[1];
    let mut sum = sum;
    for (to, from) in [(prefix, 0..before), (segment.tokens(), before..before + segment.len)] {
        if to.is_empty() {
            continue;
        }
        let place = [Slice::from(to), Slice::from(0..columns)];
        let value = B::float_add(B::float_slice(sum.clone(), &place), rows::<B>(part.clone(), from));
        sum = B::float_slice_assign(sum, &place, value);
    }
    sum
}

#[derive(Clone, Debug)]
pub(crate) struct Attention {
    pub(crate) heads: Heads,
    pub(crate) packing: Packing,
}

impl<B: Kernels> Operation<B, 3> for Attention {
    type Kept = [FloatTensor<B>; 5];

    fn forward(&self, [q, k, v]: [FloatTensor<B>; 3], _wanted: [bool; 3]) -> (FloatTensor<B>, Self::Kept) {
        let (o, log_sums) = B::attention_forward(q.clone(), k.clone(), v.clone(), self.heads, &self.packing);
        (o.clone(), [q, k, v, o, log_sums])
    }

    fn backward(&self, kept: Self::Kept, gradient: FloatTensor<B>, wanted: [bool; 3]) -> [Option<FloatTensor<B>>; 3] {
        let [q, k, v] = B::attention_backward(kept, gradient, self.heads, &self.packing);
        [wanted[0].then_some(q), wanted[1].then_some(k), wanted[2].then_some(v)]
    }
}
