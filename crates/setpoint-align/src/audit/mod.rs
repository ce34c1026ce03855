//! The audit: what a data set, β and `log_z0` will ask of the policy, before any training.
//!
//! Targets of DRO are exact, so what they imply can be computed beforehand from rewards and
//! reference log-probs alone: where they send probability ([`Masses`]), whether they are probabilities
//! at all ([`Feasibility`]), which responses will gain and which will lose ([`Targets`]), which `log_z0`
//! would serve better ([`Recommended`]), how β compares with the rewards, and whether the rewards are
//! comparable between prompts ([`Offsets`]).
//! The findings say it in plain sentences, [`AuditReport::answer`] in a few lines.

mod action;
mod answer;
mod data;
mod feasibility;
mod findings;
mod masses;
mod offsets;
mod settings;

use serde::Serialize;

use crate::error::Error;
use crate::log_z0::{LogZ0, break_even_reward};
use crate::prompt_log_z::PromptLogZ;
use crate::prompt_rewards::{PromptRewards, Role, check_targets};
use crate::settings::POSITIVE;
use crate::summary::Summary;

use data::{Groups, PromptGroup};

pub use data::AuditData;
pub use feasibility::{
    FEASIBILITY_TOLERANCE, Feasibility, InfeasiblePrompt, ScoredResponse, least_level_per_token, prompt_log_mass,
};
pub use findings::{Finding, Severity, Subject};
pub use masses::{Masses, Quarter, Shares, TELLING_SHARE, Verdict};
pub use offsets::Offsets;
pub use settings::AuditSettings;

/// One row of the data set, as the audit sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditPrompt {
    /// An identifier of the prompt (a hash of its tokens, say): rows with the same prompt share one
    /// budget of probability.
    pub prompt: u64,
    /// The name of the row in messages: its file and line, say.
    pub name: String,
    /// Rewards (transformed and scaled, as training will see them) and labels.
    pub rewards: PromptRewards,
    /// An identifier of each response among those to its prompt; a response that occurs twice
    /// counts once.
    pub ids: Vec<u64>,
    /// `log π_ref(y_j|x)`, summed over the response's tokens, nats.
    pub ref_logps: Vec<f64>,
    /// Number of tokens of each response.
    pub tokens: Vec<usize>,
    /// The row's own level, for [`LogZ0::PerPrompt`].
    pub log_z: Option<PromptLogZ>,
}

/// The findings of the audit. Every number is about the start of training (`D_x = 0`).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AuditReport {
    /// β, reward per nat.
    pub beta: f64,
    /// `log_z0` as resolved, nats; the mean over the rows if each prompt has its own level.
    pub log_z0: f64,
    /// `β·log_z0`: the reward at which a response keeps its probability.
    pub break_even_reward: f64,
    /// Number of rows.
    pub rows: usize,
    /// Number of distinct prompts.
    pub prompts: usize,
    /// Number of responses, repeated ones included.
    pub responses: usize,
    /// Responses that repeat one of the same prompt.
    pub duplicate_responses: usize,
    /// Distinct responses that occur with different rewards: their residuals cannot all vanish.
    pub conflicting_rewards: usize,
    /// All rewards.
    pub rewards: Summary,
    /// β in standard deviations of the rewards, which is what decides how far the policy moves;
    /// `None` where the rewards do not differ.
    pub beta_in_deviations: Option<f64>,
    /// `(max reward − min reward)/β`: how far apart the extreme targets are, nats.
    pub target_range: f64,
    /// The probability that the targets send to each kind of text; `None` if they have no level.
    pub masses: Option<Masses>,
    /// The result of the check that the targets are probabilities.
    pub feasibility: Feasibility,
    /// True if a response of the data has a label; without labels, `chosen` is the best response of a prompt by reward, and `rejected`
    /// are those with lower rewards.
    pub labelled: bool,
    /// The direction of the chosen responses.
    pub chosen: Targets,
    /// The direction of the rejected responses.
    pub rejected: Targets,
    /// Values of `log_z0` to consider.
    pub recommended: Recommended,
    /// Comparability of rewards between prompts; `None` with fewer than two rows, or without a row
    /// of two or more responses.
    pub offsets: Option<Offsets>,
    /// Labelled pairs that the rewards order the other way or not at all, and labelled pairs in
    /// all; `None` where the data has none.
    pub label_disagreement: Option<LabelDisagreement>,
    /// The levels that were estimated from samples of the reference model, if they were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub estimated: Option<Estimated>,
    /// The findings that a person should read.
    pub findings: Vec<Finding>,
    /// The one change that is recommended, as a sentence; `None` if nothing is wrong.
    pub action: Option<String>,
}

impl AuditReport {
    /// Returns the names of the responses that are chosen and of those that are rejected, in messages.
    pub fn roles(&self) -> (&'static str, &'static str) {
        if self.labelled { ("chosen", "rejected") } else { ("best", "other") }
    }
}

