//! Models whose matrices stay in 4-bit codes, against the same models with the dequantised numbers.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::{DType, Device, FloatDType, Tensor, TensorData};
use setpoint_transformer::checkpoint::{load_module, parameters};
use setpoint_transformer::lora::{AdapterFolder, LoraConfig, attach, merged, without_adapter};
use setpoint_transformer::{
    CausalLm, Error, GenerationConfig, Linear, LoadOptions, ModelConfig, Nf4Matrix, Packing, Part, Quantize, Recompute,
    SaveOptions, generate, is_quantized, pack, quantized_matrices,
};

use crate::lora::{by_path, by_value, folder, host, logits, loss};
use crate::support::{arrays, case, devices, workspace};

fn codes(name: &str) -> PathBuf {
    workspace().join("tests/golden/nf4").join(name)
}

fn read(dir: &Path, dtype: FloatDType, quantize: Option<Quantize>, device: &Device) -> (CausalLm, ModelConfig) {
    CausalLm::load(dir, &LoadOptions { dtype: Some(dtype), quantize, ..LoadOptions::default() }, device).unwrap()
}

/// The linear maps of a model's layers.
fn maps(model: &mut CausalLm) -> impl Iterator<Item = &mut Linear> {
    model.model.layers.iter_mut().flat_map(|layer| {
        let (attention, mlp) = (&mut layer.self_attn, &mut layer.mlp);
        let maps = [
            attention.q_proj.as_mut(),
            attention.k_proj.as_mut(),
            attention.v_proj.as_mut(),
            attention.qkv_proj.as_mut(),
            Some(&mut attention.o_proj),
            mlp.gate_proj.as_mut(),
            mlp.up_proj.as_mut(),
            mlp.gate_up_proj.as_mut(),
            Some(&mut mlp.down_proj),
        ];
        maps.into_iter().flatten()
    })
}

/// The model with every matrix quantised and dequantised on the host.
fn dequantised(mut model: CausalLm, quantize: Quantize) -> CausalLm {
    let Quantize::Nf4 { double_quant } = quantize;
    for map in maps(&mut model) {
        let weight = map.weight.val();
        let (dtype, shape) = (FloatDType::from(weight.dtype()), weight.dims());
        let values = host(weight.clone().inner().cast(FloatDType::F32));
        let matrix = Nf4Matrix::quantize(&values, shape, dtype, double_quant).unwrap();
        let mut numbers = vec![0.0; values.len()];
        matrix.dequantize_rows(0..shape[0], &mut numbers);
        let device = weight.device();
        map.weight.set(Tensor::from_data(TensorData::new(numbers, shape), (&device, dtype.into())));
    }
    model
}

#[track_caller]
fn assert_close(found: &[f32], expected: &[f32], tolerance: f32, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let size = expected.iter().fold(1e-3_f32, |size, x| size.max(x.abs()));
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((found - expected).abs() <= tolerance * size, "{what}[{i}]: {found} against {expected}");
    }
}

const ROW: [u32; 9] = [3, 17, 5, 44, 9, 61, 2, 30, 7];

#[test]
fn a_model_in_codes_is_the_one_with_the_dequantised_weights() {
    for name in [
        "llama_kv2",
        "llama_kv2_tied",
        "llama_bf16",
        "llama_sharded",
        "qwen2_head_dim",
        "eurollm",
        "qwen3",
        "olmo2",
        "phi3",
    ] {
        for (double_quant, device) in [true, false].into_iter().flat_map(|double| devices().map(|d| (double, d))) {
            let quantize = Quantize::Nf4 { double_quant };
            for dtype in [FloatDType::F32, FloatDType::BF16] {
                if !device.supports_dtype(dtype) {
                    continue;
                }
                let what = format!("{name}, {quantize:?}, {dtype:?} on {device:?}");
                let (model, _) = read(&case(name), dtype, Some(quantize), &device);
                let (base, _) = read(&case(name), dtype, None, &device);
                let expected = dequantised(base.clone(), quantize);
                let f32 = |model: &CausalLm| host(logits(model, &ROW).cast(FloatDType::F32));
                assert_close(&f32(&model), &f32(&expected), 1e-5, &what);
                assert_ne!(f32(&model), f32(&base), "{what}");
                let config = GenerationConfig { max_new_tokens: 8, do_sample: false, ..GenerationConfig::default() };
                let prompts = vec![ROW.to_vec(), vec![5]];
                let [found, expected] = [&model, &expected].map(|model| generate(model, &prompts, &config, 1).unwrap());
                for (found, expected) in found.iter().zip(&expected) {
                    assert_eq!(found.ids, expected.ids, "{what}");
                }
            }
        }
    }
}

