//! The reference answer of a row, which rules about answers compare with.

use serde_json::Value;

use super::Check;
use crate::error::Error;
use crate::source::Scored;

/// Default of the column of the reference answer.
pub(super) fn answer() -> String {
    "answer".to_owned()
}

impl Check {
    /// Checks that a column has a name.
    pub(super) fn column(&mut self, key: &str, name: &str) {
        if name.is_empty() {
            self.problem(key, "is empty, expected the name of a column");
        }
    }
}

/// Reads the reference answer of a row from a column. `read` returns a description of a value that is not as `expected`.
pub(super) fn reference<T>(
    item: &Scored<'_>,
    column: &str,
    expected: &str,
    read: impl FnOnce(&Value) -> Result<T, String>,
) -> Result<T, Error> {
    let wrong =
        |found: String| Error::Field { row: item.row, column: column.to_owned(), expected: expected.to_owned(), found };
    let value = item.fields.and_then(|fields| fields.get(column)).ok_or_else(|| wrong("no such column".to_owned()))?;
    read(value).map_err(wrong)
}
