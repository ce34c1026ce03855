//! GGUF files against those of the `gguf` package, and models that they cannot hold.

use std::path::Path;

use serde_json::{Value as Json, json};
use setpoint_transformer::Error;
use setpoint_transformer::gguf::{Export, NumberFormat, Value};
use sha2::{Digest, Sha256};

use crate::support::{case, json, workspace};

const FORMATS: [(&str, NumberFormat); 4] = [
    ("f32", NumberFormat::F32),
    ("f16", NumberFormat::F16),
    ("bf16", NumberFormat::Bf16),
    ("q8_0", NumberFormat::Q8_0),
];

fn written(export: &Export, further: &[(String, Value)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    export.write("tiny", further, Path::new("tiny.gguf"), &mut bytes).unwrap();
    bytes
}

/// A copy of a case whose configuration has other values.
fn changed(name: &str, changes: &[(&str, Json)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut config = json(&case(name).join("config.json"));
    for (key, value) in changes {
        config[key] = value.clone();
    }
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    std::fs::copy(case(name).join("model.safetensors"), dir.path().join("model.safetensors")).unwrap();
    dir
}

fn refused(dir: &Path) -> String {
    Export::open(dir, NumberFormat::F32).unwrap_err().to_string()
}

#[test]
fn files_are_those_of_the_gguf_package() {
    let golden = json(&workspace().join("tests/golden/gguf.json"));
    let files = golden["files"].as_object().unwrap();
    assert!(files.len() >= 21);
    for (name, hashes) in files {
        for (key, format) in FORMATS {
            let bytes = written(&Export::open(&case(name), format).unwrap(), &[]);
            let hash: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hash, hashes[key], "{name} {key}");
        }
    }
}

#[test]
fn shards_give_the_same_tensors_as_one_file() {
    let lengths = ["llama_sharded", "llama_kv2"].map(|name| {
        let export = Export::open(&case(name), NumberFormat::Q8_0).unwrap();
        // Rows of 48 numbers are no multiple of a block.
        let in_f16: Vec<_> = export.in_f16_instead().collect();
        assert_eq!(in_f16, ["blk.0.ffn_down.weight", "blk.1.ffn_down.weight"]);
        written(&export, &[]).len()
    });
    assert_eq!(lengths[0], lengths[1]);
}

#[test]
fn further_keys_follow_the_models_own() {
    let export = Export::open(&case("qwen2_tied"), NumberFormat::F32).unwrap();
    let further = [
        ("a".to_owned(), Value::Bool(true)),
        ("b".to_owned(), Value::I32s(vec![-1])),
        ("c".to_owned(), Value::Texts(vec!["ü".to_owned()])),
        ("d".to_owned(), Value::F32s(vec![0.5])),
    ];
    let (plain, bytes) = (written(&export, &[]), written(&export, &further));
    assert_eq!(bytes[16], plain[16] + 4, "the number of keys");
    let list = |code: u8| [&[9, 0, 0, 0, code, 0, 0, 0, 1][..], &[0; 7]].concat();
    let key = |name: u8| [&[1, 0, 0, 0, 0, 0, 0, 0][..], &[name]].concat();
    let expected = [
        [key(b'a'), vec![7, 0, 0, 0, 1]].concat(),
        [key(b'b'), list(5), vec![0xff; 4]].concat(),
        [key(b'c'), list(8), vec![2, 0, 0, 0, 0, 0, 0, 0], "ü".into()].concat(),
        [key(b'd'), list(6), 0.5_f32.to_le_bytes().to_vec()].concat(),
    ]
    .concat();
    assert!(bytes.windows(expected.len()).any(|window| window == expected));
}

#[test]
fn models_that_a_file_cannot_hold_are_refused() {
    let classifier = [("architectures", json!(["LlamaForSequenceClassification"]))];
    let message = refused(changed("llama_kv2", &classifier).path());
    assert!(message.contains("holds a sequence classifier, not a causal language model"), "{message}");

    let message = refused(changed("llama_kv2", &[("num_hidden_layers", json!(3))]).path());
    assert!(message.contains("tensor `model.layers.2.input_layernorm.weight` of shape [32] is missing"), "{message}");
    let message = refused(changed("llama_kv2", &[("num_hidden_layers", json!(1))]).path());
    assert!(message.contains("has no place in the model"), "{message}");
    let message = refused(changed("llama_kv2", &[("tie_word_embeddings", json!(true))]).path());
    assert!(message.contains("`lm_head.weight` is tied"), "{message}");
    let message = refused(changed("llama_kv2", &[("intermediate_size", json!(64))]).path());
    assert!(message.contains("has shape [48, 32], the model needs [64, 32]"), "{message}");
}

#[test]
fn models_that_llama_cpp_does_not_compute_are_refused() {
    let llama3 = json!({"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 32});
    let local = json!({"full_attention": {"rope_type": "default", "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 500.0}});
    let types = json!(["full_attention", "sliding_attention"]);
    for (name, changes, said) in [
        ("mistral_short_window", vec![], "`sliding_window` is 7, and llama.cpp attends to the whole text"),
        ("mistral_window", vec![("max_position_embeddings", json!(257))], "at least the longest text, 257"),
        ("qwen3_window", vec![], "`sliding_window` is 7, and"),
        ("qwen2_tied", vec![("rope_parameters", llama3)], "\"llama3\"; expected \"default\", \"linear\""),
        ("qwen3_yarn", vec![], "its rotary scaling is \"yarn\""),
        (
            "qwen2_head_dim",
            vec![],
            "its heads have 48 numbers together, and llama.cpp expects as many as `hidden_size`, 32",
        ),
        ("qwen3", vec![("attention_bias", json!(true))], "it has biases"),
        ("olmo2_bias", vec![], "it has biases"),
        ("olmo2", vec![("head_dim", json!(4))], "its heads have 16 numbers together"),
        ("olmo2", vec![("tie_word_embeddings", json!(true))], "its head is tied"),
        ("smollm3", vec![], "`no_rope_layers` is not llama.cpp's pattern, in which layers 4, 8 and so on differ"),
        ("smollm3_pattern", vec![("mlp_bias", json!(true))], "it has biases"),
        ("phi3", vec![("head_dim", json!(16))], "its heads have 64 numbers together"),
        ("gemma2", vec![], "`query_pre_attn_scalar` is 20, and llama.cpp computes with 12 for a model of 2 layers"),
        ("gemma2_published", vec![("layer_types", types)], "`layer_types` is not llama.cpp's pattern"),
        ("gemma2_published", vec![("final_logit_softcapping", Json::Null)], "no bound"),
        ("gemma2_published", vec![("attn_logit_softcapping", Json::Null)], "no bound"),
        ("gemma2_published", vec![("attention_bias", json!(true))], "it has biases"),
        ("gemma2_published", vec![("tie_word_embeddings", json!(false))], "its head is a matrix of its own"),
        ("gemma3", vec![], "`query_pre_attn_scalar` is 20"),
        ("gemma3_published", vec![("final_logit_softcapping", json!(5.0))], "are bounded"),
        ("gemma3_published", vec![("rope_parameters", local)], "`rope_theta` of its layers with a window is 500"),
    ] {
        let message = refused(changed(name, &changes).path());
        assert!(message.contains("model cannot be exported: ") && message.contains(said), "{name}: {message}");
    }
}

#[test]
fn a_number_that_the_format_cannot_hold_names_its_tensor() {
    let dir = changed("llama_kv2", &[]);
    let path = dir.path().join("model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    // The first number behind the header: one of the head's.
    let first = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    for (value, format, said) in [
        (1e6_f32, NumberFormat::F16, "holds 1000000, which F16 cannot hold; use bf16 or f32"),
        (f32::NAN, NumberFormat::Q8_0, "holds NaN, which"),
    ] {
        bytes[first..first + 4].copy_from_slice(&value.to_le_bytes());
        std::fs::write(&path, &bytes).unwrap();
        let export = Export::open(dir.path(), format).unwrap();
        let error = export.write("tiny", &[], Path::new("x"), &mut Vec::new()).unwrap_err();
        assert!(matches!(error, Error::Gguf { .. }) && error.to_string().contains(said), "{error}");
    }
    // f32 holds the large number.
    bytes[first..first + 4].copy_from_slice(&1e6_f32.to_le_bytes());
    std::fs::write(&path, &bytes).unwrap();
    written(&Export::open(dir.path(), NumberFormat::F32).unwrap(), &[]);
}

#[test]
fn a_full_disk_is_an_error_that_names_the_file() {
    struct Full;
    impl std::io::Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let export = Export::open(&case("llama_kv2"), NumberFormat::F32).unwrap();
    let error = export.write("tiny", &[], Path::new("tiny.gguf"), &mut Full).unwrap_err();
    assert!(matches!(&error, Error::Write { path, .. } if path == Path::new("tiny.gguf")), "{error}");
}
