//! REINFORCE with a leave-one-out baseline.

use std::collections::BTreeMap;

use super::advantage::{leave_one_out_or_none, normalize};
use super::metrics::PolicyGain;
use super::objective::{OnlineObjective, OnlineState, PolicyBatch, PolicyOutput, Prepared, Sampled, check};
use super::ratio::{Clip, clipped_policy};
use super::rewards::{RewardShape, clip_problem};
use super::runs::Runs;
use crate::aggregate::constant_like;
use crate::error::Error;
use crate::metrics::Metrics;
use crate::objective::{Axis, Objective};
use crate::prompt_index::PromptIndex;
use crate::reward_transform::ClipRange;
use crate::settings::{Problem, settings};
use crate::unread::Unread;

settings! {
    /// The settings of RLOO.
    pub struct RlooSettings {
        /// Weight of the KL divergence to the reference in the reward.
        beta: f64 = 0.05, NON_NEGATIVE;
        /// The width ε below 1 within which the ratio of the policy to the one that sampled moves the loss.
        clip: f64 = 0.2, BELOW_ONE;
        /// The width above 1; not set: `clip`.
        clip_high: Option<f64> = None, POSITIVE;
        /// Normalises the advantages of the round to mean 0 and standard deviation 1.
        normalize_advantages: bool = false;
        /// The range that rewards are limited to: a number c for −c to c, or `[low, high]`; not set: none.
        reward_clip: Option<ClipRange> = None, FINITE;
        /// The number that is taken off the reward of a response without a stop token.
        missing_stop_penalty: f64 = 0.0, NON_NEGATIVE;
    }
}

impl Objective for RlooSettings {
    const TITLE: &'static str = "REINFORCE with a leave-one-out baseline";
    const SOURCE: &'static str = "Ahmadian et al. 2024";
    const REWARDS: bool = true;
    const SEARCH: &'static [Axis] = &[Axis::numbers("align.beta", &[0.01, 0.05, 0.1, 0.5])];
}

impl RlooSettings {
    fn clipping(&self) -> Clip {
        Clip { low: self.clip, high: self.clip_high.unwrap_or(self.clip), cap: None }
    }
}

/// RLOO (Ahmadian et al. 2024, "Back to Basics"; trl 1.16 `RLOOTrainer`).
///
/// ```text
/// R'   = clip(R) − β·Σ_t (old_t − ref_t)
/// A_j  = R'_j − mean_{i≠j} R'_i             (leave-one-out)
/// ρ    = exp(Σ_t lp_t − Σ_t old_t)
/// L    = mean over responses of −min(ρ·A, clip(ρ, 1 − ε, 1 + ε_high)·A)
/// ```
///
/// A whole response is one action, so its ratio is that of the sums. A response without a reward leaves the baseline and the
/// mean; in trl its loss of 0 still counts in the mean.
impl OnlineObjective for RlooSettings {
    fn samples(&self) -> usize {
        2
    }

    fn least_samples(&self) -> usize {
        2
    }

    fn uses_reference(&self) -> bool {
        self.beta > 0.0
    }

    fn problems(&self) -> Vec<Problem> {
        clip_problem(self.reward_clip).into_iter().collect()
    }

    fn prepare(&self, sampled: &[Sampled<'_>], prompts: &PromptIndex, state: &OnlineState) -> Result<Prepared, Error> {
        check(self, sampled, prompts)?;
        let shape =
            RewardShape { normalize: false, clip: self.reward_clip, missing_stop_penalty: self.missing_stop_penalty };
        let (mut rewards, _) = shape.apply(sampled, None);
        let mut metrics = BTreeMap::new();
        if self.uses_reference() {
            let kl = |one: &Sampled<'_>| -> f64 {
                one.old_logps.iter().zip(one.ref_logps).map(|(old, reference)| old - reference).sum()
            };
            let kls: Vec<f64> = sampled.iter().map(kl).collect();
            rewards.iter_mut().zip(&kls).for_each(|(reward, kl)| *reward -= self.beta * kl);
            let tokens: usize = sampled.iter().map(Sampled::tokens).sum();
            metrics.insert("kl".to_owned(), kls.iter().sum::<f64>() / tokens as f64);
        }
        let found = leave_one_out_or_none(&rewards, prompts);
        let advantages: Vec<f64> = if self.normalize_advantages {
            normalize(&found.iter().map(|advantage| advantage.unwrap_or(f64::NAN)).collect::<Vec<_>>())
        } else {
            found.iter().map(|advantage| advantage.unwrap_or(0.0)).collect()
        };
        Ok(Prepared {
            advantages: advantages.iter().zip(sampled).map(|(&a, one)| vec![a; one.tokens()]).collect(),
            returns: vec![Vec::new(); sampled.len()],
            weights: rewards.iter().map(|reward| f64::from(u8::from(!reward.is_nan()))).collect(),
            metrics,
            next: *state,
        })
    }

    fn losses(&self, batch: &PolicyBatch) -> PolicyOutput {
        let runs = batch.runs();
        // All tokens of a response have its advantage.
        let advantages: Vec<f64> = runs.cut(&batch.advantages).into_iter().map(|own| own[0]).collect();
        let log_ratios = runs.sum(batch.log_ratios());
        let clip = self.clipping();
        let found = clipped_policy(log_ratios.clone(), constant_like(&advantages, &log_ratios), &clip);
        let metrics = Unread::new([&found.ratios], move |[ratios]| {
            let gains = PolicyGain { losses: vec![], log_ratios: vec![], ratios, advantages: &advantages };
            gains.grpo(&clip, &Runs(&vec![1; advantages.len()]), Metrics::default())
        });
        PolicyOutput { losses: found.losses, metrics }
    }
}
