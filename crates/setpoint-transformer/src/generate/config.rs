use std::path::Path;

use serde_json::{Map, Value, json};

use crate::Error;
use crate::config::{ModelConfig, Reader, object, tokens};

/// Settings of sampling: the keys of `generation_config.json` that are supported, with transformers' meaning.
///
/// ```
/// use setpoint_transformer::GenerationConfig;
///
/// let greedy = GenerationConfig { max_new_tokens: 20, stop_token_ids: vec![2], ..GenerationConfig::default() };
/// let sampled = GenerationConfig { do_sample: true, temperature: 0.7, top_p: 0.9, ..greedy };
/// sampled.validate()?;
/// # Ok::<(), setpoint_transformer::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct GenerationConfig {
    /// True if tokens are drawn; otherwise the likeliest is taken and `temperature`, `top_k` and `top_p` have no effect.
    pub do_sample: bool,
    /// Divides the logits; above 0.
    pub temperature: f64,
    /// Only the `k` likeliest tokens remain.
    pub top_k: Option<usize>,
    /// Only the likeliest tokens that together hold this share of the probability remain; in (0, 1].
    pub top_p: f64,
    /// Divides positive logits of tokens that the prompt or the answer holds already, multiplies negative ones; above 0.
    pub repetition_penalty: f64,
    /// True if [`Generated::logps`](super::Generated::logps) are those of the logits divided by the temperature, if tokens are drawn.
    pub tempered_logps: bool,
    /// The greatest number of new tokens.
    pub max_new_tokens: usize,
    /// The greatest number of tokens, those of the prompt included, beside the model's own limit.
    pub max_length: Option<usize>,
    /// The tokens that end an answer.
    pub stop_token_ids: Vec<u32>,
    /// The number of prompts answered at a time; the place of one that ends goes to the next. Changes speed and memory only.
    pub batch_size: usize,
    /// The file as it was read, so that keys without a field here survive a round trip.
    pub file: Map<String, Value>,
}

impl Default for GenerationConfig {
    /// Greedy, 256 new tokens, no stop token, batches of 32.
    fn default() -> Self {
        Self {
            do_sample: false,
            temperature: 1.0,
            top_k: None,
            top_p: 1.0,
            repetition_penalty: 1.0,
            tempered_logps: false,
            max_new_tokens: 256,
            max_length: None,
            stop_token_ids: Vec::new(),
            batch_size: 32,
            file: Map::new(),
        }
    }
}

/// Keys without an effect on what is sampled here.
const HARMLESS: &[&str] = &[
    "assistant_confidence_threshold",
    "assistant_early_exit",
    "assistant_lookbehind",
    "bos_token_id",
    "cache_config",
    "cache_implementation",
    "chat_format",
    "compile_config",
    "decoder_start_token_id",
    "disable_compile",
    "early_stopping",
    "is_assistant",
    "length_penalty",
    "low_memory",
    "max_matching_ngram_size",
    "num_assistant_tokens",
    "num_assistant_tokens_schedule",
    "output_attentions",
    "output_hidden_states",
    "output_logits",
    "output_scores",
    "pad_token_id",
    "prefill_chunk_size",
    "prompt_lookup_num_tokens",
    "remove_invalid_values",
    "renormalize_logits",
    "return_dict_in_generate",
    "return_legacy_cache",
    "target_lookbehind",
    "transformers_version",
    "trust_remote_code",
    "use_cache",
];

/// Keys of methods that are not implemented, with the value at which they do nothing.
const NEUTRAL: &[(&str, f64)] = &[
    ("diversity_penalty", 0.0),
    ("encoder_no_repeat_ngram_size", 0.0),
    ("encoder_repetition_penalty", 1.0),
    ("epsilon_cutoff", 0.0),
    ("eta_cutoff", 0.0),
    ("guidance_scale", 1.0),
    ("min_length", 0.0),
    ("min_new_tokens", 0.0),
    ("min_p", 0.0),
    ("no_repeat_ngram_size", 0.0),
    ("num_beam_groups", 1.0),
    ("num_beams", 1.0),
    ("num_return_sequences", 1.0),
    ("penalty_alpha", 0.0),
    ("typical_p", 1.0),
];

const READ: &[&str] = &[
    "do_sample",
    "eos_token_id",
    "max_length",
    "max_new_tokens",
    "repetition_penalty",
    "temperature",
    "top_k",
    "top_p",
];

impl GenerationConfig {
    /// Returns the number of tokens a prompt of `prompt` tokens may be continued by, in a model of `positions`; 0 where there is no room
    /// for it.
    pub fn room(&self, prompt: usize, positions: usize) -> usize {
        let most = self.max_length.unwrap_or(usize::MAX).min(positions);
        self.max_new_tokens.min(most.saturating_sub(prompt))
    }

