//! Settings of rounds: `rounds`, `[rollout]` and `[reward]` of `setpoint align`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use setpoint_align::{Desirable, LogZ0, Method, PairRule, RewardTransform, Training};
use toml::{Table, Value};

use super::super::settings::AlignConfig;
use super::super::value;
use super::remote::{self, ReloadSettings};
use crate::annotate::AnnotateConfig;
use crate::config::Problems;
use crate::config::flat::flat_section;
use crate::config::load::to_table;
use crate::config::sections::ModelSection;
use crate::server::ServerSettings;
use crate::sources::{self, ModelSettings, Sources};

/// The most passes over rounds in a run.
const MOST_PASSES: u64 = 1_000_000;

/// `[rollout]`: the responses that the policy samples at the beginning of each round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RolloutSection {
    /// The number of prompts of a round: the next ones of the shuffled data.
    #[schemars(range(min = 1), extend("x-unit" = "prompts"))]
    pub prompts: usize,
    /// The number of responses to each prompt. The default depends on the method: 2 for pairs and RLOO, 8 for GRPO, 1 for PPO, 4 for the others.
    #[schemars(range(min = 1), extend("x-unit" = "responses"))]
    pub samples: usize,
    /// The greatest number of tokens of a response, its stop token included.
    #[schemars(range(min = 1), extend("x-unit" = "tokens"))]
    pub max_new_tokens: usize,
    /// Divides the logits. Samples are never cut to the likeliest tokens (top-k, top-p).
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub temperature: f64,
    /// Passes over the responses of a round: 4 for PPO, 1 for the others.
    #[schemars(range(min = 1), extend("x-unit" = "epochs"))]
    pub epochs_per_round: u64,
    /// Responses that are generated, scored and written together; a run that is killed loses at most as many.
    #[schemars(range(min = 1), extend("x-unit" = "responses"))]
    pub chunk_rows: usize,
    /// The reference model of the log-ratios.
    pub reference: RoundReference,
    /// The treatment of the reference model and the reward model while the policy trains.
    pub keep: Keep,
    /// The number of last rounds whose responses stay in the run folder; by default all. The first round stays, and so does each that a
    /// checkpoint needs to go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), extend("x-unit" = "rounds"))]
    pub keep_rounds: Option<u64>,
    /// A server that generates the responses in place of this program. Their log-probabilities are computed here all the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<ServerSettings>,
    /// The command that loads the weights of each round into the server. Without it the server keeps those that it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reload: Option<ReloadSettings>,
}

/// The reference model of a round.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RoundReference {
    /// The policy before the first round, or the model that `reference` names.
    #[default]
    Initial,
    /// The policy at the beginning of the round.
    Previous,
}

/// The treatment of models that only score.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// They stay in memory.
    #[default]
    Memory,
    /// They are read from the disk in each round, and dropped before the policy trains.
    Reload,
}

impl Default for RolloutSection {
    fn default() -> Self {
        Self {
            prompts: 64,
            samples: 4,
            max_new_tokens: 512,
            temperature: 1.0,
            epochs_per_round: 1,
            chunk_rows: 64,
            reference: RoundReference::Initial,
            keep: Keep::Memory,
            keep_rounds: None,
            server: None,
            reload: None,
        }
    }
}

impl RolloutSection {
    /// Returns the defaults of a method.
    pub fn of(method: &Method) -> Self {
        let (samples, epochs) = match method.training() {
            Training::Pairs(_) => (2, 1),
            Training::Sampled(objective) => (objective.samples(), objective.epochs_per_round() as u64),
            _ => (4, 1),
        };
        Self { samples, epochs_per_round: epochs, ..Self::default() }
    }
}

/// `[reward]` and `[watch]`: a source of the rewards of sampled responses, one of those of `setpoint annotate`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(remote = "Self", deny_unknown_fields, default)]
#[schemars(rename = "RoundReward")]
pub struct RewardSection {
    /// The reward model; or one of the other sources.
    pub model: ModelSection,
    /// The other sources, `rule`, `command` and so on.
    #[serde(flatten, skip_deserializing)]
    pub sources: Sources,
    /// Apply the mean and deviation that the reward model stores.
    pub normalize: bool,
    /// Subtracted from the reward of a response that was cut at `rollout.max_new_tokens`.
    #[schemars(range(min = 0))]
    pub missing_stop_penalty: f64,
    /// Tokens in one forward pass of a reward model.
    #[schemars(range(min = 1), extend("x-unit" = "tokens"))]
    pub batch_tokens: usize,
}

