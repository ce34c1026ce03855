//! The Jinja environment that Hugging Face's templates expect.

use std::fmt::Write as _;

use chrono::NaiveDateTime;
use chrono::format::{Item, StrftimeItems};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Value, from_args};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State, escape_formatter};
use minijinja_contrib::pycompat;

use super::tojson::{python_float, tojson};

/// What a template said through `raise_exception`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Raised(pub(super) String);

pub(super) fn environment(now: NaiveDateTime) -> Environment<'static> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.expect("Jinja's own delimiters are valid"));
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_unknown_method_callback(method);
    environment.set_formatter(|out, state, value| match f64::try_from(value.clone()) {
        // The engine writes 1e-7 out in full where Python prints 1e-07.
        Ok(x) if value.is_number() && !value.is_integer() && x.is_finite() => {
            out.write_str(&python_float(x)).map_err(|_| Error::from(ErrorKind::WriteFailure))
        }
        _ => escape_formatter(out, state, value),
    });
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, "raise_exception").with_source(Raised(message)))
    });
    environment.add_function("strftime_now", move |format: &str| strftime(now, format));
    environment.add_filter("tojson", tojson);
    environment.add_filter("trim", trim);
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

/// JSON as a template value, objects in their order.
pub(super) fn jinja(value: &serde_json::Value) -> Value {
    use serde_json::Value as Json;
    match value {
        Json::Null => Value::from(()),
        Json::Bool(b) => Value::from(*b),
        Json::Number(n) => match (n.as_i64(), n.as_u64(), n.as_f64()) {
            (Some(i), ..) => Value::from(i),
            (None, Some(u), _) => Value::from(u),
            (None, None, f) => Value::from(f.unwrap_or(f64::NAN)),
        },
        Json::String(s) => Value::from(s.as_str()),
        Json::Array(items) => items.iter().map(jinja).collect(),
        Json::Object(fields) => Value::from_pairs(fields.iter().map(|(k, v)| (Value::from(k.as_str()), jinja(v)))),
    }
}

/// Python's `str.isspace`: Unicode's White_Space and the separators U+001C to U+001F.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// jinja2's `trim`: `str(value).strip(chars)`.
fn trim(value: &Value, chars: Option<String>) -> String {
    let text = value.to_string();
    match chars {
        Some(chars) => text.trim_matches(|c| chars.contains(c)).to_owned(),
        None => text.trim_matches(is_space).to_owned(),
    }
}

/// Python's methods; the three that strip whitespace differ from Rust's in what whitespace is.
fn method(state: &mut State<'_, '_>, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    if let (Some(text), "strip" | "lstrip" | "rstrip") = (value.as_str(), name) {
        let (chars,): (Option<String>,) = from_args(args)?;
        let strip = |c: char| chars.as_ref().map_or_else(|| is_space(c), |chars| chars.contains(c));
        return Ok(Value::from(match name {
            "strip" => text.trim_matches(strip),
            "lstrip" => text.trim_start_matches(strip),
            _ => text.trim_end_matches(strip),
        }));
    }
    if let (Some(text), "title", []) = (value.as_str(), name, args) {
        return Ok(Value::from(title(text)));
    }
    pycompat::unknown_method_callback(state, value, name, args)
}

/// Python's `str.title`: a letter that follows no letter is in upper case, every other one in lower case.
fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut in_word = false;
    for c in text.chars() {
        if in_word {
            out.extend(c.to_lowercase());
        } else {
            out.extend(c.to_uppercase());
        }
        in_word = c.is_alphabetic();
    }
    out
}

fn strftime(now: NaiveDateTime, format: &str) -> Result<String, Error> {
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
