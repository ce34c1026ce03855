//! DRO's further settings, from the command line to the run folder.

use std::path::Path;

use serde_json::Value;

use super::fixture::{Ran, file, model, rewarded_rows, sampled_rows, setpoint};

/// The population standard deviation of the rewards of `rewarded_rows(4)`: 1.0 to 1.3, four times −1 and four times 0.25.
fn deviation() -> f64 {
    let rewards: Vec<f64> = [1.0, 1.1, 1.2, 1.3].into_iter().flat_map(|best| [best, -1.0, 0.25]).collect();
    let mean = rewards.iter().sum::<f64>() / 12.0;
    (rewards.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / 12.0).sqrt()
}

fn align_with(data: &str, run: &Path, settings: &[&str], more: &[&str]) -> Ran {
    let (policy, run) = (model().display().to_string(), run.display().to_string());
    let mut arguments = vec!["align", "--model", &policy, "--data", data, "--run", &run];
    arguments.extend(more);
    let common = ["samples.prompts=0", "train.batch_size=4", "train.learning_rate=1e-3", "train.max_steps=2"];
    for setting in common.iter().chain(settings) {
        arguments.extend(["--set", setting]);
    }
    setpoint(&arguments)
}

fn align(data: &str, run: &Path, settings: &[&str]) -> Ran {
    align_with(data, run, settings, &[])
}

fn audit(run: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(run.join("audit.json")).unwrap()).unwrap()
}

fn first_step(run: &Path) -> Value {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    serde_json::from_str(text.lines().next().unwrap()).unwrap()
}

#[track_caller]
fn close(found: f64, expected: f64) {
    assert!((found - expected).abs() < 1e-4 * expected.abs().max(1.0), "{found}, expected {expected}");
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is not a number"))
}

#[test]
fn beta_can_be_given_in_deviations_of_the_rewards() {
    let (dir, data) = file("rewards.jsonl", &rewarded_rows(4));
    let run = dir.path().join("run");
    let ran = align(&data, &run, &["align.beta_sigma=0.5"]).ok();
    let beta = 0.5 * deviation();
    assert!(ran.stderr.contains("0.5 standard deviations of the 12 training rewards"), "{ran:#?}");
    close(number(&audit(&run)["beta"]), beta);
    close(number(&audit(&run)["beta_in_deviations"]), 0.5);
    let config: toml::Table = std::fs::read_to_string(run.join("config.toml")).unwrap().parse().unwrap();
    assert_eq!(config["align"]["beta_sigma"].as_float(), Some(0.5));
    assert!(config["align"].get("beta").is_none(), "{config}");

    // It trains as the number that it stands for, also after transform and scale.
    let weights = |run: &Path| std::fs::read(run.join("model/model.safetensors")).unwrap();
    for (name, settings) in [("plain", &[][..]), ("scaled", &["align.reward_transform=zscore", "align.reward_scale=3"])]
    {
        let (share, written) = (dir.path().join(format!("{name}-share")), dir.path().join(format!("{name}-written")));
        align(&data, &share, &[&["align.beta_sigma=0.5"], settings].concat()).ok();
        let beta = format!("align.beta={}", number(&audit(&share)["beta"]));
        align(&data, &written, &[&[beta.as_str()], settings].concat()).ok();
        assert!(weights(&share) == weights(&written), "{name}");
    }
    close(number(&audit(&dir.path().join("scaled-share"))["beta"]), 1.5);

    let both = ["align.beta=0.1", "align.beta_sigma=0.5"];
    align(&data, &dir.path().join("both"), &both).fails(2, &["`align.beta` and `align.beta_sigma` set the same thing"]);
    align(&data, &dir.path().join("zero"), &["align.beta_sigma=0"]).fails(2, &["beta_sigma", "1e-30 to 1e30"]);
    let equal = ["align.beta_sigma=0.5", "align.reward_transform={ clip = 0.0 }"];
    align(&data, &dir.path().join("equal"), &equal).fails(1, &["beta_sigma", "a standard deviation of 0"]);
    // Over a preset, which brings a β of its own.
    let table =
        setpoint(&["inspect", "config", "align", "--set", "align.preset=paper", "--set", "align.beta_sigma=0.2"]);
    let table: toml::Table = table.ok().stdout.parse().unwrap();
    assert!(table["align"].get("beta").is_none() && table["align"]["beta_sigma"].as_float() == Some(0.2), "{table}");
}

