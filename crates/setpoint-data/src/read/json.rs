//! JSON lines, streamed, and JSON documents: an array of rows or `{"data": [...]}`.

use std::io::{BufRead, Read};
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use setpoint_files::words;

use super::Rows;
use crate::error::{Error, RowProblem};
use crate::format::Row;
use crate::record::Source;
use crate::unique::{MOST_VALUES, parse, parse_first};

/// The longest line. A few bytes of gzip can hold one without end.
const LONGEST_LINE: u64 = 256 << 20;

/// The lines of a text as bytes, each without its end. Nothing follows an error.
fn split(mut reader: impl BufRead, most: u64) -> impl Iterator<Item = std::io::Result<Vec<u8>>> {
    let mut ended = false;
    std::iter::from_fn(move || {
        if ended {
            return None;
        }
        let mut line = Vec::new();
        let result = match reader.by_ref().take(most + 1).read_until(b'\n', &mut line) {
            Ok(0) => return None,
            Ok(_) if line.last() == Some(&b'\n') => {
                line.pop();
                Ok(line)
            }
            Ok(count) if count as u64 > most => {
                let reason = format!("a line is longer than {most} bytes");
                Err(std::io::Error::new(std::io::ErrorKind::InvalidData, reason))
            }
            Ok(_) => Ok(line),
            Err(error) => Err(error),
        };
        ended = result.is_err();
        Some(result)
    })
}

/// Rows from lines. Empty lines are skipped; a byte order mark at the beginning is, too.
pub(super) fn lines(path: &Path, reader: impl BufRead + Send + 'static) -> Rows {
    let path: Arc<Path> = path.into();
    let mut row = 0;
    // Bytes, not `BufRead::lines`: a line that is not UTF-8 must be an error with a place, and reading goes on behind it.
    let rows = split(reader, LONGEST_LINE).enumerate().filter_map(move |(index, line)| {
        let line = match line {
            Ok(line) => line,
            Err(source) => return Some(Err(Error::io("read", &*path)(source))),
        };
        let text = if index == 0 { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&line) } else { &line };
        if text.iter().all(u8::is_ascii_whitespace) {
            return None;
        }
        let at = Source::line(path.clone(), row, index + 1);
        row += 1;
        Some(match parse(text, MOST_VALUES) {
            Ok(value) => object(value, at),
            Err(error) => Err(Error::Json { reason: explain(&error, text), at }),
        })
    });
    Box::new(rows)
}

/// Rows from one document of at most `most` bytes and `values` values, or from lines where a `.json` file holds those.
pub(super) fn document(path: &Path, reader: impl Read, most: u64, values: usize) -> Result<Rows, Error> {
    let mut bytes = Vec::new();
    reader.take(most.saturating_add(1)).read_to_end(&mut bytes).map_err(Error::io("read", path))?;
    if bytes.len() as u64 > most {
        let reason = format!("it unpacks to more than {most} bytes, which no such document does");
        return Err(Error::io("read", path)(std::io::Error::new(std::io::ErrorKind::InvalidData, reason)));
    }
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let at = |row| Source::row(path, row);
    if text.iter().all(u8::is_ascii_whitespace) {
        return Ok(Box::new(std::iter::empty()));
    }
    let items = match parse_first(text, values) {
        // A second object behind the first one: JSON lines under the wrong name, as on the hub.
        Ok((Value::Object(_), false)) => return Ok(lines(path, std::io::Cursor::new(bytes))),
        Ok((Value::Array(items), true)) => items,
        Ok((Value::Object(mut fields), true)) => match fields.shift_remove("data") {
            Some(Value::Array(items)) => items,
            _ => {
                let reason = "it is one object; expected an array of rows, an object with an array `data`, or an object on \
                              each of several lines (a single row is given as .jsonl)";
                return Err(Error::Json { at: at(0), reason: reason.into() });
            }
        },
        Ok((_, at_end)) => {
            let reason = if at_end { "expected an array of rows" } else { "text behind the array" };
            return Err(Error::Json { at: at(0), reason: reason.into() });
        }
        Err(error) => {
            let line = error.line();
            let at = Source::line(path, 0, line);
            // Not a bad row but an unreadable file: nothing follows that could be read.
            return Err(Error::Io {
                action: "parse",
                path: path.to_owned(),
                source: std::io::Error::new(
                    std::io::ErrorKind::InvalidData,
                    format!("{at}: not valid JSON: {}", explain(&error, line_of(text, line))),
                ),
            });
        }
    };
    let path: Arc<Path> = path.into();
    let rows = items.into_iter().enumerate().map(move |(row, value)| object(value, Source::row(path.clone(), row)));
    Ok(Box::new(rows))
}

