//! The comparison of a model with a baseline, from the scores of an evaluation.

use serde_json::Value;
use setpoint_eval::EvalRun;

use super::number::{count, percent, signed, with_error};

/// The KL from the baseline, nats per response, above which a model has usually lost its language (`docs/TROUBLESHOOTING.md`).
const FAR: f64 = 10.0;

/// The outcome of one evaluation against a baseline.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// The name of the baseline.
    pub baseline: String,
    /// The judge or the benchmark, for the sentence.
    by: &'static str,
    /// The win rate with the ends of its interval, as shares.
    rate: f64,
    low: f64,
    high: f64,
    /// The level of the interval, as a share.
    level: f64,
    /// Prompts or instructions.
    n: Option<u64>,
    /// KL from the baseline with its standard error, nats per response.
    kl: Option<(f64, f64)>,
    /// The difference of the mean rewards.
    difference: Option<f64>,
}

impl Standing {
    /// Reads the scores of a result that compares two models.
    pub fn of(run: &EvalRun) -> Option<Self> {
        let baseline = run.manifest.baseline.as_ref().map(|baseline| baseline.name.as_str());
        match run.manifest.benchmark.as_str() {
            "reward" => Self::of_rewards(&run.scores, baseline?),
            "alpaca_eval" => Self::of_alpaca(&run.scores, baseline.unwrap_or("the baseline")),
            _ => None,
        }
    }

    /// Reads the figures of `setpoint eval`.
    pub fn of_rewards(scores: &Value, baseline: &str) -> Option<Self> {
        let figure = |path: &str| scores.pointer(path).and_then(Value::as_f64);
        let (low, high) = (figure("/win_rate/rate/low")?, figure("/win_rate/rate/high")?);
        let estimate = |name: &str| {
            let of = |part: &str| figure(&format!("/kl/{name}/{part}"));
            of("mean").zip(of("std_error"))
        };
        // Evaluations of older versions know the log-ratios alone.
        let kl = estimate("exact").or_else(|| estimate("k1"));
        let (n, level) =
            (scores.pointer("/prompts").and_then(Value::as_u64), figure("/win_rate/rate/level").unwrap_or(0.95));
        let (rate, difference) = (figure("/win_rate/rate/value")?, figure("/win_rate/difference/value"));
        Some(Self { baseline: baseline.to_owned(), by: "by reward", rate, low, high, level, n, kl, difference })
    }

    fn of_alpaca(scores: &Value, baseline: &str) -> Option<Self> {
        let percentage = |path: &str| Some(scores.pointer(path)?.as_f64()? / 100.0);
        let (rate, error) = (percentage("/win_rate")?, percentage("/standard_error")?);
        let n = scores.pointer("/n_total").and_then(Value::as_u64);
        let (low, high) = ((rate - 1.96 * error).max(0.0), (rate + 1.96 * error).min(1.0));
        let by = "on AlpacaEval";
        Some(Self { baseline: baseline.to_owned(), by, rate, low, high, level: 0.95, n, kl: None, difference: None })
    }

    /// Returns whether the model is better; `None` if the interval holds a half.
    pub fn better(&self) -> Option<bool> {
        match () {
            () if self.low > 0.5 => Some(true),
            () if self.high < 0.5 => Some(false),
            () => None,
        }
    }

    /// Returns whether the model has moved so far from the baseline that it has usually lost its language.
    pub fn is_far(&self) -> bool {
        self.kl.is_some_and(|(kl, _)| kl > FAR)
    }

    /// Returns the figures in sentences.
    pub fn sentences(&self) -> Vec<String> {
        let of = self.n.map_or_else(String::new, |n| format!(" of {} prompts", count(n)));
        let mut found = vec![format!(
            "wins {}{of} against {} {} ({:.0} % interval: {} to {})",
            percent(self.rate),
            self.baseline,
            self.by,
            100.0 * self.level,
            percent(self.low),
            percent(self.high)
        )];
        if let Some((kl, error)) = self.kl {
            found.push(format!("KL from {}: {} nats per response", self.baseline, with_error(kl, error)));
        }
        if self.is_far() {
            found.push(format!(
                "above {FAR} nats a model has usually lost its language: read its samples, and train with a fifth of the learning rate"
            ));
        }
        found.extend(self.difference.map(|d| format!("difference of the mean rewards: {}", signed(d))));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_interval_decides() {
        let scores = |low: f64, high: f64| {
            json!({
                "prompts": 60, "win_rate": {"rate": {"value": 0.6, "low": low, "high": high},
                "difference": {"value": 0.25}}, "kl": {"k1": {"mean": 3.25, "std_error": 0.2}},
            })
        };
        let standing = |low, high| Standing::of_rewards(&scores(low, high), "sft").unwrap();
        assert_eq!(standing(0.51, 0.7).better(), Some(true));
        assert_eq!(standing(0.45, 0.7).better(), None);
        assert_eq!(standing(0.3, 0.49).better(), Some(false));
        assert_eq!(
            standing(0.51, 0.7).sentences(),
            [
                "wins 60.0\u{a0}% of 60 prompts against sft by reward (95 % interval: 51.0\u{a0}% to 70.0\u{a0}%)",
                "KL from sft: 3.25 ± 0.20 nats per response",
                "difference of the mean rewards: +0.25",
            ]
        );
        let mut both = scores(0.51, 0.7);
        both["kl"]["exact"] = json!({"mean": 3.0, "std_error": 0.05});
        let both = Standing::of_rewards(&both, "sft").unwrap();
        assert_eq!(both.sentences()[1], "KL from sft: 3.000 ± 0.050 nats per response");
        let mut far = standing(0.51, 0.7);
        far.kl = Some((94.0, 3.0));
        assert!(far.is_far() && far.sentences()[2].starts_with("above 10 nats"), "{:?}", far.sentences());
        assert!(!standing(0.51, 0.7).is_far());
        assert_eq!(Standing::of_rewards(&json!({"win_rate": "x"}), "sft"), None);
    }

    #[test]
    fn percentages_of_alpaca_are_shares() {
        let scores = json!({"win_rate": 20.0, "standard_error": 2.0, "n_total": 805});
        let standing = Standing::of_alpaca(&scores, "gpt4").unwrap();
        assert_eq!(standing.better(), Some(false));
        assert!(standing.sentences()[0].contains(
            "20.0\u{a0}% of 805 prompts against gpt4 on AlpacaEval (95 % interval: 16.1\u{a0}% to 23.9\u{a0}%)"
        ));
    }
}
