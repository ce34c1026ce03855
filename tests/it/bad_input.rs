//! Wrong input: one clear sentence with the place and the remedy, the right exit code, and nothing harmed.

use std::path::Path;

use super::fixture::{demo, file, model, rewarded_rows, setpoint, setpoint_owned, sft_arguments, tiny_config};

fn policy() -> String {
    model().display().to_string()
}

/// `setpoint align` by DRO on these rows, without a run.
fn align(rows: &str) -> super::fixture::Ran {
    let (_dir, data) = file("rows.jsonl", rows);
    setpoint(&["align", "--dry-run", "--model", &policy(), "--data", &data])
}

#[test]
fn unknown_and_mistyped_settings_come_all_at_once_with_their_lines() {
    let (_dir, config) =
        file("align.toml", "[align]\nbetta = 0.2\nlog_z0 = \"often\"\n\n[train]\nbatch_size = \"many\"\n");
    setpoint(&["align", &config, "--dry-run"]).fails(
        2,
        &["align.toml:2", "did you mean `align.beta`?", "align.toml:3", "align.toml:6", "model.path", "data.path"],
    );
}

#[test]
fn unknown_methods_flags_and_devices_are_usage_errors() {
    setpoint(&["align", "--dry-run", "--set", "align.method=xpo"]).fails(
        2,
        &[
            "align.method",
            "dro (or rao)",
            "slic_hf",
            "ppo (or rlhf)",
            "found `xpo`; ",
            "online method",
            "setpoint methods",
        ],
    );
    setpoint(&["align", "--dry-run", "--set", "align.method=sipmo"]).fails(2, &["did you mean `simpo`?"]);
    setpoint(&["align", "--tun"]).fails(2, &["--tun"]);
    setpoint(&[
        "logps",
        "--device",
        "tpu",
        "--model",
        &policy(),
        "--data",
        &demo("responses.jsonl").display().to_string(),
    ])
    .fails(2, &["tpu", "flex"]);
    setpoint(&["align", "--dry-run", "--set", "align.beta=-1"]).fails(2, &["beta", "-1"]);
    setpoint(&["align", "--set", "align.break_even_reward=2", "--set", "align.log_z0=3"])
        .fails(2, &["give one of them"]);
}

#[test]
fn settings_out_of_range_are_wrong_usage_and_named_once() {
    let (_dir, data) = file("rows.jsonl", &rewarded_rows(4));
    let align = |set: &str| setpoint(&["align", "--dry-run", "--model", &policy(), "--data", &data, "--set", set]);
    for set in ["align.reward_scale=-1", "align.reward_scale=0", "encode.max_length=0", "data.path=5"] {
        let ran = align(set);
        assert_eq!(ran.stderr.matches("error: ").count(), 1, "{ran:#?}");
        ran.fails(2, &[set]);
    }
    let settings = format!(
        "model.path = '{}'\ndata.path = '{data}'\nencode.max_length = 0\ntrain.max_steps = 2\ncompare.methods = [\"dpo\"]\n\
         eval.data.path = '{data}'\neval.rule = {{ kind = \"length\", unit = \"chars\", target = 6 }}\n",
        policy()
    );
    let (_compare, compare) = file("compare.toml", &settings);
    setpoint(&["compare", &compare, "--dry-run"]).fails(2, &["compare.toml:3", "encode.max_length"]);
}

#[test]
fn a_dry_run_reads_the_column_of_rewards() {
    let row = "{\"prompt\": \"a\", \"responses\": [\"b\"], \"score\": [1]}\n";
    let (dir, data) = file("rows.jsonl", &format!("{row}{}", row.replace("[1]", "[\"high\"]")));
    let output = dir.path().join("out.jsonl").display().to_string();
    let annotate = |set: &str, rows: &str| {
        let rows = format!("data.max_rows={rows}");
        let arguments = ["annotate", "--dry-run", "--data", &data, "--output", &output, "--set", set, "--set", &rows];
        setpoint(&arguments)
    };
    annotate("column=score", "1").ok();
    annotate("column=score", "2").fails(1, &["rows.jsonl", "`score`", "high"]);
    annotate("column=scores", "1").fails(1, &["rows.jsonl", "`scores`", "no such column"]);
}

#[test]
fn a_name_without_end_does_not_fill_the_terminal() {
    let (_dir, data) = file("rows.jsonl", &format!("{{\"{}\": 1}}\n", "x".repeat(2_000_000)));
    let ran = setpoint(&["align", "--dry-run", "--model", &policy(), "--data", &data]);
    assert!(ran.stderr.len() < 10_000, "{} bytes", ran.stderr.len());
    ran.fails(1, &["rows.jsonl", "characters are not shown"]);
}

#[test]
fn a_run_without_a_folder_is_a_usage_error() {
    let data = demo("responses.jsonl").display().to_string();
    setpoint(&["sft", "--model", &policy(), "--data", &data]).fails(2, &["--run"]);
}

