//! Many requests at once, each tried until it succeeds or cannot.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{OnceLock, mpsc};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use setpoint_data::hex;
use sha2::{Digest, Sha256};

use super::cache::Cache;
use super::chat::{ChatAnswer, ChatRequest};
use super::completion::EndpointRequest;
use super::gate::Gate;
use super::http::{Attempt, Endpoint};
use super::settings::{JudgeSettings, OnFailure};
use crate::error::Error;

/// Longest wait before a further attempt that the endpoint did not ask for.
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);

/// The cost of an evaluation so far.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct JudgeSpending {
    /// Requests answered by the endpoint.
    pub answered: u64,
    /// Requests answered from the cache.
    pub cached: u64,
    /// Attempts that failed in passing.
    pub retried: u64,
    /// Requests without an answer in the end.
    pub failed: u64,
    /// Prompt tokens of the endpoint's answers.
    pub prompt_tokens: u64,
    /// Completion tokens of the endpoint's answers.
    pub completion_tokens: u64,
    /// Their price, where the settings give prices.
    pub cost: Option<f64>,
}

#[derive(Debug, Default)]
struct Counters {
    answered: AtomicU64,
    cached: AtomicU64,
    retried: AtomicU64,
    failed: AtomicU64,
    prompt_tokens: AtomicU64,
    completion_tokens: AtomicU64,
}

/// A judge that can be asked.
#[derive(Debug)]
pub struct JudgeClient {
    settings: JudgeSettings,
    model: String,
    endpoint: Endpoint,
    cache: Option<Cache>,
    gate: Gate,
    counters: Counters,
    first_failure: OnceLock<String>,
}

/// An answer, or why there is none.
pub type ChatResult = Result<ChatAnswer, String>;

/// The end of one request, told by a worker.
enum End {
    Answer(Box<ChatAnswer>),
    Failed(String),
    Fatal(Error),
}

impl JudgeClient {
    /// Reads the key, opens the cache. Nothing is sent.
    ///
    /// # Errors
    /// Settings out of range, an unset environment variable, or a cache that cannot be opened.
    pub fn open(settings: &JudgeSettings) -> Result<Self, Error> {
        if let Some((setting, message)) = settings.problems().into_iter().next() {
            return Err(Error::JudgeSetting { setting, message });
        }
        Ok(Self {
            model: settings.model.clone().unwrap_or_default(),
            endpoint: Endpoint::new(settings)?,
            cache: settings.cache.as_deref().map(Cache::open).transpose()?,
            gate: Gate::new(settings.requests_per_minute),
            counters: Counters::default(),
            first_failure: OnceLock::new(),
            settings: settings.clone(),
        })
    }

    /// The judge's model name.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// Returns the reason of the first request that failed for good.
    pub fn first_failure(&self) -> Option<&str> {
        self.first_failure.get().map(String::as_str)
    }

    /// Returns the treatment of an answer that is of no use; `unset` where the settings leave it open.
    pub fn on_failure(&self, unset: OnFailure) -> OnFailure {
        self.settings.on_failure.unwrap_or(unset)
    }

    /// The file in which answers are kept.
    pub fn cache(&self) -> Option<&Path> {
        self.settings.cache.as_deref()
    }

    /// Returns the cost since the client was opened.
    pub fn spending(&self) -> JudgeSpending {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (prompt_tokens, completion_tokens) =
            (of(&self.counters.prompt_tokens), of(&self.counters.completion_tokens));
        let priced = self.settings.prompt_price.is_some() || self.settings.completion_price.is_some();
        let price = |tokens: u64, price: Option<f64>| tokens as f64 * price.unwrap_or(0.0) / 1e6;
        JudgeSpending {
            answered: of(&self.counters.answered),
            cached: of(&self.counters.cached),
            retried: of(&self.counters.retried),
            failed: of(&self.counters.failed),
            prompt_tokens,
            completion_tokens,
            cost: priced.then(|| {
                price(prompt_tokens, self.settings.prompt_price)
                    + price(completion_tokens, self.settings.completion_price)
            }),
        }
    }

