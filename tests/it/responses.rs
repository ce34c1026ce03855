//! `responses.jsonl`: the numbers of single responses that a run leaves, against the data, the reference's file and the metrics.

use std::path::Path;

use serde_json::Value;

use super::fixture::{demo, file, model, rewarded_rows, setpoint};

const PROMPTS: usize = 4;
const STEPS: u64 = 5;

fn lines(run: &Path, name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(run.join(name)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The numbers of a name, NaN where one is not known.
fn numbers(line: &Value, name: &str) -> Vec<f64> {
    let list = line[name].as_array().unwrap_or_else(|| panic!("no {name}: {line}"));
    list.iter().map(|number| number.as_f64().unwrap_or(f64::NAN)).collect()
}

/// The mean of a name over the responses of a side.
fn mean(line: &Value, name: &str, chosen: f64) -> f64 {
    let values: Vec<f64> = numbers(line, name)
        .into_iter()
        .zip(numbers(line, "chosen"))
        .filter(|(_, c)| *c == chosen)
        .map(|(v, _)| v)
        .collect();
    values.iter().sum::<f64>() / values.len() as f64
}

#[track_caller]
fn close(what: &str, found: f64, expected: f64, tolerance: f64) {
    assert!((found - expected).abs() <= tolerance * expected.abs().max(1.0), "{what}: {found}, expected {expected}");
}

fn align(data: &str, run: &Path, method: &str) {
    let (policy, run) = (model().display().to_string(), run.display().to_string());
    let (method, eval) = (format!("align.method={method}"), format!("eval_data.path={data}"));
    let mut arguments = vec!["align", "--quiet", "--model", &policy, "--data", data, "--run", &run];
    let steps = format!("train.max_steps={STEPS}");
    if method == "align.method=dro" {
        arguments.extend(["--set", "align.preset=paper"]);
    }
    for setting in [
        &method,
        &eval,
        &steps,
        "samples.prompts=0",
        "train.batch_size=4",
        "train.learning_rate=1e-2",
        "train.log_responses=all",
    ] {
        arguments.extend(["--set", setting]);
    }
    setpoint(&arguments).ok();
}

#[test]
fn every_response_has_its_reward_and_the_means_of_the_rest_are_the_metrics() {
    let (dir, data) = file("rewards.jsonl", &rewarded_rows(PROMPTS));
    for (method, examples_of_a_prompt, reference) in [
        ("dro", 1, true),
        ("dpo", 1, true),
        ("simpo", 1, false),
        ("kto", 3, true),
        ("qrpo", 3, true),
        ("dro_v", 3, true),
    ] {
        let run = dir.path().join(method);
        align(&data, &run, method);
        let metrics = lines(&run, "metrics.jsonl");
        let logged = lines(&run, "responses.jsonl");
        assert_eq!(logged.len() as u64, STEPS + 1, "{method}");
        let name = if reference { "log_ratio" } else { "logp" };
        for (line, metrics) in logged.iter().zip(&metrics) {
            let what = |name: &str| format!("{method}, {} step {}, {name}", line["data"], line["step"]);
            assert_eq!((&line["step"], &line["epoch"]), (&metrics["step"], &metrics["epoch"]), "{method}");
            assert_eq!(line.get("log_ratio").is_some(), reference, "{method}");
            let prefix = if line["data"] == "eval" { "eval_" } else { "" };
            for (side, chosen) in [("chosen", 1.0), ("rejected", 0.0)] {
                let key = format!("{prefix}{}/{side}", if reference { "logratios" } else { "logps" });
                match metrics.get(&key) {
                    Some(expected) => close(&what(&key), mean(line, name, chosen), expected.as_f64().unwrap(), 1e-5),
                    // A step of single rows may have none of a side.
                    None => assert!(!numbers(line, "chosen").contains(&chosen), "{}", what(&key)),
                }
            }
            let (places, rewards) = (numbers(line, "response"), numbers(line, "reward"));
            for ((example, response), reward) in numbers(line, "example").into_iter().zip(places).zip(rewards) {
                let prompt = example as usize / examples_of_a_prompt;
                let own = [1.0 + prompt as f64 / 10.0, -1.0, 0.25];
                // QRPO's rewards are quantiles: the best of three, the worst, the one between.
                let expected = if method == "qrpo" { [1.0, 1.0 / 3.0, 2.0 / 3.0] } else { own }[response as usize];
                close(&what("reward"), reward, expected, 1e-7);
            }
        }
        assert_eq!(logged.last().unwrap()["data"], "eval", "{method}");
        // Before the first step the policy is the reference; after some it is not.
        if reference {
            assert!(numbers(&logged[0], name).iter().all(|h| h.abs() < 1e-4), "{method}: {}", logged[0]);
            assert!(numbers(&logged[STEPS as usize], name).iter().any(|h| h.abs() > 1e-2), "{method}: {}", logged[5]);
            lengths_are_the_references(&run, &logged, examples_of_a_prompt);
        }
        targets_are_where_the_residual_is_zero(method, &logged, &metrics);
    }
}

fn lengths_are_the_references(run: &Path, logged: &[Value], examples_of_a_prompt: usize) {
    let stored = lines(run, "reference-train.jsonl");
    for line in logged {
        for ((example, response), tokens) in
            numbers(line, "example").into_iter().zip(numbers(line, "response")).zip(numbers(line, "tokens"))
        {
            let (row, response) = (example as u64 / examples_of_a_prompt as u64, response as u64);
            let own = stored.iter().find(|stored| stored["row"] == row && stored["response"] == response);
            assert_eq!(own.unwrap()["response_tokens"].as_f64(), Some(tokens), "{line}");
        }
    }
}

fn targets_are_where_the_residual_is_zero(method: &str, logged: &[Value], metrics: &[Value]) {
    let target: fn(f64) -> f64 = match method {
        // β is 0.1 and log_z0 50; the prompts have no log-ratio yet.
        "dro" => |reward| reward / 0.1 - 50.0,
        // β is 1, and every value 0.
        "dro_v" => |reward| reward,
        // β is 0.003: exp(-1/β) is nothing beside 1.
        "qrpo" => |quantile| (quantile - 1.0) / 0.003 - 0.003f64.ln(),
        _ => {
            assert!(logged.iter().all(|line| line.get("target").is_none()), "{method} aims at nothing");
            return;
        }
    };
    for (found, reward) in numbers(&logged[0], "target").into_iter().zip(numbers(&logged[0], "reward")) {
        close(&format!("{method}'s target"), found, target(reward), 1e-5);
    }
    let residual = match method {
        "dro" => ("dro/residual", 0.1),
        "dro_v" => ("dro_v/residual", 1.0),
        _ => return,
    };
    for (line, metrics) in logged.iter().zip(metrics).filter(|(line, _)| line["data"] == "train") {
        let ways: Vec<f64> =
            numbers(line, "target").into_iter().zip(numbers(line, "log_ratio")).map(|(target, h)| target - h).collect();
        let found = residual.1 * ways.iter().sum::<f64>() / ways.len() as f64;
        close(residual.0, found, metrics[residual.0].as_f64().unwrap(), 1e-5);
    }
}

#[test]
fn a_reward_models_scores_and_the_likelihoods_of_fine_tuning_are_logged_too() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("reward");
    let (policy, data) = (model().display().to_string(), demo("preferences.jsonl").display().to_string());
    let mut arguments = vec!["reward", "--quiet", "--model", &policy, "--data", &data];
    let folder = run.display().to_string();
    arguments.extend(["--run", &folder]);
    for setting in ["data.max_rows=16", "train.max_steps=6", "train.batch_size=4", "train.learning_rate=1e-3"] {
        arguments.extend(["--set", setting]);
    }
    setpoint(&arguments).ok();
    let logged = lines(&run, "responses.jsonl");
    // Four steps an epoch: the first pass is steps 1 to 4, the last 3 to 6.
    assert_eq!(logged.len(), 6);
    for (line, metrics) in logged.iter().zip(lines(&run, "metrics.jsonl")) {
        let (chosen, rejected) = (mean(line, "reward", 1.0), mean(line, "reward", 0.0));
        assert_eq!(numbers(line, "reward").len(), 8);
        close("margin", chosen - rejected, metrics["margin"].as_f64().unwrap(), 1e-5);
        close("mean_reward", (chosen + rejected) / 2.0, metrics["mean_reward"].as_f64().unwrap(), 1e-5);
    }

    // The fixture's SFT run: the loss is the mean over all counted tokens.
    let run = model().parent().unwrap();
    for (line, metrics) in lines(run, "responses.jsonl").iter().zip(lines(run, "metrics.jsonl")) {
        let sum = |name: &str| numbers(line, name).iter().sum::<f64>();
        close("loss", -sum("logp") / sum("tokens"), metrics["loss"].as_f64().unwrap(), 1e-5);
    }
}

#[test]
fn the_setting_is_shown_and_switches_the_log_off() {
    let config = setpoint(&["inspect", "config", "align"]).ok().stdout;
    assert!(config.contains("log_responses = \"first_and_last\""), "{config}");
    let (dir, data) = file("rewards.jsonl", &rewarded_rows(PROMPTS));
    let (policy, run) = (model().display().to_string(), dir.path().join("run").display().to_string());
    let train = |setting: &str| {
        let mut arguments = vec!["align", "--quiet", "--model", &policy, "--data", &data, "--run", &run];
        for setting in ["samples.prompts=0", "train.max_steps=1", setting] {
            arguments.extend(["--set", setting]);
        }
        setpoint(&arguments)
    };
    train("train.log_responses=some").fails(2, &["train.log_responses", "first_and_last"]);
    train("train.log_responses=none").ok();
    assert!(lines(&dir.path().join("run"), "responses.jsonl").is_empty());
}
