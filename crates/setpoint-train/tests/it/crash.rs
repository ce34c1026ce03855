//! Processes that are killed, two processes in one folder, a disk that is full.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use burn::tensor::Device;
use setpoint_train::{AdamWConfig, Error, MicroBatch, RunDir, TrainConfig, fit};

use crate::common::{Bag, Recorder, Regression, metrics_without_times};

const DIR: &str = "SETPOINT_TRAIN_TEST_DIR";
const KILL_AT: &str = "SETPOINT_TRAIN_TEST_KILL_AT";
const WAIT_FOR: &str = "SETPOINT_TRAIN_TEST_WAIT_FOR";

/// 8 steps of 3 micro-batches.
fn config() -> TrainConfig {
    TrainConfig {
        batch_size: 6,
        micro_batch: MicroBatch::Examples(2),
        max_steps: Some(8),
        learning_rate: 0.03,
        optimizer: AdamWConfig { weight_decay: 0.1, ..AdamWConfig::default() },
        logging_steps: 3,
        eval_steps: Some(4),
        save_steps: Some(1),
        keep_last: 2,
        ..TrainConfig::default()
    }
}

fn train(run: &RunDir, task: &Regression) -> Vec<u32> {
    let device = Device::flex().autodiff();
    let fitted = fit(task, Bag::new(&device), &config(), run, &mut Recorder::default()).unwrap();
    fitted.model.bits()
}

/// Runs the job in a child process, until it is killed or done.
#[test]
#[ignore = "a process that the tests below start and kill"]
fn child() {
    let dir = PathBuf::from(std::env::var(DIR).unwrap());
    let mut task = Regression::new(16);
    if let Ok(pass) = std::env::var(KILL_AT) {
        let pass: u64 = pass.parse().unwrap();
        task.before_pass = Box::new(move |passes, _| {
            if passes == pass {
                // The real thing: no destructor runs, no buffer is flushed.
                let id = std::process::id().to_string();
                Command::new("kill").args(["-9", &id]).status().unwrap();
            }
        });
    }
    let run = RunDir::open(&dir).unwrap();
    if let Ok(path) = std::env::var(WAIT_FOR) {
        while !Path::new(&path).exists() {
            std::thread::yield_now();
        }
    }
    let bits = train(&run, &task);
    fs::write(dir.join("bits"), format!("{bits:?}")).unwrap();
}

fn command(dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "crash::child", "--ignored", "--test-threads=1"])
        .env(DIR, dir)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

fn same_logs(path: &Path, whole: &Path) {
    assert_eq!(metrics_without_times(path), metrics_without_times(whole));
    let responses = |path: &Path| fs::read_to_string(path.join(RunDir::RESPONSES)).unwrap();
    assert_eq!(responses(path), responses(whole));
    // Steps 1 to 3 and 6 to 8 are the first and the last pass over 16 examples; evaluated are steps 4 and 8.
    assert_eq!(responses(whole).lines().count(), 6 + 2);
}

fn expected(dir: &Path) -> (String, PathBuf) {
    let path = dir.join("whole");
    let run = RunDir::create(&path).unwrap();
    let bits = train(&run, &Regression::new(16));
    (format!("{bits:?}"), path)
}

#[test]
fn killed_within_an_accumulation() {
    let dir = tempfile::tempdir().unwrap();
    let (bits, whole) = expected(dir.path());
    let path = dir.path().join("killed");
    fs::create_dir(&path).unwrap();
    // In step 1, before the first checkpoint; in step 2, after a fresh start; in step 4, after step 2
    // (3 micro-batches) and step 3 (2, the last batch of the epoch).
    for pass in ["2", "5", "8"] {
        let status = command(&path).env(KILL_AT, pass).status().unwrap();
        assert!(!status.success());
        assert!(!path.join("bits").exists());
    }
    let steps = RunDir::open(&path).unwrap().checkpoints().unwrap();
    assert!(steps.last().unwrap().ends_with("step-00000003"), "{steps:?}");
    assert!(command(&path).status().unwrap().success());
    assert_eq!(fs::read_to_string(path.join("bits")).unwrap(), bits);
    same_logs(&path, &whole);
}

/// Waits for something that must come.
fn wait_for(what: &str, child: &mut Child, mut seen: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !seen() {
        assert!(child.try_wait().unwrap().is_none(), "the process ended before {what}");
        assert!(start.elapsed().as_secs() < 60, "no {what} after a minute");
        std::thread::yield_now();
    }
}

#[test]
fn killed_while_a_checkpoint_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let (bits, whole) = expected(dir.path());
    let unfinished = |path: &Path| {
        let entries = fs::read_dir(path.join(RunDir::CHECKPOINTS)).into_iter().flatten();
        let mut names = entries.flatten().map(|entry| entry.file_name());
        names.any(|name| name.to_string_lossy().starts_with(".unfinished-"))
    };
    // A busy machine may not let this process look at the right moment; then another is started.
    let path = (0..50)
        .map(|attempt| dir.path().join(attempt.to_string()))
        .find(|path| {
            fs::create_dir(path).unwrap();
            let mut child = command(path).spawn().unwrap();
            while !unfinished(path) && child.try_wait().unwrap().is_none() {
                std::thread::yield_now();
            }
            child.kill().unwrap();
            child.wait().unwrap();
            !path.join("bits").exists()
        })
        .expect("one of fifty processes is killed in time");

    assert!(command(&path).status().unwrap().success());
    assert!(!unfinished(&path));
    assert_eq!(fs::read_to_string(path.join("bits")).unwrap(), bits);
    same_logs(&path, &whole);
}

#[test]
fn a_second_process_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let run = RunDir::create(dir.path()).unwrap();
    assert!(!command(dir.path()).status().unwrap().success());
    drop(run);

    // And the other way round: the other process has it.
    let go = dir.path().join("go");
    let mut child = command(dir.path()).env(WAIT_FOR, &go).spawn().unwrap();
    let id = child.id().to_string();
    wait_for("lock", &mut child, || {
        fs::read_to_string(dir.path().join("run.lock")).is_ok_and(|text| text.trim() == id)
    });
    let error = RunDir::open(dir.path()).unwrap_err();
    assert!(matches!(&error, Error::Locked { holder, .. } if *holder == id), "{error}");
    fs::write(go, "").unwrap();
    assert!(child.wait().unwrap().success());
    RunDir::open(dir.path()).unwrap();
}

#[test]
#[cfg(unix)]
fn a_full_disk_harms_nothing_that_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let (bits, whole) = expected(dir.path());
    let path = dir.path().join("full");
    fs::create_dir(&path).unwrap();
    // Stop in the fifth step; then go on where no file may exceed 512 bytes: every write of a
    // checkpoint fails, as on a full disk.
    command(&path).env(KILL_AT, "14").status().unwrap();
    let before = RunDir::open(&path).unwrap().checkpoints().unwrap();
    assert!(before.last().unwrap().ends_with("step-00000004"), "{before:?}");
    let limited = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 1; exec \"$@\"", "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "crash::child", "--ignored", "--nocapture"])
        .env(DIR, &path)
        .output()
        .unwrap();
    assert!(!limited.status.success());
    let message = String::from_utf8_lossy(&limited.stderr);
    assert!(message.contains(".safetensors"), "{message}");

    let run = RunDir::open(&path).unwrap();
    assert_eq!(run.checkpoints().unwrap(), before);
    drop(run);
    assert!(command(&path).status().unwrap().success());
    assert_eq!(fs::read_to_string(path.join("bits")).unwrap(), bits);
    same_logs(&path, &whole);
}
