//! Run folders that earlier builds left go on, with the settings and defaults that they were started with.
//!
//! `tests/fixtures/runs-4bb4a63` holds runs that were killed, and the step, losses and weights that the build of that commit reaches
//! when it resumes them; `make.py` in that folder made them.

use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use serde_json::Value;

use super::fixture::{Ran, command, root};

const TOLERANCE: f64 = 1e-6;

/// The spacing of f32 from 64 to 128, where the log-probabilities of whole responses are, in nats.
const SPACING: f64 = 1.0 / 131_072.0;

fn fixture() -> PathBuf {
    root().join("tests/fixtures/runs-4bb4a63")
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

fn expected() -> serde_json::Map<String, Value> {
    let text = std::fs::read_to_string(fixture().join("expected.json")).unwrap();
    serde_json::from_str::<Value>(&text).unwrap().as_object().unwrap().clone()
}

#[track_caller]
fn close(name: &str, found: f64, expected: f64) {
    near(name, found, expected, 0.0);
}

#[track_caller]
fn near(name: &str, found: f64, expected: f64, rounding: f64) {
    let bound = TOLERANCE * expected.abs().max(1.0) + rounding;
    assert!((found - expected).abs() <= bound, "{name}: found {found}, expected {expected}");
}

/// Returns how far a metric may be from the fixture's because this machine rounds otherwise. The fixture comes from a machine with AVX-512,
/// whose matrix kernels add in another order than those for older processors; on such machines nothing is allowed for.
///
/// DRO's loss is the mean square of the distances of log-probabilities from their targets. A log-probability that is rounded to the next
/// f32 moves it by up to `2·√loss` times the spacing, which is more than the tolerance.
fn rounding(run: &str, key: &str, value: f64) -> f64 {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx512f") {
        return 0.0;
    }
    if run.starts_with("dro") && key.ends_with("loss") { 2.0 * value.sqrt() * SPACING } else { 0.0 }
}

/// Resumes a copy of each run with the arguments that the function makes of those it was started with.
fn resumed(arguments: impl Fn(&[String]) -> Vec<String>) {
    for (name, expected) in &expected() {
        let dir = tempfile::tempdir().unwrap();
        copy(&fixture(), dir.path());
        let started: Vec<String> = serde_json::from_value(expected["arguments"].clone()).unwrap();
        let arguments = arguments(&started);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let ran = Ran::of(&command(&arguments).current_dir(dir.path()).output().unwrap()).ok();
        assert!(ran.stderr.contains("going on from step 3 of"), "{name}: {ran:#?}");

        let text = std::fs::read_to_string(dir.path().join(name).join("metrics.jsonl")).unwrap();
        let metrics: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let wanted = expected["metrics"].as_array().unwrap();
        assert_eq!(metrics.last().unwrap()["step"], expected["steps"], "{name}");
        assert_eq!(metrics.len(), wanted.len(), "{name}");
        for (found, wanted) in metrics.iter().zip(wanted) {
            for (key, value) in wanted.as_object().unwrap() {
                let step = &wanted["step"];
                let (found, value) = (found[key].as_f64().unwrap(), value.as_f64().unwrap());
                near(&format!("{name}, step {step}, {key}"), found, value, rounding(name, key, value));
            }
        }

        let bytes = std::fs::read(dir.path().join(name).join("model/model.safetensors")).unwrap();
        let model = SafeTensors::deserialize(&bytes).unwrap();
        let tensors = expected["tensors"].as_object().unwrap();
        assert_eq!(model.len(), tensors.len(), "{name}");
        for (tensor, wanted) in tensors {
            let data = model.tensor(tensor).unwrap();
            let values: Vec<f64> =
                data.data().chunks_exact(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap()))).collect();
            let count = values.len() as f64;
            close(
                &format!("{name}, {tensor}, mean"),
                values.iter().sum::<f64>() / count,
                wanted["mean"].as_f64().unwrap(),
            );
            let magnitude = values.iter().map(|value| value.abs()).sum::<f64>() / count;
            close(&format!("{name}, {tensor}, magnitude"), magnitude, wanted["mean_magnitude"].as_f64().unwrap());
            let first = wanted["first"].as_array().unwrap();
            let last = wanted["last"].as_array().unwrap();
            let tail = &values[values.len() - last.len()..];
            for (found, wanted) in values.iter().zip(first).chain(tail.iter().zip(last)) {
                close(&format!("{name}, {tensor}"), *found, wanted.as_f64().unwrap());
            }
        }
    }
}

#[test]
fn runs_of_4bb4a63_go_on_with_their_flags_repeated() {
    resumed(|started| [started, &["--resume".to_owned()]].concat());
}

#[test]
fn runs_of_4bb4a63_go_on_by_their_folders() {
    resumed(|started| {
        let (job, run) = (&started[0], started.last().unwrap());
        [job, "--run", run, "--resume", "--device", "flex"].map(str::to_owned).to_vec()
    });
}

/// Version 1 compares what it compared at the time: tokens and settings, in one fingerprint.
#[test]
fn a_run_of_4bb4a63_is_still_not_another_run() {
    let dir = tempfile::tempdir().unwrap();
    copy(&fixture(), dir.path());
    let resume = |more: &[&str]| {
        let arguments = [&["align", "--run", "dpo", "--resume", "--quiet", "--device", "flex"], more].concat();
        Ran::of(&command(&arguments).current_dir(dir.path()).output().unwrap())
    };
    resume(&["--set", "align.beta=0.2"]).fails(2, &["`align.beta` was 0.1, and is now 0.2"]);
    let data = dir.path().join("data/pairs.jsonl");
    let text = std::fs::read_to_string(&data).unwrap();
    let (first, rest) = text.split_once('\n').unwrap();
    std::fs::write(&data, format!("{rest}{first}\n")).unwrap();
    let ran = resume(&[]);
    assert_eq!(ran.code, 1, "{ran:#?}");
    assert!(!dir.path().join("dpo/model").exists());
}
