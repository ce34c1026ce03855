//! Where the earlier turns of a conversation begin, in good time.
//!
//! A place is found by rendering the conversation up to it, so finding all of them takes a time that grows with the square of the number of
//! turns. In long conversations only some are found like this. Those between two of them are found in a short conversation, which has the
//! beginning of the long one and the turns in question. Its text has to be that of the long one: it has to agree up to each place, and the next
//! place that was found in the long one has to be where the short one has it. Where a template prints something else, as one that numbers its
//! turns does, every place is found in the long one.

use super::TextEncoder;
use super::rendered::{MARK, common};
use crate::error::EncodeProblem;
use crate::record::Message;
use crate::template::TemplateVariables;

/// The fewest turns that are found in parts.
const MANY: usize = 64;

/// Finds the places of turns. `exact` finds one in the whole conversation. `within` finds those of a few turns in a short conversation, the first
/// of which has a place already; the last of them is checked.
pub(super) fn find(
    turns: &[usize],
    exact: impl Fn(usize) -> Result<usize, EncodeProblem>,
    within: impl Fn(&[usize], usize) -> Option<Vec<usize>>,
) -> Result<Vec<usize>, EncodeProblem> {
    if turns.len() < MANY {
        return turns.iter().map(|&turn| exact(turn)).collect();
    }
    let part = turns.len().isqrt();
    let mut places = vec![exact(turns[0])?];
    while places.len() < turns.len() {
        let first = places.len() - 1;
        let last = (first + part).min(turns.len() - 1);
        let found = within(&turns[first..=last], places[first])
            .filter(|found| exact(turns[last]).is_ok_and(|place| found.last() == Some(&place)));
        match found {
            Some(found) => places.extend(found),
            None => {
                for &turn in &turns[first + 1..=last] {
                    places.push(exact(turn)?);
                }
            }
        }
    }
    Ok(places)
}

impl TextEncoder {
    /// Finds the places of all but the first of some turns by what follows the beginning of a conversation, each rendered as a prompt.
    pub(super) fn places_in_prompts(
        &self,
        messages: &[Message],
        turns: &[usize],
        (prompt, place): (&str, usize),
        variables: &TemplateVariables,
    ) -> Option<Vec<usize>> {
        let rest = prompt.get(place..)?;
        let mut short = beginning(messages, turns)?.to_vec();
        let before = self.render_with(&short, true, variables).ok()?;
        let found = turns.windows(2).map(|pair| {
            short.extend_from_slice(&messages[pair[0]..pair[1]]);
            let text = self.render_with(&short, true, variables).ok()?;
            let between = text.strip_prefix(before.as_str())?;
            rest.starts_with(between).then(|| place + between.len())
        });
        found.collect()
    }

    /// Finds the places of all but the first of some turns by marks in a short conversation, which ends as the long one does. `open`: whether both
    /// are rendered as a prompt.
    pub(super) fn places_by_marks(
        &self,
        conversation: &[Message],
        turns: &[usize],
        (full, place): (&str, usize),
        open: bool,
        variables: &TemplateVariables,
    ) -> Option<Vec<usize>> {
        let rest = full.get(place..)?;
        let (first, last) = (*turns.first()?, *turns.last()?);
        // A question behind the turns, as the last of them is followed by one.
        let is_question = |at: usize| conversation[at].role == "user" && conversation[at - 1].role == "assistant";
        let end = (last + 1..conversation.len()).rev().find(|&at| is_question(at))?;
        let head = beginning(conversation, turns)?;
        let mut short = [head, &conversation[first..=last], &conversation[end..]].concat();
        let text = self.render_with(&short, open, variables).ok()?;
        let mut marked = |turn: usize| {
            let at = head.len() + turn - first;
            let message = std::mem::replace(&mut short[at], Message::assistant(MARK));
            let marked = self.render_with(&short, open, variables);
            short[at] = message;
            Some(common(&text, &marked.ok()?)?.len())
        };
        let start = marked(first)?;
        let found = turns[1..].iter().map(|&turn| {
            let between = text.get(start..marked(turn)?)?;
            rest.starts_with(between).then(|| place + between.len())
        });
        found.collect()
    }
}

/// Returns the messages before the first assistant turn of a conversation, which are before some of its turns.
fn beginning<'m>(messages: &'m [Message], turns: &[usize]) -> Option<&'m [Message]> {
    let first = messages.iter().position(|message| message.role == "assistant")?;
    (first > 0 && first <= *turns.first()?).then(|| &messages[..first])
}
