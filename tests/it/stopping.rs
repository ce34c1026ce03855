//! A training that is told to stop saves its step, and what happens after the last step costs nothing.
#![cfg(unix)]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::fixture::{Ran, command, demo, file, model, rewarded_rows, setpoint_owned, sft_arguments};

/// Arguments of a training long enough to be stopped, with default settings for everything about saving.
fn arguments(run: &Path, more: &[&str]) -> Vec<String> {
    let mut arguments = sft_arguments(run, 40);
    arguments.extend(more.iter().flat_map(|setting| ["--set".to_owned(), (*setting).to_owned()]));
    arguments
}

fn spawn(arguments: &[String]) -> Child {
    let mut command = command(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn signal(name: &str, child: &Child) {
    let sent = Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

/// The lines of a file; none while it is not there.
fn lines(path: &Path) -> usize {
    std::fs::read_to_string(path).map_or(0, |text| text.lines().count())
}

/// Waits until something holds while a process goes on.
fn wait_until(what: &str, child: &mut Child, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(child.try_wait().unwrap().is_none(), "it ended before {what}");
        assert!(started.elapsed() < Duration::from_secs(300), "{what} does not come");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn end(child: Child) -> Ran {
    Ran::of(&child.wait_with_output().unwrap())
}

fn resumed(arguments: &[String]) -> Ran {
    setpoint_owned(&[arguments, &["--resume".to_owned()]].concat()).ok()
}

fn weights(run: &Path) -> Vec<u8> {
    std::fs::read(run.join("model/model.safetensors")).unwrap()
}

/// The checkpoints' steps, sorted.
fn checkpoints(run: &Path) -> Vec<u64> {
    let entries = std::fs::read_dir(run.join("checkpoints")).into_iter().flatten().flatten();
    let step = |name: String| name.strip_prefix("step-").and_then(|digits| digits.parse().ok());
    let mut steps: Vec<u64> = entries.filter_map(|entry| step(entry.file_name().into_string().ok()?)).collect();
    steps.sort_unstable();
    steps
}

#[test]
fn a_signal_finishes_the_step_and_a_resume_ends_in_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    setpoint_owned(&arguments(&whole, &[])).ok();
    for (name, code, device) in [("TERM", 143, "flex"), ("INT", 130, "flex"), ("TERM", 143, "flex,flex")] {
        let run = dir.path().join(format!("{name} {device}"));
        let mut arguments = arguments(&run, &[]);
        arguments.extend(["--device".into(), device.into()]);
        let mut child = spawn(&arguments);
        wait_until("the third step", &mut child, || lines(&run.join("metrics.jsonl")) >= 3);
        signal(name, &child);
        let ran = end(child);
        assert_eq!(ran.code, code, "{ran:#?}");
        let steps = checkpoints(&run);
        let [step] = steps[..] else { panic!("one checkpoint, found {steps:?}") };
        assert!(ran.stderr.contains(&format!("stopped at step {step} of 40; continue with --resume")), "{ran:#?}");
        assert!(!ran.stderr.contains("error") && !run.join("model").exists(), "{ran:#?}");
        assert_eq!(lines(&run.join("metrics.jsonl")) as u64, step, "every step that was done is saved");
        let ran = resumed(&arguments);
        // Two devices add up in another order.
        if device == "flex" {
            assert!(weights(&whole) == weights(&run), "{ran:#?}");
        }
        assert_eq!(lines(&run.join("metrics.jsonl")), lines(&whole.join("metrics.jsonl")));
    }
}

#[test]
fn a_signal_is_heard_in_an_evaluation_and_a_second_one_ends_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let eval =
        ["train.eval_steps=4", &format!("eval_data.path={}", demo("pretrain/sft.jsonl").display())].map(str::to_owned);
    let settings: Vec<&str> = eval.iter().map(String::as_str).collect();
    let run = dir.path().join("run");
    let started = arguments(&run, &settings);
    let mut child = spawn(&started);
    // The evaluation is of thousands of rows: it has begun when the fourth step is written.
    wait_until("the evaluation", &mut child, || lines(&run.join("metrics.jsonl")) >= 4);
    std::thread::sleep(Duration::from_millis(50));
    signal("TERM", &child);
    let ran = end(child);
    assert_eq!(ran.code, 143, "{ran:#?}");
    assert_eq!(checkpoints(&run), [4]);
    assert_eq!(lines(&run.join("metrics.jsonl")), 4, "the evaluation was not finished");
    // It is made up for: then the process is stopped again, and told twice.
    let mut child = spawn(&[&started[..], &["--resume".into()]].concat());
    wait_until("the fifth step", &mut child, || lines(&run.join("metrics.jsonl")) >= 6);
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    assert!(text.lines().nth(4).unwrap().contains("eval_loss"), "{text}");
    signal("INT", &child);
    signal("INT", &child);
    assert_eq!(end(child).code, 130);
    assert_eq!(checkpoints(&run).first(), Some(&4));
}

#[test]
fn before_the_first_step_a_signal_ends_at_once_and_leaves_a_folder_to_go_on_with() {
    let (dir, data) = file("rewards.jsonl", &rewarded_rows(400));
    let run = dir.path().join("run");
    let mut arguments: Vec<String> = ["align", "--quiet", "--data", &data].map(String::from).into();
    arguments.extend(["--model".into(), model().display().to_string(), "--run".into(), run.display().to_string()]);
    for setting in ["train.max_steps=2", "train.batch_size=4", "train.micro_batch.tokens=64", "samples.prompts=0"] {
        arguments.extend(["--set".into(), setting.into()]);
    }
    let mut child = spawn(&arguments);
    let scored = run.join("reference-train.jsonl");
    wait_until("the first score of the reference", &mut child, || lines(&scored) >= 2);
    let before = Instant::now();
    signal("TERM", &child);
    let ran = end(child);
    assert!(before.elapsed() < Duration::from_secs(20) && ran.code != 0, "{ran:#?}");
    let kept = lines(&scored);
    if run.join("model").exists() || run.join("metrics.jsonl").exists() {
        panic!("the reference was scored before the signal came: {kept} lines");
    }
    resumed(&arguments);
    assert!(run.join("model/model.safetensors").is_file());
}

#[test]
fn with_default_settings_a_kill_loses_what_the_interval_says_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    setpoint_owned(&arguments(&whole, &[])).ok();
    // Any time at all: the first step is saved, later ones as often as a twentieth of the time allows.
    let run = dir.path().join("run");
    let arguments = arguments(&run, &["train.save_minutes=1e-9"]);
    let mut child = spawn(&arguments);
    wait_until("a checkpoint", &mut child, || !checkpoints(&run).is_empty());
    wait_until("one more step", &mut child, || lines(&run.join("metrics.jsonl")) > checkpoints(&run)[0] as usize);
    child.kill().unwrap();
    child.wait().unwrap();
    resumed(&arguments);
    assert!(weights(&whole) == weights(&run));
    assert_eq!(lines(&run.join("metrics.jsonl")), 40);
}

#[test]
fn a_finished_training_survives_what_fails_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    setpoint_owned(&arguments(&whole, &[])).ok();
    // The model's folder cannot be made: the last step is in a checkpoint, and a resume writes the model.
    let run = dir.path().join("run");
    let arguments = arguments(&run, &[]);
    let mut child = spawn(&arguments);
    wait_until("the first step", &mut child, || lines(&run.join("metrics.jsonl")) >= 1);
    std::fs::write(run.join("model"), "in the way").unwrap();
    let ran = end(child);
    assert_eq!(ran.code, 1, "{ran:#?}");
    assert_eq!(checkpoints(&run), [40]);
    // It is known before anything is computed when it is there from the beginning.
    setpoint_owned(&[&arguments[..], &["--resume".into()]].concat()).fails(1, &["is a file", "folder"]);
    std::fs::remove_file(run.join("model")).unwrap();
    resumed(&arguments);
    assert!(weights(&whole) == weights(&run));
    let samples = |run: &Path| std::fs::read(run.join("samples.jsonl")).unwrap();
    assert!(!samples(&run).is_empty() && samples(&run) == samples(&whole));
}

