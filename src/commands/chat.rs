//! `setpoint chat`: a conversation in the terminal.

use std::io::{BufRead as _, IsTerminal as _};
use std::ops::ControlFlow;

use setpoint_data::{Message, Prompt, Record};
use setpoint_transformer::generate_stream;

use crate::progress;
use serde::{Deserialize, Serialize};
use setpoint::Outcome;
use setpoint::config::sections::{ModelSection, Wanted};
use setpoint::config::{Config, Problems};
use setpoint::generate::SamplingSection;
use setpoint::{Session, setup};

/// Settings of `setpoint chat`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChatConfig {
    /// The model.
    pub model: ModelSection,
    /// How to sample.
    pub generate: SamplingSection,
}

impl Config for ChatConfig {
    fn validate(&self, problems: &mut Problems<'_>) {
        self.model.validate("model", Wanted::LanguageModel, problems);
        self.generate.validate("generate", problems);
        problems.require(self.generate.samples.is_none(), "generate.samples", "a conversation has one answer a turn");
    }
}

/// Reads a line, answers it, until the end of the input.
pub fn run(session: &Session, config: &ChatConfig, system: Option<&str>) -> Outcome {
    let encoder = setup::encoder(&config.model)?;
    let model_config = setup::model_config(&config.model, &encoder)?;
    let settings = config.generate.resolve(&config.model, &model_config, &encoder)?;
    let model = setup::policy(session, &config.model, &model_config, 0, session.device())?;
    let mut messages: Vec<Message> = system.map(Message::system).into_iter().collect();
    let input = std::io::stdin();
    let talking = input.is_terminal();
    if talking {
        progress::note("Write a message and press Enter; an empty line or Ctrl-D ends the conversation.");
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
