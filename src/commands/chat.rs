//! `setpoint chat`: a conversation in the terminal.

use std::io::{BufRead as _, IsTerminal as _};
use std::ops::ControlFlow;

use setpoint_data::{Message, Prompt, Record};
use setpoint_transformer::generate_stream;

use crate::progress;
use serde::{Deserialize, Serialize};
use setpoint::config::sections::{ModelSection, Wanted};
use setpoint::config::{Config, Problems};
use setpoint::fetching::fetch_weights_of;
use setpoint::generate::SamplingSection;
use setpoint::jobs::word;
use setpoint::{Failure, Outcome, Session, setup};

/// Settings of `setpoint chat`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChatConfig {
    /// The model.
    pub model: ModelSection,
    /// The settings of sampling.
    pub generate: SamplingSection,
}

impl Config for ChatConfig {
    fn validate(&self, problems: &mut Problems<'_>) {
        self.model.validate("model", Wanted::LanguageModel, problems);
        self.generate.validate("generate", problems);
        problems.require(self.generate.samples.is_none(), "generate.samples", "a conversation has one answer a turn");
    }
}

/// The help of the chat.
const HOW: &str = "Write a message and press Enter; an empty line, /quit or Ctrl-D ends the conversation.";

/// A line that is meant for the program, not for the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Leave,
    Help,
}

/// Returns what a line asks of the program. Any other line that begins with a slash, a path for example, is for the model.
fn wish(line: &str) -> Option<Wish> {
    match line.to_ascii_lowercase().as_str() {
        "/quit" | "/exit" | "/q" | "/bye" => Some(Wish::Leave),
        "/help" | "/?" => Some(Wish::Help),
        _ => None,
    }
}

/// Reads a line, answers it, until the end of the input.
pub fn run(session: &Session, config: &ChatConfig, system: Option<&str>) -> Outcome {
    let encoder = setup::encoder(&config.model)?;
    if encoder.template().is_none() {
        let dir = config.model.path.clone().unwrap_or_default();
        return Err(Failure::run("the model has no chat template, so it cannot hold a conversation").hint(format!(
            "`setpoint generate --model {} --prompt TEXT` continues a text; a template is given as in --set model.template=FILE.jinja",
            word(&dir)
        )));
    }
    let model_config = setup::model_config(&config.model, &encoder)?;
    let settings = config.generate.resolve(&config.model, &model_config, &encoder)?;
    if let Some(path) = &config.model.path {
        fetch_weights_of(&Session { quiet: false, ..session.clone() }, path, config.model.allow_pickle)?;
    }
    let model = setup::policy(session, &config.model, &model_config, 0, session.device())?;
    let mut messages: Vec<Message> = system.map(Message::system).into_iter().collect();
    let input = std::io::stdin();
    let talking = input.is_terminal();
    if talking {
        progress::note(HOW);
    }
    let mut turn = 0;
    loop {
        if talking {
            progress::say_part("> ");
        }
        let mut line = String::new();
        if input.lock().read_line(&mut line)? == 0 || line.trim().is_empty() {
            return Ok(());
        }
        match wish(line.trim()).filter(|_| talking) {
            Some(Wish::Leave) => return Ok(()),
            Some(Wish::Help) => {
                progress::note(HOW);
                continue;
            }
            None => {}
        }
        messages.push(Message::user(line.trim()));
        let ids = setup::prompt_ids(&encoder, &Record::new(Prompt::Messages(messages.clone()), Vec::new()))?;
        // Tokens may end inside a character: print what is whole so far, and what is new of it.
        let mut answer: Vec<u32> = Vec::new();
        let mut printed = String::new();
        let done = generate_stream(&model, &[ids], &settings, config.generate.seed + turn, |_, id| {
            answer.push(id);
            if let Ok(text) = encoder.decode_visible(&answer)
                && let Some(new) = text.strip_prefix(printed.as_str())
                && !new.is_empty()
                && !text.ends_with('\u{fffd}')
            {
                progress::say_part(new);
                printed = text.clone();
            }
            if progress::is_closed() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        let text = encoder.decode_visible(&done[0].ids)?;
        progress::say_text(text.strip_prefix(printed.as_str()).unwrap_or_default());
        if progress::is_closed() {
            return Ok(());
        }
        messages.push(Message::assistant(text));
        turn += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_other_chats_end_the_conversation_and_paths_do_not() {
        assert_eq!(["/quit", "/Exit", "/bye"].map(wish), [Some(Wish::Leave); 3]);
        assert_eq!(wish("/help"), Some(Wish::Help));
        assert_eq!(["/home/me/notes", "quit", "help", "/quit now"].map(wish), [None; 4]);
    }
}
