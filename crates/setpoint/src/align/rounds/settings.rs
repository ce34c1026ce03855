//! Settings of rounds: `rounds`, `[rollout]` and `[reward]` of `setpoint align`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use setpoint_align::online::SamplingCorrection;
use setpoint_align::{Desirable, LogZ0, Method, PairRule, RewardTransform, Training};
use toml::{Table, Value};

use super::super::settings::AlignConfig;
use super::remote::ReloadSettings;
use crate::annotate::AnnotateConfig;
use crate::config::flat::flat_section;
use crate::config::load::to_table;
use crate::config::sections::ModelSection;
use crate::server::ServerSettings;
use crate::sources::{ModelSettings, Sources};

/// The number of prompts of a round, if the data has so many.
const PROMPTS: usize = 64;
/// The least number of responses in a part, and the largest one, if the settings name none. In a part of as many responses as are sampled
/// at the same time, places stay empty while the last ones end; in a part of eight times as many, for an eighth of that time.
const CHUNK_ROWS: [usize; 2] = [64, 512];
/// The limit of the correction for what sampled, as in trl 1.16.
const CORRECTION_MAX: f64 = 3.0;

/// `[rollout]`: the responses that the policy samples at the beginning of each round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RolloutSection {
    /// The number of prompts of a round: the next ones of the shuffled data. By default 64, or all prompts of the data if it has fewer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), extend("x-unit" = "prompts"))]
    pub prompts: Option<usize>,
    /// The number of responses to each prompt. The default depends on the method: 2 for pairs and RLOO, 8 for GRPO, 1 for PPO and
    /// REINFORCE++, 4 for the others.
    #[schemars(range(min = 1), extend("x-unit" = "responses"))]
    pub samples: usize,
    /// The greatest number of tokens of a response, its stop token included.
    #[schemars(range(min = 1), extend("x-unit" = "tokens"))]
    pub max_new_tokens: usize,
    /// Divides the logits.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub temperature: f64,
    /// Samples from this many of the likeliest tokens; by default from all. Refused if the method takes the samples for those of the policy
    /// itself, as PPO, RLOO, GRPO and REINFORCE++ do.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 2), extend("x-unit" = "tokens"))]
    pub top_k: Option<usize>,
    /// Samples from the likeliest tokens that together have this share of the probability; by default from all. Refused as `top_k` is.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1), extend("exclusiveMinimum" = 0))]
    pub top_p: Option<f64>,
    /// Passes over the responses of a round: 4 for PPO, 1 for the others.
    #[schemars(range(min = 1), extend("x-unit" = "epochs"))]
    pub epochs_per_round: u64,
    /// Responses that are generated, scored and written together; a run that is killed loses at most as many. By default each device has
    /// an equal part of a round, of at least 64 and at most 512.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), extend("x-unit" = "responses"))]
    pub chunk_rows: Option<usize>,
    /// The reference model of the log-ratios.
    pub reference: RoundReference,
    /// Scores the responses under the reference also if the method has none, such as GRPO with `align.beta = 0`, so that `objective/kl` is
    /// logged and guarded. It costs a pass without a gradient over the responses, and the memory of a frozen copy of the weights: none
    /// with an adapter or with `keep = "reload"`.
    pub log_kl: bool,
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
    /// Multiplies the policy's loss by how much likelier the policy makes what was sampled than the sampler did (trl's
    /// `vllm_importance_sampling_mode`): by token or by response, limited (`"…_truncate"`) or left out above the limit (`"…_mask"`). For
    /// PPO, RLOO, GRPO and REINFORCE++; by default the loss is not corrected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correction: Option<SamplingCorrection>,
    /// The limit of the correction; by default 3.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub correction_max: Option<f64>,
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
            prompts: None,
            samples: 4,
            max_new_tokens: 512,
            temperature: 1.0,
            top_k: None,
            top_p: None,
            epochs_per_round: 1,
            chunk_rows: None,
            reference: RoundReference::Initial,
            log_kl: true,
            keep: Keep::Memory,
            keep_rounds: None,
            server: None,
            correction: None,
            correction_max: None,
            reload: None,
        }
    }
}

impl RolloutSection {
    /// Returns the number of prompts of a round.
    pub fn prompts(&self) -> usize {
        self.prompts.unwrap_or(PROMPTS)
    }

    /// Returns the number of prompts of a round if the settings name none, of data with so many.
    pub fn default_prompts(all: usize) -> usize {
        PROMPTS.min(all)
    }

    /// Returns the number of responses in a part.
    pub fn chunk_rows(&self) -> usize {
        self.chunk_rows.unwrap_or(CHUNK_ROWS[0])
    }

    /// Returns the number of responses in a part if the settings name none, so that each of some devices has one.
    pub fn default_chunk_rows(&self, devices: usize) -> usize {
        let [least, most] = CHUNK_ROWS;
        self.prompts().div_ceil(devices.max(1)).saturating_mul(self.samples).clamp(least, most)
    }

