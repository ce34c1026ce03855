//! Rows and prompts that are longer than the model has positions for are found before the model is read.

use std::path::Path;

use serde_json::{Value, json};

use crate::fixture::{Ran, file, model, rewarded_rows, setpoint, tiny_config};

/// A copy of the tiny model that reads so many tokens; its weights cannot be read, so a command that comes to them fails by that.
fn without_weights(dir: &Path, positions: usize, reward: bool) -> String {
    for entry in std::fs::read_dir(model()).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, dir.join(path.file_name().unwrap())).unwrap();
    }
    let config = dir.join("config.json");
    let mut json: Value = serde_json::from_str(&std::fs::read_to_string(&config).unwrap()).unwrap();
    json["max_position_embeddings"] = positions.into();
    if reward {
        json["architectures"] = json!(["LlamaForSequenceClassification"]);
        json["num_labels"] = 1.into();
    }
    std::fs::write(config, json.to_string()).unwrap();
    std::fs::write(dir.join("model.safetensors"), "no weights").unwrap();
    dir.display().to_string()
}

/// Rows of which the second is long.
fn rows() -> String {
    let long = "How much is two and two? ".repeat(12);
    let row = |text: &str| json!({"prompt": [{"role": "user", "content": text}], "responses": ["The sum is four."], "rewards": [1.0]});
    format!("{}\n{}\n{}\n", row("Two?"), row(&long), row("Four?"))
}

fn run(arguments: &[&str], more: &[&str]) -> Ran {
    setpoint(&[arguments, more].concat())
}

#[test]
fn a_length_beyond_the_model_is_wrong_usage() {
    let dir = tempfile::tempdir().unwrap();
    let policy = without_weights(dir.path(), 48, false);
    let (_rows, data) = file("rows.jsonl", &rows());
    let output = dir.path().join("out.jsonl").display().to_string();
    let at = ["--model", &policy, "--data", &data, "--dry-run"];
    for job in [&["sft"][..], &["align"], &["reward"], &["audit"], &["logps"], &["annotate", "--output", &output]] {
        run(job, &[&at[..], &["--set", "encode.max_length=49"]].concat()).fails(
            2,
            &["--set encode.max_length=49", "`encode.max_length` is 49", "48 tokens (max_position_embeddings)"],
        );
    }
    let (_settings, settings) = file("align.toml", "[encode]\nmax_length = 4096\n");
    run(&["align", &settings], &at).fails(2, &["align.toml:2", "`encode.max_length` is 4096", "48 tokens"]);
    // What nobody set follows the model, and what it has room for is as it was set.
    let shown = run(&["sft"], &at).ok();
    assert!(shown.stdout.contains("max_length = 48"), "{shown:#?}");
    let shown = run(&["sft"], &[&at[..], &["--set", "encode.max_length=48"]].concat()).ok();
    assert!(shown.stdout.contains("max_length = 48"), "{shown:#?}");
    let new = format!("model.from_scratch={}", tiny_config().display());
    let tokenizer = format!("model.tokenizer={policy}");
    let scratch = ["sft", "--data", &data, "--dry-run", "--set", &new, "--set", &tokenizer];
    run(&scratch, &["--set", "encode.max_length=257"]).fails(2, &["257", "256 tokens"]);
    assert!(run(&scratch, &[]).ok().stdout.contains("max_length = 256"));
}

/// With LongRoPE, `inspect model` names the length at which the frequencies change, and a plan says that a data set has longer texts.
#[test]
fn long_texts_of_longrope_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let policy = without_weights(dir.path(), 256, false);
    let config = dir.path().join("config.json");
    let mut json: Value = serde_json::from_str(&std::fs::read_to_string(&config).unwrap()).unwrap();
    let pairs = json["hidden_size"].as_u64().unwrap() / json["num_attention_heads"].as_u64().unwrap() / 2;
    let (short, long) = (vec![1.0; pairs as usize], vec![2.0; pairs as usize]);
    let mut with = |switch: usize| {
        let key = if json["rope_parameters"].is_object() { "rope_parameters" } else { "rope_scaling" };
        json[key] = json!({"rope_type": "longrope", "rope_theta": 10000.0, "short_factor": short, "long_factor": long,
            "original_max_position_embeddings": switch});
        std::fs::write(&config, json.to_string()).unwrap();
    };
    let (_rows, data) = file("rows.jsonl", &rows());
    let plan = ["plan", "--job", "sft", "--model", &policy, "--data", &data];
    with(48);
    let ran = setpoint(&["inspect", "model", &policy]).ok();
    assert!(
        ran.stdout.contains("context           256 tokens; texts of more than 48 have LongRoPE's long"),
        "{ran:#?}"
    );
    let ran = setpoint(&plan).ok();
    assert!(ran.stdout.contains("those of more than 48 have LongRoPE's long factors"), "{ran:#?}");
    with(255);
    let ran = setpoint(&plan).ok();
    assert!(!ran.stdout.contains("LongRoPE"), "{ran:#?}");
}

