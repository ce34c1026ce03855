//! The audit's findings in plain English: what, how much, and what to do.

use std::fmt;

use serde::Serialize;

use super::{AuditReport, AuditSettings, Verdict};
use crate::log_z0::LogZ0;

/// The weight of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Good to know.
    Info,
    /// Probably not what is wanted.
    Warning,
    /// Training cannot reach what it is asked for.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// The subject of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// The probability that the targets send to each kind of text.
    Masses,
    /// The targets are probabilities, or are not.
    Feasibility,
    /// Rewards that do not differ.
    EqualRewards,
    /// The fall that the targets ask of chosen responses.
    SteepFall,
    /// β next to the rewards' standard deviation.
    Beta,
    /// The direction of the chosen responses.
    Chosen,
    /// The direction of the rejected responses.
    Rejected,
    /// Rewards can be compared between prompts, or cannot.
    Offsets,
    /// Responses with several rewards.
    Conflicts,
    /// Labels that the rewards contradict.
    Labels,
    /// The distance between the extreme targets.
    Range,
    /// The quality of the estimates of log Z(x).
    Estimate,
}

/// One thing that the audit found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Its subject.
    pub subject: Subject,
    /// Its weight.
    pub severity: Severity,
    /// One sentence.
    pub message: String,
}

/// Above this share of chosen responses that are to fall steeply they are no stray rows.
const MANY_STEEP: f64 = 0.01;
/// Below this many standard deviations of the rewards β asks for more than trainings reach.
const SMALL_BETA: f64 = 0.1;
/// Above this share of infeasible prompts, and of losing chosen or gaining rejected responses, it is the typical one that is meant. A
/// few unreachable targets do no harm, and a level at which every target can be reached may lie far above the good ones.
pub(super) const MOST: f64 = 0.5;
/// Above this share of the variance offsets between prompts outweigh the differences within.
const LARGE_OFFSETS: f64 = 0.5;
/// Above this share of contradicted labels the rewards do not measure what the labels do.
const MANY_CONTRADICTED: f64 = 0.35;
/// With fewer equally weighted samples than this, a single sample decides most estimates of log Z(x).
const FEW_EFFECTIVE: f64 = 2.0;
/// Targets that span more than this many nats ask for changes of e^100.
const WIDE_TARGETS: f64 = 100.0;

/// The findings, worst first.
pub(super) fn findings(report: &AuditReport, settings: &AuditSettings) -> Vec<Finding> {
    let mut findings: Vec<Finding> = [
        (Subject::Masses, masses(report, settings)),
        (Subject::Feasibility, feasibility(report, settings)),
        (Subject::EqualRewards, equal_rewards(report)),
        (Subject::SteepFall, steep_fall(report, settings)),
        (Subject::Beta, beta(report, settings)),
        (Subject::Chosen, chosen(report, settings)),
        (Subject::Rejected, rejected(report, settings)),
        (Subject::Offsets, offsets(report)),
        (Subject::Conflicts, conflicts(report)),
        (Subject::Labels, labels(report)),
        (Subject::Range, range(report, settings)),
        (Subject::Estimate, estimate(report, settings)),
    ]
    .into_iter()
    .filter_map(|(subject, found)| found.map(|(severity, message)| Finding { subject, severity, message }))
    .collect();
    if report.masses.is_none() {
        // Without a level nothing is known of where a response goes.
        let of_level = [Subject::Feasibility, Subject::SteepFall, Subject::Chosen, Subject::Rejected];
        findings.retain(|finding| !of_level.contains(&finding.subject));
    }
    // Stable: among equals the order above.
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    findings
}

type Found = Option<(Severity, String)>;

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// Returns a share of probability as a percentage, without the impression that a small one is 0.
pub(super) fn share(share: f64) -> String {
    if share > 0.0 && share < 5e-4 { "under 0.1 %".into() } else { percent(share) }
}

/// Returns nats with at most two decimals, as in the table of the audit.
pub(super) fn nats(value: f64) -> String {
    decimals(value, 2)
}

/// Returns a reward, or a level in nats, with at most three decimals, as in the table of the audit.
pub(super) fn level(value: f64) -> String {
    decimals(value, 3)
}

/// Returns a number with at most four decimals.
fn short(value: f64) -> String {
    decimals(value, 4)
}

/// Returns a number with at most the given number of decimals and no zeros at its end.
fn decimals(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".into() } else { text.into() }
}

/// Returns a number of responses with the name of their role.
fn responses(count: usize, role: &str) -> String {
    format!("{count} {role} response{}", if count == 1 { "" } else { "s" })
}

