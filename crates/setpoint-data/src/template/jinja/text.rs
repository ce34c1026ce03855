//! Functions on texts that Python has and Rust does not, or has differently.

use std::collections::HashSet;

use minijinja::value::Value;
use minijinja::{Error, State};

use super::operators::charge_copies;
use super::value::{charge_bytes, failed};
pub(super) use crate::record::is_space;

/// Python's `str.strip`, of either end.
pub(super) fn strip<'t>(text: &'t str, chars: Option<&str>, left: bool, right: bool) -> &'t str {
    let chars: Option<HashSet<char>> = chars.map(|chars| chars.chars().collect());
    let strip = |c: char| chars.as_ref().map_or_else(|| is_space(c), |chars| chars.contains(&c));
    let text = if left { text.trim_start_matches(strip) } else { text };
    if right { text.trim_end_matches(strip) } else { text }
}

/// Python's `str.capitalize`.
pub(super) fn capitalize(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().into_iter().flat_map(char::to_uppercase);
    first.chain(chars.as_str().to_lowercase().chars()).collect()
}

/// Python's `str.title`: a letter that follows no letter is in upper case, every other one in lower case.
pub(super) fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut in_word = false;
    for c in text.chars() {
        if in_word {
            out.extend(c.to_lowercase());
        } else {
            out.extend(c.to_uppercase());
        }
        in_word = c.is_alphabetic();
    }
    out
}

/// The side of a text that is filled.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Left,
    Right,
    Both,
}

/// Python's `ljust`, `rjust` and `center`.
pub(super) fn pad(state: &State<'_, '_>, text: &str, width: i64, fill: char, side: Side) -> Result<Value, Error> {
    let length = text.chars().count();
    let missing = usize::try_from(width).unwrap_or(0).saturating_sub(length);
    charge_copies(state, fill.len_utf8(), missing)?;
    let left = match side {
        Side::Left => missing,
        Side::Right => 0,
        // The odd one goes to the left where the width is odd.
        Side::Both => missing / 2 + (missing & width as usize & 1),
    };
    let fill = fill.to_string();
    Ok(Value::from(fill.repeat(left) + text + &fill.repeat(missing - left)))
}

/// Python's `str.replace`.
pub(super) fn replace(state: &State<'_, '_>, text: &str, old: &str, new: &str, count: i64) -> Result<Value, Error> {
    let found = if old.is_empty() { text.chars().count() + 1 } else { text.matches(old).count() };
    let count = usize::try_from(count).unwrap_or(usize::MAX).min(found);
    charge_bytes(state, text.len())?;
    charge_copies(state, new.len(), count)?;
    Ok(Value::from(text.replacen(old, new, count)))
}

/// Lines as Python's `splitlines` finds them, each with its end.
pub(super) struct Lines<'t>(&'t str);

impl<'t> Lines<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self(text)
    }
}

impl<'t> Iterator for Lines<'t> {
    type Item = (&'t str, &'t str);

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let breaks = |c: char| {
            matches!(c, '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}')
        };
        let end = self.0.find(breaks).unwrap_or(self.0.len());
        let (line, rest) = self.0.split_at(end);
        let length = if rest.starts_with("\r\n") { 2 } else { rest.chars().next().map_or(0, char::len_utf8) };
        let (ending, rest) = rest.split_at(length);
        self.0 = rest;
        Some((line, ending))
    }
}

