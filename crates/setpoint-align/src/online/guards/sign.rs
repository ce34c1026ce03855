//! The signs, and the warnings about them with their remedies.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::levers::Levers;

/// The sign that a warning is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sign {
    /// The policy is far from the reference.
    Kl,
    /// The policy is less probable under itself than under the reference.
    NegativeKl,
    /// The generator's log-probabilities are not those of the training path.
    Sampling,
    /// The entropy has collapsed.
    Entropy,
    /// Rewards follow length.
    Length,
    /// Most responses are cut.
    Cut,
    /// Most prompts have equal rewards.
    NoSignal,
    /// The ratio is not 1 where it must be.
    Ratio,
    /// The correction for what sampled limits most samples.
    Limited,
    /// The reward rises and the held-out reward falls.
    OverOptimization,
    /// Texts repeat themselves, or each other.
    Repetition,
}

/// A warning.
#[derive(Debug, Clone, PartialEq)]
pub struct GuardWarning {
    /// The round, from 0.
    pub round: u64,
    /// The sign that it is about.
    pub sign: Sign,
    /// The numbers, in half a sentence.
    pub finding: String,
    /// The settings that change how far the policy goes.
    pub levers: Levers,
}

impl Sign {
    /// Returns the ways out, by the settings that the method has.
    pub fn remedy(self, levers: &Levers) -> String {
        let raise = levers.closeness.map(|setting| format!("raise {setting}"));
        match self {
            Self::Kl => alternatives([raise, rate()]),
            Self::NegativeKl | Self::Sampling => {
                "responses must be sampled from the policy itself: check the temperature, top-k and top-p, the chat template and the dtype"
                    .into()
            }
            Self::Entropy => {
                let fewer = Some("take fewer rollout.epochs_per_round".to_owned());
                let clip = levers.clip_high.then(|| "raise align.clip_high".to_owned());
                format!("the policy has stopped exploring: {}", alternatives([fewer, raise, clip]))
            }
            Self::Length => {
                "the policy may be paid for length: add a rule on length to the reward (reward.weights), or use GRPO with align.loss = \"dr_grpo\""
                    .into()
            }
            Self::Cut => "raise rollout.max_new_tokens, or set reward.missing_stop_penalty".into(),
            Self::NoSignal => "such prompts teach nothing: raise rollout.samples or rollout.temperature, or use a reward that \
                               tells responses apart"
                .into(),
            Self::Ratio => {
                "the ratio is 1 there by definition: try model.dtype = \"f32\", and if it stays, please report a bug".into()
            }
            Self::Limited => "most of the round is not learned as it was sampled: raise rollout.correction_max, or load newer weights \
                              into the server"
                .into(),
            Self::OverOptimization => {
                let earlier = Some("take the model of an earlier step (keep_models)".to_owned());
                let better = Some("improve the reward".to_owned());
                format!("the policy exploits its reward: {}", alternatives([earlier, raise, better]))
            }
            Self::Repetition => {
                alternatives([Some("add a rule on repetition to the reward (reward.weights)".to_owned()), raise, rate()])
            }
        }
    }
}

fn rate() -> Option<String> {
    Some("lower train.learning_rate".to_owned())
}

/// Joins ways out as `a`, `a, or b`, `a, b, or c`.
fn alternatives<const N: usize>(ways: [Option<String>; N]) -> String {
    let ways: Vec<String> = ways.into_iter().flatten().collect();
    match ways.as_slice() {
        [most @ .., last] if !most.is_empty() => format!("{}, or {last}", most.join(", ")),
        _ => ways.concat(),
    }
}

impl fmt::Display for GuardWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "round {}: {}; {}", self.round, self.finding, self.sign.remedy(&self.levers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::levers::Closeness;

    const ALL: [Sign; 11] = [
        Sign::Kl,
        Sign::NegativeKl,
        Sign::Sampling,
        Sign::Entropy,
        Sign::Length,
        Sign::Cut,
        Sign::NoSignal,
        Sign::Ratio,
        Sign::Limited,
        Sign::OverOptimization,
        Sign::Repetition,
    ];

    #[test]
    fn every_warning_names_a_setting_or_a_remedy() {
        for levers in [Levers::default(), Levers { closeness: Some(Closeness::KlCoef), ..Levers::default() }] {
            for sign in ALL {
                let text = GuardWarning { round: 3, sign, finding: "x".into(), levers }.to_string();
                assert!(text.starts_with("round 3: x; ") && text.len() > 35 && !text.contains("  "), "{text}");
            }
        }
    }

    #[test]
    fn remedies_name_the_settings_that_the_method_has() {
        let with = |closeness, clip_high| Levers { closeness, clip_high, ..Levers::default() };
        let of = |sign: Sign, levers: Levers| sign.remedy(&levers);
        let ppo = with(Some(Closeness::KlCoef), true);
        assert_eq!(of(Sign::Kl, ppo), "raise align.kl_coef, or lower train.learning_rate");
        assert!(of(Sign::Entropy, ppo).ends_with("epochs_per_round, raise align.kl_coef, or raise align.clip_high"));
        let share = with(Some(Closeness::BetaSigma), false);
        assert_eq!(of(Sign::Kl, share), "raise align.beta_sigma, or lower train.learning_rate");
        assert!(of(Sign::Entropy, share).ends_with("epochs_per_round, or raise align.beta_sigma"));
        let without = with(None, false);
        for sign in ALL {
            let text = of(sign, without);
            assert!(["beta", "kl_coef", "clip_high"].iter().all(|name| !text.contains(name)), "{text}");
        }
        assert!(of(Sign::Entropy, without).ends_with(": take fewer rollout.epochs_per_round"));
    }
}
