use serde_json::{Value, json};
use setpoint_transformer::checkpoint::parameters;
use setpoint_transformer::{Architecture, CausalLm, Error, ModelConfig, ModelType, RopeScaling};

use crate::support::{devices, golden, workspace};

fn llama() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_act": "silu", "rope_theta": 500000.0,
        "torch_dtype": "bfloat16", "bos_token_id": 1, "eos_token_id": [2, 3], "transformers_version": "4.46.3"
    })
}

fn qwen2() -> Value {
    let mut config = llama();
    config["model_type"] = json!("qwen2");
    config["architectures"] = json!(["Qwen2ForCausalLM"]);
    config["use_sliding_window"] = json!(false);
    config["sliding_window"] = json!(32768);
    config["max_window_layers"] = json!(1);
    config
}

fn with(mut config: Value, key: &str, value: Value) -> Result<ModelConfig, Error> {
    config[key] = value;
    ModelConfig::from_json(&config.to_string())
}

#[test]
fn both_spellings_of_transformers_mean_the_same() {
    for dir in golden() {
        let new = ModelConfig::from_dir(&dir).unwrap();
        let old = ModelConfig::from_file(&dir.join("config_v4.json")).unwrap();
        let fields = |c: &ModelConfig| {
            let sizes = [c.vocab_size, c.hidden_size, c.intermediate_size, c.num_hidden_layers, c.num_attention_heads];
            let more = [c.num_key_value_heads, c.head_dim, c.max_position_embeddings];
            let flags = (c.tie_word_embeddings, c.design.clone());
            let ids = (c.bos_token_id, c.eos_token_ids.clone(), c.pad_token_id);
            let kinds = (c.model_type, c.architecture, c.dtype, c.rope.clone());
            (sizes, more, flags, ids, kinds, c.rms_norm_eps, c.initializer_range)
        };
        assert_eq!(fields(&new), fields(&old), "{}", dir.display());
        // Written and read again, nothing is lost, in the spelling of the file.
        for config in [&new, &old] {
            let again = ModelConfig::from_json(&config.to_json().to_string()).unwrap();
            assert_eq!(fields(config), fields(&again));
            let keys = |config: &ModelConfig| ["rope_parameters", "dtype"].map(|key| config.extra(key).is_some());
            assert_eq!(keys(config), keys(&again));
        }
        assert!(new.extra("dtype").is_some() && old.extra("torch_dtype").is_some());
    }
}

#[test]
fn parameter_counts_are_those_of_transformers() {
    let counts: Value =
        serde_json::from_str(&std::fs::read_to_string(workspace().join("tests/golden/models.json")).unwrap()).unwrap();
    let counts = counts.as_object().unwrap();
    assert!(counts.len() >= 10);
    for (name, expected) in counts {
        let mut config = ModelConfig::from_dir(&workspace().join("models").join(name)).unwrap();
        assert_eq!(json!(config.num_parameters()), expected["parameters"], "{name}");
        config.architecture = Architecture::SequenceClassification;
        config.num_labels = 1;
        assert_eq!(json!(config.num_parameters()), expected["reward_parameters"], "{name}");
    }
}

#[test]
fn biases_are_where_the_family_has_them() {
    let biases = |config: Result<ModelConfig, Error>| -> Vec<String> {
        let config = config.unwrap();
        let list = parameters(&CausalLm::zeros(&config, &devices()[0]));
        let count: usize = list.iter().map(|parameter| parameter.shape.iter().product::<usize>()).sum();
        assert_eq!(count as u64, config.num_parameters());
        let names =
            list.into_iter().filter_map(|parameter| parameter.name.strip_prefix("model.layers.1.").map(str::to_owned));
        names.filter_map(|name| name.strip_suffix(".bias").map(str::to_owned)).collect()
    };
    let qkv = ["q_proj", "k_proj", "v_proj"].map(|name| format!("self_attn.{name}")).to_vec();
    assert_eq!(biases(with(qwen2(), "use_cache", json!(true))), qkv);
    assert_eq!(biases(with(llama(), "use_cache", json!(true))), Vec::<String>::new());
    let all = [qkv, vec!["self_attn.o_proj".to_owned()]].concat();
    assert_eq!(biases(with(llama(), "attention_bias", json!(true))), all);
    assert_eq!(biases(with(llama(), "mlp_bias", json!(true))), ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]);
}

