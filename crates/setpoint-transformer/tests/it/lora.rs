//! Adapters against what PEFT computes from them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, FloatDType, Gradients, Int, Tensor, TensorData, activation};
use setpoint_transformer::checkpoint::{ParamPath, parameters};
use setpoint_transformer::lora::{
    AdapterAbout, AdapterFolder, AdapterTask, LoraConfig, LoraPattern, Selection, Targets, attach, merged,
    save_adapter, without_adapter,
};
use setpoint_transformer::{CausalLm, Decoder, Error, LoadOptions, Packing, Recompute, pack};

use crate::support::{Array, arrays, case, devices, load, workspace};

/// The adapters of language models whose factors and base are f32.
const CASES: [&str; 10] = [
    "llama",
    "llama_tied",
    "qwen2",
    "qwen2_tied",
    "llama_tables",
    "llama_dora",
    "qwen2_dora",
    "qwen3",
    "phi3",
    "gemma3",
];

pub fn folder(name: &str) -> PathBuf {
    workspace().join("tests/golden/lora").join(name)
}

/// An adapter of the golden files on its base.
pub(crate) fn adapted(name: &str, dtype: FloatDType, device: &Device) -> (CausalLm, AdapterFolder) {
    let adapter = AdapterFolder::open(&folder(name)).unwrap();
    let base = folder(name).join(adapter.base.as_ref().unwrap());
    let options = LoadOptions { dtype: Some(dtype), ..LoadOptions::default() };
    let (base, _) = CausalLm::load(&base, &options, device).unwrap();
    (adapter.load(base).unwrap(), adapter)
}

fn rows(expected: &HashMap<String, Array>) -> Vec<Vec<u32>> {
    let (ids, width) = (&expected["input_ids"].values, expected["input_ids"].shape[1]);
    let lengths = expected["lengths"].values.iter().enumerate();
    lengths.map(|(i, n)| ids[i * width..][..*n as usize].iter().map(|&id| id as u32).collect()).collect()
}

pub fn logits(model: &CausalLm, row: &[u32]) -> Tensor<2> {
    let decoder: &Decoder = model.decoder();
    model.logits(decoder.forward(pack(&[row], &decoder.device()), &Packing::rows([row.len()]), None))
}

pub fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec().unwrap()
}

/// The mean negative log-probability of a row's tokens.
pub fn loss(logits: Tensor<2>, row: &[u32]) -> Tensor<1> {
    let n = row.len() - 1;
    let next: Vec<i32> = row[1..].iter().map(|&id| id as i32).collect();
    let next = Tensor::<1, Int>::from_data(TensorData::new(next, [n]), &logits.device().without_autodiff());
    activation::log_softmax(logits.narrow(0, 0, n), 1).gather(1, next.reshape([n, 1])).mean().neg()
}

/// The gradients by the paths of their parameters, and the paths of parameters that have none.
pub fn by_path<M: Module>(module: &M, gradients: &mut Gradients) -> (HashMap<String, Vec<f32>>, Vec<String>) {
    struct Found<'a> {
        path: ParamPath,
        gradients: &'a mut Gradients,
        found: HashMap<String, Vec<f32>>,
        without: Vec<String>,
    }

    impl ModuleVisitor for Found<'_> {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.path.enter(name);
        }

        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.exit();
        }

        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            match param.val().grad_remove(self.gradients) {
                Some(gradient) => {
                    self.found.insert(self.path.name(), host(gradient));
                }
                None => self.without.push(self.path.name()),
            }
        }
    }

    let mut visitor = Found { path: ParamPath::default(), gradients, found: HashMap::new(), without: Vec::new() };
    module.visit(&mut visitor);
    (visitor.found, visitor.without)
}

