//! Sequence Likelihood Calibration with Human Feedback: a hinge on log-probabilities, no reference.

use burn::tensor::activation::relu;
use serde::{Deserialize, Serialize};

use crate::error::{Error, require_non_negative};
use crate::pair::{Pair, PairLoss};

/// The settings of [`slic_hf`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SlicHfSettings {
    /// The margin δ of the hinge, nats, at least 0. Default 1.0.
    pub delta: f64,
    /// Weight λ of the likelihood term, at least 0. Default 0.1.
    pub lambda: f64,
}

impl Default for SlicHfSettings {
    fn default() -> Self {
        Self { delta: 1.0, lambda: 0.1 }
    }
}

impl SlicHfSettings {
    /// Checks every setting's range.
    ///
    /// # Errors
    /// [`Error::Setting`] naming the first setting out of range.
    pub fn validate(&self) -> Result<(), Error> {
        require_non_negative("delta", self.delta)?;
        require_non_negative("lambda", self.lambda)
    }
}

/// SLiC-HF (Zhao et al. 2023, Eq. 2), with the chosen response as the likelihood term's target.
///
/// ```text
/// loss = max(0, δ − logp_w + logp_l) − λ·logp_w
/// ```
///
/// Traps: log-probabilities are sums, and there is no reference; trl's `hinge` is another loss (on
/// `β(h_w − h_l)`).
///
/// # Shapes
/// `logps`: `log π_θ(y|x)` of the two sides, `[b]` each.
///
/// # Units
/// Nats, summed over the response's tokens. The implicit reward is the log-probability itself.
pub fn slic_hf(logps: Pair, settings: &SlicHfSettings) -> PairLoss {
    let missing = logps.clone().margin().neg().add_scalar(settings.delta);
    let hinge = relu(missing);
    let likelihood = logps.chosen.clone().mul_scalar(settings.lambda);
    PairLoss { losses: hinge - likelihood, rewards: logps.without_graph() }
}
