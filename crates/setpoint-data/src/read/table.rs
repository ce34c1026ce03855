//! CSV and TSV, streamed: a line of column names, then rows whose cells are text.

use std::collections::HashSet;
use std::io::{BufRead, Chain, Cursor, Error as Broken, ErrorKind, Read};
use std::path::Path;
use std::sync::Arc;

use csv_core::{ReadRecordResult, Reader as Parser, ReaderBuilder};
use serde_json::Value;

use super::Rows;
use crate::error::{Error, RowProblem};
use crate::format::Row;
use crate::record::Source;

/// The bytes that the cells of a row may hold together: as many as a line of JSON.
const LONGEST_ROW: usize = 256 << 20;
/// The most cells of a row.
const MOST_CELLS: usize = 10_000;

/// Rows under a line of names. Empty lines and rows of empty cells, as spreadsheets leave them, are skipped.
///
/// # Errors
/// When the line of names cannot be read, or gives a name twice.
pub(super) fn rows(path: &Path, input: impl BufRead + Send + 'static, delimiter: u8) -> Result<Rows, Error> {
    let input = without_mark(input).map_err(Error::io("read", path))?;
    let mut cells = Cells::new(input, delimiter, LONGEST_ROW);
    let read = cells.next_row().map_err(Error::io("read", path))?;
    let names = match read {
        Some((_, count)) => names(&cells, count).map_err(Error::io("read", path))?,
        None => Vec::new(),
    };
    Ok(Box::new(Table { path: path.into(), names, cells, row: 0, ended: false }))
}

/// Leaves out a byte order mark at the beginning.
fn without_mark<R: BufRead>(mut input: R) -> Result<Chain<Cursor<Vec<u8>>, R>, Broken> {
    let mut start = Vec::new();
    input.by_ref().take(3).read_to_end(&mut start)?;
    if start == b"\xef\xbb\xbf" {
        start.clear();
    }
    Ok(Cursor::new(start).chain(input))
}

/// The names of the columns. One without a name (the index that pandas writes) is left out of the rows.
fn names<R>(cells: &Cells<R>, count: usize) -> Result<Vec<String>, Broken> {
    let mut seen = HashSet::new();
    let mut names = Vec::with_capacity(count);
    for cell in cells.texts(count) {
        let name = std::str::from_utf8(cell).map_err(|_| broken("its first line is not valid UTF-8"))?.trim();
        if !name.is_empty() && !seen.insert(name) {
            let shown: String = name.chars().take(40).collect();
            return Err(broken(format!("its first line, the names of the columns, has `{shown}` twice")));
        }
        names.push(name.to_owned());
    }
    Ok(names)
}

fn broken(reason: impl Into<String>) -> Broken {
    Broken::new(ErrorKind::InvalidData, reason.into())
}

struct Table<R> {
    path: Arc<Path>,
    names: Vec<String>,
    cells: Cells<R>,
    row: usize,
    ended: bool,
}

impl<R: BufRead> Iterator for Table<R> {
    type Item = Result<(Source, Row), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.ended {
            match self.cells.next_row() {
                Ok(Some((_, count))) if self.cells.texts(count).all(<[u8]>::is_empty) => {}
                Ok(Some((line, count))) => {
                    let at = Source::line(self.path.clone(), self.row, line);
                    self.row += 1;
                    return Some(match row(&self.names, &self.cells, count) {
                        Ok(row) => Ok((at, row)),
                        Err(problem) => Err(Error::Row { at, problem }),
                    });
                }
                Ok(None) => self.ended = true,
                Err(error) => {
                    self.ended = true;
                    return Some(Err(Error::io("read", &*self.path)(error)));
                }
            }
        }
        None
    }
}

