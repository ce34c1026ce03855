//! Typed access to the columns of a row; what is taken is gone, the rest is kept.

use serde_json::Value;

use super::Row;
use crate::error::RowProblem;

/// A row whose columns are taken one by one.
pub(super) struct Columns {
    row: Row,
    format: &'static str,
}

impl Columns {
    pub(super) fn new(row: Row, format: &'static str) -> Self {
        Self { row, format }
    }

    /// Whether the column is there and not null.
    pub(super) fn has(&self, column: &str) -> bool {
        self.row.get(column).is_some_and(|v| !v.is_null())
    }

    /// Whether the column is there, null or not.
    pub(super) fn has_column(&self, column: &str) -> bool {
        self.row.contains_key(column)
    }

    /// The value of a column; null counts as absent.
    pub(super) fn take(&mut self, column: &str) -> Option<Value> {
        // `shift_remove` keeps the order of the other columns.
        self.row.shift_remove(column).filter(|v| !v.is_null())
    }

    /// The value of a column that the format needs.
    pub(super) fn need(&mut self, column: &str) -> Result<Value, RowProblem> {
        self.take(column).ok_or_else(|| RowProblem::MissingColumn { column: column.to_owned(), format: self.format })
    }

    /// A column of text.
    pub(super) fn need_text(&mut self, column: &str) -> Result<String, RowProblem> {
        self.need(column).and_then(|v| text(v, column))
    }

    /// A column of text that may be absent.
    pub(super) fn take_text(&mut self, column: &str) -> Result<Option<String>, RowProblem> {
        self.take(column).map(|v| text(v, column)).transpose()
    }

    /// A finite number that may be absent. Another value stays where it is unless the job looks at it.
    pub(super) fn take_finite(&mut self, column: &str, used: bool) -> Result<Option<f64>, RowProblem> {
        self.take_parsed(column, used, |value| finite(value, column))
    }

    /// The reward in the first of these columns that the row has; null in such a column is a missing reward.
    pub(super) fn take_reward(&mut self, columns: &[&str], used: bool) -> Result<Option<f64>, RowProblem> {
        let Some(column) = columns.iter().find(|c| self.has_column(c)) else { return Ok(None) };
        let reward = match self.take(column) {
            Some(value) => finite(&value, column),
            None => Err(RowProblem::MissingReward { column: (*column).to_owned() }),
        };
        if_used(reward.map(Some), used)
    }

    /// A value that may be absent, read by `parse`. One that cannot be read stays where it is unless the job looks at it.
    pub(super) fn take_parsed<T>(
        &mut self,
        column: &str,
        used: bool,
        parse: impl FnOnce(&Value) -> Result<T, RowProblem>,
    ) -> Result<Option<T>, RowProblem> {
        let Some(value) = self.row.get(column).filter(|v| !v.is_null()) else { return Ok(None) };
        match parse(value) {
            Err(_) if !used => Ok(None),
            parsed => {
                self.take(column);
                parsed.map(Some)
            }
        }
    }

    /// What was not taken.
    pub(super) fn rest(self) -> Row {
        self.row
    }
}

/// An optional value whose column the job may not look at: what is wrong with it then does not matter.
pub(super) fn if_used<T>(value: Result<Option<T>, RowProblem>, used: bool) -> Result<Option<T>, RowProblem> {
    match value {
        Err(_) if !used => Ok(None),
        value => value,
    }
}

/// A value that must be text.
pub(super) fn text(value: Value, column: &str) -> Result<String, RowProblem> {
    match value {
        Value::String(text) => Ok(text),
        other => Err(wrong_type(column, "text", &other)),
    }
}

/// A value that must be a list.
pub(super) fn list(value: Value, column: &str) -> Result<Vec<Value>, RowProblem> {
    match value {
        Value::Array(items) => Ok(items),
        other => Err(wrong_type(column, "a list", &other)),
    }
}

/// A value that must be a finite number. Text such as "NaN" is told apart from other text.
pub(super) fn finite(value: &Value, column: &str) -> Result<f64, RowProblem> {
    let not_finite = |found: String| RowProblem::NotFinite { column: column.to_owned(), found };
    match value {
        Value::Number(number) => match number.as_f64() {
            Some(x) if x.is_finite() => Ok(x),
            _ => Err(not_finite(number.to_string())),
        },
        Value::String(text) if text.trim().parse::<f64>().is_ok_and(|x| !x.is_finite()) => {
            Err(not_finite(text.clone()))
        }
        Value::Null => Err(RowProblem::MissingReward { column: column.to_owned() }),
        other => Err(wrong_type(column, "a number", other)),
    }
}

/// The text of a response: not empty, since whitespace alone teaches nothing and templates trim it.
pub(super) fn response_text(text: String, column: &str) -> Result<String, RowProblem> {
    if text.trim().is_empty() {
        return Err(RowProblem::EmptyResponse { column: column.to_owned() });
    }
    Ok(text)
}

pub(super) fn wrong_type(column: &str, expected: &'static str, found: &Value) -> RowProblem {
    RowProblem::WrongType { column: column.to_owned(), expected, found: describe(found) }
}

/// A value in a few words, for errors.
pub(crate) fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(b) => format!("{b}"),
        Value::Number(n) => format!("the number {n}"),
        Value::String(s) => format!("the text {:?}", s.chars().take(40).collect::<String>()),
        Value::Array(items) => format!("a list of {}", items.len()),
        Value::Object(fields) => {
            format!("an object with [{}]", fields.keys().map(String::as_str).collect::<Vec<_>>().join(", "))
        }
    }
}
