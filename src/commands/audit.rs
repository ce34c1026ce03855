//! `setpoint audit`: prints what DRO's targets ask of the policy, before any training.

use setpoint::align::AlignConfig;
use setpoint::align::audit::report;
use setpoint::setup::write_text;
use setpoint::{Outcome, Session};
use setpoint_align::AuditReport;

use crate::progress;

/// Scores the data under the reference model, prints the report and writes it.
pub fn run(session: &Session, config: &AlignConfig) -> Outcome {
    let report = report(session, config, None)?;
    progress::say(table(&report));
    for finding in &report.findings {
        progress::say(format!("{}: {}", finding.severity, finding.message));
    }
    if let Some(path) = &config.output {
        let text = serde_json::to_string_pretty(&report)? + "\n";
        write_text(path, &text)?;
        progress::note(format!("written to {}", path.display()));
    }
    Ok(())
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
