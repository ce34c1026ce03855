//! `[server]`: which server generates, how fast, how patient.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use setpoint_eval::JudgeSettings;

use crate::config::Problems;
use crate::config::output::{Target, validate_target};

/// A server that generates in place of this program: vLLM, llama.cpp or another with OpenAI's completions endpoint, which is sent the tokens
/// of each prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("x-chosen-by" = "model"))]
pub struct ServerSettings {
    /// The model's name, as the server knows it. It must be the model of the job, with the same tokenizer.
    pub model: Option<String>,
    /// The address, without `/completions`.
    pub base_url: String,
    /// The environment variable that holds the key; empty for a server without one.
    pub api_key_env: String,
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
    /// A JSONL file of the answers; a request in it is not sent again. By default a file next to the output, or in the run folder until the
    /// round is whole.
    pub cache: Option<PathBuf>,
    /// The price of a million prompt tokens.
    #[schemars(range(min = 0), extend("x-unit" = "per million tokens"))]
    pub prompt_price: Option<f64>,
    /// The price of a million completion tokens.
    #[schemars(range(min = 0), extend("x-unit" = "per million tokens"))]
    pub completion_price: Option<f64>,
}

impl Default for ServerSettings {
    fn default() -> Self {
        let JudgeSettings { requests_per_minute, retries, backoff_seconds, .. } = JudgeSettings::default();
        Self {
            model: None,
            base_url: "http://127.0.0.1:8000/v1".to_owned(),
            api_key_env: String::new(),
            concurrency: 64,
            requests_per_minute,
            timeout_seconds: 600.0,
            retries,
            backoff_seconds,
            cache: None,
            prompt_price: None,
            completion_price: None,
        }
    }
}

impl ServerSettings {
    /// Returns the settings of the client that asks the server.
    pub(super) fn client(&self) -> JudgeSettings {
        let Self { model, base_url, api_key_env, cache, .. } = self.clone();
        JudgeSettings {
            model,
            base_url,
            api_key_env,
            concurrency: self.concurrency,
            requests_per_minute: self.requests_per_minute,
            timeout_seconds: self.timeout_seconds,
            retries: self.retries,
            backoff_seconds: self.backoff_seconds,
            cache,
            prompt_price: self.prompt_price,
            completion_price: self.completion_price,
            ..JudgeSettings::default()
        }
    }

    /// Returns the settings that decide the answers; the others may change before an interrupted job goes on.
    #[must_use]
    pub(crate) fn deciding(&self) -> Self {
        Self { model: self.model.clone(), ..Self::default() }
    }

    /// Notes what is wrong with the settings, which are those of the section `key`.
    pub fn validate(&self, key: &str, problems: &mut Problems<'_>) {
        for (name, message) in self.client().problems() {
            let message = match name {
                "model" => "no model: give its name as the server knows it (`vllm serve NAME`)".to_owned(),
                _ => message,
            };
            problems.add(&format!("{key}.{name}"), message);
        }
        validate_target(self.cache.as_ref(), Target::File, &format!("{key}.cache"), problems);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_name_of_the_model_decides_the_answers() {
        let named = ServerSettings { model: Some("m".to_owned()), ..ServerSettings::default() };
        let other = ServerSettings { base_url: "http://gpu2:9/v1".to_owned(), retries: 1, ..named.clone() };
        assert_eq!(other.deciding(), named);
        assert!(named.client().problems().is_empty());
        assert_eq!(ServerSettings::default().client().problems()[0].0, "model");
    }
}