fn masses(report: &AuditReport, settings: &AuditSettings) -> Found {
    let Some(masses) = &report.masses else {
        let message = "With level_weight = 0 the targets have no level: training sets the differences between the responses to a \
                       prompt, and where probability goes is left open.";
        return Some((Severity::Info, message.into()));
    };
    let words = masses.verdict_in_words();
    let severity = match masses.verdict {
        // The level is measured already, or cannot be: it is in nats per response.
        Verdict::Negligible if settings.log_z0 == LogZ0::PerPrompt || settings.length_normalize => {
            return Some((Severity::Info, words));
        }
        Verdict::Negligible => {
            let how = "log_z0 = \"per_prompt\" measures the level, from samples of the reference model (setpoint annotate \
                       --reference-samples 8).";
            return Some((Severity::Info, format!("{words} {how}")));
        }
        Verdict::Falls => Severity::Warning,
        Verdict::Stays | Verdict::Rises => Severity::Info,
    };
    let message = format!(
        "{} (the file's responses have {} under the reference and {} under the targets, as means over the prompts).",
        words.trim_end_matches('.'),
        share(masses.reference.in_file()),
        share(masses.target.in_file()),
    );
    Some((severity, message))
}

fn feasibility(report: &AuditReport, settings: &AuditSettings) -> Found {
    let found = &report.feasibility;
    let worst = found.worst.first();
    if found.infeasible == 0 {
        let message = format!("Every prompt is feasible at log_z0 = {}.", level(report.log_z0));
        return Some((Severity::Info, message));
    }
    let severity = if found.infeasible_share > MOST { Severity::Warning } else { Severity::Info };
    let example =
        worst.map_or(String::new(), |worst| format!(" (worst: {}, by {} nats)", worst.name, nats(worst.excess)));
    let message = format!(
        "{} of {} prompts ({}) are infeasible at log_z0 = {}: the targets of their responses add up to more than all \
         probability{example}, so training comes near them at best; a larger {} makes fewer prompts so.",
        found.infeasible,
        report.prompts,
        percent(found.infeasible_share),
        level(report.log_z0),
        settings.beta_setting(),
    );
    Some((severity, message))
}

/// As [`short`], rounded up: a bound that is printed must still hold.
fn short_up(value: f64) -> String {
    short((value * 1e4).ceil() / 1e4)
}

fn equal_rewards(report: &AuditReport) -> Found {
    let rewards = &report.rewards;
    (rewards.min == rewards.max).then(|| {
        let message = format!(
            "All {} rewards equal {}, so nothing distinguishes one response from another.",
            rewards.count,
            level(rewards.min)
        );
        (Severity::Error, message)
    })
}

/// Describes how to lower the demand on the chosen responses, as the end of a sentence.
fn remedy(report: &AuditReport, settings: &AuditSettings) -> String {
    let mean = report.recommended.mean;
    if report.log_z0 - mean <= 1e-9 * (1.0 + mean.abs()) {
        return format!("; a larger {} asks for less", settings.beta_setting());
    }
    let lower = match settings.log_z0 {
        LogZ0::BreakEvenReward(_) => format!("break_even_reward = {}", level(report.rewards.mean)),
        _ => format!("log_z0 = {} (\"mean\")", level(mean)),
    };
    format!("; {lower} lets those above the mean reward gain")
}

fn steep_fall(report: &AuditReport, settings: &AuditSettings) -> Found {
    let chosen = &report.chosen;
    let fall = chosen.fall.filter(|_| chosen.falling_steeply > MANY_STEEP)?;
    let message = format!(
        "{} of the {} are asked to fall by more than one nat per token, which leaves nothing of them \
         and garbles the text; those that lose probability are to fall by {} nats on average, {} per token{}.",
        percent(chosen.falling_steeply),
        responses(chosen.count, report.roles().0),
        nats(fall.nats),
        nats(fall.per_token),
        remedy(report, settings)
    );
    Some((Severity::Warning, message))
}

fn beta(report: &AuditReport, settings: &AuditSettings) -> Found {
    let share = report.beta_in_deviations.filter(|share| *share < SMALL_BETA)?;
    let value = |share: f64| match settings.beta_sigma {
        Some(_) => short(share),
        None => short_up(share * report.rewards.std),
    };
    let message = format!(
        "beta = {} is {} standard deviations of the rewards ({}): the targets lie far apart, and the policy is sent far \
         from the reference; {} = {} is a tenth of a deviation, {} a quarter.",
        short(report.beta),
        level(share),
        level(report.rewards.std),
        settings.beta_setting(),
        value(SMALL_BETA),
        value(0.25),
    );
    Some((Severity::Warning, message))
}

