//! SentencePiece's BPE with bytes for unknown characters, the tokenizer of Llama 2, TinyLlama, EuroLLM and Gemma.
//!
//! Of two possible merges, the tokenizers library makes the one that comes first in a list of pairs; llama.cpp makes the one whose result
//! has the higher score. `tokenizer.model` holds the scores. Without that file, they follow from the list if every pair of tokens that can
//! be joined is in it, and the pairs with the same result are next to each other.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::pieces::{self, Piece};
use super::special::Added;
use super::{TokenKind, Vocabulary, merges, special};
use crate::encode::TextEncoder;
use crate::error::Error;

/// The file of the SentencePiece library.
pub(crate) const MODEL: &str = "tokenizer.model";

/// The score of an added token; no merge results in one.
const ADDED: f32 = -1000.0;

/// Returns the vocabulary of a SentencePiece tokenizer.
pub(super) fn vocabulary(encoder: &TextEncoder, file: &Value, size: usize) -> Result<Vocabulary, Error> {
    let model = &file["model"];
    let prefix = space_prefix(file).ok_or_else(|| {
        encoder.not_exported(
            "its `normalizer` or `pre_tokenizer` does more than to write spaces as `▁`, as llama.cpp does",
        )
    })?;
    let ids: HashMap<&str, usize> = model["vocab"]
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(text, id)| Some((text.as_str(), usize::try_from(id.as_u64()?).ok()?)))
        .filter(|(_, id)| *id < size)
        .collect();
    // Tokenizers of which no text is unknown, thanks to the tokens for bytes, may leave it out.
    let unknown = ids.get(model["unk_token"].as_str().unwrap_or("<unk>")).copied();
    let mut tokens: Vec<String> = (0..size).map(special::padding).collect();
    let mut kinds = vec![TokenKind::Unused; size];
    for (text, &id) in &ids {
        tokens[id] = (*text).to_owned();
        kinds[id] = if Some(id) == unknown {
            TokenKind::Unknown
        } else if is_byte(text) {
            TokenKind::Byte
        } else {
            TokenKind::Normal
        };
    }
    let bytes = kinds.iter().filter(|kind| **kind == TokenKind::Byte).count();
    if bytes != 256 {
        return Err(encoder.not_exported(&format!("it has tokens for {bytes} single bytes; expected all 256")));
    }
    let added = special::added(file);
    let path = encoder.dir().join(MODEL);
    let mut scores = match setpoint_files::read(&path) {
        Ok(bytes) => {
            let failed = |reason: String| Error::Tokenizer { path: path.clone(), reason };
            let pieces = pieces::read(&bytes).map_err(failed)?;
            let added: HashSet<usize> = added.iter().map(|token| token.id).collect();
            given(&pieces, &tokens, &mut kinds, &added).map_err(failed)?
        }
        Err(error) if error.source.kind() == std::io::ErrorKind::NotFound => {
            if let Some(token) = added.iter().find(|token| !is_basic(encoder, token)) {
                return Err(encoder.not_exported(&format!(
                    "`{}` is added to its SentencePiece vocabulary, and {MODEL}, which holds the scores, is not in the folder; copy \
                     the file from the model that this one was trained from",
                    token.text
                )));
            }
            derived(&merges(model), &ids, &kinds).ok_or_else(|| {
                encoder.not_exported(&format!(
                    "the scores of its SentencePiece vocabulary do not follow from the merges, and {MODEL}, which holds them, is not in \
                     the folder; copy the file from the model that this one was trained from"
                ))
            })?
        }
        Err(error) => return Err(error.into()),
    };
    for token in &added {
        if Some(token.id) != unknown {
            token.enter(&mut tokens, &mut kinds);
            if let Some(score) = scores.get_mut(token.id) {
                *score = ADDED;
            }
        }
    }
    let remark = match prefix {
        Prefix::First => Some(
            "llama.cpp puts a space before a text and after each control token; this tokenizer does so only at the beginning of a text \
             that does not begin with a space",
        ),
        Prefix::Always if file["normalizer"].is_null() => Some(
            "llama.cpp puts a space before a text; this tokenizer does so only if the text does not begin with a space",
        ),
        Prefix::Always | Prefix::Never => None,
    };
    Ok(Vocabulary {
        model: "llama",
        pre: "default",
        tokens,
        kinds,
        scores,
        merges: Vec::new(),
        unknown: unknown.and_then(|id| u32::try_from(id).ok()),
        add_space_prefix: Some(prefix != Prefix::Never),
        remark,
    })
}

