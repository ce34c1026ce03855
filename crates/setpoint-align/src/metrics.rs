//! trl's metrics, and DRO's, that combine over micro-batches, devices and steps.
//!
//! | name | over | value |
//! |---|---|---|
//! | `rewards/chosen`, `rewards/rejected` | responses of the role | mean implicit reward (β·h for objectives with a reference) |
//! | `rewards/accuracies` | pairs | share with chosen reward strictly greater than rejected |
//! | `rewards/margins` | pairs | mean chosen reward − rejected reward |
//! | `logps/chosen`, `logps/rejected` | responses | mean log-probability, summed over the tokens, nats |
//! | `logratios/chosen`, `logratios/rejected` | responses | mean log-ratio h, unscaled, nats |
//! | `dro/residual` | responses | e, units of reward |
//! | `dro/target` | responses | the log-ratio that the reward implies, nats |
//! | `dro/log_z` | prompts | log_z0 + D_x with the prompt term applied, nats |
//! | `dro/prompt_logratio` | prompts | D_x as found, nats; not with `prompt_term = off`, which does not look at it |
//! | `dro/infeasible_frac` | prompts | share whose targets exceed all probability at the current log Z |
//!
//! The four of DRO with a distribution report the mean under their name, and the population
//! standard deviation and the maximum under the name with `_std` and `_max`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::audit::FEASIBILITY_TOLERANCE;
use crate::objectives::DroValues;
use crate::prompt_rewards::Role;

/// A summary of one quantity's values. Those of disjoint sets of values combine to those of
/// their union.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Moments {
    /// Number of values.
    pub count: f64,
    /// Their arithmetic mean.
    pub mean: f64,
    /// The sum of their squared distances from the mean.
    pub squares: f64,
    /// The largest of them.
    pub max: f64,
}

impl Moments {
    /// One value.
    pub fn of(value: f64) -> Self {
        Self { count: 1.0, mean: value, squares: 0.0, max: value }
    }

    /// Both sets of values together (Chan, Golub and LeVeque 1979: nothing cancels, however far the
    /// values lie from 0).
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let count = self.count + other.count;
        let distance = other.mean - self.mean;
        Self {
            count,
            mean: self.mean + distance * other.count / count,
            squares: self.squares + other.squares + distance * distance * self.count * other.count / count,
            max: self.max.max(other.max),
        }
    }

    /// Population standard deviation.
    pub fn std(&self) -> f64 {
        (self.squares / self.count).sqrt()
    }
}

/// A response of the batch, as the metrics see it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ResponsePoint {
    /// `log π_θ(y|x)`, nats.
    pub logp: f64,
    /// `h`, nats; `None` for objectives without a reference.
    pub log_ratio: Option<f64>,
    /// The objective's implicit reward.
    pub reward: f64,
}

impl ResponsePoint {
    /// A response under an objective with a reference: the implicit reward is `β·h`.
    pub fn with_reference(logp: f64, ref_logp: f64, beta: f64) -> Self {
        let log_ratio = logp - ref_logp;
        Self { logp, log_ratio: Some(log_ratio), reward: beta * log_ratio }
    }
}

/// The metrics of a micro-batch. The engine adds those of micro-batches up.
///
/// ```
/// use setpoint_align::{Metrics, ResponsePoint};
///
/// let beta = 0.1;
/// let chosen = ResponsePoint::with_reference(-10.0, -14.0, beta);
/// let rejected = ResponsePoint::with_reference(-30.0, -24.0, beta);
/// let mut metrics = Metrics::default();
/// metrics.record_pair(&chosen, &rejected);
/// assert_eq!(metrics.get("rewards/accuracies"), Some(1.0));
/// assert_eq!(metrics.get("logratios/rejected"), Some(-6.0));
/// ```
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Metrics {
    metrics: BTreeMap<String, Metric>,
}

/// One metric of a micro-batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Metric {
    /// Its values.
    pub moments: Moments,
    /// True if their spread and maximum are reported next to their mean.
    pub has_spread: bool,
}

