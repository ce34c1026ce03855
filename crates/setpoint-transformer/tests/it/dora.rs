//! Adapters that train the lengths of rows, against what PEFT computes from them.

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{FloatDType, Tensor};
use safetensors::{Dtype, SafeTensors};
use serde_json::json;
use setpoint_transformer::checkpoint::ParamPath;
use setpoint_transformer::lora::{
    AdapterAbout, AdapterFolder, AdapterTask, LoraConfig, Targets, attach, merged, save_adapter,
};
use setpoint_transformer::{CausalLm, Error, LoadOptions};

use crate::lora::{adapted, by_path, by_value, folder, host, logits, loss};
use crate::support::{arrays, case, devices, load};

/// The sums of squares are added in another order than PEFT's, so a few bits may differ.
#[test]
fn merged_weights_are_those_of_peft() {
    for (name, dtype, unit) in [
        ("llama_dora", FloatDType::F32, 1e-6),
        ("qwen2_dora", FloatDType::F32, 1e-6),
        ("llama_dora_bf16", FloatDType::BF16, 2f64.powi(-7)),
    ] {
        let expected = arrays(&folder(name).join("expected.safetensors"));
        for device in devices() {
            if !device.supports_dtype(dtype) {
                continue;
            }
            let (model, _) = adapted(name, dtype, &device);
            let (mut values, mut differ) = (0, 0);
            for (path, found) in by_value(&merged(model)) {
                let expected = &expected[&format!("merged.{path}")].values;
                assert_eq!(found.len(), expected.len(), "{path}: no parameter of an adapter is left");
                values += found.len();
                for (i, (&found, expected)) in found.iter().zip(expected).enumerate() {
                    let error = (f64::from(found) - expected).abs();
                    assert!(error <= unit * expected.abs(), "{name}, {path}[{i}]: {found} against {expected}");
                    differ += usize::from(error > 0.0);
                }
            }
            assert!(dtype == FloatDType::F32 || differ * 1000 < values, "{name}: {differ} of {values} differ");
        }
    }
}

#[test]
fn a_new_adapter_changes_no_bit() {
    for (name, biases) in [("llama_kv2", false), ("qwen2_tied", true)] {
        let device = devices()[0].clone().autodiff();
        let (base, _) = load(&case(name), &device);
        let config = LoraConfig { rank: 4, dora: true, ..LoraConfig::default() };
        let model = attach(base.clone(), &config, 7).unwrap();
        assert_eq!(by_value(&base).keys().any(|path| path.ends_with("bias")), biases);
        let row = [3, 17, 5, 44, 9];
        assert_eq!(host(logits(&model, &row).inner()), host(logits(&base, &row).inner()));
        let (found, _) = by_path(&model, &mut loss(logits(&model, &row), &row).backward());
        assert_eq!(found.len(), 42, "two factors and a magnitude of seven maps in two layers");
        for (path, gradient) in found {
            assert_eq!(gradient.iter().all(|x| *x == 0.0), path.contains("lora_A"), "{path}");
        }
        let values = by_value(&model);
        let map = "model.layers.1.mlp.down_proj";
        let (weight, lengths) = (&values[&format!("{map}.weight")], &values[&format!("{map}.lora_magnitude_vector")]);
        for (row, length) in weight.chunks(weight.len() / lengths.len()).zip(lengths) {
            let expected = row.iter().map(|x| f64::from(x * x)).sum::<f64>().sqrt();
            assert!((f64::from(*length) - expected).abs() < 1e-6 * expected, "{length} against {expected}");
        }
    }
}

/// Doubles every parameter of an update.
struct Double(ParamPath);

impl ModuleMapper for Double {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.0.enter(name);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.0.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.0.name().contains("lora_") { param.map(|tensor| tensor.mul_scalar(2.0)) } else { param }
    }
}

#[test]
fn lengths_follow_the_update() {
    let (device, row) = (&devices()[0], [3, 17, 5, 44, 9]);
    let double = |model: CausalLm| model.map(&mut Double(ParamPath::default()));
    let expected = host(logits(&double(adapted("llama_dora", FloatDType::F32, device).0), &row));
    let (model, _) = adapted("llama_dora", FloatDType::F32, device);
    let before = host(logits(&model, &row));
    assert_eq!(host(logits(&model, &row)), before, "a second pass");
    let copy = model.clone();
    assert_eq!(host(logits(&double(model), &row)), expected);
    assert_eq!(host(logits(&copy, &row)), before, "a copy stays as it is");
    // A model that trains, and the one without a graph that is made of it.
    let (model, _) = adapted("llama_dora", FloatDType::F32, &device.clone().autodiff());
    assert_eq!(host(logits(&model.valid(), &row)), before);
    assert_eq!(host(logits(&double(model).valid(), &row)), expected);
}

/// The names, dtypes and shapes of an adapter's file.
fn tensors(dir: &Path) -> BTreeMap<String, (Dtype, Vec<usize>)> {
    let bytes = std::fs::read(dir.join("adapter_model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    file.iter().map(|(name, tensor)| (name.to_owned(), (tensor.dtype(), tensor.shape().to_vec()))).collect()
}

#[test]
fn a_new_adapter_is_written_as_peft_writes_one() {
    for dtype in [FloatDType::F32, FloatDType::BF16] {
        let device = &devices()[0];
        let adapter = AdapterFolder::open(&folder("llama_dora")).unwrap();
        let options = LoadOptions { dtype: Some(dtype), ..LoadOptions::default() };
        let (base, _) = CausalLm::load(&case("llama_kv2"), &options, device).unwrap();
        let model = attach(base, &adapter.config, 1).unwrap();
        let out = tempfile::tempdir().unwrap();
        let about = AdapterAbout { base: adapter.base.unwrap(), revision: None, task: AdapterTask::CausalLm };
        save_adapter(&model, &adapter.config, &about, out.path()).unwrap();
        assert_eq!(tensors(out.path()), tensors(&folder("llama_dora")), "{dtype:?}");
        // Names of maps, without those that hold a magnitude only.
        let config = LoraConfig { targets: Targets::AllLinear, ..adapter.config };
        save_adapter(&model, &config, &about, out.path()).unwrap();
        let settings = crate::support::json(&out.path().join("adapter_config.json"));
        assert_eq!(settings["use_dora"], true);
        let maps = json!(["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]);
        assert_eq!(settings["target_modules"], maps);
    }
}

/// Loads the tensors of one adapter with `use_dora` set to another value.
fn loaded_with(name: &str, use_dora: bool) -> Error {
    let dir = tempfile::tempdir().unwrap();
    let mut config = crate::support::json(&folder(name).join("adapter_config.json"));
    config["use_dora"] = json!(use_dora);
    std::fs::write(dir.path().join("adapter_config.json"), config.to_string()).unwrap();
    let file = "adapter_model.safetensors";
    std::fs::copy(folder(name).join(file), dir.path().join(file)).unwrap();
    let (base, _) = load(&case("llama_kv2"), &devices()[0]);
    AdapterFolder::open(dir.path()).unwrap().load(base).unwrap_err()
}

#[test]
fn missing_and_unexpected_magnitudes_are_named() {
    let first = "base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector";
    let missing = loaded_with("llama", true);
    assert!(matches!(&missing, Error::MissingTensor { more: 13, .. }), "{missing}");
    assert!(missing.to_string().contains(first), "{missing}");
    let unexpected = loaded_with("llama_dora", false);
    assert!(matches!(&unexpected, Error::UnexpectedTensor { more: 13, .. }), "{unexpected}");
    assert!(unexpected.to_string().contains("lora_magnitude_vector"), "{unexpected}");
}