/// The place of a space that a tokenizer adds to the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Prefix {
    Never,
    /// Before a text. `Metaspace` puts none before a text that begins with a space.
    First,
    /// Before a text, and before each part of it that follows a special token. The same exception holds for `Metaspace`.
    Always,
}

/// Returns where the tokenizer puts a space; `None` if it changes a text in other ways than llama.cpp's does.
fn space_prefix(file: &Value) -> Option<Prefix> {
    let (normalizer, pre) = (&file["normalizer"], &file["pre_tokenizer"]);
    if normalizer.is_null() {
        let plain = pre["type"] == "Metaspace" && pre["replacement"] == "▁" && pre["split"] == false;
        return match pre["prepend_scheme"].as_str().filter(|_| plain)? {
            "never" => Some(Prefix::Never),
            "first" => Some(Prefix::First),
            "always" => Some(Prefix::Always),
            _ => None,
        };
    }
    // Gemma's splits at spaces, of which none are left by then.
    let splits_at_spaces = pre["type"] == "Split" && pre["pattern"]["String"] == " ";
    if !pre.is_null() && !splits_at_spaces {
        return None;
    }
    let steps = match normalizer["normalizers"].as_array() {
        Some(steps) if normalizer["type"] == "Sequence" => steps.iter().collect(),
        _ => vec![normalizer],
    };
    let prepends = |step: &Value| step["type"] == "Prepend" && step["prepend"] == "▁";
    let replaces =
        |step: &Value| step["type"] == "Replace" && step["pattern"]["String"] == " " && step["content"] == "▁";
    match steps[..] {
        [first, second] if prepends(first) && replaces(second) => Some(Prefix::Always),
        [only] if replaces(only) => Some(Prefix::Never),
        _ => None,
    }
}

/// Returns whether a token is that of one byte, as `<0x0A>` is.
fn is_byte(text: &str) -> bool {
    let digits = text.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    digits.is_some_and(|digits| digits.len() == 2 && u8::from_str_radix(digits, 16).is_ok())
}

/// Returns whether a token is the unknown token, BOS, EOS or padding, which a SentencePiece vocabulary has by itself.
fn is_basic(encoder: &TextEncoder, token: &Added<'_>) -> bool {
    let special = encoder.special_tokens();
    let named =
        [&special.bos, &special.eos, &special.pad].into_iter().flatten().any(|(_, id)| *id as usize == token.id);
    named || ["<unk>", "<s>", "</s>", "<pad>"].contains(&token.text)
}

/// Returns the scores that `tokenizer.model` gives, and takes the kinds of its pieces from it.
fn given(
    pieces: &[Piece],
    tokens: &[String],
    kinds: &mut [TokenKind],
    added: &HashSet<usize>,
) -> Result<Vec<f32>, String> {
    if pieces.len() > tokens.len() {
        return Err(format!("holds {} pieces, but the model has embeddings for {}", pieces.len(), tokens.len()));
    }
    let mut scores = vec![ADDED; tokens.len()];
    for (id, piece) in pieces.iter().enumerate() {
        // tokenizer.json may give a token that was reserved another name.
        if piece.text != tokens[id] && !added.contains(&id) {
            return Err(format!(
                "piece {id} is {:?}, but tokenizer.json has {:?}: they do not belong together",
                piece.text, tokens[id]
            ));
        }
        scores[id] = piece.score;
        kinds[id] = piece.kind;
    }
    Ok(scores)
}

