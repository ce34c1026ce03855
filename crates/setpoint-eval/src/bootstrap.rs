//! Bootstrap confidence intervals: percentile and bias-corrected accelerated.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use serde::{Deserialize, Serialize};

use crate::error::{Error, check_level, check_paired, check_sample};
use crate::normal;
use crate::summary::{mean_and_variance, quantile};

/// The way from replicates to an interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BootstrapMethod {
    /// The quantiles `(1 ∓ level)/2` of the replicates (Efron 1981).
    Percentile,
    /// Bias-corrected and accelerated (Efron 1987): quantiles shifted by the median bias and the skewness of the statistic.
    /// Second-order accurate, and never outside of the replicates.
    #[default]
    Bca,
}

/// Settings of a bootstrap; [`Default`] is 10 000 resamples, 95 %, BCa, seed 0.
///
/// # Example
/// ```
/// use setpoint_eval::{Bootstrap, BootstrapMethod};
///
/// let rewards = [0.1, 0.5, 0.4, 0.9, 0.3, 0.7];
/// let bootstrap = Bootstrap { seed: 7, method: BootstrapMethod::Percentile, ..Bootstrap::default() };
/// let mean = bootstrap.mean(&rewards)?;
/// assert!(mean.low < mean.value && mean.value < mean.high);
/// assert_eq!(mean, bootstrap.mean(&rewards)?); // the seed decides everything
/// # Ok::<(), setpoint_eval::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Bootstrap {
    /// Number of resamples; at least 100, below which the tails are noise.
    pub resamples: usize,
    /// Share of the distribution that the interval covers, in `(0, 1)`.
    pub level: f64,
    /// The way from replicates to an interval.
    pub method: BootstrapMethod,
    /// Seed of the ChaCha8 stream that draws the resamples.
    pub seed: u64,
}

impl Default for Bootstrap {
    fn default() -> Self {
        Self { resamples: 10_000, level: 0.95, method: BootstrapMethod::default(), seed: 0 }
    }
}

/// A statistic with its uncertainty.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The statistic on the sample itself.
    pub value: f64,
    /// Its standard error: `s/√n` for means, the standard deviation of the replicates for other statistics.
    pub std_error: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
    /// The probability that the interval is meant to cover, such as 0.95.
    pub level: f64,
}

impl Bootstrap {
    /// The mean of `values`, resampled with replacement.
    ///
    /// # Errors
    /// Fewer than two values, one that is not finite, or a setting out of range.
    pub fn mean(&self, values: &[f64]) -> Result<Estimate, Error> {
        self.check()?;
        check_sample("values", values, 2)?;
        Ok(self.mean_of_checked(values))
    }

