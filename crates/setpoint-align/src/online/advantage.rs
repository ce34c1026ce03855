//! Advantages from rewards, in f64 on the host.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::prompt_index::PromptIndex;
use crate::summary::mean_std;

/// The number that GRPO and RLOO add to a standard deviation before they divide by it, as trl does.
pub const DEVIATION_FLOOR: f64 = 1e-4;

/// The number that [`whiten`] adds to a variance, as trl's `masked_whiten` does.
const VARIANCE_FLOOR: f64 = 1e-8;

/// The result of [`gae`].
#[derive(Debug, Clone, PartialEq)]
pub struct Gae {
    /// `A_t`, units of reward.
    pub advantages: Vec<f64>,
    /// `A_t + V_t`, the values' targets, units of reward.
    pub returns: Vec<f64>,
}

/// Computes the generalised advantage estimates of one response (Schulman et al. 2016, Eq. 16; trl 1.12 `PPOTrainer`).
///
/// ```text
/// δ_t = r_t + γ·V_{t+1} − V_t        V after the last entry is 0
/// A_t = δ_t + γλ·A_{t+1}
/// ```
///
/// With λ = 1 it is the return minus the value, with λ = 0 it is δ.
///
/// # Units
/// Rewards and values in units of reward, one entry per token (and trl's further slot).
///
/// # Panics
/// If `values` has another length than `rewards`.
///
/// ```
/// use setpoint_align::online::gae;
///
/// let found = gae(&[0.0, 1.0], &[0.5, 0.25], 1.0, 1.0);
/// assert_eq!(found.advantages, [0.5, 0.75]);
/// assert_eq!(found.returns, [1.0, 1.0]);
/// ```
pub fn gae(rewards: &[f64], values: &[f64], gamma: f64, lambda: f64) -> Gae {
    assert_eq!(rewards.len(), values.len(), "one value per reward");
    let mut advantages = vec![0.0; rewards.len()];
    let (mut next_value, mut next_advantage) = (0.0, 0.0);
    for t in (0..rewards.len()).rev() {
        let delta = rewards[t] + gamma * next_value - values[t];
        next_advantage = delta + gamma * lambda * next_advantage;
        advantages[t] = next_advantage;
        next_value = values[t];
    }
    let returns = advantages.iter().zip(values).map(|(advantage, value)| advantage + value).collect();
    Gae { advantages, returns }
}

/// Computes the discounted sum of the rewards from each token on: `G_t = r_t + γ·G_{t+1}`.
///
/// ```
/// use setpoint_align::online::returns_to_go;
///
/// assert_eq!(returns_to_go(&[1.0, 2.0, 4.0], 0.5), [3.0, 4.0, 4.0]);
/// ```
pub fn returns_to_go(rewards: &[f64], gamma: f64) -> Vec<f64> {
    let mut returns = rewards.to_vec();
    for t in (1..returns.len()).rev() {
        returns[t - 1] += gamma * returns[t];
    }
    returns
}

/// Whitens values to mean 0 and variance 1, as trl 1.12's `masked_whiten` does.
///
/// ```text
/// (x − mean)/√(var + 1e-8)    (+ mean, if `shift_mean` is false)        var divided by n − 1
/// ```
///
/// Equal values, and a single one, become 0 (or stay what they are). trl divides by 0 for a single one.
///
/// ```
/// use setpoint_align::online::whiten;
///
/// let mut values = [1.0, 2.0, 3.0];
/// whiten(values.iter_mut(), true);
/// assert!((values[0] + 1.0).abs() < 1e-7 && values[1] == 0.0);
/// ```
pub fn whiten<'a>(values: impl IntoIterator<Item = &'a mut f64>, shift_mean: bool) {
    let values: Vec<&mut f64> = values.into_iter().collect();
    let numbers: Vec<f64> = values.iter().map(|value| **value).collect();
    let (mean, std) = sample_mean_std(&numbers);
    // √(var + 1e-8) without squaring: rewards may be as large as f64 holds.
    let scale = std.hypot(VARIANCE_FLOOR.sqrt());
    for value in values {
        *value = (*value - mean) / scale + if shift_mean { 0.0 } else { mean };
    }
}

/// The number that GRPO divides a group's centred rewards by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ScaleRewards {
    /// The standard deviation of the rewards of the prompt (Shao et al. 2024).
    #[default]
    Group,
    /// The standard deviation of all rewards of the round.
    Batch,
    /// Nothing (Dr. GRPO, Liu et al. 2025).
    None,
}

