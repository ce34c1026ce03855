//! Words and punctuation, as NLTK's `word_tokenize` divides an English text.

use std::sync::LazyLock;

use regex::{Captures, Regex};

use super::nltk::is_word;
use super::pattern::is_boundary;
use super::punkt::sentences;
use crate::python_text::{compiled, is_space};

/// Returns the tokens of a text, sentence by sentence.
pub(super) fn tokenized(text: &str) -> Vec<String> {
    sentences(text).iter().flat_map(|sentence| tokens_of(sentence)).collect()
}

/// A pattern and its replacement.
type Rule = (Regex, &'static str);

fn rules(rules: &[(&str, &'static str)]) -> Vec<Rule> {
    rules.iter().map(|(pattern, replacement)| (compiled(pattern), *replacement)).collect()
}

/// Quotes that open, before those that are apostrophes.
static OPENING: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    rules(&[("([«“‘„]|`+)", " $1 "), ("^\"", "``"), ("(``)", " $1 "), (r#"([ (\[{<])("|'{2})"#, "$1 `` ")])
});

static PUNCTUATION: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    rules(&[
        (r#"([^.])(\.)([\])}>"'»”’ ]*)\s*$"#, "$1 $2 $3 "),
        (r"([:,])([^\d])", " $1 $2"),
        (r"([:,])$", " $1 "),
        (r"(\.{2,}|[;@#$%&\x{2012}-\x{2015}])", " $1 "),
        (r#"([^.])(\.)([\])}>"']*)\s*$"#, "$1 $2$3 "),
        (r"([?!])", " $1 "),
        (r"([^'])' ", "$1 ' "),
        (r"([*\]\[(){}<>])", " $1 "),
        ("--", " -- "),
    ])
});

/// Quotes that close, and endings that are words of their own.
static CLOSING: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    rules(&[
        ("([»”’])", " $1 "),
        ("''", " '' "),
        ("\"", " '' "),
        (r"\s+", " "),
        (r"([^' ])('[sS]|'[mM]|'[dD]|') ", "$1 $2 "),
        (r"([^' ])('ll|'LL|'re|'RE|'ve|'VE|n't|N'T) ", "$1 $2 "),
    ])
});

/// Two words in one.
static CONTRACTIONS: LazyLock<Vec<Regex>> = LazyLock::new(|| {
    let patterns = [
        "(can)(not)",
        "(d)('ye)",
        "(g[iıİ]m)(me)",
        "(gon)(na)",
        "(got)(ta)",
        "(lem)(me)",
        "(more)('n)",
        "(wan)(na)",
        " ('t)([iıİ]s)",
        " ('t)(was)",
    ];
    patterns.iter().map(|pattern| compiled(&format!("(?i){pattern}"))).collect()
});

fn tokens_of(sentence: &str) -> Vec<String> {
    let apply = |text: String, rules: &[Rule]| {
        rules.iter().fold(text, |text, (pattern, replacement)| pattern.replace_all(&text, *replacement).into_owned())
    };
    let text = detached_quotes(&apply(sentence.to_owned(), &OPENING));
    let text = apply(text, &PUNCTUATION);
    let text = apply(format!(" {text} "), &CLOSING);
    let text = CONTRACTIONS.iter().fold(text, |text, pattern| divided(&text, pattern));
    text.split(is_space).filter(|token| !token.is_empty()).map(str::to_owned).collect()
}

/// Puts a space behind apostrophes that open a word, unless it is an ending such as `'ve`.
fn detached_quotes(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    for (at, &c) in chars.iter().enumerate() {
        out.push(c);
        let opens = c == '\'' && (at == 0 || !is_word(chars[at - 1])) && chars.get(at + 1).is_some_and(|c| is_word(*c));
        if opens && !is_ending(&chars[at + 1..]) {
            out.push(' ');
        }
    }
    out
}

fn is_ending(text: &[char]) -> bool {
    let length = text.iter().take(3).take_while(|c| is_word(**c)).count();
    let word: String = text[..length].iter().collect::<String>().to_lowercase();
    matches!(word.as_str(), "re" | "ve" | "ll" | "m" | "t" | "s" | "ſ" | "d" | "n")
}

/// Puts spaces around both parts of a contraction that is a whole word.
fn divided(text: &str, pattern: &Regex) -> String {
    pattern
        .replace_all(text, |found: &Captures<'_>| {
            let (begin, end) = found.get(0).map_or((0, 0), |m| (m.start(), m.end()));
            let first = text[begin..].chars().next().unwrap_or(' ');
            let whole = (first == ' ' || is_boundary(text, begin)) && is_boundary(text, end);
            // `wanna` is one only before a space.
            let wanna = found[1].eq_ignore_ascii_case("wan");
            if whole && (!wanna || text[end..].starts_with(is_space)) {
                format!(" {} {} ", &found[1], &found[2])
            } else {
                found[0].to_owned()
            }
        })
        .into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_nltks() {
        // nltk 3.10.4, word_tokenize
        for (text, expected) in [
            ("I can't say \"NO\", it's $3.50.", "I|ca|n't|say|``|NO|''|,|it|'s|$|3.50|."),
            ("'TIS CANNOT wanna go... 'tis", "'|TIS|CAN|NOT|wan|na|go|...|'|tis"),
            ("U.S.A. is BIG. (OK!) A--B", "U.S.A.|is|BIG|.|(|OK|!|)|A|--|B"),
            ("x: 3,000; a@b.com «Hé» ‘q’ `code`", "x|:|3,000|;|a|@|b.com|«|Hé|»|‘|q|’|`|code|`"),
        ] {
            assert_eq!(tokenized(text).join("|"), expected, "{text}");
        }
    }
}