flat_section!(RewardSection, sources: Sources, after "model");

impl Default for RewardSection {
    fn default() -> Self {
        Self {
            model: ModelSection::default(),
            sources: Sources::default(),
            normalize: false,
            missing_stop_penalty: 0.0,
            batch_tokens: AnnotateConfig::default().batch_tokens,
        }
    }
}

impl RewardSection {
    /// Returns the reward model as a source.
    pub fn reward_model(&self) -> ModelSettings<'_> {
        ModelSettings { section: &self.model, normalize: self.normalize }
    }
}

/// Moves `reference = "previous"` and `"initial"`, which name no folder, to the section of rollouts.
pub fn respell(user: &mut Table) {
    if !is_asked(user) {
        return;
    }
    let name = user.get("reference").and_then(Value::as_str).filter(|name| ["initial", "previous"].contains(name));
    let Some(name) = name.map(str::to_owned) else { return };
    user.remove("reference");
    let rollout = user.entry("rollout").or_insert_with(|| Value::Table(Table::new()));
    if let Some(rollout) = rollout.as_table_mut() {
        rollout.insert("reference".to_owned(), Value::String(name));
    }
}

/// Adds the defaults of rounds, if the user asks for rounds. `rollout` are those of the method.
pub fn add_defaults(rollout: &RolloutSection, user: &Table, defaults: &mut Table) {
    if !is_asked(user) {
        return;
    }
    defaults.insert("rollout".to_owned(), Value::Table(to_table(rollout)));
    defaults.insert("reward".to_owned(), Value::Table(to_table(&RewardSection::default())));
    if let Some(train) = defaults.get_mut("train").and_then(Value::as_table_mut) {
        train.insert("epochs".to_owned(), Value::Float(1.0));
    }
}

fn is_asked(user: &Table) -> bool {
    user.get("rounds").and_then(Value::as_integer).is_some_and(|rounds| rounds > 0)
}

impl AlignConfig {
    /// Returns whether the policy is trained on its own samples.
    pub fn is_in_rounds(&self) -> bool {
        self.rounds.unwrap_or(0) > 0
    }

    /// Returns the number of rounds and their settings, if all are given and the policy is trained on its own samples.
    pub fn in_rounds(&self) -> Option<(u64, &RolloutSection, &RewardSection)> {
        let rounds = self.rounds.filter(|&rounds| rounds > 0)?;
        Some((rounds, self.rollout.as_ref()?, self.reward.as_ref()?))
    }
}