fn row<R>(names: &[String], cells: &Cells<R>, count: usize) -> Result<Row, RowProblem> {
    if count != names.len() {
        return Err(RowProblem::CellCount { found: count, expected: names.len() });
    }
    let mut row = Row::new();
    for (name, cell) in names.iter().zip(cells.texts(count)) {
        let text = std::str::from_utf8(cell).map_err(|_| RowProblem::NotUtf8 { column: name.clone() })?;
        if !name.is_empty() {
            row.insert(name.clone(), Value::String(text.to_owned()));
        }
    }
    Ok(row)
}

/// The cells of one row at a time, quotes resolved.
struct Cells<R> {
    input: R,
    parser: Parser,
    /// The texts of the row's cells, one after the other, and where each ends.
    text: Vec<u8>,
    ends: Vec<usize>,
    /// The line of the next byte, from 1.
    line: usize,
    longest: usize,
}

impl<R> Cells<R> {
    fn new(input: R, delimiter: u8, longest: usize) -> Self {
        let parser = ReaderBuilder::new().delimiter(delimiter).build();
        Self { input, parser, text: vec![0; longest.min(8 << 10)], ends: vec![0; 32], line: 1, longest }
    }

    /// The texts of the row that was read, so many cells.
    fn texts(&self, count: usize) -> impl Iterator<Item = &[u8]> {
        let mut from = 0;
        self.ends[..count].iter().map(move |&end| {
            let text = &self.text[from..end];
            from = end;
            text
        })
    }
}

impl<R: BufRead> Cells<R> {
    /// Reads a row; returns the line at which it begins and the number of its cells, `None` at the end.
    fn next_row(&mut self) -> Result<Option<(usize, usize)>, Broken> {
        if !self.skip_line_ends()? {
            return Ok(None);
        }
        let from = self.line;
        let (mut written, mut cells) = (0, 0);
        loop {
            let buffer = self.input.fill_buf()?;
            let at_end = buffer.is_empty();
            // A line end closes a last line that has none, unless it is within quotes.
            let bytes: &[u8] = if at_end { b"\n" } else { buffer };
            let (result, read, texts, ends) =
                self.parser.read_record(bytes, &mut self.text[written..], &mut self.ends[cells..]);
            written += texts;
            cells += ends;
            if !at_end {
                self.line += lines(&bytes[..read]);
                self.input.consume(read);
            }
            match result {
                ReadRecordResult::Record => return Ok(Some((from, cells))),
                ReadRecordResult::OutputFull if self.text.len() >= self.longest => {
                    return Err(broken(format!(
                        "the row at line {from} is longer than {} bytes; is a quote (\") in it never closed?",
                        self.longest
                    )));
                }
                ReadRecordResult::OutputFull => self.text.resize((2 * self.text.len()).min(self.longest), 0),
                ReadRecordResult::OutputEndsFull if self.ends.len() >= MOST_CELLS => {
                    return Err(broken(format!("the row at line {from} has more than {MOST_CELLS} cells")));
                }
                ReadRecordResult::OutputEndsFull => self.ends.resize((2 * self.ends.len()).min(MOST_CELLS), 0),
                ReadRecordResult::InputEmpty | ReadRecordResult::End if at_end => {
                    return Err(broken(format!("a quote (\") in the row at line {from} is never closed")));
                }
                ReadRecordResult::InputEmpty | ReadRecordResult::End => {}
            }
        }
    }

    /// Passes over line ends; whether anything follows.
    fn skip_line_ends(&mut self) -> Result<bool, Broken> {
        loop {
            let buffer = self.input.fill_buf()?;
            let count = buffer.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
            let (at_end, more) = (buffer.is_empty(), count < buffer.len());
            self.line += lines(&buffer[..count]);
            self.input.consume(count);
            if at_end || more {
                return Ok(more);
            }
        }
    }
}

