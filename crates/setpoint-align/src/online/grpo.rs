//! Group Relative Policy Optimization, with the variants of its loss.

use std::collections::BTreeMap;

use burn::tensor::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::advantage::{ScaleRewards, group_relative};
use super::metrics::PolicyGain;
use super::objective::{
    OnlineObjective, OnlineState, PolicyBatch, PolicyMetrics, PolicyOutput, Prepared, Sampled, check,
};
use super::ratio::{Clip, clipped_policy, exp_limited, k3};
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
    /// The settings of GRPO.
    pub struct GrpoSettings {
        /// Weight of the KL divergence to the reference in the loss; 0 trains without a reference.
        beta: f64 = 0.0, NON_NEGATIVE;
        /// Multiplies the estimate of the KL divergence by the ratio of the policy to the one that sampled. Without it, its
        /// gradient is that of the KL divergence the other way round, which has another optimum.
        kl_correction: bool = true;
        /// The mean that the loss is: `"dapo"` over the tokens of the batch, `"grpo"` over responses of their means,
        /// `"dr_grpo"` over responses of sums divided by `max_new_tokens`, `"cispo"` as `"dapo"`, with clipped weights.
        loss: GrpoLoss = GrpoLoss::Dapo;
        /// The number that centred rewards are divided by: the standard deviation of the prompt's (`"group"`) or of all rewards
        /// (`"batch"`), or `"none"`.
        scale_rewards: ScaleRewards = ScaleRewards::Group;
        /// The ratio of each token, or of the whole response (GSPO).
        importance: Importance = Importance::Token;
        /// The width ε below 1 within which the ratio of the policy to the one that sampled moves the loss; not for `"cispo"`.
        clip: f64 = 0.2, BELOW_ONE;
        /// The width above 1 (DAPO: 0.28); not set: `clip`. For `"cispo"`, the largest weight of a token.
        clip_high: Option<f64> = None, POSITIVE;
        /// The largest ratio that counts for a negative advantage, above 1 + clip_high (trl's `delta`); not set: no limit.
        ratio_cap: Option<f64> = None, ABOVE_ONE;
        /// Leaves responses without a stop token out of the loss; their rewards still count for the others.
        mask_truncated: bool = false;
        /// The range that rewards are limited to: a number c for −c to c, or `[low, high]`; not set: none.
        reward_clip: Option<ClipRange> = None, FINITE;
        /// The number that is taken off the reward of a response without a stop token.
        missing_stop_penalty: f64 = 0.0, NON_NEGATIVE;
    }
}

/// The mean that GRPO's loss is, over the batch of an optimizer step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GrpoLoss {
    /// Over all tokens (Yu et al. 2025, DAPO).
    #[default]
    Dapo,
    /// Over responses, of the means over their tokens (Shao et al. 2024): short winners and long losers weigh more and less
    /// per token.
    Grpo,
    /// Over responses, of the sums over their tokens divided by `max_new_tokens` (Liu et al. 2025, Dr. GRPO).
    DrGrpo,
    /// Over all tokens, with clipped weights instead of clipped ratios (MiniMax 2025, CISPO).
    Cispo,
}

/// The ratio that a token's loss has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Importance {
    /// Each token has its own ratio.
    #[default]
    Token,
    /// All tokens of a response have the geometric mean of their ratios (Zheng et al. 2025, GSPO).
    Sequence,
}

impl Objective for GrpoSettings {
    const TITLE: &'static str = "Group Relative Policy Optimization, with DAPO, Dr. GRPO, GSPO and CISPO";
    const SOURCE: &'static str = "Shao et al. 2024; Yu et al. 2025; Liu et al. 2025";
    const REWARDS: bool = true;
    const SEARCH: &'static [Axis] = &[Axis::numbers("align.beta", &[0.0, 0.01, 0.04, 0.1])];
}

impl GrpoSettings {
    fn clipping(&self) -> Clip {
        Clip { low: self.clip, high: self.clip_high.unwrap_or(self.clip), cap: self.ratio_cap }
    }