#[track_caller]
fn assert_close(found: &[f32], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let size = expected.iter().fold(1e-3f64, |size, x| size.max(x.abs()));
    for (i, (&found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((f64::from(found) - expected).abs() <= tolerance * size, "{what}[{i}]: {found} against {expected}");
    }
}

#[test]
fn logits_losses_and_gradients_are_those_of_peft() {
    for (name, device) in CASES.into_iter().flat_map(|name| devices().map(|device| (name, device))) {
        let expected = arrays(&folder(name).join("expected.safetensors"));
        let (model, _) = adapted(name, FloatDType::F32, &device.clone().autodiff());
        let rows = rows(&expected);
        let [_, width, v] = expected["logits"].shape[..] else { panic!("logits [b, s, v]") };
        for (i, row) in rows.iter().enumerate() {
            let found = host(logits(&model, row).inner());
            let expected = &expected["logits"].values[i * width * v..][..row.len() * v];
            assert_close(&found, expected, 1e-5, &format!("{name} on {device:?}, logits of row {i}"));
        }
        let loss = loss(logits(&model, &rows[0]), &rows[0]);
        assert_close(&host(loss.clone().inner()), &expected["loss"].values, 1e-5, name);
        let (found, without) = by_path(&model, &mut loss.backward());
        let wanted: Vec<&String> = expected.keys().filter(|key| key.starts_with("grad.")).collect();
        assert_eq!(found.len(), wanted.len(), "{name}: exactly what PEFT trains has a gradient; without: {without:?}");
        for (path, gradient) in found {
            assert_close(&gradient, &expected[&format!("grad.{path}")].values, 1e-5, &format!("{name}, {path}"));
        }
    }
}

/// The gradients of the tape, which an engine uses, in both of its modes.
#[test]
fn recomputed_blocks_give_the_same_gradients() {
    for name in CASES {
        let expected = arrays(&folder(name).join("expected.safetensors"));
        let row = rows(&expected).remove(0);
        for recompute in [Recompute::None, Recompute::Block] {
            let (mut model, _) = adapted(name, FloatDType::F32, &devices()[0].clone().autodiff());
            model.model.recompute = recompute;
            let ids = pack(&[&row], &model.decoder().device());
            let (hidden, tape) = model.model.forward_taped(ids, &Packing::rows([row.len()]), None);
            let mut gradients = loss(model.logits(hidden), &row).backward();
            let (mut found, _) = by_path(&model, &mut gradients);
            let mut parts = 0;
            tape.unwrap().backward(&mut gradients, &mut |part, gradients| {
                parts += 1;
                if let setpoint_transformer::Part::Block(i, block) = part {
                    let below = by_path(block, gradients).0;
                    found.extend(
                        below.into_iter().map(|(path, gradient)| (format!("model.layers.{i}.{path}"), gradient)),
                    );
                }
            });
            let table = "model.embed_tokens.weight";
            for key in expected.keys().filter_map(|key| key.strip_prefix("grad.")).filter(|key| *key != table) {
                let what = format!("{name}, {recompute:?}, {key}");
                assert_close(&found[key], &expected[&format!("grad.{key}")].values, 1e-5, &what);
            }
            // Nothing is computed again below the lowest layer with an adapter.
            if name == "qwen2_tied" && recompute == Recompute::Block {
                assert_eq!(parts, 1);
            }
        }
    }
}

#[test]
fn a_new_adapter_changes_no_bit_and_has_no_gradient_of_a() {
    let device = devices()[0].clone().autodiff();
    let (base, _) = load(&case("llama_kv2"), &device);
    let config = LoraConfig { rank: 4, ..LoraConfig::default() };
    let model = attach(base.clone(), &config, 7).unwrap();
    let row = [3, 17, 5, 44, 9];
    assert_eq!(host(logits(&model, &row).inner()), host(logits(&base, &row).inner()));
    let (found, _) = by_path(&model, &mut loss(logits(&model, &row), &row).backward());
    assert_eq!(found.len(), 28, "two factors of seven maps in two layers");
    for (path, gradient) in found {
        assert_eq!(gradient.iter().all(|x| *x == 0.0), path.contains("lora_A"), "{path}");
    }
    // The numbers of a factor follow from the seed and its name.
    let draw = |seed| by_value(&attach(base.clone(), &config, seed).unwrap());
    let (a, again, other) = (draw(7), draw(7), draw(8));
    assert_eq!(a, again);
    let (q, k) = ("model.layers.0.self_attn.q_proj.lora_A.weight", "model.layers.0.self_attn.k_proj.lora_A.weight");
    assert_ne!(a[q], other[q]);
    assert_ne!(a[q], a[k]);
    let bound = (1.0 / 32f32).sqrt();
    assert!(a[q].iter().all(|x| x.abs() <= bound) && a[q].iter().any(|x| x.abs() > 0.9 * bound));
}

pub fn by_value<M: Module>(module: &M) -> HashMap<String, Vec<f32>> {
    struct Values(ParamPath, HashMap<String, Vec<f32>>);

    impl ModuleVisitor for Values {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.0.enter(name);
        }

        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.0.exit();
        }

        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.1.insert(self.0.name(), host(param.val().inner().cast(FloatDType::F32)));
        }
    }

    let mut values = Values(ParamPath::default(), HashMap::new());
    module.visit(&mut values);
    values.1
}

