//! DRO as a config file sets it, and as its task needs it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{DroBatch, DroSettings, DroValues, PromptTerm, ResidualError, dro};
use crate::aggregate::{Aggregate, constant_like};
use crate::error::Error;
use crate::log_z0::LogZ0;
use crate::metrics::Metrics;
use crate::objective::{Axis, Objective, Preset, Value};
use crate::prompt_index::PromptIndex;
use crate::prompt_rewards::check_targets;
use crate::prompts::{PromptBatch, PromptObjective, PromptOutput, PromptValues, T0Name, T0Setting, Update};
use crate::reward_transform::RewardTransform;
use crate::settings::{NON_NEGATIVE, POSITIVE, Problem, Settings};
use crate::summary::mean_std;

/// The settings of DRO. Once the training data tells the level, [`Dro::objective`] has those of [`dro`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Dro {
    /// The name of other defaults; settings given next to it win. A run folder holds the settings of a preset, not its name.
    #[serde(default, skip_serializing_if = "is_never_written")]
    pub preset: Option<DroPreset>,
    /// Reward per nat of log-ratio.
    #[schemars(extend("x-unit" = "reward per nat"))]
    pub beta: Option<f64>,
    /// β as a share of the standard deviation of the training rewards, instead of `beta`.
    ///
    /// The rewards are those of the training file after `reward_transform` and `reward_scale`; [`PromptObjective::resolve`] sets β.
    #[schemars(extend("x-unit" = "standard deviations of the rewards"))]
    pub beta_sigma: Option<f64>,
    /// The level of all targets.
    #[schemars(extend("x-unit" = "nats"))]
    pub log_z0: Option<LogZ0>,
    /// The reward that keeps a response's probability, instead of `log_z0`.
    #[schemars(extend("x-unit" = "reward"))]
    pub break_even_reward: Option<f64>,
    /// The part of the prompt's own log-ratio that enters the level of its targets.
    pub prompt_term: PromptTerm,
    /// The tokens that every prompt begins with.
    pub t0: T0Setting,
    /// The function that turns a residual into an error.
    pub error: ResidualError,
    /// Weight λ of a prompt's mean residual next to the residuals' distances from it: 1 is DRO, 0 leaves the level alone.
    pub level_weight: f64,
    /// Weight w of the token-mean NLL of each prompt's best response: the loss grows by w·β²·NLL.
    pub nll_weight: f64,
    /// Counts targets per token: β is then reward per nat per token, and `log_z0` nats per token.
    pub length_normalize: bool,
    /// The transform of the rewards before training.
    pub reward_transform: RewardTransform,
    /// Factor on the transformed rewards.
    pub reward_scale: f64,
    /// The way in which prompts with unequal numbers of responses are averaged.
    pub aggregate: Aggregate,
    /// Steps the optimizer after a batch, or after every prompt (Algorithm 1 to the letter).
    pub update: Update,
}

impl Default for Dro {
    fn default() -> Self {
        Self {
            preset: None,
            beta: Some(0.1),
            beta_sigma: None,
            log_z0: Some(LogZ0::Mean),
            break_even_reward: None,
            prompt_term: PromptTerm::Off,
            t0: T0Setting::Named(T0Name::FirstToken),
            error: ResidualError::Mse,
            level_weight: 1.0,
            nll_weight: 0.0,
            length_normalize: false,
            reward_transform: RewardTransform::default(),
            reward_scale: 1.0,
            aggregate: Aggregate::default(),
            update: Update::Batch,
        }
    }
}

impl Objective for Dro {
    const TITLE: &'static str = "Direct Reward Optimization";
    const SOURCE: &'static str = "the DRO paper (later RAO), Algorithm 1";
    const REWARDS: bool = true;
    /// The table has the interval [−50, 500] for log Z₀: its ends are tried and the 50 that the paper reports, and the
    /// paper's prompt term.
    const SEARCH: &'static [Axis] = &[
        Axis::BETA,
        Axis::RATE,
        Axis::numbers("align.log_z0", &[-50.0, 50.0, 500.0]),
        Axis::names("align.prompt_term", &["full"]),
    ];
    const PRESETS: &'static [Preset] = &[PAPER];
    const ALTERNATIVES: &'static [[&'static str; 2]] = &[["log_z0", "break_even_reward"], ["beta", "beta_sigma"]];
}

