//! The figures of a trial, and their form in tables.

use std::collections::BTreeMap;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use setpoint_eval::{Trend, mean_and_deviation};

use super::trial::{Reached, Trained, Trial};
use crate::eval::EvalReport;
use crate::failure::{Failure, Outcome};

/// The figures of an evaluation against the SFT model.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Figures {
    /// Prompts answered.
    pub prompts: usize,
    /// Share of prompts with a greater reward than the SFT model's; ties count half.
    pub win_rate: f64,
    /// Lower end of its interval.
    pub win_rate_low: f64,
    /// Upper end of its interval.
    pub win_rate_high: f64,
    /// Mean reward of the samples.
    pub reward: f64,
    /// Mean reward of the SFT model's samples.
    pub baseline_reward: f64,
    /// KL from the SFT model by the log-ratios of the samples, nats per response.
    pub kl: f64,
    /// The same, summed over the vocabulary at each token of the samples. Evaluations of older versions have none.
    #[serde(default)]
    pub kl_exact: Option<f64>,
    /// Share of held-out pairs whose chosen response has the greater log-ratio.
    pub pair_accuracy: Option<f64>,
    /// Mean log-ratio of their chosen responses, nats.
    pub chosen_log_ratio: Option<f64>,
    /// Mean log-ratio of their rejected responses, nats.
    pub rejected_log_ratio: Option<f64>,
    /// Mean length of the samples, tokens.
    pub tokens: f64,
    /// Mean length of the SFT model's samples, tokens.
    pub baseline_tokens: f64,
    /// Share of samples that ran into the length limit.
    pub truncated: f64,
}

impl Figures {
    /// Reads the figures of a report.
    pub fn of(report: &EvalReport) -> Self {
        let pairs = report.pairs.as_ref();
        Self {
            prompts: report.prompts,
            win_rate: report.win_rate.rate.value,
            win_rate_low: report.win_rate.rate.low,
            win_rate_high: report.win_rate.rate.high,
            reward: report.reward,
            baseline_reward: report.baseline_reward,
            kl: report.kl.k1.mean,
            kl_exact: report.kl.exact.map(|exact| exact.mean),
            pair_accuracy: pairs.map(|p| p.accuracy.accuracy.value),
            chosen_log_ratio: pairs.map(|p| p.chosen_log_ratio.value),
            rejected_log_ratio: pairs.map(|p| p.rejected_log_ratio.value),
            tokens: report.tokens,
            baseline_tokens: report.baseline_tokens,
            truncated: report.truncated,
        }
    }

    /// Returns the KL from the SFT model, nats per response: summed over the vocabulary where that is known, else by the log-ratios.
    pub fn divergence(&self) -> f64 {
        self.kl_exact.unwrap_or(self.kl)
    }
}

/// The figure that trials are ordered by; the greatest is the best.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Reward win rate against the SFT model; the reward decides between equals.
    #[default]
    WinRate,
    /// Mean reward.
    Reward,
    /// Accuracy on held-out pairs; the reward decides between equals.
    PairAccuracy,
}

impl Metric {
    /// As a trial is ranked.
    pub fn rank(self, figures: &Figures) -> (f64, f64) {
        let first = match self {
            Self::WinRate => figures.win_rate,
            Self::Reward => figures.reward,
            // Without pairs the configuration is refused.
            Self::PairAccuracy => figures.pair_accuracy.unwrap_or(f64::NEG_INFINITY),
        };
        (first, figures.reward)
    }

    /// Orders from the best to the worst.
    pub fn order(self, a: &Figures, b: &Figures) -> std::cmp::Ordering {
        let ((a0, a1), (b0, b1)) = (self.rank(a), self.rank(b));
        b0.total_cmp(&a0).then(b1.total_cmp(&a1))
    }

    /// Its name in a configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::WinRate => "win_rate",
            Self::Reward => "reward",
            Self::PairAccuracy => "pair_accuracy",
        }
    }
}

/// A trial in the JSON file.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Entry {
    /// Its folder in `RUN/trials`.
    pub trial: String,
    /// The settings that were tried.
    pub settings: BTreeMap<String, toml::Value>,
    /// Seed of its data order.
    pub seed: u64,
    /// The cost of the training.
    pub trained: Option<Trained>,
    /// The measured figures.
    pub figures: Option<Figures>,
    /// The slope of its training loss over the last fifth, if there were enough steps.
    pub loss_trend: Option<Trend>,
    /// The reason of its failure.
    pub error: Option<String>,
}

impl Entry {
    /// A trial with what became of it.
    pub fn new(trial: &Trial, outcome: &Reached) -> Self {
        let done = outcome.as_ref().ok();
        Self {
            trial: trial.name.clone(),
            settings: trial.point.iter().cloned().collect(),
            seed: trial.config.train.seed,
            trained: done.map(|d| d.trained.clone()),
            figures: done.map(|d| d.figures.clone()),
            loss_trend: done.and_then(|d| d.trend),
            error: outcome.as_ref().err().cloned(),
        }
    }
}

/// A failure that names the trials that failed, where there are any.
pub fn failures(entries: &[Entry], folder: &Path) -> Outcome {
    let failed: Vec<&Entry> = entries.iter().filter(|entry| entry.error.is_some()).collect();
    let Some(first) = failed.first() else { return Ok(()) };
    let reason = first.error.as_deref().unwrap_or_default();
    Err(Failure::run(format!("{} of {} trials failed; {}: {reason}", failed.len(), entries.len(), first.trial)).hint(
        format!(
            "see {}/trials/{}/log.txt; --resume tries again what failed and keeps what is finished",
            folder.display(),
            first.trial
        ),
    ))
}

/// `mean ± deviation`, the mean alone of one value, nothing of none.
pub fn plus_minus(values: &[f64], digits: usize) -> String {
    match mean_and_deviation(values) {
        None => String::new(),
        Some((mean, None)) => format!("{mean:.digits$}"),
        Some((mean, Some(deviation))) => format!("{mean:.digits$} ± {deviation:.digits$}"),
    }
}

/// A number in a cell, empty where there is none.
pub fn cell(value: Option<f64>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

/// Rows as CSV (RFC 4180, lines ended by a line feed).
pub fn csv(rows: &[Vec<String>]) -> String {
    let quoted = |field: &String| match field.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", field.replace('"', "\"\"")),
        false => field.clone(),
    };
    rows.iter().map(|row| row.iter().map(quoted).collect::<Vec<_>>().join(",") + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deviation_is_shown_where_there_is_one() {
        assert_eq!((plus_minus(&[], 2).as_str(), plus_minus(&[2.0], 2).as_str()), ("", "2.00"));
        assert_eq!(plus_minus(&[1.0, 2.0, 3.0], 2), "2.00 ± 1.00");
    }

    #[test]
    fn csv_quotes_what_needs_it() {
        let rows = [vec!["a".to_owned(), "b, \"c\"".into()], vec![String::new(), "1".into()]];
        assert_eq!(csv(&rows), "a,\"b, \"\"c\"\"\"\n,1\n");
    }
}
