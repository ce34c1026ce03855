//! Log-probabilities of prompts and responses, and of the tokens under a mask, with their graph.

use std::ops::Range;

use burn::module::Module;
use burn::tensor::Tensor;
use setpoint_transformer::{CausalLm, pad_right};

use super::head::{HeadLogps, Positions, head_logps, sum_runs};
use crate::Error;

/// A prompt with one response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// Prompt and response, ending with the stop token.
    pub ids: Vec<u32>,
    /// Number of the prompt's tokens.
    pub prompt_len: usize,
    /// First position of the prompt whose token counts: the length of t0, at least 1, because nothing predicts the first
    /// token.
    pub scored_from: usize,
}

impl Sequence {
    /// The prompt's scored positions.
    pub(super) fn prompt(&self) -> Range<usize> {
        self.scored_from..self.prompt_len
    }

    /// The response's positions.
    pub(super) fn response(&self) -> Range<usize> {
        self.prompt_len..self.ids.len()
    }

    /// Says what is wrong with the sequence at `index` of a slice.
    pub(super) fn check(&self, index: usize, vocabulary: usize) -> Result<(), Error> {
        let wrong = |reason: String| Err(Error::Sequence { index, reason });
        if self.prompt_len >= self.ids.len() {
            return wrong(format!(
                "the response is empty: the prompt has {} tokens, prompt and response have {}",
                self.prompt_len,
                self.ids.len()
            ));
        }
        if self.scored_from == 0 || self.scored_from > self.prompt_len {
            return wrong(format!(
                "`scored_from` must lie between 1 and the prompt's length {}, found {}",
                self.prompt_len, self.scored_from
            ));
        }
        check_vocabulary(&self.ids, index, vocabulary)
    }
}

/// What becomes of the prompt's log-probabilities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PromptLogps {
    /// They are not computed and count as 0, which saves the head's work.
    #[default]
    Skip,
    /// They are computed without a graph: the stop-gradient of DRO's prompt term.
    Detached,
    /// They are computed with their graph.
    Tracked,
}

/// How [`sequence_logps`] and [`token_logps`] compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogpOptions {
    /// The prompt's log-probabilities. [`token_logps`] has no use for it.
    pub prompt: PromptLogps,
    /// Positions that pass through the head at a time.
    pub head_chunk: usize,
    /// Whether to measure the entropy of the response's tokens, one more pass over the logits.
    pub entropy: bool,
}

impl Default for LogpOptions {
    fn default() -> Self {
        Self { prompt: PromptLogps::Skip, head_chunk: 1024, entropy: false }
    }
}

/// Log-probabilities of some sequences.
///
/// # Units
/// Nats, sums over tokens.
#[derive(Clone, Debug)]
pub struct SequenceLogps {
    /// `Σ log π(x_i | x_<i)` over the prompt's tokens from `scored_from` on; f32 `[rows]`. Without a graph, on the plain
    /// device, unless [`PromptLogps::Tracked`] asks for it.
    pub prompt: Tensor<1>,
    /// `Σ log π(y_i | x, y_<i)` over the response's tokens; f32 `[rows]`, with its graph on an autodiff device.
    pub response: Tensor<1>,
    /// Scored tokens of each prompt, 0 if they were skipped.
    pub prompt_tokens: Vec<usize>,
    /// Tokens of each response.
    pub response_tokens: Vec<usize>,
    /// Sum over each response's tokens of the entropy `−Σ_v π(v) log π(v)`, if asked for; f32 `[rows]`, without a graph.
    pub entropy: Option<Tensor<1>>,
}

