use std::ops::ControlFlow;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::sample::{Choice, Norm, Seen, choose};
use super::{Finish, Generated, GenerationConfig};
use crate::{CausalLm, Error};

/// A prompt on its way.
pub(super) struct Row<'a> {
    pub(super) index: usize,
    pub(super) prompt: &'a [u32],
    /// The number of new tokens at which it ends.
    limit: usize,
    rng: ChaCha8Rng,
    seen: Seen,
    ids: Vec<u32>,
    logps: Vec<f32>,
    pub(super) finish: Option<Finish>,
}

impl<'a> Row<'a> {
    pub(super) fn new(
        model: &CausalLm,
        index: usize,
        prompt: &'a [u32],
        config: &GenerationConfig,
        seed: u64,
    ) -> Result<Self, Error> {
        let vocab_size = model.decoder().vocab_size();
        if prompt.is_empty() {
            return Err(Error::EmptyPrompt { row: index });
        }
        if let Some(position) = prompt.iter().position(|&id| id as usize >= vocab_size) {
            return Err(Error::TokenOutOfRange { row: index, position, found: prompt[position], vocab_size });
        }
        let max = config.max_length.unwrap_or(usize::MAX).min(model.decoder().max_positions());
        if prompt.len() >= max {
            return Err(Error::PromptTooLong { row: index, found: prompt.len(), max });
        }
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(index as u64);
        Ok(Self {
            index,
            prompt,
            limit: config.room(prompt.len(), model.decoder().max_positions()),
            rng,
            seen: Seen::new(prompt),
            ids: Vec::new(),
            logps: Vec::new(),
            finish: None,
        })
    }

    /// Draws from another random stream than that of its index. Called before the first token.
    pub(super) fn on_stream(mut self, stream: u64) -> Self {
        self.rng.set_stream(stream);
        self
    }

    pub(super) fn into_generated(self) -> Generated {
        Generated { ids: self.ids, logps: self.logps, finish: self.finish.unwrap_or(Finish::Length) }
    }

    /// Number of tokens so far, the prompt's and the new ones.
    pub(super) fn len(&self) -> usize {
        self.prompt.len() + self.ids.len()
    }

    /// Number of tokens that it never exceeds.
    pub(super) fn most(&self) -> usize {
        self.prompt.len() + self.limit
    }

    /// The tokens from position `from` on, up to `to`.
    pub(super) fn tokens(&self, from: usize, to: usize) -> impl Iterator<Item = u32> {
        self.prompt.iter().chain(&self.ids).copied().skip(from).take(to - from)
    }

    /// Chooses the next token; does not take it yet.
    pub(super) fn choose(&mut self, logits: &[f32], norm: Norm, config: &GenerationConfig) -> Choice {
        choose(logits, norm, &self.seen, config, &mut self.rng)
    }

    /// Takes the next token.
    pub(super) fn advance(
        &mut self,
        choice: Choice,
        config: &GenerationConfig,
        on_token: &mut impl FnMut(usize, u32) -> ControlFlow<()>,
    ) {
        self.ids.push(choice.id);
        self.logps.push(choice.logp);
        self.seen.insert(choice.id);
        let flow = on_token(self.index, choice.id);
        self.finish = if config.stop_token_ids.contains(&choice.id) {
            Some(Finish::Stop)
        } else if self.ids.len() == self.limit {
            Some(Finish::Length)
        } else {
            flow.is_break().then_some(Finish::Interrupted)
        };
    }

    /// The error of logits that are no distribution.
    pub(super) fn bad_logits(&self) -> Error {
        Error::BadLogits { row: self.index, step: self.ids.len() }
    }
}
