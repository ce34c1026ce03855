//! DPO-Positive: DPO that does not let the chosen response fall below the reference.

use burn::tensor::activation::relu;
use serde::{Deserialize, Serialize};

use crate::error::{Error, require_non_negative, require_positive};
use crate::pair::{Pair, PairLoss};
use crate::stable::log_sigmoid;

/// The settings of [`dpop`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DpopSettings {
    /// Strength of the pull to the reference, greater than 0. Default 0.3.
    pub beta: f64,
    /// Weight λ of the penalty, at least 0. Default 50.
    pub lambda: f64,
}

impl Default for DpopSettings {
    fn default() -> Self {
        Self { beta: 0.3, lambda: 50.0 }
    }
}

impl DpopSettings {
    /// Checks every setting's range.
    ///
    /// # Errors
    /// [`Error::Setting`] naming the first setting out of range.
    pub fn validate(&self) -> Result<(), Error> {
        require_positive("beta", self.beta)?;
        require_non_negative("lambda", self.lambda)
    }
}

/// DPO-Positive (Pal et al. 2024, "Smaug").
///
/// ```text
/// loss = −log σ(β[h_w − h_l − λ·max(0, −h_w)])
/// ```
///
/// Traps: the penalty stands inside β and the sigmoid. At step 0 it is exactly at its kink, where its gradient is 0; one step later a chosen
/// response that fell has `λ + 1` times the gradient of one that rose.
///
/// # Shapes
/// `log_ratios`: `h` of the two sides, `[b]` each.
///
/// # Units
/// Log-ratios in nats, summed over the response's tokens. Implicit rewards `β·h`.
pub fn dpop(log_ratios: Pair, settings: &DpopSettings) -> PairLoss {
    let DpopSettings { beta, lambda } = *settings;
    let fallen = relu(log_ratios.chosen.clone().neg());
    let logits = (log_ratios.clone().margin() - fallen.mul_scalar(lambda)).mul_scalar(beta);
    PairLoss { losses: log_sigmoid(logits).neg(), rewards: log_ratios.without_graph().scaled(beta) }
}
