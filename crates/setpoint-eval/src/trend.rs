//! The slope of a curve at its end.

use serde::{Deserialize, Serialize};

use crate::summary::mean;

/// The fewest points that a slope with an error is taken from.
const FEWEST: usize = 5;

/// The least-squares slope of the last fifth of a curve.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Trend {
    /// Change for each step.
    pub slope: f64,
    /// Its standard error, `√( Σ residual² / (n − 2) / Σ(x − x̄)² )`.
    pub std_error: f64,
    /// Points that it was taken from.
    pub points: usize,
}

impl Trend {
    /// Fits a line to the last fifth of `(step, value)`, in the order of the steps, or to the last five points if that is more. `None` if there
    /// are fewer, or one of them is not finite.
    ///
    /// The error holds for independent deviations from the line, as the losses of different batches have.
    ///
    /// # Example
    /// ```
    /// let loss: Vec<(f64, f64)> = (0..25).map(|i| (f64::from(i), 3.0 - 0.5 * f64::from(i))).collect();
    /// let trend = setpoint_eval::Trend::of_last_fifth(&loss).unwrap();
    /// assert_eq!((trend.slope, trend.points), (-0.5, 5));
    /// assert!(trend.is_falling());
    /// ```
    #[must_use]
    pub fn of_last_fifth(points: &[(f64, f64)]) -> Option<Self> {
        let count = (points.len() / 5).max(FEWEST);
        let last = &points[points.len().checked_sub(count)?..];
        let (xs, ys): (Vec<f64>, Vec<f64>) = last.iter().copied().unzip();
        let (x, y) = (mean(&xs), mean(&ys));
        let squares: f64 = xs.iter().map(|v| (v - x).powi(2)).sum();
        let slope = last.iter().map(|(px, py)| (px - x) * (py - y)).sum::<f64>() / squares;
        let residuals: f64 = last.iter().map(|(px, py)| (py - y - slope * (px - x)).powi(2)).sum();
        let std_error = (residuals / (count as f64 - 2.0) / squares).sqrt();
        (slope.is_finite() && std_error.is_finite()).then_some(Self { slope, std_error, points: count })
    }

    /// Returns whether the curve still falls: the slope is below 0 by more than two standard errors.
    #[must_use]
    pub fn is_falling(&self) -> bool {
        self.slope + 2.0 * self.std_error < 0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(values: &[f64]) -> Vec<(f64, f64)> {
        values.iter().enumerate().map(|(i, value)| (1.0 + i as f64, *value)).collect()
    }

    #[test]
    fn slope_and_error_are_those_of_least_squares() {
        // x̄ = 3, ȳ = 2, Σ(x − x̄)² = 10, Σ(x − x̄)(y − ȳ) = −2·2 + −1·1 + 1·0 + 2·(−3)= −11; the residuals follow from the line.
        let values = [4.0, 3.0, 2.0, 2.0, -1.0];
        let found = Trend::of_last_fifth(&curve(&values)).unwrap();
        let slope = -1.1;
        let squares: f64 = values.iter().enumerate().map(|(i, y)| (y - 2.0 - slope * (i as f64 - 2.0)).powi(2)).sum();
        assert!((found.slope - slope).abs() < 1e-12, "{found:?}");
        assert!((found.std_error - (squares / 3.0 / 10.0).sqrt()).abs() < 1e-12, "{found:?}");
        assert!(found.is_falling());
    }

    #[test]
    fn only_the_last_fifth_counts() {
        // It falls for 40 steps, then stays the same but for noise.
        let values: Vec<f64> =
            (0..50).map(|i| if i < 40 { 100.0 - f64::from(i) } else { [1.0, -1.0][i as usize % 2] }).collect();
        let found = Trend::of_last_fifth(&curve(&values)).unwrap();
        assert_eq!(found.points, 10);
        assert!(!found.is_falling() && found.slope.abs() < 0.1, "{found:?}");
        assert!(Trend::of_last_fifth(&curve(&values[..40])).unwrap().is_falling());
        let rising: Vec<f64> = (0..25).map(f64::from).collect();
        assert!(!Trend::of_last_fifth(&curve(&rising)).unwrap().is_falling());
    }

    #[test]
    fn too_few_points_have_no_trend() {
        assert_eq!(Trend::of_last_fifth(&curve(&[3.0, 2.0, 1.0, 0.0])), None);
        assert_eq!(Trend::of_last_fifth(&[]), None);
        assert_eq!(Trend::of_last_fifth(&curve(&[3.0, 2.0, f64::NAN, 0.0, 1.0])), None);
        // All at one step.
        assert_eq!(Trend::of_last_fifth(&[(1.0, 2.0); 5]), None);
        let level = Trend::of_last_fifth(&curve(&[2.0; 5])).unwrap();
        assert_eq!((level.slope, level.is_falling()), (0.0, false));
    }
}
