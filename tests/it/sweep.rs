//! `setpoint sweep`: trials, their table, and how it goes on.

use std::path::Path;
use std::time::{Duration, Instant};

use super::fixture::{Ran, command, demo, file, model, rewarded_rows, setpoint};

/// The arguments of a sweep of DPO, judged by a rule.
fn arguments(config: &str, run: &Path, more: &[&str]) -> Vec<String> {
    let mut arguments = vec!["sweep", config, "--run"].into_iter().map(String::from).collect::<Vec<_>>();
    arguments.push(run.display().to_string());
    arguments.extend(more.iter().map(|text| (*text).to_owned()));
    arguments
}

fn sweep(config: &str, run: &Path, more: &[&str]) -> Ran {
    let arguments = arguments(config, run, more);
    setpoint(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

/// The settings of a sweep, in a folder with its data.
fn settings(sweep: &str) -> (tempfile::TempDir, String) {
    let (dir, data) = file("rewards.jsonl", &rewarded_rows(6));
    let text = format!(
        "model.path = '{}'\ndata.path = '{data}'\nalign.method = \"dpo\"\n\
         [train]\nmax_steps = 2\nbatch_size = 2\nlearning_rate = 1e-3\n\
         [eval]\ndata.path = '{}'\ndata.max_rows = 6\npairs.path = '{}'\npairs.max_rows = 6\n\
         rule = {{ kind = \"length\", unit = \"chars\", target = 6 }}\ngenerate = {{ max_new_tokens = 4 }}\nresamples = 200\n{sweep}",
        model().display(),
        demo("eval_prompts.jsonl").display(),
        demo("eval_preferences.jsonl").display(),
    );
    let config = dir.path().join("sweep.toml");
    std::fs::write(&config, text).unwrap();
    let config = config.display().to_string();
    (dir, config)
}

fn json(path: &Path) -> serde_json::Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))).unwrap()
}

fn modified(path: &Path) -> std::time::SystemTime {
    std::fs::metadata(path).unwrap().modified().unwrap()
}

/// Returns the names of the values that the trials share.
fn shared(run: &Path) -> Vec<String> {
    let files = std::fs::read_dir(run.join("shared")).unwrap().map(|entry| entry.unwrap().path());
    let values = files.filter(|path| path.extension().is_some_and(|e| e == "json"));
    let name =
        |path: std::path::PathBuf| path.file_stem().unwrap().to_str().unwrap().rsplit_once('-').unwrap().0.to_owned();
    let mut names: Vec<String> = values.map(name).collect();
    names.sort();
    names
}

const GRID: &str = "[sweep.settings]\n\"align.beta\" = [0.1, 0.5]\n\"train.learning_rate\" = [1e-3, 1e-2]\n";

