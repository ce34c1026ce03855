//! `setpoint audit`: what DRO's targets ask of the policy, before any training.

use setpoint_align::{AuditPrompt, AuditReport, AuditSettings, PromptRewards, audit};

use super::align::{AlignConfig, Method, prepare, with_reference};
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
    let Method::Dro(dro) = &config.align else {
        return Err(Failure::usage("align.method", "the audit is about DRO's targets; other methods have none"));
    };
    let prepared = prepare(session, config)?;
    let reference = setup::reference_path(config.reference.as_deref(), &config.model)?;
    let (data, _) = with_reference(session, config, &prepared, Some(reference), folder)?;
    let rows: Vec<AuditPrompt> = data.prompts.iter().enumerate().map(audit_prompt).collect();
    Ok(audit(&rows, &AuditSettings::new(dro.beta, dro.level()))?)
}

fn audit_prompt((row, prompt): (usize, &ScoredPrompt)) -> AuditPrompt {
    let own = |j: usize| {
        let sequence = &prompt.sequences[j];
        (&sequence.ids[..sequence.prompt_len], &sequence.ids[sequence.prompt_len..])
    };
    AuditPrompt {
        prompt: setup::token_hash(own(0).0),
        rewards: PromptRewards::new(row, prompt.rewards.clone()).with_labels(prompt.roles.clone()),
        ids: (0..prompt.sequences.len()).map(|j| setup::token_hash(own(j).1)).collect(),
        ref_logps: prompt.ref_logps.clone(),
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
            "targets       beta {}, log_z0 {:.3} nats: break-even reward {:.3}; the extreme targets are {:.1} nats apart",
            report.beta, report.log_z0, report.break_even_reward, report.target_range
        ),
    ];
    for (name, side) in [("chosen", &report.chosen), ("rejected", &report.rejected)] {
        let mean = side.targets.as_ref().map_or(f64::NAN, |t| t.mean);
        lines.push(format!(
            "{name:<13} {} responses, mean target {mean:+.2} nats; {:.1} % gain probability, {:.1} % lose it",
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
        lines.push(format!("              row {}: {:.2} nats too much", prompt.row, prompt.excess));
    }
    let auto =
        report.recommended.auto.map_or_else(String::new, |a| format!("; chosen keep their mean at {a:.3} (auto)"));
    lines.push(format!(
        "log_z0        all prompts feasible from {:.3}, 99 % from {:.3}{auto}",
        report.recommended.all_feasible, report.recommended.feasible_99
    ));
    lines.join("\n")
}
