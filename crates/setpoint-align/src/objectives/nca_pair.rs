//! Noise Contrastive Alignment on pairs: absolute likelihoods, not their difference.

use crate::objective::Objective;
use crate::pair::{Pair, PairLoss};
use crate::pairwise::{PairBatch, PairObjective, PairOutput};
use crate::settings::settings;
use crate::stable::log_sigmoid;

settings! {
    /// The settings of [`nca_pair`].
    pub struct NcaPairSettings {
        /// The paper's α.
        beta: f64 = 0.01, POSITIVE;
    }
}

impl Objective for NcaPairSettings {
    const TITLE: &'static str = "Noise Contrastive Alignment";
    const SOURCE: &'static str = "Chen et al. 2024";
}

impl PairObjective for NcaPairSettings {
    fn losses(&self, batch: &PairBatch) -> PairOutput {
        nca_pair(batch.log_ratios(), self).into()
    }
}

/// NCA on pairs (Chen et al. 2024; trl's `nca_pair`).
///
/// ```text
/// attract = log σ(β·h_w)
/// repel   = log σ(−β·h_w) + log σ(−β·h_l)
/// loss    = −(attract + ½·repel)
/// ```
///
/// Traps: `repel` holds the chosen response back: for it alone the loss is least at `σ(β·h_w) = ⅔`, i.e. `h_w = ln 2/β`.
///
/// # Shapes
/// `h`: the log-ratios of the two sides, `[b]` each.
///
/// # Units
/// Log-ratios in nats, summed over the response's tokens. Implicit rewards `β·h`.
pub fn nca_pair(h: Pair, settings: &NcaPairSettings) -> PairLoss {
    let rewards = settings.beta * h;
    let logged = rewards.without_graph();
    let attract = log_sigmoid(rewards.chosen.clone());
    let repel = log_sigmoid(-rewards.chosen) + log_sigmoid(-rewards.rejected);
    PairLoss { losses: -(attract + repel * 0.5), rewards: logged }
}
