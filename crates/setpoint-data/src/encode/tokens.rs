//! Text to ids, with exact cuts: at a given place of the text, which tokens are before it and which behind.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use setpoint_files::words;
use tokenizers::{
    Encoding, ModelWrapper, NormalizedString, Normalizer as _, NormalizerWrapper, PostProcessorWrapper,
    PreTokenizerWrapper, Tokenizer,
};

use super::guard::{self, Guard};
use super::vet::{self, AddedToken, Care, Components};
use crate::error::{EncodeProblem, Error};
use crate::seam::contain;

/// A tokenizer that never truncates or pads, and its twin for text that continues another.
///
/// The file may come from anybody, and the library panics, recurses and allocates as the file says. So the file is checked
/// first ([`vet`]), a panic is an error, and what the checks do not recognise as harmless has a deadline ([`guard`]).
pub(super) struct Tokens {
    pub(super) tokenizer: Arc<Tokenizer>,
    /// The same without a space or `▁` put before the text; `None` where the tokenizer puts none.
    continuing: Option<Arc<Tokenizer>>,
    care: Care,
    guard: Guard,
    /// The steps of the normalizer and how many times as long each can make a text, where that has to be measured.
    steps: Arc<Vec<(NormalizerWrapper, f64)>>,
    /// The dropout of the file's BPE model, which is switched off.
    pub(super) dropout: Option<f32>,
}

/// The longest text that is tokenised, and the longest of which several are at a time: a text takes about 80 times its length.
const LONGEST_TEXT: usize = 8 << 20;
const SHORT_TEXT: usize = 512 << 10;
/// Held while a text that is not short is tokenised.
static LONG_TEXT: Mutex<()> = Mutex::new(());

/// The byte range of each token in its text.
pub(super) type Offsets = Vec<(usize, usize)>;

/// A tokenised text with places found in it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Cut {
    pub(super) ids: Vec<u32>,
    /// The byte range of each token in the text.
    pub(super) offsets: Offsets,
    /// For each cut, the index of the first token behind it.
    pub(super) at: Vec<usize>,
    /// The number of cuts that fell into a token, so that the text was tokenised apart there.
    pub(super) merged: usize,
}

impl Tokens {
    /// Loads `tokenizer.json`.
    pub(super) fn load(path: &Path, bytes: &[u8]) -> Result<Self, Error> {
        let failed = |reason: String| Error::Tokenizer { path: path.to_owned(), reason };
        vet::check_length(bytes).map_err(failed)?;
        let owned = bytes.to_vec();
        guard::load(bytes.len(), move || read(&owned)).and_then(|read| read).map_err(failed)
    }

    /// Ids of a text on its own, and the byte range of each.
    pub(super) fn encode(&self, text: &str) -> Result<(Vec<u32>, Offsets), EncodeProblem> {
        self.run(&self.tokenizer, text, false).map(ids_and_offsets)
    }

    /// Ids of a text that continues another.
    pub(super) fn encode_continuing(&self, text: &str) -> Result<(Vec<u32>, Offsets), EncodeProblem> {
        self.run(self.continuing.as_ref().unwrap_or(&self.tokenizer), text, false).map(ids_and_offsets)
    }

    /// The encoding of a text with whatever the tokenizer puts around it.
    pub(super) fn encode_with_special(&self, text: &str) -> Result<Encoding, EncodeProblem> {
        self.run(&self.tokenizer, text, true)
    }

    fn run(&self, tokenizer: &Arc<Tokenizer>, text: &str, special: bool) -> Result<Encoding, EncodeProblem> {
        if text.len() > LONGEST_TEXT {
            return Err(EncodeProblem::TextTooLong { bytes: text.len(), most: LONGEST_TEXT });
        }
        let _one_at_a_time =
            (text.len() > SHORT_TEXT).then(|| LONG_TEXT.lock().unwrap_or_else(PoisonError::into_inner));
        let encoding = if self.care == Care::Ordinary {
            contain(|| tokenizer.encode(text, special).map_err(|e| e.to_string()))
        } else {
            let (tokenizer, steps, text) = (tokenizer.clone(), self.steps.clone(), text.to_owned());
            self.guard.encode(text.len(), move || {
                measure(&steps, &text)?;
                tokenizer.encode(text, special).map_err(|e| e.to_string())
            })
        };
        encoding.and_then(|encoding| encoding).map_err(|reason| EncodeProblem::Tokenizer { reason })
    }

    /// The text of ids.
    pub(super) fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, String> {
        let decoded = if self.care == Care::Ordinary {
            contain(|| self.tokenizer.decode(ids, skip_special).map_err(|e| e.to_string()))
        } else {
            let (tokenizer, ids) = (self.tokenizer.clone(), ids.to_vec());
            self.guard.encode(4 * ids.len(), move || tokenizer.decode(&ids, skip_special).map_err(|e| e.to_string()))
        };
        decoded.and_then(|text| text)
    }

