//! The rule by which the best trial is chosen.

use std::cmp::Ordering;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::figures::{Figures, Metric};
use crate::config::Problems;

/// `select`: the best trial by a metric, among those near the SFT model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Select {
    /// The figure that counts; by default the `metric` of the section.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<Metric>,
    /// The greatest KL from the SFT model that is allowed, nats per response.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0, "x-unit" = "nats"))]
    pub max_kl: Option<f64>,
}

/// The metric by which trials are ordered, and the KL up to which they count.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rule {
    /// The metric.
    pub metric: Metric,
    /// The greatest KL.
    pub max_kl: Option<f64>,
}

impl Select {
    /// Returns the rule, with the metric of the section if `select` names none.
    pub fn rule(select: Option<Self>, metric: Metric) -> Rule {
        let select = select.unwrap_or_default();
        Rule { metric: select.metric.unwrap_or(metric), max_kl: select.max_kl }
    }

    /// Notes what is wrong. `section`: where `select` is. `has_pairs`: whether there are held-out pairs.
    pub fn validate(select: Option<Self>, metric: Metric, section: &str, has_pairs: bool, problems: &mut Problems<'_>) {
        let key = match select.and_then(|select| select.metric) {
            Some(_) => format!("{section}.select.metric"),
            None => format!("{section}.metric"),
        };
        let rule = Self::rule(select, metric);
        problems.require(
            rule.metric != Metric::PairAccuracy || has_pairs,
            &key,
            "`pair_accuracy` needs held-out pairs: set `eval.pairs.path`",
        );
        problems.require(
            rule.max_kl.is_none_or(|kl| kl.is_finite() && kl > 0.0),
            &format!("{section}.select.max_kl"),
            "must be above 0 nats per response",
        );
    }
}

impl Rule {
    /// Returns whether a trial is near enough to the SFT model.
    pub fn allows(&self, figures: &Figures) -> bool {
        self.max_kl.is_none_or(|kl| figures.divergence() <= kl)
    }

    /// Orders from the best to the worst; those that are too far from the SFT model come last, the nearest first.
    pub fn order(&self, a: &Figures, b: &Figures) -> Ordering {
        match (self.allows(a), self.allows(b)) {
            (true, true) => self.metric.order(a, b),
            (false, false) => a.divergence().total_cmp(&b.divergence()),
            (a, b) => b.cmp(&a),
        }
    }

    /// Returns the rule in words, such as `reward, KL up to 2 nats`.
    pub fn text(&self) -> String {
        let bound = self.max_kl.map_or_else(String::new, |kl| format!(", KL up to {kl} nats"));
        format!("{}{bound}", self.metric.name())
    }

    /// Says that none of some trials is allowed, and which of them is the nearest. `trials`: the name and the figures of each that finished.
    pub(crate) fn none_of<'f>(&self, trials: impl IntoIterator<Item = (String, &'f Figures)>) -> Option<String> {
        let (name, nearest) = trials.into_iter().min_by(|a, b| self.order(a.1, b.1))?;
        if self.allows(nearest) {
            return None;
        }
        let kl = self.max_kl.unwrap_or_default();
        Some(format!("no trial has a KL up to {kl} nats: the nearest is {name} with {:.2}", nearest.divergence()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(reward: f64, kl: f64, exact: Option<f64>) -> Figures {
        Figures { reward, kl, kl_exact: exact, ..Figures::default() }
    }

    #[test]
    fn the_best_is_taken_among_those_that_are_near() {
        let rule = Select::rule(Some(Select { metric: None, max_kl: Some(2.0) }), Metric::Reward);
        let trials = [
            figures(9.0, 5.0, None),
            figures(1.0, 0.5, None),
            figures(3.0, 2.0, None),
            // The exact KL counts where there is one.
            figures(4.0, 1.9, Some(2.1)),
            figures(2.0, 2.5, Some(1.5)),
        ];
        let mut order: Vec<usize> = (0..trials.len()).collect();
        order.sort_by(|a, b| rule.order(&trials[*a], &trials[*b]));
        assert_eq!(order, [2, 4, 1, 3, 0]);
        assert_eq!(rule.text(), "reward, KL up to 2 nats");
        let named = || ["a", "b", "c", "d", "e"].map(str::to_owned).into_iter().zip(&trials);
        assert_eq!(rule.none_of(named()), None);
        let strict = Rule { max_kl: Some(0.25), ..rule };
        assert_eq!(
            strict.none_of(named()).as_deref(),
            Some("no trial has a KL up to 0.25 nats: the nearest is b with 0.50")
        );
        assert_eq!(strict.none_of([]), None);
    }

    #[test]
    fn without_a_bound_the_metric_decides() {
        let rule = Select::rule(None, Metric::Reward);
        assert!(rule.allows(&figures(0.0, 1e9, None)));
        assert_eq!(rule.order(&figures(2.0, 9.0, None), &figures(1.0, 0.0, None)), Ordering::Less);
        assert_eq!(rule.text(), "reward");
        let own = Select { metric: Some(Metric::WinRate), max_kl: None };
        assert_eq!(Select::rule(Some(own), Metric::Reward).metric, Metric::WinRate);
    }
}
