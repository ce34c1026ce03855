//! The judge's key, and the spellings in which an endpoint may echo it.

use base64::Engine;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::{Map, Value};

use super::escapes;
use crate::error::Error;

/// Replaces the key.
const MARK: &str = "[key]";
/// Shorter keys are placeholders: redacting them would only garble ordinary words.
const SHORTEST: usize = 4;
/// From this length on, a match that differs in case alone counts too.
const DISTINCT: usize = 8;
/// The number of encodings inside one another that are undone.
const DEPTH: usize = 4;
/// Fields in which a piece of a text arrives, as in log-probabilities and content parts.
const PIECES: [&str; 3] = ["token", "text", "content"];

/// A key that appears in no file and no message.
#[derive(Clone)]
pub(super) struct Key(Option<String>);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { MARK } else { "[no key]" })
    }
}

impl Key {
    /// Reads the key; there is none if `variable` is empty.
    pub(super) fn from_env(variable: &str) -> Result<Self, Error> {
        if variable.is_empty() {
            return Ok(Self(None));
        }
        let key = std::env::var(variable).unwrap_or_default().trim().to_owned();
        if key.is_empty() {
            return Err(Error::NoKey { variable: variable.to_owned() });
        }
        // Anything else fits into no header, and the endpoint could not echo it as it is.
        if !key.bytes().all(|b| b == b' ' || b.is_ascii_graphic()) {
            return Err(Error::KeyCharacters { variable: variable.to_owned() });
        }
        Ok(Self(Some(key)))
    }

    /// Returns the `Authorization` header.
    pub(super) fn header(&self) -> Option<String> {
        self.0.as_ref().map(|key| format!("Bearer {key}"))
    }

    /// Returns the text without the key: plain, escaped as in JSON, URLs, HTML or quoted-printable, as base64 or hexadecimal
    /// digits, and any of these inside one another.
    pub(super) fn redact(&self, text: String) -> String {
        let Some(key) = self.secret() else { return text };
        if !reveals(key, text.as_bytes(), DEPTH) {
            return text;
        }
        let text = replace_runs(key, &replace_spelled(key, &text));
        // An encoding that cannot be told from its surroundings: better no text than one with the key.
        if reveals(key, text.as_bytes(), DEPTH) { MARK.to_owned() } else { text }
    }

    /// Redacts every string of a JSON value, map keys and texts in pieces included.
    pub(super) fn redact_value(&self, value: &mut Value) {
        let Some(key) = self.secret() else { return };
        match value {
            Value::String(text) => *text = self.redact(std::mem::take(text)),
            Value::Number(number) if reveals(key, number.to_string().as_bytes(), 0) => *value = MARK.into(),
            Value::Array(items) => {
                items.iter_mut().for_each(|item| self.redact_value(item));
                redact_pieces(key, items);
                let bytes: Option<Vec<u8>> =
                    items.iter().map(|item| item.as_u64().and_then(|b| u8::try_from(b).ok())).collect();
                if bytes.is_some_and(|bytes| reveals(key, &bytes, DEPTH)) {
                    *value = MARK.into();
                }
            }
            Value::Object(fields) => {
                let redacted = std::mem::take(fields).into_iter().map(|(name, mut value)| {
                    self.redact_value(&mut value);
                    (self.redact(name), value)
                });
                *fields = redacted.collect::<Map<_, _>>();
            }
            _ => {}
        }
    }

    /// Redacts the body of an answer that is only shown.
    pub(super) fn redact_body(&self, body: String) -> String {
        match serde_json::from_str::<Value>(&body) {
            Ok(mut json) => {
                self.redact_value(&mut json);
                json.to_string()
            }
            Err(_) => self.redact(body),
        }
    }

    /// Returns whether the text holds the key in any of the forms that [`redact`](Self::redact) knows.
    pub(super) fn is_in(&self, text: &str) -> bool {
        self.secret().is_some_and(|key| reveals(key, text.as_bytes(), DEPTH))
    }

    fn secret(&self) -> Option<&[u8]> {
        self.0.as_deref().map(str::as_bytes).filter(|key| key.len() >= SHORTEST)
    }
}

fn same(key: &[u8], text: &[u8]) -> bool {
    if key.len() >= DISTINCT { key.eq_ignore_ascii_case(text) } else { key == text }
}

/// Returns whether the key can be read from these bytes, through up to `depth` encodings.
fn reveals(key: &[u8], text: &[u8], depth: usize) -> bool {
    if text.windows(key.len()).any(|window| same(key, window)) {
        return true;
    }
    if depth == 0 {
        return false;
    }
    let plain = escapes::undo(text);
    if plain != text && reveals(key, &plain, depth - 1) {
        return true;
    }
    // Base64 and hexadecimal digits are often broken into lines or groups.
    let joined: Vec<u8> = text.iter().copied().filter(|b| !b.is_ascii_whitespace()).collect();
    let in_runs = |text: &[u8]| {
        runs(key, text).any(|run| decodings(&text[run]).iter().any(|bytes| reveals(key, bytes, depth - 1)))
    };
    in_runs(text) || (joined.len() < text.len() && in_runs(&joined))
}

