//! Mistakes of the first hour: a model of the wrong kind, a name that is almost right, a file of another format.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::fixture::{Ran, demo, file, model, rewarded_rows, setpoint};

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// Trains a reward model for one step and returns its folder.
fn reward_model(dir: &Path) -> PathBuf {
    let (run, policy, data) = (text(&dir.join("reward")), text(model()), text(&demo("preferences.jsonl")));
    let arguments = ["reward", "--quiet", "--model", &policy, "--data", &data, "--run", &run];
    setpoint(&[&arguments[..], &["--set", "data.max_rows=8", "--set", "train.max_steps=1"]].concat()).ok();
    dir.join("reward/model")
}

fn errors(ran: &Ran) -> usize {
    ran.stderr.lines().filter(|line| line.starts_with("error:")).count()
}

#[test]
fn a_model_of_the_wrong_kind_is_refused_before_any_work() {
    let dir = tempfile::tempdir().unwrap();
    let (policy, reward) = (text(model()), text(&reward_model(dir.path())));
    let (_rows_dir, rows) = file("rows.jsonl", &rewarded_rows(4));
    let prompts = text(&demo("eval_prompts.jsonl"));
    let eval = |policy: &str, baseline: &str, judge: &str| {
        let (baseline, judge) = (format!("baseline.path={baseline}"), format!("reward.path={judge}"));
        let limits = ["--set", "data.max_rows=2", "--set", "generate.max_new_tokens=4"];
        let models = ["--set", &baseline, "--set", &judge];
        setpoint(&[&["eval", "--model", policy, "--data", &prompts][..], &models, &limits].concat())
    };
    eval(&policy, &policy, &reward).ok();
    let refused = |ran: Ran, said: &[&str]| {
        // No answer was sampled and no row was read.
        assert!(!ran.stderr.contains("log-probs") && !ran.stderr.contains("rows kept"), "{ran:#?}");
        assert_eq!(errors(&ran), 1, "{ran:#?}");
        ran.fails(2, said);
    };
    refused(eval(&policy, &policy, &policy), &["reward.path", "not a reward model", "setpoint reward"]);
    refused(eval(&policy, &reward, &reward), &["baseline.path", "not a causal language model"]);
    refused(eval(&reward, &policy, &reward), &["--model", "not a causal language model"]);
    let run = text(&dir.path().join("run"));
    for job in ["align", "sft"] {
        let ran = setpoint(&[job, "--model", &reward, "--data", &rows, "--run", &run]);
        refused(ran, &["--model", "not a causal language model"]);
    }
    refused(setpoint(&["generate", "--model", &reward, "--data", &prompts]), &["not a causal language model"]);
    let output = text(&dir.path().join("rewards.jsonl"));
    refused(
        setpoint(&["annotate", "--model", &policy, "--data", &rows, "--output", &output]),
        &["--model", "not a reward model"],
    );
    // A search would train every trial before it met its judge.
    let settings = format!(
        "model.path = '{policy}'\ndata.path = '{rows}'\n[eval]\ndata.path = '{prompts}'\nreward.path = '{policy}'\n\
         [sweep.settings]\n\"align.beta\" = [0.1, 0.5]\n"
    );
    let (_sweep_dir, settings) = file("sweep.toml", &settings);
    refused(setpoint(&["sweep", &settings, "--run", &run]), &["sweep.toml:5", "not a reward model"]);
    assert!(!Path::new(&run).exists());
    // A reward model may start from either kind.
    let data = text(&demo("preferences.jsonl"));
    setpoint(&["reward", "--dry-run", "--model", &reward, "--data", &data, "--set", "data.max_rows=8"]).ok();
}

#[test]
fn a_model_folder_that_is_none_is_one_error_with_its_remedy() {
    let run = model().parent().unwrap();
    for (path, said) in [
        ("no-such-folder", &["`no-such-folder` does not exist"][..]),
        (
            "some-owner/some-model",
            &["`some-owner/some-model` does not exist on this machine", "hub model", "HF_HUB_OFFLINE"],
        ),
        ("tiny/no-such-model", &["was not looked for on the hub, because `tiny` exists in the working directory"]),
        (&text(run), &["is the folder of a run", &text(model())]),
        (&text(&demo("tokenizer")), &["holds no config.json"]),
    ] {
        let ran = setpoint(&["generate", "--model", path, "--prompt", "Hello."]);
        assert_eq!(errors(&ran), 1, "{ran:#?}");
        ran.fails(2, said);
    }
}

#[test]
fn settings_that_are_given_as_flags_or_without_their_section_are_named() {
    for (arguments, said) in [
        (&["sft", "--learning-rate", "1e-5"][..], "--set train.learning_rate=VALUE"),
        (&["sft", "--max_steps=5"], "--set train.max_steps=VALUE"),
        (&["align", "--method", "dpo"], "--set align.method=VALUE"),
        (&["eval", "tasks", "--shots", "0"], "--set shots=VALUE"),
        (&["align", "--wandb", "x"], "setpoint inspect config align"),
        (&["sft", "--dry-run", "--set", "epochs=1"], "did you mean `train.epochs`?"),
        (&["sft", "--dry-run", "--set", "max_steps=1"], "did you mean `train.max_steps`?"),
        (&["align", "--dry-run", "--set", "train.beta=1"], "did you mean `align.beta`?"),
        (&["align", "--dry-run", "--set", "learning_rate=1"], "did you mean `train.learning_rate`?"),
    ] {
        setpoint(arguments).fails(2, &[said]);
    }
    let said = setpoint(&["align", "--method", "dpo"]).stderr;
    assert!(!said.contains("-- --method"), "{said}");
}

