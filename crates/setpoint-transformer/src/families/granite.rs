use serde_json::{Map, Value, json};

use super::{Defaults, Family, GgufLayout, switched_biases};
use crate::Error;
use crate::config::{ModelConfig, Reader};
use crate::design::{Design, Multipliers};

/// Granite 3: Llama with constant factors of embeddings, attention scores, residuals and logits (Yang et al., "μP",
/// <https://arxiv.org/abs/2203.03466>).
pub(super) struct Granite;

impl Family for Granite {
    fn model_type(&self) -> &'static str {
        "granite"
    }

    fn class_prefix(&self) -> &'static str {
        "Granite"
    }

    fn defaults(&self) -> Defaults {
        Defaults { kv_head_per_query_head: true, ..Defaults::default() }
    }

    fn keys(&self) -> &'static [&'static str] {
        &[
            "attention_bias",
            "attention_multiplier",
            "embedding_multiplier",
            "logits_scaling",
            "mlp_bias",
            "residual_multiplier",
        ]
    }

    fn read(&self, file: &Reader<'_>) -> Result<Design, Error> {
        let number = |key| Ok::<_, Error>(file.positive(key)?.unwrap_or(1.0));
        let multipliers = Multipliers {
            embeddings: number("embedding_multiplier")?,
            attention: Some(number("attention_multiplier")?),
            residual: number("residual_multiplier")?,
            // A divisor in the file.
            logits: number("logits_scaling")?.recip(),
        };
        Ok(Design { biases: switched_biases(file)?, multipliers, ..Design::default() })
    }

    fn write(&self, config: &ModelConfig, map: &mut Map<String, Value>) {
        map.insert("attention_bias".to_owned(), json!(config.design.biases.qkv));
        map.insert("mlp_bias".to_owned(), json!(config.design.biases.mlp));
    }
    fn gguf(&self) -> Option<GgufLayout> {
        Some(GgufLayout { states_multipliers: true, ..GgufLayout::like_llama("granite") })
    }
}
