//! Guards: signs that a run goes wrong, as warnings that name a remedy.

mod sign;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::sign::{GuardWarning, Sign};
use crate::levers::Levers;
use crate::summary::Summary;

/// The consequence of a warning for the run: the setting `guards`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GuardAction {
    /// It is shown and logged, and the run goes on.
    #[default]
    Warn,
    /// It ends the run, after a checkpoint.
    Stop,
}

/// The numbers of a round that the guards look at; `None` for those that a method does not have.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct RoundSigns {
    /// The round, from 0.
    pub round: u64,
    /// The KL divergence to the reference per response, nats (`objective/kl`).
    pub kl: Option<f64>,
    /// The mean distance of a token's log-probability between generator and training path, nats.
    pub sampling_difference: Option<f64>,
    /// The mean entropy of a token, nats.
    pub entropy: Option<f64>,
    /// The mean number of tokens of a response.
    pub mean_tokens: Option<f64>,
    /// The correlation of rewards and numbers of tokens ([`super::correlation`]).
    pub length_correlation: Option<f64>,
    /// The share of responses without a stop token (`completions/clipped_ratio`).
    pub clipped_ratio: Option<f64>,
    /// The share of responses whose prompt's rewards are all equal (`frac_reward_zero_std`), with two samples a prompt or more.
    pub zero_std: Option<f64>,
    /// The share of tokens or responses whose ratio to what sampled is above the limit of the correction ([`super::limited_share`]).
    pub limited: Option<f64>,
    /// The mean reward.
    pub reward: Option<f64>,
    /// The reward of held-out prompts by another source, in rounds with an evaluation.
    pub held_out_reward: Option<f64>,
    /// The share of repetitive responses ([`super::repetitive_share`]).
    pub repetitive: Option<f64>,
    /// The share of responses that repeat another of their prompt ([`super::equal_share`]).
    pub equal: Option<f64>,
}

/// The largest KL divergence per response, nats.
const MOST_KL: f64 = 50.0;
/// The largest multiple of its running median.
const MOST_KL_RISE: f64 = 5.0;
/// The rounds that a median needs. In a run that goes well the log-ratios move from 0 by about as much in every round, and the KL divergence
/// grows with their square: that of round k is more than 5 times the median of the rounds before it up to k = 9, and less from k = 10 on.
const MEDIAN_ROUNDS: usize = 10;
/// The least median, nats, that a multiple is taken of: a policy within 1 nat of its reference has hardly moved, and that of a run which
/// warms up slowly stays near 0 for longer than the rounds above.
const LEAST_MEDIAN: f64 = 1.0;
/// The smallest KL divergence, nats, in two rounds one after the other.
const LEAST_NEGATIVE_KL: f64 = -1.0;
/// The largest distance between generator and training path, nats.
const MOST_SAMPLING_DIFFERENCE: f64 = 0.5;
/// The smallest share of the first round's entropy.
const LEAST_ENTROPY: f64 = 0.1;
/// The largest correlation of reward and length, if responses are longer than the first round's by the factor below.
const MOST_LENGTH_CORRELATION: f64 = 0.8;
const MOST_LENGTHENING: f64 = 1.5;
/// The largest share of cut responses.
const MOST_CUT: f64 = 0.5;
/// The largest share of responses without a signal.
const MOST_ZERO_STD: f64 = 0.8;
/// The largest distance of the first ratio from 1.
const MOST_RATIO_ERROR: f64 = 0.1;
/// The largest share whose correction is limited.
const MOST_LIMITED: f64 = 0.5;
/// The evaluations in a row in which the held-out reward falls.
const FALLS: usize = 3;
/// The largest share of repetitive responses above that of the first round.
const MOST_REPETITIVE: f64 = 0.2;
/// The largest share of responses that repeat another above that of the first round.
const MOST_EQUAL: f64 = 0.1;

