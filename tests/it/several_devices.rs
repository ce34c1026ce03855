//! `--device` with several devices: the numbers of one. The CPU named twice stands for two GPUs.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use super::fixture::{Ran, demo, file, model, rewarded_rows, setpoint, setpoint_owned, sft_arguments};

pub fn metrics(run: &Path) -> Vec<serde_json::Map<String, Value>> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Numbers of two lines are the same up to rounding, but for times.
#[track_caller]
pub fn close(what: &str, found: &serde_json::Map<String, Value>, expected: &serde_json::Map<String, Value>) {
    // Their order is that of the first part that has them.
    let names = |numbers: &serde_json::Map<String, Value>| numbers.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(names(found), names(expected), "{what}");
    for (key, expected) in expected.iter().filter(|(key, _)| !key.contains("second")) {
        let (found, expected) = (found[key].as_f64(), expected.as_f64());
        match (found, expected) {
            (Some(found), Some(expected)) => {
                assert!((found - expected).abs() <= 1e-5 * (1.0 + expected.abs()), "{what} {key}: {found} {expected}");
            }
            _ => assert_eq!(found, expected, "{what} {key}"),
        }
    }
}

#[test]
fn every_method_takes_the_step_of_one_device() {
    let (dir, data) = file("rewards.jsonl", &rewarded_rows(5));
    let methods: Vec<Value> = serde_json::from_str(&setpoint(&["methods", "--json"]).ok().stdout).unwrap();
    let policy = model().display().to_string();
    let all = methods.iter().map(|about| (about["name"].as_str().unwrap(), false));
    for (name, adapter) in all.chain([("dro", true), ("dpo", true), ("dro_v", true)]) {
        let run = |device: &str| {
            let run = dir.path().join(format!("{name}-{adapter}-{device}"));
            let folder = run.display().to_string();
            let method = format!("align.method={name}");
            let mut arguments = vec!["align", "--quiet", "--device", device, "--model", &policy, "--data", &data];
            arguments.extend(["--run", &folder, "--set", &method]);
            for setting in ["samples.prompts=0", "train.max_steps=1", "train.batch_size=5", "train.learning_rate=1e-3"]
            {
                arguments.extend(["--set", setting]);
            }
            if name == "mix" {
                arguments.extend(["--set", "align.losses=[{method='simpo'}, {method='slic_hf', weight=0.5}]"]);
            }
            if adapter {
                arguments.extend(["--set", "adapter.rank=4"]);
                if name != "dro" {
                    // It decides on the gradient of B, and B is 0.
                    arguments.extend(["--set", "adapter.dropout=0.3"]);
                }
            }
            setpoint(&arguments).ok();
            metrics(&run)
        };
        let (several, one) = (run("flex,flex"), run("flex"));
        assert_eq!((several.len(), one.len()), (1, 1), "{name}");
        close(name, &several[0], &one[0]);
    }
}

fn arguments(run: &Path, device: &str) -> Vec<String> {
    let mut arguments = sft_arguments(run, 3);
    arguments.extend(["--device".into(), device.into()]);
    for setting in [
        format!("eval_data.path={}", demo("pretrain/sft.jsonl").display()),
        "eval_data.max_rows=20".into(),
        "train.eval_steps=1".into(),
    ] {
        arguments.extend(["--set".into(), setting]);
    }
    arguments
}

#[test]
fn fine_tuning_and_its_evaluations_are_those_of_one_device() {
    let dir = tempfile::tempdir().unwrap();
    let (one, several) = (dir.path().join("one"), dir.path().join("several"));
    setpoint_owned(&arguments(&one, "flex")).ok();
    setpoint_owned(&arguments(&several, "flex,flex,flex")).ok();
    for (found, expected) in metrics(&several).iter().zip(&metrics(&one)) {
        // Training and evaluation.
        close("sft", found, expected);
    }
    let versions: Value =
        serde_json::from_str(&std::fs::read_to_string(several.join("versions.json")).unwrap()).unwrap();
    assert_eq!(versions["devices"].as_array().unwrap().len(), 3, "{versions}");
}

#[test]
fn scores_are_those_of_one_device_to_the_bit() {
    let (dir, data) = file("rewards.jsonl", &rewarded_rows(9));
    let policy = model().display().to_string();
    let reward = dir.path().join("reward");
    let (pairs, folder) = (demo("preferences.jsonl").display().to_string(), reward.display().to_string());
    let train = ["reward", "--quiet", "--device", "flex,flex", "--model", &policy, "--data", &pairs, "--run", &folder];
    let limits = ["--set", "train.max_steps=2", "--set", "data.max_rows=12", "--set", "train.batch_size=4"];
    setpoint(&[&train[..], &limits[..]].concat()).ok();
    let judge = reward.join("model").display().to_string();
    for (job, model, setting) in [("logps", &policy, "batch_tokens=16"), ("annotate", &judge, "data.max_rows=9")] {
        let output = |device: &str| {
            let path = dir.path().join(format!("{job}-{device}.jsonl"));
            let out = path.display().to_string();
            let common = [job, "--quiet", "--device", device, "--model", model, "--data", &data, "--output", &out];
            setpoint(&[&common[..], &["--set", setting]].concat()).ok();
            std::fs::read_to_string(path).unwrap()
        };
        let one = output("flex");
        assert!(one.lines().count() >= 9, "{one}");
        assert_eq!(output("flex,flex"), one, "{job}");
    }
}

#[test]
fn devices_that_do_not_go_together_are_usage_errors() {
    let policy = model().display().to_string();
    let logps =
        |device: &str| -> Ran { setpoint(&["logps", "--device", device, "--model", &policy, "--data", "none.jsonl"]) };
    logps("flex,ndarray").fails(2, &["--device", "of one kind"]);
    logps("flex:0,1").fails(2, &["--device", "takes no device number"]);
    logps("cuda:0,0").fails(2, &["--device", "cuda:0 is named twice"]);
    setpoint(&["generate", "--device", "flex,flex", "--model", &policy, "--prompt", "Why?"])
        .fails(2, &["--device", "`setpoint generate` computes on one device, and 2 are named"]);
    setpoint(&["chat", "--device", "flex,flex", "--model", &policy]).fails(2, &["`setpoint chat` computes on one"]);
}
