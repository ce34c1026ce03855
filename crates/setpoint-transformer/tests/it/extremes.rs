//! Configurations with numbers that no model has: refused in one sentence that names the key, or computed with finite numbers.

use serde_json::{Value, json};
use setpoint_transformer::{Error, ModelConfig, ModelType};

use crate::families::file;

fn read(family: &str, changes: Value) -> Result<ModelConfig, Error> {
    ModelConfig::from_json(&file(family, changes).to_string())
}

#[track_caller]
fn refused(family: &str, changes: Value, said: &str) {
    let message = read(family, changes).unwrap_err().to_string();
    assert!(message.contains(said) && !message.contains('\n') && message.len() < 1000, "{family}: {message}");
}

const SIZES: [&str; 8] = [
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "max_position_embeddings",
];

#[test]
fn sizes_that_no_model_has() {
    for family in ModelType::all().map(ModelType::as_str) {
        for key in SIZES {
            for value in [json!(0), json!(-1), json!(1.5), json!(1e300), json!("7"), json!([1]), json!({}), json!(true)]
            {
                refused(family, json!({key: value}), key);
            }
            for value in [u64::MAX, u64::MAX - 3, 1 << 62, 1 << 40] {
                let message = read(family, json!({key: value})).unwrap_err().to_string();
                // All sizes together may be what is too large.
                let is_named = message.contains(key) || message.contains("its sizes make");
                assert!(is_named && !message.contains('\n'), "{family}: {message}");
            }
        }
        refused(family, json!({"num_attention_heads": 4, "num_key_value_heads": 3}), "num_key_value_heads");
        refused(family, json!({"head_dim": 7}), "head_dim");
        for eps in [json!(-1.0), json!(1.0), json!(1e300), json!("0")] {
            refused(family, json!({"rms_norm_eps": eps}), "rms_norm_eps");
        }
        for id in [json!(96), json!(-1), json!(1u64 << 40), json!([2, 96]), json!("</s>")] {
            refused(family, json!({"eos_token_id": id}), "eos_token_id");
        }
    }
}

/// Python writes numbers that are not finite as words, which JSON does not have.
#[test]
fn words_for_numbers() {
    for family in ModelType::all().map(ModelType::as_str) {
        for word in ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"] {
            let text = file(family, json!({"rms_norm_eps": 17})).to_string();
            let message = ModelConfig::from_json(&text.replacen("17", word, 1)).unwrap_err().to_string();
            assert!(message.starts_with("config.json") && !message.contains('\n'), "{family}: {message}");
        }
    }
}

/// Settings of the rotary embedding, each a number of its own right, whose frequencies would be none.
#[test]
fn rotary_settings_without_frequencies() {
    let scaled = |kind: &str, changes: Value| {
        let mut scaling = json!({"rope_type": kind, "factor": 4.0});
        for (key, value) in changes.as_object().unwrap() {
            scaling[key] = value.clone();
        }
        scaling
    };
    for family in ["llama", "qwen2", "mistral", "qwen3", "olmo2", "smollm3", "granite"] {
        for theta in [json!(0.0), json!(-1e4), json!("x"), json!([1e4])] {
            refused(family, json!({"rope_theta": theta}), "rope_theta");
        }
        refused(family, json!({"rope_theta": 1e-300}), "no finite numbers");
        refused(family, json!({"rope_scaling": scaled("linear", json!({"factor": 1e-300}))}), "no finite numbers");
        for factor in [json!(0), json!(-2.0), json!("4"), Value::Null] {
            refused(family, json!({"rope_scaling": scaled("linear", json!({"factor": factor}))}), "factor");
            refused(family, json!({"rope_scaling": scaled("dynamic", json!({"factor": factor}))}), "factor");
        }
        // A base of 1 has the logarithm 0, by which YaRN divides.
        let yarn = scaled("yarn", json!({"original_max_position_embeddings": 4096}));
        refused(family, json!({"rope_theta": 1.0, "rope_scaling": yarn}), "no finite numbers");
        let huge = scaled("yarn", json!({"original_max_position_embeddings": 64, "attention_factor": 1e300}));
        refused(family, json!({"rope_scaling": huge}), "no finite numbers");
        for list in [json!([]), json!(["x"]), json!(7), json!({})] {
            refused(family, json!({"rope_scaling": list}), "rope_scaling");
        }
    }
    let both = |short: f64, long: f64| {
        let scaling =
            json!({"type": "longrope", "short_factor": [short, 1.0, 1.0, 1.0], "long_factor": [long, 1.0, 1.0, 1.0]});
        json!({"rope_scaling": scaling, "original_max_position_embeddings": 64})
    };
    assert!(read("phi3", both(1.0, 1.0)).is_ok());
    refused("phi3", both(1e-300, 1.0), "no finite numbers");
    refused("phi3", both(1.0, 1e-300), "no finite numbers");
    refused("phi3", both(0.0, 1.0), "short_factor");
    refused("phi3", both(1.0, 0.0), "long_factor");
    let local = json!({"rope_type": "default", "rope_theta": 1e-300});
    let full = json!({"rope_type": "default", "rope_theta": 1e6});
    let parts = json!({"rope_parameters": {"full_attention": full, "sliding_attention": local}});
    refused("gemma3_text", parts, "no finite numbers");
}

#[test]
fn factors_whose_reciprocal_is_no_number() {
    for (family, key) in [
        ("granite", "logits_scaling"),
        ("granite", "embedding_multiplier"),
        ("granite", "residual_multiplier"),
        ("granite", "attention_multiplier"),
        ("gemma2", "attn_logit_softcapping"),
        ("gemma2", "final_logit_softcapping"),
        ("gemma2", "query_pre_attn_scalar"),
        ("gemma3_text", "query_pre_attn_scalar"),
    ] {
        for number in [1e-320, 1e-45, 1e39, 1e300, -1.0, 0.0] {
            refused(family, json!({key: number}), key);
        }
        assert!(read(family, json!({key: 20.0})).is_ok(), "{family}: {key}");
    }
}
