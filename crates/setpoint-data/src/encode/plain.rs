//! Plain text: BOS before the prompt as the tokenizer puts it, EOS behind the response, each once.

use super::learned::learned_responses;
use super::options::EncodeOptions;
use super::thoughts::Thoughts;
use super::{Parts, TextEncoder};
use crate::error::EncodeProblem;
use crate::record::Record;

impl TextEncoder {
    pub(super) fn plain(&self, prompt: &str, record: &Record, options: &EncodeOptions) -> Result<Parts, EncodeProblem> {
        let (before, _) = self.tokens.encode(prompt)?;
        let ids = self.plain_prompt(prompt)?;
        let is_alone = record.whole;
        if ids.is_empty() && !(is_alone && options.weighted_turns) {
            return Err(EncodeProblem::EmptyPrompt);
        }
        let learned = learned_responses(record, options)?;
        let mut parts = Parts { learned, ..Parts::of_prompt(ids) };
        for (index, response) in record.responses.iter().enumerate() {
            let (text, stop) = self.without_stop(response.text());
            let text = if is_alone { self.without_bos(text) } else { text };
            if let Some(token) = self.control_token_in(text) {
                return Err(EncodeProblem::ControlTokenInText {
                    place: format!("response {index}"),
                    token: token.to_owned(),
                });
            }
            let stop = stop
                .or(self.special.eos.as_ref().map(|(_, id)| *id))
                .or(self.stop_ids.first().copied())
                .ok_or_else(|| EncodeProblem::NoStop {
                    turn: format!("response {index}"),
                    expected: self.stop_names(),
                    fitting: None,
                })?;
            let joined = format!("{prompt}{text}");
            let (mut ids, offsets, apart) = self.split(&joined, prompt.len(), &before, index, options.boundary)?;
            if ids.is_empty() {
                return Err(EncodeProblem::EmptyResponse { response: index });
            }
            parts.merged += usize::from(apart);
            ids.push(stop);
            let mut thoughts = Vec::new();
            if !options.learns_thoughts() && parts.learned[index] {
                thoughts = Thoughts::in_text(text).tokens(&offsets, 0);
                self.check_answered(&ids, &thoughts, || format!("response {index}"))?;
            }
            parts.responses.push(ids);
            parts.thoughts.push(thoughts);
        }
        if parts.prompt.is_empty() {
            parts.begin_with_first_token();
        }
        Ok(parts)
    }

    /// The ids of a plain prompt. A prompt that already begins with the text of BOS does not get a second one.
    pub(super) fn plain_prompt(&self, prompt: &str) -> Result<Vec<u32>, EncodeProblem> {
        let (ids, _) = self.tokens.encode(prompt)?;
        let ids = if ids.starts_with(&self.prefix) { ids } else { [self.prefix.as_slice(), &ids].concat() };
        if let Some((text, bos)) = &self.special.bos
            // Where one token serves as both (gpt2), earlier turns may end with it.
            && !self.stop_ids.contains(bos)
            && ids.iter().skip(1).any(|id| id == bos)
        {
            return Err(EncodeProblem::ControlTokenInText { place: "the prompt".into(), token: text.clone() });
        }
        Ok(ids)
    }

    /// A text without a prompt that already begins with the text of BOS does not get a second one.
    fn without_bos<'a>(&self, text: &'a str) -> &'a str {
        let bos = self.special.bos.as_ref().filter(|(_, id)| self.prefix.contains(id));
        bos.and_then(|(token, _)| text.strip_prefix(token.as_str())).unwrap_or(text)
    }

    /// A response that already ends with the text of a stop token does not get a second one.
    fn without_stop<'a>(&self, text: &'a str) -> (&'a str, Option<u32>) {
        let stops = self.control.iter().filter(|(_, id)| self.stop_ids.contains(id));
        stops
            .filter_map(|(token, id)| text.strip_suffix(token.as_str()).map(|text| (text, Some(*id))))
            .next()
            .unwrap_or((text, None))
    }
}
