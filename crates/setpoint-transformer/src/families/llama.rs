use serde_json::{Map, Value, json};

use super::{Biases, Defaults, Family, GgufLayout};
use crate::Error;
use crate::config::{ModelConfig, Reader};

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
        Defaults {
            max_position_embeddings: 2048,
            kv_head_per_query_head: true,
            rms_norm_eps: 1e-6,
            rope_theta: 10_000.0,
            initializer_range: 0.02,
        }
    }

    fn keys(&self) -> &'static [&'static str] {
        &["attention_bias", "mlp_bias"]
    }

    fn read(&self, file: &Reader<'_>) -> Result<Biases, Error> {
        // One switch for all four projections of attention.
        let attention = file.optional_bool("attention_bias")?.unwrap_or(false);
        let mlp = file.optional_bool("mlp_bias")?.unwrap_or(false);
        Ok(Biases { qkv: attention, output: attention, mlp })
    }

    fn gguf(&self) -> Option<GgufLayout> {
        Some(GgufLayout { architecture: "llama", neighbouring_pairs: true, rope_factors: true, states_sizes: true })
    }

    fn write(&self, config: &ModelConfig, map: &mut Map<String, Value>) {
        map.insert("attention_bias".to_owned(), json!(config.biases.qkv));
        map.insert("mlp_bias".to_owned(), json!(config.biases.mlp));
    }
}
