//! The form in which pairwise objectives come to the task that trains by them.

use std::fmt;
use std::path::PathBuf;

use burn::tensor::Tensor;
use setpoint_align::{Error, Pair, PairLoss};

/// What a pairwise objective may look at: a micro-batch of `b` pairs.
pub struct PairBatch {
    /// `log π_θ(y|x)` of both sides, nats, with their graph, `[b]` each.
    pub logps: Pair,
    /// `log π_ref(y|x)`; zeros for objectives without a reference, which do not look.
    pub ref_logps: Pair,
    /// Tokens of the responses.
    pub tokens: Pair,
    /// Rewards of the responses, by reward model; empty where the data has none.
    pub rewards: Vec<Pair>,
    /// Each pair's share of the token-mean NLL of the batch's chosen responses, `[b]`.
    pub response_nll: Tensor<1>,
    /// The same with the chosen responses' prompts, where [`PairObjective::prompt_nll`] asks for it.
    pub whole_nll: Tensor<1>,
    /// What stands at the same rank of the whole batch, where [`PairObjective::ranked`] asks for it.
    pub ranks: Option<Ranks>,
    /// Share of the training that is done, for schedules.
    pub progress: f64,
}

impl PairBatch {
    /// `h` of both sides, `[b]` each.
    pub fn log_ratios(&self) -> Pair {
        self.logps.clone().minus(self.ref_logps.clone())
    }

    /// What stands at the same ranks.
    ///
    /// # Panics
    /// Where no objective of the task asked for it.
    pub fn ranks(&self) -> &Ranks {
        self.ranks.as_ref().expect("an objective that looks at ranks says so")
    }

    /// Log-probs per token, `[b]` each.
    pub fn mean_logps(&self) -> Pair {
        self.logps.clone().divided_by(self.tokens.clone())
    }
}

/// Values of other pairs of the whole batch, by rank; see [`setpoint_align::aot`] and [`setpoint_align::aot_unpaired`].
pub struct Ranks {
    /// The reference's margin of the rank of the pair's own margin, `[b]`.
    pub ref_margins: Tensor<1>,
    /// The other side's log-ratio of the rank of each side's own, `[b]` each.
    pub log_ratios: Pair,
}

/// A loss per pair, with what is logged beside it.
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

/// An objective of `setpoint-align` with its settings, brought into one form.
pub trait PairObjective: fmt::Debug + Send + Sync {
    /// Checks the settings' ranges.
    fn validate(&self) -> Result<(), Error>;

    /// The loss of each pair.
    fn losses(&self, batch: &PairBatch) -> PairOutput;

    /// Whether it looks at [`PairBatch::whole_nll`] beyond the response.
    fn prompt_nll(&self) -> bool {
        false
    }

    /// Files with the rewards of further reward models.
    fn reward_files(&self) -> &[PathBuf] {
        &[]
    }

    /// Whether it looks at [`PairBatch::ranks`]: a pass over the whole batch without a graph before every step.
    fn ranked(&self) -> bool {
        false
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
