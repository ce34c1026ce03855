//! The choice of the best checkpoint.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The measure by which a checkpoint is the best one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "WrittenBest")]
pub struct BestConfig {
    /// The metric of the evaluations, such as `eval_loss`.
    #[schemars(extend("examples" = ["eval_loss"]))]
    pub metric: String,
    /// Prefers greater values. Settings may leave it out for losses, accuracies and margins.
    pub greater_is_better: bool,
    /// Ends the run with the best model instead of the last.
    pub restore: bool,
    /// The run stops when this many evaluations in a row are not better than the best.
    #[schemars(range(min = 1))]
    pub patience: Option<u32>,
    /// The smallest improvement that `patience` counts.
    pub min_delta: f64,
}

/// The measure by which a checkpoint is the best one, as settings may write it.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "BestConfig")]
#[serde(deny_unknown_fields)]
struct WrittenBest {
    /// The metric of the evaluations, such as `eval_loss`.
    metric: String,
    /// Prefers greater values. It may be left out for losses, accuracies and margins.
    #[serde(default)]
    greater_is_better: Option<bool>,
    /// Ends the run with the best model instead of the last.
    #[serde(default)]
    restore: bool,
    /// The run stops when this many evaluations in a row are not better than the best.
    #[serde(default)]
    #[schemars(range(min = 1))]
    patience: Option<u32>,
    /// The smallest improvement that `patience` counts.
    #[serde(default)]
    min_delta: f64,
}

impl TryFrom<WrittenBest> for BestConfig {
    type Error = String;

    fn try_from(written: WrittenBest) -> Result<Self, String> {
        let WrittenBest { metric, greater_is_better, restore, patience, min_delta } = written;
        match greater_is_better.or_else(|| is_better_if_greater(&metric)) {
            Some(greater_is_better) => Ok(Self { metric, greater_is_better, restore, patience, min_delta }),
            None => Err(format!("say with `greater_is_better` whether more of `{metric}` is better: true or false")),
        }
    }
}

/// Metrics of evaluations whose names tell whether more is better, for suggestions.
pub const USUAL_METRICS: [&str; 6] =
    ["eval_loss", "eval_nll_loss", "eval_accuracy", "eval_margin", "eval_rewards/accuracies", "eval_rewards/margins"];

/// Returns whether more of a metric is better, if its name tells.
fn is_better_if_greater(metric: &str) -> Option<bool> {
    let name = metric.strip_prefix("eval_").unwrap_or(metric);
    match name.rsplit('/').next()? {
        "loss" | "nll_loss" => Some(false),
        "accuracies" | "margins" | "accuracy" | "margin" => Some(true),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_direction_of_known_metrics_need_not_be_said() {
        let read = |value: serde_json::Value| serde_json::from_value::<BestConfig>(value);
        for (metric, greater) in [("eval_loss", false), ("eval_rewards/accuracies", true), ("eval_margin", true)] {
            let best = read(json!({ "metric": metric })).unwrap();
            assert_eq!(best.greater_is_better, greater, "{metric}");
            assert!(!best.restore && best.patience.is_none() && best.min_delta == 0.0);
            // A direction that is given counts, and what is written is complete.
            let other = BestConfig { greater_is_better: !greater, ..best };
            assert_eq!(read(serde_json::to_value(&other).unwrap()).unwrap(), other);
        }
        let error = read(json!({ "metric": "eval_entropy" })).unwrap_err().to_string();
        assert!(error.contains("whether more of `eval_entropy` is better"), "{error}");
        assert!(read(json!({ "metric": "eval_entropy", "greater_is_better": true })).unwrap().greater_is_better);
        assert!(read(json!({ "metric": "eval_loss", "best": 1 })).is_err());
    }
}
