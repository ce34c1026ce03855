//! What messages tell a newcomer to do can be done, and helps.

use std::path::Path;

use serde_json::{Value, json};

use super::fixture::{demo, file, model, rewarded_rows, setpoint, sft_arguments};
use setpoint::jobs::JOBS;

/// Lines of JSON.
fn rows(rows: &[Value]) -> String {
    rows.iter().map(|row| format!("{row}\n")).collect()
}

/// A tokenizer without a chat template, which names the token that ends a text.
fn bare_tokenizer() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tokenizer_config.json"), json!({"eos_token": "<|end|>"}).to_string()).unwrap();
    std::fs::copy(demo("tokenizer").join("tokenizer.json"), dir.path().join("tokenizer.json")).unwrap();
    dir
}

#[test]
fn empty_answers_are_left_out_and_counted() {
    const SAMPLES: usize = 100;
    let (dir, prompts) = file("prompts.jsonl", &rows(&vec![json!({"prompt": "What day is it?"}); 12]));
    let path = |name: &str| dir.path().join(name).display().to_string();
    let model = model().display().to_string();
    let generate = |output: &str, more: &[&str]| {
        let samples = format!("generate.samples={SAMPLES}");
        // Every token is equally likely, so some answers end at once.
        let settings = ["generate.temperature=1000", "generate.max_new_tokens=1", &samples].map(|s| ["--set", s]);
        let mut arguments = vec!["generate", "--model", &model, "--data", &prompts, "--output", output];
        arguments.extend(settings.as_flattened().iter().chain(more));
        setpoint(&arguments).ok()
    };
    let output = path("responses.jsonl");
    let ran = generate(&output, &[]);
    let line = ran.stderr.lines().find(|line| line.contains("answers are empty and left out")).unwrap();
    let empty: usize = line.split_whitespace().find_map(|word| word.parse().ok()).unwrap();
    assert!(empty > 0 && line.contains(&format!("{empty} of {} answers", 12 * SAMPLES)), "{line}");
    let text = std::fs::read_to_string(&output).unwrap();
    let parsed = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let responses: Vec<Value> = parsed.flat_map(|row| row["responses"].as_array().unwrap().clone()).collect();
    assert_eq!(responses.len() + empty, 12 * SAMPLES);
    // The next command takes the file as it is.
    let rule = ["--set", "rule.kind=length", "--set", "rule.unit=chars", "--set", "rule.target=6"];
    let rewards = path("rewards.jsonl");
    setpoint(&[&["annotate", "--data", &output, "--output", &rewards][..], &rule].concat()).ok();
    // A command that goes on counts what was left out before it was interrupted.
    generate(&path("again.jsonl"), &[]);
    assert_eq!(std::fs::read_to_string(path("again.jsonl")).unwrap(), text);
}

#[test]
fn an_empty_response_names_the_setting_of_its_section() {
    let good = json!({"prompt": "What day is it?", "completion": "Friday."});
    let bad = json!({"prompt": "What day is it?", "completion": " "});
    let (dir, data) = file("good.jsonl", &rows(std::slice::from_ref(&good)));
    let (_bad_dir, empty) = file("bad.jsonl", &rows(&[good, bad]));
    let model = model().display().to_string();
    let held_out = format!("eval_data.path={empty}");
    let sft = |data: &str, run: &str, more: &[&str]| {
        let run = dir.path().join(run).display().to_string();
        let arguments = ["sft", "--model", &model, "--data", data, "--run", &run, "--set", "train.max_steps=1"];
        setpoint(&[&arguments[..], more].concat())
    };
    sft(&empty, "one", &[]).fails(1, &["bad.jsonl:2", "(`data.on_bad_row = \"drop\"`)"]);
    sft(&empty, "two", &["--set", "data.on_bad_row=drop"]).ok();
    let set = ["--set", held_out.as_str()];
    sft(&data, "three", &set).fails(1, &["bad.jsonl:2", "(`eval_data.on_bad_row = \"drop\"`)"]);
    sft(&data, "four", &[&set[..], &["--set", "eval_data.on_bad_row=drop"]].concat()).ok();
}

