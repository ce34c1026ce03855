//! The style of an answer: its length and the Markdown elements in it.

use std::sync::LazyLock;

use regex::Regex;
use serde::{Deserialize, Serialize};

use crate::python_text::{SPACE, compiled};

/// Features of a style: length, headings, lists, bold texts.
pub(super) const FEATURES: usize = 4;

/// `metadata` of an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ArenaStyle {
    /// Tokens, as the tokenizer of GPT-4o counts them.
    pub token_len: u64,
    /// Headings by level.
    pub header_count: Headers,
    /// Items of lists.
    pub list_count: Lists,
    /// Texts in bold.
    pub bold_count: Bold,
}

/// Headings by level.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Headers {
    h1: u64,
    h2: u64,
    h3: u64,
    h4: u64,
    h5: u64,
    h6: u64,
}

/// Items of lists.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Lists {
    ordered: u64,
    unordered: u64,
}

/// Texts in bold, by their marks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bold {
    #[serde(rename = "**")]
    asterisks: u64,
    #[serde(rename = "__")]
    underscores: u64,
}

impl ArenaStyle {
    /// Counts the elements of an answer outside of its code blocks; `tokens` is the length of the whole answer.
    #[must_use]
    pub fn of(answer: &str, tokens: usize) -> Self {
        static PATTERNS: LazyLock<Vec<Regex>> = LazyLock::new(|| {
            let headings = (1..=6).map(|level| format!("(?m)^#{{{level}}}{SPACE}"));
            let lists = [format!(r"(?m)^{SPACE}*\d+\.{SPACE}"), format!(r"(?m)^{SPACE}*[-*+]{SPACE}")];
            let bold = [r"\*\*[^*\n]+\*\*".to_owned(), r"__[^_\n]+__".to_owned()];
            headings.chain(lists).chain(bold).map(|pattern| compiled(&pattern)).collect()
        });
        let text = without_code(answer);
        let counts: Vec<u64> = PATTERNS.iter().map(|pattern| pattern.find_iter(&text).count() as u64).collect();
        Self {
            token_len: tokens as u64,
            header_count: Headers {
                h1: counts[0],
                h2: counts[1],
                h3: counts[2],
                h4: counts[3],
                h5: counts[4],
                h6: counts[5],
            },
            list_count: Lists { ordered: counts[6], unordered: counts[7] },
            bold_count: Bold { asterisks: counts[8], underscores: counts[9] },
        }
    }

    /// Returns how the style differs from the baseline's: the relative difference of the lengths, and those of the elements per token.
    pub(super) fn difference(&self, baseline: &Self) -> [f64; FEATURES] {
        let (own, other) = (self.numbers(), baseline.numbers());
        std::array::from_fn(|i| {
            if i == 0 {
                let sum = own[0] + other[0];
                return if sum == 0.0 { 0.0 } else { (own[0] - other[0]) / sum };
            }
            let (own, other) = (own[i] / (own[0] + 1.0), other[i] / (other[0] + 1.0));
            (own - other) / (own + other + 1.0)
        })
    }

    fn numbers(&self) -> [f64; FEATURES] {
        let Headers { h1, h2, h3, h4, h5, h6 } = self.header_count;
        let lists = self.list_count.ordered + self.list_count.unordered;
        let bold = self.bold_count.asterisks + self.bold_count.underscores;
        [self.token_len, h1 + h2 + h3 + h4 + h5 + h6, lists, bold].map(|count| count as f64)
    }
}

/// Removes the contents of code blocks wherever they occur in the text, as the published script does.
fn without_code(answer: &str) -> String {
    static CODE: LazyLock<Regex> = LazyLock::new(|| compiled("```([^`]*)```"));
    let mut text = answer.to_owned();
    for found in CODE.captures_iter(answer) {
        if !found[1].is_empty() {
            text = text.replace(&found[1], "");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_counted_outside_of_code() {
        let answer = "# One\n## Two\n###x\n- a\n * b\n1. c\n**bold** __too__ **not\nbold**\n```\n# code\n- d\n```\n+ e";
        let style = ArenaStyle::of(answer, 40);
        let expected = serde_json::json!({
            "token_len": 40,
            "header_count": {"h1": 1, "h2": 1, "h3": 0, "h4": 0, "h5": 0, "h6": 0},
            "list_count": {"ordered": 1, "unordered": 3},
            "bold_count": {"**": 1, "__": 1},
        });
        assert_eq!(serde_json::to_value(&style).unwrap(), expected);
    }

    #[test]
    fn differences_are_relative() {
        let (long, short) = (ArenaStyle::of("# a\n", 29), ArenaStyle::of("", 9));
        let [length, headings, lists, bold] = long.difference(&short);
        assert!((length - 20.0 / 38.0).abs() < 1e-15);
        // 1/30 headings per token against none.
        assert!((headings - 1.0 / 31.0).abs() < 1e-15 && lists == 0.0 && bold == 0.0);
        let empty = ArenaStyle::of("", 0);
        assert_eq!(empty.difference(&empty), [0.0; FEATURES]);
    }
}
