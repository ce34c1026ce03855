use super::{Defaults, Family, GgufLayout, windowed};
use crate::Error;
use crate::config::{ModelConfig, Reader, RopeScaling};
use crate::design::Design;

/// Ministral 3: Mistral with YaRN, and with queries that grow along the text.
pub(super) struct Ministral3;

impl Family for Ministral3 {
    fn model_type(&self) -> &'static str {
        "ministral3"
    }

    fn class_prefix(&self) -> &'static str {
        "Ministral3"
    }

    fn defaults(&self) -> Defaults {
        // transformers assumes 8 key and value heads, whatever the model.
        Defaults {
            max_position_embeddings: 262_144,
            head_dim: Some(128),
            rms_norm_eps: 1e-5,
            queries_grow: true,
            ..Defaults::default()
        }
    }

    fn keys(&self) -> &'static [&'static str] {
        &["attention_bias", "mlp_bias", "sliding_window"]
    }

    fn read(&self, file: &Reader<'_>) -> Result<Design, Error> {
        file.fixed_bool("attention_bias", false, "false for ministral3")?;
        file.fixed_bool("mlp_bias", false, "false for ministral3")?;
        let window = file.window()?;
        Ok(Design { layers: windowed(file, |_| window)?, ..Design::default() })
    }

    fn gguf(&self) -> Option<GgufLayout> {
        Some(GgufLayout { yarn: true, ..GgufLayout::like_llama("mistral3") })
    }

    fn gguf_problem(&self, config: &ModelConfig) -> Option<String> {
        let RopeScaling::Yarn { truncate, attention_factor, mscale, .. } = config.rope.scaling else { return None };
        let fits = truncate && attention_factor.is_none() && mscale.is_none_or(|[above, _]| above == 1.0);
        (!fits).then(|| {
            "its YaRN has `truncate` false, an `attention_factor`, or another `mscale` than 1, and llama.cpp has none of these".to_owned()
        })
    }
}
