//! The sampling of the answers to a request: its fields over the server's settings.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::Arc;

use serde_json::{Map, Value};
use setpoint_transformer::GenerationConfig;

use super::error::{Answered, ApiError};
use super::fields::{Fields, wrong};

/// The most answers to a prompt.
const MOST_ANSWERS: usize = 128;
/// The most stop sequences, and the bytes of the longest.
const STOPS: usize = 16;
const LONGEST_STOP: usize = 1024;
/// The most tokens that end an answer besides those of the model.
const STOP_TOKENS: usize = 64;

/// Fields of OpenAI's that do not change an answer: they are for its accounts, caches and filters.
const WITHOUT_EFFECT: &[&str] =
    &["metadata", "prompt_cache_key", "prompt_cache_retention", "safety_identifier", "service_tier", "store", "user"];

/// The sampling of a request.
#[derive(Debug, Clone)]
pub(super) struct Sampling {
    /// Temperature, truncation, lengths and stop tokens.
    pub(super) config: Arc<GenerationConfig>,
    /// The seed. Answer `i` draws from its stream `i`.
    pub(super) seed: u64,
    /// Answers to each prompt.
    pub(super) n: usize,
    /// Texts that end an answer, which does not contain them.
    pub(super) stops: Vec<String>,
    /// True if the answer comes as it is generated.
    pub(super) stream: bool,
    /// True if the last part of a stream counts the tokens.
    pub(super) include_usage: bool,
    /// True if the answer tells the tokens by number.
    pub(super) token_ids: bool,
}

impl Sampling {
    /// Takes the fields that chat and plain completions have in common, for a model of `vocabulary` tokens.
    pub(super) fn read(fields: &mut Fields, defaults: &GenerationConfig, vocabulary: usize) -> Answered<Self> {
        let mut config = GenerationConfig { file: Map::new(), ..defaults.clone() };
        let above_0 = |x: f64| x.is_finite() && x > 0.0;
        let at_least_0 = |x: f64| x.is_finite() && x >= 0.0;
        let expected = "0, which takes the likeliest token, or a number above 0";
        if let Some(temperature) = fields.number("temperature", expected, at_least_0)? {
            config.do_sample = temperature > 0.0;
            if temperature > 0.0 {
                config.temperature = temperature;
            }
        }
        if let Some(top_p) = fields.number("top_p", "a number above 0 and up to 1", |p| p > 0.0 && p <= 1.0)? {
            config.top_p = top_p;
        }
        match fields.take("top_k") {
            None => {}
            // Both are words of other servers for all tokens.
            Some(value) if value == -1 || value == 0 => config.top_k = None,
            Some(value) => match value.as_u64().and_then(|k| usize::try_from(k).ok()) {
                Some(k) => config.top_k = Some(k),
                None => return Err(wrong("top_k", "a whole number from 1 on, or -1 for all tokens", &value)),
            },
        }
        // llama.cpp has another name for it.
        for name in ["repetition_penalty", "repeat_penalty"] {
            if let Some(penalty) = fields.number(name, "a number above 0", above_0)? {
                config.repetition_penalty = penalty;
            }
        }
        for id in stop_tokens(fields, vocabulary)? {
            if !config.stop_token_ids.contains(&id) {
                config.stop_token_ids.push(id);
            }
        }
        let most = u32::MAX as usize;
        let limits = (fields.count("max_tokens", 1, most)?, fields.count("max_completion_tokens", 1, most)?);
        match limits {
            (Some(one), Some(other)) if one != other => {
                let message = "`max_tokens` and `max_completion_tokens` differ; give one of them";
                return Err(ApiError::field("max_completion_tokens", message));
            }
            (one, other) => config.max_new_tokens = one.or(other).unwrap_or(config.max_new_tokens),
        }
        for name in ["frequency_penalty", "presence_penalty", "min_p"] {
            fields.neutral(name, "0", |value| value.as_f64() == Some(0.0))?;
        }
        fields.neutral("logit_bias", "{}", |value| value.as_object().is_some_and(Map::is_empty))?;
        let stream = fields.flag("stream")?;
        let sampling = Self {
            seed: seed(fields)?,
            n: fields.count("n", 1, MOST_ANSWERS)?.unwrap_or(1),
            stops: stops(fields)?,
            include_usage: include_usage(fields, stream)?,
            token_ids: fields.flag("return_token_ids")?,
            stream,
            config: Arc::new(config),
        };
        if sampling.stream && sampling.token_ids {
            let message = "`return_token_ids` is for answers that are not streamed";
            return Err(ApiError::field("return_token_ids", message));
        }
        for name in WITHOUT_EFFECT {
            fields.take(name);
        }
        Ok(sampling)
    }
}

