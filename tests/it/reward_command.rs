//! Rewards by an external command, in `annotate` and in `eval`.
#![cfg(unix)]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::fixture::{command, demo, file, model, rewarded_rows, root, setpoint, setpoint_owned};
use crate::rounds;

/// Scores short responses low, and notes what it reads in `log`.
const SCRIPT: &str = r#"while read -r line; do
  printf '%s\n' "$line" >> "$1"
  case "$line" in *'"response":"Saturday."'*) echo '{"score": -1}';; *) echo '{"score": 2.5}';; esac
done
"#;

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_command_annotates_and_goes_on_where_it_crashed() {
    let (dir, data) = file("rows.jsonl", &rewarded_rows(4));
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (script, log, output, cured) = (path("score.sh"), path("log"), path("rewards.jsonl"), path("cured"));
    // It crashes at the third row until it is cured.
    let crash = format!("[ -e {cured} ] || case \"$line\" in *\"is 2 and\"*) echo oh >&2; exit 7;; esac");
    std::fs::write(&script, SCRIPT.replace("do\n", &format!("do\n  {crash}\n"))).unwrap();
    let run = format!("command.run=[\"sh\", \"{script}\", \"{log}\"]");
    let arguments = ["annotate", "--data", &data, "--output", &output, "--set", &run, "--set", "command.batch=3"];
    let with = |more: &[&str]| setpoint(&[&arguments[..], more].concat());

    let dry = with(&["--dry-run"]).ok();
    assert!(dry.stdout.contains("12 responses to score by command `sh "), "{dry:#?}");
    assert!(!Path::new(&log).exists(), "a dry run starts nothing");

    with(&[]).fails(1, &["rows.jsonl:3, response 0: command `sh ", "it ended (exit status: 7) after 0 of 3", "oh"]);
    assert_eq!(lines(Path::new(&log)).len(), 6);
    std::fs::write(&cured, "").unwrap();
    with(&[]).fails(1, &["--continue"]);
    // More time is no other source; another batch may be.
    with(&["--continue", "--set", "command.batch=4"]).fails(1, &["`command.batch` was 3 and is 4"]);
    with(&["--continue", "--set", "command.timeout_seconds=90"]).ok();
    let asked = lines(Path::new(&log));
    assert_eq!(asked.len(), 12, "no response is scored twice");
    assert_eq!((&asked[11]["row"], &asked[11]["response_index"]), (&Value::from(3), &Value::from(2)));
    let rows = lines(Path::new(&output));
    assert_eq!(rows.len(), 4);
    for row in &rows {
        assert_eq!(row["rewards"], serde_json::json!([2.5, 2.5, -1.0]), "{row}");
    }
    // An edited script is another source.
    std::fs::write(&script, SCRIPT).unwrap();
    with(&["--continue"]).fails(1, &["the command's script changed"]);
}

#[test]
fn a_command_that_fails_in_a_round_is_told_of_with_the_round_and_the_line_of_the_prompt() {
    let (dir, data) = file("prompts.jsonl", &rounds::prompts(6));
    let (run, script) = (dir.path().join("run"), dir.path().join("score.sh"));
    let answer = "case \"$line\" in *\"is 4 and\"*) echo '{\"error\": \"no idea\"}';; *) echo '{\"score\": 1}';; esac";
    std::fs::write(&script, format!("while read -r line; do\n  {answer}\ndone\n")).unwrap();
    for (section, more, place) in [("reward", &[][..], "round 0: "), ("watch", rounds::SHORT, "round 0, [watch]: ")] {
        let asked = format!("{section}.command.run=[\"sh\", \"{}\"]", script.display());
        let ran = setpoint_owned(&rounds::arguments(&data, &run, 1, &[&[&asked, "align.method=dpo"], more]));
        ran.fails(1, &[&format!("{place}{data}:5, response 0: command `sh "), "it reports `\"no idea\"`"]);
        std::fs::remove_dir_all(&run).unwrap();
    }
}

#[test]
fn a_command_with_two_lines_for_a_response_trains_nothing() {
    let (dir, data) = file("prompts.jsonl", &rounds::prompts(6));
    let (run, script) = (dir.path().join("run"), dir.path().join("score.sh"));
    std::fs::write(&script, "while read -r line; do\n  echo '{\"score\": 1}'; echo '{\"score\": 2}'\ndone\n").unwrap();
    let asked = format!("reward.command.run=[\"sh\", \"{}\"]", script.display());
    // One round: no later batch would notice the line.
    let ran = setpoint_owned(&rounds::arguments(&data, &run, 1, &[&[&asked, "align.method=dpo"]]));
    ran.fails(1, &["round 0: ", "it printed a line more than it read: `{\"score\": "]);
    assert!(!run.join("rollouts/round-0000.jsonl").exists(), "nothing was kept");
}

