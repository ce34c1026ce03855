//! Simple Preference Optimization: mean log-probabilities with a margin, no reference.

use serde::{Deserialize, Serialize};

use crate::error::{Error, require_finite, require_positive};
use crate::pair::{Pair, PairLoss};
use crate::stable::log_sigmoid;

/// The settings of [`simpo`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SimpoSettings {
    /// Scale of the mean log-probabilities, greater than 0. Default 2.0.
    pub beta: f64,
    /// The target margin γ as a multiple of β. Default 0.5.
    pub gamma_beta_ratio: f64,
}

impl Default for SimpoSettings {
    fn default() -> Self {
        Self { beta: 2.0, gamma_beta_ratio: 0.5 }
    }
}

impl SimpoSettings {
    /// Checks every setting's range.
    ///
    /// # Errors
    /// [`Error::Setting`] naming the first setting out of range.
    pub fn validate(&self) -> Result<(), Error> {
        require_positive("beta", self.beta)?;
        require_finite("gamma_beta_ratio", self.gamma_beta_ratio)
    }
}

/// SimPO (Meng et al. 2024, Eq. 6).
///
/// ```text
/// loss = −log σ(β(m_w − m_l) − γ),      m = log π_θ(y|x)/N_y,   γ = β·gamma_beta_ratio
/// ```
///
/// Traps: DPO's β (0.1) is far too small here, since `m` is a mean. trl's `CPOTrainer` takes γ itself
/// and adds an NLL term unless told not to.
///
/// # Shapes
/// `mean_logps`: `m` of the two sides, `[b]` each (see [`Pair::divided_by`]).
///
/// # Units
/// Nats per token. Implicit rewards `β·m`.
pub fn simpo(mean_logps: Pair, settings: &SimpoSettings) -> PairLoss {
    let SimpoSettings { beta, gamma_beta_ratio } = *settings;
    let logits = mean_logps.clone().margin().mul_scalar(beta).sub_scalar(beta * gamma_beta_ratio);
    PairLoss { losses: log_sigmoid(logits).neg(), rewards: mean_logps.without_graph().scaled(beta) }
}
