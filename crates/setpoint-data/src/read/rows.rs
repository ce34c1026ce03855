//! A data set as the rows of its files, one after the other.

use std::collections::VecDeque;
use std::path::PathBuf;

use super::hub::Hub;
use super::{Rows, files, locate};
use crate::config::DatasetConfig;
use crate::error::{Error, RowProblem};
use crate::format::Row;
use crate::record::Source;

/// Opens a data set and returns its rows as they are, before any format is looked for: for data that are no records.
///
/// Of the configuration, where the data are, `columns` and `max_rows` count. The cells of a table are text. A row that cannot be parsed is an `Err` for which
/// [`Error::is_row`] holds, and the stream goes on behind it; after any other error it ends.
///
/// # Errors
/// When the data set, its split or its first file cannot be found or opened.
pub fn read_rows(config: &DatasetConfig) -> Result<RowStream, Error> {
    read_rows_from(config, &Hub::from_env())
}

/// [`read_rows`] with a hub client of the caller's own.
///
/// # Errors
/// As [`read_rows`].
pub fn read_rows_from(config: &DatasetConfig, hub: &Hub) -> Result<RowStream, Error> {
    let mut sets = VecDeque::new();
    for config in config.each() {
        sets.push_back((locate(&config, hub)?, config));
    }
    let mut stream = RowStream {
        config: config.clone(),
        sets,
        set: 0,
        files: Vec::new().into_iter(),
        bytes: 0,
        open: None,
        in_cells: false,
        read: 0,
        ended: false,
    };
    stream.begin_next_set()?;
    Ok(stream)
}

/// The rows of a data set, with their places. Made by [`read_rows`].
pub struct RowStream {
    /// The data set that is read now.
    pub(super) config: DatasetConfig,
    /// The data sets that follow, each with its files.
    sets: VecDeque<(Vec<PathBuf>, DatasetConfig)>,
    /// The number of data sets that were begun.
    set: usize,
    files: std::vec::IntoIter<PathBuf>,
    /// The length of all files of the data set.
    pub(super) bytes: u64,
    open: Option<Rows>,
    /// True if the open file is a table, whose cells are text.
    pub(super) in_cells: bool,
    /// Rows of the data set that were read.
    pub(super) read: usize,
    pub(super) ended: bool,
}

impl std::fmt::Debug for RowStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RowStream").field("path", &self.config.path).field("read", &self.read).finish_non_exhaustive()
    }
}

impl RowStream {
    /// Opens the first file of the next data set; false if there is none.
    fn begin_next_set(&mut self) -> Result<bool, Error> {
        let Some((files, config)) = self.sets.pop_front() else { return Ok(false) };
        self.bytes = files.iter().filter_map(|file| Some(std::fs::metadata(file).ok()?.len())).sum();
        self.files = files.into_iter();
        self.config = config;
        self.set += 1;
        self.read = 0;
        self.open_next()?;
        Ok(true)
    }

    fn open_next(&mut self) -> Result<bool, Error> {
        let Some(path) = self.files.next() else { return Ok(false) };
        self.open = Some(files::rows(&path)?);
        self.in_cells = path.file_name().and_then(|name| name.to_str()).is_some_and(files::is_table);
        Ok(true)
    }

    fn advance(&mut self) -> Result<Option<(Source, Row)>, Error> {
        loop {
            let is_whole = self.config.max_rows.is_some_and(|max| self.read >= max);
            let Some(row) = self.open.as_mut().filter(|_| !is_whole).and_then(Iterator::next) else {
                self.open = None;
                if !is_whole && self.open_next()? {
                    continue;
                }
                if self.read == 0 && !is_whole {
                    return Err(Error::Empty { dataset: self.config.path.clone() });
                }
                if self.begin_next_set()? {
                    continue;
                }
                return Ok(None);
            };
            self.read += 1;
            let (mut source, mut row) = row?;
            source.set = self.set - 1;
            rename(&mut row, &self.config, &source)?;
            return Ok(Some((source, row)));
        }
    }
}

/// Gives columns the names that the formats know them by, all at once: two columns can change places.
fn rename(row: &mut Row, config: &DatasetConfig, source: &Source) -> Result<(), Error> {
    let mut renamed = Vec::with_capacity(config.columns.len());
    for (expected, own) in &config.columns {
        match row.shift_remove(own) {
            Some(value) => renamed.push((expected.clone(), value)),
            None => {
                let found = row.keys().cloned().collect();
                let problem = RowProblem::NothingToRename { expected: expected.clone(), column: own.clone(), found };
                return Err(Error::Row { at: source.clone(), problem });
            }
        }
    }
    row.extend(renamed);
    Ok(())
}

impl Iterator for RowStream {
    type Item = Result<(Source, Row), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let next = self.advance();
        self.ended = match &next {
            Ok(None) => true,
            Ok(Some(_)) => false,
            Err(error) => !error.is_row(),
        };
        next.transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn renamed(columns: &[(&str, &str)], row: &str) -> Result<Row, String> {
        let columns = columns.iter().map(|(expected, own)| ((*expected).to_owned(), (*own).to_owned())).collect();
        let mut row: Row = serde_json::from_str(row).unwrap();
        let config = DatasetConfig { columns, ..DatasetConfig::new("test") };
        let source = Source::row(std::path::Path::new("test"), 0);
        rename(&mut row, &config, &source).map(|()| row).map_err(|error| error.to_string())
    }

    #[test]
    fn columns_change_places() {
        let expected = |text: &str| -> Row { serde_json::from_str(text).unwrap() };
        let row = r#"{"chosen": "bad", "rejected": "good", "id": 1}"#;
        let found = renamed(&[("chosen", "rejected"), ("rejected", "chosen")], row).unwrap();
        assert_eq!(found, expected(r#"{"id": 1, "chosen": "good", "rejected": "bad"}"#));
        let found = renamed(&[("a", "b"), ("b", "c"), ("c", "a")], r#"{"a": 1, "b": 2, "c": 3}"#).unwrap();
        assert_eq!(found, expected(r#"{"a": 2, "b": 3, "c": 1}"#));
        let found = renamed(&[("prompt", "q")], r#"{"q": "new", "prompt": "old"}"#).unwrap();
        assert_eq!(found, expected(r#"{"prompt": "new"}"#), "the column that is named wins");
    }

    #[test]
    fn a_column_is_renamed_once() {
        let said = renamed(&[("completion", "text"), ("prompt", "text")], r#"{"text": "a", "id": 1}"#).unwrap_err();
        assert!(said.contains("`text`") && said.contains("id"), "{said}");
    }
}
