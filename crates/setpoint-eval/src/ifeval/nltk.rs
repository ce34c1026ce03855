//! Characters as NLTK (3.10) sees them. It compiles its patterns with the package `regex`, whose `\w` and `\s` are those of Rust's crate of that name.

use std::sync::LazyLock;

use regex::Regex;

use crate::python_text::compiled;

/// Returns whether a character matches `\s`.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace()
}

/// Returns whether a character matches `\w`, as combining marks do.
pub(super) fn is_word(c: char) -> bool {
    static ONE: LazyLock<Regex> = LazyLock::new(|| compiled(r"\w"));
    if c.is_ascii() {
        return c.is_ascii_alphanumeric() || c == '_';
    }
    ONE.is_match(c.encode_utf8(&mut [0; 4]))
}

/// Returns whether a character matches `\d`.
pub(super) fn is_digit(c: char) -> bool {
    static ONE: LazyLock<Regex> = LazyLock::new(|| compiled(r"\d"));
    if c.is_ascii() { c.is_ascii_digit() } else { ONE.is_match(c.encode_utf8(&mut [0; 4])) }
}

/// Returns the number of words: the matches of `\w+`.
pub(super) fn count_words(text: &str) -> usize {
    static WORDS: LazyLock<Regex> = LazyLock::new(|| compiled(r"\w+"));
    WORDS.find_iter(text).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_hold_combining_marks() {
        // nltk 3.10.4, RegexpTokenizer(r"\w+")
        assert_eq!(count_words("snake_case isn't ½ word"), 4);
        assert_eq!(count_words("\u{939}\u{93f}\u{928}\u{94d}\u{926}\u{940} \u{24b6}"), 2);
        assert_eq!(count_words(" - "), 0);
    }
}
