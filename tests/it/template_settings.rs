//! The settings of chat templates: their variables, and the date that they print.

use std::path::Path;

use super::fixture::{demo, file, model, setpoint, setpoint_owned, sft_arguments};

const DATED: &str = "{{ strftime_now('%d %b %Y') }}{% for m in messages %}{{ m.role ~ ': ' ~ m.content ~ '<|end|>' }}{% endfor %}{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}";
const THINKS: &str = "{% for m in messages %}{{ m.role ~ ': ' ~ m.content ~ '<|end|>' }}{% endfor %}{% if add_generation_prompt %}{{ 'assistant: ' ~ ('' if enable_thinking is false else '<think>\n') }}{% endif %}";

/// The demo's tokenizer with another template.
fn tokenizer(folder: &Path, template: &str) {
    std::fs::create_dir_all(folder).unwrap();
    for entry in std::fs::read_dir(demo("tokenizer")).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
    }
    std::fs::write(folder.join("chat_template.jinja"), template).unwrap();
}

fn arguments(run: &Path, tokenizer: &Path, more: &[&str]) -> Vec<String> {
    let mut arguments = sft_arguments(run, 2);
    arguments.extend(["--set".into(), format!("model.tokenizer={}", tokenizer.display())]);
    arguments.extend(more.iter().map(|a| (*a).to_owned()));
    arguments
}

#[test]
fn a_run_keeps_the_date_that_its_template_prints() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, run) = (dir.path().join("tokenizer"), dir.path().join("run"));
    tokenizer(&folder, DATED);
    let ran = setpoint_owned(&arguments(&run, &folder, &["--set", "model.template_date=2024-02-29"])).ok();
    assert!(!ran.stderr.contains("prints the date"), "{ran:#?}");
    let config = std::fs::read_to_string(run.join("config.toml")).unwrap();
    assert!(config.contains("template_date = \"2024-02-29\""), "{config}");
    // On another day the run is the same run.
    let ran = setpoint_owned(&arguments(&run, &folder, &["--resume"])).ok();
    assert!(!ran.stderr.contains("prints the date"), "{ran:#?}");
    let config = std::fs::read_to_string(run.join("config.toml")).unwrap();
    assert!(config.contains("template_date = \"2024-02-29\""), "{config}");
    // The model remembers it, for annotation and alignment on other days.
    let notes = std::fs::read_to_string(run.join("model/setpoint.json")).unwrap();
    assert!(notes.contains("2024-02-29"), "{notes}");
    let data = demo("pretrain/sft.jsonl").display().to_string();
    let model = run.join("model").display().to_string();
    let shown = setpoint(&["inspect", "data", "--plain", "--model", &model, "--data", &data]).ok();
    // Without the marks of tokens and parts.
    let text = shown.stdout.replace("[t0]", "").replace("[prompt]", "").replace('|', "");
    assert!(text.contains("29 Feb 2024") && !shown.stderr.contains("prints the date"), "{shown:#?}");
}

#[test]
fn without_a_setting_it_is_todays_and_a_line_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, run) = (dir.path().join("tokenizer"), dir.path().join("run"));
    tokenizer(&folder, DATED);
    let ran = setpoint_owned(&arguments(&run, &folder, &[])).ok();
    assert!(ran.stderr.contains("prints the date") && ran.stderr.contains("model.template_date"), "{ran:#?}");
    let config = std::fs::read_to_string(run.join("config.toml")).unwrap();
    assert!(config.contains("template_date = \"20"), "{config}");
    setpoint_owned(&arguments(&run, &folder, &["--set", "model.template_date=tomorrow", "--dry-run"]))
        .fails(2, &["model.template_date", "2026-11-29"]);
}

#[test]
fn variables_of_the_template_are_settings() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("tokenizer");
    tokenizer(&folder, THINKS);
    let run = dir.path().join("run");
    let sft = |more: &[&str]| setpoint_owned(&arguments(&run, &folder, more));
    sft(&["--dry-run"]).fails(1, &["model.template_kwargs", "encode.boundary"]);
    sft(&["--dry-run", "--set", "encode.boundary=rendered"]).ok();
    sft(&["--dry-run", "--set", "model.template_kwargs.messages=1"]).fails(2, &["model.template_kwargs.messages"]);
    sft(&["--set", "model.template_kwargs.enable_thinking=false"]).ok();
    let config = std::fs::read_to_string(run.join("config.toml")).unwrap();
    assert!(config.contains("enable_thinking = false"), "{config}");
    assert!(!run.join("model/setpoint.json").exists());
}

/// A copy of the tiny model with a second template, for conversations with tools, in the layout of transformers 5.
fn model_with_tools(dir: &Path) -> String {
    for entry in std::fs::read_dir(model()).unwrap().map(Result::unwrap) {
        std::fs::copy(entry.path(), dir.join(entry.file_name())).unwrap();
    }
    let template = |start: &str| {
        format!(
            "{{{{ bos_token }}}}{start}{{% for m in messages %}}<|{{{{ m.role }}}}|>{{{{ m.content }}}}<|end|>{{% endfor %}}\
             {{% if add_generation_prompt %}}<|assistant|>{{% endif %}}"
        )
    };
    std::fs::write(dir.join("chat_template.jinja"), template("")).unwrap();
    std::fs::create_dir(dir.join("additional_chat_templates")).unwrap();
    std::fs::write(
        dir.join("additional_chat_templates/tool_use.jinja"),
        template("{% if tools %}{{ tools | tojson }}{% endif %}"),
    )
    .unwrap();
    dir.display().to_string()
}

#[test]
fn a_model_with_a_template_for_tools_is_trained_to_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let own = model_with_tools(dir.path());
    let tools = serde_json::json!([{"type": "function", "function": {"name": "add"}}]);
    let row = |tools: &serde_json::Value| {
        let turn = |role: &str, content: &str| serde_json::json!({"role": role, "content": content});
        serde_json::json!({"messages": [turn("user", "Two?"), turn("assistant", "Four.")], "tools": tools}).to_string()
            + "\n"
    };
    let (_rows, data) = file("rows.jsonl", &(row(&tools) + &row(&serde_json::Value::Null)));
    let shown = |model: &str| {
        let ran = setpoint(&["inspect", "data", "--model", model, "--data", &data, "--job", "sft"]).ok();
        ran.stdout.lines().filter(|line| line.contains("prompt tokens, ")).map(str::to_owned).collect::<Vec<_>>()
    };
    let before = shown(&own);
    assert!(before.len() == 2 && before[0] != before[1], "the tools are in the first prompt: {before:?}");

    let runs = tempfile::tempdir().unwrap();
    let run = runs.path().join("run");
    let folder = run.display().to_string();
    let limits = ["--set", "train.max_steps=2", "--set", "samples.prompts=0"];
    setpoint(&[&["sft", "--model", &own, "--data", &data, "--run", &folder][..], &limits].concat()).ok();
    assert_eq!(shown(&run.join("model").display().to_string()), before, "the trained model has both templates");
    assert!(setpoint(&["sft", "--run", &folder, "--resume"]).ok().stderr.contains("is finished"));
    let template = run.join("model/additional_chat_templates/tool_use.jinja");
    let whole = std::fs::read(&template).unwrap();
    std::fs::write(&template, "").unwrap();
    assert!(setpoint(&["sft", "--run", &folder, "--resume"]).ok().stderr.contains("is not as the run left it"));
    assert_eq!(std::fs::read(&template).unwrap(), whole);

    // transformers calls the template of the file `default`.
    setpoint(&["inspect", "data", "--model", &own, "--data", &data, "--set", "model.template=default"]).ok();
}
