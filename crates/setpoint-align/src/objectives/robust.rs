//! Provably robust DPO: unbiased under labels that are flipped at a known rate.

use serde::{Deserialize, Serialize};

use crate::error::{Error, require_positive, require_share};
use crate::pair::{Pair, PairLoss};
use crate::stable::log_sigmoid;

/// The settings of [`robust`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RobustSettings {
    /// Strength of the pull to the reference, greater than 0. Default 0.01, the paper's.
    pub beta: f64,
    /// The rate ε at which labels are flipped, in `[0, 0.5)`. Default 0.1.
    pub label_smoothing: f64,
}

impl Default for RobustSettings {
    fn default() -> Self {
        Self { beta: 0.01, label_smoothing: 0.1 }
    }
}

impl RobustSettings {
    /// Checks every setting's range.
    ///
    /// # Errors
    /// [`Error::Setting`] naming the first setting out of range.
    pub fn validate(&self) -> Result<(), Error> {
        require_positive("beta", self.beta)?;
        require_share("label_smoothing", self.label_smoothing)
    }
}

/// Robust DPO (Chowdhury et al. 2024, "Provably Robust DPO"; trl's `robust`).
///
/// ```text
/// loss = [−(1−ε)·log σ(β(h_w − h_l)) + ε·log σ(−β(h_w − h_l))] / (1 − 2ε)
/// ```
///
/// Traps: the sign of the second term is the other way round than in cDPO ([`crate::dpo`] with label smoothing), so the loss has no
/// lower bound: it falls by `ε·β/(1 − 2ε)` per nat as the margin grows. ε is a property of the data; too large a value trains on noise.
///
/// # Shapes
/// `log_ratios`: `h` of the two sides, `[b]` each.
///
/// # Units
/// Log-ratios in nats, summed over the response's tokens. Implicit rewards `β·h`.
pub fn robust(log_ratios: Pair, settings: &RobustSettings) -> PairLoss {
    let RobustSettings { beta, label_smoothing } = *settings;
    let logits = log_ratios.clone().margin().mul_scalar(beta);
    let clean = log_sigmoid(logits.clone()).mul_scalar(-(1.0 - label_smoothing));
    let flipped = log_sigmoid(logits.neg()).mul_scalar(label_smoothing);
    PairLoss {
        // Not `div_scalar`: its gradient takes the reciprocal in f32, whatever the dtype.
        losses: (clean + flipped).mul_scalar(1.0 / (1.0 - 2.0 * label_smoothing)),
        rewards: log_ratios.without_graph().scaled(beta),
    }
}