#[test]
fn a_suggested_template_serves() {
    let tokenizer = bare_tokenizer();
    let turns = json!([{"role": "user", "content": "What day is it?"}, {"role": "assistant", "content": "Friday."}]);
    let (_dir, data) = file("chats.jsonl", &rows(&[json!({"messages": turns})]));
    let sft = |template: &[&str]| {
        let mut arguments = sft_arguments(Path::new("nowhere"), 1);
        let settings = [format!("model.tokenizer={}", tokenizer.path().display()), format!("data.path={data}")];
        arguments.extend(settings.into_iter().flat_map(|set| ["--set".to_owned(), set]));
        arguments.extend(["--dry-run".to_owned()]);
        arguments.extend(template.iter().map(|word| (*word).to_owned()));
        super::fixture::setpoint_owned(&arguments)
    };
    let said = sft(&[]).stderr;
    let hint = said.split("as in --set ").nth(1).and_then(|rest| rest.split(';').next()).unwrap();
    assert!(said.contains("of the built-in templates, "), "{said}");
    sft(&["--set", hint]).ok();
    sft(&["--set", "model.template=chatml"])
        .fails(1, &["no stop token", "(`model.template`)", &hint["model.template=".len()..], "tokenizer_config.json"]);
}

#[test]
fn a_model_of_plain_text_is_continued_instead_of_talked_to() {
    let tokenizer = bare_tokenizer();
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let (_rows, data) =
        file("texts.jsonl", &rows(&vec![json!({"prompt": "What day is it?", "completion": " Friday."}); 8]));
    let mut arguments = sft_arguments(&run, 1);
    let settings = [format!("model.tokenizer={}", tokenizer.path().display()), format!("data.path={data}")];
    arguments.extend(settings.into_iter().flat_map(|set| ["--set".to_owned(), set]));
    arguments.retain(|word| word != "--quiet");
    let ran = super::fixture::setpoint_owned(&arguments).ok();
    let model = run.join("model").display().to_string();
    assert!(ran.stderr.contains(&format!("next: setpoint generate --model {model} --prompt ")), "{}", ran.stderr);
    setpoint(&["generate", "--model", &model, "--prompt", "What day", "--set", "generate.max_new_tokens=4"]).ok();
    let chat = setpoint(&["chat", "--model", &model]);
    assert!(!chat.stderr.contains("<memory>"), "{chat:#?}");
    chat.fails(1, &["no chat template", "setpoint generate --model"]);
    // A model with a template is talked to.
    let mut with_template = sft_arguments(&dir.path().join("chat"), 1);
    with_template.retain(|word| word != "--quiet");
    let ran = super::fixture::setpoint_owned(&with_template).ok();
    assert!(ran.stderr.contains("next: setpoint chat --model"), "{}", ran.stderr);
}

#[test]
fn sections_that_do_not_exist_or_belong_to_another_command_are_told() {
    for (command, set, said) in [
        ("sft", "modle.path=12", "`modle` is not a section; did you mean `model`?"),
        ("align", "training.epochs=2", "`training` is not a section; did you mean `train`?"),
        ("sft", "datasets.path=x", "`data"),
        ("sft", "align.beta=0.1", "`align.beta` is a setting of `setpoint align`, not of `setpoint sft`"),
        ("align", "generate.temprature=1", "`generate` is a section of `setpoint generate`"),
        ("logps", "train.learning_rate=1", "`train.learning_rate` is a setting of `setpoint sft`"),
        ("compare", "tracker.kind=csv", "`setpoint align`, not of `setpoint compare`"),
        ("sft", "shots=3", "`shots` is a setting of `setpoint eval tasks`, not of `setpoint sft`"),
        ("generate", "qqq.zzz=1", "`qqq` is not a section; there are: model, data, generate"),
        ("sft", "schedule.kind=linear", "did you mean `train.schedule`?"),
        ("sft", "train.learning_rat=1", "did you mean `train.learning_rate`?"),
        ("align", "align.betta=1", "did you mean `align.beta`?"),
        ("sft", "encode.max_lenght=8", "did you mean `encode.max_length`?"),
        ("align", "align.metod=dpo", "did you mean `align.method`?"),
        ("align", "align.method=sigmoid", "trl's `sigmoid` is `dpo`"),
        ("sft", "train.batch_size=0", "`train.batch_size` must be at least 1"),
        ("sft", "train.epochs", "as in --set train.epochs=VALUE"),
    ] {
        setpoint(&[command, "--dry-run", "--set", set]).fails(2, &[said]);
    }
    for (set, said) in [("limit=8", "here it is `max_rows`"), ("num_fewshot=5", "here it is `shots`")] {
        setpoint(&["eval", "tasks", "--dry-run", "--set", set]).fails(2, &[said]);
    }
    let (_dir, config) = file("sft.toml", "[modle]\npath = 1\n");
    setpoint(&["sft", &config, "--dry-run"]).fails(2, &["sft.toml:1", "did you mean `model`?"]);
}

