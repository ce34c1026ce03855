//! The model families: one file each, and their list.
//!
//! A family describes its `config.json`: how it is named, what absent keys mean, which keys it has besides those that all families share,
//! and what is refused. Reading, writing, error messages and tests follow from [`FAMILIES`]. `docs/dev/model-family.md` shows how to add one.

mod llama;
mod mistral;
mod qwen2;

use std::fmt;

use serde_json::{Map, Value};

use crate::Error;
use crate::config::{Architecture, ModelConfig, Reader};

/// Every family, in the order in which messages name them.
const FAMILIES: &[&dyn Family] = &[&llama::Llama, &qwen2::Qwen2, &mistral::Mistral];

/// A family of decoders, as `config.json` states it.
pub(crate) trait Family: Sync {
    /// Returns the name in the file (`model_type`).
    fn model_type(&self) -> &'static str;

    /// Returns the beginning of transformers' class names: `Llama` of `LlamaForCausalLM` (`architectures`).
    fn class_prefix(&self) -> &'static str;

    /// Returns the values of keys that a file leaves out, as in transformers' configuration class.
    fn defaults(&self) -> Defaults;

    /// Returns the keys that this family has besides the common ones: those that [`read`](Self::read) judges.
    fn keys(&self) -> &'static [&'static str];

    /// Reads the family's own keys. A value whose effect is not computed here must be refused, never ignored.
    ///
    /// # Errors
    ///
    /// As [`ModelConfig::from_file`].
    fn read(&self, file: &Reader<'_>) -> Result<Biases, Error>;

    /// Returns how GGUF files hold this family; `None` if it is not exported to them.
    fn gguf(&self) -> Option<GgufLayout> {
        None
    }

    /// Writes the family's own keys. Those of the file that the model was read from are in `map` already.
    fn write(&self, _config: &ModelConfig, _map: &mut Map<String, Value>) {}
}

/// The values of absent keys.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Defaults {
    /// The longest text.
    pub(crate) max_position_embeddings: usize,
    /// True if each query head has its own key and value head. Otherwise transformers assumes a number that does not depend on the
    /// model, and a file that leaves it out is refused.
    pub(crate) kv_head_per_query_head: bool,
    /// The constant under the root of the norms.
    pub(crate) rms_norm_eps: f64,
    /// The base of the rotary frequencies.
    pub(crate) rope_theta: f64,
    /// The standard deviation of freshly drawn matrices; biases begin at 0 and norms at 1.
    pub(crate) initializer_range: f64,
}

/// The layout of a family in GGUF files.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GgufLayout {
    /// llama.cpp's name of the architecture.
    pub(crate) architecture: &'static str,
    /// True if llama.cpp turns neighbouring numbers of a head (0 and 1, 2 and 3), where transformers turns number `i` and `i + n/2`: the
    /// rows of queries and keys are then reordered.
    pub(crate) neighbouring_pairs: bool,
    /// True if llama.cpp reads the factors of Llama 3.1's rotary scaling for this architecture.
    pub(crate) rope_factors: bool,
    /// True if the files state the size of the vocabulary and the rotary width.
    pub(crate) states_sizes: bool,
}

/// Which projections have biases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Biases {
    /// The projections to queries, keys and values.
    pub qkv: bool,
    /// The projection that follows attention.
    pub output: bool,
    /// The three projections of the feed-forward network.
    pub mlp: bool,
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
        let task = match architecture {
            Architecture::CausalLm => "ForCausalLM",
            Architecture::SequenceClassification => "ForSequenceClassification",
        };
        format!("{}{task}", self.0.class_prefix())
    }

    /// Finds the family that a file names.
    pub(crate) fn read(file: &Reader<'_>) -> Result<Self, Error> {
        let names: Vec<String> = Self::all().map(|family| format!("\"{family}\"")).collect();
        match file.optional_text("model_type")? {
            Some(name) => Self::all()
                .find(|family| family.as_str() == name)
                .ok_or_else(|| file.unsupported("model_type", &names.join(", "))),
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
