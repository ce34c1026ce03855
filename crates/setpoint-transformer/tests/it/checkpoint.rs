use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::path::Path;

use burn::module::Module;
use burn::tensor::{Device, FloatDType, Tensor};
use safetensors::{Dtype, SafeTensors};
use serde_json::json;
use setpoint_transformer::checkpoint::{self, Checkpoint};
use setpoint_transformer::{
    CausalLm, Decoder, Error, GenerationConfig, LoadOptions, ModelConfig, Packing, SaveOptions, pack,
};

use crate::support::{case, devices, golden, json as read_json};

type Files = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

/// Every tensor of a folder, bit by bit.
fn tensors(dir: &Path) -> Files {
    let mut found = Files::new();
    for entry in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
        let name = entry.file_name().unwrap().to_str().unwrap();
        if name.starts_with("model") && name.ends_with(".safetensors") {
            let bytes = fs::read(&entry).unwrap();
            for (name, view) in SafeTensors::deserialize(&bytes).unwrap().iter() {
                found.insert(name.to_owned(), (view.dtype(), view.shape().to_vec(), view.data().to_vec()));
            }
        }
    }
    found
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn load_and_save_are_inverse_to_the_bit() {
    let [flex, _] = devices();
    for dir in golden() {
        let (model, config) = CausalLm::load(&dir, &LoadOptions::default(), &flex).unwrap();
        for max_shard_bytes in [u64::MAX, 9_000] {
            let folder = tempfile::tempdir().unwrap();
            let options = SaveOptions { max_shard_bytes, ..SaveOptions::default() };
            model.save(&config, folder.path(), &options).unwrap();
            assert_eq!(tensors(folder.path()), tensors(&dir), "{}", dir.display());
            let (again, config_again) = CausalLm::load(folder.path(), &LoadOptions::default(), &flex).unwrap();
            assert_eq!(config_again.to_json(), config.to_json());
            assert_eq!(again.num_params(), model.num_params());
        }
    }
}

