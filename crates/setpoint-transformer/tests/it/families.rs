//! The keys of single families: which values are read, and which are refused.

use serde_json::{Value, json};
use setpoint_transformer::{Error, LayerRope, ModelConfig, ModelType, RopeSwitch};

/// The file of a small model of a family, with further keys.
pub(crate) fn file(family: &str, changes: Value) -> Value {
    let mut config = json!({
        "model_type": family, "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256, "rms_norm_eps": 1e-5
    });
    if family == "ministral3" {
        config["rope_parameters"] = growing(json!({}));
    }
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    config
}

/// Ministral 3's rotary settings, with others.
fn growing(changes: Value) -> Value {
    let mut rope = json!({"rope_type": "yarn", "rope_theta": 1e6, "factor": 16.0, "original_max_position_embeddings": 16,
        "mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.1});
    for (key, value) in changes.as_object().unwrap() {
        rope[key] = value.clone();
    }
    rope
}

fn read(family: &str, changes: Value) -> Result<ModelConfig, Error> {
    ModelConfig::from_json(&file(family, changes).to_string())
}

/// Checks that a value is refused, and that the message names its key.
#[track_caller]
fn refused(family: &str, changes: Value, key: &str) -> String {
    let message = read(family, changes).unwrap_err().to_string();
    assert!(message.contains(&format!("`{key}`")) && !message.contains('\n'), "{message}");
    message
}

fn windows(config: &ModelConfig) -> Vec<Option<usize>> {
    (0..config.num_hidden_layers).map(|i| config.design.layer(i).window).collect()
}

fn ropes(config: &ModelConfig) -> Vec<LayerRope> {
    (0..config.num_hidden_layers).map(|i| config.design.layer(i).rope).collect()
}

#[test]
fn families_that_are_not_computed_are_refused_with_the_reason() {
    for (family, reason) in [
        ("mixtral", "mixtures of experts"),
        ("qwen3_moe", "mixtures of experts"),
        ("deepseek_v3", "mixtures of experts"),
        ("llama4", "mixtures of experts"),
        ("qwen3_vl_moe", "mixtures of experts"),
        ("gemma3n", "google/gemma-3-4b-it"),
        ("mllama", "meta-llama/Llama-3.1-8B-Instruct"),
        ("phi4_multimodal", "microsoft/Phi-4-mini-instruct"),
        ("phi4mm", "microsoft/Phi-4-mini-instruct"),
        ("qwen2_vl", "Qwen/Qwen2.5-7B-Instruct"),
        ("qwen2_5_vl", "Qwen/Qwen2.5-7B-Instruct"),
        ("qwen3_vl", "Qwen/Qwen3-8B"),
        ("llava", "name the text model"),
        ("llava_next", "Granite Vision"),
        ("idefics3", "HuggingFaceTB/SmolLM2-1.7B-Instruct"),
    ] {
        let message = refused(family, json!({}), "model_type");
        assert!(message.contains(&format!("\"{family}\"; supported: ")) && message.contains(reason), "{message}");
        assert!(message.contains("the text parts of \"gemma3\" and \"mistral3\""), "{message}");
    }
    // Mixtures that are on no list state a number of experts, in the whole or in a part.
    for (family, experts) in [
        ("dbrx", json!({"ffn_config": {"moe_num_experts": 16}})),
        ("glm4_moe_lite", json!({"n_routed_experts": 64})),
        ("hunyuan_v1_moe", json!({"num_experts": [8, 8, 8, 8]})),
        ("minimax_m2", json!({"num_local_experts": 256})),
        ("qwen3_5_moe", json!({"text_config": {"num_experts": 256}, "vision_config": {}})),
        ("some_new_moe", json!({"num_routed_experts": 2})),
    ] {
        let message = refused(family, experts, "model_type");
        assert!(message.contains("mixtures of experts") && message.contains("without experts"), "{message}");
    }
    for dense in [json!(0), Value::Null] {
        let message = refused("some_new", json!({"num_local_experts": dense}), "model_type");
        assert!(!message.contains("mixtures"), "{message}");
    }
    // One that is on no list says itself that it has other inputs.
    let message = refused("some_new_vl", json!({"vision_config": {}}), "model_type");
    assert!(message.contains("images or sound"), "{message}");
    let message = refused("gpt2", json!({}), "model_type");
    assert!(!message.contains("mixtures") && !message.contains("images"), "{message}");
}

#[test]
fn a_key_of_another_family_is_refused() {
    for family in ModelType::all() {
        for (key, value, owner) in [
            ("no_rope_layers", json!([1, 0, 1, 0]), "smollm3"),
            ("logits_scaling", json!(8.0), "granite"),
            ("resid_pdrop", json!(0.0), "phi3"),
            ("rope_local_base_freq", json!(1e4), "gemma3_text"),
        ] {
            let found = read(family.as_str(), json!({key: value}));
            assert_eq!(found.is_ok(), family.as_str() == owner, "{family}: {key}");
        }
    }
}

#[test]
fn windows_are_read() {
    let mistral = |window: Value| windows(&read("mistral", json!({"sliding_window": window})).unwrap());
    assert_eq!(mistral(Value::Null), [None; 4]);
    assert_eq!(mistral(json!(7)), [Some(7); 4]);
    // Absent, it is the one of transformers.
    assert_eq!(windows(&read("mistral", json!({})).unwrap()), [Some(4096); 4]);
    for window in [json!(0), json!(-1), json!("x"), json!(1.5)] {
        refused("mistral", json!({"sliding_window": window}), "sliding_window");
    }
    for family in ["qwen2", "qwen3"] {
        let qwen = |changes: Value| read(family, changes).map(|config| windows(&config));
        let stated = json!({"sliding_window": 9, "use_sliding_window": true, "max_window_layers": 3});
        assert_eq!(qwen(stated).unwrap(), [None, None, None, Some(9)]);
        assert_eq!(qwen(json!({"sliding_window": 9, "use_sliding_window": false})).unwrap(), [None; 4]);
        // Of so few layers, none.
        assert_eq!(qwen(json!({"sliding_window": 9, "use_sliding_window": true})).unwrap(), [None; 4]);
        let types = ["full_attention", "sliding_attention", "full_attention", "full_attention"];
        let stated = json!({"sliding_window": 9, "use_sliding_window": true, "layer_types": types});
        assert_eq!(qwen(stated).unwrap(), [None, Some(9), None, None]);
        let message = refused(family, json!({"layer_types": types}), "layer_types");
        assert!(message.contains("unless `use_sliding_window` is true"), "{message}");
    }
    let gemma = |family, changes| windows(&read(family, changes).unwrap());
    assert_eq!(gemma("gemma2", json!({"sliding_window": 9})), [Some(9), None, Some(9), None]);
    let types = json!(["full_attention", "full_attention", "sliding_attention", "sliding_attention"]);
    let stated = json!({"sliding_window": 9, "layer_types": types});
    assert_eq!(gemma("gemma2", stated.clone()), [None, None, Some(9), Some(9)]);
    assert_eq!(gemma("gemma3_text", stated), [None, None, Some(9), Some(9)]);
    let every_third = json!({"sliding_window": 9, "sliding_window_pattern": 3});
    assert_eq!(gemma("gemma3_text", every_third), [Some(9), Some(9), None, Some(9)]);
    assert_eq!(gemma("gemma3_text", json!({})), [Some(4096); 4]);
    for family in ["gemma2", "gemma3_text"] {
        refused(family, json!({"sliding_window": null}), "sliding_window");
        refused(family, json!({"layer_types": ["full_attention"]}), "layer_types");
        refused(family, json!({"layer_types": vec!["chunked_attention"; 4]}), "layer_types");
        refused(family, json!({"use_bidirectional_attention": true}), "use_bidirectional_attention");
        refused(family, json!({"hidden_activation": "relu"}), "hidden_activation");
    }
    refused("gemma3_text", json!({"sliding_window_pattern": 0}), "sliding_window_pattern");
}

#[test]
fn bounds_of_gemma_2_have_the_published_values_if_they_are_absent() {
    let caps = |changes| {
        let design = read("gemma2", changes).unwrap().design;
        (design.attention_cap, design.logits_cap)
    };
    assert_eq!(caps(json!({})), (Some(50.0), Some(30.0)));
    assert_eq!(caps(json!({"attn_logit_softcapping": null, "final_logit_softcapping": 6.0})), (None, Some(6.0)));
    refused("gemma2", json!({"attn_logit_softcapping": 0.0}), "attn_logit_softcapping");
    refused("gemma2", json!({"final_logit_softcapping": -1.0}), "final_logit_softcapping");
}

#[test]
fn layers_without_positions_are_read() {
    use LayerRope::{Absent, Global};
    let smollm3 = |changes| ropes(&read("smollm3", changes).unwrap());
    assert_eq!(smollm3(json!({})), [Global, Global, Global, Absent]);
    assert_eq!(smollm3(json!({"no_rope_layer_interval": 2})), [Global, Absent, Global, Absent]);
    assert_eq!(smollm3(json!({"no_rope_layers": [0, 1, 1, 0]})), [Absent, Global, Global, Absent]);
    for list in [json!([1, 0]), json!([1, 0, 2, 0]), json!(1), json!(["a", 0, 0, 0])] {
        refused("smollm3", json!({"no_rope_layers": list}), "no_rope_layers");
    }
    refused("smollm3", json!({"no_rope_layer_interval": 0}), "no_rope_layer_interval");
    refused("smollm3", json!({"use_sliding_window": true}), "use_sliding_window");
}

#[test]
fn factors_of_granite_are_above_0() {
    let factors = read("granite", json!({"logits_scaling": 8.0, "attention_multiplier": 0.5})).unwrap();
    let factors = factors.design.multipliers;
    assert_eq!((factors.logits, factors.attention, factors.residual, factors.embeddings), (0.125, Some(0.5), 1.0, 1.0));
    for key in ["logits_scaling", "attention_multiplier", "residual_multiplier", "embedding_multiplier"] {
        for value in [json!(0), json!(-1.0), json!("x")] {
            refused("granite", json!({key: value}), key);
        }
    }
}

#[test]
fn the_growth_of_queries_is_read_and_written_with_yarn() {
    let with = |rope: Value| json!({"rope_parameters": growing(rope)});
    let published = json!({"type": "yarn", "max_position_embeddings": 256});
    let config = read("ministral3", with(published)).unwrap();
    assert_eq!((config.head_dim, config.max_position_embeddings), (128, 256));
    assert!((config.rope.magnitude() - 1.0).abs() < 1e-15);
    let written = config.to_json();
    assert_eq!(written["rope_parameters"]["llama_4_scaling_beta"], json!(0.1));
    assert_eq!(ModelConfig::from_json(&written.to_string()).unwrap().rope, config.rope);
    let mut old = growing(json!({}));
    let theta = old.as_object_mut().unwrap().shift_remove("rope_theta").unwrap();
    let old = json!({"rope_parameters": null, "rope_scaling": old, "rope_theta": theta});
    assert_eq!(read("ministral3", old).unwrap().rope, config.rope);
    assert_eq!(windows(&config), [None; 4]);
    assert_eq!(windows(&read("ministral3", json!({"sliding_window": 9})).unwrap()), [Some(9); 4]);
    for (changes, key) in [
        (json!({"llama_4_scaling_beta": null}), "rope_parameters.llama_4_scaling_beta"),
        (json!({"llama_4_scaling_beta": "x"}), "rope_parameters.llama_4_scaling_beta"),
        (json!({"llama_4_scaling_beta": -0.1}), "llama_4_scaling_beta"),
        (json!({"original_max_position_embeddings": 0}), "original_max_position_embeddings"),
        (json!({"rope_type": "default"}), "rope_parameters.rope_type"),
        (json!({"rope_type": "longrope"}), "rope_parameters.rope_type"),
        (json!({"short_factor": [1.0]}), "rope_parameters.short_factor"),
    ] {
        refused("ministral3", with(changes), key);
    }
    // transformers has settings of its own if the file has none; no published file is without them.
    refused("ministral3", json!({"rope_parameters": null}), "rope_parameters");
    refused("ministral3", json!({"attention_bias": true}), "attention_bias");
    // No other family knows the key.
    refused("qwen3", with(json!({})), "rope_parameters.llama_4_scaling_beta");
}

/// The rotary settings of a phi3 model whose heads of 8 turn in 6 of their elements.
fn longrope(changes: Value) -> Value {
    let mut scaling = json!({"type": "longrope", "short_factor": [1.0, 2.0, 4.0], "long_factor": [1.0, 3.0, 9.0]});
    for (key, value) in changes.as_object().unwrap() {
        scaling[key] = value.clone();
    }
    json!({"rope_scaling": scaling, "partial_rotary_factor": 0.75, "original_max_position_embeddings": 64})
}

#[test]
fn longrope_has_other_frequencies_for_long_texts() {
    let config = read("phi3", longrope(json!({}))).unwrap();
    assert_eq!((config.max_position_embeddings, config.rope.rotary_width(8)), (256, 6));
    assert_eq!(config.rope.switch(), RopeSwitch::at(64));
    assert_eq!(read("phi3", json!({})).unwrap().rope.switch(), RopeSwitch::default());
    // √(1 + ln(256/64) / ln 64)
    assert!((config.rope.magnitude() - (1.0 + 4f64.ln() / 64f64.ln()).sqrt()).abs() < 1e-15);
    let long = config.rope.long_inv_freq(8).unwrap();
    for (frequencies, factors) in [(config.rope.inv_freq(8), [1.0, 2.0, 4.0]), (long, [1.0, 3.0, 9.0])] {
        for (i, (found, factor)) in frequencies.iter().zip(factors).enumerate() {
            assert!((found - 10_000f64.powf(-(i as f64) / 3.0) / factor).abs() < 1e-12, "{i}: {found}");
        }
        assert_eq!(frequencies.len(), 3);
    }
    let written = config.to_json();
    assert_eq!(written["max_position_embeddings"], json!(256));
    assert_eq!(written["rope_scaling"]["long_factor"], json!([1.0, 3.0, 9.0]));
    assert_eq!(ModelConfig::from_json(&written.to_string()).unwrap().rope, config.rope);
    // The older name of the same.
    assert_eq!(read("phi3", longrope(json!({"type": "su"}))).unwrap().rope, config.rope);
    let message = refused("phi3", longrope(json!({"short_factor": [1.0]})), "short_factor");
    assert!(message.contains("has 1 numbers; expected one for each of the 3 pairs"), "{message}");
    refused("phi3", longrope(json!({"long_factor": [1.0, 0.0, 1.0]})), "long_factor");
    refused("phi3", longrope(json!({"long_factor": "x"})), "rope_scaling.long_factor");
}

#[test]
fn phi_3_knows_two_scalings_and_no_biases() {
    // transformers takes "yarn" for another name of longrope there.
    for kind in ["yarn", "linear", "llama3"] {
        let message = refused("phi3", json!({"rope_scaling": {"type": kind, "factor": 2.0}}), "rope_scaling.type");
        assert!(message.contains("\"default\", \"longrope\""), "{message}");
    }
    for key in ["attention_bias", "mlp_bias", "lm_head_bias"] {
        refused("phi3", json!({key: true}), key);
    }
    for (key, value) in [("resid_pdrop", 0.1), ("embd_pdrop", 0.1), ("full_attn_mod", 2.0), ("interpolate_factor", 2.0)]
    {
        refused("phi3", json!({key: value}), key);
    }
    for share in [0.0, 1.5, 0.4] {
        refused("phi3", json!({"partial_rotary_factor": share}), "partial_rotary_factor");
    }
    refused("llama", json!({"partial_rotary_factor": 0.5}), "partial_rotary_factor");
}

#[test]
fn numbers_of_yarn_are_checked() {
    let yarn = |changes: Value| {
        let mut scaling = json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64});
        for (key, value) in changes.as_object().unwrap() {
            scaling[key] = value.clone();
        }
        json!({"rope_scaling": scaling})
    };
    let config = read("qwen3", yarn(json!({}))).unwrap();
    assert!((config.rope.magnitude() - (0.1 * 4f64.ln() + 1.0)).abs() < 1e-15);
    let config = read("qwen3", yarn(json!({"attention_factor": 1.25}))).unwrap();
    assert!((config.rope.magnitude() - 1.25).abs() < 1e-15);
    let config = read("qwen3", yarn(json!({"mscale": 1.0, "mscale_all_dim": 1.0}))).unwrap();
    assert!((config.rope.magnitude() - 1.0).abs() < 1e-15);
    for (key, value) in [("factor", 0.0), ("beta_slow", -1.0), ("beta_fast", 0.5), ("attention_factor", 0.0)] {
        refused("qwen3", yarn(json!({key: value})), key);
    }
    refused("qwen3", yarn(json!({"short_factor": [1.0]})), "rope_scaling.short_factor");
    // Nothing is stretched within `max_position_embeddings`.
    let dynamic = read("llama", json!({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}})).unwrap();
    assert_eq!(dynamic.rope.inv_freq(8), read("llama", json!({})).unwrap().rope.inv_freq(8));
}

