//! Instructions about the form of a response.

use std::sync::LazyLock;

use regex::Regex;

use super::arguments::Arguments;
use super::instruction::Check;
use super::json::is_json;
use super::pattern::Pattern;
use crate::python_text::{SPACE, compiled, strip};

/// The answers of `constrained_response`.
const ANSWERS: [&str; 3] = ["My answer is yes.", "My answer is no.", "My answer is maybe."];

pub(super) fn number_bullet_lists(arguments: &Arguments<'_>) -> Result<Check, String> {
    static ASTERISK: LazyLock<Regex> = LazyLock::new(|| compiled(&format!(r"(?m)^{SPACE}*\*[^*].*$")));
    static DASH: LazyLock<Regex> = LazyLock::new(|| compiled(&format!("(?m)^{SPACE}*-.*$")));
    let count = arguments.number("num_bullets")?;
    Ok(Box::new(move |response| ASTERISK.find_iter(response).count() + DASH.find_iter(response).count() == count))
}

pub(super) fn constrained_response(_: &Arguments<'_>) -> Result<Check, String> {
    Ok(Box::new(|response| ANSWERS.iter().any(|answer| response.contains(answer))))
}

/// A section in double asterisks is found twice at most: as one of single asterisks only if these are not next to each other.
pub(super) fn number_highlighted_sections(arguments: &Arguments<'_>) -> Result<Check, String> {
    static SINGLE: LazyLock<Regex> = LazyLock::new(|| compiled(r"\*[^\n*]*\*"));
    static DOUBLE: LazyLock<Regex> = LazyLock::new(|| compiled(r"\*\*[^\n*]*\*\*"));
    let count = arguments.number("num_highlights")?;
    Ok(Box::new(move |response| {
        let filled = |pattern: &Regex| {
            pattern.find_iter(response).filter(|m| !strip(m.as_str().trim_matches('*')).is_empty()).count()
        };
        filled(&SINGLE) + filled(&DOUBLE) >= count
    }))
}

pub(super) fn multiple_sections(arguments: &Arguments<'_>) -> Result<Check, String> {
    let splitter = strip(arguments.text("section_spliter")?);
    let divider = Pattern::in_its_case(&format!(r"\s?{splitter}\s?\d+\s?"))?;
    let count = arguments.number("num_sections")?;
    Ok(Box::new(move |response| divider.count(response, count) >= count))
}

pub(super) fn json_format(_: &Arguments<'_>) -> Result<Check, String> {
    Ok(Box::new(|response| {
        let mut text = strip(response);
        for fence in ["```json", "```Json", "```JSON", "```"] {
            text = text.strip_prefix(fence).unwrap_or(text);
        }
        is_json(strip(text.strip_suffix("```").unwrap_or(text)))
    }))
}

pub(super) fn title(_: &Arguments<'_>) -> Result<Check, String> {
    static TITLE: LazyLock<Regex> = LazyLock::new(|| compiled(r"<<[^\n]+>>"));
    Ok(Box::new(|response| {
        let text = |title: &str| !strip(title.trim_start_matches('<').trim_end_matches('>')).is_empty();
        TITLE.find_iter(response).any(|title| text(title.as_str()))
    }))
}
