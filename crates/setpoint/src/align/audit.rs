//! `setpoint audit`: where DRO's targets send probability and what else they ask of the policy, before any training.

use std::borrow::Cow;

use setpoint_align::{
    AuditData, AuditPrompt, AuditReport, AuditSettings, Finding, LogZ0, PromptObjective, PromptRewards, Severity,
    Subject, Summary, audit_data, break_even_reward,
};
use setpoint_data::counted;
use setpoint_train::OnDemand;

use super::{AlignConfig, ReferenceModel, TrainingData, log_z, named, prepare, reference_dir, reference_logps};
use crate::failure::{Failure, Outcome};
use crate::job::{ADAPTER, DATA, DryRun, Flag, Job, MODEL, OUTPUT, Work};
use crate::session::Session;
use crate::setup;
use crate::tasks::stages::{RewardedPrompt, WithReference};

/// The width of the text, columns.
const WIDTH: usize = 80;
/// The width of the names of the figures, columns.
const NAME: usize = 14;

/// The report in the folder of a run.
pub const AUDIT: &str = "audit.json";

/// `setpoint audit`.
#[derive(Debug)]
pub struct Audit;

impl Job for Audit {
    type Config = AlignConfig;

    const COMMAND: &'static str = "audit";
    const SETTINGS: &'static str = "align";
    const FLAGS: &'static [Flag] = &[MODEL, DATA, ADAPTER, OUTPUT];
    const WORK: Work<AlignConfig> = Work::Result(run);
    const DRY_RUN: DryRun<AlignConfig> = DryRun::Plan(super::plan);

    fn about() -> Cow<'static, str> {
        "Check the reward targets before training: where they send probability, and which cannot be reached".into()
    }

    fn help() -> Cow<'static, str> {
        "Example:\n  setpoint audit --model runs/sft/model --data rewards.jsonl --set align.log_z0=50".into()
    }
}

/// The report; `folder` keeps the reference log-probs for a run that follows.
pub fn report(session: &Session, config: &AlignConfig, folder: Option<&std::path::Path>) -> Outcome<AuditReport> {
    let other = || Failure::usage("align.method", "the audit is about DRO's targets; other methods have none");
    config.align.level().ok_or_else(other)?;
    if config.is_in_rounds() {
        return Err(Failure::usage(
            "rounds",
            "the audit is about the responses of a file, and rounds sample others: leave `rounds` out",
        ));
    }
    let prepared = prepare(session, config, folder)?;
    let reference = ReferenceModel { dir: reference_dir(config)?, model: None };
    let reference = reference_logps(session, config, &prepared, Some(reference), folder)?;
    let TrainingData::Prompts { objective, sets } = prepared.data else { return Err(other()) };
    of_prompts(&*objective, &sets.with_reference(reference).0.prompts)
}

/// The report on training data whose reference log-probs are known.
pub fn of_prompts(
    objective: &dyn PromptObjective,
    prompts: &OnDemand<WithReference<RewardedPrompt>>,
) -> Outcome<AuditReport> {
    let name = |place: usize| prompts.get(place).ok().map(|prompt| prompt.prompt.name.clone());
    let mut data = AuditData::default();
    for (row, prompt) in prompts.iter().enumerate() {
        let prompt = prompt?;
        let row = AuditPrompt { log_z: log_z(objective, &prompt)?, ..audit_prompt(row, &prompt) };
        data.push(&row).map_err(|error| named(error, name))?;
    }
    let level = objective.level().unwrap_or(LogZ0::Nats(0.0));
    let settings = AuditSettings {
        beta_sigma: objective.beta_sigma(),
        length_normalize: objective.length_normalize(),
        level_weight: objective.level_weight(),
        ..AuditSettings::new(objective.beta(), level)
    };
    audit_data(&data, &settings, |place| name(place).unwrap_or_default()).map_err(|error| named(error, name))
}

/// Prints what `setpoint align` says before it trains, at most six sentences: the level of the targets, and the summary of the report.
pub fn introduce(report: &AuditReport) {
    let level = level(report.beta, report.log_z0, &report.rewards);
    match &report.estimated {
        // The summary says that there is no level.
        _ if report.masses.is_none() => {}
        None => log::info!("{level}"),
        Some(_) => log::info!("{}", level.replace("log_z0", "log Z(x) on average")),
    }
    for (severity, sentence) in report.summary() {
        match severity {
            Severity::Info => log::info!("{sentence}"),
            Severity::Warning | Severity::Error => log::warn!("{sentence}"),
        }
    }
}

/// The level of the targets next to the rewards.
pub fn level(beta: f64, log_z0: f64, rewards: &Summary) -> String {
    format!(
        "DRO: beta {beta}, log_z0 {log_z0:.3} nats: break-even reward {:.3}; the rewards have mean {:.3} and standard deviation {:.3}",
        break_even_reward(log_z0, beta),
        rewards.mean,
        rewards.std
    )
}

/// Scores the data under the reference model, prints the report and writes it.
fn run(session: &Session, config: &AlignConfig) -> Outcome {
    let report = report(session, config, None)?;
    lines(&report).iter().for_each(|line| session.say(line));
    if let Some(path) = &config.output {
        setup::write_text(path, &(serde_json::to_string_pretty(&report)? + "\n"))?;
        log::info!("written to {}", path.display());
    }
    Ok(())
}

/// Returns the whole report as text: where the targets send probability, the figures, the findings that these do not tell, and the
/// recommended change.
pub fn lines(report: &AuditReport) -> Vec<String> {
    let mut lines = vec![report.answer(), String::new(), figures(report)];
    lines.extend(beyond_figures(report).map(|finding| wrapped(&finding, 0)));
    if let Some(advice) = report.advice() {
        lines.extend([String::new(), advice]);
    }
    lines
}

