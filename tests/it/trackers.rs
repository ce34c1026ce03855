//! Copies of a run's metrics for other tools. A shell script takes the place of Python; `tests/check_trackers.py` has the tools themselves.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::fixture::{Ran, setpoint, setpoint_owned, sft_arguments};

fn trained(run: &Path, more: &[&str]) -> Ran {
    let mut arguments = sft_arguments(run, 4);
    arguments.extend(more.iter().map(|&argument| argument.to_owned()));
    setpoint_owned(&arguments)
}

/// Makes a table of the metrics of a run, as `metrics.csv` has it.
fn table(run: &Path) -> Vec<Vec<String>> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let rows: Vec<serde_json::Map<String, Value>> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut columns: Vec<String> = Vec::new();
    for name in rows.iter().flat_map(|row| row.keys()) {
        if !columns.contains(name) {
            columns.push(name.clone());
        }
    }
    let cells = |row: &serde_json::Map<String, Value>| {
        columns.iter().map(|name| row.get(name).map_or_else(String::new, Value::to_string)).collect()
    };
    let cells: Vec<Vec<String>> = rows.iter().map(cells).collect();
    [vec![columns.clone()], cells].concat()
}

#[test]
fn a_table_has_the_metrics_of_a_run_that_was_resumed() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    trained(&run, &["--set", "tracker.kind=csv", "--set", "train.save_steps=2", "--set", "train.logging_steps=1"]).ok();
    let written = || {
        let text = fs::read_to_string(run.join("metrics.csv")).unwrap();
        text.lines().map(|line| line.split(',').map(str::to_owned).collect()).collect::<Vec<Vec<String>>>()
    };
    assert_eq!(written(), table(&run));
    assert!(written().len() > 4, "{:?}", written());
    let steps = |rows: Vec<Vec<String>>| rows.into_iter().map(|row| row[0].clone()).collect::<Vec<_>>();
    let before = steps(written());
    // As if it had been killed after its second checkpoint.
    fs::remove_dir_all(run.join("checkpoints/step-00000004")).unwrap();
    fs::remove_file(run.join("finished.json")).unwrap();
    let ran = setpoint(&["sft", "--run", &run.display().to_string(), "--resume"]).ok();
    assert!(ran.stderr.contains("going on from step 2 of 4"), "{ran:#?}");
    assert_eq!(written(), table(&run));
    assert_eq!(steps(written()), before);
}

#[test]
fn wrong_settings_of_a_tracker_are_usage_errors() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    for (settings, said) in [
        (&["tracker.kind=tensorboard"][..], "tracker.kind"),
        (&["tracker.project=mine"], "the tracker `csv` writes RUN/metrics.csv and has no `tracker.project`"),
        (&["tracker.kind=csv", "tracker.python=python3"], "has no `tracker.python`"),
        (&["tracker.kind=wandb", "tracker.python=no-such-python"], "`no-such-python` is in no folder of PATH"),
        (&["tracker.kind=wandb", "tracker.python=sh", "tracker.project=a/b"], "`tracker.project` must have"),
        (&["tracker.kind=mlflow", "tracker.python=sh", "tracker.name="], "`tracker.name` must have"),
        (&["tracker.kind=mlflow", "tracker.python=sh", "tracker.folder="], "tracker.folder"),
        (&["tracker.kin=csv"], "did you mean `tracker.kind`?"),
    ] {
        let settings: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
        trained(&run, &settings).fails(2, &[said]);
    }
    setpoint(&["sweep", "--dry-run", "--set", "tracker.kind=csv"]).fails(2, &["tracker"]);
    assert!(!run.exists());
}

#[cfg(unix)]
#[test]
fn a_package_is_asked_for_before_the_run_and_a_run_does_without_a_tool_that_fails() {
    let dir = tempfile::tempdir().unwrap();
    let (run, python) = (dir.path().join("run"), dir.path().join("python"));
    std::os::unix::fs::symlink(super::fixture::root().join("tests/fixtures/python.sh"), &python).unwrap();
    let body = |text: &str| fs::write(dir.path().join("python.body"), text).unwrap();
    let python = format!("tracker.python={}", python.display());
    let settings = ["--set", "tracker.kind=trackio", "--set", &python];
    body("echo \"ModuleNotFoundError: No module named 'trackio'\" >&2; exit 1");
    trained(&run, &settings)
        .fails(2, &["tracker.kind", "cannot import the package `trackio`", "-m pip install trackio"]);
    assert!(!run.exists(), "it is before the run");
    body("[ \"$1\" = -c ] || exit 7");
    let ran = trained(&run, &settings).ok();
    assert_eq!(ran.stderr.matches("the tracker `trackio` failed").count(), 1, "{ran:#?}");
    assert!(run.join("model/model.safetensors").is_file());
    // Another run may have another tool, and so may a run that goes on.
    body("[ \"$1\" = -c ] || cat > \"$0.read\"");
    fs::remove_file(run.join("finished.json")).unwrap();
    fs::remove_dir_all(run.join("checkpoints")).unwrap();
    let shown = run.display().to_string();
    let other = ["sft", "--run", &shown, "--resume", "--set", "tracker.kind=mlflow", "--set", &python];
    setpoint(&other).ok();
    let text = fs::read_to_string(dir.path().join("python.read")).unwrap();
    assert!(text.starts_with("{\"kind\":\"mlflow\",") && text.ends_with("{\"end\":\"finished\"}\n"), "{text}");
    assert!(text.contains("\"train/loss\":"), "{text}");
}
