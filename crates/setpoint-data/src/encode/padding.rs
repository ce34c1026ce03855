//! A padding token that no response ends with.

use std::collections::HashSet;

use super::TextEncoder;

impl TextEncoder {
    /// Makes a token of the vocabulary the one that fills up rows, in what [`save`](Self::save) writes.
    pub fn set_padding_token(&mut self, id: u32, text: String) {
        self.special.names.insert("pad_token".to_owned(), text.clone());
        self.special.pad = Some((text, id));
    }

    /// Returns a token to fill up the rows of a batch with, as id and text: the tokenizer's own if it is fit, else one that is reserved
    /// or unused.
    ///
    /// transformers reads a classifier's score at the last token of a row that is not `pad_token_id`, and older versions before the
    /// first that is. So the token is neither a stop token nor BOS, and none of `rows`, the tokens that a model was trained on, holds
    /// it. `vocabulary` is the number of tokens that the model has embeddings for. `None` if every token is taken.
    pub fn padding_token<'r>(
        &self,
        vocabulary: usize,
        rows: impl IntoIterator<Item = &'r [u32]>,
    ) -> Option<(u32, String)> {
        let mut taken: HashSet<u32> = self.stop_ids.iter().copied().collect();
        taken.extend(self.special.eos.iter().chain(&self.special.bos).map(|(_, id)| *id));
        taken.extend(&self.prefix);
        taken.extend(rows.into_iter().flatten());
        let fit = |id: u32| (id as usize) < vocabulary && !taken.contains(&id);
        if let Some((text, id)) = self.special.pad.as_ref().filter(|(_, id)| fit(*id)) {
            return Some((*id, text.clone()));
        }
        let tokenizer = &self.tokens.tokenizer;
        let added = tokenizer.get_added_tokens_decoder();
        let unknown = self.special.names.get("unk_token");
        let rank = |id: u32, text: &str| match added.get(&id) {
            Some(token) if token.special && text.to_lowercase().contains("pad") => 0,
            Some(token) if token.special && ["reserved", "unused"].iter().any(|name| text.contains(name)) => 1,
            _ if unknown.is_some_and(|unknown| unknown == text) => 2,
            Some(token) if token.special => 3,
            _ => 4,
        };
        let tokens = tokenizer.get_vocab(true).into_iter().filter(|(_, id)| fit(*id));
        // Of ordinary tokens the last: it is the rarest in most vocabularies.
        let best = tokens.map(|(text, id)| (rank(id, &text), u32::MAX - id, text)).min()?;
        Some((u32::MAX - best.1, best.2))
    }
}
