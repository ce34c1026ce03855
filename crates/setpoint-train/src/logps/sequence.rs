//! Log-probabilities of prompts and responses, and of the tokens under a mask, with their graph.

use std::borrow::Borrow;
use std::ops::Range;

use burn::module::Module;
use burn::tensor::{DType, Int, Tensor};
use setpoint_ops::Packing;
use setpoint_transformer::{CausalLm, Tape};

use super::batch::Batch;
use super::head::{HeadLogps, HeadOptions, Hidden, Positions, head_logps, sum_runs};
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

    /// Returns whether both sequences have the same prompt, of which the same tokens count.
    pub(super) fn same_prompt(&self, other: &Self) -> bool {
        self.prompt_len == other.prompt_len
            && self.scored_from == other.scored_from
            && self.ids[..self.prompt_len] == other.ids[..other.prompt_len]
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

/// The treatment of the prompt's log-probabilities.
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
    /// `log π(y_t | x, y_<t)` of each token of the responses, response after response; f32 `[Σ response_tokens]`, with its graph on an
    /// autodiff device.
    pub tokens: Tensor<1>,
    /// Sum over each response's tokens of the entropy `−Σ_v π(v) log π(v)`; f32 `[rows]`, without a graph.
    pub entropy: Tensor<1>,
    /// The decoder's part of the backward pass, on an autodiff device; for [`backward`](crate::backward) and
    /// [`Forward::tape`](crate::Forward::tape).
    pub tape: Option<Tape>,
}

/// Computes log-probabilities of prompts and responses, with the default [`HeadOptions`].
///
/// # Errors
/// When there are no sequences, or one has no response, counts its prompt from a position it does not have, or holds a
/// token outside the vocabulary.
pub fn sequence_logps<S: Borrow<Sequence>>(
    model: &CausalLm,
    sequences: &[S],
    prompt: PromptLogps,
) -> Result<SequenceLogps, Error> {
    sequence_logps_with(model, sequences, prompt, &HeadOptions::default())
}

/// Computes [`sequence_logps`] with options for the head, which bound its memory.
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
    let plain = model.decoder().device().without_autodiff();
    let zeros = || Tensor::<1>::zeros([sequences.len()], (&plain, DType::F32));
    let batch = Batch::of(&sequences, model.decoder().rope_switch());
    let (hidden, tape) = batch.hidden(model, prompt != PromptLogps::Skip);
    let found = match prompt {
        PromptLogps::Skip => None,
        PromptLogps::Detached => head_logps(&model.valid(), hidden.clone().inner(), &batch.prompts, options),
        PromptLogps::Tracked => head_logps(model, hidden.clone(), &batch.prompts, options),
    };
    let prompt_tokens = match prompt {
        PromptLogps::Skip => vec![0; sequences.len()],
        _ => batch.prompt_of.iter().map(|&prompt| batch.prompts.counts[prompt]).collect(),
    };
    let prompt = found.map_or_else(zeros, |found| {
        let of: Vec<i32> = batch.prompt_of.iter().map(|&prompt| prompt as i32).collect();
        let of = Tensor::<1, Int>::from_data(of.as_slice(), &plain);
        // [prompts] -> [rows]
        sum_runs(found.logps, &batch.prompts.counts).select(0, of)
    });
    let counts = batch.responses.counts.clone();
    // A response has at least one token.
    let (response, tokens, entropy) = match head_logps(model, hidden, &batch.responses, options) {
        Some(HeadLogps { logps, entropy }) => (sum_runs(logps.clone(), &counts), logps, sum_runs(entropy, &counts)),
        None => (zeros(), zeros(), zeros()),
    };
    Ok(SequenceLogps { prompt, response, prompt_tokens, response_tokens: counts, tokens, entropy, tape })
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
    /// Sum over each row's counted tokens of the entropy; f32 `[rows]`, without a graph.
    pub entropy: Tensor<1>,
    /// The decoder's part of the backward pass, on an autodiff device; for [`backward`](crate::backward) and
    /// [`Forward::tape`](crate::Forward::tape).
    pub tape: Option<Tape>,
}

/// Computes log-probabilities of the counted tokens, with their graph on an autodiff device and the default [`HeadOptions`].
///
/// A row is its token ids and, for each of them, whether it counts. The first token of a row never does, because nothing
/// predicts it.
///
/// # Errors
/// When nothing counts, ids and mask differ in length, or a token is outside the vocabulary.
pub fn token_logps(model: &CausalLm, rows: &[(&[u32], &[bool])]) -> Result<TokenLogps, Error> {
    token_logps_with(model, rows, &HeadOptions::default())
}

/// Computes [`token_logps`] with options for the head, which bound its memory.
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
    let mut positions = Positions::default();
    let mut start = 0;
    for (ids, mask) in rows {
        positions.push_run((1..ids.len()).filter(|&i| mask[i]).map(|i| (start + i - 1, ids[i])));
        start += ids.len();
    }
    let nothing = || Error::Sequence { index: 0, reason: "no token of the batch counts".into() };
    if positions.is_empty() {
        return Err(nothing());
    }
    let ids: Vec<&[u32]> = rows.iter().map(|(ids, _)| *ids).collect();
    let packing = Packing::rows(ids.iter().map(|ids| ids.len()).filter(|&len| len > 0));
    let (hidden, tape) = Hidden::of(model, &ids, &packing, &[&positions]);
    let HeadLogps { logps, entropy } = head_logps(model, hidden, &positions, options).ok_or_else(nothing)?;
    Ok(TokenLogps {
        sums: sum_runs(logps.clone(), &positions.counts),
        values: logps,
        entropy: sum_runs(entropy, &positions.counts),
        counts: positions.counts,
        tape,
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