#[test]
fn a_file_of_settings_that_is_none_is_told_from_a_name() {
    for (arguments, said) in [
        (&["plan", "sft", "--model", "m"][..], "--job sft"),
        (&["plan", "align", "--rounds", "3", "--model", "m"], "--job align"),
        (&["eval", "taks"], "did you mean `tasks`?"),
        (&["sft", "nothing.toml"], "nothing.toml: no such file"),
    ] {
        setpoint(arguments).fails(2, &[said]);
    }
}

#[test]
fn rows_without_rewards_name_the_methods_that_need_none() {
    let policy = text(model());
    let align = |rows: &[serde_json::Value]| {
        let rows: String = rows.iter().map(|row| row.to_string() + "\n").collect();
        let (_dir, data) = file("rows.jsonl", &rows);
        setpoint(&["align", "--dry-run", "--model", &policy, "--data", &data])
    };
    let prompt = "What day is it?";
    align(&[json!({"prompt": prompt, "chosen": "Friday.", "rejected": "Blue."})])
        .fails(1, &["without a reward", "setpoint annotate", "align.method=dpo"]);
    align(&[
        json!({"prompt": prompt, "completion": "Friday.", "label": true}),
        json!({"prompt": prompt, "completion": "Blue.", "label": false}),
    ])
    .fails(1, &["without a reward", "align.method=kto"]);
    let plain = align(&[json!({"prompt": prompt, "responses": ["Friday.", "Blue."]})]);
    assert!(!plain.stderr.contains("align.method"), "{plain:#?}");
    plain.fails(1, &["without a reward"]);
}

#[test]
fn the_audit_speaks_of_labels_only_where_there_are_some() {
    let policy = text(model());
    let audit = |rows: &str| {
        let (_dir, data) = file("rows.jsonl", rows);
        setpoint(&["audit", "--quiet", "--model", &policy, "--data", &data]).ok().stdout
    };
    let without = audit(&rewarded_rows(4));
    assert!(without.contains("best          4 responses") && !without.contains("labelled"), "{without}");
    let rows: String = (0..3)
        .map(|i| {
            let row = json!({
                "prompt": format!("How much is {i} and two?"),
                "chosen": "The sum is four.",
                "rejected": "Saturday.",
                "score_chosen": if i == 0 { -1.0 } else { 1.0 },
                "score_rejected": 0.25,
            });
            row.to_string() + "\n"
        })
        .collect();
    let with = audit(&rows);
    assert!(with.contains("In 1 of 3 labelled pairs") && with.contains("chosen        3 responses"), "{with}");
}

#[test]
fn a_column_that_is_missing_is_named_with_its_line_and_the_columns_there_are() {
    let dir = tempfile::tempdir().unwrap();
    let output = text(&dir.path().join("rewards.jsonl"));
    let row = json!({"prompt": "What day is it?", "responses": ["Friday."], "score": [1.5]});
    let other = json!({"prompt": "What day is it?", "responses": ["Friday."], "quality": [1.5]});
    let (_rows_dir, data) = file("rows.jsonl", &format!("{row}\n{other}\n"));
    let annotate = |column: &str| {
        setpoint(&["annotate", "--data", &data, "--output", &output, "--set", &format!("column={column}")])
    };
    annotate("scores").fails(1, &["rows.jsonl:1: ", "`scores`", "no such column", "did you mean `score`?"]);
    annotate("score").fails(1, &["rows.jsonl:2: ", "`score`", "prompt", "quality", "responses"]);
}

#[test]
fn remedies_name_the_settings_that_help() {
    let policy = text(model());
    let sft = |row: serde_json::Value, model: &str| {
        let (_dir, data) = file("rows.jsonl", &format!("{row}\n"));
        setpoint(&["sft", "--dry-run", "--model", model, "--data", &data])
    };
    sft(json!({"question": "What day is it?", "answer": "Friday."}), &policy)
        .fails(1, &["question", "--set data.columns.prompt=question"]);
    // The command that the hint gives can be pasted.
    let row = json!({"id": 1, "query": "What day is it?", "response": "Friday."});
    let ran = sft(row.clone(), &policy);
    let hint = ran.stderr.split("rename columns: ").nth(1).unwrap_or_else(|| panic!("{ran:#?}")).trim().to_owned();
    let (_dir, data) = file("rows.jsonl", &format!("{row}\n"));
    let arguments = ["sft", "--dry-run", "--model", &policy, "--data", &data];
    let words: Vec<&str> = hint.split_whitespace().collect();
    setpoint(&[&arguments[..], &words[..]].concat()).ok();
    let (_dir, data) = file("rows.jsonl", "{\"prompt\": \"What day is it?\", \"answer\": \"Friday.\"}\n");
    let columns = "data.columns.completion=anser";
    setpoint(&["sft", "--dry-run", "--model", &policy, "--data", &data, "--set", columns])
        .fails(1, &["rows.jsonl:1", "`anser`", "there are: prompt, answer"]);
    // The same model without its chat template.
    let dir = tempfile::tempdir().unwrap();
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        std::fs::copy(model().join(name), dir.path().join(name)).unwrap();
    }
    let turns = json!([{"role": "user", "content": "What day is it?"}, {"role": "assistant", "content": "Friday."}]);
    sft(json!({"messages": turns}), &text(dir.path())).fails(1, &["no chat template", "--set model.template="]);
}