    /// Tokenises a text and finds the given places (bytes, ascending) among its tokens. Where a token spans a place, the text
    /// is tokenised apart there; everywhere else the ids are those of the whole text.
    pub(super) fn encode_cut(&self, text: &str, places: &[usize]) -> Result<Cut, EncodeProblem> {
        let (ids, offsets) = self.encode(text)?;
        let at = cuts(&offsets, places);
        let merged = at.iter().filter(|a| a.is_none()).count();
        if merged == 0 {
            return Ok(Cut { ids, offsets, at: at.into_iter().flatten().collect(), merged });
        }
        // Pieces between the places that fell into tokens; the other places are found within their piece.
        let mut whole = Cut { merged, ..Cut::default() };
        let mut start = 0;
        let ends = places.iter().zip(&at).filter(|(_, a)| a.is_none()).map(|(&place, _)| place);
        for end in ends.chain([text.len()]) {
            let piece = &text[start..end];
            let (ids, offsets) = if start == 0 { self.encode(piece)? } else { self.encode_continuing(piece)? };
            let last = end == text.len();
            for &place in places.iter().filter(|&&p| p >= start && (p < end || (last && p == end))) {
                let index = match cut(&offsets, place - start) {
                    Some(index) => index,
                    // A piece merges where the whole did not (a lookahead sees another neighbour): its last token.
                    None => offsets.iter().position(|o| o.1 > place - start).unwrap_or(ids.len()),
                };
                whole.at.push(whole.ids.len() + index);
            }
            whole.ids.extend(ids);
            whole.offsets.extend(offsets.iter().map(|&(from, to)| (start + from, start + to)));
            start = end;
        }
        Ok(whole)
    }
}

fn ids_and_offsets(encoding: Encoding) -> (Vec<u32>, Offsets) {
    (encoding.get_ids().to_vec(), encoding.get_offsets().to_vec())
}

