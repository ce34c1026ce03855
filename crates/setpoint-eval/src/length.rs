//! Response lengths: how long the answers are, and whether the reward simply follows.

use serde::{Deserialize, Serialize};

use crate::error::{Error, check_paired, check_sample};
use crate::summary::{Summary, mean_and_variance, quantile};

/// Lengths of a set of responses.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LengthStats {
    /// The lengths, described.
    pub tokens: Summary,
    /// 5 % of the responses are at most this long.
    pub p05: f64,
    /// 95 % of the responses are at most this long.
    pub p95: f64,
    /// Share of responses that reached their limit without a stop token.
    pub truncated: f64,
}

impl LengthStats {
    /// Describes `tokens`, one length per response; `truncated[i]` tells whether response `i` ended at its limit.
    ///
    /// # Units
    /// Tokens, the stop token included where there is one.
    ///
    /// # Errors
    /// No responses, or unequal lengths of the two slices.
    ///
    /// # Example
    /// ```
    /// let stats = setpoint_eval::LengthStats::of(&[10, 20, 30, 64], &[false, false, false, true])?;
    /// assert_eq!((stats.tokens.mean, stats.truncated), (31.0, 0.25));
    /// # Ok::<(), setpoint_eval::Error>(())
    /// ```
    pub fn of(tokens: &[usize], truncated: &[bool]) -> Result<Self, Error> {
        check_paired("lengths", tokens.len(), "truncated", truncated.len())?;
        let mut lengths: Vec<f64> = tokens.iter().map(|&t| t as f64).collect();
        let summary = Summary::of(&lengths)?;
        lengths.sort_by(f64::total_cmp);
        Ok(Self {
            tokens: summary,
            p05: quantile(&lengths, 0.05),
            p95: quantile(&lengths, 0.95),
            truncated: truncated.iter().filter(|t| **t).count() as f64 / tokens.len() as f64,
        })
    }
}

/// Pearson's correlation of score and length; `None` where one of them does not vary.
///
/// A reward that mostly rewards length shows here before it shows in the samples.
///
/// # Errors
/// Fewer than two responses, unequal lengths of the slices, or a score that is not finite.
///
/// # Example
/// ```
/// let r = setpoint_eval::length_correlation(&[1, 2, 3], &[0.5, 1.0, 1.5])?;
/// assert!((r.unwrap() - 1.0).abs() < 1e-12);
/// # Ok::<(), setpoint_eval::Error>(())
/// ```
pub fn length_correlation(tokens: &[usize], scores: &[f64]) -> Result<Option<f64>, Error> {
    check_paired("lengths", tokens.len(), "scores", scores.len())?;
    check_sample("scores", scores, 2)?;
    let lengths: Vec<f64> = tokens.iter().map(|&t| t as f64).collect();
    let (length_mean, length_variance) = mean_and_variance(&lengths);
    let (score_mean, score_variance) = mean_and_variance(scores);
    let scale = (length_variance * score_variance).sqrt() * (scores.len() - 1) as f64;
    if scale == 0.0 {
        return Ok(None);
    }
    let products: f64 = lengths.iter().zip(scores).map(|(l, s)| (l - length_mean) * (s - score_mean)).sum();
    // Rounding can leave the interval that mathematics keeps it in.
    Ok(Some((products / scale).clamp(-1.0, 1.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tails_and_truncation() {
        let tokens: Vec<usize> = (0..=100).rev().collect();
        let truncated: Vec<bool> = tokens.iter().map(|t| *t > 90).collect();
        let got = LengthStats::of(&tokens, &truncated).unwrap();
        assert_eq!((got.p05, got.tokens.median, got.p95), (5.0, 50.0, 95.0));
        assert_eq!(got.truncated, 10.0 / 101.0);
    }

    #[test]
    fn correlation_by_the_definition() {
        // Deviations (−1.5, −0.5, 0.5, 1.5) and (−1, 1, −1, 1): 2 / √(5·4).
        let got = length_correlation(&[1, 2, 3, 4], &[0.0, 2.0, 0.0, 2.0]).unwrap().unwrap();
        assert!((got - 2.0 / 20.0_f64.sqrt()).abs() < 1e-12);
        let falling = length_correlation(&[1, 2, 3], &[3.0, 2.0, 1.0]).unwrap().unwrap();
        assert!((falling + 1.0).abs() < 1e-12);
        assert_eq!(length_correlation(&[5, 5], &[1.0, 2.0]).unwrap(), None);
    }

    #[test]
    fn bad_input_is_named() {
        assert!(matches!(LengthStats::of(&[], &[]), Err(Error::TooFew { .. })));
        assert!(matches!(LengthStats::of(&[1], &[]), Err(Error::LengthMismatch { .. })));
        assert!(matches!(length_correlation(&[1, 2], &[1.0, f64::NAN]), Err(Error::NotFinite { index: 1, .. })));
    }
}
