//! Checkpoints that bitsandbytes quantised: dequantised as transformers does, or refused by name.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use setpoint_transformer::{CausalLm, LoadOptions, ModelConfig, Packing, Quantization, SaveOptions, pack};

use crate::support::{arrays, devices, json as read_json, load, workspace};

const KINDS: [(&str, Quantization); 3] =
    [("nf4", Quantization::Nf4), ("single", Quantization::Nf4), ("int8", Quantization::Int8)];

fn case(name: &str) -> PathBuf {
    workspace().join("tests/golden/nf4").join(name)
}

#[test]
fn logits_are_those_of_the_dequantised_model() {
    for (family, (kind, quantization)) in ["llama", "qwen2"].into_iter().flat_map(|f| KINDS.map(|kind| (f, kind))) {
        let dir = case(&format!("{family}_{kind}"));
        assert_eq!(ModelConfig::from_dir(&dir).unwrap().quantization, Some(quantization));
        let expected = arrays(&dir.join("expected.safetensors"));
        let (ids, logits) = (&expected["input_ids"], &expected["logits"]);
        let rows: Vec<Vec<u32>> =
            ids.values.chunks(ids.shape[1]).map(|row| row.iter().map(|&id| id as u32).collect()).collect();
        let size = logits.values.iter().fold(1.0, |size: f64, x| size.max(x.abs()));
        for device in devices() {
            let (model, _) = load(&dir, &device);
            let packing = Packing::rows(rows.iter().map(Vec::len));
            let hidden = model.decoder().forward(pack(&rows, &device), &packing, None);
            let found: Vec<f32> = model.logits(hidden).into_data().try_into_vec().unwrap();
            assert_eq!(found.len(), logits.values.len());
            for (found, expected) in found.iter().zip(&logits.values) {
                let error = (f64::from(*found) - expected).abs();
                assert!(error < 1e-5 * size, "{family} {kind}: {found} {expected}");
            }
        }
    }
}

#[test]
fn a_model_that_is_saved_is_not_quantised() {
    let [device, _] = devices();
    let (model, config) = CausalLm::load(&case("qwen2_nf4"), &LoadOptions::default(), &device).unwrap();
    let dir = tempfile::tempdir().unwrap();
    model.save(&config, dir.path(), &SaveOptions::default()).unwrap();
    let saved = read_json(&dir.path().join("config.json"));
    assert_eq!(saved.get("quantization_config"), None);
    let (again, config) = CausalLm::load(dir.path(), &LoadOptions::default(), &device).unwrap();
    assert_eq!(config.quantization, None);
    let weight = |model: &CausalLm| model.decoder().layers[1].mlp.down_proj.weight.val().into_data();
    assert_eq!(weight(&model), weight(&again));
}

/// A copy of a case after a change of its configuration and of its weights' header.
fn changed(name: &str, change: impl FnOnce(&mut Value, &mut Value)) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut config = read_json(&case(name).join("config.json"));
    let bytes = fs::read(case(name).join("model.safetensors")).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    change(&mut config, &mut header);
    fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    let header = header.to_string().into_bytes();
    let file = [&(header.len() as u64).to_le_bytes()[..], &header, &bytes[8 + length..]].concat();
    fs::write(dir.path().join("model.safetensors"), file).unwrap();
    dir
}

fn refused(dir: &Path) -> String {
    let [device, _] = devices();
    CausalLm::load(dir, &LoadOptions::default(), &device).unwrap_err().to_string()
}

#[test]
fn other_ways_to_quantise_are_refused_by_name() {
    for (name, key, value, said) in [
        (
            "llama_nf4",
            "quant_method",
            json!("gptq"),
            "the weights are quantised by `gptq`, which is not read. Name the llama checkpoint that it was made from",
        ),
        ("llama_nf4", "quant_method", json!("awq"), "often the same id without -AWQ"),
        ("llama_nf4", "quant_method", json!("mxfp4"), "the weights are quantised by `mxfp4`"),
        ("llama_nf4", "quant_method", json!("compressed-tensors"), "the weights are quantised by `compressed-tensors`"),
        ("llama_nf4", "bnb_4bit_quant_type", json!("fp4"), "`quantization_config.bnb_4bit_quant_type` is \"fp4\""),
        (
            "llama_nf4",
            "bnb_4bit_quant_storage",
            json!("bfloat16"),
            "`quantization_config.bnb_4bit_quant_storage` is \"bfloat16\"; supported: \"uint8\"",
        ),
        ("llama_nf4", "load_in_4bit", json!(false), "the key `quantization_config.load_in_4bit` is missing"),
        ("llama_nf4", "bnb_4bit_quant_type", Value::Null, "`quantization_config.bnb_4bit_quant_type` is missing"),
        (
            "llama_int8",
            "llm_int8_has_fp16_weight",
            json!(true),
            "`quantization_config.llm_int8_has_fp16_weight` is true",
        ),
    ] {
        let dir = changed(name, |config, _| config["quantization_config"][key] = value);
        let message = refused(dir.path());
        assert!(message.contains(said), "{message}");
    }
}

const MATRIX: &str = "model.layers.0.mlp.down_proj";

/// Moves a tensor to another name.
fn rename(header: &mut Value, from: &str, to: &str) {
    let tensors = header.as_object_mut().unwrap();
    let tensor = tensors.remove(from).unwrap();
    tensors.insert(to.to_owned(), tensor);
}

#[test]
fn parts_that_do_not_fit_together_are_refused() {
    let state = format!("{MATRIX}.weight.quant_state.bitsandbytes__nf4");
    let part = |suffix: &str| format!("{MATRIX}.weight{suffix}");
    let dir = changed("llama_nf4", |_, header| rename(header, &state, &state.replace("__nf4", "__fp4")));
    assert!(refused(dir.path()).contains("the 4-bit format `fp4` is not read; expected `nf4`"));

    let dir = changed("llama_nf4", |_, header| rename(header, &part(".absmax"), &part(".other")));
    let message = refused(dir.path());
    assert!(message.contains(&format!("its part `{}` is missing; expected U8", part(".absmax"))), "{message}");

    // Another matrix's values, which are as many.
    let dir = changed("llama_single", |_, header| {
        let tensors = header.as_object_mut().unwrap();
        let other = tensors[&part(".absmax")].clone();
        let map = tensors[&part(".quant_map")].clone();
        tensors.insert(part(".absmax"), map);
        tensors.insert(part(".quant_map"), other);
    });
    assert!(refused(dir.path()).contains("`quant_map` does not hold the 16 values of NF4"));

    let dir = changed("llama_nf4", |config, _| config["intermediate_size"] = json!(96));
    assert!(refused(dir.path()).contains("has shape [80, 48], the model needs [96, 48]"));

    let dir = changed("llama_int8", |_, header| rename(header, &format!("{MATRIX}.SCB"), "model.other.SCB"));
    assert!(refused(dir.path()).contains("dtype I8"), "a matrix without scales");

    // The codes of one matrix with the scales of another.
    let dir = changed("llama_int8", |_, header| {
        let tensors = header.as_object_mut().unwrap();
        let other = tensors["model.layers.0.mlp.up_proj.SCB"].clone();
        let own = tensors[&format!("{MATRIX}.SCB")].clone();
        tensors.insert(format!("{MATRIX}.SCB"), other);
        tensors.insert("model.layers.0.mlp.up_proj.SCB".to_owned(), own);
    });
    assert!(refused(dir.path()).contains("scales for codes of shape"));
}