/// The stretches of base64 or hexadecimal digits that are long enough to hold the key.
fn runs<'t>(key: &[u8], text: &'t [u8]) -> impl Iterator<Item = std::ops::Range<usize>> + use<'t> {
    let is_digit = |b: u8| b.is_ascii_alphanumeric() || b"+/-_".contains(&b);
    let shortest = (key.len() * 4).div_ceil(3);
    let mut at = 0;
    std::iter::from_fn(move || {
        while at < text.len() {
            let begin = at + text[at..].iter().position(|b| is_digit(*b))?;
            let end = begin + text[begin..].iter().position(|b| !is_digit(*b)).unwrap_or(text.len() - begin);
            at = end;
            if end - begin >= shortest {
                return Some(begin..end);
            }
        }
        None
    })
}

/// Returns the texts that a run of digits may encode. Other characters may precede the encoding, so every alignment is tried.
fn decodings(run: &[u8]) -> Vec<Vec<u8>> {
    let lenient = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    let engine = GeneralPurpose::new(&base64::alphabet::STANDARD, lenient);
    let standard: Vec<u8> = run
        .iter()
        .map(|b| match b {
            b'-' => b'+',
            b'_' => b'/',
            other => *other,
        })
        .collect();
    let mut found = Vec::new();
    for offset in 0..4.min(run.len()) {
        let part = &standard[offset..];
        // One digit alone is less than a byte.
        let part = if part.len() % 4 == 1 { &part[..part.len() - 1] } else { part };
        found.extend(engine.decode(part));
    }
    for digits in run.split(|b| !b.is_ascii_hexdigit()).filter(|digits| digits.len() > 1) {
        for offset in 0..2 {
            let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
            found.extend(digits[offset..].chunks_exact(2).map(byte).collect::<Option<Vec<u8>>>());
        }
    }
    found
}

/// Replaces the key where it is written out, each character plain or escaped.
fn replace_spelled(key: &[u8], text: &str) -> String {
    let spans = spelled(key, text.as_bytes());
    replace(text, &spans)
}

fn spelled(key: &[u8], text: &[u8]) -> Vec<std::ops::Range<usize>> {
    let mut spans = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let plain = text.get(at..at + key.len()).filter(|part| same(key, part)).map(|_| at + key.len());
        match plain.or_else(|| spelled_at(key, text, at)) {
            Some(end) => {
                spans.push(at..end);
                at = end;
            }
            None => at += 1,
        }
    }
    spans
}

/// Returns where the key ends that begins here with some of its characters escaped.
fn spelled_at(key: &[u8], text: &[u8], mut at: usize) -> Option<usize> {
    for wanted in key {
        let same = |found: u8| fold(key, found) == fold(key, *wanted);
        at += match escapes::first(&text[at..]) {
            Some((found, length)) if same(found) => length,
            _ if text.get(at).is_some_and(|found| same(*found)) => 1,
            _ => return None,
        };
    }
    Some(at)
}

fn fold(key: &[u8], byte: u8) -> u8 {
    if key.len() >= DISTINCT { byte.to_ascii_lowercase() } else { byte }
}

/// Replaces the runs of digits that encode the key.
fn replace_runs(key: &[u8], text: &str) -> String {
    let bytes = text.as_bytes();
    let spans: Vec<_> = runs(key, bytes)
        .filter(|run| decodings(&bytes[run.clone()]).iter().any(|found| reveals(key, found, DEPTH - 1)))
        .collect();
    replace(text, &spans)
}

/// Spans begin and end with ASCII characters.
fn replace(text: &str, spans: &[std::ops::Range<usize>]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    for span in spans {
        out.push_str(&text[at..span.start]);
        out.push_str(MARK);
        at = span.end;
    }
    out.push_str(&text[at..]);
    out
}