#[test]
fn only_matrices_of_layers_are_in_codes_and_they_are_no_parameters() {
    let [device, _] = devices();
    let device = device.autodiff();
    let (mut model, config) = read(&case("llama_kv2"), FloatDType::F32, Some(Quantize::default()), &device);
    let (dense, _) = read(&case("llama_kv2"), FloatDType::F32, None, &device);
    assert!(is_quantized(&model) && !is_quantized(&dense));
    let found = quantized_matrices(&model);
    assert_eq!(found.len(), 14);
    assert_eq!(found[0], "model.layers.0.self_attn.q_proj.weight");
    let names = |model: &CausalLm| parameters(model).into_iter().map(|parameter| parameter.name).collect::<Vec<_>>();
    let mut others = names(&dense);
    others.retain(|name| !found.contains(name));
    assert_eq!(names(&model), others);
    assert!(others.iter().any(|name| name == "lm_head.weight"));
    assert_eq!(model.num_params(), dense.num_params());
    assert_eq!(model.num_params() as u64, config.num_parameters());
    let shapes: Vec<[usize; 2]> = maps(&mut model).map(|map| map.weight.lazy_shape().dims()).collect();
    assert_eq!(shapes, config.map_shapes().repeat(2));
    // The gradient of the rest passes through the codes.
    let (gradients, without) = by_path(&model, &mut loss(logits(&model, &ROW), &ROW).backward());
    assert!(without.is_empty(), "{without:?}");
    assert_eq!(gradients.len(), others.len());
}

/// Bytes of the tensors on the device: at most 0.53 a number, and those of the formula.
#[test]
fn a_weight_takes_little_more_than_half_a_byte() {
    let values: Vec<f32> = (0..768_i64 * 520).map(|i| ((i * 7919 % 1000) as f32 - 500.0) / 500.0).collect();
    let [device, _] = devices();
    let (_, mut config) = read(&case("llama_kv2_tied"), FloatDType::F32, None, &device);
    (config.hidden_size, config.intermediate_size, config.num_hidden_layers) = (520, 768, 1);
    (config.num_attention_heads, config.num_key_value_heads, config.head_dim) = (4, 4, 130);
    let dir = tempfile::tempdir().unwrap();
    let mut model = CausalLm::init(&config, 1, &device);
    let matrix = Tensor::from_data(TensorData::new(values, [768, 520]), &device);
    model.model.layers[0].mlp.up_proj.as_mut().unwrap().weight.set(matrix);
    model.save(&config, dir.path(), &SaveOptions::default()).unwrap();
    for (double_quant, most) in [(true, 0.53), (false, 0.57)] {
        let quantize = Quantize::Nf4 { double_quant };
        let (mut model, _) = read(dir.path(), FloatDType::F32, Some(quantize), &device);
        for map in maps(&mut model) {
            let shape: [usize; 2] = map.weight.lazy_shape().dims();
            let count = (shape[0] * shape[1]) as f64;
            assert_eq!(map.weight.bytes() as u64, quantize.bytes(shape));
            assert!(map.weight.bytes() as f64 <= most * count, "{} bytes of {shape:?}", map.weight.bytes());
        }
    }
}

/// The codes of a file are kept: numbers are those of the file, and not those of a second quantisation.
#[test]
fn codes_of_bitsandbytes_are_read_as_they_are() {
    for (name, device) in ["llama_nf4", "llama_single", "qwen2_nf4", "qwen2_single"]
        .into_iter()
        .flat_map(|name| devices().map(|device| (name, device)))
    {
        let expected = arrays(&codes(name).join("expected.safetensors"));
        let (ids, logits) = (&expected["input_ids"], &expected["logits"]);
        let rows: Vec<Vec<u32>> =
            ids.values.chunks(ids.shape[1]).map(|row| row.iter().map(|&id| id as u32).collect()).collect();
        // Another kind of scales than some of the files have.
        let (model, _) = read(&codes(name), FloatDType::F32, Some(Quantize::default()), &device);
        assert_eq!(quantized_matrices(&model).len(), 14, "{name}");
        let hidden = model.decoder().forward(pack(&rows, &device), &Packing::rows(rows.iter().map(Vec::len)), None);
        let expected: Vec<f32> = logits.values.iter().map(|&x| x as f32).collect();
        assert_close(&host(model.logits(hidden)), &expected, 1e-5, &format!("{name} on {device:?}"));
    }
}