/// Computes GRPO's advantages (Shao et al. 2024, Section 4.1.2; trl 1.16 `GRPOTrainer`, `scale_rewards`).
///
/// ```text
/// A_j = (R_j − mean of its prompt)/(std + 1e-4)          std divided by n − 1
/// ```
///
/// A reward that is NaN leaves mean and deviation, and its own advantage is 0. So are those of a prompt whose rewards are all
/// equal, or which has one reward alone.
///
/// # Units
/// Standard deviations, or units of reward with [`ScaleRewards::None`].
///
/// # Panics
/// If `rewards` does not have a number per response.
pub fn group_relative(rewards: &[f64], prompts: &PromptIndex, scale: ScaleRewards) -> Vec<f64> {
    let all = match scale {
        ScaleRewards::Batch => sample_mean_std(&scored(rewards)).1,
        ScaleRewards::Group | ScaleRewards::None => 0.0,
    };
    by_prompt(rewards, prompts, |own| {
        let (mean, std) = sample_mean_std(own);
        let scale = match scale {
            ScaleRewards::Group => std + DEVIATION_FLOOR,
            ScaleRewards::Batch => all + DEVIATION_FLOOR,
            ScaleRewards::None => 1.0,
        };
        own.iter().map(|reward| (reward - mean) / scale).collect()
    })
}

/// Computes RLOO's advantages (Ahmadian et al. 2024, Eq. 8; trl 1.16 `RLOOTrainer`): the reward minus the mean of the prompt's
/// other rewards.
///
/// ```text
/// A_j = R_j − (Σ_{i≠j} R_i)/(n − 1)
/// ```
///
/// A reward that is NaN takes no part, and its own advantage is 0. So is that of a prompt's only reward.
///
/// # Panics
/// If `rewards` does not have a number per response.
///
/// ```
/// use setpoint_align::{PromptIndex, online::leave_one_out};
///
/// let prompts = PromptIndex::from_counts(&[3])?;
/// assert_eq!(leave_one_out(&[1.0, 2.0, 6.0], &prompts), [-3.0, -1.5, 4.5]);
/// # Ok::<(), setpoint_align::Error>(())
/// ```
pub fn leave_one_out(rewards: &[f64], prompts: &PromptIndex) -> Vec<f64> {
    leave_one_out_or_none(rewards, prompts).into_iter().map(|advantage| advantage.unwrap_or(0.0)).collect()
}

/// Computes [`leave_one_out`]; `None` for responses that take no part.
pub(super) fn leave_one_out_or_none(rewards: &[f64], prompts: &PromptIndex) -> Vec<Option<f64>> {
    by_prompt(rewards, prompts, |own| {
        if own.len() < 2 {
            return vec![None; own.len()];
        }
        if all_equal(own) {
            return vec![Some(0.0); own.len()];
        }
        // (R_j − mean)·n/(n − 1), which is the same and does not cancel large rewards.
        let (mean, n) = (mean_std(own).0, own.len() as f64);
        own.iter().map(|reward| Some((reward - mean) * n / (n - 1.0))).collect()
    })
}

/// Normalises advantages to mean 0 and standard deviation 1, as trl's `normalize_advantages` does: `(A − mean)/(std + 1e-4)`.
///
/// Numbers that are NaN take no part and become 0.
pub fn normalize(advantages: &[f64]) -> Vec<f64> {
    let (mean, std) = sample_mean_std(&scored(advantages));
    let normalized =
        |&advantage: &f64| if advantage.is_nan() { 0.0 } else { (advantage - mean) / (std + DEVIATION_FLOOR) };
    advantages.iter().map(normalized).collect()
}

/// Applies a function to the rewards of each prompt that are numbers; the others get the default.
fn by_prompt<T: Clone + Default>(rewards: &[f64], prompts: &PromptIndex, of: impl Fn(&[f64]) -> Vec<T>) -> Vec<T> {
    assert_eq!(rewards.len(), prompts.responses(), "a reward per response");
    let mut places = vec![Vec::new(); prompts.prompts()];
    for (response, &prompt) in prompts.prompt_of().iter().enumerate() {
        if !rewards[response].is_nan() {
            places[prompt].push(response);
        }
    }
    let mut found = vec![T::default(); rewards.len()];
    for places in places {
        let own: Vec<f64> = places.iter().map(|&response| rewards[response]).collect();
        for (response, value) in places.into_iter().zip(of(&own)) {
            found[response] = value;
        }
    }
    found
}

/// The numbers among some rewards.
pub(super) fn scored(rewards: &[f64]) -> Vec<f64> {
    rewards.iter().copied().filter(|reward| !reward.is_nan()).collect()
}

/// Returns the mean and the standard deviation with n − 1; the mean and 0 for equal values, and NaN and 0 for none.
pub(super) fn sample_mean_std(values: &[f64]) -> (f64, f64) {
    if let Some(&first) = values.first()
        && all_equal(values)
    {
        // Exactly: the mean of equal values may be off by rounding, and what is left would be divided by 1e-4.
        return (first, 0.0);
    }
    let (mean, std) = mean_std(values);
    let n = values.len() as f64;
    (mean, if values.len() < 2 { 0.0 } else { std * (n / (n - 1.0)).sqrt() })
}