/// Watches the rounds of a run.
///
/// A sign is reported when it appears, and again only after a round without it. The whole state serialises, so that a resumed run
/// warns at the same rounds.
///
/// ```
/// use setpoint_align::online::{Guards, RoundSigns, Sign};
///
/// let mut guards = Guards::default();
/// let mut observe = |round, clipped| {
///     guards.observe(&RoundSigns { round, clipped_ratio: Some(clipped), ..RoundSigns::default() })
/// };
/// assert!(observe(0, 0.1).is_empty());
/// let warnings = observe(1, 0.6);
/// assert_eq!(warnings[0].sign, Sign::Cut);
/// assert!(warnings[0].to_string().contains("raise rollout.max_new_tokens"));
/// assert!(observe(2, 0.7).is_empty()); // said already
/// ```
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Guards {
    /// The KL divergences so far.
    kls: Vec<f64>,
    first_entropy: Option<f64>,
    first_tokens: Option<f64>,
    first_repetitive: Option<f64>,
    first_equal: Option<f64>,
    /// Reward and held-out reward at the last evaluations.
    evaluations: Vec<(f64, f64)>,
    /// The signs of the last round.
    standing: Vec<Sign>,
    /// True if the ratio at the first step of the last round was off 1.
    ratio_is_off: bool,
    /// True if the generator's log-probabilities were off those of training at the first step of the last round.
    sampling_is_off: bool,
    /// The settings that warnings name.
    levers: Levers,
}

impl Guards {
    /// Creates the guards of a run whose method has these settings.
    pub fn new(levers: Levers) -> Self {
        Self { levers, ..Self::default() }
    }

    /// Takes a round in; returns the warnings about signs that the round before did not have.
    ///
    /// Numbers that are not finite are no signs: the training loop reports those itself.
    pub fn observe(&mut self, signs: &RoundSigns) -> Vec<GuardWarning> {
        let signs = finite(signs);
        self.first_entropy = self.first_entropy.or(signs.entropy);
        self.first_tokens = self.first_tokens.or(signs.mean_tokens);
        self.first_repetitive = self.first_repetitive.or(signs.repetitive);
        self.first_equal = self.first_equal.or(signs.equal);
        if let (Some(reward), Some(held_out)) = (signs.reward, signs.held_out_reward) {
            self.evaluations.push((reward, held_out));
            let old = self.evaluations.len().saturating_sub(FALLS + 1);
            self.evaluations.drain(..old);
        }
        let mut found = self.kl_signs(&signs);
        found.extend(self.other_signs(&signs));
        self.kls.extend(signs.kl);
        // A median of a hundred rounds is enough, and bounds the state.
        let old = self.kls.len().saturating_sub(100);
        self.kls.drain(..old);

        let before = std::mem::replace(&mut self.standing, found.iter().map(|(sign, _)| *sign).collect());
        let new = found.into_iter().filter(|(sign, _)| !before.contains(sign));
        let levers = self.levers;
        new.map(|(sign, finding)| GuardWarning { round: signs.round, sign, finding, levers }).collect()
    }

    /// Takes in the mean ratio at the first step of a round (`val/ratio`), where the policy still is the one that sampled; returns a
    /// warning if it is off 1 and was not in the round before.
    pub fn observe_first_step(&mut self, round: u64, ratio: f64) -> Option<GuardWarning> {
        let is_off = (ratio - 1.0).abs() > MOST_RATIO_ERROR;
        let was_off = std::mem::replace(&mut self.ratio_is_off, is_off);
        let finding = format!("the mean ratio of the policy to itself is {ratio:.3} at the round's first step");
        (is_off && !was_off).then_some(GuardWarning { round, sign: Sign::Ratio, finding, levers: self.levers })
    }

    /// Takes in the mean distance of a token's log-probability between generator and training path that the first step of a round measured,
    /// nats, for rounds that have no number of it before; returns a warning if it is large and was not in the round before.
    pub fn observe_first_distance(&mut self, round: u64, nats: f64) -> Option<GuardWarning> {
        let is_off = nats > MOST_SAMPLING_DIFFERENCE;
        let was_off = std::mem::replace(&mut self.sampling_is_off, is_off);
        let finding = sampling_finding(nats);
        (is_off && !was_off).then_some(GuardWarning { round, sign: Sign::Sampling, finding, levers: self.levers })
    }