fn object(value: Value, at: Source) -> Result<(Source, Row), Error> {
    match value {
        Value::Object(row) => Ok((at, row)),
        other => {
            let problem = RowProblem::NotAnObject { found: crate::format::describe(&other) };
            Err(Error::Row { at, problem })
        }
    }
}

fn line_of(text: &[u8], line: usize) -> &[u8] {
    text.split(|b| *b == b'\n').nth(line.saturating_sub(1)).unwrap_or_default()
}

/// serde_json's reason, and what Python's `json.dumps` does to cause it.
fn explain(error: &serde_json::Error, line: &[u8]) -> String {
    let reason = words::json_in_line(error);
    let from = error.column().saturating_sub(2).min(line.len());
    let near = &line[from..line.len().min(from + 12)];
    let is = |word: &[u8]| near.windows(word.len()).any(|w| w == word);
    if is(b"NaN") || is(b"Inf") {
        return format!(
            "{reason}: NaN and Infinity are not JSON (Python writes them for missing or broken rewards). Replace or remove the row"
        );
    }
    reason
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_lines(text: &str) -> Vec<Result<(Source, Row), Error>> {
        lines(Path::new("f.jsonl"), std::io::Cursor::new(text.as_bytes().to_vec())).collect()
    }

    #[test]
    fn lines_count_from_one_and_empty_ones_are_skipped() {
        let rows = read_lines("\u{feff}{\"a\": 1}\r\n\n  \n{\"a\": 2}");
        let places: Vec<_> = rows.into_iter().map(|r| r.unwrap().0).map(|s| (s.row, s.line.map(usize::from))).collect();
        assert_eq!(places, [(0, Some(1)), (1, Some(4))]);
    }

    #[test]
    fn a_broken_line_is_named_and_the_next_one_read() {
        let rows = read_lines("{\"a\": 1}\n{\"a\": \n[1]\n{\"a\": 4}\n");
        assert_eq!(rows.len(), 4);
        let message = rows[1].as_ref().unwrap_err().to_string();
        assert!(
            message.starts_with("f.jsonl:2: not valid JSON: it ends where a value is expected (column 6)"),
            "{message}"
        );
        let message = rows[2].as_ref().unwrap_err().to_string();
        assert_eq!(message, "f.jsonl:3: expected an object with columns, found a list of 1");
        assert!(rows[3].is_ok());
    }

    #[test]
    fn invalid_utf8_is_a_row_error() {
        let rows: Vec<_> = lines(Path::new("f"), std::io::Cursor::new(b"{\"a\": \"\xff\"}\n{}".to_vec())).collect();
        assert!(rows[0].as_ref().unwrap_err().is_row());
        assert!(rows[1].is_ok());
    }

    #[test]
    fn a_line_without_end_is_an_error() {
        let all = |text: &'static str, most| split(text.as_bytes(), most).collect::<Result<Vec<_>, _>>();
        assert_eq!(all("ab\nc\n\nde", 3).unwrap(), [&b"ab"[..], b"c", b"", b"de"]);
        let message = all("ab\nabcd\ne", 3).unwrap_err().to_string();
        assert_eq!(message, "a line is longer than 3 bytes");
        assert_eq!(split("abcd\nab".as_bytes(), 3).count(), 1, "nothing follows it");
        assert!(document(Path::new("f.json"), "[{}, {}]".as_bytes(), 7, usize::MAX).is_err());
    }

    #[test]
    fn a_row_of_too_many_values_is_named_and_the_next_one_read() {
        let many = format!("{{\"a\": [{}0]}}\n{{\"a\": 2}}\n", "0,".repeat(MOST_VALUES));
        let rows = read_lines(&many);
        let error = rows[0].as_ref().unwrap_err();
        let said = format!("f.jsonl:1: not valid JSON: it has more than {MOST_VALUES} values");
        assert!(error.is_row() && error.to_string().starts_with(&said), "{error}");
        assert_eq!((rows.len(), &rows[1].as_ref().unwrap().1["a"]), (2, &Value::from(2)));
        let read = |values| document(Path::new("f.json"), "[{\"a\": 1}, {}]".as_bytes(), u64::MAX, values);
        assert_eq!(read(4).unwrap().count(), 2);
        let message = read(3).err().unwrap().to_string();
        assert!(message.contains("f.json:1: not valid JSON: it has more than 3 values"), "{message}");
    }

    #[test]
    fn nan_is_explained() {
        let rows = read_lines("{\"rewards\": [1.0, NaN]}\n{\"r\": -Infinity}");
        for row in rows {
            let message = row.unwrap_err().to_string();
            assert!(message.contains("NaN and Infinity are not JSON"), "{message}");
        }
    }

    #[test]
    fn a_key_that_is_given_twice_is_an_error_with_its_row() {
        let rows = read_lines("{\"prompt\": \"a\", \"prompt\": \"b\"}\n{\"a\": {\"b\": 1, \"b\": 1}}\n{\"a\": 1}");
        let message = |row: usize| rows[row].as_ref().unwrap_err().to_string();
        assert!(message(0).starts_with("f.jsonl:1: not valid JSON: `prompt` is given twice"), "{}", message(0));
        assert!(message(1).starts_with("f.jsonl:2: not valid JSON: `b` is given twice"), "{}", message(1));
        assert!(rows[0].as_ref().unwrap_err().is_row() && rows[2].is_ok());
        let message = read_document("[{\"a\": 1},\n{\"a\": 2, \"a\": 3}]").unwrap_err().to_string();
        assert!(message.contains("f.json:2: not valid JSON: `a` is given twice"), "{message}");
    }

    fn read_document(text: &str) -> Result<Vec<(Source, Row)>, Error> {
        document(Path::new("f.json"), text.as_bytes(), u64::MAX, usize::MAX)?.collect()
    }

    #[test]
    fn arrays_data_objects_and_lines_under_the_wrong_name() {
        for text in [
            "[{\"a\": 1}, {\"a\": 2}]",
            "{\"version\": 1, \"data\": [{\"a\": 1}, {\"a\": 2}]}",
            "{\"a\": 1}\n{\"a\": 2}\n",
        ] {
            let rows = read_document(text).unwrap();
            assert_eq!(rows.iter().map(|(_, r)| r["a"].as_i64().unwrap()).collect::<Vec<_>>(), [1, 2], "{text}");
        }
    }

    #[test]
    fn broken_documents() {
        let message = |text: &str| read_document(text).unwrap_err().to_string();
        assert!(message("[{\"a\": 1},\n{\"a\" 2}]").contains("f.json:2: not valid JSON"));
        assert!(message("[1] x").contains("behind the array"));
        assert!(message("{\"a\": 1}").contains("an object with an array `data`"));
        assert!(message("3").contains("expected an array of rows"));
        assert!(message("[{\"a\": 1}, 2]").starts_with("f.json: row 1: expected an object"));
    }
}
