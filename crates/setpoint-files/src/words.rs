//! Plain words for what parsers and the system say, which is written for programmers.

use std::borrow::Cow;
use std::io;

use serde_json::error::Category;

/// Says what is wrong with a JSON text, and where.
pub fn json(error: &serde_json::Error) -> String {
    match (error.line(), error.column()) {
        (0, _) => json_reason(error),
        (line, column) => format!("{} (line {line}, column {column})", json_reason(error)),
    }
}

/// Says what is wrong with a JSON text that is one line of a file, and in which column.
pub fn json_in_line(error: &serde_json::Error) -> String {
    match error.column() {
        0 => json_reason(error),
        column => format!("{} (column {column})", json_reason(error)),
    }
}

/// Says what is wrong with a JSON text.
pub fn json_reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    let message = text.strip_suffix(&place).unwrap_or(&text);
    if error.classify() == Category::Data {
        return value(message, "an object");
    }
    match message {
        "EOF while parsing a list" => "it ends within a list",
        "EOF while parsing an object" => "it ends within an object",
        "EOF while parsing a string" => "it ends within a text in quotes",
        "EOF while parsing a value" => "it ends where a value is expected",
        "expected ident" => "expected true, false or null",
        "expected value" => "expected a value",
        "expected `:`" => "expected `:` after a name",
        "key must be a string" => "expected a name in quotes",
        "invalid escape" => "a backslash is followed by something that it cannot escape",
        "invalid number" => "a number is not written as in JSON",
        "number out of range" => "a number is too large",
        "control character (\\u0000-\\u001F) found while parsing a string" => {
            "a text in quotes holds a line break or another control character, which must be escaped"
        }
        "invalid unicode code point" => "not UTF-8 text, or an escape of no character",
        "lone leading surrogate in hex escape" | "unexpected end of hex escape" => {
            "an escape `\\u…` is half of a character"
        }
        "trailing comma" => "a comma with nothing after it",
        "trailing characters" => "something follows after the end of the value",
        "recursion limit exceeded" => "it is nested too deeply",
        other => other,
    }
    .to_owned()
}

/// Says what is wrong with a value by a message of serde: writes `invalid type: string "many", expected usize` as `expected a whole
/// number, 0 or greater, found "many"`. `object`: what the format calls names with values, with an article.
pub fn value(message: &str, object: &str) -> String {
    let quoted = |rest: &str| rest.split('`').nth(1).map(str::to_owned);
    let named = |start: &str| message.strip_prefix(start).and_then(quoted);
    if let Some(name) = named("missing field ") {
        return format!("`{name}` is missing");
    }
    if let Some(name) = named("duplicate field ") {
        return format!("`{name}` is given twice");
    }
    if let Some(name) = named("unknown field ") {
        return format!("`{name}` is not known{}", alternatives(message));
    }
    if let Some(name) = named("unknown variant ") {
        return format!("`{name}` is not known{}", alternatives(message));
    }
    let wrong = ["invalid type: ", "invalid value: ", "invalid length "];
    let Some((found, expected)) =
        wrong.iter().find_map(|start| message.strip_prefix(start)).and_then(|rest| rest.rsplit_once(", expected "))
    else {
        return if message.starts_with("data did not match any variant") {
            "a value is of none of the types that are expected".to_owned()
        } else {
            message.to_owned()
        };
    };
    let entries = ["a tuple of size ", "an array of length ", "an array of size "];
    if let Some(entries) = entries.iter().find_map(|start| expected.strip_prefix(start)) {
        return format!("expected a list of {entries} entries, found {}", found_value(found, object));
    }
    let expected = match expected {
        "usize" | "u8" | "u16" | "u32" | "u64" => "a whole number, 0 or greater",
        "isize" | "i8" | "i16" | "i32" | "i64" => "a whole number",
        "f32" | "f64" => "a number",
        "a boolean" => "true or false",
        "a string" | "path string" | "string only" | "a borrowed string" => "text in quotes",
        "a sequence" => "a list",
        "a map" => object,
        "unit" => "nothing",
        other if other.contains("struct ") || other.contains("enum ") => object,
        other => other.strip_prefix("expected ").unwrap_or(other),
    };
    format!("expected {expected}, found {}", found_value(found, object))
}

/// Returns the names that serde lists after one that it does not know.
fn alternatives(message: &str) -> String {
    let names: Vec<String> = message.split('`').skip(3).step_by(2).map(|name| format!("`{name}`")).collect();
    match names.as_slice() {
        [] => String::new(),
        [only] => format!("; expected {only}"),
        [most @ .., last] => format!("; expected {} or {last}", most.join(", ")),
    }
}

/// Returns what serde says that it found.
fn found_value<'f>(found: &'f str, object: &'f str) -> &'f str {
    match found {
        "map" => object,
        "sequence" => "a list",
        "null" | "unit value" | "Option value" => "nothing",
        "unit variant" => "a name alone",
        other => ["string ", "integer ", "floating point ", "boolean ", "character "]
            .iter()
            .find_map(|kind| other.strip_prefix(kind))
            .map_or(other, |value| value.trim_matches('`')),
    }
}

