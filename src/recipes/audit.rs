//! `setpoint audit`: what DRO's targets ask of the policy, before any training.

use setpoint_align::{
    AuditPrompt, AuditReport, AuditSettings, LogZ0, PromptRewards, Subject, Summary, audit, break_even_reward,
};

use super::align::{AlignConfig, named, prepare, with_reference};
use super::{Session, setup};
use crate::failure::{Failure, Outcome};
use crate::progress;
use crate::tasks::ScoredPrompt;

/// Scores the data under the reference model and reports.
pub fn run(session: &Session, config: &AlignConfig) -> Outcome {
    let report = report(session, config, None)?;
    progress::say(table(&report));
    for finding in &report.findings {
        progress::say(format!("{}: {}", finding.severity, finding.message));
    }
    if let Some(path) = &config.output {
        let text = serde_json::to_string_pretty(&report)? + "\n";
        setup::write_text(path, &text)?;
        progress::note(format!("written to {}", path.display()));
    }
    Ok(())
}

/// Checks everything that can be checked without the model.
pub fn dry_run(session: &Session, config: &AlignConfig) -> Outcome {
    super::align::dry_run(session, config)
}

/// The report; `folder` keeps the reference log-probs for a run that follows.
pub fn report(session: &Session, config: &AlignConfig, folder: Option<&std::path::Path>) -> Outcome<AuditReport> {
    let Some((beta, level)) = config.align.targets() else {
        return Err(Failure::usage("align.method", "the audit is about DRO's targets; other methods have none"));
    };
    let prepared = prepare(session, config)?;
    let reference = setup::reference_path(config.reference.as_deref(), &config.model)?;
    let (data, _) = with_reference(session, config, &prepared, Some(reference), folder)?;
    of_prompts(beta, level, &data.prompts)
}

/// The report on training data whose reference log-probs are known.
pub fn of_prompts(beta: f64, level: LogZ0, prompts: &[ScoredPrompt]) -> Outcome<AuditReport> {
    let rows: Vec<AuditPrompt> = prompts.iter().enumerate().map(audit_prompt).collect();
    audit(&rows, &AuditSettings::new(beta, level)).map_err(|error| named(error, prompts))
}

/// Prints what `setpoint align` says before it trains: the level of the targets, which of them cannot be reached, which chosen responses
/// are to fall and how far; and a warning of what ruins a model or teaches it nothing.
pub fn introduce(report: &AuditReport) {
    progress::note(level(report.beta, report.log_z0, &report.rewards));
    let of = |subject| report.findings.iter().filter(move |finding| finding.subject == subject);
    for finding in [Subject::Feasibility, Subject::Chosen].into_iter().flat_map(of) {
        progress::note(&finding.message);
    }
    for finding in [Subject::SteepFall, Subject::Beta, Subject::EqualRewards].into_iter().flat_map(of) {
        progress::note(format!("warning: {}", finding.message));
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

fn audit_prompt((row, prompt): (usize, &ScoredPrompt)) -> AuditPrompt {
    let own = |j: usize| {
        let sequence = &prompt.sequences[j];
        (&sequence.ids[..sequence.prompt_len], &sequence.ids[sequence.prompt_len..])
    };
    let rewards = PromptRewards::new(row, prompt.rewards.clone());
    AuditPrompt {
        prompt: setup::token_hash(own(0).0),
        name: prompt.name.clone(),
        // Sides that were taken from the rewards cannot contradict them.
        rewards: if prompt.labelled { rewards.with_labels(prompt.roles.clone()) } else { rewards },
        ids: (0..prompt.sequences.len()).map(|j| setup::token_hash(own(j).1)).collect(),
        ref_logps: prompt.ref_logps.clone(),
        tokens: (0..prompt.sequences.len()).map(|j| own(j).1.len()).collect(),
    }
}

/// The figures, one a line.
pub fn table(report: &AuditReport) -> String {
    let mut lines = vec![
        format!(
            "{} rows, {} prompts, {} responses ({} repeated)",
            report.rows, report.prompts, report.responses, report.duplicate_responses
        ),
        format!(
            "rewards       mean {:.3}, deviation {:.3}, from {:.3} to {:.3}",
            report.rewards.mean, report.rewards.std, report.rewards.min, report.rewards.max
        ),
        format!(
            "targets       beta {}{}, log_z0 {:.3} nats: break-even reward {:.3}; the extreme targets are {:.1} nats apart",
            report.beta,
            report.beta_in_deviations.map_or_else(String::new, |share| format!(" ({share:.2} deviations)")),
            report.log_z0,
            report.break_even_reward,
            report.target_range
        ),
    ];
    for (name, side) in [("chosen", &report.chosen), ("rejected", &report.rejected)] {
        let mean = side.targets.as_ref().map_or_else(String::new, |t| format!(", mean target {:+.2} nats", t.mean));
        let fall = side.fall.map_or_else(String::new, |fall| {
            format!(", {:.2} nats on average ({:.2} per token)", fall.nats, fall.per_token)
        });
        lines.push(format!(
            "{name:<13} {} responses{mean}; {:.1} % gain probability, {:.1} % lose it{fall}",
            side.count,
            100.0 * side.gaining,
            100.0 * side.losing
        ));
    }
    lines.push(format!(
        "feasibility   {} prompts ({:.1} %) ask for more probability than there is",
        report.feasibility.infeasible,
        100.0 * report.feasibility.infeasible_share
    ));
    for prompt in report.feasibility.worst.iter().take(5) {
        lines.push(format!("              {}: {:.2} nats too much", prompt.name, prompt.excess));
    }
    let kept = report
        .recommended
        .auto
        .map_or_else(String::new, |level| format!("; chosen keep their mean at {level:.3} (keep_chosen)"));
    lines.push(format!(
        "log_z0        the mean reward breaks even at {:.3} (mean, the default); all prompts feasible from {:.3}, 99 % from {:.3}{kept}",
        report.recommended.mean, report.recommended.all_feasible, report.recommended.feasible_99
    ));
    lines.join("\n")
}
