//! `config.json` in: every key is read, known to be harmless, or refused.

use std::path::Path;

use burn::tensor::FloatDType;
use serde_json::{Map, Value};
use setpoint_files::words;

use super::keys::{self, Verdict};
use super::quantization::refuse_mlx;
use super::text_part::TextPart;
use super::{Architecture, MOST_LAYERS, ModelConfig, Quantization, RopeConfig};
use crate::Error;
use crate::families::{ModelType, Multimodal};

/// A JSON object with the place it came from, so that errors can name it.
pub(crate) struct Reader<'a> {
    path: &'a Path,
    prefix: String,
    /// Keys whose values are from outside the object.
    outer: &'a [&'static str],
    map: &'a Map<String, Value>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(path: &'a Path, map: &'a Map<String, Value>) -> Self {
        Self { path, prefix: String::new(), outer: &[], map }
    }

    /// Reads an object that has some keys of the whole file.
    fn of_part(path: &'a Path, part: &'a TextPart) -> Self {
        Self { path, prefix: format!("{}.", TextPart::KEY), outer: &part.outer, map: &part.map }
    }

    pub(super) fn nested<'b>(&'b self, key: &str, map: &'b Map<String, Value>) -> Reader<'b> {
        Reader { path: self.path, prefix: format!("{}.", self.name(key)), outer: &[], map }
    }

    /// Returns the object.
    pub(crate) fn map(&self) -> &'a Map<String, Value> {
        self.map
    }

    /// Returns a key with the names of the objects that hold it.
    fn name(&self, key: &str) -> String {
        if self.outer.contains(&key) { key.to_owned() } else { format!("{}{key}", self.prefix) }
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &'a str> {
        self.map.keys().map(String::as_str)
    }

    /// The value, with null taken for absent, as transformers does.
    pub(crate) fn value(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    pub(crate) fn missing(&self, key: &str, expected: &str) -> Error {
        Error::MissingKey { path: self.path.to_owned(), key: self.name(key), expected: expected.to_owned() }
    }

    pub(crate) fn unsupported(&self, key: &str, expected: &str) -> Error {
        Error::UnsupportedValue {
            path: self.path.to_owned(),
            key: self.name(key),
            expected: expected.to_owned(),
            found: self.map.get(key).unwrap_or(&Value::Null).to_string(),
        }
    }

    pub(crate) fn unknown(&self, key: &str) -> Error {
        Error::UnknownKey {
            path: self.path.to_owned(),
            key: self.name(key),
            found: self.map.get(key).unwrap_or(&Value::Null).to_string(),
        }
    }

    /// Returns the refusal of weights in a form that is not read. `where_to_look` follows the remedy.
    pub(super) fn other_format(&self, what: String, where_to_look: &str) -> Error {
        let family =
            self.map.get("model_type").and_then(Value::as_str).map_or_else(String::new, |name| format!("{name} "));
        let instead = format!("Name the {family}checkpoint that it was made from, in bf16, f16 or f32{where_to_look}");
        Error::OtherFormat { path: self.path.to_owned(), what, instead }
    }

    fn optional<T>(
        &self,
        key: &str,
        expected: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        match self.value(key) {
            None => Ok(None),
            Some(value) => read(value).map(Some).ok_or_else(|| self.unsupported(key, expected)),
        }
    }

    pub(crate) fn optional_size(&self, key: &str) -> Result<Option<usize>, Error> {
        self.optional(key, "a whole number of at least 0", |value| value.as_u64().and_then(|n| usize::try_from(n).ok()))
    }

    pub(crate) fn size(&self, key: &str) -> Result<usize, Error> {
        self.optional_size(key)?.ok_or_else(|| self.missing(key, "a whole number"))
    }

    pub(crate) fn optional_number(&self, key: &str) -> Result<Option<f64>, Error> {
        self.optional(key, "a number", Value::as_f64)
    }

    pub(super) fn number(&self, key: &str) -> Result<f64, Error> {
        self.optional_number(key)?.ok_or_else(|| self.missing(key, "a number"))
    }

    /// Returns a number above 0. It and its reciprocal are numbers in f32, too.
    pub(crate) fn positive(&self, key: &str) -> Result<Option<f64>, Error> {
        self.optional(key, "a number above 0, from 1e-30 to 1e30", |value| {
            value.as_f64().filter(|number| (1e-30..=1e30).contains(number))
        })
    }

    /// Returns the number of layers.
    pub(crate) fn layers(&self) -> Result<usize, Error> {
        let layers = self.size("num_hidden_layers")?;
        if layers <= MOST_LAYERS { Ok(layers) } else { Err(self.too_many_layers(layers)) }
    }

    /// Returns `sliding_window`: the tokens that a token sees at most, itself included.
    pub(crate) fn window(&self) -> Result<Option<usize>, Error> {
        self.optional("sliding_window", "null, or a whole number above 0", |value| {
            value.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|&window| window > 0)
        })
    }

    fn too_many_layers(&self, layers: usize) -> Error {
        Error::Inconsistent {
            path: self.path.to_owned(),
            message: format!("`num_hidden_layers` is {layers}; expected 1 to {MOST_LAYERS}"),
        }
    }

    /// Fails for a key that is not read and that may have an effect in a model of so many layers.
    pub(super) fn refuse_unknown(&self, is_read: &dyn Fn(&str) -> bool, layers: usize) -> Result<(), Error> {
        for key in self.keys().filter(|key| !is_read(key)) {
            match keys::verdict(key, &self.map[key], layers) {
                Verdict::Harmless | Verdict::Only { holds: true, .. } => {}
                Verdict::Only { holds: false, expected } => return Err(self.unsupported(key, expected)),
                Verdict::Unknown => return Err(self.unknown(key)),
            }
        }
        Ok(())
    }

    pub(crate) fn optional_bool(&self, key: &str) -> Result<Option<bool>, Error> {
        self.optional(key, "true or false", Value::as_bool)
    }

    /// Returns a list of numbers.
    pub(super) fn numbers(&self, key: &str) -> Result<Vec<f64>, Error> {
        let read = |value: &Value| -> Option<Vec<f64>> { value.as_array()?.iter().map(Value::as_f64).collect() };
        self.optional(key, "a list of numbers", read)?.ok_or_else(|| self.missing(key, "a list of numbers"))
    }

    /// Checks a switch whose value is fixed by the family.
    pub(crate) fn fixed_bool(&self, key: &str, value: bool, expected: &str) -> Result<(), Error> {
        match self.optional_bool(key)? {
            Some(found) if found != value => Err(self.unsupported(key, expected)),
            _ => Ok(()),
        }
    }

    pub(crate) fn optional_text(&self, key: &str) -> Result<Option<&'a str>, Error> {
        self.optional(key, "a text", Value::as_str)
    }

    pub(super) fn object(&self, key: &str) -> Result<Option<&'a Map<String, Value>>, Error> {
        self.optional(key, "an object", Value::as_object)
    }

    fn optional_token(&self, key: &str) -> Result<Option<u32>, Error> {
        self.optional(key, "a token id", token)
    }

    /// One id or a list of them.
    pub(crate) fn tokens(&self, key: &str) -> Result<Vec<u32>, Error> {
        let read = |value: &Value| match value {
            Value::Array(ids) => ids.iter().map(token).collect(),
            id => token(id).map(|id| vec![id]),
        };
        Ok(self.optional(key, "a token id or a list of token ids", read)?.unwrap_or_default())
    }
}

