//! Judges behind a chat endpoint: their settings, how they are opened, and what they cost.

use std::path::Path;

use serde_json::{Value, json};
use setpoint_eval::{JudgeClient, JudgeSettings};

use crate::config::Problems;
use crate::config::output::{Target, validate_target};
use crate::failure::{Failure, Outcome};

/// Notes what is wrong with the `[judge]` section.
pub fn validate_judge(judge: &JudgeSettings, section: &str, problems: &mut Problems<'_>) {
    for (key, message) in judge.problems() {
        problems.add(&format!("{section}.{key}"), message);
    }
    validate_target(judge.cache.as_ref(), Target::File, &format!("{section}.cache"), problems);
}

/// Notes what is wrong with the settings of a `[judge]` section that are shown and written although no judge is asked.
pub fn validate_address(judge: &JudgeSettings, section: &str, problems: &mut Problems<'_>) {
    for (key, message) in judge.address_problems() {
        problems.add(&format!("{section}.{key}"), message);
    }
}

/// Opens the judge; its answers are kept beside the result unless the settings name another file.
pub fn open(settings: &JudgeSettings, output: Option<&Path>) -> Outcome<JudgeClient> {
    let mut settings = settings.clone();
    settings.cache = settings.cache.or_else(|| output.map(|dir| dir.join("judge_cache.jsonl")));
    client(&settings, "judge")
}

/// Opens the client of a judge whose settings are in `section`.
///
/// # Errors
/// When its key is not there, or the file of its answers cannot be opened.
pub fn client(settings: &JudgeSettings, section: &str) -> Outcome<JudgeClient> {
    JudgeClient::open(settings).map_err(|error| match error {
        setpoint_eval::Error::NoKey { .. } => {
            Failure::from(error).hint(format!("for an endpoint without a key: --set {section}.api_key_env=\"\""))
        }
        error => error.into(),
    })
}

/// The judge in a manifest: what decides its answers.
pub fn identity(settings: &JudgeSettings, prompt: &str) -> Value {
    json!({ "model": settings.model, "base_url": settings.base_url, "prompt": prompt })
}

/// Describes the judge's cost in a line, with the reason of its failures.
pub fn spending(client: &JudgeClient) -> String {
    let spent = client.spending();
    let cost = spent.cost.map(|cost| format!(", cost {cost:.4}")).unwrap_or_default();
    let why = client.first_failure().map(|reason| format!("\nthe first that failed: {reason}")).unwrap_or_default();
    format!(
        "{} answers ({} more from the cache), {} attempts repeated, {} requests failed; {} prompt and {} completion tokens{cost}{why}",
        spent.answered, spent.cached, spent.retried, spent.failed, spent.prompt_tokens, spent.completion_tokens
    )
}
