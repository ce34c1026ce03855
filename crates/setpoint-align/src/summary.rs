//! Distributions in a few numbers.

use serde::{Deserialize, Serialize};

/// Mean, spread and quantiles of finite values. Quantiles interpolate linearly between the
/// neighbouring order statistics, as numpy's default does.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Number of values.
    pub count: usize,
    /// Arithmetic mean.
    pub mean: f64,
    /// Population standard deviation.
    pub std: f64,
    /// Smallest value.
    pub min: f64,
    /// 5 % quantile.
    pub q05: f64,
    /// 25 % quantile.
    pub q25: f64,
    /// Median.
    pub median: f64,
    /// 75 % quantile.
    pub q75: f64,
    /// 95 % quantile.
    pub q95: f64,
    /// Largest value.
    pub max: f64,
}

impl Summary {
    /// Summarises the values; `None` where there are none.
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (&min, &max) = (sorted.first()?, sorted.last()?);
        let (mean, std) = mean_std(values);
        let at = |q| quantile_of_sorted(&sorted, q);
        Some(Self {
            count: values.len(),
            mean,
            std,
            min,
            q05: at(0.05),
            q25: at(0.25),
            median: at(0.5),
            q75: at(0.75),
            q95: at(0.95),
            max,
        })
    }
}

/// Returns the mean and the population standard deviation, in two passes; NaN without values. Both are finite wherever the
/// values are, also where their sums or squares leave the range of f64.
#[must_use]
pub fn mean_std(values: &[f64]) -> (f64, f64) {
    let (mean, std) = plain_mean_std(values);
    let largest = values.iter().fold(0.0, |largest: f64, value| largest.max(value.abs()));
    let differ = || values.iter().any(|value| *value != values[0]);
    if mean.is_finite() && std.is_finite() && (std > 0.0 || !differ()) || !largest.is_finite() {
        return (mean, std);
    }
    // Of values between -1 and 1 nothing overflows, and the largest square does not vanish.
    let scaled: Vec<f64> = values.iter().map(|value| value / largest).collect();
    let (mean, std) = plain_mean_std(&scaled);
    (mean * largest, std * largest)
}

fn plain_mean_std(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (mean, (squares / count).sqrt())
}

/// The mean, `None` without values; finite wherever the values are.
pub(crate) fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| mean_std(values).0)
}

/// The `q`-quantile of a non-empty ascending slice, linearly interpolated.
fn quantile_of_sorted(sorted: &[f64], q: f64) -> f64 {
    let position = q * (sorted.len() - 1) as f64;
    let below = position.floor() as usize;
    let above = (below + 1).min(sorted.len() - 1);
    let fraction = position - below as f64;
    let step = sorted[above] - sorted[below];
    if step.is_finite() {
        sorted[below] + fraction * step
    } else {
        (1.0 - fraction) * sorted[below] + fraction * sorted[above]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summary_of_a_ramp() {
        // 0, 1, …, 20 shuffled by a stride: every 5 % quantile is an order statistic.
        let values: Vec<f64> = (0..21).map(|i| f64::from(i * 8 % 21)).collect();
        let summary = Summary::of(&values).unwrap();
        assert_eq!((summary.count, summary.mean, summary.median), (21, 10.0, 10.0));
        assert_eq!((summary.min, summary.q05, summary.q25), (0.0, 1.0, 5.0));
        assert_eq!((summary.q75, summary.q95, summary.max), (15.0, 19.0, 20.0));
        // Variance of 0..=m: m(m + 2)/12.
        assert!((summary.std - (20.0 * 22.0 / 12.0f64).sqrt()).abs() < 1e-12);
    }

    #[test]
    fn sums_and_squares_beyond_the_range_of_f64_do_no_harm() {
        // Deviations ±1 around 0, and 0, 1 and 2 around 1, at scales whose squares are no f64.
        for scale in [1e300, 1.5e308, 1e-200, 5e-324] {
            let (mean, std) = mean_std(&[scale, -scale, scale, -scale]);
            assert!(mean.abs() <= 1e-15 * scale && (std / scale - 1.0).abs() < 1e-12, "{scale}: {mean}, {std}");
        }
        let (mean, std) = mean_std(&[0.0, 1e307, 2e307]);
        assert!((mean / 1e307 - 1.0).abs() < 1e-12 && (std / 1e307 - (2f64 / 3.0).sqrt()).abs() < 1e-12);
        assert_eq!(mean_std(&[0.0; 3]), (0.0, 0.0));
        assert_eq!(mean_std(&[7.0; 3]), (7.0, 0.0));
        let summary = Summary::of(&[-1.5e308, 1.5e308]).unwrap();
        assert_eq!((summary.median, summary.mean), (0.0, 0.0));
    }

    #[test]
    fn quantiles_interpolate_and_nothing_has_none() {
        let summary = Summary::of(&[0.0, 10.0]).unwrap();
        assert_eq!((summary.q25, summary.median), (2.5, 5.0));
        assert_eq!(Summary::of(&[]), None);
    }
}