#[test]
fn shards_are_of_the_size_asked_for_and_indexed() {
    let [flex, _] = devices();
    let (model, config) = CausalLm::load(&case("llama_kv2"), &LoadOptions::default(), &flex).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let options = SaveOptions { max_shard_bytes: 15_000, ..SaveOptions::default() };
    model.save(&config, folder.path(), &options).unwrap();
    let index = read_json(&folder.path().join("model.safetensors.index.json"));
    let all = tensors(folder.path());
    let total: usize = all.values().map(|(_, _, bytes)| bytes.len()).sum();
    assert_eq!(index["metadata"]["total_size"], json!(total));
    let map = index["weight_map"].as_object().unwrap();
    assert_eq!(map.keys().collect::<BTreeSet<_>>(), all.keys().collect::<BTreeSet<_>>());
    let shards: Vec<_> = names(folder.path()).into_iter().filter(|name| name.ends_with(".safetensors")).collect();
    assert!(shards.len() > 2);
    for (i, name) in shards.iter().enumerate() {
        assert_eq!(*name, format!("model-{:05}-of-{:05}.safetensors", i + 1, shards.len()));
        let bytes = fs::read(folder.path().join(name)).unwrap();
        let (header, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
        assert!(header % 8 == 0 && metadata.data_len() <= 15_000);
        assert_eq!(metadata.metadata().as_ref().unwrap()["format"], "pt");
        for tensor in metadata.tensors().keys() {
            assert_eq!(map[tensor], json!(name));
        }
    }
}

#[test]
fn a_second_save_replaces_the_weights_and_nothing_else() {
    let [flex, _] = devices();
    let (model, config) = CausalLm::load(&case("llama_kv2"), &LoadOptions::default(), &flex).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let save = |max_shard_bytes| {
        let generation = Some(GenerationConfig { stop_token_ids: vec![2], ..GenerationConfig::default() });
        model.save(&config, folder.path(), &SaveOptions { max_shard_bytes, generation, dtype: None }).unwrap();
        names(folder.path())
    };
    save(20_000);
    fs::write(folder.path().join("tokenizer.json"), "{}").unwrap();
    assert_eq!(save(u64::MAX), ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json"]);
    let sharded = save(9_000);
    assert!(!sharded.contains(&"model.safetensors".to_owned()) && sharded.contains(&"tokenizer.json".to_owned()));
    assert!(save(20_000).len() < sharded.len());
    CausalLm::load(folder.path(), &LoadOptions::default(), &flex).unwrap();
    let generation = GenerationConfig::for_model(folder.path(), &config).unwrap();
    assert_eq!(generation.stop_token_ids, [2]);
}

fn first_weight(model: &CausalLm) -> (FloatDType, Vec<f32>) {
    let weight = model.model.embed_tokens.weight.val();
    (weight.dtype().into(), weight.cast(FloatDType::F32).into_data().try_into_vec().unwrap())
}

#[test]
#[allow(deprecated)]
fn number_formats() {
    let [flex, ndarray] = devices();
    for (name, dtype) in [("llama_bf16", FloatDType::BF16), ("llama_f16", FloatDType::F16)] {
        let load = |dtype, device: &Device| {
            let options = LoadOptions { dtype, ..LoadOptions::default() };
            CausalLm::load(&case(name), &options, device)
        };
        let (kept, config) = load(None, &flex).unwrap();
        let (wide, wide_config) = load(Some(FloatDType::F32), &flex).unwrap();
        // ndarray has no half precision: f32, with the same numbers.
        let (converted, _) = load(None, &ndarray).unwrap();
        assert_eq!((first_weight(&kept).0, config.dtype), (dtype, Some(dtype)));
        assert_eq!(first_weight(&wide), first_weight(&converted));
        assert_eq!((first_weight(&wide).0, wide_config.dtype), (FloatDType::F32, Some(FloatDType::F32)));
        assert_eq!(first_weight(&wide).1, first_weight(&kept).1);
        let error = load(Some(dtype), &ndarray).unwrap_err();
        assert!(matches!(&error, Error::DeviceDtype { supported, .. } if supported == "float32"), "{error}");

        // Written in the file's format again, from either, the bytes are the same.
        for model in [&wide, &converted] {
            let folder = tempfile::tempdir().unwrap();
            let options = SaveOptions { dtype: Some(dtype), ..SaveOptions::default() };
            model.save(&wide_config, folder.path(), &options).unwrap();
            assert_eq!(tensors(folder.path()), tensors(&case(name)));
            assert_eq!(ModelConfig::from_dir(folder.path()).unwrap().dtype, Some(dtype));
        }
        // Half precision computes, and about the same.
        let hidden = |model: &CausalLm, device: &Device| {
            let hidden = model.decoder().forward(pack(&[[1u32, 5, 9]], device), &Packing::rows([3]), None);
            assert_eq!(hidden.dtype(), model.model.norm.weight.val().dtype());
            hidden.cast(FloatDType::F32)
        };
        let difference = (hidden(&kept, &flex) - hidden(&wide, &flex)).abs().max().into_scalar::<f32>();
        assert!(difference < 0.2, "{difference}");
    }
}

#[test]
fn parameters_on_an_autodiff_device_are_trainable_and_have_stable_ids() {
    for device in devices() {
        let dir = case("qwen2_tied");
        let (model, config) = CausalLm::load(&dir, &LoadOptions::default(), &device.clone().autodiff()).unwrap();
        let weight = |model: &CausalLm| model.model.layers[0].self_attn.o_proj.weight.val();
        assert!(weight(&model).is_require_grad() && model.decoder().device().is_autodiff());
        assert!(!weight(&model.valid()).is_autodiff());
        let ids =
            |model: &CausalLm| checkpoint::parameters(model).into_iter().map(|p| (p.name, p.id)).collect::<Vec<_>>();
        let (plain, _) = CausalLm::load(&dir, &LoadOptions::default(), &device).unwrap();
        assert!(!weight(&plain).is_autodiff());
        let fresh = CausalLm::init(&config, 1, &device.clone().autodiff());
        assert!(weight(&fresh).is_require_grad());
        assert_eq!(ids(&model), ids(&plain));
        assert_eq!(ids(&model), ids(&fresh));
        let distinct: HashSet<_> = ids(&model).into_iter().map(|(_, id)| id).collect();
        assert_eq!(distinct.len(), ids(&model).len());
    }
}

#[test]
fn init_follows_seed_and_name_alone() {
    let config = ModelConfig::from_dir(&case("qwen2_head_dim")).unwrap();
    let [flex, ndarray] = devices();
    let save = |seed, device: &Device| {
        let folder = tempfile::tempdir().unwrap();
        CausalLm::init(&config, seed, device).save(&config, folder.path(), &SaveOptions::default()).unwrap();
        tensors(folder.path())
    };
    let first = save(1, &flex);
    assert_eq!(first, save(1, &ndarray));
    assert_ne!(first, save(2, &flex));
    for (name, (_, shape, bytes)) in &first {
        let values: Vec<f64> = bytes.as_chunks().0.iter().map(|&x| f64::from(f32::from_le_bytes(x))).collect();
        let constant = |value: f64| values.iter().all(|&x| x == value);
        match shape.len() {
            1 if name.ends_with("bias") => assert!(constant(0.0), "{name}"),
            1 => assert!(constant(1.0), "{name}"),
            _ => {
                // Mean and deviation of n draws from N(0, 0.3²), within five standard errors.
                let n = values.len() as f64;
                let mean = values.iter().sum::<f64>() / n;
                let std = (values.iter().map(|x| x * x).sum::<f64>() / n).sqrt();
                assert!(mean.abs() < 5.0 * 0.3 / n.sqrt(), "{name}: {mean}");
                assert!((std - 0.3).abs() < 5.0 * 0.3 / (2.0 * n).sqrt(), "{name}: {std}");
            }
        }
    }
}

#[test]
fn a_part_of_a_checkpoint_goes_into_a_part_of_a_model() {
    let [flex, _] = devices();
    let dir = case("llama_kv2");
    let (model, config) = CausalLm::load(&dir, &LoadOptions::default(), &flex).unwrap();
    let options = LoadOptions {
        prefix: "model.".to_owned(),
        ignore: vec!["lm_head.weight".to_owned()],
        ..LoadOptions::default()
    };
    let decoder = checkpoint::load_module(Decoder::zeros(&config, &flex), &dir, &options).unwrap();
    let hidden = |decoder: &Decoder| decoder.forward(pack(&[[1u32, 7, 8]], &flex), &Packing::rows([3]), None);
    hidden(&decoder).into_data().assert_eq(&hidden(model.decoder()).into_data(), true);

    // A head that the file does not have keeps its value.
    let no_head = tempfile::tempdir().unwrap();
    checkpoint::save_model(&Wrap { model: decoder }, &config, no_head.path(), &SaveOptions::default()).unwrap();
    let options = LoadOptions { optional: vec!["lm_head.".to_owned()], ..LoadOptions::default() };
    let fresh = CausalLm::init(&config, 3, &flex);
    let head = |model: &CausalLm| model.lm_head.as_ref().unwrap().weight.val().into_data();
    let mixed = checkpoint::load_module(fresh.clone(), no_head.path(), &options).unwrap();
    let training =
        checkpoint::load_module(CausalLm::init(&config, 3, &flex.clone().autodiff()), no_head.path(), &options);
    assert!(training.unwrap().lm_head.unwrap().weight.val().is_require_grad());
    assert_eq!(head(&mixed), head(&fresh));
    assert_eq!(first_weight(&mixed), first_weight(&model));
    assert_eq!(Checkpoint::open(&dir).unwrap().shape("lm_head.weight"), Some(&[96, 32][..]));
}

#[derive(Module, Debug)]
struct Wrap {
    model: Decoder,
}

#[test]
fn a_tied_head_may_be_stored_if_it_is_the_embedding() {
    let [flex, _] = devices();
    let (model, config) = CausalLm::load(&case("llama_kv2_tied"), &LoadOptions::default(), &flex).unwrap();
    let embedding = model.model.embed_tokens.weight.val();
    let with_head = |weight: Tensor<2>| {
        let folder = tempfile::tempdir().unwrap();
        let mut untied = config.clone();
        untied.tie_word_embeddings = false;
        let mut other = CausalLm::zeros(&untied, &flex);
        other.model = model.model.clone();
        other.lm_head.as_mut().unwrap().weight.set(weight);
        other.save(&untied, folder.path(), &SaveOptions::default()).unwrap();
        fs::write(folder.path().join("config.json"), config.to_json().to_string()).unwrap();
        CausalLm::load(folder.path(), &LoadOptions::default(), &flex)
    };
    let (again, _) = with_head(embedding.clone()).unwrap();
    assert!(again.lm_head.is_none());
    let error = with_head(embedding + 1.0).unwrap_err();
    assert!(matches!(error, Error::TiedHeadDiffers { .. }), "{error}");
}