/// Log-probabilities of prompts and responses.
///
/// # Errors
/// When there are no sequences, or one has no response, counts its prompt from a position it does not have, or holds a
/// token outside the vocabulary.
pub fn sequence_logps(model: &CausalLm, sequences: &[Sequence], options: &LogpOptions) -> Result<SequenceLogps, Error> {
    if sequences.is_empty() {
        return Err(Error::Sequence { index: 0, reason: "the batch has no sequences".into() });
    }
    let vocabulary = model.decoder().vocab_size();
    for (index, sequence) in sequences.iter().enumerate() {
        sequence.check(index, vocabulary)?;
    }
    let device = model.decoder().device();
    let plain = device.clone().without_autodiff();
    let zeros = || Tensor::<1>::zeros([sequences.len()], &plain);
    let rows: Vec<&[u32]> = sequences.iter().map(|sequence| sequence.ids.as_slice()).collect();
    let ids = pad_right(&rows, &device);
    let [_, width] = ids.dims();
    let hidden = model.decoder().forward(ids);

    let mut prompt_positions = Positions::default();
    let mut response_positions = Positions::default();
    for sequence in sequences {
        let prompt = if options.prompt == PromptLogps::Skip { 0..0 } else { sequence.prompt() };
        prompt_positions.push_row(width, &sequence.ids, prompt);
        response_positions.push_row(width, &sequence.ids, sequence.response());
    }
    let prompt = match options.prompt {
        PromptLogps::Skip => None,
        PromptLogps::Detached => {
            let hidden = hidden.clone().inner();
            head_logps(&model.valid(), hidden, &prompt_positions, options.head_chunk, false)
        }
        PromptLogps::Tracked => head_logps(model, hidden.clone(), &prompt_positions, options.head_chunk, false),
    };
    let prompt = prompt.map_or_else(zeros, |found| sum_runs(found.logps, &prompt_positions.counts));
    let counts = &response_positions.counts;
    let found = head_logps(model, hidden, &response_positions, options.head_chunk, options.entropy);
    let (response, entropy) = match found {
        Some(HeadLogps { logps, entropy }) => {
            (sum_runs(logps, counts), entropy.map(|entropy| sum_runs(entropy, counts)))
        }
        None => (zeros(), None),
    };
    Ok(SequenceLogps {
        prompt,
        response,
        prompt_tokens: prompt_positions.counts,
        response_tokens: response_positions.counts,
        entropy,
    })
}

/// A sequence and the tokens of it that count, as in supervised fine-tuning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaskedSequence {
    /// All tokens.
    pub ids: Vec<u32>,
    /// Positions that count, in rising order without overlap; none may hold position 0.
    pub counted: Vec<Range<usize>>,
}

/// Log-probabilities of the tokens that count.
///
/// # Units
/// Nats.
#[derive(Clone, Debug)]
pub struct TokenLogps {
    /// Each counted token's log-probability, row after row; f32 `[Σ counts]`.
    pub tokens: Tensor<1>,
    /// Their sum in each row; f32 `[rows]`. The cross-entropy of a batch is `−Σ sums / Σ counts`.
    pub sums: Tensor<1>,
    /// Counted tokens of each row.
    pub counts: Vec<usize>,
    /// Sum over each row's counted tokens of the entropy, if asked for; f32 `[rows]`, without a graph.
    pub entropy: Option<Tensor<1>>,
}

/// Log-probabilities of the counted tokens, with their graph on an autodiff device.
///
/// # Errors
/// When nothing counts, a span does not fit its sequence, or a token is outside the vocabulary.
pub fn token_logps(model: &CausalLm, sequences: &[MaskedSequence], options: &LogpOptions) -> Result<TokenLogps, Error> {
    let vocabulary = model.decoder().vocab_size();
    for (index, sequence) in sequences.iter().enumerate() {
        check_vocabulary(&sequence.ids, index, vocabulary)?;
        let mut from = 1;
        for span in &sequence.counted {
            if span.start < from || span.end < span.start || span.end > sequence.ids.len() {
                let reason = format!(
                    "the span {span:?} must lie between {from} and the sequence's length {}",
                    sequence.ids.len()
                );
                return Err(Error::Sequence { index, reason });
            }
            from = span.end;
        }
    }
    let rows: Vec<&[u32]> = sequences.iter().map(|sequence| sequence.ids.as_slice()).collect();
    let nothing = || Error::Sequence { index: 0, reason: "no token of the batch counts".into() };
    if rows.iter().all(|row| row.is_empty()) {
        return Err(nothing());
    }
    let ids = pad_right(&rows, &model.decoder().device());
    let [_, width] = ids.dims();
    let mut positions = Positions::default();
    for sequence in sequences {
        positions.push_row(width, &sequence.ids, sequence.counted.iter().cloned().flatten());
    }
    if positions.len() == 0 {
        return Err(nothing());
    }
    let hidden = model.decoder().forward(ids);
    let found = head_logps(model, hidden, &positions, options.head_chunk, options.entropy);
    let HeadLogps { logps, entropy } = found.ok_or_else(nothing)?;
    Ok(TokenLogps {
        sums: sum_runs(logps.clone(), &positions.counts),
        tokens: logps,
        entropy: entropy.map(|entropy| sum_runs(entropy, &positions.counts)),
        counts: positions.counts,
    })
}

fn check_vocabulary(ids: &[u32], index: usize, vocabulary: usize) -> Result<(), Error> {
    match ids.iter().position(|&id| id as usize >= vocabulary) {
        None => Ok(()),
        Some(position) => Err(Error::Sequence {
            index,
            reason: format!(
                "token {} at position {position} is outside the model's vocabulary of {vocabulary}; does the tokenizer \
                 belong to the model?",
                ids[position]
            ),
        }),
    }
}
