//! Estimates of `KL(policy ‖ reference)` from the policy's own samples.

use serde::{Deserialize, Serialize};

use crate::error::{Error, check_paired, check_sample};
use crate::summary::mean_and_variance;

/// A mean and its standard error.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MeanError {
    /// The mean.
    pub mean: f64,
    /// Its standard error, `s/√n`; 0 for a single observation.
    pub std_error: f64,
}

impl MeanError {
    fn of(values: &[f64]) -> Self {
        let (mean, variance) = mean_and_variance(values);
        Self { mean, std_error: (variance / values.len() as f64).sqrt() }
    }
}

/// Unbiased estimates of the same divergence.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct KlEstimates {
    /// Number of samples.
    pub n: usize,
    /// `mean(h)` with `h = log π − log π_ref`. May be negative by chance where the two are close.
    pub k1: MeanError,
    /// `mean(e^{−h} − 1 + h)`: every term is at least 0, and the variance is lower where the two are close.
    /// `None` where `e^{−h}` leaves the range of `f64` (a response some 700 nats likelier under the reference): an average
    /// that a single sample decides says nothing.
    pub k3: Option<MeanError>,
    /// The mean of the divergences summed over the vocabulary at each token of the samples, see [`with_exact`](Self::with_exact). `None` where
    /// only the log-probabilities of the sampled tokens are known.
    #[serde(default)]
    pub exact: Option<MeanError>,
}

impl KlEstimates {
    /// Adds the estimate that sums over the vocabulary. `divergences`: of each sample `y`,
    /// `Σ_t Σ_v π(v | y_<t) · log( π(v | y_<t) / π_ref(v | y_<t) )`.
    ///
    /// This is the Rao–Blackwell estimator of Amini, Vieira and Cotterell (2025, <https://arxiv.org/abs/2504.10637>): exact at each token,
    /// sampled over the beginnings of the responses. It has the expectation of k1, a variance that is at most as great, and is never negative.
    ///
    /// # Units
    /// Nats per response.
    ///
    /// # Errors
    /// Not as many divergences as samples, or one that is not finite.
    pub fn with_exact(self, divergences: &[f64]) -> Result<Self, Error> {
        check_paired("samples", self.n, "divergences", divergences.len())?;
        check_sample("divergences", divergences, 1)?;
        Ok(Self { exact: Some(MeanError::of(divergences)), ..self })
    }

    /// Returns the best estimate: the exact one where there is one, else k1.
    #[must_use]
    pub fn best(&self) -> MeanError {
        self.exact.unwrap_or(self.k1)
    }
}

