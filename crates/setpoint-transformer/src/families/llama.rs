use serde_json::{Map, Value, json};

use super::{Defaults, Family, GgufLayout, switched_biases};
use crate::Error;
use crate::config::{ModelConfig, Reader};
use crate::design::Design;

/// Llama 2, 3, 3.1, 3.2 and the models that share their code, EuroLLM and SmolLM2 among them.
pub(super) struct Llama;

impl Family for Llama {
    fn model_type(&self) -> &'static str {
        "llama"
    }

    fn class_prefix(&self) -> &'static str {
        "Llama"
    }

    fn defaults(&self) -> Defaults {
        Defaults { max_position_embeddings: 2048, kv_head_per_query_head: true, ..Defaults::default() }
    }

    fn keys(&self) -> &'static [&'static str] {
        &["attention_bias", "mlp_bias"]
    }

    fn read(&self, file: &Reader<'_>) -> Result<Design, Error> {
        Ok(Design { biases: switched_biases(file)?, ..Design::default() })
    }

    fn gguf(&self) -> Option<GgufLayout> {
        Some(GgufLayout { rope_factors: true, ..GgufLayout::like_llama("llama") })
    }

    fn write(&self, config: &ModelConfig, map: &mut Map<String, Value>) {
        map.insert("attention_bias".to_owned(), json!(config.design.biases.qkv));
        map.insert("mlp_bias".to_owned(), json!(config.design.biases.mlp));
    }
}
