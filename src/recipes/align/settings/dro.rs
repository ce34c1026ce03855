//! Settings of Direct Reward Optimization.

use serde::{Deserialize, Serialize};
use setpoint_align::{Aggregate, DroSettings, LogZ0, PromptTerm, ResidualError, RewardTransform};

use crate::config::Problems;

/// Settings of DRO.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DroSection {
    /// Reward per nat of log-ratio.
    pub beta: f64,
    /// Log-normaliser of the common prefix t0, in nats; `"auto"`, `{ auto = nats }`.
    pub log_z0: Option<LogZ0>,
    /// The reward that keeps a response's probability, instead of `log_z0`.
    pub break_even_reward: Option<f64>,
    /// `"full"`, `"off"` or `{ clip = nats }`.
    pub prompt_term: PromptTerm,
    /// `"first_token"`, `"common_prefix"` or a number of tokens.
    pub t0: T0Setting,
    /// `"mse"`, `"mae"` or `{ huber = delta }`.
    pub error: ResidualError,
    /// What becomes of the rewards before training.
    pub reward_transform: RewardTransform,
    /// Factor on the transformed rewards.
    pub reward_scale: f64,
    /// `"per_prompt"` or `"per_response"`.
    pub aggregate: Aggregate,
    /// `"batch"`, or `"per_prompt"`: an optimizer step after every prompt (Algorithm 1 to the letter).
    pub update: Update,
}

impl Default for DroSection {
    fn default() -> Self {
        let DroSettings { beta, log_z0, prompt_term, error } = DroSettings::default();
        Self {
            beta,
            log_z0: Some(LogZ0::Nats(log_z0)),
            break_even_reward: None,
            prompt_term,
            t0: T0Setting::Named(T0Name::FirstToken),
            error,
            reward_transform: RewardTransform::default(),
            reward_scale: 1.0,
            aggregate: Aggregate::default(),
            update: Update::Batch,
        }
    }
}

impl DroSection {
    /// The level of the targets, however it was set.
    pub fn level(&self) -> LogZ0 {
        match (self.log_z0, self.break_even_reward) {
            (_, Some(reward)) => LogZ0::BreakEvenReward(reward),
            (Some(level), None) => level,
            (None, None) => LogZ0::AUTO,
        }
    }

    /// Notes what is out of range.
    pub fn check(&self, problems: &mut Problems<'_>) {
        if self.log_z0.is_some() && self.break_even_reward.is_some() {
            problems.add(
                "align.break_even_reward",
                "`align.log_z0` and `align.break_even_reward` set the same thing: give one of them",
            );
        }
        // The level itself may hang on the rewards; every other range is known now.
        if let Err(e) = self.objective(0.0).validate() {
            problems.add("align", e.to_string());
        }
        if self.beta > 0.0
            && !matches!(self.level(), LogZ0::Auto { .. })
            && let Err(e) = self.level().resolve(self.beta, &[])
        {
            problems.add("align.log_z0", e.to_string());
        }
        problems.require(
            self.reward_scale.is_finite() && self.reward_scale != 0.0,
            "align.reward_scale",
            "must be a number other than 0",
        );
        problems.require(self.t0 != T0Setting::Tokens(0), "align.t0", "t0 has at least one token");
    }

    /// The settings of the objective once the level is known.
    pub fn objective(&self, log_z0: f64) -> DroSettings {
        DroSettings { beta: self.beta, log_z0, prompt_term: self.prompt_term, error: self.error }
    }
}

/// Which tokens every prompt begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected \"first_token\", \"common_prefix\" or a number of tokens")]
pub enum T0Setting {
    /// A rule.
    Named(T0Name),
    /// So many tokens.
    Tokens(usize),
}

/// The rules for t0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum T0Name {
    /// The first token, which all prompts must share.
    FirstToken,
    /// Everything that all prompts share.
    CommonPrefix,
}

/// When the optimizer steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Update {
    /// After `train.batch_size` prompts.
    Batch,
    /// After every prompt.
    PerPrompt,
}
