//! Special tokens: which there are, by the files of a tokenizer folder.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use setpoint_files::words;
use tokenizers::Tokenizer;

use super::options::EncoderOptions;
use crate::error::Error;
use crate::format::describe;
use crate::template::{BuiltIn, TemplateChoice};

/// The special tokens of a tokenizer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SpecialTokens {
    /// Begins a text.
    pub bos: Option<(String, u32)>,
    /// Ends a text, or a turn of a chat model.
    pub eos: Option<(String, u32)>,
    /// Fills rows of a batch. Nothing in this project depends on it; it is here for what is saved.
    pub pad: Option<(String, u32)>,
    /// Further ids that end a generation, as `generation_config.json` and `config.json` list them.
    pub(super) more_eos: Vec<u32>,
    /// All named ones as text, for the template: `bos_token`, `eos_token`, `unk_token` …
    pub(super) names: BTreeMap<String, String>,
    /// `add_bos_token` of `tokenizer_config.json`.
    pub(super) add_bos: Option<bool>,
}

const NAMES: [&str; 7] = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// Reads a JSON object from a file that may be absent.
pub(super) fn optional_json(path: &Path) -> Result<Option<Value>, Error> {
    let bytes = match setpoint_files::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.source.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    let failed = |reason: String| Err(Error::Tokenizer { path: path.to_owned(), reason });
    match serde_json::from_slice(&bytes) {
        Ok(value @ Value::Object(_)) => Ok(Some(value)),
        Ok(other) => failed(format!("expected an object, found {}", describe(&other))),
        Err(e) => failed(format!("not valid JSON: {}", words::json(&e))),
    }
}

impl SpecialTokens {
    /// Reads, in this order: the options, `tokenizer_config.json`, `special_tokens_map.json`, the ids of
    /// `generation_config.json` and `config.json`, and what the built-in template expects.
    pub(super) fn load(
        dir: &Path,
        config: &Value,
        tokenizer: &Tokenizer,
        options: &EncoderOptions,
    ) -> Result<Self, Error> {
        let mut this = Self { add_bos: config.get("add_bos_token").and_then(Value::as_bool), ..Self::default() };
        let map_path = dir.join("special_tokens_map.json");
        let map = optional_json(&map_path)?.unwrap_or_default();
        for (file, values) in [("tokenizer_config.json", config), ("special_tokens_map.json", &map)] {
            for name in NAMES {
                if let Some(text) = token_text(values.get(name), &dir.join(file), name)?
                    && !this.names.contains_key(name)
                {
                    this.names.insert(name.into(), text);
                }
            }
        }
        for (name, given) in [("bos_token", &options.bos_token), ("eos_token", &options.eos_token)] {
            if let Some(text) = given {
                this.names.insert(name.into(), text.clone());
            }
        }
        let model_dir = options.model_dir.as_deref().unwrap_or(dir);
        for file in ["generation_config.json", "config.json"] {
            let path = model_dir.join(file);
            // A generation's settings may be from another program, and only the one that generates has to understand them.
            let lenient = file == "generation_config.json";
            let values = match optional_json(&path) {
                Ok(Some(values)) => values,
                Ok(None) => continue,
                Err(Error::Tokenizer { .. }) if lenient => continue,
                Err(error) => return Err(error),
            };
            for (id_name, name) in
                [("bos_token_id", "bos_token"), ("eos_token_id", "eos_token"), ("pad_token_id", "pad_token")]
            {
                let ids = match token_ids(values.get(id_name), &path, id_name) {
                    Err(_) if lenient => Vec::new(),
                    ids => ids?,
                };
                if id_name == "eos_token_id" {
                    this.more_eos.extend(&ids);
                }
                // The ids are the model's word; the names are the tokenizer's, and win.
                if let Some(text) = ids.first().and_then(|id| tokenizer.id_to_token(*id)) {
                    this.names.entry(name.into()).or_insert(text);
                }
            }
        }
        if let TemplateChoice::BuiltIn(template) = &options.template {
            this.expect_of(*template, tokenizer);
        }
        this.bos = this.lookup("bos_token", dir, tokenizer)?;
        this.eos = this.lookup("eos_token", dir, tokenizer)?;
        this.pad = this.lookup("pad_token", dir, tokenizer)?;
        Ok(this)
    }

    fn expect_of(&mut self, template: BuiltIn, tokenizer: &Tokenizer) {
        let (bos, eos) = template.special_tokens();
        for (name, token) in [("bos_token", bos), ("eos_token", eos)] {
            if let Some(token) = token
                && tokenizer.token_to_id(token).is_some()
            {
                self.names.entry(name.into()).or_insert_with(|| token.to_owned());
            }
        }
    }

    fn lookup(&self, name: &str, dir: &Path, tokenizer: &Tokenizer) -> Result<Option<(String, u32)>, Error> {
        let Some(text) = self.names.get(name) else { return Ok(None) };
        match tokenizer.token_to_id(text) {
            Some(id) => Ok(Some((text.clone(), id))),
            None => Err(Error::Tokenizer {
                path: dir.to_owned(),
                reason: format!("{name} is {text:?}, which is not in the vocabulary. Name a token that is"),
            }),
        }
    }
}

/// A token as text, or as an object with `content`.
fn token_text(value: Option<&Value>, path: &Path, name: &str) -> Result<Option<String>, Error> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(other) => match other.get("content").and_then(Value::as_str) {
            Some(text) => Ok(Some(text.to_owned())),
            None => Err(Error::Tokenizer {
                path: path.to_owned(),
                reason: format!("`{name}`: expected text or an object with content, found {other}"),
            }),
        },
    }
}

/// An id, or a list of ids.
fn token_ids(value: Option<&Value>, path: &Path, name: &str) -> Result<Vec<u32>, Error> {
    let id = |v: &Value| v.as_u64().and_then(|id| u32::try_from(id).ok());
    let ids = match value {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(items)) => items.iter().map(id).collect(),
        Some(one) => id(one).map(|id| vec![id]),
    };
    ids.ok_or_else(|| Error::Tokenizer {
        path: path.to_owned(),
        reason: format!("`{name}`: expected a token id or a list of them, found {}", value.unwrap_or(&Value::Null)),
    })
}
