//! `setpoint JOB --run R --resume`: the folder holds all that is needed to go on.

use std::path::Path;

use super::fixture::{Ran, command, demo, model, rewarded_rows, tiny_config};

/// A project folder with data, started from inside it with relative paths.
struct Project {
    dir: tempfile::TempDir,
}

impl Project {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("data")).unwrap();
        std::fs::write(dir.path().join("data/rewards.jsonl"), rewarded_rows(8)).unwrap();
        std::fs::write(
            dir.path().join("job.toml"),
            "data.path = \"data/rewards.jsonl\"\nalign.log_z0 = 2\n[train]\nmax_steps = 6\nbatch_size = 4\nlearning_rate = 1e-3\n\
             save_steps = 2\nkeep_last = 9\n[samples]\nprompts = 0\n",
        )
        .unwrap();
        Self { dir }
    }

    /// Runs the command in a folder of the project.
    fn run(&self, folder: &str, arguments: &[&str]) -> Ran {
        let place = self.dir.path().join(folder);
        std::fs::create_dir_all(&place).unwrap();
        let arguments = [arguments, &["--device", "flex", "--quiet"]].concat();
        Ran::of(&command(&arguments).current_dir(place).output().unwrap())
    }

    fn start(&self, run: &str) {
        let model = model().display().to_string();
        self.run("", &["align", "job.toml", "--model", &model, "--run", run]).ok();
    }

    fn weights(&self, run: &str) -> Vec<u8> {
        std::fs::read(self.dir.path().join(run).join("model/model.safetensors")).unwrap()
    }

    /// Takes a run back to its second step.
    fn cut(&self, run: &str) {
        cut(&self.dir.path().join(run));
    }
}

fn cut(run: &Path) {
    for gone in ["checkpoints/step-00000004", "checkpoints/step-00000006", "model"] {
        std::fs::remove_dir_all(run.join(gone)).unwrap();
    }
}

#[test]
fn a_run_goes_on_by_its_folder_alone_from_anywhere() {
    let project = Project::new();
    project.start("runs/a");
    let whole = project.weights("runs/a");
    for (folder, run) in [("", "runs/a"), ("elsewhere/deep", "../../runs/a"), ("runs/a", ".")] {
        project.cut("runs/a");
        let ran = project.run(folder, &["align", "--run", run, "--resume"]).ok();
        assert!(ran.stderr.contains("going on from step 2 of 6"), "{ran:#?}");
        assert!(whole == project.weights("runs/a"), "from {folder:?}");
    }
    // The settings are as the user wrote them.
    let config = std::fs::read_to_string(project.dir.path().join("runs/a/config.toml")).unwrap();
    assert!(config.contains("path = \"data/rewards.jsonl\""), "{config}");

    // With everything repeated, relative to another folder, and in a copy of the run.
    project.cut("runs/a");
    let model = model().display().to_string();
    let again = [
        "align",
        "../job.toml",
        "--model",
        &model,
        "--data",
        "../data/rewards.jsonl",
        "--run",
        "../runs/a",
        "--resume",
    ];
    project.run("elsewhere", &again).ok();
    assert!(whole == project.weights("runs/a"));
    project.cut("runs/a");
    let copied = project.dir.path().join("copied");
    let status =
        std::process::Command::new("cp").arg("-r").arg(project.dir.path().join("runs/a")).arg(&copied).status();
    assert!(status.unwrap().success());
    project.run("elsewhere", &["align", "--run", "../copied", "--resume"]).ok();
    assert!(whole == project.weights("copied"));
}

#[test]
fn a_whole_project_may_move() {
    let project = Project::new();
    project.start("run");
    let whole = project.weights("run");
    project.cut("run");
    let moved = tempfile::tempdir().unwrap();
    let place = moved.path().join("project");
    std::fs::rename(project.dir.path(), &place).unwrap();
    let arguments = ["align", "--run", "run", "--resume", "--device", "flex", "--quiet"];
    Ran::of(&command(&arguments).current_dir(&place).output().unwrap()).ok();
    assert!(whole == std::fs::read(place.join("run/model/model.safetensors")).unwrap());
}

#[test]
fn a_finished_run_says_so() {
    let project = Project::new();
    project.start("run");
    let path = project.dir.path().join("run/model/model.safetensors");
    let before = std::fs::metadata(&path).unwrap().modified().unwrap();
    let ran = project.run("", &["align", "--run", "run", "--resume"]).ok();
    assert!(ran.stderr.contains("run is finished: it ended after step 6"), "{ran:#?}");
    assert_eq!(std::fs::metadata(&path).unwrap().modified().unwrap(), before);

    // A model that is gone or torn is written again, from the last checkpoint.
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let ran = project.run("", &["align", "--run", "run", "--resume"]).ok();
    assert!(ran.stderr.contains("model.safetensors is not as the run left it"), "{ran:#?}");
    assert!(whole == std::fs::read(&path).unwrap());
}