#[test]
fn rows_name_file_line_and_remedy() {
    let good = rewarded_rows(1);
    align(&(good.clone() + "{\"prompt\": \"x\"}\n")).fails(1, &["rows.jsonl:2"]);
    align(&(good.clone() + "{\"prompt\": \"x\", \"responses\": [\"\"], \"rewards\": [1]}\n"))
        .fails(1, &["rows.jsonl:2", "empty"]);
    align(&(good.clone() + "{\"prompt\": \"x\", \"responses\": [\"a\"], \"rewards\": [NaN]}\n"))
        .fails(1, &["rows.jsonl:2"]);
    align(&(good.clone() + "{\"prompt\": \"x\", \"responses\": [\"a\", \"b\"], \"rewards\": [1]}\n"))
        .fails(1, &["rows.jsonl:2"]);
    align(&(good.clone() + "{\"prompt\": \"x\", \"responses\": \"a\", \"rewards\": [1]}\n"))
        .fails(1, &["rows.jsonl:2"]);
    align(&(good + "{\"prompt\": \n")).fails(1, &["rows.jsonl:2"]);
    align("").fails(1, &["rows.jsonl"]);
    align("{\"question\": \"x\", \"reply\": \"y\"}\n").fails(1, &["question", "reply"]);
}

#[test]
fn a_row_that_gives_a_key_twice_is_named() {
    let rows = rewarded_rows(2).replacen("\"rewards\"", "\"rewards\":[9,9,9],\"rewards\"", 1);
    align(&rows).fails(1, &["rows.jsonl:1", "`rewards` is given twice"]);
}

#[test]
fn responses_that_contradict_each_other_are_counted_and_the_first_is_named() {
    let question = r#"[{"role":"user","content":"Is it?"}]"#;
    let pair = format!(
        "{{\"prompt\":{question},\"chosen\":[{{\"role\":\"assistant\",\"content\":\"Yes.\"}}],\
         \"rejected\":[{{\"role\":\"assistant\",\"content\":\"Yes.\"}}]}}\n"
    );
    let rewarded =
        format!("{{\"prompt\":{question},\"responses\":[\"No.\",\"Yes.\",\"Yes.\"],\"rewards\":[0,1,-1]}}\n");
    for (rows, method, said) in [
        (pair.clone(), "dpo", ": 1 of 2, the first in "),
        (rewarded_rows(1) + &rewarded, "dro", ": 1 of 6, the first in "),
    ] {
        let (_dir, data) = file("rows.jsonl", &rows);
        let method = format!("align.method={method}");
        let ran = setpoint(&["align", "--dry-run", "--model", &policy(), "--data", &data, "--set", &method]).ok();
        assert!(ran.stderr.contains(said) && ran.stderr.contains("keep one of each"), "{ran:#?}");
    }
    assert!(!align(&rewarded_rows(3)).ok().stderr.contains("keep one of each"));
    let reward = |rows: &str| {
        let (_dir, data) = file("rows.jsonl", rows);
        setpoint(&["reward", "--dry-run", "--model", &policy(), "--data", &data]).ok().stderr
    };
    let said = reward(&(pair.replace("Yes.\"}],", "No.\"}],") + &pair));
    assert!(said.contains("the same text: 1 of 2, the first in ") && said.contains("rows.jsonl:2"), "{said}");
    assert!(!reward(&pair.replace("Yes.\"}],", "No.\"}],")).contains("the same text"));
}

#[test]
fn dro_without_rewards_says_so() {
    let data = demo("responses.jsonl").display().to_string();
    setpoint(&["align", "--dry-run", "--model", &policy(), "--data", &data])
        .fails(1, &["without a reward", "setpoint annotate"]);
}

#[test]
fn prompts_that_do_not_share_t0_stop_before_any_weights_are_read() {
    // As user turns they share the template's beginning; plain text has none, and this tokenizer adds no BOS.
    let rows = "{\"prompt\": \"Monday is\", \"responses\": [\" a day.\"], \"rewards\": [1]}\n\
                {\"prompt\": \"What is a cat?\", \"responses\": [\" An animal.\"], \"rewards\": [1]}\n";
    align(rows).ok();
    let (_dir, data) = file("rows.jsonl", rows);
    let policy = policy();
    let mut arguments =
        vec!["align", "--dry-run", "--model", &policy, "--data", &data, "--set", "data.text_prompts=plain"];
    arguments.extend(["--set", "align.prompt_term=full"]);
    setpoint(&arguments).fails(1, &["rows.jsonl:2", "t0", "prompt_term", "data.text_prompts"]);
    arguments.extend(["--set", "align.prompt_term=off"]);
    setpoint(&arguments).ok();
}

#[test]
fn a_tokenizer_larger_than_the_model_is_refused() {
    let mut config: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(tiny_config()).unwrap()).unwrap();
    config["vocab_size"] = 64.into();
    let (_dir, config) = file("config.json", &config.to_string());
    setpoint(&[
        "sft",
        "--dry-run",
        "--set",
        &format!("model.from_scratch={config}"),
        "--set",
        &format!("model.tokenizer={}", demo("tokenizer").display()),
        "--data",
        &demo("pretrain/sft.jsonl").display().to_string(),
    ])
    .fails(1, &["64", "tokenizer"]);
}

