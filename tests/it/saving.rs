//! What other tools make of a trained model: where its generations end, and how it samples.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::fixture::{Ran, demo, file, rewarded_rows, setpoint, setpoint_owned, sft_arguments, tiny_config};

fn read(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))).unwrap()
}

/// A tokenizer folder as a base model has it: text ends with `<|pad|>` (4), turns of the template with `<|end|>` (3).
fn base_tokenizer(dir: &Path, generation: &str) -> PathBuf {
    let folder = dir.join("tokenizer");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::copy(demo("tokenizer/tokenizer.json"), folder.join("tokenizer.json")).unwrap();
    let mut config = read(&demo("tokenizer/tokenizer_config.json"));
    config["eos_token"] = "<|pad|>".into();
    std::fs::write(folder.join("tokenizer_config.json"), config.to_string()).unwrap();
    std::fs::write(folder.join("generation_config.json"), generation).unwrap();
    folder
}

/// SFT of a base model with that tokenizer. Returns the model's folder.
fn trained(dir: &Path, generation: &str, more: &[&str]) -> (PathBuf, Ran) {
    let tokenizer = base_tokenizer(dir, generation);
    let mut shape = read(&tiny_config());
    shape["eos_token_id"] = 4.into();
    std::fs::write(dir.join("config.json"), shape.to_string()).unwrap();
    let run = dir.join("sft");
    let mut arguments = sft_arguments(&run, 2);
    for setting in [
        format!("model.from_scratch={}", dir.join("config.json").display()),
        format!("model.tokenizer={}", tokenizer.display()),
    ] {
        arguments.extend(["--set".to_owned(), setting]);
    }
    arguments.extend(more.iter().map(|a| (*a).to_owned()));
    let ran = setpoint_owned(&arguments).ok();
    (run.join("model"), ran)
}

fn assert_ends_with_its_turns(model: &Path) {
    assert_eq!(read(&model.join("tokenizer_config.json"))["eos_token"], "<|end|>");
    assert_eq!(read(&model.join("config.json"))["eos_token_id"], 3);
    assert_eq!(read(&model.join("generation_config.json"))["eos_token_id"], json!([3, 4]));
}

