//! Whole models by every pairwise method and by KTO: loss, gradient norm and metrics against trl, and the same numbers however the batch is cut
//! (`tests/golden/objectives/methods_*.json`, made by `make_methods_model.py`).

use std::collections::BTreeSet;
use std::sync::Arc;

use burn::tensor::Device;
use serde_json::{Value, json};
use setpoint_align::{About, Aggregate, Dro, KtoSettings, METHODS, Method, PromptTerm, Role, TrainsOn};
use setpoint_reward::RewardModel;
use setpoint_train::{MicroBatch, Sequence, Task, TrainConfig, score_sequences};
use setpoint_transformer::{CausalLm, LoadOptions, Recompute};

use crate::golden::{
    MODELS, close, dro_task, first_chosen, flex, floats, golden as golden_path, load, metrics, model, pairwise_task,
    prompts, rewarded,
};
use setpoint::tasks::dro_v::{DroVTask, PolicyAndValue};
use setpoint::tasks::rows::RowTask;
use setpoint::tasks::single::SingleResponses;
use setpoint::tasks::stages::{PairedPrompt, Prompt, ReferenceLogps, RowPrompt, WithReference};

/// Rows of two responses, the first of which is chosen.
fn pairs(rows: &Value, reference: &CausalLm) -> (Vec<PairedPrompt>, Vec<ReferenceLogps>) {
    let (prompts, reference) = prompts(rows, reference);
    (first_chosen(prompts, |i| vec![vec![1.5 - i as f64, 0.5 * i as f64]]), reference)
}

/// Every response as a row, with the rewards of each prompt's responses.
pub fn all_rows(
    (prompts, reference): (Vec<Prompt>, Vec<ReferenceLogps>),
    rewards: impl Fn(usize) -> Vec<f64>,
) -> SingleResponses {
    let row = |(i, (prompt, logps)): (usize, (Prompt, ReferenceLogps))| {
        let roles = prompt.labels.clone();
        WithReference::new(RowPrompt { prompt, roles, rewards: Some(rewards(i)) }, logps).unwrap()
    };
    let prompts: Vec<_> = prompts.into_iter().zip(reference).enumerate().map(row).collect();
    SingleResponses::new(prompts, |prompt| (0..prompt.roles.len()).collect()).unwrap()
}

/// The first step over the whole set.
pub fn first_step<T: Task<Model = CausalLm>>(task: &T, golden: &Value, micro_batch: MicroBatch) -> Value {
    first_step_on(&flex(), task, golden, micro_batch)
}

fn first_step_on<T>(device: &Device, task: &T, golden: &Value, micro_batch: MicroBatch) -> Value
where
    T: Task<Model = CausalLm>,
{
    let config = TrainConfig { max_steps: Some(1), batch_size: task.len(), micro_batch, ..TrainConfig::default() };
    metrics(task, model(&golden["policy"], &device.clone().autodiff()), &config).swap_remove(0)
}

/// The devices that every test binary has.
fn devices() -> [Device; 2] {
    #[expect(deprecated, reason = "the second opinion, as long as Burn has it")]
    let ndarray = Device::ndarray();
    [flex(), ndarray]
}

pub fn settings(case: &Value) -> Value {
    let mut settings = case["settings"].clone();
    settings["method"] = case["method"].clone();
    settings
}

/// trl's `logps/…` of ORPO and SimPO are means; those are not in the golden files.
const METRICS: [&str; 8] = [
    "rewards/chosen",
    "rewards/rejected",
    "rewards/accuracies",
    "rewards/margins",
    "logps/chosen",
    "logps/rejected",
    "log_odds_ratio",
    "log_odds_chosen",
];