#[test]
fn the_dry_run_knows_the_beta_too() {
    let (_dir, data) = file("rewards.jsonl", &rewarded_rows(4));
    let policy = model().display().to_string();
    let plan = ["align", "--dry-run", "--model", &policy, "--data", &data, "--set", "align.beta_sigma=0.5"];
    let ran = setpoint(&plan).ok();
    assert!(ran.stderr.contains("0.5 standard deviations of the 12 training rewards"), "{ran:#?}");
}

/// At the reference the residuals are `r − β·log_z0`: level and distances follow from the rewards.
#[test]
fn the_first_loss_is_that_of_the_formula() {
    let (dir, data) = file("rewards.jsonl", &rewarded_rows(4));
    let loss = |name: &str, settings: &[&str]| {
        let run = dir.path().join(name);
        align(&data, &run, &[&["align.log_z0=3", "align.beta=0.5"], settings].concat()).ok();
        (number(&first_step(&run)["loss"]), first_step(&run))
    };
    let rows: Vec<[f64; 3]> = [1.0, 1.1, 1.2, 1.3].map(|best| [best, -1.0, 0.25]).into();
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let of = |weight: f64| {
        let row = |row: &[f64; 3]| {
            let e = row.map(|reward| reward - 1.5);
            let level = mean(&e);
            mean(&e.map(|e| (e - level).powi(2))) + weight * level * level
        };
        mean(&rows.iter().map(row).collect::<Vec<_>>())
    };
    let (plain, _) = loss("plain", &[]);
    close(plain, of(1.0));
    for weight in [0.0, 0.25, 2.0] {
        close(loss(&format!("level-{weight}"), &[&format!("align.level_weight={weight}")]).0, of(weight));
    }
    // w·β²·NLL on top.
    let (with_nll, step) = loss("nll", &["align.nll_weight=4"]);
    let nll = number(&step["nll_loss"]);
    assert!(nll > 0.1, "{step}");
    close(with_nll, plain + 4.0 * 0.25 * nll);
    // At the reference a log-ratio is 0, however many tokens it is divided by.
    close(loss("per-token", &["align.length_normalize=true"]).0, plain);

    align(&data, &dir.path().join("mae"), &["align.level_weight=0.5", "align.error=mae"])
        .fails(2, &["align.level_weight", "squared residuals"]);
    align(&data, &dir.path().join("full"), &["align.length_normalize=true", "align.prompt_term=full"])
        .fails(2, &["align.length_normalize", "no prompt term"]);
}

#[test]
fn levels_come_from_reference_samples_next_to_the_rows() {
    let (dir, data) = file("rewards.jsonl", &sampled_rows(4));
    let run = dir.path().join("run");
    let settings = ["align.log_z0=per_prompt", "align.beta=0.5", "train.save_steps=1"];
    let ran = align(&data, &run, &settings).ok();
    assert!(ran.stderr.contains("estimated from at least 8 samples"), "{ran:#?}");
    let found = audit(&run);
    assert_eq!(found["estimated"]["samples"], 8);
    assert_eq!(found["feasibility"]["infeasible"], 0, "the data's own mass is a part of Z: {found}");
    // The formula, from the reference's own log-probs; the first sample is a response of the data.
    let stored = std::fs::read_to_string(run.join("reference-train.jsonl")).unwrap();
    let logps: Vec<Value> = stored.lines().skip(1).map(|line| serde_json::from_str(line).unwrap()).collect();
    let level = |i: usize| {
        let data = (0..3).map(|j| {
            let own = logps.iter().find(|own| own["row"] == i && own["response"] == j).unwrap();
            let reward = [1.0 + i as f64 / 10.0, -1.0, 0.25][j];
            (number(&own["response_logp"]) + reward / 0.5).exp()
        });
        let samples = (1..8).map(|k| ((0.2 * f64::from(k) - 0.5 + i as f64 / 20.0) / 0.5).exp() / 8.0);
        (data.sum::<f64>() + samples.sum::<f64>()).ln()
    };
    let mean = (0..4).map(level).sum::<f64>() / 4.0;
    close(number(&found["log_z0"]), mean);
    close(number(&first_step(&run)["dro/log_z"]), mean);

    // Another reward of a sample is another run.
    let rows = std::fs::read_to_string(&data).unwrap();
    std::fs::write(&data, rows.replacen("-0.5,", "-0.25,", 1)).unwrap();
    std::fs::remove_dir_all(run.join("model")).unwrap();
    align_with(&data, &run, &settings, &["--resume"]).fails(1, &["the data as the loss reads it"]);
}

