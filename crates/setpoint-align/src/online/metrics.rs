//! trl's metrics of online methods.
//!
//! | name | over | value |
//! |---|---|---|
//! | `reward`, `reward_std` | responses | mean and standard deviation (n − 1) of the rewards, before any shaping |
//! | `frac_reward_zero_std` | responses | share whose prompt's rewards are all equal |
//! | `completions/{mean,min,max}_length` | responses | tokens, the stop token included |
//! | `completions/{mean,min,max}_terminated_length` | responses with a stop token | tokens; 0 if there are none |
//! | `completions/clipped_ratio` | responses | share without a stop token |
//! | `objective/kl` | responses | KL divergence to the reference, summed over tokens, nats (PPO, REINFORCE++) |
//! | `objective/entropy` | responses | −Σ old, nats |
//! | `objective/non_score_reward` | responses | −kl_coef·Σ kl |
//! | `objective/scores`, `objective/rlhf_reward` | responses | shaped reward R; R plus the former |
//! | `val/num_eos_tokens` | round | responses with a stop token |
//! | `kl_coef` | round | the coefficient of the round |
//! | `value/explained_variance` | slots | share of the returns' variance that the values explain |
//! | `loss/policy_avg`, `loss/value_avg` | tokens, slots | loss |
//! | `policy/approxkl_avg` | tokens | ½(lp − old)², nats² |
//! | `policy/clipfrac_avg`, `val/clipfrac_avg` | tokens, slots | share that is clipped |
//! | `val/ratio` | tokens, or responses that have one ratio each | ρ |
//! | `val/ratio_var` | tokens | (ρ − 1)² |
//! | `kl` | tokens | the penalty in the loss (GRPO), or old − ref (RLOO), nats |
//! | `clip_ratio/{low,high,region}_mean` | tokens or responses | share that is clipped below, above, on either side |
//! | `clip_ratio/low_min`, `clip_ratio/high_max` | responses | the smallest and the largest share of a response |
//! | `cispo_clip_ratio` | tokens | share whose weight is limited |

use std::collections::BTreeMap;

use super::advantage::{sample_mean_std, scored};
use super::objective::{PolicyMetrics, Sampled};
use super::ratio::Clip;
use super::runs::Runs;
use crate::metrics::Metrics;
use crate::prompt_index::PromptIndex;
use crate::summary::mean;

/// The standard deviation up to which rewards count as equal, as torch's `isclose` does.
const NO_DEVIATION: f64 = 1e-8;

/// Computes the metrics that every method in rounds has, offline methods included: `reward…`, `frac_reward_zero_std` and
/// `completions/…`.
///
/// Rewards that are NaN take no part in those of rewards.
///
/// # Panics
/// If there is not a number per response.
pub fn rollout_metrics(
    rewards: &[f64],
    tokens: &[usize],
    stopped: &[bool],
    prompts: &PromptIndex,
) -> BTreeMap<String, f64> {
    let responses = prompts.responses();
    assert!(rewards.len() == responses && tokens.len() == responses && stopped.len() == responses, "one per response");
    let mut metrics = BTreeMap::new();
    let numbers = scored(rewards);
    if !numbers.is_empty() {
        let (mean, std) = sample_mean_std(&numbers);
        metrics.extend([("reward".to_owned(), mean), ("reward_std".to_owned(), std)]);
        metrics.insert("frac_reward_zero_std".into(), zero_std_share(rewards, prompts));
    }
    let lengths: Vec<f64> = tokens.iter().map(|&tokens| tokens as f64).collect();
    let ended: Vec<f64> =
        lengths.iter().zip(stopped).filter(|(_, stopped)| **stopped).map(|(length, _)| *length).collect();
    for (kind, lengths) in [("length", &lengths), ("terminated_length", &ended)] {
        // trl reports 0 where no response has ended.
        let least = lengths.iter().copied().reduce(f64::min).unwrap_or(0.0);
        let most = lengths.iter().copied().reduce(f64::max).unwrap_or(0.0);
        metrics.insert(format!("completions/mean_{kind}"), mean(lengths).unwrap_or(0.0));
        metrics.insert(format!("completions/min_{kind}"), least);
        metrics.insert(format!("completions/max_{kind}"), most);
    }
    if responses > 0 {
        let clipped = (responses - ended.len()) as f64 / responses as f64;
        metrics.insert("completions/clipped_ratio".into(), clipped);
    }
    metrics
}

/// Returns the share of the responses whose prompt has two rewards or more, all of them equal.
fn zero_std_share(rewards: &[f64], prompts: &PromptIndex) -> f64 {
    let mut by_prompt = vec![Vec::new(); prompts.prompts()];
    for (&reward, &prompt) in rewards.iter().zip(prompts.prompt_of()) {
        if !reward.is_nan() {
            by_prompt[prompt].push(reward);
        }
    }
    let equal = |prompt: usize| by_prompt[prompt].len() > 1 && sample_mean_std(&by_prompt[prompt]).1 <= NO_DEVIATION;
    let share = prompts.prompt_of().iter().filter(|&&prompt| equal(prompt)).count();
    share as f64 / rewards.len() as f64
}