/// Says why the system refused an operation, without the number that it gives the error.
pub fn system(error: &io::Error) -> String {
    without_codes(&error.to_string()).into_owned()
}

/// Returns a message without the numbers that the system gives its errors, as in ` (os error 2)`.
pub fn without_codes(message: &str) -> Cow<'_, str> {
    const START: &str = " (os error ";
    if !message.contains(START) {
        return Cow::Borrowed(message);
    }
    let mut parts = message.split(START);
    let mut said = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let after = part.trim_start_matches(|c: char| c == '-' || c.is_ascii_digit());
        match after.strip_prefix(')') {
            Some(rest) => said.push_str(rest),
            None => said.extend([START, part]),
        }
    }
    Cow::Owned(said)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::Value;

    use super::*;

    #[test]
    fn every_error_of_json_is_in_plain_words() {
        for (text, words) in [
            (r#"{"a": "b"#, "it ends within a text in quotes (line 1, column 8)"),
            ("{\n\"a\": 1,", "it ends where a value is expected (line 2, column 7)"),
            ("[1, 2", "it ends within a list (line 1, column 5)"),
            ("[1, 2,]", "a comma with nothing after it (line 1, column 7)"),
            ("{} {}", "something follows after the end of the value (line 1, column 4)"),
            ("{a: 1}", "expected a name in quotes (line 1, column 2)"),
            ("[nan]", "expected true, false or null (line 1, column 3)"),
            ("[1e999]", "a number is too large (line 1, column 6)"),
            ("[01]", "a number is not written as in JSON (line 1, column 3)"),
        ] {
            let error = serde_json::from_str::<Value>(text).unwrap_err();
            assert_eq!(json(&error), words, "{text}");
        }
        let deep = "[".repeat(1000);
        let said = json(&serde_json::from_str::<Value>(&deep).unwrap_err());
        assert!(said.starts_with("it is nested too deeply"), "{said}");
        let error = serde_json::from_str::<Value>("[\"a").unwrap_err();
        assert_eq!(json_in_line(&error), "it ends within a text in quotes (column 3)");
    }

    #[test]
    fn values_that_do_not_fit_are_in_plain_words() {
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Part {
            #[serde(rename = "count")]
            _count: usize,
            #[serde(rename = "kind")]
            _kind: Kind,
        }
        #[derive(Debug, Deserialize)]
        #[serde(rename_all = "snake_case")]
        enum Kind {
            Whole,
            Half,
        }
        for (text, words) in [
            ("3", "expected an object, found 3"),
            (r#"{"count": "x"}"#, "expected a whole number, 0 or greater, found \"x\""),
            (r#"{"count": -1}"#, "expected a whole number, 0 or greater, found -1"),
            (r#"{"count": {}}"#, "expected a whole number, 0 or greater, found an object"),
            (r#"{"count": null}"#, "expected a whole number, 0 or greater, found nothing"),
            (r#"{"count": 1, "kind": "quarter"}"#, "`quarter` is not known; expected `whole` or `half`"),
            (r#"{"count": 1, "count": 2}"#, "`count` is given twice"),
            (r#"{"count": 1}"#, "`kind` is missing"),
            (r#"{"size": 1}"#, "`size` is not known; expected `count` or `kind`"),
        ] {
            let error = serde_json::from_str::<Part>(text).unwrap_err();
            assert_eq!(json_reason(&error), words, "{text}");
        }
        let error = serde_json::from_str::<(f64, f64)>("[]").unwrap_err();
        assert_eq!(json_reason(&error), "expected a list of 2 entries, found 0");
    }

    #[test]
    fn types_have_plain_names() {
        for (message, sentence) in [
            (
                r#"invalid type: string "many", expected usize"#,
                r#"expected a whole number, 0 or greater, found "many""#,
            ),
            ("invalid value: integer `-3`, expected u64", "expected a whole number, 0 or greater, found -3"),
            ("invalid type: floating point `0.5`, expected usize", "expected a whole number, 0 or greater, found 0.5"),
            ("invalid type: map, expected f64", "expected a number, found a table"),
            ("invalid type: integer `1`, expected a boolean", "expected true or false, found 1"),
            ("invalid type: string \"x\", expected struct DatasetConfig", "expected a table, found \"x\""),
            ("must be even", "must be even"),
        ] {
            assert_eq!(value(message, "a table"), sentence);
        }
    }

    #[test]
    fn the_numbers_of_the_system_are_left_out() {
        let missing = std::fs::read("/no/such/file").unwrap_err();
        assert_eq!(system(&missing), "No such file or directory");
        assert_eq!(without_codes("a (os error 2); b (os error -21)."), "a; b.");
        assert_eq!(without_codes("a (os error x)"), "a (os error x)");
    }
}