    fn kl_signs(&self, signs: &RoundSigns) -> Vec<(Sign, String)> {
        let Some(kl) = signs.kl else { return Vec::new() };
        let mut found = Vec::new();
        let median = Summary::of(&self.kls).filter(|_| self.kls.len() >= MEDIAN_ROUNDS).map(|summary| summary.median);
        if kl > MOST_KL {
            found.push((
                Sign::Kl,
                format!("the KL divergence to the reference is {kl:.1} nats per response, above {MOST_KL}"),
            ));
        } else if let Some(median) = median.filter(|median| kl > MOST_KL_RISE * median.max(LEAST_MEDIAN)) {
            let finding = format!(
                "the KL divergence to the reference is {kl:.2} nats per response, more than {MOST_KL_RISE} times its median of \
                 {median:.2}"
            );
            found.push((Sign::Kl, finding));
        }
        if kl < LEAST_NEGATIVE_KL && self.kls.last().is_some_and(|before| *before < LEAST_NEGATIVE_KL) {
            found.push((
                Sign::NegativeKl,
                format!("the KL divergence to the reference is {kl:.2} nats per response, below {LEAST_NEGATIVE_KL} in two rounds"),
            ));
        }
        found
    }

    fn other_signs(&self, signs: &RoundSigns) -> Vec<(Sign, String)> {
        let mut found = Vec::new();
        let mut say = |sign, finding: String| found.push((sign, finding));
        let above = |value: Option<f64>, limit: f64| value.filter(|value| *value > limit);
        if let Some(nats) = above(signs.sampling_difference, MOST_SAMPLING_DIFFERENCE) {
            say(Sign::Sampling, sampling_finding(nats));
        }
        if let (Some(now), Some(first)) = (signs.entropy, self.first_entropy)
            && first > 0.0
            && now < LEAST_ENTROPY * first
        {
            say(
                Sign::Entropy,
                format!("the entropy is {now:.4} nats a token, below a tenth of the first round's {first:.4}"),
            );
        }
        if let (Some(correlation), Some(now), Some(first)) =
            (above(signs.length_correlation, MOST_LENGTH_CORRELATION), signs.mean_tokens, self.first_tokens)
            && now > MOST_LENGTHENING * first
        {
            say(
                Sign::Length,
                format!(
                    "rewards follow length (correlation {correlation:.2}), and responses have grown from {first:.0} to {now:.0} tokens"
                ),
            );
        }
        if let Some(share) = above(signs.clipped_ratio, MOST_CUT) {
            say(Sign::Cut, format!("{} of the responses have no stop token", percent(share)));
        }
        if let Some(share) = above(signs.zero_std, MOST_ZERO_STD) {
            say(
                Sign::NoSignal,
                format!("{} of the responses have the reward of all others to their prompt", percent(share)),
            );
        }
        if let Some(share) = above(signs.limited, MOST_LIMITED) {
            say(Sign::Limited, format!("{} of the samples are above the limit of the correction", percent(share)));
        }
        if self.is_over_optimized() {
            say(
                Sign::OverOptimization,
                format!("the reward rises while the held-out reward has fallen at {FALLS} evaluations in a row"),
            );
        }
        found.extend(self.repetition(signs));
        found
    }

    /// Returns the sign that texts have lost their variety, next to the samples of the first round: those of the policy before training.
    fn repetition(&self, signs: &RoundSigns) -> Option<(Sign, String)> {
        let risen = |now: Option<f64>, first: Option<f64>, most: f64| {
            let (now, first) = (now?, first.unwrap_or_default());
            (now - first > most).then_some((now, first))
        };
        let repetitive =
            risen(signs.repetitive, self.first_repetitive, MOST_REPETITIVE).map(|shares| ("repeat themselves", shares));
        let equal = || {
            risen(signs.equal, self.first_equal, MOST_EQUAL).map(|shares| ("repeat another to their prompt", shares))
        };
        let (what, (now, first)) = repetitive.or_else(equal)?;
        let finding = format!("{} of the responses {what}, {} in the first round", percent(now), percent(first));
        Some((Sign::Repetition, finding))
    }

    fn is_over_optimized(&self) -> bool {
        let pairs = || self.evaluations.windows(2);
        self.evaluations.len() > FALLS && pairs().all(|pair| pair[1].0 > pair[0].0 && pair[1].1 < pair[0].1)
    }
}

fn sampling_finding(nats: f64) -> String {
    format!("the generator's log-probabilities are {nats:.2} nats a token from those of the training path")
}

