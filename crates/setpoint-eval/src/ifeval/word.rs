//! Keywords as whole words, found in one pass over the text.
//!
//! The reference searches for `\bKEYWORD\b` with Python's boundaries of words, which the engine used here does not have. So a mark that no text has
//! is put at every boundary of the text, and the keyword is written with marks at its ends and optional ones before each of its characters.

use regex::{Regex, RegexBuilder};
use regex_syntax::ParserBuilder;
use regex_syntax::ast::{self, Ast};
use regex_syntax::hir::{Class, ClassUnicode, ClassUnicodeRange, Hir, HirKind, Repetition};

use super::pattern::{LARGEST, Pattern};
use crate::python_text::is_word;

/// The mark: no character.
const MARK: char = '\u{10ffff}';

/// A keyword that is found as a word, in any case.
#[derive(Debug, Clone)]
pub(super) struct Word {
    keyword: Pattern,
    /// The keyword with marks; none if it has boundaries of its own.
    marked: Option<Regex>,
}

impl Word {
    /// Compiles a keyword.
    pub(super) fn new(keyword: &str) -> Result<Self, String> {
        let keyword = Pattern::in_any_case(keyword)?;
        let marked = marked(keyword.translated()).and_then(|pattern| {
            RegexBuilder::new(&pattern).size_limit(2 * LARGEST).dfa_size_limit(2 * LARGEST).build().ok()
        });
        Ok(Self { keyword, marked })
    }

    /// Returns whether a text holds the keyword between two boundaries of words: `\bKEYWORD\b`.
    pub(super) fn is_in(&self, text: &str) -> bool {
        match &self.marked {
            Some(marked) if !text.contains(MARK) => marked.is_match(&with_marks(text)),
            _ => self.keyword.is_word_of(text),
        }
    }
}

/// Puts a mark where exactly one of the characters before and after matches `\w`.
fn with_marks(text: &str) -> String {
    let mut out = String::with_capacity(2 * text.len());
    let mut within = false;
    for c in text.chars() {
        if is_word(c) != within {
            out.push(MARK);
            within = !within;
        }
        out.push(c);
    }
    if within {
        out.push(MARK);
    }
    out
}

/// Writes a pattern for texts with marks. As in the reference, the boundaries belong to the first and the last of several alternatives.
fn marked(pattern: &str) -> Option<String> {
    let whole = ast::parse::Parser::new().parse(pattern).ok()?;
    let branches: Vec<&str> = match &whole {
        Ast::Alternation(all) => {
            let text = |ast: &Ast| pattern.get(ast.span().start.offset..ast.span().end.offset);
            all.asts.iter().map(text).collect::<Option<_>>()?
        }
        _ => vec![pattern],
    };
    // A flag that is set in one alternative holds in those behind it.
    if branches.len() > 1 && pattern.contains("(?") {
        return None;
    }
    let last = branches.len() - 1;
    let branch = |(at, text): (usize, &&str)| {
        let hir = ParserBuilder::new().case_insensitive(true).build().parse(text).ok()?;
        let (before, behind) = (at == 0, at == last);
        Some(match hir.properties().minimum_len() {
            // Nothing is found at the first boundary, or anywhere.
            Some(0) if before || behind => MARK.to_string(),
            Some(0) => String::new(),
            _ => {
                let mark = |is_there: bool| if is_there { MARK.to_string() } else { String::new() };
                format!("{}(?:{}){}", mark(before), with_optional_marks(&hir)?, mark(behind))
            }
        })
    };
    Some(branches.iter().enumerate().map(branch).collect::<Option<Vec<String>>>()?.join("|"))
}

/// Returns an expression with an optional mark before each character, and without marks in its classes. `None` if it looks at what is around.
fn with_optional_marks(hir: &Hir) -> Option<Hir> {
    let all = |list: &[Hir]| list.iter().map(with_optional_marks).collect::<Option<Vec<Hir>>>();
    let behind_mark = |hir: Hir| {
        let mark = Hir::literal(MARK.to_string().into_bytes());
        let optional = Repetition { min: 0, max: Some(1), greedy: true, sub: Box::new(mark) };
        Hir::concat(vec![Hir::repetition(optional), hir])
    };
    Some(match hir.kind() {
        HirKind::Empty => Hir::empty(),
        HirKind::Literal(literal) => {
            let text = std::str::from_utf8(&literal.0).ok()?;
            Hir::concat(text.chars().map(|c| behind_mark(Hir::literal(c.to_string().into_bytes()))).collect())
        }
        HirKind::Class(Class::Unicode(class)) => {
            let mut class = class.clone();
            class.difference(&ClassUnicode::new([ClassUnicodeRange::new(MARK, MARK)]));
            behind_mark(Hir::class(Class::Unicode(class)))
        }
        HirKind::Class(Class::Bytes(_)) | HirKind::Look(_) => return None,
        HirKind::Repetition(repetition) => Hir::repetition(repetition.with(with_optional_marks(&repetition.sub)?)),
        HirKind::Capture(capture) => with_optional_marks(&capture.sub)?,
        HirKind::Concat(list) => Hir::concat(all(list)?),
        HirKind::Alternation(list) => Hir::alternation(all(list)?),
    })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn is_in(keyword: &str, text: &str) -> bool {
        Word::new(keyword).unwrap().is_in(text)
    }

    #[test]
    fn words_have_pythons_boundaries() {
        // re.search(r"\b" + keyword + r"\b", text, re.IGNORECASE) of Python 3.11
        for (keyword, text, expected) in [
            ("cat", "a Cat.", true),
            ("cat", "cats concat", false),
            ("cat", "cats and cat", true),
            ("two words", "in TWO words!", true),
            ("two words", "two wordsmiths", false),
            // A vowel sign is no \w.
            ("\u{939}", "\u{939}\u{93f}", true),
            (r"c\+\+", "c++", false),
            (r"c\+\+", "c++x", true),
            ("x*", "", false),
            ("x*", "!?", false),
            ("x*", "! a", true),
            // An end that a longer match reaches.
            ("cat(?:|s)", "cats", true),
            ("ca|cat", "the cat", true),
            (".", "a", true),
            ("[^a]+", "ab!ca", true),
            (r"\w\W\w", "a-b", true),
            (r"\w\W\w", "aa-b", false),
            // The boundaries belong to the alternatives at the ends.
            ("cat|dog", "concat dogs", false),
            ("cat|dog", "cats", true),
            ("cat|dog", "bulldog", true),
            ("cat|o|dog", "nothing of", true),
            ("cat|o|dog", "bulldo", true),
            ("cat|dog", "dogs concat", false),
            ("|dog", "a", true),
            ("cat||dog", "", true),
            ("(cat|dog)", "cats bulldog", false),
            // With boundaries of its own.
            (r"\bcat", "cat", true),
            ("^cat", "a cat", false),
            ("i", "İ", true),
        ] {
            assert_eq!(is_in(keyword, text), expected, "{keyword:?} in {text:?}");
        }
        assert!(is_in("cat", "\u{10ffff} cat") && !is_in(".", "\u{10ffff}"));
    }

    #[test]
    fn hostile_keywords_take_no_longer_than_their_text_is_long() {
        let started = Instant::now();
        let text = format!("{}!", "ab ".repeat(50_000));
        for keyword in [".*x", ".*.*.*x", "(a|b| )*x", "[ab ]+[ab ]+c", "a?b?.*z|.*z", r"(\w+\s?)+#"] {
            assert!(!is_in(keyword, &text), "{keyword}");
        }
        assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
    }
}
