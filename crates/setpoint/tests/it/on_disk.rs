//! Rows on disk: every training ends in the same bits as with rows in memory, also when it was stopped and resumed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::tensor::Device;
use serde_json::{Map, Value, json};
use setpoint::align::{self, AlignConfig};
use setpoint::config::from_toml;
use setpoint::reward::{self, RewardConfig};
use setpoint::session::Host;
use setpoint::sft::{self, SftConfig};
use setpoint::{Failure, Outcome, Session};
use setpoint_align::METHODS;

/// A host that stops a training after so many steps: it is asked before the first step and after each.
#[derive(Debug)]
struct Stopping {
    steps: usize,
    asked: AtomicUsize,
}

impl Host for Stopping {
    fn should_stop(&self) -> bool {
        self.asked.fetch_add(1, Ordering::Relaxed) == self.steps
    }
}

/// A tiny model with its tokenizer.
fn model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/runs-4bb4a63/base")
}

/// Prompts with four responses each, their rewards, and samples of the reference model. A row repeats another prompt's responses.
fn write(path: &Path, rows: std::ops::Range<usize>) {
    let row = |i: usize| {
        let responses: Vec<String> = (0..4).map(|j| format!("It is {} of them, {j}.", (i % 5 + j) * 7)).collect();
        let rewards: Vec<f64> = (0..4).map(|j| ((i * 7 + j * 3) % 11) as f64 / 3.0 - 1.0).collect();
        let samples: Vec<String> = (0..8).map(|k| format!("Sample {k} for {i}")).collect();
        let sampled: Vec<f64> = (0..8).map(|k| (k as f64 - 3.0) / 4.0 + i as f64 / 100.0).collect();
        json!({
            "prompt": format!("How many are {} and {}?", i % 6, i),
            "responses": responses,
            "rewards": rewards,
            "reference_responses": samples,
            "reference_rewards": sampled,
        })
    };
    std::fs::write(path, rows.map(|i| row(i).to_string() + "\n").collect::<String>()).unwrap();
}

/// Two data sets with weights, a held-out one, and a few steps.
fn settings(folder: &Path) -> String {
    let file = |name: &str, rows| {
        let path = folder.join(name);
        write(&path, rows);
        path.display().to_string()
    };
    format!(
        "model.path = '{}'\neval_data.path = '{}'\n[[data.sources]]\npath = '{}'\nweight = 2\n[[data.sources]]\npath = '{}'\nweight = 1\n\
         [train]\nmax_steps = 4\nbatch_size = 3\nlearning_rate = 1e-3\nseed = 5\neval_steps = 2\nlog_responses = 'all'\n",
        model().display(),
        file("held-out.jsonl", 40..45),
        file("first.jsonl", 0..9),
        file("second.jsonl", 20..27),
    )
}

/// Everything that a run leaves and that has no times in it.
fn left(run: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    for name in [
        "model/model.safetensors",
        "model/config.json",
        "value/model.safetensors",
        "responses.jsonl",
        "rows-data.jsonl",
        "rows-eval_data.jsonl",
        "reference-train.jsonl",
        "reference-train-mismatched.jsonl",
        "reference-eval.jsonl",
        "audit.json",
    ] {
        if let Ok(bytes) = std::fs::read(run.join(name)) {
            files.push((name.to_owned(), bytes));
        }
    }
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    for line in text.lines() {
        let mut line: Map<String, Value> = serde_json::from_str(line).unwrap();
        line.retain(|key, _| !key.contains("second"));
        files.push(("metrics.jsonl".to_owned(), Value::Object(line).to_string().into_bytes()));
    }
    files
}

