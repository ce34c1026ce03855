//! Samples of the reference model that are columns of the rows. `annotate --reference-samples` writes them, and methods read them whose
//! targets are estimated from them.

use std::collections::HashMap;
use std::path::Path;

use serde_json::Value;
use setpoint_align::{LEAST_SAMPLES, ReferenceSample};
use setpoint_data::{DatasetConfig, Example, Record, Source, counted, load_records};

use crate::failure::{Failure, Outcome};
use crate::job::word;
use crate::setup;

/// The column of the samples: a list of texts or assistant messages.
pub const RESPONSES: &str = "reference_responses";
/// The column of their rewards: a list of numbers, one for each sample.
pub const REWARDS: &str = "reference_rewards";
/// The column that says how the samples were made, if `annotate` made them: an object.
pub const SETTINGS: &str = "reference_settings";
/// The entry of [`SETTINGS`] that identifies the model, by [`model_note`].
pub const MODEL: &str = "model";

/// Returns the identity of a model as the rows note it: the beginning of its hash.
pub fn model_note(hash: &str) -> &str {
    hash.get(..16).unwrap_or(hash)
}

/// Returns a column of a row; a null is none, since Parquet has one in every row that lacks the column.
pub fn column<'r>(record: &'r Record, name: &str) -> Option<&'r Value> {
    record.extra.get(name).filter(|value| !value.is_null())
}

/// A reader of the samples of a file's rows.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    /// The setting that asks for them, with its value.
    pub setting: &'a str,
    /// The file.
    pub data: &'a DatasetConfig,
    /// The model that they should come from, if it is known.
    pub reference: Option<&'a Path>,
}

impl Reader<'_> {
    /// Reads the samples of each example, with rewards as the file has them.
    ///
    /// Examples hold the columns of their format alone, so the file is read again.
    ///
    /// # Errors
    /// When a row has no samples, fewer than [`LEAST_SAMPLES`], or not as many rewards.
    pub fn read(&self, examples: &[Example]) -> Outcome<Vec<Vec<ReferenceSample>>> {
        let (records, _) = load_records(self.data)?;
        let records: HashMap<&Source, &Record> = records.iter().map(|record| (&record.source, record)).collect();
        let of = |example: &Example| match records.get(&example.source) {
            Some(record) => self.samples(record),
            None => Err(Failure::run(format!("{}: the row changed while it was read", example.source))),
        };
        let samples = examples.iter().map(of).collect::<Outcome<_>>()?;
        if let Some(reference) = self.reference {
            let own = examples.iter().filter_map(|example| records.get(&example.source).copied());
            warn_of_other_model(own, reference)?;
        }
        Ok(samples)
    }

    fn samples(&self, record: &Record) -> Outcome<Vec<ReferenceSample>> {
        let setting = self.setting;
        let wanted = |message: String| Failure::run(message).hint(self.remedy());
        let list = |name: &str| match column(record, name) {
            Some(Value::Array(items)) => Ok(items),
            Some(_) => Err(Failure::run(format!("{}: `{name}` must be a list", record.source))),
            None => Err(wanted(format!(
                "{}: no column `{name}`; {setting} needs at least {LEAST_SAMPLES} samples of the reference model for each prompt",
                record.source
            ))),
        };
        let (texts, rewards) = (list(RESPONSES)?, list(REWARDS)?);
        if texts.len() != rewards.len() {
            let (found, expected) = (rewards.len(), texts.len());
            let reason =
                format!("{expected} entries in `{RESPONSES}`, but {found} in `{REWARDS}`: expected one for each");
            return Err(Failure::run(format!("{}: {reason}", record.source)));
        }
        if texts.len() < LEAST_SAMPLES {
            return Err(wanted(format!(
                "{}: {}; {setting} needs at least {LEAST_SAMPLES} for each prompt",
                record.source,
                counted(texts.len(), "reference sample")
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

    /// Says how rows get samples.
    fn remedy(&self) -> String {
        format!(
            "`{}` draws and scores them (a rule, a command or a judge may score them instead of --model: docs/REWARDS.md); or do \
             without {}",
            command(&self.data.each()[0].path, self.reference),
            self.setting
        )
    }
}

/// Warns of samples that are noted to come from another model than the reference.
fn warn_of_other_model<'r>(records: impl Iterator<Item = &'r Record>, reference: &Path) -> Outcome {
    let noted: Vec<(&Record, &str)> =
        records.filter_map(|record| Some((record, column(record, SETTINGS)?.get(MODEL)?.as_str()?))).collect();
    if noted.is_empty() {
        return Ok(());
    }
    let hash = setup::model_hash(reference)?;
    let own = model_note(&hash);
    let other: Vec<&Record> = noted.iter().filter(|(_, model)| *model != own).map(|(record, _)| *record).collect();
    if let Some(first) = other.first() {
        log::warn!(
            "the samples of {} come from another model than the reference {}, and log Z(x) is estimated for that one; the first: {}",
            counted(other.len(), "row"),
            reference.display(),
            first.source
        );
    }
    Ok(())
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

/// Returns the command that draws samples for the rows of a file and scores them.
pub fn command(data: &str, reference: Option<&Path>) -> String {
    let reference = reference.map_or("REFERENCE".into(), word);
    let data = word(Path::new(data));
    format!(
        "setpoint annotate --model REWARD_MODEL --reference {reference} --reference-samples 16 --data {data} --output \
         sampled.jsonl"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_names_what_is_known() {
        let known = command("my rows.jsonl", Some(Path::new("runs/sft/model")));
        assert!(known.contains("--reference runs/sft/model ") && known.contains("--data 'my rows.jsonl' "), "{known}");
        assert!(command("rows.jsonl", None).contains("--reference REFERENCE "));
    }
}
