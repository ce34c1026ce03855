//! Instructions about the language and the case of letters.

use super::arguments::Arguments;
use super::instruction::Check;
use super::language::{language_of, languages};
use super::words::tokenized;
use crate::python_text::{is_lower, is_upper};

pub(super) fn response_language(arguments: &Arguments<'_>) -> Result<Check, String> {
    let language = arguments.text("language")?.to_owned();
    if !languages().any(|known| known == language) {
        let known: Vec<&str> = languages().collect();
        return Err(format!("unknown language `{language}`, expected one of {}", known.join(", ")));
    }
    Ok(Box::new(move |response| is_in(response, &language)))
}

pub(super) fn capital_word_frequency(arguments: &Arguments<'_>) -> Result<Check, String> {
    let (count, relation) = (arguments.number("capital_frequency")?, arguments.relation("capital_relation")?);
    Ok(Box::new(move |response| {
        let capitals = tokenized(response).iter().filter(|token| is_upper(token)).count();
        relation.holds(capitals, count)
    }))
}

pub(super) fn english_capital(_: &Arguments<'_>) -> Result<Check, String> {
    Ok(Box::new(|response| is_upper(response) && is_in(response, "en")))
}

pub(super) fn english_lowercase(_: &Arguments<'_>) -> Result<Check, String> {
    Ok(Box::new(|response| is_lower(response) && is_in(response, "en")))
}

/// Returns whether a response is in a language. If nothing in it tells the language it is, as in the reference.
fn is_in(response: &str, language: &str) -> bool {
    language_of(response).is_none_or(|found| found == language)
}
