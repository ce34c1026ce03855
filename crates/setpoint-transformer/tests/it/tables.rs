//! Adapters with the embeddings or the head, on bases that tie the two.

use std::path::Path;

use safetensors::tensor::TensorView;
use serde_json::json;
use setpoint_transformer::lora::{AdapterFolder, LoraConfig, Targets, attach};
use setpoint_transformer::{CausalLm, Error};

use crate::support::{case, devices, load};

const HEAD: &str = "base_model.model.lm_head.weight";
const TABLE: &str = "base_model.model.model.embed_tokens.weight";

/// A folder as PEFT writes it, with these tensors of the given shapes besides those of one map. The numbers of a tensor are its value.
fn folder(base: &Path, modules_to_save: &[&str], tensors: &[(&str, [usize; 2], f32)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let settings = json!({"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"],
        "modules_to_save": modules_to_save, "base_model_name_or_path": base.display().to_string()});
    std::fs::write(dir.path().join("adapter_config.json"), settings.to_string()).unwrap();
    let mut all: Vec<(String, [usize; 2], f32)> =
        tensors.iter().map(|&(name, shape, value)| (name.to_owned(), shape, value)).collect();
    for (layer, (part, shape)) in
        [0, 1].into_iter().flat_map(|i| [("A", [2, 32]), ("B", [32, 2])].map(|part| (i, part)))
    {
        all.push((format!("base_model.model.model.layers.{layer}.self_attn.q_proj.lora_{part}.weight"), shape, 0.5));
    }
    let bytes: Vec<Vec<u8>> =
        all.iter().map(|(_, [rows, width], value)| value.to_le_bytes().repeat(rows * width)).collect();
    let views = all.iter().zip(&bytes).map(|((name, shape, _), bytes)| {
        (name.clone(), TensorView::new(safetensors::Dtype::F32, shape.to_vec(), bytes).unwrap())
    });
    safetensors::serialize_to_file(views, None, &dir.path().join("adapter_model.safetensors")).unwrap();
    dir
}

fn refused(modules_to_save: &[&str], tensors: &[(&str, [usize; 2], f32)]) -> String {
    let base = case("llama_kv2_tied");
    let dir = folder(&base, modules_to_save, tensors);
    let (model, _) = load(&base, &devices()[0]);
    let error = AdapterFolder::open(dir.path()).unwrap().load(model).unwrap_err();
    assert!(matches!(error, Error::Adapter { .. }), "{error}");
    let message = error.to_string();
    assert!(message.contains("adapter_model.safetensors: ") && !message.contains('\n'), "{message}");
    message
}

#[test]
fn a_head_that_was_trained_apart_needs_a_base_that_is_not_tied() {
    let both = ["lm_head", "embed_tokens"];
    for message in [
        refused(&["lm_head"], &[(HEAD, [96, 32], 1.0)]),
        refused(&both, &[(HEAD, [96, 32], 1.0), (TABLE, [96, 32], 2.0)]),
    ] {
        assert!(
            message.contains(&format!("`{HEAD}` is a head that was trained apart from the embeddings")),
            "{message}"
        );
        assert!(message.contains("tie_word_embeddings = false") && message.contains("`lm_head.weight`"), "{message}");
    }
    // The same matrix under both names, and a head on a base with one of its own.
    for (base, modules, tensors) in [
        ("llama_kv2_tied", &both[..], &[(HEAD, [96, 32], 1.0), (TABLE, [96, 32], 1.0)][..]),
        ("llama_kv2", &both[..1], &[(HEAD, [96, 32], 1.0)][..]),
    ] {
        let dir = folder(&case(base), modules, tensors);
        let (model, _) = load(&case(base), &devices()[0]);
        let model: CausalLm = AdapterFolder::open(dir.path()).unwrap().load(model).unwrap();
        let first: Vec<f32> = model.head_weight().into_data().try_into_vec().unwrap();
        assert!(first.iter().all(|&x| x == 1.0), "{base}");
    }
}

#[test]
fn low_rank_updates_of_tables_are_refused_by_name() {
    let base = "base_model.model.model.embed_tokens";
    let (a, b) = (format!("{base}.lora_embedding_A"), format!("{base}.lora_embedding_B"));
    let message = refused(&[], &[(a.as_str(), [2, 96], 1.0), (b.as_str(), [32, 2], 1.0)]);
    assert!(
        message.contains(&format!("`{a}` belongs to a low-rank update of `embed_tokens`, which is not computed")),
        "{message}"
    );
    let head = "base_model.model.lm_head";
    let (a, b) = (format!("{head}.lora_A.weight"), format!("{head}.lora_B.weight"));
    let message = refused(&[], &[(a.as_str(), [2, 32], 1.0), (b.as_str(), [96, 2], 1.0)]);
    assert!(message.contains("low-rank update of `lm_head`") && message.contains("modules_to_save"), "{message}");
    // The same as a setting.
    let (model, _) = load(&case("llama_kv2"), &devices()[0]);
    for table in ["embed_tokens", "lm_head"] {
        let config = LoraConfig { targets: Targets::Names(vec![table.to_owned()]), ..LoraConfig::default() };
        let message = attach(model.clone(), &config, 0).unwrap_err().to_string();
        assert!(message.contains(&format!("`{table}` can get no low-rank update")), "{message}");
    }
}
