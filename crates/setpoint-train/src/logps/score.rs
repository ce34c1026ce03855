//! Log-probabilities at inference speed: no graph, batches by token budget, sums in f64.

use std::borrow::Borrow;

use burn::module::Module;
use setpoint_transformer::{CausalLm, pad_right};

use super::head::{HeadOptions, Positions, head_logps};
use super::sequence::Sequence;
use crate::{Error, MicroBatch};

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
/// `batch_tokens` bounds a forward pass, padding included; a longer sequence goes alone. `progress` is told how many sequences
/// are done.
///
/// # Errors
/// When a sequence is wrong, as for [`sequence_logps`](crate::sequence_logps).
pub fn score_sequences<S: Borrow<Sequence>>(
    model: &CausalLm,
    sequences: &[S],
    batch_tokens: usize,
    progress: &mut dyn FnMut(usize),
) -> Result<Vec<ScoredSequence>, Error> {
    let mut scored: Vec<Option<ScoredSequence>> = vec![None; sequences.len()];
    let mut done = 0;
    score_each(model, sequences, batch_tokens, &mut |index, result| {
        scored[index] = Some(result);
        done += 1;
        progress(done);
        Ok(())
    })?;
    // Every index is in exactly one batch.
    Ok(scored.into_iter().flatten().collect())
}

/// [`score_sequences`] that hands each result over as soon as it is there, with its index, longest first: to store what has been
/// computed. An error of `store` ends the work.
///
/// # Errors
/// Those of [`score_sequences`], and `store`'s.
pub fn score_each<S: Borrow<Sequence>>(
    model: &CausalLm,
    sequences: &[S],
    batch_tokens: usize,
    store: &mut dyn FnMut(usize, ScoredSequence) -> Result<(), Error>,
) -> Result<(), Error> {
    let sequences: Vec<&Sequence> = sequences.iter().map(Borrow::borrow).collect();
    let model = model.valid();
    let vocabulary = model.decoder().vocab_size();
    for (index, sequence) in sequences.iter().enumerate() {
        sequence.check(index, vocabulary)?;
    }
    let device = model.decoder().device();
    let all: Vec<usize> = (0..sequences.len()).collect();
    let length = |index: usize| sequences[index].ids.len();
    for batch in MicroBatch::Padded(batch_tokens).split(&all, length) {
        let rows: Vec<&[u32]> = batch.iter().map(|&index| sequences[index].ids.as_slice()).collect();
        let ids = pad_right(&rows, &device);
        let [_, width] = ids.dims();
        let mut positions = Positions::default();
        for &index in &batch {
            let sequence = sequences[index];
            // Prompt and response follow each other.
            positions.push_row(width, &sequence.ids, sequence.scored_from..sequence.ids.len());
        }
        let hidden = model.decoder().forward(ids);
        let logps: Vec<f32> = head_logps(&model, hidden, &positions, &HeadOptions::default())
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
            store(index, result)?;
        }
    }
    Ok(())
}
