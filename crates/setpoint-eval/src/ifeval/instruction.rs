//! Instructions by their names.

use std::fmt;

use serde_json::{Map, Value};

use super::arguments::Arguments;
use super::{case, combination, content, format, keywords, length};
use crate::python_text::strip;

/// Tells whether a response follows an instruction.
pub(super) type Check = Box<dyn Fn(&str) -> bool + Send + Sync>;
/// Makes the check of an instruction with its arguments.
type Build = fn(&Arguments<'_>) -> Result<Check, String>;

/// Every instruction with its name in the data.
const INSTRUCTIONS: &[(&str, Build)] = &[
    ("keywords:existence", keywords::existence),
    ("keywords:frequency", keywords::frequency),
    ("keywords:forbidden_words", keywords::forbidden_words),
    ("keywords:letter_frequency", keywords::letter_frequency),
    ("language:response_language", case::response_language),
    ("length_constraints:number_sentences", length::number_sentences),
    ("length_constraints:number_paragraphs", length::number_paragraphs),
    ("length_constraints:number_words", length::number_words),
    ("length_constraints:nth_paragraph_first_word", length::nth_paragraph_first_word),
    ("detectable_content:number_placeholders", content::number_placeholders),
    ("detectable_content:postscript", content::postscript),
    ("detectable_format:number_bullet_lists", format::number_bullet_lists),
    ("detectable_format:constrained_response", format::constrained_response),
    ("detectable_format:number_highlighted_sections", format::number_highlighted_sections),
    ("detectable_format:multiple_sections", format::multiple_sections),
    ("detectable_format:json_format", format::json_format),
    ("detectable_format:title", format::title),
    ("combination:two_responses", combination::two_responses),
    ("combination:repeat_prompt", combination::repeat_prompt),
    ("startend:end_checker", content::end_checker),
    ("startend:quotation", content::quotation),
    ("change_case:capital_word_frequency", case::capital_word_frequency),
    ("change_case:english_capital", case::english_capital),
    ("change_case:english_lowercase", case::english_lowercase),
    ("punctuation:no_comma", content::no_comma),
];

/// An instruction of IFEval whose observance can be verified.
///
/// # Example
/// ```
/// use setpoint_eval::IfEvalInstruction;
///
/// let kwargs = serde_json::from_str(r#"{"num_highlights": 1}"#).unwrap();
/// let instruction = IfEvalInstruction::new("detectable_format:number_highlighted_sections", &kwargs).unwrap();
/// assert!(instruction.is_followed("This is *it*."));
/// assert!(!instruction.is_followed("This is it."));
/// ```
pub struct IfEvalInstruction {
    name: &'static str,
    check: Check,
}

impl IfEvalInstruction {
    /// Returns the instruction of a name with its arguments.
    ///
    /// # Errors
    /// An unknown name, and arguments that are missing, wrong or too many, in a sentence.
    pub fn new(name: &str, kwargs: &Map<String, Value>) -> Result<Self, String> {
        let Some(&(name, build)) = INSTRUCTIONS.iter().find(|(known, _)| *known == name) else {
            let known: Vec<&str> = Self::names().collect();
            return Err(format!("unknown instruction `{name}`, expected one of {}", known.join(", ")));
        };
        let arguments = Arguments::new(kwargs);
        let check = build(&arguments).and_then(|check| arguments.finish().map(|()| check));
        check.map(|check| Self { name, check }).map_err(|reason| format!("{name}: {reason}"))
    }

    /// Returns the names of all instructions.
    pub fn names() -> impl Iterator<Item = &'static str> {
        INSTRUCTIONS.iter().map(|(name, _)| *name)
    }

    /// Returns the name in the data, such as `keywords:existence`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Returns whether a response follows the instruction; an empty one follows none.
    #[must_use]
    pub fn is_followed(&self, response: &str) -> bool {
        !strip(response).is_empty() && (self.check)(response)
    }

    /// Returns whether a response follows the instruction, or would without its first line, its last line, both, or its asterisks.
    #[must_use]
    pub fn is_followed_loosely(&self, response: &str) -> bool {
        let first = response.find('\n').map_or("", |end| &response[end + 1..]);
        let last = response.rfind('\n').map_or("", |begin| &response[..begin]);
        let both = first.rfind('\n').map_or("", |begin| &first[..begin]);
        [response, strip(first), strip(last), strip(both)]
            .into_iter()
            .any(|text| self.is_followed(text) || text.contains('*') && self.is_followed(&text.replace('*', "")))
    }
}