#[test]
fn a_reward_model_states_its_label() {
    let mut config = ModelConfig::from_json(&llama().to_string()).unwrap();
    config.architecture = Architecture::SequenceClassification;
    config.num_labels = 1;
    config.set_extra("setpoint_reward_mean", json!(0.25));
    let written = config.to_json();
    assert_eq!(written["architectures"], json!(["LlamaForSequenceClassification"]));
    assert_eq!(written["id2label"], json!({"0": "LABEL_0"}));
    let read = ModelConfig::from_json(&written.to_string()).unwrap();
    assert_eq!((read.num_labels, read.extra("setpoint_reward_mean")), (1, Some(&json!(0.25))));
}

#[test]
fn every_family_is_written_as_it_is_read() {
    for family in ModelType::all() {
        let architectures = [Architecture::CausalLm, Architecture::SequenceClassification];
        let configs = golden().into_iter().map(|dir| ModelConfig::from_dir(&dir).unwrap());
        for mut config in configs.filter(|config| config.model_type == family) {
            for architecture in architectures {
                config.architecture = architecture;
                let written = config.to_json();
                assert_eq!(written["model_type"], json!(family.as_str()));
                assert_eq!(written["architectures"], json!([family.class(architecture)]));
                let read = ModelConfig::from_json(&written.to_string()).unwrap();
                assert_eq!((read.model_type, read.architecture, &read.design), (family, architecture, &config.design));
                assert_eq!(read.to_json(), written);
            }
        }
        // A class of another family is refused, and the message names those of this one.
        let other = ModelType::all().find(|&other| other != family).unwrap();
        let mut config = llama();
        config["model_type"] = json!(family.as_str());
        let error = with(config, "architectures", json!([other.class(Architecture::CausalLm)])).unwrap_err();
        for architecture in architectures {
            assert!(error.to_string().contains(&family.class(architecture)), "{error}");
        }
    }
    let error = with(llama(), "model_type", json!("gpt2")).unwrap_err().to_string();
    let absent = with(llama(), "model_type", Value::Null).unwrap_err().to_string();
    for family in ModelType::all() {
        let name = format!("\"{family}\"");
        assert!(error.contains(&name) && absent.contains(&name), "{error}; {absent}");
    }
}

#[test]
fn unknown_keys_are_kept_if_harmless_and_refused_otherwise() {
    let config = with(llama(), "_name_or_path", json!("x")).unwrap();
    assert_eq!(config.to_json()["_name_or_path"], json!("x"));
    assert_eq!(config.to_json()["transformers_version"], json!("4.46.3"));
    let error = with(llama(), "residual_multiplier", json!(0.5)).unwrap_err();
    assert!(matches!(&error, Error::UnknownKey { key, .. } if key == "residual_multiplier"), "{error}");
    assert!(error.to_string().contains("0.5"), "{error}");
    // Null is the same as absent.
    with(llama(), "residual_multiplier", Value::Null).unwrap();
}

#[test]
fn unsupported_values_are_named() {
    let llama31 = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192});
    let scaling = with(llama(), "rope_scaling", llama31.clone()).unwrap().rope.scaling;
    assert!(matches!(scaling, RopeScaling::Llama3 { original_max_position_embeddings: 8192, .. }));
    let mut extra = llama31;
    extra["attention_factor"] = json!(2.0);
    let cases = [
        (llama(), "model_type", json!("gpt2"), "model_type"),
        (llama(), "architectures", json!(["LlamaModel"]), "architectures"),
        (llama(), "hidden_size", json!("32"), "hidden_size"),
        (llama(), "hidden_size", json!(-32), "hidden_size"),
        (llama(), "hidden_act", json!("gelu"), "hidden_act"),
        (llama(), "attention_dropout", json!(0.1), "attention_dropout"),
        (llama(), "pretraining_tp", json!(2), "pretraining_tp"),
        (llama(), "sliding_window", json!(4096), "sliding_window"),
        (llama(), "partial_rotary_factor", json!(0.5), "partial_rotary_factor"),
        (llama(), "quantization_config", json!({"bits": 4}), "quantization_config"),
        (llama(), "torch_dtype", json!("float8_e4m3fn"), "torch_dtype"),
        (llama(), "dtype", json!("float32"), "torch_dtype"),
        (llama(), "eos_token_id", json!(["x"]), "eos_token_id"),
        (llama(), "tie_word_embeddings", json!(1), "tie_word_embeddings"),
        (llama(), "rope_scaling", json!({"type": "mrope", "factor": 2.0}), "rope_scaling.type"),
        (llama(), "rope_scaling", json!({"rope_type": "ntk", "factor": 2.0}), "rope_scaling.rope_type"),
        (llama(), "rope_scaling", json!({"rope_type": "linear", "type": "llama3", "factor": 2.0}), "rope_scaling.type"),
        (llama(), "rope_scaling", extra, "rope_scaling.attention_factor"),
        (llama(), "rope_parameters", json!({"rope_type": "default", "rope_theta": 1e4}), "rope_theta"),
        (llama(), "use_sliding_window", json!(true), "use_sliding_window"),
        (qwen2(), "layer_types", json!(["full_attention", "sliding_attention"]), "layer_types"),
        (qwen2(), "layer_types", json!(["full_attention"]), "layer_types"),
        (qwen2(), "attention_bias", json!(false), "attention_bias"),
        (qwen2(), "num_labels", json!("one"), "num_labels"),
    ];
    for (config, key, value, named) in cases {
        let error = with(config, key, value.clone()).unwrap_err();
        assert!(matches!(&error, Error::UnsupportedValue { key, .. } if key == named), "{key} = {value}: {error}");
        assert!(error.to_string().contains(&format!("`{named}`")), "{error}");
    }
}

