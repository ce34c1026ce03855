//! Response lengths.

use serde::{Deserialize, Serialize};

use crate::error::{Error, check_paired};
use crate::summary::{Summary, quantile};

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
    fn bad_input_is_named() {
        assert!(matches!(LengthStats::of(&[], &[]), Err(Error::TooFew { .. })));
        assert!(matches!(LengthStats::of(&[1], &[]), Err(Error::LengthMismatch { .. })));
    }
}
