//! DPO-Positive: DPO that does not let the chosen response fall below the reference.

use burn::tensor::activation::relu;

use crate::objective::Objective;
use crate::pair::{Pair, PairLoss};
use crate::pairwise::{PairBatch, PairObjective, PairOutput};
use crate::settings::settings;
use crate::stable::log_sigmoid;

settings! {
    /// The settings of [`dpop`].
    pub struct DpopSettings {
        /// Strength of the pull to the reference.
        beta: f64 = 0.3, POSITIVE;
        /// Weight λ of the penalty.
        lambda: f64 = 50.0, NON_NEGATIVE;
    }
}

impl Objective for DpopSettings {
    const TITLE: &'static str = "DPO-Positive";
    const SOURCE: &'static str = "Pal et al. 2024 (Smaug)";
}

impl PairObjective for DpopSettings {
    fn losses(&self, batch: &PairBatch) -> PairOutput {
        dpop(batch.log_ratios(), self).into()
    }
}

/// DPO-Positive (Pal et al. 2024, "Smaug").
///
/// ```text
/// loss = −log σ(β[h_w − h_l − λ·max(0, −h_w)])
/// ```
///
/// Traps: the penalty is inside β and the sigmoid. At step 0 it is exactly at its kink, where its gradient is 0; one step later a chosen
/// response that fell has `λ + 1` times the gradient of one that rose.
///
/// # Shapes
/// `h`: the log-ratios of the two sides, `[b]` each.
///
/// # Units
/// Log-ratios in nats, summed over the response's tokens. Implicit rewards `β·h`.
pub fn dpop(h: Pair, settings: &DpopSettings) -> PairLoss {
    let DpopSettings { beta, lambda } = *settings;
    let rewards = beta * h.without_graph();
    let fallen = relu(-h.chosen.clone());
    PairLoss { losses: -log_sigmoid(beta * (h.chosen - h.rejected - lambda * fallen)), rewards }
}