#[test]
fn keys_without_which_there_is_no_model_are_asked_for() {
    for key in
        ["model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"]
    {
        let error = with(llama(), key, Value::Null).unwrap_err();
        assert!(matches!(&error, Error::MissingKey { key: found, .. } if found == key), "{error}");
    }
    let error = with(qwen2(), "num_key_value_heads", Value::Null).unwrap_err();
    assert!(matches!(error, Error::MissingKey { .. }), "{error}");
    assert_eq!(with(llama(), "num_key_value_heads", Value::Null).unwrap().num_key_value_heads, 4);
    let error = with(llama(), "rope_scaling", json!({"rope_type": "llama3", "factor": 8.0})).unwrap_err();
    assert!(error.to_string().contains("rope_scaling.low_freq_factor"), "{error}");
}

#[test]
fn values_that_contradict_each_other_are_named() {
    for (key, value, named) in [
        ("num_key_value_heads", json!(3), "multiple of `num_key_value_heads` (3)"),
        ("num_key_value_heads", json!(0), "`num_key_value_heads` is 0"),
        ("num_attention_heads", json!(0), "`num_attention_heads` (0)"),
        ("num_attention_heads", json!(6), "`hidden_size` (32)"),
        ("head_dim", json!(7), "`head_dim` is 7"),
        ("rms_norm_eps", json!(-1.0), "`rms_norm_eps` is -1"),
        ("eos_token_id", json!(96), "`eos_token_id` 96"),
        ("rope_theta", json!(0.0), "`rope_theta` is 0"),
        ("vocab_size", json!(0), "`vocab_size` is 0"),
    ] {
        let error = with(llama(), key, value).unwrap_err();
        assert!(matches!(error, Error::Inconsistent { .. } | Error::UnsupportedValue { .. }), "{error}");
        assert!(error.to_string().contains(named), "{error}");
    }
}

#[test]
fn text_that_is_no_object_is_located() {
    let error = ModelConfig::from_json("{\n  \"model_type\": llama\n}").unwrap_err();
    assert!(matches!(error, Error::Json { .. }) && error.to_string().contains("line 2"), "{error}");
    assert!(matches!(ModelConfig::from_json("[]").unwrap_err(), Error::Json { .. }));
    let error = ModelConfig::from_file(&workspace().join("no/config.json")).unwrap_err();
    assert!(matches!(error, Error::Read { .. }), "{error}");
}

#[test]
fn sizes_without_bounds_are_named() {
    let sizes = [
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "max_position_embeddings",
    ];
    let mut explicit = llama();
    explicit["head_dim"] = json!(8);
    for key in sizes {
        for value in
            [json!(0), json!(-1), json!(2.5), json!(1e18), json!(u64::MAX), json!(1_000_000_000_000_000_000_u64)]
        {
            let message = with(explicit.clone(), key, value.clone()).unwrap_err().to_string();
            assert!(message.contains(key) || message.contains("parameters"), "{key} = {value}: {message}");
            assert!(!message.contains('\n'), "{message}");
        }
    }
    let message = with(llama(), "num_hidden_layers", json!(2_000_000_000)).unwrap_err().to_string();
    assert!(message.contains("`num_hidden_layers` is 2000000000; expected 1 to 10000"), "{message}");
    let message = with(llama(), "hidden_size", json!(1_000_000_000)).unwrap_err().to_string();
    assert!(message.contains("parameters") && message.contains("bytes in f32"), "{message}");
    // All at once: the product is far beyond 64 bits.
    let mut all = explicit;
    sizes.iter().for_each(|key| all[key] = json!(i32::MAX));
    assert!(ModelConfig::from_json(&all.to_string()).unwrap_err().to_string().contains("parameters"));
}
