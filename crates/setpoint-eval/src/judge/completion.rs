//! Requests of the completions endpoint, whose prompt is a list of tokens, and the answers to them.

use serde_json::{Map, Value, json};

use super::chat::ChatAnswer;

/// A request as the client sends it: where to, and what.
pub trait EndpointRequest: Sync {
    /// The end of the address, behind the base.
    const PATH: &'static str;

    /// Returns the body. `limit_key`: the endpoint's name for the greatest number of new tokens.
    fn body(&self, model: &str, limit_key: &str) -> Value;

    /// Returns the number that tells apart requests which are otherwise equal. It goes into the cache's key alone.
    fn sample(&self) -> u32;
}

/// A prompt of tokens that a server continues. The model's name and the address are the client's.
///
/// Everything that decides the distribution of the answer is in the body: servers have defaults of their own (vLLM takes those of
/// `generation_config.json`, llama.cpp has top-k 40, top-p 0.95 and min-p 0.05).
#[derive(Debug, Clone, PartialEq)]
pub struct CompletionRequest {
    /// The tokens of the prompt.
    pub prompt: Vec<u32>,
    /// Divides the logits; 0 takes the likeliest token.
    pub temperature: f64,
    /// Samples from the likeliest tokens that together have this share of the probability.
    pub top_p: f64,
    /// Samples from this many of the likeliest tokens.
    pub top_k: Option<usize>,
    /// Makes tokens that occurred less likely if it is above 1.
    pub repetition_penalty: f64,
    /// The greatest number of new tokens.
    pub max_tokens: usize,
    /// The tokens that end an answer besides the server's own.
    pub stop_token_ids: Vec<u32>,
    /// The seed of the answer, at most 2³¹ − 1: llama.cpp's have 32 bits.
    pub seed: u32,
}

impl EndpointRequest for CompletionRequest {
    const PATH: &'static str = "/completions";

    fn body(&self, model: &str, limit_key: &str) -> Value {
        let mut body = Map::new();
        let mut add = |key: &str, value: Value| body.insert(key.to_owned(), value);
        add("model", json!(model));
        add("prompt", json!(self.prompt));
        add(limit_key, json!(self.max_tokens));
        add("temperature", json!(self.temperature));
        add("top_p", json!(self.top_p));
        // -1 is "all" in vLLM and in llama.cpp.
        add("top_k", self.top_k.map_or_else(|| json!(-1), |k| json!(k)));
        add("min_p", json!(0.0));
        add("repetition_penalty", json!(self.repetition_penalty));
        // llama.cpp's name.
        add("repeat_penalty", json!(self.repetition_penalty));
        add("seed", json!(self.seed));
        add("stop_token_ids", json!(self.stop_token_ids));
        // The log-probability of each token, and vLLM's tokens as they were sampled.
        add("logprobs", json!(1));
        add("return_token_ids", json!(true));
        Value::Object(body)
    }

    fn sample(&self) -> u32 {
        0
    }
}

/// A server's answer to a [`CompletionRequest`].
#[derive(Debug, Clone, PartialEq)]
pub struct Completion {
    /// The text.
    pub text: String,
    /// The tokens, if the server tells them (vLLM does).
    pub ids: Option<Vec<u32>>,
    /// The log-probability of each token before temperature and truncation, nats, if the server tells them.
    pub logps: Option<Vec<f64>>,
    /// True if it ended at the greatest number of tokens; otherwise by a stop token.
    pub is_cut: bool,
}

