//! Rows of JSON lines.

use std::collections::HashMap;
use std::fmt::Display;
use std::hash::Hash;
use std::path::Path;

use serde::de::DeserializeOwned;
use setpoint_files::{LARGE, read_text_up_to, words};

use crate::error::Error;

/// Reads the rows of a file, of which there must be one at least.
pub(crate) fn read_lines<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, Error> {
    let text = read_unmarked(path)?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let rows: Vec<T> = lines
        .map(|(i, line)| serde_json::from_str(line).map_err(|e| Error::row(path, i + 1, words::json_in_line(&e))))
        .collect::<Result<_, _>>()?;
    if rows.is_empty() {
        return Err(Error::file(path, "holds no rows"));
    }
    Ok(rows)
}

/// Reads a text, without the byte order mark that programs on Windows put before it.
pub(crate) fn read_unmarked(path: &Path) -> Result<String, Error> {
    let text = read_text_up_to(path, LARGE)?;
    Ok(match text.strip_prefix('\u{feff}') {
        Some(rest) => rest.to_owned(),
        None => text,
    })
}

/// Fails if two rows have the same key: the later one would silently replace the earlier one, or count twice.
pub(crate) fn check_unique<T, K: Display + Eq + Hash>(
    path: &Path,
    rows: &[T],
    key: impl Fn(&T) -> K,
) -> Result<(), Error> {
    let mut seen = HashMap::with_capacity(rows.len());
    for (i, row) in rows.iter().enumerate() {
        let name = key(row);
        if let Some(first) = seen.get(&name) {
            return Err(Error::row(path, i + 1, format!("{name} is in row {first} already; leave one of them out")));
        }
        seen.insert(name, i + 1);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_byte_order_mark_and_empty_lines_are_no_rows() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let read = |text: &str| {
            std::fs::write(file.path(), text).unwrap();
            read_lines::<Value>(file.path()).map(|rows| rows.len()).map_err(|error| error.to_string())
        };
        assert_eq!(read("\u{feff}{\"a\": 1}\r\n\r\n{\"a\": 2}"), Ok(2));
        assert!(read("\u{feff}\n").unwrap_err().contains("holds no rows"));
        assert!(read("{}\n\u{feff}{}").unwrap_err().contains("row 2"), "a mark is at the beginning alone");
    }
}