/// Returns the findings that the answer and the [figures] do not tell: the warnings, which say what to do, and labels that the rewards
/// contradict.
fn beyond_figures(report: &AuditReport) -> impl Iterator<Item = String> + '_ {
    let is_new = |finding: &&Finding| match finding.subject {
        Subject::Masses => false,
        Subject::Labels => true,
        _ => finding.severity > Severity::Info,
    };
    report.findings.iter().filter(is_new).map(|finding| format!("{}: {}", finding.severity, finding.message))
}

/// Returns the figures of a report, one a line.
fn figures(report: &AuditReport) -> String {
    let mut lines = vec![
        format!(
            "{}, {}, {} ({} repeated)",
            counted(report.rows, "row"),
            counted(report.prompts, "prompt"),
            counted(report.responses, "response"),
            report.duplicate_responses
        ),
        format!(
            "rewards       mean {:.3}, deviation {:.3}, from {:.3} to {:.3}",
            report.rewards.mean, report.rewards.std, report.rewards.min, report.rewards.max
        ),
        format!(
            "targets       beta {}{}, log_z0 {:.3} nats: break-even reward {:.3}; the extreme targets are {:.1} nats apart",
            report.beta,
            report.beta_in_deviations.map_or_else(String::new, |share| format!(" ({share:.3} deviations)")),
            report.log_z0,
            report.break_even_reward,
            report.target_range
        ),
    ];
    let shown = |lines: &[String]| lines.iter().map(|line| wrapped(line, NAME)).collect::<Vec<_>>().join("\n");
    if report.masses.is_none() {
        // Without a level there is nothing to say of single responses.
        return shown(&lines);
    }
    for (name, side) in [(report.roles().0, &report.chosen), (report.roles().1, &report.rejected)] {
        let mean = side.targets.as_ref().map_or_else(String::new, |t| format!(", mean target {:+.2} nats", t.mean));
        let fall = side.fall.map_or_else(String::new, |fall| {
            format!(", {:.2} nats on average ({:.2} per token)", fall.nats, fall.per_token)
        });
        lines.push(format!(
            "{name:<13} {}{mean}; {:.1} % gain probability, {:.1} % lose it{fall}",
            counted(side.count, "response"),
            100.0 * side.gaining,
            100.0 * side.losing
        ));
    }
    lines.push(format!(
        "feasibility   {} of {} ({:.1} %) ask for more probability than there is",
        report.feasibility.infeasible,
        counted(report.prompts, "prompt"),
        100.0 * report.feasibility.infeasible_share
    ));
    for prompt in report.feasibility.worst.iter().take(5) {
        lines.push(format!("              {}: {:.2} nats too much", prompt.name, prompt.excess));
    }
    let kept = report.recommended.auto.map_or_else(String::new, |level| {
        format!("; the {} keep their mean at {level:.3} (keep_chosen)", report.roles().0)
    });
    lines.push(format!(
        "log_z0        the mean reward breaks even at {:.3} (mean, the default); all prompts are feasible if it is at least {:.3}, 99 % at least {:.3}{kept}",
        report.recommended.mean, report.recommended.all_feasible, report.recommended.feasible_99
    ));
    shown(&lines)
}

/// Breaks a line at words, so that it has at most [`WIDTH`] columns, and moves all but the first part in by `indent`. Blanks that are
/// several, as after a name, are kept.
fn wrapped(line: &str, indent: usize) -> String {
    let mut text = String::new();
    let mut width = 0;
    // A number stays with its unit.
    for (i, word) in line.replace(" %", "\u{a0}%").split(' ').enumerate() {
        let length = word.chars().count();
        if width > indent && width + 1 + length > WIDTH {
            text.truncate(text.trim_end().len());
            text.push('\n');
            text.push_str(&" ".repeat(indent));
            width = indent;
        } else if i > 0 {
            text.push(' ');
            width += 1;
        }
        text.push_str(word);
        width += length;
    }
    text.replace('\u{a0}', " ")
}

fn audit_prompt(row: usize, scored: &WithReference<RewardedPrompt>) -> AuditPrompt {
    let prompt = &scored.prompt;
    let responses = || (0..prompt.sequences.len()).map(|j| prompt.response_ids(j));
    AuditPrompt {
        prompt: setup::token_hash(prompt.prompt_ids()),
        name: prompt.name.clone(),
        // Roles that were taken from the rewards cannot contradict them.
        rewards: PromptRewards::new(row, scored.rewards.clone()).with_labels(prompt.labels.clone()),
        ids: responses().map(setup::token_hash).collect(),
        ref_logps: scored.ref_logps.clone(),
        tokens: responses().map(<[u32]>::len).collect(),
        log_z: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_at_words_and_keep_every_word() {
        let line = "log_z0        the mean reward breaks even at 0.000 (mean, the default); all prompts are feasible if it is at least \
                    -44.429, 99 % at least -44.429; the best keep their mean at 10.000 (keep_chosen)";
        let broken = wrapped(line, NAME);
        assert!(broken.lines().count() == 3 && broken.lines().all(|line| line.chars().count() <= WIDTH), "{broken}");
        assert!(broken.starts_with("log_z0        the mean") && broken.contains(", 99 % at"), "{broken}");
        assert!(broken.lines().skip(1).all(|line| line.starts_with(&" ".repeat(NAME))), "{broken}");
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(words(&broken), words(line));
        for short in ["best          40 responses", "", "              row 3: 2.00 nats too much"] {
            assert_eq!(wrapped(short, NAME), short);
        }
        // A word that is longer than a line has one of its own.
        let long = "x".repeat(100);
        assert_eq!(wrapped(&format!("a {long} b"), 0), format!("a\n{long}\nb"));
    }
}
