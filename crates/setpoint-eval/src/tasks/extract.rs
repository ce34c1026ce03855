//! The answer in a generated text, as the harness's filters find it.

use std::sync::LazyLock;

use regex::Regex;
use serde::{Deserialize, Serialize};

use super::doc::{Task, TaskMode};
use super::prompt::letter;

/// What the two filters found.
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
    macro_rules! pattern {
        ($pattern:literal) => {{
            static REGEX: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new($pattern).ok());
            &*REGEX
        }};
    }
    let first = |regex: &Option<Regex>| Some(regex.as_ref()?.captures(text)?.get(1)?.as_str().trim().to_owned());
    let last = |regex: &Option<Regex>| Some(regex.as_ref()?.find_iter(text).last()?.as_str().trim().to_owned());
    match (task, mode) {
        (Task::Gsm8k, TaskMode::Likelihood) => Extracted {
            strict: first(pattern!(r"#### (-?[0-9.,]+)")),
            flexible: last(pattern!(r"-?[$0-9.,]{2,}|-?[0-9]+")),
        },
        (Task::Gsm8k, TaskMode::Cot) => Extracted {
            strict: first(pattern!(r"The answer is (-?[0-9.,]+).")),
            flexible: last(pattern!(r"-?[$0-9.,]{2,}|-?[0-9]+")),
        },
        _ => Extracted {
            // The harness's look-behinds, and its `(?=.)`, which leaves out the last character of the line.
            strict: first(pattern!(r"(?:answer is |The answer: |The final answer: )(.*).")).map(|s| bare(&s)),
            flexible: last(pattern!(r"\([A-Z]\)"))
                .or_else(|| named_choice(choices, text))
                .or_else(|| behind_colon(choices.len(), text))
                .map(|s| bare(&s)),
        },
    }
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

/// `exact_match` of GSM8K: case, `,`, `$`, everything up to `#### ` and a final point do not count.
pub(super) fn same_number(found: &str, solution: &str) -> bool {
    let normal = |text: &str| {
        let text: String = text.chars().filter(|c| !matches!(c, ',' | '$')).collect();
        let text = text.rsplit_once("#### ").map_or(text.as_str(), |(_, end)| end);
        text.strip_suffix('.').unwrap_or(text).to_lowercase()
    };
    normal(found) == normal(solution)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(task: Task, mode: TaskMode, text: &str) -> (Option<String>, Option<String>) {
        let choices = ["a red ball", "red", "3.5 cm", "the U.S."].map(str::to_owned);
        let Extracted { strict, flexible } = extract_answer(task, mode, &choices, text);
        (strict, flexible)
    }

    fn some(strict: &str, flexible: &str) -> (Option<String>, Option<String>) {
        (Some(strict.into()), Some(flexible.into()))
    }

    #[test]
    fn gsm8k_takes_the_marked_or_the_last_number() {
        let (few, cot) = (TaskMode::Likelihood, TaskMode::Cot);
        assert_eq!(found(Task::Gsm8k, few, "2+2=4\n#### 1,204\nand 7"), some("1,204", "7"));
        assert_eq!(found(Task::Gsm8k, few, "It costs $18.50."), (None, Some("$18.50.".into())));
        assert_eq!(found(Task::Gsm8k, cot, "So 3. The answer is -12."), some("-12", "-12."));
        assert_eq!(found(Task::Gsm8k, cot, "none"), (None, None));
        assert!(
            same_number("$18.", "x\n#### 18") && same_number("1,204", "#### 1204") && !same_number("18.0", "#### 18")
        );
    }

    #[test]
    fn a_choice_is_announced_or_the_last_in_parentheses() {
        let cot = |text| found(Task::ArcEasy, TaskMode::Cot, text);
        assert_eq!(cot("First (A)? No. The answer is (B)."), some("B", "B"));
        assert_eq!(cot("It is (C), not (D)"), (None, Some("D".into())));
        // What follows the letter on its line is part of the strict match, as in the harness.
        assert_eq!(cot("The answer is (B), I think.\n(A)"), some("B I THINK", "A"));
        assert_eq!(cot("b"), (None, None));
    }

    #[test]
    fn a_choice_may_be_named_or_follow_a_colon() {
        let flexible = |text| found(Task::ArcEasy, TaskMode::Cot, text).1;
        let some = |letter: &str| Some(letter.to_owned());
        assert_eq!(flexible("Not red: it is A Red Ball!"), some("A"), "the longest of those that begin alike");
        assert_eq!(flexible("a red ball, or red"), some("B"), "the last one");
        assert_eq!(flexible("35 cm. Us? No, the us"), some("D"), "without regard to punctuation");
        assert_eq!(flexible("Answer: C, or: E"), some("C"), "there is no E");
        assert_eq!(flexible("Answer: c"), None);
        // A choice without letters or digits makes the harness's pattern match the end of every text.
        let choices = ["-".to_owned(), "blue".to_owned()];
        let found = |text| extract_answer(Task::ArcEasy, TaskMode::Cot, &choices, text).flexible;
        assert_eq!((found("blue"), found("it is: B")), (None, some("B")));
    }
}
