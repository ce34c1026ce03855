//! DPO on log-ratios per token.

use serde::{Deserialize, Serialize};

use crate::error::{Error, require_positive};
use crate::pair::{Pair, PairLoss};
use crate::stable::log_sigmoid;

/// The settings of [`sigmoid_norm`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SigmoidNormSettings {
    /// Scale of the log-ratios per token, greater than 0. Default 5, Tülu 3's.
    pub beta: f64,
}

impl Default for SigmoidNormSettings {
    fn default() -> Self {
        Self { beta: 5.0 }
    }
}

impl SigmoidNormSettings {
    /// Checks every setting's range.
    ///
    /// # Errors
    /// [`Error::Setting`] naming the first setting out of range.
    pub fn validate(&self) -> Result<(), Error> {
        require_positive("beta", self.beta)
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
/// `log_ratios` and `tokens` (the responses' token counts): `[b]` per side.
///
/// # Units
/// Log-ratios in nats, summed over the response's tokens.
pub fn sigmoid_norm(log_ratios: Pair, tokens: Pair, settings: &SigmoidNormSettings) -> PairLoss {
    let rewards = log_ratios.clone().without_graph().scaled(settings.beta);
    let logits = log_ratios.divided_by(tokens).margin().mul_scalar(settings.beta);
    PairLoss { losses: log_sigmoid(logits).neg(), rewards }
}
