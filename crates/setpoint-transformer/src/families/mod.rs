//! The model families: one file each, and their list.
//!
//! A family describes its `config.json`: how it is named, what absent keys mean, which keys it has besides those that all families share,
//! and what is refused. Reading, writing, error messages and tests follow from [`FAMILIES`]. `docs/dev/model-family.md` shows how to add one.

mod gemma;
mod gemma2;
mod gemma3;
mod gguf;
mod granite;
mod llama;
mod ministral3;
mod mistral;
mod multimodal;
mod olmo2;
mod phi3;
mod qwen;
mod qwen2;
mod qwen3;
mod smollm3;

use std::fmt;

use serde_json::{Map, Value};

use crate::Error;
use crate::config::{Architecture, ModelConfig, Reader};
use crate::design::{Biases, Design, LayerDesign};
pub(crate) use gguf::{GgufLayout, WindowKey};
pub(crate) use multimodal::Multimodal;

/// Every family, in the order in which messages name them.
const FAMILIES: &[&dyn Family] = &[
    &llama::Llama,
    &qwen2::Qwen2,
    &mistral::Mistral,
    &ministral3::Ministral3,
    &qwen3::Qwen3,
    &olmo2::Olmo2,
    &smollm3::SmolLm3,
    &granite::Granite,
    &phi3::Phi3,
    &gemma2::Gemma2,
    &gemma3::Gemma3,
];

/// Names of mixtures of experts, which are refused, with the reason; [`has_experts`] finds others. [`multimodal`] has the names of models of
/// images and sound.
const EXPERTS: (&[&str], &str) = (
    &[
        "deepseek_v2",
        "deepseek_v3",
        "ernie4_5_moe",
        "glm4_moe",
        "gpt_oss",
        "granitemoe",
        "granitemoehybrid",
        "granitemoeshared",
        "kimi_k2",
        "llama4",
        "llama4_text",
        "mixtral",
        "olmoe",
        "phimoe",
        "qwen2_moe",
        "qwen3_moe",
        "qwen3_omni_moe",
        "qwen3_vl_moe",
    ],
    "mixtures of experts are not computed; name a model of one of these families without experts",
);

/// Keys of the number of experts, in the whole file or in a part.
const NUMBERS_OF_EXPERTS: [&str; 5] =
    ["moe_num_experts", "n_routed_experts", "num_experts", "num_local_experts", "num_routed_experts"];

/// Returns true if a file states a number of experts.
fn has_experts(config: &Map<String, Value>) -> bool {
    config.iter().any(|(key, value)| match value {
        Value::Object(part) => has_experts(part),
        // Some have one number for each layer.
        Value::Array(_) => NUMBERS_OF_EXPERTS.contains(&key.as_str()),
        value => NUMBERS_OF_EXPERTS.contains(&key.as_str()) && value.as_u64().is_some_and(|number| number > 0),
    })
}

/// A family of decoders, as `config.json` states it.
pub(crate) trait Family: Sync {
    /// Returns the name in the file (`model_type`).
    fn model_type(&self) -> &'static str;

    /// Returns the beginning of transformers' class names: `Llama` of `LlamaForCausalLM` (`architectures`).
    fn class_prefix(&self) -> &'static str;

    /// Returns the beginning of the name of the sequence classifier.
    fn classifier_prefix(&self) -> &'static str {
        self.class_prefix()
    }

    /// Returns the values of keys that a file leaves out, as in transformers' configuration class.
    fn defaults(&self) -> Defaults;

    /// Returns the keys that this family has besides the common ones: those that [`read`](Self::read) judges.
    fn keys(&self) -> &'static [&'static str];

    /// Reads the family's own keys. A value whose effect is not computed here must be refused, never ignored.
    ///
    /// # Errors
    ///
    /// As [`ModelConfig::from_file`].
    fn read(&self, file: &Reader<'_>) -> Result<Design, Error>;

    /// Returns how GGUF files hold this family; `None` if it is not exported to them.
    fn gguf(&self) -> Option<GgufLayout> {
        None
    }

    /// Says what llama.cpp does not compute of a model of this family, as a clause; `None` if it computes the same.
    fn gguf_problem(&self, _config: &ModelConfig) -> Option<String> {
        None
    }

    /// Writes the family's own keys. Those of the file that the model was read from are in `map` already.
    fn write(&self, _config: &ModelConfig, _map: &mut Map<String, Value>) {}
}

