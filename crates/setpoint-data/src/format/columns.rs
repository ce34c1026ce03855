//! Typed access to the columns of a row; what is taken is gone, the rest is kept.

use serde_json::Value;

use super::Row;
use super::cells::{structure, turns, typed};
use crate::error::RowProblem;
use crate::record::is_blank;

/// The column by how much the chosen response is better, of any format.
pub(super) const MARGIN: &str = "margin";

/// A row whose columns are taken one by one.
pub(super) struct Columns {
    row: Row,
    format: &'static str,
    /// True if the values are the cells of a table: all of them text, whatever they stand for.
    in_cells: bool,
}

impl Columns {
    pub(super) fn new(row: Row, format: &'static str) -> Self {
        Self { row, format, in_cells: false }
    }

    /// The same for a row whose values are the cells of a table.
    pub(super) fn of_cells(row: Row, format: &'static str) -> Self {
        Self { row, format, in_cells: true }
    }

    /// Returns whether the column is there and not null; an empty cell counts as null.
    pub(super) fn has(&self, column: &str) -> bool {
        self.row.get(column).is_some_and(|v| !(v.is_null() || self.in_cells && v.as_str() == Some("")))
    }

    /// Returns whether the column is there, null or not.
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

    /// The value of a column that is no text, such as a list; null counts as absent.
    pub(super) fn take_typed(&mut self, column: &str) -> Option<Value> {
        let value = self.take(column)?;
        if self.in_cells { Some(typed(value)).filter(|v| !v.is_null()) } else { Some(value) }
    }

    /// The value of a column that is no text and that the format needs.
    pub(super) fn need_typed(&mut self, column: &str) -> Result<Value, RowProblem> {
        self.take_typed(column)
            .ok_or_else(|| RowProblem::MissingColumn { column: column.to_owned(), format: self.format })
    }

    /// The value of a column that is text or messages; null counts as absent.
    pub(super) fn take_turns(&mut self, column: &str) -> Result<Option<Value>, RowProblem> {
        match self.take(column) {
            Some(value) if self.in_cells => turns(value, column).map(Some),
            value => Ok(value),
        }
    }

    /// The value of a column that is text or messages and that the format needs.
    pub(super) fn need_turns(&mut self, column: &str) -> Result<Value, RowProblem> {
        let value = self.need(column)?;
        if self.in_cells { turns(value, column) } else { Ok(value) }
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
        let reward = match self.take_typed(column) {
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
        let parsed = match self.row.get(column) {
            None | Some(Value::Null) => return Ok(None),
            Some(value) if self.in_cells => match typed(value.clone()) {
                Value::Null => return Ok(None),
                value => parse(&value),
            },
            Some(value) => parse(value),
        };
        match parsed {
            Err(_) if !used => Ok(None),
            parsed => {
                self.take(column);
                parsed.map(Some)
            }
        }
    }

    /// The number in a column, which stays where it is.
    pub(super) fn peek_number(&self, column: &str) -> Option<f64> {
        let value = self.row.get(column)?;
        if self.in_cells { typed(value.clone()).as_f64() } else { value.as_f64() }
    }

    /// Adds the margin that a format knows of, unless the row has one.
    pub(super) fn put_margin(&mut self, margin: f64) {
        if !self.has(MARGIN) {
            self.row.insert(MARGIN.to_owned(), margin.into());
        }
    }

    /// Returns the columns that were not taken; cells that hold a list or an object as JSON become it.
    pub(super) fn rest(mut self) -> Row {
        if self.in_cells {
            for value in self.row.values_mut() {
                if let Some(found) = value.as_str().and_then(structure) {
                    *value = found;
                }
            }
        }
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
    if is_blank(&text) {
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
