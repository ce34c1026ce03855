//! Rewards of whole responses, and of their tokens.

use std::collections::BTreeMap;

use super::advantage::{sample_mean_std, scored};
use super::objective::Sampled;
use crate::metrics::Moments;
use crate::reward_transform::ClipRange;
use crate::settings::{Numbers, Problem};

/// The number that is added to the standard deviation of all rewards so far.
const RUNNING_FLOOR: f64 = 1e-8;

/// The way from the reward of a text to the one that the advantages are computed from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RewardShape {
    /// Normalises by the mean and standard deviation of all rewards so far, those of this round included.
    pub normalize: bool,
    /// The range that rewards are limited to.
    pub clip: Option<ClipRange>,
    /// The number that is taken off a response without a stop token.
    pub missing_stop_penalty: f64,
}

impl Numbers for Option<ClipRange> {
    fn numbers(&self, name: &'static str) -> Vec<(&'static str, f64)> {
        self.iter().map(|range| range.bounds()).flat_map(|(low, high)| [(name, low), (name, high)]).collect()
    }
}

/// Returns what is wrong with the range that rewards are limited to.
pub(super) fn clip_problem(clip: Option<ClipRange>) -> Option<Problem> {
    let (low, high) = clip?.bounds();
    let message =
        || format!("setting `reward_clip` must be a range [low, high] with low <= high, found [{low}, {high}]");
    (low > high).then(|| Problem::new(Some("reward_clip"), message()))
}

impl RewardShape {
    /// Normalises the rewards, limits them, and takes the penalty off, in this order.
    ///
    /// ```text
    /// R ← (R − mean)/(std + 1e-8)         of all rewards so far, std divided by n − 1   (`normalize`)
    /// R ← min(max(R, low), high)                                                      (`clip`)
    /// R ← R − penalty                     if there is no stop token                    (trl's `missing_eos_penalty`)
    /// ```
    ///
    /// Rewards that are NaN stay NaN. Returns the moments with those of this round.
    pub fn apply(&self, sampled: &[Sampled<'_>], moments: Option<Moments>) -> (Vec<f64>, Option<Moments>) {
        let mut rewards: Vec<f64> = sampled.iter().map(|one| one.reward).collect();
        let mut moments = moments;
        if self.normalize {
            for &reward in rewards.iter().filter(|reward| !reward.is_nan()) {
                let one = Moments::of(reward);
                moments = Some(moments.map_or(one, |before| before.plus(one)));
            }
            if let Some(Moments { count, mean, squares, .. }) = moments {
                let std = if count > 1.0 { (squares / (count - 1.0)).sqrt() } else { 0.0 };
                rewards.iter_mut().for_each(|reward| *reward = (*reward - mean) / (std + RUNNING_FLOOR));
            }
        }
        if let Some((low, high)) = self.clip.map(ClipRange::bounds) {
            // NaN stays NaN. `problems` has refused a range whose ends are the wrong way round.
            rewards.iter_mut().for_each(|reward| *reward = reward.clamp(low, high.max(low)));
        }
        for (reward, _) in rewards.iter_mut().zip(sampled).filter(|(_, one)| !one.stopped) {
            *reward -= self.missing_stop_penalty;
        }
        (rewards, moments)
    }
}

/// Computes the reward of each slot of a response: the penalty for leaving the reference on every token, and the reward of the
/// text on the last slot (Stiennon et al. 2020; trl 1.12 `PPOTrainer`).
///
/// ```text
/// r_t = −kl_coef·kl_t   (+ R at the last slot)
/// ```
///
/// `slots` is the number of tokens, or one more: then the reward is behind the stop token, as in trl.
///
/// # Panics
/// If there are fewer slots than tokens, or none.
///
/// ```
/// use setpoint_align::online::token_rewards;
///
/// assert_eq!(token_rewards(&[1.0, 3.0], 0.5, 10.0, 2), [-0.5, 8.5]);
/// assert_eq!(token_rewards(&[1.0, 3.0], 0.5, 10.0, 3), [-0.5, -1.5, 10.0]);
/// ```
pub fn token_rewards(kls: &[f64], kl_coef: f64, reward: f64, slots: usize) -> Vec<f64> {
    assert!(slots > 0 && slots >= kls.len(), "a slot per token");
    let mut rewards: Vec<f64> = kls.iter().map(|kl| -kl_coef * kl).collect();
    rewards.resize(slots, 0.0);
    rewards[slots - 1] += reward;
    rewards
}

/// Adds up the rewards of several sources with their weights, as trl does: sources without a number are left out, and the sum is
/// NaN if none has one.
///
/// # Panics
/// If there is not a weight per source, or the sources have different numbers of rewards.
///
/// ```
/// use setpoint_align::online::combine_rewards;
///
/// let rewards = combine_rewards(&[vec![1.0, f64::NAN], vec![2.0, f64::NAN]], &[1.0, 0.5]);
/// assert!(rewards[0] == 2.0 && rewards[1].is_nan());
/// ```
pub fn combine_rewards(by_source: &[Vec<f64>], weights: &[f64]) -> Vec<f64> {
    assert_eq!(by_source.len(), weights.len(), "a weight per source");
    let responses = by_source.first().map_or(0, Vec::len);
    assert!(by_source.iter().all(|rewards| rewards.len() == responses), "a reward per response");
    let sum = |response: usize| {
        let parts = by_source.iter().zip(weights).map(|(rewards, weight)| rewards[response] * weight);
        parts.filter(|part| !part.is_nan()).reduce(|sum, part| sum + part).unwrap_or(f64::NAN)
    };
    (0..responses).map(sum).collect()
}

/// Computes trl's `rewards/{source}/mean` and `rewards/{source}/std` (divided by n − 1) of the rewards of a source that are
/// numbers; nothing if there are none.
pub fn source_metrics(source: &str, rewards: &[f64]) -> BTreeMap<String, f64> {
    let rewards = scored(rewards);
    if rewards.is_empty() {
        return BTreeMap::new();
    }
    let (mean, std) = sample_mean_std(&rewards);
    [(format!("rewards/{source}/mean"), mean), (format!("rewards/{source}/std"), std)].into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampled(reward: f64, stopped: bool) -> Sampled<'static> {
        Sampled { reward, stopped, old_logps: &[-1.0], ref_logps: &[], values: &[] }
    }

