//! The answer in a generated text, as the harness's filters find it.

use std::sync::LazyLock;

use regex::Regex;
use serde::{Deserialize, Serialize};

use super::doc::{Task, TaskMode};

/// What the two filters found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Extracted {
    /// `strict-match`: only in the announced form.
    pub strict: Option<String>,
    /// `flexible-extract`: the last thing that looks like an answer.
    pub flexible: Option<String>,
}

/// Reads a number (GSM8K) or a choice's letter (the others) from a text.
///
/// GSM8K's filters are those of `gsm8k` and `gsm8k_cot_zeroshot`, the others' those of `mmlu_flan_cot_zeroshot`, save that the flexible
/// one does not look for the choices' own words.
pub fn extract_answer(task: Task, mode: TaskMode, text: &str) -> Extracted {
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
            flexible: last(pattern!(r"\([A-Z]\)")).map(|s| bare(&s)),
        },
    }
}

/// Without ASCII punctuation, in capitals.
fn bare(text: &str) -> String {
    text.chars().filter(|c| !c.is_ascii_punctuation()).collect::<String>().trim().to_uppercase()
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
        let Extracted { strict, flexible } = extract_answer(task, mode, text);
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
}
