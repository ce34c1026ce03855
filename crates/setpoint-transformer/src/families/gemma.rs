//! The parts that the families of Gemma have in common.

use serde_json::{Map, Value, json};

use super::gguf;
use crate::Error;
use crate::config::{ModelConfig, Reader};
use crate::design::{Activation, Biases, Design, Multipliers, NormPlacement, NormWeight};

/// The width that scores are scaled for (`query_pre_attn_scalar`) in files that leave it out.
const SCALED_FOR: f64 = 256.0;

/// The window of a file that does not state one.
const WINDOW: usize = 4096;

const GELU: &str = "gelu_pytorch_tanh";

/// Reads `attention_bias`, one switch for all four projections of attention.
pub(super) fn attention(file: &Reader<'_>) -> Result<Biases, Error> {
    let attention = file.optional_bool("attention_bias")?.unwrap_or(false);
    Ok(Biases { qkv: attention, output: attention, mlp: false })
}

/// Reads the keys that all have, and returns the design that follows.
pub(super) fn common(file: &Reader<'_>, biases: Biases) -> Result<Design, Error> {
    file.fixed_bool("use_bidirectional_attention", false, "false (attention is causal)")?;
    // `hidden_act` is of old files and has no effect next to `hidden_activation`.
    if file.optional_text("hidden_activation")?.is_some_and(|name| name != GELU) {
        return Err(file.unsupported("hidden_activation", &format!("\"{GELU}\"")));
    }
    let width = file.size("hidden_size")? as f64;
    Ok(Design {
        biases,
        norms: NormPlacement::Both,
        norm_weight: NormWeight::OnePlus,
        activation: Activation::GeluTanh,
        multipliers: Multipliers {
            embeddings: width.sqrt(),
            attention: Some(file.positive("query_pre_attn_scalar")?.unwrap_or(SCALED_FOR).sqrt().recip()),
            ..Multipliers::default()
        },
        ..Design::default()
    })
}

/// Reads the window of layers that have one.
pub(super) fn window(file: &Reader<'_>) -> Result<usize, Error> {
    let stated = file.keys().any(|key| key == "sliding_window");
    match file.window()? {
        Some(window) => Ok(window),
        None if stated => Err(file.unsupported("sliding_window", "a whole number above 0")),
        None => Ok(WINDOW),
    }
}

/// Writes the activation under the key that counts.
pub(super) fn write_activation(config: &ModelConfig, map: &mut Map<String, Value>) {
    map.insert("hidden_activation".to_owned(), json!(config.design.activation.name()));
}

/// Says what llama.cpp does not compute of a model of Gemma. It scales scores for the width of a head, or, in a model of `largest` layers, for
/// the share of a head in the width of the model; all layers but every `period`th have a window.
pub(super) fn gguf_problem(config: &ModelConfig, largest: usize, period: usize) -> Option<String> {
    let layers = config.num_hidden_layers;
    let share = config.hidden_size / config.num_attention_heads.max(1);
    let expected = if layers == largest { share } else { config.head_dim } as f64;
    let scaled_for = config.design.multipliers.attention.map_or(SCALED_FOR, |scale| scale.powi(-2));
    if (scaled_for / expected - 1.0).abs() > 1e-9 {
        return Some(format!(
            "`query_pre_attn_scalar` is {scaled_for:.0}, and llama.cpp computes with {expected} for a model of {layers} layers"
        ));
    }
    let sees_all = |i| config.design.layer(i).window.is_none();
    gguf::biases(config).or_else(|| gguf::pattern(config, "layer_types", period, sees_all))
}
