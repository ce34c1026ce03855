//! Reference models of other kinds, and QRPO, which takes quantiles among their samples.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::fixture::{demo, file, model, rewarded_rows, sampled_rows, setpoint};
use super::reference_samples::{RULE, lines, numbers, texts};

/// The tests' model with another chat template.
fn with_template(dir: &Path, template: &str) -> PathBuf {
    let folder = dir.join("template");
    std::fs::create_dir(&folder).unwrap();
    for entry in std::fs::read_dir(model()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            std::fs::copy(&path, folder.join(path.file_name().unwrap())).unwrap();
        }
    }
    let path = folder.join("tokenizer_config.json");
    let mut config: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    config["chat_template"] = template.into();
    std::fs::write(&path, config.to_string()).unwrap();
    let _ = std::fs::remove_file(folder.join("chat_template.jinja"));
    folder
}

#[test]
fn system_turns_and_templates_without_a_first_token_are_sampled_and_aligned() {
    let template = "{%- for message in messages %}{{- '<|' + ('assistant' if message['role'] == 'assistant' else 'user') + '|>' \
                    + message['content'] | trim + '<|end|>' }}{%- endfor %}\
                    {%- if add_generation_prompt %}{{- '<|assistant|>' }}{%- endif %}";
    let dir = tempfile::tempdir().unwrap();
    let reference = with_template(dir.path(), template).display().to_string();
    let chat = |system: &str| {
        json!({
            "prompt": [{"role": "system", "content": system}, {"role": "user", "content": "What day is it?"}],
            "responses": ["Friday.", "The sum is four."],
        })
    };
    let text = json!({"prompt": "What day is it?", "responses": ["Friday.", "Saturday."]});
    let (_rows, data) = file("rows.jsonl", &format!("{}\n{}\n{text}\n", chat("Be short."), chat("Do not bother me.")));
    let output = dir.path().join("sampled.jsonl").display().to_string();
    let mut arguments = vec!["annotate", "--data", &data, "--output", &output, "--reference", &reference];
    arguments.extend(["--reference-samples", "8", "--set", "reference.generate.max_new_tokens=8"]);
    RULE.iter().for_each(|set| arguments.extend(["--set", set]));
    let ran = setpoint(&arguments).ok();
    assert!(ran.stderr.contains("for each of 3 distinct prompts"), "{ran:#?}");
    assert!(ran.stderr.contains("prompts of plain text become user turns"), "{ran:#?}");
    let rows = lines(Path::new(&output));
    assert_eq!(rows[2]["prompt"], "What day is it?", "a text stays a text");
    assert_ne!(rows[0]["reference_responses"], rows[1]["reference_responses"]);
    // The samples of another model than the reference are told.
    let run = dir.path().join("run").display().to_string();
    let base = ["align", "--data", &output, "--run", &run, "--dry-run", "--model", &reference];
    let sets = ["--set", "align.log_z0=per_prompt", "--set", "align.beta=0.5"];
    let ran = setpoint(&[&base[..], &sets].concat()).ok();
    assert!(!ran.stderr.contains("come from another model"), "{ran:#?}");
    let other = dir.path().join("other");
    std::fs::create_dir(&other).unwrap();
    for entry in std::fs::read_dir(&reference).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, other.join(path.file_name().unwrap())).unwrap();
    }
    let config = std::fs::read_to_string(other.join("config.json")).unwrap();
    std::fs::write(other.join("config.json"), config + "\n").unwrap();
    let other = format!("reference={}", other.display());
    let ran = setpoint(&[&base[..], &sets, &["--set", &other]].concat()).ok();
    assert!(ran.stderr.contains("the samples of 3 rows come from another model than the reference"), "{ran:#?}");
}

