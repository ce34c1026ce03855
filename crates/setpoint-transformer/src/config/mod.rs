//! A model's shape and constants, as Hugging Face's `config.json` states them.

mod keys;
mod quantization;
mod queries;
mod read;
mod rope;
mod scaling;
mod switch;
mod text_part;
mod write;

use std::path::{Path, PathBuf};

use burn::tensor::FloatDType;
use serde_json::{Map, Value};

use crate::design::Design;
use crate::families::ModelType;
use crate::{Error, block};
pub use quantization::Quantization;
pub(crate) use quantization::fp8_block;
pub(crate) use queries::QueryGrowth;
pub(crate) use read::{Reader, object};
pub use rope::RopeConfig;
pub use scaling::RopeScaling;
pub use switch::RopeSwitch;
pub(crate) use write::{dtype_name, tokens};

/// Bounds on a file's sizes, far above those of any model. Within them, a model can be laid out before its tensors are looked for, and
/// what is computed from the sizes fits 64 bits.
const MOST_LAYERS: usize = 10_000;
const WIDEST_HEAD: usize = 1 << 16;
const MOST_PARAMETERS: u128 = 100_000_000_000_000;

/// A size as a factor of a product: a configuration made by hand may have any, and no model comes near this bound.
pub(crate) fn size(value: usize) -> u128 {
    value.min(u32::MAX as usize) as u128
}

/// The head on top of the decoder (`architectures` in `config.json`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Architecture {
    /// `*ForCausalLM`: a head that predicts the next token.
    CausalLm,
    /// `*ForSequenceClassification`: a linear score of the last token, as reward models have it.
    SequenceClassification,
}

/// The shape and constants of a model.
///
/// Made from `config.json` by [`from_dir`](Self::from_dir), [`from_file`](Self::from_file) or [`from_json`](Self::from_json). Reading is
/// strict: a key that might change what the model computes and that is not supported is an error, never ignored. Keys without such an effect
/// are kept and written back by [`to_json`](Self::to_json).
///
/// ```
/// use setpoint_transformer::ModelConfig;
///
/// let config = ModelConfig::from_json(
///     r#"{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 512, "hidden_size": 64, "intermediate_size": 172,
///         "num_hidden_layers": 5, "num_attention_heads": 8, "num_key_value_heads": 4, "tie_word_embeddings": true}"#,
/// )?;
/// assert_eq!(config.head_dim, 8);
/// assert_eq!(config.num_parameters(), 260_032);
/// # Ok::<(), setpoint_transformer::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// The family.
    pub model_type: ModelType,
    /// The head on top of the decoder.
    pub architecture: Architecture,
    /// Number of token embeddings, `v`.
    pub vocab_size: usize,
    /// Width of the residual stream, `d`.
    pub hidden_size: usize,
    /// Width inside the feed-forward network.
    pub intermediate_size: usize,
    /// Number of blocks.
    pub num_hidden_layers: usize,
    /// Number of query heads, `h`.
    pub num_attention_heads: usize,
    /// Number of key and value heads, `g`; divides `num_attention_heads`.
    pub num_key_value_heads: usize,
    /// Width of one head; need not be `hidden_size / num_attention_heads`.
    pub head_dim: usize,
    /// The longest sequence the model was trained for, in tokens.
    pub max_position_embeddings: usize,
    /// The constant under the root of RMSNorm.
    pub rms_norm_eps: f64,
    /// Rotary position embedding.
    pub rope: RopeConfig,
    /// True if the head is the embedding matrix.
    pub tie_word_embeddings: bool,
    /// The computation of the family.
    pub design: Design,
    /// Standard deviation of freshly drawn weights.
    pub initializer_range: f64,
    /// The number format in which the checkpoint is stored, where the file says so.
    pub dtype: Option<FloatDType>,
    /// The quantisation of the checkpoint's matrices. A model that is read has none, and neither has one that is written.
    pub quantization: Option<Quantization>,
    /// The token that begins a text.
    pub bos_token_id: Option<u32>,
    /// The tokens that end one.
    pub eos_token_ids: Vec<u32>,
    /// The token that fills rows up; never seen by the model here.
    pub pad_token_id: Option<u32>,
    /// Number of scores of a [`SequenceClassification`](Architecture::SequenceClassification) head; without meaning for the others.
    pub num_labels: usize,
    /// The file as it was read, so that keys without an effect survive a round trip.
    raw: Map<String, Value>,
}

impl ModelConfig {
    /// Reads `config.json` of a Hugging Face folder.
    ///
    /// # Errors
    ///
    /// As [`from_file`](Self::from_file).
    pub fn from_dir(dir: &Path) -> Result<Self, Error> {
        Self::from_file(&dir.join("config.json"))
    }

    /// Reads a `config.json`.
    ///
    /// # Errors
    ///
    /// [`Error::Read`] and [`Error::Json`] for the file, [`Error::MissingKey`], [`Error::UnsupportedValue`] and [`Error::UnknownKey`] for a
    /// key, [`Error::Inconsistent`] for values that contradict each other.
    pub fn from_file(path: &Path) -> Result<Self, Error> {
        let text = setpoint_files::read_text(path)?;
        read::parse(path, &text)
    }