/// The line ends in some bytes.
fn lines(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;

    type Rows = Vec<Result<(Source, Row), Error>>;

    /// Read in pieces of three bytes, so that rows go on in the next one.
    fn read(text: impl AsRef<[u8]>) -> Result<Rows, Error> {
        let input = BufReader::with_capacity(3, Cursor::new(text.as_ref().to_vec()));
        Ok(rows(Path::new("f.csv"), input, b',')?.collect())
    }

    fn values(text: impl AsRef<[u8]>) -> Vec<Value> {
        read(text).unwrap().into_iter().map(|row| Value::Object(row.unwrap().1)).collect()
    }

    #[test]
    fn cells_are_text_and_quotes_are_resolved() {
        let expected = serde_json::json!([{"a": "1", "b c": "x, \"y\"\nz"}, {"a": "", "b c": "é"}]);
        let expected = expected.as_array().unwrap();
        for text in [
            "a,b c\n1,\"x, \"\"y\"\"\nz\"\n,é\n",
            "a,b c\n1,\"x, \"\"y\"\"\nz\"\n,é",
            "\u{feff}\"a\", b c \r\n\r\n1,\"x, \"\"y\"\"\nz\"\r\n,\r\n,\"é\"",
            // The index of pandas.
            ",a,b c\n0,1,\"x, \"\"y\"\"\nz\"\n1,,é\n",
        ] {
            assert_eq!(&values(text), expected, "{text:?}");
        }
        let wide: String = (0..3000).map(|i| format!("c{i},")).collect();
        assert_eq!(values(format!("{wide}\n{wide}\n"))[0].as_object().unwrap().len(), 3000);
        assert!(values("").is_empty() && values("a,b\n").is_empty());
        let long = "x".repeat(100_000);
        assert_eq!(values(format!("a\n{long}\n")), [serde_json::json!({"a": long})]);
    }

    #[test]
    fn rows_are_named_by_the_line_at_which_they_begin() {
        let rows = read("a,b\n1,\"2\n3\"\n\n4,5\r\n6,7").unwrap();
        let places: Vec<_> =
            rows.into_iter().map(|row| row.unwrap().0).map(|at| (at.row, at.line.map(usize::from))).collect();
        assert_eq!(places, [(0, Some(2)), (1, Some(5)), (2, Some(6))]);
    }

    #[test]
    fn a_bad_row_is_named_and_the_next_one_read() {
        let rows = read(b"a,b\n1\n2,\xff\n3,4,5\n6,7\n").unwrap();
        let message = |row: usize| {
            let error = rows[row].as_ref().unwrap_err();
            assert!(error.is_row());
            error.to_string()
        };
        assert!(message(0).starts_with("f.csv:2: found 1 cell, expected 2"), "{}", message(0));
        assert!(message(1).starts_with("f.csv:3: `b` is not valid UTF-8"), "{}", message(1));
        assert!(message(2).starts_with("f.csv:4: found 3 cells, expected 2"), "{}", message(2));
        assert_eq!(rows[3].as_ref().unwrap().1["b"], "7");
    }

    #[test]
    fn what_cannot_be_read_on_ends_the_file() {
        for text in ["a,b\n1,2\n3,\"4\n5,6\n", "a,b\n1,2\n3,\"4"] {
            let rows = read(text).unwrap();
            assert_eq!(rows.len(), 2, "the rest is within the quote");
            let error = rows[1].as_ref().unwrap_err();
            assert!(!error.is_row() && error.to_string().contains("at line 3 is never closed"), "{error}");
        }
        let message = |text: &str| read(text).map(|rows| rows.len()).unwrap_err().to_string();
        assert!(message("a,b,a\n1,2,3\n").contains("has `a` twice"));
        assert!(message("\"a,b\n").contains("at line 1 is never closed"));
        assert!(message(&"x,".repeat(MOST_CELLS + 1)).contains("more than 10000 cells"));
    }

    #[test]
    fn rows_are_bounded() {
        let mut cells = Cells::new(Cursor::new("a,b\n123,4567\n12345,6789\n"), b',', 8);
        assert_eq!(cells.next_row().unwrap(), Some((1, 2)));
        assert_eq!(cells.next_row().unwrap(), Some((2, 2)));
        let message = cells.next_row().unwrap_err().to_string();
        assert!(message.starts_with("the row at line 3 is longer than 8 bytes"), "{message}");
    }
}
