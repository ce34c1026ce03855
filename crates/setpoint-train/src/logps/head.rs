//! From hidden states to the log-probabilities of chosen tokens.

use std::ops::Range;

use burn::tensor::{DType, Int, Tensor, TensorData};
use setpoint_ops::{Logits, token_logps};
use setpoint_transformer::{CausalLm, Recompute};

/// Bytes that the f32 logits of a chunk may take by default.
const CHUNK_BYTES: usize = 128 << 20;

/// Bytes that the f32 logits may take that are kept for the backward pass.
const KEPT_BYTES: usize = 256 << 20;

/// How the head turns hidden states into log-probabilities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeadOptions {
    /// Positions whose logits exist at a time, at least 1; by default as many as 128 MiB hold.
    pub chunk: Option<usize>,
    /// Whether logits are kept for the backward pass, which computes them again otherwise; by default where the decoder keeps its graph
    /// ([`Recompute::None`]) and 256 MiB hold them.
    pub keep: Option<bool>,
}

/// Bytes of the logits of `positions` that a decoder with this setting keeps for the backward pass.
pub fn kept_logits(positions: usize, vocab_size: usize, recompute: Recompute) -> usize {
    let bytes = 4 * positions * vocab_size;
    if recompute == Recompute::None && bytes <= KEPT_BYTES { bytes } else { 0 }
}

/// Positions of a packed batch whose tokens are scored, run by run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Positions {
    /// The hidden state's place in the batch.
    hidden: Vec<i32>,
    /// The token that this hidden state predicts.
    tokens: Vec<i32>,
    /// Scored tokens of each run.
    pub(super) counts: Vec<usize>,
}

impl Positions {
    /// Adds a run: `(place of the hidden state, token it predicts)`.
    pub(super) fn push_run(&mut self, run: impl IntoIterator<Item = (usize, u32)>) {
        let before = self.tokens.len();
        for (hidden, token) in run {
            self.hidden.push(hidden as i32);
            self.tokens.push(token as i32);
        }
        self.counts.push(self.tokens.len() - before);
    }

    /// Adds the tokens `ids[i]` for each `i` of `scored`, which must be at least 1, of a text whose tokens stand at `start` of the batch.
    pub(super) fn push_text(&mut self, start: usize, ids: &[u32], scored: Range<usize>) {
        self.push_run(scored.map(|i| (start + i - 1, ids[i])));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }
}

/// Log-probabilities of the tokens at `positions`, and the entropy there.
pub(super) struct HeadLogps {
    /// f32 `[n]`.
    pub(super) logps: Tensor<1>,
    /// f32 `[n]`, without a graph.
    pub(super) entropy: Tensor<1>,
}

/// Runs the head over the positions, chunk by chunk.
///
/// `None` where no position is asked for.
///
/// # Shapes
/// `hidden`: `[t, d]`.
pub(super) fn head_logps(
    model: &CausalLm,
    hidden: Tensor<2>,
    positions: &Positions,
    options: &HeadOptions,
) -> Option<HeadLogps> {
    if positions.is_empty() {
        return None;
    }
    let device = hidden.device().without_autodiff();
    let weight = model.head_weight();
    let [vocab_size, _] = weight.dims();
    let logits = Logits {
        chunk: options.chunk.unwrap_or(CHUNK_BYTES / 4 / vocab_size.max(1)).max(1),
        keep: options.keep.unwrap_or(kept_logits(positions.tokens.len(), vocab_size, model.decoder().recompute) > 0),
    };
    let index = |of: &[i32]| Tensor::<1, Int>::from_data(TensorData::new(of.to_vec(), [of.len()]), &device);
    let scores = token_logps(hidden, weight, index(&positions.hidden), index(&positions.tokens), logits);
    Some(HeadLogps { logps: scores.logps, entropy: scores.entropy })
}

/// Sums of consecutive runs of `values`: run `i` has `counts[i]` of them.
///
/// # Shapes
/// `[Σ counts] -> [counts.len()]`
pub(super) fn sum_runs(values: Tensor<1>, counts: &[usize]) -> Tensor<1> {
    let device = values.device().without_autodiff();
    let width = counts.iter().max().copied().unwrap_or(0).max(1);
    let nothing: i32 = counts.iter().sum::<usize>() as i32;
    let mut index = vec![nothing; counts.len() * width];
    let mut next = 0;
    for (row, &count) in counts.iter().enumerate() {
        for slot in &mut index[row * width..row * width + count] {
            *slot = next;
            next += 1;
        }
    }
    let index = Tensor::<1, Int>::from_data(index.as_slice(), &device);
    // A zero at the end stands where a run has no further value.
    let values = Tensor::cat(vec![values, Tensor::zeros([1], (&device, DType::F32))], 0);
    // [runs * width] -> [runs, width] -> [runs, 1] -> [runs]
    values.select(0, index).reshape([counts.len(), width]).sum_dim(1).reshape([counts.len()])
}
