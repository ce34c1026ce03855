//! The text part of models with an image tower: what transformers computes from text with the whole, the folders that are written, and files
//! that are refused.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::activation;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};
use setpoint_transformer::checkpoint::Checkpoint;
use setpoint_transformer::{CausalLm, Error, GenerationConfig, LoadOptions, ModelConfig, SaveOptions, generate};

use crate::golden::{PASSES, host, logits, rows};
use crate::support::{arrays, devices, ids, json, load, workspace};

const CASES: [&str; 3] = ["gemma3", "mistral3", "ministral3"];

fn case(name: &str) -> PathBuf {
    workspace().join("tests/golden/multimodal").join(name)
}

/// A copy of a case with other settings, and with the names of its tensors as `rename` has them.
fn changed(name: &str, change: impl FnOnce(&mut Value), rename: impl Fn(&str) -> Vec<String>) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut config = json(&case(name).join("config.json"));
    change(&mut config);
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    let bytes = std::fs::read(case(name).join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensors: Vec<(String, TensorView<'_>)> =
        file.iter().flat_map(|(name, view)| rename(name).into_iter().map(move |name| (name, view.clone()))).collect();
    safetensors::serialize_to_file(tensors, None, &dir.path().join("model.safetensors")).unwrap();
    dir
}

fn unchanged(name: &str) -> Vec<String> {
    vec![name.to_owned()]
}

fn assert_computes(dir: &Path, case: &Path) {
    let expected = arrays(&case.join("expected.safetensors"));
    let (v, width) = (expected["logits"].shape[2], expected["logits"].shape[1]);
    let greedy = json(&case.join("greedy.json"));
    for device in devices() {
        let (model, config) = load(dir, &device);
        let rows = rows(case);
        for pass in PASSES {
            for (i, (row, logits)) in rows.iter().zip(logits(&model, &config, &rows, pass)).enumerate() {
                let log_softmax = host(activation::log_softmax(logits.clone(), 1));
                let logits = host(logits);
                for t in 0..row.len() {
                    for id in 0..v {
                        let error = f64::from(logits[t * v + id]) - expected["logits"].values[(i * width + t) * v + id];
                        assert!(error.abs() < 1e-4, "{} {pass:?} row {i} token {t}: {error}", dir.display());
                    }
                    if let Some(&next) = row.get(t + 1) {
                        let found = f64::from(log_softmax[t * v + next as usize]);
                        let expected = expected["logps"].values[i * (width - 1) + t];
                        let error = (found - expected).abs();
                        assert!(error < 1e-5 * expected.abs().max(1.0), "{} row {i} token {t}: {error}", dir.display());
                    }
                }
            }
        }
        let max_new_tokens = greedy["max_new_tokens"].as_u64().unwrap() as usize;
        for row in greedy["rows"].as_array().unwrap() {
            let settings = GenerationConfig { max_new_tokens, ..GenerationConfig::default() };
            let found = generate(&model, &[ids(&row["prompt"])], &settings, 0).unwrap();
            assert_eq!(found[0].ids, ids(&row["greedy"]), "{}", dir.display());
        }
    }
}

/// The names and shapes of the tensors in a folder's file.
fn shapes(dir: &Path) -> BTreeMap<String, Vec<usize>> {
    let bytes = std::fs::read(dir.join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    file.iter().map(|(name, view)| (name.to_owned(), view.shape().to_vec())).collect()
}

#[test]
fn text_is_computed_as_by_the_whole_model() {
    for name in CASES {
        assert_computes(&case(name), &case(name));
    }
}

#[test]
fn a_saved_folder_is_the_text_model_of_transformers() {
    let [flex, _] = devices();
    for name in CASES {
        let (model, config) = CausalLm::load(&case(name), &LoadOptions::default(), &flex).unwrap();
        let folder = tempfile::tempdir().unwrap();
        model.save(&config, folder.path(), &SaveOptions::default()).unwrap();
        let expected = json(&case(name).join("text_part.json"));
        let written = json(&folder.path().join("config.json"));
        for key in ["architectures", "model_type"] {
            assert_eq!(written[key], expected[key], "{name}");
        }
        for key in ["text_config", "vision_config", "image_token_index"] {
            assert!(written.get(key).is_none(), "{name}: {key}");
        }
        let wanted: BTreeMap<String, Vec<usize>> = serde_json::from_value(expected["shapes"].clone()).unwrap();
        assert_eq!(shapes(folder.path()), wanted, "{name}: no tensor is missing or unexpected");
        assert_computes(folder.path(), &case(name));
    }
}

#[test]
fn names_of_modules_are_read_as_those_of_files() {
    let of_modules = |name: &str| {
        vec![match name.strip_prefix("language_model.") {
            Some(rest) if rest.starts_with("lm_head") => rest.to_owned(),
            Some(rest) => rest.replacen("model.", "model.language_model.", 1),
            None => format!("model.{name}"),
        }]
    };
    for name in CASES {
        let dir = changed(name, |_| {}, of_modules);
        assert_computes(dir.path(), &case(name));
        let names = |dir: &Path| Checkpoint::open(dir).unwrap().names().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(names(dir.path()), names(&case(name)));
    }
}

#[test]
fn published_files_leave_most_sizes_out() {
    let published = json!({
        "architectures": ["Gemma3ForConditionalGeneration"], "boi_token_index": 255_999, "eoi_token_index": 256_000,
        "eos_token_id": [1, 106], "image_token_index": 262_144, "initializer_range": 0.02, "mm_tokens_per_image": 256,
        "model_type": "gemma3",
        "text_config": {
            "hidden_size": 2560, "intermediate_size": 10_240, "model_type": "gemma3_text", "num_hidden_layers": 34,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 1024
        },
        "torch_dtype": "bfloat16", "transformers_version": "4.50.0.dev0",
        "vision_config": {"hidden_size": 1152, "model_type": "siglip_vision_model"}
    });
    let config = ModelConfig::from_json(&published.to_string()).unwrap();
    // Counted by transformers.
    assert_eq!(config.num_parameters(), 3_880_263_168);
    assert_eq!((config.num_attention_heads, config.num_key_value_heads, config.head_dim), (8, 4, 256));
    assert_eq!((config.eos_token_ids.as_slice(), config.tie_word_embeddings), (&[1, 106][..], true));
    let written = config.to_json();
    assert_eq!(written["torch_dtype"], json!("bfloat16"));
    assert_eq!(ModelConfig::from_json(&written.to_string()).unwrap().to_json(), written);
}

fn tensor<'a>(dtype: Dtype, shape: &[usize], bytes: &'a [u8]) -> TensorView<'a> {
    TensorView::new(dtype, shape.to_vec(), bytes).unwrap()
}