/// Notes what is wrong with the settings of rounds, and such settings without rounds.
pub fn validate(config: &AlignConfig, problems: &mut Problems<'_>) {
    if !config.is_in_rounds() {
        problems.require(
            !matches!(config.align.training(), Training::Sampled(_)),
            "rounds",
            format!(
                "`{}` trains on responses that the policy samples: set `rounds`, and a source of their rewards in `reward`",
                config.align.name()
            ),
        );
        for (section, is_given) in [
            ("rollout", config.rollout.is_some()),
            ("reward", config.reward.is_some()),
            ("watch", config.watch.is_some()),
            ("guards", config.guards.is_some()),
            ("sft_data", config.sft_data.is_some()),
        ] {
            problems.require(
                !is_given,
                section,
                format!("`{section}` belongs to rounds, and the responses of the data are trained on: set `rounds`, or leave it out"),
            );
        }
        return;
    }
    let passes = config.rollout.as_ref().map_or(1, |rollout| rollout.epochs_per_round);
    problems.require(
        config.rounds.is_none_or(|rounds| rounds.saturating_mul(passes) <= MOST_PASSES),
        "rounds",
        format!("`rounds` times `rollout.epochs_per_round` must be at most {MOST_PASSES}"),
    );
    if let Some(rollout) = &config.rollout {
        validate_rollout(rollout, problems);
        validate_method(&config.align, rollout, problems);
        problems.require(
            rollout.reference == RoundReference::Initial || config.reference.is_none(),
            "rollout.reference",
            "with rollout.reference = \"previous\" the policy itself is the reference: leave `reference` out",
        );
        problems.require(
            rollout.reference == RoundReference::Initial || config.align.about().reference,
            "rollout.reference",
            format!("`{}` has no reference model: leave `rollout.reference` out", config.align.name()),
        );
    }
    if let Some(watch) = &config.watch {
        validate_reward(watch, "watch", problems);
    }
    if let Some(reward) = &config.reward {
        validate_reward(reward, "reward", problems);
        problems.require(
            reward.missing_stop_penalty == 0.0 || own_penalty(&config.align) == 0.0,
            "reward.missing_stop_penalty",
            "`reward.missing_stop_penalty` and `align.missing_stop_penalty` would both be subtracted: leave one of them out",
        );
    }
    value::validate(config, problems);
    problems.require(
        config.eval_data.is_none() || config.stop.max_kl.is_some(),
        "eval_data",
        "rounds have no loss on the responses of a file: leave `eval_data` out, and compare models with `setpoint eval`; its prompts serve \
         `align.max_kl` alone",
    );
    problems.require(
        config.train.epochs == 1.0,
        "train.epochs",
        "the passes over a round's responses are `rollout.epochs_per_round`: leave `train.epochs` out",
    );
}

fn validate_rollout(rollout: &RolloutSection, problems: &mut Problems<'_>) {
    for (name, count) in [
        ("prompts", rollout.prompts as u64),
        ("samples", rollout.samples as u64),
        ("max_new_tokens", rollout.max_new_tokens as u64),
        ("epochs_per_round", rollout.epochs_per_round),
        ("chunk_rows", rollout.chunk_rows as u64),
        ("keep_rounds", rollout.keep_rounds.unwrap_or(1)),
    ] {
        let key = format!("rollout.{name}");
        problems.require(count > 0, &key, format!("`{key}` must be at least 1; found 0"));
    }
    let temperature = rollout.temperature;
    problems.require(
        temperature.is_finite() && temperature > 0.0,
        "rollout.temperature",
        format!(
            "`rollout.temperature` must be a number above 0, so that the samples of a prompt differ; found {temperature}"
        ),
    );
    remote::validate(rollout, problems);
}

/// Returns whether a method takes the samples for those of the policy at the beginning of the round.
fn assumes_policy(training: &Training, level: Option<LogZ0>) -> bool {
    match training {
        // QRPO's rewards are shares of a prompt's samples that are not better.
        Training::Rows(objective) => objective.desirable().is_none(),
        Training::Sampled(_) => true,
        _ => level == Some(LogZ0::PerPrompt),
    }
}

/// Returns whether a method that takes the samples for the policy's own knows nothing of a temperature: its log-probabilities are those at 1.
fn ignores_temperature(training: &Training) -> bool {
    matches!(training, Training::Rows(objective) if objective.desirable().is_none())
}

/// Returns the temperature at which the log-probabilities of the policy that samples are computed: that of the samples if the method asks
/// how probable they were.
pub fn policy_temperature(method: &Method, rollout: &RolloutSection) -> f64 {
    match assumes_policy(&method.training(), method.level()) {
        true => rollout.temperature,
        false => 1.0,
    }
}

/// Returns the temperature at which the policy is trained, and the reference computed: that of the samples for policy gradients, whose
/// policy is the one that sampled.
pub fn trained_temperature(method: &Method, rollout: &RolloutSection) -> f64 {
    if matches!(method.training(), Training::Sampled(_)) { rollout.temperature } else { 1.0 }
}