#[test]
fn a_report_of_a_search_names_its_trials() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("trials/000")).unwrap();
    let output = text(&dir.path().join("report.html"));
    setpoint(&["report", &text(dir.path()), "--output", &output]).fails(1, &["sweep or comparison", "trials/*"]);
}

#[test]
fn whole_texts_are_learned_as_they_are() {
    let policy = text(model());
    let (dir, data) =
        file("texts.jsonl", "{\"text\": \"The sum is four.\", \"url\": \"x\"}\n{\"text\": \"Saturday.\"}\n");
    let run = text(&dir.path().join("run"));
    let ran = setpoint(&["sft", "--model", &policy, "--data", &data, "--run", &run, "--set", "train.max_steps=1"]).ok();
    assert!(ran.stderr.contains("texts without a prompt are learned whole, without the chat template"), "{ran:#?}");
    let shown = setpoint(&["inspect", "data", "--plain", "--model", &policy, "--data", &data]).ok().stdout;
    // This tokenizer puts nothing before a text, so its first token is context.
    assert_eq!(shown.matches("   1 prompt token, ").count(), 2, "{shown}");
    assert!(!shown.contains("<|user|>") && shown.matches("<|end|>").count() == 2, "{shown}");
    let sft = |row: serde_json::Value, more: &[&str]| {
        let (_dir, data) = file("rows.jsonl", &format!("{row}\n"));
        setpoint(&[&["sft", "--dry-run", "--model", &policy, "--data", &data], more].concat())
    };
    sft(json!({"text": "<|user|>What day is it?<|end|><|assistant|>Friday.<|end|>"}), &[])
        .fails(1, &["rows.jsonl:1", "`<|end|>`", "given as `messages`"]);
    sft(json!({"content": "Saturday."}), &[]).fails(1, &["--set data.columns.text=content"]);
    sft(json!({"content": "Saturday."}), &["--set", "data.columns.text=content"]).ok();
}

#[test]
fn a_default_learning_rate_that_does_not_suit_the_model_is_named() {
    let policy = text(model());
    let (_dir, data) = file("rows.jsonl", &rewarded_rows(4));
    let (_pairs, pairs) =
        file("pairs.jsonl", "{\"prompt\": \"Day?\", \"chosen\": \"Friday.\", \"rejected\": \"Four.\"}\n");
    let said = |arguments: &[&str]| setpoint(&[arguments, &["--model", &policy]].concat()).ok().stderr;
    for (arguments, rate) in [
        (&["sft", "--dry-run", "--data", &pairs][..], "2e-5"),
        (&["sft", "--dry-run", "--data", &pairs, "--set", "adapter.rank=2"], "2e-4"),
        (&["reward", "--dry-run", "--data", &pairs], "1e-5"),
        (&["align", "--dry-run", "--data", &data], "5e-7"),
        (&["plan", "--job", "align", "--data", &data], "5e-7"),
    ] {
        let remark = format!("train.learning_rate is the default, {rate}: ");
        assert!(said(arguments).contains(&remark), "{arguments:?}");
        let chosen = said(&[arguments, &["--set", "train.learning_rate=1e-3"]].concat());
        assert!(!chosen.contains("is the default"), "{chosen}");
    }
}

#[test]
fn the_log_of_a_training_has_its_evaluations() {
    let dir = tempfile::tempdir().unwrap();
    let (policy, data) = (text(model()), text(&demo("pretrain/sft.jsonl")));
    let held_out = format!("eval_data.path={data}");
    let sft = |name: &str, more: &[&str]| {
        let run = text(&dir.path().join(name));
        let mut arguments = vec!["sft", "--model", &policy, "--data", &data, "--run", &run];
        for set in ["data.max_rows=8", &held_out, "eval_data.max_rows=4", "train.max_steps=2", "train.eval_steps=1"] {
            arguments.extend(["--set", set]);
        }
        let ran = setpoint(&[&arguments[..], more].concat()).ok();
        ran.stderr.lines().filter(|line| line.trim().starts_with("step ") && line.contains("eval_loss")).count()
    };
    assert_eq!(sft("loud", &[]), 2);
    assert_eq!(sft("quiet", &["--quiet"]), 0);
}
