//! Control characters, displayed instead of sent to the terminal.
//!
//! Data, templates, file names and answers of servers come from strangers. Sent as they are, their escape sequences could recolour the
//! terminal, set its title, move the cursor over earlier lines or write to the clipboard.

use std::borrow::Cow;

pub use setpoint_files::words::without_codes;

/// Returns the text with every control character but line breaks and tabs written as in `\u{1b}`.
pub fn visible(text: &str) -> Cow<'_, str> {
    escaped(text, |c| is_control(c) && c != '\n' && c != '\t')
}

/// Returns the text on one line: a line break, which could begin a message that nothing here wrote, is written as `\n`.
pub fn one_line(text: &str) -> Cow<'_, str> {
    escaped(text, |c| is_control(c) && c != '\t')
}

/// Returns a message without its middle if it is very long, as the names and values in it come from strangers.
pub fn shortened(message: &str) -> Cow<'_, str> {
    /// The longest message, and the characters kept of a longer one's beginning and end.
    const LONGEST: usize = 4000;
    const BEGINNING: usize = 2500;
    const END: usize = 1000;
    if message.len() <= LONGEST {
        return Cow::Borrowed(message);
    }
    let characters = message.chars().count();
    if characters <= LONGEST {
        return Cow::Borrowed(message);
    }
    let beginning: String = message.chars().take(BEGINNING).collect();
    let end: String = message.chars().skip(characters - END).collect();
    Cow::Owned(format!("{beginning} … ({} characters are not shown) … {end}", characters - BEGINNING - END))
}

/// Returns the text with its lines after the first indented, so that none of them can pass for a message of its own.
pub fn indented(text: &str) -> Cow<'_, str> {
    let text = visible(text);
    if text.contains('\n') { Cow::Owned(text.replace('\n', "\n  ")) } else { text }
}

/// Returns JSON with the control characters that JSON allows in its strings written as in `\u009b`, which leaves its value as it is.
pub fn visible_json(json: &str) -> Cow<'_, str> {
    let hidden = |c: char| is_control(c) && !matches!(c, '\n' | '\t' | '\r');
    if !json.contains(hidden) {
        return Cow::Borrowed(json);
    }
    // All of them are in the Basic Multilingual Plane.
    Cow::Owned(json.chars().map(|c| if hidden(c) { format!("\\u{:04x}", c as u32) } else { c.to_string() }).collect())
}

/// Returns whether a terminal acts on the character: C0, DEL, C1, and the marks that reorder or break the text around them.
fn is_control(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn escaped(text: &str, hidden: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&hidden) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\n' | '\r' if hidden(c) => shown.extend(c.escape_default()),
            c if hidden(c) => shown.extend(c.escape_unicode()),
            c => shown.push(c),
        }
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_control_character_is_displayed() {
        let title = "\u{1b}]0;owned\u{7}";
        assert_eq!(visible(title), "\\u{1b}]0;owned\\u{7}");
        for c in (0..=0x2069).filter_map(char::from_u32).filter(|&c| is_control(c)) {
            let text = format!("a{c}b");
            assert!(!one_line(&text).chars().any(|c| is_control(c) && c != '\t'), "{c:?}");
            assert!(!visible(&text).chars().any(|c| is_control(c) && !matches!(c, '\n' | '\t')), "{c:?}");
            let json = serde_json::to_string(&text).unwrap();
            let shown = visible_json(&json);
            assert!(!shown.chars().any(is_control), "{c:?}");
            assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), text);
        }
    }

    #[test]
    fn other_text_stays_as_it_is() {
        for text in ["", "plain", "naïve 日本語 🙂 עברית", "a\ttab"] {
            assert!(matches!(visible(text), Cow::Borrowed(_)));
            assert!(matches!(one_line(text), Cow::Borrowed(_)));
            assert!(matches!(visible_json(text), Cow::Borrowed(_)));
        }
        assert_eq!(visible("two\nlines"), "two\nlines");
    }

    #[test]
    fn long_messages_keep_their_ends() {
        let name = "é".repeat(1_000_000);
        let message = format!("rows.jsonl:1: the column `{name}` is a number; rename it");
        let shown = shortened(&message);
        assert!(shown.chars().count() < 4000, "{}", shown.len());
        assert!(shown.starts_with("rows.jsonl:1: the column `é") && shown.ends_with("é` is a number; rename it"));
        assert!(shown.contains("characters are not shown"));
        assert!(matches!(shortened(&"é".repeat(4000)), Cow::Borrowed(_)));
    }

    #[test]
    fn a_line_break_begins_no_message() {
        assert_eq!(one_line("bad\r\nerror: fake"), "bad\\r\\nerror: fake");
        assert_eq!(indented("bad\nerror: fake"), "bad\n  error: fake");
    }
}
