//! Binary Classifier Optimization on pairs, without its reward shift.

use crate::objective::Objective;
use crate::pair::{Pair, PairLoss};
use crate::pairwise::{PairBatch, PairObjective, PairOutput};
use crate::settings::settings;
use crate::stable::log_sigmoid;

settings! {
    /// The settings of [`bco_pair`].
    pub struct BcoPairSettings {
        /// Strength of the pull to the reference.
        beta: f64 = 0.01, POSITIVE;
    }
}

impl Objective for BcoPairSettings {
    const TITLE: &'static str = "Binary Classifier Optimization";
    const SOURCE: &'static str = "Jung et al. 2024";
}

impl PairObjective for BcoPairSettings {
    fn losses(&self, batch: &PairBatch) -> PairOutput {
        bco_pair(batch.log_ratios(), self).into()
    }
}

/// BCO on pairs (Jung et al. 2024; trl's `bco_pair`).
///
/// ```text
/// loss = −log σ(β·h_w) − log σ(−β·h_l)
/// ```
///
/// Traps: the paper subtracts a running mean δ of the rewards from both; trl 1.x dropped it, LLaMA-Factory keeps it. This is trl's form:
/// δ would be state, and its value would depend on how batches are cut.
///
/// # Shapes
/// `h`: the log-ratios of the two sides, `[b]` each.
///
/// # Units
/// Log-ratios in nats, summed over the response's tokens. Implicit rewards `β·h`.
pub fn bco_pair(h: Pair, settings: &BcoPairSettings) -> PairLoss {
    let rewards = settings.beta * h;
    let logged = rewards.without_graph();
    PairLoss { losses: -(log_sigmoid(rewards.chosen) + log_sigmoid(-rewards.rejected)), rewards: logged }
}