#[test]
fn switched_off_it_is_the_base() {
    for name in ["llama", "qwen2", "llama_dora"] {
        let device = &devices()[0];
        let (model, adapter) = adapted(name, FloatDType::F32, device);
        let (base, _) = load(&folder(name).join(adapter.base.unwrap()), device);
        let row = [3, 17, 5, 44, 9];
        assert_eq!(host(logits(&without_adapter(&model), &row)), host(logits(&base, &row)));
        assert_ne!(host(logits(&model, &row)), host(logits(&base, &row)));
    }
}

#[test]
fn merged_weights_are_those_of_peft_to_the_bit() {
    // Lengths of rows depend on the order of sums: see `dora.rs`.
    for name in CASES.into_iter().filter(|name| !name.ends_with("dora")).chain(["llama_bf16"]) {
        let dtype = if name.ends_with("bf16") { FloatDType::BF16 } else { FloatDType::F32 };
        let bytes = std::fs::read(folder(name).join("expected.safetensors")).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let (model, _) = adapted(name, dtype, &devices()[0]);
        let values = by_value(&merged(model.clone()));
        assert!(values.keys().all(|path| !path.contains("lora_")), "{name}");
        for (path, values) in &values {
            let expected = file.tensor(&format!("merged.{path}")).unwrap();
            let expected: Vec<f32> = match expected.dtype() {
                safetensors::Dtype::BF16 => {
                    let bits = expected.data().as_chunks().0.iter().map(|&pair| u16::from_le_bytes(pair));
                    bits.map(|bits| f32::from_bits(u32::from(bits) << 16)).collect()
                }
                _ => expected.data().as_chunks().0.iter().map(|&quad| f32::from_le_bytes(quad)).collect(),
            };
            let differ = values.iter().zip(&expected).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
            assert_eq!((values.len(), differ), (expected.len(), 0), "{name}, {path}");
        }
    }
}

#[test]
fn what_peft_wrote_is_written_again_to_the_bit() {
    for name in CASES.into_iter().chain(["llama_bf16"]) {
        let (model, adapter) = adapted(name, FloatDType::F32, &devices()[0]);
        let out = tempfile::tempdir().unwrap();
        let about = AdapterAbout { base: adapter.base.clone().unwrap(), revision: None, task: AdapterTask::CausalLm };
        save_adapter(&model, &adapter.config, &about, out.path()).unwrap();
        let again = AdapterFolder::open(out.path()).unwrap();
        let targets = |targets: Targets| match Selection::from(targets) {
            // Full paths of all maps, and the names of all maps.
            Selection::Names(_) if ["llama", "llama_bf16", "llama_dora", "qwen3", "phi3"].contains(&name) => {
                Selection::default()
            }
            other => other,
        };
        assert_eq!(targets(again.config.targets.clone()), targets(adapter.config.targets.clone()), "{name}");
        assert_eq!(
            LoraConfig { targets: Targets::AllLinear, ..again.config },
            LoraConfig { targets: Targets::AllLinear, ..adapter.config }
        );
        let tensors = |dir: &Path| {
            let bytes = std::fs::read(dir.join("adapter_model.safetensors")).unwrap();
            let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
            let mut tensors: Vec<_> =
                file.iter().map(|(name, t)| (name.to_owned(), t.shape().to_vec(), t.data().to_vec())).collect();
            tensors.sort();
            tensors
        };
        assert_eq!(tensors(out.path()), tensors(&folder(name)), "{name}");
    }
}

