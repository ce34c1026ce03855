//! Responses from a server that generates in place of this program, over OpenAI's completions endpoint.
//!
//! The server is sent the tokens of the prompt, so that its chat template and ours cannot differ. Its answer becomes tokens again: those that
//! it names (vLLM), else those of the text behind its prompt, as the rows of a file become tokens. The client is that of the judges.

mod settings;

use std::ops::ControlFlow;
use std::path::Path;

use setpoint_data::{EncodeOptions, Message, Record, TextEncoder};
use setpoint_eval::{ChatAnswer, ChatResult, Completion, CompletionRequest, Error, JudgeClient, JudgeSettings};
use setpoint_transformer::{Finish, Generated, GenerationConfig, ModelConfig};

pub use self::settings::ServerSettings;
use crate::failure::{Failure, Outcome};
use crate::judge::spending;
use crate::session::Session;
use crate::setup;

/// A prompt that is sent.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Its tokens.
    pub prompt: &'a [u32],
    /// Its row as the template sees it.
    pub record: &'a Record,
    /// The random stream of the response: different for each response of a job.
    pub stream: u64,
}

/// A server that can be asked.
#[derive(Debug)]
pub struct Server<'a> {
    session: &'a Session,
    encoder: &'a TextEncoder,
    /// The vocabulary and the positions of the model.
    shape: &'a ModelConfig,
    /// The address, for messages.
    base_url: String,
    client: JudgeClient,
}

/// Checks that a server can be asked: that its key is there. Nothing is sent.
///
/// # Errors
/// When the key's environment variable is not set or holds no key.
pub fn check(settings: &ServerSettings) -> Outcome {
    let client = JudgeSettings { cache: None, ..settings.client() };
    JudgeClient::open(&client).map(drop).map_err(|error| failure(error, &settings.base_url))
}

impl<'a> Server<'a> {
    /// Reads the key and opens the file of answers, `cache` unless the settings name another. Nothing is sent.
    ///
    /// # Errors
    /// When the key's environment variable is not set, or the file cannot be opened.
    pub fn open(
        settings: &ServerSettings,
        session: &'a Session,
        encoder: &'a TextEncoder,
        shape: &'a ModelConfig,
        cache: Option<&Path>,
    ) -> Outcome<Self> {
        let mut client = settings.client();
        client.cache = client.cache.or_else(|| cache.map(Path::to_owned));
        let base_url = settings.base_url.clone();
        let client = JudgeClient::open(&client).map_err(|error| failure(error, &base_url))?;
        Ok(Self { session, encoder, shape, base_url, client })
    }