/// Takes the seed; draws one if there is none.
fn seed(fields: &mut Fields) -> Answered<u64> {
    let Some(value) = fields.take("seed") else { return Ok(random()) };
    match (value.as_u64(), value.as_i64()) {
        (Some(seed), _) => Ok(seed),
        (None, Some(seed)) => Ok(seed.cast_unsigned()),
        (None, None) => Err(wrong("seed", "a whole number of 64 bits", &value)),
    }
}

/// Returns a random number.
pub(super) fn random() -> u64 {
    // The standard library seeds each of its hashers at random.
    RandomState::new().build_hasher().finish()
}

/// Takes the stop sequences: a text or several.
fn stops(fields: &mut Fields) -> Answered<Vec<String>> {
    let Some(value) = fields.take("stop") else { return Ok(Vec::new()) };
    let texts: Option<Vec<String>> = match &value {
        Value::String(text) => Some(vec![text.clone()]),
        Value::Array(items) => items.iter().map(|item| item.as_str().map(str::to_owned)).collect(),
        _ => None,
    };
    let is_stop = |text: &String| !text.is_empty() && text.len() <= LONGEST_STOP;
    match texts.filter(|texts| texts.len() <= STOPS && texts.iter().all(is_stop)) {
        Some(texts) => Ok(texts),
        None => {
            let expected = format!("a text, or up to {STOPS} texts, each of 1 to {LONGEST_STOP} bytes");
            Err(wrong("stop", &expected, &value))
        }
    }
}

/// Takes the tokens that end an answer besides those of the model.
fn stop_tokens(fields: &mut Fields, vocabulary: usize) -> Answered<Vec<u32>> {
    const NAME: &str = "stop_token_ids";
    let Some(value) = fields.take(NAME) else { return Ok(Vec::new()) };
    let id = |id: &Value| id.as_u64().and_then(|id| u32::try_from(id).ok());
    let ids: Option<Vec<u32>> = value.as_array().and_then(|ids| ids.iter().map(id).collect());
    match ids.filter(|ids| ids.len() <= STOP_TOKENS) {
        Some(ids) => require_known(NAME, ids, vocabulary),
        None => Err(wrong(NAME, &format!("a list of up to {STOP_TOKENS} tokens by number"), &value)),
    }
}

/// Returns the tokens of a field if the model has all of them.
///
/// # Errors
/// A sentence that names the field, the first token that is none, and the size of the vocabulary.
pub(super) fn require_known(name: &str, ids: Vec<u32>, vocabulary: usize) -> Answered<Vec<u32>> {
    match ids.iter().find(|id| **id as usize >= vocabulary) {
        None => Ok(ids),
        Some(id) => {
            let message = format!("`{name}` has the token {id}; the model's vocabulary has {vocabulary}");
            Err(ApiError::field(name, message))
        }
    }
}