/// `adapter_config.json` of a case with one key changed.
fn changed(key: &str, value: serde_json::Value) -> Result<AdapterFolder, Error> {
    let dir = tempfile::tempdir().unwrap();
    let mut config = crate::support::json(&folder("llama").join("adapter_config.json"));
    config[key] = value;
    std::fs::write(dir.path().join("adapter_config.json"), config.to_string()).unwrap();
    AdapterFolder::open(dir.path())
}

#[test]
fn settings_that_are_not_computed_are_refused_by_name() {
    use serde_json::json;
    for (key, value) in [
        ("use_dora", json!("yes")),
        ("alora_invocation_tokens", json!([1, 2])),
        ("kasa_config", json!({"beta": 1})),
        ("velora_config", json!({"rank": 1})),
        ("monteclora_config", json!({"n": 1})),
        ("use_bdlora", json!(true)),
        ("arrow_config", json!({"top_k": 1})),
        ("use_qalora", json!(true)),
        ("layer_replication", json!([[0, 1]])),
        ("layers_pattern", json!("blocks")),
        ("target_parameters", json!(["experts"])),
        ("trainable_token_indices", json!([5])),
        ("lora_bias", json!(true)),
        ("fan_in_fan_out", json!(true)),
        ("megatron_config", json!({"a": 1})),
        ("bias", json!("all")),
        ("peft_type", json!("LOHA")),
        ("init_lora_weights", json!("pissa_niter_4")),
        ("init_lora_weights", json!("olora")),
        ("init_lora_weights", json!("corda")),
        ("init_lora_weights", json!("loftq")),
        ("init_lora_weights", json!("lora_ga")),
        ("init_lora_weights", json!("mica")),
        ("corda_config", json!({"corda_method": "ipm"})),
        ("loftq_config", json!({"loftq_bits": 4})),
        ("lora_ga_config", json!({"scale": "stable"})),
        ("trainable_token_indices", json!({"embed_tokens": [5]})),
        ("task_type", json!("SEQ_2_SEQ_LM")),
        ("of_tomorrow", json!(1)),
        ("r", json!(0)),
        ("target_modules", json!([1])),
        ("lora_alpha", json!(-8)),
        ("lora_dropout", json!(1)),
        ("target_modules", json!([])),
        ("target_modules", json!("(")),
        ("exclude_modules", json!("(")),
        ("modules_to_save", json!([""])),
        ("rank_pattern", json!({"q_proj": 0})),
    ] {
        // By the name that it has in the file.
        let error = changed(key, value).unwrap_err().to_string();
        assert!(error.contains(&format!("`{key}`")), "{key}: {error}");
    }
    assert!(changed("peft_type", serde_json::Value::Null).unwrap_err().to_string().contains("peft_type"));
    // The least that PEFT loads.
    let dir = tempfile::tempdir().unwrap();
    let least = json!({"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]});
    std::fs::write(dir.path().join("adapter_config.json"), least.to_string()).unwrap();
    let found = AdapterFolder::open(dir.path()).unwrap();
    assert_eq!((found.config.rank, found.base, found.task), (4, None, None));
    for init in ["gaussian", "eva", "orthogonal"] {
        assert!(changed("init_lora_weights", json!(init)).is_ok(), "{init}");
    }
    // A setting of PEFT's that says nothing is no reason to refuse.
    for (key, value) in [("loftq_config", json!({})), ("layers_pattern", json!([])), ("lora_bias", json!(false))] {
        assert!(changed(key, value).is_ok(), "{key}");
    }
    assert!(changed("lora_dropout", json!(0.05)).is_ok_and(|adapter| adapter.config.dropout == Some(0.05)));
}

#[test]
fn numbers_that_are_not_finite_are_named_when_an_adapter_is_read() {
    for (name, end, number) in [
        ("llama", "layers.1.mlp.up_proj.lora_B.weight", f32::NAN),
        ("llama", "layers.0.self_attn.q_proj.lora_A.weight", f32::INFINITY),
        ("llama_dora", "layers.0.mlp.gate_proj.lora_magnitude_vector", f32::NEG_INFINITY),
    ] {
        let (dir, from) = (tempfile::tempdir().unwrap(), folder(name));
        std::fs::copy(from.join("adapter_config.json"), dir.path().join("adapter_config.json")).unwrap();
        let bytes = std::fs::read(from.join("adapter_model.safetensors")).unwrap();
        let mut changed = bytes.clone();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let tensor = format!("base_model.model.model.{end}");
        // The last number of the tensor.
        let data = file.tensor(&tensor).unwrap().data().as_ptr_range();
        let end = data.end as usize - bytes.as_ptr() as usize;
        changed[end - 4..end].copy_from_slice(&number.to_le_bytes());
        std::fs::write(dir.path().join("adapter_model.safetensors"), changed).unwrap();
        let base = from.join(AdapterFolder::open(&from).unwrap().base.unwrap());
        let (base, _) = CausalLm::load(&base, &LoadOptions::default(), &devices()[0]).unwrap();
        let error = AdapterFolder::open(dir.path()).unwrap().load(base).unwrap_err();
        assert!(matches!(&error, Error::NonFiniteTensor { tensor: found, .. } if *found == tensor), "{error}");
    }
}

/// An adapter's file with its tensors renamed, or left out where `rename` returns nothing.
fn with_tensors(rename: impl Fn(&str) -> Option<String>) -> Error {
    let (dir, from) = (tempfile::tempdir().unwrap(), folder("llama"));
    std::fs::copy(from.join("adapter_config.json"), dir.path().join("adapter_config.json")).unwrap();
    let bytes = std::fs::read(from.join("adapter_model.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let tensors: Vec<_> = file.iter().filter_map(|(name, tensor)| Some((rename(name)?, tensor))).collect();
    safetensors::serialize_to_file(tensors, None, &dir.path().join("adapter_model.safetensors")).unwrap();
    let (base, _) = load(&case("llama_kv2"), &devices()[0]);
    AdapterFolder::open(dir.path()).unwrap().load(base).unwrap_err()
}

#[test]
fn missing_and_unexpected_tensors_are_counted_and_named() {
    let missing = with_tensors(|name| (!name.contains("q_proj.lora_B")).then(|| name.to_owned())).to_string();
    let first = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight";
    assert!(missing.contains(first) && missing.contains("and 1 more"), "{missing}");
    // The names that PEFT has in memory, with the adapter's.
    let renamed = with_tensors(|name| Some(name.replace("lora_A", "lora_A.default")));
    assert!(matches!(&renamed, Error::MissingTensor { more: 13, .. }), "{renamed}");
    let extra = with_tensors(|name| Some(name.replace("layers.1.mlp", "layers.2.mlp")));
    assert!(matches!(extra, Error::MissingTensor { .. }), "{extra}");
    // An adapter of another base.
    let (other, _) = load(&case("llama_head_dim"), &devices()[0]);
    let error = AdapterFolder::open(&folder("llama")).unwrap().load(other).unwrap_err();
    assert!(matches!(error, Error::WrongShape { .. }), "{error}");
}

#[test]
fn unknown_targets_and_modules_are_refused() {
    let (base, _) = load(&case("llama_kv2_tied"), &devices()[0]);
    let refused = |config: LoraConfig| attach(base.clone(), &config, 0).unwrap_err().to_string();
    let targets = Targets::Names(vec!["query".into()]);
    assert!(refused(LoraConfig { targets, ..LoraConfig::default() }).contains("called `query`"));
    let modules_to_save = vec!["score".to_owned()];
    assert!(refused(LoraConfig { modules_to_save, ..LoraConfig::default() }).contains("`score`"));
    // Ranks above those that any update has would only take memory, without end.
    for config in [
        LoraConfig { rank: 1_000_000_000, ..LoraConfig::default() },
        LoraConfig { rank_pattern: LoraPattern(vec![("k_proj".into(), usize::MAX)]), ..LoraConfig::default() },
    ] {
        let message = refused(config);
        assert!(message.contains("no update needs a rank above") && message.contains("rank_pattern"), "{message}");
    }
    // A tied head is the embeddings' matrix, and both are written.
    let config = LoraConfig { modules_to_save: vec!["lm_head".into()], ..LoraConfig::default() };
    let model = attach(base.clone(), &config, 0).unwrap();
    let out = tempfile::tempdir().unwrap();
    let about = AdapterAbout { base: "base".into(), revision: None, task: AdapterTask::CausalLm };
    save_adapter(&model, &config, &about, out.path()).unwrap();
    let settings = crate::support::json(&out.path().join("adapter_config.json"));
    assert_eq!(settings["ensure_weight_tying"], true);
    assert_eq!(settings["modules_to_save"], serde_json::json!(["embed_tokens"]));
    let bytes = std::fs::read(out.path().join("adapter_model.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let [table, head] =
        ["model.embed_tokens", "lm_head"].map(|name| file.tensor(&format!("base_model.model.{name}.weight")));
    assert_eq!(table.unwrap().data(), head.unwrap().data());
    let again = AdapterFolder::open(out.path()).unwrap().load(base).unwrap();
    assert_eq!(parameters(&again).len(), parameters(&model).len());
}

#[test]
fn embeddings_that_peft_trained_apart_from_the_head_are_not_tied_to_it() {
    let (base, _) = load(&case("llama_kv2_tied"), &devices()[0]);
    let config = LoraConfig { modules_to_save: vec!["embed_tokens".into()], ..LoraConfig::default() };
    let model = attach(base.clone(), &config, 0).unwrap();
    let out = tempfile::tempdir().unwrap();
    let about = AdapterAbout { base: "base".into(), revision: None, task: AdapterTask::CausalLm };
    save_adapter(&model, &config, &about, out.path()).unwrap();
    // PEFT 0.21 writes no head unless `ensure_weight_tying` is set.
    let weights = out.path().join("adapter_model.safetensors");
    let bytes = std::fs::read(&weights).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let tensors: Vec<_> = file.iter().filter(|(name, _)| !name.contains("lm_head")).collect();
    safetensors::serialize_to_file(tensors, None, &weights).unwrap();
    let loaded = |ties: bool| {
        let path = out.path().join("adapter_config.json");
        let mut settings = crate::support::json(&path);
        settings["ensure_weight_tying"] = ties.into();
        std::fs::write(path, settings.to_string()).unwrap();
        AdapterFolder::open(out.path()).unwrap().load(base.clone())
    };
    let refused = loaded(false).unwrap_err().to_string();
    assert!(
        refused.contains("was trained apart from the head") && refused.contains("ensure_weight_tying"),
        "{refused}"
    );
    assert_eq!(parameters(&loaded(true).unwrap()).len(), parameters(&model).len());
}

/// vLLM's rules, as its documentation and code state them: names end in `.lora_A.weight` or `.lora_B.weight` behind `base_model.model.`, and
/// `target_modules` are names.
#[test]
fn files_follow_the_naming_rules_of_vllm() {
    let (base, _) = load(&case("qwen2_tied"), &devices()[0]);
    let model = attach(base, &LoraConfig::default(), 0).unwrap();
    let out = tempfile::tempdir().unwrap();
    let about = AdapterAbout { base: "Qwen/Qwen2-0.5B".into(), revision: None, task: AdapterTask::CausalLm };
    save_adapter(&model, &LoraConfig::default(), &about, out.path()).unwrap();
    let settings = crate::support::json(&out.path().join("adapter_config.json"));
    let maps = serde_json::json!(["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]);
    assert_eq!((&settings["target_modules"], &settings["r"], &settings["lora_alpha"]), (&maps, &16.into(), &32.into()));
    let bytes = std::fs::read(out.path().join("adapter_model.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.len(), 28);
    for (name, tensor) in file.iter() {
        let module = name.strip_prefix("base_model.model.").unwrap();
        let module = module.strip_suffix(".lora_A.weight").or_else(|| module.strip_suffix(".lora_B.weight")).unwrap();
        assert!(maps.as_array().unwrap().iter().any(|map| module.ends_with(map.as_str().unwrap())), "{name}");
        assert_eq!(tensor.dtype(), safetensors::Dtype::F32);
    }
}
