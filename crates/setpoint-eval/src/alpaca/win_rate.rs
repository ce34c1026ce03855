//! Win rates of AlpacaEval, without length control.

use serde::{Deserialize, Serialize};

use super::annotation::AlpacaAnnotation;
use crate::error::Error;
use crate::summary::mean_and_variance;

/// The scores of `alpaca_eval.metrics.get_winrate`, under its names.
///
/// # Units
/// Rates and their errors in percent, lengths in characters.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AlpacaWinRate {
    /// Mean of `preference − 1`.
    pub win_rate: f64,
    /// Standard error of that mean, with divisor `n − 1`.
    pub standard_error: f64,
    /// `(n_wins + n_draws/2) / n_total`: every preference rounded to a winner.
    pub discrete_win_rate: f64,
    /// Preferences above 1.5.
    pub n_wins: usize,
    /// Preferences below 1.5.
    pub n_wins_base: usize,
    /// Preferences of exactly 1.5, or of 0, which older files write for a draw.
    pub n_draws: usize,
    /// Rows with a preference.
    pub n_total: usize,
    /// Rows without one: the judge failed. They count in no rate.
    pub n_failed: usize,
    /// Mean length of the model's outputs, cut to a whole number as on the leaderboard.
    pub avg_length: usize,
}

/// The preference as a probability that the model is better; 0, an old mark of a draw, is 1/2.
pub(super) fn as_probability(preference: f64) -> f64 {
    if preference == 0.0 { 0.5 } else { preference - 1.0 }
}

/// Win rate, its standard error, the discrete win rate and the counts.
///
/// # Errors
/// Fewer than two rows with a preference.
pub fn alpaca_win_rate(rows: &[AlpacaAnnotation]) -> Result<AlpacaWinRate, Error> {
    let won: Vec<f64> = rows.iter().filter_map(|r| r.preference).map(as_probability).collect();
    if won.len() < 2 {
        return Err(Error::TooFew { what: "annotations with a preference", found: won.len(), needed: 2 });
    }
    let (mean, variance) = mean_and_variance(&won);
    let count = |wanted: fn(&f64) -> bool| won.iter().filter(|p| wanted(p)).count();
    let (n_wins, n_wins_base, n_draws) = (count(|p| *p > 0.5), count(|p| *p < 0.5), count(|p| *p == 0.5));
    let n = won.len() as f64;
    Ok(AlpacaWinRate {
        win_rate: 100.0 * mean,
        standard_error: 100.0 * (variance / n).sqrt(),
        discrete_win_rate: 100.0 * (n_wins as f64 + 0.5 * n_draws as f64) / n,
        n_wins,
        n_wins_base,
        n_draws,
        n_total: won.len(),
        n_failed: rows.len() - won.len(),
        avg_length: rows.iter().map(|r| r.model_length).sum::<usize>() / rows.len(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(preferences: &[Option<f64>]) -> Vec<AlpacaAnnotation> {
        preferences
            .iter()
            .enumerate()
            .map(|(i, &preference)| AlpacaAnnotation { preference, baseline_length: 10, model_length: i })
            .collect()
    }

    #[test]
    fn failures_are_counted_and_not_averaged() {
        let got = alpaca_win_rate(&rows(&[Some(2.0), None, Some(1.0), Some(2.0), None, Some(0.0)])).unwrap();
        assert_eq!((got.n_total, got.n_failed), (4, 2));
        assert_eq!((got.n_wins, got.n_wins_base, got.n_draws), (2, 1, 1));
        assert_eq!(got.win_rate, 62.5); // (1 + 0 + 1 + ½)/4
        assert_eq!(got.discrete_win_rate, 62.5);
        // Squares about 0.625: 2·0.140625 + 0.390625 + 0.015625 = 0.6875; over 3, over 4, root.
        assert!((got.standard_error - 100.0 * (0.6875_f64 / 3.0 / 4.0).sqrt()).abs() < 1e-12);
        assert_eq!(got.avg_length, 2); // (0 + … + 5)/6 = 2.5, cut
    }

    #[test]
    fn one_preference_is_too_few() {
        assert!(matches!(alpaca_win_rate(&rows(&[Some(1.5), None])), Err(Error::TooFew { found: 1, .. })));
    }
}
