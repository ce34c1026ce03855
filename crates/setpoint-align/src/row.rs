//! The form that every objective on single rows, a prompt and one response each, has for the task that trains by it.

use std::fmt;

use burn::tensor::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A micro-batch of `n` rows, with everything that an objective on rows may look at.
pub struct RowBatch {
    /// `h`, nats, with its graph, `[n]`.
    pub log_ratios: Tensor<1>,
    /// The rewards as [`RowObjective::rewards`] left them, `n` entries; NaN if the data has none.
    pub rewards: Vec<f64>,
    /// True for each row that is desirable, `n` entries.
    pub desirable: Vec<bool>,
    /// The number of [`RowObjective::baseline`], nats; 0 for objectives without one.
    pub baseline: f64,
}

/// The result of an objective on single rows.
#[derive(Debug, Clone)]
pub struct RowLoss {
    /// The loss of each row, unreduced, with its graph, `[n]`. The objective is its mean over the global batch.
    pub losses: Tensor<1>,
    /// The implicit rewards `β·h`, without a graph, `[n]`.
    pub rewards: Tensor<1>,
}

/// The responses that count as desirable, by their rewards.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Desirable {
    /// The best of each prompt; worse ones are undesirable, and ties with the best are left out.
    Best,
    /// Every response with a greater reward than this; all others are undesirable.
    Above(f64),
}

/// A number of the whole batch that the policy's log-ratios of mismatched rows give, prompts with another prompt's response.
#[derive(Debug, Clone, Copy)]
pub struct Baseline {
    /// The name that it is logged under.
    pub name: &'static str,
    /// Computes it from the log-ratios of the global batch, nats.
    pub of: fn(&[f64]) -> f64,
}

/// An objective on single rows with its settings.
pub trait RowObjective: fmt::Debug + Send + Sync {
    /// Returns the reward per nat of log-ratio: implicit rewards are `β·h`.
    fn beta(&self) -> f64;

    /// Computes the loss of each row.
    fn losses(&self, batch: &RowBatch) -> RowLoss;

    /// Returns the log-ratio that a reward asks for, nats; NaN for objectives that aim at none.
    fn target(&self, _reward: f64) -> f64 {
        f64::NAN
    }

    /// Returns the rule that tells desirable from undesirable rows if the data has rewards and no labels, for objectives
    /// whose rows are either. Rows that are neither are left out.
    fn desirable(&self) -> Option<Desirable> {
        None
    }

    /// Returns the batch's number that it looks at. It costs a pass over mismatched rows without a graph before every step.
    fn baseline(&self) -> Option<Baseline> {
        None
    }

    /// Returns whether it converts rewards by those of samples of the reference model.
    fn reads_reference_samples(&self) -> bool {
        false
    }

    /// Converts the rewards of a prompt's responses to those that the loss looks at. `samples`: the rewards of the prompt's samples of the
    /// reference model, if the objective [reads them](Self::reads_reference_samples).
    ///
    /// # Errors
    /// The reason why these rewards are not enough.
    fn rewards(&self, rewards: &[f64], _samples: &[f64]) -> Result<Vec<f64>, &'static str> {
        Ok(rewards.to_vec())
    }
}