#[test]
fn the_example_of_each_help_is_of_its_job() {
    for job in JOBS {
        let words: Vec<&str> = job.command().split(' ').chain(["--help"]).collect();
        let help = setpoint(&words).ok().stdout.split_whitespace().collect::<Vec<_>>().join(" ");
        let example = help.split("as in --set ").nth(1).and_then(|rest| rest.split(';').next()).unwrap();
        let key = example.split('=').next().unwrap();
        assert!(job.has_setting(key), "setpoint {}: {example}", job.command());
    }
}

#[test]
fn one_mistake_is_one_error() {
    let errors = |arguments: &[&str]| {
        let ran = setpoint(arguments);
        let about = ran.stderr.lines().filter(|line| line.starts_with("error")).map(str::to_owned);
        about.filter(|line| !line.contains("data.path") && !line.contains("output")).collect::<Vec<_>>()
    };
    let model = model().display().to_string();
    let best = errors(&["sft", "--dry-run", "--model", &model, "--set", "train.best.metric=eval_los"]);
    assert_eq!(best.len(), 1, "{best:#?}");
    assert!(
        best[0].contains("`train.best.greater_is_better`") && best[0].contains("did you mean `eval_loss`?"),
        "{best:?}"
    );
    let rule = errors(&["annotate", "--set", "rule.kind=lenght"]);
    assert_eq!(rule.len(), 1, "{rule:#?}");
    assert!(rule[0].contains("did you mean `length`?"), "{rule:?}");
    let none = errors(&["eval", "--model", &model, "--set", &format!("baseline.path={model}")]);
    assert!(none[0].contains("`[rule]`") && none[0].contains("`[command]`"), "{none:?}");
}

#[test]
fn unknown_flags_and_commands_lead_to_those_that_exist() {
    for (arguments, said, not) in [
        (&["align", "--beta", "0.1"][..], "--set align.beta=VALUE", "similar argument"),
        (&["sft", "--config", "x.toml"], "`setpoint sft CONFIG`", "-- --config"),
        (&["inspect", "model", "--model", "DIR"], "`setpoint inspect model MODEL`", "-- --model"),
        (&["sft", "-m", "DIR"], "`--model`", "-- -m"),
        (&["algn"], "`setpoint align`", "'man'"),
        (&["resume", "runs/x"], "--resume", "serve"),
        (&["quit"], "unrecognized subcommand", "tip"),
        (&["inspect", "dta"], "`setpoint inspect data`", "similar"),
    ] {
        let ran = setpoint(arguments);
        assert!(!ran.stderr.contains(not), "{not:?} in {ran:#?}");
        ran.fails(2, &[said]);
    }
}

#[test]
fn files_of_other_tools_are_told_how_to_become_settings() {
    let (_dir, yaml) = file("trl.yaml", "model_name_or_path: m\n");
    let toml = yaml.replace(".yaml", ".toml");
    setpoint(&["sft", &yaml, "--dry-run"]).fails(2, &[&format!("setpoint convert {yaml} --output {toml}")]);
    let (_dir, toml) = file("es.toml", "a = 1\n");
    setpoint(&["convert", &toml]).fails(2, &["es.toml: expected `key: value` lines"]);
    let text = "model_name_or_path: m\ndataset_name: d.jsonl\nlerning_rate: 1e-5\nbeta: 0.1\neval_strategy: steps\neval_steps: 50\n\
                bf16: true\n";
    let (_dir, yaml) = file("dpo.yaml", text);
    let ran = setpoint(&["convert", &yaml]).ok();
    for said in ["did you mean `learning_rate`?", "nothing is evaluated", "eval_data.path", "bf16: it is slower"] {
        assert!(ran.stderr.contains(said), "expected {said:?} in {}", ran.stderr);
    }
}

