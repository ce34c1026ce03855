//! Shares of yes/no outcomes: Wilson's interval and the accuracy of a reward on preference pairs.

use serde::{Deserialize, Serialize};

use crate::error::{Error, check_level, check_paired, check_sample};
use crate::normal;

/// A share with Wilson's score interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Proportion {
    /// Outcomes counted as yes.
    pub successes: usize,
    /// All outcomes.
    pub trials: usize,
    /// `successes / trials`.
    pub value: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
    /// The probability that the interval is meant to cover, such as 0.95.
    pub level: f64,
}

/// Wilson's score interval (Wilson 1927), which stays inside `[0, 1]` and is sound for shares near its ends:
/// the roots `p` of `(p̂ − p)² = z²·p(1 − p)/n`, that is
/// `(p̂ + z²/2n ± z·√(p̂(1 − p̂)/n + z²/4n²)) / (1 + z²/n)`.
///
/// # Errors
/// No trials, more successes than trials, or a level outside of `(0, 1)`.
///
/// # Example
/// ```
/// let all = setpoint_eval::wilson_interval(10, 10, 0.95)?;
/// assert_eq!((all.value, all.high), (1.0, 1.0));
/// assert!(all.low > 0.7 && all.low < 0.75); // n / (n + z²): ten out of ten proves little
/// # Ok::<(), setpoint_eval::Error>(())
/// ```
pub fn wilson_interval(successes: usize, trials: usize, level: f64) -> Result<Proportion, Error> {
    check_level(level)?;
    if trials == 0 {
        return Err(Error::TooFew { what: "trials", found: 0, needed: 1 });
    }
    if successes > trials {
        return Err(Error::Setting {
            name: "successes",
            value: successes as f64,
            expected: "at most the number of trials",
        });
    }
    let n = trials as f64;
    let value = successes as f64 / n;
    let z = normal::quantile(0.5 + level / 2.0);
    let shrink = 1.0 + z * z / n;
    let centre = (value + z * z / (2.0 * n)) / shrink;
    let half = z * (value * (1.0 - value) / n + z * z / (4.0 * n * n)).sqrt() / shrink;
    // At the ends one root is 0 or 1 exactly; rounding must not move it.
    let low = if successes == 0 { 0.0 } else { centre - half };
    let high = if successes == trials { 1.0 } else { centre + half };
    Ok(Proportion { successes, trials, value, low, high, level })
}

/// The frequency with which a score puts the chosen response above the rejected one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PairAccuracy {
    /// Share of pairs with `chosen > rejected`, **strictly**: a tie counts as wrong, as in trl.
    pub accuracy: Proportion,
    /// Pairs whose scores are equal.
    pub ties: usize,
    /// Mean of `chosen − rejected`.
    pub mean_margin: f64,
}

/// Accuracy of scores on preference pairs, with Wilson's interval at `level`.
///
/// # Errors
/// No pairs, unequal lengths, a score that is not finite, or a level outside of `(0, 1)`.
///
/// # Example
/// ```
/// let result = setpoint_eval::pair_accuracy(&[2.0, 1.0, 0.0], &[1.0, 1.0, 3.0], 0.95)?;
/// assert_eq!((result.accuracy.successes, result.ties), (1, 1));
/// # Ok::<(), setpoint_eval::Error>(())
/// ```
pub fn pair_accuracy(chosen: &[f64], rejected: &[f64], level: f64) -> Result<PairAccuracy, Error> {
    check_paired("chosen", chosen.len(), "rejected", rejected.len())?;
    check_sample("chosen", chosen, 1)?;
    check_sample("rejected", rejected, 1)?;
    let pairs = || chosen.iter().zip(rejected);
    let right = pairs().filter(|(c, r)| c > r).count();
    Ok(PairAccuracy {
        accuracy: wilson_interval(right, chosen.len(), level)?,
        ties: pairs().filter(|(c, r)| c == r).count(),
        mean_margin: pairs().map(|(c, r)| c - r).sum::<f64>() / chosen.len() as f64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_solve_wilsons_equation() {
        for (successes, trials) in [(1, 7), (3, 10), (50, 100), (996, 1000)] {
            for level in [0.8, 0.95, 0.999] {
                let got = wilson_interval(successes, trials, level).unwrap();
                let z = normal::quantile(0.5 + level / 2.0);
                for end in [got.low, got.high] {
                    let left = (got.value - end).powi(2);
                    let right = z * z * end * (1.0 - end) / trials as f64;
                    assert!((left - right).abs() < 1e-12, "{successes}/{trials} at {level}: {left} against {right}");
                }
                assert!(0.0 < got.low && got.low < got.value && got.value < got.high && got.high < 1.0);
            }
        }
    }

    #[test]
    fn none_and_all_have_their_closed_forms() {
        let z = normal::quantile(0.975);
        let none = wilson_interval(0, 20, 0.95).unwrap();
        assert_eq!(none.low, 0.0);
        assert!((none.high - z * z / (20.0 + z * z)).abs() < 1e-12);
        let all = wilson_interval(20, 20, 0.95).unwrap();
        assert_eq!(all.high, 1.0);
        assert!((all.low - 20.0 / (20.0 + z * z)).abs() < 1e-12);
    }

    #[test]
    fn coverage_of_wilsons_interval_is_near_its_level() {
        // Exact: sum the binomial probabilities of the outcomes whose interval holds p.
        let (n, level) = (60_usize, 0.9);
        let mut total = 0.0;
        let grid = 99;
        for step in 1..=grid {
            let p = step as f64 / (grid + 1) as f64;
            let mut probability = (1.0 - p).powi(n as i32);
            for k in 0..=n {
                let interval = wilson_interval(k, n, level).unwrap();
                if interval.low <= p && p <= interval.high {
                    total += probability;
                }
                probability *= (n - k) as f64 / (k + 1) as f64 * p / (1.0 - p);
            }
        }
        // Averaged over p, Wilson's coverage lies within a point of its level (Brown, Cai and DasGupta 2001).
        let coverage = total / grid as f64;
        assert!((coverage - level).abs() < 0.01, "{coverage}");
    }

    #[test]
    fn ties_are_wrong_and_counted() {
        let got = pair_accuracy(&[1.0, 2.0, 3.0, 4.0], &[0.0, 2.0, 5.0, 3.0], 0.9).unwrap();
        assert_eq!((got.accuracy.successes, got.accuracy.trials, got.ties), (2, 4, 1));
        assert_eq!(got.mean_margin, (1.0 + 0.0 - 2.0 + 1.0) / 4.0);
    }

    #[test]
    fn bad_input_is_named() {
        assert!(matches!(wilson_interval(0, 0, 0.95), Err(Error::TooFew { .. })));
        assert!(matches!(wilson_interval(3, 2, 0.95), Err(Error::Setting { name: "successes", .. })));
        assert!(matches!(wilson_interval(1, 2, 1.0), Err(Error::Setting { name: "level", .. })));
        assert!(matches!(pair_accuracy(&[1.0], &[], 0.95), Err(Error::LengthMismatch { .. })));
        assert!(matches!(pair_accuracy(&[f64::NAN], &[0.0], 0.95), Err(Error::NotFinite { what: "chosen", .. })));
    }
}