    /// Reads the text of a `config.json`.
    ///
    /// # Errors
    ///
    /// As [`from_file`](Self::from_file); the messages say `config.json` for the path.
    pub fn from_json(text: &str) -> Result<Self, Error> {
        read::parse(Path::new("config.json"), text)
    }

    /// The content of a `config.json` that transformers reads: every key of the file this was made from, with the values of today.
    pub fn to_json(&self) -> Value {
        Value::Object(write::to_map(self))
    }

    /// The value of a key that this type has no field for.
    pub fn extra(&self, key: &str) -> Option<&Value> {
        self.raw.get(key)
    }

    /// Keeps a value of one's own in the file. Only keys that begin with `setpoint_` are accepted back when the file is read.
    ///
    /// # Panics
    ///
    /// If `key` does not begin with `setpoint_`.
    pub fn set_extra(&mut self, key: &str, value: Value) {
        assert!(key.starts_with("setpoint_"), "the key `{key}` must begin with `setpoint_`");
        self.raw.insert(key.to_owned(), value);
    }

    /// Returns the number of parameters, a tied head counted once.
    pub fn num_parameters(&self) -> u64 {
        // A configuration that was read has few enough; one made by hand may have any sizes.
        u64::try_from(self.count_parameters()).unwrap_or(u64::MAX)
    }

    /// Returns the shapes `[out, in]` of the linear maps of a layer: the matrices that can be quantised, and that adapters can update.
    pub fn map_shapes(&self) -> Vec<[usize; 2]> {
        block::map_shapes(self)
    }

    fn count_parameters(&self) -> u128 {
        let n = size;
        let (d, v) = (n(self.hidden_size), n(self.vocab_size));
        let head = match self.architecture {
            Architecture::CausalLm if self.tie_word_embeddings => 0,
            Architecture::CausalLm => v * d,
            Architecture::SequenceClassification => n(self.num_labels) * d,
        };
        // At most 2^32 blocks of 2^98 parameters.
        let blocks = n(self.num_hidden_layers).saturating_mul(block::count_parameters(self));
        (v * d).saturating_add(blocks).saturating_add(d + head)
    }

    /// Checks that the values fit together; reading a file does it already.
    ///
    /// # Errors
    ///
    /// [`Error::Inconsistent`].
    pub fn validate(&self) -> Result<(), Error> {
        self.validate_at(Path::new("config.json"))
    }

    fn validate_at(&self, path: &Path) -> Result<(), Error> {
        let fail = |message: String| Err(Error::Inconsistent { path: PathBuf::from(path), message });
        let parameters = self.count_parameters();
        if parameters > MOST_PARAMETERS {
            return fail(format!(
                "its sizes make {parameters} parameters, {} bytes in f32; expected at most {MOST_PARAMETERS} parameters",
                parameters.saturating_mul(4)
            ));
        }
        // i32 holds the ids and positions on every device.
        let most = i32::MAX as usize;
        for (key, value, most) in [
            ("vocab_size", self.vocab_size, most),
            ("hidden_size", self.hidden_size, most),
            ("intermediate_size", self.intermediate_size, most),
            ("num_hidden_layers", self.num_hidden_layers, MOST_LAYERS),
            ("num_attention_heads", self.num_attention_heads, most),
            ("num_key_value_heads", self.num_key_value_heads, most),
            ("head_dim", self.head_dim, WIDEST_HEAD),
            ("max_position_embeddings", self.max_position_embeddings, most),
        ] {
            if value == 0 || value > most {
                return fail(format!("`{key}` is {value}; expected 1 to {most}"));
            }
        }
        if !self.num_attention_heads.is_multiple_of(self.num_key_value_heads) {
            return fail(format!(
                "`num_attention_heads` ({}) must be a multiple of `num_key_value_heads` ({})",
                self.num_attention_heads, self.num_key_value_heads
            ));
        }
        if !self.head_dim.is_multiple_of(2) {
            return fail(format!(
                "`head_dim` is {}; rotary embedding turns pairs and needs an even number",
                self.head_dim
            ));
        }
        if !(self.rms_norm_eps.is_finite() && self.rms_norm_eps >= 0.0) {
            return fail(format!("`rms_norm_eps` is {}; expected a number of at least 0", self.rms_norm_eps));
        }
        if !(self.initializer_range.is_finite() && self.initializer_range >= 0.0) {
            return fail(format!("`initializer_range` is {}; expected a number of at least 0", self.initializer_range));
        }
        let ids = self.eos_token_ids.iter().map(|&id| ("eos_token_id", id));
        for (key, id) in ids.chain(self.bos_token_id.map(|id| ("bos_token_id", id))) {
            if id as usize >= self.vocab_size {
                return fail(format!("`{key}` {id} lies outside the vocabulary of {} tokens", self.vocab_size));
            }
        }
        let local = self.design.local_rope.iter();
        local.chain([&self.rope]).try_for_each(|rope| rope.validate(self.head_dim)).or_else(fail)
    }
}
