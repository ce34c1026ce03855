//! Calibrated Direct Preference Optimization.

use crate::objective::Objective;
use crate::pair::{Pair, PairLoss};
use crate::pairwise::{PairBatch, PairObjective, PairOutput};
use crate::settings::settings;
use crate::stable::{log_sigmoid, square};

settings! {
    /// The settings of [`cal_dpo`].
    pub struct CalDpoSettings {
        /// Sets the targets `±1/(2β)` of the log-ratios.
        beta: f64 = 0.1, POSITIVE;
        /// Weight of the calibration term; the paper has 1, its code 0.5.
        calibration_weight: f64 = 1.0, NON_NEGATIVE;
    }
}

impl Objective for CalDpoSettings {
    const TITLE: &'static str = "Calibrated DPO";
    const SOURCE: &'static str = "Xiao et al. 2024";
}

impl PairObjective for CalDpoSettings {
    fn losses(&self, batch: &PairBatch) -> PairOutput {
        cal_dpo(batch.log_ratios(), self).into()
    }
}

/// Cal-DPO (Xiao et al. 2024).
///
/// ```text
/// loss = −log σ(h_w − h_l) + w·[(h_w − 1/(2β))² + (h_l + 1/(2β))²]
/// ```
///
/// Traps: β is not inside the DPO term. The authors' recipes use β of 0.001 to 0.002, i.e. targets of
/// ±500 to ±250 nats.
///
/// # Shapes
/// `h`: the log-ratios of the two sides, `[b]` each.
///
/// # Units
/// Log-ratios in nats, summed over the response's tokens. Implicit rewards `β·h`.
pub fn cal_dpo(h: Pair, settings: &CalDpoSettings) -> PairLoss {
    let CalDpoSettings { beta, calibration_weight: w } = *settings;
    let rewards = beta * h.without_graph();
    let target = 1.0 / (2.0 * beta);
    let calibration = square(h.chosen.clone() - target) + square(h.rejected.clone() + target);
    PairLoss { losses: -log_sigmoid(h.chosen - h.rejected) + w * calibration, rewards }
}