#[test]
fn a_base_model_that_learns_turns_ends_generations_with_them() {
    let dir = tempfile::tempdir().unwrap();
    let (sft, _) = trained(dir.path(), r#"{"eos_token_id": 4, "pad_token_id": 4, "do_sample": true}"#, &[]);
    assert_ends_with_its_turns(&sft);
    let saved = read(&sft.join("generation_config.json"));
    assert_eq!((&saved["pad_token_id"], &saved["do_sample"]), (&json!(4), &json!(true)), "{saved}");
    assert!(sft.join("chat_template.jinja").is_file());

    // What is trained on from there keeps them, and so does a model that is aligned without SFT.
    let (_rows, data) = file("rows.jsonl", &rewarded_rows(4));
    let base = dir.path().join("base");
    std::fs::create_dir(&base).unwrap();
    for name in ["model.safetensors", "tokenizer.json", "chat_template.jinja"] {
        std::fs::copy(sft.join(name), base.join(name)).unwrap();
    }
    std::fs::copy(dir.path().join("tokenizer/tokenizer_config.json"), base.join("tokenizer_config.json")).unwrap();
    std::fs::write(base.join("generation_config.json"), r#"{"eos_token_id": [4]}"#).unwrap();
    let mut config = read(&sft.join("config.json"));
    config["eos_token_id"] = 4.into();
    std::fs::write(base.join("config.json"), config.to_string()).unwrap();
    for (name, model) in [("again", &sft), ("direct", &base)] {
        let run = dir.path().join(name);
        setpoint(&[
            "align",
            "--quiet",
            "--model",
            &model.display().to_string(),
            "--data",
            &data,
            "--run",
            &run.display().to_string(),
            "--set",
            "align.method=dpo",
            "--set",
            "train.max_steps=1",
            "--set",
            "train.batch_size=2",
        ])
        .ok();
        assert_ends_with_its_turns(&run.join("model"));
    }
    // The two have the same tokens under another name of their end, and are compared as before.
    setpoint(&[
        "eval",
        "--dry-run",
        "--model",
        &sft.display().to_string(),
        "--data",
        &demo("eval_prompts.jsonl").display().to_string(),
        "--set",
        &format!("baseline.path={}", base.display()),
        "--set",
        "rule.kind=length",
        "--set",
        "rule.unit=chars",
        "--set",
        "rule.target=6",
    ])
    .ok();
}

#[test]
fn plain_text_teaches_no_turns() {
    let dir = tempfile::tempdir().unwrap();
    let rows: String =
        (0..8).map(|i| json!({"prompt": format!("{i} and"), "completion": " two"}).to_string() + "\n").collect();
    let (_rows, data) = file("plain.jsonl", &rows);
    let tokenizer = base_tokenizer(dir.path(), r#"{"eos_token_id": 4}"#);
    // Without a template there are no turns.
    let mut config = read(&tokenizer.join("tokenizer_config.json"));
    config.as_object_mut().unwrap().remove("chat_template");
    std::fs::write(tokenizer.join("tokenizer_config.json"), config.to_string()).unwrap();
    let run = dir.path().join("sft");
    let mut arguments = sft_arguments(&run, 1);
    for setting in [format!("model.tokenizer={}", tokenizer.display()), format!("data.path={data}")] {
        arguments.extend(["--set".to_owned(), setting]);
    }
    setpoint_owned(&arguments).ok();
    assert_eq!(read(&run.join("model/tokenizer_config.json"))["eos_token"], "<|pad|>");
    assert_eq!(read(&run.join("model/generation_config.json"))["eos_token_id"], 4);
}

#[test]
fn training_copies_the_sampling_settings_that_only_generation_understands() {
    let dir = tempfile::tempdir().unwrap();
    let foreign =
        r#"{"eos_token_id": [3, 4], "min_p": 0.05, "num_beams": 4, "max_length": 5, "of_tomorrow": {"a": [1]}}"#;
    let (model, ran) = trained(dir.path(), foreign, &[]);
    assert_eq!(std::fs::read_to_string(model.join("generation_config.json")).unwrap(), foreign);
    assert!(!ran.stderr.contains("generation_config"), "{ran:#?}");
    // The trained model in turn: its file is read by training for its samples, which do without.
    let run = dir.path().join("again");
    let data = demo("pretrain/sft.jsonl").display().to_string();
    let ran = setpoint(&[
        "sft",
        "--quiet",
        "--model",
        &model.display().to_string(),
        "--data",
        &data,
        "--run",
        &run.display().to_string(),
        "--set",
        "data.max_rows=8",
        "--set",
        "train.max_steps=1",
    ])
    .ok();
    assert!(ran.stderr.contains("warning") && ran.stderr.contains("samples.generate"), "{ran:#?}");
    let model = run.join("model");
    assert_eq!(std::fs::read_to_string(model.join("generation_config.json")).unwrap(), foreign);
    assert!(std::fs::read_to_string(run.join("samples.jsonl")).unwrap().lines().count() > 0);
    let model = model.display().to_string();
    setpoint(&["generate", "--model", &model, "--prompt", "Hello?"]).fails(1, &["min_p", "generation_config.json"]);
    setpoint(&["chat", "--model", &model]).fails(1, &["min_p", "generation_config.json"]);
}

#[test]
fn a_broken_file_costs_a_warning() {
    for broken in ["{\"eos_token_id\": 4,", "[]", "{\"eos_token_id\": \"</s>\"}"] {
        let dir = tempfile::tempdir().unwrap();
        let (model, ran) = trained(dir.path(), broken, &[]);
        let saved = read(&model.join("generation_config.json"));
        assert_eq!(saved["eos_token_id"], json!([3, 4]), "{saved}");
        assert!(ran.stderr.contains("generation_config.json") || broken.contains("</s>"), "{ran:#?}");
        setpoint(&[
            "generate",
            "--model",
            &model.display().to_string(),
            "--prompt",
            "Hi?",
            "--set",
            "generate.max_new_tokens=2",
        ])
        .ok();
    }
}