    /// Reads a `generation_config.json`.
    ///
    /// Keys that are absent have the values of [`default`](Self::default): nothing is cut off unless the file says so (transformers fills in
    /// a `top_k` of 50 and a total length of 20).
    ///
    /// # Errors
    ///
    /// [`Error::Read`], [`Error::Json`], [`Error::UnsupportedValue`], [`Error::UnknownKey`], [`Error::GenerationSetting`].
    pub fn from_file(path: &Path) -> Result<Self, Error> {
        let text = setpoint_files::read_text(path)?;
        let map = object(path, &text)?;
        let reader = Reader::new(path, &map);
        for key in reader.keys().filter(|key| !READ.contains(key) && !HARMLESS.contains(key) && !key.starts_with('_')) {
            let Some(value) = reader.value(key) else { continue };
            match NEUTRAL.iter().find(|(name, _)| *name == key) {
                Some((_, neutral)) if value.as_f64() == Some(*neutral) => {}
                Some((_, neutral)) => {
                    return Err(reader.unsupported(key, &format!("{neutral} (the method is not implemented)")));
                }
                None => return Err(reader.unknown(key)),
            }
        }
        let default = Self::default();
        let max_new_tokens = reader.optional_size("max_new_tokens")?;
        let config = Self {
            do_sample: reader.optional_bool("do_sample")?.unwrap_or(default.do_sample),
            temperature: reader.optional_number("temperature")?.unwrap_or(default.temperature),
            // transformers takes 0 for none.
            top_k: reader.optional_size("top_k")?.filter(|&k| k > 0),
            top_p: reader.optional_number("top_p")?.unwrap_or(default.top_p),
            repetition_penalty: reader.optional_number("repetition_penalty")?.unwrap_or(default.repetition_penalty),
            tempered_logps: default.tempered_logps,
            // If both are there, the number of new tokens counts.
            max_length: reader.optional_size("max_length")?.filter(|_| max_new_tokens.is_none()),
            max_new_tokens: max_new_tokens.unwrap_or(default.max_new_tokens),
            stop_token_ids: reader.tokens("eos_token_id")?,
            batch_size: default.batch_size,
            file: map.clone(),
        };
        config.validate()?;
        Ok(config)
    }

    /// Reads `generation_config.json` in a model's folder; where there is none, greedy sampling up to the end tokens of `model`.
    ///
    /// # Errors
    ///
    /// As [`from_file`](Self::from_file).
    pub fn for_model(dir: &Path, model: &ModelConfig) -> Result<Self, Error> {
        let path = dir.join("generation_config.json");
        let mut config = if path.exists() { Self::from_file(&path)? } else { Self::default() };
        if config.stop_token_ids.is_empty() {
            config.stop_token_ids.clone_from(&model.eos_token_ids);
        }
        Ok(config)
    }

    /// The content of a `generation_config.json` that transformers reads.
    pub fn to_json(&self) -> Value {
        let mut map = self.file.clone();
        let mut set = |key: &str, value: Option<Value>| {
            match value {
                Some(value) => map.insert(key.to_owned(), value),
                None => map.shift_remove(key),
            };
        };
        set("do_sample", Some(json!(self.do_sample)));
        // transformers refuses to save sampling settings beside `do_sample: false`.
        set("temperature", self.do_sample.then(|| json!(self.temperature)));
        // Without the key transformers would cut at 50; 0 is its word for none.
        set("top_k", self.do_sample.then(|| json!(self.top_k.unwrap_or(0))));
        set("top_p", self.do_sample.then(|| json!(self.top_p)));
        set("repetition_penalty", (self.repetition_penalty != 1.0).then(|| json!(self.repetition_penalty)));
        set("max_length", self.max_length.map(|length| json!(length)));
        if self.file.contains_key("max_new_tokens") {
            set("max_new_tokens", Some(json!(self.max_new_tokens)));
        }
        set("eos_token_id", (!self.stop_token_ids.is_empty()).then(|| tokens(&self.stop_token_ids)));
        Value::Object(map)
    }

    /// Returns whether the likeliest token of the unprocessed logits is the next one.
    pub(super) fn takes_likeliest(&self) -> bool {
        !self.do_sample && self.repetition_penalty == 1.0
    }

    /// Returns whether no token is cut off, if tokens are drawn.
    pub(super) fn draws_from_all(&self) -> bool {
        self.top_k.is_none() && self.top_p == 1.0
    }

    /// Checks that every setting is within its range.
    ///
    /// # Errors
    ///
    /// [`Error::GenerationSetting`].
    pub fn validate(&self) -> Result<(), Error> {
        let check = |holds: bool, key: &str, expected: &str, found: String| {
            if holds {
                return Ok(());
            }
            Err(Error::GenerationSetting { key: key.to_owned(), expected: expected.to_owned(), found })
        };
        let positive = |value: f64| value.is_finite() && value > 0.0;
        let above_0 = "a number above 0";
        // Files say `temperature: 0` beside `do_sample: false`, where it has no effect.
        if self.do_sample {
            check(positive(self.temperature), "temperature", above_0, self.temperature.to_string())?;
            check(self.top_k != Some(0), "top_k", "at least 1, or none", "0".to_owned())?;
            check(
                self.top_p > 0.0 && self.top_p <= 1.0,
                "top_p",
                "a number above 0 and up to 1",
                self.top_p.to_string(),
            )?;
        }
        check(positive(self.repetition_penalty), "repetition_penalty", above_0, self.repetition_penalty.to_string())?;
        check(self.max_new_tokens > 0, "max_new_tokens", "at least 1", "0".to_owned())?;
        check(self.batch_size > 0, "batch_size", "at least 1", "0".to_owned())
    }
}
