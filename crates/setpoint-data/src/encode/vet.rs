//! What a `tokenizer.json` may hold: the parts that could make a text grow without bounds, or take a search without end.

use base64::Engine as _;
use serde::Deserialize;
use serde_json::Value;

/// The longest `tokenizer.json`; the largest in use has about 35 MB.
pub(super) const LONGEST_FILE: usize = 256 << 20;
/// The deepest nesting and the greatest number of components.
const DEEPEST: usize = 16;
const MOST_COMPONENTS: usize = 256;
/// The longest pattern.
const LONGEST_PATTERN: usize = 16 << 10;
/// How many times as long a text may become without being measured at each step, and at most by its settings.
const ORDINARY_GROWTH: f64 = 64.0;
const MOST_GROWTH: f64 = 10_000.0;
/// The longest replacement in a table of normalisations; the longest in use has 33 bytes.
const LONGEST_MAPPED: usize = 1 << 10;
/// How many repetitions without an end one alternative of a pattern may have and count as harmless.
const REPETITIONS: usize = 4;
/// How many ids a template may put around a text, and how many copies of the text it may hold.
const MOST_ADDED: usize = 1 << 10;
const MOST_COPIES: usize = 2;
/// The longest word that a WordPiece model may search.
const LONGEST_WORD: u64 = 10_000;

/// The parts of a file that are looked at here. The model, most of the file, is left to the library.
#[derive(Deserialize)]
pub(super) struct Components {
    #[serde(default)]
    pub(super) added_tokens: Vec<AddedToken>,
    #[serde(default)]
    pub(super) normalizer: Value,
    #[serde(default)]
    pub(super) pre_tokenizer: Value,
    #[serde(default)]
    pub(super) post_processor: Value,
    #[serde(default)]
    decoder: Value,
    #[serde(default)]
    model: ModelLimits,
}

#[derive(Deserialize)]
pub(super) struct AddedToken {
    pub(super) id: u32,
    pub(super) content: String,
}

#[derive(Deserialize, Default)]
struct ModelLimits {
    #[serde(default)]
    max_input_chars_per_word: Option<u64>,
}

/// How a tokenizer has to be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Care {
    /// Nothing in it can take long.
    Ordinary,
    /// On a thread of its own, with a deadline.
    Deadline,
    /// The same, and the text is measured after each normalisation.
    Measured,
}

/// Refuses a file that is too long.
pub(super) fn check_length(bytes: &[u8]) -> Result<(), String> {
    match bytes.len() {
        length if length > LONGEST_FILE => Err(format!("it has {length} bytes; expected at most {LONGEST_FILE}")),
        _ => Ok(()),
    }
}

/// Refuses what no tokenizer needs, and says how the rest has to be run.
pub(super) fn check(components: &Components) -> Result<Care, String> {
    let mut care = Care::Ordinary;
    for (name, part) in [
        ("normalizer", &components.normalizer),
        ("pre_tokenizer", &components.pre_tokenizer),
        ("post_processor", &components.post_processor),
        ("decoder", &components.decoder),
    ] {
        let mut found = Found::default();
        found.walk(part, 0).map_err(|reason| format!("`{name}`: {reason}"))?;
        // Only the steps of a normalizer can be measured one by one.
        let most = if name == "normalizer" { MOST_GROWTH } else { ORDINARY_GROWTH };
        if found.growth > most {
            return Err(format!("`{name}` can make a text {:.0} times as long; expected at most {most}", found.growth));
        }
        if found.growth > ORDINARY_GROWTH {
            care = Care::Measured;
        }
        if found.risky {
            care = care.max_with_deadline();
        }
    }
    if components.model.max_input_chars_per_word.is_some_and(|most| most > LONGEST_WORD) {
        care = care.max_with_deadline();
    }
    Ok(care)
}

impl Care {
    fn max_with_deadline(self) -> Self {
        if self == Self::Measured { self } else { Self::Deadline }
    }
}

/// The single steps of a normalizer, in order.
pub(super) fn steps(normalizer: &Value) -> Vec<&Value> {
    match normalizer.get("normalizers").and_then(Value::as_array) {
        Some(parts) => parts.iter().flat_map(steps).collect(),
        None if normalizer.is_null() => Vec::new(),
        None => vec![normalizer],
    }
}

