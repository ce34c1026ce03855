//! From hidden states to the log-probabilities of chosen tokens.

use burn::tensor::{DType, FloatDType, Int, Tensor, TensorData, activation};
use setpoint_transformer::CausalLm;

/// How the head turns hidden states into log-probabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadOptions {
    /// Positions that pass through the head at a time, at least 1.
    pub chunk: usize,
    /// Whether to measure the entropy at each position, one more pass over the logits.
    pub entropy: bool,
}

impl Default for HeadOptions {
    fn default() -> Self {
        Self { chunk: 1024, entropy: false }
    }
}

/// Positions in a padded batch whose tokens are scored, row by row.
#[derive(Clone, Debug, Default)]
pub(super) struct Positions {
    /// Index of the hidden state in the batch, flattened `[b * s]`.
    hidden: Vec<i32>,
    /// The token that this hidden state predicts.
    tokens: Vec<i32>,
    /// Scored tokens of each row.
    pub(super) counts: Vec<usize>,
}

impl Positions {
    /// Adds a row of a batch of rows of `width` tokens: `ids[i]` is scored for each `i` of `scored`, which must be at least 1.
    pub(super) fn push_row(&mut self, width: usize, ids: &[u32], scored: impl Iterator<Item = usize>) {
        let row = self.counts.len();
        let before = self.tokens.len();
        for position in scored {
            self.hidden.push((row * width + position - 1) as i32);
            self.tokens.push(ids[position] as i32);
        }
        self.counts.push(self.tokens.len() - before);
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
    pub(super) entropy: Option<Tensor<1>>,
}

/// Runs the head over the positions, chunk by chunk.
///
/// `None` where no position is asked for.
///
/// # Shapes
/// `hidden`: `[b, s, d]`.
pub(super) fn head_logps(
    model: &CausalLm,
    hidden: Tensor<3>,
    positions: &Positions,
    options: &HeadOptions,
) -> Option<HeadLogps> {
    if positions.is_empty() {
        return None;
    }
    let chunk = options.chunk.max(1);
    let device = hidden.device().without_autodiff();
    let [b, s, d] = hidden.dims();
    // [b, s, d] -> [b * s, d]
    let hidden = hidden.reshape([b * s, d]);
    let mut logps = vec![];
    let mut entropies = vec![];
    for (rows, tokens) in positions.hidden.chunks(chunk).zip(positions.tokens.chunks(chunk)) {
        let n = rows.len();
        let rows = Tensor::<1, Int>::from_data(rows, &device);
        let tokens = Tensor::<2, Int>::from_data(TensorData::new(tokens.to_vec(), [n, 1]), &device);
        // [b * s, d] -> [n, d] -> [n, v]
        let logits = model.logits(hidden.clone().select(0, rows)).cast(FloatDType::F32);
        let all = activation::log_softmax(logits, 1);
        if options.entropy {
            let all = all.clone().inner();
            // [n, v] -> [n, 1] -> [n]
            entropies.push((all.clone().exp() * all).sum_dim(1).neg().reshape([n]));
        }
        // [n, v] -> [n, 1] -> [n]
        logps.push(all.gather(1, tokens).reshape([n]));
    }
    Some(HeadLogps { logps: Tensor::cat(logps, 0), entropy: options.entropy.then(|| Tensor::cat(entropies, 0)) })
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