/// The values of absent keys. The default has those that most families share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Defaults {
    /// The number of token embeddings, in families whose published files leave it out.
    pub(crate) vocab_size: Option<usize>,
    /// The number of query heads, in families whose published files leave it out.
    pub(crate) num_attention_heads: Option<usize>,
    /// The number of key and value heads, in families whose published files leave it out.
    pub(crate) num_key_value_heads: Option<usize>,
    /// The longest text.
    pub(crate) max_position_embeddings: usize,
    /// True if each query head has its own key and value head. Otherwise transformers assumes a number that does not depend on the
    /// model, and a file that leaves it out is refused.
    pub(crate) kv_head_per_query_head: bool,
    /// The width of a head; `hidden_size / num_attention_heads` if there is none.
    pub(crate) head_dim: Option<usize>,
    /// True if the head is the embedding matrix.
    pub(crate) tie_word_embeddings: bool,
    /// The constant under the root of the norms.
    pub(crate) rms_norm_eps: f64,
    /// The base of the rotary frequencies.
    pub(crate) rope_theta: f64,
    /// The share of each head that turns (`partial_rotary_factor`) in files that leave it out; `None` if the family only knows whole heads.
    pub(crate) rotary_share: Option<f64>,
    /// The context length of pre-training, in families whose files state it apart from the rotary settings
    /// (`original_max_position_embeddings`).
    pub(crate) original_positions: Option<usize>,
    /// True if layers with a window have a rotary embedding of their own.
    pub(crate) rope_by_layer: bool,
    /// True if queries grow along the text. Files then state YaRN and how fast (`llama_4_scaling_beta`).
    pub(crate) queries_grow: bool,
    /// The standard deviation of freshly drawn matrices; biases begin at 0 and norms at 1.
    pub(crate) initializer_range: f64,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            vocab_size: None,
            num_attention_heads: None,
            num_key_value_heads: None,
            max_position_embeddings: 2048,
            kv_head_per_query_head: false,
            head_dim: None,
            tie_word_embeddings: false,
            rms_norm_eps: 1e-6,
            rope_theta: 10_000.0,
            rotary_share: None,
            original_positions: None,
            rope_by_layer: false,
            queries_grow: false,
            initializer_range: 0.02,
        }
    }
}

/// Reads `attention_bias`, one switch for all four projections of attention, and `mlp_bias`.
fn switched_biases(file: &Reader<'_>) -> Result<Biases, Error> {
    let attention = file.optional_bool("attention_bias")?.unwrap_or(false);
    let mlp = file.optional_bool("mlp_bias")?.unwrap_or(false);
    Ok(Biases { qkv: attention, output: attention, mlp })
}

/// Returns layers with windows: those of `window`, by the layer's number.
fn windowed(file: &Reader<'_>, window: impl Fn(usize) -> Option<usize>) -> Result<Vec<LayerDesign>, Error> {
    let layers = (0..file.layers()?).map(|i| LayerDesign { window: window(i), ..LayerDesign::default() });
    Ok(layers.collect())
}

/// Returns for each layer whether it has a window: as `layer_types` says, or else `default`.
fn layer_types(file: &Reader<'_>, default: impl Fn(usize) -> bool) -> Result<Vec<bool>, Error> {
    let count = file.layers()?;
    let Some(list) = file.value("layer_types") else { return Ok((0..count).map(default).collect()) };
    let read = |value: &Value| match value.as_str() {
        Some("sliding_attention") => Some(true),
        Some("full_attention") => Some(false),
        _ => None,
    };
    let kinds = list.as_array().and_then(|list| list.iter().map(read).collect::<Option<Vec<bool>>>());
    kinds.filter(|kinds| kinds.len() == count).ok_or_else(|| {
        let expected = format!("a list of \"sliding_attention\" or \"full_attention\" for each of {count} layers");
        file.unsupported("layer_types", &expected)
    })
}

/// A family of decoders that this crate computes (`model_type` in `config.json`).
#[derive(Clone, Copy)]
pub struct ModelType(&'static dyn Family);

impl ModelType {
    /// Returns every family.
    pub fn all() -> impl Iterator<Item = Self> {
        FAMILIES.iter().map(|&family| Self(family))
    }

    /// Returns the name in `config.json`.
    pub fn as_str(self) -> &'static str {
        self.0.model_type()
    }

    /// Returns transformers' name of a model of this family (`architectures` in `config.json`).
    pub fn class(self, architecture: Architecture) -> String {
        match architecture {
            Architecture::CausalLm => format!("{}ForCausalLM", self.0.class_prefix()),
            Architecture::SequenceClassification => format!("{}ForSequenceClassification", self.0.classifier_prefix()),
        }
    }

    /// Finds the family that a file names.
    pub(crate) fn read(file: &Reader<'_>) -> Result<Self, Error> {
        let names: Vec<String> = Self::all().map(|family| format!("\"{family}\"")).collect();
        match file.optional_text("model_type")? {
            Some(name) => Self::all().find(|family| family.as_str() == name).ok_or_else(|| {
                let mut refused = multimodal::REFUSED.iter().chain([&EXPERTS]);
                let known = refused.find(|(refused, _)| refused.contains(&name)).map(|(_, reason)| *reason);
                let of_experts = || has_experts(file.map()).then_some(EXPERTS.1);
                let reason = known.or_else(of_experts).or_else(|| multimodal::reason(file.map()));
                let reason = reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
                let parts: Vec<_> = Multimodal::all().map(|model| format!("\"{}\"", model.model_type)).collect();
                let (names, parts) = (names.join(", "), parts.join(" and "));
                file.unsupported("model_type", &format!("{names}, and the text parts of {parts}{reason}"))
            }),
            None => Err(file.missing("model_type", &names.join(" or "))),
        }
    }

    /// Returns the description of the family.
    pub(crate) fn family(self) -> &'static dyn Family {
        self.0
    }
}

impl PartialEq for ModelType {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for ModelType {}

impl fmt::Debug for ModelType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.class_prefix())
    }
}

impl fmt::Display for ModelType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