/// Fails where a step of the normalizer could make the text too long.
fn measure(steps: &[(NormalizerWrapper, f64)], text: &str) -> Result<(), String> {
    const FREE: usize = 16 << 20;
    let most = text.len().saturating_mul(64).max(FREE);
    let mut normalized = NormalizedString::from(text);
    for (step, growth) in steps {
        let length = normalized.get().len() as f64 * growth;
        if length > most as f64 {
            return Err(format!("its normalizer could make a text of {} bytes {length:.0} bytes long", text.len()));
        }
        step.normalize(&mut normalized).map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// Makes a tokenizer of a file's bytes.
fn read(bytes: &[u8]) -> Result<Tokens, String> {
    let not_json = |e: serde_json::Error| match e.classify() {
        serde_json::error::Category::Data => unreadable(&e.to_string()),
        _ => format!("not valid JSON: {}", words::json(&e)),
    };
    let components: Components = serde_json::from_slice(bytes).map_err(not_json)?;
    let care = vet::check(&components)?;
    let Components { added_tokens, normalizer, pre_tokenizer, mut post_processor, .. } = components;
    let mut tokenizer = Tokenizer::from_bytes(bytes).map_err(|e| unreadable(&e.to_string()))?;
    check_ids(&tokenizer)?;
    let dropout = without_dropout(&mut tokenizer);
    // Published files carry truncation (gpt2: 50 tokens) and padding of whoever saved them. Nothing is cut silently here.
    tokenizer.with_truncation(None).map_err(|e| e.to_string())?;
    tokenizer.with_padding(None);
    // Trimmed offsets would hide that a token holds the space before a boundary. Ids do not depend on this.
    set_everywhere(&mut post_processor, "trim_offsets", &Value::Bool(false));
    let post_processor: Option<PostProcessorWrapper> = serde_json::from_value(post_processor).map_err(not_json)?;
    tokenizer.with_post_processor(post_processor);
    // The library gives an added token the next free id where the file's does not follow the vocabulary.
    for AddedToken { id, content } in &added_tokens {
        let given = tokenizer.token_to_id(content);
        if given != Some(*id) {
            let given = given.map_or_else(|| "none".into(), |id| id.to_string());
            return Err(format!(
                "the added token {content:?} has the id {id} in the file but gets {given}: ids of added tokens must follow the \
                 vocabulary without a gap. Save the tokenizer again with transformers"
            ));
        }
    }
    let mut steps = Vec::new();
    if care == Care::Measured {
        for step in vet::steps(&normalizer) {
            steps.push((serde_json::from_value(step.clone()).map_err(not_json)?, vet::growth(step)));
        }
    }
    let (mut normalizer_of_twin, mut pre_tokenizer_of_twin) = (normalizer.clone(), pre_tokenizer.clone());
    without_prefix(&mut normalizer_of_twin);
    without_prefix(&mut pre_tokenizer_of_twin);
    let continuing = if (&normalizer_of_twin, &pre_tokenizer_of_twin) == (&normalizer, &pre_tokenizer) {
        None
    } else {
        let mut twin = tokenizer.clone();
        let normalizer: Option<NormalizerWrapper> = serde_json::from_value(normalizer_of_twin).map_err(not_json)?;
        let pre_tokenizer: Option<PreTokenizerWrapper> =
            serde_json::from_value(pre_tokenizer_of_twin).map_err(not_json)?;
        twin.with_normalizer(normalizer).map_err(|e| e.to_string())?;
        twin.with_pre_tokenizer(pre_tokenizer);
        Some(Arc::new(twin))
    };
    let (tokenizer, steps) = (Arc::new(tokenizer), Arc::new(steps));
    Ok(Tokens { tokenizer, continuing, care, guard: Guard::default(), steps, dropout })
}

/// Switches off the dropout of a BPE model, by which a text has other tokens each time: it helps to train a tokenizer's model, and is in
/// the way of everything else. Returns what it was.
fn without_dropout(tokenizer: &mut Tokenizer) -> Option<f32> {
    let ModelWrapper::BPE(model) = tokenizer.get_model() else { return None };
    let dropout = model.dropout.filter(|&dropout| dropout > 0.0)?;
    let mut model = model.clone();
    model.dropout = None;
    tokenizer.with_model(model);
    Some(dropout)
}

/// Fails if two tokens of the vocabulary have the same id.
fn check_ids(tokenizer: &Tokenizer) -> Result<(), String> {
    let mut tokens: Vec<(u32, String)> =
        tokenizer.get_vocab(false).into_iter().map(|(token, id)| (id, token)).collect();
    tokens.sort();
    match tokens.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        Some([(id, one), (_, other)]) => Err(format!("the tokens {one:?} and {other:?} both have the id {id}")),
        _ => Ok(()),
    }
}

/// A sentence for what the library cannot read. Where it tried several readings its reason names a type of its own.
fn unreadable(reason: &str) -> String {
    const UNTAGGED: &str = "data did not match any variant of untagged enum ";
    let plain = words::value(reason.split(" at line ").next().unwrap_or(reason), "an object");
    let Some(of) = reason.strip_prefix(UNTAGGED) else {
        return format!("not a file of the tokenizers library: {plain}");
    };
    let parts = [
        ("Model", "model"),
        ("Merge", "merges"),
        ("Normalizer", "normalizer"),
        ("PreTokenizer", "pre_tokenizer"),
        ("PostProcessor", "post_processor"),
        ("Decoder", "decoder"),
    ];
    let part = parts.iter().find(|(name, _)| of.starts_with(name));
    let part = part.map_or_else(|| "a component".to_owned(), |(_, part)| format!("`{part}`"));
    format!("{part} is of no type that the tokenizers library knows, or lacks a part that its type needs")
}

/// Index of the first token at or behind `place`; `None` when a token spans it.
pub(super) fn cut(offsets: &[(usize, usize)], place: usize) -> Option<usize> {
    if offsets.iter().any(|&(start, end)| start < place && place < end) {
        return None;
    }
    Some(offsets.iter().position(|&(start, _)| start >= place).unwrap_or(offsets.len()))
}

/// [`cut`] at several places. Offsets that ascend, as those of almost all tokenizers, are not walked through for each.
fn cuts(offsets: &[(usize, usize)], places: &[usize]) -> Vec<Option<usize>> {
    let ascend = offsets.is_sorted_by(|a, b| a.0 <= b.0 && a.1 <= b.1);
    let one = |&place: &usize| {
        if !ascend {
            return cut(offsets, place);
        }
        let index = offsets.partition_point(|&(start, _)| start < place);
        // Those before it begin before the place, and the last of them ends last.
        let spans = index.checked_sub(1).is_some_and(|before| offsets[before].1 > place);
        (!spans).then_some(index)
    };
    places.iter().map(one).collect()
}

/// Sets a field in every object of a tree that has it.
fn set_everywhere(json: &mut Value, field: &str, to: &Value) {
    match json {
        Value::Object(fields) => {
            if let Some(value) = fields.get_mut(field) {
                *value = to.clone();
            }
            fields.values_mut().for_each(|v| set_everywhere(v, field, to));
        }
        Value::Array(items) => items.iter_mut().for_each(|v| set_everywhere(v, field, to)),
        _ => {}
    }
}

/// Takes away what puts a space or `▁` before a text: `Prepend`, `Metaspace` with a prepend scheme, `add_prefix_space`.
fn without_prefix(json: &mut Value) {
    set_everywhere(json, "add_prefix_space", &Value::Bool(false));
    set_everywhere(json, "prepend_scheme", &Value::from("never"));
    drop_prepend(json);
}

fn drop_prepend(json: &mut Value) {
    let is_prepend = |v: &Value| v.get("type").and_then(Value::as_str) == Some("Prepend");
    if is_prepend(json) {
        *json = Value::Null;
    } else if let Some(Value::Array(parts)) = json.get_mut("normalizers") {
        parts.retain(|part| !is_prepend(part));
        parts.iter_mut().for_each(drop_prepend);
    }
}