#[test]
fn long_rows_are_dropped_or_named_before_the_model_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let (_rows, data) = file("rows.jsonl", &rows());
    for (job, reward) in [("logps", false), ("audit", false), ("annotate", true)] {
        let folder = dir.path().join(job);
        std::fs::create_dir(&folder).unwrap();
        let path = without_weights(&folder, 48, reward);
        let output = dir.path().join("out.jsonl").display().to_string();
        let arguments = [job, "--model", &path, "--data", &data, "--output", &output];
        run(&arguments, &["--set", "encode.long_rows=error"])
            .fails(1, &["rows.jsonl:2", "48 positions", "max_position_embeddings"]);
        let dropped = run(&arguments, &["--quiet"]);
        assert!(dropped.stderr.contains("2 of 3 rows kept, 1 dropped (longer than the model's"), "{job}: {dropped:#?}");
        assert!(dropped.stderr.contains("model.safetensors"), "{job} came to the weights: {dropped:#?}");
    }
}

#[test]
fn annotated_rows_that_are_too_long_are_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let (_pairs, pairs) = file("pairs.jsonl", &rewarded_rows(8));
    let run_folder = dir.path().join("run").display().to_string();
    let policy = model().display().to_string();
    setpoint(&[
        "reward",
        "--quiet",
        "--model",
        &policy,
        "--data",
        &pairs,
        "--run",
        &run_folder,
        "--set",
        "train.max_steps=1",
    ])
    .ok();
    let reward = dir.path().join("run/model").display().to_string();
    let (_rows, data) = file("rows.jsonl", &rows());
    let output = dir.path().join("rewards.jsonl").display().to_string();
    let annotate = ["annotate", "--model", &reward, "--data", &data, "--output", &output];
    let ran = run(&annotate, &["--set", "encode.max_length=40"]).ok();
    assert!(ran.stderr.contains("1 dropped") && ran.stderr.contains("rows.jsonl:2"), "{ran:#?}");
    let written = std::fs::read_to_string(&output).unwrap();
    assert!(written.lines().count() == 2 && written.contains("Two?") && written.contains("Four?"), "{written}");
    // A cut prompt keeps its row.
    run(&annotate, &["--overwrite", "--set", "encode.max_length=40", "--set", "encode.long_rows=cut_prompt"]).ok();
    assert_eq!(std::fs::read_to_string(&output).unwrap().lines().count(), 3);
}

#[test]
fn benchmarks_find_long_prompts_before_the_model_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let policy = without_weights(dir.path(), 48, false);
    let long = "How much is two and two? ".repeat(12);
    let output = dir.path().join("out").display().to_string();
    let outputs = json!([
        {"instruction": "Two?", "output": "Four.", "generator": "base"},
        {"instruction": long, "output": "Four.", "generator": "base"},
    ]);
    let (_outputs, baseline) = file("baseline.json", &outputs.to_string());
    let judge = tempfile::tempdir().unwrap();
    let reward = format!("reward.path={}", without_weights(judge.path(), 48, true));
    let alpaca = ["eval", "alpaca", "--model", &policy, "--baseline", &baseline, "--output", &output, "--set", &reward];
    let judge = "judge.base_url=http://127.0.0.1:9/v1";
    let question =
        |id: u64, turns: [&str; 2]| json!({"question_id": id, "category": "math", "turns": turns}).to_string();
    let questions = format!("{}\n{}\n", question(81, ["Two?", "Four?"]), question(82, ["Two?", &long]));
    let (_questions, questions) = file("question.jsonl", &questions);
    let mt_bench = [
        "eval",
        "mt-bench",
        "--model",
        &policy,
        "--questions",
        &questions,
        "--output",
        &output,
        "--set",
        judge,
        "--set",
        "judge.model=judge",
        "--set",
        "judge.api_key_env=\"\"",
    ];
    for dry in [&[][..], &["--dry-run"]] {
        run(&alpaca, dry).fails(1, &["baseline.json: instruction 2", "at most 48", "max_position_embeddings"]);
        run(&mt_bench, dry).fails(1, &["question 82, turn 2", "at most 48", "max_position_embeddings"]);
    }
}
