//! Each command does what its help says, on a tiny model.

use std::path::Path;

use super::fixture::{demo, file, model, rewarded_rows, root, setpoint, shared};

fn lines(path: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn sft_leaves_a_model_folder_metrics_and_the_resolved_settings() {
    let run = model().parent().unwrap();
    for name in
        ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "generation_config.json"]
    {
        assert!(model().join(name).is_file(), "{name} is missing");
    }
    let metrics = lines(&run.join("metrics.jsonl"));
    assert_eq!(metrics.len(), 4, "a line a step");
    let loss = |i: usize| metrics[i]["loss"].as_f64().unwrap();
    // Random weights: near ln(vocabulary).
    let config: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(model().join("config.json")).unwrap()).unwrap();
    let uniform = config["vocab_size"].as_f64().unwrap().ln();
    assert!((loss(0) - uniform).abs() < 0.5, "{} against {uniform}", loss(0));
    assert!(loss(3) < loss(0), "{metrics:#?}");
    let config: toml::Table = std::fs::read_to_string(run.join("config.toml")).unwrap().parse().unwrap();
    assert_eq!(config["train"]["max_steps"].as_integer(), Some(4));
    assert_eq!(config["train"]["seed"].as_integer(), Some(0), "defaults are written too");
    let samples = lines(&run.join("samples.jsonl"));
    assert_eq!(samples.len(), 4, "answers to the first prompts at the end of the run");
    assert!(samples[0]["prompt"].as_str().unwrap().len() > 5, "{}", samples[0]);
}

#[test]
fn logps_writes_a_line_per_response() {
    let (dir, data) = file("rows.jsonl", &rewarded_rows(3));
    let out = dir.path().join("logps.jsonl");
    setpoint(&[
        "logps",
        "--quiet",
        "--model",
        &model().display().to_string(),
        "--data",
        &data,
        "--output",
        &out.display().to_string(),
    ])
    .ok();
    let rows = lines(&out);
    assert_eq!(rows.len(), 9);
    for (i, row) in rows.iter().enumerate() {
        assert_eq!((row["row"].as_u64(), row["response"].as_u64()), (Some(i as u64 / 3), Some(i as u64 % 3)));
        let (tokens, logp) = (row["response_tokens"].as_u64().unwrap(), row["response_logp"].as_f64().unwrap());
        // A model that has hardly learnt: about ln(vocabulary) nats a token.
        assert!(tokens > 1 && (-8.0 * tokens as f64..-2.0 * tokens as f64).contains(&logp), "{row}");
        assert!(row["prompt_logp"].as_f64().unwrap() < 0.0, "{row}");
    }
    // The prompt's log-prob does not depend on the response behind it.
    assert_eq!(rows[0]["prompt_tokens"], rows[1]["prompt_tokens"]);
    let same = (rows[0]["prompt_logp"].as_f64().unwrap() - rows[1]["prompt_logp"].as_f64().unwrap()).abs();
    assert!(same < 1e-4, "{same}");
}

