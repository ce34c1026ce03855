//! The figures of `setpoint eval` as they are printed and written.

use serde::Serialize;
use serde_json::{Value, json};
use setpoint_eval::{Estimate, EvalItem, KlEstimates, Manifest, PairAccuracy, WinRate};

use crate::failure::Outcome;

/// The results of an evaluation by reward.
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
    /// KL of the policy from the baseline, per response, in nats, estimated on the policy's samples: from the sampled tokens alone, and summed
    /// over the vocabulary at each of them.
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
    /// The divergence of the policy from the baseline over each of the policy's samples, summed over the vocabulary, nats; none if the
    /// vocabularies differ.
    #[serde(skip)]
    pub divergences: Vec<f64>,
    /// The KL prompt by prompt, nats: by the divergences, or by the log-ratios if there are none.
    #[serde(skip)]
    pub kls: Vec<f64>,
    /// Mean length of the policy's samples, prompt by prompt, tokens.
    #[serde(skip)]
    pub lengths: Vec<f64>,
    /// The answers of both models as text, prompt by prompt.
    #[serde(skip)]
    pub answered: Vec<Answered>,
    /// The inputs that decided the result.
    #[serde(skip)]
    pub manifest: Option<Manifest>,
}

impl EvalReport {
    /// Returns whether the policy answers as the baseline does: a KL below 0.0005 nats per response, which is printed as 0.000.
    pub fn is_unchanged(&self) -> bool {
        self.kl.k3.is_some_and(|kl| kl.mean < 5e-4)
    }
}

/// A prompt with the answers of both models.
#[derive(Debug, Clone)]
pub struct Answered {
    /// The prompt's text, or that of its last message.
    pub question: String,
    /// The policy's answers.
    pub policy: Vec<String>,
    /// The baseline's answers.
    pub baseline: Vec<String>,
}

/// The results on held-out pairs.
#[derive(Debug, Clone, Serialize)]
pub struct PairReport {
    /// Mean log-ratio of the chosen responses, nats.
    pub chosen_log_ratio: Estimate,
    /// Mean log-ratio of the rejected responses, nats.
    pub rejected_log_ratio: Estimate,
    /// The frequency with which the chosen response has the greater log-ratio.
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
    let mut distributions = json!({
        "baseline_reward": report.baseline_rewards,
        "log_ratio": report.log_ratios,
        "chosen_log_ratio": pairs.map_or(&[][..], |pairs| &pairs.chosen),
        "rejected_log_ratio": pairs.map_or(&[][..], |pairs| &pairs.rejected),
        "kl": report.kls,
        "tokens": report.lengths,
    });
    if !report.divergences.is_empty() {
        distributions["divergence"] = json!(report.divergences);
    }
    let scores = value.clone();
    if let Some(object) = value.as_object_mut() {
        object.insert("manifest".to_owned(), serde_json::to_value(&report.manifest)?);
        object.insert("scores".to_owned(), scores);
        object.insert("items".to_owned(), serde_json::to_value(items)?);
        object.insert("distributions".to_owned(), distributions);
    }
    Ok(value)
}
