//! Reading data sets: files, folders and hub ids as one stream of records.

mod files;
mod folder;
mod hub;
mod json;
mod parquet;
mod rows;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

pub use self::hub::Hub;
pub use self::rows::{RowStream, read_rows, read_rows_from};
use crate::config::{BadRows, DatasetConfig};
use crate::error::Error;
use crate::format::{Format, Row};
use crate::record::{Record, Source};

/// The rows of one file, with their places.
type Rows = Box<dyn Iterator<Item = Result<(Source, Row), Error>> + Send>;

/// Opens a data set and returns its records one by one.
///
/// JSON lines and Parquet are streamed (a line, a batch of rows at a time); a JSON array is read whole. The format is
/// detected from the first row of each file unless the configuration names it. A bad row is an `Err` for which
/// [`Error::is_row`] holds, and the stream goes on behind it; after any other error it ends.
///
/// # Errors
/// When the data set, its split or its first file cannot be found or opened.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use setpoint_data::{DatasetConfig, read_records};
///
/// let dir = tempfile::tempdir()?;
/// let path = dir.path().join("data.jsonl");
/// std::fs::write(&path, "{\"prompt\": \"2+2=\", \"completion\": \"4\"}\n")?;
/// for record in read_records(&DatasetConfig::new(path.to_str().unwrap()))? {
///     assert_eq!(record?.responses[0].text(), "4");
/// }
/// # Ok(())
/// # }
/// ```
pub fn read_records(config: &DatasetConfig) -> Result<RecordStream, Error> {
    read_records_from(config, &Hub::from_env())
}

/// [`read_records`] with a hub client of the caller's own.
///
/// # Errors
/// As [`read_records`].
pub fn read_records_from(config: &DatasetConfig, hub: &Hub) -> Result<RecordStream, Error> {
    Ok(RecordStream { rows: read_rows_from(config, hub)?, format: None })
}

/// The files of a data set, in order.
fn locate(config: &DatasetConfig, hub: &Hub) -> Result<Vec<PathBuf>, Error> {
    let path = Path::new(&config.path);
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    if path.is_dir() {
        return folder::select_local(path, config);
    }
    if hub::is_id(&config.path) {
        return hub.fetch(config);
    }
    Err(Error::NotFound { dataset: config.path.clone() })
}

/// The records of a data set. Made by [`read_records`].
pub struct RecordStream {
    rows: RowStream,
    /// The format of a file's rows.
    format: Option<(Arc<Path>, Format)>,
}

impl std::fmt::Debug for RecordStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecordStream")
            .field("path", &self.rows.config.path)
            .field("read", &self.rows.read)
            .finish_non_exhaustive()
    }
}

impl RecordStream {
    fn record(&mut self, source: Source, row: Row) -> Result<Record, Error> {
        let known = self.format.as_ref().filter(|(path, _)| *path == source.path).map(|(_, format)| *format);
        let format = match self.rows.config.format.or(known) {
            Some(format) => format,
            None => self.format.insert((source.path.clone(), detect(&row, &source)?)).1,
        };
        format.parse(row, source.clone(), &self.rows.config).map_err(|problem| Error::Row { at: source, problem })
    }
}

fn detect(row: &Row, source: &Source) -> Result<Format, Error> {
    Format::detect(row.keys().map(String::as_str)).ok_or_else(|| Error::UnknownFormat {
        at: source.clone(),
        columns: row.keys().map(String::as_str).collect::<Vec<_>>().join(", "),
    })
}

impl Iterator for RecordStream {
    type Item = Result<Record, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let record = match self.rows.next()? {
            Ok((source, row)) => self.record(source, row),
            Err(error) => Err(error),
        };
        self.rows.ended |= record.as_ref().is_err_and(|error| !error.is_row());
        Some(record)
    }
}

/// What became of the rows of a data set.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct ReadReport {
    /// Rows read.
    pub rows: usize,
    /// Rows that became records.
    pub kept: usize,
    /// Bad rows that were left out.
    pub dropped: usize,
    /// The errors of the first few of them.
    pub examples: Vec<String>,
}

/// Reads all records into memory and deals with bad rows as the configuration says.
///
/// # Errors
/// As [`read_records`]; with [`BadRows::Error`] also the first bad row; when no row is left, [`Error::Empty`].
pub fn load_records(config: &DatasetConfig) -> Result<(Vec<Record>, ReadReport), Error> {
    const EXAMPLES: usize = 5;
    let mut records = Vec::new();
    let mut report = ReadReport::default();
    for record in read_records(config)? {
        report.rows += 1;
        match record {
            Ok(record) => records.push(record),
            Err(error) if config.on_bad_row == BadRows::Drop && error.is_row() => {
                report.dropped += 1;
                if report.examples.len() < EXAMPLES {
                    report.examples.push(error.to_string());
                }
            }
            Err(error) => return Err(error),
        }
    }
    report.kept = records.len();
    if records.is_empty() {
        return Err(Error::Empty { dataset: config.path.clone() });
    }
    Ok((records, report))
}
