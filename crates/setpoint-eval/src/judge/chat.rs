//! Requests and answers of the chat endpoint.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::completion::EndpointRequest;

/// One message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatMessage {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// The text.
    pub content: String,
}

impl ChatMessage {
    /// A message.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into() }
    }
}

/// A question to the judge. The model's name and the address are the client's.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ChatRequest {
    /// The conversation.
    pub messages: Vec<ChatMessage>,
    /// Sampling temperature.
    pub temperature: f64,
    /// Greatest number of new tokens.
    pub max_tokens: Option<u32>,
    /// Log-probabilities of so many likeliest tokens at each position.
    pub top_logprobs: Option<u32>,
    /// Tells apart requests that are otherwise equal: the number of a sample. It goes into the cache's key alone.
    pub sample: u32,
}

impl EndpointRequest for ChatRequest {
    const PATH: &'static str = "/chat/completions";

    fn body(&self, model: &str, limit_key: &str) -> Value {
        let mut body = Map::new();
        body.insert("model".into(), json!(model));
        body.insert("messages".into(), json!(self.messages));
        body.insert("temperature".into(), json!(self.temperature));
        if let Some(max_tokens) = self.max_tokens {
            body.insert(limit_key.to_owned(), json!(max_tokens));
        }
        if let Some(top) = self.top_logprobs {
            body.insert("logprobs".into(), json!(true));
            body.insert("top_logprobs".into(), json!(top));
        }
        Value::Object(body)
    }

    fn sample(&self) -> u32 {
        self.sample
    }
}

/// A token and its log-probability.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TokenLogprob {
    /// The token's text.
    pub token: String,
    /// Its log-probability, in nats.
    pub logprob: f64,
}

/// The answer of the judge.
#[derive(Debug, Clone, PartialEq)]
pub struct ChatAnswer {
    /// The text.
    pub content: String,
    /// The likeliest tokens at each position, where they were asked for.
    pub top_logprobs: Vec<Vec<TokenLogprob>>,
    /// The reason for the end of the answer, in the endpoint's words: `stop`, `length`, `content_filter`.
    pub finish_reason: Option<String>,
    /// Tokens of the request, as the endpoint counts them.
    pub prompt_tokens: u64,
    /// Tokens of the answer.
    pub completion_tokens: u64,
    /// The first choice as it came.
    pub choice: Value,
    /// True if the answer came from the cache.
    pub cached: bool,
}

impl ChatAnswer {
    /// Returns whether the answer was cut off by its length or by a filter: a score in it may be the beginning of another, or of an
    /// example.
    pub fn is_truncated(&self) -> bool {
        // OpenAI's name, and those of Anthropic and Google.
        self.ended_by(&["length", "max_tokens", "max_output_tokens"]) || self.is_filtered()
    }

    fn is_filtered(&self) -> bool {
        self.ended_by(&["content_filter", "safety"])
    }

    fn ended_by(&self, names: &[&str]) -> bool {
        self.finish_reason.as_deref().is_some_and(|reason| names.iter().any(|n| n.eq_ignore_ascii_case(reason)))
    }

    /// Returns why the answer holds no score that counts, for a message.
    pub fn complaint(&self) -> String {
        if self.is_truncated() && !self.is_filtered() {
            return format!("its answer was cut off by its length after {} tokens", self.completion_tokens);
        }
        match self.choice.pointer("/message/refusal").and_then(Value::as_str) {
            Some(refusal) => format!("it refused: `{}`", excerpt(refusal)),
            None if self.is_filtered() => "its answer was held back by the endpoint's content filter".to_owned(),
            None => format!("no score in its answer `{}`", excerpt(&self.content)),
        }
    }

    /// Reads the endpoint's JSON.
    ///
    /// # Errors
    /// The part that was expected and not found.
    pub(super) fn parse(response: &Value, cached: bool) -> Result<Self, String> {
        let missing = |what: &str| format!("the answer has no {what}: {}", excerpt(&response.to_string()));
        let choice = response.pointer("/choices/0").ok_or_else(|| missing("choices[0]"))?;
        // A chat endpoint answers with a message, a completions endpoint with a text.
        let content = match choice.pointer("/message/content").or_else(|| choice.get("text")) {
            Some(Value::String(text)) => text.clone(),
            // A refusal, or a limit reached before the first word: an answer all the same, and asking again would give no other.
            Some(Value::Null) if choice["finish_reason"].is_string() => String::new(),
            _ => return Err(missing("choices[0].message.content")),
        };
        let positions = choice.pointer("/logprobs/content").and_then(Value::as_array);
        let top_logprobs = positions
            .map(|positions| {
                let top = |p: &Value| serde_json::from_value(p["top_logprobs"].clone()).unwrap_or_default();
                positions.iter().map(top).collect()
            })
            .unwrap_or_default();
        let tokens = |name: &str| response["usage"][name].as_u64().unwrap_or(0);
        Ok(Self {
            content,
            top_logprobs,
            finish_reason: choice["finish_reason"].as_str().map(str::to_owned),
            prompt_tokens: tokens("prompt_tokens"),
            completion_tokens: tokens("completion_tokens"),
            choice: choice.clone(),
            cached,
        })
    }
}

/// The beginning of a text, for messages.
pub(super) fn excerpt(text: &str) -> String {
    const LONGEST: usize = 300;
    let mut short: String = text.trim().chars().take(LONGEST).collect();
    if text.trim().chars().count() > LONGEST {
        short.push('…');
    }
    short
}
