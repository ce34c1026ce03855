//! Both output streams: closed pipes, full disks, control characters from strangers, colours.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use super::fixture::{Ran, command, demo, file, model, rewarded_rows, setpoint};

/// Commands, as they are typed, that print no result to standard output or do not end by themselves. Their help is tried all the same.
const SILENT: [&str; 6] = ["demo", "lend", "report", "man", "help", "eval help"];

/// Names under `Commands:` in a help text.
fn listed(help: &str) -> Vec<String> {
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    lines
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next().map(str::to_owned))
        .filter(|n| !n.is_empty())
        .collect()
}

/// Every command that the program lists, subcommands after their command.
fn commands() -> Vec<String> {
    let mut all = Vec::new();
    for name in listed(&setpoint(&["--help"]).ok().stdout) {
        let below = if name == "help" { Vec::new() } else { listed(&setpoint(&[&name, "--help"]).ok().stdout) };
        all.extend(below.iter().filter(|n| *n != "help").map(|below| format!("{name} {below}")));
        all.push(name);
    }
    assert!(all.len() > 18, "{all:?}");
    all
}

/// Runs a command with a standard output that takes nothing: a pipe that is closed, or a full disk.
fn unheard(arguments: &[String], closed: bool) -> Ran {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut command = command(&arguments);
    let out = if closed {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        Stdio::from(writer)
    } else {
        Stdio::from(std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap())
    };
    let mut child = command.stdin(Stdio::piped()).stdout(out).stderr(Stdio::piped()).spawn().unwrap();
    // For the conversation; the others do not read it.
    let _ = child.stdin.take().unwrap().write_all(b"Which day comes after Friday?\nAnd then?\n");
    Ran::of(&child.wait_with_output().unwrap())
}

fn assert_quiet(arguments: &[String]) {
    let ran = unheard(arguments, true);
    assert_eq!(ran.code, 0, "{arguments:?}: {ran:#?}");
    let lower = ran.stderr.to_lowercase();
    assert!(!["error", "panicked", "pipe"].iter().any(|word| lower.contains(word)), "{arguments:?}: {ran:#?}");
}

fn assert_one_sentence(arguments: &[String]) {
    let ran = unheard(arguments, false);
    assert_eq!(ran.code, 1, "{arguments:?}: {ran:#?}");
    let errors: Vec<&str> = ran.stderr.lines().filter(|line| line.starts_with("error:")).collect();
    assert_eq!(errors.len(), 1, "{arguments:?}: {ran:#?}");
    assert!(errors[0].contains("cannot write to standard output"), "{arguments:?}: {ran:#?}");
    assert!(!ran.stderr.contains("panicked"), "{arguments:?}: {ran:#?}");
}