/// Estimates of log Z(x) from samples of the reference model.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimated {
    /// The fewest samples of a row.
    pub samples: usize,
    /// The mean over the rows of [`PromptLogZ::effective_samples`].
    pub effective_samples: f64,
    /// The estimates, nats.
    pub log_z: Summary,
}

impl Estimated {
    /// `None` unless every row has an estimate.
    fn of(data: &AuditData) -> Option<Self> {
        let found = data.levels()?;
        let log_z: Vec<f64> = found.iter().map(|found| found.log_z).collect();
        Some(Self {
            samples: found.iter().map(|found| found.samples).min()?,
            effective_samples: found.iter().map(|found| found.effective_samples).sum::<f64>() / found.len() as f64,
            log_z: Summary::of(&log_z)?,
        })
    }
}

/// The targets (`r/β − log_z0`, nats of log-ratio) of the responses of one role.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Targets {
    /// Number of responses.
    pub count: usize,
    /// Share of them with a target above 0: they will gain probability.
    pub gaining: f64,
    /// Share of them with a target below 0: they will lose probability.
    pub losing: f64,
    /// The fall of those that lose; `None` where none does.
    pub fall: Option<Fall>,
    /// Share of them that are to fall by more than one nat per token.
    pub falling_steeply: f64,
    /// The distribution; `None` without responses.
    pub targets: Option<Summary>,
}

/// A fall of this many nats per token leaves little of a response: at every token, its continuation
/// becomes e times less likely.
const STEEP_FALL: f64 = 1.0;

/// The mean fall of the responses that lose probability, as a number above 0.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Fall {
    /// Nats per response.
    pub nats: f64,
    /// Nats per token: all their nats divided by all their tokens.
    pub per_token: f64,
}

impl Targets {
    /// Of targets and numbers of tokens.
    fn of(responses: &[(f64, usize)]) -> Self {
        let count = responses.len();
        let share = |counts: fn(f64, f64) -> bool| {
            let hits = responses.iter().filter(|&&(target, tokens)| counts(target, tokens as f64)).count();
            if count == 0 { 0.0 } else { hits as f64 / count as f64 }
        };
        let losing: Vec<&(f64, usize)> = responses.iter().filter(|(target, _)| *target < 0.0).collect();
        let nats = -losing.iter().map(|(target, _)| target).sum::<f64>();
        let tokens: usize = losing.iter().map(|(_, tokens)| tokens).sum();
        let targets: Vec<f64> = responses.iter().map(|(target, _)| *target).collect();
        Self {
            count,
            gaining: share(|target, _| target > 0.0),
            losing: share(|target, _| target < 0.0),
            fall: (!losing.is_empty())
                .then(|| Fall { nats: nats / losing.len() as f64, per_token: nats / tokens.max(1) as f64 }),
            falling_steeply: share(|target, tokens| target < -STEEP_FALL * tokens),
            targets: Summary::of(&targets),
        }
    }
}

/// Values of `log_z0` to consider, nats.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Recommended {
    /// The smallest at which every prompt is feasible.
    pub all_feasible: f64,
    /// The smallest at which 99 % of the prompts are.
    pub feasible_99: f64,
    /// The one at which the mean reward breaks even ([`LogZ0::Mean`], the default).
    pub mean: f64,
    /// The one at which the chosen responses keep their mean log-probability
    /// ([`LogZ0::KeepChosen`], formerly `auto`); `None` without chosen responses.
    pub auto: Option<f64>,
}

/// The frequency with which the rewards contradict the labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct LabelDisagreement {
    /// Pairs of a chosen and a rejected response of one row.
    pub pairs: usize,
    /// Pairs in which the chosen one's reward is not the higher.
    pub contradicted: usize,
}

/// Audits a data set.
///
/// # Units
/// Log-probabilities, targets, `log_z0`: nats. Rewards and β as given.
///
/// # Errors
/// [`Error::Empty`] without rows; [`Error::Setting`] for β or `log_z0`; for a row, what
/// [`PromptRewards::validate`] finds, [`Error::Lengths`] for ids, log-probs or tokens of another number,
/// [`Error::RefLogp`] for one that is no log-probability; [`Error::LargeReward`] for targets that no loss
/// holds.
///
/// ```
/// use setpoint_align::{AuditPrompt, AuditSettings, LogZ0, PromptRewards, audit};
///
/// let data = [AuditPrompt {
///     prompt: 1,
///     name: "train.jsonl:1".into(),
///     rewards: PromptRewards::new(0, vec![1.0, -1.0]),
///     ids: vec![1, 2],
///     ref_logps: vec![-12.0, -9.0],
///     tokens: vec![8, 6],
///     log_z: None,
/// }];
/// let report = audit(&data, &AuditSettings::new(0.1, LogZ0::Nats(50.0)))?;
/// assert_eq!(report.feasibility.infeasible, 0);
/// assert_eq!(report.chosen.losing, 1.0); // 1/0.1 − 50 < 0: break-even is at 5
/// assert_eq!(report.chosen.fall.unwrap().per_token, 5.0); // 40 nats over 8 tokens
/// assert_eq!(report.recommended.mean, 0.0);
/// # Ok::<(), setpoint_align::Error>(())
/// ```
pub fn audit(data: &[AuditPrompt], settings: &AuditSettings) -> Result<AuditReport, Error> {
    POSITIVE.check("beta", &settings.beta)?;
    let mut kept = AuditData::default();
    data.iter().try_for_each(|row| kept.push(row))?;
    audit_data(&kept, settings, |place| data[place].name.clone())
}

