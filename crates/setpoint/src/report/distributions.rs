//! Distributions over the examples of evaluations.

use std::collections::BTreeSet;

use setpoint_eval::EvalRun;

use super::chart::{self, Chart, Key, Look, Values, Words};
use super::read::Measured;

/// Returns histograms of rewards, ratings and preferences, task by task (right and wrong answers need none), and of further numbers of each
/// example, such as log-ratios.
pub fn distributions(group: &[(usize, &Measured)]) -> Vec<Chart> {
    let task = |id: &str| id.split('/').next().unwrap_or(id).to_owned();
    let chart = |title: &str, x: &str, good: &str, of: &dyn Fn(&EvalRun) -> Vec<f64>| {
        let series: Vec<Values> = group
            .iter()
            .map(|(subject, result)| Values { subject: *subject, look: Look::Solid, values: of(&result.run) })
            .filter(|series| series.values.iter().any(|value| value.is_finite()))
            .collect();
        let words = Words { title, x, y: "share of examples, %", good };
        let mut chart = chart::histogram(&words, &series, None)?;
        if group.len() > 1 {
            let keys = group.iter().filter(|(subject, _)| series.iter().any(|s| s.subject == *subject));
            chart.legend = keys
                .map(|(subject, result)| Key { subject: Some(*subject), look: Look::Solid, name: result.name.clone() })
                .collect();
        }
        Some((chart, series))
    };
    let mut charts = Vec::new();
    let tasks: BTreeSet<String> = group.iter().flat_map(|(_, r)| r.run.items.iter().map(|i| task(&i.id))).collect();
    for name in tasks {
        let values = |run: &EvalRun| run.items.iter().filter(|i| task(&i.id) == name).map(|i| i.value).collect();
        let (title, axis) = match name.as_str() {
            "reward" => ("Reward, example by example".to_owned(), "reward".to_owned()),
            other => (format!("{other}, example by example"), other.to_owned()),
        };
        let found = chart(&title, &axis, "Good: far to the right.", &values);
        charts.extend(found.filter(|(_, series)| !is_graded(series)).map(|(chart, _)| chart));
    }
    let further: BTreeSet<&String> = group.iter().flat_map(|(_, r)| r.run.distributions.keys()).collect();
    for name in further {
        let (title, axis, good) = match name.as_str() {
            "log_ratio" => (
                "Log-ratio of the policy's own responses",
                "log-ratio, nats",
                "Good: not far to the right of 0; the mean is the KL from the baseline.",
            ),
            "chosen_log_ratio" => (
                "Log-ratio of the held-out chosen responses",
                "log-ratio, nats",
                "Good: to the right of the rejected ones.",
            ),
            "rejected_log_ratio" => (
                "Log-ratio of the held-out rejected responses",
                "log-ratio, nats",
                "Good: to the left of the chosen ones.",
            ),
            "divergence" => (
                "KL over each of the policy's own responses",
                "KL, nats",
                "Good: near 0; each token counts with the whole vocabulary, and the mean is the KL from the baseline.",
            ),
            "kl" => ("KL, prompt by prompt", "KL, nats", "Good: near 0, and no prompt far to the right."),
            "tokens" => ("Length, prompt by prompt", "tokens", "For comparison between the results."),
            "baseline_reward" => ("Reward of the baseline", "reward", "For comparison with the reward of the policy."),
            other => (other, other, "For comparison between the results."),
        };
        let values = |run: &EvalRun| run.distributions.get(name).cloned().unwrap_or_default();
        charts.extend(chart(title, axis, good, &values).map(|(chart, _)| chart));
    }
    charts
}

/// Returns whether all values are marks for right and wrong.
fn is_graded(series: &[Values]) -> bool {
    series.iter().flat_map(|series| &series.values).all(|value| *value == 0.0 || *value == 1.0)
}
