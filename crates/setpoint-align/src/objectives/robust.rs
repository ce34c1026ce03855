//! Provably robust DPO: unbiased under labels that are flipped at a known rate.

use crate::objective::Objective;
use crate::pair::{Pair, PairLoss};
use crate::pairwise::{PairBatch, PairObjective, PairOutput};
use crate::settings::settings;
use crate::stable::log_sigmoid;

settings! {
    /// The settings of [`robust`].
    pub struct RobustSettings {
        /// Strength of the pull to the reference.
        beta: f64 = 0.01, POSITIVE;
        /// The rate ε at which labels are flipped.
        label_smoothing: f64 = 0.1, BELOW_HALF;
    }
}

impl Objective for RobustSettings {
    const TITLE: &'static str = "provably robust DPO, for flipped labels";
    const SOURCE: &'static str = "Chowdhury et al. 2024";
}

impl PairObjective for RobustSettings {
    fn losses(&self, batch: &PairBatch) -> PairOutput {
        robust(batch.log_ratios(), self).into()
    }
}

/// Robust DPO (Chowdhury et al. 2024, "Provably Robust DPO"; trl's `robust`).
///
/// ```text
/// x    = β(h_w − h_l)
/// loss = [−(1−ε)·log σ(x) + ε·log σ(−x)] / (1 − 2ε)
/// ```
///
/// Traps: the sign of the second term is the other way round than in cDPO ([`crate::dpo`] with label smoothing), so the loss has no
/// lower bound: it falls by `ε·β/(1 − 2ε)` per nat as the margin grows. ε is a property of the data; too large a value trains on noise.
///
/// # Shapes
/// `h`: the log-ratios of the two sides, `[b]` each.
///
/// # Units
/// Log-ratios in nats, summed over the response's tokens. Implicit rewards `β·h`.
pub fn robust(h: Pair, settings: &RobustSettings) -> PairLoss {
    let RobustSettings { beta, label_smoothing: e } = *settings;
    let rewards = beta * h.without_graph();
    let x = beta * (h.chosen - h.rejected);
    let unscaled = -(1.0 - e) * log_sigmoid(x.clone()) + e * log_sigmoid(-x);
    // Not a quotient: its gradient takes the reciprocal in f32, whatever the dtype.
    PairLoss { losses: unscaled * (1.0 / (1.0 - 2.0 * e)), rewards }
}
