//! Binary Classifier Optimization on pairs, without its reward shift.

use serde::{Deserialize, Serialize};

use crate::error::{Error, require_positive};
use crate::pair::{Pair, PairLoss};
use crate::stable::log_sigmoid;

/// The settings of [`bco_pair`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BcoPairSettings {
    /// Strength of the pull to the reference, greater than 0. Default 0.01, the paper's.
    pub beta: f64,
}

impl Default for BcoPairSettings {
    fn default() -> Self {
        Self { beta: 0.01 }
    }
}

impl BcoPairSettings {
    /// Checks every setting's range.
    ///
    /// # Errors
    /// [`Error::Setting`] naming the first setting out of range.
    pub fn validate(&self) -> Result<(), Error> {
        require_positive("beta", self.beta)
    }
}

/// BCO on pairs (Jung et al. 2024; trl's `bco_pair`).
///
/// ```text
/// loss = −log σ(β·h_w) − log σ(−β·h_l)
/// ```
///
/// Traps: the paper subtracts a running mean δ of the rewards from both; trl 1.x dropped it, LLaMA-Factory keeps it. This is trl's form:
/// δ would be state, and its value would hang on how batches are cut.
///
/// # Shapes
/// `log_ratios`: `h` of the two sides, `[b]` each.
///
/// # Units
/// Log-ratios in nats, summed over the response's tokens. Implicit rewards `β·h`.
pub fn bco_pair(log_ratios: Pair, settings: &BcoPairSettings) -> PairLoss {
    let rewards = log_ratios.scaled(settings.beta);
    let losses = log_sigmoid(rewards.chosen.clone()) + log_sigmoid(rewards.rejected.clone().neg());
    PairLoss { losses: losses.neg(), rewards: rewards.without_graph() }
}
