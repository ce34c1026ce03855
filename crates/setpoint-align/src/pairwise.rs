//! The form that every pairwise objective has for the task that trains by it.

use std::fmt;
use std::path::PathBuf;

use burn::tensor::Tensor;

use crate::pair::{Pair, PairLoss};

/// A micro-batch of `b` pairs, with everything that a pairwise objective may look at.
pub struct PairBatch {
    /// `log π_θ(y|x)` of both sides, nats, with their graph, `[b]` each.
    pub logps: Pair,
    /// `log π_ref(y|x)`; zeros for objectives without a reference, which do not look.
    pub ref_logps: Pair,
    /// Tokens of the responses.
    pub tokens: Pair,
    /// Rewards of the responses, by reward model; empty if the data has none.
    pub rewards: Vec<Pair>,
    /// Each pair's share of the token-mean NLL of the batch's chosen responses, `[b]`.
    pub response_nll: Tensor<1>,
    /// The same with the chosen responses' prompts, if [`PairObjective::prompt_nll`] asks for it.
    pub whole_nll: Tensor<1>,
    /// The columns of [`PairObjective::survey`], `[b]` each; empty for objectives without one.
    pub survey: Vec<Tensor<1>>,
    /// Share of the training that is done, for schedules.
    pub progress: f64,
}

impl PairBatch {
    /// Returns the log-ratios `h` of both sides, `[b]` each.
    pub fn log_ratios(&self) -> Pair {
        self.logps.clone() - self.ref_logps.clone()
    }

    /// Returns the log-probs per token, `[b]` each.
    pub fn mean_logps(&self) -> Pair {
        self.logps.clone() / self.tokens.clone()
    }
}

/// One number for the chosen and one for the rejected response of a pair.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Sides {
    /// The chosen response's.
    pub chosen: f64,
    /// The rejected response's.
    pub rejected: f64,
}

impl Sides {
    /// Returns chosen minus rejected.
    pub fn margin(self) -> f64 {
        self.chosen - self.rejected
    }
}

/// A pair of the whole batch, as the model sees it before the step.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct SurveyedPair {
    /// `log π_θ(y|x)` of both sides, nats.
    pub logps: Sides,
    /// `log π_ref(y|x)` of both sides, nats.
    pub ref_logps: Sides,
}

impl SurveyedPair {
    /// Returns the log-ratios `h` of both sides.
    pub fn log_ratios(&self) -> Sides {
        let Self { logps, ref_logps } = self;
        Sides { chosen: logps.chosen - ref_logps.chosen, rejected: logps.rejected - ref_logps.rejected }
    }
}

/// A loss per pair, with what is logged with it.
pub struct PairOutput {
    /// Losses and implicit rewards.
    pub loss: PairLoss,
    /// Further values per pair, by the name they are logged under.
    pub metrics: Vec<(&'static str, Tensor<1>)>,
}

impl From<PairLoss> for PairOutput {
    fn from(loss: PairLoss) -> Self {
        Self { loss, metrics: Vec::new() }
    }
}

/// A pairwise objective with its settings.
pub trait PairObjective: fmt::Debug + Send + Sync {
    /// Computes the loss of each pair.
    fn losses(&self, batch: &PairBatch) -> PairOutput;

    /// Returns whether it looks at [`PairBatch::whole_nll`].
    fn prompt_nll(&self) -> bool {
        false
    }

    /// Returns the files with the rewards of further reward models.
    fn reward_files(&self) -> &[PathBuf] {
        &[]
    }

    /// Returns whether it has a [`survey`](Self::survey): a pass over the whole batch without a graph before every step.
    fn surveys(&self) -> bool {
        false
    }

    /// Computes, from all pairs of the global batch, the numbers that a pair cannot know alone, such as its rank: any
    /// number of columns with an entry per pair, which come back in [`PairBatch::survey`].
    fn survey(&self, _batch: &[SurveyedPair]) -> Vec<Vec<f64>> {
        Vec::new()
    }
}

/// One of the objectives that a task adds up.
#[derive(Debug)]
pub struct WeightedObjective {
    /// Its name, for metrics.
    pub name: &'static str,
    /// Its weight.
    pub weight: f64,
    /// The objective.
    pub objective: Box<dyn PairObjective>,
}
