//! Direct Reward Optimisation of Richemond et al.: a learned value in the place of the normaliser.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::error::{Error, require_positive};
use crate::row::RowLoss;

/// The settings of [`dro_v`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DroVSettings {
    /// The paper's τ, reward per nat of log-ratio, greater than 0. Default 1.
    pub beta: f64,
}

impl Default for DroVSettings {
    fn default() -> Self {
        Self { beta: 1.0 }
    }
}

impl DroVSettings {
    /// Checks every setting's range.
    ///
    /// # Errors
    /// [`Error::Setting`] naming the first setting out of range.
    pub fn validate(&self) -> Result<(), Error> {
        require_positive("beta", self.beta)
    }
}

/// DRO-V (Richemond et al. 2024, "Offline Regularised Reinforcement Learning for LLM Alignment").
///
/// ```text
/// loss = ½·(r − V(x) − β·h)²
/// ```
///
/// Gradients reach the log-ratios and the values, which a network of their own computes. At the optimum `V(x) = β·log Z(x)`, the number that
/// [`crate::dro`] gets from one setting and the policy itself.
///
/// Traps: another algorithm of the same name. The paper gives policy and value separate networks and learning rates. Values per prompt that
/// are fitted to the data at hand (the mean of `r − β·h`) leave nothing to learn from a prompt with one response.
///
/// # Shapes
/// `log_ratios`, `rewards`, `values` (each response's prompt's `V(x)`): `[n]`.
///
/// # Units
/// Log-ratios in nats, summed over the response's tokens; values in units of reward.
pub fn dro_v(log_ratios: Tensor<1>, rewards: Tensor<1>, values: Tensor<1>, settings: &DroVSettings) -> RowLoss {
    let implied = log_ratios.mul_scalar(settings.beta);
    let residuals = rewards - values - implied.clone();
    RowLoss { losses: (residuals.clone() * residuals).mul_scalar(0.5), rewards: implied.inner() }
}