#[test]
fn annotate_by_rule_then_audit_and_align_by_dro() {
    let (dir, data) = file("rows.jsonl", &rewarded_rows(6));
    let rules = dir.path().join("rules.toml");
    std::fs::write(&rules, "[rule]\nkind = \"length\"\nunit = \"words\"\ntarget = 4\npenalty = 0.5\n").unwrap();
    let rewards = dir.path().join("rewards.jsonl").display().to_string();
    setpoint(&["annotate", &rules.display().to_string(), "--quiet", "--data", &data, "--output", &rewards]).ok();
    let rows = lines(Path::new(&rewards));
    // "The sum is four." has the four words wanted; "Do not bother me." too; "Saturday." lacks three: -1.5.
    for row in &rows {
        let rewards: Vec<f64> = row["rewards"].as_array().unwrap().iter().map(|r| r.as_f64().unwrap()).collect();
        assert_eq!(rewards[0] - rewards[2], 1.5, "{row}");
        assert_eq!(rewards[0], rewards[1], "{row}");
    }

    let policy = model().display().to_string();
    let report = dir.path().join("audit.json");
    let audit = setpoint(&[
        "audit",
        "--quiet",
        "--model",
        &policy,
        "--data",
        &rewards,
        "--output",
        &report.display().to_string(),
        "--set",
        "align.log_z0=auto",
    ])
    .ok();
    assert!(audit.stdout.contains("break-even"), "{audit:#?}");
    let report: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(report).unwrap()).unwrap();
    assert_eq!(report["rows"], 6);

    let run = dir.path().join("run");
    setpoint(&[
        "align",
        "--quiet",
        "--model",
        &policy,
        "--data",
        &rewards,
        "--run",
        &run.display().to_string(),
        "--set",
        "align.log_z0=auto",
        "--set",
        "align.prompt_term=full",
        "--set",
        "align.beta=1.0",
        "--set",
        "train.max_steps=3",
        "--set",
        "train.batch_size=2",
        "--set",
        "train.learning_rate=1e-3",
    ])
    .ok();
    for name in [
        "metrics.jsonl",
        "config.toml",
        "model/config.json",
        "model/model.safetensors",
        "model/tokenizer.json",
        "checkpoints",
    ] {
        assert!(run.join(name).exists(), "{name} is missing");
    }
    let first = &lines(&run.join("metrics.jsonl"))[0];
    // Step 0: the policy is the reference, so every log-ratio is 0.
    for name in ["logratios/chosen", "logratios/rejected", "dro/prompt_logratio"] {
        assert!(first[name].as_f64().unwrap().abs() < 1e-4, "{name}: {first}");
    }
}

#[test]
fn reward_model_then_eval_against_the_policy_itself() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("reward");
    let policy = model().display().to_string();
    setpoint(&[
        "reward",
        "--quiet",
        "--model",
        &policy,
        "--data",
        &demo("preferences.jsonl").display().to_string(),
        "--run",
        &run.display().to_string(),
        "--set",
        "data.max_rows=16",
        "--set",
        "train.max_steps=2",
        "--set",
        "train.batch_size=4",
    ])
    .ok();
    let judge = run.join("model").display().to_string();
    let config: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(run.join("model/config.json")).unwrap()).unwrap();
    assert_eq!(config["architectures"][0], "LlamaForSequenceClassification");
    assert!(config["setpoint_reward"]["std"].as_f64().unwrap() > 0.0, "{config}");

    let report = dir.path().join("eval.json");
    setpoint(&[
        "eval",
        "--quiet",
        "--model",
        &policy,
        "--data",
        &demo("eval_prompts.jsonl").display().to_string(),
        "--output",
        &report.display().to_string(),
        "--set",
        &format!("baseline.path={policy}"),
        "--set",
        &format!("reward.path={judge}"),
        "--set",
        "data.max_rows=5",
        "--set",
        "generate.max_new_tokens=6",
        "--set",
        &format!("pairs.path={}", demo("eval_preferences.jsonl").display()),
        "--set",
        "pairs.max_rows=5",
    ])
    .ok();
    let path = report.display().to_string();
    let compared = setpoint(&["eval", "compare", &path, &path]).ok();
    assert!(compared.stdout.contains("reward") && compared.stdout.contains("+0.0000"), "{compared:#?}");
    let report: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(report).unwrap()).unwrap();
    assert_eq!(report["manifest"]["baseline"]["hash"], report["manifest"]["model"]["hash"], "{report}");
    // A model against itself, with the same seed: every answer is the same.
    assert_eq!(report["win_rate"]["ties"], 5, "{report}");
    assert!(report["kl"]["k1"]["mean"].as_f64().unwrap().abs() < 1e-6, "{report}");
    assert!(report["kl"]["exact"]["mean"].as_f64().unwrap().abs() < 1e-6, "{report}");
    assert!(report["pairs"]["chosen_log_ratio"]["value"].as_f64().unwrap().abs() < 1e-6, "{report}");
    // Example by example, for the histograms of `setpoint report`.
    for name in ["baseline_reward", "log_ratio", "divergence", "kl", "tokens", "chosen_log_ratio", "rejected_log_ratio"]
    {
        assert_eq!(report["distributions"][name].as_array().map(Vec::len), Some(5), "{name} in {report}");
    }
    let page = dir.path().join("report.html");
    setpoint(&["report", &path, "--output", &page.display().to_string()]).ok();
    let page = std::fs::read_to_string(page).unwrap();
    for chart in [
        "Reward, example by example",
        "Log-ratio of the policy&#x27;s own responses",
        "Log-ratio of the held-out chosen responses",
    ] {
        assert!(page.contains(&format!("aria-label=\"{chart}\"")), "{chart} is missing");
    }
}

