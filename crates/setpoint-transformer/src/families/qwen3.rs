use serde_json::{Map, Value, json};

use super::qwen::layers;
use super::{Defaults, Family, GgufLayout, gguf};
use crate::Error;
use crate::config::{ModelConfig, Reader};
use crate::design::{Biases, Design, HeadNorms};

/// Qwen3: Llama with a norm of each query and key head.
pub(super) struct Qwen3;

impl Family for Qwen3 {
    fn model_type(&self) -> &'static str {
        "qwen3"
    }

    fn class_prefix(&self) -> &'static str {
        "Qwen3"
    }

    fn defaults(&self) -> Defaults {
        Defaults { max_position_embeddings: 32_768, head_dim: Some(128), ..Defaults::default() }
    }

    fn keys(&self) -> &'static [&'static str] {
        &["attention_bias", "layer_types", "max_window_layers", "sliding_window", "use_sliding_window"]
    }

    fn read(&self, file: &Reader<'_>) -> Result<Design, Error> {
        // One switch for all four projections of attention.
        let attention = file.optional_bool("attention_bias")?.unwrap_or(false);
        let biases = Biases { qkv: attention, output: attention, mlp: false };
        Ok(Design { biases, head_norms: HeadNorms::PerHead, layers: layers(file)?, ..Design::default() })
    }

    fn write(&self, config: &ModelConfig, map: &mut Map<String, Value>) {
        map.insert("attention_bias".to_owned(), json!(config.design.biases.qkv));
    }
    fn gguf(&self) -> Option<GgufLayout> {
        Some(GgufLayout::of("qwen3"))
    }

    fn gguf_problem(&self, config: &ModelConfig) -> Option<String> {
        gguf::biases(config)
    }
}