#[test]
fn a_grid_is_trained_measured_and_sorted() {
    let (dir, config) = settings(&format!("[sweep]\nparallel = 2\n{GRID}"));
    let run = dir.path().join("run");
    let ran = sweep(&config, &run, &[]).ok();
    assert!(ran.stdout.contains("train.learning_rate") && ran.stdout.contains("win rate"), "{ran:#?}");
    let result = json(&run.join("sweep.json"));
    let trials = result["trials"].as_array().unwrap();
    assert_eq!((trials.len(), result["method"].as_str()), (4, Some("dpo")));
    let rates: Vec<f64> = trials.iter().map(|t| t["figures"]["win_rate"].as_f64().unwrap()).collect();
    assert!(rates.is_sorted_by(|a, b| a >= b), "{rates:?}");
    for trial in trials {
        assert_eq!(trial["figures"]["prompts"], 6);
        assert!(trial["figures"]["pair_accuracy"].is_f64(), "{trial}");
        assert!(!cfg!(target_os = "linux") || trial["trained"]["peak_memory"].as_u64() > Some(1 << 20), "{trial}");
        // An ordinary run, with the settings that were tried.
        let folder = run.join("trials").join(trial["trial"].as_str().unwrap());
        let settings: toml::Table = std::fs::read_to_string(folder.join("config.toml")).unwrap().parse().unwrap();
        assert_eq!(settings["align"]["beta"].as_float(), trial["settings"]["align.beta"].as_f64());
        assert!(folder.join("model/model.safetensors").is_file() && folder.join("metrics.jsonl").is_file());
    }
    let csv = std::fs::read_to_string(run.join("sweep.csv")).unwrap();
    assert_eq!(csv.lines().count(), 5);
    assert!(csv.starts_with("trial,align.beta,train.learning_rate,seed,win_rate,"), "{csv}");

    // What does not depend on the trial was computed once.
    assert_eq!(shared(&run), ["baseline", "baseline-rewards", "reference"]);

    // A trial's files are all that it takes to do it again alone, and without what others computed it comes out the same to the bit.
    let first = run.join("trials/000");
    let last = run.join("trials/003");
    let alone = dir.path().join("alone").display().to_string();
    setpoint(&["align", &last.join("align.toml").display().to_string(), "--quiet", "--run", &alone]).ok();
    let same = |name: &str| {
        let [a, b] = [&last, Path::new(&alone)].map(|folder| std::fs::read(folder.join(name)).unwrap());
        assert!(a == b, "{name} differs");
    };
    same("reference-train.jsonl");
    same("model/model.safetensors");
    let again = dir.path().join("again.json");
    setpoint(&[
        "eval",
        &last.join("eval-all.toml").display().to_string(),
        "--quiet",
        "--set",
        &format!("model.path={alone}/model"),
        "--output",
        &again.display().to_string(),
    ])
    .ok();
    let (again, report) = (json(&again), json(&last.join("eval-all.json"))["report"].clone());
    for (figure, value) in report.as_object().unwrap() {
        assert_eq!(&again[figure], value, "{figure}");
    }

    // It goes on where it was left: what is finished is not touched, what is missing is done, and comes out the same.
    let before = modified(&first.join("model/model.safetensors"));
    std::fs::remove_dir_all(run.join("trials/002")).unwrap();
    sweep(&config, &run, &[]).fails(1, &["already holds a run", "--resume"]);
    let ran = sweep(&config, &run, &["--resume", "--set", "sweep.parallel=1"]).ok();
    assert_eq!(ran.stderr.matches("done before").count(), 3, "{ran:#?}");
    assert_eq!(modified(&first.join("model/model.safetensors")), before);
    let figures = |result: &serde_json::Value| -> Vec<serde_json::Value> {
        result["trials"].as_array().unwrap().iter().map(|trial| trial["figures"].clone()).collect()
    };
    assert_eq!(figures(&json(&run.join("sweep.json"))), figures(&result));
    assert_eq!(shared(&run).len(), 3, "a resumed sweep shares with what was before");
    sweep(&config, &run, &["--resume", "--set", "train.max_steps=3"])
        .fails(2, &["other settings", "train.max_steps", "was 2, and is now 3"]);

    // By the folder alone, but not with other rows than those that the finished trials were trained on.
    let alone = || setpoint(&["sweep", "--run", &run.display().to_string(), "--resume", "--quiet"]);
    alone().ok();

    // The folder may have another name: what is finished stays, what is missing is done in it.
    let moved = dir.path().join("moved");
    std::fs::rename(&run, &moved).unwrap();
    std::fs::remove_dir_all(moved.join("trials/002")).unwrap();
    std::fs::remove_file(moved.join("trials/001/eval-all.json")).unwrap();
    let ran = setpoint(&["sweep", "--run", &moved.display().to_string(), "--resume"]).ok();
    assert_eq!(ran.stderr.matches("done before").count(), 2, "{ran:#?}");
    assert_eq!(figures(&json(&moved.join("sweep.json"))), figures(&result));
    assert!(!run.exists(), "nothing is written to the old folder");
    std::fs::rename(&moved, &run).unwrap();
    alone().ok();
    let settings: toml::Table = std::fs::read_to_string(run.join("config.toml")).unwrap().parse().unwrap();
    let data = settings["data"]["path"].as_str().unwrap().to_owned();
    let rows = std::fs::read_to_string(&data).unwrap();
    std::fs::write(&data, rows.lines().skip(1).map(|row| format!("{row}\n")).collect::<String>()).unwrap();
    alone().fails(1, &["`data.path`", &data, "changed since the run was started"]);
}

#[test]
fn draws_are_listed_before_anything_is_trained() {
    let (dir, config) = settings(
        "[sweep]\ntrials = 3\nseed = 5\n[sweep.settings]\n\"train.learning_rate\" = { low = 1e-5, high = 1e-3, log = true }\n\
         \"align.pairs\" = [\"best_worst\", \"all\"]\n",
    );
    let run = dir.path().join("run");
    let dry = || sweep(&config, &run, &["--dry-run"]).ok().stdout;
    let listed = dry();
    assert_eq!(listed, dry());
    assert!(listed.contains("000  2 steps  ") && listed.contains("3 trials of dpo, 6 steps together"), "{listed}");
    assert!(!run.exists());
}

