//! Quantile Reward Policy Optimization: DRO's error with a reward whose normaliser is known.

use burn::tensor::Tensor;

use crate::aggregate::constant_like;
use crate::objective::Objective;
use crate::row::{RowBatch, RowLoss, RowObjective};
use crate::settings::settings;
use crate::stable::square;

settings! {
    /// The settings of [`qrpo`].
    pub struct QrpoSettings {
        /// Reward per nat of log-ratio.
        beta: f64 = 0.003, POSITIVE;
        /// Takes a reward's quantile among the samples of the reference model, the column `reference_rewards`, instead of among the
        /// responses of its prompt.
        reference_samples: bool = false;
    }
}

impl Objective for QrpoSettings {
    const TITLE: &'static str = "Quantile Reward Policy Optimization";
    const SOURCE: &'static str = "Matrenok et al. 2025";
    const REWARDS: bool = true;
}

impl RowObjective for QrpoSettings {
    fn beta(&self) -> f64 {
        self.beta
    }

    fn losses(&self, batch: &RowBatch) -> RowLoss {
        let quantiles = constant_like(&batch.rewards, &batch.log_ratios);
        qrpo(batch.log_ratios.clone(), quantiles, self)
    }

    /// Returns where the residual would be 0.
    fn target(&self, quantile: f64) -> f64 {
        quantile / self.beta - self.log_z()
    }

    fn reads_reference_samples(&self) -> bool {
        self.reference_samples
    }

    /// Takes each reward's quantile.
    fn rewards(&self, rewards: &[f64], samples: &[f64]) -> Result<Vec<f64>, &'static str> {
        let among = match self.reference_samples {
            true if samples.is_empty() => {
                return Err("no samples of the reference model to take a reward's quantile among");
            }
            true => samples,
            false if rewards.len() < 2 => {
                return Err("one response alone; QRPO takes a reward's quantile among the responses of its prompt");
            }
            false => rewards,
        };
        Ok(rewards.iter().map(|&reward| reward_quantile(reward, among)).collect())
    }
}

impl QrpoSettings {
    /// Returns the exact log-normaliser: under the reference the quantile is uniform on `[0, 1]`.
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
    /// let log_z = QrpoSettings { beta: 0.5, ..QrpoSettings::default() }.log_z();
    /// assert!((log_z - (0.5 * (2f64.exp() - 1.0)).ln()).abs() < 1e-12);
    /// ```
    pub fn log_z(&self) -> f64 {
        // exp(1/β) overflows from β = 0.0014 down.
        self.beta.ln() + 1.0 / self.beta + (-(-1.0 / self.beta).exp()).ln_1p()
    }
}

/// Returns the quantile of a reward among the rewards of reference samples for the same prompt: the share of them that are not greater.
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
/// loss = (q − β(h + log Z))²,      log Z = log β + log(exp(1/β) − 1)
/// ```
///
/// It is DRO with the quantile for a reward, `log_z0 = log Z` and no prompt term.
///
/// Traps: the samples that the quantile is taken among must come from the reference, or the normaliser is another. The authors train without
/// gradient clipping.
///
/// # Shapes
/// `h` (log-ratios) and `q` (quantiles): `[n]`.
///
/// # Units
/// Log-ratios in nats, summed over the response's tokens; quantiles in `[0, 1]`.
pub fn qrpo(h: Tensor<1>, q: Tensor<1>, settings: &QrpoSettings) -> RowLoss {
    let (beta, log_z) = (settings.beta, settings.log_z());
    let rewards = beta * h.clone().inner();
    RowLoss { losses: square(q - beta * (h + log_z)), rewards }
}
