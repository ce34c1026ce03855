//! Rules about words and patterns.

use regex::Regex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Check, Compiled, one};
use crate::error::Error;
use crate::source::Scored;

/// `score_if_match` where the regular expression matches anywhere in the response, else `else`.
///
/// The syntax is that of the `regex` crate (`(?i)` ignores case, `(?s)` lets `.` match line ends, `^…$` anchors to the whole
/// response). Matching takes time linear in the response, whatever the pattern.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RegexRule {
    /// The regular expression.
    pub pattern: String,
    /// The reward if it matches.
    #[serde(default = "one")]
    pub score_if_match: f64,
    /// The reward if it does not.
    #[serde(default, rename = "else")]
    pub otherwise: f64,
}

/// The number of words that have to be in a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Quantifier {
    /// At least one.
    #[default]
    Any,
    /// Every one.
    All,
    /// Not a single one.
    None,
}

/// `score_if_match` where the response contains any, all or none of some words or phrases, else `else`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ContainsRule {
    /// Words or phrases, at least one.
    pub words: Vec<String>,
    /// The number of words that must be in the response.
    #[serde(default)]
    pub mode: Quantifier,
    /// Matches only whole words, without another letter or digit on either side ("art" is not in "part").
    #[serde(default = "yes")]
    pub whole_words: bool,
    /// Distinguishes "Yes" from "yes".
    #[serde(default)]
    pub case_sensitive: bool,
    /// The reward if the words are as wanted.
    #[serde(default = "one")]
    pub score_if_match: f64,
    /// The reward if they are not.
    #[serde(default, rename = "else")]
    pub otherwise: f64,
}

/// `score_if_match` where the response starts with one of some words or phrases (white space before it aside), else `else`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StartsWithRule {
    /// Words or phrases, at least one.
    pub words: Vec<String>,
    /// Matches only whole words, without another letter or digit after them ("Sure" does not start "Surely").
    #[serde(default = "yes")]
    pub whole_words: bool,
    /// Distinguishes "Yes" from "yes".
    #[serde(default)]
    pub case_sensitive: bool,
    /// The reward if one of them comes first.
    #[serde(default = "one")]
    pub score_if_match: f64,
    /// The reward if none does.
    #[serde(default, rename = "else")]
    pub otherwise: f64,
}

fn yes() -> bool {
    true
}

impl RegexRule {
    pub(super) fn compile(&self, check: &mut Check) -> Option<Box<dyn Compiled>> {
        check.finite("score_if_match", self.score_if_match);
        check.finite("else", self.otherwise);
        let pattern = build(check, "pattern", &self.pattern)?;
        Some(Box::new(Matches {
            patterns: vec![pattern],
            mode: Quantifier::Any,
            yes: self.score_if_match,
            no: self.otherwise,
        }))
    }
}

impl ContainsRule {
    pub(super) fn compile(&self, check: &mut Check) -> Option<Box<dyn Compiled>> {
        check.finite("score_if_match", self.score_if_match);
        check.finite("else", self.otherwise);
        let patterns = word_patterns(check, &self.words, self.case_sensitive, |word| {
            if self.whole_words { format!(r"(?:^|[^\w]){word}(?:[^\w]|$)") } else { word.to_owned() }
        })?;
        Some(Box::new(Matches { patterns, mode: self.mode, yes: self.score_if_match, no: self.otherwise }))
    }
}

impl StartsWithRule {
    pub(super) fn compile(&self, check: &mut Check) -> Option<Box<dyn Compiled>> {
        check.finite("score_if_match", self.score_if_match);
        check.finite("else", self.otherwise);
        let end = if self.whole_words { r"(?:[^\w]|$)" } else { "" };
        let patterns = word_patterns(check, &self.words, self.case_sensitive, |word| format!(r"\A\s*{word}{end}"))?;
        Some(Box::new(Matches { patterns, mode: Quantifier::Any, yes: self.score_if_match, no: self.otherwise }))
    }
}

/// One pattern per word, with `around` laid about the escaped word.
fn word_patterns(
    check: &mut Check,
    words: &[String],
    case_sensitive: bool,
    around: impl Fn(&str) -> String,
) -> Option<Vec<Regex>> {
    if words.is_empty() {
        check.problem("words", "is empty, expected at least one word");
        return None;
    }
    if words.iter().any(|word| word.trim().is_empty()) {
        check.problem("words", "contains a blank, which is in every response");
        return None;
    }
    let flag = if case_sensitive { "" } else { "(?i)" };
    words.iter().map(|word| build(check, "words", &format!("{flag}{}", around(&regex::escape(word))))).collect()
}