    /// Returns the weight of a response of `tokens` tokens in the mean over responses.
    fn weight(&self, tokens: usize) -> f64 {
        match self.loss {
            GrpoLoss::Dapo | GrpoLoss::Cispo => tokens as f64,
            GrpoLoss::Grpo | GrpoLoss::DrGrpo => 1.0,
        }
    }

    /// Computes the policy loss of each token, with the ratio that it has.
    fn policy_losses(&self, batch: &PolicyBatch, runs: &Runs<'_>) -> (Tensor<1>, Tensor<1>) {
        let log_ratios = match self.importance {
            Importance::Token => batch.log_ratios(),
            Importance::Sequence => {
                let shares: Vec<f64> = batch.tokens.iter().map(|&tokens| 1.0 / tokens as f64).collect();
                let sums = runs.sum(batch.log_ratios());
                runs.spread(sums.clone() * constant_like(&shares, &sums))
            }
        };
        if self.loss == GrpoLoss::Cispo {
            let ratios = exp_limited(log_ratios);
            let weights = ratios.clone().inner().clamp_max(self.clipping().high);
            return (-(batch.advantages() * weights * batch.logps.clone()), ratios);
        }
        let found = clipped_policy(log_ratios, batch.advantages(), &self.clipping());
        (found.losses, found.ratios)
    }

    /// Returns the metrics of tokens with these ratios, `kl` of which the loss penalises.
    fn metrics(&self, ratios: &[f64], kl: &[f64], advantages: &[f64], tokens: &[usize]) -> PolicyMetrics {
        let mut metrics = Metrics::default();
        kl.iter().for_each(|&kl| metrics.record("kl", kl));
        let (clip, runs) = (self.clipping(), Runs(tokens));
        // A response whose tokens have the same ratio counts once.
        let first = |values: &[f64]| -> Vec<f64> { runs.cut(values).into_iter().map(|own| own[0]).collect() };
        let (ratios, advantages, counts) = match self.importance {
            Importance::Token => (ratios.to_vec(), advantages.to_vec(), tokens.to_vec()),
            Importance::Sequence => (first(ratios), first(advantages), vec![1; tokens.len()]),
        };
        if self.loss == GrpoLoss::Cispo {
            for (&ratio, &advantage) in ratios.iter().zip(&advantages) {
                metrics.record("val/ratio", ratio);
                metrics.record("cispo_clip_ratio", f64::from(u8::from(ratio > clip.high && advantage > 0.0)));
            }
            return PolicyMetrics { metrics, ..PolicyMetrics::default() };
        }
        let gains = PolicyGain { losses: vec![], log_ratios: vec![], ratios, advantages: &advantages };
        gains.grpo(&clip, &Runs(&counts), metrics)
    }
}

/// GRPO (Shao et al. 2024, DeepSeekMath, Eq. 3 and 4; trl 1.16 `GRPOTrainer`).
///
/// ```text
/// A    = (R − mean of its prompt)/(std + 1e-4)
/// ρ_t  = exp(lp_t − old_t)                          (`importance = "sequence"`: exp of the mean of the response)
/// kl_t = (e^d − d − 1)·ρ_t,   d = ref_t − lp_t      (without `kl_correction`: without ρ)
/// l_t  = −min(ρ_t·A, clip(ρ_t, 1 − ε, 1 + ε_high)·A) + β·kl_t
/// l_t  = −sg(min(ρ_t, ε_high))·A·lp_t + β·kl_t      (`loss = "cispo"`)
/// ```
///
/// | `loss` | the batch's losses, divided by |
/// |---|---|
/// | `dapo`, `cispo` | its tokens |
/// | `grpo` | each response by its tokens, then responses |
/// | `dr_grpo` | responses · `max_new_tokens` |
///
/// The denominators are those of the **whole** batch of an optimizer step. trl's `dapo` divides by the tokens of the generation
/// batch, which is the same if one generation feeds one step.
///
/// The estimate k3 of the KL divergence is unbiased, but its gradient is not: on the policy's own samples it is
/// `1 − π_ref/π`, of which the mean is the gradient of KL(π_ref‖π). With ρ in front, which is 1 but has a gradient, it becomes that of
/// KL(π‖π_ref).
///
/// Differences from trl: responses without a reward or, with `mask_truncated`, without a stop token leave the mean over
/// responses, where trl counts them with a loss of 0. `bnpo` is `dapo` here, because micro-batches do not change the loss.
impl OnlineObjective for GrpoSettings {
    fn samples(&self) -> usize {
        8
    }

