//! A run that is killed goes on as if nothing had happened.

use std::path::Path;
use std::time::{Duration, Instant};

use super::fixture::{command, file, model, sampled_rows, setpoint_owned, sft_arguments};

const STEPS: usize = 12;

fn arguments(run: &Path, device: &str) -> Vec<String> {
    let mut arguments = sft_arguments(run, STEPS);
    arguments.extend(["--set".into(), "train.save_steps=2".into(), "--device".into(), device.into()]);
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

/// Starts a run, kills it as soon as its metrics have so many lines, goes on, and so forth; how often it was killed.
fn kill_and_resume(run: &Path, arguments: &[String], lines: &[usize]) -> usize {
    let mut kills = 0;
    for (round, wait_for) in lines.iter().copied().map(Some).chain([None]).enumerate() {
        let mut arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        if run.join("config.toml").exists() {
            arguments.push("--resume");
        }
        let mut child = command(&arguments).spawn().unwrap();
        let started = Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                assert!(status.success(), "round {round}: {status}");
                break;
            }
            let lines = std::fs::read_to_string(run.join("metrics.jsonl")).map_or(0, |t| t.lines().count());
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
    kills
}

fn bytes(run: &Path, name: &str) -> Vec<u8> {
    std::fs::read(run.join(name)).unwrap_or_else(|e| panic!("{}/{name}: {e}", run.display()))
}

#[test]
fn kill_9_and_resume_ends_in_the_same_bits() {
    for device in ["flex", "flex,flex"] {
        let dir = tempfile::tempdir().unwrap();
        let (whole, killed) = (dir.path().join("whole"), dir.path().join("killed"));
        setpoint_owned(&arguments(&whole, device)).ok();
        // Killed as soon as a step beyond the first checkpoint is written, then once more.
        let kills = kill_and_resume(&killed, &arguments(&killed, device), &[3, 7]);
        assert!(kills > 0, "the run was over before it could be killed");
        let weights = |run: &Path| bytes(run, "model/model.safetensors");
        assert!(weights(&whole) == weights(&killed), "the weights differ");
        assert_eq!(metrics(&whole), metrics(&killed));
        same_responses(&whole, &killed);
    }
}

/// The log of responses has no times: it is the same to the bit.
#[track_caller]
fn same_responses(whole: &Path, killed: &Path) {
    let [whole, killed] = [whole, killed].map(|run| bytes(run, "responses.jsonl"));
    assert!(!whole.is_empty(), "nothing was logged");
    assert!(whole == killed, "{}\n---\n{}", String::from_utf8_lossy(&whole), String::from_utf8_lossy(&killed));
}

/// Methods that carry more than a policy and its reference: KTO's mismatched rows, AOT's ranks, DRO-V's value network, and DRO's β from the
/// rewards, its levels from samples and its likelihood term. With adapters, the checkpoints hold nothing else.
#[test]
fn so_do_methods_with_more_to_carry() {
    let (dir, data) = file("rewards.jsonl", &sampled_rows(8));
    let dro: &[&[&str]] = &[
        &["align.beta_sigma=0.2", "align.level_weight=0.5", "align.nll_weight=16"],
        &["align.log_z0=per_prompt"],
        &["align.length_normalize=true"],
        &["align.prompt_term=learned"],
    ];
    let others = ["kto", "aot", "dro_v", "nll"].map(|method| (method.to_owned(), method, "flex", &[][..]));
    let dro = dro.iter().enumerate().map(|(i, settings)| (format!("dro-{i}"), "dro", "flex", *settings));
    let rank: &[&str] = &["adapter.rank=4"];
    let dropout: &[&str] = &["adapter.rank=4", "adapter.dropout=0.3"];
    let adapters =
        [("dro", "flex", rank), ("dpo", "flex,flex", dropout), ("dro_v", "flex", dropout), ("aot", "flex", dropout)];
    let adapters = adapters.map(|(method, device, set)| (format!("{method}-adapter"), method, device, set));
    for (name, method, device, settings) in others.into_iter().chain(dro).chain(adapters) {
        let arguments = |run: &Path| -> Vec<String> {
            let mut arguments: Vec<String> = ["align", "--quiet", "--data", &data].map(String::from).into();
            arguments.extend([
                "--model".into(),
                model().display().to_string(),
                "--run".into(),
                run.display().to_string(),
            ]);
            for setting in [
                "train.max_steps=12",
                "train.save_steps=2",
                "train.batch_size=4",
                "train.learning_rate=1e-3",
                "samples.prompts=0",
            ] {
                arguments.extend(["--set".into(), setting.into()]);
            }
            arguments.extend(["--set".into(), format!("align.method={method}"), "--device".into(), device.into()]);
            settings.iter().for_each(|setting| arguments.extend(["--set".to_owned(), (*setting).to_owned()]));
            arguments
        };
        let (whole, killed) = (dir.path().join(format!("{name}-whole")), dir.path().join(format!("{name}-killed")));
        setpoint_owned(&arguments(&whole)).ok();
        assert!(kill_and_resume(&killed, &arguments(&killed), &[5]) > 0, "{name} was over before it could be killed");
        assert_eq!(metrics(&whole), metrics(&killed), "{name}");
        same_responses(&whole, &killed);
        let folders = if method == "dro_v" { vec!["model", "value"] } else { vec!["model"] };
        let file = if name.ends_with("adapter") { "adapter_model" } else { "model" };
        for name in folders.into_iter().map(|folder| format!("{folder}/{file}.safetensors")) {
            assert!(bytes(&whole, &name) == bytes(&killed, &name), "{method}: {name} differs");
        }
    }
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
    setpoint_owned(&other).fails(2, &["learning_rate"]);
    assert!(before == std::fs::read(run.join("model/model.safetensors")).unwrap(), "the model was touched");
}
