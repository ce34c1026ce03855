//! What the families of Gemma have in common.

use serde_json::{Map, Value, json};

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
