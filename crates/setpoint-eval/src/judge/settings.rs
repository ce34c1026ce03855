//! Settings of a judge.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[judge]`: which endpoint, how fast, how patient.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct JudgeSettings {
    /// The judge's model name, as the endpoint knows it.
    pub model: Option<String>,
    /// The endpoint, without `/chat/completions`.
    pub base_url: String,
    /// The environment variable that holds the key; empty for an endpoint without one.
    pub api_key_env: String,
    /// The endpoint's name for the greatest number of new tokens: `max_tokens`, or `max_completion_tokens` for OpenAI's newer models.
    pub max_tokens_key: String,
    /// The largest number of requests under way at once.
    #[schemars(range(min = 1), extend("x-unit" = "requests"))]
    pub concurrency: usize,
    /// The largest number of requests a minute.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub requests_per_minute: Option<f64>,
    /// The time after which a request is given up.
    #[schemars(range(max = 86_400), extend("exclusiveMinimum" = 0, "x-unit" = "seconds"))]
    pub timeout_seconds: f64,
    /// The number of further attempts after one that failed in passing.
    pub retries: u32,
    /// The time before the first further attempt, doubled each time up to a minute; a `Retry-After` header goes before.
    #[schemars(range(min = 0, max = 60), extend("x-unit" = "seconds"))]
    pub backoff_seconds: f64,
    /// A JSONL file of the answers; a request in it is not sent again.
    pub cache: Option<PathBuf>,
    /// The treatment of an answer of no use: a refusal, one without a score or cut off, or none at all. By default `annotate` ends and the
    /// benchmarks go on.
    ///
    /// Such answers are not cached.
    pub on_failure: Option<OnFailure>,
    /// The price of a million prompt tokens.
    #[schemars(range(min = 0), extend("x-unit" = "per million tokens"))]
    pub prompt_price: Option<f64>,
    /// The price of a million completion tokens.
    #[schemars(range(min = 0), extend("x-unit" = "per million tokens"))]
    pub completion_price: Option<f64>,
}

/// The treatment of an answer that is of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// End at once.
    Error,
    /// Count it and go on.
    Skip,
}

impl Default for JudgeSettings {
    fn default() -> Self {
        Self {
            model: None,
            base_url: "https://api.openai.com/v1".to_owned(),
            api_key_env: "OPENAI_API_KEY".to_owned(),
            max_tokens_key: "max_tokens".to_owned(),
            concurrency: 8,
            requests_per_minute: None,
            timeout_seconds: 120.0,
            retries: 8,
            backoff_seconds: 1.0,
            cache: None,
            on_failure: None,
            prompt_price: None,
            completion_price: None,
        }
    }
}

impl JudgeSettings {
    /// Finds the problems of the settings, as `(key, message)`.
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        if self.model.as_deref().is_none_or(str::is_empty) {
            problems.push(("model", "no judge: name the endpoint's model".to_owned()));
        }
        problems.extend(self.address_problems());
        let mut require = |ok: bool, key, message: &str| {
            if !ok {
                problems.push((key, message.to_owned()));
            }
        };
        require(
            ["max_tokens", "max_completion_tokens"].contains(&self.max_tokens_key.as_str()),
            "max_tokens_key",
            "must be max_tokens or max_completion_tokens",
        );
        require(self.concurrency > 0, "concurrency", "must be at least 1");
        require(
            self.requests_per_minute.is_none_or(|r| r > 0.0 && r.is_finite()),
            "requests_per_minute",
            "must be above 0",
        );
        let seconds = |s: f64| s > 0.0 && s <= 86_400.0;
        require(seconds(self.timeout_seconds), "timeout_seconds", "must be above 0 and at most a day");
        require(
            self.backoff_seconds >= 0.0 && self.backoff_seconds <= 60.0,
            "backoff_seconds",
            "must lie between 0 and 60",
        );
        for (key, price) in [("prompt_price", self.prompt_price), ("completion_price", self.completion_price)] {
            require(price.is_none_or(|p| p >= 0.0 && p.is_finite()), key, "must be at least 0");
        }
        problems
    }

    /// Finds the problems of the address and the key's variable, as `(key, message)`. These settings are written to results and shown,
    /// so they are checked in a job that asks no judge too; the messages repeat neither.
    pub fn address_problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        let scheme = ["http://", "https://"].iter().find_map(|s| self.base_url.strip_prefix(s));
        let rest = scheme.unwrap_or_default();
        let host = rest.split(['/', '?', '#', '\\']).next().unwrap_or_default();
        if host.is_empty() || self.base_url.contains(|c: char| c.is_whitespace() || c.is_control()) {
            problems.push(("base_url", "expected an address such as https://api.openai.com/v1".to_owned()));
        }
        // An `@` may come after a `/` that belongs to a password.
        if self.base_url.contains(['@', '?', '#']) {
            let message = "may hold no user, password, query or fragment: the address is written to results; the key comes from `api_key_env`";
            problems.push(("base_url", message.to_owned()));
        }
        if !is_variable(&self.api_key_env) {
            let message = "must be the name of an environment variable (letters, digits and `_`), not the key itself";
            problems.push(("api_key_env", message.to_owned()));
        }
        problems
    }

    /// The address of the endpoint, to which requests add their path.
    pub(super) fn base(&self) -> String {
        self.base_url.trim_end_matches('/').to_owned()
    }
}

/// Returns whether the text may name a variable: no name has other characters, and none is long and in both cases with digits, as keys are.
fn is_variable(name: &str) -> bool {
    const LONGEST: usize = 24;
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let starts = !name.starts_with(|c: char| c.is_ascii_digit());
    let any = |kind: fn(&u8) -> bool| name.as_bytes().iter().any(kind);
    let random = any(u8::is_ascii_lowercase) && any(u8::is_ascii_digit) && name.len() >= LONGEST;
    plain && starts && !random
}
