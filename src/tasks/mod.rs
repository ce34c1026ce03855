//! What the engine trains: each task turns some examples into a loss with a graph. The objectives themselves are pure functions in
//! `setpoint-align`; a task brings them together with the model.

pub mod dpo;
pub mod dro;
pub mod sft;

#[cfg(test)]
mod golden;

use setpoint_align::{Metrics, Role};
use setpoint_train::{MetricSums, Sequence};

/// A prompt with its scored responses, as tokens.
#[derive(Debug, Clone)]
pub struct ScoredPrompt {
    /// File and row, for messages.
    pub name: String,
    /// Prompt and response, one per response.
    pub sequences: Vec<Sequence>,
    /// The reward of each response, transformed and scaled; empty for methods that use none.
    pub rewards: Vec<f64>,
    /// The side each response stands on.
    pub roles: Vec<Option<Role>>,
    /// The chosen and the rejected response that stand for the prompt in pairwise metrics and in DPO.
    pub pair: Option<(usize, usize)>,
    /// `log π_ref(y|x)` of each response, nats.
    pub ref_logps: Vec<f64>,
    /// `log π_ref` of the prompt's tokens after t0, nats.
    pub ref_prompt_logp: f64,
}

impl ScoredPrompt {
    /// Tokens of all its sequences.
    pub fn tokens(&self) -> usize {
        self.sequences.iter().map(|s| s.ids.len()).sum()
    }
}

/// Hands the objective's metrics over to the engine, which adds those of the micro-batches up.
fn metric_sums(metrics: &Metrics) -> MetricSums {
    let mut sums = MetricSums::new();
    for (name, moments) in metrics.moments() {
        sums.mean(name, moments.mean * moments.count, moments.count);
        if name.starts_with("dro/") && name != "dro/infeasible_frac" {
            sums.std_of(&format!("{name}_std"), moments.count, moments.mean, moments.std());
            sums.max(&format!("{name}_max"), moments.max);
        }
    }
    sums
}