#[test]
fn every_pairwise_method_has_the_loss_and_gradient_of_trl_or_its_formula() {
    for name in MODELS {
        let golden = load(&format!("methods_{name}"));
        let (data, reference) = pairs(&golden["rows"], &model(&golden["reference"], &flex()));
        let cases = golden["cases"].as_array().unwrap();
        for case in cases {
            let what = settings(case);
            let task = pairwise_task(&what, data.clone(), &reference);
            // Three passes: the denominators and ranks are those of the whole batch.
            let step = first_step(&task, &golden, MicroBatch::Examples(2));
            let number = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("{name} {what}: {step}"));
            close(&format!("{name} {what} loss"), number(&step["loss"]), number(&case["loss"]), 1e-5);
            let norm = number(&case["grad_norm"]);
            let found = number(&step["grad_norm"]);
            assert!((found - norm).abs() <= 1e-4 * norm, "{name} {what} gradient norm: {found}, expected {norm}");
            for key in METRICS {
                if let Some(expected) = case.get(key) {
                    close(&format!("{name} {what} {key}"), number(&step[key]), number(expected), 1e-5);
                }
            }
        }
    }
}

/// A pairwise objective without a golden case fails here.
#[test]
fn every_pairwise_method_has_a_golden_step() {
    let names = |file: &str| -> BTreeSet<String> {
        let golden = load(file);
        golden["cases"].as_array().unwrap().iter().map(|case| case["method"].as_str().unwrap().to_owned()).collect()
    };
    for name in MODELS {
        let mut found = names(&format!("methods_{name}"));
        found.extend(names(&format!("rewarded_{name}")));
        let pairwise = METHODS.iter().filter(|about| about.trains_on == TrainsOn::Pairs);
        let missing: Vec<&str> = pairwise.map(|about| about.name).filter(|name| !found.contains(*name)).collect();
        assert!(missing.is_empty(), "no golden step of {missing:?} on {name}");
    }
}

#[test]
fn kto_is_trls() {
    for name in MODELS {
        let golden = load(&format!("methods_{name}"));
        let kto = &golden["kto"];
        let task = kto_task(kto, &model(&golden["reference"], &flex()));
        for size in [1, 3, 7] {
            let step = first_step(&task, &golden, MicroBatch::Examples(size));
            for key in [
                "loss",
                "rewards/chosen",
                "rewards/rejected",
                "rewards/margins",
                "logps/chosen",
                "logps/rejected",
                "kl",
            ] {
                let (found, expected) = (step[key].as_f64().unwrap(), kto[key].as_f64().unwrap());
                close(&format!("{name} KTO {key} in passes of {size}"), found, expected, 1e-5);
            }
            let (found, expected) = (step["grad_norm"].as_f64().unwrap(), kto["grad_norm"].as_f64().unwrap());
            assert!(
                (found - expected).abs() <= 1e-4 * expected,
                "{name} KTO gradient norm: {found}, expected {expected}"
            );
        }
        assert!(kto["kl"].as_f64().unwrap() > 0.1, "a reference point that counts");
    }
}

/// One response a prompt; the mismatched response is that of the prompt before.
fn kto_task(kto: &Value, reference: &CausalLm) -> RowTask {
    let (data, logps) = prompts(&kto["rows"], reference);
    let n = data.len();
    let mismatched = (0..n).map(|i| {
        let (own, other) = (&data[i].sequences[0], &data[(i + n - 1) % n].sequences[0]);
        let ids = [&own.ids[..own.prompt_len], &other.ids[other.prompt_len..]].concat();
        Prompt { sequences: vec![Sequence { ids, ..own.clone() }], ..data[i].clone() }
    });
    let mismatched: Vec<Prompt> = mismatched.collect();
    let scored = |prompt: &Prompt| {
        let scores = score_sequences(reference, &prompt.sequences, 4096, &mut |_| ()).unwrap();
        ReferenceLogps { responses: vec![Some(scores[0].response_logp)], prompt: scores[0].prompt_logp }
    };
    let mismatched_logps: Vec<ReferenceLogps> = mismatched.iter().map(scored).collect();
    let row = |((prompt, logps), label): ((Prompt, ReferenceLogps), &Value)| {
        let roles = vec![Some(if label.as_bool().unwrap() { Role::Chosen } else { Role::Rejected })];
        WithReference::new(RowPrompt { prompt, roles, rewards: None }, logps).unwrap()
    };
    let labels = kto["labels"].as_array().unwrap();
    let rows: Vec<_> = data.into_iter().zip(logps).zip(labels).map(row).collect();
    let mismatched: Vec<_> = mismatched.into_iter().zip(mismatched_logps).zip(labels).map(row).collect();
    let settings: KtoSettings = serde_json::from_value(kto["settings"].clone()).unwrap();
    let rows = SingleResponses::new(rows, |_| vec![0]).unwrap();
    RowTask { rows, mismatched: Some(mismatched.into()), objective: Arc::new(settings) }
}