    fn least_samples(&self) -> usize {
        2
    }

    fn uses_reference(&self) -> bool {
        self.beta > 0.0
    }

    fn reference_in_loss(&self) -> bool {
        self.beta > 0.0
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems: Vec<Problem> = clip_problem(self.reward_clip).into_iter().collect();
        let mut wrong = |setting: &'static str, message: &str| problems.push(Problem::new(Some(setting), message));
        if self.loss == GrpoLoss::Cispo {
            if self.clip_high.is_none() {
                wrong("clip_high", "`loss = \"cispo\"` needs `clip_high`, the largest weight of a token, such as 5.0");
            }
            if self.ratio_cap.is_some() {
                wrong(
                    "ratio_cap",
                    "`ratio_cap` has no effect with `loss = \"cispo\"`, whose weights `clip_high` limits",
                );
            }
        } else {
            problems.extend(self.clipping().problem());
        }
        problems
    }

    fn prepare(&self, sampled: &[Sampled<'_>], prompts: &PromptIndex, state: &OnlineState) -> Result<Prepared, Error> {
        check(self, sampled, prompts)?;
        let shape =
            RewardShape { normalize: false, clip: self.reward_clip, missing_stop_penalty: self.missing_stop_penalty };
        let (rewards, _) = shape.apply(sampled, None);
        let advantages = group_relative(&rewards, prompts, self.scale_rewards);
        let counts = |one: &Sampled<'_>| !one.reward.is_nan() && (one.stopped || !self.mask_truncated);
        let weight = |one: &Sampled<'_>| if counts(one) { self.weight(one.tokens()) } else { 0.0 };
        Ok(Prepared {
            advantages: advantages.iter().zip(sampled).map(|(&a, one)| vec![a; one.tokens()]).collect(),
            returns: vec![Vec::new(); sampled.len()],
            weights: sampled.iter().map(weight).collect(),
            metrics: BTreeMap::new(),
            next: *state,
        })
    }

    fn losses(&self, batch: &PolicyBatch) -> PolicyOutput {
        let runs = batch.runs();
        let (mut losses, ratios) = self.policy_losses(batch, &runs);
        let mut penalty = None;
        if self.reference_in_loss() {
            let reference = batch.ref_logps.as_ref().expect("log-probabilities under the reference");
            let mut kl = k3(batch.logps.clone(), constant_like(reference, &batch.logps));
            if self.kl_correction {
                kl = kl * ratios.clone();
            }
            penalty = Some(kl.clone());
            losses = losses + self.beta * kl;
        }
        let (settings, advantages, tokens) = (self.clone(), batch.advantages.clone(), batch.tokens.clone());
        let metrics = match &penalty {
            Some(kl) => {
                Unread::new([&ratios, kl], move |[ratios, kl]| settings.metrics(&ratios, &kl, &advantages, &tokens))
            }
            None => Unread::new([&ratios], move |[ratios]| settings.metrics(&ratios, &[], &advantages, &tokens)),
        };
        let factors: Vec<f64> = batch
            .tokens
            .iter()
            .map(|&tokens| match self.loss {
                GrpoLoss::Dapo | GrpoLoss::Cispo => 1.0,
                GrpoLoss::Grpo => 1.0 / tokens as f64,
                GrpoLoss::DrGrpo => 1.0 / batch.max_new_tokens as f64,
            })
            .collect();
        let sums = runs.sum(losses);
        PolicyOutput { losses: sums.clone() * constant_like(&factors, &sums), metrics }
    }
}
