//! Quantile Reward Policy Optimization: DRO's error with a reward whose normaliser is known.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::error::{Error, require_positive};
use crate::row::RowLoss;

/// The settings of [`qrpo`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QrpoSettings {
    /// Reward per nat of log-ratio, greater than 0. Default 0.003, the authors'.
    pub beta: f64,
}

impl Default for QrpoSettings {
    fn default() -> Self {
        Self { beta: 0.003 }
    }
}

impl QrpoSettings {
    /// Checks every setting's range.
    ///
    /// # Errors
    /// [`Error::Setting`] naming the first setting out of range.
    pub fn validate(&self) -> Result<(), Error> {
        require_positive("beta", self.beta)
    }

    /// The exact log-normaliser: under the reference the quantile is uniform on `[0, 1]`.
    ///
    /// ```text
    /// log Z = log ∫₀¹ exp(q/β) dq = log β + log(exp(1/β) − 1)
    /// ```
    ///
    /// Its authors shorten it to `log β + 1/β`, which is right to f32 for β below 0.06.
    ///
    /// # Units
    /// Nats.
    ///
    /// ```
    /// use setpoint_align::QrpoSettings;
    ///
    /// let log_z = QrpoSettings { beta: 0.5 }.log_z();
    /// assert!((log_z - (0.5 * (2f64.exp() - 1.0)).ln()).abs() < 1e-12);
    /// ```
    pub fn log_z(&self) -> f64 {
        // exp(1/β) overflows from β = 0.0014 down.
        self.beta.ln() + 1.0 / self.beta + (-(-1.0 / self.beta).exp()).ln_1p()
    }
}

/// The quantile of a reward among the rewards of reference samples for the same prompt: the share of them that are not greater.
///
/// ```text
/// q = mean over samples of [r_sample ≤ r]
/// ```
///
/// # Panics
/// If there are no reference rewards.
///
/// ```
/// use setpoint_align::reward_quantile;
///
/// assert_eq!(reward_quantile(0.5, &[0.1, 0.5, 0.9, 2.0]), 0.5);
/// ```
pub fn reward_quantile(reward: f64, reference_rewards: &[f64]) -> f64 {
    assert!(!reference_rewards.is_empty(), "rewards of reference samples");
    let not_greater = reference_rewards.iter().filter(|&&other| other <= reward).count();
    not_greater as f64 / reference_rewards.len() as f64
}

/// QRPO (Matrenok et al. 2025), with the quantile itself as the reward.
///
/// ```text
/// loss = (q − β·log Z − β·h)²,      log Z = log β + log(exp(1/β) − 1)
/// ```
///
/// It is DRO with the quantile for a reward, `log_z0 = log Z` and no prompt term.
///
/// Traps: the samples that the quantile is taken among must come from the reference, or the normaliser is another. The authors train without
/// gradient clipping.
///
/// # Shapes
/// `log_ratios` and `quantiles`: `[n]`.
///
/// # Units
/// Log-ratios in nats, summed over the response's tokens; quantiles in `[0, 1]`.
pub fn qrpo(log_ratios: Tensor<1>, quantiles: Tensor<1>, settings: &QrpoSettings) -> RowLoss {
    let rewards = log_ratios.clone().inner().mul_scalar(settings.beta);
    let residuals = quantiles - log_ratios.add_scalar(settings.log_z()).mul_scalar(settings.beta);
    RowLoss { losses: residuals.clone() * residuals, rewards }
}
