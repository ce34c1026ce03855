//! The source of answers: the model in this process, or a server.

use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};

use setpoint_data::{Record, TextEncoder};
use setpoint_transformer::{CausalLm, Generated, GenerationConfig, ModelConfig, check_prompts, generate_part};

use super::meter::GenerationMeter;
use super::{GenerateConfig, SamplingSection};
use crate::failure::Outcome;
use crate::server::{Asked, Server};
use crate::session::{Bar, Session};
use crate::setup;

/// The source of answers, with what shows how far it is.
pub enum Generator<'a> {
    /// The model, in memory.
    Model(Box<CausalLm>, GenerationMeter),
    /// A server, and the prompts' rows as the template sees them.
    Server(Box<Server<'a>>, Vec<Record>, Box<dyn Bar>),
}

impl<'a> Generator<'a> {
    /// Loads the model, or opens the client of the server that the settings name. The first `done` of the prompts are answered.
    ///
    /// # Errors
    /// When the model cannot be loaded or leaves no room for an answer, or when the server's key is missing.
    pub fn open(
        session: &'a Session,
        config: &GenerateConfig,
        (encoder, shape): (&'a TextEncoder, &'a ModelConfig),
        (records, ids): (&[Record], &[Vec<u32>]),
        settings: &GenerationConfig,
        done: usize,
    ) -> Outcome<Self> {
        let samples = config.generate.samples.unwrap_or(1);
        if let Some(server) = &config.server {
            let cache = config.output.as_deref().filter(|path| path.is_file() || !path.exists());
            let cache = cache.map(cache_path);
            let server = Server::open(server, session, encoder, shape, cache.as_deref())?;
            let bar = session.bar("samples", (done * samples) as u64, (ids.len() * samples) as u64);
            return Ok(Self::Server(Box::new(server), setup::seen(records, &config.data, encoder), bar));
        }
        let model = setup::policy(session, &config.model, shape, 0, session.device())?;
        check_prompts(&model, ids, settings)?;
        let rows = (ids.len() - done) * samples;
        Ok(Self::Model(Box::new(model), GenerationMeter::new(session, "samples", rows, settings.max_new_tokens)))
    }

    /// Returns the answers to a range of the prompts: as many to each as the settings say, one prompt after the other.
    ///
    /// # Errors
    /// When the model or the server fails.
    pub fn answers(
        &mut self,
        ids: &[Vec<u32>],
        range: Range<usize>,
        settings: &GenerationConfig,
        sampling: &SamplingSection,
    ) -> Outcome<Vec<Generated>> {
        let samples = sampling.samples.unwrap_or(1);
        let first = range.start * samples;
        match self {
            Self::Model(model, meter) => {
                let rows: Vec<Vec<u32>> =
                    ids[range].iter().flat_map(|prompt| std::iter::repeat_n(prompt.clone(), samples)).collect();
                meter.begin(&rows, settings, model.decoder().max_positions());
                Ok(generate_part(model, &rows, first, settings, sampling.seed, |row, id| {
                    meter.token(row - first, id, false);
                    ControlFlow::Continue(())
                })?)
            }
            Self::Server(server, seen, bar) => {
                let asked = |row: usize| Asked {
                    prompt: &ids[row / samples],
                    record: &seen[row / samples],
                    stream: row as u64,
                };
                let asked: Vec<Asked<'_>> = (first..range.end * samples).map(asked).collect();
                server.answers(&asked, settings, sampling.seed, &mut |done| bar.reach((first + done) as u64))
            }
        }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        match self {
            Self::Model(_, meter) => meter.finish(),
            Self::Server(_, _, bar) => bar.clear(),
        }
    }

    /// Says what a server's answers cost, if there is a server.
    pub fn report(&self) {
        if let Self::Server(server, ..) = self {
            log::info!("server: {}", server.spending());
        }
    }
}

/// Returns the file that a server's answers are kept in, next to the output.
pub fn cache_path(output: &Path) -> PathBuf {
    output.with_extension("server_cache.jsonl")
}