#[test]
fn the_embedding_of_layers_with_a_window_is_read_in_both_spellings() {
    let full = json!({"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0});
    let new = |local: Value| json!({"rope_parameters": {"full_attention": full, "sliding_attention": local}});
    let config = read("gemma3_text", new(json!({"rope_type": "default", "rope_theta": 500.0}))).unwrap();
    let local = config.design.local_rope.clone().unwrap();
    assert!((local.theta - 500.0).abs() < 1e-12 && (config.rope.theta - 1e6).abs() < 1e-6);
    let scaling = json!({"rope_type": "linear", "factor": 8.0});
    let old = json!({"rope_local_base_freq": 500.0, "rope_scaling": scaling, "rope_theta": 1e6});
    let old = read("gemma3_text", old).unwrap();
    assert_eq!((&old.rope, &old.design), (&config.rope, &config.design));
    let written = config.to_json();
    assert_eq!(written["rope_parameters"]["sliding_attention"]["rope_theta"], json!(500.0));
    assert_eq!(written["rope_parameters"]["full_attention"]["factor"], json!(8.0));
    let key = "rope_parameters.sliding_attention.rope_type";
    refused("gemma3_text", new(json!({"rope_type": "linear", "rope_theta": 500.0, "factor": 2.0})), key);
    // Other families have one embedding.
    let parts = json!({"rope_parameters": {"full_attention": full}});
    assert!(read("llama", parts).is_err());
}