/// Reads the number that keeps a norm from dividing by 0. A large one would make the norm meaningless.
fn rms_norm_eps(reader: &Reader<'_>) -> Result<Option<f64>, Error> {
    let found = reader.optional_number("rms_norm_eps")?;
    match found {
        Some(eps) if !(0.0..1.0).contains(&eps) => {
            Err(reader.unsupported("rms_norm_eps", "a number from 0 to below 1"))
        }
        _ => Ok(found),
    }
}

fn token(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|id| u32::try_from(id).ok())
}

/// Parses `text` as a JSON object.
pub(crate) fn object(path: &Path, text: &str) -> Result<Map<String, Value>, Error> {
    serde_json::from_str(text).map_err(|error| Error::Json { path: path.to_owned(), message: words::json(&error) })
}

pub(super) fn parse(path: &Path, text: &str) -> Result<ModelConfig, Error> {
    let map = object(path, text)?;
    let whole = Reader::new(path, &map);
    match Multimodal::of(&map) {
        Some(model) => language_model(&Reader::of_part(path, &TextPart::read(model, &whole)?)),
        None => language_model(&whole),
    }
}

/// Reads the object that describes a model of text.
fn language_model(reader: &Reader<'_>) -> Result<ModelConfig, Error> {
    let path = reader.path;
    let model_type = ModelType::read(reader)?;
    let defaults = model_type.family().defaults();
    let architecture = architecture(reader, model_type)?;
    let num_hidden_layers = reader.size("num_hidden_layers")?;
    refuse_mlx(reader)?;
    refuse_unknown(reader, model_type, num_hidden_layers)?;

    let or = |key: &str, default: Option<usize>| match reader.optional_size(key)?.or(default) {
        Some(size) => Ok::<_, Error>(size),
        None => reader.size(key),
    };
    let hidden_size = reader.size("hidden_size")?;
    let num_attention_heads = or("num_attention_heads", defaults.num_attention_heads)?;
    let num_key_value_heads = match reader.optional_size("num_key_value_heads")?.or(defaults.num_key_value_heads) {
        Some(heads) => heads,
        None if defaults.kv_head_per_query_head => num_attention_heads,
        None => return Err(reader.missing("num_key_value_heads", "a whole number")),
    };
    let head_dim = match reader.optional_size("head_dim")?.or(defaults.head_dim) {
        Some(width) => width,
        None if num_attention_heads > 0 && hidden_size.is_multiple_of(num_attention_heads) => {
            hidden_size / num_attention_heads
        }
        None => {
            return Err(Error::Inconsistent {
                path: path.to_owned(),
                message: format!(
                    "`hidden_size` ({hidden_size}) must be a multiple of `num_attention_heads` ({num_attention_heads}) unless `head_dim` is given"
                ),
            });
        }
    };
    let positions = reader.optional_size("max_position_embeddings")?.unwrap_or(defaults.max_position_embeddings);
    let rope = RopeConfig::read(reader, &defaults, positions)?;
    let config = ModelConfig {
        model_type,
        architecture,
        vocab_size: or("vocab_size", defaults.vocab_size)?,
        hidden_size,
        intermediate_size: reader.size("intermediate_size")?,
        num_hidden_layers,
        num_attention_heads,
        num_key_value_heads,
        head_dim,
        max_position_embeddings: positions,
        rms_norm_eps: rms_norm_eps(reader)?.unwrap_or(defaults.rms_norm_eps),
        rope,
        tie_word_embeddings: reader.optional_bool("tie_word_embeddings")?.unwrap_or(defaults.tie_word_embeddings),
        design: model_type.family().read(reader)?,
        initializer_range: reader.optional_number("initializer_range")?.unwrap_or(defaults.initializer_range),
        dtype: dtype(reader)?,
        quantization: Quantization::read(reader)?,
        bos_token_id: reader.optional_token("bos_token_id")?,
        eos_token_ids: reader.tokens("eos_token_id")?,
        pad_token_id: reader.optional_token("pad_token_id")?,
        num_labels: num_labels(reader)?,
        raw: reader.map.clone(),
    };
    config.validate_at(path)?;
    Ok(config)
}