/// Redacts a key that is spread over neighbouring items, such as the tokens of log-probabilities.
fn redact_pieces(key: &[u8], items: &mut [Value]) {
    let piece = |item: &Value| match item {
        Value::String(text) => text.clone(),
        Value::Object(fields) => {
            PIECES.iter().find_map(|name| fields.get(*name)?.as_str()).unwrap_or_default().to_owned()
        }
        _ => String::new(),
    };
    let mut joined = String::new();
    let places: Vec<_> = items
        .iter()
        .map(|item| {
            let begin = joined.len();
            joined.push_str(&piece(item));
            begin..joined.len()
        })
        .collect();
    for span in spelled(key, joined.as_bytes()) {
        for (item, place) in items.iter_mut().zip(&places) {
            if place.start < span.end && span.start < place.end {
                *item = MARK.into();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const KEY: &str = "sk-Ab/9+x_Q=7\"z";

    fn key() -> Key {
        Key(Some(KEY.into()))
    }

    fn encode(text: &str) -> String {
        base64::engine::general_purpose::STANDARD.encode(text)
    }

    #[test]
    fn a_key_is_redacted_in_every_spelling() {
        let each = |spell: &dyn Fn(char) -> String| KEY.chars().map(spell).collect::<String>();
        let json_text = serde_json::to_string(KEY).unwrap();
        let escaped = json_text.trim_matches('"').replace('/', "\\/");
        let nested = serde_json::to_string(&json!({ "error": escaped })).unwrap();
        let hex = |text: &str| text.bytes().map(|b| format!("{b:02x}")).collect::<String>();
        let spellings = [
            KEY.to_owned(),
            KEY.to_lowercase(),
            escaped.clone(),
            nested.clone(),
            serde_json::to_string(&nested).unwrap(),
            each(&|c| format!("\\u{:04x}", c as u32)),
            each(&|c| format!("\\\\u{:04X}", c as u32)),
            each(&|c| if c.is_ascii_digit() { format!("\\x{:02x}", c as u32) } else { c.to_string() }),
            each(&|c| if c.is_alphanumeric() { c.to_string() } else { format!("%{:02X}", c as u32) }),
            each(&|c| if c.is_alphanumeric() { c.to_string() } else { format!("%25{:02x}", c as u32) }),
            each(&|c| format!("&#{};", c as u32)),
            each(&|c| format!("&#x{:x};", c as u32)),
            KEY.replace('"', "&quot;").replace('+', "&plus;"),
            encode(KEY),
            encode(&format!("user:{KEY}")),
            encode(&format!("Bearer {KEY} and more")),
            encode(&encode(KEY)),
            encode(&nested),
            encode(KEY).replace('+', "-").replace('/', "_").trim_end_matches('=').to_owned(),
            hex(KEY),
            hex(KEY).to_uppercase(),
            format!("{{\"k\":\"{}\"}}", each(&|c| format!("%{:02x}", c as u32))),
        ];
        for spelled in spellings {
            let shown = key().redact(format!("before {spelled} after [[7]]"));
            assert!(!reveals(KEY.as_bytes(), shown.as_bytes(), DEPTH), "{spelled} became {shown}");
            assert!(shown.starts_with("before ") && shown.ends_with(" after [[7]]"), "{spelled} became {shown}");
            assert!(shown.contains(MARK), "{spelled} became {shown}");
        }
        let long = encode(&format!("{KEY}{KEY}{KEY}"));
        let wrapped: String = long.as_bytes().chunks(20).map(|l| format!("{}\n", String::from_utf8_lossy(l))).collect();
        assert!(!reveals(KEY.as_bytes(), key().redact(wrapped).as_bytes(), DEPTH));
    }

    #[test]
    fn other_text_is_not_touched() {
        for text in ["", "wrong key", "sk-Ab/9", "100%25 &amp; \\u0041 c2s=", "{\"score\": 8}", "é%é\\"] {
            assert_eq!(key().redact(text.into()), text);
        }
        assert_eq!(Key(None).redact("sk-Ab".into()), "sk-Ab");
        assert_eq!(Key(Some("x".into())).redact("extra".into()), "extra", "a placeholder is no secret");
        assert_eq!(format!("{:?}", key()), "[key]");
        assert_eq!(Key(Some("EMPTY".into())).redact("an empty EMPTY".into()), "an empty [key]");
    }

    #[test]
    fn every_part_of_a_json_value_is_redacted() {
        let digits = Key(Some("8675309".into()));
        let mut value = json!({
            "list": ["Bearer 8675309", 8675309, 8675.309, null, true],
            "8675309": {"x8675309y": "z"},
            "bytes": [56, 54, 55, 53, 51, 48, 57],
            "logprobs": [{"token": "86", "logprob": -1}, {"token": "7530", "logprob": -1}, {"token": "9 ", "logprob": -1}, {"token": "m"}],
            "parts": ["867", "5309", "!"],
        });
        digits.redact_value(&mut value);
        assert_eq!(
            value,
            json!({
                "list": ["Bearer [key]", "[key]", 8675.309, null, true],
                "[key]": {"x[key]y": "z"},
                "bytes": "[key]",
                "logprobs": ["[key]", "[key]", "[key]", {"token": "m"}],
                "parts": ["[key]", "[key]", "!"],
            })
        );
        let body = digits.redact_body("{\"error\": \"86\\u00375309\"}".into());
        assert_eq!(body, "{\"error\":\"[key]\"}");
    }
}
