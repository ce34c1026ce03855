//! Conversations: the template's text, cut where the prompt ends and the response stops.

use std::ops::Range;

use super::learned::{learned_responses, learned_turns};
use super::options::{Boundary, EncodeOptions, LostText, ResponseEnd};
use super::thoughts::Thoughts;
use super::tokens::{Offsets, cut};
use super::{Parts, TextEncoder, places};
use crate::error::EncodeProblem;
use crate::record::{Message, Record};
use crate::template::TemplateVariables;

/// Characters of text around a place, for errors.
const EXCERPT: usize = 24;

impl TextEncoder {
    pub(super) fn chat(
        &self,
        messages: &[Message],
        record: &Record,
        options: &EncodeOptions,
    ) -> Result<Parts, EncodeProblem> {
        let variables = self.variables_of(record)?;
        self.check_messages(messages, record)?;
        let rendered = options.boundary == Boundary::Rendered;
        let prompt = if rendered {
            self.rendered_prompt(messages, record, &variables)?
        } else {
            self.render_with(messages, true, &variables)?
        };
        let (places, turns) = match options.assistant_spans {
            true if rendered => self.rendered_turns(messages, record, &variables)?,
            true => self.earlier_turns(messages, &prompt, &variables)?,
            false => (Vec::new(), Vec::new()),
        };
        let learned = learned_responses(record, options)?;
        if !learned.is_empty() && turns.is_empty() && !learned.contains(&true) {
            return Err(EncodeProblem::NothingLearned);
        }
        let tokens = self.tokens.encode_cut(&prompt, &places)?;
        if tokens.ids.is_empty() {
            return Err(EncodeProblem::EmptyPrompt);
        }
        if tokens.merged > 0 && options.boundary == Boundary::Error {
            return Err(merged(&prompt, places.first().copied().unwrap_or(0), 0));
        }
        let spans = self.spans(&tokens.ids, &tokens.at, &turns)?;
        let mut unlearned = Vec::new();
        for ((&place, &turn), span) in places.iter().zip(&turns).zip(&spans) {
            let name = || format!("assistant turn in message {turn}");
            let text = self.turn_text(&prompt[place..]);
            self.check_kept(text, &messages[turn], options, name)?;
            if !options.learns_thoughts() {
                let thoughts = Thoughts::find(text, &messages[turn]).ok_or_else(|| self.unmarked(name()))?;
                let offsets = &tokens.offsets[span.clone()];
                let found = thoughts.tokens(offsets, place);
                self.check_answered(&tokens.ids[span.clone()], &found, name)?;
                unlearned.extend(found.into_iter().map(|range| range.start + span.start..range.end + span.start));
            }
        }
        // Where turns were tokenised apart, the joined text is still compared with the prompt in one piece.
        let whole = if tokens.merged == 0 { tokens.ids.clone() } else { self.encode_text(&prompt)? };
        let mut parts = Parts { spans, unlearned, learned, merged: tokens.merged, ..Parts::of_prompt(tokens.ids) };
        for (index, response) in record.responses.iter().enumerate() {
            let mut conversation = messages.to_vec();
            conversation.push(response.message.clone());
            let full = self.render_with(&conversation, false, &variables)?;
            if !full.starts_with(&prompt) {
                return Err(self.not_a_prefix(&prompt, &full, format!("answer {index}")));
            }
            if parts.learned[index] {
                if response.message.is_empty() {
                    return Err(EncodeProblem::EmptyResponse { response: index });
                }
                let text = self.turn_text(&full[prompt.len()..]);
                match self.check_kept(text, &response.message, options, || format!("answer {index}")) {
                    Err(problem) if options.lost_text == LostText::Count => parts.lost = parts.lost.or(Some(problem)),
                    checked => checked?,
                }
            }
            let (mut ids, offsets, apart) = self.split(&full, prompt.len(), &whole, index, options.boundary)?;
            parts.merged += usize::from(apart);
            let turn = || format!("answer {index}");
            let stop = self.first_stop(&ids);
            if stop.unwrap_or(ids.len()) == 0 && parts.learned[index] {
                return Err(EncodeProblem::EmptyResponse { response: index });
            }
            match (stop, self.appended_stop) {
                (None, None) => return Err(self.no_stop(turn())),
                // A reward model that is read at the end of what the template prints.
                _ if options.response_end == ResponseEnd::Template => {}
                (Some(stop), _) => ids.truncate(stop + 1),
                (None, Some(appended)) => ids.push(appended),
            }
            let mut thoughts = Vec::new();
            if !options.learns_thoughts() && parts.learned[index] {
                let text = self.turn_text(&full[prompt.len()..]);
                let found = Thoughts::find(text, &response.message).ok_or_else(|| self.unmarked(turn()))?;
                thoughts = found.tokens(&offsets, 0);
                self.check_answered(&ids, &thoughts, turn)?;
            }
            parts.responses.push(ids);
            parts.thoughts.push(thoughts);
        }
        Ok(parts)
    }

