//! Logits, log-probabilities, gradients and greedy paths of transformers.

use std::collections::HashMap;
use std::path::Path;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Gradients, Tensor, activation};
use setpoint_transformer::{
    CausalLm, Finish, GenerationConfig, ModelConfig, ModelType, Packing, checkpoint, generate, pack,
};

use crate::oracle::hidden_states;
use crate::support::{arrays, devices, golden, ids, json, load, stories, workspace};

/// The golden rows of a folder, without what fills them up.
pub(crate) fn rows(dir: &Path) -> Vec<Vec<u32>> {
    let expected = arrays(&dir.join("expected.safetensors"));
    let (input, lengths) = (&expected["input_ids"], &expected["lengths"]);
    let width = input.shape[1];
    let row = |(i, &length): (usize, &f64)| {
        input.values[i * width..][..length as usize].iter().map(|&id| id as u32).collect()
    };
    lengths.values.iter().enumerate().map(row).collect()
}

/// How logits are computed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pass {
    /// The crate's pass over packed tokens.
    Packed,
    /// The oracle's pass over padded rows.
    Oracle,
}

pub(crate) const PASSES: [Pass; 2] = [Pass::Packed, Pass::Oracle];

/// The logits of each row, `[s, v]`; the rows are computed together.
pub(crate) fn logits(model: &CausalLm, config: &ModelConfig, rows: &[Vec<u32>], pass: Pass) -> Vec<Tensor<2>> {
    let decoder = model.decoder();
    let (hidden, starts): (_, Vec<usize>) = match pass {
        Pass::Packed => {
            let packing = Packing::rows(rows.iter().map(Vec::len));
            let starts = packing.segments().iter().map(|segment| segment.start).collect();
            (decoder.forward(pack(rows, &decoder.device()), &packing, None), starts)
        }
        Pass::Oracle => {
            let hidden = hidden_states(decoder, config, rows);
            let [b, s, d] = hidden.dims();
            (hidden.reshape([b * s, d]), (0..b).map(|i| i * s).collect())
        }
    };
    let logits = model.logits(hidden);
    rows.iter().zip(starts).map(|(row, start)| logits.clone().narrow(0, start, row.len())).collect()
}

pub(crate) fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec().unwrap()
}

/// The log-probability of each token of a row after the first.
fn logps(model: &CausalLm, config: &ModelConfig, row: &[u32], pass: Pass) -> Tensor<1> {
    let logits = logits(model, config, &[row.to_vec()], pass).remove(0);
    let logps = activation::log_softmax(logits, 1);
    let s = row.len();
    let next: Vec<i32> = row[1..].iter().map(|&id| id as i32).collect();
    let index = Tensor::<1, burn::tensor::Int>::from_data(&next[..], &model.decoder().device());
    logps.narrow(0, 0, s - 1).gather(1, index.reshape([s - 1, 1])).reshape([s - 1])
}

#[test]
fn every_family_is_compared() {
    let compared: Vec<_> = golden().into_iter().map(|dir| ModelConfig::from_dir(&dir).unwrap().model_type).collect();
    for family in ModelType::all() {
        assert!(compared.contains(&family), "tests/golden/transformer has no model of the family {family}");
    }
}

#[test]
fn logits_and_logps_of_batches() {
    for (dir, pass) in golden().into_iter().flat_map(|dir| PASSES.map(|pass| (dir.clone(), pass))) {
        let expected = arrays(&dir.join("expected.safetensors"));
        let (v, width) = (expected["logits"].shape[2], expected["logits"].shape[1]);
        for device in devices() {
            let (model, config) = load(&dir, &device);
            let rows = rows(&dir);
            for (i, (row, logits)) in rows.iter().zip(logits(&model, &config, &rows, pass)).enumerate() {
                let log_softmax = host(activation::log_softmax(logits.clone(), 1));
                let logits = host(logits);
                for t in 0..row.len() {
                    let name = format!("{} {pass:?} row {i} token {t}", dir.display());
                    for id in 0..v {
                        let expected = expected["logits"].values[(i * width + t) * v + id];
                        let error = (f64::from(logits[t * v + id]) - expected).abs();
                        assert!(error < 1e-4, "{name}: {error}");
                    }
                    if t + 1 < row.len() {
                        let logp = f64::from(log_softmax[t * v + row[t + 1] as usize]);
                        let expected = expected["logps"].values[i * (width - 1) + t];
                        let error = (logp - expected).abs();
                        // The fused kernels add in an order of their own: the rounding of f32 numbers of this size.
                        let size = if matches!(pass, Pass::Packed) { expected.abs().max(1.0) } else { 1.0 };
                        assert!(error < 1e-5 * size, "{name}: {error} of {expected}");
                    }
                }
            }
        }
    }
}

/// Gradients by the parameter's name in the file.
struct Collect<'a> {
    path: Vec<String>,
    gradients: &'a Gradients,
    found: HashMap<String, Vec<f32>>,
}

