//! Proximal Policy Optimization with a value network: the RLHF of InstructGPT.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::advantage::{gae, whiten};
use super::kl::{KlController, KlEstimator, kl_target_problem};
use super::metrics::{PolicyGain, ppo_round};
use super::objective::{
    OnlineObjective, OnlineState, PolicyBatch, PolicyMetrics, PolicyOutput, Prepared, Sampled, check,
};
use super::ratio::{Clip, clipped_policy};
use super::rewards::{RewardShape, clip_problem, token_rewards};
use super::value::explained_variance;
use crate::error::Error;
use crate::objective::{Axis, Objective};
use crate::prompt_index::PromptIndex;
use crate::reward_transform::ClipRange;
use crate::settings::{Problem, settings};
use crate::unread::Unread;

settings! {
    /// The settings of PPO.
    pub struct PpoSettings {
        /// Weight of the KL divergence to the reference in the rewards of the tokens.
        kl_coef: f64 = 0.05, NON_NEGATIVE;
        /// The estimate of the KL divergence of a token: `"k1"` = old − ref, `"k3"` = exp(ref − old) − 1 − (ref − old).
        kl_estimator: KlEstimator = KlEstimator::K1;
        /// The KL divergence per response, nats, that an adaptive `kl_coef` keeps to; not set: `kl_coef` is constant.
        kl_target: Option<f64> = None, POSITIVE;
        /// The number of responses over which an adaptive `kl_coef` may change by a fifth.
        kl_horizon: f64 = 10000.0, POSITIVE;
        /// Discount γ per token.
        gamma: f64 = 1.0, UNIT;
        /// λ of the generalised advantage estimates: 0 trusts the values, 1 the returns.
        lambda: f64 = 0.95, UNIT;
        /// The width ε below 1 within which the ratio of the policy to the one that sampled moves the loss.
        clip: f64 = 0.2, BELOW_ONE;
        /// The width above 1; not set: `clip`.
        clip_high: Option<f64> = None, POSITIVE;
        /// The largest ratio that counts for a negative advantage, above 1 + clip_high (dual-clip PPO); not set: no limit.
        ratio_cap: Option<f64> = None, ABOVE_ONE;
        /// The distance from the rollout's value beyond which a value's loss is clipped, units of reward.
        value_clip: f64 = 0.2, POSITIVE;
        /// Weight of the loss of the values.
        value_weight: f64 = 0.1, NON_NEGATIVE;
        /// The start of the value network: `"auto"` (the reward model if there is one, else the policy), `"reward"`, `"policy"`
        /// (with a head of zeros), or the folder of a reward model.
        value_init: ValueInit = ValueInit::Named(ValueSource::Auto);
        /// The learning rate of the value network; not set: that of the policy.
        value_learning_rate: Option<f64> = None, POSITIVE;
        /// The number of first rounds that train the values alone.
        value_warmup: u64 = 0;
        /// Whitens the rewards of the tokens, their mean kept, before the advantages are computed.
        whiten_rewards: bool = false;
        /// Divides rewards by the standard deviation of all rewards so far, after their mean is taken off.
        reward_normalization: bool = false;
        /// The range that rewards are limited to: a number c for −c to c, or `[low, high]`; not set: none.
        reward_clip: Option<ClipRange> = None, FINITE;
        /// The place of the text's reward: `"last_token"`, or `"after_end"`, one slot further, as in trl's PPO.
        reward_at: RewardAt = RewardAt::LastToken;
        /// The number that is taken off the reward of a response without a stop token.
        missing_stop_penalty: f64 = 0.0, NON_NEGATIVE;
        /// Weight of the SFT loss on rows of `sft_data` (PPO-ptx): one row for each response, a mean over a step's tokens.
        ptx_weight: f64 = 0.0, NON_NEGATIVE;
    }
}

/// The place of the text's reward among the tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RewardAt {
    /// The last token: the stop token, or where the response was cut.
    #[default]
    LastToken,
    /// A slot behind the stop token, which has a value of its own, if there is room below `max_new_tokens`: trl's way, of
    /// which the reward reaches the stop token times λ (trl issue 3750).
    AfterEnd,
}

