//! A tokenizer as GGUF files hold it, for llama.cpp and Ollama.
//!
//! llama.cpp has its own two tokenizers for the models that are exported: byte-level BPE (`gpt2`) and SentencePiece (`llama`). A tokenizer
//! is exported if one of them gives the same ids; everything else is refused.

mod byte_level;
mod pieces;
mod sentencepiece;
mod special;

use serde_json::Value;

use crate::encode::TextEncoder;
use crate::error::Error;
pub(crate) use sentencepiece::MODEL as SENTENCEPIECE_MODEL;

/// A tokenizer's entries of a GGUF file (`tokenizer.ggml.*`).
#[derive(Debug, Clone, PartialEq)]
pub struct GgufTokenizer {
    /// The algorithm (`model`): `gpt2` or `llama`.
    pub model: &'static str,
    /// The rule by which a text is split before tokens are merged (`pre`).
    pub pre: &'static str,
    /// Every token's text.
    pub tokens: Vec<String>,
    /// Every token's kind (`token_type`).
    pub kinds: Vec<TokenKind>,
    /// Every token's score, for `llama` only: of two possible merges, the one with the higher score is made first.
    pub scores: Vec<f32>,
    /// The merges in their order, for `gpt2` only: two tokens with a space between them.
    pub merges: Vec<String>,
    /// The token that begins a text.
    pub bos: Option<u32>,
    /// The token that ends a turn: the chat template's own, if there is a template.
    pub eos: Option<u32>,
    /// The token of unknown characters.
    pub unknown: Option<u32>,
    /// The token that fills up rows.
    pub padding: Option<u32>,
    /// True if a text begins with `bos`.
    pub add_bos: bool,
    /// True if a space is put before a text, for `llama` only.
    pub add_space_prefix: Option<bool>,
    /// The chat template, in Jinja.
    pub chat_template: Option<String>,
    /// A difference between llama.cpp's ids and this tokenizer's, as a sentence.
    pub remark: Option<&'static str>,
}

/// The kind of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// Part of a text.
    Normal = 1,
    /// Stands for an unknown character.
    Unknown = 2,
    /// A special token: hidden from readers, and not made from the text of a message.
    Control = 3,
    /// Added to the vocabulary; its text always becomes this token.
    UserDefined = 4,
    /// No text becomes this token.
    Unused = 5,
    /// One byte.
    Byte = 6,
}

/// The part of a tokenizer that depends on the algorithm.
struct Vocabulary {
    model: &'static str,
    pre: &'static str,
    tokens: Vec<String>,
    kinds: Vec<TokenKind>,
    scores: Vec<f32>,
    merges: Vec<String>,
    unknown: Option<u32>,
    add_space_prefix: Option<bool>,
    remark: Option<&'static str>,
}

impl TextEncoder {
    /// Returns the tokenizer's entries of a GGUF file, for a model with embeddings for `size` tokens.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] with the reason, if llama.cpp has no tokenizer that gives the same ids. SentencePiece tokenizers with added
    /// tokens need the file `tokenizer.model` in the tokenizer's folder.
    pub fn gguf_tokenizer(&self, size: usize) -> Result<GgufTokenizer, Error> {
        self.check_vocabulary(size)?;
        let file: Value =
            serde_json::from_slice(self.json()).map_err(|e| self.failed(setpoint_files::words::json(&e)))?;
        let model = &file["model"];
        let kind = model["type"].as_str().unwrap_or("BPE");
        let vocabulary = match (kind, model["byte_fallback"].as_bool()) {
            ("BPE", Some(true)) => sentencepiece::vocabulary(self, &file, size)?,
            ("BPE", _) => byte_level::vocabulary(self, &file, size)?,
            _ => {
                return Err(self.not_exported(&format!("its model is of type `{kind}`; expected `BPE`")));
            }
        };
        let special = self.special_tokens();
        let id = |token: &Option<(String, u32)>| token.as_ref().map(|(_, id)| *id);
        Ok(GgufTokenizer {
            model: vocabulary.model,
            pre: vocabulary.pre,
            tokens: vocabulary.tokens,
            kinds: vocabulary.kinds,
            scores: vocabulary.scores,
            merges: vocabulary.merges,
            bos: id(&special.bos),
            eos: self.stop_ids().first().copied(),
            unknown: vocabulary.unknown,
            padding: id(&special.pad),
            add_bos: !self.prefix().is_empty(),
            add_space_prefix: vocabulary.add_space_prefix,
            chat_template: self.template().map(|template| template.source().to_owned()),
            remark: vocabulary.remark,
        })
    }

    /// Returns the error for a tokenizer that llama.cpp does not have.
    fn not_exported(&self, reason: &str) -> Error {
        self.failed(format!("cannot be exported to GGUF: {reason}"))
    }
}

/// Returns the two parts of each merge; the file holds pairs, or texts with a space between the parts.
fn merges(model: &Value) -> Vec<(&str, &str)> {
    let pairs = model["merges"].as_array().into_iter().flatten().filter_map(|merge| match merge {
        Value::String(text) => text.split_once(' '),
        pair => pair[0].as_str().zip(pair[1].as_str()),
    });
    pairs.collect()
}
