//! `align.max_kl`: a training ends when the KL of its own answers from the reference passes a limit.

use std::path::Path;

use serde_json::Value;

use super::fixture::{Ran, file, model, rewarded_rows, setpoint};

/// Six steps of an alignment that evaluates after each.
fn align(data: &str, run: &Path, more: &[&str]) -> Ran {
    let eval = format!("eval_data.path={data}");
    let (model, run) = (model().display().to_string(), run.display().to_string());
    let fixed = ["align", "--model", &model, "--data", data, "--run", &run];
    let settings = [
        eval.as_str(),
        "train.eval_steps=1",
        "train.max_steps=6",
        "train.batch_size=2",
        "train.learning_rate=1e-2",
        "stop.prompts=4",
        "stop.max_new_tokens=6",
    ];
    let settings: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
    setpoint(&[&fixed, settings.as_slice(), more].concat())
}

/// The values of a metric, evaluation by evaluation.
fn metric(run: &Path, name: &str) -> Vec<f64> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    text.lines().filter_map(|line| serde_json::from_str::<Value>(line).unwrap()[name].as_f64()).collect()
}

#[test]
fn a_run_ends_when_it_is_too_far_from_the_reference() {
    let (dir, data) = file("rewards.jsonl", &rewarded_rows(6));
    let free = dir.path().join("free");
    align(&data, &free, &["--set", "align.max_kl=1e6"]).ok();
    let kls = metric(&free, "eval_kl");
    assert_eq!(
        (kls.len(), metric(&free, "eval_kl_std_error").len(), metric(&free, "eval_kl_sampled").len()),
        (6, 6, 6)
    );
    assert!(kls.iter().all(|kl| *kl > 0.0), "{kls:?}");

    // The same steps, up to the first that is beyond the limit.
    let limit = kls[1].max(kls[0]) * 0.999;
    let last = kls.iter().position(|kl| *kl > limit).unwrap();
    let run = dir.path().join("run");
    let given = format!("align.max_kl={limit}");
    let ran = align(&data, &run, &["--set", &given]).ok();
    let said = format!("stopped early at step {}: the KL from the reference is {:.2} nats", last + 1, kls[last]);
    assert!(ran.stderr.contains(&said), "{said}: {ran:#?}");
    assert_eq!(metric(&run, "eval_kl"), kls[..=last]);
    assert!(run.join("model/model.safetensors").is_file() && run.join("samples.jsonl").is_file());
    let finished: Value = serde_json::from_str(&std::fs::read_to_string(run.join("finished.json")).unwrap()).unwrap();
    assert_eq!(finished["steps"], last + 1);
    assert!(finished["stopped"].as_str().unwrap().contains("above align.max_kl"), "{finished}");

    // It is over; and what it would be with another limit is another run.
    let folder = run.display().to_string();
    let ran = setpoint(&["align", "--run", &folder, "--resume"]).ok();
    assert!(ran.stderr.contains(&format!("is finished: it ended after step {} (the KL", last + 1)), "{ran:#?}");
    let html = dir.path().join("report.html").display().to_string();
    setpoint(&["report", &folder, "--output", &html]).ok();
    assert!(std::fs::read_to_string(html).unwrap().contains("the KL from the reference passed its limit"));
    std::fs::remove_file(run.join("finished.json")).unwrap();
    let ran = setpoint(&["align", "--run", &folder, "--resume"]).ok();
    assert!(ran.stderr.contains("stopped early at step"), "{ran:#?}");
    assert_eq!(metric(&run, "eval_kl").len(), last + 1, "no further step is made");
}

#[test]
fn an_adapter_is_measured_against_its_base_and_a_method_without_a_reference_against_its_start() {
    let (dir, data) = file("rewards.jsonl", &rewarded_rows(6));
    for (name, more) in
        [("adapter", "adapter.rank=2"), ("simpo", "align.method=simpo"), ("dro_v", "align.method=dro_v")]
    {
        let run = dir.path().join(name);
        let ran = align(&data, &run, &["--set", "align.max_kl=1e-12", "--set", more]).ok();
        assert!(ran.stderr.contains("stopped early at step 1: the KL from the reference"), "{name}: {ran:#?}");
        assert_eq!(metric(&run, "eval_kl").len(), 1, "{name}");
    }
    // Before the first step, the policy is the reference.
    let run = dir.path().join("start");
    align(
        &data,
        &run,
        &["--set", "align.max_kl=1e6", "--set", "train.eval_on_start=true", "--set", "train.max_steps=1"],
    )
    .ok();
    assert!(metric(&run, "eval_kl")[0].abs() < 1e-6);
    // The limit is passed by the last step alone.
    let run = dir.path().join("last");
    let ran = align(&data, &run, &["--set", "align.max_kl=1e-12", "--set", "train.max_steps=1"]).ok();
    assert!(ran.stderr.contains("only after the last step"), "{ran:#?}");
}

#[test]
fn a_limit_that_cannot_be_checked_is_refused() {
    let (dir, data) = file("rewards.jsonl", &rewarded_rows(6));
    let run = dir.path().join("run").display().to_string();
    let model = model().display().to_string();
    let refused = |more: &[&str], words: &[&str]| {
        let fixed = ["align", "--model", &model, "--data", &data, "--run", &run];
        setpoint(&[&fixed, more].concat()).fails(2, words);
    };
    let eval = format!("eval_data.path={data}");
    let missing = ["on answers to held-out prompts", "set `eval_data.path` and `train.eval_steps`"];
    refused(&["--set", "align.max_kl=2.0"], &missing);
    refused(&["--set", "align.max_kl=2.0", "--set", &eval], &missing);
    let both = ["--set", eval.as_str(), "--set", "train.eval_steps=1"];
    refused(&[&["--set", "align.max_kl=0.0"], both.as_slice()].concat(), &["`align.max_kl` must be above 0"]);
    refused(&[&["--set", "stop.prompts=1"], both.as_slice()].concat(), &["must be at least 2"]);
    refused(&[&["--set", "stop.max_new_tokens=0"], both.as_slice()].concat(), &["must be at least 1"]);
    let one = [&["--set", "align.max_kl=2.0", "--set", "eval_data.max_rows=1"], both.as_slice()].concat();
    let fixed = ["align", "--model", &model, "--data", &data, "--run", &run];
    setpoint(&[&fixed, one.as_slice()].concat()).fails(1, &["fewer than two of `eval_data` leave room"]);
}
