//! The distance between the log-probabilities of whatever sampled and those of the training path.

use std::collections::BTreeMap;

use super::ratio::LARGEST_LOG_RATIO;
use super::runs::Runs;

/// Computes trl's `sampling/sampling_logp_difference/mean` and `/max`: `|old − sampled|` of the tokens, nats.
///
/// A generator computes with other kernels and batches than training does: f32 differs by 1e-6, bf16 by up to 0.05 a token.
/// More means that what samples is not the policy: another temperature, template or model. Tokens whose number is NaN (a server
/// that gives none) are left out.
///
/// # Panics
/// If the two differ in length.
///
/// ```
/// use setpoint_align::online::sampling_metrics;
///
/// let found = sampling_metrics(&[-1.0, -2.0, -3.0], &[-1.5, f64::NAN, -3.0]);
/// assert_eq!(found["sampling/sampling_logp_difference/mean"], 0.25);
/// assert_eq!(found["sampling/sampling_logp_difference/max"], 0.5);
/// ```
pub fn sampling_metrics(old_logps: &[f64], sampled_logps: &[f64]) -> BTreeMap<String, f64> {
    assert_eq!(old_logps.len(), sampled_logps.len(), "a number per token");
    let known = old_logps.iter().zip(sampled_logps).map(|(old, sampled)| (old - sampled).abs());
    let known: Vec<f64> = known.filter(|difference| !difference.is_nan()).collect();
    if known.is_empty() {
        return BTreeMap::new();
    }
    let mean = known.iter().sum::<f64>() / known.len() as f64;
    let name = |of: &str| format!("sampling/sampling_logp_difference/{of}");
    [(name("mean"), mean), (name("max"), known.into_iter().fold(0.0, f64::max))].into()
}

/// The correction of the loss for responses that another program sampled, by the names of trl's
/// `vllm_importance_sampling_mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SamplingCorrection {
    /// Each token's ratio, at most `max`.
    TokenTruncate,
    /// Each token's ratio; 0 above `max`.
    TokenMask,
    /// The response's ratio, at most `max`.
    SequenceTruncate,
    /// The response's ratio; 0 above `max`.
    SequenceMask,
}

/// Computes the weight of each token's policy loss if another program sampled (truncated importance sampling, Yao et al. 2025;
/// trl 1.16 `GRPOTrainer`, whose defaults are `sequence_mask` and 3).
///
/// ```text
/// w = exp(old − sampled)     of the token, or summed over the response; then limited to `max`, or 0 above it
/// ```
///
/// To apply the weights, multiply the advantages by them: every policy loss of this module is linear in its advantage, and the
/// sign stays. A token whose number is NaN has the ratio 1.
///
/// # Panics
/// If the vectors do not have a number per token.
pub fn sampling_weights(
    old_logps: &[f64],
    sampled_logps: &[f64],
    tokens: &[usize],
    correction: SamplingCorrection,
    max: f64,
) -> Vec<f64> {
    assert_eq!(old_logps.len(), sampled_logps.len(), "a number per token");
    let difference = |(old, sampled): (&f64, &f64)| {
        let difference = old - sampled;
        if difference.is_nan() { 0.0 } else { difference }
    };
    let mut differences: Vec<f64> = old_logps.iter().zip(sampled_logps).map(difference).collect();
    let runs = Runs(tokens);
    if matches!(correction, SamplingCorrection::SequenceTruncate | SamplingCorrection::SequenceMask) {
        let spread = |own: &[f64]| vec![own.iter().sum::<f64>(); own.len()];
        differences = runs.cut(&differences).into_iter().flat_map(spread).collect();
    }
    let weight = |difference: f64| {
        let ratio = difference.min(LARGEST_LOG_RATIO).exp();
        match correction {
            _ if ratio <= max => ratio,
            SamplingCorrection::TokenTruncate | SamplingCorrection::SequenceTruncate => max,
            SamplingCorrection::TokenMask | SamplingCorrection::SequenceMask => 0.0,
        }
    };
    differences.into_iter().map(weight).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_ratios_within_a_limit() {
        let (old, sampled) = ([-1.0, -1.0, -2.0, -5.0], [-1.0, -3.0, f64::NAN, -4.0]);
        let found = |correction| sampling_weights(&old, &sampled, &[2, 2], correction, 3.0);
        let e = (-1f64).exp();
        assert_eq!(found(SamplingCorrection::TokenTruncate), [1.0, 3.0, 1.0, e]);
        assert_eq!(found(SamplingCorrection::TokenMask), [1.0, 0.0, 1.0, e]);
        assert_eq!(found(SamplingCorrection::SequenceTruncate), [3.0, 3.0, e, e]);
        assert_eq!(found(SamplingCorrection::SequenceMask), [0.0, 0.0, e, e]);
        assert_eq!(sampling_weights(&[0.0], &[-1e9], &[1], SamplingCorrection::TokenMask, 3.0), [0.0]);
    }

    #[test]
    fn without_numbers_there_is_no_metric() {
        assert!(sampling_metrics(&[-1.0], &[f64::NAN]).is_empty());
        assert!(sampling_metrics(&[], &[]).is_empty());
    }
}