#[test]
fn too_few_reference_samples_are_an_error_that_says_how_to_draw_them() {
    let (dir, data) = file("rewards.jsonl", &rewarded_rows(2));
    let run = dir.path().join("run");
    let command = "setpoint annotate --model REWARD_MODEL --reference ";
    let per_prompt = &["align.log_z0=per_prompt"][..];
    align(&data, &run, per_prompt).fails(1, &["rewards.jsonl:1", "`reference_responses`", command]);
    let change = |change: &dyn Fn(&mut Value)| {
        let rows = sampled_rows(2);
        let row = |line: &str| {
            let mut row: Value = serde_json::from_str(line).unwrap();
            change(&mut row);
            format!("{row}\n")
        };
        std::fs::write(&data, rows.lines().map(row).collect::<String>()).unwrap();
        align(&data, &run, per_prompt)
    };
    change(&|row| {
        for column in ["reference_responses", "reference_rewards"] {
            row[column].as_array_mut().unwrap().truncate(7);
        }
    })
    .fails(1, &["7 reference samples", "at least 8", command]);
    change(&|row| row["reference_rewards"].as_array_mut().unwrap().truncate(7))
        .fails(1, &["8 entries in `reference_responses`, but 7"]);
    change(&|row| row["reference_rewards"][3] = Value::Null).fails(1, &["`reference_rewards[3]`", "a finite number"]);
    change(&|row| row["reference_responses"][2] = 5.into()).fails(1, &["`reference_responses[2]`", "text"]);
    align(&data, &run, &["align.log_z0=per_prompt", "align.prompt_term=full"])
        .fails(2, &["align.log_z0", "prompt term"]);
    assert!(!run.exists());
}

/// Settings that came later have, in an older folder, the values that mean what that build did.
#[test]
fn a_folder_without_the_later_settings_goes_on() {
    let (dir, data) = file("rewards.jsonl", &rewarded_rows(4));
    let run = dir.path().join("run");
    let settings = ["align.log_z0=3", "train.save_steps=1"];
    align(&data, &run, &settings).ok();
    let config = std::fs::read_to_string(run.join("config.toml")).unwrap();
    let later = ["level_weight", "nll_weight", "length_normalize"];
    let older: String = config
        .lines()
        .filter(|line| later.iter().all(|key| !line.starts_with(key)))
        .map(|line| format!("{line}\n"))
        .collect();
    assert_ne!(older, config);
    std::fs::write(run.join("config.toml"), older).unwrap();
    let weights = std::fs::read(run.join("model/model.safetensors")).unwrap();
    for gone in ["model", "checkpoints/step-00000002"] {
        std::fs::remove_dir_all(run.join(gone)).unwrap();
    }
    align_with(&data, &run, &settings, &["--resume"]).ok();
    assert!(std::fs::read(run.join("model/model.safetensors")).unwrap() == weights);
    let other = [&settings[..], &["align.level_weight=0.5"]].concat();
    align_with(&data, &run, &other, &["--resume"]).fails(2, &["align.level_weight"]);
}