/// Notes where a method and the way in which responses are sampled do not go together.
fn validate_method(method: &Method, rollout: &RolloutSection, problems: &mut Problems<'_>) {
    let (name, samples) = (method.name(), rollout.samples);
    let level = method.level();
    let training = method.training();
    if let Training::Pairs(pairwise) = &training {
        problems.require(
            pairwise.reward_files().is_empty(),
            "align.ensemble",
            "the files of an ensemble hold rewards of the data's responses, and rounds sample others: leave `align.ensemble` out",
        );
    }
    problems.require(
        !compares(&training) || samples >= 2,
        "rollout.samples",
        format!("`{name}` compares the responses of a prompt: set `rollout.samples` to at least 2; found {samples}"),
    );
    problems.require(
        !ignores_temperature(&training) || rollout.temperature == 1.0,
        "rollout.temperature",
        format!(
            "`{name}` takes the samples for those of the policy itself, which they are at temperature 1 alone: found {}",
            rollout.temperature
        ),
    );
    problems.require(
        !assumes_policy(&training, level) || rollout.server.is_none() || rollout.reload.is_some(),
        "rollout.reload",
        format!(
            "`{name}` takes the samples for those of the policy, and the server keeps the weights that it has: set `rollout.reload` to a \
             command that loads those of each round"
        ),
    );
    problems.require(
        !matches!(level, Some(LogZ0::KeepChosen { .. } | LogZ0::Auto { .. })),
        "align.log_z0",
        "`keep_chosen` is about the chosen responses of a file, and rounds have none: give \"mean\", \"per_prompt\" or a number",
    );
}

/// Returns the penalty for a missing stop token among the settings of the method itself; 0 if it has no such setting.
fn own_penalty(method: &Method) -> f64 {
    let settings = serde_json::to_value(method).unwrap_or_default();
    settings.get("missing_stop_penalty").and_then(serde_json::Value::as_f64).unwrap_or(0.0)
}

/// Returns whether a method compares the responses of a prompt, so that one alone teaches nothing.
pub fn compares(training: &Training) -> bool {
    match training {
        Training::Prompts(objective) => {
            let (transform, _) = objective.reward_transform();
            objective.level() == Some(LogZ0::PerPrompt) || transform == RewardTransform::CenterPerPrompt
        }
        Training::Pairs(_) | Training::Best => true,
        Training::Rows(objective) => !matches!(objective.desirable(), Some(Desirable::Above(_))),
        Training::RowsWithValue(_) => false,
        Training::Sampled(objective) => objective.least_samples() >= 2,
    }
}

/// Notes what is wrong with a source of rewards, whose settings are those of `section`.
fn validate_reward(reward: &RewardSection, section: &str, problems: &mut Problems<'_>) {
    let model = reward.reward_model();
    let entries = sources::with_model("model", &model, reward.sources.entries());
    let prefix = format!("{section}.");
    sources::require_chosen("source of rewards for the sampled responses", &prefix, section, &entries, problems);
    sources::validate(&prefix, &entries, ("give one source of rewards", None), problems);
    problems.require(
        reward.sources.column.0.is_none(),
        &format!("{section}.column"),
        "a column holds the rewards of the responses in the file, and rounds sample others: give another source of rewards",
    );
    problems.require(
        !reward.normalize || reward.model.path.is_some(),
        &format!("{section}.normalize"),
        "only a reward model stores a mean and deviation to apply",
    );
    problems.require(reward.batch_tokens > 0, &format!("{section}.batch_tokens"), "must be at least 1");
    let penalty = reward.missing_stop_penalty;
    let key = format!("{section}.missing_stop_penalty");
    problems.require(
        penalty.is_finite() && penalty >= 0.0,
        &key,
        format!("`{key}` must be a number of at least 0; found {penalty}"),
    );
}

/// Returns the most examples that a round makes of its responses: prompts, pairs or single responses.
pub fn most_examples(method: &Method, rollout: &RolloutSection) -> usize {
    let RolloutSection { prompts, samples, .. } = *rollout;
    match method.training() {
        Training::Prompts(_) | Training::Best => prompts,
        Training::Pairs(pairwise) => match pairwise.pairs {
            PairRule::BestWorst | PairRule::BestRandom => prompts,
            PairRule::All => prompts.saturating_mul(samples.saturating_mul(samples.saturating_sub(1)) / 2),
        },
        Training::Rows(_) | Training::RowsWithValue(_) | Training::Sampled(_) => prompts.saturating_mul(samples),
    }
}
