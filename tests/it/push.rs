//! `setpoint push`: what is shown and refused before anything is sent. The upload itself is tested in `setpoint-data`.

use std::fs;

use super::fixture::{Ran, command, model, setpoint};

#[test]
fn a_dry_run_shows_files_and_bytes_and_needs_neither_token_nor_network() {
    let model = model().display().to_string();
    let ran = setpoint(&["push", "--model", &model, "--to", "someone/a-model", "--dry-run"]).ok();
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        let bytes = fs::metadata(format!("{model}/{name}")).unwrap().len();
        assert!(ran.stdout.lines().any(|line| line.trim() == format!("{bytes}  {name}")), "{name}: {}", ran.stdout);
    }
    assert!(ran.stdout.contains("for someone/a-model (private if it is new); nothing was sent"), "{}", ran.stdout);
}

#[test]
fn wrong_arguments_are_named() {
    let model = model().display().to_string();
    setpoint(&["push", "--model", &model, "--to", "a-model"]).fails(2, &["--to", "USER/NAME"]);
    setpoint(&["push", "--model", &model, "--to", "a/b", "--revision", "a b"]).fails(2, &["--revision", "no branch"]);
    setpoint(&["push", "--model", "no/folder", "--to", "a/b"]).fails(2, &["--model", "no folder"]);
    let empty = tempfile::tempdir().unwrap();
    let empty = empty.path().display().to_string();
    setpoint(&["push", "--model", &empty, "--to", "a/b", "--dry-run"]).fails(2, &["--model", "holds no model"]);
}

#[test]
fn an_upload_needs_a_token_and_a_hub() {
    let model = model().display().to_string();
    let home = tempfile::tempdir().unwrap();
    let push = |token: Option<&str>| {
        let mut command = command(&["push", "--model", &model, "--to", "someone/a-model", "--quiet"]);
        command
            .env("HF_HOME", home.path())
            .env("HF_ENDPOINT", "http://127.0.0.1:1")
            .env_remove("HF_TOKEN")
            .env_remove("HF_HUB_OFFLINE");
        if let Some(token) = token {
            command.env("HF_TOKEN", token);
        }
        Ran::of(&command.output().unwrap())
    };
    push(None).fails(1, &["there is no token", "HF_TOKEN"]);
    let ran = push(Some("hf_a_secret_of_the_test"));
    assert!(!ran.stderr.contains("hf_a_secret") && !ran.stdout.contains("hf_a_secret"), "{ran:?}");
    ran.fails(1, &["cannot push to someone/a-model (http://127.0.0.1:1)"]);
}