/// `Linear4bit` on the CPU, in bf16.
#[test]
fn maps_in_bf16_are_those_of_bitsandbytes() {
    let [device, _] = devices();
    for name in ["llama_nf4", "llama_single", "qwen2_nf4", "qwen2_single"] {
        let expected = arrays(&codes(name).join("expected.safetensors"));
        let (mut model, _) = read(&codes(name), FloatDType::BF16, Some(Quantize::default()), &device);
        let paths = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"];
        let paths = paths.into_iter().chain(["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]);
        for (path, map) in paths.zip(maps(&mut model).skip(7)) {
            let (input, output) = (&expected[&format!("{path}.input")], &expected[&format!("{path}.output")]);
            let f32 = |values: &[f64]| values.iter().map(|&x| x as f32).collect::<Vec<_>>();
            let x = TensorData::new(f32(&input.values), input.shape.clone());
            let found = map.forward(Tensor::from_data(x, (&device, DType::BF16)));
            assert_close(&host(found.cast(FloatDType::F32)), &f32(&output.values), 2e-2, &format!("{name}, {path}"));
        }
    }
}

/// A whole model of `Linear4bit` on the CPU, in bf16. Both round at every map, and in other places, so they are compared by how far rounding
/// takes `Linear4bit` itself from the same codes in f32.
#[test]
fn a_model_in_bf16_is_as_near_to_bitsandbytes_as_rounding_allows() {
    let distance = |a: &[f64], b: &[f64]| -> f64 {
        assert_eq!(a.len(), b.len());
        a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt()
    };
    let [device, _] = devices();
    for name in ["llama_nf4", "llama_single", "qwen2_nf4", "qwen2_single"] {
        let expected = arrays(&codes(name).join("expected.safetensors"));
        let (ids, exact, theirs) =
            (&expected["input_ids"], &expected["logits"].values, &expected["logits_bf16"].values);
        let rows: Vec<Vec<u32>> =
            ids.values.chunks(ids.shape[1]).map(|row| row.iter().map(|&id| id as u32).collect()).collect();
        let (model, _) = read(&codes(name), FloatDType::BF16, Some(Quantize::default()), &device);
        let hidden = model.decoder().forward(pack(&rows, &device), &Packing::rows(rows.iter().map(Vec::len)), None);
        let found = host(model.logits(hidden).cast(FloatDType::F32));
        let found: Vec<f64> = found.into_iter().map(f64::from).collect();
        let rounding = distance(theirs, exact);
        assert!(
            rounding < 0.02 * distance(exact, &vec![0.0; exact.len()]),
            "{name}: the golden file is another model's"
        );
        // Two independent errors of this size are 1.4 of it apart.
        let apart = distance(&found, theirs);
        assert!(apart < 2.0 * rounding, "{name}: {apart} apart, where rounding is {rounding}");
        assert!(distance(&found, exact) < 1.5 * rounding, "{name}: {} from f32", distance(&found, exact));
    }
}

/// The gradients of an adapter by the paths of its factors, as an engine computes them.
fn gradients(mut model: CausalLm, recompute: Recompute) -> HashMap<String, Vec<f32>> {
    model.model.recompute = recompute;
    let ids = pack(&[ROW], &model.decoder().device());
    let (hidden, tape) = model.model.forward_taped(ids, &Packing::rows([ROW.len()]), None);
    let mut gradients = loss(model.logits(hidden), &ROW).backward();
    let (mut found, _) = by_path(&model, &mut gradients);
    tape.unwrap().backward(&mut gradients, &mut |part, gradients| {
        if let Part::Block(i, block) = part {
            let below = by_path(block, gradients).0.into_iter();
            found.extend(below.map(|(path, gradient)| (format!("model.layers.{i}.{path}"), gradient)));
        }
    });
    found
}

#[test]
fn an_adapter_on_codes_has_the_gradients_of_one_on_the_dequantised_weights() {
    for (name, device) in ["llama", "qwen2"].into_iter().flat_map(|name| devices().map(|device| (name, device))) {
        let adapter = AdapterFolder::open(&folder(name)).unwrap();
        let dir = folder(name).join(adapter.base.as_ref().unwrap());
        let (device, quantize) = (device.autodiff(), Quantize::default());
        let (base, _) = read(&dir, FloatDType::F32, Some(quantize), &device);
        let model = adapter.load(base.clone()).unwrap();
        let dense = adapter.load(dequantised(read(&dir, FloatDType::F32, None, &device).0, quantize)).unwrap();
        let what = format!("{name} on {device:?}");
        let inner = |model: &CausalLm| host(logits(model, &ROW).inner());
        assert_close(&inner(&model), &inner(&dense), 1e-5, &what);
        assert_eq!(inner(&without_adapter(&model)), inner(&base), "{what}: switched off it is the base");
        for recompute in [Recompute::None, Recompute::Block] {
            let (found, expected) = (gradients(model.clone(), recompute), gradients(dense.clone(), recompute));
            assert_eq!(found.len(), expected.len(), "{what}");
            assert!(found.keys().all(|path| path.contains(".lora_")), "{what}: only factors have gradients");
            for (path, gradient) in &found {
                assert_close(gradient, &expected[path], 1e-5, &format!("{what}, {recompute:?}, {path}"));
            }
        }
        // Merged, it is a model of numbers with the names of any other.
        let (merged, expected) = (merged(model), by_value(&merged(dense)));
        assert!(!is_quantized(&merged));
        for (path, values) in by_value(&merged) {
            assert_close(&values, &expected[&path], 1e-6, &path);
        }
        assert_eq!(parameters(&merged).len(), expected.len());
    }
}

/// An adapter on a few maps: the others are dequantised as well, or the model could not be saved.
#[test]
fn a_merged_model_has_no_codes() {
    let [device, _] = devices();
    let (model, config) = read(&codes("llama_nf4"), FloatDType::BF16, Some(Quantize::default()), &device);
    let lora = LoraConfig { layers: vec![1], ..LoraConfig::default() };
    let merged = merged(attach(model, &lora, 1).unwrap());
    let (dense, _) = read(&codes("llama_nf4"), FloatDType::BF16, None, &device);
    assert_eq!(by_value(&merged), by_value(&dense));
    let ids = |model: &CausalLm| parameters(model).into_iter().map(|parameter| parameter.id).collect::<Vec<_>>();
    assert_eq!(ids(&merged), ids(&dense));
    let dir = tempfile::tempdir().unwrap();
    merged.save(&config, dir.path(), &SaveOptions::default()).unwrap();
    assert_eq!(by_value(&read(dir.path(), FloatDType::BF16, None, &device).0), by_value(&dense));
}

/// Copies for evaluation, for training and for other devices.
#[test]
fn codes_go_where_the_model_goes() {
    let [flex, ndarray] = devices();
    let (model, _) = read(&codes("qwen2_nf4"), FloatDType::F32, Some(Quantize::default()), &flex.clone().autodiff());
    let expected = host(logits(&model, &ROW).inner());
    let valid = model.valid();
    assert!(!valid.decoder().device().is_autodiff());
    assert_eq!(host(logits(&valid, &ROW)), expected);
    let trained = valid.clone().train();
    assert_eq!(host(logits(&trained, &ROW).inner()), expected);
    assert!(!by_path(&trained, &mut loss(logits(&trained, &ROW), &ROW).backward()).0.is_empty());
    for moved in [model.fork(&ndarray.clone().autodiff()).valid(), valid.to_device(&ndarray)] {
        assert_eq!(moved.devices(), vec![ndarray.clone()]);
        assert_close(&host(logits(&moved, &ROW)), &expected, 1e-5, "moved");
    }
}

#[test]
fn a_model_in_codes_is_not_saved_whole() {
    let [device, _] = devices();
    let (model, config) = read(&case("llama_kv2"), FloatDType::F32, Some(Quantize::default()), &device);
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("model");
    let error = model.save(&config, &target, &SaveOptions::default()).unwrap_err();
    let said = "a model whose matrices are in 4-bit codes (14, the first is `model.layers.0.self_attn.q_proj.weight`) cannot be saved";
    assert!(error.to_string().starts_with(said), "{error}");
    assert!(!target.exists());
}

#[test]
fn what_cannot_be_quantised_is_refused() {
    let [device, _] = devices();
    let options = LoadOptions { quantize: Some(Quantize::default()), ..LoadOptions::default() };
    let error = load_module(Linear::zeros(4, 4, false, &device), &case("llama_kv2"), &options).unwrap_err();
    assert!(matches!(error, Error::Quantized { .. }), "{error}");

    let (mut model, config) = read(&case("llama_kv2"), FloatDType::F32, None, &device);
    let weight = &mut model.model.layers[1].mlp.up_proj.as_mut().unwrap().weight;
    let ([outputs, inputs], mut values) = (weight.val().dims(), host(weight.val()));
    values[inputs + 3] = f32::INFINITY;
    weight.set(Tensor::from_data(TensorData::new(values, [outputs, inputs]), &device));
    let dir = tempfile::tempdir().unwrap();
    model.save(&config, dir.path(), &SaveOptions::default()).unwrap();
    let message = CausalLm::load(dir.path(), &options, &device).unwrap_err().to_string();
    let said = format!("tensor `model.layers.1.mlp.up_proj.weight` holds inf at place {}", inputs + 3);
    assert!(message.contains(&said), "{message}");
    // A tensor that is missing is still missed.
    let (_, mut config) = read(&case("llama_kv2"), FloatDType::F32, None, &device);
    config.num_hidden_layers = 3;
    let larger = CausalLm::zeros(&config, &device);
    let error = setpoint_transformer::checkpoint::load_model(larger, &case("llama_kv2"), &options).unwrap_err();
    assert!(matches!(error, Error::MissingTensor { .. }), "{error}");
}
