//! Log-probabilities at inference speed: no graph, batches by token budget, sums in f64.

use burn::module::Module;
use setpoint_transformer::{CausalLm, pad_right};

use super::head::{Positions, head_logps};
use super::sequence::Sequence;
use crate::{Error, MicroBatch};

/// How [`score_sequences`] computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScoreOptions {
    /// Tokens of one forward pass, padding included; a longer sequence goes alone.
    pub tokens_per_batch: usize,
    /// Positions that pass through the head at a time.
    pub head_chunk: usize,
}

impl Default for ScoreOptions {
    fn default() -> Self {
        Self { tokens_per_batch: 8192, head_chunk: 1024 }
    }
}

/// Log-probabilities of one sequence, as they are stored and printed.
///
/// # Units
/// Nats.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoredSequence {
    /// Sum over the prompt's tokens from `scored_from` on.
    pub prompt_logp: f64,
    /// Sum over the response's tokens.
    pub response_logp: f64,
    /// Scored tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens of the response.
    pub response_tokens: usize,
    /// The f32 values that the sums are made of: prompt, then response.
    pub token_logps: Vec<f32>,
}

/// Scores sequences without a graph; the result is in the order given.
///
/// `done` is called with index and result as soon as a sequence is scored, longest first, to show progress or to store what
/// is there; an error of it ends the work.
///
/// # Errors
/// When a sequence is wrong, as for [`sequence_logps`](crate::logps::sequence_logps), or `done` fails.
pub fn score_sequences(
    model: &CausalLm,
    sequences: &[Sequence],
    options: &ScoreOptions,
    mut done: impl FnMut(usize, &ScoredSequence) -> Result<(), Error>,
) -> Result<Vec<ScoredSequence>, Error> {
    let model = model.valid();
    let vocabulary = model.decoder().vocab_size();
    for (index, sequence) in sequences.iter().enumerate() {
        sequence.check(index, vocabulary)?;
    }
    let device = model.decoder().device();
    let all: Vec<usize> = (0..sequences.len()).collect();
    let length = |index: usize| sequences[index].ids.len();
    let mut scored: Vec<Option<ScoredSequence>> = vec![None; sequences.len()];
    for batch in MicroBatch::Padded(options.tokens_per_batch).split(&all, length) {
        let rows: Vec<&[u32]> = batch.iter().map(|&index| sequences[index].ids.as_slice()).collect();
        let ids = pad_right(&rows, &device);
        let [_, width] = ids.dims();
        let mut positions = Positions::default();
        for &index in &batch {
            let sequence = &sequences[index];
            // Prompt and response follow each other.
            positions.push_row(width, &sequence.ids, sequence.scored_from..sequence.ids.len());
        }
        let hidden = model.decoder().forward(ids);
        let logps: Vec<f32> = head_logps(&model, hidden, &positions, options.head_chunk, false)
            .map(|found| found.logps.into_data().iter().collect())
            .unwrap_or_default();
        let mut rest = logps.as_slice();
        for (&index, &count) in batch.iter().zip(&positions.counts) {
            let (tokens, others) = rest.split_at(count);
            rest = others;
            let (prompt, response) = tokens.split_at(sequences[index].prompt().len());
            let sum = |tokens: &[f32]| tokens.iter().map(|&logp| f64::from(logp)).sum();
            let result = ScoredSequence {
                prompt_logp: sum(prompt),
                response_logp: sum(response),
                prompt_tokens: prompt.len(),
                response_tokens: response.len(),
                token_logps: tokens.to_vec(),
            };
            done(index, &result)?;
            scored[index] = Some(result);
        }
    }
    // Every index is in exactly one batch.
    Ok(scored.into_iter().flatten().collect())
}
