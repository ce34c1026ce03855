//! A prompt on its way to a task, stage by stage.
//!
//! A [`Prompt`] is what the data says. A method makes a [`RewardedPrompt`], a [`PairedPrompt`], a [`RowPrompt`] or a [`BestPrompt`] of it, by
//! what it trains on.
//! The reference model's log-probabilities make it [`WithReference`], and that is what tasks are made of. Each stage owns the one before it. The
//! prompts of a data set are lists whose values are made [on demand](OnDemand), of rows that are on disk if they are many.

use std::ops::Deref;

use setpoint_align::{Preferences, PromptRewards, ReferenceSample, Role};
use setpoint_train::{Error, OnDemand, Sequence};

/// A prompt with its responses as tokens, and what the data says about them.
#[derive(Debug, Clone)]
pub struct Prompt {
    /// File and row, for messages.
    pub name: String,
    /// Index of the data set among those of the job.
    pub set: usize,
    /// Prompt and response, one per response.
    pub sequences: Vec<Sequence>,
    /// The label of each response, if it has one.
    pub labels: Vec<Option<Role>>,
    /// The reward of each response, if it has one.
    pub rewards: Vec<Option<f64>>,
}

impl Prompt {
    /// Returns the rewards if every response has one.
    pub fn all_rewards(&self) -> Option<Vec<f64>> {
        self.rewards.iter().copied().collect()
    }

    /// Counts the tokens of all its sequences.
    pub fn tokens(&self) -> usize {
        self.sequences.iter().map(|sequence| sequence.ids.len()).sum()
    }

    /// Returns the tokens of a response.
    pub fn response_ids(&self, response: usize) -> &[u32] {
        let sequence = &self.sequences[response];
        &sequence.ids[sequence.prompt_len..]
    }

    /// Returns the tokens of the prompt.
    pub fn prompt_ids(&self) -> &[u32] {
        let sequence = &self.sequences[0];
        &sequence.ids[..sequence.prompt_len]
    }

    /// Lists what is logged of a response and needs no model: its index, its role, its reward as the loss sees it and its length in tokens.
    /// NaN if there is none.
    pub fn logged(&self, response: usize, role: Option<Role>, reward: Option<f64>) -> [(&'static str, f64); 4] {
        [
            ("response", response as f64),
            ("chosen", role.map_or(f64::NAN, |role| f64::from(u8::from(role == Role::Chosen)))),
            ("reward", reward.unwrap_or(f64::NAN)),
            ("tokens", self.response_ids(response).len() as f64),
        ]
    }
}

/// A prompt that a method has prepared for its loss.
pub trait PreparedPrompt: Sync {
    /// Returns the prompt as the data has it.
    fn prompt(&self) -> &Prompt;

    /// Returns the role of each response.
    fn roles(&self) -> &[Option<Role>];

    /// Returns the rewards as the loss sees them, as many as the data has.
    fn rewards(&self) -> Vec<f64>;

    /// Returns the rewards that further reward models give, model by model.
    fn ensemble(&self) -> &[Vec<f64>] {
        &[]
    }

    /// Returns the pairs `(chosen, rejected)` that are trained on or logged.
    fn pairs(&self) -> &[(usize, usize)] {
        &[]
    }

    /// Returns the samples of the reference model with their rewards, if the level of the targets is estimated from them.
    fn samples(&self) -> &[ReferenceSample] {
        &[]
    }

    /// Returns whether the method looks at the reference's log-probability of a response.
    fn needs_reference(&self, _response: usize) -> bool {
        true
    }

    /// Returns rewards and roles for the objectives' crate, which names the prompt by its row.
    fn prompt_rewards(&self, row: usize) -> PromptRewards {
        PromptRewards::new(row, self.rewards()).with_labels(self.roles().to_vec())
    }
}

/// A prompt for objectives on all responses, each of which has a reward.
#[derive(Debug, Clone)]
pub struct RewardedPrompt {
    /// The prompt.
    pub prompt: Prompt,
    /// The rewards as the loss sees them.
    pub rewards: Vec<f64>,
    /// The role of each response.
    pub roles: Vec<Option<Role>>,
    /// The pair that stands for the prompt in pairwise metrics.
    pub pair: Option<(usize, usize)>,
    /// The best response, if anything tells it.
    pub best: Option<usize>,
    /// Samples of the reference model with their rewards, for levels that are estimated from them.
    pub samples: Vec<ReferenceSample>,
}

impl RewardedPrompt {
    /// Compares the responses of a prompt, whose rewards are now those that the loss sees.
    pub fn new(prompt: Prompt, rewards: Vec<f64>) -> Self {
        let preferences = Preferences::new(&prompt.labels, Some(&rewards));
        let (roles, pair, best) = (preferences.roles(), preferences.pair(), preferences.best());
        Self { prompt, rewards, roles, pair, best, samples: Vec::new() }
    }
}

impl PreparedPrompt for RewardedPrompt {
    fn prompt(&self) -> &Prompt {
        &self.prompt
    }

    fn roles(&self) -> &[Option<Role>] {
        &self.roles
    }

    fn rewards(&self) -> Vec<f64> {
        self.rewards.clone()
    }

    fn pairs(&self) -> &[(usize, usize)] {
        self.pair.as_slice()
    }

    fn samples(&self) -> &[ReferenceSample] {
        &self.samples
    }
}

/// A prompt for objectives on pairs of responses.
#[derive(Debug, Clone)]
pub struct PairedPrompt {
    /// The prompt.
    pub prompt: Prompt,
    /// The pairs `(chosen, rejected)`.
    pub pairs: Vec<(usize, usize)>,
    /// The rewards of the responses, by reward model: those of the data first, if every response has one.
    pub rewards: Vec<Vec<f64>>,
}

impl PreparedPrompt for PairedPrompt {
    fn prompt(&self) -> &Prompt {
        &self.prompt
    }

