//! Log-probabilities of tokens, without the logits of all of them.

use std::fmt::Debug;
use std::ops::Range;

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::{FloatDType, IndexingUpdateOp, Shape, Slice};

use super::{dtype, f32, rows};
use crate::backend::Kernels;
use crate::differentiate::Operation;
use crate::functions::Logits;

/// The results of a forward pass; all f32.
#[derive(Clone, Debug)]
pub struct Scores<B: Backend> {
    /// Log-probability and entropy, `[n, 2]`.
    pub(crate) scores: FloatTensor<B>,
    /// The log-sum-exp of each position's logits, `[n, 1]`.
    pub(crate) log_sums: FloatTensor<B>,
    /// The logits before their bound where they are kept, chunk by chunk in an order that the backend chooses; else none.
    pub(crate) logits: Vec<FloatTensor<B>>,
}

/// The tensors that the backward pass needs: the inputs and the rest of [`Scores`].
#[derive(Clone, Debug)]
pub struct Kept<B: Backend> {
    pub(crate) x: FloatTensor<B>,
    pub(crate) weight: FloatTensor<B>,
    pub(crate) rows: IntTensor<B>,
    pub(crate) targets: IntTensor<B>,
    pub(crate) log_sums: FloatTensor<B>,
    pub(crate) logits: Vec<FloatTensor<B>>,
}

fn chunks(n: usize, chunk: usize) -> impl Iterator<Item = Range<usize>> {
    (0..n).step_by(chunk).map(move |start| start..(start + chunk).min(n))
}

fn indices<B: Backend>(x: &IntTensor<B>, range: Range<usize>) -> IntTensor<B> {
    B::int_slice(x.clone(), &[Slice::from(range)])
}

/// Returns logits in f32, within their bound if there is one.
fn bounded<B: Backend>(logits: FloatTensor<B>, cap: Option<f64>) -> FloatTensor<B> {
    let logits = f32::<B>(logits);
    match cap {
        None => logits,
        Some(cap) => B::float_mul_scalar(B::float_tanh(B::float_mul_scalar(logits, cap.recip().into())), cap.into()),
    }
}

/// Returns log-probabilities and entropies `[c, 2]` and the log-sum-exp of each row `[c, 1]` of a chunk of logits `[c, v]`; `targets` are `[c]`.
pub(crate) fn scores_of_logits<B: Backend>(
    logits: FloatTensor<B>,
    targets: IntTensor<B>,
    cap: Option<f64>,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let logits = bounded::<B>(logits, cap);
    let targets = B::int_reshape(targets, Shape::from([logits.shape()[0], 1]));
    let highest = B::float_max_dim(logits.clone(), 1);
    let shifted = B::float_sub(logits, highest.clone());
    let weights = B::float_exp(shifted.clone());
    let sum = B::float_sum_dim(weights.clone(), 1);
    let log = B::float_log(sum.clone());
    let logp = B::float_sub(B::float_gather(1, shifted.clone(), targets), log.clone());
    // −Σ p log p = log Σ e^s − Σ p s, with s the shifted logits.
    let mean = B::float_div(B::float_sum_dim(B::float_mul(weights, shifted), 1), sum);
    let entropy = B::float_sub(log.clone(), mean);
    (B::float_cat(vec![logp, entropy], 1), B::float_add(highest, log))
}

/// Returns the gradient of a chunk of logits in their dtype. With `s_i` that of a log-probability, `[c, 1]`:
/// `∂z_i = s_i · (onehot(y_i) − softmax(z_i))`. With a bound `c` of the logits, `∂z_i` is also multiplied by its derivative, `1 − (z_i / c)²`.
pub(crate) fn gradient_of_logits<B: Backend>(
    logits: FloatTensor<B>,
    targets: IntTensor<B>,
    log_sums: FloatTensor<B>,
    seed: FloatTensor<B>,
    cap: Option<f64>,
) -> FloatTensor<B> {
    let dtype = dtype::<B>(&logits);
    let logits = bounded::<B>(logits, cap);
    let targets = B::int_reshape(targets, Shape::from([logits.shape()[0], 1]));
    let slope = cap.map(|cap| {
        let bent = B::float_mul_scalar(logits.clone(), cap.recip().into());
        B::float_add_scalar(B::float_neg(B::float_mul(bent.clone(), bent)), 1.0.into())
    });
    let weights = B::float_exp(B::float_sub(logits, log_sums));
    let in_logits = B::float_neg(B::float_mul(weights, seed.clone()));
    let in_logits = B::float_scatter(1, in_logits, targets, seed, IndexingUpdateOp::Add);
    let in_logits = match slope {
        None => in_logits,
        Some(slope) => B::float_mul(in_logits, slope),
    };
    B::float_cast(in_logits, dtype)
}