/// Arguments of each command that make it print a result, in `dir`.
fn printing(dir: &Path) -> Vec<(&'static str, Vec<String>)> {
    let write = |name: &str, text: &str| {
        let path = dir.join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let policy = model().display().to_string();
    let rows = write("rows.jsonl", &rewarded_rows(4));
    let search = format!(
        "model.path = '{policy}'\ndata.path = '{rows}'\n[train]\nmax_steps = 2\nbatch_size = 2\n\
         [eval]\ndata.path = '{}'\ndata.max_rows = 8\nrule = {{ kind = \"length\", unit = \"chars\", target = 6 }}\n",
        demo("eval_prompts.jsonl").display()
    );
    let sweep = write("sweep.toml", &format!("{search}[sweep.settings]\n\"align.beta\" = [0.1, 0.5]\n"));
    let compare = write("compare.toml", &format!("{search}[compare]\nmethods = [\"dro\", \"dpo\"]\n"));
    let rules = write("rules.toml", "rule = { kind = \"length\", unit = \"chars\", target = 6 }\n");
    let annotations =
        write("annotations.csv", "len_1,len_2,preference\n3,4,1.2\n4,3,1.8\n5,6,1.4\n2,3,1.1\n7,1,1.9\n3,3,1.5\n");
    let question = r#"{"question_id":81,"category":"writing","turns":["One?","Two?"]}"#;
    let questions = write("question.jsonl", &format!("{question}\n"));
    let answer = r#"{"question_id":81,"answer_id":"a","model_id":"m","choices":[{"index":0,"turns":["4","5"]}]}"#;
    let answers = write("answers.jsonl", &format!("{answer}\n"));
    let arc = r#"{"id":"1","question":"One?","choices":{"text":["a","b"],"label":["A","B"]},"answerKey":"A"}"#;
    write("ARC-Easy_test.jsonl", &format!("{arc}\n"));
    let yaml = write("dpo.yaml", "model_name_or_path: m\nlearning_rate: 1.0e-6\nbeta: 0.1\nloss_type: sigmoid\n");
    let gguf = dir.join("tiny.gguf").display().to_string();
    let out = dir.join("out").display().to_string();
    let run = dir.join("run").display().to_string();
    let pair = demo("preferences.jsonl").display().to_string();
    let result = dir.join("result").join("result.json").display().to_string();
    setpoint(&["eval", "alpaca", "--annotations", &annotations, "--output", &dir.join("result").display().to_string()])
        .ok();
    let owned = |arguments: &[&str]| arguments.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>();
    let base = ["--model", &policy, "--data", &rows];
    let with = |first: &[&str], last: &[&str]| owned(&[first, &base, last].concat());
    vec![
        ("sft", with(&["sft"], &["--run", &run, "--dry-run"])),
        ("reward", owned(&["reward", "--model", &policy, "--data", &pair, "--dry-run"])),
        ("annotate", owned(&["annotate", &rules, "--data", &rows, "--output", &out, "--dry-run"])),
        (
            "annotate",
            owned(&[
                "annotate",
                &rules,
                "--data",
                &rows,
                "--output",
                &out,
                "--reference",
                &policy,
                "--reference-samples",
                "8",
                "--dry-run",
            ]),
        ),
        ("select", owned(&["select", "--data", &rows, "--output", &out, "--dry-run"])),
        ("logps", with(&["logps"], &[])),
        ("audit", with(&["audit"], &["--set", "align.log_z0=1"])),
        ("align", with(&["align"], &["--dry-run"])),
        ("plan", with(&["plan", "--job", "sft"], &["--json"])),
        ("sweep", owned(&["sweep", &sweep, "--dry-run"])),
        ("compare", owned(&["compare", &compare, "--dry-run"])),
        ("methods", owned(&["methods"])),
        ("generate", with(&["generate"], &["--dry-run"])),
        ("serve", owned(&["serve", "--model", &policy, "--port", "0", "--dry-run"])),
        ("chat", owned(&["chat", "--model", &policy, "--set", "generate.max_new_tokens=3"])),
        (
            "eval",
            with(
                &["eval"],
                &[
                    "--dry-run",
                    "--set",
                    &format!("baseline.path={policy}"),
                    "--set",
                    "rule.kind=length",
                    "--set",
                    "rule.unit=chars",
                    "--set",
                    "rule.target=6",
                ],
            ),
        ),
        ("eval alpaca", owned(&["eval", "alpaca", "--annotations", &annotations])),
        (
            "eval mt-bench",
            owned(&[
                "eval",
                "mt-bench",
                "--questions",
                &questions,
                "--answers",
                &answers,
                "--output",
                &out,
                "--dry-run",
            ]),
        ),
        (
            "eval tasks",
            owned(&[
                "eval",
                "tasks",
                "--model",
                &policy,
                "--data",
                &dir.display().to_string(),
                "--tasks",
                "arc_easy",
                "--dry-run",
            ]),
        ),
        ("eval arena-hard", owned(&["eval", "arena-hard", "--help"])),
        ("eval ifeval", owned(&["eval", "ifeval", "--help"])),
        ("eval reward-bench", owned(&["eval", "reward-bench", "--help"])),
        ("eval compare", owned(&["eval", "compare", &result, &result])),
        ("export", owned(&["export", "--help"])),
        ("merge", owned(&["merge", "--help"])),
        ("push", owned(&["push", "--model", &policy, "--to", "someone/model", "--dry-run"])),
        (
            "export gguf",
            owned(&["export", "gguf", "--model", &policy, "--type", "f32", "--output", &gguf, "--overwrite"]),
        ),
        ("duplicates", owned(&["duplicates", "--data", &rows])),
        ("convert", owned(&["convert", &yaml, "--from", "trl", "--trainer", "dpo"])),
        ("completions", owned(&["completions", "bash"])),
        ("inspect schema", owned(&["inspect", "schema", "align"])),
        ("inspect data", with(&["inspect", "data"], &[])),
        ("inspect model", owned(&["inspect", "model", &policy, "--tensors"])),
        ("inspect config", owned(&["inspect", "config", "align"])),
        ("inspect", owned(&["inspect", "--help"])),
    ]
}

#[cfg(target_os = "linux")]
#[test]
fn every_command_ends_quietly_on_a_closed_pipe_and_with_a_sentence_on_a_full_disk() {
    let dir = tempfile::tempdir().unwrap();
    let printing = printing(dir.path());
    let covered: BTreeSet<&str> = printing.iter().map(|(name, _)| *name).chain(SILENT).collect();
    for name in commands() {
        assert!(covered.contains(name.as_str()), "no arguments make `setpoint {name}` print in this test");
        let mut help: Vec<String> = name.split(' ').map(str::to_owned).collect();
        help.push("--help".into());
        if name != "help" {
            assert_quiet(&help);
            assert_one_sentence(&help);
        }
    }
    assert_quiet(&["--version".into()]);
    assert_one_sentence(&["--version".into()]);
    for (_, arguments) in &printing {
        assert_quiet(arguments);
        assert_one_sentence(arguments);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn work_for_a_file_is_done_although_nothing_can_be_printed() {
    let dir = tempfile::tempdir().unwrap();
    let (_rows, data) = file("rows.jsonl", &rewarded_rows(3));
    for closed in [true, false] {
        let out = dir.path().join(format!("{closed}.json")).display().to_string();
        let policy = model().display().to_string();
        let arguments = ["audit", "--model", &policy, "--data", &data, "--set", "align.log_z0=1", "--output", &out];
        let ran = unheard(&arguments.map(str::to_owned), closed);
        assert_eq!(ran.code, i32::from(!closed), "{ran:#?}");
        assert!(Path::new(&out).is_file());
    }
    // Standard error that takes nothing is no reason to fail.
    let full = || Stdio::from(std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    let status = command(&["inspect", "model", "no-such-model"]).stderr(full()).status().unwrap();
    assert_eq!(status.code(), Some(1));
    let status = command(&["align", "--nonsense"]).stderr(full()).status().unwrap();
    assert_eq!(status.code(), Some(2));
}

/// Returns whether a terminal would act on a text.
fn acts(text: &str) -> bool {
    text.chars().any(|c| {
        c.is_control() && !matches!(c, '\n' | '\t') || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    })
}

#[test]
fn control_characters_of_strangers_are_displayed() {
    const EVIL: &str = "\u{1b}]0;owned\u{7}\u{9b}31m\u{202e}";
    let policy = model().display().to_string();
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let template = write("evil.jinja", "{{ raise_exception('no\\nerror: fake \u{1b}[31m' ~ messages[0].content) }}");
    let mut column = serde_json::json!({ "prompt": "p", "chosen": "a", "rejected": "b" });
    column[format!("score{EVIL}")] = "high".into();
    let row = |content: &str| {
        serde_json::json!({ "prompt": [{ "role": "user", "content": content }], "responses": ["a"], "rewards": [1] })
            .to_string()
    };
    let messages = serde_json::json!({ "messages": [{ "role": EVIL, "content": "x" }] }).to_string();
    let named = write(&format!("rows{}.jsonl", "\u{1b}[2J\n"), "{\n");
    let good = write("good.jsonl", &(row("one") + "\n"));
    for (what, arguments) in [
        (
            "a template",
            vec![
                "align",
                "--dry-run",
                "--model",
                &policy,
                "--data",
                &good,
                "--set",
                &format!("model.template={template}"),
            ],
        ),
        ("a role", vec!["sft", "--dry-run", "--model", &policy, "--data", &write("role.jsonl", &messages)]),
        (
            "a row",
            vec![
                "align",
                "--dry-run",
                "--model",
                &policy,
                "--data",
                &write("row.jsonl", &format!("{{\"{EVIL}\": 1}}")),
            ],
        ),
        ("a file's name", vec!["align", "--dry-run", "--model", &policy, "--data", &named]),
        (
            "a column",
            vec![
                "annotate",
                "--set",
                "column=x",
                "--output",
                &dir.path().join("o").display().to_string(),
                "--data",
                &write("column.jsonl", &column.to_string()),
            ],
        ),
        ("an argument", vec!["align", "--dry-run", &format!("--x{EVIL}")]),
        ("a value of two lines", vec!["plan", "--job", "x\nerror: fake"]),
        ("a setting", vec!["align", "--dry-run", "--set", &format!("{EVIL}=1")]),
        ("a method", vec!["align", "--dry-run", "--set", &format!("align.method={EVIL}")]),
        ("a model", vec!["inspect", "model", &format!("no{EVIL}")]),
        ("a hub id", vec!["align", "--dry-run", "--model", &policy, "--data", &format!("{EVIL}/{EVIL}")]),
    ] {
        let ran = setpoint(&arguments);
        assert!(ran.code == 1 || ran.code == 2, "{what}: {ran:#?}");
        assert!(!acts(&ran.stderr) && !acts(&ran.stdout), "{what}: {ran:#?}");
        assert!(!ran.stderr.lines().any(|line| line.starts_with("error: fake")), "{what}: {ran:#?}");
    }
    // In tokens, which are no message but a result.
    let shown = write("shown.jsonl", &(row(EVIL) + "\n"));
    let ran = setpoint(&["inspect", "data", "--model", &policy, "--data", &shown]).ok();
    assert!(!acts(&ran.stdout), "{ran:#?}");
}

#[test]
fn colours_are_for_terminals_unless_something_forbids_them() {
    let policy = model().display().to_string();
    let (_rows, data) = file("rows.jsonl", &rewarded_rows(2));
    // The caller's own settings must not decide: continuous integration sets `CI`, which counts as a reason for colours.
    const DECIDING: [&str; 5] = ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "TERM", "CI"];
    let inspect = |settings: &[(&str, &str)]| {
        let mut command = command(&["inspect", "data", "--model", &policy, "--data", &data]);
        DECIDING.iter().for_each(|name| _ = command.env_remove(name));
        Ran::of(&command.envs(settings.iter().copied()).output().unwrap()).ok().stdout
    };
    for settings in [vec![], vec![("TERM", "xterm-256color")], vec![("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")]] {
        let text = inspect(&settings);
        assert!(!text.contains('\u{1b}'), "{settings:?}: {text}");
        assert!(text.contains("[response]"), "marks instead of colours: {text}");
    }
    assert!(inspect(&[("CLICOLOR_FORCE", "1")]).contains("\u{1b}["));
    // On a terminal, of which `script` makes one.
    let line = format!("{} inspect data --model {policy} --data {data}", env!("CARGO_BIN_EXE_setpoint"));
    let on_a_terminal = |settings: &[(&str, &str)]| {
        let mut script = Command::new("script");
        DECIDING.iter().for_each(|name| _ = script.env_remove(name));
        script.args(["-qec", &line, "/dev/null"]).env("TERM", "xterm").stdin(Stdio::null());
        let output = script.envs(settings.iter().copied()).output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let Some(coloured) = on_a_terminal(&[]).filter(|text| text.contains("prompt tokens")) else {
        println!("skipped: no `script` to make a terminal");
        return;
    };
    assert!(coloured.contains("\u{1b}["), "{coloured}");
    for settings in [vec![("NO_COLOR", "1")], vec![("TERM", "dumb")], vec![("TERM", "dumb"), ("CI", "true")]] {
        let text = on_a_terminal(&settings).unwrap();
        assert!(!text.contains('\u{1b}'), "{settings:?}: {text}");
    }
    assert!(on_a_terminal(&[("TERM", "dumb"), ("CLICOLOR_FORCE", "1")]).unwrap().contains("\u{1b}["));
    let text = on_a_terminal(&[("NO_COLOR", "")]).unwrap();
    assert!(text.contains("\u{1b}["), "an empty NO_COLOR forbids nothing: {text}");
}

#[test]
fn long_lines_are_broken_at_words_on_a_terminal_and_nowhere_else() {
    let policy = model().display().to_string();
    let (_rows, data) = file("rows.jsonl", &rewarded_rows(2));
    let nowhere = ["align", "--model", &policy, "--data", &data, "--dry-run", "--set", "train.learning_rate=-1"];
    let piped = setpoint(&nowhere);
    let sentence = piped.stderr.lines().find(|line| line.len() > 50).unwrap_or_else(|| panic!("{piped:#?}"));
    let line = format!("stty cols 40 rows 24; {} {}", env!("CARGO_BIN_EXE_setpoint"), nowhere.join(" "));
    let mut script = Command::new("script");
    script.args(["-qec", &line, "/dev/null"]).env("TERM", "dumb").stdin(Stdio::null());
    let Some(output) = script.output().ok() else {
        println!("skipped: no `script` to make a terminal");
        return;
    };
    let shown = String::from_utf8_lossy(&output.stdout);
    if !shown.contains("learning_rate") {
        println!("skipped: no `script` to make a terminal");
        return;
    }
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert!(shown.lines().all(|line| line.chars().count() <= 40), "{shown}");
    let (shown, sentence) = (words(&shown), words(sentence));
    assert!(shown.windows(sentence.len()).any(|part| part == sentence), "{shown:?}\n{sentence:?}");
}