/// How many times as long one step can make a text.
pub(super) fn growth(step: &Value) -> f64 {
    let bytes = |key: &str| step.get(key).and_then(Value::as_str).map_or(0, str::len);
    match step.get("type").and_then(Value::as_str) {
        // An empty pattern matches between any two characters.
        Some("Replace") if pattern_of(step).is_none_or(|(p, _)| p.is_empty()) => 1.0 + bytes("content") as f64,
        Some("Replace") => {
            // A pattern that is no expression takes away its own length; an expression may match one byte, or none.
            let (pattern, regex) = pattern_of(step).unwrap_or_default();
            let matched = if regex { 1.0 } else { pattern.len() as f64 };
            let between = if regex { 1.0 } else { 0.0 };
            (bytes("content") as f64 / matched + between).max(1.0)
        }
        Some("Prepend") if bytes("prepend") > 16 => 1.0 + bytes("prepend") as f64,
        Some("Precompiled") => longest_mapped(step).unwrap_or(0).max(1) as f64,
        Some("ByteLevel") => 2.0,
        _ => 1.0,
    }
}

fn pattern_of(step: &Value) -> Option<(&str, bool)> {
    match step.get("pattern")? {
        Value::String(text) => Some((text, false)),
        other => match other.get("String").and_then(Value::as_str) {
            Some(text) => Some((text, false)),
            None => other.get("Regex").and_then(Value::as_str).map(|text| (text, true)),
        },
    }
}

/// Decodes the table of a `Precompiled` normalizer: the length of its trie, the trie, and texts with a NUL behind each.
fn longest_mapped(step: &Value) -> Result<usize, String> {
    let text = step.get("precompiled_charsmap").and_then(Value::as_str).ok_or("`precompiled_charsmap` is missing")?;
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(text)
        .map_err(|e| format!("`precompiled_charsmap` is not base64: {e}"))?;
    let (length, rest) = bytes.split_first_chunk::<4>().ok_or("`precompiled_charsmap` is too short")?;
    let length = u32::from_le_bytes(*length) as usize;
    let Some(texts) = rest.get(length..) else {
        return Err(format!("`precompiled_charsmap` claims a trie of {length} bytes and has {}", rest.len()));
    };
    let longest = texts.split(|b| *b == 0).map(<[u8]>::len).max().unwrap_or(0);
    if longest > LONGEST_MAPPED {
        return Err(format!(
            "`precompiled_charsmap` maps a character to {longest} bytes; expected at most {LONGEST_MAPPED}"
        ));
    }
    Ok(longest)
}

/// The findings of a walk over a component.
struct Found {
    growth: f64,
    risky: bool,
    components: usize,
}

impl Default for Found {
    fn default() -> Self {
        Self { growth: 1.0, risky: false, components: 0 }
    }
}

impl Found {
    fn walk(&mut self, value: &Value, depth: usize) -> Result<(), String> {
        if depth > DEEPEST {
            return Err(format!("nested more than {DEEPEST} deep"));
        }
        match value {
            Value::Array(items) => items.iter().try_for_each(|v| self.walk(v, depth + 1)),
            Value::Object(fields) => {
                if fields.contains_key("type") {
                    self.component(value)?;
                }
                fields.values().try_for_each(|v| self.walk(v, depth + 1))
            }
            _ => Ok(()),
        }
    }

    fn component(&mut self, step: &Value) -> Result<(), String> {
        self.components += 1;
        if self.components > MOST_COMPONENTS {
            return Err(format!("more than {MOST_COMPONENTS} steps"));
        }
        if let Some((pattern, true)) = pattern_of(step) {
            if pattern.len() > LONGEST_PATTERN {
                return Err(format!("a pattern of {} bytes; expected at most {LONGEST_PATTERN}", pattern.len()));
            }
            self.risky |= risky(pattern);
        }
        match step.get("type").and_then(Value::as_str) {
            Some("FixedLength") if step.get("length").and_then(Value::as_u64) == Some(0) => {
                return Err("`length` of FixedLength is 0; expected at least 1".into());
            }
            Some("Precompiled") => drop(longest_mapped(step)?),
            Some("TemplateProcessing") => check_template(step)?,
            _ => {}
        }
        self.growth *= growth(step);
        Ok(())
    }
}

/// Refuses a template that makes many tokens of a text with few.
fn check_template(step: &Value) -> Result<(), String> {
    let length = |id: &str| {
        let ids = step.get("special_tokens").and_then(|tokens| tokens.get(id)?.get("ids")?.as_array());
        ids.map_or(1, Vec::len)
    };
    for key in ["single", "pair"] {
        let (mut added, mut copies) = (0_usize, 0_usize);
        for piece in step.get(key).and_then(Value::as_array).into_iter().flatten() {
            match piece.get("SpecialToken").and_then(|token| token.get("id")).and_then(Value::as_str) {
                Some(id) => added = added.saturating_add(length(id)),
                None => copies += 1,
            }
        }
        if added > MOST_ADDED {
            return Err(format!(
                "`{key}` of TemplateProcessing adds {added} ids to a text; expected at most {MOST_ADDED}"
            ));
        }
        if copies > MOST_COPIES {
            return Err(format!(
                "`{key}` of TemplateProcessing repeats a text {copies} times; expected at most {MOST_COPIES}"
            ));
        }
    }
    Ok(())
}

