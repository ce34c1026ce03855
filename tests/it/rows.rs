//! From rows to what is trained: nothing is lost on the way, text prompts become turns, the right turns are learned, and a job looks only at
//! the columns that it uses.

use std::path::Path;

use serde_json::{Value, json};

use super::fixture::{Ran, file, model, setpoint};

/// The demo's template with another way to print a turn.
fn template(turn: &str) -> (tempfile::TempDir, String) {
    let source = format!(
        "{{{{- bos_token }}}}{{% for m in messages %}}{{% set c = m.content %}}<|{{{{ m.role }}}}|>{turn}<|end|>{{% endfor %}}\
         {{% if add_generation_prompt %}}<|assistant|>{{% endif %}}"
    );
    file("template.jinja", &source)
}

fn lines(rows: &[Value]) -> String {
    rows.iter().map(|row| row.to_string() + "\n").collect()
}

/// A job on the tiny model with settings, without training.
fn job(name: &str, data: &str, settings: &[&str]) -> Ran {
    let policy = model().display().to_string();
    let mut arguments: Vec<&str> = name.split(' ').collect();
    arguments.extend(["--model", &policy, "--data", data]);
    if !name.starts_with("inspect") {
        arguments.push("--dry-run");
    }
    for setting in settings {
        arguments.extend(["--set", setting]);
    }
    setpoint(&arguments)
}

fn user(text: &str) -> Value {
    json!({"role": "user", "content": text})
}

fn assistant(text: &str) -> Value {
    json!({"role": "assistant", "content": text})
}

#[test]
fn thoughts_that_the_template_strips_stop_every_training() {
    let (_template, path) = template("{{ c.split('</think>')[-1] }}");
    let template = format!("model.template={path}");
    let good = json!({"prompt": [user("Two?")], "responses": ["Two.", "No."], "rewards": [1, -1]});
    let bad = json!({"prompt": [user("Two?")], "responses": ["<think>one and one</think>Two.", "<think>hm</think>Two."], "rewards": [1, -1]});
    let (_dir, data) = file("rows.jsonl", &lines(&[good, bad]));
    for method in ["align.method=dpo", "align.method=dro"] {
        job("align", &data, &[&template, method])
            .fails(1, &["rows.jsonl:2", "thoughts", "one and one", "model.template", "on_bad_row"]);
    }
    job("reward", &data, &[&template]).fails(1, &["rows.jsonl:2", "thoughts"]);
    for setting in ["encode.on_bad_row=drop", "data.on_bad_row=drop"] {
        let ran = job("align", &data, &[&template, setting]).ok();
        assert!(ran.stderr.contains("1 of 2 rows kept, 1 dropped (invalid)"), "{ran:#?}");
        assert!(ran.stderr.contains("rows.jsonl:2: chat template"), "the first is named: {ran:#?}");
    }
    // A template that keeps them.
    job("align", &data, &[]).ok();
}

