//! Comma-separated values. Built on csv-core: the csv crate turns on a feature of serde that everything else would be built again for.

use std::path::{Path, PathBuf};

use csv_core::{ReadRecordResult, Reader};
use setpoint_files::{LARGE, read_up_to};

use crate::error::Error;

/// The records of a file, quoted fields resolved.
pub(crate) fn read_records(path: &Path) -> Result<Vec<Vec<String>>, Error> {
    let whole = read_up_to(path, LARGE)?;
    // Spreadsheets write a byte order mark.
    let bytes = whole.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&whole);
    let mut reader = Reader::new();
    let (mut text, mut ends) = (vec![0; bytes.len() + 1], vec![0; bytes.len() + 1]);
    let (mut at, mut out, mut fields) = (0, 0, 0);
    let mut records = Vec::new();
    loop {
        let (result, read, written, ended) = reader.read_record(&bytes[at..], &mut text[out..], &mut ends[fields..]);
        at += read;
        out += written;
        fields += ended;
        match result {
            // At the end of the file the last record is closed by a call without input.
            ReadRecordResult::InputEmpty => {}
            ReadRecordResult::Record => {
                let mut from = 0;
                let mut record = Vec::with_capacity(fields);
                for &end in &ends[..fields] {
                    let field = std::str::from_utf8(&text[from..end]);
                    record.push(field.map_err(|e| Error::row(path, records.len() + 1, e))?.to_owned());
                    from = end;
                }
                records.push(record);
                (out, fields) = (0, 0);
            }
            ReadRecordResult::End => return Ok(records),
            // A record is never longer than its file.
            ReadRecordResult::OutputFull | ReadRecordResult::OutputEndsFull => {
                return Err(Error::file(path, "a record does not fit into the file's own length"));
            }
        }
    }
}

/// Records under a line of names.
pub(crate) struct Table {
    path: PathBuf,
    names: Vec<String>,
    records: Vec<Vec<String>>,
}

impl Table {
    /// Reads a file whose first line names the columns.
    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        let mut records = read_records(path)?;
        if records.len() < 2 {
            return Err(Error::file(path, "holds no rows under a line of column names"));
        }
        let names = records.remove(0);
        match records.iter().position(|r| r.len() != names.len()) {
            Some(row) => {
                let found = records[row].len();
                Err(Error::row(
                    path,
                    row + 1,
                    format!("{found} columns, expected {} as in the first line", names.len()),
                ))
            }
            None => Ok(Self { path: path.to_owned(), names, records }),
        }
    }

    /// Numbers of a column; an empty field is none. `None` where there is no such column.
    pub(crate) fn optional(&self, name: &str) -> Result<Option<Vec<Option<f64>>>, Error> {
        let Some(column) = self.names.iter().position(|n| n == name) else { return Ok(None) };
        let number = |(row, record): (usize, &Vec<String>)| match record[column].trim() {
            "" => Ok(None),
            text => text
                .parse()
                .map(Some)
                .map_err(|_| Error::row(&self.path, row + 1, format!("expected a number in `{name}`, found `{text}`"))),
        };
        self.records.iter().enumerate().map(number).collect::<Result<_, _>>().map(Some)
    }

    /// Numbers of a column that must be there, in every row.
    pub(crate) fn numbers(&self, name: &str) -> Result<Vec<f64>, Error> {
        let column = self.optional(name)?;
        let column = column.ok_or_else(|| Error::file(&self.path, format!("has no column `{name}`")))?;
        let missing = |row| Error::row(&self.path, row + 1, format!("`{name}` is empty"));
        column.into_iter().enumerate().map(|(row, v)| v.ok_or_else(|| missing(row))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn quotes_line_ends_and_a_last_line_without_end_are_understood() {
        let file = file("a,\"b \"\"q\"\",\nc\",d\r\n1,,\"\"\n\u{e9},2,3");
        let got = read_records(file.path()).unwrap();
        assert_eq!(got, [vec!["a", "b \"q\",\nc", "d"], vec!["1", "", ""], vec!["\u{e9}", "2", "3"]]);
        let marked = read_records(self::file("\u{feff}\"a\",b\n1,2\n").path()).unwrap();
        assert_eq!(marked, [["a", "b"], ["1", "2"]]);
    }

    #[test]
    fn columns_are_found_by_name_and_checked() {
        let good = file("x,y\n1,2.5\n3,\n");
        let table = Table::read(good.path()).unwrap();
        assert_eq!(table.numbers("x").unwrap(), [1.0, 3.0]);
        assert_eq!(table.optional("y").unwrap(), Some(vec![Some(2.5), None]));
        assert_eq!(table.optional("z").unwrap(), None);
        assert!(matches!(table.numbers("y"), Err(Error::Row { row: 2, .. })));
        assert!(matches!(table.numbers("z"), Err(Error::File { .. })));
        assert!(matches!(Table::read(file("x,y\n1\n").path()), Err(Error::Row { row: 1, .. })));
        assert!(matches!(Table::read(file("x\nword\n").path()).unwrap().numbers("x"), Err(Error::Row { row: 1, .. })));
        assert!(matches!(Table::read(file("x,y\n").path()), Err(Error::File { .. })));
    }
}