impl Completion {
    /// Reads an answer.
    ///
    /// # Errors
    /// When it ended in another way than by a stop token or by its length, such as an abort.
    pub fn of(answer: &ChatAnswer) -> Result<Self, String> {
        let is_cut = match answer.finish_reason.as_deref() {
            Some("stop" | "eos_token" | "stop_sequence") => false,
            Some("length" | "max_tokens") => true,
            Some(other) => return Err(format!("it ended by `{}`", super::chat::excerpt(other))),
            None => return Err("it does not say why it ended (`finish_reason`)".to_owned()),
        };
        let id = |id: &Value| id.as_u64().and_then(|id| u32::try_from(id).ok());
        let ids = answer.choice.get("token_ids").and_then(Value::as_array);
        let ids = ids.and_then(|ids| ids.iter().map(id).collect::<Option<Vec<u32>>>());
        Ok(Self { text: answer.content.clone(), ids, logps: logps(&answer.choice), is_cut })
    }
}

/// Returns the log-probabilities of the sampled tokens: a list of numbers (vLLM), or of objects (newer llama.cpp).
fn logps(choice: &Value) -> Option<Vec<f64>> {
    let numbers = choice.pointer("/logprobs/token_logprobs").and_then(Value::as_array);
    if let Some(numbers) = numbers {
        return numbers.iter().map(Value::as_f64).collect();
    }
    let tokens = choice.pointer("/logprobs/content").and_then(Value::as_array)?;
    tokens.iter().map(|token| token.get("logprob").and_then(Value::as_f64)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(choice: Value) -> Result<Completion, String> {
        Completion::of(&ChatAnswer::parse(&json!({ "choices": [choice] }), false)?)
    }

    #[test]
    fn the_answers_of_vllm_and_llama_cpp_are_read() {
        let vllm = json!({"index": 0, "text": " yes", "finish_reason": "stop", "stop_reason": null, "token_ids": [7, 2],
            "logprobs": {"tokens": [" yes", "</s>"], "token_logprobs": [-0.5, -0.25], "top_logprobs": [{" yes": -0.5}, {"</s>": -0.25}]}});
        let found = read(vllm).unwrap();
        assert_eq!((found.ids, found.logps), (Some(vec![7, 2]), Some(vec![-0.5, -0.25])));
        assert_eq!((found.text.as_str(), found.is_cut), (" yes", false));
        let llama = json!({"text": " no", "finish_reason": "length",
            "logprobs": {"content": [{"id": 8, "token": " no", "logprob": -1.5, "top_logprobs": []}]}});
        let found = read(llama).unwrap();
        assert_eq!((found.ids, found.logps, found.is_cut), (None, Some(vec![-1.5]), true));
        let bare = read(json!({"text": "", "finish_reason": "stop", "logprobs": null})).unwrap();
        assert_eq!((bare.ids, bare.logps, bare.text.as_str()), (None, None, ""));
    }

    #[test]
    fn an_answer_that_was_broken_off_is_of_no_use() {
        assert_eq!(read(json!({"text": "a", "finish_reason": "abort"})).unwrap_err(), "it ended by `abort`");
        assert!(read(json!({"text": "a", "finish_reason": null})).unwrap_err().contains("finish_reason"));
        assert!(read(json!({"finish_reason": "stop"})).unwrap_err().contains("no choices[0]"));
    }

    #[test]
    fn everything_that_decides_the_distribution_is_sent() {
        let request = CompletionRequest {
            prompt: vec![1, 5],
            temperature: 1.0,
            top_p: 1.0,
            top_k: None,
            repetition_penalty: 1.0,
            max_tokens: 9,
            stop_token_ids: vec![2],
            seed: 3,
        };
        let body = request.body("m", "max_tokens");
        let expected = json!({"model": "m", "prompt": [1, 5], "max_tokens": 9, "temperature": 1.0, "top_p": 1.0, "top_k": -1,
            "min_p": 0.0, "repetition_penalty": 1.0, "repeat_penalty": 1.0, "seed": 3, "stop_token_ids": [2], "logprobs": 1,
            "return_token_ids": true});
        assert_eq!(body, expected);
        assert_eq!(CompletionRequest { top_k: Some(4), ..request }.body("m", "max_tokens")["top_k"], json!(4));
    }
}
