use super::{Biases, Defaults, Family, GgufLayout};
use crate::Error;
use crate::config::Reader;

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
        Defaults {
            max_position_embeddings: 32_768,
            kv_head_per_query_head: false,
            rms_norm_eps: 1e-6,
            rope_theta: 10_000.0,
            initializer_range: 0.02,
        }
    }

    fn keys(&self) -> &'static [&'static str] {
        // Files state a window together with `use_sliding_window: false`; `true` is refused for every family.
        &["attention_bias", "max_window_layers", "mlp_bias", "sliding_window"]
    }

    fn read(&self, file: &Reader<'_>) -> Result<Biases, Error> {
        file.fixed_bool("attention_bias", true, "true for qwen2")?;
        file.fixed_bool("mlp_bias", false, "false for qwen2")?;
        Ok(Biases { qkv: true, output: false, mlp: false })
    }

    fn gguf(&self) -> Option<GgufLayout> {
        Some(GgufLayout { architecture: "qwen2", neighbouring_pairs: false, rope_factors: false, states_sizes: false })
    }
}