/// The start of the value network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected \"auto\", \"reward\", \"policy\" or the folder of a reward model")]
pub enum ValueInit {
    /// By name.
    Named(ValueSource),
    /// The folder of a reward model.
    Path(PathBuf),
}

/// A start of the value network by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ValueSource {
    /// The reward model if there is one, else the policy.
    Auto,
    /// The reward model.
    Reward,
    /// The policy, with a head of zeros.
    Policy,
}

impl Objective for PpoSettings {
    const TITLE: &'static str = "Proximal Policy Optimization with a value network (RLHF)";
    const SOURCE: &'static str = "Schulman et al. 2017; Ouyang et al. 2022";
    const REWARDS: bool = true;
    const SEARCH: &'static [Axis] = &[Axis::numbers("align.kl_coef", &[0.02, 0.05, 0.1, 0.2])];
}

impl PpoSettings {
    pub(super) fn clipping(&self) -> Clip {
        Clip { low: self.clip, high: self.clip_high.unwrap_or(self.clip), cap: self.ratio_cap }
    }

    fn shape(&self) -> RewardShape {
        RewardShape {
            normalize: self.reward_normalization,
            clip: self.reward_clip,
            missing_stop_penalty: self.missing_stop_penalty,
        }
    }
}

/// PPO (Schulman et al. 2017; for language models Stiennon et al. 2020 and Ouyang et al. 2022; trl 1.12 `PPOTrainer`).
///
/// ```text
/// r_t  = −kl_coef·kl_t  (+ R at the end)
/// A    = GAE(r, V; γ, λ),   ret = A + V
/// Â    = whiten(A)                                          over all tokens of the round
/// L    = mean_t −min(ρ·Â, clip(ρ, 1 − ε, 1 + ε_high)·Â)     + value_weight · mean_t value loss
/// ```
///
/// In the first `value_warmup` rounds the policy stays as it is, and L is the loss of the values alone. With `ptx_weight`
/// the SFT loss on other rows is added to L (Ouyang et al. 2022, Eq. 2).
///
/// Differences from trl: the reward is on the last token ([`RewardAt`]); lengths come from the generator and not from padding;
/// losses are means over the tokens of the whole batch, however it is cut; metrics leave padding out.
impl OnlineObjective for PpoSettings {
    fn samples(&self) -> usize {
        1
    }

    fn epochs_per_round(&self) -> usize {
        4
    }

    fn has_value(&self) -> bool {
        true
    }

    fn value_slots(&self, tokens: usize, max_new_tokens: usize) -> usize {
        match self.reward_at {
            RewardAt::AfterEnd if tokens < max_new_tokens => tokens + 1,
            RewardAt::AfterEnd | RewardAt::LastToken => tokens,
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
        for one in sampled {
            let further = usize::from(self.reward_at == RewardAt::AfterEnd && one.values.len() > one.tokens());
            assert_eq!(one.values.len(), one.tokens() + further, "a value per token");
        }
        let (rewards, moments) = self.shape().apply(sampled, state.rewards);
        let round = TokenRound::new(sampled, &rewards, self.kl_estimator);
        let mut slots: Vec<Vec<f64>> = sampled
            .iter()
            .zip(&round.kls)
            .zip(&rewards)
            .map(|((one, kls), &reward)| {
                // A response without a reward gets none, and weight 0.
                let reward = if reward.is_nan() { 0.0 } else { reward };
                token_rewards(kls, state.kl_coef, reward, one.values.len())
            })
            .collect();
        if self.whiten_rewards {
            whiten(round.kept(&mut slots).flatten(), false);
        }
        let (mut advantages, returns): (Vec<_>, Vec<_>) = slots
            .iter()
            .zip(sampled)
            .map(|(rewards, one)| {
                let found = gae(rewards, one.values, self.gamma, self.lambda);
                (found.advantages, found.returns)
            })
            .unzip();
        for (advantages, one) in advantages.iter_mut().zip(sampled) {
            advantages.truncate(one.tokens());
        }
        whiten(round.kept(&mut advantages).flatten(), true);
        round.clear(&mut advantages);

        let mut metrics = ppo_round(sampled, &rewards, &round.kls, state.kl_coef);
        let scored = || (0..sampled.len()).filter(|&i| round.scored[i]);
        let values: Vec<f64> = scored().flat_map(|i| sampled[i].values.iter().copied()).collect();
        let targets: Vec<f64> = scored().flat_map(|i| returns[i].iter().copied()).collect();
        if let Some(share) = explained_variance(&values, &targets) {
            metrics.insert("value/explained_variance".into(), share);
        }
        let kl_coef = round.next_kl_coef(self.kl_target, self.kl_horizon, state.kl_coef);
        Ok(Prepared {
            advantages,
            returns,
            weights: round.weights(sampled),
            metrics,
            next: OnlineState { kl_coef, rewards: moments },
        })
    }

    fn losses(&self, batch: &PolicyBatch) -> PolicyOutput {
        token_losses(batch, &self.clipping())
    }
}

/// The responses of a round whose tokens have rewards of their own: of PPO and REINFORCE++.
pub(super) struct TokenRound {
    /// For each response, true if it has a reward.
    pub(super) scored: Vec<bool>,
    /// The estimated KL divergence of each token, nats; zeros without a reference.
    pub(super) kls: Vec<Vec<f64>>,
}

impl TokenRound {
    pub(super) fn new(sampled: &[Sampled<'_>], rewards: &[f64], estimator: KlEstimator) -> Self {
        let kls = |one: &Sampled<'_>| {
            if one.ref_logps.is_empty() {
                return vec![0.0; one.tokens()];
            }
            one.old_logps.iter().zip(one.ref_logps).map(|(&old, &reference)| estimator.of(old, reference)).collect()
        };
        Self { scored: rewards.iter().map(|reward| !reward.is_nan()).collect(), kls: sampled.iter().map(kls).collect() }
    }

