//! The arguments of an instruction, from a row's `kwargs`.

use std::cell::RefCell;
use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// Arguments by name. Those without a value count as missing, as in the reference, which draws their values at random; here they are an error.
pub(super) struct Arguments<'a> {
    values: &'a Map<String, Value>,
    used: RefCell<BTreeSet<&'static str>>,
}

/// The comparison of a number with the number wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Relation {
    AtLeast,
    LessThan,
}

impl Relation {
    pub(super) fn holds(self, found: usize, wanted: usize) -> bool {
        match self {
            Self::AtLeast => found >= wanted,
            Self::LessThan => found < wanted,
        }
    }
}

impl<'a> Arguments<'a> {
    pub(super) fn new(values: &'a Map<String, Value>) -> Self {
        Self { values, used: RefCell::default() }
    }

    /// Returns a number of at least 1.
    pub(super) fn number(&self, name: &'static str) -> Result<usize, String> {
        let value = self.get(name);
        // Tables hold whole numbers as f64 in a column with gaps.
        let number = value.as_f64().filter(|n| *n >= 1.0 && n.fract() == 0.0 && *n <= f64::from(u32::MAX));
        number.map(|n| n as usize).ok_or_else(|| expected(name, "a whole number of at least 1", value))
    }

    /// Returns a text that is not empty.
    pub(super) fn text(&self, name: &'static str) -> Result<&'a str, String> {
        let value = self.get(name);
        value.as_str().filter(|text| !text.is_empty()).ok_or_else(|| expected(name, "a text", value))
    }

    /// Returns a list of texts that is not empty.
    pub(super) fn texts(&self, name: &'static str) -> Result<Vec<&'a str>, String> {
        let value = self.get(name);
        let texts: Option<Vec<&str>> = value.as_array().and_then(|list| list.iter().map(Value::as_str).collect());
        texts.filter(|texts| !texts.is_empty()).ok_or_else(|| expected(name, "a list of texts", value))
    }

    /// Returns the relation of that name.
    pub(super) fn relation(&self, name: &'static str) -> Result<Relation, String> {
        let value = self.get(name);
        match value.as_str() {
            Some("at least") => Ok(Relation::AtLeast),
            Some("less than") => Ok(Relation::LessThan),
            _ => Err(expected(name, "\"at least\" or \"less than\"", value)),
        }
    }

    /// Fails if there is an argument that the instruction does not have.
    pub(super) fn finish(&self) -> Result<(), String> {
        let used = self.used.borrow();
        let unknown = self.values.iter().find(|(name, value)| !is_missing(value) && !used.contains(name.as_str()));
        match unknown {
            Some((name, _)) if used.is_empty() => Err(format!("it takes no arguments, found `{name}`")),
            Some((name, _)) => {
                let known: Vec<&str> = used.iter().copied().collect();
                Err(format!("it takes {}, found `{name}`", known.join(", ")))
            }
            None => Ok(()),
        }
    }

    fn get(&self, name: &'static str) -> &'a Value {
        self.used.borrow_mut().insert(name);
        self.values.get(name).unwrap_or(&Value::Null)
    }
}

/// Returns whether Python takes a value as false.
fn is_missing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

fn expected(name: &str, expected: &str, found: &Value) -> String {
    format!("expected {expected} as `{name}`, found {found}")
}
