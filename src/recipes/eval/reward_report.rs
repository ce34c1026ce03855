//! What `setpoint eval` measures: its figures as they are printed and written.

use serde::Serialize;
use serde_json::{Value, json};
use setpoint_eval::{Estimate, EvalItem, KlEstimates, Manifest, PairAccuracy, WinRate};

use crate::failure::Outcome;

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub struct EvalReport {
    /// Prompts answered.
    pub prompts: usize,
    /// Answers to each of them.
    pub samples: usize,
    /// Mean reward of the policy's own samples.
    pub reward: f64,
    /// Mean reward of the baseline's.
    pub baseline_reward: f64,
    /// Win rate and difference, with their intervals. Samples of one prompt are averaged first, so that the intervals count prompts.
    pub win_rate: WinRate,
    /// KL of the policy from the baseline, per response, in nats, estimated on the policy's samples.
    pub kl: KlEstimates,
    /// Mean response length of the policy, in tokens.
    pub tokens: f64,
    /// Mean response length of the baseline, in tokens.
    pub baseline_tokens: f64,
    /// Share of the policy's answers that ran into the length limit.
    pub truncated: f64,
    /// On held-out pairs.
    pub pairs: Option<PairReport>,
    /// Mean reward of the policy's samples, prompt by prompt.
    #[serde(skip)]
    pub rewards: Vec<f64>,
    /// Mean reward of the baseline's samples, prompt by prompt.
    #[serde(skip)]
    pub baseline_rewards: Vec<f64>,
    /// The policy's log-probability less the baseline's of each of the policy's samples, nats.
    #[serde(skip)]
    pub log_ratios: Vec<f64>,
    /// What decided the result.
    #[serde(skip)]
    pub manifest: Option<Manifest>,
}

/// What was measured on held-out pairs.
#[derive(Debug, Clone, Serialize)]
pub struct PairReport {
    /// Mean log-ratio of the chosen responses, nats.
    pub chosen_log_ratio: Estimate,
    /// Mean log-ratio of the rejected responses, nats.
    pub rejected_log_ratio: Estimate,
    /// How often the chosen response has the greater log-ratio.
    pub accuracy: PairAccuracy,
    /// The log-ratio of each chosen response, nats.
    #[serde(skip)]
    pub chosen: Vec<f64>,
    /// The log-ratio of each rejected response, nats.
    #[serde(skip)]
    pub rejected: Vec<f64>,
}

/// The report as it is written: its figures, the manifest, the rewards for `setpoint eval compare`, and for `setpoint report` what else is
/// known of each example.
pub fn written(report: &EvalReport) -> Outcome<Value> {
    let mut value = serde_json::to_value(report)?;
    let items: Vec<EvalItem> =
        report.rewards.iter().enumerate().map(|(i, &value)| EvalItem { id: format!("reward/{i}"), value }).collect();
    let pairs = report.pairs.as_ref();
    let distributions = json!({
        "baseline_reward": report.baseline_rewards,
        "log_ratio": report.log_ratios,
        "chosen_log_ratio": pairs.map_or(&[][..], |pairs| &pairs.chosen),
        "rejected_log_ratio": pairs.map_or(&[][..], |pairs| &pairs.rejected),
    });
    let scores = value.clone();
    if let Some(object) = value.as_object_mut() {
        object.insert("manifest".to_owned(), serde_json::to_value(&report.manifest)?);
        object.insert("scores".to_owned(), scores);
        object.insert("items".to_owned(), serde_json::to_value(items)?);
        object.insert("distributions".to_owned(), distributions);
    }
    Ok(value)
}

/// The figures, one a line.
pub fn table(report: &EvalReport) -> String {
    let estimate =
        |e: &Estimate, digits: usize| format!("{:.digits$} [{:.digits$}, {:.digits$}]", e.value, e.low, e.high);
    let mut lines = vec![
        format!("{} prompts, {} samples each", report.prompts, report.samples),
        format!("reward            {:.3}, baseline {:.3}", report.reward, report.baseline_reward),
        format!("difference        {}", estimate(&report.win_rate.difference, 3)),
        format!(
            "win rate          {}  (sign test p = {:.3})",
            estimate(&report.win_rate.rate, 3),
            report.win_rate.p_value
        ),
        format!("KL to baseline    {:.3} ± {:.3} nats per response", report.kl.k1.mean, report.kl.k1.std_error),
        format!("response length   {:.1} tokens, baseline {:.1}", report.tokens, report.baseline_tokens),
        format!("cut at the limit  {:.1} %", 100.0 * report.truncated),
    ];
    if let Some(pairs) = &report.pairs {
        lines.push(format!("chosen log-ratio  {} nats", estimate(&pairs.chosen_log_ratio, 2)));
        lines.push(format!("rejected          {} nats", estimate(&pairs.rejected_log_ratio, 2)));
        let accuracy = &pairs.accuracy.accuracy;
        lines.push(format!("pair accuracy     {:.3} [{:.3}, {:.3}]", accuracy.value, accuracy.low, accuracy.high));
    }
    lines.join("\n")
}
