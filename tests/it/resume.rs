//! A run that is killed goes on as if nothing had happened.

use std::path::Path;
use std::time::{Duration, Instant};

use super::fixture::{command, setpoint_owned, sft_arguments};

const STEPS: usize = 12;

fn arguments(run: &Path) -> Vec<String> {
    let mut arguments = sft_arguments(run, STEPS);
    arguments.extend(["--set".into(), "train.save_steps=2".into()]);
    arguments
}

/// Lines of metrics.jsonl without the fields that hold times.
fn metrics(run: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    text.lines()
        .map(|line| {
            let mut row: serde_json::Map<String, serde_json::Value> = serde_json::from_str(line).unwrap();
            row.retain(|key, _| !key.contains("second"));
            row.into()
        })
        .collect()
}

#[test]
fn kill_9_and_resume_ends_in_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, killed) = (dir.path().join("whole"), dir.path().join("killed"));
    setpoint_owned(&arguments(&whole)).ok();

    // Killed as soon as a step beyond the first checkpoint is written, then twice more wherever it stands.
    let mut kills = 0;
    for (round, wait_for) in [Some(3), Some(7), None].into_iter().enumerate() {
        let mut arguments = arguments(&killed);
        if round > 0 {
            arguments.push("--resume".into());
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut child = command(&arguments).spawn().unwrap();
        let started = Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                assert!(status.success(), "round {round}: {status}");
                break;
            }
            let lines = std::fs::read_to_string(killed.join("metrics.jsonl")).map_or(0, |t| t.lines().count());
            if wait_for.is_some_and(|wanted| lines >= wanted) {
                child.kill().unwrap();
                child.wait().unwrap();
                kills += 1;
                break;
            }
            assert!(started.elapsed() < Duration::from_secs(300), "round {round} hangs");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    assert!(kills > 0, "the run was over before it could be killed");
    let weights = |run: &Path| std::fs::read(run.join("model/model.safetensors")).unwrap();
    assert!(weights(&whole) == weights(&killed), "the weights differ");
    assert_eq!(metrics(&whole), metrics(&killed));
}

#[test]
fn a_run_is_neither_overwritten_nor_resumed_with_other_settings() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    setpoint_owned(&sft_arguments(&run, 2)).ok();
    let before = std::fs::read(run.join("model/model.safetensors")).unwrap();
    setpoint_owned(&sft_arguments(&run, 2)).fails(1, &["already holds a run", "--resume"]);
    let mut other = sft_arguments(&run, 2);
    other.extend(["--resume".into(), "--set".into(), "train.learning_rate=0.5".into()]);
    setpoint_owned(&other).fails(1, &["learning_rate"]);
    assert!(before == std::fs::read(run.join("model/model.safetensors")).unwrap(), "the model was touched");
}