/// The DRO paper's settings.
const PAPER: Preset = Preset {
    name: "paper",
    settings: &[("beta", Value::Number(0.1)), ("log_z0", Value::Number(50.0)), ("prompt_term", Value::Name("full"))],
};

impl Dro {
    /// Returns the level of the targets, however it was set.
    pub fn level(&self) -> LogZ0 {
        match (self.log_z0, self.break_even_reward) {
            (_, Some(reward)) => LogZ0::BreakEvenReward(reward),
            (Some(level), None) => level,
            (None, None) => LogZ0::Mean,
        }
    }

    /// Returns the settings of the objective once the level is known.
    pub fn objective(&self, log_z0: f64) -> DroSettings {
        DroSettings {
            beta: self.beta(),
            log_z0,
            prompt_term: self.prompt_term,
            error: self.error,
            level_weight: self.level_weight,
            length_normalize: self.length_normalize,
        }
    }

    /// Returns what is wrong with settings that do not go together.
    fn conflicts(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut wrong = |setting, message: &str| problems.push(Problem::new(Some(setting), message));
        if self.log_z0.is_some() && self.break_even_reward.is_some() {
            wrong(
                "break_even_reward",
                "`align.log_z0` and `align.break_even_reward` set the same thing: give one of them",
            );
        }
        if self.beta.is_some() && self.beta_sigma.is_some() {
            wrong("beta_sigma", "`align.beta` and `align.beta_sigma` set the same thing: give one of them");
        }
        if self.level_weight != 1.0 && self.error != ResidualError::Mse {
            wrong(
                "level_weight",
                "a `level_weight` other than 1 splits squared residuals: set `align.error = \"mse\"`",
            );
        }
        if self.level() == LogZ0::PerPrompt {
            if self.prompt_term != PromptTerm::Off {
                wrong(
                    "log_z0",
                    "`log_z0 = \"per_prompt\"` is log Z(x) itself, without a prompt term: set `align.prompt_term = \"off\"`",
                );
            }
            if self.length_normalize {
                wrong("log_z0", "`log_z0 = \"per_prompt\"` is in nats per response, and `length_normalize` per token");
            }
        }
        if self.length_normalize && self.prompt_term != PromptTerm::Off {
            wrong(
                "length_normalize",
                "targets per token have no prompt term, which is in nats per prompt: set `align.prompt_term = \"off\"`",
            );
        }
        problems
    }
}

impl Settings for Dro {
    fn validate(&self) -> Result<(), Error> {
        if let Some(share) = self.beta_sigma {
            POSITIVE.check("beta_sigma", &share)?;
        }
        // β and the level may follow from the rewards; every other range is known now.
        let beta = self.beta.or(self.beta_sigma).unwrap_or(f64::NAN);
        DroSettings { beta, ..self.objective(0.0) }.validate()
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems = self.conflicts();
        let mut wrong = |setting, message: String| problems.push(Problem::new(setting, message));
        if let Err(error) = self.validate() {
            wrong(None, error.to_string());
        }
        if let Err(error) = NON_NEGATIVE.check("nll_weight", &self.nll_weight) {
            wrong(Some("nll_weight"), error.to_string());
        }
        let beta = self.beta.or(self.beta_sigma).unwrap_or(f64::NAN);
        if POSITIVE.check("beta", &beta).is_ok()
            // A level that follows from the rewards is checked on one of 0.
            && let Err(error) = self.level().resolve(beta, &[0.0]).and_then(|nats| check_targets(&[], beta, nats))
        {
            let setting = if self.break_even_reward.is_some() { "break_even_reward" } else { "log_z0" };
            wrong(Some(setting), error.to_string());
        }
        if let Err(error) = POSITIVE.check("reward_scale", &self.reward_scale) {
            wrong(Some("reward_scale"), error.to_string());
        }
        if let RewardTransform::Clip(range) = self.reward_transform
            && let Err(error) = range.validate()
        {
            wrong(Some("reward_transform.clip"), error.to_string());
        }
        if self.t0 == T0Setting::Tokens(0) {
            wrong(Some("t0"), "t0 has at least one token".into());
        }
        problems
    }
}