/// Returns the signs that are finite numbers.
fn finite(signs: &RoundSigns) -> RoundSigns {
    let mut signs = *signs;
    let RoundSigns {
        round: _,
        kl,
        sampling_difference,
        entropy,
        mean_tokens,
        length_correlation,
        clipped_ratio,
        zero_std,
        limited,
        reward,
        held_out_reward,
        repetitive,
        equal,
    } = &mut signs;
    let all = [
        kl,
        sampling_difference,
        entropy,
        mean_tokens,
        length_correlation,
        clipped_ratio,
        zero_std,
        limited,
        reward,
        held_out_reward,
        repetitive,
        equal,
    ];
    for sign in all {
        *sign = sign.filter(|value| value.is_finite());
    }
    signs
}

fn percent(share: f64) -> String {
    format!("{:.0} %", 100.0 * share)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers of rounds, what they are numbers of, and the signs that they report.
    type Case<'a> = (&'a [f64], &'a dyn Fn(f64) -> RoundSigns, &'a [(u64, Sign)]);

    /// The signs that some rounds report.
    fn signs_of(rounds: &[RoundSigns]) -> Vec<(u64, Sign)> {
        let mut guards = Guards::default();
        let mut found = Vec::new();
        for (round, signs) in rounds.iter().enumerate() {
            // As a run that is resumed after every round.
            let text = serde_json::to_string(&guards).unwrap();
            guards = serde_json::from_str(&text).unwrap();
            let warnings = guards.observe(&RoundSigns { round: round as u64, ..*signs });
            found.extend(warnings.into_iter().map(|warning| (warning.round, warning.sign)));
        }
        found
    }

    fn series(values: &[f64], of: impl Fn(f64) -> RoundSigns) -> Vec<(u64, Sign)> {
        signs_of(&values.iter().map(|&value| of(value)).collect::<Vec<_>>())
    }

    #[test]
    fn each_sign_is_reported_once_while_it_lasts() {
        let none = RoundSigns::default();
        let cases: [Case<'_>; 9] = [
            (&[49.0, 51.0, 60.0, 40.0, 55.0], &|v| RoundSigns { kl: Some(v), ..none }, &[(1, Sign::Kl), (4, Sign::Kl)]),
            (
                &[1.0, 1.1, 0.9, 1.0, 1.2, 5.4, 1.0, 0.8, 1.1, 0.9, 5.4, 5.6],
                &|v| RoundSigns { kl: Some(v), ..none },
                &[(10, Sign::Kl)],
            ),
            (&[-2.0, 0.0, -2.0, -1.5, -3.0], &|v| RoundSigns { kl: Some(v), ..none }, &[(3, Sign::NegativeKl)]),
            (&[0.1, 0.6], &|v| RoundSigns { sampling_difference: Some(v), ..none }, &[(1, Sign::Sampling)]),
            (&[2.0, 0.21, 0.19], &|v| RoundSigns { entropy: Some(v), ..none }, &[(2, Sign::Entropy)]),
            (&[0.4, 0.6], &|v| RoundSigns { clipped_ratio: Some(v), ..none }, &[(1, Sign::Cut)]),
            (&[0.8, 0.81], &|v| RoundSigns { zero_std: Some(v), ..none }, &[(1, Sign::NoSignal)]),
            (&[0.5, 0.51, 1.0], &|v| RoundSigns { limited: Some(v), ..none }, &[(1, Sign::Limited)]),
            (&[0.1, 0.2, 0.35, f64::NAN], &|v| RoundSigns { repetitive: Some(v), ..none }, &[(2, Sign::Repetition)]),
        ];
        for (values, of, expected) in cases {
            assert_eq!(series(values, of), expected, "{values:?}");
        }
        let equal = series(&[0.05, 0.2], |v| RoundSigns { equal: Some(v), ..RoundSigns::default() });
        assert_eq!(equal, [(1, Sign::Repetition)]);
    }

    #[test]
    fn the_numbers_of_the_first_step_are_reported_once_while_they_are_off() {
        let mut guards = Guards::default();
        let ratios = [1.05, 0.85, 0.8, 1.0, 1.2, f64::NAN];
        let observed = (0..).zip(ratios).filter_map(|(round, ratio)| guards.observe_first_step(round, ratio));
        let found: Vec<(u64, Sign)> = observed.map(|warning| (warning.round, warning.sign)).collect();
        assert_eq!(found, [(1, Sign::Ratio), (4, Sign::Ratio)]);
        let distances = [0.1, 0.6, 0.7, 0.2, 0.8, f64::NAN];
        let observed = (0..).zip(distances).filter_map(|(round, nats)| guards.observe_first_distance(round, nats));
        let found: Vec<(u64, Sign)> = observed.map(|warning| (warning.round, warning.sign)).collect();
        assert_eq!(found, [(1, Sign::Sampling), (4, Sign::Sampling)]);
    }

    #[test]
    fn kl_divergences_may_multiply_at_the_start() {
        let found = |kls: &[f64]| series(kls, |kl| RoundSigns { kl: Some(kl), ..RoundSigns::default() });
        assert_eq!(found(&[0.0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.4, 0.9]), []);
        // As a fast training that goes well: near 0 in the first two rounds, then with the square of the rounds.
        for scale in [0.01, 0.1, 0.3] {
            let square: Vec<f64> = (0..13).map(|round| scale * f64::from(round * round)).collect();
            assert_eq!(found(&square), [], "{scale}");
        }
        // A slow start: twelve rounds near the reference, and then a few nats.
        let slow: Vec<f64> = (0..12).map(|round| 0.02 * f64::from(round)).chain([0.9, 2.0, 4.0]).collect();
        assert_eq!(found(&slow), []);
        let jump: Vec<f64> = slow[..12].iter().copied().chain([0.9, 9.0]).collect();
        assert_eq!(found(&jump), [(13, Sign::Kl)]);
    }

    #[test]
    fn repetition_counts_next_to_that_of_the_first_round() {
        let repetitive =
            |shares: &[f64]| series(shares, |v| RoundSigns { repetitive: Some(v), ..RoundSigns::default() });
        assert_eq!(repetitive(&[0.6, 0.7, 0.75]), []);
        assert_eq!(repetitive(&[0.6, 0.85]), [(1, Sign::Repetition)]);
        let mut guards = Guards::default();
        let mut observe =
            |round, equal| guards.observe(&RoundSigns { round, equal: Some(equal), ..RoundSigns::default() });
        assert!(observe(0, 0.15).is_empty() && observe(1, 0.2).is_empty());
        let warnings = observe(2, 0.3);
        let said = "30 % of the responses repeat another to their prompt, 15 % in the first round";
        assert_eq!(warnings[0].finding, said);
    }

    #[test]
    fn length_counts_if_rewards_follow_it_and_it_has_grown() {
        let of = |(tokens, correlation): (f64, f64)| RoundSigns {
            mean_tokens: Some(tokens),
            length_correlation: Some(correlation),
            ..RoundSigns::default()
        };
        let rounds = |values: &[(f64, f64)]| signs_of(&values.iter().map(|&value| of(value)).collect::<Vec<_>>());
        assert!(rounds(&[(100.0, 0.9), (140.0, 0.9)]).is_empty());
        assert!(rounds(&[(100.0, 0.1), (200.0, 0.7)]).is_empty());
        assert_eq!(rounds(&[(100.0, 0.1), (160.0, 0.85)]), [(1, Sign::Length)]);
    }

    #[test]
    fn over_optimization_is_three_falls_in_a_row_while_the_reward_rises() {
        let rounds = |values: &[(f64, Option<f64>)]| {
            let of = |&(reward, held_out_reward): &(f64, Option<f64>)| RoundSigns {
                reward: Some(reward),
                held_out_reward,
                ..RoundSigns::default()
            };
            signs_of(&values.iter().map(of).collect::<Vec<_>>())
        };
        let fall = [(1.0, Some(0.5)), (1.5, None), (2.0, Some(0.4)), (3.0, Some(0.3)), (4.0, Some(0.2))];
        assert_eq!(rounds(&fall), [(4, Sign::OverOptimization)]);
        assert!(rounds(&fall[..4]).is_empty());
        let mut both = fall;
        both[3].0 = 1.9;
        assert!(rounds(&both).is_empty(), "the reward has fallen as well");
    }
}
