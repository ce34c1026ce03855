//! What every benchmark writes: `result.json`, with the manifest of how it came about.

use std::path::Path;

use serde::Serialize;
use serde_json::{Value, json};
use setpoint_eval::{EvalItem, EvalRun, JudgeClient, JudgeSettings, JudgeSpending, Manifest, ModelIdentity};

use crate::config::Problems;
use crate::config::sections::ModelSection;
use crate::failure::{Failure, Outcome};
use crate::recipes::setup;

/// A manifest that the benchmark fills in further.
pub fn manifest(benchmark: &str, model: ModelIdentity, data: String) -> Manifest {
    Manifest {
        benchmark: benchmark.to_owned(),
        setpoint: env!("CARGO_PKG_VERSION").to_owned(),
        model,
        baseline: None,
        decoding: Value::Null,
        data,
        judge: Value::Null,
        scoring: Value::Null,
    }
}

/// A model's name and hashes, from its folder.
pub fn identity(model: &ModelSection, name: Option<&str>, fingerprint: String) -> Outcome<ModelIdentity> {
    let hash = model.path.as_deref().map(setup::model_hash).transpose()?;
    Ok(ModelIdentity { name: model_name(model, name), hash, template: Some(fingerprint) })
}

/// The name given, else that of the folder; of a run's `model` folder, the run's.
pub fn model_name(model: &ModelSection, name: Option<&str>) -> String {
    if let Some(name) = name {
        return name.to_owned();
    }
    let path = model.path.clone().unwrap_or_default();
    let parts: Vec<String> = path.iter().map(|p| p.to_string_lossy().into_owned()).collect();
    match parts.as_slice() {
        [.., run, last] if last == "model" => run.clone(),
        [.., last] => last.clone(),
        [] => "model".to_owned(),
    }
}

/// Writes `result.json` into the folder.
pub fn write(dir: &Path, manifest: Manifest, scores: Value, items: Vec<EvalItem>) -> Outcome {
    write_json(&dir.join("result.json"), &EvalRun { manifest, scores, items })
}

/// Pretty JSON, replaced only when it is whole.
pub fn write_json(path: &Path, value: &impl Serialize) -> Outcome {
    setup::write_text(path, &(serde_json::to_string_pretty(value)? + "\n"))
}

/// JSON lines, replaced only when they are whole.
pub fn write_lines<T: Serialize>(path: &Path, rows: &[T]) -> Outcome {
    let lines: Vec<String> = rows.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
    setup::write_text(path, &(lines.join("\n") + "\n"))
}

/// Makes the folder of a result.
pub fn folder(dir: &Path) -> Outcome {
    std::fs::create_dir_all(dir).map_err(|e| Failure::run(format!("cannot create {}: {e}", dir.display())))
}

/// Notes what is wrong with the `[judge]` section.
pub fn validate_judge(judge: &JudgeSettings, section: &str, problems: &mut Problems<'_>) {
    for (key, message) in judge.problems() {
        problems.add(&format!("{section}.{key}"), message);
    }
}

/// Opens the judge; its answers are kept beside the result unless the settings name another file.
pub fn judge(settings: &JudgeSettings, output: Option<&Path>) -> Outcome<JudgeClient> {
    let mut settings = settings.clone();
    settings.cache = settings.cache.or_else(|| output.map(|dir| dir.join("judge_cache.jsonl")));
    JudgeClient::open(&settings).map_err(|error| {
        let hint = match &error {
            setpoint_eval::Error::NoKey { .. } => Some("for an endpoint without a key: --set judge.api_key_env=\"\""),
            _ => None,
        };
        let failure = Failure::from(error);
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    })
}

/// The judge in a manifest: what decides its answers.
pub fn judge_identity(settings: &JudgeSettings, prompt: &str) -> Value {
    json!({ "model": settings.model, "base_url": settings.base_url, "prompt": prompt })
}

/// What the judge cost, in a line.
pub fn spending(spent: &JudgeSpending) -> String {
    let cost = spent.cost.map(|cost| format!(", cost {cost:.4}")).unwrap_or_default();
    format!(
        "{} answers ({} more from the cache), {} attempts repeated, {} requests failed; {} prompt and {} completion tokens{cost}",
        spent.answered, spent.cached, spent.retried, spent.failed, spent.prompt_tokens, spent.completion_tokens
    )
}
