//! A hinge on the difference of the log-ratios.

use burn::tensor::activation::relu;
use serde::{Deserialize, Serialize};

use crate::error::{Error, require_positive};
use crate::pair::{Pair, PairLoss};

/// The settings of [`hinge`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HingeSettings {
    /// The reciprocal of the margin in nats, greater than 0. Default 0.1.
    pub beta: f64,
}

impl Default for HingeSettings {
    fn default() -> Self {
        Self { beta: 0.1 }
    }
}

impl HingeSettings {
    /// Checks every setting's range.
    ///
    /// # Errors
    /// [`Error::Setting`] naming the first setting out of range.
    pub fn validate(&self) -> Result<(), Error> {
        require_positive("beta", self.beta)
    }
}

/// The hinge loss of RSO (Liu et al. 2023, "Statistical Rejection Sampling"; trl's `hinge`).
///
/// ```text
/// loss = max(0, 1 − β(h_w − h_l))
/// ```
///
/// Traps: trl files it under SLiC-HF, which has no reference; that is [`crate::slic_hf`]. A pair with a margin of `1/β` nats or more has
/// no gradient at all; at the kink itself the gradient is 0 too, as in torch.
///
/// # Shapes
/// `log_ratios`: `h` of the two sides, `[b]` each.
///
/// # Units
/// Log-ratios in nats, summed over the response's tokens. Implicit rewards `β·h`.
pub fn hinge(log_ratios: Pair, settings: &HingeSettings) -> PairLoss {
    let missing = log_ratios.clone().margin().mul_scalar(-settings.beta).add_scalar(1.0);
    PairLoss { losses: relu(missing), rewards: log_ratios.without_graph().scaled(settings.beta) }
}
