//! The text of an answer as its tokens come, and where a stop sequence ends it.

use setpoint_data::{Error, TextEncoder};

/// Tokens without a whole character after which their text is taken as it is. No character has more than four bytes, and no token less
/// than one.
const LATE: usize = 8;

/// Turns tokens into text, one after the other.
///
/// Tokens are decoded behind those before them, as tokenizers treat the beginning of a text differently, and a character whose bytes are
/// spread over several tokens comes with the last of them.
#[derive(Debug)]
pub(super) struct AnswerText {
    /// Prompt and answer.
    ids: Vec<u32>,
    /// From here on tokens are decoded.
    from: usize,
    /// The text of the tokens up to here has been handed out.
    read: usize,
}

impl AnswerText {
    /// Creates the text of an answer to a prompt.
    pub(super) fn after(prompt: &[u32]) -> Self {
        Self { ids: prompt.to_vec(), from: 0, read: prompt.len() }
    }

    /// Adds a token; returns the text that has become whole.
    ///
    /// # Errors
    /// When the tokenizer's decoder fails.
    pub(super) fn push(&mut self, encoder: &TextEncoder, id: u32) -> Result<String, Error> {
        self.ids.push(id);
        let whole = encoder.decode_visible(&self.ids[self.from..])?;
        let is_late = self.ids.len() - self.read > LATE;
        if whole.ends_with(char::REPLACEMENT_CHARACTER) && !is_late {
            return Ok(String::new());
        }
        self.take(encoder, &whole, is_late)
    }

    /// Returns the text that has not become whole.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub(super) fn finish(&mut self, encoder: &TextEncoder) -> Result<String, Error> {
        if self.read == self.ids.len() {
            return Ok(String::new());
        }
        let whole = encoder.decode_visible(&self.ids[self.from..])?;
        self.take(encoder, &whole, true)
    }

    /// Returns the part of the decoded text that is new.
    fn take(&mut self, encoder: &TextEncoder, whole: &str, at_any_rate: bool) -> Result<String, Error> {
        let before = encoder.decode_visible(&self.ids[self.from..self.read])?;
        let new = match whole.strip_prefix(&before) {
            Some(new) => new.to_owned(),
            // The last character of the prompt is completed by the answer.
            None => encoder.decode_visible(&self.ids[self.read..])?,
        };
        if !new.is_empty() || at_any_rate {
            self.from = self.read;
            self.read = self.ids.len();
        }
        Ok(new)
    }
}

/// Ends a text at the first of some sequences. Text that may be the beginning of one is held back.
#[derive(Debug)]
pub(super) struct StopScan {
    stops: Vec<String>,
    held: String,
}

impl StopScan {
    /// Creates a scan for these sequences, none of which is empty.
    pub(super) fn new(stops: Vec<String>) -> Self {
        Self { stops, held: String::new() }
    }

    /// Adds a text. Returns the text that can be shown, and whether a sequence has ended it.
    pub(super) fn push(&mut self, new: &str) -> (String, bool) {
        self.held.push_str(new);
        if let Some(at) = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min() {
            self.held.truncate(at);
            return (std::mem::take(&mut self.held), true);
        }
        let begins_one = |at: &usize| self.stops.iter().any(|stop| stop.starts_with(&self.held[*at..]));
        let start = self.held.char_indices().map(|(at, _)| at).find(begins_one).unwrap_or(self.held.len());
        let kept = self.held.split_off(start);
        (std::mem::replace(&mut self.held, kept), false)
    }

    /// Returns the text that was held back, at the end of an answer.
    pub(super) fn rest(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use setpoint_data::EncoderOptions;

    use super::*;
    use crate::setup::answer_text;

    fn encoder(folder: &str) -> TextEncoder {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(folder);
        TextEncoder::from_dir(&dir, &EncoderOptions::default()).unwrap()
    }

    #[test]
    fn the_parts_add_up_to_the_text_of_the_whole_answer() {
        let encoder = encoder("examples/demo/tokenizer");
        let prompt = encoder.encode_text("How much is two and two?").unwrap();
        for text in ["The sum is four.", " Naïve café: 4 €, 🙂🙃 日本語", "\n\n  x\t", "🙂"] {
            let mut answer = encoder.encode_text(text).unwrap();
            answer.extend(encoder.stop_ids().first());
            let mut stream = AnswerText::after(&prompt);
            let mut found = String::new();
            for &id in &answer {
                let part = stream.push(&encoder, id).unwrap();
                assert!(!part.contains(char::REPLACEMENT_CHARACTER), "{part:?} of {text:?}");
                found += &part;
            }
            found += &stream.finish(&encoder).unwrap();
            assert_eq!(found, answer_text(&encoder, &prompt, &answer).unwrap());
            assert_eq!(found, text);
        }
    }

    #[test]
    fn bytes_that_never_become_a_character_are_not_held_back_for_ever() {
        let encoder = encoder("examples/demo/tokenizer");
        let smile = encoder.encode_text("🙂").unwrap();
        assert_eq!(smile.len(), 4, "a token a byte");
        let mut stream = AnswerText::after(&smile);
        let shown: String = (0..3 * LATE).map(|_| stream.push(&encoder, smile[0]).unwrap()).collect();
        assert!(shown.contains(char::REPLACEMENT_CHARACTER), "{shown:?}");
    }

    /// Pushes the parts; returns the shown text and whether it was stopped.
    fn scan(stops: &[&str], parts: &[&str]) -> (String, bool) {
        let mut scan = StopScan::new(stops.iter().map(|stop| (*stop).to_owned()).collect());
        let mut all = String::new();
        for part in parts {
            let (shown, stopped) = scan.push(part);
            all += &shown;
            if stopped {
                return (all, true);
            }
        }
        (all + &scan.rest(), false)
    }

    #[test]
    fn a_stop_sequence_ends_the_text_however_it_is_cut() {
        for parts in [&["ab\n\ncd"][..], &["ab\n", "\ncd"], &["a", "b", "\n", "\n", "c", "d"]] {
            assert_eq!(scan(&["\n\n"], parts), ("ab".to_owned(), true), "{parts:?}");
            assert_eq!(scan(&["\n\n", "b"], parts), ("a".to_owned(), true), "{parts:?}");
            assert_eq!(scan(&["\n\nx", "dd"], parts), ("ab\n\ncd".to_owned(), false), "{parts:?}");
            assert_eq!(scan(&[], parts), ("ab\n\ncd".to_owned(), false), "{parts:?}");
        }
        assert_eq!(scan(&["aab"], &["a", "a", "a", "b", "c"]), ("a".to_owned(), true));
        assert_eq!(scan(&["🙂"], &["né🙂x"]), ("né".to_owned(), true));
    }

    #[test]
    fn only_what_may_begin_a_stop_sequence_is_held_back() {
        let mut scan = StopScan::new(vec!["END".to_owned()]);
        assert_eq!(scan.push("to the E"), ("to the ".to_owned(), false));
        assert_eq!(scan.push("ast"), ("East".to_owned(), false));
        assert_eq!(scan.push("EN"), (String::new(), false));
        assert_eq!(scan.rest(), "EN");
    }
}
