//! Settings of Direct Reward Optimization.

use serde::{Deserialize, Serialize};
use setpoint_align::{Aggregate, DroSettings, LogZ0, PromptTerm, ResidualError, RewardTransform, check_targets};
use toml::{Table, Value};

use crate::config::Problems;

/// Settings of DRO.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DroSection {
    /// Other defaults than the usual ones: `"paper"`. What is given beside it wins. A run folder holds the settings that it
    /// stands for, not the name.
    #[serde(default, skip_serializing)]
    pub preset: Option<Preset>,
    /// Reward per nat of log-ratio.
    pub beta: f64,
    /// The level of all targets, in nats: a number, `"mean"`, `"keep_chosen"` or `{ keep_chosen = nats }`.
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
        Self {
            preset: None,
            beta: 0.1,
            log_z0: Some(LogZ0::Mean),
            break_even_reward: None,
            prompt_term: PromptTerm::Off,
            t0: T0Setting::Named(T0Name::FirstToken),
            error: ResidualError::Mse,
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
            (None, None) => LogZ0::Mean,
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
        // The level may follow from the rewards; every other range is known now.
        if let Err(e) = self.objective(0.0).validate() {
            problems.add("align", e.to_string());
        }
        if self.beta > 0.0
            // A level that follows from the rewards is checked on one of 0.
            && let Err(e) = self.level().resolve(self.beta, &[0.0]).and_then(|nats| check_targets(&[], self.beta, nats))
        {
            let key = if self.break_even_reward.is_some() { "align.break_even_reward" } else { "align.log_z0" };
            problems.add(key, e.to_string());
        }
        problems.require(
            self.reward_scale.is_finite() && self.reward_scale > 0.0,
            "align.reward_scale",
            format!("`reward_scale` must be a finite number greater than 0, found {}", self.reward_scale),
        );
        problems.require(self.t0 != T0Setting::Tokens(0), "align.t0", "t0 has at least one token");
    }

    /// The settings of the objective once the level is known.
    pub fn objective(&self, log_z0: f64) -> DroSettings {
        DroSettings { beta: self.beta, log_z0, prompt_term: self.prompt_term, error: self.error }
    }
}

/// A set of defaults with a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Preset {
    /// The DRO paper's: full prompt term, β 0.1, `log_z0` 50.
    Paper,
}

impl Preset {
    /// Every preset with its name in a config file.
    pub const ALL: &[(&str, Self)] = &[("paper", Self::Paper)];

    /// The preset of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, preset)| *preset)
    }

    /// The settings that it stands for.
    pub fn settings(self) -> Table {
        let Self::Paper = self;
        let settings = [("beta", 0.1.into()), ("log_z0", 50.0.into()), ("prompt_term", Value::from("full"))];
        settings.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }
}

impl TryFrom<String> for Preset {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        Self::named(&name).ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|(name, _)| *name).collect();
            format!("`{name}` is not a preset; there are: {}", names.join(", "))
        })
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