#[test]
fn sft_refuses_ignored_tool_calls_and_empty_turns() {
    let call = json!({"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "clock", "arguments": {"zone": "UTC"}}}]});
    let calling = json!({"messages": [user("Time?"), call, user("So?"), assistant("Noon.")]});
    let (_dir, data) = file("rows.jsonl", &lines(&[calling]));
    job("sft", &data, &[]).fails(1, &["rows.jsonl:1", "message 1", "tool call", "clock"]);
    let (_template, path) = template("{{ c }}{% for t in m.tool_calls or [] %}{{ t.function | tojson }}{% endfor %}");
    job("sft", &data, &[&format!("model.template={path}")]).ok();

    let row =
        |first: &str, last: &str| json!({"messages": [user("A?"), assistant(first), user("B?"), assistant(last)]});
    for (first, last) in [("", "b"), (" \n", "b"), ("a", "")] {
        let (_dir, data) = file("rows.jsonl", &lines(&[row("a", "b"), row(first, last)]));
        job("sft", &data, &[]).fails(1, &["rows.jsonl:2", "learn"]);
        let ran = job("sft", &data, &["data.on_bad_row=drop"]).ok();
        assert!(ran.stderr.contains("rows.jsonl:2"), "{ran:#?}");
    }
}

#[test]
fn text_prompts_become_user_turns_where_there_is_a_template() {
    let rows = [
        json!({"prompt": "Name a primary colour.", "responses": ["Red.", "Purple, I think?"], "rewards": [1.2, -0.7]}),
        json!({"prompt": "How much is one and two?", "responses": ["Three.", "No."], "rewards": [1, 0]}),
    ];
    let (dir, data) = file("rows.jsonl", &lines(&rows));
    let said =
        "prompts of plain text become user turns of the chat template (data.text_prompts = \"plain\" keeps them plain)";
    for name in ["audit", "align", "reward", "logps", "sft", "inspect data"] {
        let ran = job(name, &data, &[]).ok();
        assert_eq!(ran.stderr.matches(said).count(), 1, "{name}: {ran:#?}");
        assert!(!job(name, &data, &["data.text_prompts=user"]).ok().stderr.contains(said), "{name}");
    }
    let shown = job("inspect data", &data, &["job=align"]).ok().stdout;
    assert!(shown.contains("<|user|>"), "{shown}");
    let shown = job("inspect data", &data, &["data.text_prompts=plain"]).ok().stdout;
    assert!(!shown.contains("<|user|>"), "{shown}");
    job("align", &data, &["data.text_prompts=plain", "align.prompt_term=full"]).fails(1, &["t0", "data.text_prompts"]);

    // The prompt that is answered is the one that is scored, and the file keeps its text.
    let (policy, out) = (model().display().to_string(), dir.path().join("samples.jsonl").display().to_string());
    let generate = [
        "generate",
        "--model",
        &policy,
        "--data",
        &data,
        "--output",
        &out,
        "--set",
        "generate.max_new_tokens=8",
        "--set",
        "generate.seed=3",
    ];
    let ran = setpoint(&generate).ok();
    assert!(ran.stderr.contains(said), "{ran:#?}");
    let sample: Value = serde_json::from_str(std::fs::read_to_string(&out).unwrap().lines().next().unwrap()).unwrap();
    assert_eq!(sample["prompt"], "Name a primary colour.");
    assert!(sample.get("rewards").is_none(), "those of other responses: {sample}");
    let turns =
        [json!({"prompt": [user("Name a primary colour.")]}), json!({"prompt": [user("How much is one and two?")]})];
    let (_dir, data) = file("turns.jsonl", &lines(&turns));
    let again = dir.path().join("again.jsonl").display().to_string();
    let mut generate = generate;
    (generate[4], generate[6]) = (&data, &again);
    setpoint(&generate).ok();
    let response = |path: &str| {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().map(|l| serde_json::from_str::<Value>(l).unwrap()["responses"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(response(&out), response(&again));
}

#[test]
fn sft_selects_its_responses() {
    let pair = json!({"prompt": [user("A?")], "chosen": "The good one.", "rejected": ""});
    let (_dir, pairs) = file("pairs.jsonl", &lines(&[pair]));
    let shown = job("inspect data", &pairs, &["job=sft"]).ok().stdout;
    assert_eq!(shown.matches("response tokens").count(), 2, "one row and the total: {shown}");
    job("sft", &pairs, &[]).ok();
    job("sft", &pairs, &["data.responses=all"]).fails(1, &["pairs.jsonl:1", "rejected"]);

    let scored = |rewards: [f64; 3]| json!({"prompt": [user("A?")], "responses": ["One.", "Two.", "Three."], "rewards": rewards});
    let (_dir, data) = file("rows.jsonl", &lines(&[scored([0.5, 2.0, 2.0]), scored([-1.0, -2.0, -3.0])]));
    let kept = |setting: &str| {
        let policy = model().display().to_string();
        let ran = setpoint(&["inspect", "data", "--model", &policy, "--data", &data, "--plain", "--set", setting]).ok();
        let rewards = ran.stdout.lines().filter_map(|line| line.split_once("response tokens, reward "));
        (rewards.map(|(_, reward)| reward.parse().unwrap()).collect::<Vec<f64>>(), ran.stderr)
    };
    assert_eq!(kept("data.responses=auto").0, [2.0, -1.0]);
    assert_eq!(kept("data.responses=best").0, [2.0, -1.0]);
    assert_eq!(kept("data.responses=all").0, [0.5, 2.0, 2.0, -1.0, -2.0, -3.0]);
    let (rewards, said) = kept("data.responses={ above = 0.0 }");
    assert_eq!(rewards, [0.5, 2.0, 2.0]);
    assert!(said.contains("1 of 2 rows have no response with a reward above 0"), "{said}");
    job("sft", &data, &["data.responses=chosen"]).fails(1, &["rows.jsonl:1", "data.responses"]);
    let (_dir, bare) = file("rows.jsonl", &lines(&[json!({"prompt": [user("A?")], "responses": ["a", "b"]})]));
    job("sft", &bare, &[]).fails(1, &["rows.jsonl:1", "data.responses"]);
    job("sft", &bare, &["data.responses=best"]).fails(1, &["rows.jsonl:1", "rewards[0]"]);
    job("align", &data, &["data.responses=best"]).fails(2, &["data.responses", "setpoint sft"]);
    let label = |good: bool| json!({"prompt": [user("A?")], "completion": [assistant("So.")], "label": good});
    let (_dir, labelled) = file("kto.jsonl", &lines(&[label(true), label(false)]));
    let ran = job("sft", &labelled, &[]).ok();
    assert!(ran.stderr.contains("1 of 2 rows") && ran.stderr.contains("kto.jsonl:2"), "{ran:#?}");
    let ran = job("sft", &labelled, &["data.responses=chosen", "data.on_bad_row=drop"]).ok();
    assert!(ran.stderr.contains("1 of 1 row kept") && !ran.stderr.contains("labelled as bad"), "{ran:#?}");
    job("sft", &data, &["data.responses=worst"]).fails(2, &["data.responses", "worst"]);
}

#[test]
fn excluded_turns_are_not_learned_and_shown_so() {
    let messages = |field: &str, value: Value| {
        let mut first = assistant("The first.");
        first[field] = value;
        json!({"messages": [user("A?"), first, user("B?"), assistant("The second.")]})
    };
    let shown = |row: Value, job: &str| {
        let (_dir, data) = file("rows.jsonl", &lines(&[row]));
        let policy = model().display().to_string();
        setpoint(&["inspect", "data", "--model", &policy, "--data", &data, "--plain", "--job", job]).ok().stdout
    };
    let plain = json!({"messages": [user("A?"), assistant("The first."), user("B?"), assistant("The second.")]});
    assert_eq!(shown(plain.clone(), "auto").matches("[earlier]").count(), 1, "as sft sees it");
    assert_eq!(shown(plain, "align").matches("[earlier]").count(), 0);
    for (field, value, learned) in [
        ("weight", json!(0), false),
        ("weight", json!(1), true),
        ("train", json!(false), false),
        ("training", json!(true), true),
        ("loss", json!(false), false),
        ("masked", json!(true), false),
        ("weight", Value::Null, true),
    ] {
        let text = shown(messages(field, value.clone()), "sft");
        assert_eq!(text.contains("[earlier]"), learned, "{field}: {value}: {text}");
        assert!(text.contains("[response]"), "{text}");
    }
    let mut last = assistant("The second.");
    last["weight"] = 0.into();
    let row = json!({"messages": [user("A?"), assistant("The first."), user("B?"), last.clone()]});
    let text = shown(row, "sft");
    assert!(text.contains("[earlier]") && !text.contains("[response]"), "{text}");

    let (_dir, data) = file("rows.jsonl", &lines(&[json!({"messages": [user("A?"), last]})]));
    job("sft", &data, &[]).fails(1, &["rows.jsonl:1", "no turn", "weight"]);
    let (_dir, data) = file("rows.jsonl", &lines(&[messages("weight", json!(0.5))]));
    job("sft", &data, &[]).fails(1, &["rows.jsonl:1", "weight", "0 or 1", "0.5"]);
}

#[test]
fn a_call_of_a_function_needs_no_text() {
    let call = |a: i64| json!({"role": "assistant", "content": null, "function_call": {"name": "add", "arguments": format!("{{\"a\": {a}}}")}});
    let (_dir, data) = file("rows.jsonl", &lines(&[json!({"messages": [user("Two?"), call(2)]})]));
    job("sft", &data, &[]).fails(1, &["rows.jsonl:1", "tool call"]);
    let (_template, path) = template(
        "{{ c }}{% if m.function_call %}{{ m.function_call.name }}({{ m.function_call.arguments }}){% endif %}",
    );
    let template = format!("model.template={path}");
    job("sft", &data, &[&template]).ok();
    let (_dir, data) =
        file("rows.jsonl", &lines(&[json!({"prompt": [user("Two?")], "chosen": [call(2)], "rejected": [call(3)]})]));
    job("align", &data, &[&template, "align.method=dpo"]).ok();
}

#[test]
fn kto_needs_both_kinds() {
    let rows = |rewards: [f64; 3]| {
        let row = |(i, reward): (usize, f64)| json!({"prompt": [user(&format!("{i}?"))], "responses": ["So."], "rewards": [reward]});
        lines(&rewards.into_iter().enumerate().map(row).collect::<Vec<_>>())
    };
    let (_dir, data) = file("rows.jsonl", &rows([1.0, -5.0, -3.0]));
    job("align", &data, &["align.method=kto"]).fails(1, &["rows.jsonl", "desirable", "align.desirable", "-5 to 1"]);
    job("align", &data, &["align.method=kto", "align.desirable={ above = 0.0 }"]).ok();
    job("align", &data, &["align.method=kto", "align.desirable={ above = 7.0 }"])
        .fails(1, &["undesirable", "align.desirable"]);
    let labelled = |label: bool, i: usize| json!({"prompt": [user(&format!("{i}?"))], "completion": [assistant("So.")], "label": label});
    let (_dir, data) = file("rows.jsonl", &lines(&[labelled(false, 1), labelled(false, 2)]));
    job("align", &data, &["align.method=kto"]).fails(1, &["all 2 responses count as undesirable", "align.desirable"]);

    // One prompt that does compare does not excuse a bad response that is alone. Of two with the same reward none is the better one: they are
    // left out, as from pairs.
    let several = |responses: &[&str], rewards: &[f64]| json!({"prompt": [user(&format!("{}?", rewards[0]))], "responses": responses, "rewards": rewards});
    let pair = |reward: f64| several(&["So.", "No."], &[reward, 0.0]);
    let above = ["align.method=kto", "align.desirable={ above = 0.5 }"];
    let (_dir, data) = file("rows.jsonl", &lines(&[pair(1.0), several(&["So."], &[-5.0]), pair(1.0)]));
    job("align", &data, &["align.method=kto"])
        .fails(1, &["rows.jsonl:2", "counts as desirable", "align.desirable", "to 1)"]);
    job("align", &data, &above).ok();
    for tie in [-3.0, 9.0] {
        let (_dir, data) = file("rows.jsonl", &lines(&[pair(1.0), several(&["So.", "No."], &[tie, tie]), pair(2.0)]));
        let ran = job("align", &data, &["align.method=kto"]).ok();
        assert!(ran.stderr.contains("1 of 3 rows have neither label nor reward, or one reward for all"), "{ran:#?}");
        assert!(!job("align", &data, &above).ok().stderr.contains("left out"), "a bound needs no comparison");
    }
    let (_dir, data) = file("rows.jsonl", &lines(&[several(&["So."], &[2.0]), several(&["So.", "No."], &[1.0, 0.0])]));
    job("align", &data, &["align.method=kto"]).ok();
    let (_dir, data) = file("rows.jsonl", &lines(&[labelled(false, 1), labelled(true, 2)]));
    job("align", &data, &["align.method=kto"]).ok();
}

#[test]
fn a_job_checks_only_the_columns_that_it_uses() {
    let chat = json!({"messages": [user("A?"), assistant("So.")], "label": "math", "score": null, "margin": "wide"});
    let (_dir, data) = file("chat.jsonl", &lines(&[chat]));
    job("sft", &data, &[]).ok();
    job("logps", &data, &[]).ok();
    job("generate", &data, &[]).ok();
    job("align", &data, &["align.method=kto"]).fails(1, &["chat.jsonl:1", "`label`"]);

    let pair = json!({"prompt": [user("A?")], "chosen": "So.", "rejected": "No.", "score_chosen": null, "score_rejected": "bad", "margin": "wide"});
    let (_dir, data) = file("pairs.jsonl", &lines(&[pair]));
    job("align", &data, &["align.method=dpo"]).ok();
    job("align", &data, &["align.method=rpo"]).fails(1, &["pairs.jsonl:1", "score_chosen"]);
    job("align", &data, &["align.method=dpo", "data.rewards=required"]).fails(1, &["pairs.jsonl:1", "score_chosen"]);
    job("reward", &data, &[]).fails(1, &["pairs.jsonl:1", "margin"]);

    let scored = |rewards: Value| json!({"prompt": [user("A?")], "responses": ["a", "b"], "rewards": rewards});
    let (_dir, data) = file("rows.jsonl", &lines(&[scored(json!([1, null]))]));
    for (name, settings) in
        [("align", vec![]), ("align", vec!["align.method=dpo"]), ("sft", vec![]), ("sft", vec!["data.responses=best"])]
    {
        job(name, &data, &settings).fails(1, &["rows.jsonl:1", "rewards[1]"]);
    }
    job("sft", &data, &["data.responses=all"]).ok();
    job("generate", &data, &[]).ok();
}

#[test]
fn tools_of_a_row_are_in_the_prompt_that_is_answered() {
    let (_template, path) = template(
        "{% if not tools %}{{ raise_exception('no tools') }}{% endif %}{% if mood != 'keen' %}{{ raise_exception('no mood') }}{% endif %}{{ c }}",
    );
    let template = format!("model.template={path}");
    let with = json!({"prompt": [user("A?")], "tools": [{"name": "f"}], "chat_template_kwargs": {"mood": "keen"}});
    let without = json!({"prompt": [user("A?")], "tools": [{"name": "f"}]});
    let (_dir, data) = file("rows.jsonl", &lines(std::slice::from_ref(&with)));
    job("generate", &data, &[&template]).ok();
    let policy = model().display().to_string();
    let (baseline, base_template) = (format!("baseline.path={policy}"), format!("baseline.template={path}"));
    let settings = [template.as_str(), &baseline, &base_template, "rule.kind=length", "rule.unit=words", "rule.max=60"];
    job("eval", &data, &settings).ok();
    let (_dir, data) = file("rows.jsonl", &lines(&[with, without]));
    job("generate", &data, &[&template]).fails(1, &["rows.jsonl:2", "no mood"]);
    job("eval", &data, &settings).fails(1, &["rows.jsonl:2", "no mood"]);
}

/// A copy of the tiny model that reads so many tokens.
fn short_model(dir: &Path, positions: usize) -> String {
    for entry in std::fs::read_dir(model()).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, dir.join(path.file_name().unwrap())).unwrap();
    }
    let config = dir.join("config.json");
    let mut json: Value = serde_json::from_str(&std::fs::read_to_string(&config).unwrap()).unwrap();
    json["max_position_embeddings"] = positions.into();
    std::fs::write(config, json.to_string()).unwrap();
    dir.display().to_string()
}

#[test]
fn rows_and_prompts_fit_into_the_model() {
    let dir = tempfile::tempdir().unwrap();
    let policy = short_model(dir.path(), 24);
    let chat = |text: &str| json!({"messages": [user(text), assistant("The sum is four.")]});
    let long = "How much is two and two? ".repeat(8);
    let (_rows, data) = file("rows.jsonl", &lines(&[chat("Two?"), chat(&long)]));
    let sft = ["sft", "--dry-run", "--model", &policy, "--data", &data];
    let ran = setpoint(&sft).ok();
    assert!(ran.stderr.contains("1 dropped (longer than the model's max_position_embeddings)"), "{ran:#?}");
    setpoint(&[&sft[..], &["--set", "encode.long_rows=error"]].concat())
        .fails(1, &["rows.jsonl:2", "24 positions", "max_position_embeddings"]);
    // A short row trains, and its samples are written.
    let run = dir.path().join("run").display().to_string();
    let mut train = sft.to_vec();
    train[1] = "--quiet";
    train.extend(["--run", &run, "--set", "train.max_steps=1"]);
    setpoint(&train).ok();
    assert!(dir.path().join("run/model/model.safetensors").is_file());

    let prompts = [json!({"prompt": [user("Two?")]}), json!({"prompt": [user(&long)]})];
    let (_rows, data) = file("prompts.jsonl", &lines(&prompts));
    let generate = ["generate", "--model", &policy, "--data", &data, "--dry-run"];
    setpoint(&generate).fails(1, &["prompts.jsonl:2", "at most 24", "max_position_embeddings"]);
    let (_rows, data) = file("prompts.jsonl", &lines(&prompts[..1]));
    let ran = setpoint(&[
        "generate",
        "--model",
        &policy,
        "--data",
        &data,
        "--dry-run",
        "--set",
        "generate.max_new_tokens=24",
    ])
    .ok();
    assert!(ran.stderr.contains("1 of 1 prompts leave room for fewer than the 24 tokens"), "{ran:#?}");
}

#[test]
fn an_excluded_last_turn_is_not_learned_where_only_last_turns_are() {
    let mut last = assistant("The second.");
    last["weight"] = 0.into();
    let row = json!({"messages": [user("A?"), assistant("The first."), user("B?"), last]});
    let (_dir, data) = file("rows.jsonl", &lines(&[row]));
    job("sft", &data, &[]).ok();
    job("sft", &data, &["encode.assistant_spans=false"]).fails(1, &["rows.jsonl:1", "no turn", "weight"]);
}

#[test]
fn a_prompt_on_the_command_line_needs_no_template() {
    let ask = |policy: &str, setting: &str| {
        setpoint(&[
            "generate",
            "--model",
            policy,
            "--prompt",
            "Monday is",
            "--set",
            "generate.max_new_tokens=2",
            "--set",
            setting,
        ])
    };
    let dir = tempfile::tempdir().unwrap();
    let bare = short_model(dir.path(), 64);
    let _ = std::fs::remove_file(dir.path().join("chat_template.jinja"));
    let path = dir.path().join("tokenizer_config.json");
    let mut settings: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    settings.as_object_mut().unwrap().remove("chat_template");
    std::fs::write(&path, settings.to_string()).unwrap();
    ask(&bare, "data.text_prompts=auto").ok();
    ask(&bare, "data.text_prompts=user").fails(1, &["chat template"]);
    ask(&model().display().to_string(), "data.text_prompts=auto").ok();
}