#[test]
fn evaluations_without_rows_are_warned_of() {
    let run = Path::new("nowhere");
    let mut arguments = sft_arguments(run, 1);
    arguments.extend(["--dry-run", "--set", "train.eval_steps=1"].map(str::to_owned));
    let warned = "train.eval_steps has no effect";
    let ran = super::fixture::setpoint_owned(&arguments).ok();
    assert!(ran.stderr.contains(warned) && ran.stderr.contains("eval_data.path"), "{ran:#?}");
    let held_out = format!("eval_data.path={}", demo("pretrain/sft.jsonl").display());
    arguments.extend(["--set".to_owned(), held_out, "--set".into(), "eval_data.max_rows=4".into()]);
    let ran = super::fixture::setpoint_owned(&arguments).ok();
    assert!(!ran.stderr.contains(warned), "{ran:#?}");
    let (_dir, data) = file("rows.jsonl", &rewarded_rows(4));
    let model = model().display().to_string();
    let ran =
        setpoint(&["align", "--dry-run", "--model", &model, "--data", &data, "--set", "train.eval_on_start=true"]);
    assert!(ran.ok().stderr.contains("train.eval_on_start has no effect"));
}

#[test]
fn prompts_alone_are_named_as_such() {
    let (_dir, prompts) = file("prompts.jsonl", &rows(&[json!({"prompt": "What day is it?"})]));
    let model = model().display().to_string();
    for (command, more) in [("sft", &[][..]), ("sft", &["--set", "data.responses=all"]), ("align", &[])] {
        let arguments = [&[command, "--dry-run", "--model", &model, "--data", &prompts], more].concat();
        setpoint(&arguments).fails(1, &["prompts.jsonl:1 is a prompt without a response", "setpoint generate"]);
    }
}

#[test]
fn a_policy_that_is_its_baseline_is_warned_of() {
    let model = model().display().to_string();
    let (_dir, prompts) = file("prompts.jsonl", &rows(&vec![json!({"prompt": "What day is it?"}); 4]));
    let baseline = format!("baseline.path={model}");
    let settings = [&baseline, "rule.kind=length", "rule.unit=words", "rule.max=60", "generate.max_new_tokens=4"];
    let settings = settings.map(|set| ["--set", set]);
    let arguments = [&["eval", "--model", &model, "--data", &prompts][..], settings.as_flattened()].concat();
    let ran = setpoint(&arguments).ok();
    assert!(ran.stderr.contains("the policy hardly differs from the baseline (KL 0.000)"), "{ran:#?}");
}

#[test]
fn printed_settings_mark_examples_and_leave_out_what_is_off() {
    let printed = |job: &str| setpoint(&["inspect", "config", job]).ok().stdout;
    let generate = printed("generate");
    assert!(generate.lines().any(|line| line.starts_with("# top_k = ") && line.ends_with("there is no default")));
    // A default is none.
    assert!(generate.lines().any(|line| line.starts_with("split = \"train\"")), "{generate}");
    for job in ["align", "annotate"] {
        let text = printed(job);
        assert!(!text.contains(", null") && !text.contains("see `docs/REWARDS.md`."), "{text}");
    }
    assert!(printed("align").contains("# The method, which decides"), "{}", printed("align"));
    let annotate = printed("annotate");
    assert!(annotate.contains("\n# [generative]\n") && annotate.contains("\n# temperature = 0.0\n"), "{annotate}");
    let on = setpoint(&["inspect", "config", "annotate", "--set", "generative.judge.model=m"]).ok().stdout;
    assert!(on.contains("\n[generative]\n"), "{on}");
}
