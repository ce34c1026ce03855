//! DPO on log-ratios per token.

use crate::objective::Objective;
use crate::pair::{Pair, PairLoss};
use crate::pairwise::{PairBatch, PairObjective, PairOutput};
use crate::settings::settings;
use crate::stable::log_sigmoid;

settings! {
    /// The settings of [`sigmoid_norm`].
    pub struct SigmoidNormSettings {
        /// Scale of the log-ratios per token.
        beta: f64 = 5.0, POSITIVE;
    }
}

impl Objective for SigmoidNormSettings {
    const TITLE: &'static str = "length-normalised DPO";
    const SOURCE: &'static str = "Lambert et al. 2024 (Tülu 3)";
}

impl PairObjective for SigmoidNormSettings {
    fn losses(&self, batch: &PairBatch) -> PairOutput {
        sigmoid_norm(batch.log_ratios(), batch.tokens.clone(), self).into()
    }
}

/// Length-normalised DPO (Lambert et al. 2024, "Tülu 3"; trl's `sigmoid_norm`, open-instruct's `dpo_norm`).
///
/// ```text
/// loss = −log σ(β(h_w/N_w − h_l/N_l))
/// ```
///
/// Traps: β is per token, so DPO's 0.1 is far too small. The logged rewards are `β·h`, not normalised, as trl's.
///
/// # Shapes
/// `h` (log-ratios) and `tokens` (the responses' token counts): `[b]` per side.
///
/// # Units
/// Log-ratios in nats, summed over the response's tokens.
pub fn sigmoid_norm(h: Pair, tokens: Pair, settings: &SigmoidNormSettings) -> PairLoss {
    let beta = settings.beta;
    let rewards = beta * h.without_graph();
    let h = h / tokens;
    PairLoss { losses: -log_sigmoid(beta * (h.chosen - h.rejected)), rewards }
}
