//! Metrics that add up over micro-batches without depending on how the batch was split.

use serde::{Deserialize, Serialize};

/// Named metrics of some examples, mergeable with those of others.
///
/// A mean is kept as sum and weight, so that merging the micro-batches of a step gives the mean over
/// all its examples and not a mean of means. Names keep the order of their first appearance.
///
/// ```
/// use setpoint_train::MetricSums;
///
/// let mut step = MetricSums::new();
/// step.mean("rewards/accuracies", 3.0, 4.0); // 3 of 4 pairs
/// let mut second = MetricSums::new();
/// second.mean("rewards/accuracies", 0.0, 1.0); // 0 of 1
/// step.merge(&second);
/// assert_eq!(step.values(), [("rewards/accuracies".to_string(), 0.6)]);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MetricSums {
    entries: Vec<(String, Metric)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Metric {
    Mean {
        #[serde(with = "any_f64")]
        sum: f64,
        #[serde(with = "any_f64")]
        weight: f64,
    },
    Sum(#[serde(with = "any_f64")] f64),
    Max(#[serde(with = "any_f64")] f64),
    Min(#[serde(with = "any_f64")] f64),
    Std {
        #[serde(with = "any_f64")]
        count: f64,
        #[serde(with = "any_f64")]
        mean: f64,
        /// Σ (x − mean)².
        #[serde(with = "any_f64")]
        squares: f64,
    },
}

impl MetricSums {
    /// No metrics.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds to a weighted mean: `sum` of the values times their weights, and the sum of the weights.
    pub fn mean(&mut self, name: &str, sum: f64, weight: f64) {
        self.add(name, Metric::Mean { sum, weight });
    }

    /// Adds to a sum.
    pub fn sum(&mut self, name: &str, value: f64) {
        self.add(name, Metric::Sum(value));
    }

    /// Takes a value into a maximum.
    pub fn max(&mut self, name: &str, value: f64) {
        self.add(name, Metric::Max(value));
    }

    /// Takes a value into a minimum.
    pub fn min(&mut self, name: &str, value: f64) {
        self.add(name, Metric::Min(value));
    }

    /// Takes values into a standard deviation (of the population, divided by n).
    pub fn std(&mut self, name: &str, values: &[f64]) {
        for &value in values {
            self.std_of(name, 1.0, value, 0.0);
        }
    }

    /// Takes `count` values into a standard deviation, of which mean and standard deviation are known.
    pub fn std_of(&mut self, name: &str, count: f64, mean: f64, std: f64) {
        if count > 0.0 {
            self.add(name, Metric::Std { count, mean, squares: count * std * std });
        }
    }

    /// Adds the metrics of other examples.
    ///
    /// # Panics
    /// When a name is a mean here and, say, a maximum there.
    pub fn merge(&mut self, other: &Self) {
        for (name, metric) in &other.entries {
            self.add(name, *metric);
        }
    }

    /// Returns whether there is no metric.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Name and value of each metric. A mean or deviation of nothing is left out.
    pub fn values(&self) -> Vec<(String, f64)> {
        self.entries.iter().filter_map(|(name, metric)| Some((name.clone(), metric.value()?))).collect()
    }

    fn add(&mut self, name: &str, metric: Metric) {
        match self.entries.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => *known = known.merged(metric, name),
            None => self.entries.push((name.to_string(), metric)),
        }
    }
}

impl Metric {
    fn value(self) -> Option<f64> {
        match self {
            Self::Mean { sum, weight } => (weight != 0.0).then(|| sum / weight),
            Self::Sum(value) | Self::Max(value) | Self::Min(value) => Some(value),
            Self::Std { count, squares, .. } => (count > 0.0).then(|| (squares / count).sqrt()),
        }
    }

    fn merged(self, other: Self, name: &str) -> Self {
        match (self, other) {
            (Self::Mean { sum, weight }, Self::Mean { sum: s, weight: w }) => {
                Self::Mean { sum: sum + s, weight: weight + w }
            }
            (Self::Sum(a), Self::Sum(b)) => Self::Sum(a + b),
            (Self::Max(a), Self::Max(b)) => Self::Max(a.max(b)),
            (Self::Min(a), Self::Min(b)) => Self::Min(a.min(b)),
            (Self::Std { count, mean, squares }, Self::Std { count: n, mean: m, squares: s }) => {
                // Chan, Golub and LeVeque, "Updating Formulae and a Pairwise Algorithm for
                // Computing Sample Variances", equations 2.1a and 2.1b.
                let total = count + n;
                let delta = m - mean;
                Self::Std {
                    count: total,
                    mean: mean + delta * n / total,
                    squares: squares + s + delta * delta * count * n / total,
                }
            }
            _ => panic!("the metric `{name}` is of two kinds"),
        }
    }
}

/// f64 in JSON, which has no NaN and no infinities: those are written as strings.
pub(crate) mod any_f64 {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Number {
        Finite(f64),
        Other(String),
    }

    pub(crate) fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        if value.is_finite() {
            Number::Finite(*value).serialize(serializer)
        } else {
            Number::Other(value.to_string()).serialize(serializer)
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        match Number::deserialize(deserializer)? {
            Number::Finite(value) => Ok(value),
            Number::Other(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merging_equals_measuring_at_once() {
        let values = [3.0, -1.0, 4.0, 1.0, -5.0, 9.0];
        let measure = |values: &[f64]| {
            let mut sums = MetricSums::new();
            sums.mean("mean", values.iter().sum(), values.len() as f64);
            sums.sum("sum", values.iter().sum());
            sums.std("std", values);
            for &value in values {
                sums.max("max", value);
                sums.min("min", value);
            }
            sums
        };
        let mut merged = measure(&values[..1]);
        merged.merge(&measure(&values[1..4]));
        let mut last = measure(&[]);
        last.mean("mean", 4.0, 2.0);
        last.sum("sum", 4.0);
        // -5 and 9: mean 2, deviation 7.
        last.std_of("std", 2.0, 2.0, 7.0);
        last.max("max", 9.0);
        last.min("min", -5.0);
        merged.merge(&last);

        let mean = values.iter().sum::<f64>() / 6.0;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 6.0;
        let expected = [("mean", mean), ("sum", 11.0), ("std", variance.sqrt()), ("max", 9.0), ("min", -5.0)];
        for ((name, value), (expected_name, expected)) in merged.values().iter().zip(expected) {
            assert_eq!(name, expected_name);
            assert!((value - expected).abs() < 1e-12, "{name}: {value} {expected}");
        }
    }

    #[test]
    fn state_survives_json_to_the_bit() {
        let mut sums = MetricSums::new();
        sums.mean("third", 1.0 / 3.0, 0.1);
        sums.max("inf", f64::INFINITY);
        sums.sum("nan", f64::NAN);
        let text = serde_json::to_string(&sums).unwrap();
        let back: MetricSums = serde_json::from_str(&text).unwrap();
        assert_eq!(back.entries[..2], sums.entries[..2]);
        assert!(back.values()[2].1.is_nan());
    }

    #[test]
    fn a_mean_of_nothing_is_left_out() {
        let mut sums = MetricSums::new();
        sums.mean("empty", 0.0, 0.0);
        assert!(sums.values().is_empty());
    }
}