#[test]
fn generate_is_repeatable_and_follows_the_seed() {
    let policy = model().display().to_string();
    let sample = |seed: &str| {
        setpoint(&[
            "generate",
            "--quiet",
            "--model",
            &policy,
            "--prompt",
            "Which day comes after Friday?",
            "--set",
            "generate.max_new_tokens=12",
            "--set",
            "generate.temperature=1.0",
            "--set",
            &format!("generate.seed={seed}"),
        ])
        .ok()
        .stdout
    };
    assert_eq!(sample("1"), sample("1"));
    assert_ne!(sample("1"), sample("2"));
}

#[test]
fn dry_run_says_what_would_happen_and_writes_nothing() {
    let (dir, data) = file("rows.jsonl", &rewarded_rows(6));
    let run = dir.path().join("run");
    let ran = setpoint(&[
        "align",
        "--dry-run",
        "--model",
        &model().display().to_string(),
        "--data",
        &data,
        "--run",
        &run.display().to_string(),
        "--set",
        "train.batch_size=2",
    ])
    .ok();
    assert!(!run.exists());
    // 6 prompts in batches of 2, 3 epochs.
    assert!(ran.stdout.contains("steps     9 (3 an epoch"), "{ran:#?}");
    assert!(ran.stdout.contains("memory") && ran.stdout.contains("iB at once"), "{ran:#?}");
}

#[test]
fn inspect_shows_spans_shapes_and_settings() {
    let (_dir, data) = file("rows.jsonl", &rewarded_rows(1));
    let policy = model().display().to_string();
    let ran = setpoint(&["inspect", "data", "--model", &policy, "--data", &data, "--plain"]).ok();
    assert!(ran.stdout.contains("[t0]<|begin|>[prompt]<|user|>"), "{ran:#?}");
    assert!(ran.stdout.contains("[response]The| sum| is| four|.[stop]<|end|>"), "{ran:#?}");
    let ran = setpoint(&["inspect", "model", &policy]).ok();
    assert!(ran.stdout.contains("2 layers, hidden 32"), "{ran:#?}");
    for job in [
        "sft",
        "reward",
        "annotate",
        "logps",
        "align",
        "generate",
        "eval",
        "eval-alpaca",
        "eval-mt-bench",
        "eval-arena-hard",
        "eval-tasks",
        "eval-ifeval",
        "eval-reward-bench",
    ] {
        let ran = setpoint(&["inspect", "config", job]).ok();
        assert!(ran.stdout.parse::<toml::Table>().is_ok(), "{job}: {ran:#?}");
    }
    let ran = setpoint(&["inspect", "config", "align", "--set", "align.method=dpo"]).ok();
    assert!(ran.stdout.contains("label_smoothing") && !ran.stdout.contains("log_z0"), "{ran:#?}");
}

#[test]
fn logps_of_a_real_llama_agree_with_transformers() {
    let Some(stories) = shared("model/stories260K") else { return };
    let golden: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(root().join("tests/golden/stories260k.json")).unwrap()).unwrap();
    let rows = golden["rows"].as_array().or_else(|| golden["texts"].as_array()).or_else(|| golden.as_array()).unwrap();
    let text = rows.iter().filter_map(|r| r["text"].as_str()).max_by_key(|t| t.len()).unwrap();
    let cut = text.char_indices().nth(text.chars().count() / 2).unwrap().0;
    let cut = text[..cut].rfind(' ').unwrap();
    let row = serde_json::json!({"prompt": &text[..cut], "completion": &text[cut..]}).to_string() + "\n";
    let (dir, data) = file("story.jsonl", &row);
    let out = dir.path().join("logps.jsonl");
    setpoint(&[
        "logps",
        "--quiet",
        "--model",
        &stories.display().to_string(),
        "--data",
        &data,
        "--output",
        &out.display().to_string(),
    ])
    .ok();
    let line = &lines(&out)[0];
    let found = line["prompt_logp"].as_f64().unwrap();
    // The prompt's tokens are a prefix of the golden text's, so its log-prob is a sum of golden values.
    let expected = rows.iter().find(|r| r["text"].as_str() == Some(text)).unwrap()["logps"].as_array().unwrap();
    let n = line["prompt_tokens"].as_u64().unwrap() as usize - 1;
    let expected: f64 = expected[..n].iter().map(|v| v.as_f64().unwrap()).sum();
    assert!((found - expected).abs() < 1e-5 * n as f64, "{found} against {expected} over {n} tokens");
}

