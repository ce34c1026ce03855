use serde_json::{Map, Value};

use super::gemma::{attention, common, gguf_problem, window, write_activation};
use super::{Defaults, Family, GgufLayout, WindowKey, layer_types};
use crate::Error;
use crate::config::{ModelConfig, Reader, RopeConfig};
use crate::design::{Design, HeadNorms, LayerDesign, LayerRope};

/// The text models of Gemma 3: norms of query and key heads, and five layers with a window and a rotary embedding of their own to one without.
pub(super) struct Gemma3;

/// Of so many layers the last has no window, unless the file says otherwise.
const PATTERN: usize = 6;

/// The base of the rotary frequencies of layers with a window, unless the file says otherwise.
const LOCAL_THETA: f64 = 10_000.0;

impl Family for Gemma3 {
    fn model_type(&self) -> &'static str {
        "gemma3_text"
    }

    fn class_prefix(&self) -> &'static str {
        "Gemma3"
    }

    fn classifier_prefix(&self) -> &'static str {
        "Gemma3Text"
    }

    fn defaults(&self) -> Defaults {
        // The files of the models with an image tower state few sizes.
        Defaults {
            vocab_size: Some(262_208),
            num_attention_heads: Some(8),
            num_key_value_heads: Some(4),
            max_position_embeddings: 131_072,
            head_dim: Some(256),
            tie_word_embeddings: true,
            rope_theta: 1_000_000.0,
            rope_by_layer: true,
            ..Defaults::default()
        }
    }

    fn keys(&self) -> &'static [&'static str] {
        &[
            "attention_bias",
            "attn_logit_softcapping",
            "cache_implementation",
            "final_logit_softcapping",
            "hidden_act",
            "hidden_activation",
            "layer_types",
            "query_pre_attn_scalar",
            "rope_local_base_freq",
            "sliding_window",
            "sliding_window_pattern",
            "use_bidirectional_attention",
        ]
    }

    fn read(&self, file: &Reader<'_>) -> Result<Design, Error> {
        let window = window(file)?;
        let pattern = file.optional_size("sliding_window_pattern")?.unwrap_or(PATTERN);
        if pattern == 0 {
            return Err(file.unsupported("sliding_window_pattern", "a whole number above 0"));
        }
        let layer = |sliding: bool| LayerDesign {
            rope: if sliding { LayerRope::Local } else { LayerRope::Global },
            window: sliding.then_some(window),
        };
        let sliding = layer_types(file, |i| !(i + 1).is_multiple_of(pattern))?;
        Ok(Design {
            head_norms: HeadNorms::PerHead,
            layers: sliding.into_iter().map(layer).collect(),
            attention_cap: file.positive("attn_logit_softcapping")?,
            logits_cap: file.positive("final_logit_softcapping")?,
            local_rope: Some(RopeConfig::read_local(file, LOCAL_THETA)?),
            ..common(file, attention(file)?)?
        })
    }

    fn write(&self, config: &ModelConfig, map: &mut Map<String, Value>) {
        write_activation(config, map);
    }
    fn gguf(&self) -> Option<GgufLayout> {
        Some(GgufLayout { window: WindowKey::Stated, ..GgufLayout::of("gemma3") })
    }

    fn gguf_problem(&self, config: &ModelConfig) -> Option<String> {
        // The 27B has 62 layers.
        if let Some(problem) = gguf_problem(config, 62, PATTERN) {
            return Some(problem);
        }
        if config.design.attention_cap.is_some() || config.design.logits_cap.is_some() {
            return Some("its scores or its logits are bounded, and llama.cpp bounds neither".to_owned());
        }
        let theta = config.design.local_rope.as_ref().map_or(LOCAL_THETA, |rope| rope.theta);
        (theta != LOCAL_THETA).then(|| {
            format!("`rope_theta` of its layers with a window is {theta}, and llama.cpp computes with {LOCAL_THETA}")
        })
    }
}
