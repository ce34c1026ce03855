//! Texts as Python sees them: `str.strip`, `str.isupper`, `\w` and `\s` of `re`, which differ from Rust's in a few characters.

use std::sync::LazyLock;

use regex::Regex;

/// `\s`: Unicode's white space and four separators of ASCII.
pub(crate) const SPACE: &str = r"[\s\x1c-\x1f]";
/// `\w`: letters, numbers and the underscore, but no combining marks.
pub(crate) const WORD: &str = r"[\p{L}\p{N}_]";

/// Compiles a pattern of this crate.
///
/// # Panics
/// If the pattern is wrong, which the tests would show.
pub(crate) fn compiled(pattern: &str) -> Regex {
    Regex::new(pattern).expect("the pattern is a constant")
}

/// Returns whether a character is white space: `str.isspace`.
pub(crate) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

/// Returns whether a character matches `\w`.
pub(crate) fn is_word(c: char) -> bool {
    static ONE: LazyLock<Regex> = LazyLock::new(|| compiled(WORD));
    if c.is_ascii() {
        return c.is_ascii_alphanumeric() || c == '_';
    }
    ONE.is_match(c.encode_utf8(&mut [0; 4]))
}

/// Returns the text without white space at its ends: `str.strip`.
pub(crate) fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// Returns whether the text holds cased characters and all of them are upper case: `str.isupper`.
pub(crate) fn is_upper(text: &str) -> bool {
    let mut upper = false;
    for c in text.chars() {
        if c.is_lowercase() || is_title(c) {
            return false;
        }
        upper |= c.is_uppercase();
    }
    upper
}

/// Returns whether the text holds cased characters and all of them are lower case: `str.islower`.
pub(crate) fn is_lower(text: &str) -> bool {
    let mut lower = false;
    for c in text.chars() {
        if c.is_uppercase() || is_title(c) {
            return false;
        }
        lower |= c.is_lowercase();
    }
    lower
}

/// Returns whether a character is a digraph of an upper-case and a lower-case letter.
fn is_title(c: char) -> bool {
    matches!(c,
        '\u{1c5}' | '\u{1c8}' | '\u{1cb}' | '\u{1f2}' | '\u{1f88}'..='\u{1f8f}' | '\u{1f98}'..='\u{1f9f}'
        | '\u{1fa8}'..='\u{1faf}' | '\u{1fbc}' | '\u{1fcc}' | '\u{1ffc}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_and_spaces_are_pythons() {
        assert!(is_upper("ABC 1!") && !is_upper("12") && !is_upper("ABc") && !is_upper("\u{1c5}"));
        assert!(is_lower("abc ª") && !is_lower("") && !is_lower("aB") && !is_lower("a\u{1c5}"));
        assert_eq!(strip("\u{1f}\u{a0} x\u{85}"), "x");
        assert_eq!(strip("\u{200b}x"), "\u{200b}x");
    }

    #[test]
    fn combining_marks_are_no_word_characters() {
        assert!(is_word('\u{939}') && is_word('_') && is_word('½') && is_word('7'));
        assert!(!is_word('\u{93f}') && !is_word('-') && !is_word('\u{24b6}'));
    }
}
