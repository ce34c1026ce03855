use serde_json::{Map, Value, json};

use super::{Defaults, Family, GgufLayout, gguf, switched_biases};
use crate::Error;
use crate::config::{ModelConfig, Reader};
use crate::design::{Design, LayerDesign, LayerRope};

/// SmolLM3: Llama whose every fourth layer does not know positions (Yang et al., <https://arxiv.org/abs/2501.18795>).
pub(super) struct SmolLm3;

/// Of so many layers one has no rotary embedding, unless the file says otherwise.
const INTERVAL: usize = 4;

impl Family for SmolLm3 {
    fn model_type(&self) -> &'static str {
        "smollm3"
    }

    fn class_prefix(&self) -> &'static str {
        "SmolLM3"
    }

    fn defaults(&self) -> Defaults {
        Defaults {
            max_position_embeddings: 32_768,
            tie_word_embeddings: true,
            rope_theta: 2_000_000.0,
            ..Defaults::default()
        }
    }

    fn keys(&self) -> &'static [&'static str] {
        // `pretraining_tp` and `max_window_layers` have no effect in transformers.
        &[
            "attention_bias",
            "max_window_layers",
            "mlp_bias",
            "no_rope_layer_interval",
            "no_rope_layers",
            "pretraining_tp",
        ]
    }

    fn read(&self, file: &Reader<'_>) -> Result<Design, Error> {
        let layer = |rotates| LayerDesign {
            rope: if rotates { LayerRope::Global } else { LayerRope::Absent },
            ..LayerDesign::default()
        };
        let count = file.layers()?;
        let layers: Vec<LayerDesign> = match file.value("no_rope_layers") {
            // 1 for a layer with the embedding and 0 for one without, whatever the name says.
            Some(list) => {
                let read = |value: &Value| match value.as_u64() {
                    Some(rotates @ 0..=1) => Some(layer(rotates == 1)),
                    _ => None,
                };
                let layers = list.as_array().and_then(|list| list.iter().map(read).collect::<Option<Vec<_>>>());
                layers.filter(|layers| layers.len() == count).ok_or_else(|| {
                    file.unsupported("no_rope_layers", &format!("a list of {count} numbers, 1 or 0 for each layer"))
                })?
            }
            None => {
                let interval = file.optional_size("no_rope_layer_interval")?.unwrap_or(INTERVAL);
                if interval == 0 {
                    return Err(file.unsupported("no_rope_layer_interval", "a whole number above 0"));
                }
                (1..=count).map(|i| layer(!i.is_multiple_of(interval))).collect()
            }
        };
        Ok(Design { biases: switched_biases(file)?, layers, ..Design::default() })
    }

    fn write(&self, config: &ModelConfig, map: &mut Map<String, Value>) {
        map.insert("attention_bias".to_owned(), json!(config.design.biases.qkv));
        map.insert("mlp_bias".to_owned(), json!(config.design.biases.mlp));
    }
    fn gguf(&self) -> Option<GgufLayout> {
        Some(GgufLayout::like_llama("smollm3"))
    }

    fn gguf_problem(&self, config: &ModelConfig) -> Option<String> {
        let is_absent = |i| config.design.layer(i).rope == LayerRope::Absent;
        gguf::biases(config).or_else(|| gguf::pattern(config, "no_rope_layers", INTERVAL, is_absent))
    }
}
