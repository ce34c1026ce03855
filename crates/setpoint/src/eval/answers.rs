//! A model that answers a benchmark's questions.

use std::ops::ControlFlow;

use serde_json::{Value, json};
use setpoint_data::{Message, Prompt, Record, TextEncoder};
use setpoint_eval::cut_at_stop;
use setpoint_transformer::{CausalLm, GenerationConfig, ModelConfig, generate_stream};

use crate::config::sections::ModelSection;
use crate::failure::Outcome;
use crate::generate::GenerationMeter;
use crate::generate::SamplingSection;
use crate::session::Session;
use crate::setup;

/// Tokens that are decoded to look for a stop.
const TAIL: usize = 12;

/// Tokenizer and shape, checked before the weights are read.
pub struct Answerer<'a> {
    session: &'a Session,
    section: &'a ModelSection,
    /// The tokenizer and template.
    pub encoder: TextEncoder,
    /// The shape.
    pub config: ModelConfig,
}

impl<'a> Answerer<'a> {
    /// Reads everything but the weights.
    pub fn open(session: &'a Session, section: &'a ModelSection) -> Outcome<Self> {
        let encoder = setup::encoder(section)?;
        let config = setup::model_config(section, &encoder)?;
        Ok(Self { session, section, encoder, config })
    }

    /// Reads the weights.
    pub fn load(&self) -> Outcome<CausalLm> {
        setup::policy(self.session, self.section, &self.config, 0, self.session.device())
    }

    /// The sampling settings, with what the model's folder says filled in.
    pub fn settings(&self, section: &SamplingSection) -> Outcome<GenerationConfig> {
        section.resolve(self.section, &self.config, &self.encoder)
    }

    /// The tokens of a prompt.
    pub fn ids(&self, prompt: Prompt) -> Outcome<Vec<u32>> {
        setup::prompt_ids(&self.encoder, &Record::new(prompt, Vec::new()))
    }

    /// Checks that the model has room for an answer to every prompt; `name` tells where one comes from.
    pub fn check_room(
        &self,
        prompts: &[Vec<u32>],
        name: &dyn Fn(usize) -> String,
        settings: &GenerationConfig,
        wanted: Option<usize>,
    ) -> Outcome {
        setup::check_room_of(prompts, name, settings, wanted, &self.config)
    }

    /// Progress of `rows` answers in all, in one or more calls of [`answer`](Self::answer).
    pub fn meter(&self, rows: usize, settings: &GenerationConfig) -> GenerationMeter {
        GenerationMeter::new(self.session, "answers", rows, settings.max_new_tokens)
    }

    /// One answer to every prompt, cut at the first of `stops`. A row's answer depends on the seed and the row alone.
    pub fn answer(
        &self,
        model: &CausalLm,
        prompts: &[Vec<u32>],
        settings: &GenerationConfig,
        seed: u64,
        stops: &[&str],
        meter: &mut GenerationMeter,
    ) -> Outcome<Vec<String>> {
        meter.begin(prompts, settings, model.decoder().max_positions());
        let mut tails: Vec<Vec<u32>> = vec![Vec::new(); prompts.len()];
        let rows = generate_stream(model, prompts, settings, seed, |row, id| {
            let tail = &mut tails[row];
            tail.push(id);
            if tail.len() > TAIL {
                tail.remove(0);
            }
            // A tail that cannot be decoded yet will be with its next token.
            let stopped = !stops.is_empty()
                && self.encoder.decode(tail).is_ok_and(|text| stops.iter().any(|stop| text.contains(stop)));
            meter.token(row, id, stopped);
            if stopped { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        prompts
            .iter()
            .zip(rows?)
            .map(|(prompt, row)| {
                let text = setup::answer_text(&self.encoder, prompt, &row.ids)?;
                Ok(cut_at_stop(&text, stops).to_owned())
            })
            .collect()
    }
}

/// A conversation as a prompt: `(role, text)`.
pub fn conversation<'t>(turns: impl IntoIterator<Item = (&'t str, &'t str)>) -> Prompt {
    Prompt::Messages(turns.into_iter().map(|(role, text)| Message::new(role, text)).collect())
}

/// Describes the sampling for a manifest.
pub fn decoding(settings: &GenerationConfig, seed: u64) -> Value {
    let temperature = if settings.do_sample { settings.temperature } else { 0.0 };
    json!({
        "temperature": temperature,
        "top_k": settings.top_k,
        "top_p": settings.top_p,
        "repetition_penalty": settings.repetition_penalty,
        "max_new_tokens": settings.max_new_tokens,
        "seed": seed,
    })
}
