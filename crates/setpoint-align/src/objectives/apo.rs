//! Anchored Preference Optimization: where both sides go, relative to the reference.

use serde::{Deserialize, Serialize};

use crate::error::{Error, require_positive};
use crate::pair::{Pair, PairLoss};
use crate::stable::sigmoid;

/// The settings of [`apo_zero`] and [`apo_down`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApoSettings {
    /// Strength of the pull to the reference, greater than 0. Default 0.1.
    pub beta: f64,
}

impl Default for ApoSettings {
    fn default() -> Self {
        Self { beta: 0.1 }
    }
}

impl ApoSettings {
    /// Checks every setting's range.
    ///
    /// # Errors
    /// [`Error::Setting`] naming the first setting out of range.
    pub fn validate(&self) -> Result<(), Error> {
        require_positive("beta", self.beta)
    }
}

/// APO-zero (D'Oosterlinck et al. 2024, Eq. 7; trl's `apo_zero`): chosen up, rejected down.
///
/// ```text
/// loss = 1 − σ(β·h_w) + σ(β·h_l)
/// ```
///
/// For data whose chosen responses are better than what the policy says.
///
/// Traps: bounded, so the gradient vanishes for responses far from the reference on either side.
///
/// # Shapes
/// `log_ratios`: `h` of the two sides, `[b]` each.
///
/// # Units
/// Log-ratios in nats, summed over the response's tokens. Implicit rewards `β·h`.
pub fn apo_zero(log_ratios: Pair, settings: &ApoSettings) -> PairLoss {
    let rewards = log_ratios.scaled(settings.beta);
    // 1 − σ(x) = σ(−x), without cancellation.
    let losses = sigmoid(rewards.chosen.clone().neg()) + sigmoid(rewards.rejected.clone());
    PairLoss { losses, rewards: rewards.without_graph() }
}

/// APO-down (D'Oosterlinck et al. 2024, Eq. 8; trl's `apo_down`): both down, rejected more.
///
/// ```text
/// loss = σ(β·h_w) + 1 − σ(β(h_w − h_l))
/// ```
///
/// For data whose chosen responses are worse than what the policy says.
///
/// Traps: the chosen response's probability falls by design, which the displacement warning will say.
///
/// # Shapes
/// `log_ratios`: `h` of the two sides, `[b]` each.
///
/// # Units
/// Log-ratios in nats, summed over the response's tokens. Implicit rewards `β·h`.
pub fn apo_down(log_ratios: Pair, settings: &ApoSettings) -> PairLoss {
    let rewards = log_ratios.scaled(settings.beta);
    let losses = sigmoid(rewards.chosen.clone()) + sigmoid(rewards.clone().margin().neg());
    PairLoss { losses, rewards: rewards.without_graph() }
}
