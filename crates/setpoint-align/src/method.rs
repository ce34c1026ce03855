//! Methods as a config file sets them, and as their tasks need them. The list of objectives makes [`Method`] itself.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::log_z0::LogZ0;
use crate::objective::{About, Axis, Objective};
use crate::objectives::{DroVSettings, METHODS, Method, MixedLoss};
use crate::online::{ONLINE_METHODS, OnlineObjective, PpoSettings};
use crate::pairwise::WeightedObjective;
use crate::prompts::PromptObjective;
use crate::row::RowObjective;
use crate::settings::{Problem, Settings};

/// A method as its task needs it, by what it trains on.
#[derive(Debug)]
pub enum Training {
    /// All responses of a prompt at once.
    Prompts(Box<dyn PromptObjective>),
    /// Pairs of responses.
    Pairs(PairwiseMethod),
    /// Single responses.
    Rows(Box<dyn RowObjective>),
    /// Single responses, and a network that learns the value of their prompts.
    RowsWithValue(DroVSettings),
    /// The best response of each prompt.
    Best,
    /// Responses that the policy samples during training.
    Sampled(Box<dyn OnlineObjective>),
}

/// A pairwise method as its task needs it.
#[derive(Debug)]
pub struct PairwiseMethod {
    /// The objectives with their weights: one, or those of a mixture.
    pub objectives: Vec<WeightedObjective>,
    /// The rule by which pairs are formed.
    pub pairs: PairRule,
    /// Weight of the NLL.
    pub nll_weight: f64,
}

impl PairwiseMethod {
    /// Returns the files with the rewards of further reward models.
    pub fn reward_files(&self) -> Vec<PathBuf> {
        self.objectives.iter().flat_map(|part| part.objective.reward_files()).cloned().collect()
    }
}

/// The settings of a pairwise method: its objective's, and those that all of them have.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pairwise<S> {
    /// The objective's own settings.
    #[serde(flatten)]
    pub objective: S,
    /// The rule by which pairs are formed.
    #[serde(default)]
    pub pairs: PairRule,
    /// Weight of the token-mean NLL of the chosen responses.
    #[serde(default)]
    pub nll_weight: f64,
}

/// The rule by which pairs are formed from the responses of a prompt.
///
/// By labels if a row has any (every chosen response is better than every rejected one), else by rewards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
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

/// Settings of several losses at once.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Mix {
    /// The losses, each a table with `method`, `weight` and the objective's settings.
    pub losses: Vec<MixedLoss>,
    /// The rule by which pairs are formed.
    pub pairs: PairRule,
    /// Weight of the token-mean NLL of the chosen responses.
    pub nll_weight: f64,
}

/// One loss of several.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Weighted<S> {
    /// The weight of the loss.
    #[serde(default = "one")]
    pub weight: f64,
    /// The objective's settings.
    #[serde(flatten)]
    pub objective: S,
}

fn one() -> f64 {
    1.0
}

impl<S: Settings> Settings for Pairwise<S> {
    fn validate(&self) -> Result<(), Error> {
        self.objective.validate()
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems = self.objective.problems();
        problems.extend(nll_problem(self.nll_weight));
        problems
    }
}

impl Objective for Mix {
    const TITLE: &'static str = "several pairwise losses with weights";
    const SOURCE: &'static str = "as trl's lists of `loss_type`";
    const SEARCH: &'static [Axis] = &[];
}

impl Settings for Mix {
    fn validate(&self) -> Result<(), Error> {
        self.losses.iter().try_for_each(|loss| loss.settings().validate())
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut wrong = |message: String| problems.push(Problem::new(Some("losses"), message));
        for loss in &self.losses {
            loss.settings().problems().into_iter().for_each(|problem| wrong(problem.message));
            let WeightedObjective { name, weight, .. } = loss.objective();
            if !weight.is_finite() {
                wrong(format!("the weight of `{name}` must be a number"));
            }
        }
        problems.extend(nll_problem(self.nll_weight));
        let mut wrong = |message: &str| problems.push(Problem::new(Some("losses"), message));
        if self.losses.is_empty() {
            wrong("a mixture has at least one loss, as in align.losses = [{ method = \"dpo\", weight = 1.0 }]");
        }
        if self.losses.iter().filter(|loss| !loss.objective().objective.reward_files().is_empty()).count() > 1 {
            wrong("only one of the losses can have an `ensemble`");
        }
        problems
    }
}

fn nll_problem(weight: f64) -> Option<Problem> {
    (!weight.is_finite() || weight < 0.0).then(|| Problem::new(Some("nll_weight"), "must be at least 0"))
}

impl Method {
    /// Describes the method; a mixture needs what any of its losses needs.
    pub fn about(&self) -> About {
        let of = |name: &str| METHODS.iter().chain(ONLINE_METHODS).copied().find(|about| about.name == name);
        let own = of(self.name()).unwrap_or(METHODS[0]);
        if let Training::Sampled(objective) = self.training() {
            return About { reference: objective.uses_reference(), ..own };
        }
        let Self::Mix(mix) = self else { return own };
        let parts: Vec<About> = mix.losses.iter().filter_map(|loss| of(loss.objective().name)).collect();
        About {
            reference: parts.iter().any(|part| part.reference),
            rewards: parts.iter().any(|part| part.rewards),
            ..own
        }
    }

    /// Returns the method if it trains on pairs.
    pub fn pairwise(&self) -> Option<PairwiseMethod> {
        match self.training() {
            Training::Pairs(method) => Some(method),
            _ => None,
        }
    }

    /// Returns the settings of PPO, if it is that: the method of sampled responses with a value network.
    pub fn ppo(&self) -> Option<&PpoSettings> {
        match self {
            Self::Ppo(settings) => Some(settings),
            _ => None,
        }
    }

    /// Returns the level of the targets, if the method has targets: the audit judges them before training.
    pub fn level(&self) -> Option<LogZ0> {
        match self.training() {
            Training::Prompts(objective) => objective.level(),
            _ => None,
        }
    }

    /// Returns whether it looks at the log-probabilities of prompts: for DRO's prompt term, or an NLL that counts the prompt.
    pub fn scores_prompts(&self) -> bool {
        match self.training() {
            Training::Prompts(objective) => objective.scored_prompts().is_some(),
            Training::Pairs(method) => method.objectives.iter().any(|part| part.objective.prompt_nll()),
            Training::Rows(_) | Training::RowsWithValue(_) | Training::Best | Training::Sampled(_) => false,
        }
    }

    /// Returns everything that is wrong with its settings.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = self.settings().problems();
        if let Training::Sampled(objective) = self.training() {
            problems.extend(objective.problems());
        }
        problems
    }
}
