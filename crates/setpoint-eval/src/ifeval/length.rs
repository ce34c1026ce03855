//! Instructions about words, sentences and paragraphs.

use std::sync::LazyLock;

use regex::Regex;

use super::arguments::Arguments;
use super::instruction::Check;
use super::nltk::count_words;
use super::punkt::sentences;
use crate::python_text::{compiled, is_space, strip};

pub(super) fn number_sentences(arguments: &Arguments<'_>) -> Result<Check, String> {
    let (count, relation) = (arguments.number("num_sentences")?, arguments.relation("relation")?);
    Ok(Box::new(move |response| relation.holds(sentences(response).len(), count)))
}

pub(super) fn number_words(arguments: &Arguments<'_>) -> Result<Check, String> {
    let (count, relation) = (arguments.number("num_words")?, arguments.relation("relation")?);
    Ok(Box::new(move |response| relation.holds(count_words(response), count)))
}

/// Paragraphs are divided by `***`; only the first and the last may be empty.
pub(super) fn number_paragraphs(arguments: &Arguments<'_>) -> Result<Check, String> {
    static DIVIDER: LazyLock<Regex> = LazyLock::new(|| compiled(r"[\s\x1c-\x1f]?\*\*\*[\s\x1c-\x1f]?"));
    let wanted = arguments.number("num_paragraphs")?;
    Ok(Box::new(move |response| {
        let filled: Vec<bool> = DIVIDER.split(response).map(|paragraph| !strip(paragraph).is_empty()).collect();
        let inner = filled.get(1..filled.len() - 1).unwrap_or_default();
        inner.iter().all(|filled| *filled) && filled.iter().filter(|filled| **filled).count() == wanted
    }))
}

/// Paragraphs are divided by an empty line. An empty one is not counted, yet it has its place.
pub(super) fn nth_paragraph_first_word(arguments: &Arguments<'_>) -> Result<Check, String> {
    let (wanted, nth) = (arguments.number("num_paragraphs")?, arguments.number("nth_paragraph")?);
    if nth > wanted {
        return Err(format!("`nth_paragraph` is {nth}, expected at most `num_paragraphs`, which is {wanted}"));
    }
    let first_word = arguments.text("first_word")?.to_lowercase();
    Ok(Box::new(move |response| {
        let paragraphs: Vec<&str> = response.split("\n\n").map(strip).collect();
        let count = paragraphs.iter().filter(|paragraph| !paragraph.is_empty()).count();
        count == wanted && paragraphs.get(nth - 1).is_some_and(|paragraph| begins_with(paragraph, &first_word))
    }))
}

/// Returns whether the first word of a paragraph, without quotes before it and without punctuation behind it, is this one in lower case.
fn begins_with(paragraph: &str, wanted: &str) -> bool {
    let Some(word) = paragraph.split(is_space).next().filter(|word| !word.is_empty()) else { return false };
    let word = word.trim_start_matches('\'').trim_start_matches('"');
    let letters = word.chars().take_while(|c| !matches!(c, '.' | ',' | '?' | '!' | '\'' | '"'));
    letters.flat_map(char::to_lowercase).eq(wanted.chars())
}