impl PromptObjective for Dro {
    /// Returns β; NaN before [`PromptObjective::resolve`] if it follows from the rewards.
    fn beta(&self) -> f64 {
        self.beta.unwrap_or(f64::NAN)
    }

    fn resolve(&mut self, rewards: &[f64]) -> Result<Option<f64>, Error> {
        let (None, Some(share)) = (self.beta, self.beta_sigma) else { return Ok(None) };
        self.beta = Some(beta_of_share(share, rewards)?);
        Ok(Some(share))
    }

    fn beta_sigma(&self) -> Option<f64> {
        self.beta_sigma
    }

    fn losses(&self, batch: PromptBatch, prompts: &PromptIndex) -> PromptOutput {
        let PromptBatch { logps, ref_logps, rewards, prompt_logps, ref_prompt_logps, levels, tokens, log_mass } = batch;
        let batch = DroBatch {
            levels: Some(constant_like(&levels, &logps)),
            tokens: self.length_normalize.then(|| constant_like(&tokens, &logps)),
            logps,
            ref_logps,
            rewards,
            prompt_logps,
            ref_prompt_logps,
        };
        let output = dro(batch, prompts, &self.objective(0.0));
        let is_scored = self.scored_prompts().is_some();
        let values = output.values(prompts).map(move |mut values| {
            if !is_scored {
                // Nothing is known of D_x.
                values.prompt_log_ratios.clear();
            }
            let mut metrics = Metrics::default();
            metrics.record_dro(&values, Some(&log_mass));
            let DroValues { errors, log_ratios, targets, .. } = values;
            PromptValues { errors, log_ratios, targets, metrics }
        });
        PromptOutput { losses: output.errors, values }
    }

    fn aggregate(&self) -> Aggregate {
        self.aggregate
    }

    fn scored_prompts(&self) -> Option<T0Setting> {
        (self.prompt_term != PromptTerm::Off).then_some(self.t0)
    }

    fn reward_transform(&self) -> (RewardTransform, f64) {
        (self.reward_transform, self.reward_scale)
    }

    fn level(&self) -> Option<LogZ0> {
        Some(self.level())
    }

    fn level_weight(&self) -> f64 {
        self.level_weight
    }

    fn update(&self) -> Update {
        self.update
    }

    fn learns_prompts(&self) -> bool {
        self.prompt_term == PromptTerm::Learned
    }

    fn length_normalize(&self) -> bool {
        self.length_normalize
    }

    /// Returns `w·β²`: an error of DRO is β² times a square of nats.
    fn nll_weight(&self) -> f64 {
        match self.nll_weight {
            0.0 => 0.0,
            weight => weight * self.beta() * self.beta(),
        }
    }
}

/// Computes β from its share of the rewards' standard deviation.
///
/// # Errors
/// [`Error::Setting`] if the rewards do not differ.
fn beta_of_share(share: f64, rewards: &[f64]) -> Result<f64, Error> {
    let (_, deviation) = mean_std(rewards);
    let beta = share * deviation;
    if beta.is_finite() && beta > 0.0 {
        return Ok(beta);
    }
    let (name, expected) = ("beta_sigma", "used with rewards that differ; `beta` sets β itself");
    Err(Error::Setting { name, expected, found: format!("a standard deviation of {deviation}") })
}

/// Returns true: a run folder holds the settings of a preset.
fn is_never_written(_: &Option<DroPreset>) -> bool {
    true
}

/// A set of defaults with a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", rename_all = "snake_case")]
pub enum DroPreset {
    /// The DRO paper's: full prompt term, β 0.1, `log_z0` 50.
    Paper,
}

impl TryFrom<String> for DroPreset {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        match name == PAPER.name {
            true => Ok(Self::Paper),
            false => Err(format!("`{name}` is not a preset; there are: {}", PAPER.name)),
        }
    }
}
