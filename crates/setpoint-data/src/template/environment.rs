//! The Jinja environment that Hugging Face's templates expect.

use std::fmt::Write as _;

use chrono::NaiveDateTime;
use chrono::format::{Item, StrftimeItems};
use minijinja::value::Value;
use minijinja::{Environment, Error, ErrorKind};

use super::jinja;

/// Longest format of a date in bytes.
const MAX_DATE_FORMAT: usize = 1024;

/// The message that a template raised through `raise_exception`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Raised(pub(super) String);

pub(super) fn environment(now: NaiveDateTime) -> Environment<'static> {
    let mut environment = jinja::environment();
    environment.add_function("raise_exception", |message: Value| -> Result<Value, Error> {
        let message = message.as_str().map_or_else(|| message.kind().to_string(), str::to_owned);
        Err(Error::new(ErrorKind::InvalidOperation, "raise_exception").with_source(Raised(message)))
    });
    environment.add_function("strftime_now", move |format: &str| strftime(now, format));
    environment
}

/// The template's text as the engine can read it: line ends as Jinja normalises them, and `{% generation %}`, an extension of
/// transformers that marks assistant tokens, as a plain scope.
pub(super) fn prepare(source: &str) -> String {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let mut out = String::with_capacity(source.len());
    let mut rest = source.as_str();
    while let Some(at) = rest.find("{%") {
        out.push_str(&rest[..at + 2]);
        rest = &rest[at + 2..];
        let word_at = rest.find(|c: char| !(c.is_whitespace() || c == '-' || c == '+')).unwrap_or(rest.len());
        let (before, from_word) = rest.split_at(word_at);
        for (tag, scope) in [("generation", "with"), ("endgeneration", "endwith")] {
            let Some(after) = from_word.strip_prefix(tag) else { continue };
            if after.trim_start_matches(|c: char| c.is_whitespace() || c == '-' || c == '+').starts_with("%}") {
                out.push_str(before);
                out.push_str(scope);
                rest = after;
                break;
            }
        }
    }
    out.push_str(rest);
    out
}

/// JSON as a template value, objects in their order; its size is added to `size`.
pub(super) fn jinja_value(value: &serde_json::Value, size: &mut usize) -> Value {
    use serde_json::Value as Json;
    *size += 16;
    match value {
        Json::Null => Value::from(()),
        Json::Bool(b) => Value::from(*b),
        Json::Number(n) => match (n.as_i64(), n.as_u64(), n.as_f64()) {
            (Some(i), ..) => Value::from(i),
            (None, Some(u), _) => Value::from(u),
            (None, None, f) => Value::from(f.unwrap_or(f64::NAN)),
        },
        Json::String(s) => {
            *size += s.len();
            Value::from(s.as_str())
        }
        Json::Array(items) => Value::from(items.iter().map(|item| jinja_value(item, size)).collect::<Vec<_>>()),
        Json::Object(fields) => {
            Value::from_pairs(fields.iter().map(|(k, v)| (Value::from(k.as_str()), jinja_value(v, size))))
        }
    }
}

fn strftime(now: NaiveDateTime, format: &str) -> Result<String, Error> {
    if format.len() > MAX_DATE_FORMAT {
        return Err(ErrorKind::OutOfFuel.into());
    }
    let items: Vec<Item<'_>> = StrftimeItems::new(format).collect();
    let failed = || Error::new(ErrorKind::InvalidOperation, format!("strftime_now: unknown format {format:?}"));
    if items.contains(&Item::Error) {
        return Err(failed());
    }
    let mut text = String::new();
    // A directive that a time without a zone does not have is an error, not a panic, when written this way.
    write!(text, "{}", now.format_with_items(items.iter())).map_err(|_| failed())?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generation_tags_become_scopes() {
        assert_eq!(prepare("{% generation %}a{%- endgeneration -%}"), "{% with %}a{%- endwith -%}");
        for kept in
            ["{{ generation }}", "{% if generation %}", "{% set generation = 1 %}", "{% generation_x %}", "{%", "a"]
        {
            assert_eq!(prepare(kept), kept);
        }
        assert_eq!(prepare("a\r\nb\rc"), "a\nb\nc");
    }
}
