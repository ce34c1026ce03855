//! The form that every objective on all responses of a prompt has for the task that trains by it.

use std::fmt;

use burn::tensor::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::aggregate::Aggregate;
use crate::error::Error;
use crate::log_z0::LogZ0;
use crate::metrics::Metrics;
use crate::prompt_index::PromptIndex;
use crate::reward_transform::RewardTransform;
use crate::unread::Unread;

/// A micro-batch of `n` responses of `p` prompts, with everything that an objective on prompts may look at.
///
/// `logps` and `prompt_logps` come from the same forward pass of the policy and may carry a graph; the rest are constants
/// (see [`crate::constant_like`]).
#[derive(Debug, Clone)]
pub struct PromptBatch {
    /// `log π_θ(y_j|x)`, summed over the response's tokens, nats, `[n]`.
    pub logps: Tensor<1>,
    /// `log π_ref(y_j|x)`, `[n]`.
    pub ref_logps: Tensor<1>,
    /// `r(x, y_j)`, after any transform, `[n]`.
    pub rewards: Tensor<1>,
    /// `log π_θ` summed over the prompt's tokens after `t0`, nats, `[p]`; zeros unless
    /// [`PromptObjective::scored_prompts`] asks for them.
    pub prompt_logps: Tensor<1>,
    /// `log π_ref` summed over the same tokens, `[p]`.
    pub ref_prompt_logps: Tensor<1>,
    /// The level of each prompt's targets ([`PromptObjective::level`]), nats, `p` entries; zeros for objectives without a level.
    pub levels: Vec<f64>,
    /// Number of tokens of each response, `n` entries.
    pub tokens: Vec<f64>,
    /// `log Σ π_ref(y|x)·exp(r/β)` of each prompt, `p` entries.
    pub log_mass: Vec<f64>,
}

/// The result of an objective on prompts.
#[derive(Debug)]
pub struct PromptOutput {
    /// The error of each response, unreduced, with its graph, `[n]`. [`PromptObjective::aggregate`] says how they are averaged.
    pub losses: Tensor<1>,
    /// Metrics of the responses.
    pub values: Unread<PromptValues>,
}

/// Metrics of the responses of a micro-batch.
#[derive(Debug, Clone, PartialEq)]
pub struct PromptValues {
    /// The error of each response, `n` entries.
    pub errors: Vec<f64>,
    /// `h` of each response, nats, `n` entries.
    pub log_ratios: Vec<f64>,
    /// The log-ratio that each reward asks for, nats, `n` entries; NaN for objectives that aim at none.
    pub targets: Vec<f64>,
    /// Further metrics.
    pub metrics: Metrics,
}

/// An objective on all responses of a prompt, with its settings.
pub trait PromptObjective: fmt::Debug + Send + Sync {
    /// Returns the reward per nat of log-ratio: implicit rewards are `β·h`.
    fn beta(&self) -> f64;

    /// Sets β from the training rewards, transformed and scaled, if the settings give it as a share of their standard
    /// deviation; returns that share. By default there is nothing to set.
    ///
    /// # Errors
    /// [`Error::Setting`] if the rewards do not differ.
    fn resolve(&mut self, _rewards: &[f64]) -> Result<Option<f64>, Error> {
        Ok(None)
    }

    /// Returns that share, before and after β is set.
    fn beta_sigma(&self) -> Option<f64> {
        None
    }

    /// Computes the error of each response.
    fn losses(&self, batch: PromptBatch, prompts: &PromptIndex) -> PromptOutput;

    /// Returns how prompts with unequal numbers of responses are averaged.
    fn aggregate(&self) -> Aggregate {
        Aggregate::PerPrompt
    }

    /// Returns from where on prompts are scored, for objectives that look at their log-probabilities.
    fn scored_prompts(&self) -> Option<T0Setting> {
        None
    }

    /// Returns the transform of the rewards before training, and a factor on the result.
    fn reward_transform(&self) -> (RewardTransform, f64) {
        (RewardTransform::None, 1.0)
    }

    /// Returns the level of the targets, for objectives that have any: the audit judges them before training.
    fn level(&self) -> Option<LogZ0> {
        None
    }

    /// Returns the weight of that level in the loss. At 0 only the differences between a prompt's responses are trained.
    fn level_weight(&self) -> f64 {
        1.0
    }

    /// Returns when the optimizer steps.
    fn update(&self) -> Update {
        Update::Batch
    }

    /// Returns whether the loss trains the tokens of prompts, so that their log-probabilities need a graph.
    fn learns_prompts(&self) -> bool {
        false
    }

    /// Returns whether targets are nats per token.
    fn length_normalize(&self) -> bool {
        false
    }

    /// Returns the weight in the loss of the token-mean NLL of each prompt's best response ([`crate::best_nll`]).
    fn nll_weight(&self) -> f64 {
        0.0
    }
}

/// The tokens that every prompt begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected \"first_token\", \"common_prefix\" or a number of tokens")]
pub enum T0Setting {
    /// A rule.
    Named(T0Name),
    /// This many tokens.
    Tokens(usize),
}

/// The rules for t0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum T0Name {
    /// The first token, which all prompts must share.
    FirstToken,
    /// Everything that all prompts share.
    CommonPrefix,
}

/// The moment of an optimizer step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Update {
    /// After `train.batch_size` prompts.
    Batch,
    /// After every prompt.
    PerPrompt,
}
