//! REINFORCE++: PPO without a value network.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::advantage::{ScaleRewards, group_relative, returns_to_go, whiten};
use super::kl::{KlEstimator, kl_target_problem};
use super::metrics::ppo_round;
use super::objective::{OnlineObjective, OnlineState, PolicyBatch, PolicyOutput, Prepared, Sampled, check};
use super::ppo::{TokenRound, token_losses};
use super::ratio::Clip;
use super::rewards::{RewardShape, clip_problem, token_rewards};
use crate::error::Error;
use crate::objective::{Axis, Objective};
use crate::prompt_index::PromptIndex;
use crate::reward_transform::ClipRange;
use crate::settings::{Problem, settings};

settings! {
    /// The settings of REINFORCE++.
    pub struct ReinforcePpSettings {
        /// Weight of the KL divergence to the reference in the rewards of the tokens.
        kl_coef: f64 = 0.01, NON_NEGATIVE;
        /// The estimate of the KL divergence of a token: `"k1"` = old − ref, `"k3"` = exp(ref − old) − 1 − (ref − old).
        kl_estimator: KlEstimator = KlEstimator::K1;
        /// The KL divergence per response, nats, that an adaptive `kl_coef` keeps to; not set: `kl_coef` is constant.
        kl_target: Option<f64> = None, POSITIVE;
        /// The number of responses over which an adaptive `kl_coef` may change by a fifth.
        kl_horizon: f64 = 10000.0, POSITIVE;
        /// Discount γ per token.
        gamma: f64 = 1.0, UNIT;
        /// The number that is taken off each reward: nothing, or the mean of its prompt (REINFORCE++-baseline).
        baseline: GroupBaseline = GroupBaseline::None;
        /// The width ε below 1 within which the ratio of the policy to the one that sampled moves the loss.
        clip: f64 = 0.2, BELOW_ONE;
        /// The width above 1; not set: `clip`.
        clip_high: Option<f64> = None, POSITIVE;
        /// The largest ratio that counts for a negative advantage, above 1 + clip_high (dual-clip PPO); not set: no limit.
        ratio_cap: Option<f64> = None, ABOVE_ONE;
        /// The range that rewards are limited to: a number c for −c to c, or `[low, high]`; not set: none.
        reward_clip: Option<ClipRange> = None, FINITE;
        /// The number that is taken off the reward of a response without a stop token.
        missing_stop_penalty: f64 = 0.0, NON_NEGATIVE;
    }
}

/// The number that is taken off each reward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GroupBaseline {
    /// Nothing.
    #[default]
    None,
    /// The mean of the prompt's rewards.
    GroupMean,
}

impl Objective for ReinforcePpSettings {
    const TITLE: &'static str = "REINFORCE++, with or without a baseline";
    const SOURCE: &'static str = "Hu 2025";
    const REWARDS: bool = true;
    const SEARCH: &'static [Axis] = &[Axis::numbers("align.kl_coef", &[0.001, 0.01, 0.05, 0.1])];
}

impl ReinforcePpSettings {
    fn clipping(&self) -> Clip {
        Clip { low: self.clip, high: self.clip_high.unwrap_or(self.clip), cap: self.ratio_cap }
    }
}

/// REINFORCE++ (Hu 2025; OpenRLHF's estimators `reinforce` and `reinforce_baseline`).
///
/// ```text
/// R    ← R − mean of its prompt                  (`baseline = "group_mean"`)
/// r_t  = −kl_coef·kl_t  (+ R at the last token)
/// A_t  = r_t + γ·A_{t+1},   Â = whiten(A)        over all tokens of the round
/// L    = mean_t −min(ρ·Â, clip(ρ, 1 − ε, 1 + ε_high)·Â)
/// ```
///
/// Whitening divides by n − 1, as PPO's; OpenRLHF divides by n.
impl OnlineObjective for ReinforcePpSettings {
    fn samples(&self) -> usize {
        match self.baseline {
            GroupBaseline::None => 1,
            GroupBaseline::GroupMean => 4,
        }
    }

    fn least_samples(&self) -> usize {
        match self.baseline {
            GroupBaseline::None => 1,
            GroupBaseline::GroupMean => 2,
        }
    }

    fn uses_reference(&self) -> bool {
        self.kl_coef > 0.0
    }

    fn start(&self) -> OnlineState {
        OnlineState { kl_coef: self.kl_coef, rewards: None }
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems: Vec<Problem> = self.clipping().problem().into_iter().collect();
        problems.extend(clip_problem(self.reward_clip));
        problems.extend(kl_target_problem(self.kl_target, self.kl_coef));
        problems
    }

    fn entropy_name(&self) -> &'static str {
        "policy/entropy_avg"
    }

    fn prepare(&self, sampled: &[Sampled<'_>], prompts: &PromptIndex, state: &OnlineState) -> Result<Prepared, Error> {
        check(self, sampled, prompts)?;
        let shape =
            RewardShape { normalize: false, clip: self.reward_clip, missing_stop_penalty: self.missing_stop_penalty };
        let (rewards, _) = shape.apply(sampled, None);
        let round = TokenRound::new(sampled, &rewards, self.kl_estimator);
        let centred = match self.baseline {
            GroupBaseline::None => rewards.iter().map(|reward| if reward.is_nan() { 0.0 } else { *reward }).collect(),
            GroupBaseline::GroupMean => group_relative(&rewards, prompts, ScaleRewards::None),
        };
        let of = |(kls, &reward): (&Vec<f64>, &f64)| {
            returns_to_go(&token_rewards(kls, state.kl_coef, reward, kls.len()), self.gamma)
        };
        let mut advantages: Vec<Vec<f64>> = round.kls.iter().zip(&centred).map(of).collect();
        whiten(round.kept(&mut advantages).flatten(), true);
        round.clear(&mut advantages);
        let kl_coef = round.next_kl_coef(self.kl_target, self.kl_horizon, state.kl_coef);
        Ok(Prepared {
            advantages,
            returns: vec![Vec::new(); sampled.len()],
            weights: round.weights(sampled),
            metrics: ppo_round(sampled, &rewards, &round.kls, state.kl_coef),
            next: OnlineState { kl_coef, rewards: None },
        })
    }

    fn losses(&self, batch: &PolicyBatch) -> PolicyOutput {
        token_losses(batch, &self.clipping())
    }
}
