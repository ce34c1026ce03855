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

/// Mean and population standard deviation of a non-empty slice, in two passes.
pub(crate) fn mean_std(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (mean, (squares / count).sqrt())
}

/// The `q`-quantile of a non-empty ascending slice, linearly interpolated.
fn quantile_of_sorted(sorted: &[f64], q: f64) -> f64 {
    let position = q * (sorted.len() - 1) as f64;
    let below = position.floor() as usize;
    let above = (below + 1).min(sorted.len() - 1);
    let fraction = position - below as f64;
    sorted[below] + fraction * (sorted[above] - sorted[below])
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
    fn quantiles_interpolate_and_nothing_has_none() {
        let summary = Summary::of(&[0.0, 10.0]).unwrap();
        assert_eq!((summary.q25, summary.median), (2.5, 5.0));
        assert_eq!(Summary::of(&[]), None);
    }
}
