//! `setpoint audit`: what DRO's targets ask of the policy, before any training.

use setpoint_align::{
    AuditPrompt, AuditReport, AuditSettings, LogZ0, PromptRewards, Subject, Summary, audit, break_even_reward,
};

use super::{AlignConfig, named, prepare, with_reference};
use crate::failure::{Failure, Outcome};
use crate::session::Session;
use crate::setup;
use crate::tasks::ScoredPrompt;

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
    log::info!("{}", level(report.beta, report.log_z0, &report.rewards));
    let of = |subject| report.findings.iter().filter(move |finding| finding.subject == subject);
    for finding in [Subject::Feasibility, Subject::Chosen].into_iter().flat_map(of) {
        log::info!("{}", &finding.message);
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
