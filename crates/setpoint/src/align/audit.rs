//! `setpoint audit`: what DRO's targets ask of the policy, before any training.

use setpoint_align::{
    AuditPrompt, AuditReport, AuditSettings, LogZ0, PromptRewards, Subject, Summary, audit, break_even_reward,
};

use super::{AlignConfig, TrainingData, named, prepare, reference_logps};
use crate::failure::{Failure, Outcome};
use crate::session::Session;
use crate::setup;
use crate::tasks::stages::{RewardedPrompt, WithReference};

/// The report; `folder` keeps the reference log-probs for a run that follows.
pub fn report(session: &Session, config: &AlignConfig, folder: Option<&std::path::Path>) -> Outcome<AuditReport> {
    let other = || Failure::usage("align.method", "the audit is about DRO's targets; other methods have none");
    let (beta, level) = config.align.targets().ok_or_else(other)?;
    let prepared = prepare(session, config)?;
    let reference = setup::reference_path(config.reference.as_deref(), &config.model)?;
    let reference = reference_logps(session, config, &prepared, Some(reference), folder)?;
    let TrainingData::Prompts { sets, .. } = prepared.data else { return Err(other()) };
    of_prompts(beta, level, &sets.with_reference(reference)?.0.prompts)
}

/// The report on training data whose reference log-probs are known.
pub fn of_prompts(beta: f64, level: LogZ0, prompts: &[WithReference<RewardedPrompt>]) -> Outcome<AuditReport> {
    let rows: Vec<AuditPrompt> = prompts.iter().enumerate().map(audit_prompt).collect();
    audit(&rows, &AuditSettings::new(beta, level))
        .map_err(|error| named(error, prompts.iter().map(|prompt| &prompt.prompt)))
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

fn audit_prompt((row, scored): (usize, &WithReference<RewardedPrompt>)) -> AuditPrompt {
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
    }
}