#[test]
fn plan_adds_up_and_finds_the_job() {
    let (dir, data) = file("rows.jsonl", &rewarded_rows(3));
    let config = dir.path().join("dro.toml");
    std::fs::write(&config, "[align]\nmethod = \"dro\"\nlog_z0 = \"auto\"\n[train]\nbatch_size = 2\n").unwrap();
    let (config, model) = (config.display().to_string(), model().display().to_string());
    let ran = setpoint(&["plan", &config, "--model", &model, "--data", &data, "--json"]).ok();
    let plan: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    let memory = plan["memory"].as_object().unwrap();
    let parts = ["weights", "gradients", "optimizer", "activations", "head", "other"]
        .map(|part| memory[part].as_f64().unwrap());
    assert!(parts.iter().all(|&bytes| bytes > 0.0), "{plan}");
    // Not all at once: but for the head's, gradients come as activations go. The allocator may take a twentieth more.
    let [weights, gradients, optimizer, activations, head, other] = parts;
    let least = weights + optimizer + other + gradients.max(activations + head);
    let most = parts.iter().sum::<f64>() * 1.05;
    assert!((least..most).contains(&plan["peak"].as_f64().unwrap()), "{plan}");
    assert_eq!((parts[0] * 2.0, plan["examples"].as_u64()), (parts[2], Some(3)), "two moments a weight");
    // Two steps an epoch, three epochs.
    assert_eq!(plan["steps"].as_u64(), Some(6));
    let text = setpoint(&["plan", &config, "--model", &model, "--data", &data]).ok().stdout;
    assert!(text.contains("job       align (--job names another)\n"), "{text}");
    let plain = dir.path().join("plain.toml").display().to_string();
    std::fs::write(&plain, "[train]\nbatch_size = 2\n").unwrap();
    let text = setpoint(&["plan", &plain, "--model", &model, "--data", &data]).ok().stdout;
    assert!(text.contains("job       sft (--job names another)\n"), "a file without [align]: {text}");
    // The same file is no config of another job.
    setpoint(&["plan", "--job", "sft", &config, "--model", &model, "--data", &data]).fails(2, &["align"]);
    setpoint(&["plan", "--model", &model]).fails(2, &["--job"]);
}

#[test]
fn several_samples_that_must_be_equal_are_warned_of() {
    let policy = model().display().to_string();
    let base =
        ["generate", "--model", &policy, "--prompt", "How much is two and two?", "--set", "generate.max_new_tokens=4"];
    let ran = |settings: &[&str]| {
        let settings: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
        setpoint(&[&base[..], &settings].concat()).ok().stderr
    };
    for identical in [
        &["generate.samples=3", "generate.temperature=0"][..],
        &["generate.samples=2", "generate.temperature=1", "generate.top_k=1"],
    ] {
        assert!(ran(identical).contains("will be identical"), "{identical:?}");
    }
    for fine in [
        &["generate.samples=1", "generate.temperature=0"][..],
        &["generate.samples=2", "generate.temperature=1", "generate.top_k=50"],
    ] {
        assert!(!ran(fine).contains("identical"), "{fine:?}");
    }
    // As the model's own settings say.
    let own = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(model()).unwrap().flatten() {
        std::fs::copy(entry.path(), own.path().join(entry.file_name())).unwrap();
    }
    std::fs::write(own.path().join("generation_config.json"), r#"{"do_sample": false, "eos_token_id": 3}"#).unwrap();
    let own = own.path().display().to_string();
    let ran =
        setpoint(&["generate", "--model", &own, "--prompt", "Hello", "--set", "generate.samples=4", "--dry-run"]).ok();
    assert!(ran.stderr.contains("the 4 samples of a prompt will be identical"), "{ran:#?}");
}
