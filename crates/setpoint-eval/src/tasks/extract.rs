//! The answer in a generated text, as the harness's filters find it.

use std::sync::LazyLock;

use regex::Regex;
use serde::{Deserialize, Serialize};

use super::doc::TaskMode;
use super::prompt::letter;
use super::task::Task;

/// The answers that the two filters found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Extracted {
    /// `strict-match`: only in the announced form.
    pub strict: Option<String>,
    /// `flexible-extract`: the last thing that looks like an answer; of a choice also by its text.
    pub flexible: Option<String>,
}

/// Reads a number (GSM8K) or a choice's letter (the others) from a text.
///
/// GSM8K's filters are those of `gsm8k` and `gsm8k_cot_zeroshot`, the others' those of `mmlu_flan_cot_zeroshot`: the flexible one takes the
/// last letter in parentheses, else the last of the `choices` that the text holds word for word, without regard to case and punctuation,
/// else the last letter behind a colon.
pub fn extract_answer(task: Task, mode: TaskMode, choices: &[String], text: &str) -> Extracted {
    task.definition().extract(mode, choices, text)
}

/// Reads a choice's letter, as the filters of `mmlu_flan_cot_zeroshot` do.
pub(super) fn choice(choices: &[String], text: &str) -> Extracted {
    static ANNOUNCED: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new(r"(?:answer is |The answer: |The final answer: )(.*).").ok());
    static IN_PARENTHESES: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"\([A-Z]\)").ok());
    Extracted {
        // The harness's look-behinds, and its `(?=.)`, which leaves out the last character of the line.
        strict: first_match(&ANNOUNCED, text).map(|s| bare(&s)),
        flexible: last_match(&IN_PARENTHESES, text)
            .or_else(|| named_choice(choices, text))
            .or_else(|| behind_colon(choices.len(), text))
            .map(|s| bare(&s)),
    }
}

/// Returns the first group of the first match.
pub(super) fn first_match(regex: &Option<Regex>, text: &str) -> Option<String> {
    Some(regex.as_ref()?.captures(text)?.get(1)?.as_str().trim().to_owned())
}

/// Returns the last match.
pub(super) fn last_match(regex: &Option<Regex>, text: &str) -> Option<String> {
    Some(regex.as_ref()?.find_iter(text).last()?.as_str().trim().to_owned())
}

/// Without ASCII punctuation, in capitals: what `exact_match` compares.
fn bare(text: &str) -> String {
    text.chars().filter(|c| !c.is_ascii_punctuation()).collect::<String>().to_uppercase()
}

/// `filter_ignores` of the harness's `multi_choice_regex`: small letters, without what Unicode calls punctuation.
fn plain(text: &str) -> String {
    static PUNCTUATION: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"\p{P}").ok());
    let small = text.to_lowercase();
    PUNCTUATION.as_ref().map_or(small.clone(), |punctuation| punctuation.replace_all(&small, "").into_owned())
}

/// The last choice that stands in the text word for word, as its letter; of choices that begin alike the longest.
fn named_choice(choices: &[String], text: &str) -> Option<String> {
    let choices: Vec<String> = choices.iter().map(|choice| plain(choice.trim())).collect();
    // An empty pattern, of a choice without a letter or digit, matches at the end of every text, and stands for none.
    if choices.is_empty() || choices.iter().any(String::is_empty) {
        return None;
    }
    let mut sorted: Vec<&String> = choices.iter().collect();
    sorted.sort_by_key(|choice| std::cmp::Reverse(choice.len()));
    let pattern: Vec<String> = sorted.into_iter().map(|choice| regex::escape(choice)).collect();
    let text = plain(text);
    let found = Regex::new(&pattern.join("|")).ok()?.find_iter(&text).last()?.as_str().trim().to_owned();
    // Of equal choices the harness's table keeps the last. One with spaces at its ends it does not find again, and compares as it is.
    match choices.iter().rposition(|choice| *choice == found) {
        Some(index) => Some(letter(index).to_string()),
        None => Some(found).filter(|found| !found.is_empty()),
    }
}

/// The last letter of a choice that follows a colon.
fn behind_colon(choices: usize, text: &str) -> Option<String> {
    static LETTER: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r":\s*([A-Z])").ok());
    let mut found = LETTER.as_ref()?.captures_iter(text).filter_map(|c| Some(c.get(1)?.as_str()));
    let named = |found: &&str| found.chars().next().is_some_and(|c| (0..choices).any(|index| letter(index) == c));
    found.by_ref().filter(named).last().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> (Option<String>, Option<String>) {
        let choices = ["a red ball", "red", "3.5 cm", "the U.S."].map(str::to_owned);
        let Extracted { strict, flexible } = choice(&choices, text);
        (strict, flexible)
    }

    fn some(strict: &str, flexible: &str) -> (Option<String>, Option<String>) {
        (Some(strict.into()), Some(flexible.into()))
    }

    #[test]
    fn a_choice_is_announced_or_the_last_in_parentheses() {
        let cot = found;
        assert_eq!(cot("First (A)? No. The answer is (B)."), some("B", "B"));
        assert_eq!(cot("It is (C), not (D)"), (None, Some("D".into())));
        // What follows the letter on its line is part of the strict match, as in the harness.
        assert_eq!(cot("The answer is (B), I think.\n(A)"), some("B I THINK", "A"));
        assert_eq!(cot("b"), (None, None));
    }

    #[test]
    fn a_choice_may_be_named_or_follow_a_colon() {
        let flexible = |text| found(text).1;
        let some = |letter: &str| Some(letter.to_owned());
        assert_eq!(flexible("Not red: it is A Red Ball!"), some("A"), "the longest of those that begin alike");
        assert_eq!(flexible("a red ball, or red"), some("B"), "the last one");
        assert_eq!(flexible("35 cm. Us? No, the us"), some("D"), "without regard to punctuation");
        assert_eq!(flexible("Answer: C, or: E"), some("C"), "there is no E");
        assert_eq!(flexible("Answer: c"), None);
        // A choice without letters or digits makes the harness's pattern match the end of every text.
        let choices = ["-".to_owned(), "blue".to_owned()];
        let found = |text| choice(&choices, text).flexible;
        assert_eq!((found("blue"), found("it is: B")), (None, some("B")));
    }
}