/// Audits a data set whose rows are not in memory with their names. `name` returns that of the row at a place.
///
/// # Units
/// As [`audit`].
///
/// # Errors
/// As [`audit`], but for those that [`AuditData::push`] finds.
pub fn audit_data(
    data: &AuditData,
    settings: &AuditSettings,
    name: impl Fn(usize) -> String,
) -> Result<AuditReport, Error> {
    let beta = settings.beta;
    POSITIVE.check("beta", &beta)?;
    let rewards = Summary::of(data.all_rewards()).ok_or(Error::Empty { what: "the audit" })?;
    let level = |log_z0: LogZ0| data.level_at(beta, log_z0);
    let estimated = Estimated::of(data).filter(|_| settings.log_z0 == LogZ0::PerPrompt);
    let log_z0 = match &estimated {
        Some(estimated) => estimated.log_z.mean,
        None => level(settings.log_z0)?,
    };
    let level_of = |own: Option<PromptLogZ>| match (&estimated, own) {
        (Some(_), Some(own)) => own.log_z,
        _ => log_z0,
    };
    data.prompt_rewards().try_for_each(|prompt| check_targets(&[prompt], beta, 0.0))?;
    check_targets(&[], beta, log_z0)?;

    let groups = Groups::of(data);
    let feasibility = Feasibility::of(&groups, settings, level_of, name);
    let targets = |role| {
        let of_row = |(row, prompt): (usize, PromptRewards)| -> Vec<(f64, usize)> {
            let (own_level, tokens) = data.level_and_tokens(row);
            let roles = prompt.preferences().roles();
            let own = (0..roles.len()).filter(|&j| roles[j] == Some(role));
            own.map(|j| {
                let nats = prompt.rewards[j] / beta - level_of(own_level);
                let times = if settings.length_normalize { f64::from(tokens[j]) } else { 1.0 };
                (nats * times, tokens[j] as usize)
            })
            .collect()
        };
        Targets::of(&data.prompt_rewards().enumerate().flat_map(of_row).collect::<Vec<_>>())
    };
    let mut report = AuditReport {
        beta,
        log_z0,
        break_even_reward: break_even_reward(log_z0, beta),
        rows: data.len(),
        prompts: groups.len(),
        responses: data.all_rewards().len(),
        duplicate_responses: groups.iter().map(|group| group.duplicates).sum(),
        conflicting_rewards: groups.iter().map(|group| group.conflicts).sum(),
        beta_in_deviations: (rewards.std > 0.0).then(|| beta / rewards.std),
        target_range: (rewards.max - rewards.min) / beta,
        rewards,
        masses: (settings.level_weight > 0.0).then(|| Masses::of(&groups, settings, level_of)),
        labelled: data.is_labelled(),
        chosen: targets(Role::Chosen),
        rejected: targets(Role::Rejected),
        recommended: Recommended {
            all_feasible: feasibility.log_mass.max,
            feasible_99: feasibility.log_mass_99,
            mean: level(LogZ0::Mean)?,
            auto: level(LogZ0::KEEP_CHOSEN).ok(),
        },
        feasibility,
        offsets: Offsets::of(data.prompt_rewards()),
        label_disagreement: label_disagreement(data.prompt_rewards()),
        estimated,
        findings: Vec::new(),
        action: None,
    };
    report.findings = findings::findings(&report, settings);
    report.action = action::action(&report, settings, &groups, |beta| data.level_at(beta, settings.log_z0).ok());
    Ok(report)
}

fn label_disagreement(data: impl Iterator<Item = PromptRewards>) -> Option<LabelDisagreement> {
    let mut found = LabelDisagreement { pairs: 0, contradicted: 0 };
    for prompt in data {
        let side = |role| {
            let labelled = prompt.rewards.iter().zip(&prompt.labels);
            labelled.filter(move |(_, label)| **label == Some(role)).map(|(reward, _)| *reward)
        };
        for chosen in side(Role::Chosen) {
            for rejected in side(Role::Rejected) {
                found.pairs += 1;
                found.contradicted += usize::from(chosen <= rejected);
            }
        }
    }
    (found.pairs > 0).then_some(found)
}

#[cfg(test)]
mod tests;