    /// Returns a response to each prompt, in their order, from `seed` and the prompt's stream. `arrived` is told how many there are.
    ///
    /// # Errors
    /// When the host wants to stop, when the server refuses or when one of its answers is of no use. The answers before that are kept.
    pub fn answers(
        &self,
        asked: &[Asked<'_>],
        sampling: &GenerationConfig,
        seed: u64,
        arrived: &mut dyn FnMut(usize),
    ) -> Outcome<Vec<Generated>> {
        // A token that the model does not have ends nothing, and a server may refuse it.
        let is_known = |id: &u32| (*id as usize) < self.shape.vocab_size;
        let stops: Vec<u32> = sampling.stop_token_ids.iter().copied().filter(is_known).collect();
        let request = |asked: &Asked<'_>| CompletionRequest {
            prompt: asked.prompt.to_vec(),
            temperature: if sampling.do_sample { sampling.temperature } else { 0.0 },
            top_p: sampling.top_p,
            top_k: sampling.top_k,
            repetition_penalty: sampling.repetition_penalty,
            max_tokens: self.room(asked, sampling),
            stop_token_ids: stops.clone(),
            seed: stream_seed(seed, asked.stream),
        };
        let requests: Vec<CompletionRequest> = asked.iter().map(request).collect();
        let usable = |answer: &ChatAnswer| Completion::of(answer).is_ok();
        let host = &self.session.host;
        let mut done = 0;
        let mut look = |places: &[usize], answer: &ChatResult| {
            done += places.len();
            arrived(done);
            let is_usable = answer.as_ref().is_ok_and(usable);
            if host.should_stop() || !is_usable { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let found = self.client.ask_each(&requests, &usable, &mut look);
        let found = found.map_err(|error| failure(error, &self.base_url))?;
        for (asked, answer) in asked.iter().zip(&found) {
            let reason = match answer {
                Some(Err(reason)) => reason.clone(),
                Some(Ok(answer)) => match Completion::of(answer) {
                    Ok(_) => continue,
                    Err(reason) => reason,
                },
                None => continue,
            };
            return Err(self.useless(asked, &reason));
        }
        if found.iter().any(Option::is_none) {
            return Err(Failure::Stopped { message: "stopped while the server generated".to_owned() });
        }
        let mut generated = Vec::with_capacity(asked.len());
        for (asked, answer) in asked.iter().zip(found.into_iter().flatten().flatten()) {
            let answer = Completion::of(&answer).map_err(|reason| self.useless(asked, &reason))?;
            generated.push(self.read(asked, answer, sampling)?);
        }
        Ok(generated)
    }

    /// Says what the answers cost, in a line.
    pub fn spending(&self) -> String {
        spending(&self.client)
    }

    fn room(&self, asked: &Asked<'_>, sampling: &GenerationConfig) -> usize {
        sampling.room(asked.prompt.len(), self.shape.max_position_embeddings)
    }

    fn useless(&self, asked: &Asked<'_>, reason: &str) -> Failure {
        let failure = Failure::run(format!(
            "{}: the server at {} gave no usable response by {}: {reason}",
            asked.record.source,
            self.base_url,
            self.client.model()
        ));
        match self.client.cache() {
            Some(_) => failure.hint("the answers so far are kept: a command that goes on asks for the others only"),
            None => failure,
        }
    }

    /// Turns an answer into tokens.
    fn read(&self, asked: &Asked<'_>, answer: Completion, sampling: &GenerationConfig) -> Outcome<Generated> {
        let (room, stops) = (self.room(asked, sampling), &sampling.stop_token_ids);
        let mut ids = match answer.ids {
            Some(ids) => ids,
            None => self.tokens(asked, &answer.text, answer.is_cut)?,
        };
        if let Some(id) = ids.iter().find(|&&id| id as usize >= self.shape.vocab_size) {
            let reason = format!(
                "its token {id} is outside of the vocabulary of {}: the server has another model",
                self.shape.vocab_size
            );
            return Err(self.useless(asked, &reason));
        }
        let ends = |ids: &[u32]| ids.last().is_some_and(|id| stops.contains(id));
        if !answer.is_cut && !ends(&ids) {
            // Some servers leave the stop token out.
            ids.extend(self.encoder.template_stop().or_else(|| stops.first().copied()));
        }
        // Tokens of a text may be more than the server counted.
        ids.truncate(room);
        if ids.is_empty() {
            return Err(self.useless(asked, "it is empty"));
        }
        let finish = if ends(&ids) { Finish::Stop } else { Finish::Length };
        let logps = told(answer.logps.unwrap_or_default(), &ids, finish);
        Ok(Generated { ids, logps, finish })
    }

    /// Returns the tokens of a text behind its prompt, with its stop token unless it was cut.
    fn tokens(&self, asked: &Asked<'_>, text: &str, is_cut: bool) -> Outcome<Vec<u32>> {
        let options = EncodeOptions { max_length: None, max_prompt_length: None, ..EncodeOptions::default() };
        // One of whitespace alone is no response of a template.
        let text = if Message::assistant(text).is_empty() { "" } else { text };
        let (_, mut ids) = setup::answer_tokens(self.encoder, asked.record, text, &options, &|_| ())?;
        while is_cut && ids.last().is_some_and(|id| self.encoder.stop_ids().contains(id)) {
            ids.pop();
        }
        Ok(ids)
    }
}

/// Returns the log-probabilities that a server tells of the tokens of its answer; nothing if they do not fit the tokens, or one is no number
/// here.
fn told(logps: Vec<f64>, ids: &[u32], finish: Finish) -> Vec<f32> {
    let logps: Vec<f32> = logps.into_iter().map(|logp| logp as f32).collect();
    if fits(logps.len(), ids, finish) && logps.iter().all(|logp| logp.is_finite()) { logps } else { Vec::new() }
}

/// Returns whether there is a number for each token; that of the stop token may be missing.
fn fits(numbers: usize, ids: &[u32], finish: Finish) -> bool {
    numbers == ids.len() || (finish == Finish::Stop && numbers + 1 == ids.len())
}

/// Returns the seed of a response: 31 bits, so that every server takes it.
fn stream_seed(seed: u64, stream: u64) -> u32 {
    let hash = setup::text_hash(&format!("setpoint server {seed} {stream}"));
    u32::from_str_radix(&hash[..8], 16).unwrap_or_default() & 0x7fff_ffff
}

/// Turns an error of the client, which speaks of judges, into one about the server at `base_url`.
fn failure(error: Error, base_url: &str) -> Failure {
    match error {
        Error::Judge { url, reason } => Failure::run(format!("the server at {url} cannot be asked: {reason}")),
        Error::NoKey { variable } => {
            let key = format!("it should hold the key of the server at {base_url}");
            Failure::run(format!("the environment variable {variable} is not set: {key}"))
                .hint("for a server without a key, leave `api_key_env` of the server empty")
        }
        other => other.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_probabilities_belong_to_tokens_or_are_left_out() {
        assert!(fits(3, &[4, 5, 2], Finish::Stop) && fits(2, &[4, 5, 2], Finish::Stop));
        assert!(fits(2, &[4, 5], Finish::Length) && !fits(1, &[4, 5], Finish::Length));
        assert!(!fits(4, &[4, 5, 2], Finish::Stop) && !fits(0, &[4, 5], Finish::Length));
        assert_eq!(told(vec![-0.5, -1.0], &[4, 5, 2], Finish::Stop), [-0.5, -1.0]);
        // A probability of 0 was not sampled, and is -inf in f32.
        for wrong in [f64::NEG_INFINITY, -1e300, f64::NAN] {
            assert!(told(vec![-0.5, wrong], &[4, 5], Finish::Length).is_empty(), "{wrong}");
        }
    }

    #[test]
    fn streams_have_seeds_of_31_bits_of_their_own() {
        let mut seeds: Vec<u32> = (0..100).map(|stream| stream_seed(7, stream)).collect();
        assert!(seeds.iter().all(|&seed| seed < 1 << 31));
        assert_ne!(stream_seed(7, 0), stream_seed(8, 0));
        seeds.sort_unstable();
        seeds.dedup();
        assert_eq!(seeds.len(), 100);
    }
}
