//! The loss that a language model discovered: logistic and exponential, blended.

use serde::{Deserialize, Serialize};

use crate::error::{Error, require_positive};
use crate::pair::{Pair, PairLoss};
use crate::stable::{log_sigmoid, sigmoid};

/// The settings of [`discopop`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DiscopopSettings {
    /// Strength of the pull to the reference, greater than 0. Default 0.05, the paper's.
    pub beta: f64,
    /// Temperature τ of the blend, in `(0, 1]`. Default 0.05.
    pub tau: f64,
}

impl Default for DiscopopSettings {
    fn default() -> Self {
        Self { beta: 0.05, tau: 0.05 }
    }
}

impl DiscopopSettings {
    /// Checks every setting's range.
    ///
    /// # Errors
    /// [`Error::Setting`] naming the first setting out of range.
    pub fn validate(&self) -> Result<(), Error> {
        require_positive("beta", self.beta)?;
        if self.tau > 0.0 && self.tau <= 1.0 {
            Ok(())
        } else {
            // Above 1 the exponential outgrows its weight, and the loss of a wrong pair overflows.
            Err(Error::Setting { name: "tau", expected: "above 0 and at most 1", found: self.tau.to_string() })
        }
    }
}

/// DiscoPOP, the log-ratio modulated loss (Lu et al. 2024, Eq. 5; trl's `discopop`).
///
/// ```text
/// x    = β(h_w − h_l),   s = σ(x/τ)
/// loss = −(1−s)·log σ(x) + s·exp(−x)
/// ```
///
/// Traps: not convex, and around `x = −2τ` a local optimum turns wrong pairs the wrong way. `s·exp(−x)` is computed as `exp(log s − x)`:
/// the product is 0·∞ for a pair that is far the wrong way round.
///
/// # Shapes
/// `log_ratios`: `h` of the two sides, `[b]` each.
///
/// # Units
/// Log-ratios in nats, summed over the response's tokens. Implicit rewards `β·h`.
pub fn discopop(log_ratios: Pair, settings: &DiscopopSettings) -> PairLoss {
    let DiscopopSettings { beta, tau } = *settings;
    let x = log_ratios.clone().margin().mul_scalar(beta);
    // Not `div_scalar`: its gradient takes the reciprocal in f32, whatever the dtype.
    let blend = x.clone().mul_scalar(1.0 / tau);
    let logistic = sigmoid(blend.clone().neg()) * log_sigmoid(x.clone()).neg();
    let exponential = (log_sigmoid(blend) - x).exp();
    PairLoss { losses: logistic + exponential, rewards: log_ratios.without_graph().scaled(beta) }
}
