//! Settings and files that ask for more than any machine has: one sentence each, before anything long is done.

use super::fixture::{demo, file, model, setpoint, tiny_config};

/// The tests' model with some sizes of its configuration replaced.
fn config(sizes: &[(&str, u64)]) -> (tempfile::TempDir, String) {
    let mut config: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(tiny_config()).unwrap()).unwrap();
    for (key, value) in sizes {
        config[*key] = (*value).into();
    }
    file("config.json", &config.to_string())
}

fn set(pairs: &[&str]) -> super::fixture::Ran {
    let (policy, data) = (model().display().to_string(), demo("responses.jsonl").display().to_string());
    let mut args = vec!["generate", "--model", &policy, "--data", &data, "--output", "never.jsonl"];
    pairs.iter().for_each(|pair| args.extend(["--set", pair]));
    setpoint(&args)
}

#[test]
fn counts_of_a_generation() {
    set(&["generate.samples=1000000000000000000"]).fails(2, &["generate.samples", "expected at most 100000"]);
    set(&["generate.samples=4000000000"]).fails(2, &["generate.samples"]);
    set(&["generate.batch_size=9223372036854775807"]).fails(2, &["generate.batch_size"]);
    set(&["generate.max_new_tokens=9223372036854775807"]).fails(2, &["generate.max_new_tokens"]);
    set(&["generate.temperature=nan"]).fails(2, &["generate.temperature", "found NaN"]);
    let deep = format!("generate{}=1", ".x".repeat(20_000));
    set(&[&deep]).fails(2, &["20001 parts"]);
}

#[test]
fn a_number_that_its_own_check_refuses_has_one_sentence() {
    let policy = model().display().to_string();
    let ran = setpoint(&["serve", "--model", &policy, "--dry-run", "--set", "serve.queue=9223372036854775807"]);
    assert_eq!(ran.stderr.matches("error:").count(), 1, "{}", ran.stderr);
    ran.fails(2, &["`serve.queue` must be at most 65536"]);
}

#[test]
fn a_judge_asked_by_thirty_thousand_threads() {
    let data = demo("responses.jsonl").display().to_string();
    let args = ["annotate", "--data", &data, "--output", "never.jsonl", "--set", "generative.judge.concurrency=30000"];
    setpoint(&args).fails(2, &["concurrency", "512"]);
}

#[test]
fn new_models_that_fit_nowhere() {
    let data = demo("pretrain/sft.jsonl").display().to_string();
    for (sizes, expected) in [
        (&[("hidden_size", 1_000_000_000)][..], "bytes"),
        (&[("num_hidden_layers", 2_000_000_000)], "num_hidden_layers"),
        (
            &[("hidden_size", 1 << 20), ("intermediate_size", 1 << 20), ("head_dim", 64), ("num_hidden_layers", 8)],
            "GiB",
        ),
    ] {
        let (_dir, config) = config(sizes);
        let scratch = format!("model.from_scratch={config}");
        let tokenizer = format!("model.tokenizer={}", demo("tokenizer").display());
        let args = ["sft", "--data", &data, "--set", &scratch, "--set", &tokenizer, "--run", "never"];
        setpoint(&args).fails(2, &["model.from_scratch", expected]);
    }
}