/// Returns whether a search for a pattern might take more than a few steps for each character: where something repeated is
/// repeated again, where a group is referred to, or with many repetitions in a row.
fn risky(pattern: &str) -> bool {
    let bytes = pattern.as_bytes();
    // For each open group, the repetitions in its present alternative.
    let mut open: Vec<usize> = vec![0];
    let (mut i, mut class) = (0, 0_usize);
    while i < bytes.len() {
        let (byte, next) = (bytes[i], bytes.get(i + 1).copied());
        i += 1;
        match byte {
            b'\\' => {
                i += 1;
                if class == 0 && next.is_some_and(|n| matches!(n, b'1'..=b'9' | b'k' | b'g' | b'K' | b'R' | b'X')) {
                    return true;
                }
            }
            b'[' => class += 1,
            b']' => class = class.saturating_sub(1),
            _ if class > 0 => {}
            b'(' if next == Some(b'?') && matches!(bytes.get(i + 1), Some(b'~' | b'(' | b'&')) => return true,
            b'(' => open.push(0),
            b')' => {
                let inside = open.pop().unwrap_or_default();
                if matches!(next, Some(b'*' | b'+' | b'{')) {
                    return true;
                }
                match open.last_mut() {
                    Some(count) if *count + inside > REPETITIONS => return true,
                    Some(count) => *count += inside,
                    // More brackets are closed than opened: not for this to understand.
                    None => return true,
                }
            }
            b'|' => {
                if let Some(count) = open.last_mut() {
                    *count = 0;
                }
            }
            b'*' | b'+' => {
                if let Some(count) = open.last_mut() {
                    *count += 1;
                    if *count > REPETITIONS {
                        return true;
                    }
                }
                // `a++` is possessive and `a*?` lazy; neither repeats again.
                if matches!(next, Some(b'+' | b'?')) {
                    i += 1;
                }
            }
            b'{' => {
                let end = bytes[i..].iter().position(|b| *b == b'}').map_or(bytes.len(), |end| i + end);
                let text = &pattern[i..end];
                let most = text.split_once(',').map_or(text, |(_, most)| most).trim();
                if most.parse::<u32>().is_ok_and(|most| most < 64) {
                    i = end + 1;
                    continue;
                }
                if let Some(count) = open.last_mut() {
                    *count += 1;
                    if *count > REPETITIONS {
                        return true;
                    }
                }
                i = end + 1;
            }
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_in_use_are_ordinary() {
        for pattern in [
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
            r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
            r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##,
            r"[\r\n]|\s?[A-Za-zµÀ-ÖØ-öø-ƺ]+|\p{N}{1,3}|[一-龥ࠀ-一가-퟿]+",
            " {2,}",
            "",
        ] {
            assert!(!risky(pattern), "{pattern}");
        }
    }

    #[test]
    fn patterns_that_may_take_long() {
        for pattern in [
            "(a+)+$",
            "(a|a)*b",
            "(a|aa)+$",
            "(?:a*)*",
            r"(a)\1",
            r"(?<x>a)\k<x>",
            "a*a*a*a*a*b",
            "(a){2,}",
            "(?(1)a|b)",
            "a{1,100}a{1,100}a+a+a+",
            "x)",
            "(.*)(.*)(.*)(.*)(.*)z",
        ] {
            assert!(risky(pattern), "{pattern}");
        }
    }

    #[test]
    fn growth_is_the_product_of_the_steps() {
        let replace =
            |from: &str, to: &str| serde_json::json!({"type": "Replace", "pattern": {"String": from}, "content": to});
        assert_eq!(growth(&replace(" ", "▁")), 3.0);
        assert_eq!(growth(&replace("``", "\"")), 1.0);
        assert_eq!(growth(&replace("", "ab")), 3.0);
        let chain = serde_json::json!({"type": "Sequence", "normalizers": [replace("a", "aaaa"), {"type": "Sequence", "normalizers": [replace("a", "aaaa")]}]});
        assert_eq!(steps(&chain).len(), 2);
        let mut found = Found::default();
        found.walk(&chain, 0).unwrap();
        assert_eq!(found.growth, 16.0);
    }
}