/// `KL(π ‖ π_ref)` per response by the estimators k1 and k3 (Schulman 2020, "Approximating KL divergence").
///
/// Both are unbiased **only for samples of the policy itself** at temperature 1, without top-k or top-p; on other responses
/// `k1` is a mean log-ratio and no divergence.
///
/// # Units
/// Log-probabilities summed over the response, in nats; the estimates are nats per response.
///
/// # Errors
/// No samples, unequal lengths, or a log-probability that is not finite.
///
/// # Example
/// ```
/// let kl = setpoint_eval::kl_estimates(&[-10.0, -12.0], &[-10.5, -12.5])?;
/// assert_eq!(kl.k1.mean, 0.5);
/// assert!((kl.k3.unwrap().mean - ((-0.5_f64).exp() - 0.5)).abs() < 1e-12);
/// # Ok::<(), setpoint_eval::Error>(())
/// ```
pub fn kl_estimates(policy_logps: &[f64], reference_logps: &[f64]) -> Result<KlEstimates, Error> {
    check_paired("policy log-probs", policy_logps.len(), "reference log-probs", reference_logps.len())?;
    check_sample("policy log-probs", policy_logps, 1)?;
    check_sample("reference log-probs", reference_logps, 1)?;
    let ratios: Vec<f64> = policy_logps.iter().zip(reference_logps).map(|(p, r)| p - r).collect();
    // expm1 keeps the digits that e^{−h} − 1 would lose near h = 0, where k3 is h²/2.
    let k3: Vec<f64> = ratios.iter().map(|h| (-h).exp_m1() + h).collect();
    // Squares are summed for the error, so half the exponent range is the limit.
    let usable = k3.iter().all(|v| *v < f64::MAX.sqrt() / ratios.len() as f64);
    Ok(KlEstimates { n: ratios.len(), k1: MeanError::of(&ratios), k3: usable.then(|| MeanError::of(&k3)), exact: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::RngExt;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;

    #[test]
    fn both_estimators_find_the_divergence_of_two_categoricals() {
        let policy = [0.5, 0.3, 0.2_f64];
        let reference = [0.25, 0.25, 0.5_f64];
        let kl: f64 = policy.iter().zip(&reference).map(|(p, q)| p * (p / q).ln()).sum();
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let draws: Vec<usize> = (0..4000)
            .map(|_| {
                let u: f64 = rng.random_range(0.0..1.0);
                if u < policy[0] {
                    0
                } else if u < policy[0] + policy[1] {
                    1
                } else {
                    2
                }
            })
            .collect();
        let logps = |of: &[f64; 3]| draws.iter().map(|&i| of[i].ln()).collect::<Vec<_>>();
        let got = kl_estimates(&logps(&policy), &logps(&reference)).unwrap();
        let k3 = got.k3.unwrap();
        assert!((got.k1.mean - kl).abs() < 4.0 * got.k1.std_error, "{} against {kl}", got.k1.mean);
        assert!((k3.mean - kl).abs() < 4.0 * k3.std_error, "{} against {kl}", k3.mean);
        assert!(k3.std_error < got.k1.std_error, "k3 is the quieter one");

        // The standard error against its own definition from the exact variance of one draw.
        let variance: f64 = policy.iter().zip(&reference).map(|(p, q)| p * ((p / q).ln() - kl).powi(2)).sum();
        let exact = (variance / draws.len() as f64).sqrt();
        assert!((got.k1.std_error / exact - 1.0).abs() < 0.1, "{} against {exact}", got.k1.std_error);
    }

    #[test]
    fn equal_policies_have_no_divergence_and_k3_keeps_its_digits() {
        let logps = [-3.0, -250.0];
        let got = kl_estimates(&logps, &logps).unwrap();
        assert_eq!((got.k1.mean, got.k3.unwrap().mean), (0.0, 0.0));
        let h = 2.0_f64.powi(-20);
        let got = kl_estimates(&[h], &[0.0]).unwrap().k3.unwrap().mean;
        let series = h * h / 2.0 - h.powi(3) / 6.0;
        assert!((got / series - 1.0).abs() < 1e-3, "{got} against {series}");
    }

    /// Every response of two tokens from a vocabulary of three, with its probability under a policy, its log-ratio to a reference, and the
    /// divergence summed over the vocabulary at each of its tokens.
    fn enumerated() -> Vec<(f64, f64, f64)> {
        let softmax = |logits: [f64; 3]| {
            let sum: f64 = logits.iter().map(|z| z.exp()).sum();
            logits.map(|z| z.exp() / sum)
        };
        // The first token's distribution, then that of the second after each first.
        let policy = [[0.4, -1.0, 0.3], [1.5, 0.0, -0.5], [-0.2, 0.7, 0.1], [0.0, 0.0, 2.0]].map(softmax);
        let reference = [[0.0, 0.2, -0.4], [0.3, 0.3, 0.0], [-1.0, 1.0, 0.4], [0.5, -0.5, 1.0]].map(softmax);
        let divergence =
            |at: usize| -> f64 { (0..3).map(|v| policy[at][v] * (policy[at][v] / reference[at][v]).ln()).sum() };
        let response = |a: usize, b: usize| {
            let probability = policy[0][a] * policy[1 + a][b];
            let log_ratio = (probability / (reference[0][a] * reference[1 + a][b])).ln();
            (probability, log_ratio, divergence(0) + divergence(1 + a))
        };
        (0..9).map(|i| response(i / 3, i % 3)).collect()
    }

    #[test]
    fn the_exact_estimate_has_the_expectation_of_the_log_ratio_and_less_variance() {
        let all = enumerated();
        let expectation = |of: &dyn Fn(&(f64, f64, f64)) -> f64| all.iter().map(|y| y.0 * of(y)).sum::<f64>();
        assert!((expectation(&|_| 1.0) - 1.0).abs() < 1e-15);
        let kl = expectation(&|y| y.1);
        assert!((expectation(&|y| y.2) - kl).abs() < 1e-15, "{} against {kl}", expectation(&|y| y.2));
        let (sampled, exact) = (expectation(&|y| (y.1 - kl).powi(2)), expectation(&|y| (y.2 - kl).powi(2)));
        assert!(exact < 0.2 * sampled, "{exact} against {sampled}");

        // The same on samples, and the errors are those of the variances above.
        let mut rng = ChaCha8Rng::seed_from_u64(11);
        let draws: Vec<usize> = (0..5000)
            .map(|_| {
                let mut u: f64 = rng.random_range(0.0..1.0);
                all.iter().position(|y| {
                    u -= y.0;
                    u < 0.0
                })
            })
            .map(|found| found.unwrap_or(8))
            .collect();
        let log_ratios: Vec<f64> = draws.iter().map(|&i| all[i].1).collect();
        let divergences: Vec<f64> = draws.iter().map(|&i| all[i].2).collect();
        let got = kl_estimates(&log_ratios, &vec![0.0; draws.len()]).unwrap();
        assert_eq!(got.best(), got.k1);
        let got = got.with_exact(&divergences).unwrap();
        let found = got.exact.unwrap();
        assert_eq!(got.best(), found);
        for (estimate, variance) in [(got.k1, sampled), (found, exact)] {
            let error = (variance / draws.len() as f64).sqrt();
            assert!((estimate.mean - kl).abs() < 4.0 * error, "{estimate:?} against {kl}");
            assert!((estimate.std_error / error - 1.0).abs() < 0.1, "{estimate:?} against {error}");
        }
    }

    #[test]
    fn an_estimate_without_the_exact_one_is_read() {
        let text = r#"{"n": 2, "k1": {"mean": 0.5, "std_error": 0.1}, "k3": null}"#;
        assert_eq!(serde_json::from_str::<KlEstimates>(text).unwrap().exact, None);
    }

    #[test]
    fn k3_is_withheld_where_one_sample_would_decide_it() {
        let got = kl_estimates(&[-800.0, -1.0], &[-1.0, -1.0]).unwrap();
        assert_eq!(got.k1.mean, -399.5);
        assert_eq!(got.k3, None);
    }

    #[test]
    fn bad_input_is_named() {
        assert!(matches!(kl_estimates(&[], &[]), Err(Error::TooFew { .. })));
        assert!(matches!(kl_estimates(&[-1.0], &[]), Err(Error::LengthMismatch { .. })));
        assert!(matches!(
            kl_estimates(&[-1.0], &[f64::NEG_INFINITY]),
            Err(Error::NotFinite { what: "reference log-probs", index: 0, .. })
        ));
        let one = kl_estimates(&[-1.0], &[-1.0]).unwrap();
        assert!(matches!(one.with_exact(&[]), Err(Error::LengthMismatch { .. })));
        assert!(matches!(one.with_exact(&[f64::NAN]), Err(Error::NotFinite { what: "divergences", .. })));
    }
}
