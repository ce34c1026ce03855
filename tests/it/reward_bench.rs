//! `setpoint eval reward-bench` with a reward model that was trained for a step.

use std::path::Path;

use serde_json::{Value, json};

use super::fixture::{demo, file, model, setpoint};

fn read(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Trains a reward model for one step and returns its folder.
fn reward_model(dir: &Path) -> String {
    let (run, policy) = (dir.join("reward"), model().display().to_string());
    let (folder, data) = (run.display().to_string(), demo("preferences.jsonl").display().to_string());
    let arguments = ["reward", "--quiet", "--model", &policy, "--data", &data, "--run", &folder];
    setpoint(&[&arguments[..], &["--set", "data.max_rows=8", "--set", "train.max_steps=1"]].concat()).ok();
    run.join("model").display().to_string()
}

fn first_version(rows: &[(&str, &str, &str)]) -> String {
    let row = |(i, (subset, chosen, rejected)): (usize, &(&str, &str, &str))| {
        let row = json!({"id": i, "subset": subset, "prompt": "How much is two and two?", "chosen": chosen, "rejected": rejected});
        format!("{row}\n")
    };
    rows.iter().enumerate().map(row).collect()
}

#[test]
fn a_reward_model_is_scored_on_both_versions() {
    let dir = tempfile::tempdir().unwrap();
    let judge = reward_model(dir.path());
    let (right, wrong, other) = ("The sum is four.", "The sum is happy.", "Do not bother me.");
    let output = |name: &str| dir.path().join(name).display().to_string();
    let run = |rows: &str, name: &str, version: &str| {
        let (_rows, data) = file("rows.jsonl", rows);
        let version = format!("version={version}");
        let arguments = ["eval", "reward-bench", "--model", &judge, "--data", &data, "--set", &version];
        let dry = setpoint(&[&arguments[..], &["--dry-run"]].concat()).ok();
        let ran = setpoint(&[&arguments[..], &["--output", &output(name)]].concat()).ok();
        (dry.stdout, ran.stdout, read(&dir.path().join(name).join("result.json")))
    };
    let rows = first_version(&[("hep-go", right, wrong), ("hep-go", right, right), ("mt-bench-hard", right, other)]);
    let (dry, shown, one) = run(&rows, "one", "v1");
    assert!(dry.contains("RewardBench: 3 rows, 6 responses to score"), "{dry}");
    assert!(shown.contains("section Reasoning") && shown.contains("mt-bench-hard"), "{shown}");
    let swapped = first_version(&[("hep-go", wrong, right), ("hep-go", right, right), ("mt-bench-hard", other, right)]);
    let (_, _, two) = run(&swapped, "two", "v1");
    let item = |result: &Value, row: usize| result["items"][row]["value"].as_f64().unwrap();
    for row in [0, 2] {
        assert!((item(&one, row) + item(&two, row) - 1.0).abs() < 1e-12, "swapped, the outcome is the opposite");
    }
    assert_eq!((item(&one, 1), item(&two, 1)), (0.0, 0.0), "a tie is wrong");
    assert_eq!(one["scores"]["score"], Value::Null, "two sections are missing");
    let section = one["scores"]["sections"]["Reasoning"].as_f64().unwrap();
    assert!((section - item(&one, 0) / 2.0).abs() < 1e-12);
    assert!(one["manifest"]["model"]["hash"].is_string() && one["manifest"]["scoring"]["version"] == "v1", "{one}");

    let row = json!({"id": "1", "subset": "Math", "prompt": "How much is two and two?", "chosen": [right],
        "rejected": [right, right, right], "num_correct": 1});
    let (dry, _, best) = run(&format!("{row}\n"), "best", "v2");
    assert!(dry.contains("RewardBench 2: 1 row, 4 responses"), "{dry}");
    let sample = std::fs::read_to_string(dir.path().join("best/samples.jsonl")).unwrap();
    let sample: Value = serde_json::from_str(sample.trim()).unwrap();
    assert_eq!((sample["rewards"].as_array().unwrap().len(), &sample["score"]), (4, &best["items"][0]["value"]));
    assert_eq!(item(&best, 0), 0.25, "four equal rewards share the first place");
}

#[test]
fn wrong_rows_and_settings_are_refused_before_any_work() {
    let dir = tempfile::tempdir().unwrap();
    let judge = reward_model(dir.path());
    let run = |rows: &str, more: &[&str]| {
        let (_rows, data) = file("rows.jsonl", rows);
        setpoint(&[&["eval", "reward-bench", "--model", &judge, "--data", &data, "--dry-run"][..], more].concat())
    };
    let rows = first_version(&[("hep-go", "a", "b")]);
    run(&rows, &[]).fails(1, &["rows.jsonl, row 1", "version = \"v1\""]);
    run("{\"prompt\": \"p\"}\n", &[]).fails(1, &["not the columns of RewardBench 2", "without id, subset"]);
    run(&rows, &["--set", "version=v3"]).fails(2, &["version", "v1"]);
    let long = first_version(&[("hep-go", &"The sum is four. ".repeat(2000), "b")]);
    run(&long, &["--set", "version=v1"]).fails(1, &["row 0 of subset hep-go", "max_position_embeddings"]);
    setpoint(&["eval", "reward-bench", "--model", &judge]).fails(2, &["--data hub"]);
    let policy = model().display().to_string();
    setpoint(&["eval", "reward-bench", "--model", &policy, "--data", "hub", "--dry-run"]).fails(2, &["reward model"]);
}
