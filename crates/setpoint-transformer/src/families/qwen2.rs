use super::qwen::layers;
use super::{Defaults, Family, GgufLayout, gguf};
use crate::Error;
use crate::config::{ModelConfig, Reader};
use crate::design::{Biases, Design};

/// Qwen2 and Qwen2.5: Llama with biases on the query, key and value projections.
pub(super) struct Qwen2;

impl Family for Qwen2 {
    fn model_type(&self) -> &'static str {
        "qwen2"
    }

    fn class_prefix(&self) -> &'static str {
        "Qwen2"
    }

    fn defaults(&self) -> Defaults {
        Defaults { max_position_embeddings: 32_768, ..Defaults::default() }
    }

    fn keys(&self) -> &'static [&'static str] {
        &["attention_bias", "layer_types", "max_window_layers", "mlp_bias", "sliding_window", "use_sliding_window"]
    }

    fn read(&self, file: &Reader<'_>) -> Result<Design, Error> {
        file.fixed_bool("attention_bias", true, "true for qwen2")?;
        file.fixed_bool("mlp_bias", false, "false for qwen2")?;
        let biases = Biases { qkv: true, ..Biases::default() };
        Ok(Design { biases, layers: layers(file)?, ..Design::default() })
    }

    fn gguf(&self) -> Option<GgufLayout> {
        Some(GgufLayout::of("qwen2"))
    }

    fn gguf_problem(&self, config: &ModelConfig) -> Option<String> {
        gguf::head_widths(config)
    }
}
