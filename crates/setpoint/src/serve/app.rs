//! The state that all requests share.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use setpoint_data::TextEncoder;
use setpoint_transformer::GenerationConfig;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::access::Key;
use super::engine::Work;
use super::error::{Answered, ApiError};
use super::fields::Fields;
use super::gate::Gate;
use super::metrics::Metrics;
use super::scorer::ScoreWork;
use crate::setup::Reading;

/// The server.
pub(super) struct App {
    /// The model's name.
    pub(super) name: String,
    /// When the server began, in seconds since 1970.
    pub(super) created: u64,
    /// Tokenizer and chat template.
    pub(super) encoder: TextEncoder,
    /// The number of tokens that the model knows.
    pub(super) vocabulary: usize,
    /// The most tokens of a text.
    pub(super) most: usize,
    /// The work of the model.
    pub(super) served: Served,
    /// The key, if requests need one.
    pub(super) key: Option<Key>,
    /// The answers in work and waiting.
    pub(super) gate: Arc<Gate>,
    /// The threads that turn requests into tokens.
    pub(super) readers: Arc<Semaphore>,
    /// The figures.
    pub(super) metrics: Arc<Metrics>,
    /// The time that a request may take.
    pub(super) timeout: Duration,
}

/// The work of the model, and the way to it.
pub(super) enum Served {
    /// A language model answers.
    Policy {
        /// To the loop that answers.
        work: Sender<Work>,
        /// The sampling of a request that does not say otherwise.
        settings: Box<GenerationConfig>,
    },
    /// A reward model scores.
    Reward {
        /// To the loop that scores.
        work: Sender<ScoreWork>,
        /// The place at which it reads the score.
        reading: Reading,
    },
}

impl App {
    /// Takes the field `model` of a request, which may be absent.
    ///
    /// # Errors
    /// When it names another model.
    pub(super) fn check_model(&self, fields: &mut Fields) -> Answered<()> {
        match fields.text("model")? {
            Some(name) if name != self.name => Err(ApiError::unknown_model(&name, &self.name)),
            _ => Ok(()),
        }
    }

    /// Returns the way to the language model, and its settings.
    ///
    /// # Errors
    /// When a reward model is served.
    pub(super) fn policy(&self) -> Answered<(&Sender<Work>, &GenerationConfig)> {
        match &self.served {
            Served::Policy { work, settings } => Ok((work, settings)),
            Served::Reward { .. } => {
                let message = format!("`{}` is a reward model, which scores: ask /v1/score", self.name);
                Err(ApiError::unknown_endpoint(message))
            }
        }
    }

    /// Returns the way to the reward model, and where it reads the score.
    ///
    /// # Errors
    /// When a language model is served.
    pub(super) fn reward(&self) -> Answered<(&Sender<ScoreWork>, &Reading)> {
        match &self.served {
            Served::Reward { work, reading } => Ok((work, reading)),
            Served::Policy { .. } => {
                let message =
                    format!("`{}` is a language model: ask /v1/chat/completions or /v1/completions", self.name);
                Err(ApiError::unknown_endpoint(message))
            }
        }
    }

    /// Returns when a request that begins now is out of time.
    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    /// Returns the end of a request that is out of time.
    pub(super) fn out_of_time(&self) -> ApiError {
        ApiError::timeout(self.timeout.as_secs_f64())
    }

    /// Checks the tokens of a text that the model is to read; `name` is its field and `room` the tokens that must be left.
    ///
    /// # Errors
    /// When there are too many.
    pub(super) fn check_length(&self, name: &str, tokens: usize, room: usize) -> Answered<()> {
        if tokens + room > self.most { Err(ApiError::too_long(name, tokens, self.most)) } else { Ok(()) }
    }
}
