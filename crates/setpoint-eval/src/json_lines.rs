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
    let text = read_text_up_to(path, LARGE)?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let rows: Vec<T> = lines
        .map(|(i, line)| serde_json::from_str(line).map_err(|e| Error::row(path, i + 1, words::json_in_line(&e))))
        .collect::<Result<_, _>>()?;
    if rows.is_empty() {
        return Err(Error::file(path, "holds no rows"));
    }
    Ok(rows)
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
