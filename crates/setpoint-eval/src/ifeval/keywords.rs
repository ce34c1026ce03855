//! Instructions about words and letters.

use super::arguments::Arguments;
use super::instruction::Check;
use super::pattern::Pattern;
use super::word::Word;
use crate::python_text::strip;

pub(super) fn existence(arguments: &Arguments<'_>) -> Result<Check, String> {
    let keywords = patterns(&arguments.texts("keywords")?)?;
    Ok(Box::new(move |response| keywords.iter().all(|keyword| keyword.is_in(response))))
}

pub(super) fn frequency(arguments: &Arguments<'_>) -> Result<Check, String> {
    let keyword = Pattern::in_any_case(strip(arguments.text("keyword")?))?;
    let (count, relation) = (arguments.number("frequency")?, arguments.relation("relation")?);
    Ok(Box::new(move |response| relation.holds(keyword.count(response, count), count)))
}

pub(super) fn forbidden_words(arguments: &Arguments<'_>) -> Result<Check, String> {
    let words =
        arguments.texts("forbidden_words")?.iter().map(|word| Word::new(word)).collect::<Result<Vec<_>, _>>()?;
    Ok(Box::new(move |response| !words.iter().any(|word| word.is_in(response))))
}

/// The reference counts a letter drawn at random if it is told another character than a letter from a to z. Here that character is counted.
pub(super) fn letter_frequency(arguments: &Arguments<'_>) -> Result<Check, String> {
    let letter = arguments.text("letter")?;
    if letter.chars().count() != 1 {
        return Err(format!("expected one character as `letter`, found \"{letter}\""));
    }
    let letter = letter.to_lowercase();
    let (count, relation) = (arguments.number("let_frequency")?, arguments.relation("let_relation")?);
    Ok(Box::new(move |response| relation.holds(response.to_lowercase().matches(&letter).count(), count)))
}

fn patterns(keywords: &[&str]) -> Result<Vec<Pattern>, String> {
    keywords.iter().map(|keyword| Pattern::in_any_case(keyword)).collect()
}
