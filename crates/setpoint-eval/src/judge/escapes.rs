//! Escapes of a single character: `\/`, `\u002f`, `\x2f`, `\057`, `%2F`, `%252F`, `=2F`, `&#47;`, `&amp;#x2f;`, `&sol;`.

/// HTML's names of the characters that keys are made of.
const NAMED: [(&[u8], u8); 14] = [
    (b"amp;", b'&'),
    (b"lt;", b'<'),
    (b"gt;", b'>'),
    (b"quot;", b'"'),
    (b"apos;", b'\''),
    (b"sol;", b'/'),
    (b"plus;", b'+'),
    (b"equals;", b'='),
    (b"lowbar;", b'_'),
    (b"period;", b'.'),
    (b"colon;", b':'),
    (b"dash;", b'-'),
    (b"hyphen;", b'-'),
    (b"bsol;", b'\\'),
];

/// Replaces every escape by its character.
pub(super) fn undo(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let (byte, length) = first(&text[at..]).unwrap_or((text[at], 1));
        out.push(byte);
        at += length;
    }
    out
}

/// Returns the ASCII character whose escape the text begins with, and the length of the escape. Escapes that were themselves
/// escaped, any number of times, count.
pub(super) fn first(text: &[u8]) -> Option<(u8, usize)> {
    match *text.first()? {
        b'\\' => backslash(text),
        b'%' | b'=' => {
            let mut at = 1;
            while text[at..].starts_with(b"25") && number(text, at + 2, 2, 16).is_some() {
                at += 2;
            }
            Some((number(text, at, 2, 16)?, at + 2))
        }
        b'&' => entity(text),
        _ => None,
    }
}

fn backslash(text: &[u8]) -> Option<(u8, usize)> {
    let mut at = 0;
    loop {
        at += text[at..].iter().take_while(|b| **b == b'\\').count();
        let rest = &text[at..];
        if rest.len() >= 5 && rest[..5].eq_ignore_ascii_case(b"u005c") {
            at += 5;
        } else {
            break;
        }
    }
    match *text.get(at)? {
        b'u' if text.get(at + 1) == Some(&b'{') => {
            let digits = text[at + 2..].iter().take(8).take_while(|b| b.is_ascii_hexdigit()).count();
            let end = at + 2 + digits;
            (text.get(end) == Some(&b'}')).then_some(())?;
            Some((number(text, at + 2, digits, 16)?, end + 1))
        }
        b'u' => Some((number(text, at + 1, 4, 16)?, at + 5)),
        b'U' => Some((number(text, at + 1, 8, 16)?, at + 9)),
        b'x' => Some((number(text, at + 1, 2, 16)?, at + 3)),
        b'0'..=b'7' => Some((number(text, at, 3, 8)?, at + 3)),
        byte if byte.is_ascii_punctuation() => Some((byte, at + 1)),
        _ => None,
    }
}

fn entity(text: &[u8]) -> Option<(u8, usize)> {
    let mut at = 1;
    while text[at..].starts_with(b"amp;") && named_or_numbered(&text[at + 4..]).is_some() {
        at += 4;
    }
    named_or_numbered(&text[at..]).map(|(byte, length)| (byte, at + length))
}

/// An entity without its ampersand.
fn named_or_numbered(text: &[u8]) -> Option<(u8, usize)> {
    if text.first() != Some(&b'#') {
        return NAMED.iter().find(|(name, _)| text.starts_with(name)).map(|(name, byte)| (*byte, name.len()));
    }
    let hex = text.get(1).is_some_and(|b| b.eq_ignore_ascii_case(&b'x'));
    let (begin, radix) = if hex { (2, 16) } else { (1, 10) };
    let digits = text[begin..].iter().take(8).take_while(|b| char::from(**b).is_digit(radix)).count();
    let end = begin + digits;
    let closed = usize::from(text.get(end) == Some(&b';'));
    Some((number(text, begin, digits, radix)?, end + closed))
}

/// Reads an ASCII code of so many digits.
fn number(text: &[u8], begin: usize, digits: usize, radix: u32) -> Option<u8> {
    let digits = text.get(begin..begin + digits)?;
    if !digits.iter().all(|b| char::from(*b).is_digit(radix)) {
        return None;
    }
    let code = u32::from_str_radix(std::str::from_utf8(digits).ok()?, radix).ok()?;
    u8::try_from(code).ok().filter(u8::is_ascii)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_slash_is_undone() {
        for spelled in [
            "/",
            r"\/",
            r"\\/",
            r"\u002f",
            r"\\u002F",
            r"\u005cu002f",
            r"\u{2f}",
            r"\U0000002f",
            r"\x2f",
            r"\057",
            "%2F",
            "%2f",
            "%252F",
            "%25252f",
            "=2F",
            "&#47;",
            "&#047",
            "&#x2f;",
            "&#X2F;",
            "&amp;#47;",
            "&sol;",
            "&amp;sol;",
        ] {
            let undone = undo(format!("a{spelled}b").as_bytes());
            assert_eq!(String::from_utf8_lossy(&undone), "a/b", "{spelled}");
        }
    }

    #[test]
    fn ordinary_text_stays() {
        for text in ["50 % of 20", "a = b", "R&D & more", r"C:\new", "é%é", "=", "%", "&", r"\", "&#;", r"\u{}", "%2"]
        {
            assert_eq!(undo(text.as_bytes()), text.as_bytes(), "{text}");
        }
        assert_eq!(undo("&amp;".as_bytes()), b"&");
    }
}