#[test]
fn a_reference_may_be_an_adapter() {
    let dir = tempfile::tempdir().unwrap();
    let (policy, run) = (model().display().to_string(), dir.path().join("sft").display().to_string());
    let conversations = demo("pretrain/sft.jsonl").display().to_string();
    let mut arguments = vec!["sft", "--quiet", "--model", &policy, "--data", &conversations, "--run", &run];
    for set in
        ["adapter.rank=4", "train.learning_rate=0.01", "train.max_steps=3", "train.batch_size=4", "samples.prompts=0"]
    {
        arguments.extend(["--set", set]);
    }
    setpoint(&arguments).ok();
    let (_rows, data) = file("rows.jsonl", &rewarded_rows(1));
    let adapter = dir.path().join("sft/model").display().to_string();
    let samples = |reference: &str, name: &str| {
        let output = dir.path().join(name).display().to_string();
        let base =
            ["annotate", "--data", &data, "--output", &output, "--reference", reference, "--reference-samples", "8"];
        let mut arguments = base.to_vec();
        RULE.iter().for_each(|set| arguments.extend(["--set", set]));
        arguments.extend(["--set", "reference.generate.max_new_tokens=8"]);
        setpoint(&arguments).ok();
        lines(Path::new(&output)).remove(0)
    };
    let (adapted, base) = (samples(&adapter, "adapter.jsonl"), samples(&policy, "base.jsonl"));
    assert_eq!(texts(&adapted, "reference_responses").len(), 8);
    assert_ne!(adapted["reference_settings"]["model"], base["reference_settings"]["model"]);
}

/// At the reference the loss of a response is `(q − β·log Z)²`, with its quantile among the samples.
#[test]
fn qrpo_takes_quantiles_among_the_samples() {
    let (dir, data) = file("rows.jsonl", &sampled_rows(4));
    let policy = model().display().to_string();
    let align = |data: &str, name: &str, sets: &[&str]| {
        let run = dir.path().join(name).display().to_string();
        let mut arguments = vec!["align", "--model", &policy, "--data", data, "--run", &run];
        let common =
            ["align.method=qrpo", "align.beta=0.5", "samples.prompts=0", "train.batch_size=12", "train.max_steps=1"];
        common.iter().chain(sets).for_each(|set| arguments.extend(["--set", set]));
        setpoint(&arguments)
    };
    let loss = |name: &str, sets: &[&str]| {
        align(&data, name, sets).ok();
        lines(&dir.path().join(name).join("metrics.jsonl"))[0]["loss"].as_f64().unwrap()
    };
    let log_z = (0.5 * (2f64.exp() - 1.0)).ln();
    let expected = |among: &str| {
        let rows = lines(Path::new(&data));
        let losses = rows.iter().flat_map(|row| {
            let among = numbers(row, among);
            let quantile =
                move |reward: f64| among.iter().filter(|&&other| other <= reward).count() as f64 / among.len() as f64;
            numbers(row, "rewards").into_iter().map(move |reward| (quantile(reward) - 0.5 * log_z).powi(2))
        });
        let losses: Vec<f64> = losses.collect();
        losses.iter().sum::<f64>() / losses.len() as f64
    };
    for (name, sets, among) in
        [("responses", &[][..], "rewards"), ("samples", &["align.reference_samples=true"], "reference_rewards")]
    {
        let (found, expected) = (loss(name, sets), expected(among));
        assert!((found - expected).abs() < 1e-5, "{name}: {found}, expected {expected}");
    }
    assert!((expected("rewards") - expected("reference_rewards")).abs() > 1e-3);

    let bare = "{\"prompt\": \"How much?\", \"responses\": [\"Four.\"], \"rewards\": [1.0]}\n";
    let (_bare, bare) = file("bare.jsonl", bare);
    let command = "setpoint annotate --model REWARD_MODEL --reference ";
    align(&bare, "none", &["align.reference_samples=true"]).fails(
        1,
        &["bare.jsonl:1", "`reference_responses`", "align.reference_samples = true needs at least 8", command],
    );
    align(&bare, "none", &[]).fails(1, &["one response alone", command, "align.reference_samples=true"]);
}