fn chosen(report: &AuditReport, settings: &AuditSettings) -> Found {
    let targets = report.chosen.targets?;
    let Some(fall) = report.chosen.fall else {
        let message = format!(
            "None of the {} has a reward below the break-even reward {} (mean target {} nats).",
            responses(report.chosen.count, report.roles().0),
            level(report.break_even_reward),
            nats(targets.mean),
        );
        return Some((Severity::Info, message));
    };
    // At the level that keeps their mean, about half of them lose: that is what was asked for.
    let kept = report.recommended.auto.is_some_and(|auto| (auto - report.log_z0).abs() <= 1e-9 * (1.0 + auto.abs()));
    let severity = if report.chosen.losing > MOST && !kept { Severity::Warning } else { Severity::Info };
    let remedy = if severity == Severity::Warning { remedy(report, settings) } else { String::new() };
    let message = format!(
        "{} of the {} have a reward below the break-even reward {} and will lose probability, {} nats on \
         average, {} per token (mean target of all of them: {} nats){remedy}.",
        percent(report.chosen.losing),
        responses(report.chosen.count, report.roles().0),
        level(report.break_even_reward),
        nats(fall.nats),
        nats(fall.per_token),
        nats(targets.mean),
    );
    Some((severity, message))
}

fn rejected(report: &AuditReport, settings: &AuditSettings) -> Found {
    let targets = report.rejected.targets?;
    let severity = if report.rejected.gaining > MOST { Severity::Warning } else { Severity::Info };
    let remedy = match severity {
        Severity::Warning => format!("; a higher {} lowers their targets", settings.level_setting()),
        _ => String::new(),
    };
    let message = format!(
        "{} of the {} have a reward above the break-even reward {} and will gain probability (mean \
         target {} nats){remedy}.",
        percent(report.rejected.gaining),
        responses(report.rejected.count, report.roles().1),
        level(report.break_even_reward),
        nats(targets.mean),
    );
    Some((severity, message))
}

fn offsets(report: &AuditReport) -> Found {
    let offsets = report.offsets?;
    (offsets.share > LARGE_OFFSETS).then(|| {
        let message = format!(
            "{} of the variance of the rewards lies between prompts, not between the responses to one; if the reward model \
             was trained on pairs these offsets mean nothing, and reward_transform = \"center_per_prompt\" removes them.",
            percent(offsets.share)
        );
        (Severity::Warning, message)
    })
}

fn conflicts(report: &AuditReport) -> Found {
    (report.conflicting_rewards > 0).then(|| {
        let message = format!(
            "{} responses occur more than once with different rewards, so their residuals cannot vanish; training takes \
             them to the mean.",
            report.conflicting_rewards
        );
        (Severity::Warning, message)
    })
}

fn labels(report: &AuditReport) -> Found {
    let found = report.label_disagreement?;
    let share = found.contradicted as f64 / found.pairs as f64;
    let severity = if share > MANY_CONTRADICTED { Severity::Warning } else { Severity::Info };
    let message = format!(
        "In {} of {} labelled pairs ({}) the chosen response's reward is not the higher one.",
        found.contradicted,
        found.pairs,
        percent(share)
    );
    Some((severity, message))
}

fn range(report: &AuditReport, settings: &AuditSettings) -> Found {
    let wide = report.target_range > WIDE_TARGETS;
    let severity = if wide { Severity::Warning } else { Severity::Info };
    let remedy = match wide {
        // A scale changes the deviation as well.
        true if settings.beta_sigma.is_some() => "; a larger beta_sigma or a clip narrows them",
        true => "; a larger beta, reward_scale below 1 or a clip narrows them",
        false => "",
    };
    let message = format!(
        "Rewards lie between {} and {}, so at beta = {} the targets span {} nats{remedy}.",
        level(report.rewards.min),
        level(report.rewards.max),
        short(report.beta),
        decimals(report.target_range, 1),
    );
    Some((severity, message))
}

fn estimate(report: &AuditReport, settings: &AuditSettings) -> Found {
    let found = report.estimated?;
    let few = found.effective_samples < FEW_EFFECTIVE;
    let severity = if few { Severity::Warning } else { Severity::Info };
    let bias = match few {
        true => format!(
            ": one sample decides most of them, so they are biased low; more samples or a larger {} help",
            settings.beta_setting()
        ),
        false => String::new(),
    };
    let message = format!(
        "log Z(x) of each prompt is estimated from at least {} samples of the reference model (mean {} nats, deviation {}), \
         which are worth {} equally weighted ones on average{bias}.",
        found.samples,
        short(found.log_z.mean),
        short(found.log_z.std),
        short(found.effective_samples),
    );
    Some((severity, message))
}