/// Ministral 3 Instruct is published in 8-bit floats, with one scale for each matrix and one for its input.
#[test]
fn the_text_part_may_be_in_8_bit_floats() {
    const CODES: [(u8, f32); 6] = [(0x38, 1.0), (0xb8, -1.0), (0x30, 0.5), (0xc0, -2.0), (0x00, 0.0), (0x3c, 1.5)];
    let bytes = std::fs::read(case("ministral3").join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let is_map = |name: &str| name.starts_with("language_model.model.layers.") && name.ends_with("_proj.weight");
    let scale = 0.125f32.to_le_bytes();
    let (mut codes, mut values) = (BTreeMap::new(), BTreeMap::new());
    for (name, view) in file.iter().filter(|(name, _)| is_map(name)) {
        let picked = (0..view.shape().iter().product::<usize>()).map(|i| CODES[(i * i + name.len()) % CODES.len()]);
        codes.insert(name.to_owned(), picked.clone().map(|(code, _)| code).collect::<Vec<u8>>());
        values.insert(name.to_owned(), picked.flat_map(|(_, x)| (0.125 * x).to_le_bytes()).collect::<Vec<u8>>());
    }
    let written = |in_codes: bool| {
        let dir = tempfile::tempdir().unwrap();
        let mut config = json(&case("ministral3").join("config.json"));
        let mut tensors: Vec<(String, TensorView<'_>)> = Vec::new();
        for (name, view) in file.iter() {
            let module = name.trim_end_matches(".weight");
            match (codes.get(name), in_codes) {
                (Some(codes), true) => {
                    tensors.push((name.to_owned(), tensor(Dtype::F8_E4M3, view.shape(), codes)));
                    for part in ["weight_scale_inv", "activation_scale"] {
                        tensors.push((format!("{module}.{part}"), tensor(Dtype::F32, &[], &scale)));
                    }
                }
                (Some(_), false) => tensors.push((name.to_owned(), tensor(Dtype::F32, view.shape(), &values[name]))),
                (None, _) => tensors.push((name.to_owned(), view.clone())),
            }
        }
        if in_codes {
            config["quantization_config"] = json!({"activation_scheme": "static", "dequantize": false,
                "modules_to_not_convert": ["model.vision_tower", "model.multi_modal_projector", "lm_head"],
                "quant_method": "fp8", "weight_block_size": null});
        }
        std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
        safetensors::serialize_to_file(tensors, None, &dir.path().join("model.safetensors")).unwrap();
        dir
    };
    let (in_codes, plain) = (written(true), written(false));
    let rows = rows(&case("ministral3"));
    let [flex, _] = devices();
    let [found, expected] = [&in_codes, &plain].map(|dir| {
        let (model, config) = load(dir.path(), &flex);
        logits(&model, &config, &rows, PASSES[0]).into_iter().flat_map(host).map(f32::to_bits).collect::<Vec<u32>>()
    });
    assert!(found.len() > 1000 && found == expected, "codes times scales are the weights");
}

#[test]
fn settings_of_the_whole_count_for_the_text_part() {
    let read = |change: &dyn Fn(&mut Value)| {
        let mut config = json(&case("gemma3").join("config.json"));
        change(&mut config);
        ModelConfig::from_json(&config.to_string())
    };
    assert_eq!(read(&|_| {}).unwrap().eos_token_ids, [2, 3]);
    assert_eq!(read(&|config| config["eos_token_id"] = Value::Null).unwrap().eos_token_ids, [2]);
    // The head is tied as the text part says, or else as the whole does.
    let untied = read(&|config| {
        config["tie_word_embeddings"] = json!(false);
        config["text_config"]["tie_word_embeddings"] = Value::Null;
    });
    assert!(!untied.unwrap().tie_word_embeddings);
    assert!(read(&|config| config["tie_word_embeddings"] = json!(false)).unwrap().tie_word_embeddings);
    let quantized = json!({"quant_method": "bitsandbytes", "load_in_4bit": true, "bnb_4bit_quant_type": "nf4"});
    assert!(read(&|config| config["quantization_config"] = quantized.clone()).unwrap().quantization.is_some());
}

#[test]
fn files_that_do_not_fit_are_refused() {
    let refused = |name: &str, change: &dyn Fn(&mut Value)| {
        let dir = changed(name, change, unchanged);
        let message = ModelConfig::from_dir(dir.path()).unwrap_err().to_string();
        assert!(!message.contains('\n') && message.contains("config.json"), "{message}");
        message
    };
    for (name, key, value, said) in [
        ("gemma3", "architectures", json!(["Gemma3ForSequenceClassification"]), "[\"Gemma3ForConditionalGeneration\"]"),
        ("gemma3", "text_config", Value::Null, "the key `text_config` is missing"),
        ("gemma3", "text_config", json!([]), "`text_config` is []; supported: an object"),
        ("gemma3", "torch_dtype", json!("float64"), "`torch_dtype` is \"float64\""),
        ("mistral3", "some_switch", json!(true), "the key `some_switch` (value true) is not known"),
    ] {
        let message = refused(name, &|config| config[key] = value.clone());
        assert!(message.contains(said), "{message}");
    }
    for (name, key, value, said) in [
        ("gemma3", "hidden_size", json!("x"), "`text_config.hidden_size` is \"x\""),
        ("gemma3", "some_switch", json!(true), "the key `text_config.some_switch` (value true) is not known"),
        ("gemma3", "use_bidirectional_attention", json!(true), "`text_config.use_bidirectional_attention`"),
        (
            "mistral3",
            "model_type",
            json!("qwen3"),
            "`text_config.model_type` is \"qwen3\"; supported: \"mistral\" or \"ministral3\"",
        ),
        ("mistral3", "rope_parameters", json!({"rope_type": "x"}), "`text_config.rope_parameters.rope_type` is \"x\""),
    ] {
        let message = refused(name, &|config| config["text_config"][key] = value.clone());
        assert!(message.contains(said), "{message}");
    }
}

#[test]
fn tensors_that_have_no_place_are_named() {
    let refused = |rename: &dyn Fn(&str) -> Vec<String>| {
        let dir = changed("gemma3", |_| {}, rename);
        let error = CausalLm::load(dir.path(), &LoadOptions::default(), &devices()[0]).unwrap_err();
        (error.to_string(), matches!(error, Error::Header { .. }))
    };
    let norm = "language_model.model.norm.weight";
    let twice = |name: &str| {
        let other = (name == norm).then(|| "model.language_model.norm.weight".to_owned());
        [name.to_owned()].into_iter().chain(other).collect()
    };
    let (message, is_header) = refused(&twice);
    assert!(
        is_header && message.contains("`model.language_model.norm.weight`") && message.contains("also"),
        "{message}"
    );
    let other = |name: &str| vec![if name == norm { "audio_tower.norm.weight".to_owned() } else { name.to_owned() }];
    let (message, _) = refused(&other);
    assert!(message.contains("tensor `model.norm.weight` of shape [32] is missing"), "{message}");
    let added = |name: &str| {
        let other = (name == norm).then(|| "audio_tower.norm.weight".to_owned());
        [name.to_owned()].into_iter().chain(other).collect()
    };
    let (message, _) = refused(&added);
    assert!(message.contains("`audio_tower.norm.weight` of shape [32] has no place in the model"), "{message}");
    // Without its configuration a folder has the names of its files.
    let plain = changed("gemma3", |config| *config = json!({"model_type": "llama"}), unchanged);
    assert!(Checkpoint::open(plain.path()).unwrap().names().any(|name| name == norm));
}