    /// Asks everything, several at once; the answers come in the order of the requests. Requests that are equal are sent once.
    ///
    /// A request that fails for good is the text of its reason in its place. `progress` is told how many are done.
    ///
    /// # Errors
    /// Everything that would fail every request: a key that is refused, an unknown model or address, a cache that cannot be written.
    pub fn ask_all(&self, requests: &[ChatRequest], progress: &mut dyn FnMut(usize)) -> Result<Vec<ChatResult>, Error> {
        let mut done = 0;
        let mut arrived = |places: &[usize], _: &ChatResult| {
            done += places.len();
            progress(done);
            ControlFlow::Continue(())
        };
        // Nothing ended it early, so every place was answered.
        Ok(self.ask_each(requests, &|_| true, &mut arrived)?.into_iter().flatten().collect())
    }

    /// Asks for a benchmark: an answer that is not `usable` is not cached, and ends the asking if `on_failure` is `error`.
    pub(crate) fn ask_usable(
        &self,
        requests: &[ChatRequest],
        usable: &(dyn Fn(&ChatAnswer) -> bool + Sync),
        progress: &mut dyn FnMut(usize),
        place: impl Fn(usize) -> String,
    ) -> Result<Vec<ChatResult>, Error> {
        let ends = self.on_failure(OnFailure::Skip) == OnFailure::Error;
        let useless = |answer: &ChatResult| !answer.as_ref().is_ok_and(usable);
        let mut done = 0;
        let mut arrived = |places: &[usize], answer: &ChatResult| {
            done += places.len();
            progress(done);
            if ends && useless(answer) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let answers = self.ask_each(requests, usable, &mut arrived)?;
        let failed =
            answers.iter().enumerate().find_map(|(at, answer)| Some((at, answer.as_ref().filter(|a| useless(a))?)));
        match failed {
            Some((at, answer)) if ends => Err(Error::Judgment {
                item: place(at),
                model: self.model.clone(),
                reason: answer.as_ref().map_or_else(Clone::clone, ChatAnswer::complaint),
            }),
            _ => Ok(answers.into_iter().flatten().collect()),
        }
    }

    /// Asks like [`ask_all`](Self::ask_all), and looks at the answers as they come.
    ///
    /// Answers that are not `usable` are not kept in the cache; one that an older cache holds is asked for again. `arrived` is given
    /// the places of a request and its answer, and ends the asking with [`ControlFlow::Break`]: requests under way are still
    /// answered, those that were not sent are `None`.
    ///
    /// # Errors
    /// As [`ask_all`](Self::ask_all).
    pub fn ask_each<R: EndpointRequest>(
        &self,
        requests: &[R],
        usable: &(dyn Fn(&ChatAnswer) -> bool + Sync),
        arrived: &mut dyn FnMut(&[usize], &ChatResult) -> ControlFlow<()>,
    ) -> Result<Vec<Option<ChatResult>>, Error> {
        let mut places: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (i, request) in requests.iter().enumerate() {
            places.entry(self.key(request)).or_default().push(i);
        }
        // First come, first served: the order of the keys would be that of their hashes.
        let mut work: Vec<(&String, &Vec<usize>)> = places.iter().collect();
        work.sort_by_key(|(_, at)| at[0]);
        // `stop` also ends attempts under way, `enough` only keeps further requests from being sent.
        let (next, stop, enough) = (AtomicUsize::new(0), AtomicBool::new(false), AtomicBool::new(false));
        let (sender, receiver) = mpsc::channel();
        let mut results: Vec<Option<ChatResult>> = vec![None; requests.len()];
        let mut fatal = None;
        std::thread::scope(|scope| {
            for _ in 0..self.settings.concurrency.min(work.len()) {
                let (sender, work, next, stop, enough) = (sender.clone(), &work, &next, &stop, &enough);
                let (seen, wait) = mpsc::channel();
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) && !enough.load(Ordering::Relaxed) {
                        let Some((key, at)) = work.get(next.fetch_add(1, Ordering::Relaxed)) else { break };
                        let end = self.ask(key, &requests[at[0]], usable, stop);
                        // Here and not where the result is received: no worker may ask again meanwhile.
                        if matches!(end, End::Fatal(_)) {
                            stop.store(true, Ordering::Relaxed);
                        }
                        // The receiver outlives the workers. It may have had enough: no further request before it says.
                        let _ = sender.send((*at, end, seen.clone()));
                        let _ = wait.recv();
                    }
                });
            }
            drop(sender);
            for (at, end, seen) in receiver {
                let result = match end {
                    End::Answer(answer) => Some(Ok(*answer)),
                    End::Failed(reason) => Some(Err(reason)),
                    End::Fatal(error) => {
                        fatal.get_or_insert(error);
                        None
                    }
                };
                if let Some(result) = result {
                    if arrived(at, &result).is_break() {
                        enough.store(true, Ordering::Relaxed);
                    }
                    at.iter().for_each(|&i| results[i] = Some(result.clone()));
                }
                // The worker outlives its answer.
                let _ = seen.send(());
            }
        });
        fatal.map_or(Ok(results), Err)
    }

    /// The cache's key: everything that decides the answer.
    fn key<R: EndpointRequest>(&self, request: &R) -> String {
        let mut hash = Sha256::new();
        for part in [self.endpoint.url::<R>(), self.body(request), request.sample().to_string()] {
            hash.update(part.as_bytes());
            hash.update([0]);
        }
        hex(&hash.finalize())
    }

    fn body<R: EndpointRequest>(&self, request: &R) -> String {
        request.body(&self.model, &self.settings.max_tokens_key).to_string()
    }

    fn ask<R: EndpointRequest>(
        &self,
        key: &str,
        request: &R,
        usable: &(dyn Fn(&ChatAnswer) -> bool + Sync),
        stop: &AtomicBool,
    ) -> End {
        let count = |counter: &AtomicU64, by: u64| counter.fetch_add(by, Ordering::Relaxed);
        if let Some(answer) = self.cached(key).filter(|answer| usable(answer)) {
            count(&self.counters.cached, 1);
            return End::Answer(Box::new(answer));
        }
        let body = self.body(request);
        let url = self.endpoint.url::<R>();
        let fatal = |reason: String| End::Fatal(Error::Judge { url: url.clone(), reason });
        let mut reason = String::new();
        for attempt in 0..=self.settings.retries {
            self.gate.wait();
            if stop.load(Ordering::Relaxed) {
                return End::Failed("another request ended the evaluation".to_owned());
            }
            let pause = match self.endpoint.post(&url, &body) {
                Attempt::Answer(response) => match ChatAnswer::parse(&response, false) {
                    Ok(answer) => {
                        count(&self.counters.answered, 1);
                        count(&self.counters.prompt_tokens, answer.prompt_tokens);
                        count(&self.counters.completion_tokens, answer.completion_tokens);
                        let cache = self.cache.as_ref().filter(|_| usable(&answer));
                        return match cache.map_or(Ok(()), |cache| cache.put(key, &response)) {
                            Ok(()) => End::Answer(Box::new(answer)),
                            Err(error) => End::Fatal(error),
                        };
                    }
                    Err(wrong) => {
                        reason = wrong;
                        None
                    }
                },
                Attempt::Again { reason: passing, pause } => {
                    reason = passing;
                    pause
                }
                Attempt::Refused(why) => return self.failed(why),
                Attempt::Hopeless(why) => return fatal(why),
            };
            if attempt == self.settings.retries {
                break;
            }
            count(&self.counters.retried, 1);
            match pause {
                // The limit holds for all workers.
                Some(pause) => self.gate.pause(pause),
                None => std::thread::sleep(self.backoff(key, attempt)),
            }
        }
        self.failed(match self.settings.retries {
            0 => reason,
            retries => format!("{reason} ({} attempts)", retries + 1),
        })
    }

    /// Reads an answer from the cache. An older version may have written it with the key in it.
    fn cached(&self, key: &str) -> Option<ChatAnswer> {
        let mut response = self.cache.as_ref()?.get(key)?;
        self.endpoint.redact(&mut response);
        ChatAnswer::parse(&response, true).ok()
    }

    fn failed(&self, reason: String) -> End {
        self.counters.failed.fetch_add(1, Ordering::Relaxed);
        self.first_failure.get_or_init(|| reason.clone());
        End::Failed(reason)
    }

    /// `backoff·2^attempt`, at most a minute, of which a share between one half and all that differs from request to request: workers
    /// that failed together do not come back together.
    fn backoff(&self, key: &str, attempt: u32) -> Duration {
        let base = Duration::from_secs_f64(self.settings.backoff_seconds);
        let full = base.saturating_mul(2_u32.saturating_pow(attempt)).min(LONGEST_BACKOFF);
        let digit = key.as_bytes()[attempt as usize % key.len()];
        full.mul_f64(0.5 + f64::from(char::from(digit).to_digit(16).unwrap_or(0)) / 30.0)
    }
}
