//! Calibrated Direct Preference Optimization.

use serde::{Deserialize, Serialize};

use crate::error::{Error, require_non_negative, require_positive};
use crate::pair::{Pair, PairLoss};
use crate::stable::log_sigmoid;

/// The settings of [`cal_dpo`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CalDpoSettings {
    /// Sets the targets `±1/(2β)` of the log-ratios, greater than 0. Default 0.1.
    pub beta: f64,
    /// Weight of the calibration term, at least 0. Default 1.0, the paper's; its code has 0.5.
    pub calibration_weight: f64,
}

impl Default for CalDpoSettings {
    fn default() -> Self {
        Self { beta: 0.1, calibration_weight: 1.0 }
    }
}

impl CalDpoSettings {
    /// Checks every setting's range.
    ///
    /// # Errors
    /// [`Error::Setting`] naming the first setting out of range.
    pub fn validate(&self) -> Result<(), Error> {
        require_positive("beta", self.beta)?;
        require_non_negative("calibration_weight", self.calibration_weight)
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
/// `log_ratios`: `h` of the two sides, `[b]` each.
///
/// # Units
/// Log-ratios in nats, summed over the response's tokens. Implicit rewards `β·h`.
pub fn cal_dpo(log_ratios: Pair, settings: &CalDpoSettings) -> PairLoss {
    let target = 1.0 / (2.0 * settings.beta);
    let chosen = log_ratios.chosen.clone().sub_scalar(target);
    let rejected = log_ratios.rejected.clone().add_scalar(target);
    let calibration = chosen.clone() * chosen + rejected.clone() * rejected;
    let preference = log_sigmoid(log_ratios.clone().margin()).neg();
    PairLoss {
        losses: preference + calibration.mul_scalar(settings.calibration_weight),
        rewards: log_ratios.without_graph().scaled(settings.beta),
    }
}
