//! The settings of chat templates: their variables, and the date that they print.

use std::path::Path;

use super::fixture::{demo, setpoint, setpoint_owned, sft_arguments};

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