/// A copy of the tiny model that may be damaged.
fn copied_model() -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(model()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            std::fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    let path = dir.path().display().to_string();
    (dir, path)
}

#[test]
fn damaged_checkpoints_name_the_file_and_what_is_wrong() {
    let (_rows, data) = file("rows.jsonl", &rewarded_rows(1));
    let logps = |path: &str| setpoint(&["logps", "--quiet", "--model", path, "--data", &data]);

    let (dir, path) = copied_model();
    let weights = dir.path().join("model.safetensors");
    let bytes = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &bytes[..bytes.len() / 2]).unwrap();
    logps(&path).fails(1, &["model.safetensors"]);

    let mut oversized = u64::MAX.to_le_bytes().to_vec();
    oversized.extend_from_slice(&bytes[8..]);
    std::fs::write(&weights, oversized).unwrap();
    logps(&path).fails(1, &["model.safetensors", "header"]);

    std::fs::remove_file(&weights).unwrap();
    std::fs::write(
        dir.path().join("model.safetensors.index.json"),
        r#"{"weight_map": {"model.norm.weight": "../outside.safetensors"}}"#,
    )
    .unwrap();
    logps(&path).fails(1, &["../outside.safetensors"]);
}

#[test]
fn an_unsupported_model_names_key_and_value() {
    let (dir, path) = copied_model();
    let config = dir.path().join("config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
    json["hidden_act"] = "gelu".into();
    std::fs::write(&config, json.to_string()).unwrap();
    setpoint(&["inspect", "model", &path]).fails(1, &["hidden_act", "gelu", "silu"]);
}

#[test]
fn a_template_that_loops_for_ever_is_stopped() {
    let (_template, template) =
        file("loop.jinja", "{% for a in range(100000) %}{% for b in range(100000) %}x{% endfor %}{% endfor %}");
    let (_rows, data) = file("rows.jsonl", &rewarded_rows(1));
    setpoint(&[
        "inspect",
        "data",
        "--model",
        &policy(),
        "--data",
        &data,
        "--set",
        &format!("model.template={template}"),
    ])
    .fails(1, &["template"]);
}

#[test]
#[cfg(unix)]
fn a_full_disk_while_saving_harms_nothing_that_was_written() {
    // A limit on the size of files stands for a full disk: the shell sets it, the command inherits it.
    let dir = tempfile::tempdir().unwrap();
    let (_rows, data) = file("rows.jsonl", &rewarded_rows(40));
    let out = dir.path().join("logps.jsonl");
    std::fs::write(&out, "what was there\n").unwrap();
    let script = format!(
        "trap '' XFSZ; ulimit -f 1; exec {} logps --quiet --model {} --data {data} --output {}",
        env!("CARGO_BIN_EXE_setpoint"),
        policy(),
        out.display()
    );
    let output = std::process::Command::new("bash").args(["-c", &script]).output().unwrap();
    super::fixture::Ran::of(&output).fails(1, &["logps.jsonl"]);
    assert_eq!(std::fs::read_to_string(&out).unwrap(), "what was there\n");
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, [Path::new("logps.jsonl").as_os_str()], "nothing half-written stays");
}

#[test]
fn a_metric_that_no_evaluation_measures_is_refused_before_the_first_step() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let with = |best: &str, steps: &str| {
        let mut arguments = sft_arguments(&run, 3);
        for setting in [
            format!("train.best={{ metric = {best}, restore = true }}"),
            format!("train.eval_steps={steps}"),
            format!("eval_data.path={}", demo("pretrain/sft.jsonl").display()),
            "eval_data.max_rows=4".to_owned(),
        ] {
            arguments.extend(["--set".to_owned(), setting]);
        }
        setpoint_owned(&arguments)
    };
    for best in ["\"eval_accuracy\", greater_is_better = false", "\"eval_accuracy\""] {
        with(best, "2").fails(2, &["train.best.metric", "does not measure `eval_accuracy`", "eval_loss"]);
    }
    with("\"eval_entropy\"", "2")
        .fails(2, &["train.best", "greater_is_better", "whether more of `eval_entropy` is better"]);
    assert!(!run.join("metrics.jsonl").exists(), "no step was done");
    with("\"eval_loss\"", "2").ok();
    assert!(run.join("model/model.safetensors").is_file());
}

#[test]
fn a_quantised_model_is_not_trained_in_full() {
    let (_dir, data) = file("rows.jsonl", &rewarded_rows(4));
    for kind in ["llama_nf4", "qwen2_int8"] {
        let quantised = super::fixture::root().join("tests/golden/nf4").join(kind).display().to_string();
        let tokenizer = format!("model.tokenizer={}", policy());
        for job in ["sft", "reward", "align"] {
            let ran = setpoint(&[job, "--dry-run", "--model", &quantised, "--data", &data, "--set", &tokenizer]);
            ran.fails(2, &["--model", "this checkpoint is quantised"]);
        }
    }
}