/// Takes `stream_options`.
fn include_usage(fields: &mut Fields, stream: bool) -> Answered<bool> {
    let Some(value) = fields.take("stream_options") else { return Ok(false) };
    if !stream {
        return Err(ApiError::field("stream_options", "`stream_options` is for `stream: true`"));
    }
    match value.as_object().and_then(|options| match options.get("include_usage") {
        // No other option is known.
        Some(Value::Bool(flag)) => (options.len() == 1).then_some(*flag),
        _ => options.is_empty().then_some(false),
    }) {
        Some(flag) => Ok(flag),
        None => Err(wrong("stream_options", "{\"include_usage\": true} or false there", &value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Answered<Sampling> {
        let defaults = GenerationConfig { temperature: 0.7, do_sample: true, top_k: Some(20), ..Default::default() };
        let mut fields = Fields::parse(text.as_bytes())?;
        let sampling = Sampling::read(&mut fields, &defaults, 512)?;
        fields.end()?;
        Ok(sampling)
    }

    #[test]
    fn the_servers_settings_hold_unless_the_request_says_otherwise() {
        let plain = read("{}").unwrap();
        assert_eq!((plain.config.temperature, plain.config.top_k, plain.config.max_new_tokens), (0.7, Some(20), 256));
        assert!(plain.config.do_sample && plain.n == 1 && plain.stops.is_empty() && !plain.stream);
        assert_ne!(plain.seed, read("{}").unwrap().seed, "a request without a seed has its own");
        let own = read(
            r#"{"temperature":0,"top_p":0.5,"top_k":-1,"max_completion_tokens":9,"n":3,"stop":"\n","seed":-2,
                "stream":true,"stream_options":{"include_usage":true},"user":"me","presence_penalty":0.0,"logit_bias":{}}"#,
        )
        .unwrap();
        assert_eq!((own.config.do_sample, own.config.top_p, own.config.top_k), (false, 0.5, None));
        assert_eq!((own.config.max_new_tokens, own.n, own.seed), (9, 3, u64::MAX - 1));
        assert!(own.stops == ["\n"] && own.stream && own.include_usage);
        assert_eq!(read(r#"{"seed":18446744073709551615}"#).unwrap().seed, u64::MAX);
        let other = read(r#"{"min_p":0.0,"repeat_penalty":1.2,"stop_token_ids":[7,2,7]}"#).unwrap();
        assert_eq!((other.config.repetition_penalty, &other.config.stop_token_ids[..]), (1.2, &[7, 2][..]));
        assert_eq!(read(r#"{"max_tokens":4,"max_completion_tokens":4}"#).unwrap().config.max_new_tokens, 4);
    }

    #[test]
    fn what_is_out_of_range_or_not_supported_is_refused_by_name() {
        for (text, param) in [
            (r#"{"temperature":-1}"#, "temperature"),
            (r#"{"temperature":"hot"}"#, "temperature"),
            (r#"{"top_p":0}"#, "top_p"),
            (r#"{"top_p":1.1}"#, "top_p"),
            (r#"{"top_k":-2}"#, "top_k"),
            (r#"{"top_k":1.5}"#, "top_k"),
            (r#"{"repetition_penalty":0}"#, "repetition_penalty"),
            (r#"{"max_tokens":0}"#, "max_tokens"),
            (r#"{"max_tokens":1,"max_completion_tokens":2}"#, "max_completion_tokens"),
            (r#"{"n":0}"#, "n"),
            (r#"{"n":1000}"#, "n"),
            (r#"{"stop":""}"#, "stop"),
            (r#"{"stop":[1]}"#, "stop"),
            (r#"{"seed":1.5}"#, "seed"),
            (r#"{"frequency_penalty":0.5}"#, "frequency_penalty"),
            (r#"{"logit_bias":{"5":1}}"#, "logit_bias"),
            (r#"{"stream_options":{"include_usage":true}}"#, "stream_options"),
            (r#"{"stream":true,"stream_options":{"other":true}}"#, "stream_options"),
            (r#"{"stream":true,"return_token_ids":true}"#, "return_token_ids"),
            (r#"{"min_p":0.1}"#, "min_p"),
            (r#"{"repeat_penalty":0}"#, "repeat_penalty"),
            (r#"{"stop_token_ids":[-1]}"#, "stop_token_ids"),
            (r#"{"stop_token_ids":7}"#, "stop_token_ids"),
            (r#"{"stop_token_ids":[1.0]}"#, "stop_token_ids"),
            (r#"{"stop_token_ids":[511,512]}"#, "stop_token_ids"),
            (r#"{"stop_token_ids":[4294967295]}"#, "stop_token_ids"),
            (r#"{"stop_token_ids":[4294967296]}"#, "stop_token_ids"),
            (r#"{"ignore_eos":true}"#, "ignore_eos"),
        ] {
            let error = read(text).unwrap_err();
            assert_eq!(error.body()["error"]["param"], param, "{text}");
            assert!(error.body()["error"]["message"].as_str().is_some_and(|said| said.contains(param)), "{text}");
        }
        assert_eq!(read(r#"{"stop_token_ids":[511]}"#).unwrap().config.stop_token_ids, [511], "the last token");
        let said = read(r#"{"stop_token_ids":[3,512]}"#).unwrap_err().body().to_string();
        assert!(said.contains("has the token 512; the model's vocabulary has 512"), "{said}");
    }
}
