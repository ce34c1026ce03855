//! Tokens that are not merged from text.

use serde_json::Value;

use super::TokenKind;

/// An added token of `tokenizer.json`.
pub(super) struct Added<'a> {
    pub(super) id: usize,
    pub(super) text: &'a str,
    pub(super) is_special: bool,
}

/// Returns the added tokens of the file.
pub(super) fn added(file: &Value) -> Vec<Added<'_>> {
    let tokens = file["added_tokens"].as_array().into_iter().flatten().filter_map(|token| {
        let id = usize::try_from(token["id"].as_u64()?).ok()?;
        Some(Added { id, text: token["content"].as_str()?, is_special: token["special"].as_bool().unwrap_or(false) })
    });
    tokens.collect()
}

impl Added<'_> {
    /// Writes the token into its place.
    pub(super) fn enter(&self, tokens: &mut [String], kinds: &mut [TokenKind]) {
        let control = self.is_special || looks_special(self.text);
        if let (Some(token), Some(kind)) = (tokens.get_mut(self.id), kinds.get_mut(self.id)) {
            // llama.cpp compares the text of a user-defined token with plain text.
            *token = if control { self.text.to_owned() } else { self.text.replace('▁', " ") };
            *kind = if control { TokenKind::Control } else { TokenKind::UserDefined };
        }
    }
}

/// Returns whether a token that the file does not call special is a control token by its name, as llama.cpp's converter decides.
fn looks_special(text: &str) -> bool {
    let between = |before: &str, after: &str| text.starts_with(before) && text.ends_with(after);
    ["<pad>", "<mask>", "<2mass>", "[@BOS@]"].contains(&text)
        || between("<|", "|>")
        || between("<｜", "｜>")
        || between("<unused", ">")
}

/// Returns the text of a row of the embeddings that belongs to no token.
pub(super) fn padding(id: usize) -> String {
    format!("[PAD{id}]")
}