/// Policy and value network: both have a gradient, and responses of a prompt share its value.
#[test]
fn dro_v_is_torchs() {
    for name in MODELS {
        let golden = load(&format!("methods_{name}"));
        let dro_v = &golden["dro_v"];
        let data = prompts(&dro_v["rows"], &model(&golden["reference"], &flex()));
        let rows = all_rows(data, |i| floats(&dro_v["rewards"][i]));
        assert_eq!(rows.len(), 8);
        let settings = serde_json::from_value(dro_v["settings"].clone()).unwrap();
        let task = DroVTask::new(rows, settings);
        let device = flex().autodiff();
        let folder = golden_path(dro_v["value"].as_str().unwrap());
        let value = || RewardModel::load(&folder, &LoadOptions::default(), &device).unwrap().0;
        for (size, recompute) in [(1, Recompute::None), (3, Recompute::Block), (8, Recompute::Block)] {
            let mut policy = model(&golden["policy"], &device);
            policy.model.recompute = recompute;
            let both = PolicyAndValue::of(policy, value());
            assert_eq!(both.policy.model.recompute, recompute);
            let config = TrainConfig {
                max_steps: Some(1),
                batch_size: task.len(),
                micro_batch: MicroBatch::Examples(size),
                ..TrainConfig::default()
            };
            let step = metrics(&task, both, &config).swap_remove(0);
            let number = |value: &Value| value.as_f64().unwrap();
            close(&format!("{name} DRO-V loss"), number(&step["loss"]), number(&dro_v["loss"]), 1e-5);
            let (found, expected) = (number(&step["grad_norm"]), number(&dro_v["grad_norm"]));
            assert!((found - expected).abs() <= 1e-4 * expected, "{name} DRO-V gradient norm: {found}, {expected}");
            assert!(expected > 1.1 * number(&dro_v["policy_grad_norm"]), "the value's part counts");
        }
    }
}

/// Losses that see the whole batch (token means, ranks) and responses that stand in several pairs: 1×8 = 8×1 = 2×4.
#[test]
fn however_the_batch_is_cut_loss_and_gradient_are_the_same() {
    let golden = load("methods_llama");
    let reference = model(&golden["reference"], &flex());
    // Four rows of two and three responses with every pair of the latter: 2·1 + 2·3 pairs.
    let rows = golden["rows"].as_array().unwrap();
    let mut mixed: Vec<Value> = rows[..4].to_vec();
    for (i, row) in mixed.iter_mut().enumerate().skip(2) {
        let third = rows[4]["responses"][i - 2].clone();
        row["responses"].as_array_mut().unwrap().push(third);
    }
    let (prompts, logps) = prompts(&Value::Array(mixed), &reference);
    let rewards = |i: usize, n: usize| -> Vec<f64> { (0..n).map(|j| (i + 1) as f64 - j as f64).collect() };
    let paired = |(i, prompt): (usize, &Prompt)| {
        let n = prompt.sequences.len();
        let pairs = if n == 2 { vec![(0, 1)] } else { vec![(0, 1), (0, 2), (1, 2)] };
        let ensemble = (0..n).map(|j| 0.5 * j as f64).collect();
        PairedPrompt { prompt: prompt.clone(), pairs, rewards: vec![rewards(i, n), ensemble] }
    };
    let data: Vec<PairedPrompt> = prompts.iter().enumerate().map(paired).collect();
    let surveys = |about: &&About| {
        let pairwise = Method::named(about.name).and_then(|method| method.pairwise());
        pairwise.is_some_and(|method| method.objectives.iter().any(|part| part.objective.surveys()))
    };
    let whole_batch = METHODS.iter().filter(surveys).map(|about| json!({ "method": about.name }));
    let further = [
        json!({ "method": "dpo", "beta": 0.3, "nll_weight": 1.0 }),
        json!({ "method": "orpo", "lambda": 0.5 }),
        json!({ "method": "orpo", "lambda": 0.5, "nll_on": "response", "nll_weight": 0.5 }),
        json!({ "method": "aot", "beta": 0.3 }),
        json!({ "method": "aot_unpaired", "beta": 0.3, "label_smoothing": 0.1 }),
        json!({ "method": "rpo", "beta": 0.3, "pessimism": 0.1, "ensemble": ["other.jsonl"] }),
        json!({ "method": "rpo_bwd_kl", "beta": 0.3 }),
        json!({ "method": "simpo" }),
        json!({ "method": "mix", "losses": [{ "method": "ipo", "weight": 0.5 }, { "method": "rpo_sq", "beta": 0.3 }] }),
        json!({ "method": "mix", "losses": [{ "method": "aot" }, { "method": "dpo" }, { "method": "aot_unpaired" }] }),
    ];
    for settings in further.into_iter().chain(whole_batch) {
        let task = pairwise_task(&settings, data.clone(), &logps);
        assert_eq!(task.len(), 8);
        cut_anyhow(&settings.to_string(), &task, &golden, [8, 4, 2, 1]);
    }
    // Prompts with two and three responses.
    let rewards: Vec<Vec<f64>> =
        prompts.iter().enumerate().map(|(i, prompt)| rewards(i, prompt.sequences.len())).collect();
    let data = rewarded((prompts, logps), rewards);
    for aggregate in [Aggregate::PerPrompt, Aggregate::PerResponse] {
        let settings = Dro { beta: Some(0.3), prompt_term: PromptTerm::Full, aggregate, ..Dro::default() };
        let further = [
            settings.clone(),
            Dro { level_weight: 0.25, nll_weight: 16.0, ..settings.clone() },
            Dro { prompt_term: PromptTerm::Learned, ..settings.clone() },
            Dro { prompt_term: PromptTerm::Off, length_normalize: true, ..settings },
        ];
        for settings in further {
            let what = format!("{settings:?}");
            cut_anyhow(&what, &dro_task(settings, 4.0, data.clone()), &golden, [4, 3, 2, 1]);
        }
    }
}

