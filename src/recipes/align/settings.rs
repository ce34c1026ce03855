//! Settings of `setpoint align` and `setpoint audit`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use setpoint_align::{Aggregate, DpoSettings, DroSettings, LogZ0, PromptTerm, ResidualError, RewardTransform};
use toml::{Table, Value};

use crate::config::load::to_table;
use crate::config::sections::{ModelSection, validate_data, validate_train};
use crate::config::{Config, Problems};
use crate::recipes::setup;
use crate::recipes::training::SamplesSection;
use setpoint_data::{DatasetConfig, EncodeOptions};
use setpoint_train::{MicroBatch, Schedule, ScheduleKind, TrainConfig, Warmup};

/// Settings of `setpoint align` and `setpoint audit`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlignConfig {
    /// The policy to train: the SFT model.
    pub model: ModelSection,
    /// The reference model; by default the policy as it is before training.
    pub reference: Option<PathBuf>,
    /// Rows with responses and rewards (DRO) or chosen and rejected responses (DPO).
    pub data: DatasetConfig,
    /// Rows to evaluate on during training.
    pub eval_data: Option<DatasetConfig>,
    /// How rows become tokens.
    pub encode: EncodeOptions,
    /// The method and its settings.
    pub align: Method,
    /// Optimizer, schedule, checkpoints.
    pub train: TrainConfig,
    /// Answers to a few prompts during training.
    pub samples: SamplesSection,
    /// Where `setpoint audit` writes its report, as JSON.
    pub output: Option<PathBuf>,
}

/// `[align]`: the method and its settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "snake_case")]
pub enum Method {
    /// Direct Reward Optimization.
    #[serde(alias = "rao")]
    Dro(DroSection),
    /// Direct Preference Optimization.
    Dpo(DpoSection),
}

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

    /// The settings of the objective once the level is known.
    pub fn objective(&self, log_z0: f64) -> DroSettings {
        DroSettings { beta: self.beta, log_z0, prompt_term: self.prompt_term, error: self.error }
    }
}

/// Settings of DPO.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DpoSection {
    /// Strength of the pull to the reference.
    pub beta: f64,
    /// Share of labels taken to be wrong (cDPO).
    pub label_smoothing: f64,
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

impl Default for AlignConfig {
    fn default() -> Self {
        Self {
            model: ModelSection::default(),
            reference: None,
            data: DatasetConfig::new(""),
            eval_data: None,
            encode: setup::training_lengths(),
            align: Method::Dro(DroSection::default()),
            train: TrainConfig {
                epochs: 3.0,
                batch_size: 128,
                micro_batch: MicroBatch::Tokens(8192),
                learning_rate: 5e-7,
                schedule: Schedule { kind: ScheduleKind::Cosine, warmup: Warmup::Ratio(0.1) },
                ..TrainConfig::default()
            },
            samples: SamplesSection::default(),
            output: None,
        }
    }
}

impl Config for AlignConfig {
    fn defaults(user: &Table) -> Result<Table, (String, String)> {
        let section = user.get("align").and_then(Value::as_table);
        let name = section.and_then(|s| s.get("method")).map_or(Some("dro"), Value::as_str);
        let align = match name {
            Some("dro" | "rao") => {
                let mut dro = DroSection::default();
                if section.is_some_and(|s| s.contains_key("break_even_reward")) {
                    dro.log_z0 = None;
                }
                Method::Dro(dro)
            }
            Some("dpo") => {
                let DpoSettings { beta, label_smoothing } = DpoSettings::default();
                Method::Dpo(DpoSection { beta, label_smoothing })
            }
            other => {
                let found = other.map_or_else(|| "something else than a name".to_owned(), |o| format!("`{o}`"));
                return Err((
                    "align.method".into(),
                    format!("`align.method` must be dro (or rao) or dpo, found {found}"),
                ));
            }
        };
        Ok(to_table(&AlignConfig { align, ..AlignConfig::default() }))
    }

    fn validate(&self, problems: &mut Problems<'_>) {
        self.model.validate("model", false, problems);
        validate_data(&self.data, "data", problems);
        if let Some(eval) = &self.eval_data {
            validate_data(eval, "eval_data", problems);
        }
        if let Some(path) = &self.reference {
            problems.require(
                path.join("config.json").is_file(),
                "reference",
                format!("`{}` holds no config.json: expected a Hugging Face model folder", path.display()),
            );
        }
        validate_train(&self.train, problems);
        match &self.align {
            Method::Dro(dro) => {
                if dro.log_z0.is_some() && dro.break_even_reward.is_some() {
                    problems.add(
                        "align.break_even_reward",
                        "`align.log_z0` and `align.break_even_reward` set the same thing: give one of them",
                    );
                }
                // The level itself may hang on the rewards; every other range is known now.
                if let Err(e) = dro.objective(0.0).validate() {
                    problems.add("align", e.to_string());
                }
                if dro.beta > 0.0
                    && !matches!(dro.level(), LogZ0::Auto { .. })
                    && let Err(e) = dro.level().resolve(dro.beta, &[])
                {
                    problems.add("align.log_z0", e.to_string());
                }
                problems.require(
                    dro.reward_scale.is_finite() && dro.reward_scale != 0.0,
                    "align.reward_scale",
                    "must be a number other than 0",
                );
                problems.require(dro.t0 != T0Setting::Tokens(0), "align.t0", "t0 has at least one token");
            }
            Method::Dpo(dpo) => {
                if let Err(e) = (DpoSettings { beta: dpo.beta, label_smoothing: dpo.label_smoothing }).validate() {
                    problems.add("align", e.to_string());
                }
            }
        }
    }
}
