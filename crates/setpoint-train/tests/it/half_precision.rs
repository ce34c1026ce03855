//! bf16 weights and activations beside f32, on the CPU backend that computes in bf16.

use std::path::Path;

use burn::tensor::{DType, Device, FloatDType};
use setpoint_train::{AdamW, AdamWConfig, GradientSink, TokenLogps, backward, token_logps};
use setpoint_transformer::{CausalLm, LoadOptions, ModelConfig, Packing, Recompute, SaveOptions, pack};

use crate::golden::golden_path;

/// Shapes of two families, with weights as a training from scratch begins.
const SHAPES: [&str; 2] = ["llama", "qwen3"];

const FORMATS: [FloatDType; 2] = [FloatDType::BF16, FloatDType::F32];

const STEPS: usize = 20;

/// Texts, and how far torch's bf16 is from its f32 on them (`tests/golden/make_half_precision.py`).
#[derive(serde::Deserialize)]
struct Golden {
    texts: Vec<Vec<u32>>,
    models: std::collections::BTreeMap<String, Apart>,
}

/// The distances of log-probabilities, nats.
#[derive(Debug, serde::Deserialize)]
struct Apart {
    largest: f64,
    mean: f64,
}

fn golden() -> Golden {
    serde_json::from_str(&std::fs::read_to_string(golden_path("half_precision.json")).unwrap()).unwrap()
}

fn load(folder: &Path, dtype: FloatDType) -> CausalLm {
    let options = LoadOptions { dtype: Some(dtype), ..LoadOptions::default() };
    CausalLm::load(folder, &options, &Device::flex().autodiff()).unwrap().0
}

/// Writes a bf16 checkpoint of a tiny shape.
fn checkpoint(shape: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let config = ModelConfig::from_dir(&golden_path("../../models/tiny").join(shape)).unwrap();
    let options = SaveOptions { dtype: Some(FloatDType::BF16), ..SaveOptions::default() };
    CausalLm::init(&config, 5, &Device::flex()).save(&config, dir.path(), &options).unwrap();
    dir
}

fn logps_of(model: &CausalLm, texts: &[Vec<u32>]) -> TokenLogps {
    let all = [true; 64];
    let rows: Vec<(&[u32], &[bool])> = texts.iter().map(|text| (text.as_slice(), &all[..text.len()])).collect();
    token_logps(model, &rows).unwrap()
}

/// Returns the distances between both formats of a checkpoint.
fn apart(folder: &Path, texts: &[Vec<u32>]) -> Apart {
    let [half, full] = FORMATS
        .map(|dtype| -> Vec<f64> { logps_of(&load(folder, dtype), texts).values.inner().into_data().iter().collect() });
    assert!(half.len() == full.len() && half.len() > 100, "{} tokens", half.len());
    let apart: Vec<f64> = half.iter().zip(&full).map(|(half, full)| (half - full).abs()).collect();
    Apart { largest: apart.iter().copied().fold(0.0, f64::max), mean: apart.iter().sum::<f64>() / apart.len() as f64 }
}

/// Trains and returns loss and gradient norm of each step.
fn train(mut model: CausalLm, texts: &[Vec<u32>]) -> Vec<[f64; 2]> {
    let mut optimizer = AdamW::new(AdamWConfig::default());
    let mut curve = vec![];
    for _ in 0..STEPS {
        let found = logps_of(&model, texts);
        // Sums over tokens are f32 in any case.
        assert_eq!([found.values.dtype(), found.sums.dtype(), found.entropy.dtype()], [DType::F32; 3]);
        let loss = found.sums.sum_dim(0).div_scalar(-(found.counts.iter().sum::<usize>() as f64));
        let value = f64::from(loss.clone().into_scalar::<f32>());
        let mut sink = GradientSink::new();
        backward(&model, "model", loss, found.tape, &mut sink);
        assert!(sink.paths().all(|path| sink.gradient(path).unwrap().dtype() == DType::F32), "sums of gradients");
        curve.push([value, sink.norm()]);
        model = optimizer.step(model, sink, 1e-3, 1.0).unwrap();
    }
    curve
}

#[test]
fn twenty_steps_in_bf16_follow_those_in_f32() {
    let texts = golden().texts;
    for shape in SHAPES {
        let dir = checkpoint(shape);
        for recompute in [Recompute::None, Recompute::Block] {
            let [half, full] = FORMATS.map(|dtype| {
                let mut model = load(dir.path(), dtype);
                model.model.recompute = recompute;
                train(model, &texts)
            });
            assert!(full[STEPS - 1][0] < 0.9 * full[0][0], "{shape} learns: {full:?}");
            assert_ne!(half, full, "{shape} computes in bf16");
            for (step, (half, full)) in half.iter().zip(&full).enumerate() {
                let share = |i: usize| (half[i] - full[i]).abs() / full[i];
                assert!(share(0) < 0.01, "{shape}, {recompute:?}, step {step}: losses {} and {}", half[0], full[0]);
                assert!(share(1) < 0.02, "{shape}, {recompute:?}, step {step}: norms {} and {}", half[1], full[1]);
            }
        }
    }
}

#[test]
fn log_probabilities_in_bf16_are_close_to_those_in_f32() {
    let texts = golden().texts;
    for shape in SHAPES {
        let found = apart(checkpoint(shape).path(), &texts);
        assert!(found.largest <= 3e-2 && (1e-6..=3e-3).contains(&found.mean), "{shape}: {found:?}");
    }
}

/// Weights of ten times the usual size, and norms behind the layers' parts: the format itself is far from f32 there.
#[test]
fn bf16_is_as_far_from_f32_as_in_torch_on_large_weights() {
    let Golden { texts, models } = golden();
    assert_eq!(models.len(), 2);
    for (name, torch) in models {
        let found = apart(&golden_path("transformer").join(&name), &texts);
        let within = |found: f64, torch: f64| (0.4..1.5).contains(&(found / torch));
        assert!(within(found.mean, torch.mean) && found.largest < 2.0 * torch.largest, "{name}: {found:?}, {torch:?}");
    }
}

#[test]
fn activations_have_the_format_of_the_weights() {
    let texts = golden().texts;
    let decoder = load(&golden_path("transformer/olmo2_bf16"), FloatDType::BF16).model;
    let packing = Packing::rows(texts.iter().map(Vec::len));
    let hidden = decoder.forward(pack(&texts, &decoder.device()), &packing, None);
    assert_eq!(hidden.dtype(), DType::BF16);
}