#[test]
fn a_trial_that_fails_does_not_stop_the_others() {
    // A learning rate of 1e30 leaves no finite weights behind.
    let (dir, config) =
        settings("[sweep.settings]\n\"train.learning_rate\" = [1e30, 1e-3]\n\"train.max_grad_norm\" = [1e30]\n");
    let run = dir.path().join("run");
    sweep(&config, &run, &["--set", "train.max_steps=4"]).fails(1, &["1 of 2 trials failed", "000", "--resume"]);
    let result = json(&run.join("sweep.json"));
    assert!(result["trials"][0]["figures"].is_object(), "{result}");
    assert!(result["trials"][1]["error"].is_string(), "{result}");
}

#[test]
fn a_killed_sweep_goes_on_and_leaves_no_process_behind() {
    let (dir, config) = settings(GRID);
    let more = ["--set", "train.max_steps=40", "--set", "train.save_steps=2"];
    let run = dir.path().join("run");
    let arguments = arguments(&config, &run, &more);
    let mut child = command(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).spawn().unwrap();
    let trial = run.join("trials/001");
    let started = Instant::now();
    while std::fs::read_to_string(trial.join("metrics.jsonl")).map_or(0, |text| text.lines().count()) < 5 {
        assert!(started.elapsed() < Duration::from_secs(300), "the second trial does not begin");
        assert!(child.try_wait().unwrap().is_none(), "it was over before it could be killed");
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!trial.join("trained.json").exists(), "the trial was over before it could be killed");
    // The trial's own process lets go of its folder: it has ended with the one that started it.
    let lock = std::fs::File::open(trial.join("run.lock")).unwrap();
    while lock.try_lock().is_err() {
        assert!(started.elapsed() < Duration::from_secs(300), "the trial's process lives on");
        std::thread::sleep(Duration::from_millis(2));
    }
    lock.unlock().unwrap();
    let ran = sweep(&config, &run, &[&more[..], &["--resume"]].concat()).ok();
    assert_eq!(ran.stderr.matches("done before").count(), 1, "{ran:#?}");
    let steps = std::fs::read_to_string(trial.join("metrics.jsonl")).unwrap().lines().count();
    assert_eq!(steps, 40, "the killed trial was gone on with");
    assert_eq!(json(&trial.join("trained.json"))["resumed"], true);
    assert_eq!(json(&run.join("trials/000/trained.json"))["resumed"], false);
}

