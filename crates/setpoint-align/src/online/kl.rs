//! The distance to the reference: estimators for a token, and the controller that adapts its coefficient.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ratio::LARGEST_LOG_RATIO;
use crate::settings::Problem;

/// The estimate of the KL divergence from one sampled token (Schulman 2020, "Approximating KL divergence").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KlEstimator {
    /// `old − ref`: unbiased, negative for single tokens.
    #[default]
    K1,
    /// `exp(ref − old) − 1 − (ref − old)`: unbiased, never negative.
    K3,
}

impl KlEstimator {
    /// Estimates the KL divergence of a token, as trl 1.12's `PPOTrainer` does.
    ///
    /// # Units
    /// Nats. The exponent is limited to [`LARGEST_LOG_RATIO`].
    ///
    /// ```
    /// use setpoint_align::online::KlEstimator;
    ///
    /// assert_eq!(KlEstimator::K1.of(-1.0, -1.5), 0.5);
    /// assert!((KlEstimator::K3.of(-1.0, -1.5) - ((-0.5f64).exp() - 0.5)).abs() < 1e-12);
    /// ```
    pub fn of(self, old_logp: f64, ref_logp: f64) -> f64 {
        let d = ref_logp - old_logp;
        match self {
            Self::K1 => -d,
            Self::K3 => d.min(LARGEST_LOG_RATIO).exp() - 1.0 - d,
        }
    }
}

/// The controller that keeps the KL divergence near a target (Ziegler et al. 2019, Section 2.2; OpenRLHF's
/// `AdaptiveKLController`).
///
/// ```text
/// error = clip(KL/target − 1, −0.2, 0.2)
/// coef  ← coef·clip(1 + error·n/horizon, ½, 2)
/// ```
///
/// The outer limits are ours: with more responses in a round than two horizons the factor could reach 0, and the coefficient
/// would stay there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KlController {
    /// The KL divergence to hold, nats per response.
    pub target: f64,
    /// The number of responses over which the coefficient may change by a fifth.
    pub horizon: f64,
}

impl KlController {
    /// Returns the next coefficient after `n` responses with a mean KL divergence of `kl` nats.
    ///
    /// ```
    /// use setpoint_align::online::KlController;
    ///
    /// let controller = KlController { target: 6.0, horizon: 1000.0 };
    /// assert_eq!(controller.next(0.1, 6.0, 100), 0.1);
    /// assert!((controller.next(0.1, 60.0, 100) - 0.1 * 1.02).abs() < 1e-15);
    /// ```
    pub fn next(&self, coef: f64, kl: f64, n: usize) -> f64 {
        if !kl.is_finite() {
            return coef;
        }
        let error = (kl / self.target - 1.0).clamp(-0.2, 0.2);
        coef * (1.0 + error * n as f64 / self.horizon).clamp(0.5, 2.0)
    }
}

/// Finds a target without a coefficient to start from.
pub(super) fn kl_target_problem(target: Option<f64>, coef: f64) -> Option<Problem> {
    let message = "`kl_target` multiplies `kl_coef`, which is 0; set `kl_coef` to a number to start from";
    (target.is_some() && coef == 0.0).then(|| Problem::new(Some("kl_target"), message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimators_are_unbiased_and_k3_is_never_negative() {
        let (policy, reference) = ([0.5f64, 0.3, 0.2], [0.2f64, 0.3, 0.5]);
        let kl: f64 = policy.iter().zip(&reference).map(|(p, q)| p * (p / q).ln()).sum();
        for estimator in [KlEstimator::K1, KlEstimator::K3] {
            let mean: f64 = policy.iter().zip(&reference).map(|(p, q)| p * estimator.of(p.ln(), q.ln())).sum();
            assert!((mean - kl).abs() < 1e-12, "{estimator:?}: {mean}, {kl}");
        }
        for d in [-30.0, -1.0, -1e-9, 0.0, 1e-9, 1.0, 30.0, 1e6] {
            let found = KlEstimator::K3.of(-d, 0.0);
            assert!(found.is_finite() && found >= -1e-15, "{d}: {found}");
        }
    }

    #[test]
    fn the_controller_moves_towards_its_target_and_no_further_than_a_fifth() {
        let controller = KlController { target: 5.0, horizon: 50.0 };
        assert!(controller.next(0.2, 1.0, 10) < 0.2);
        assert_eq!(controller.next(0.2, 1.0, 10), controller.next(0.2, -40.0, 10));
        assert!((controller.next(0.2, 4.5, 50) - 0.18).abs() < 1e-12);
        assert_eq!(controller.next(0.2, f64::NAN, 50), 0.2);
        assert_eq!(controller.next(0.2, 0.0, 1_000_000), 0.1);
        assert_eq!(controller.next(0.2, 1e9, 1_000_000), 0.4);
    }
}
