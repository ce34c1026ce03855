use serde_json::{Map, Value, json};

use super::{Defaults, Family, GgufLayout, gguf};
use crate::Error;
use crate::config::{ModelConfig, Reader};
use crate::design::{Biases, Design, HeadNorms, NormPlacement, NormWeight};

/// OLMo 2: norms after attention and the feed-forward network rather than before them, and norms of all queries and all keys of a token.
pub(super) struct Olmo2;

impl Family for Olmo2 {
    fn model_type(&self) -> &'static str {
        "olmo2"
    }

    fn class_prefix(&self) -> &'static str {
        "Olmo2"
    }

    fn defaults(&self) -> Defaults {
        Defaults { kv_head_per_query_head: true, rms_norm_eps: 1e-5, ..Defaults::default() }
    }

    fn keys(&self) -> &'static [&'static str] {
        &["attention_bias"]
    }

    fn read(&self, file: &Reader<'_>) -> Result<Design, Error> {
        // One switch for all four projections of attention.
        let attention = file.optional_bool("attention_bias")?.unwrap_or(false);
        Ok(Design {
            biases: Biases { qkv: attention, output: attention, mlp: false },
            norms: NormPlacement::After,
            norm_weight: NormWeight::Wide,
            head_norms: HeadNorms::Whole,
            ..Design::default()
        })
    }

    fn write(&self, config: &ModelConfig, map: &mut Map<String, Value>) {
        map.insert("attention_bias".to_owned(), json!(config.design.biases.qkv));
    }
    fn gguf(&self) -> Option<GgufLayout> {
        Some(GgufLayout::of("olmo2"))
    }

    fn gguf_problem(&self, config: &ModelConfig) -> Option<String> {
        let tied = || "its head is tied to the embeddings, and llama.cpp expects a matrix of its own".to_owned();
        let tied = config.tie_word_embeddings.then(tied);
        gguf::biases(config).or_else(|| gguf::head_widths(config)).or(tied)
    }
}
