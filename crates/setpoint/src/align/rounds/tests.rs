//! A single round is the offline method on the responses that it sampled.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::Device;
use serde_json::{Map, Value, json};
use setpoint_align::{Training, weighted_sum};
use setpoint_data::{EncodeReport, EncodedResponse, Example, ExampleStore, Source, load_records};
use setpoint_train::{GradientSink, HeadOptions, PromptLogps, RunDir, Sequence, backward, sequence_logps_with};

use super::super::data::{Sets, TrainingData};
use super::super::examples::{ReadSet, paired, rewarded, rows};
use super::super::settings::AlignConfig;
use super::super::{Prepared, run, train_on};
use super::{as_started, store_key};
use crate::config::from_toml;
use crate::identity::Origin;
use crate::session::Session;
use crate::training::record::CONFIG;
use crate::{setup, sft};

fn demo(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/demo").join(name).display().to_string()
}

/// Makes a model of two layers that has made a few steps.
fn policy(session: &Session, dir: &Path) -> PathBuf {
    let mut shape: Value = serde_json::from_str(&std::fs::read_to_string(demo("config.json")).unwrap()).unwrap();
    for (key, value) in [
        ("hidden_size", 32),
        ("intermediate_size", 64),
        ("num_hidden_layers", 2),
        ("num_attention_heads", 4),
        ("num_key_value_heads", 2),
        ("head_dim", 8),
    ] {
        shape[key] = value.into();
    }
    std::fs::write(dir.join("config.json"), shape.to_string()).unwrap();
    let settings = format!(
        "model = {{ from_scratch = '{}', tokenizer = '{}' }}\ndata = {{ path = '{}', max_rows = 8 }}\n\
         train = {{ max_steps = 2, batch_size = 8, learning_rate = 0.003 }}\nsamples.prompts = 0",
        dir.join("config.json").display(),
        demo("tokenizer"),
        demo("pretrain/sft.jsonl"),
    );
    sft::run(session, &from_toml(&settings).unwrap(), &dir.join("sft"), false).unwrap();
    dir.join("sft/model")
}

#[test]
fn earlier_builds_hashed_the_free_settings_that_a_run_was_started_with() {
    let dir = tempfile::tempdir().unwrap();
    let run = RunDir::create(dir.path().join("run")).unwrap();
    run.write_text(CONFIG, "rounds = 2\n[reward.command]\nbatch = 8\ntimeout_seconds = 5\n").unwrap();
    let identity = |seconds: u64, batch: u64| {
        let command = json!({ "batch": batch, "timeout_seconds": seconds });
        Origin::new(&json!({ "rounds": 2, "reward": { "command": command } }), String::new()).unwrap().identity()
    };
    let started = |seconds, batch| store_key(&as_started(identity(seconds, batch), &run).unwrap(), 7);
    assert_eq!(started(90, 8), store_key(&identity(5, 8), 7));
    assert_ne!(started(90, 8), store_key(&identity(90, 8), 7));
    assert_ne!(started(90, 9), store_key(&identity(5, 8), 7), "this one decides what is sampled");
}

/// Lines of `metrics.jsonl` without times and without those of rounds.
fn steps(run: &Path) -> Vec<Map<String, Value>> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Map<String, Value>>(line).unwrap());
    let mut lines: Vec<_> = lines.filter(|line| !line.contains_key("round")).collect();
    lines.iter_mut().for_each(|line| line.retain(|key, _| !key.contains("second")));
    lines
}

/// The responses of the first round as a file of the same tokens would give them.
fn examples(run: &Path, prompts: &[Vec<u32>]) -> Vec<Example> {
    let text = std::fs::read_to_string(run.join("rollouts/round-0000.jsonl")).unwrap();
    let example = |(row, line): (usize, &str)| {
        let line: Value = serde_json::from_str(line).unwrap();
        let responses = line["tokens"].as_array().unwrap().iter().zip(line["rewards"].as_array().unwrap());
        let response = |(index, (ids, reward)): (usize, (&Value, &Value))| EncodedResponse {
            index,
            ids: ids.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect(),
            reward: reward.as_f64(),
            label: None,
            learned: true,
            thoughts: Vec::new(),
        };
        Example {
            row,
            source: Source::row(Path::new("again.jsonl"), row),
            prompt: prompts[line["row"].as_u64().unwrap() as usize].clone(),
            responses: responses.enumerate().map(response).collect(),
            margin: None,
            assistant_spans: Vec::new(),
        }
    };
    text.lines().enumerate().map(example).collect()
}