/// HTML's five characters as entities.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// A text without comments and tags, its white space collapsed, its entities resolved.
pub(super) fn strip_tags(text: &str) -> String {
    let cut = |text: &str, open: &str, close: &str| {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(start) = rest.find(open) {
            let Some(end) = rest[start..].find(close) else { break };
            out.push_str(&rest[..start]);
            rest = &rest[start + end + close.len()..];
        }
        out + rest
    };
    let bare = cut(&cut(text, "<!--", "-->"), "<", ">");
    let collapsed = bare.split(is_space).filter(|w| !w.is_empty()).collect::<Vec<_>>().join(" ");
    unescape(&collapsed)
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let near = rest.char_indices().nth(12).map_or(rest, |(end, _)| &rest[..end]);
        let name = near[1..].split_once(';').map(|(name, _)| name);
        let c = name.and_then(|name| match name {
            "amp" => Some('&'),
            "lt" => Some('<'),
            "gt" => Some('>'),
            "quot" => Some('"'),
            "apos" => Some('\''),
            "nbsp" => Some('\u{a0}'),
            _ => {
                let digits = name.strip_prefix('#')?;
                let code = match digits.strip_prefix(['x', 'X']) {
                    Some(hex) => u32::from_str_radix(hex, 16).ok()?,
                    None => digits.parse().ok()?,
                };
                char::from_u32(code)
            }
        });
        match (c, name) {
            (Some(c), Some(name)) => {
                out.push(c);
                rest = &rest[name.len() + 2..];
            }
            _ => {
                out.push('&');
                rest = &rest[1..];
            }
        }
    }
    out + rest
}

/// Percent-encoding; in a query a space is `+` and `/` is encoded.
pub(super) fn url_quote(text: &str, query: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' | b'-' | b'~' => out.push(byte as char),
            b'/' if !query => out.push('/'),
            b' ' if query => out.push('+'),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// The chunks of a line between which it may be broken.
fn chunks(line: &str, hyphens: bool) -> Vec<String> {
    let mut chunks: Vec<String> = Vec::new();
    let chars: Vec<char> = line.chars().collect();
    let space = |c: char| matches!(c, '\t' | '\n' | '\u{b}' | '\u{c}' | '\r' | ' ');
    let mut start = 0;
    while start < chars.len() {
        let in_space = space(chars[start]);
        let mut end = start;
        while end < chars.len() && space(chars[end]) == in_space {
            end += 1;
            let letter = |i: usize| chars.get(i).is_some_and(|c| c.is_alphabetic() || *c == '_');
            let hyphen = hyphens && !in_space && chars[end - 1] == '-' && end - start > 2;
            if hyphen && letter(end - 2) && letter(end - 3) && letter(end) && letter(end + 1) {
                break;
            }
        }
        chunks.push(chars[start..end].iter().collect());
        start = end;
    }
    chunks
}

/// Python's `textwrap.wrap` without `expand_tabs` and `replace_whitespace`.
pub(super) fn wrap(line: &str, width: usize, long_words: bool, hyphens: bool) -> Vec<String> {
    let mut rest = chunks(line, hyphens);
    rest.reverse();
    let length = |text: &str| text.chars().count();
    let blank = |text: &str| text.chars().all(is_space);
    let mut lines = Vec::new();
    while !rest.is_empty() {
        let (mut parts, mut used): (Vec<String>, usize) = (Vec::new(), 0);
        if !lines.is_empty() && rest.last().is_some_and(|c| blank(c)) {
            rest.pop();
        }
        while let Some(chunk) = rest.pop_if(|chunk| used + length(chunk) <= width) {
            used += length(&chunk);
            parts.push(chunk);
        }
        if let Some(chunk) = rest.pop_if(|chunk| length(chunk) > width) {
            if long_words {
                let mut end = (width - used).min(length(&chunk));
                let chars: Vec<char> = chunk.chars().collect();
                if hyphens
                    && chars.len() > end
                    && end > 0
                    && let Some(hyphen) = chars[..end].iter().rposition(|c| *c == '-')
                    && hyphen > 0
                    && chars[..hyphen].iter().any(|c| *c != '-')
                {
                    end = hyphen + 1;
                }
                parts.push(chars[..end].iter().collect());
                rest.push(chars[end..].iter().collect());
            } else if parts.is_empty() {
                parts.push(chunk);
            } else {
                rest.push(chunk);
            }
        }
        if parts.last().is_some_and(|c| blank(c)) {
            parts.pop();
        }
        if !parts.is_empty() {
            lines.push(parts.concat());
        }
    }
    lines
}

/// The index of a character as a count of characters, or -1.
pub(super) fn index_of(text: &str, found: Option<usize>) -> Value {
    Value::from(found.map_or(-1, |at| text[..at].chars().count() as i64))
}

pub(super) fn not_found(part: &str) -> Error {
    failed(format!("{part:?} is not in the string"))
}