#[test]
fn weights_that_are_not_finite_are_not_saved_and_the_good_checkpoint_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let settings =
        ["train.learning_rate=1e38", "train.save_steps=1", "train.keep_last=1", "train.schedule.warmup.steps=3"];
    let ran = setpoint_owned(&arguments(&run, &settings));
    let steps = checkpoints(&run);
    // The first step has a learning rate of 0. The weights of the second are finite, and every row fails with them.
    let good = *steps.first().expect("a good checkpoint");
    let path = run.join(format!("checkpoints/step-{good:08}"));
    let named = format!("the newest good checkpoint is {} (step {good})", path.display());
    assert_eq!(good, 1, "{ran:#?}");
    ran.fails(1, &["not finite", &named, "learning rate", "--resume"]);
    for step in steps {
        for name in ["model.safetensors", "optimizer.safetensors"] {
            let bytes = std::fs::read(run.join(format!("checkpoints/step-{step:08}/{name}"))).unwrap();
            for (tensor, view) in safetensors::SafeTensors::deserialize(&bytes).unwrap().tensors() {
                if view.dtype() == safetensors::Dtype::F32 {
                    let numbers = view.data().as_chunks::<4>().0;
                    let finite = numbers.iter().all(|&bytes| f32::from_le_bytes(bytes).is_finite());
                    assert!(finite, "step {step}: {tensor}");
                }
            }
        }
    }
}