/// Prepares the responses as those of a file.
fn offline(config: &AlignConfig, examples: Vec<Example>) -> Prepared {
    let encoder = setup::encoder(&config.model).unwrap();
    let model_config = setup::model_config(&config.model, &encoder).unwrap();
    let lengths = |e: &Example| e.prompt.len() + e.responses.iter().map(|r| r.ids.len()).sum::<usize>();
    let report = EncodeReport {
        rows: examples.len(),
        kept: examples.len(),
        response_tokens: examples.iter().map(lengths).sum(),
        ..EncodeReport::default()
    };
    let rows_read = Arc::new(ExampleStore::in_memory(&examples).unwrap());
    let set = ReadSet { path: "again.jsonl".into(), rows: rows_read, training: true, t0: None, samples: None };
    let about = config.align.about();
    let data = match config.align.training() {
        Training::Prompts(mut objective) => {
            let train = rewarded(set, &*objective, &about, &mut None).unwrap();
            objective.resolve(&train.view().all_rewards().unwrap()).unwrap();
            TrainingData::Prompts { objective: objective.into(), sets: Sets { train, eval: None } }
        }
        Training::Pairs(method) => {
            let train = paired(set, method.pairs, &about, config.train.seed).unwrap();
            TrainingData::Pairs { method, sets: Sets { train, eval: None } }
        }
        Training::Rows(objective) => {
            let objective = objective.into();
            let train = rows(set, &objective, &about).unwrap();
            TrainingData::Rows { objective, sets: Sets { train, eval: None } }
        }
        other => panic!("{other:?}"),
    };
    Prepared { encoder, model_config, data, report, adaptation: None }
}

#[test]
fn one_round_is_the_offline_method_on_the_responses_that_it_sampled() {
    let dir = tempfile::tempdir().unwrap();
    let session = Session { quiet: true, ..Session::on(Device::flex()) };
    let model = policy(&session, dir.path());
    let data = dir.path().join("prompts.jsonl");
    let prompt =
        |i: usize| format!("{{\"prompt\": [{{\"role\": \"user\", \"content\": \"How much is {i} and two?\"}}]}}\n");
    std::fs::write(&data, (0..7).map(prompt).collect::<String>()).unwrap();
    for method in [
        "method = 'dpo'",
        "method = 'dpo'\npairs = 'all'",
        "method = 'nca_pair'",
        "method = 'dro'",
        "method = 'dro'\nreward_transform = 'center'\nbeta_sigma = 0.5",
        "method = 'kto'",
        "method = 'qrpo'",
        "method = 'rpo'",
    ] {
        let name = method.replace(|c: char| !c.is_alphanumeric(), "");
        let common = format!(
            "model.path = '{}'\ndata.path = '{}'\nsamples.prompts = 0\n[train]\nbatch_size = 4\nlearning_rate = 1e-4\nseed = 3\nschedule = {{ kind = 'constant', warmup = {{ steps = 0 }} }}\n",
            model.display(),
            data.display()
        );
        let online = format!(
            "rounds = 1\n{common}[align]\n{method}\n[rollout]\nprompts = 6\nsamples = 4\nmax_new_tokens = 6\nepochs_per_round = 2\n\
             chunk_rows = 8\n[reward.rule]\nkind = 'length'\nunit = 'chars'\nmax = 0\npenalty = 0.125\n"
        );
        let folder = dir.path().join(format!("{name}-online"));
        run(&session, &from_toml(&online).unwrap(), &folder, false).unwrap_or_else(|e| panic!("{method}: {e}"));

        let config: AlignConfig = from_toml(&format!("{common}epochs = 2\n[align]\n{method}\n")).unwrap();
        let encoder = setup::encoder(&config.model).unwrap();
        let (records, _) = load_records(&config.data).unwrap();
        let (_, prompts) = setup::prompts(&records, &config.data, &encoder, "prompts", &session).unwrap();
        let again = dir.path().join(format!("{name}-offline"));
        train_on(&session, &config, offline(&config, examples(&folder, &prompts)), &again, false).unwrap();

        let (online, offline) = (steps(&folder), steps(&again));
        assert!(offline.len() >= 4, "{method}: {} steps", offline.len());
        assert_eq!(online.len(), offline.len(), "{method}");
        for (at, (found, expected)) in online.iter().zip(&offline).enumerate() {
            // A round has room for more pairs and rows than it has if rewards are equal, and its steps are counted with those.
            for (key, expected) in expected.iter().filter(|(key, _)| !["step", "epoch"].contains(&key.as_str())) {
                let (found, expected) = (found[key].as_f64(), expected.as_f64());
                let close = match (found, expected) {
                    (Some(found), Some(expected)) => (found - expected).abs() <= 1e-5 * (1.0 + expected.abs()),
                    _ => found == expected,
                };
                assert!(close, "{method}, line {at}, {key}: {found:?}, offline {expected:?}");
            }
        }
    }
}

