//! The probability that the targets send to the responses in the file, and to others, under the reference and under the targets.

use serde::{Deserialize, Serialize};

use super::feasibility::{FEASIBILITY_TOLERANCE, least_level, log_sum_exp};
use super::{AuditSettings, Groups, PromptGroup};
use crate::prompt_log_z::PromptLogZ;
use crate::summary::Summary;

/// Below this share of all probability, under the reference and under the targets, the responses in the file say little about where
/// probability goes: nearly all of it is elsewhere either way. Responses of hundreds of tokens always are below.
pub const TELLING_SHARE: f64 = 1e-3;

/// Differences of the logarithms below this many nats are rounding.
const ROUNDING: f64 = FEASIBILITY_TOLERANCE;

/// The probability that the targets send to each kind of text, at the start of training.
///
/// ```text
/// ref_mass(x)    = Σ_y π_ref(y|x)
/// target_mass(x) = Σ_y π_ref(y|x)·exp(r/β)/Z        over the distinct responses y of a prompt
/// ```
///
/// Targets per token have `exp(N·(r/β − L))` in place of `exp(r/β)/Z`, for a response of N tokens and the level L. The policy has
/// no more than all probability to give, so a prompt whose targets add up to more counts with 1, and its responses share it in
/// the ratio of their targets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Masses {
    /// The change in the share of the responses in the file.
    pub verdict: Verdict,
    /// The reference's division of its probability, a mean over the prompts.
    pub reference: Shares,
    /// The division by a policy with the targets, a mean over the prompts.
    pub target: Shares,
    /// `log ref_mass(x)` of the prompts, nats.
    pub log_reference: Summary,
    /// `log target_mass(x)` of the prompts, nats; above 0 for prompts whose targets add up to more than 1.
    pub log_target: Summary,
    /// The mean number of tokens of a distinct response.
    pub tokens: f64,
    /// The target of each prompt's best response, nats of log-ratio.
    pub best: Summary,
    /// The target of each prompt's worst response; `None` if no prompt has two.
    pub worst: Option<Summary>,
    /// The responses by reward, from the lowest quarter to the highest; fewer parts if there are fewer responses.
    pub quarters: Vec<Quarter>,
    /// The highest `log_z0` at which the share of the responses in the file does not fall, nats (per token with targets per token);
    /// `None` unless it falls.
    pub highest_level: Option<f64>,
}

/// The change in the share of the responses in the file that the targets ask for, by its mean over the prompts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The targets take probability from them: it goes to responses without a reward.
    Falls,
    /// They keep what they have.
    Stays,
    /// They gain.
    Rises,
    /// Their share is below [`TELLING_SHARE`] before and after.
    Negligible,
}

/// The division of probability. The three add up to 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Shares {
    /// The share of the response with the highest reward.
    pub best: f64,
    /// The share of the other responses in the file.
    pub other: f64,
    /// The share of all responses without a reward.
    pub unscored: f64,
}

/// A part of the responses, by reward.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Quarter {
    /// Its number of distinct responses.
    pub responses: usize,
    /// Its lowest reward.
    pub lowest: f64,
    /// Its highest reward.
    pub highest: f64,
    /// The share of its responses whose target is above the reference: r/β > log Z.
    pub gaining: f64,
}

/// The numbers of one prompt.
struct Prompt {
    reference: Shares,
    target: Shares,
    log_reference: f64,
    log_target: f64,
    best: f64,
    worst: Option<f64>,
}

impl Masses {
    /// Expects at least one group, each with a response.
    pub(super) fn of(
        groups: &Groups<'_>,
        settings: &AuditSettings,
        level_of: impl Fn(Option<PromptLogZ>) -> f64,
    ) -> Self {
        let (mut log_reference, mut log_target) = (Vec::new(), Vec::new());
        let (mut best, mut worst) = (Vec::new(), Vec::new());
        let (mut reference_shares, mut target_shares) = (Shares::NONE, Shares::NONE);
        let (mut tokens, mut responses) = (0, 0);
        for group in groups.iter() {
            let own = prompt(&group, settings, level_of(group.log_z));
            log_reference.push(own.log_reference);
            log_target.push(own.log_target);
            best.push(own.best);
            worst.extend(own.worst);
            reference_shares = reference_shares.plus(own.reference);
            target_shares = target_shares.plus(own.target);
            tokens += group.tokens.iter().sum::<usize>();
            responses += group.tokens.len();
        }
        let summary = |values: &[f64]| Summary::of(values).expect("the audit has checked that there are rows");
        let (reference, target) = (log_mean(log_reference.iter().copied()), log_mean(log_target.iter().copied()));
        let verdict = match () {
            () if reference.max(target) < TELLING_SHARE.ln() => Verdict::Negligible,
            () if target < reference - ROUNDING => Verdict::Falls,
            () if target > reference + ROUNDING => Verdict::Rises,
            () => Verdict::Stays,
        };
        let highest_level = (verdict == Verdict::Falls).then(|| {
            let highest = groups.iter().map(|group| level_of(group.log_z)).fold(f64::NEG_INFINITY, f64::max);
            highest_level(groups, settings, reference, highest)
        });
        Self {
            verdict,
            reference: reference_shares.over(groups.len()),
            target: target_shares.over(groups.len()),
            log_reference: summary(&log_reference),
            log_target: summary(&log_target),
            tokens: tokens as f64 / responses.max(1) as f64,
            best: summary(&best),
            worst: Summary::of(&worst),
            quarters: quarters(groups, settings, level_of),
            highest_level,
        }
    }
}

