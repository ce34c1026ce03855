//! Log-probabilities at inference speed: no graph, batches by token budget, sums in f64.

use std::borrow::Borrow;

use burn::module::Module;
use setpoint_transformer::{CausalLm, PrefixGroup, RopeSwitch};

use super::batch::Batch;
use super::group::sequence_groups;
use super::head::{HeadOptions, Hidden, Positions, head_logps};
use super::sequence::Sequence;
use crate::devices::distribute;
use crate::{DeviceGroup, Error, MicroBatch};

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
/// `batch_tokens` bounds a forward pass; a prompt counts once for all its responses, which go through together even if they are more. Where
/// nothing is asked but the first token behind each of several prompts, what neighbours begin with counts once as well. `progress` is told
/// how many sequences are done.
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
    let here = DeviceGroup::single(model.decoder().device());
    score_batches(&here, model, sequences, batch_tokens, &mut |batch| {
        for (index, result) in batch {
            scored[index] = Some(result);
            done += 1;
            progress(done);
        }
        Ok(())
    })?;
    // Every index is in exactly one batch.
    Ok(scored.into_iter().flatten().collect())
}

/// [`score_sequences`] that hands over what came out of one forward pass as soon as it is there, each result with its sequence's index: to
/// store what has been computed, and to tell how far the work is. An error of `store` ends the work.
///
/// The work is shared by `devices`; `model` is on the first of them. The passes are the same whatever their number, longest first; with
/// several they come in the order in which they are done.
///
/// # Errors
/// The errors of [`score_sequences`], and `store`'s.
pub fn score_batches<S: Borrow<Sequence>>(
    devices: &DeviceGroup,
    model: &CausalLm,
    sequences: &[S],
    batch_tokens: usize,
    store: &mut dyn FnMut(Vec<(usize, ScoredSequence)>) -> Result<(), Error>,
) -> Result<(), Error> {
    score_batches_with(devices, model, sequences, batch_tokens, &HeadOptions::default(), store)
}

/// [`score_batches`] with options for the head.
///
/// # Errors
/// As [`score_batches`].
pub fn score_batches_with<S: Borrow<Sequence>>(
    devices: &DeviceGroup,
    model: &CausalLm,
    sequences: &[S],
    batch_tokens: usize,
    options: &HeadOptions,
    store: &mut dyn FnMut(Vec<(usize, ScoredSequence)>) -> Result<(), Error>,
) -> Result<(), Error> {
    let model = model.valid();
    let passes = Passes::of(&model, sequences, batch_tokens)?;
    let score = |model: &CausalLm, pass: &NumberedPass| Ok(passes.run(model, pass).scores(model, options));
    distribute(devices, &model, passes.all(), score, &mut |_, scored| store(scored))
}

/// A forward pass: its number, and the groups of sequences in it.
pub(super) type NumberedPass = (usize, Vec<usize>);

/// The forward passes over some sequences, the longest first.
pub(super) struct Passes<'a> {
    sequences: Vec<&'a Sequence>,
    groups: Vec<PrefixGroup>,
    all: Vec<NumberedPass>,
}

impl<'a> Passes<'a> {
    /// Checks the sequences and divides them into passes of at most so many tokens. The same sequences are always divided alike.
    pub(super) fn of<S: Borrow<Sequence>>(
        model: &CausalLm,
        sequences: &'a [S],
        batch_tokens: usize,
    ) -> Result<Self, Error> {
        Self::divided(model, sequences, batch_tokens, model.decoder().rope_switch())
    }

    /// [`of`](Self::of) with the division for a model with this switch.
    pub(super) fn divided<S: Borrow<Sequence>>(
        model: &CausalLm,
        sequences: &'a [S],
        batch_tokens: usize,
        switch: RopeSwitch,
    ) -> Result<Self, Error> {
        let sequences: Vec<&'a Sequence> = sequences.iter().map(Borrow::borrow).collect();
        let vocabulary = model.decoder().vocab_size();
        for (index, sequence) in sequences.iter().enumerate() {
            sequence.check(index, vocabulary)?;
        }
        let groups = sequence_groups(&sequences, batch_tokens, switch);
        let numbers: Vec<usize> = (0..groups.len()).collect();
        let all = MicroBatch::Tokens(batch_tokens).split(&numbers, |group| groups[group].cost);
        Ok(Self { sequences, groups, all: all.into_iter().enumerate().collect() })
    }

    /// All passes in their order.
    pub(super) fn all(&self) -> &[NumberedPass] {
        &self.all
    }

    /// Runs a pass through the decoder.
    pub(super) fn run(&self, model: &CausalLm, (_, groups): &NumberedPass) -> Pass<'a> {
        let chosen = || groups.iter().map(|&group| &self.groups[group]);
        let members = chosen().flat_map(|group| group.members.clone()).collect();
        let groups = chosen().map(|group| (group.shared, &self.sequences[group.members.clone()]));
        let batch = Batch::of_groups(groups, model.decoder().rope_switch());
        let (hidden, _) = batch.hidden(model, true);
        Pass { members, batch, hidden }
    }
}

/// The hidden states of one forward pass.
pub(super) struct Pass<'a> {
    /// The index of each sequence.
    members: Vec<usize>,
    pub(super) batch: Batch<'a>,
    pub(super) hidden: Hidden,
}

impl Pass<'_> {
    /// Computes the log-probabilities; each result with its sequence's index.
    pub(super) fn scores(&self, model: &CausalLm, options: &HeadOptions) -> Vec<(usize, ScoredSequence)> {
        let logps = |positions: &Positions| -> Vec<Vec<f32>> {
            let found = head_logps(model, self.hidden.clone(), positions, options);
            let values: Vec<f32> = found.map(|found| found.logps.into_data().iter().collect()).unwrap_or_default();
            let mut rest = values.into_iter();
            positions.counts.iter().map(|&count| rest.by_ref().take(count).collect()).collect()
        };
        let (prompts, responses) = (logps(&self.batch.prompts), logps(&self.batch.responses));
        let result = |((&index, &prompt), response): ((&usize, &usize), &Vec<f32>)| {
            let prompt = &prompts[prompt];
            let sum = |tokens: &[f32]| tokens.iter().map(|&logp| f64::from(logp)).sum();
            let scored = ScoredSequence {
                prompt_logp: sum(prompt),
                response_logp: sum(response),
                prompt_tokens: prompt.len(),
                response_tokens: response.len(),
                token_logps: [prompt.as_slice(), response].concat(),
            };
            (index, scored)
        };
        self.members.iter().zip(&self.batch.prompt_of).zip(&responses).map(result).collect()
    }
}