#[test]
fn what_is_given_again_must_agree() {
    let project = Project::new();
    project.start("run");
    project.cut("run");
    let resume = |more: &[&str]| project.run("", &[&["align", "--run", "run", "--resume"], more].concat());
    for (setting, said) in [
        ("train.learning_rate=0.5", "`train.learning_rate` was 0.001, and is now 0.5"),
        ("align.beta=7", "`align.beta` was"),
        ("align.method=dpo", "`align.method` was \"dro\", and is now \"dpo\""),
        ("data.max_rows=3", "`data.max_rows` was not set, and is now 3"),
        ("model.dtype=bf16", "`model.dtype` was \"auto\", and is now \"bf16\""),
        ("train.schedule.warmup={ steps = 1 }", "`train.schedule.warmup"),
        ("encode.max_length=100", "`encode.max_length` was 256, and is now 100"),
    ] {
        resume(&["--set", setting]).fails(2, &["run was started with other settings", said]);
    }
    let job = project.dir.path().join("job.toml");
    let text = std::fs::read_to_string(&job).unwrap();
    std::fs::write(&job, text.replace("batch_size = 4", "batch_size = 2")).unwrap();
    project
        .run("", &["align", "job.toml", "--run", "run", "--resume"])
        .fails(2, &["`train.batch_size` was 4, and is now 2"]);
    assert!(!project.dir.path().join("run/model").exists());
    std::fs::write(&job, text).unwrap();
    // What decides nothing about the model, and what is the same in other words.
    let free = [
        "--set",
        "train.save_steps=1",
        "--set",
        "train.keep_last=1",
        "--set",
        "align.log_z0=2.0",
        "--set",
        "train.logging_steps=2",
    ];
    resume(&[&["job.toml", "--data", "./data/rewards.jsonl"], &free[..]].concat()).ok();
    assert_eq!(std::fs::read_dir(project.dir.path().join("run/checkpoints")).unwrap().count(), 1);
}

#[test]
fn a_folder_without_a_run_is_wrong_usage() {
    let project = Project::new();
    std::fs::create_dir(project.dir.path().join("empty")).unwrap();
    for run in ["empty", "none", "data"] {
        for job in ["sft", "reward", "align", "sweep", "compare"] {
            project.run("", &[job, "--run", run, "--resume"]).fails(2, &[run, "holds no config.toml"]);
        }
    }
    project.run("", &["align", "--resume"]).fails(2, &["no run folder"]);
    // Settings do not make a run of it: a mistyped folder would train from the start.
    for run in ["empty", "none"] {
        let again = ["align", "job.toml", "--run", run, "--resume"];
        project.run("", &again).fails(2, &["no run to resume in", run, "without --resume"]);
        project.run("", &[&again[..], &["--dry-run"]].concat()).fails(2, &["no run to resume in", run]);
    }
    assert!(std::fs::read_dir(project.dir.path().join("empty")).unwrap().next().is_none());
    project.start("run");
    // What a run that was killed while it began may leave is no run, and a new one can begin there.
    std::fs::create_dir(project.dir.path().join("begun")).unwrap();
    std::fs::copy(project.dir.path().join("run/run.json"), project.dir.path().join("begun/run.json")).unwrap();
    project
        .run("", &["align", "job.toml", "--run", "begun", "--resume"])
        .fails(2, &["no run to resume in begun: start it without --resume"]);
    project.start("begun");
    project
        .run("", &["sft", "--run", "run", "--resume"])
        .fails(2, &["is a run of `setpoint align`, not of `setpoint sft`"]);
}

#[test]
fn so_do_sft_and_reward_models() {
    let project = Project::new();
    let (config, tokenizer) = (tiny_config().display().to_string(), demo("tokenizer").display().to_string());
    let (model, rows) = (model().display().to_string(), demo("pretrain/sft.jsonl").display().to_string());
    let scratch = [format!("model.from_scratch={config}"), format!("model.tokenizer={tokenizer}")];
    let common = [
        "train.max_steps=6",
        "train.batch_size=4",
        "train.save_steps=2",
        "train.keep_last=9",
        "train.learning_rate=1e-3",
    ];
    for (job, data, own) in [
        ("sft", rows.as_str(), scratch.each_ref().map(String::as_str).to_vec()),
        ("reward", "data/rewards.jsonl", vec![]),
    ] {
        let mut arguments = vec![job, "--run", job, "--data", data, "--set", "data.max_rows=24"];
        if job == "reward" {
            arguments.extend(["--model", &model]);
        }
        own.iter().chain(&common).for_each(|setting| arguments.extend(["--set", setting]));
        project.run("", &arguments).ok();
        let whole = project.weights(job);
        project.cut(job);
        project.run("other", &[job, "--run", &format!("../{job}"), "--resume"]).ok();
        assert!(whole == project.weights(job), "{job}");
        let ran = project.run("other", &[job, "--run", &format!("../{job}"), "--resume"]).ok();
        assert!(ran.stderr.contains("is finished"), "{ran:#?}");
    }
}
