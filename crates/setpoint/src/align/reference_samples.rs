//! Samples of the reference model that stand next to the rows, for levels that are estimated from them.

use std::collections::HashMap;

use serde_json::Value;
use setpoint_align::{LEAST_SAMPLES, ReferenceSample};
use setpoint_data::{DatasetConfig, Example, Record, Source, load_records};

use crate::failure::{Failure, Outcome};

/// The column of the samples: a list of texts or assistant messages.
pub const RESPONSES: &str = "reference_responses";
/// The column of their rewards: a list of numbers, one for each sample.
pub const REWARDS: &str = "reference_rewards";

/// Reads the samples of each example, with rewards as the file has them.
///
/// Examples hold the columns of their format alone, so the file is read again.
///
/// # Errors
/// When a row has no samples, fewer than [`LEAST_SAMPLES`], or not as many rewards.
pub fn read(data: &DatasetConfig, examples: &[Example]) -> Outcome<Vec<Vec<ReferenceSample>>> {
    let (records, _) = load_records(data)?;
    let records: HashMap<&Source, &Record> = records.iter().map(|record| (&record.source, record)).collect();
    let of = |example: &Example| match records.get(&example.source) {
        Some(record) => samples(record),
        None => Err(Failure::run(format!("{}: the row changed while it was read", example.source))),
    };
    examples.iter().map(of).collect()
}

fn samples(record: &Record) -> Outcome<Vec<ReferenceSample>> {
    let column = |name: &str| match record.extra.get(name) {
        Some(Value::Array(items)) => Ok(items),
        Some(_) => Err(Failure::run(format!("{}: `{name}` must be a list", record.source))),
        None => Err(wanted(format!(
            "{}: no column `{name}`; align.log_z0 = \"per_prompt\" needs at least {LEAST_SAMPLES} samples of the reference model for each \
             prompt",
            record.source
        ))),
    };
    let (texts, rewards) = (column(RESPONSES)?, column(REWARDS)?);
    if texts.len() != rewards.len() {
        let (found, expected) = (rewards.len(), texts.len());
        let reason = format!("{expected} entries in `{RESPONSES}`, but {found} in `{REWARDS}`: expected one for each");
        return Err(Failure::run(format!("{}: {reason}", record.source)));
    }
    if texts.len() < LEAST_SAMPLES {
        return Err(wanted(format!(
            "{}: {} reference samples; align.log_z0 = \"per_prompt\" needs at least {LEAST_SAMPLES} for each prompt",
            record.source,
            texts.len()
        )));
    }
    let sample = |(i, (text, reward)): (usize, (&Value, &Value))| {
        let wrong = |name: &str, expected: &str, found: &Value| {
            Failure::run(format!("{}: `{name}[{i}]` must be {expected}, found {found}", record.source))
        };
        let text = content(text).ok_or_else(|| wrong(RESPONSES, "text or an assistant message", text))?;
        let number = reward.as_f64().filter(|reward| reward.is_finite());
        let reward = number.ok_or_else(|| wrong(REWARDS, "a finite number", reward))?;
        // Templates trim what they print.
        let in_data = record.responses.iter().any(|response| response.text().trim() == text.trim());
        Ok(ReferenceSample { reward, in_data })
    };
    texts.iter().zip(rewards).enumerate().map(sample).collect()
}

/// The text of a response: itself, or the content of a message or of a list of one message.
fn content(value: &Value) -> Option<&str> {
    match value {
        Value::String(text) => Some(text),
        Value::Object(message) => message.get("content")?.as_str(),
        Value::Array(messages) if messages.len() == 1 => content(&messages[0]),
        _ => None,
    }
}

fn wanted(message: String) -> Failure {
    Failure::run(message).hint(
        "draw samples from the reference with `setpoint generate --set generate.samples=16`, score them with `setpoint annotate`, and \
         put both into these columns; or choose another align.log_z0",
    )
}
