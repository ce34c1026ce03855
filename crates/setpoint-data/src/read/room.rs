//! The memory that records may take.

use serde_json::{Map, Value};

use crate::config::DatasetConfig;
use crate::error::Error;
use crate::record::{Message, Prompt, Record, Response};

/// The memory that a data set's records may take: compressed files of a few bytes can hold more rows than any memory.
#[derive(Debug)]
pub(super) struct Room {
    files: u64,
    /// The bytes that the records so far take.
    pub(super) taken: u64,
    most: u64,
}

impl Room {
    /// The bytes that records always may take, and the bytes for each byte of their files.
    const ALWAYS: u64 = 512 << 20;
    const DENSEST: u64 = 256;

    /// The room for the records of files of this length, in bytes.
    pub(super) fn of(files: u64) -> Self {
        Self { files, taken: 0, most: files.saturating_mul(Self::DENSEST).max(Self::ALWAYS) }
    }

    /// Counts a record, which is read in this row.
    ///
    /// # Errors
    /// When the records take more than their files allow.
    pub(super) fn take(&mut self, record: &Record, rows: usize, config: &DatasetConfig) -> Result<(), Error> {
        self.taken += footprint(record);
        if self.taken <= self.most {
            return Ok(());
        }
        let (dataset, bytes, files) = (config.path.clone(), self.taken, self.files);
        Err(Error::TooDense { dataset, rows, bytes, files })
    }
}

/// About how many bytes a record takes.
fn footprint(record: &Record) -> u64 {
    let message = |m: &Message| size_of::<Message>() + m.role.len() + m.content.len() + map(&m.extra);
    let prompt = match &record.prompt {
        Prompt::Text(text) => text.len(),
        Prompt::Messages(messages) => messages.iter().map(message).sum(),
    };
    let response = |r: &Response| size_of::<Response>() + message(&r.message);
    let responses: usize = record.responses.iter().map(response).sum();
    (size_of::<Record>() + prompt + responses + map(&record.extra)) as u64
}

fn map(fields: &Map<String, Value>) -> usize {
    fields.iter().map(|(key, field)| key.len() + weight(field) + size_of::<(String, Value)>()).sum()
}

fn weight(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(|item| size_of::<Value>() + weight(item)).sum(),
        Value::Object(fields) => map(fields),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_a_dense_file_are_bounded() {
        let record = Record::new(Prompt::Text("x".repeat(1000)), vec![Response::new("y")]);
        assert!((1000..2000).contains(&footprint(&record)));
        let mut room = Room { most: 3000, ..Room::of(10) };
        let config = DatasetConfig::new("train.parquet");
        let message = (1..9).find_map(|row| room.take(&record, row, &config).err()).unwrap().to_string();
        assert!(message.starts_with("train.parquet: its first 3 rows take "), "{message}");
        assert_eq!(Room::of(1 << 40).most, 256 << 40);
    }
}