impl Metrics {
    /// Adds one value of a metric whose mean is reported.
    pub fn record(&mut self, name: &str, value: f64) {
        self.add(name, value, false);
    }

    /// Adds one value of a metric whose spread and maximum are reported as well.
    pub(crate) fn record_spread(&mut self, name: &str, value: f64) {
        self.add(name, value, true);
    }

    fn add(&mut self, name: &str, value: f64, has_spread: bool) {
        let one = Moments::of(value);
        match self.metrics.get_mut(name) {
            Some(metric) => metric.moments = metric.moments.plus(one),
            None => {
                self.metrics.insert(name.to_owned(), Metric { moments: one, has_spread });
            }
        }
    }

    /// Records a response on its side: `rewards/…`, `logps/…`, `logratios/…`.
    pub fn record_response(&mut self, role: Role, point: &ResponsePoint) {
        let [rewards, logps, log_ratios] = match role {
            Role::Chosen => ["rewards/chosen", "logps/chosen", "logratios/chosen"],
            Role::Rejected => ["rewards/rejected", "logps/rejected", "logratios/rejected"],
        };
        self.record(rewards, point.reward);
        self.record(logps, point.logp);
        if let Some(log_ratio) = point.log_ratio {
            self.record(log_ratios, log_ratio);
        }
    }

    /// Records the comparison of two implicit rewards: `rewards/accuracies`, `rewards/margins`.
    /// A tie is no success.
    pub fn record_comparison(&mut self, chosen_reward: f64, rejected_reward: f64) {
        self.record("rewards/accuracies", f64::from(u8::from(chosen_reward > rejected_reward)));
        self.record("rewards/margins", chosen_reward - rejected_reward);
    }

    /// Records a pair: both responses and their comparison.
    pub fn record_pair(&mut self, chosen: &ResponsePoint, rejected: &ResponsePoint) {
        self.record_response(Role::Chosen, chosen);
        self.record_response(Role::Rejected, rejected);
        self.record_comparison(chosen.reward, rejected.reward);
    }

    /// Records a micro-batch of DRO: `dro/residual` and `dro/target` of each response, `dro/log_z` and
    /// `dro/prompt_logratio` of each prompt, and `dro/infeasible_frac` where `log_masses` has
    /// [`crate::prompt_log_mass`] of each prompt's data.
    ///
    /// # Panics
    /// If `log_masses` has another number of prompts.
    pub(crate) fn record_dro(&mut self, values: &DroValues, log_masses: Option<&[f64]>) {
        let each = [
            ("dro/residual", &values.residuals),
            ("dro/target", &values.targets),
            ("dro/log_z", &values.prompt_log_z),
            ("dro/prompt_logratio", &values.prompt_log_ratios),
        ];
        for (name, values) in each {
            values.iter().for_each(|&value| self.record_spread(name, value));
        }
        if let Some(log_masses) = log_masses {
            assert_eq!(log_masses.len(), values.prompt_log_z.len(), "one log-mass per prompt");
            for (log_mass, log_z) in log_masses.iter().zip(&values.prompt_log_z) {
                let infeasible = log_mass - log_z > FEASIBILITY_TOLERANCE;
                self.record("dro/infeasible_frac", f64::from(u8::from(infeasible)));
            }
        }
    }

