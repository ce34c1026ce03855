use std::borrow::Cow;
use std::ops::ControlFlow;
use std::sync::Arc;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::sample::{Choice, Norm, Seen, choose, likeliest_of};
use super::{Finish, Generated, GenerationConfig};
use crate::{CausalLm, Error};

/// A prompt on its way.
pub(super) struct Row<'a> {
    pub(super) index: usize,
    pub(super) prompt: Cow<'a, [u32]>,
    config: Arc<GenerationConfig>,
    /// The number of likeliest tokens that are told with each new one.
    alternatives: usize,
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
        prompt: impl Into<Cow<'a, [u32]>>,
        config: &Arc<GenerationConfig>,
        seed: u64,
    ) -> Result<Self, Error> {
        let prompt = prompt.into();
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
            limit: config.room(prompt.len(), model.decoder().max_positions()),
            rng,
            seen: Seen::new(&prompt),
            prompt,
            config: config.clone(),
            alternatives: 0,
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

    /// Tells this many of the likeliest tokens with each new one.
    pub(super) fn with_alternatives(mut self, count: usize) -> Self {
        self.alternatives = count;
        self
    }

    /// Returns whether the likeliest token of the unprocessed logits is the next one, and nothing else is asked of them.
    pub(super) fn takes_likeliest(&self) -> bool {
        self.config.takes_likeliest() && self.alternatives == 0
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
    pub(super) fn choose(&mut self, logits: &[f32], norm: Norm) -> Choice {
        let choice = choose(logits, norm, &self.seen, &self.config, &mut self.rng);
        Choice { alternatives: likeliest_of(logits, norm, self.alternatives), ..choice }
    }

    /// Takes the next token.
    pub(super) fn advance(&mut self, choice: Choice, on_token: &mut impl FnMut(usize, u32) -> ControlFlow<()>) {
        self.ids.push(choice.id);
        self.logps.push(choice.logp);
        self.seen.insert(choice.id);
        let flow = on_token(self.index, choice.id);
        self.finish = if self.config.stop_token_ids.contains(&choice.id) {
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
