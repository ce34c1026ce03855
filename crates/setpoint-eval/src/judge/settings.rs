//! Settings of a judge.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// `[judge]`: which endpoint, how fast, how patient.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JudgeSettings {
    /// The judge's model name, as the endpoint knows it.
    pub model: Option<String>,
    /// The endpoint, without `/chat/completions`.
    pub base_url: String,
    /// The environment variable that holds the key; empty for an endpoint without one.
    pub api_key_env: String,
    /// What the endpoint calls the greatest number of new tokens: `max_tokens`, or `max_completion_tokens` for OpenAI's newer models.
    pub max_tokens_key: String,
    /// Requests under way at once.
    pub concurrency: usize,
    /// Greatest number of requests a minute.
    pub requests_per_minute: Option<f64>,
    /// Seconds until a request is given up.
    pub timeout_seconds: f64,
    /// Further attempts after one that failed in passing.
    pub retries: u32,
    /// Seconds before the first further attempt; doubled each time, up to a minute. A `Retry-After` header goes before.
    pub backoff_seconds: f64,
    /// JSONL file of the answers; a request that stands in it is not sent again.
    pub cache: Option<PathBuf>,
    /// Price of a million prompt tokens.
    pub prompt_price: Option<f64>,
    /// Price of a million completion tokens.
    pub completion_price: Option<f64>,
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
            prompt_price: None,
            completion_price: None,
        }
    }
}

impl JudgeSettings {
    /// What is wrong with the settings, as `(key, message)`.
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        let mut require = |ok: bool, key, message: &str| {
            if !ok {
                problems.push((key, message.to_owned()));
            }
        };
        require(self.model.as_deref().is_some_and(|m| !m.is_empty()), "model", "no judge: name the endpoint's model");
        let scheme = ["http://", "https://"].iter().find_map(|s| self.base_url.strip_prefix(s));
        let host = scheme.and_then(|rest| rest.split('/').next()).unwrap_or_default();
        require(!host.is_empty(), "base_url", "expected an address such as https://api.openai.com/v1");
        require(
            !host.contains('@') && !self.base_url.contains('?'),
            "base_url",
            "may hold no user, password or query: the address is written to results; the key comes from `api_key_env`",
        );
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

    /// The address that requests go to.
    pub(super) fn url(&self) -> String {
        format!("{}/chat/completions", self.base_url.trim_end_matches('/'))
    }
}
