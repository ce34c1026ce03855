//! Weights in other forms than safetensors of plain numbers: pickles, and 8-bit floats with scales.

use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::FloatDType;
use serde_json::json;
use setpoint_transformer::checkpoint::Checkpoint;
use setpoint_transformer::{CausalLm, LoadOptions, ModelConfig, Packing, Quantization, pack};

use crate::support::{arrays, devices, json as read_json, workspace};

fn case(name: &str) -> PathBuf {
    workspace().join("tests/golden/weights").join(name)
}

fn options() -> LoadOptions {
    LoadOptions { dtype: Some(FloatDType::F32), allow_pickle: true, ..LoadOptions::default() }
}

/// Copies a case without the files that `leaves_out` names.
fn copied(name: &str, leaves_out: impl Fn(&str) -> bool) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(case(name)).unwrap().flatten() {
        let file = entry.file_name().into_string().unwrap();
        if !leaves_out(&file) {
            fs::copy(entry.path(), dir.path().join(file)).unwrap();
        }
    }
    dir
}

fn refused(dir: &Path) -> String {
    let [device, _] = devices();
    CausalLm::load(dir, &options(), &device).unwrap_err().to_string()
}

#[test]
fn logits_are_those_of_the_same_weights_in_torch() {
    for name in ["bin", "sharded", "fp8_block", "fp8_channel", "fp8_tensor"] {
        let dir = case(name);
        let quantization = ModelConfig::from_dir(&dir).unwrap().quantization;
        assert_eq!(quantization, name.starts_with("fp8").then_some(Quantization::Fp8));
        let expected = arrays(&dir.join("expected.safetensors"));
        let (ids, logits) = (&expected["input_ids"], &expected["logits"]);
        let rows: Vec<Vec<u32>> =
            ids.values.chunks(ids.shape[1]).map(|row| row.iter().map(|&id| id as u32).collect()).collect();
        let size = logits.values.iter().fold(1.0, |size: f64, x| size.max(x.abs()));
        for device in devices() {
            let (model, _) = CausalLm::load(&dir, &options(), &device).unwrap();
            let packing = Packing::rows(rows.iter().map(Vec::len));
            let hidden = model.decoder().forward(pack(&rows, &device), &packing, None);
            let found: Vec<f32> = model.logits(hidden).into_data().try_into_vec().unwrap();
            assert_eq!(found.len(), logits.values.len());
            for (found, expected) in found.iter().zip(&logits.values) {
                let error = (f64::from(*found) - expected).abs();
                assert!(error < 1e-5 * size, "{name}: {found} {expected}");
            }
        }
    }
}

#[test]
fn a_pickle_is_read_only_where_it_is_allowed() {
    let [device, _] = devices();
    for (name, file) in [("bin", "pytorch_model.bin"), ("sharded", "pytorch_model.bin.index.json")] {
        let message = CausalLm::load(&case(name), &LoadOptions::default(), &device).unwrap_err().to_string();
        assert!(
            message.contains(&format!(
                "only {file}, a Python pickle. To read it, its section in the settings needs `allow_pickle = true`"
            )),
            "{message}"
        );
        assert!(Checkpoint::open(&case(name)).is_err());
    }
    // Safetensors win, whatever the pickle holds.
    let dir = copied("fp8_block", |_| false);
    fs::write(dir.path().join("pytorch_model.bin"), "no pickle").unwrap();
    CausalLm::load(dir.path(), &options(), &device).unwrap();
}

#[test]
fn pickles_from_strangers_are_refused_in_a_sentence() {
    for (file, said) in [
        ("call.bin", "it holds no tensors"),
        ("bomb.bin", "its pickle has 8388611 bytes; at most 4194304 are allowed"),
        ("old.bin", "it is no zip archive, as torch writes since version 1.6"),
    ] {
        let dir = copied("bin", |name| name.ends_with(".bin"));
        fs::copy(case("hostile").join(file), dir.path().join("pytorch_model.bin")).unwrap();
        let message = refused(dir.path());
        assert!(message.contains("pytorch_model.bin: ") && message.contains(said), "{message}");
    }
    assert!(!Path::new("called-by-a-pickle").exists(), "nothing in a pickle is executed");
}

#[test]
fn damaged_pickles_are_errors_and_not_panics() {
    let dir = copied("bin", |name| name.ends_with(".bin"));
    let bytes = fs::read(case("bin/pytorch_model.bin")).unwrap();
    let place = dir.path().join("pytorch_model.bin");
    for length in [0, 3, 4, 100, bytes.len() / 2, bytes.len() - 1] {
        fs::write(&place, &bytes[..length]).unwrap();
        let message = refused(dir.path());
        assert!(message.contains("pytorch_model.bin") && !message.contains('\n'), "{length}: {message}");
    }
    // Every part of the file in turn. What is not noticed is a weight.
    for i in (0..bytes.len()).step_by(bytes.len() / 150) {
        let mut damaged = bytes.clone();
        damaged[i] ^= 0x55;
        fs::write(&place, &damaged).unwrap();
        let [device, _] = devices();
        if let Err(error) = CausalLm::load(dir.path(), &options(), &device) {
            assert!(!error.to_string().contains('\n'), "{error}");
        }
    }
}

#[test]
fn scales_that_do_not_fit_are_refused() {
    for (name, key, value, said) in [
        ("fp8_block", "weight_block_size", json!([16, 16]), "which do not fit blocks of 16 by 16"),
        ("fp8_block", "weight_block_size", json!([0, 16]), "two whole numbers above 0, or null"),
        ("fp8_block", "fmt", json!("e5m2"), "`quantization_config.fmt` is \"e5m2\"; supported: \"e4m3\""),
        ("fp8_channel", "format", json!("pack-quantized"), "the weights are quantised by `compressed-tensors`"),
    ] {
        let dir = copied(name, |_| false);
        let mut config = read_json(&dir.path().join("config.json"));
        config["quantization_config"][key] = value;
        fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
        let message = refused(dir.path());
        assert!(message.contains(said), "{message}");
    }
    // Scales of no matrix.
    let dir = copied("fp8_channel", |_| false);
    let bytes = fs::read(dir.path().join("model.safetensors")).unwrap();
    let swapped = swap(&bytes, b"mlp.up_proj.weight_scale", b"mlp.others_.weight_scale");
    fs::write(dir.path().join("model.safetensors"), swapped).unwrap();
    assert!(refused(dir.path()).contains("dtype F8_E4M3"), "a matrix without scales");
}

/// Replaces a name by another of the same length.
fn swap(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let at = bytes.windows(from.len()).position(|part| part == from).unwrap();
    [&bytes[..at], to, &bytes[at + from.len()..]].concat()
}

#[test]
fn folders_of_other_programs_are_answered_with_what_to_do() {
    let config = |change: fn(&mut serde_json::Value)| {
        let dir = copied("bin", |name| name.ends_with(".bin"));
        let mut config = read_json(&dir.path().join("config.json"));
        change(&mut config);
        fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
        dir
    };
    let mlx = config(|config| config["quantization"] = json!({"group_size": 64, "bits": 4}));
    let message = refused(mlx.path());
    assert!(message.contains("for Apple's MLX, which is not read. Name the qwen2 checkpoint"), "{message}");
    for (file, said) in [("model-q8_0.gguf", "a file for llama.cpp"), ("consolidated.00.pth", "which is not read")] {
        let other = config(|_| ());
        fs::write(other.path().join(file), "x").unwrap();
        let message = refused(other.path());
        assert!(message.contains(&format!("only {file}, {said}")), "{message}");
    }
}
