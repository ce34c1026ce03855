//! Reading data sets: files, folders and hub ids as one stream of records.

mod chunks;
mod files;
mod folder;
mod hub;
mod json;
mod parquet;
mod room;
mod rows;
mod table;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use self::chunks::{ReadReport, RecordChunks, SourceReport, load_records};
pub use self::hub::{Hub, HubModel, Push, PushFile, Pushed};
pub use self::rows::{RowStream, read_rows, read_rows_from};
use crate::config::DatasetConfig;
use crate::error::Error;
use crate::format::{Format, Row};
use crate::record::{Record, Source};

/// The rows of one file, with their places.
type Rows = Box<dyn Iterator<Item = Result<(Source, Row), Error>> + Send>;

/// Opens a data set and returns its records one by one.
///
/// JSON lines, tables and Parquet are streamed (a line, a row, a batch of rows at a time); a JSON array is read whole. The format is
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
    if let Ok(found) = path.metadata() {
        // Rows are read more than once, which a pipe cannot give.
        let kind = setpoint_files::kind(found.file_type());
        return Err(Error::NoDataFile { path: path.to_owned(), kind });
    }
    // The name of a file that does not exist is no reason to ask a server.
    if files::is_file_name(&config.path) || config.path.ends_with('/') {
        return Err(Error::NoFile { path: path.to_owned() });
    }
    if hub::is_id(&config.path) {
        return hub.fetch(config);
    }
    Err(Error::NotFound { dataset: config.path.clone() })
}

/// The records of a data set. Made by [`read_records`].
pub struct RecordStream {
    rows: RowStream,
    /// The format of a file's rows. A file may belong to two data sets, with different columns.
    format: Option<((Arc<Path>, usize), Format)>,
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
    /// Returns the next record with the row that it was read from.
    pub fn next_with_row(&mut self) -> Option<Result<(Row, Record), Error>> {
        let found = match self.rows.next()? {
            Ok((source, row)) => self.record(source, row.clone()).map(|record| (row, record)),
            Err(error) => Err(error),
        };
        self.rows.ended |= found.as_ref().is_err_and(|error| !error.is_row());
        Some(found)
    }

    /// Returns whether the file that is being read is a table, in whose rows everything is text.
    #[must_use]
    pub fn is_in_table(&self) -> bool {
        self.rows.in_cells
    }

    fn record(&mut self, source: Source, row: Row) -> Result<Record, Error> {
        let place = (source.path.clone(), source.set);
        let known = self.format.as_ref().filter(|(known, _)| *known == place).map(|(_, format)| *format);
        let format = match self.rows.config.format.or(known) {
            Some(format) => format,
            None => self.format.insert((place, detect(&row, &source)?)).1,
        };
        let config = &self.rows.config;
        let record = if self.rows.in_cells {
            format.parse_cells(row, source.clone(), config)
        } else {
            format.parse(row, source.clone(), config)
        };
        record.map_err(|problem| Error::Row { at: source, problem })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_does_not_exist_is_not_looked_for_on_the_hub() {
        let dir = tempfile::tempdir().unwrap();
        // A request would fail otherwise, and name the server.
        let hub = Hub::new("http://127.0.0.1:1", dir.path());
        let message = |path: &str| match read_records_from(&DatasetConfig::new(path), &hub) {
            Ok(_) => panic!("{path} was found"),
            Err(error) => error.to_string(),
        };
        for path in [
            "data/train.jsonl",
            "data/train.json",
            "data/Train.JSONL.gz",
            "x/y.parquet",
            "x/y.csv",
            "train.ndjson",
            "no/such/dir/",
        ] {
            assert_eq!(message(path), format!("{path}: no such file or folder. Check the path"));
        }
        for path in ["data/train/more", "a/b/c/d", "train", "./owner/name"] {
            assert!(message(path).starts_with(&format!("{path}: no such file or folder, and not a hub id")), "{path}");
        }
        assert!(message("owner/name").contains("http://127.0.0.1:1"));
    }
}