    #[test]
    fn rewards_are_normalised_then_limited_then_punished() {
        let round = [sampled(1.0, true), sampled(3.0, false), sampled(f64::NAN, false), sampled(5.0, true)];
        let plain = RewardShape { normalize: false, clip: None, missing_stop_penalty: 0.5 };
        let (found, moments) = plain.apply(&round, None);
        assert!(found[0] == 1.0 && found[1] == 2.5 && found[2].is_nan() && found[3] == 5.0 && moments.is_none());

        let shape = RewardShape { normalize: true, clip: Some(ClipRange::Symmetric(0.75)), missing_stop_penalty: 0.5 };
        let (found, moments) = shape.apply(&round, None);
        // Mean 3, standard deviation 2.
        assert!((found[0] + 0.75).abs() < 1e-7 && (found[1] + 0.5).abs() < 1e-7 && (found[3] - 0.75).abs() < 1e-7);
        assert!(found[2].is_nan());
        let first = moments.unwrap();
        assert_eq!((first.count, first.mean, first.squares), (3.0, 3.0, 8.0));
        // The next round goes on from there: 1, 3, 5 and 7 have mean 4.
        let free = RewardShape { clip: None, missing_stop_penalty: 0.0, ..shape };
        let (found, _) = free.apply(&[sampled(7.0, true)], Some(first));
        assert!((found[0] - 3.0 / (20.0f64 / 3.0).sqrt()).abs() < 1e-7);
        // One reward alone has no deviation.
        assert_eq!(free.apply(&[sampled(7.0, true)], None).0, [0.0]);
    }

    #[test]
    fn several_sources_are_added_up() {
        assert_eq!(combine_rewards(&[], &[]), [0.0; 0]);
        assert_eq!(combine_rewards(&[vec![1.0, f64::NAN], vec![4.0, 4.0]], &[1.0, 0.25]), [2.0, 1.0]);
        let metrics = source_metrics("length", &[1.0, f64::NAN, 3.0]);
        assert_eq!(metrics["rewards/length/mean"], 2.0);
        assert!((metrics["rewards/length/std"] - 2f64.sqrt()).abs() < 1e-12);
        assert!(source_metrics("length", &[f64::NAN]).is_empty());
    }
}