/// The gradient of a policy gradient by hand: `−Σ_j w_j·A_j·log π(y_j|x_j)`, from the advantages and weights of all responses.
fn norm_by_hand(
    session: &Session,
    config: &AlignConfig,
    examples: &[Example],
    factors: &[f64],
    temperature: f64,
) -> f64 {
    let encoder = setup::encoder(&config.model).unwrap();
    let shape = setup::model_config(&config.model, &encoder).unwrap();
    let device = session.device().clone().autodiff();
    let model = setup::policy(session, &config.model, &shape, 0, &device).unwrap();
    let sequences: Vec<Sequence> = examples.iter().flat_map(|example| setup::sequences(example, None)).collect();
    let head = HeadOptions::at_temperature(temperature);
    let found = sequence_logps_with(&model, &sequences, PromptLogps::Skip, &head).unwrap();
    let mut sink = GradientSink::new();
    backward(&model, "model", weighted_sum(found.response, factors), found.tape, &mut sink);
    sink.norm()
}

#[test]
fn the_first_gradient_of_rloo_and_grpo_is_the_policy_gradient() {
    let dir = tempfile::tempdir().unwrap();
    let session = Session { quiet: true, ..Session::on(Device::flex()) };
    let model = policy(&session, dir.path());
    let data = dir.path().join("prompts.jsonl");
    let prompt =
        |i: usize| format!("{{\"prompt\": [{{\"role\": \"user\", \"content\": \"How much is {i} and two?\"}}]}}\n");
    std::fs::write(&data, (0..4).map(prompt).collect::<String>()).unwrap();
    for (method, temperature) in [("rloo", 1.0), ("grpo", 1.0), ("rloo", 0.7), ("grpo", 1.5)] {
        let settings = format!(
            "rounds = 1\nmodel.path = '{}'\ndata.path = '{}'\nsamples.prompts = 0\n[train]\nbatch_size = 12\nmicro_batch = {{ \
             examples = 5 }}\n[align]\nmethod = '{method}'\nbeta = 0.0\n[rollout]\nprompts = 4\nsamples = 3\nmax_new_tokens = 6\n\
             temperature = {temperature:?}\n[reward.rule]\nkind = 'length'\nunit = 'chars'\nmax = 0\npenalty = 0.125\n",
            model.display(),
            data.display()
        );
        let config: AlignConfig = from_toml(&settings).unwrap();
        let folder = dir.path().join(format!("{method}-{temperature}"));
        run(&session, &config, &folder, false).unwrap();
        let encoder = setup::encoder(&config.model).unwrap();
        let (records, _) = load_records(&config.data).unwrap();
        let (_, prompts) = setup::prompts(&records, &config.data, &encoder, "prompts", &session).unwrap();
        let examples = examples(&folder, &prompts);
        let tokens: usize = examples.iter().flat_map(|e| &e.responses).map(|r| r.ids.len()).sum();
        let mut factors = Vec::new();
        for example in &examples {
            let rewards: Vec<f64> = example.responses.iter().map(|r| r.reward.unwrap()).collect();
            let (n, sum) = (rewards.len() as f64, rewards.iter().sum::<f64>());
            let square = |r: &f64| (r - sum / n) * (r - sum / n);
            let deviation = (rewards.iter().map(square).sum::<f64>() / (n - 1.0)).sqrt();
            factors.extend(rewards.iter().map(|r| match method {
                // Each response less the mean of the others, averaged over twelve responses.
                "rloo" => -(r - (sum - r) / (n - 1.0)) / 12.0,
                // In deviations of the prompt, averaged over all tokens.
                _ => -(r - sum / n) / (deviation + 1e-4) / tokens as f64,
            }));
        }
        let expected = norm_by_hand(&session, &config, &examples, &factors, temperature);
        let lines = steps(&folder);
        let found = lines[0]["grad_norm"].as_f64().unwrap();
        assert_eq!(lines.len(), 1);
        assert!(expected > 0.0 && (found - expected).abs() < 1e-4 * expected, "{method}: {found}, by hand {expected}");
    }
}