#[test]
fn wrong_settings_of_a_command_are_usage_errors() {
    let (dir, data) = file("rows.jsonl", &rewarded_rows(1));
    let output = dir.path().join("rewards.jsonl").display().to_string();
    for (settings, said) in [
        (&["command.run=[]"][..], "command.run=[]: names no program"),
        (&["command.run=[\"no-such-program\"]"], "`no-such-program` is in no folder of PATH"),
        (&["command.run=sh"], "expected a list"),
        (&["command.run=[\"sh\"]", "command.batch=0"], "command.batch"),
        (&["command.run=[\"sh\"]", "command.timeout_seconds=0"], "command.timeout_seconds"),
        (&["command.run=[\"sh\"]", "command.timeout_second=1"], "did you mean `command.timeout_seconds`?"),
        (&["command.run=[\"sh\"]", "column=x"], "give one source of rewards"),
    ] {
        let settings: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
        let arguments = ["annotate", "--dry-run", "--data", &data, "--output", &output];
        setpoint(&[&arguments[..], &settings].concat()).fails(2, &[said]);
    }
}

#[test]
fn a_command_judges_an_evaluation() {
    let (dir, data) = file("rows.jsonl", &rewarded_rows(3));
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (script, log, report) = (path("score.sh"), path("log"), path("report.json"));
    std::fs::write(&script, SCRIPT).unwrap();
    let policy = model().display().to_string();
    let run = format!("command = {{ run = [\"sh\", \"{script}\", \"{log}\"], fields = true }}");
    let (_config, config) = file("eval.toml", &run);
    let baseline = format!("baseline.path={policy}");
    let arguments = ["eval", &config, "--quiet", "--model", &policy, "--data", &data, "--output", &report];
    let sampling = ["--set", &baseline, "--set", "generate.max_new_tokens=4"];
    setpoint(&[&arguments[..], &sampling].concat()).ok();
    let report: Value = serde_json::from_str(&std::fs::read_to_string(&report).unwrap()).unwrap();
    assert_eq!((&report["reward"], &report["baseline_reward"]), (&Value::from(2.5), &Value::from(2.5)));
    assert_eq!(report["manifest"]["judge"]["command"]["run"][0], "sh", "{report}");
    let asked = lines(Path::new(&log));
    // Three answers of both models, by one process; the row's columns are sent as they are in the file.
    assert_eq!(asked.len(), 6);
    assert_eq!(asked[0]["fields"]["responses"][2], "Saturday.");

    let both = ["--set", "rule.kind=json"];
    setpoint(&[&arguments[..], &sampling, &both].concat())
        .fails(2, &["give one judge: `reward.path`, `rule` or `command`"]);
}

#[test]
fn a_stopped_job_leaves_no_command_behind() {
    let (dir, data) = file("rows.jsonl", &rewarded_rows(1));
    let path = |name: &str| dir.path().join(name);
    let (script, pid) = (path("score.sh"), path("pid"));
    // The child of a shell, which closing the input does not end.
    std::fs::write(&script, "sleep 1000 &\necho $! > \"$1.new\"; mv \"$1.new\" \"$1\"; wait\n").unwrap();
    let run = format!("command.run=[\"sh\", \"{}\", \"{}\"]", script.display(), pid.display());
    let output = path("rewards.jsonl").display().to_string();
    let mut job = command(&["annotate", "--data", &data, "--output", &output, "--set", &run])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while !pid.exists() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    let sleeper = std::fs::read_to_string(&pid).unwrap().trim().to_owned();
    let kill = |arguments: &[&str]| Command::new("kill").args(arguments).stderr(Stdio::null()).status().unwrap();
    assert!(kill(&["-0", &sleeper]).success());
    assert!(kill(&["-TERM", &job.id().to_string()]).success());
    assert_eq!(job.wait().unwrap().code(), Some(143));
    // What the shell leaves behind is reaped by whoever adopts it.
    let is_gone = || {
        let state = std::fs::read_to_string(format!("/proc/{sleeper}/stat")).unwrap_or_default();
        !kill(&["-0", &sleeper]).success() || state.contains(") Z ")
    };
    while !is_gone() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(is_gone(), "the command's child still runs");
}

#[test]
#[allow(clippy::print_stderr, reason = "a skipped test says so")]
fn the_judge_of_the_example_gives_the_quality_that_the_data_was_made_with() {
    if !Command::new("python3").arg("--version").output().is_ok_and(|ran| ran.status.success()) {
        eprintln!("skipped: no python3");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("rewards.jsonl").display().to_string();
    let pairs = demo("eval_preferences.jsonl");
    let judge = root().join("examples/online/judge.py");
    let run = format!("command.run=[\"python3\", \"-B\", \"{}\"]", judge.display());
    let (data, set) = (pairs.display().to_string(), ["--set", &run]);
    setpoint(&[&["annotate", "--quiet", "--data", &data, "--output", &output][..], &set].concat()).ok();
    let (rows, pairs) = (lines(Path::new(&output)), lines(&pairs));
    assert_eq!(rows.len(), pairs.len());
    for (row, pair) in rows.iter().zip(&pairs) {
        assert_eq!(row["rewards"], serde_json::json!([pair["chosen_quality"], pair["rejected_quality"]]), "{row}");
    }
    let (_dir, other) = file("rows.jsonl", &rewarded_rows(1));
    let others = dir.path().join("others.jsonl").display().to_string();
    let arguments = ["annotate", "--quiet", "--data", &other, "--output", &others, "--set", &run];
    setpoint(&arguments).fails(1, &["is not one of the demo's questions"]);
}