    fn roles(&self) -> &[Option<Role>] {
        &self.prompt.labels
    }

    fn rewards(&self) -> Vec<f64> {
        self.prompt.rewards.iter().flatten().copied().collect()
    }

    fn ensemble(&self) -> &[Vec<f64>] {
        &self.rewards[self.rewards.len().min(1)..]
    }

    fn pairs(&self) -> &[(usize, usize)] {
        &self.pairs
    }

    fn needs_reference(&self, response: usize) -> bool {
        self.pairs.iter().any(|&(chosen, rejected)| chosen == response || rejected == response)
    }
}

/// A prompt for objectives on single rows, a prompt and one of its responses each.
#[derive(Debug, Clone)]
pub struct RowPrompt {
    /// The prompt.
    pub prompt: Prompt,
    /// The role of each response.
    pub roles: Vec<Option<Role>>,
    /// The rewards as the loss sees them, if every response has one.
    pub rewards: Option<Vec<f64>>,
}

impl RowPrompt {
    /// Returns the reward of a response, if every response has one.
    pub fn reward(&self, response: usize) -> Option<f64> {
        self.rewards.as_ref().map(|rewards| rewards[response])
    }
}

impl PreparedPrompt for RowPrompt {
    fn prompt(&self) -> &Prompt {
        &self.prompt
    }

    fn roles(&self) -> &[Option<Role>] {
        &self.roles
    }

    fn rewards(&self) -> Vec<f64> {
        self.rewards.clone().unwrap_or_else(|| self.prompt.rewards.iter().flatten().copied().collect())
    }
}

/// A prompt for maximum likelihood of its best response.
#[derive(Debug, Clone)]
pub struct BestPrompt {
    /// The prompt.
    pub prompt: Prompt,
    /// The role of each response.
    pub roles: Vec<Option<Role>>,
    /// The best response.
    pub best: usize,
}

impl BestPrompt {
    /// Compares the responses of a prompt; `None` if nothing tells which is best.
    pub fn new(prompt: Prompt) -> Option<Self> {
        let rewards = prompt.all_rewards();
        let preferences = Preferences::new(&prompt.labels, rewards.as_deref());
        let (roles, best) = (preferences.roles(), preferences.best()?);
        Some(Self { prompt, roles, best })
    }
}

impl PreparedPrompt for BestPrompt {
    fn prompt(&self) -> &Prompt {
        &self.prompt
    }

    fn roles(&self) -> &[Option<Role>] {
        &self.roles
    }

    fn rewards(&self) -> Vec<f64> {
        self.prompt.rewards.iter().flatten().copied().collect()
    }
}

/// The reference model's log-probabilities of a prompt, nats.
#[derive(Debug, Clone)]
pub struct ReferenceLogps {
    /// `log π_ref(y|x)` of each response that the method looks at.
    pub responses: Vec<Option<f64>>,
    /// `log π_ref` of the prompt's tokens after t0.
    pub prompt: f64,
}

impl ReferenceLogps {
    /// Returns zeros, for methods without a reference, which do not look at them.
    pub fn zeros(responses: usize) -> Self {
        Self { responses: vec![Some(0.0); responses], prompt: 0.0 }
    }
}

/// Says that the reference model has not scored a response of a prompt.
pub fn unscored(name: &str) -> String {
    format!("{name}: a response without a log-probability of the reference model")
}

/// Prepared prompts, whatever the method: each is made when it is needed.
pub trait PromptList: Sync {
    /// Returns the number of prompts.
    fn len(&self) -> usize;

    /// Returns whether there is no prompt.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes a prompt.
    ///
    /// # Errors
    /// When its row cannot be read back.
    fn get(&self, prompt: usize) -> Result<Box<dyn PreparedPrompt>, Error>;
}

impl<P: PreparedPrompt + 'static> PromptList for OnDemand<P> {
    fn len(&self) -> usize {
        OnDemand::len(self)
    }

    fn get(&self, prompt: usize) -> Result<Box<dyn PreparedPrompt>, Error> {
        Ok(Box::new(OnDemand::get(self, prompt)?))
    }
}

impl dyn PromptList + '_ {
    /// Makes all prompts in their order, one at a time.
    pub fn iter(&self) -> impl Iterator<Item = Result<Box<dyn PreparedPrompt>, Error>> + '_ {
        (0..self.len()).map(|prompt| self.get(prompt))
    }
}

/// A prepared prompt with the reference's log-probabilities of all its responses, nats. It reads like the prompt that it holds.
#[derive(Debug, Clone)]
pub struct WithReference<P> {
    prepared: P,
    /// `log π_ref(y|x)` of each response.
    pub ref_logps: Vec<f64>,
    /// `log π_ref` of the prompt's tokens after t0.
    pub ref_prompt_logp: f64,
}

impl<P> WithReference<P> {
    /// Adds the log-probabilities to a prompt; `None` if one is missing.
    pub fn new(prepared: P, reference: ReferenceLogps) -> Option<Self> {
        let ref_logps = reference.responses.into_iter().collect::<Option<Vec<f64>>>()?;
        Some(Self { prepared, ref_logps, ref_prompt_logp: reference.prompt })
    }
}

impl<P> Deref for WithReference<P> {
    type Target = P;

    fn deref(&self) -> &P {
        &self.prepared
    }
}
