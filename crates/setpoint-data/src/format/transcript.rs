//! Conversations that are published as one text, with markers between the turns.

use crate::record::{Message, Prompt};

/// Returns the turns of a transcript such as hh-rlhf's and Nectar's, `\n\nHuman: …\n\nAssistant: … \n\nAssistant:`, without the empty turn
/// at its end; `None` for any other text.
pub(super) fn turns(text: &str) -> Option<Vec<Message>> {
    const MARKERS: &[(&str, &str)] = &[("\n\nHuman:", "user"), ("\n\nAssistant:", "assistant")];
    let next = |rest: &str| MARKERS.iter().filter_map(|(marker, _)| rest.find(*marker)).min().unwrap_or(rest.len());
    let mut turns = Vec::new();
    let mut rest = text.trim_end().strip_suffix(MARKERS[1].0)?;
    while !rest.is_empty() {
        // Two turns of one role, or an answer to nothing, are a text about conversations.
        let (marker, role) = MARKERS[turns.len() % 2];
        if !rest.starts_with(marker) {
            return None;
        }
        let after = &rest[marker.len()..];
        let (turn, following) = after.split_at(next(after));
        turns.push(Message::new(role, turn.trim()));
        rest = following;
    }
    (turns.len() % 2 == 1).then_some(turns)
}

/// Returns the turns of a prompt of HelpSteer, with the markers of NeMo between them; a prompt of one turn stays text.
pub(super) fn helpsteer_prompt(text: String) -> Prompt {
    const ASSISTANT: &str = "\n<extra_id_1>Assistant\n";
    const USER: &str = "\n<extra_id_1>User\n";
    let mut turns = Vec::new();
    let mut rest = text.as_str();
    while let Some((question, after)) = rest.split_once(ASSISTANT) {
        let Some((answer, following)) = after.split_once(USER) else { return Prompt::Text(text) };
        turns.push(Message::user(question));
        turns.push(Message::assistant(answer));
        rest = following;
    }
    if turns.is_empty() {
        return Prompt::Text(text);
    }
    turns.push(Message::user(rest));
    Prompt::Messages(turns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transcripts_become_turns() {
        let text = "\n\nHuman: Hi\n\nthere\n\nAssistant: Hello.\n\nHuman: Sky?\n\nAssistant:";
        let expected = vec![Message::user("Hi\n\nthere"), Message::assistant("Hello."), Message::user("Sky?")];
        assert_eq!(turns(text), Some(expected.clone()));
        // Nectar has a space at the end.
        assert_eq!(turns(&format!("{text} ")), Some(expected));
        for other in [
            "",
            "Sky?",
            "\n\nAssistant:",
            "\n\nHuman: Sky?",
            "Say\n\nHuman: Sky?\n\nAssistant:",
            "\n\nHuman: a\n\nHuman: b\n\nAssistant:",
            "\n\nHuman: a\n\nAssistant: b\n\nAssistant:",
        ] {
            assert_eq!(turns(other), None, "{other:?}");
        }
    }

    #[test]
    fn a_turn_of_helpsteer_that_is_cut_off_stays_text() {
        let text = "a\n<extra_id_1>Assistant\nb".to_owned();
        assert_eq!(helpsteer_prompt(text.clone()), Prompt::Text(text));
    }
}
