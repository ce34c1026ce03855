//! Instructions about parts of a response, its beginning, its end and its punctuation.

use std::sync::LazyLock;

use regex::Regex;

use super::arguments::Arguments;
use super::instruction::Check;
use super::pattern::Pattern;
use crate::python_text::{compiled, strip};

pub(super) fn number_placeholders(arguments: &Arguments<'_>) -> Result<Check, String> {
    static PLACEHOLDER: LazyLock<Regex> = LazyLock::new(|| compiled(r"\[.*?\]"));
    let count = arguments.number("num_placeholders")?;
    Ok(Box::new(move |response| PLACEHOLDER.find_iter(response).take(count).count() == count))
}

/// A marker is found anywhere in a response, and but for two of them it is a regular expression.
pub(super) fn postscript(arguments: &Arguments<'_>) -> Result<Check, String> {
    let marker = strip(arguments.text("postscript_marker")?);
    let pattern = match marker {
        "P.P.S" => Pattern::in_its_case(r"p\.\s?p\.\s?s")?,
        "P.S." => Pattern::in_its_case(r"p\.\s?s\.")?,
        other => Pattern::in_its_case(&other.to_lowercase())?,
    };
    Ok(Box::new(move |response| pattern.is_in(&response.to_lowercase())))
}

pub(super) fn end_checker(arguments: &Arguments<'_>) -> Result<Check, String> {
    let phrase = strip(arguments.text("end_phrase")?).to_lowercase();
    let phrase = strip(&phrase).to_owned();
    Ok(Box::new(move |response| strip(response).trim_matches('"').to_lowercase().ends_with(&phrase)))
}

pub(super) fn quotation(_: &Arguments<'_>) -> Result<Check, String> {
    Ok(Box::new(|response| {
        let response = strip(response);
        response.len() > 1 && response.starts_with('"') && response.ends_with('"')
    }))
}

pub(super) fn no_comma(_: &Arguments<'_>) -> Result<Check, String> {
    Ok(Box::new(|response| !response.contains(',')))
}