#[test]
fn the_default_warm_up_leaves_short_runs_alone() {
    let (dir, data) = file("pairs.jsonl", &rewarded_rows(60));
    let run = dir.path().join("run");
    let arguments: Vec<String> =
        ["reward", "--model", &model().display().to_string(), "--data", &data, "--run", &run.display().to_string()]
            .map(str::to_owned)
            .into();
    // 60 pairs in a batch of 64: a single step.
    let ran = setpoint_owned(&arguments).ok();
    assert!(ran.stderr.contains("warning: the run has only 1 step (60 examples in batches of 64)"), "{ran:#?}");
    let row: serde_json::Value =
        serde_json::from_str(std::fs::read_to_string(run.join("metrics.jsonl")).unwrap().lines().next().unwrap())
            .unwrap();
    assert_eq!(row["learning_rate"], 1e-5);
    let read = |path: &Path| std::fs::read(path).unwrap();
    let (before, after) = (read(&model().join("model.safetensors")), read(&run.join("model/model.safetensors")));
    let tensor = |bytes: &[u8]| {
        let file = safetensors::SafeTensors::deserialize(bytes).unwrap();
        file.tensor("model.embed_tokens.weight").unwrap().data().to_vec()
    };
    assert!(tensor(&before) != tensor(&after), "the body has moved");
    let settings = std::fs::read_to_string(run.join("config.toml")).unwrap();
    assert!(settings.contains("warmup = \"auto\""), "{settings}");
    // An explicit share is rounded up, as in transformers: the only step moves nothing, and that is told.
    let other = dir.path().join("explicit");
    let mut explicit = arguments.clone();
    explicit[6] = other.display().to_string();
    explicit.extend(["--set".into(), "train.schedule.warmup.ratio=0.1".into()]);
    let ran = setpoint_owned(&explicit).ok();
    assert!(ran.stderr.contains("at a learning rate of 0"), "{ran:#?}");
    let after = read(&other.join("model/model.safetensors"));
    assert!(tensor(&before) == tensor(&after));
}

/// The speed is that of this process: a resumed run does not count the tokens of the one before.
#[test]
fn tokens_per_second_count_from_the_resume() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let arguments = arguments(&run, &["train.logging_steps=3"]);
    let mut child = spawn(&arguments);
    wait_until("the tenth step", &mut child, || lines(&run.join("metrics.jsonl")) >= 4);
    signal("TERM", &child);
    assert_eq!(end(child).code, 143);
    let before = lines(&run.join("metrics.jsonl"));
    resumed(&arguments);
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let rows: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let number = |row: &serde_json::Value, key: &str| row[key].as_f64().unwrap();
    // The most that a step has: 8 rows of the longest.
    for pair in rows[before..].windows(2) {
        let tokens = number(&pair[1], "num_tokens") - number(&pair[0], "num_tokens");
        let steps = number(&pair[1], "step") - number(&pair[0], "step");
        let measured = number(&pair[1], "tokens_per_second") * number(&pair[1], "step_seconds") * steps;
        assert!((measured - tokens).abs() < 1e-6 * tokens, "{pair:?}");
    }
}
