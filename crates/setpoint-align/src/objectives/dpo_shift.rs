//! DPO-Shift: DPO that pushes the rejected response down with less force.

use serde::{Deserialize, Serialize};

use crate::error::{Error, require_positive};
use crate::pair::{Pair, PairLoss};
use crate::stable::log_sigmoid;

/// The settings of [`dpo_shift`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DpoShiftSettings {
    /// Strength of the pull to the reference, greater than 0. Default 0.01, the paper's recipe.
    pub beta: f64,
    /// The factor f on the rejected log-ratio, in `(0, 1]`. Default 0.95; 1 is DPO.
    pub shift: f64,
}

impl Default for DpoShiftSettings {
    fn default() -> Self {
        Self { beta: 0.01, shift: 0.95 }
    }
}

impl DpoShiftSettings {
    /// Checks every setting's range.
    ///
    /// # Errors
    /// [`Error::Setting`] naming the first setting out of range.
    pub fn validate(&self) -> Result<(), Error> {
        require_positive("beta", self.beta)?;
        if self.shift > 0.0 && self.shift <= 1.0 {
            Ok(())
        } else {
            Err(Error::Setting { name: "shift", expected: "above 0 and at most 1", found: self.shift.to_string() })
        }
    }
}

/// DPO-Shift with a fixed factor (Yang et al. 2025).
///
/// ```text
/// loss = −log σ(β(h_w − f·h_l))
/// ```
///
/// Traps: the loss is no longer a function of the margin: adding the same number to both log-ratios changes it. The authors also let f run
/// over the training; a fixed value is what their main table has.
///
/// # Shapes
/// `log_ratios`: `h` of the two sides, `[b]` each.
///
/// # Units
/// Log-ratios in nats, summed over the response's tokens. Implicit rewards `β·h`.
pub fn dpo_shift(log_ratios: Pair, settings: &DpoShiftSettings) -> PairLoss {
    let DpoShiftSettings { beta, shift } = *settings;
    let Pair { chosen, rejected } = log_ratios.clone();
    let logits = (chosen - rejected.mul_scalar(shift)).mul_scalar(beta);
    PairLoss { losses: log_sigmoid(logits).neg(), rewards: log_ratios.without_graph().scaled(beta) }
}