    /// The ids behind `place` of a text whose part before it has the ids `before`, and the byte range of each from there; true where they
    /// were tokenised apart.
    pub(super) fn split(
        &self,
        text: &str,
        place: usize,
        before: &[u32],
        response: usize,
        boundary: Boundary,
    ) -> Result<(Vec<u32>, Offsets, bool), EncodeProblem> {
        let (ids, offsets) = self.tokens.encode(text)?;
        if ids.starts_with(before) && cut(&offsets, place) == Some(before.len()) {
            let behind = offsets[before.len()..]
                .iter()
                .map(|&(from, to)| (from.saturating_sub(place), to.saturating_sub(place)));
            return Ok((ids[before.len()..].to_vec(), behind.collect(), false));
        }
        match boundary {
            Boundary::Error => Err(merged(text, place, response)),
            Boundary::Separate | Boundary::Rendered => {
                let (ids, offsets) = self.tokens.encode_continuing(&text[place..])?;
                Ok((ids, offsets, true))
            }
        }
    }

    pub(super) fn first_stop(&self, ids: &[u32]) -> Option<usize> {
        ids.iter().position(|id| self.stop_ids.contains(id))
    }

    pub(super) fn no_stop(&self, turn: String) -> EncodeProblem {
        EncodeProblem::NoStop { turn, expected: self.stop_names(), fitting: Some(self.fitting_templates()) }
    }

    /// A message with the text of a control token in it would give the example a second one.
    fn check_messages(&self, messages: &[Message], record: &Record) -> Result<(), EncodeProblem> {
        let prompt = messages.iter().enumerate().map(|(i, m)| (format!("message {i} ({})", m.role), m));
        let answers = record.responses.iter().enumerate().map(|(i, r)| (format!("answer {i}"), &r.message));
        for (place, message) in prompt.chain(answers) {
            if let Some(token) = self.control_token_in(&message.content) {
                return Err(EncodeProblem::ControlTokenInText { place, token: token.to_owned() });
            }
        }
        Ok(())
    }

    /// Where in the prompt's text each earlier assistant turn that is learned begins, behind its header, and which message it is.
    fn earlier_turns(
        &self,
        messages: &[Message],
        prompt: &str,
        variables: &TemplateVariables,
    ) -> Result<(Vec<usize>, Vec<usize>), EncodeProblem> {
        let turns = learned_turns(messages)?;
        let exact = |i: usize| {
            let before = self.render_with(&messages[..i], true, variables)?;
            match prompt.starts_with(&before) {
                true => Ok(before.len()),
                false => Err(self.not_a_prefix(&before, prompt, format!("assistant turn in message {i}"))),
            }
        };
        let within = |turns: &[usize], place| self.places_in_prompts(messages, turns, (prompt, place), variables);
        Ok((places::find(&turns, exact, within)?, turns))
    }

    /// From the first token of each earlier turn to its stop token. Where the template prints none, up to the token that begins the next
    /// turn, which is not learned.
    fn spans(&self, ids: &[u32], starts: &[usize], turns: &[usize]) -> Result<Vec<Range<usize>>, EncodeProblem> {
        let mut spans = Vec::with_capacity(starts.len());
        for (n, (&start, turn)) in starts.iter().zip(turns).enumerate() {
            let next = starts.get(n + 1).copied().unwrap_or(ids.len());
            let ids = &ids[start..next];
            let length = match self.first_stop(ids) {
                Some(stop) => stop + 1,
                None if self.appended_stop.is_some() => {
                    ids.iter().position(|id| self.is_special(*id)).unwrap_or(ids.len())
                }
                None => return Err(self.no_stop(format!("assistant turn in message {turn}"))),
            };
            spans.push(start..start + length);
        }
        Ok(spans)
    }

    pub(super) fn not_a_prefix(&self, prompt: &str, full: &str, turn: String) -> EncodeProblem {
        let same: usize = prompt.chars().zip(full.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8()).sum();
        let excerpt = |text: &str| text[same..].chars().take(EXCERPT).collect();
        EncodeProblem::PromptNotPrefix {
            template: self.template.as_ref().map_or_else(String::new, |t| t.name().to_owned()),
            turn,
            expected: excerpt(prompt),
            found: excerpt(full),
        }
    }
}

fn merged(text: &str, place: usize, response: usize) -> EncodeProblem {
    let before: String = text[..place].chars().rev().take(EXCERPT / 3).collect();
    let before = before.chars().rev();
    let token = before.chain(['|']).chain(text[place..].chars().take(EXCERPT / 3)).collect();
    EncodeProblem::Merged { response, token }
}
