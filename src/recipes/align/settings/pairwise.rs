//! Settings of the pairwise methods: what they share, and those that the objectives alone do not have.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use setpoint_align::{OrpoSettings, RpoSettings};

use super::method::MixedLoss;
use crate::tasks::pair_objective::WeightedObjective;

/// The settings of a pairwise method: its objective's, and what all of them have.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pairwise<S> {
    /// The objective's own settings.
    #[serde(flatten)]
    pub objective: S,
    /// How pairs are formed.
    #[serde(default)]
    pub pairs: PairRule,
    /// Weight of the token-mean NLL of the chosen responses.
    #[serde(default)]
    pub nll_weight: f64,
}

/// How pairs are formed from the responses of a prompt.
///
/// By labels where a row has any (every chosen response is better than every rejected one), else by rewards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PairRule {
    /// One pair: the best and the worst response; by labels the first of each side.
    #[default]
    BestWorst,
    /// One pair: the best response and a random worse one, drawn once from `train.seed`.
    BestRandom,
    /// Every pair of a better and a worse response.
    All,
}

/// A pairwise method as a task needs it.
#[derive(Debug)]
pub struct PairwiseMethod {
    /// The objectives with their weights: one, or those of a mixture.
    pub objectives: Vec<WeightedObjective>,
    /// How pairs are formed.
    pub pairs: PairRule,
    /// Weight of the NLL.
    pub nll_weight: f64,
    /// Files with the rewards of further reward models.
    pub ensemble: Vec<PathBuf>,
}

/// Settings of ORPO.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OrpoSection {
    /// Weight of the odds-ratio term.
    pub lambda: f64,
    /// What the NLL counts.
    pub nll_on: NllOn,
}

impl Default for OrpoSection {
    fn default() -> Self {
        Self { lambda: OrpoSettings::default().lambda, nll_on: NllOn::PromptAndResponse }
    }
}

/// Tokens that ORPO's NLL counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NllOn {
    /// Prompt and chosen response, as in the paper and trl.
    PromptAndResponse,
    /// The chosen response.
    Response,
}

/// Settings of reward distillation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RpoSection {
    /// Reward per nat of log-ratio.
    pub beta: f64,
    /// Weight of the pessimistic term.
    pub pessimism: f64,
    /// The training file annotated by further reward models: the loss is that of the model it is least under.
    pub ensemble: Vec<PathBuf>,
}

impl Default for RpoSection {
    fn default() -> Self {
        let RpoSettings { beta, pessimism } = RpoSettings::default();
        Self { beta, pessimism, ensemble: Vec::new() }
    }
}

/// Settings of several losses at once.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MixSection {
    /// The losses, each a table with `method`, `weight` and the objective's settings.
    pub losses: Vec<MixedLoss>,
    /// How pairs are formed.
    pub pairs: PairRule,
    /// Weight of the token-mean NLL of the chosen responses.
    pub nll_weight: f64,
}

/// One loss of several.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Weighted<S> {
    /// Its weight.
    #[serde(default = "one")]
    pub weight: f64,
    /// The objective's settings.
    #[serde(flatten)]
    pub objective: S,
}

fn one() -> f64 {
    1.0
}