    /// Returns the values of the responses that have a reward.
    pub(super) fn kept<'a>(&'a self, values: &'a mut [Vec<f64>]) -> impl Iterator<Item = &'a mut Vec<f64>> {
        values.iter_mut().zip(&self.scored).filter(|(_, scored)| **scored).map(|(values, _)| values)
    }

    /// Sets the advantages of the other responses to 0.
    pub(super) fn clear(&self, advantages: &mut [Vec<f64>]) {
        for (advantages, _) in advantages.iter_mut().zip(&self.scored).filter(|(_, scored)| !**scored) {
            advantages.fill(0.0);
        }
    }

    /// Returns the number of tokens of each response, 0 for those without a reward: losses are means over tokens.
    pub(super) fn weights(&self, sampled: &[Sampled<'_>]) -> Vec<f64> {
        let weight = |(one, &scored): (&Sampled<'_>, &bool)| if scored { one.tokens() as f64 } else { 0.0 };
        sampled.iter().zip(&self.scored).map(weight).collect()
    }

    /// Returns the coefficient of the next round.
    pub(super) fn next_kl_coef(&self, target: Option<f64>, horizon: f64, coef: f64) -> f64 {
        let Some(target) = target else { return coef };
        let sum = |(kls, _): (&Vec<f64>, &bool)| kls.iter().sum::<f64>();
        let sums: Vec<f64> = self.kls.iter().zip(&self.scored).filter(|(_, scored)| **scored).map(sum).collect();
        let mean = sums.iter().sum::<f64>() / sums.len() as f64;
        KlController { target, horizon }.next(coef, mean, sums.len())
    }
}

/// Computes the clipped loss of every token, summed up by response, with PPO's metrics.
pub(super) fn token_losses(batch: &PolicyBatch, clip: &Clip) -> PolicyOutput {
    let runs = batch.runs();
    let log_ratios = batch.log_ratios();
    let found = clipped_policy(log_ratios.clone(), batch.advantages(), clip);
    let (clip, advantages) = (*clip, batch.advantages.clone());
    let seen = [&found.losses, &log_ratios, &found.ratios];
    let metrics = Unread::new(seen, move |[losses, log_ratios, ratios]| {
        let metrics = PolicyGain { losses, log_ratios, ratios, advantages: &advantages }.ppo(&clip);
        PolicyMetrics { metrics, ..PolicyMetrics::default() }
    });
    PolicyOutput { losses: runs.sum(found.losses), metrics }
}