/// Runs a training with rows in memory, and twice with rows on disk: at once, and stopped after two steps and resumed.
fn is_the_same(name: &str, folder: &Path, train: &dyn Fn(&Session, &Path, bool) -> Outcome) {
    let session = |rows_in_memory| Session { quiet: true, rows_in_memory, ..Session::on(Device::flex()) };
    let on_disk = session(100);
    let run = |kind: &str| folder.join(format!("{name}-{kind}"));
    train(&session(usize::MAX), &run("memory"), false).unwrap_or_else(|e| panic!("{name}: {e}"));
    train(&on_disk, &run("disk"), false).unwrap_or_else(|e| panic!("{name}: {e}"));
    let host = Arc::new(Stopping { steps: 2, asked: AtomicUsize::new(0) });
    let ended = train(&Session { host, ..on_disk.clone() }, &run("stopped"), false);
    assert!(matches!(ended, Err(Failure::Stopped { .. })), "{name}: {ended:?}");
    train(&on_disk, &run("stopped"), true).unwrap_or_else(|e| panic!("{name}: {e}"));

    let expected = left(&run("memory"));
    assert!(expected.iter().any(|(name, _)| name == "responses.jsonl"), "{name}");
    for kind in ["disk", "stopped"] {
        let found = left(&run(kind));
        assert_eq!(found.len(), expected.len(), "{name}: {kind}");
        for ((file, found), (_, expected)) in found.iter().zip(&expected) {
            assert!(found == expected, "{name}, {kind}: {file} differs");
        }
    }
}

#[test]
fn every_method_of_align() {
    let folder = tempfile::tempdir().unwrap();
    let common = settings(folder.path());
    let methods = METHODS.iter().map(|about| (about.name, ""));
    let further = [
        ("dro", "log_z0 = 'per_prompt'"),
        ("dro", "beta_sigma = 0.3\nnll_weight = 4.0\nreward_transform = 'quantile'"),
        ("dro", "prompt_term = 'learned'\nt0 = 'common_prefix'"),
        ("dpo", "pairs = 'best_random'\nnll_weight = 0.5"),
        ("kto", "desirable = { above = 0.5 }"),
        ("qrpo", "reference_samples = true"),
    ];
    for (number, (method, settings)) in methods.chain(further).enumerate() {
        let settings = match method {
            "mix" => "losses = [{ method = 'dpo', weight = 0.5 }, { method = 'aot' }]",
            _ => settings,
        };
        let text = format!("{common}[samples]\nprompts = 0\n[align]\nmethod = '{method}'\n{settings}\n");
        let config: AlignConfig = from_toml(&text).unwrap_or_else(|e| panic!("{method}: {e:?}"));
        is_the_same(&format!("{number}-{method}"), folder.path(), &|session, run, resume| {
            align::run(session, &config, run, resume)
        });
    }
}

#[test]
fn an_ensemble_of_reward_models() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.jsonl");
    write(&path, 0..12);
    let other = |line: &str| {
        let mut row: Value = serde_json::from_str(line).unwrap();
        row["rewards"].as_array_mut().unwrap().rotate_left(1);
        row.to_string() + "\n"
    };
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(folder.path().join("other.jsonl"), text.lines().map(other).collect::<String>()).unwrap();
    let text = format!(
        "model.path = '{}'\ndata.path = '{}'\nsamples.prompts = 0\n\
         train = {{ max_steps = 4, batch_size = 3, learning_rate = 1e-3, log_responses = 'all' }}\n\
         align = {{ method = 'rpo', ensemble = ['{}'] }}\n",
        model().display(),
        path.display(),
        folder.path().join("other.jsonl").display()
    );
    let config: AlignConfig = from_toml(&text).unwrap();
    is_the_same("ensemble", folder.path(), &|session, run, resume| align::run(session, &config, run, resume));
}

#[test]
fn reward_models_and_sft() {
    let folder = tempfile::tempdir().unwrap();
    let common = settings(folder.path());
    let config: RewardConfig = from_toml(&common).unwrap();
    is_the_same("reward", folder.path(), &|session, run, resume| reward::run(session, &config, run, resume));
    let config: SftConfig = from_toml(&format!("{common}[samples]\nprompts = 0\n")).unwrap();
    is_the_same("sft", folder.path(), &|session, run, resume| sft::run(session, &config, run, resume));
}