/// Computes the metrics of a round of PPO or REINFORCE++ from the shaped rewards and the tokens' KL divergences. Responses
/// without a reward are left out.
pub(super) fn ppo_round(
    sampled: &[Sampled<'_>],
    rewards: &[f64],
    kls: &[Vec<f64>],
    kl_coef: f64,
) -> BTreeMap<String, f64> {
    let kept: Vec<usize> = (0..sampled.len()).filter(|&i| !rewards[i].is_nan()).collect();
    let average = |of: &dyn Fn(usize) -> f64| kept.iter().map(|&i| of(i)).sum::<f64>() / kept.len() as f64;
    let kl = average(&|i| kls[i].iter().sum());
    let scores = average(&|i| rewards[i]);
    let penalty = -kl_coef * kl;
    [
        ("objective/kl", kl),
        ("objective/entropy", average(&|i| -sampled[i].old_logps.iter().sum::<f64>())),
        ("objective/non_score_reward", penalty),
        ("objective/scores", scores),
        ("objective/rlhf_reward", penalty + scores),
        ("val/num_eos_tokens", kept.iter().filter(|&&i| sampled[i].stopped).count() as f64),
        ("kl_coef", kl_coef),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}

/// Entries of a micro-batch on the host: tokens, or whole responses.
pub(super) struct PolicyGain<'a> {
    /// The losses of PPO's entries; empty for methods that do not log them.
    pub(super) losses: Vec<f64>,
    /// `lp − old`, nats; empty as well.
    pub(super) log_ratios: Vec<f64>,
    /// `ρ`.
    pub(super) ratios: Vec<f64>,
    /// `A`.
    pub(super) advantages: &'a [f64],
}

impl PolicyGain<'_> {
    /// Returns PPO's metrics.
    pub(super) fn ppo(&self, clip: &Clip) -> Metrics {
        let mut metrics = Metrics::default();
        let entries = self.losses.iter().zip(&self.log_ratios).zip(self.ratios.iter().zip(self.advantages));
        for ((&loss, &log_ratio), (&ratio, &advantage)) in entries {
            let (low, high) = clip.sides(ratio, advantage);
            metrics.record("loss/policy_avg", loss);
            metrics.record("policy/approxkl_avg", 0.5 * log_ratio * log_ratio);
            metrics.record("policy/clipfrac_avg", f64::from(u8::from(low || high)));
            metrics.record("val/ratio", ratio);
            metrics.record("val/ratio_var", (ratio - 1.0).powi(2));
        }
        metrics
    }

    /// Adds GRPO's and RLOO's metrics, with the smallest share of a response that is clipped below, and the largest that is clipped
    /// above.
    pub(super) fn grpo(&self, clip: &Clip, runs: &Runs<'_>, mut metrics: Metrics) -> PolicyMetrics {
        let sides = self.ratios.iter().zip(self.advantages).map(|(&ratio, &advantage)| clip.sides(ratio, advantage));
        let number = |side: bool| f64::from(u8::from(side));
        let (low, high): (Vec<f64>, Vec<f64>) = sides.map(|(low, high)| (number(low), number(high))).unzip();
        self.ratios.iter().for_each(|&ratio| metrics.record("val/ratio", ratio));
        for (low, high) in low.iter().zip(&high) {
            metrics.record("clip_ratio/low_mean", *low);
            metrics.record("clip_ratio/high_mean", *high);
            // No entry is on both sides.
            metrics.record("clip_ratio/region_mean", low + high);
        }
        let shares = |side: &[f64]| -> Vec<f64> { runs.cut(side).into_iter().filter_map(mean).collect() };
        let least = shares(&low).into_iter().fold(1.0, f64::min);
        let most = shares(&high).into_iter().fold(0.0, f64::max);
        PolicyMetrics {
            metrics,
            minima: vec![("clip_ratio/low_min", least)],
            maxima: vec![("clip_ratio/high_max", most)],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_in_trls_numbers() {
        let prompts = PromptIndex::from_counts(&[3, 2]).unwrap();
        let rewards = [1.0, 1.0, f64::NAN, 0.0, 4.0];
        let found = rollout_metrics(&rewards, &[3, 5, 8, 2, 8], &[true, true, false, true, false], &prompts);
        let expected = [
            ("reward", 1.5),
            ("reward_std", 3f64.sqrt()),
            ("frac_reward_zero_std", 0.6),
            ("completions/mean_length", 5.2),
            ("completions/min_length", 2.0),
            ("completions/max_length", 8.0),
            ("completions/mean_terminated_length", 10.0 / 3.0),
            ("completions/min_terminated_length", 2.0),
            ("completions/max_terminated_length", 5.0),
            ("completions/clipped_ratio", 0.4),
        ];
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (name, value) in expected {
            assert!((found[name] - value).abs() < 1e-12, "{name}: {}", found[name]);
        }
    }

    #[test]
    fn without_rewards_or_stop_tokens_there_are_lengths_alone() {
        let prompts = PromptIndex::from_counts(&[1]).unwrap();
        let found = rollout_metrics(&[f64::NAN], &[4], &[false], &prompts);
        assert!(!found.contains_key("reward"));
        assert_eq!((found["completions/mean_terminated_length"], found["completions/clipped_ratio"]), (0.0, 1.0));
    }
}
