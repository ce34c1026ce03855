//! Samples of the reference model that are columns of the rows. `annotate --reference-samples` writes them, and methods read them whose
//! targets are estimated from them.

use std::path::Path;

use serde_json::Value;
use setpoint_align::{LEAST_SAMPLES, ReferenceSample};
use setpoint_data::{DatasetConfig, Example, ExampleStore, Pieces, Record, RecordChunks, Source, counted};

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
    /// Reads the samples of each example, with rewards as the file has them. `examples`: those of the file, in its order. `folder`: where the
    /// samples go if there are more than `limit` bytes of them.
    ///
    /// Examples hold the columns of their format alone, so the file is read again.
    ///
    /// # Errors
    /// When a row has no samples, fewer than [`LEAST_SAMPLES`], or not as many rewards.
    pub fn read(&self, examples: &ExampleStore, folder: &Path, limit: usize) -> Outcome<SampleStore> {
        let mut samples = SampleStore(Pieces::new(folder, limit));
        let mut others = Others::default();
        let mut chunks = RecordChunks::open(self.data);
        let mut records = Vec::<Record>::new().into_iter();
        for example in examples.iter() {
            let example = example?;
            let record = loop {
                match records.next() {
                    Some(record) if record.source == example.source => break record,
                    Some(_) => {}
                    None => match chunks.next_chunk()? {
                        Some(chunk) => records = chunk.into_iter(),
                        None => return Err(changed(&example)),
                    },
                }
            };
            samples.push(&self.samples(&record)?)?;
            if let Some(reference) = self.reference {
                others.look_at(&record, reference)?;
            }
        }
        if let Some(reference) = self.reference {
            others.warn(reference);
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

fn changed(example: &Example) -> Failure {
    Failure::run(format!("{}: the row changed while it was read", example.source))
}

/// Rows whose samples are noted to come from another model than the reference.
#[derive(Debug, Default)]
struct Others {
    count: usize,
    first: Option<Source>,
    /// The identity of the reference, once a row notes any.
    own: Option<String>,
}

impl Others {
    fn look_at(&mut self, record: &Record, reference: &Path) -> Outcome {
        let Some(noted) = column(record, SETTINGS).and_then(|settings| settings.get(MODEL)?.as_str()) else {
            return Ok(());
        };
        let own = match &self.own {
            Some(own) => own,
            None => self.own.insert(model_note(&setup::model_hash(reference)?).to_owned()),
        };
        if noted != own {
            self.count += 1;
            self.first.get_or_insert_with(|| record.source.clone());
        }
        Ok(())
    }

    fn warn(&self, reference: &Path) {
        if let Some(first) = &self.first {
            log::warn!(
                "the samples of {} come from another model than the reference {}, and log Z(x) is estimated for that one; the first: \
                 {first}",
                counted(self.count, "row"),
                reference.display()
            );
        }
    }
}

/// The samples of the reference model for each row, which are on disk if they are many.
#[derive(Debug)]
pub struct SampleStore(Pieces);

impl SampleStore {
    /// Keeps samples in memory.
    ///
    /// # Errors
    /// None that can occur without a file.
    pub fn in_memory(rows: &[Vec<ReferenceSample>]) -> Outcome<Self> {
        let mut store = Self(Pieces::new("", usize::MAX));
        rows.iter().try_for_each(|samples| store.push(samples))?;
        Ok(store)
    }

    /// Adds the samples of the next row.
    fn push(&mut self, samples: &[ReferenceSample]) -> Outcome {
        let bytes = |sample: &ReferenceSample| [&sample.reward.to_le_bytes()[..], &[u8::from(sample.in_data)]].concat();
        Ok(self.0.push(&samples.iter().flat_map(bytes).collect::<Vec<u8>>())?)
    }

    /// Returns the samples of a row.
    ///
    /// # Errors
    /// When they cannot be read back.
    pub fn get(&self, row: usize) -> Outcome<Vec<ReferenceSample>> {
        let sample = |[reward @ .., in_data]: &[u8; 9]| ReferenceSample {
            reward: f64::from_le_bytes(*reward),
            in_data: *in_data != 0,
        };
        Ok(self.0.get(row)?.as_chunks().0.iter().map(sample).collect())
    }

    /// Returns the samples of all rows.
    ///
    /// # Errors
    /// When some cannot be read back.
    pub fn all(&self) -> Outcome<Vec<Vec<ReferenceSample>>> {
        (0..self.0.len()).map(|row| self.get(row)).collect()
    }
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
    fn samples_come_back_as_they_were() {
        let sample = |reward: f64| ReferenceSample { reward, in_data: reward > 0.0 };
        let rows = [vec![sample(1.5), sample(-0.1)], vec![], vec![sample(f64::MIN_POSITIVE)]];
        assert_eq!(SampleStore::in_memory(&rows).unwrap().all().unwrap(), rows);
    }

    #[test]
    fn the_command_names_what_is_known() {
        let known = command("my rows.jsonl", Some(Path::new("runs/sft/model")));
        assert!(known.contains("--reference runs/sft/model ") && known.contains("--data 'my rows.jsonl' "), "{known}");
        assert!(command("rows.jsonl", None).contains("--reference REFERENCE "));
    }
}