impl fmt::Debug for IfEvalInstruction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IfEvalInstruction({})", self.name)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn error(name: &str, kwargs: Value) -> String {
        IfEvalInstruction::new(name, kwargs.as_object().unwrap()).unwrap_err()
    }

    #[test]
    fn wrong_arguments_are_named() {
        assert!(
            error("keywords:exist", json!({})).starts_with("unknown instruction `keywords:exist`, expected one of")
        );
        let name = "length_constraints:number_words";
        assert_eq!(
            error(name, json!({"relation": "at least"})),
            "length_constraints:number_words: expected a whole number of at least 1 as `num_words`, found null"
        );
        assert!(error(name, json!({"num_words": 2.5, "relation": "at least"})).ends_with("found 2.5"));
        assert!(error(name, json!({"num_words": 3, "relation": "at most"})).ends_with("found \"at most\""));
        assert_eq!(
            error("punctuation:no_comma", json!({"num_words": 3})),
            "punctuation:no_comma: it takes no arguments, found `num_words`"
        );
        assert_eq!(
            error("detectable_format:number_bullet_lists", json!({"num_bullets": 3, "relation": "at least"})),
            "detectable_format:number_bullet_lists: it takes num_bullets, found `relation`"
        );
        assert!(error("keywords:existence", json!({"keywords": ["a", 1]})).contains("a list of texts as `keywords`"));
        assert!(error("keywords:existence", json!({"keywords": ["(a"]})).contains("the keyword `(a`"));
        assert!(
            error("keywords:letter_frequency", json!({"letter": "ab", "let_frequency": 1, "let_relation": "at least"}))
                .ends_with("found \"ab\"")
        );
        let message = error("language:response_language", json!({"language": "zh"}));
        assert!(message.contains("unknown language `zh`, expected one of af, ar,"), "{message}");
        let paragraph = json!({"num_paragraphs": 2, "nth_paragraph": 3, "first_word": "so"});
        assert!(error("length_constraints:nth_paragraph_first_word", paragraph).contains("nth_paragraph"));
    }

    #[test]
    fn missing_values_of_other_arguments_are_no_error() {
        let kwargs = json!({"num_words": null, "relation": "", "keywords": [], "num_bullets": 0.0});
        assert!(IfEvalInstruction::new("punctuation:no_comma", kwargs.as_object().unwrap()).is_ok());
    }

    #[test]
    fn the_loose_verdict_leaves_out_lines_and_asterisks() {
        let comma = IfEvalInstruction::new("punctuation:no_comma", &Map::new()).unwrap();
        for (response, strict, loose) in [
            ("a\nb", true, true),
            ("Sure, here:\na\nb", false, true),
            ("a\nb\nAnything else, please?", false, true),
            ("Sure, here:\na\nBye, then", false, true),
            ("a, b", false, false),
            ("x\na, b\ny", false, false),
            (" \n ", false, false),
        ] {
            let verdicts = (comma.is_followed(response), comma.is_followed_loosely(response));
            assert_eq!(verdicts, (strict, loose), "{response}");
        }
        let quotation = IfEvalInstruction::new("startend:quotation", &Map::new()).unwrap();
        assert!(!quotation.is_followed("*\"a\"*") && quotation.is_followed_loosely("*\"a\"*"));
    }
}