fn architecture(reader: &Reader<'_>, model_type: ModelType) -> Result<Architecture, Error> {
    let [causal, classify] =
        [Architecture::CausalLm, Architecture::SequenceClassification].map(|head| model_type.class(head));
    let expected = format!("[\"{causal}\"], [\"{classify}\"]");
    let Some(value) = reader.value("architectures") else {
        // Configurations made without a model leave it out.
        return Ok(Architecture::CausalLm);
    };
    match value.as_array().map(Vec::as_slice) {
        Some([name]) if *name == causal => Ok(Architecture::CausalLm),
        Some([name]) if *name == classify => Ok(Architecture::SequenceClassification),
        _ => Err(reader.unsupported("architectures", &expected)),
    }
}

fn refuse_unknown(reader: &Reader<'_>, model_type: ModelType, layers: usize) -> Result<(), Error> {
    let own = model_type.family().keys();
    reader.refuse_unknown(&|key| keys::READ.contains(&key) || own.contains(&key), layers)
}

/// transformers 5 writes `dtype` where older versions wrote `torch_dtype`.
fn dtype(reader: &Reader<'_>) -> Result<Option<FloatDType>, Error> {
    let read = |key| match reader.optional_text(key)? {
        None => Ok(None),
        Some("float32") => Ok(Some(FloatDType::F32)),
        Some("bfloat16") => Ok(Some(FloatDType::BF16)),
        Some("float16") => Ok(Some(FloatDType::F16)),
        Some(_) => Err(reader.unsupported(key, "\"float32\", \"bfloat16\", \"float16\"")),
    };
    match (read("dtype")?, read("torch_dtype")?) {
        (Some(new), Some(old)) if new != old => {
            Err(reader.unsupported("torch_dtype", "the same as `dtype`, or no such key"))
        }
        (new, old) => Ok(new.or(old)),
    }
}

/// transformers writes the number of labels as the size of a table of names; its default is two.
fn num_labels(reader: &Reader<'_>) -> Result<usize, Error> {
    let named = reader.object("id2label")?.map(Map::len);
    match (reader.optional_size("num_labels")?, named) {
        (Some(given), Some(named)) if given != named => {
            Err(reader.unsupported("num_labels", &format!("{named}, the number of entries of `id2label`")))
        }
        (given, named) => Ok(given.or(named).unwrap_or(2)),
    }
}
