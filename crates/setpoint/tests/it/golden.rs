//! Whole models against torch and trl (`tests/golden/objectives`, see its README): the DRO loss and gradient norm of OBJECTIVES' formulas in
//! torch, and four optimizer steps of trl's `DPOTrainer`.

use std::path::PathBuf;
use std::sync::Arc;

use burn::tensor::Device;
use serde_json::Value;
use setpoint_align::{Dro, Method, PromptTerm};
use setpoint_train::{
    AdamWConfig, MicroBatch, RunDir, Schedule, ScheduleKind, Sequence, Task, TrainConfig, Warmup, fit, score_sequences,
};
use setpoint_transformer::{CausalLm, LoadOptions, RopeSwitch};

use setpoint::tasks::logps::Logps;
use setpoint::tasks::pairwise::PairwiseTask;
use setpoint::tasks::prompts::{PromptLevel, PromptTask};
use setpoint::tasks::stages::{PairedPrompt, Prompt, ReferenceLogps, RewardedPrompt, WithReference};

pub const MODELS: [&str; 2] = ["llama", "qwen2"];

pub fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(name)
}

pub fn load(file: &str) -> Value {
    let path = golden(&format!("objectives/{file}.json"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

pub fn floats(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|v| u32::try_from(v.as_u64().unwrap()).unwrap()).collect()
}

pub fn model(folder: &Value, device: &Device) -> CausalLm {
    CausalLm::load(&golden(folder.as_str().unwrap()), &LoadOptions::default(), device).unwrap().0
}

pub fn flex() -> Device {
    Device::flex()
}

/// Prompts without labels and rewards, and the reference log-probs that this project computes.
pub fn prompts(rows: &Value, reference: &CausalLm) -> (Vec<Prompt>, Vec<ReferenceLogps>) {
    rows.as_array()
        .unwrap()
        .iter()
        .map(|row| {
            let prompt = ids(&row["prompt"]);
            let sequences: Vec<Sequence> = row["responses"]
                .as_array()
                .unwrap()
                .iter()
                .map(|r| Sequence { ids: [prompt.clone(), ids(r)].concat(), prompt_len: prompt.len(), scored_from: 1 })
                .collect();
            let scores = score_sequences(reference, &sequences, 4096, &mut |_| ()).unwrap();
            let logps = ReferenceLogps {
                responses: scores.iter().map(|s| Some(s.response_logp)).collect(),
                prompt: scores[0].prompt_logp,
            };
            let unknown = sequences.len();
            let (labels, rewards) = (vec![None; unknown], vec![None; unknown]);
            (Prompt { name: "golden".into(), set: 0, sequences, labels, rewards }, logps)
        })
        .unzip()
}

#[track_caller]
pub fn close(what: &str, found: f64, expected: f64, relative: f64) {
    assert!((found - expected).abs() <= relative * expected.abs().max(1.0), "{what}: {found}, expected {expected}");
}

/// Trains and returns the lines of metrics.jsonl.
pub fn metrics<T: Task>(task: &T, model: T::Model, config: &TrainConfig) -> Vec<Value> {
    let dir = tempfile::tempdir().unwrap();
    let run = RunDir::create(dir.path().join("run")).unwrap();
    fit(task, model, config, &run, &mut setpoint_train::NoHooks).unwrap();
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The task of a method, from its settings as they stand in a config file.
pub fn pairwise_task(settings: &Value, prompts: Vec<PairedPrompt>, reference: &[ReferenceLogps]) -> PairwiseTask {
    let method: Method = serde_json::from_value(settings.clone()).unwrap_or_else(|e| panic!("{settings}: {e}"));
    let pairwise = method.pairwise().unwrap();
    let reference = method.about().reference.then(|| reference.iter().cloned().collect::<Logps>());
    let (objectives, nll_weight) = (pairwise.objectives.into(), pairwise.nll_weight);
    PairwiseTask::new(prompts, reference, objectives, nll_weight, RopeSwitch::default()).unwrap()
}

/// Prompts of two responses, the first of which is chosen, with their rewards by reward model.
pub fn first_chosen(prompts: Vec<Prompt>, rewards: impl Fn(usize) -> Vec<Vec<f64>>) -> Vec<PairedPrompt> {
    let pair = |(i, prompt)| PairedPrompt { prompt, pairs: vec![(0, 1)], rewards: rewards(i) };
    prompts.into_iter().enumerate().map(pair).collect()
}

/// Prompts with these rewards of their responses.
pub fn rewarded(
    (prompts, reference): (Vec<Prompt>, Vec<ReferenceLogps>),
    rewards: impl IntoIterator<Item = Vec<f64>>,
) -> Vec<WithReference<RewardedPrompt>> {
    let rewarded = prompts.into_iter().zip(rewards).map(|(prompt, rewards)| RewardedPrompt::new(prompt, rewards));
    rewarded.zip(reference).map(|(prompt, logps)| WithReference::new(prompt, logps).unwrap()).collect()
}

/// The task of DRO at a level of its targets.
pub fn dro_task(settings: Dro, level: f64, prompts: Vec<WithReference<RewardedPrompt>>) -> PromptTask {
    let level = PromptLevel { level, log_mass: 0.0 };
    let (settings, switch) = (Arc::new(settings), RopeSwitch::default());
    PromptTask::new(prompts, settings, switch, |_, _| Ok::<_, setpoint_train::Error>(level)).unwrap()
}

#[test]
fn dro_loss_and_gradient_norm_are_torchs() {
    for name in MODELS {
        let golden = load(&format!("model_{name}"));
        let dro = &golden["dro"];
        let data = prompts(&dro["rows"], &model(&golden["reference"], &flex()));
        let rewards = floats(&dro["rewards"]);
        let mut at = 0;
        let rewards = data.0.iter().map(|prompt| prompt.sequences.len()).map(|n| {
            at += n;
            rewards[at - n..at].to_vec()
        });
        let rewards: Vec<Vec<f64>> = rewards.collect();
        let data = rewarded(data, rewards);
        let mut at = 0;
        for (prompt, ref_prompt_logp) in data.iter().zip(floats(&dro["ref_prompt_logps"])) {
            close("ref_prompt_logp", prompt.ref_prompt_logp, ref_prompt_logp, 1e-5);
            for (found, expected) in prompt.ref_logps.iter().zip(&floats(&dro["ref_logps"])[at..]) {
                close("ref_logp", *found, *expected, 1e-5);
            }
            at += prompt.ref_logps.len();
        }
        for case in dro["cases"].as_array().unwrap() {
            let options = &case["options"];
            let mut settings = Dro { prompt_term: PromptTerm::Full, ..Dro::default() };
            let mut level = 50.0;
            for (key, value) in options.as_object().unwrap() {
                match key.as_str() {
                    "beta" => settings.beta = value.as_f64(),
                    "log_z0" => level = value.as_f64().unwrap(),
                    "prompt_term" => settings.prompt_term = serde_json::from_value(value.clone()).unwrap(),
                    "error" => settings.error = serde_json::from_value(value.clone()).unwrap(),
                    "aggregate" => settings.aggregate = serde_json::from_value(value.clone()).unwrap(),
                    other => panic!("{name}: the golden option {other} is unknown here"),
                }
            }
            let task = dro_task(settings, level, data.clone());
            let config = TrainConfig {
                max_steps: Some(1),
                batch_size: data.len(),
                // Two passes: the denominators are those of the whole batch.
                micro_batch: MicroBatch::Examples(data.len().div_ceil(2)),
                ..TrainConfig::default()
            };
            let step = &metrics(&task, model(&golden["policy"], &flex().autodiff()), &config)[0];
            close(
                &format!("{name} {options} loss"),
                step["loss"].as_f64().unwrap(),
                case["loss"].as_f64().unwrap(),
                1e-5,
            );
            let norm = case["grad_norm"].as_f64().unwrap();
            close(&format!("{name} {options} gradient norm"), step["grad_norm"].as_f64().unwrap(), norm, 1e-4);
        }
    }
}

/// The level's weight, the likelihood term, targets per token and the learned prompt term.
#[test]
fn dro_with_further_settings_has_torchs_loss_and_gradient_norm() {
    for name in MODELS {
        let golden = load(&format!("further_{name}"));
        let data = prompts(&golden["rows"], &model(&golden["reference"], &flex()));
        let mut rewards = floats(&golden["rewards"]).into_iter();
        let own = |prompt: &Prompt| rewards.by_ref().take(prompt.sequences.len()).collect();
        let rewards: Vec<Vec<f64>> = data.0.iter().map(own).collect();
        let data = rewarded(data, rewards);
        for case in golden["cases"].as_array().unwrap() {
            let mut options = case["options"].as_object().unwrap().clone();
            let level = options.remove("log_z0").unwrap().as_f64().unwrap();
            let mut settings = serde_json::to_value(Dro::default()).unwrap();
            settings.as_object_mut().unwrap().extend(options);
            let settings: Dro = serde_json::from_value(settings).unwrap();
            let has_nll = settings.nll_weight != 0.0;
            let task = dro_task(settings, level, data.clone());
            let config = TrainConfig {
                max_steps: Some(1),
                batch_size: data.len(),
                // Two passes: the NLL's tokens are those of the whole batch.
                micro_batch: MicroBatch::Examples(data.len().div_ceil(2)),
                ..TrainConfig::default()
            };
            let step = &metrics(&task, model(&golden["policy"], &flex().autodiff()), &config)[0];
            let what = |key: &str| format!("{name} {} {key}", case["options"]);
            let number = |value: &Value| value.as_f64().unwrap();
            close(&what("loss"), number(&step["loss"]), number(&case["loss"]), 1e-5);
            let norm = number(&case["grad_norm"]);
            assert!((number(&step["grad_norm"]) - norm).abs() <= 1e-4 * norm, "{}: {step}", what("gradient norm"));
            if has_nll {
                close(&what("nll_loss"), number(&step["nll_loss"]), number(&case["nll_loss"]), 1e-5);
            }
        }
    }
}

#[test]
fn four_steps_of_dpo_are_trls() {
    for name in MODELS {
        let golden = load(&format!("model_{name}"));
        let dpo = &golden["dpo"];
        let (data, reference) = prompts(&dpo["rows"], &model(&golden["reference"], &flex()));
        let data = first_chosen(data, |_| vec![]);
        let steps = dpo["steps"].as_array().unwrap();
        let settings = serde_json::json!({ "method": "dpo", "beta": dpo["beta"] });
        let task = pairwise_task(&settings, data.clone(), &reference);
        let config = TrainConfig {
            max_steps: Some(steps.len() as u64),
            batch_size: data.len(),
            micro_batch: MicroBatch::Examples(2),
            learning_rate: dpo["learning_rate"].as_f64().unwrap(),
            schedule: Schedule {
                kind: ScheduleKind::Cosine,
                warmup: Warmup::Steps(dpo["warmup_steps"].as_u64().unwrap()),
            },
            optimizer: AdamWConfig { weight_decay: dpo["weight_decay"].as_f64().unwrap(), ..AdamWConfig::default() },
            max_grad_norm: dpo["max_grad_norm"].as_f64(),
            ..TrainConfig::default()
        };
        let found = metrics(&task, model(&golden["policy"], &flex().autodiff()), &config);
        for (i, (found, expected)) in found.iter().zip(steps).enumerate() {
            for (key, expected) in expected.as_object().unwrap() {
                let (Some(found), Some(expected)) = (found[key].as_f64(), expected.as_f64()) else { continue };
                // The gradient norm and everything after a step carries the rounding of what came before.
                let relative = if key == "grad_norm" { 1e-4 } else { 1e-5 * (1 + i) as f64 };
                close(&format!("{name} step {} {key}", i + 1), found, expected, relative);
            }
            for key in ["loss", "rewards/margins", "entropy", "num_tokens"] {
                assert!(found[key].is_number(), "{key} is missing: {found}");
            }
        }
        assert_eq!(found.len(), steps.len());
    }
}