pub(crate) fn forward<B: Kernels>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    rows: IntTensor<B>,
    targets: IntTensor<B>,
    Logits { chunk, keep, soft_cap }: Logits,
) -> Scores<B> {
    let n = targets.shape()[0];
    let mut scores = vec![];
    let mut log_sums = vec![];
    let mut kept = vec![];
    for range in chunks(n, chunk) {
        let hidden = B::float_select(x.clone(), 0, indices::<B>(&rows, range.clone()));
        // [c, d] · [d, v]
        let logits = B::float_matmul(hidden, B::float_transpose(weight.clone()));
        if keep {
            kept.push(logits.clone());
        }
        let (of_chunk, log_sum) = B::logit_scores(logits, indices::<B>(&targets, range), soft_cap);
        scores.push(of_chunk);
        log_sums.push(log_sum);
    }
    Scores { scores: B::float_cat(scores, 0), log_sums: B::float_cat(log_sums, 0), logits: kept }
}

/// With `∂z` the gradient of the logits: `∂x = ∂z W`, `∂W = ∂zᵀ x`.
pub(crate) fn backward<B: Kernels>(
    kept: Kept<B>,
    gradient: FloatTensor<B>,
    Logits { chunk, soft_cap, .. }: Logits,
    wanted: [bool; 2],
) -> [Option<FloatTensor<B>>; 2] {
    let Kept { x, weight, rows: places, targets, log_sums, logits } = kept;
    let mut logits = logits.into_iter();
    let dtype = dtype::<B>(&x);
    let n = targets.shape()[0];
    let zeros = |like: &FloatTensor<B>| B::float_zeros(like.shape(), &like.device(), FloatDType::F32);
    let mut in_x = wanted[0].then(|| zeros(&x));
    let mut in_weight = wanted[1].then(|| zeros(&weight));
    for range in chunks(n, chunk) {
        let place = indices::<B>(&places, range.clone());
        let hidden = B::float_select(x.clone(), 0, place.clone());
        let logits =
            logits.next().unwrap_or_else(|| B::float_matmul(hidden.clone(), B::float_transpose(weight.clone())));
        let log_sum = rows::<B>(log_sums.clone(), range.clone());
        // The second column is the entropy, which has no gradient.
        let seed = B::float_slice(gradient.clone(), &[Slice::from(range.clone()), Slice::from(0..1)]);
        let in_logits = B::logit_scores_backward(logits, indices::<B>(&targets, range), log_sum, seed, soft_cap);
        in_x = in_x.map(|sum| {
            let part = f32::<B>(B::float_matmul(in_logits.clone(), weight.clone()));
            B::float_select_assign(sum, 0, place, part, IndexingUpdateOp::Add)
        });
        in_weight =
            in_weight.map(|sum| B::float_add(sum, f32::<B>(B::float_matmul(B::float_transpose(in_logits), hidden))));
    }
    let weight_dtype = super::dtype::<B>(&weight);
    [in_x.map(|sum| B::float_cast(sum, dtype)), in_weight.map(|sum| B::float_cast(sum, weight_dtype))]
}

#[derive(Clone, Debug)]
pub(crate) struct Head<B: Backend> {
    pub(crate) rows: IntTensor<B>,
    pub(crate) targets: IntTensor<B>,
    pub(crate) logits: Logits,
}

impl<B: Kernels> Operation<B, 2> for Head<B> {
    type Kept = Kept<B>;

    fn forward(&self, [x, weight]: [FloatTensor<B>; 2], _wanted: [bool; 2]) -> (FloatTensor<B>, Kept<B>) {
        let (rows, targets) = (self.rows.clone(), self.targets.clone());
        let Scores { scores, log_sums, logits } =
            B::token_scores_forward(x.clone(), weight.clone(), rows.clone(), targets.clone(), self.logits);
        (scores, Kept { x, weight, rows, targets, log_sums, logits })
    }

    fn backward(&self, kept: Kept<B>, gradient: FloatTensor<B>, wanted: [bool; 2]) -> [Option<FloatTensor<B>>; 2] {
        B::token_scores_backward(kept, gradient, self.logits, wanted)
    }
}
