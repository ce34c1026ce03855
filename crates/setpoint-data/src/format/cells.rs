//! What text in the cell of a table stands for, where a format does not look for text.

use serde_json::{Number, Value};

use super::columns::wrong_type;
use crate::error::RowProblem;
use crate::unique::{MOST_VALUES, parse, parse_first};

/// Returns the value of a cell that is no text: nothing, true or false, a number, or a list or an object as JSON. Other text stays text.
pub(super) fn typed(value: Value) -> Value {
    let Value::String(text) = &value else { return value };
    let number = |text: &str| match text.parse::<i64>() {
        Ok(whole) => Some(Number::from(whole)),
        // NaN and infinite numbers have no `Number` and stay text, which messages name.
        Err(_) => text.parse().ok().and_then(Number::from_f64),
    };
    let found = match text.trim() {
        "" => Some(Value::Null),
        "true" | "True" | "TRUE" => Some(Value::Bool(true)),
        "false" | "False" | "FALSE" => Some(Value::Bool(false)),
        text => structure(text).or_else(|| number(text).map(Value::Number)),
    };
    found.unwrap_or(value)
}

/// Returns the list or object that a text is as JSON, in which no key is given twice.
pub(super) fn structure(text: &str) -> Option<Value> {
    if !text.trim_start().starts_with(['[', '{']) {
        return None;
    }
    parse(text.as_bytes(), MOST_VALUES).ok()
}

/// Returns what a cell holds that may be text or messages: messages if it is their JSON, else the text as it is.
///
/// # Errors
/// [`RowProblem::WrongType`] for messages as Python prints them or in broken JSON: as a text they would be trained on.
pub(super) fn turns(value: Value, column: &str) -> Result<Value, RowProblem> {
    let Value::String(text) = &value else { return Ok(value) };
    let is_message = |value: &Value| value.get("role").or_else(|| value.get("from")).is_some();
    match structure(text) {
        Some(Value::Array(items)) if !items.is_empty() && items.iter().all(is_message) => Ok(Value::Array(items)),
        Some(message @ Value::Object(_)) if is_message(&message) => Ok(message),
        found => {
            let start = text.trim_start().trim_start_matches(['[', ' ']);
            let begins_as = |all: &[&str]| all.iter().any(|message| start.starts_with(message));
            // Whole JSON with more behind it is a text about it.
            let is_broken = found.is_none()
                && begins_as(&["{\"role\"", "{\"from\""])
                && parse_first(text.trim_start().as_bytes(), MOST_VALUES).is_err();
            if is_broken || begins_as(&["{'role'", "{'content'", "{'from'", "{'value'"]) {
                return Err(wrong_type(column, "text, or messages as JSON (with double quotes)", &value));
            }
            Ok(value)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_of_cells() {
        for (text, expected) in [
            ("", json!(null)),
            (" ", json!(null)),
            ("True", json!(true)),
            ("false", json!(false)),
            ("7", json!(7)),
            (" -1.5 ", json!(-1.5)),
            ("1e3", json!(1000.0)),
            ("nan", json!("nan")),
            ("-inf", json!("-inf")),
            ("[1, \"a\"]", json!([1, "a"])),
            (" {\"a\": []}", json!({"a": []})),
            ("[1, 2", json!("[1, 2")),
            ("['a']", json!("['a']")),
            ("{\"a\": 1, \"a\": 2}", json!("{\"a\": 1, \"a\": 2}")),
            ("chosen", json!("chosen")),
        ] {
            assert_eq!(typed(json!(text)), expected, "{text:?}");
        }
        assert_eq!(typed(json!(["1"])), json!(["1"]), "no cell");
    }

    #[test]
    fn texts_stay_texts_and_messages_become_messages() {
        for text in [
            "",
            "7",
            "true",
            "[1, 2]",
            "[]",
            "{\"a\": 1}",
            "{\"value\": 3}",
            "{\"a\": ",
            "{\"from\": \"Paris\", \"to\": \"Rome\"} as a sentence",
            "[{\"a\": 1}]",
            "[ ] done",
            "{'a': 1}",
        ] {
            assert_eq!(turns(json!(text), "chosen"), Ok(json!(text)));
        }
        for (text, expected) in [
            ("[{\"role\": \"user\", \"content\": \"Hi\"}]", json!([{"role": "user", "content": "Hi"}])),
            (" {\"from\": \"gpt\", \"value\": \"Ho\"}", json!({"from": "gpt", "value": "Ho"})),
        ] {
            assert_eq!(turns(json!(text), "chosen"), Ok(expected));
        }
        for text in [
            "[{'role': 'user', 'content': 'Hi'}]",
            "{'content': 'Hi', 'role': 'user'}",
            "[{\"role\": \"user\", \"content\": \"Hi",
            " [ {\"from\": \"human\", \"value\": \"Hi\", \"value\": \"Ho\"}]",
        ] {
            let problem = turns(json!(text), "chosen").unwrap_err().to_string();
            assert!(problem.starts_with("`chosen`: expected text, or messages as JSON"), "{problem}");
        }
    }
}