#[test]
#[cfg(unix)]
fn a_sweep_that_is_told_to_stop_saves_its_trials_first() {
    let (dir, config) = settings(&format!("[sweep]\nparallel = 2\n{GRID}"));
    let more = ["--set", "train.max_steps=40"];
    let run = dir.path().join("run");
    let arguments = arguments(&config, &run, &more);
    let mut command = command(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let mut child = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
    let steps = |trial: &str| {
        let text = std::fs::read_to_string(run.join("trials").join(trial).join("metrics.jsonl"));
        text.map_or(0, |text| text.lines().count())
    };
    let started = Instant::now();
    while steps("000").min(steps("001")) < 2 {
        assert!(started.elapsed() < Duration::from_secs(300), "the trials do not begin");
        assert!(child.try_wait().unwrap().is_none(), "it was over before it could be stopped");
        std::thread::sleep(Duration::from_millis(2));
    }
    // The sweep alone is told.
    let told = std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(told.success());
    let ran = Ran::of(&child.wait_with_output().unwrap());
    ran.fails(143, &["stopped: 0 of 4 trials are finished; continue with --resume"]);
    for trial in ["000", "001"] {
        let folder = run.join("trials").join(trial);
        std::fs::File::open(folder.join("run.lock")).unwrap().try_lock().expect("its process has ended");
        assert!(std::fs::read_dir(folder.join("checkpoints")).unwrap().count() > 0, "{trial} has saved its step");
        let log = std::fs::read_to_string(folder.join("log.txt")).unwrap();
        assert!(!log.contains("error"), "{log}");
    }
    assert!(!run.join("trials/002/metrics.jsonl").exists(), "no further trial has begun");
    sweep(&config, &run, &[&more[..], &["--resume"]].concat()).ok();
    for trial in ["000", "001"] {
        assert_eq!(steps(trial), 40, "{trial} was gone on with");
        assert_eq!(json(&run.join("trials").join(trial).join("trained.json"))["resumed"], true);
    }
}

#[test]
fn settings_of_rounds_are_tried_as_any_others() {
    let (dir, config) = settings("[sweep.settings]\n\"rollout.samples\" = [2, 4]\n");
    let rule = "reward={ rule = { kind = \"length\", unit = \"chars\", target = 6 } }";
    let rounds =
        ["--set", "rounds=2", "--set", rule, "--set", "rollout.prompts=4", "--set", "rollout.max_new_tokens=4"];
    // Two pairs of a round of four prompts are a step.
    let all = ["--set", "train.max_steps=4"];
    let run = dir.path().join("run");
    let listed = sweep(&config, &run, &[&rounds[..], &all, &["--dry-run"]].concat()).ok().stdout;
    assert!(listed.contains("2 trials of dpo, 8 steps together"), "{listed}");
    sweep(&config, &run, &[&rounds[..], &all].concat()).ok();
    for trial in json(&run.join("sweep.json"))["trials"].as_array().unwrap() {
        let folder = run.join("trials").join(trial["trial"].as_str().unwrap());
        let samples = trial["settings"]["rollout.samples"].as_u64().unwrap() as usize;
        assert!(trial["figures"]["win_rate"].is_f64(), "{trial}");
        for round in ["round-0000.jsonl", "round-0001.jsonl"] {
            let text = std::fs::read_to_string(folder.join("rollouts").join(round)).unwrap();
            let rows: Vec<serde_json::Value> = text.lines().map(|row| serde_json::from_str(row).unwrap()).collect();
            assert_eq!(rows.len(), 4);
            assert!(rows.iter().all(|row| row["responses"].as_array().unwrap().len() == samples), "{text}");
        }
    }
    sweep(&config, &run, &[&rounds[..], &all, &["--resume"]].concat()).ok();

    // What is wrong with a value is said of the value; rounds without a source of rewards, of the section.
    let (dir, config) = settings("[sweep.settings]\n\"rollout.samples\" = [1, 2]\n");
    let run = dir.path().join("run");
    sweep(&config, &run, &rounds).fails(2, &["sweep.toml:17", "rollout.samples", "at least 2"]);
    sweep(&config, &run, &rounds[..2]).fails(2, &["no source of rewards for the sampled responses"]);
    sweep(&config, &run, &["--set", "rollout.prompts=4"]).fails(2, &["belongs to rounds"]);
}

#[test]
fn wrong_settings_are_named_with_their_lines() {
    let refused = |sweep_section: &str, words: &[&str]| {
        let (dir, config) = settings(sweep_section);
        let run = dir.path().join("run");
        sweep(&config, &run, &[]).fails(2, words);
        assert!(!run.exists());
    };
    // The settings before are fifteen lines.
    refused("[sweep]\ntrials = 2\n", &["sweep.toml:16", "nothing to try"]);
    refused(
        "[sweep.settings]\n\"align.betta\" = [0.1]\n\"train.epochs\" = []\n",
        &["sweep.toml:18", "train.epochs", "empty"],
    );
    refused(
        "[sweep.settings]\n\"align.betta\" = [0.1]\n\"align.beta\" = [0.1, -1.0]\n\"train.batch_size\" = [\"x\"]\n",
        &["sweep.toml:17", "did you mean `align.beta`?", "sweep.toml:18", "sweep.toml:19", "batch_size"],
    );
    refused(
        "[sweep.settings]\n\"align.beta\" = { low = 0.1, high = 0.5 }\n",
        &["sweep.toml:17", "is a range", "sweep.trials"],
    );
    refused("[sweep.settings]\n\"align.method\" = [\"dpo\", \"ipo\"]\n", &["setpoint compare"]);
    refused("[sweep.settings]\n\"encode.max_length\" = [64, 257]\n", &["encode.max_length` is 257", "256 tokens"]);
    refused("[sweep]\nmetric = \"beauty\"\nparallel = 0\n", &["sweep.toml:17", "sweep.toml:18", "win_rate"]);
    // Shared settings are wrong at their own place.
    let (dir, config) = settings(GRID);
    sweep(&config, &dir.path().join("run"), &["--set", "align.beta=-1", "--set", "eval.data.path="])
        .fails(2, &["--set align.beta=-1", "eval.data.path"]);
    let (dir, config) = settings(&format!("[sweep]\nmetric = \"pair_accuracy\"\n{GRID}"));
    let text = std::fs::read_to_string(&config).unwrap().replace("pairs.", "# ");
    std::fs::write(&config, text).unwrap();
    sweep(&config, &dir.path().join("run"), &[]).fails(2, &["sweep.toml:17", "eval.pairs.path"]);
}
