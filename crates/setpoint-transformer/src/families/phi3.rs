use super::{Defaults, Family, GgufLayout, WindowKey, gguf, windowed};
use crate::Error;
use crate::config::{ModelConfig, Reader};
use crate::design::{Design, Maps};

/// Phi-3, Phi-3.5 and Phi-4: Llama with fused projections, in Phi-4-mini with heads that turn in part.
pub(super) struct Phi3;

impl Family for Phi3 {
    fn model_type(&self) -> &'static str {
        "phi3"
    }

    fn class_prefix(&self) -> &'static str {
        "Phi3"
    }

    fn defaults(&self) -> Defaults {
        Defaults {
            max_position_embeddings: 4096,
            kv_head_per_query_head: true,
            rms_norm_eps: 1e-5,
            rotary_share: Some(1.0),
            original_positions: Some(4096),
            ..Defaults::default()
        }
    }

    fn keys(&self) -> &'static [&'static str] {
        &[
            "attention_bias",
            "embd_pdrop",
            "full_attn_mod",
            "interpolate_factor",
            "lm_head_bias",
            "mlp_bias",
            "original_max_position_embeddings",
            "partial_rotary_factor",
            "resid_pdrop",
            "sliding_window",
        ]
    }

    fn read(&self, file: &Reader<'_>) -> Result<Design, Error> {
        for key in ["attention_bias", "lm_head_bias", "mlp_bias"] {
            file.fixed_bool(key, false, "false for phi3")?;
        }
        for key in ["embd_pdrop", "resid_pdrop"] {
            if file.optional_number(key)?.is_some_and(|rate| rate != 0.0) {
                return Err(file.unsupported(key, "0 (no dropout is applied, in training or inference)"));
            }
        }
        // Of the code that came with Phi-4-mini; transformers knows no other value.
        for key in ["full_attn_mod", "interpolate_factor"] {
            if file.optional_number(key)?.is_some_and(|number| number != 1.0) {
                return Err(file.unsupported(key, "1"));
            }
        }
        let window = file.window()?;
        Ok(Design { maps: Maps::Fused, layers: windowed(file, |_| window)?, ..Design::default() })
    }
    fn gguf(&self) -> Option<GgufLayout> {
        Some(GgufLayout { long_rope: true, states_sizes: true, window: WindowKey::Zero, ..GgufLayout::of("phi3") })
    }

    fn gguf_problem(&self, config: &ModelConfig) -> Option<String> {
        gguf::head_widths(config)
    }
}