fn all_equal(values: &[f64]) -> bool {
    values.iter().all(|value| *value == values[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompts(counts: &[usize]) -> PromptIndex {
        PromptIndex::from_counts(counts).unwrap()
    }

    #[test]
    fn the_ends_of_lambda_are_delta_and_the_return_minus_the_value() {
        let (rewards, values) = ([0.3, -0.2, 1.5, 0.0], [0.7, 0.1, -0.4, 0.9]);
        for gamma in [0.0, 0.5, 0.9, 1.0] {
            let deltas: Vec<f64> =
                (0..4).map(|t| rewards[t] + gamma * values.get(t + 1).unwrap_or(&0.0) - values[t]).collect();
            assert_eq!(gae(&rewards, &values, gamma, 0.0).advantages, deltas);
            let full = gae(&rewards, &values, gamma, 1.0);
            for (t, (expected, value)) in returns_to_go(&rewards, gamma).iter().zip(values).enumerate() {
                assert!((full.advantages[t] - (expected - value)).abs() < 1e-12, "γ = {gamma}, t = {t}");
                assert!((full.returns[t] - expected).abs() < 1e-12, "γ = {gamma}, t = {t}");
            }
        }
        assert_eq!(gae(&[], &[], 1.0, 0.95), Gae { advantages: vec![], returns: vec![] });
    }

    #[test]
    fn whitened_values_have_mean_0_and_variance_1() {
        let original = [3.0, -1.0, 7.5, 2.0, 2.0];
        let mut values = original;
        whiten(&mut values, true);
        let (mean, variance) =
            (values.iter().sum::<f64>() / 5.0, values.iter().map(|value| value * value).sum::<f64>() / 4.0);
        assert!(mean.abs() < 1e-12 && (variance - 1.0).abs() < 1e-8, "{mean}, {variance}");
        let mut kept = original;
        whiten(&mut kept, false);
        assert!(kept.iter().zip(values).all(|(kept, value)| (kept - value - 2.7).abs() < 1e-12));
        for mut degenerate in [vec![], vec![4.2], vec![0.1; 3]] {
            let before = degenerate.clone();
            whiten(&mut degenerate, false);
            assert_eq!(degenerate, before);
            whiten(&mut degenerate, true);
            assert!(degenerate.iter().all(|value| *value == 0.0));
        }
    }

    #[test]
    fn leave_one_out_of_any_number_adds_up_to_0() {
        for n in 2..6 {
            let rewards: Vec<f64> = (0..n).map(|i| f64::from(i * i) - 0.3).collect();
            let found = leave_one_out(&rewards, &prompts(&[n as usize]));
            assert!(found.iter().sum::<f64>().abs() < 1e-12);
            for (j, advantage) in found.iter().enumerate() {
                let others: Vec<f64> = (0..n as usize).filter(|&i| i != j).map(|i| rewards[i]).collect();
                let expected = rewards[j] - others.iter().sum::<f64>() / others.len() as f64;
                assert!((advantage - expected).abs() < 1e-12, "{n}, {j}");
            }
            // GRPO without a scale, times n/(n − 1).
            let centred = group_relative(&rewards, &prompts(&[n as usize]), ScaleRewards::None);
            let n = f64::from(n);
            assert!(found.iter().zip(centred).all(|(a, b)| (a - b * n / (n - 1.0)).abs() < 1e-12));
        }
        assert_eq!(leave_one_out(&[3.0, 1.0], &prompts(&[2])), [2.0, -2.0]);
    }

    #[test]
    fn prompts_without_a_difference_have_no_advantage() {
        let rewards = [0.1, 0.1, 0.1, 5.0, f64::NAN, f64::NAN, f64::NAN, 2.0, f64::NAN, 4.0];
        let prompts = prompts(&[3, 2, 2, 3]);
        for scale in [ScaleRewards::Group, ScaleRewards::Batch, ScaleRewards::None] {
            let found = group_relative(&rewards, &prompts, scale);
            assert!(found[..7].iter().all(|advantage| *advantage == 0.0), "{scale:?}: {found:?}");
            assert!(found[7] < 0.0 && found[8] == 0.0 && found[9] == -found[7], "{scale:?}: {found:?}");
        }
        assert_eq!(leave_one_out(&rewards, &prompts)[..9], [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -2.0, 0.0]);
        let grouped = group_relative(&rewards, &prompts, ScaleRewards::Group);
        assert!((grouped[9] - 1.0 / (2f64.sqrt() + 1e-4)).abs() < 1e-12);
        assert_eq!(normalize(&[f64::NAN, 1.0, 1.0]), [0.0; 3]);
    }
}