/// Returns scores that give the order of the merges; `None` if there are none.
fn derived(merges: &[(&str, &str)], ids: &HashMap<&str, usize>, kinds: &[TokenKind]) -> Option<Vec<f32>> {
    let mut scores = vec![0.0; kinds.len()];
    let mut ranks: HashMap<usize, usize> = HashMap::new();
    let mut last = None;
    for (a, b) in merges {
        let result = *ids.get(format!("{a}{b}").as_str())?;
        if last != Some(result) {
            let rank = ranks.len();
            // The pairs with this result are not next to each other.
            if ranks.insert(result, rank).is_some() {
                return None;
            }
            scores[result] = -(rank as f32);
            last = Some(result);
        }
    }
    // llama.cpp joins any two tokens whose text is a token.
    let listed: HashSet<&(&str, &str)> = merges.iter().collect();
    for text in ids.keys() {
        for (place, _) in text.char_indices().skip(1) {
            let (a, b) = text.split_at(place);
            if ids.contains_key(a) && ids.contains_key(b) && !listed.contains(&(a, b)) {
                return None;
            }
        }
    }
    // Every rank below this bound is exact in f32.
    (ranks.len() < 1 << f32::MANTISSA_DIGITS).then_some(())?;
    let mut rest = ranks.len();
    for (id, kind) in kinds.iter().enumerate() {
        if *kind == TokenKind::Normal && !ranks.contains_key(&id) {
            scores[id] = -(rest as f32);
            rest += 1;
        }
    }
    Some(scores)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn scores_follow_from_merges_that_name_every_pair_once() {
        let ids: HashMap<&str, usize> = ["a", "b", "c", "ab", "bc", "abc"].into_iter().zip(0..).collect();
        let kinds = [TokenKind::Normal; 6];
        let all = [("b", "c"), ("a", "b"), ("ab", "c"), ("a", "bc")];
        assert_eq!(derived(&all, &ids, &kinds), Some(vec![-3.0, -4.0, -5.0, -1.0, 0.0, -2.0]));
        // A pair is missing, or the pairs of `abc` are apart.
        assert_eq!(derived(&all[..3], &ids, &kinds), None);
        assert_eq!(derived(&[("b", "c"), ("a", "bc"), ("a", "b"), ("ab", "c")], &ids, &kinds), None);
        // The result of a merge is no token.
        assert_eq!(derived(&[("a", "c")], &ids, &kinds), None);
    }

    #[test]
    fn only_spaces_may_be_changed() {
        let prefix =
            |normalizer: Value, pre: Value| space_prefix(&json!({"normalizer": normalizer, "pre_tokenizer": pre}));
        let meta = |scheme: &str, split: bool| json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": split});
        let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
        let prepend = json!({"type": "Prepend", "prepend": "▁"});
        let sequence = |steps: Value| json!({"type": "Sequence", "normalizers": steps});
        assert_eq!(prefix(json!(null), meta("first", false)), Some(Prefix::First));
        assert_eq!(prefix(json!(null), meta("always", false)), Some(Prefix::Always));
        assert_eq!(prefix(json!(null), meta("never", false)), Some(Prefix::Never));
        assert_eq!(prefix(json!(null), meta("first", true)), None);
        assert_eq!(prefix(sequence(json!([prepend, replace])), json!(null)), Some(Prefix::Always));
        assert_eq!(prefix(replace.clone(), json!(null)), Some(Prefix::Never));
        // Gemma.
        let split = |text: &str| json!({"type": "Split", "pattern": {"String": text}, "behavior": "MergedWithPrevious", "invert": false});
        assert_eq!(prefix(replace.clone(), split(" ")), Some(Prefix::Never));
        assert_eq!(prefix(replace.clone(), split("a")), None);
        assert_eq!(prefix(sequence(json!([{"type": "NFKC"}, replace])), json!(null)), None);
        assert_eq!(prefix(replace, meta("first", false)), None);
        assert_eq!(prefix(json!(null), json!(null)), None);
    }
}