    /// Returns the number of responses of a round.
    pub fn responses(&self) -> usize {
        self.prompts().saturating_mul(self.samples)
    }

    /// Returns the correction of the loss for what sampled, and its limit.
    pub fn correction(&self) -> Option<(SamplingCorrection, f64)> {
        Some((self.correction?, self.correction_max.unwrap_or(CORRECTION_MAX)))
    }

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

/// `[reward]` and `[watch]`: the source of the rewards of sampled responses, one of those of `setpoint annotate`, or several with weights.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(remote = "Self", deny_unknown_fields, default)]
#[schemars(rename = "RoundReward")]
pub struct RewardSection {
    /// The reward model; or one of the other sources.
    pub model: ModelSection,
    /// The other sources, `rule`, `command` and so on.
    #[serde(flatten, skip_deserializing)]
    pub sources: Sources,
    /// The weights of several sources, as in `{ model = 1.0, rule = 0.1 }`: the reward is the sum of theirs, each times its weight. A source
    /// that has none for a response is left out of the sum. Without weights there is one source.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub weights: BTreeMap<String, f64>,
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
            weights: BTreeMap::new(),
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

/// Returns whether a method takes the samples for those of the policy at the beginning of the round.
pub fn assumes_policy(training: &Training, level: Option<LogZ0>) -> bool {
    match training {
        // QRPO's rewards are shares of a prompt's samples that are not better.
        Training::Rows(objective) => objective.desirable().is_none(),
        Training::Sampled(_) => true,
        _ => level == Some(LogZ0::PerPrompt),
    }
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

/// Returns whether the log-probabilities of the policy that samples and of the reference are at the same temperature.
pub fn has_one_temperature(method: &Method, rollout: &RolloutSection) -> bool {
    policy_temperature(method, rollout) == trained_temperature(method, rollout)
}

/// Returns whether the samples of a round are those of the policy whose log-probabilities are computed, so that their mean log-ratio to the
/// reference estimates a KL divergence.
pub fn estimates_kl(method: &Method, rollout: &RolloutSection) -> bool {
    let is_own = rollout.server.is_none() || rollout.reload.is_some();
    let is_whole = rollout.top_k.is_none() && rollout.top_p.is_none_or(|p| p >= 1.0);
    is_own && is_whole && policy_temperature(method, rollout) == rollout.temperature
}

/// Returns whether the training path computes no log-probabilities of the policy that samples before it trains: in the only step of a round the
/// ratio of the policy to the one that sampled is 1, and nothing else asks for them. The step tells how far the generator's are from its own.
pub fn trains_at_once(config: &AlignConfig, rollout: &RolloutSection) -> bool {
    let Training::Sampled(objective) = config.align.training() else { return false };
    let is_asked =
        objective.has_value() || objective.uses_reference() || rollout.log_kl || rollout.correction.is_some();
    // A server may be silent about its log-probabilities.
    !is_asked
        && rollout.server.is_none()
        && rollout.epochs_per_round == 1
        && rollout.responses() <= config.train.batch_size
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

/// Returns the most examples that a round makes of its responses: prompts, pairs or single responses.
pub fn most_examples(method: &Method, rollout: &RolloutSection) -> usize {
    let (prompts, samples) = (rollout.prompts(), rollout.samples);
    match method.training() {
        Training::Prompts(_) | Training::Best => prompts,
        Training::Pairs(pairwise) => match pairwise.pairs {
            PairRule::BestWorst | PairRule::BestRandom => prompts,
            PairRule::All => prompts.saturating_mul(samples.saturating_mul(samples.saturating_sub(1)) / 2),
        },
        Training::Rows(_) | Training::RowsWithValue(_) | Training::Sampled(_) => rollout.responses(),
    }
}

/// Returns the most responses of a round that a method trains on in a pass over it.
pub fn trained_responses(method: &Method, rollout: &RolloutSection) -> usize {
    match method.training() {
        Training::Best => rollout.prompts(),
        Training::Pairs(_) => most_examples(method, rollout).saturating_mul(2),
        _ => rollout.responses(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_device_has_a_part_of_a_round_that_is_neither_small_nor_large() {
        let rows = |prompts: usize, samples: usize, devices: usize| {
            let rollout = RolloutSection { prompts: Some(prompts), samples, ..RolloutSection::default() };
            rollout.default_chunk_rows(devices)
        };
        assert_eq!([1, 2, 3, 8].map(|devices| rows(64, 4, devices)), [256, 128, 88, 64]);
        assert_eq!((rows(6, 4, 1), rows(64, 8, 1), rows(1000, 8, 2), rows(usize::MAX, 2, 1)), (64, 512, 512, 512));
        assert_eq!(RolloutSection { chunk_rows: Some(8), ..RolloutSection::default() }.chunk_rows(), 8);
    }
}
