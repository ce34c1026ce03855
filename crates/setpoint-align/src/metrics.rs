//! trl's metrics, and DRO's, as sums that combine over micro-batches, devices and steps.
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
//! | `dro/prompt_logratio` | prompts | D_x as found, nats |
//! | `dro/infeasible_frac` | prompts | share whose targets exceed all probability at the current log Z |
//!
//! The four of DRO with a distribution report the mean under their name, and the population
//! standard deviation and the maximum under the name with `_std` and `_max`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::audit::FEASIBILITY_TOLERANCE;
use crate::prompt_rewards::Role;

/// Sums of one quantity, from which its mean and spread follow. Sums of disjoint sets of values add.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Moments {
    /// Number of values.
    pub count: f64,
    /// Their sum.
    pub sum: f64,
    /// The sum of their squares.
    pub sum_of_squares: f64,
    /// The largest of them.
    pub max: f64,
}

impl Moments {
    /// One value.
    pub fn of(value: f64) -> Self {
        Self { count: 1.0, sum: value, sum_of_squares: value * value, max: value }
    }

    /// Both sets of values together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            count: self.count + other.count,
            sum: self.sum + other.sum,
            sum_of_squares: self.sum_of_squares + other.sum_of_squares,
            max: self.max.max(other.max),
        }
    }

    /// Arithmetic mean.
    pub fn mean(&self) -> f64 {
        self.sum / self.count
    }

    /// Population standard deviation.
    pub fn std(&self) -> f64 {
        // Rounding may leave a variance of equal values a little below 0.
        (self.sum_of_squares / self.count - self.mean().powi(2)).max(0.0).sqrt()
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

/// A response as DRO sees it; the fields are those of [`crate::DroOutput`], read to the host.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DroPoint {
    /// `e`, units of reward.
    pub residual: f64,
    /// The log-ratio that the reward implies, nats.
    pub target: f64,
}

/// A prompt as DRO sees it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DroPromptPoint {
    /// `log_z0 + D_x` with the prompt term applied, nats.
    pub log_z: f64,
    /// `D_x` as found, nats.
    pub prompt_log_ratio: f64,
    /// [`crate::prompt_log_mass`] of the prompt's data, nats; `None` leaves the prompt out of
    /// `dro/infeasible_frac`.
    pub log_mass: Option<f64>,
}

/// Metrics of any number of micro-batches. [`Metrics::merge`] adds those of others, and
/// [`Metrics::values`] reads them.
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
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Metrics {
    moments: BTreeMap<String, Moments>,
}

/// The metrics that report a spread beside their mean.
const WITH_SPREAD: [&str; 4] = ["dro/log_z", "dro/prompt_logratio", "dro/residual", "dro/target"];

