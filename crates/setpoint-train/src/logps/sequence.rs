//! Log-probabilities of prompts and responses, and of the tokens under a mask, with their graph.

use std::borrow::Borrow;
use std::ops::Range;

use burn::module::Module;
use burn::tensor::{DType, Tensor};
use setpoint_transformer::{CausalLm, pad_right};

use super::head::{HeadLogps, HeadOptions, Positions, head_logps, sum_runs};
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PromptLogps {
    /// They are not computed and count as 0, which saves the head's work: for DPO and all that looks at responses only.
    Skip,
    /// They are computed without a graph: the stop-gradient of DRO's prompt term.
    Detached,
    /// They are computed with their graph.
    Tracked,
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

/// Log-probabilities of prompts and responses, the prompt's detached, with the default [`HeadOptions`].
///
/// # Errors
/// When there are no sequences, or one has no response, counts its prompt from a position it does not have, or holds a
/// token outside the vocabulary.
pub fn sequence_logps<S: Borrow<Sequence>>(model: &CausalLm, sequences: &[S]) -> Result<SequenceLogps, Error> {
    sequence_logps_with(model, sequences, PromptLogps::Detached, &HeadOptions::default())
}

/// [`sequence_logps`] with options.
///
/// # Errors
/// As [`sequence_logps`].
pub fn sequence_logps_with<S: Borrow<Sequence>>(
    model: &CausalLm,
    sequences: &[S],
    prompt: PromptLogps,
    options: &HeadOptions,
) -> Result<SequenceLogps, Error> {
    let sequences: Vec<&Sequence> = sequences.iter().map(Borrow::borrow).collect();
    if sequences.is_empty() {
        return Err(Error::Sequence { index: 0, reason: "the batch has no sequences".into() });
    }
    let vocabulary = model.decoder().vocab_size();
    for (index, sequence) in sequences.iter().enumerate() {
        sequence.check(index, vocabulary)?;
    }
    let device = model.decoder().device();
    let plain = device.clone().without_autodiff();
    let zeros = || Tensor::<1>::zeros([sequences.len()], (&plain, DType::F32));
    let rows: Vec<&[u32]> = sequences.iter().map(|sequence| sequence.ids.as_slice()).collect();
    let ids = pad_right(&rows, &device);
    let [_, width] = ids.dims();
    let hidden = model.decoder().forward(ids);

    let mut prompt_positions = Positions::default();
    let mut response_positions = Positions::default();
    for sequence in &sequences {
        let scored = if prompt == PromptLogps::Skip { 0..0 } else { sequence.prompt() };
        prompt_positions.push_row(width, &sequence.ids, scored);
        response_positions.push_row(width, &sequence.ids, sequence.response());
    }
    let prompt_options = HeadOptions { entropy: false, ..*options };
    let prompt = match prompt {
        PromptLogps::Skip => None,
        PromptLogps::Detached => head_logps(&model.valid(), hidden.clone().inner(), &prompt_positions, &prompt_options),
        PromptLogps::Tracked => head_logps(model, hidden.clone(), &prompt_positions, &prompt_options),
    };
    let prompt = prompt.map_or_else(zeros, |found| sum_runs(found.logps, &prompt_positions.counts));
    let counts = &response_positions.counts;
    let found = head_logps(model, hidden, &response_positions, options);
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

/// Log-probabilities of the tokens that count, as in supervised fine-tuning.
///
/// # Units
/// Nats.
#[derive(Clone, Debug)]
pub struct TokenLogps {
    /// Each counted token's log-probability, row after row; f32 `[Σ counts]`.
    pub values: Tensor<1>,
    /// Their sum in each row; f32 `[rows]`. The cross-entropy of a batch is `−Σ sums / Σ counts`.
    pub sums: Tensor<1>,
    /// Counted tokens of each row.
    pub counts: Vec<usize>,
    /// Sum over each row's counted tokens of the entropy, if asked for; f32 `[rows]`, without a graph.
    pub entropy: Option<Tensor<1>>,
}

/// Log-probabilities of the counted tokens, with their graph on an autodiff device and the default [`HeadOptions`].
///
/// A row is its token ids and, for each of them, whether it counts. The first token of a row never does, because nothing
/// predicts it.
///
/// # Errors
/// When nothing counts, ids and mask differ in length, or a token is outside the vocabulary.
pub fn token_logps(model: &CausalLm, rows: &[(&[u32], &[bool])]) -> Result<TokenLogps, Error> {
    token_logps_with(model, rows, &HeadOptions::default())
}

/// [`token_logps`] with options.
///
/// # Errors
/// As [`token_logps`].
pub fn token_logps_with(
    model: &CausalLm,
    rows: &[(&[u32], &[bool])],
    options: &HeadOptions,
) -> Result<TokenLogps, Error> {
    let vocabulary = model.decoder().vocab_size();
    for (index, (ids, mask)) in rows.iter().enumerate() {
        check_vocabulary(ids, index, vocabulary)?;
        if ids.len() != mask.len() {
            let reason = format!("it has {} tokens and a mask of {}", ids.len(), mask.len());
            return Err(Error::Sequence { index, reason });
        }
    }
    let width = rows.iter().map(|(ids, _)| ids.len()).max().unwrap_or(0);
    let mut positions = Positions::default();
    for (ids, mask) in rows {
        positions.push_row(width, ids, (1..ids.len()).filter(|&position| mask[position]));
    }
    let nothing = || Error::Sequence { index: 0, reason: "no token of the batch counts".into() };
    if positions.is_empty() {
        return Err(nothing());
    }
    let ids: Vec<&[u32]> = rows.iter().map(|(ids, _)| *ids).collect();
    let hidden = model.decoder().forward(pad_right(&ids, &model.decoder().device()));
    let HeadLogps { logps, entropy } = head_logps(model, hidden, &positions, options).ok_or_else(nothing)?;
    Ok(TokenLogps {
        sums: sum_runs(logps.clone(), &positions.counts),
        values: logps,
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