    /// The mean of `a[i] − b[i]`, resampled **by pair**: what two systems share on a prompt cancels.
    ///
    /// The difference is significant at `1 − level` where the interval leaves out 0.
    ///
    /// # Errors
    /// As [`mean`](Self::mean), and [`Error::LengthMismatch`].
    ///
    /// # Example
    /// ```
    /// let (a, b) = ([10.1, 20.2, 30.1, 40.2], [10.0, 20.0, 30.0, 40.0]);
    /// let difference = setpoint_eval::Bootstrap::default().paired_difference(&a, &b)?;
    /// assert!(difference.low > 0.0); // though the two samples overlap nearly everywhere
    /// # Ok::<(), setpoint_eval::Error>(())
    /// ```
    pub fn paired_difference(&self, a: &[f64], b: &[f64]) -> Result<Estimate, Error> {
        self.check()?;
        check_paired("a", a.len(), "b", b.len())?;
        check_sample("a", a, 2)?;
        check_sample("b", b, 2)?;
        let differences: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).collect();
        check_sample("a − b", &differences, 2)?;
        Ok(self.mean_of_checked(&differences))
    }

    /// Any statistic of `n` observations: `statistic` receives the indices of a resample (`0..n` for the sample itself).
    ///
    /// Costs `resamples + n + 1` evaluations with BCa (the jackknife leaves each observation out once).
    ///
    /// # Errors
    /// Fewer than two observations, a setting out of range, or a statistic that is not finite on some resample.
    ///
    /// # Example
    /// The ratio of two means, which no closed form covers:
    /// ```
    /// let (kl, tokens) = ([3.0, 5.0, 4.0, 9.0], [10.0, 20.0, 12.0, 40.0]);
    /// let per_token = setpoint_eval::Bootstrap::default().statistic(4, |rows| {
    ///     rows.iter().map(|&i| kl[i]).sum::<f64>() / rows.iter().map(|&i| tokens[i]).sum::<f64>()
    /// })?;
    /// assert_eq!(per_token.value, 21.0 / 82.0);
    /// # Ok::<(), setpoint_eval::Error>(())
    /// ```
    pub fn statistic(&self, n: usize, statistic: impl Fn(&[usize]) -> f64) -> Result<Estimate, Error> {
        self.check()?;
        if n < 2 {
            return Err(Error::TooFew { what: "observations", found: n, needed: 2 });
        }
        let all: Vec<usize> = (0..n).collect();
        let value = statistic(&all);
        let replicates = self.replicates(n, &statistic);
        let jackknife: Vec<f64> = match self.method {
            BootstrapMethod::Percentile => Vec::new(),
            BootstrapMethod::Bca => (0..n)
                .map(|left_out| {
                    let rest: Vec<usize> = (0..n).filter(|&i| i != left_out).collect();
                    statistic(&rest)
                })
                .collect(),
        };
        check_sample("the statistic on the sample", &[value], 1)?;
        check_sample("the statistic on the resamples", &replicates, 1)?;
        check_sample("the statistic on the jackknife samples", &jackknife, 0)?;
        let std_error = mean_and_variance(&replicates).1.sqrt();
        Ok(self.estimate(value, std_error, replicates, &jackknife))
    }

    /// Several statistics of `n` observations, which are computed together, as percentile intervals: `statistics` receives the indices of a
    /// resample (`0..n` for the sample itself) and returns as many numbers every time.
    ///
    /// # Errors
    /// Fewer than two observations, a setting out of range, or a statistic that is not finite on some resample.
    pub(crate) fn statistics(
        &self,
        n: usize,
        statistics: impl Fn(&[usize]) -> Vec<f64>,
    ) -> Result<Vec<Estimate>, Error> {
        self.check()?;
        if n < 2 {
            return Err(Error::TooFew { what: "observations", found: n, needed: 2 });
        }
        let values = statistics(&(0..n).collect::<Vec<_>>());
        check_sample("the statistics on the sample", &values, 1)?;
        let resampled = self.replicates(n, statistics);
        let percentile = Self { method: BootstrapMethod::Percentile, ..*self };
        let estimate = |(i, value)| {
            let replicates: Vec<f64> = resampled.iter().map(|values| values[i]).collect();
            check_sample("a statistic on the resamples", &replicates, 1)?;
            let std_error = mean_and_variance(&replicates).1.sqrt();
            Ok(percentile.estimate(value, std_error, replicates, &[]))
        };
        values.into_iter().enumerate().map(estimate).collect()
    }

    fn mean_of_checked(&self, values: &[f64]) -> Estimate {
        let n = values.len() as f64;
        let mean_at = |rows: &[usize]| rows.iter().map(|&i| values[i]).sum::<f64>() / n;
        let replicates = self.replicates(values.len(), mean_at);
        let (value, variance) = mean_and_variance(values);
        // The mean without observation i, for all i in one pass.
        let jackknife: Vec<f64> = values.iter().map(|v| value + (value - v) / (n - 1.0)).collect();
        self.estimate(value, (variance / n).sqrt(), replicates, &jackknife)
    }

    fn check(&self) -> Result<(), Error> {
        check_level(self.level)?;
        if self.resamples < 100 {
            return Err(Error::Setting {
                name: "resamples",
                value: self.resamples as f64,
                expected: "at least 100 resamples",
            });
        }
        Ok(())
    }

    fn replicates<T>(&self, n: usize, statistic: impl Fn(&[usize]) -> T) -> Vec<T> {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        let mut rows = vec![0; n];
        (0..self.resamples)
            .map(|_| {
                // u64, so that 32- and 64-bit machines draw the same rows.
                rows.iter_mut().for_each(|row| *row = rng.random_range(0..n as u64) as usize);
                statistic(&rows)
            })
            .collect()
    }

    fn estimate(&self, value: f64, std_error: f64, mut replicates: Vec<f64>, jackknife: &[f64]) -> Estimate {
        replicates.sort_by(f64::total_cmp);
        let tails = [0.5 * (1.0 - self.level), 0.5 * (1.0 + self.level)];
        let [low, high] = match self.method {
            BootstrapMethod::Percentile => tails,
            BootstrapMethod::Bca => {
                let shift = median_bias(value, &replicates);
                let acceleration = acceleration(jackknife);
                tails.map(|tail| adjusted_tail(tail, shift, acceleration))
            }
        };
        Estimate {
            value,
            std_error,
            low: quantile(&replicates, low),
            high: quantile(&replicates, high),
            level: self.level,
        }
    }
}

/// `ẑ₀ = Φ⁻¹(share of replicates below the estimate)`, ties counted half (Efron and Tibshirani 1993, eq. 14.14).
fn median_bias(value: f64, sorted: &[f64]) -> f64 {
    // A resample that holds the same values in another order has the same mean but for rounding; it must tie.
    let magnitude = sorted.iter().fold(value.abs(), |m, r| m.max(r.abs()));
    let slack = 1e-12 * magnitude;
    let below = sorted.partition_point(|r| *r < value - slack);
    let tied = sorted.partition_point(|r| *r <= value + slack) - below;
    let n = sorted.len() as f64;
    // Half a replicate is kept on either side: all on one side means "at least that far", not infinitely far.
    let count = (below as f64 + 0.5 * tied as f64).clamp(0.5, n - 0.5);
    normal::quantile(count / n)
}

/// `â = Σ(θ̄ − θ₍ᵢ₎)³ / 6(Σ(θ̄ − θ₍ᵢ₎)²)^{3/2}` over the jackknife values (ibid., eq. 14.15); 0 where nothing varies.
fn acceleration(jackknife: &[f64]) -> f64 {
    let (mean, _) = mean_and_variance(jackknife);
    let squares: f64 = jackknife.iter().map(|v| (mean - v).powi(2)).sum();
    let cubes: f64 = jackknife.iter().map(|v| (mean - v).powi(3)).sum();
    let scale = squares.powf(1.5);
    if scale == 0.0 { 0.0 } else { cubes / (6.0 * scale) }
}

/// `Φ(ẑ₀ + (ẑ₀ + z)/(1 − â(ẑ₀ + z)))` with `z = Φ⁻¹(tail)` (ibid., eq. 14.10).
fn adjusted_tail(tail: f64, shift: f64, acceleration: f64) -> f64 {
    let moved = shift + normal::quantile(tail);
    let denominator = 1.0 - acceleration * moved;
    // Past the pole the formula would come back from the other side; its limit is the end of the distribution.
    if denominator <= 0.0 {
        return if moved > 0.0 { 1.0 } else { 0.0 };
    }
    normal::cdf(shift + moved / denominator)
}

#[cfg(test)]
#[path = "bootstrap_tests.rs"]
mod tests;