impl Metrics {
    /// Adds one value of one metric.
    pub fn record(&mut self, name: &str, value: f64) {
        let one = Moments::of(value);
        match self.moments.get_mut(name) {
            Some(moments) => *moments = moments.plus(one),
            None => {
                self.moments.insert(name.to_owned(), one);
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

    /// Records a response of DRO: `dro/residual`, `dro/target`.
    pub fn record_dro(&mut self, point: &DroPoint) {
        self.record("dro/residual", point.residual);
        self.record("dro/target", point.target);
    }

    /// Records a prompt of DRO: `dro/log_z`, `dro/prompt_logratio`, `dro/infeasible_frac`.
    pub fn record_dro_prompt(&mut self, point: &DroPromptPoint) {
        self.record("dro/log_z", point.log_z);
        self.record("dro/prompt_logratio", point.prompt_log_ratio);
        if let Some(log_mass) = point.log_mass {
            let infeasible = log_mass - point.log_z > FEASIBILITY_TOLERANCE;
            self.record("dro/infeasible_frac", f64::from(u8::from(infeasible)));
        }
    }

    /// Adds the sums of another part of the same step.
    pub fn merge(&mut self, other: &Self) {
        for (name, &moments) in &other.moments {
            self.moments.entry(name.clone()).and_modify(|own| *own = own.plus(moments)).or_insert(moments);
        }
    }

    /// The sums behind the values, by name, for a caller that combines them itself.
    pub fn moments(&self) -> &BTreeMap<String, Moments> {
        &self.moments
    }

    /// The mean of a metric; `None` where nothing was recorded.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.moments.get(name).map(Moments::mean)
    }

    /// All values by the names they are logged under, `_std` and `_max` included.
    pub fn values(&self) -> BTreeMap<String, f64> {
        let mut values = BTreeMap::new();
        for (name, moments) in &self.moments {
            if WITH_SPREAD.contains(&name.as_str()) {
                values.insert(format!("{name}_std"), moments.std());
                values.insert(format!("{name}_max"), moments.max);
            }
            values.insert(name.clone(), moments.mean());
        }
        values
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
        let expected = expected.map(|(name, value)| (name.to_owned(), value));
        assert_eq!(metrics.values(), BTreeMap::from(expected));
    }

    #[test]
    fn no_reference_no_log_ratio() {
        let mut metrics = Metrics::default();
        let point = ResponsePoint { logp: -3.0, log_ratio: None, reward: -0.3 };
        metrics.record_response(Role::Rejected, &point);
        let names: Vec<&str> = metrics.moments().keys().map(String::as_str).collect();
        assert_eq!(names, ["logps/rejected", "rewards/rejected"]);
        assert_eq!(metrics.get("logratios/rejected"), None);
    }

    #[test]
    fn dro_reports_mean_std_max_and_infeasible_share() {
        let mut metrics = Metrics::default();
        for (residual, target) in [(1.0, -4.0), (3.0, -2.0)] {
            metrics.record_dro(&DroPoint { residual, target });
        }
        let prompts = [(51.0, 1.0, Some(52.0)), (49.0, -1.0, Some(49.0)), (50.0, 0.0, None)];
        for (log_z, prompt_log_ratio, log_mass) in prompts {
            metrics.record_dro_prompt(&DroPromptPoint { log_z, prompt_log_ratio, log_mass });
        }
        let values = metrics.values();
        assert_eq!(values["dro/residual"], 2.0);
        assert_eq!(values["dro/residual_std"], 1.0);
        assert_eq!(values["dro/residual_max"], 3.0);
        assert_eq!(values["dro/target_max"], -2.0);
        assert_eq!(values["dro/log_z"], 50.0);
        assert_eq!(values["dro/prompt_logratio"], 0.0);
        assert!((values["dro/prompt_logratio_std"] - (2.0f64 / 3.0).sqrt()).abs() < 1e-12);
        assert_eq!(values["dro/infeasible_frac"], 0.5);
        assert!(!values.contains_key("dro/infeasible_frac_std"));
    }

    #[test]
    fn micro_batches_combine_to_the_batch() {
        let points: Vec<DroPoint> =
            (0..7).map(|i| DroPoint { residual: f64::from(i * i) - 5.0, target: f64::from(-i) }).collect();
        let record = |points: &[DroPoint]| {
            let mut metrics = Metrics::default();
            points.iter().for_each(|point| metrics.record_dro(point));
            metrics
        };
        let whole = record(&points);
        for cut in [1, 3, 6] {
            let mut parts = record(&points[..cut]);
            parts.merge(&record(&points[cut..]));
            assert_eq!(parts, whole, "integers: the sums are exact");
        }
        let mut with_nothing = whole.clone();
        with_nothing.merge(&Metrics::default());
        assert_eq!(with_nothing, whole);
        let stored = serde_json::to_string(&whole).unwrap();
        assert_eq!(serde_json::from_str::<Metrics>(&stored).unwrap(), whole);
    }

    #[test]
    fn equal_values_have_no_spread() {
        let moments = (0..10).map(|_| Moments::of(0.1)).reduce(Moments::plus).unwrap();
        assert!(moments.std() < 1e-8, "{}", moments.std());
    }
}
