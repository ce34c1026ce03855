//! `config.json` out.

use burn::tensor::FloatDType;
use serde_json::{Map, Value, json};

use super::{Architecture, ModelConfig, ModelType};

pub(super) fn to_map(config: &ModelConfig) -> Map<String, Value> {
    let mut map = config.raw.clone();
    let mut set = |key: &str, value: Value| {
        map.insert(key.to_owned(), value);
    };
    let family = match config.model_type {
        ModelType::Llama => "Llama",
        ModelType::Qwen2 => "Qwen2",
    };
    let top = match config.architecture {
        Architecture::CausalLm => "ForCausalLM",
        Architecture::SequenceClassification => "ForSequenceClassification",
    };
    set("architectures", json!([format!("{family}{top}")]));
    set("model_type", json!(config.model_type.as_str()));
    set("vocab_size", json!(config.vocab_size));
    set("hidden_size", json!(config.hidden_size));
    set("intermediate_size", json!(config.intermediate_size));
    set("num_hidden_layers", json!(config.num_hidden_layers));
    set("num_attention_heads", json!(config.num_attention_heads));
    set("num_key_value_heads", json!(config.num_key_value_heads));
    set("head_dim", json!(config.head_dim));
    set("hidden_act", json!("silu"));
    set("max_position_embeddings", json!(config.max_position_embeddings));
    set("rms_norm_eps", json!(config.rms_norm_eps));
    set("initializer_range", json!(config.initializer_range));
    set("tie_word_embeddings", json!(config.tie_word_embeddings));
    if config.model_type == ModelType::Llama {
        set("attention_bias", json!(config.attention_bias));
        set("mlp_bias", json!(config.mlp_bias));
    }
    set("bos_token_id", json!(config.bos_token_id));
    set("eos_token_id", tokens(&config.eos_token_ids));
    set("pad_token_id", json!(config.pad_token_id));
    config.rope.write(&mut map);

    // One of the two names, the newer one where the file had it.
    let newer = map.shift_remove("dtype").is_some();
    map.shift_remove("torch_dtype");
    if let Some(dtype) = config.dtype {
        map.insert(if newer { "dtype" } else { "torch_dtype" }.to_owned(), json!(dtype_name(dtype)));
    }
    if map.contains_key("layer_types") {
        map.insert("layer_types".to_owned(), json!(vec!["full_attention"; config.num_hidden_layers]));
    }
    labels(config, &mut map);
    map
}

/// The name of a number format in `config.json`.
pub(crate) fn dtype_name(dtype: FloatDType) -> &'static str {
    match dtype {
        FloatDType::F64 => "float64",
        FloatDType::F32 | FloatDType::Flex32 => "float32",
        FloatDType::F16 => "float16",
        FloatDType::BF16 => "bfloat16",
    }
}

/// A single id is written as a number, as files have it.
pub(crate) fn tokens(ids: &[u32]) -> Value {
    match ids {
        [] => Value::Null,
        [id] => json!(id),
        ids => json!(ids),
    }
}

fn labels(config: &ModelConfig, map: &mut Map<String, Value>) {
    map.shift_remove("num_labels");
    let named = map.get("id2label").and_then(Value::as_object).map(Map::len);
    if config.architecture == Architecture::SequenceClassification && named != Some(config.num_labels) {
        let names = (0..config.num_labels).map(|i| (i.to_string(), json!(format!("LABEL_{i}"))));
        map.insert("id2label".to_owned(), Value::Object(names.collect()));
        let ids = (0..config.num_labels).map(|i| (format!("LABEL_{i}"), json!(i)));
        map.insert("label2id".to_owned(), Value::Object(ids.collect()));
    }
}
