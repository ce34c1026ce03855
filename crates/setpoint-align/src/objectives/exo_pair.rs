//! Efficient Exact Optimization on pairs: the reverse KL to a smoothed label.

use serde::{Deserialize, Serialize};

use crate::error::{Error, require_positive};
use crate::pair::{Pair, PairLoss};
use crate::stable::{log_sigmoid, sigmoid};

/// The settings of [`exo_pair`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExoPairSettings {
    /// Strength of the pull to the reference, greater than 0. Default 0.1.
    pub beta: f64,
    /// The probability ε that the label gives to the rejected response, in `(0, 0.5)`. Default 0.001.
    pub label_smoothing: f64,
}

impl Default for ExoPairSettings {
    fn default() -> Self {
        Self { beta: 0.1, label_smoothing: 0.001 }
    }
}

impl ExoPairSettings {
    /// Checks every setting's range.
    ///
    /// # Errors
    /// [`Error::Setting`] naming the first setting out of range.
    pub fn validate(&self) -> Result<(), Error> {
        require_positive("beta", self.beta)?;
        if self.label_smoothing > 0.0 && self.label_smoothing < 0.5 {
            Ok(())
        } else {
            Err(Error::Setting {
                name: "label_smoothing",
                expected: "above 0 and below 0.5",
                found: self.label_smoothing.to_string(),
            })
        }
    }
}

/// EXO on pairs (Ji et al. 2024, Eq. 16; trl's `exo_pair`).
///
/// ```text
/// loss = q·(log q − log(1−ε)) + (1−q)·(log(1−q) − log ε),      q = σ(β(h_w − h_l))
/// ```
///
/// The reverse KL divergence from the label `(1−ε, ε)` to the policy's preference.
///
/// Traps: ε is not optional, the loss is infinite at 0. The gradient vanishes on both ends, so a pair that the policy has firmly the
/// wrong way round is not learnt from.
///
/// # Shapes
/// `log_ratios`: `h` of the two sides, `[b]` each.
///
/// # Units
/// Log-ratios in nats, summed over the response's tokens. Implicit rewards `β·h`.
pub fn exo_pair(log_ratios: Pair, settings: &ExoPairSettings) -> PairLoss {
    let ExoPairSettings { beta, label_smoothing } = *settings;
    let logits = log_ratios.clone().margin().mul_scalar(beta);
    let right = log_sigmoid(logits.clone()).sub_scalar((-label_smoothing).ln_1p());
    let wrong = log_sigmoid(logits.clone().neg()).sub_scalar(label_smoothing.ln());
    PairLoss {
        losses: sigmoid(logits.clone()) * right + sigmoid(logits.neg()) * wrong,
        rewards: log_ratios.without_graph().scaled(beta),
    }
}
