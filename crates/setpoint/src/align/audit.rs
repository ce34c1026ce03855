//! `setpoint audit`: what DRO's targets ask of the policy, before any training.

use std::borrow::Cow;

use setpoint_align::{
    AuditPrompt, AuditReport, AuditSettings, Finding, LogZ0, PromptObjective, PromptRewards, Severity, Subject,
    Summary, audit, break_even_reward,
};
use setpoint_data::counted;

use super::{AlignConfig, ReferenceModel, TrainingData, log_z, named, prepare, reference_dir, reference_logps};
use crate::failure::{Failure, Outcome};
use crate::job::{ADAPTER, DATA, DryRun, Flag, Job, MODEL, OUTPUT, Work};
use crate::session::Session;
use crate::setup;
use crate::tasks::stages::{RewardedPrompt, WithReference};

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
        "Check the reward targets before training: which cannot be reached, which responses lose probability".into()
    }

    fn help() -> Cow<'static, str> {
        "Example:\n  setpoint audit --model runs/sft/model --data rewards.jsonl --set align.log_z0=50".into()
    }
}

/// The report; `folder` keeps the reference log-probs for a run that follows.
pub fn report(session: &Session, config: &AlignConfig, folder: Option<&std::path::Path>) -> Outcome<AuditReport> {
    let other = || Failure::usage("align.method", "the audit is about DRO's targets; other methods have none");
    config.align.level().ok_or_else(other)?;
    let prepared = prepare(session, config)?;
    let reference = ReferenceModel { dir: reference_dir(config)?, model: None };
    let reference = reference_logps(session, config, &prepared, Some(reference), folder)?;
    let TrainingData::Prompts { objective, sets } = prepared.data else { return Err(other()) };
    of_prompts(&*objective, &sets.with_reference(reference)?.0.prompts)
}

/// The report on training data whose reference log-probs are known.
pub fn of_prompts(objective: &dyn PromptObjective, prompts: &[WithReference<RewardedPrompt>]) -> Outcome<AuditReport> {
    let row = |(row, prompt): (usize, &WithReference<RewardedPrompt>)| -> Outcome<AuditPrompt> {
        Ok(AuditPrompt { log_z: log_z(objective, prompt)?, ..audit_prompt(row, prompt) })
    };
    let rows: Vec<AuditPrompt> = prompts.iter().enumerate().map(row).collect::<Outcome<_>>()?;
    let level = objective.level().unwrap_or(LogZ0::Nats(0.0));
    let length_normalize = objective.length_normalize();
    audit(&rows, &AuditSettings { length_normalize, ..AuditSettings::new(objective.beta(), level) })
        .map_err(|error| named(error, prompts.iter().map(|prompt| &prompt.prompt)))
}

/// Prints what `setpoint align` says before it trains: the level of the targets, which of them cannot be reached, which chosen responses
/// are to fall and how far; and a warning of what ruins a model or teaches it nothing.
pub fn introduce(report: &AuditReport) {
    match &report.estimated {
        None => log::info!("{}", level(report.beta, report.log_z0, &report.rewards)),
        Some(_) => {
            let mean = level(report.beta, report.log_z0, &report.rewards).replace("log_z0", "log Z(x) on average");
            log::info!("{mean}");
        }
    }
    let of = |subject| report.findings.iter().filter(move |finding| finding.subject == subject);
    for finding in [Subject::Feasibility, Subject::Chosen, Subject::Estimate].into_iter().flat_map(of) {
        match finding.severity {
            Severity::Warning if finding.subject == Subject::Estimate => log::warn!("{}", finding.message),
            _ => log::info!("{}", finding.message),
        }
    }
    for finding in [Subject::SteepFall, Subject::Beta, Subject::EqualRewards].into_iter().flat_map(of) {
        log::warn!("{}", finding.message);
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
    session.say(figures(&report));
    beyond_figures(&report).for_each(|finding| session.say(finding));
    if let Some(path) = &config.output {
        setup::write_text(path, &(serde_json::to_string_pretty(&report)? + "\n"))?;
        log::info!("written to {}", path.display());
    }
    Ok(())
}

/// Returns the findings that the [figures] do not tell: the warnings, which say what to do, and labels that the rewards contradict.
pub fn beyond_figures(report: &AuditReport) -> impl Iterator<Item = String> + '_ {
    let is_new = |finding: &&Finding| finding.severity > Severity::Info || finding.subject == Subject::Labels;
    report.findings.iter().filter(is_new).map(|finding| format!("{}: {}", finding.severity, finding.message))
}

/// Returns the figures of a report, one a line.
pub fn figures(report: &AuditReport) -> String {
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
    lines.join("\n")
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