impl ModuleVisitor for Collect<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let gradient = param.val().grad(self.gradients).expect("every parameter has a gradient");
        self.found.insert(self.path.join("."), host(gradient));
    }
}

#[test]
fn gradients_of_every_kind_of_parameter() {
    for (dir, pass) in golden().into_iter().flat_map(|dir| PASSES.map(|pass| (dir.clone(), pass))) {
        let expected = arrays(&dir.join("expected.safetensors"));
        for device in devices().map(Device::autodiff) {
            let (model, config) = load(&dir, &device);
            let gradients = logps(&model, &config, &rows(&dir)[0], pass).sum().backward();
            let mut collect = Collect { path: Vec::new(), gradients: &gradients, found: HashMap::new() };
            model.visit(&mut collect);
            let mut compared = 0;
            for (name, expected) in
                expected.iter().filter_map(|(name, array)| Some((name.strip_prefix("grad.")?, array)))
            {
                let scale = expected.values.iter().fold(1.0, |max: f64, x| max.max(x.abs()));
                for (found, expected) in collect.found[name].iter().zip(&expected.values) {
                    let error = (f64::from(*found) - expected).abs() / scale;
                    assert!(error < 1e-5, "{} {pass:?} {name}: {found} {expected}", dir.display());
                }
                compared += 1;
            }
            assert!(compared >= 6, "{} compares {compared}", dir.display());
            let norm = collect.found.values().flatten().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
            let expected = expected["grad_norm"].values[0];
            assert!((norm - expected).abs() < 1e-5 * expected, "{} {pass:?}: {norm} {expected}", dir.display());
        }
    }
}

#[test]
fn greedy_paths_with_and_without_penalty() {
    for dir in golden() {
        let golden = json(&dir.join("greedy.json"));
        let golden_rows = golden["rows"].as_array().unwrap();
        let prompts: Vec<Vec<u32>> = golden_rows.iter().map(|row| ids(&row["prompt"])).collect();
        let max_new_tokens = golden["max_new_tokens"].as_u64().unwrap() as usize;
        for device in devices() {
            let (model, _) = load(&dir, &device);
            let plain = GenerationConfig { max_new_tokens, ..GenerationConfig::default() };
            let repetition_penalty = golden["repetition_penalty"].as_f64().unwrap();
            let penalised = GenerationConfig { repetition_penalty, ..plain.clone() };
            for (config, key) in [(&plain, "greedy"), (&penalised, "greedy_repetition_penalty")] {
                for (found, row) in generate(&model, &prompts, config, 0).unwrap().iter().zip(golden_rows) {
                    assert_eq!(found.ids, ids(&row[key]), "{}", dir.display());
                    assert_eq!(found.finish, Finish::Length);
                }
            }
            for row in golden_rows {
                let stop_token_ids = vec![row["stop_token"].as_u64().unwrap() as u32];
                let config = GenerationConfig { stop_token_ids, ..penalised.clone() };
                let found = generate(&model, &[ids(&row["prompt"])], &config, 0).unwrap();
                assert_eq!(found[0].ids, ids(&row["greedy_repetition_penalty_until_stop"]), "{}", dir.display());
                assert_eq!(found[0].finish, Finish::Stop);
            }
        }
    }
}

#[test]
fn a_real_model() {
    let Some(dir) = stories() else { return };
    let golden = json(&dir.join("golden_greedy.json"));
    let texts = json(&workspace().join("tests/golden/stories260k.json"));
    for device in devices() {
        let (model, config) = load(&dir, &device);
        assert_eq!(model.num_params() as u64, config.num_parameters());
        let prompt = ids(&golden["prompt_ids"]);
        let expected = ids(&golden["greedy_ids"]).split_off(prompt.len());
        let settings = GenerationConfig { max_new_tokens: expected.len(), ..GenerationConfig::default() };
        assert_eq!(generate(&model, &[prompt], &settings, 0).unwrap()[0].ids, expected);
        for (row, pass) in texts.as_array().unwrap().iter().flat_map(|row| PASSES.map(|pass| (row, pass))) {
            let found = host(logps(&model, &config, &ids(&row["ids"]), pass));
            for (found, expected) in found.iter().zip(row["logps"].as_array().unwrap()) {
                let error = (f64::from(*found) - expected.as_f64().unwrap()).abs();
                assert!(error < 1e-5, "{}: {found} {expected}", row["text"]);
            }
        }
    }
}

#[test]
fn parameter_counts_of_the_checkpoints() {
    for dir in golden() {
        let (model, config) = load(&dir, &devices()[0]);
        assert_eq!(model.num_params() as u64, config.num_parameters(), "{}", dir.display());
        let listed: usize = checkpoint::parameters(&model).iter().map(|p| p.shape.iter().product::<usize>()).sum();
        assert_eq!(listed as u64, config.num_parameters());
    }
}
