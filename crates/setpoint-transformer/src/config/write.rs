//! `config.json` out.

use burn::tensor::FloatDType;
use serde_json::{Map, Value, json};

use super::{Architecture, ModelConfig};

pub(super) fn to_map(config: &ModelConfig) -> Map<String, Value> {
    let mut map = config.raw.clone();
    let shape = [
        ("architectures", json!([config.model_type.class(config.architecture)])),
        ("model_type", json!(config.model_type.as_str())),
        ("vocab_size", json!(config.vocab_size)),
        ("hidden_size", json!(config.hidden_size)),
        ("intermediate_size", json!(config.intermediate_size)),
        ("num_hidden_layers", json!(config.num_hidden_layers)),
        ("num_attention_heads", json!(config.num_attention_heads)),
        ("num_key_value_heads", json!(config.num_key_value_heads)),
        ("head_dim", json!(config.head_dim)),
        ("hidden_act", json!(config.design.activation.name())),
        ("max_position_embeddings", json!(config.max_position_embeddings)),
        ("rms_norm_eps", json!(config.rms_norm_eps)),
        ("initializer_range", json!(config.initializer_range)),
        ("tie_word_embeddings", json!(config.tie_word_embeddings)),
    ];
    map.extend(shape.map(|(key, value)| (key.to_owned(), value)));
    config.model_type.family().write(config, &mut map);
    let ids = [
        ("bos_token_id", json!(config.bos_token_id)),
        ("eos_token_id", tokens(&config.eos_token_ids)),
        ("pad_token_id", json!(config.pad_token_id)),
    ];
    map.extend(ids.map(|(key, value)| (key.to_owned(), value)));
    config.rope.write(&mut map);

    // What is written is not quantised.
    map.shift_remove("quantization_config");

    // One of the two names, the newer one where the file had it.
    let newer = map.shift_remove("dtype").is_some();
    map.shift_remove("torch_dtype");
    if let Some(dtype) = config.dtype {
        map.insert(if newer { "dtype" } else { "torch_dtype" }.to_owned(), json!(dtype_name(dtype)));
    }
    if map.contains_key("layer_types") && !config.model_type.family().keys().contains(&"layer_types") {
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