impl Shares {
    const NONE: Self = Self { best: 0.0, other: 0.0, unscored: 0.0 };

    fn plus(self, own: Self) -> Self {
        Self { best: self.best + own.best, other: self.other + own.other, unscored: self.unscored + own.unscored }
    }

    fn over(self, prompts: usize) -> Self {
        let count = prompts.max(1) as f64;
        Self { best: self.best / count, other: self.other / count, unscored: self.unscored / count }
    }

    /// Returns the share of the responses in the file.
    pub fn in_file(&self) -> f64 {
        self.best + self.other
    }

    /// Divides the probability of one prompt whose responses have these log-probabilities. Those that add up to more than 1 are
    /// scaled to 1.
    fn of(logps: &[f64], best: usize) -> Self {
        let mass = log_sum_exp(logps);
        let above = mass.max(0.0);
        let others: Vec<f64> = logps.iter().enumerate().filter(|(j, _)| *j != best).map(|(_, logp)| *logp).collect();
        Self {
            best: (logps[best] - above).exp(),
            other: (log_sum_exp(&others) - above).exp(),
            unscored: 1.0 - mass.min(0.0).exp(),
        }
    }
}

/// Returns the logarithm of the mean of masses, each at most 1, from their logarithms.
fn log_mean(masses: impl Iterator<Item = f64>) -> f64 {
    let capped: Vec<f64> = masses.map(|mass| mass.min(0.0)).collect();
    log_sum_exp(&capped) - (capped.len().max(1) as f64).ln()
}

/// Returns the targets of a prompt's responses, nats of log-ratio.
fn targets(group: &PromptGroup, settings: &AuditSettings, level: f64) -> Vec<f64> {
    let target = |(response, &tokens): (&super::ScoredResponse, &usize)| {
        let times = if settings.length_normalize { tokens.max(1) as f64 } else { 1.0 };
        times * (response.reward / settings.beta - level)
    };
    group.responses.iter().zip(&group.tokens).map(target).collect()
}

/// Returns the log-probabilities that the targets ask for.
fn target_logps(group: &PromptGroup, settings: &AuditSettings, level: f64) -> Vec<f64> {
    let targets = targets(group, settings, level);
    group.responses.iter().zip(targets).map(|(response, target)| response.ref_logp + target).collect()
}

fn prompt(group: &PromptGroup, settings: &AuditSettings, level: f64) -> Prompt {
    let reference: Vec<f64> = group.responses.iter().map(|response| response.ref_logp).collect();
    let targets = targets(group, settings, level);
    let target = target_logps(group, settings, level);
    // The first of equals.
    let reward = |j: usize| group.responses[j].reward;
    let first = |better: fn(f64, f64) -> bool| {
        (1..reference.len()).fold(0, |found, j| if better(reward(j), reward(found)) { j } else { found })
    };
    let (best, worst) = (first(|a, b| a > b), first(|a, b| a < b));
    Prompt {
        reference: Shares::of(&reference, best),
        target: Shares::of(&target, best),
        log_reference: log_sum_exp(&reference),
        log_target: log_sum_exp(&target),
        best: targets[best],
        worst: (targets.len() > 1).then(|| targets[worst]),
    }
}

fn quarters(
    groups: &Groups<'_>,
    settings: &AuditSettings,
    level_of: impl Fn(Option<PromptLogZ>) -> f64,
) -> Vec<Quarter> {
    let mut responses: Vec<(f64, f64)> = Vec::new();
    for group in groups.iter() {
        let rewards = group.responses.iter().map(|response| response.reward);
        responses.extend(rewards.zip(targets(&group, settings, level_of(group.log_z))));
    }
    responses.sort_by(|a, b| a.0.total_cmp(&b.0));
    let parts = responses.len().min(4);
    let part = |k: usize| {
        let own = &responses[k * responses.len() / parts..(k + 1) * responses.len() / parts];
        let gaining = own.iter().filter(|(_, target)| *target > 0.0).count();
        Quarter {
            responses: own.len(),
            lowest: own[0].0,
            highest: own[own.len() - 1].0,
            gaining: gaining as f64 / own.len() as f64,
        }
    };
    (0..parts).map(part).collect()
}

/// Returns the highest common level at which the mean of the target masses, each at most 1, is at least `exp(reference)`; to a
/// millionth, from below. At the level `above` it is less.
fn highest_level(groups: &Groups<'_>, settings: &AuditSettings, reference: f64, above: f64) -> f64 {
    let least = |group: PromptGroup| least_level(&group, settings.beta, settings.length_normalize);
    let least: Vec<f64> = groups.iter().map(least).collect();
    let is_enough = |level: f64| {
        let mass = |(group, least): (usize, &f64)| match settings.length_normalize {
            true => log_sum_exp(&target_logps(&groups.get(group), settings, level)),
            // The mass is e to the distance from the level at which it is 1.
            false => least - level,
        };
        log_mean(least.iter().enumerate().map(mass)) >= reference
    };
    // At the least level of all, every prompt's responses have all probability.
    let (mut low, mut high) = (least.iter().copied().fold(f64::INFINITY, f64::min), above);
    for _ in 0..200 {
        let middle = low + (high - low) / 2.0;
        if high - low <= 1e-6 || middle <= low || middle >= high {
            break;
        }
        if is_enough(middle) { low = middle } else { high = middle }
    }
    low
}

#[cfg(test)]
mod tests;
