//! The tokens that begin a text, end a turn, and must not occur within one.

use super::TextEncoder;
use crate::error::Error;
use crate::record::Message;
use crate::template::{BuiltIn, ChatTemplate};

impl TextEncoder {
    /// Finds the tokens that the tokenizer puts before a text, by tokenising one.
    pub(super) fn find_prefix(&self) -> Result<Vec<u32>, Error> {
        let encoding = self.tokens.encode_with_special("a").map_err(|e| self.failed(e.to_string()))?;
        let added = encoding.get_special_tokens_mask().iter().take_while(|&&m| m == 1).count();
        let prefix = encoding.get_ids()[..added].to_vec();
        if let Some(id) = prefix.iter().find(|id| self.tokens.tokenizer.id_to_token(**id).is_none()) {
            return Err(self.failed(format!("its `post_processor` adds the id {id}, which is no token's")));
        }
        // transformers lets the setting win over the file's post-processor.
        Ok(match (self.special.add_bos, &self.special.bos) {
            (Some(true), Some((_, bos))) if prefix.is_empty() => vec![*bos],
            (Some(false), Some((_, bos))) if prefix == [*bos] => Vec::new(),
            _ => prefix,
        })
    }

    /// The token with which the template ends an assistant turn, then the tokenizer's and the model's EOS.
    pub(super) fn find_stops(&self) -> Vec<u32> {
        let special = &self.special;
        let named = self.template_stop().into_iter().chain(special.eos.as_ref().map(|(_, id)| *id));
        let mut stops = Vec::new();
        for id in named.chain(special.more_eos.iter().copied()) {
            if !stops.contains(&id) {
                stops.push(id);
            }
        }
        stops
    }

    /// The special token with which the template ends an assistant's turn.
    #[must_use]
    pub fn template_stop(&self) -> Option<u32> {
        let (ids, _) = self.tokens.encode_continuing(&self.after_answer()?).ok()?;
        ids.into_iter().find(|id| self.is_special(*id))
    }

    /// The token that is put behind a trained answer because the chat template prints nothing after one: EOS, as behind plain text.
    #[must_use]
    pub fn appended_stop(&self) -> Option<u32> {
        self.appended_stop
    }

    pub(super) fn find_appended_stop(&self) -> Option<u32> {
        let bare = self.after_answer()?.is_empty();
        let eos = self.special.eos.as_ref().map(|(_, id)| *id).or(self.stop_ids.first().copied());
        eos.filter(|_| bare)
    }

    /// The text that the template prints after the last answer.
    pub(super) fn after_answer(&self) -> Option<String> {
        const PROBE: &str = "PROBEOFTHETURNSEND";
        let turns = [Message::user("a"), Message::assistant(PROBE)];
        // A template that refuses this plain conversation has its say when a real one is rendered.
        let template = self.template.as_ref().or(self.tool_template.as_ref())?;
        let text = template.render(&turns, false, &self.variables).ok()?;
        text.rsplit_once(PROBE).map(|(_, after)| after.to_owned())
    }

    pub(super) fn is_special(&self, id: u32) -> bool {
        self.tokens.tokenizer.get_added_vocabulary().get_added_tokens_decoder().get(&id).is_some_and(|t| t.special)
    }

    pub(super) fn find_control(&self) -> Vec<(String, u32)> {
        let bos = self.special.bos.as_ref().map(|(_, id)| *id);
        let mut ids: Vec<u32> = self.stop_ids.iter().copied().chain(bos).collect();
        ids.dedup();
        let added = self.tokens.tokenizer.get_added_vocabulary().get_added_tokens_decoder();
        ids.into_iter().filter_map(|id| added.get(&id).map(|token| (token.content.clone(), id))).collect()
    }

    /// The first control token whose text occurs in a message.
    pub(super) fn control_token_in(&self, text: &str) -> Option<&str> {
        self.control.iter().map(|(token, _)| token.as_str()).find(|token| text.contains(token))
    }

    /// Returns the built-in templates that end every assistant turn with a token of this tokenizer.
    pub(super) fn fitting_templates(&self) -> Vec<&'static str> {
        BuiltIn::ALL.into_iter().filter(|template| self.fits(*template)).map(BuiltIn::name).collect()
    }

    fn fits(&self, template: BuiltIn) -> bool {
        const PROBES: [&str; 2] = ["PROBEOFTHEFIRSTTURN", "PROBEOFTHELASTTURN"];
        let mut variables = self.variables.clone();
        let tokenizer = &self.tokens.tokenizer;
        let (bos, eos) = template.special_tokens();
        for (name, token) in [("bos_token", bos), ("eos_token", eos)] {
            if let Some(token) = token.filter(|token| tokenizer.token_to_id(token).is_some()) {
                variables.special_tokens.entry(name.into()).or_insert_with(|| token.to_owned());
            }
        }
        let eos = variables.special_tokens.get("eos_token").and_then(|token| tokenizer.token_to_id(token));
        let [first, last] = PROBES.map(Message::assistant);
        let turns = [Message::user("a"), first, Message::user("a"), last];
        let Ok(text) = ChatTemplate::built_in(template).render(&turns, false, &variables) else { return false };
        let ends = |id: u32| self.is_special(id) || Some(id) == eos;
        PROBES.iter().all(|probe| {
            let after = text.split_once(probe).and_then(|(_, after)| self.tokens.encode_continuing(after).ok());
            after.and_then(|(ids, _)| ids.first().copied()).is_some_and(ends)
        })
    }

    pub(super) fn stop_names(&self) -> String {
        let name = |id: &u32| self.tokens.tokenizer.id_to_token(*id).unwrap_or_else(|| id.to_string());
        match self.stop_ids.as_slice() {
            [] => "none (the tokenizer names no EOS)".into(),
            ids => ids.iter().map(name).collect::<Vec<_>>().join(", "),
        }
    }
}
