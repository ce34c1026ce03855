//! The time and memory of rounds besides those of the training itself.

use std::fmt;

use serde::Serialize;
use setpoint_data::{Lengths, counted};

use super::RunPlan;
use crate::session::memory::size;

/// The time and memory that rounds add to a training: the responses are sampled and scored before they are trained on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct RoundsPlan {
    /// Number of rounds.
    pub rounds: u64,
    /// Prompts of a round.
    pub prompts: usize,
    /// Responses to each prompt.
    pub samples: usize,
    /// The greatest number of tokens of a response.
    pub max_new_tokens: usize,
    /// Prompts of the data.
    pub all_prompts: usize,
    /// Their lengths, tokens.
    #[serde(skip)]
    pub lengths: Lengths,
    /// Floating-point operations of sampling and scoring in all rounds, if every response is as long as it may be.
    pub operations: f64,
    /// Parameters of the models that only score and stay in memory.
    pub kept: f64,
    /// Parameters of those that are in memory at once while a round is scored.
    pub scoring: f64,
    /// Bytes of the keys and values of the responses that are sampled at the same time.
    pub cache: f64,
}

/// Bytes of a weight in a number format.
fn bytes(dtype: &str) -> f64 {
    if dtype == "f32" { 4.0 } else { 2.0 }
}

impl RoundsPlan {
    /// Tells how often the rounds ask a prompt of the data.
    fn data(&self) -> String {
        let Lengths { min, median, p95, max } = self.lengths;
        let asked = self.rounds as f64 * self.prompts as f64;
        let times = asked / self.all_prompts.max(1) as f64;
        format!(
            "{} (tokens: min {min}, median {median}, p95 {p95}, max {max}); the rounds ask {asked:.0}, each {times:.2} times on average",
            counted(self.all_prompts, "prompt")
        )
    }

    /// Writes the line of a plan.
    pub(super) fn write(&self, f: &mut fmt::Formatter<'_>, dtype: &str) -> fmt::Result {
        writeln!(
            f,
            "rounds    {} of {} with {} each, of at most {}: sampling and scoring take {:.2e} operations at most, {} of keys and values, and \
             {} of reference and reward models that stay in memory",
            self.rounds,
            counted(self.prompts, "prompt"),
            counted(self.samples, "response"),
            counted(self.max_new_tokens, "token"),
            self.operations,
            size(self.cache),
            size(bytes(dtype) * self.kept)
        )
    }
}

impl RunPlan {
    /// The plan of a training in rounds. Models that only score have the policy's number format; sampling and training take turns, so the
    /// peak is that of one of them.
    pub fn with_rounds(mut self, rounds: RoundsPlan) -> Self {
        let bytes = bytes(self.dtype);
        for (memory, peak) in self.memories() {
            let sampling = memory.weights + memory.optimizer + memory.other + bytes * rounds.scoring + rounds.cache;
            *peak = (*peak + bytes * rounds.kept).max(sampling);
        }
        self.operations += rounds.operations;
        self.data = rounds.data();
        self.rounds = Some(rounds);
        // Its remedies are not those of rounds.
        self.warning = None;
        self.compared()
    }
}
