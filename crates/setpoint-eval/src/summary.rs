//! Description of one sample.

use serde::{Deserialize, Serialize};

use crate::error::{Error, check_sample};

/// A sample in seven numbers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Number of observations.
    pub n: usize,
    /// Arithmetic mean.
    pub mean: f64,
    /// Standard deviation with divisor `n − 1`; 0 for a single observation.
    pub std_dev: f64,
    /// Standard error of the mean, `std_dev / √n`.
    pub std_error: f64,
    /// Smallest observation.
    pub min: f64,
    /// Middle observation, or the mean of the two middle ones.
    pub median: f64,
    /// Largest observation.
    pub max: f64,
}

impl Summary {
    /// Describes `values`.
    ///
    /// # Errors
    /// [`Error::TooFew`] if there are none, [`Error::NotFinite`] if one of them is NaN or infinite.
    ///
    /// # Example
    /// ```
    /// let s = setpoint_eval::Summary::of(&[1.0, 2.0, 6.0])?;
    /// assert_eq!((s.mean, s.median, s.max), (3.0, 2.0, 6.0));
    /// assert_eq!(s.std_dev, 7.0_f64.sqrt()); // (4 + 1 + 9) / 2
    /// # Ok::<(), setpoint_eval::Error>(())
    /// ```
    pub fn of(values: &[f64]) -> Result<Self, Error> {
        check_sample("values", values, 1)?;
        let (mean, variance) = mean_and_variance(values);
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let n = values.len();
        Ok(Self {
            n,
            mean,
            std_dev: variance.sqrt(),
            std_error: (variance / n as f64).sqrt(),
            min: sorted[0],
            median: quantile(&sorted, 0.5),
            max: sorted[n - 1],
        })
    }
}

/// Returns the mean; NaN without values.
#[must_use]
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Mean and variance (divisor `n − 1`; 0 for one value) in two passes, which do not cancel as the one-pass formula does.
pub(crate) fn mean_and_variance(values: &[f64]) -> (f64, f64) {
    let mean = mean(values);
    if values.len() < 2 {
        return (mean, 0.0);
    }
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    (mean, squares / (values.len() as f64 - 1.0))
}

/// Returns the mean and the standard deviation (divisor `n − 1`; `None` for one value), or `None` without values.
#[must_use]
pub fn mean_and_deviation(values: &[f64]) -> Option<(f64, Option<f64>)> {
    let (mean, variance) = mean_and_variance(values);
    (!values.is_empty()).then(|| (mean, (values.len() > 1).then(|| variance.sqrt())))
}

/// The `q`-quantile of an ascending sample, linear between order statistics (type 7 of Hyndman and Fan 1996, numpy's default).
///
/// # Panics
/// If `sorted` is empty or `q` lies outside of `[0, 1]`.
pub fn quantile(sorted: &[f64], q: f64) -> f64 {
    assert!(!sorted.is_empty(), "the quantile of an empty sample does not exist");
    assert!((0.0..=1.0).contains(&q), "a quantile lies in [0, 1], not at {q}");
    let position = q * (sorted.len() - 1) as f64;
    let below = position.floor() as usize;
    let above = position.ceil() as usize;
    let share = position - below as f64;
    // Equal neighbours give the neighbour itself, without rounding.
    if sorted[below] == sorted[above] { sorted[below] } else { sorted[below] * (1.0 - share) + sorted[above] * share }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summary_of_an_arithmetic_progression_has_its_closed_forms() {
        // 1..=n: mean (n+1)/2, variance n(n+1)/12.
        let n = 40_usize;
        let values: Vec<f64> = (1..=n).rev().map(|v| v as f64).collect();
        let s = Summary::of(&values).unwrap();
        let variance = (n * (n + 1)) as f64 / 12.0;
        assert_eq!(s.n, n);
        assert!((s.mean - 20.5).abs() < 1e-12);
        assert!((s.std_dev - variance.sqrt()).abs() < 1e-12);
        assert!((s.std_error - (variance / n as f64).sqrt()).abs() < 1e-12);
        assert_eq!((s.min, s.median, s.max), (1.0, 20.5, 40.0));
    }

    #[test]
    fn deviations_are_those_of_a_sample() {
        assert_eq!(mean_and_deviation(&[]), None);
        assert_eq!(mean_and_deviation(&[2.0]), Some((2.0, None)));
        // Mean 2, squares 1 + 0 + 1 over n − 1 = 2.
        assert_eq!(mean_and_deviation(&[1.0, 2.0, 3.0]), Some((2.0, Some(1.0))));
    }

    #[test]
    fn variance_survives_a_large_offset() {
        // The one-pass formula E[x²] − E[x]² returns 0 or worse here.
        let (_, variance) = mean_and_variance(&[1e9 + 1.0, 1e9 + 2.0, 1e9 + 3.0]);
        assert_eq!(variance, 1.0);
    }

    #[test]
    fn one_observation_has_no_spread_and_none_is_an_error() {
        let s = Summary::of(&[3.5]).unwrap();
        assert_eq!((s.mean, s.std_dev, s.std_error), (3.5, 0.0, 0.0));
        assert!(matches!(Summary::of(&[]), Err(Error::TooFew { found: 0, needed: 1, .. })));
        assert!(matches!(Summary::of(&[1.0, f64::NAN]), Err(Error::NotFinite { index: 1, .. })));
    }

    #[test]
    fn quantile_interpolates_between_order_statistics() {
        let sorted = [10.0, 20.0, 40.0];
        assert_eq!(quantile(&sorted, 0.0), 10.0);
        assert_eq!(quantile(&sorted, 0.25), 15.0);
        assert_eq!(quantile(&sorted, 0.5), 20.0);
        assert_eq!(quantile(&sorted, 0.75), 30.0);
        assert_eq!(quantile(&sorted, 1.0), 40.0);
    }
}
