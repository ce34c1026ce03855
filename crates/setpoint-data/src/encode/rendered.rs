//! Boundaries from the rendered conversation, for templates whose generation prompt is not how they render a past turn.
//!
//! The beginning of a turn is found by rendering the conversation again with a mark in the turn's place: the text that both have
//! in common, up to the mark, is not the turn's own.

use super::learned::learned_turns;
use super::{TextEncoder, places};
use crate::error::EncodeProblem;
use crate::record::{Message, Record};
use crate::template::TemplateVariables;

/// The text of a turn that is looked for. It begins with a character that no turn begins with.
pub(super) const MARK: &str = "\u{2402}MARKOFTHETURN\u{2403}";

impl TextEncoder {
    /// Renders the conversation up to the answers: the part that all answers share.
    pub(super) fn rendered_prompt(
        &self,
        messages: &[Message],
        record: &Record,
        variables: &TemplateVariables,
    ) -> Result<String, EncodeProblem> {
        let with = |answer: &Message| {
            let conversation = [messages, std::slice::from_ref(answer)].concat();
            self.render_with(&conversation, false, variables)
        };
        let marked = with(&Message::assistant(MARK))?;
        let mut prompt: Option<String> = None;
        for (index, response) in record.responses.iter().enumerate() {
            let full = with(&response.message)?;
            let common = common(&full, &marked).ok_or_else(|| self.no_mark(&full, format!("answer {index}")))?;
            prompt = Some(match prompt {
                None => common.to_owned(),
                Some(before) => shared(&before, common).to_owned(),
            });
        }
        match prompt {
            Some(prompt) => Ok(prompt),
            None => self.render_with(messages, true, variables),
        }
    }

    /// Where in the rendered conversation each earlier assistant turn that is learned begins, and which message it is.
    pub(super) fn rendered_turns(
        &self,
        messages: &[Message],
        record: &Record,
        variables: &TemplateVariables,
    ) -> Result<(Vec<usize>, Vec<usize>), EncodeProblem> {
        let mut conversation = messages.to_vec();
        conversation.extend(record.responses.first().map(|r| r.message.clone()));
        let open = record.responses.is_empty();
        let full = self.render_with(&conversation, open, variables)?;
        let turns = learned_turns(messages)?;
        let exact = |i: usize| {
            let mut marked = conversation.clone();
            marked[i] = Message::assistant(MARK);
            let marked = self.render_with(&marked, open, variables)?;
            let place = common(&full, &marked).map(str::len);
            place.ok_or_else(|| self.no_mark(&full, format!("assistant turn in message {i}")))
        };
        let within = |turns: &[usize], place| {
            self.places_by_marks(&conversation, turns, (full.as_str(), place), open, variables)
        };
        Ok((places::find(&turns, exact, within)?, turns))
    }

    fn no_mark(&self, full: &str, turn: String) -> EncodeProblem {
        self.not_a_prefix(MARK, full, turn)
    }
}

/// Returns the common beginning of two texts.
fn shared<'t>(a: &'t str, b: &str) -> &'t str {
    let same = a.chars().zip(b.chars()).take_while(|(x, y)| x == y).map(|(x, _)| x.len_utf8()).sum();
    &a[..same]
}

/// Returns the common beginning of a text and a marked one, before the mark; `None` without a mark.
pub(super) fn common<'t>(text: &'t str, marked: &str) -> Option<&'t str> {
    let at = marked.find(MARK)?;
    Some(shared(text, &marked[..at]))
}
