//! The correction for the distance between the policy that is trained and whatever sampled.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ratio::LARGEST_LOG_RATIO;
use super::runs::Runs;

/// The correction of the loss for responses that another program sampled, by the names of trl's
/// `vllm_importance_sampling_mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
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

impl SamplingCorrection {
    /// Returns whether all tokens of a response have one weight.
    pub fn is_of_sequences(self) -> bool {
        matches!(self, Self::SequenceTruncate | Self::SequenceMask)
    }

    /// Returns the weight of a ratio above the limit.
    fn beyond(self, max: f64) -> f64 {
        match self {
            Self::TokenTruncate | Self::SequenceTruncate => max,
            Self::TokenMask | Self::SequenceMask => 0.0,
        }
    }

    /// Returns a weight for each thing that is weighted: token or response.
    fn weighted(self, weights: &[f64], tokens: &[usize]) -> Vec<f64> {
        match self.is_of_sequences() {
            true => Runs(tokens).cut(weights).into_iter().filter_map(|own| own.first().copied()).collect(),
            false => weights.to_vec(),
        }
    }
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
    if correction.is_of_sequences() {
        let spread = |own: &[f64]| vec![own.iter().sum::<f64>(); own.len()];
        differences = Runs(tokens).cut(&differences).into_iter().flat_map(spread).collect();
    }
    let weight = |difference: f64| {
        let ratio = difference.min(LARGEST_LOG_RATIO).exp();
        if ratio <= max { ratio } else { correction.beyond(max) }
    };
    differences.into_iter().map(weight).collect()
}

/// Returns the share of the weights of [`sampling_weights`] whose ratio is above `max`: of the tokens, or of the responses if all tokens of
/// a response have one. `None` without tokens.
///
/// # Panics
/// If there is not a weight per token.
pub fn limited_share(weights: &[f64], tokens: &[usize], correction: SamplingCorrection, max: f64) -> Option<f64> {
    let weights = correction.weighted(weights, tokens);
    let limited = weights.iter().filter(|&&weight| weight == correction.beyond(max)).count();
    (!weights.is_empty()).then(|| limited as f64 / weights.len() as f64)
}

/// Computes trl's `sampling/importance_sampling_ratio/min`, `/mean` and `/max` of the weights that [`sampling_weights`] returns: of the
/// tokens, or of the responses if all tokens of a response have one.
///
/// # Panics
/// If there is not a weight per token.
pub fn correction_metrics(weights: &[f64], tokens: &[usize], correction: SamplingCorrection) -> BTreeMap<String, f64> {
    let weights = correction.weighted(weights, tokens);
    if weights.is_empty() {
        return BTreeMap::new();
    }
    let mean = weights.iter().sum::<f64>() / weights.len() as f64;
    let (low, high) = weights.iter().fold((f64::INFINITY, 0.0_f64), |(low, high), &w| (low.min(w), high.max(w)));
    let name = |of: &str| format!("sampling/importance_sampling_ratio/{of}");
    [(name("min"), low), (name("mean"), mean), (name("max"), high)].into()
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
    fn the_share_above_the_limit_is_that_of_tokens_or_responses() {
        // Ratios 1, e², 1, 1/e of the tokens; e² and 1/e of the responses.
        let (old, sampled) = ([-1.0, -1.0, -2.0, -5.0], [-1.0, -3.0, -2.0, -4.0]);
        let found = |correction, max| {
            let weights = sampling_weights(&old, &sampled, &[2, 2], correction, max);
            limited_share(&weights, &[2, 2], correction, max)
        };
        for (token, sequence) in [
            (SamplingCorrection::TokenMask, SamplingCorrection::SequenceMask),
            (SamplingCorrection::TokenTruncate, SamplingCorrection::SequenceTruncate),
        ] {
            assert_eq!([3.0, 8.0, 0.5, 0.1].map(|max| found(token, max)), [0.25, 0.0, 0.75, 1.0].map(Some));
            assert_eq!([3.0, 8.0, 0.1].map(|max| found(sequence, max)), [0.5, 0.0, 1.0].map(Some));
        }
        assert_eq!(limited_share(&[], &[], SamplingCorrection::TokenMask, 3.0), None);
    }

    #[test]
    fn the_metrics_are_those_of_what_is_weighted() {
        let of = |correction, name: &str| {
            let found = correction_metrics(&[0.5, 0.5, 0.5, 2.0], &[3, 1], correction);
            found[&format!("sampling/importance_sampling_ratio/{name}")]
        };
        assert_eq!(["min", "mean", "max"].map(|name| of(SamplingCorrection::TokenTruncate, name)), [0.5, 0.875, 2.0]);
        assert_eq!(["min", "mean", "max"].map(|name| of(SamplingCorrection::SequenceMask, name)), [0.5, 1.25, 2.0]);
        assert!(correction_metrics(&[], &[], SamplingCorrection::TokenMask).is_empty());
    }
}
