//! Efficient Exact Optimization on pairs: the reverse KL to a smoothed label.

use crate::objective::Objective;
use crate::pair::{Pair, PairLoss};
use crate::pairwise::{PairBatch, PairObjective, PairOutput};
use crate::settings::settings;
use crate::stable::{log_sigmoid, sigmoid};

settings! {
    /// The settings of [`exo_pair`].
    pub struct ExoPairSettings {
        /// Strength of the pull to the reference.
        beta: f64 = 0.1, POSITIVE;
        /// The probability ε that the label gives to the rejected response.
        label_smoothing: f64 = 0.001, WITHIN_HALF;
    }
}

impl Objective for ExoPairSettings {
    const TITLE: &'static str = "Efficient Exact Optimization";
    const SOURCE: &'static str = "Ji et al. 2024";
}

impl PairObjective for ExoPairSettings {
    fn losses(&self, batch: &PairBatch) -> PairOutput {
        exo_pair(batch.log_ratios(), self).into()
    }
}

/// EXO on pairs (Ji et al. 2024, Eq. 16; trl's `exo_pair`).
///
/// ```text
/// x    = β(h_w − h_l),   q = σ(x)
/// loss = q·(log q − log(1−ε)) + (1−q)·(log(1−q) − log ε)
/// ```
///
/// The reverse KL divergence from the label `(1−ε, ε)` to the policy's preference.
///
/// Traps: ε is not optional, the loss is infinite at 0. The gradient vanishes on both ends, so a pair that the policy has firmly the
/// wrong way round is not learned from.
///
/// # Shapes
/// `h`: the log-ratios of the two sides, `[b]` each.
///
/// # Units
/// Log-ratios in nats, summed over the response's tokens. Implicit rewards `β·h`.
pub fn exo_pair(h: Pair, settings: &ExoPairSettings) -> PairLoss {
    let ExoPairSettings { beta, label_smoothing: e } = *settings;
    let rewards = beta * h.without_graph();
    let x = beta * (h.chosen - h.rejected);
    let right = log_sigmoid(x.clone()) - (-e).ln_1p();
    let wrong = log_sigmoid(-x.clone()) - e.ln();
    PairLoss { losses: sigmoid(x.clone()) * right + sigmoid(-x) * wrong, rewards }
}
