//! From hidden states to the log-probabilities of chosen tokens.

use std::ops::Range;

use burn::tensor::{DType, Device, Int, Tensor};
use setpoint_ops::{Logits, Packing, token_logps};
use setpoint_transformer::{CausalLm, Recompute, Tape, pack};

/// Bytes that the f32 logits of a chunk may take by default.
pub(super) const CHUNK_BYTES: usize = 128 << 20;

/// Bytes that the f32 logits may take that are kept for the backward pass.
const KEPT_BYTES: usize = 512 << 20;

/// Options of the head, which turns hidden states into log-probabilities.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct HeadOptions {
    /// Positions whose logits exist at a time, at least 1; by default as many as 128 MiB hold.
    pub chunk: Option<usize>,
    /// True if logits are kept for the backward pass, which computes them again otherwise; by default where the decoder keeps its graph
    /// ([`Recompute::None`]) and 512 MiB hold them.
    pub keep: Option<bool>,
    /// Divides the logits, above 0: the log-probabilities are those of the policy that samples at this temperature. By default 1.
    pub temperature: Option<f64>,
}

impl HeadOptions {
    /// Returns the default options at a temperature.
    pub fn at_temperature(temperature: f64) -> Self {
        Self { temperature: Some(temperature), ..Self::default() }
    }
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

    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }
}

/// Hidden states of a packed batch as the head's matrix is applied to them, as far as they are looked at.
#[derive(Clone, Debug)]
pub(super) struct Hidden {
    /// `[t, d]`, or `[places, d]`.
    states: Tensor<2>,
    /// Their tokens' places in the batch, sorted; all if none is named.
    places: Option<Vec<usize>>,
}

impl Hidden {
    /// The hidden states that are looked at in `positions`, and what the forward pass leaves for its backward pass.
    pub(super) fn of(
        model: &CausalLm,
        texts: &[&[u32]],
        packing: &Packing,
        positions: &[&Positions],
    ) -> (Self, Option<Tape>) {
        let decoder = model.decoder();
        let places = wanted(positions, packing.tokens());
        let (states, tape) = decoder.forward_taped(pack(texts, &decoder.device()), packing, places.as_deref());
        (Self { states: model.head_input(states), places }, tape)
    }

    /// Returns the hidden states that predict the tokens at some positions, `[n, d]`.
    pub(super) fn at(&self, positions: &Positions) -> Tensor<2> {
        let device = self.states.device().without_autodiff();
        self.states.clone().select(0, index(&self.rows(positions), &device))
    }

    /// Without their graph.
    pub(super) fn inner(self) -> Self {
        Self { states: self.states.inner(), ..self }
    }

    /// Returns the rows of the hidden states of some places.
    fn rows(&self, positions: &Positions) -> Vec<i32> {
        match &self.places {
            None => positions.hidden.clone(),
            Some(places) => {
                let row = |&hidden: &i32| places.partition_point(|&place| place < hidden as usize) as i32;
                positions.hidden.iter().map(row).collect()
            }
        }
    }
}

/// Part of a batch whose hidden states must not be looked at for it to be worth leaving them out, as 1 / this.
const LEFT_OUT: usize = 16;

/// The places of a batch of so many tokens whose hidden states are looked at, sorted; `None` where that is nearly all of them.
fn wanted(positions: &[&Positions], tokens: usize) -> Option<Vec<usize>> {
    let mut looked_at = vec![false; tokens];
    positions.iter().flat_map(|positions| &positions.hidden).for_each(|&place| looked_at[place as usize] = true);
    let places: Vec<usize> = (0..tokens).filter(|&place| looked_at[place]).collect();
    ((tokens - places.len()) * LEFT_OUT >= tokens).then_some(places)
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
pub(super) fn head_logps(
    model: &CausalLm,
    hidden: Hidden,
    positions: &Positions,
    options: &HeadOptions,
) -> Option<HeadLogps> {
    if positions.is_empty() {
        return None;
    }
    let device = hidden.states.device().without_autodiff();
    let weight = model.head_weight();
    let [vocab_size, _] = weight.dims();
    let temperature = options.temperature.unwrap_or(1.0);
    let logits = Logits {
        chunk: options.chunk.unwrap_or(CHUNK_BYTES / 4 / vocab_size.max(1)).max(1),
        keep: options.keep.unwrap_or(kept_logits(positions.tokens.len(), vocab_size, model.decoder().recompute) > 0),
        // cap·tanh(z/cap)/T = (cap/T)·tanh((z/T)/(cap/T)).
        soft_cap: model.logits_cap().map(|cap| cap / temperature),
    };
    let (rows, tokens) = (index(&hidden.rows(positions), &device), index(&positions.tokens, &device));
    // The head is linear: scaled hidden states give scaled logits, and they are fewer numbers.
    let states = if temperature == 1.0 { hidden.states } else { hidden.states.div_scalar(temperature) };
    let scores = token_logps(states, weight, rows, tokens, logits);
    Some(HeadLogps { logps: scores.logps, entropy: scores.entropy })
}

/// Returns an index, `[n]`. The device makes one that counts up; any other crosses over.
fn index(of: &[i32], device: &Device) -> Tensor<1, Int> {
    let first = i64::from(of.first().copied().unwrap_or(0));
    if !of.is_empty() && of.iter().zip(first..).all(|(&found, counted)| i64::from(found) == counted) {
        Tensor::arange(first..first + of.len() as i64, device)
    } else {
        Tensor::from_data(of, device)
    }
}

/// Sums of consecutive runs of `values`: run `i` has `counts[i]` of them.
///
/// # Shapes
/// `[Σ counts] -> [counts.len()]`
pub(super) fn sum_runs(values: Tensor<1>, counts: &[usize]) -> Tensor<1> {
    let device = values.device().without_autodiff();
    let (runs, width) = (counts.len(), counts.iter().max().copied().unwrap_or(0).max(1));
    let mut next = 0;
    let start = |&count: &usize| {
        next += count;
        (next - count) as i32
    };
    let starts: Vec<i32> = counts.iter().map(start).collect();
    let lengths: Vec<i32> = counts.iter().map(|&count| count as i32).collect();
    // The device makes the index: two numbers of each run cross over, not one for each place of the longest.
    // [runs] -> [runs, 1] -> [runs, width]
    let spread =
        |of: Vec<i32>| Tensor::<1, Int>::from_data(of.as_slice(), &device).reshape([runs, 1]).expand([runs, width]);
    let places = Tensor::<1, Int>::arange(0..width as i64, &device).reshape([1, width]).expand([runs, width]);
    let is_behind = places.clone().greater_equal(spread(lengths));
    // A zero at the end stands where a run has no further value.
    let index = (places + spread(starts)).mask_fill(is_behind, next as i64).reshape([runs * width]);
    let values = Tensor::cat(vec![values, Tensor::zeros([1], (&device, DType::F32))], 0);
    // [runs * width] -> [runs, width] -> [runs, 1] -> [runs]
    values.select(0, index).reshape([runs, width]).sum_dim(1).reshape([runs])
}
