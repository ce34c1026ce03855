//! Noise Contrastive Alignment on pairs: absolute likelihoods, not their difference.

use serde::{Deserialize, Serialize};

use crate::error::{Error, require_positive};
use crate::pair::{Pair, PairLoss};
use crate::stable::log_sigmoid;

/// The settings of [`nca_pair`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NcaPairSettings {
    /// The paper's α, greater than 0. Default 0.01.
    pub beta: f64,
}

impl Default for NcaPairSettings {
    fn default() -> Self {
        Self { beta: 0.01 }
    }
}

impl NcaPairSettings {
    /// Checks every setting's range.
    ///
    /// # Errors
    /// [`Error::Setting`] naming the first setting out of range.
    pub fn validate(&self) -> Result<(), Error> {
        require_positive("beta", self.beta)
    }
}

/// NCA on pairs (Chen et al. 2024; trl's `nca_pair`).
///
/// ```text
/// loss = −log σ(β·h_w) − ½·log σ(−β·h_w) − ½·log σ(−β·h_l)
/// ```
///
/// Traps: the second term holds the chosen response back: for it alone the loss is least at `σ(β·h_w) = ⅔`, i.e. `h_w = ln 2/β`.
///
/// # Shapes
/// `log_ratios`: `h` of the two sides, `[b]` each.
///
/// # Units
/// Log-ratios in nats, summed over the response's tokens. Implicit rewards `β·h`.
pub fn nca_pair(log_ratios: Pair, settings: &NcaPairSettings) -> PairLoss {
    let rewards = log_ratios.scaled(settings.beta);
    let attract = log_sigmoid(rewards.chosen.clone());
    let repel = log_sigmoid(rewards.chosen.clone().neg()) + log_sigmoid(rewards.rejected.clone().neg());
    PairLoss { losses: (attract + repel.mul_scalar(0.5)).neg(), rewards: rewards.without_graph() }
}