/// The first size is that of the whole batch.
fn cut_anyhow<T: Task<Model = CausalLm>>(what: &str, task: &T, golden: &Value, sizes: [usize; 4]) {
    for device in devices() {
        let [whole, parts @ ..] = sizes.map(|size| first_step_on(&device, task, golden, MicroBatch::Examples(size)));
        for (part, size) in parts.iter().zip(&sizes[1..]) {
            for (key, value) in whole.as_object().unwrap() {
                if matches!(key.as_str(), "loss" | "grad_norm" | "nll_loss")
                    || ["rewards/", "loss/"].iter().any(|prefix| key.starts_with(prefix))
                {
                    let (found, expected) = (part[key].as_f64().unwrap(), value.as_f64().unwrap());
                    close(&format!("{what} {key} in passes of {size} on {device:?}"), found, expected, 2e-6);
                }
            }
        }
    }
}

/// The minimum over reward models is taken pair by pair: two models that are right on different pairs leave nothing to learn.
#[test]
fn rpo_takes_the_reward_model_that_fits_best() {
    let golden = load("methods_llama");
    let (data, reference) = pairs(&golden["rows"], &model(&golden["reference"], &flex()));
    let loss = |ensemble: bool, even: bool| {
        let mut data = data.clone();
        for (i, prompt) in data.iter_mut().enumerate() {
            let good = vec![0.0, 0.0];
            let bad = vec![100.0, 0.0];
            let (first, second) = if (i % 2 == 0) == even { (good, bad) } else { (bad, good) };
            prompt.rewards = if ensemble { vec![first, second] } else { vec![first] };
        }
        let files: &[&str] = if ensemble { &["other.jsonl"] } else { &[] };
        let task = pairwise_task(&json!({ "method": "rpo", "beta": 0.01, "ensemble": files }), data, &reference);
        first_step(&task, &golden, MicroBatch::Examples(3))["loss"].as_f64().unwrap()
    };
    assert!(loss(false, true) > 1000.0 && loss(false, false) > 1000.0);
    assert!(loss(true, true) < 0.1, "{}", loss(true, true));
    assert_eq!(loss(true, true), loss(true, false));
}
