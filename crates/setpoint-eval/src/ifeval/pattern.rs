//! Keywords, which the reference takes as regular expressions of Python.

use std::time::{Duration, Instant};

use regex::{Regex, RegexBuilder};

use crate::python_text::{SPACE, WORD, is_word};

/// Bytes that a compiled keyword may take.
pub(super) const LARGEST: usize = 1 << 19;
/// How long a keyword is looked for in a response again and again. Some patterns read all of it for each of their matches.
const LONGEST: Duration = Duration::from_secs(5);

/// A keyword, compiled.
#[derive(Debug, Clone)]
pub(super) struct Pattern {
    regex: Regex,
    translated: String,
}

impl Pattern {
    /// Compiles a keyword that is found in any case.
    pub(super) fn in_any_case(keyword: &str) -> Result<Self, String> {
        Self::new(keyword, true)
    }

    /// Compiles a keyword that is found as it is written.
    pub(super) fn in_its_case(keyword: &str) -> Result<Self, String> {
        Self::new(keyword, false)
    }

    fn new(keyword: &str, any_case: bool) -> Result<Self, String> {
        let translated = translated(keyword, any_case);
        let built = RegexBuilder::new(&translated)
            .case_insensitive(any_case)
            .size_limit(LARGEST)
            .dfa_size_limit(LARGEST)
            .build();
        built
            .map(|regex| Self { regex, translated })
            .map_err(|_| format!("the keyword `{keyword}` is no regular expression, as which the reference reads it"))
    }

    /// Returns it as it is compiled.
    pub(super) fn translated(&self) -> &str {
        &self.translated
    }

    /// Returns whether a text holds the keyword.
    pub(super) fn is_in(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }

    /// Counts the keyword in a text, up to `most`.
    pub(super) fn count(&self, text: &str, most: usize) -> usize {
        let started = Instant::now();
        let count = self.regex.find_iter(text).take(most).take_while(|_| started.elapsed() < LONGEST).count();
        self.note_if_late(started);
        count
    }

    /// Returns whether a text holds the keyword between two boundaries of words: `\bKEYWORD\b`.
    pub(super) fn is_word_of(&self, text: &str) -> bool {
        let started = Instant::now();
        let mut at = 0;
        while let Some(found) = self.regex.find_at(text, at).filter(|_| started.elapsed() < LONGEST) {
            if is_boundary(text, found.start()) && is_boundary(text, found.end()) {
                return true;
            }
            let Some(next) = text[found.start()..].chars().next() else { return false };
            at = found.start() + next.len_utf8();
        }
        self.note_if_late(started);
        false
    }

    /// Warns if the search has ended before the text.
    fn note_if_late(&self, started: Instant) {
        if started.elapsed() >= LONGEST {
            log::warn!(
                "the keyword `{}` takes too long: only a part of a response was searched for it",
                self.translated
            );
        }
    }
}

/// Returns whether exactly one of the characters before and after a place matches `\w`.
pub(super) fn is_boundary(text: &str, at: usize) -> bool {
    let before = text[..at].chars().next_back().is_some_and(is_word);
    let after = text[at..].chars().next().is_some_and(is_word);
    before != after
}

/// Writes a pattern of Python as one of Rust's `regex`: the same `\w` and `\s`, the four letters i, which are one in any case, and braces that
/// repeat nothing.
fn translated(pattern: &str, any_case: bool) -> String {
    let mut out = String::with_capacity(pattern.len());
    let mut in_class = false;
    let mut chars = pattern.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some((_, 'w')) => out.push_str(WORD),
                Some((_, 'W')) => out.push_str(r"[^\p{L}\p{N}_]"),
                Some((_, 's')) => out.push_str(SPACE),
                Some((_, 'S')) => out.push_str(r"[^\s\x1c-\x1f]"),
                Some((_, 'Z')) => out.push_str(r"\z"),
                Some((_, other)) => out.extend(['\\', other]),
                None => out.push('\\'),
            },
            'i' | 'I' | 'ı' | 'İ' if any_case => out.push_str(if in_class { "iIıİ" } else { "[iIıİ]" }),
            '[' if in_class => out.push_str(r"\["),
            '[' => {
                in_class = true;
                out.push('[');
                if chars.next_if(|(_, c)| *c == '^').is_some() {
                    out.push('^');
                }
                if chars.next_if(|(_, c)| *c == ']').is_some() {
                    out.push_str(r"\]");
                }
            }
            ']' if in_class => {
                in_class = false;
                out.push(']');
            }
            '{' if !in_class && !repeats(&pattern[at..]) => out.push_str(r"\{"),
            _ => out.push(c),
        }
    }
    out
}

/// Returns whether a text begins with `{3}`, `{3,}`, `{,3}` or `{3,4}`.
fn repeats(text: &str) -> bool {
    let inner = text.strip_prefix('{').and_then(|rest| rest.split_once('}')).map_or("", |(inner, _)| inner);
    let digits = |part: &str| part.chars().all(|c| c.is_ascii_digit());
    match inner.split_once(',') {
        Some((low, high)) => digits(low) && digits(high) && inner.len() > 1,
        None => !inner.is_empty() && digits(inner),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_are_pythons_regular_expressions() {
        let any = |keyword: &str| Pattern::in_any_case(keyword).unwrap();
        assert!(any("a.c").is_in("xABCx") && any(r"\w+").is_in("é") && !any(r"\w").is_in("\u{93f}"));
        // re.findall("i", "iIıİ", re.IGNORECASE) has four.
        assert_eq!(any("i").count("iIıİ", 9), 4);
        assert_eq!(any("[hi]").count("hI!", 9), 2);
        assert_eq!(any("[hi]").count("hI!", 1), 1);
        assert!(any("{name}").is_in("the {NAME}") && any("a{2}").is_in("aa") && !any("a{2}").is_in("a"));
        assert!(any("[]x]").is_in("]") && any("s").is_in("ſ"));
        assert!(!Pattern::in_its_case("p.s").unwrap().is_in("P.S"));
        assert!(Pattern::in_any_case("(oops").unwrap_err().contains("(oops"));
        assert!(Pattern::in_any_case(r"(?:\w{1,1000}){1,1000}").is_err(), "too large");
    }

    #[test]
    fn a_search_that_reads_all_for_each_match_ends() {
        let started = Instant::now();
        let text = "A".repeat(200_000);
        let pattern = Pattern::in_its_case(".*[^A-Z]|[A-Z]").unwrap();
        assert!(pattern.count(&text, usize::MAX) > 0);
        assert!(started.elapsed() < 6 * LONGEST, "{:?}", started.elapsed());
    }
}
