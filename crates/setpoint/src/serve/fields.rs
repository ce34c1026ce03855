//! The fields of a request: each is taken out once, with a sentence about a wrong value. Fields that are left over are refused.

use serde_json::{Map, Value};
use setpoint_files::words;

use super::error::{Answered, ApiError, shown};

/// The fields that have not been read yet.
#[derive(Debug)]
pub(super) struct Fields(Map<String, Value>);

/// Returns the refusal of a field's value.
pub(super) fn wrong(name: &str, expected: &str, found: &Value) -> ApiError {
    ApiError::field(name, format!("`{name}` must be {expected}; found {}", shown(&found.to_string())))
}

impl Fields {
    /// Reads a body.
    pub(super) fn parse(body: &[u8]) -> Answered<Self> {
        match serde_json::from_slice(body) {
            Ok(Value::Object(fields)) => Ok(Self(fields)),
            Ok(other) => {
                let found = shown(&other.to_string());
                Err(ApiError::invalid(format!("the body must be a JSON object; found {found}")))
            }
            Err(error) => Err(ApiError::invalid(format!("the body is not JSON: {}", words::json(&error)))),
        }
    }

    /// Takes a field; null counts as absent.
    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name).filter(|value| !value.is_null())
    }

    /// Takes a field that must be there.
    pub(super) fn require(&mut self, name: &str) -> Answered<Value> {
        self.take(name).ok_or_else(|| ApiError::field(name, format!("`{name}` is missing")))
    }

    /// Takes a text.
    pub(super) fn text(&mut self, name: &str) -> Answered<Option<String>> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(wrong(name, "a text", &other)),
        }
    }

    /// Takes a truth value, false by default.
    pub(super) fn flag(&mut self, name: &str) -> Answered<bool> {
        match self.take(name) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(other) => Err(wrong(name, "true or false", &other)),
        }
    }

    /// Takes a whole number from `least` to `most`.
    pub(super) fn count(&mut self, name: &str, least: usize, most: usize) -> Answered<Option<usize>> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let count = value.as_u64().and_then(|count| usize::try_from(count).ok());
        match count.filter(|count| (least..=most).contains(count)) {
            Some(count) => Ok(Some(count)),
            None => Err(wrong(name, &format!("a whole number from {least} to {most}"), &value)),
        }
    }

    /// Takes a number for which `holds` holds.
    pub(super) fn number(&mut self, name: &str, expected: &str, holds: impl Fn(f64) -> bool) -> Answered<Option<f64>> {
        let Some(value) = self.take(name) else { return Ok(None) };
        match value.as_f64().filter(|&number| holds(number)) {
            Some(number) => Ok(Some(number)),
            None => Err(wrong(name, expected, &value)),
        }
    }

    /// Takes a field that is understood only with values that change nothing.
    pub(super) fn neutral(&mut self, name: &str, expected: &str, holds: impl Fn(&Value) -> bool) -> Answered<()> {
        match self.take(name) {
            Some(value) if !holds(&value) => {
                let found = shown(&value.to_string());
                let message =
                    format!("`{name}` is not supported: leave it out, or set it to {expected}; found {found}");
                Err(ApiError::field(name, message))
            }
            _ => Ok(()),
        }
    }

    /// Refuses the fields that were not taken.
    pub(super) fn end(self) -> Answered<()> {
        match self.0.into_iter().find(|(_, value)| !value.is_null()) {
            None => Ok(()),
            Some((name, _)) => {
                let name = shown(&name);
                Err(ApiError::field(name.clone(), format!("`{name}` is unknown or not supported here; leave it out")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said<T: std::fmt::Debug>(result: Answered<T>) -> String {
        result.unwrap_err().body().to_string()
    }

    #[test]
    fn what_is_wrong_with_a_field_is_a_sentence_that_names_it() {
        let fields = |text: &str| Fields::parse(text.as_bytes()).unwrap();
        assert!(said(Fields::parse(b"{")).contains("is not JSON: it ends within an object (line 1, column 1)"));
        assert!(said(Fields::parse(b"[1]")).contains("must be a JSON object; found [1]"));
        assert!(said(Fields::parse("[".repeat(100_000).as_bytes())).contains("is not JSON"));
        assert!(said(fields("{}").require("messages")).contains("`messages` is missing"));
        assert!(said(fields(r#"{"a":1}"#).text("a")).contains("`a` must be a text; found 1"));
        assert!(said(fields(r#"{"a":1}"#).flag("a")).contains("true or false"));
        for value in ["0", "9", "1.5", "-1", "1e3", "\"2\"", "true"] {
            let text = format!(r#"{{"n":{value}}}"#);
            assert!(said(fields(&text).count("n", 1, 8)).contains("a whole number from 1 to 8; found"), "{value}");
        }
        assert!(said(fields(r#"{"t":-1}"#).number("t", "at least 0", |t| t >= 0.0)).contains("`t` must be at least 0"));
        assert!(said(fields(r#"{"best_of":2}"#).end()).contains("`best_of` is unknown"));
        let mut all = fields(r#"{"n":3,"t":0.5,"f":true,"x":null,"p":0}"#);
        assert_eq!(all.count("n", 1, 8), Ok(Some(3)));
        assert_eq!(all.number("t", "", |_| true), Ok(Some(0.5)));
        assert_eq!(all.flag("f"), Ok(true));
        assert_eq!(all.neutral("p", "0", |value| value == 0), Ok(()));
        assert_eq!(all.end(), Ok(()));
        assert!(said(fields(r#"{"p":1}"#).neutral("p", "0", |value| value == 0)).contains("set it to 0; found 1"));
    }
}