/// Takes an input out of the checkpoints of a run, which an earlier build did not write.
fn forget_input(run: &Path, name: &str) {
    for entry in std::fs::read_dir(run.join("checkpoints")).unwrap() {
        let path = entry.unwrap().path().join("state.json");
        let mut state: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let inputs = state["manifest"]["identity"]["inputs"].as_object_mut().unwrap();
        assert!(inputs.shift_remove(name).is_some(), "{state}");
        let manifest = run.join("manifest");
        std::fs::write(&manifest, state["manifest"].to_string()).unwrap();
        state["crc32c"] = setpoint_train::file_digest(&manifest).unwrap().1.into();
        std::fs::write(&path, state.to_string()).unwrap();
    }
}

#[test]
fn a_run_whose_ties_an_earlier_build_trained_on_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let session = Session { quiet: true, ..Session::on(Device::flex()) };
    let model = policy(&session, dir.path());
    let data = dir.path().join("prompts.jsonl");
    std::fs::write(&data, "{\"prompt\": \"How much is one and two?\"}\n{\"prompt\": \"Who?\"}\n").unwrap();
    let config = |more: &str| -> AlignConfig {
        from_toml(&format!(
            "rounds = 2\nmodel.path = '{}'\ndata.path = '{}'\nsamples.prompts = 0\n[train]\nbatch_size = 8\n[align]\nmethod = 'kto'\n{more}\n\
             [rollout]\nsamples = 4\nmax_new_tokens = 6\n[reward.rule]\nkind = 'length'\nunit = 'chars'\nmax = 0\npenalty = 0.125\n",
            model.display(),
            data.display()
        ))
        .unwrap()
    };
    let (best, bound) = (config(""), config("desirable = { above = -1.0 }"));
    let folder = |name: &str| dir.path().join(name);
    run(&session, &best, &folder("best"), false).unwrap();
    run(&session, &best, &folder("best"), true).unwrap();
    forget_input(&folder("best"), "treatment.ties");
    let failure = run(&session, &best, &folder("best"), true).unwrap_err().to_string();
    assert!(failure.contains("the treatment of prompts whose responses have equal rewards changed"), "{failure}");
    // A bound has no ties.
    run(&session, &bound, &folder("bound"), false).unwrap();
    let state = std::fs::read_dir(folder("bound").join("checkpoints")).unwrap().next().unwrap().unwrap().path();
    assert!(!std::fs::read_to_string(state.join("state.json")).unwrap().contains("treatment"));
}