fn build(check: &mut Check, key: &str, pattern: &str) -> Option<Regex> {
    // The message shows the pattern over several lines; the last one gives the reason.
    let reason = |error: &regex::Error| {
        let message = error.to_string();
        message.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
    };
    Regex::new(pattern)
        .inspect_err(|error| check.problem(key, format!("is no valid regular expression: {}", reason(error))))
        .ok()
}

struct Matches {
    patterns: Vec<Regex>,
    mode: Quantifier,
    yes: f64,
    no: f64,
}

impl Compiled for Matches {
    fn score(&self, item: &Scored<'_>) -> Result<f64, Error> {
        let mut hits = self.patterns.iter().map(|pattern| pattern.is_match(item.response));
        let matched = match self.mode {
            Quantifier::Any => hits.any(|hit| hit),
            Quantifier::All => hits.all(|hit| hit),
            Quantifier::None => !hits.any(|hit| hit),
        };
        Ok(if matched { self.yes } else { self.no })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{problems_of, score_of};

    #[test]
    fn regex_matches_anywhere_unless_anchored() {
        let rule = "kind = 'regex'\npattern = '\\d{3}'\nscore_if_match = 2.5\nelse = -1.0";
        assert_eq!(score_of(rule, "room 101, please"), 2.5);
        assert_eq!(score_of(rule, "room 10"), -1.0);
        let anchored = "kind = 'regex'\npattern = '(?s)^<think>.*</think>\\s*\\S'";
        assert_eq!(score_of(anchored, "<think>a\nb</think>\nfour"), 1.0);
        assert_eq!(score_of(anchored, "<think>a\nb</think>\n"), 0.0);
    }

    #[test]
    fn a_pattern_that_explodes_elsewhere_stays_linear() {
        // Backtracking engines take 2^n steps for this one.
        assert_eq!(score_of("kind = 'regex'\npattern = '^(a+)+$'", &format!("{}b", "a".repeat(5000))), 0.0);
    }

    #[test]
    fn contains_any_all_none() {
        let rule = |mode: &str| format!("kind = 'contains'\nwords = ['cat', 'dog']\nmode = '{mode}'");
        for (response, any, all, none) in
            [("A cat.", 1.0, 0.0, 0.0), ("Cat and DOG", 1.0, 1.0, 0.0), ("Neither", 0.0, 0.0, 1.0)]
        {
            assert_eq!(score_of(&rule("any"), response), any, "{response}");
            assert_eq!(score_of(&rule("all"), response), all, "{response}");
            assert_eq!(score_of(&rule("none"), response), none, "{response}");
        }
    }

    #[test]
    fn whole_words_end_at_letters_of_any_script() {
        let whole = "kind = 'contains'\nwords = ['art', 'C++']";
        assert_eq!(score_of(whole, "modern art"), 1.0);
        assert_eq!(score_of(whole, "a party"), 0.0);
        assert_eq!(score_of(whole, "artà"), 0.0);
        assert_eq!(score_of(whole, "in C++."), 1.0);
        assert_eq!(score_of("kind = 'contains'\nwords = ['art']\nwhole_words = false", "a party"), 1.0);
        assert_eq!(score_of("kind = 'contains'\nwords = ['Art']\ncase_sensitive = true", "art"), 0.0);
    }

    #[test]
    fn words_are_no_patterns() {
        assert_eq!(score_of("kind = 'contains'\nwords = ['a.c']", "abc"), 0.0);
        assert_eq!(score_of("kind = 'contains'\nwords = ['a.c']", "so a.c it is"), 1.0);
    }

    #[test]
    fn starts_with_skips_leading_space_only() {
        let rule = "kind = 'starts_with'\nwords = ['Sure', 'Of course']\nscore_if_match = -1.0";
        assert_eq!(score_of(rule, "\n sure, here"), -1.0);
        assert_eq!(score_of(rule, "Of course!"), -1.0);
        assert_eq!(score_of(rule, "Surely"), 0.0);
        assert_eq!(score_of(rule, "I am.\nSure."), 0.0);
        assert_eq!(score_of("kind = 'starts_with'\nwords = ['Sure']\nwhole_words = false", "Surely"), 1.0);
    }

    #[test]
    fn senseless_settings_are_named() {
        assert_eq!(problems_of("kind = 'contains'\nwords = ['a', ' ']")[0].key, "words");
        let problems = problems_of("kind = 'regex'\npattern = '['\nscore_if_match = inf\nelse = nan");
        assert_eq!(problems.iter().map(|p| p.key.as_str()).collect::<Vec<_>>(), ["score_if_match", "else", "pattern"]);
        let huge = problems_of("kind = 'regex'\npattern = '(\\w{100}){100}{100}'");
        assert!(huge[0].message.contains("size limit"), "{}", huge[0].message);
    }
}
