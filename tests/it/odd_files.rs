//! Files that are none, or have no end: each is refused or left out at once, and without memory.

#![cfg(unix)]

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use super::fixture::{Ran, file, model, rewarded_rows, setpoint};

/// Runs the command with 60 seconds and 4 GB of addresses.
fn bounded(arguments: &[&str]) -> Ran {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -v 4000000; exec timeout 60 \"$@\"", "sh", env!("CARGO_BIN_EXE_setpoint")]);
    Ran::of(&command.args(arguments).env("RAYON_NUM_THREADS", "2").output().unwrap())
}

fn pipe(path: &Path) {
    let _ = std::fs::remove_file(path);
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

fn endless(path: &Path) {
    let _ = std::fs::remove_file(path);
    std::fs::File::create(path).unwrap().set_len(1 << 40).unwrap();
}

fn device(path: &Path) {
    let _ = std::fs::remove_file(path);
    symlink("/dev/zero", path).unwrap();
}

/// Makes a file of a kind.
type Make = fn(&Path);

const ODD: [(&str, Make); 3] = [("is a pipe", pipe), ("it has more than", endless), ("is a device", device)];

#[test]
fn a_report_leaves_out_the_notes_of_a_run_that_are_no_files() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let output = dir.path().join("report.html").display().to_string();
    for (_, make) in ODD {
        let _ = std::fs::remove_dir_all(&run);
        std::fs::create_dir(&run).unwrap();
        std::fs::write(run.join("metrics.jsonl"), "{\"step\": 1, \"loss\": 2.5}\n").unwrap();
        for note in ["history.jsonl", "config.toml", "versions.json", "finished.json", "eval-report.json"] {
            make(&run.join(note));
        }
        bounded(&["report", &run.display().to_string(), "--output", &output]).ok();
        std::fs::remove_file(&output).unwrap();
    }
    pipe(&run.join("metrics.jsonl"));
    bounded(&["report", &run.display().to_string(), "--output", &output]).fails(1, &["metrics.jsonl"]);
}

#[test]
fn a_models_files_are_read_within_bounds() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"] {
        for (said, make) in ODD {
            let copy = dir.path().join("model");
            let _ = std::fs::remove_dir_all(&copy);
            std::fs::create_dir(&copy).unwrap();
            for entry in std::fs::read_dir(model()).unwrap().map(Result::unwrap) {
                std::fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
            }
            make(&copy.join(name));
            let prompt = ["generate", "--prompt", "1", "--set", "generate.max_new_tokens=1", "--model"];
            let ran = bounded(&[prompt.as_slice(), &[&copy.display().to_string()]].concat());
            // A template that is no file is none.
            if name != "chat_template.jinja" || said == "it has more than" {
                assert!(ran.code != 0 && ran.code != 124 && ran.stderr.contains(name), "{name}: {ran:#?}");
            }
            assert!(!ran.stderr.contains("holds no"), "{name}: {ran:#?}");
        }
    }
}

#[test]
fn settings_and_rows_that_are_no_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let policy = model().display().to_string();
    for (said, make) in ODD {
        let config = dir.path().join("align.toml");
        make(&config);
        bounded(&["align", &config.display().to_string(), "--dry-run"]).fails(2, &["align.toml", said]);
        bounded(&["convert", &config.display().to_string()]).fails(2, &["align.toml", said]);
    }
    for name in ["rows.jsonl", "63"] {
        let rows = dir.path().join(name);
        pipe(&rows);
        let ran = bounded(&["align", "--dry-run", "--model", &policy, "--data", &rows.display().to_string()]);
        assert!(!ran.stderr.contains("no such file"), "{ran:#?}");
        ran.fails(1, &[name, "it is a pipe, not a file"]);
    }
}

#[test]
fn lists_are_no_sections() {
    let (_dir, rows) = file("rows.jsonl", &rewarded_rows(4));
    let policy = model().display().to_string();
    let flags = ["align", "--dry-run", "--model", &policy, "--data", &rows];
    for set in [
        "train=[2.0,5,1]",
        "train=[]",
        "encode=[]",
        "train.schedule=[\"constant\"]",
        "train.optimizer=[]",
        "eval_data=[]",
        "samples=[]",
    ] {
        let key = set.split('=').next().unwrap();
        let said = format!("`{key}` is a table of settings; found a list");
        setpoint(&[flags.as_slice(), &["--set", set]].concat()).fails(2, &[&said]);
    }
    for text in ["data = []\n", "data = [5]\n", "model = []\n", "[[model]]\n", "data = 5\n"] {
        let (_config, config) = file("align.toml", text);
        let all = ["align", &config, "--dry-run", "--model", &policy, "--data", &rows];
        setpoint(&all).fails(2, &["align.toml:1", "table of settings"]);
    }
}

#[test]
fn what_is_wrong_with_settings_ends_with_code_2() {
    let (_dir, rows) = file("rows.jsonl", &rewarded_rows(4));
    let policy = model().display().to_string();
    let align = |set: &str| setpoint(&["align", "--dry-run", "--model", &policy, "--data", &rows, "--set", set]);
    for set in [
        "align.reward_transform.clip=[1,-1]",
        "align.reward_scale=1e-308",
        "align.beta=1e308",
        "align.beta=nan",
        "train.learning_rate=1e308",
        "train.learning_rate=nan",
        "train.epochs=1e308",
    ] {
        let ran = align(set);
        assert_eq!(ran.stderr.matches("error: ").count(), 1, "{set}: {ran:#?}");
        ran.fails(2, &[set.split('=').next().unwrap()]);
    }
    let (dir, yaml) = file("trl.yaml", "model_name_or_path: a\nmodel_name_or_path: b\n");
    let output = dir.path().join("no/folder").display().to_string();
    setpoint(&["convert", &yaml]).fails(2, &["trl.yaml", "line 2", "is given twice"]);
    std::fs::write(dir.path().join("no"), "").unwrap();
    std::fs::write(&yaml, "model_name_or_path: a\nlearning_rate: -1\n").unwrap();
    setpoint(&["convert", &yaml, "--trainer", "sft", "--output", &output]).fails(2, &["--output"]);
    let converted = setpoint(&["convert", &yaml, "--trainer", "sft"]).ok();
    assert!(converted.stderr.contains("learning_rate: the job refuses it"), "{converted:#?}");
}

#[test]
fn errors_name_no_numbers_of_the_system() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().display().to_string();
    let (_dir, rows) = file("rows.json", "{\"prompt\": \"a\", \"completion\": \"b\"}");
    let policy = model().display().to_string();
    for (arguments, code, said) in [
        (vec!["align", folder.as_str(), "--dry-run"], 2, "it is a folder, not a file"),
        (vec!["serve", policy.as_str()], 2, "the folder of a model is given by --model"),
        (vec!["sft", "--dry-run", "--model", &policy, "--data", &rows], 1, "it is one object"),
    ] {
        let ran = setpoint(&arguments);
        assert!(!ran.stderr.contains("os error"), "{ran:#?}");
        ran.fails(code, &[said]);
    }
}