    /// Returns each metric with its name, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Metric)> {
        self.metrics.iter().map(|(name, metric)| (name.as_str(), *metric))
    }

    /// Returns the mean of a metric; `None` if nothing was recorded.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.metrics.get(name).map(|metric| metric.moments.mean)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_have_trls_names_and_values() {
        let mut metrics = Metrics::default();
        let point = |logp, ref_logp| ResponsePoint::with_reference(logp, ref_logp, 0.5);
        metrics.record_pair(&point(-10.0, -12.0), &point(-20.0, -16.0));
        metrics.record_pair(&point(-30.0, -28.0), &point(-8.0, -6.0));
        let expected = [
            ("logps/chosen", -20.0),
            ("logps/rejected", -14.0),
            ("logratios/chosen", 0.0),
            ("logratios/rejected", -3.0),
            ("rewards/accuracies", 0.5), // the second pair ties: −1 against −1
            ("rewards/chosen", 0.0),
            ("rewards/margins", 1.5),
            ("rewards/rejected", -1.5),
        ];
        assert_eq!(metrics.iter().map(|(name, metric)| (name, metric.moments.mean)).collect::<Vec<_>>(), expected);
        assert!(metrics.iter().all(|(_, metric)| !metric.has_spread));
    }

    #[test]
    fn no_reference_no_log_ratio() {
        let mut metrics = Metrics::default();
        let point = ResponsePoint { logp: -3.0, log_ratio: None, reward: -0.3 };
        metrics.record_response(Role::Rejected, &point);
        let names: Vec<&str> = metrics.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["logps/rejected", "rewards/rejected"]);
        assert_eq!(metrics.get("logratios/rejected"), None);
    }

    #[test]
    fn dro_reports_mean_std_max_and_infeasible_share() {
        let values = DroValues {
            residuals: vec![1.0, 3.0],
            errors: vec![1.0, 9.0],
            log_ratios: vec![0.0, 0.0],
            targets: vec![-4.0, -2.0],
            prompt_log_z: vec![51.0, 49.0, 50.0],
            prompt_log_ratios: vec![1.0, -1.0, 0.0],
        };
        let mut metrics = Metrics::default();
        metrics.record_dro(&values, None);
        assert_eq!(metrics.get("dro/infeasible_frac"), None);
        metrics = Metrics::default();
        // Above, exactly at, and below log Z.
        metrics.record_dro(&values, Some(&[52.0, 49.0, 10.0]));
        let found: BTreeMap<&str, Metric> = metrics.iter().collect();
        let residual = found["dro/residual"].moments;
        assert_eq!((residual.mean, residual.std(), residual.max), (2.0, 1.0, 3.0));
        assert_eq!(found["dro/target"].moments.max, -2.0);
        assert_eq!(found["dro/log_z"].moments.mean, 50.0);
        let prompt = found["dro/prompt_logratio"].moments;
        assert_eq!(prompt.mean, 0.0);
        assert!((prompt.std() - (2.0f64 / 3.0).sqrt()).abs() < 1e-12);
        assert!((found["dro/infeasible_frac"].moments.mean - 1.0 / 3.0).abs() < 1e-12);
        let spread = found.iter().filter(|(_, metric)| metric.has_spread).map(|(name, _)| *name);
        assert_eq!(spread.collect::<Vec<_>>(), ["dro/log_z", "dro/prompt_logratio", "dro/residual", "dro/target"]);
    }

    #[test]
    fn parts_combine_to_the_whole() {
        let values: Vec<f64> = (0..7).map(|i| f64::from(i * i) - 5.0).collect();
        let moments = |values: &[f64]| values.iter().map(|&value| Moments::of(value)).reduce(Moments::plus).unwrap();
        let mean = values.iter().sum::<f64>() / 7.0;
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / 7.0;
        for cut in [1, 3, 6] {
            let found = moments(&values[..cut]).plus(moments(&values[cut..]));
            assert_eq!((found.count, found.max), (7.0, 31.0));
            assert!((found.mean - mean).abs() < 1e-12);
            assert!((found.std() - variance.sqrt()).abs() < 1e-12);
        }
    }

    #[test]
    fn a_small_spread_far_from_zero_is_found() {
        let values = [1e8, 1e8 + 1.0, 1e8 + 2.0];
        let moments = values.into_iter().map(Moments::of).reduce(Moments::plus).unwrap();
        assert!((moments.std() - (2.0f64 / 3.0).sqrt()).abs() < 1e-6, "{}", moments.std());
    }
}
