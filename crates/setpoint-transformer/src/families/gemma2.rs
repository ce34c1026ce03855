use serde_json::{Map, Value};

use super::gemma::{attention, common, gguf_problem, window, write_activation};
use super::{Defaults, Family, GgufLayout, WindowKey, layer_types};
use crate::Error;
use crate::config::{ModelConfig, Reader};
use crate::design::{Design, LayerDesign};

/// Gemma 2: bounded scores and logits, and a window in every other layer.
pub(super) struct Gemma2;

impl Family for Gemma2 {
    fn model_type(&self) -> &'static str {
        "gemma2"
    }

    fn class_prefix(&self) -> &'static str {
        "Gemma2"
    }

    fn defaults(&self) -> Defaults {
        Defaults {
            max_position_embeddings: 8192,
            head_dim: Some(256),
            tie_word_embeddings: true,
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
            "sliding_window",
            "use_bidirectional_attention",
        ]
    }

    fn read(&self, file: &Reader<'_>) -> Result<Design, Error> {
        let window = window(file)?;
        // The first layer has a window.
        let sliding = layer_types(file, |i| i.is_multiple_of(2))?;
        let layers = sliding
            .into_iter()
            .map(|sliding| LayerDesign { window: sliding.then_some(window), ..LayerDesign::default() });
        // Absent, a bound has the published value; null is none.
        let cap = |key: &str, default: f64| -> Result<Option<f64>, Error> {
            let stated = file.keys().any(|found| found == key);
            Ok(file.positive(key)?.or((!stated).then_some(default)))
        };
        Ok(Design {
            layers: layers.collect(),
            attention_cap: cap("attn_logit_softcapping", 50.0)?,
            logits_cap: cap("final_logit_softcapping", 30.0)?,
            ..common(file, attention(file)?)?
        })
    }

    fn write(&self, config: &ModelConfig, map: &mut Map<String, Value>) {
        write_activation(config, map);
    }
    fn gguf(&self) -> Option<GgufLayout> {
        Some(GgufLayout { window: WindowKey::Stated, ..GgufLayout::of("gemma2") })
    }

    fn gguf_problem(&self, config: &ModelConfig) -> Option<String> {
        // The 27B has 46 layers.
        if let Some(problem) = gguf_problem(config, 46, 2) {
            return Some(problem);
        }
        if config.design.attention_cap.is_none() || config.design.logits_cap.is_none() {
            return Some("its scores or its logits have no bound, and llama.cpp bounds both".to_owned());
        }
        let untied = !config.tie_word_embeddings;
        untied.then(|| "its head is a matrix of its own, and llama.cpp expects that of the embeddings".to_owned())
    }
}
