//! A tiny model made once by the command itself, and ways to run the command.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

pub use crate::test_data::test_data as shared;
use crate::watchdog::watch_processes;

/// A folder that lives as long as the tests.
fn workspace() -> &'static Path {
    static DIR: OnceLock<tempfile::TempDir> = OnceLock::new();
    DIR.get_or_init(|| tempfile::tempdir().expect("a temporary folder")).path()
}

/// The repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The demo's data and tokenizer.
pub fn demo(name: &str) -> PathBuf {
    root().join("examples/demo").join(name)
}

/// The result of a command.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    pub fn of(output: &Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Fails the test unless the command succeeded.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{self:#?}");
        self
    }

    /// Fails the test unless the command failed with this code and said all of this.
    #[track_caller]
    pub fn fails(self, code: i32, said: &[&str]) {
        assert_eq!(self.code, code, "{self:#?}");
        for text in said {
            assert!(self.stderr.contains(text), "expected {text:?} in {self:#?}");
        }
        assert!(!self.stderr.contains("panicked"), "{self:#?}");
    }
}

/// The command with arguments, ready to be spawned.
pub fn command(arguments: &[&str]) -> Command {
    watch_processes();
    let mut command = Command::new(env!("CARGO_BIN_EXE_setpoint"));
    command.args(arguments).current_dir(workspace()).env_remove("RUST_BACKTRACE");
    // No test asks the hub itself, and sentences follow the built-in rules.
    command.env("HF_HUB_OFFLINE", "1").env_remove("NLTK_DATA");
    command
}

/// Runs the command to its end.
pub fn setpoint(arguments: &[&str]) -> Ran {
    Ran::of(&command(arguments).output().expect("the command starts"))
}

/// `config.json` of a model that trains in a moment.
pub fn tiny_config() -> PathBuf {
    let path = workspace().join("tiny-config.json");
    static WRITTEN: OnceLock<()> = OnceLock::new();
    WRITTEN.get_or_init(|| {
        let mut config: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(demo("config.json")).unwrap()).unwrap();
        for (key, value) in [
            ("hidden_size", 32),
            ("intermediate_size", 64),
            ("num_hidden_layers", 2),
            ("num_attention_heads", 4),
            ("num_key_value_heads", 2),
            ("head_dim", 8),
        ] {
            config[key] = value.into();
        }
        std::fs::write(&path, config.to_string()).unwrap();
    });
    path
}

/// Arguments of an SFT run from random weights on a few rows of the demo.
pub fn sft_arguments(run: &Path, steps: usize) -> Vec<String> {
    let mut arguments = vec!["sft".to_owned(), "--quiet".into(), "--run".into(), run.display().to_string()];
    for (key, value) in [
        ("model.from_scratch", tiny_config().display().to_string()),
        ("model.tokenizer", demo("tokenizer").display().to_string()),
        ("data.path", demo("pretrain/sft.jsonl").display().to_string()),
        ("data.max_rows", "40".into()),
        ("train.max_steps", steps.to_string()),
        ("train.batch_size", "8".into()),
        ("train.learning_rate", "0.003".into()),
    ] {
        arguments.push("--set".into());
        arguments.push(format!("{key}={value}"));
    }
    arguments
}

/// Runs the command with owned arguments.
pub fn setpoint_owned(arguments: &[String]) -> Ran {
    setpoint(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

/// A model folder that `setpoint sft` made.
pub fn model() -> &'static Path {
    static MODEL: OnceLock<PathBuf> = OnceLock::new();
    MODEL.get_or_init(|| {
        let run = workspace().join("tiny");
        setpoint_owned(&sft_arguments(&run, 4)).ok();
        run.join("model")
    })
}

/// Writes a file into a fresh folder.
pub fn file(name: &str, text: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, text).unwrap();
    let path = path.display().to_string();
    (dir, path)
}

/// A row of the point-wise format with the demo's words.
pub fn rewarded_rows(rows: usize) -> String {
    (0..rows)
        .map(|i| {
            serde_json::json!({
                "prompt": [{"role": "user", "content": format!("How much is {i} and two?")}],
                "responses": ["The sum is four.", "Do not bother me.", "Saturday."],
                "rewards": [1.0 + i as f64 / 10.0, -1.0, 0.25],
            })
            .to_string()
                + "\n"
        })
        .collect()
}

/// The same rows with eight samples of a reference model and their rewards; the first sample is the first response.
pub fn sampled_rows(rows: usize) -> String {
    let sampled = |(i, line): (usize, &str)| {
        let mut row: serde_json::Value = serde_json::from_str(line).unwrap();
        let other = ["Five.", "Four.", "Ask me later.", "No.", "Yes.", "Monday.", "The sum is six."];
        row["reference_responses"] = [&["The sum is four."][..], &other].concat().into();
        row["reference_rewards"] =
            (0..8).map(|k| 0.2 * f64::from(k) - 0.5 + i as f64 / 20.0).collect::<Vec<_>>().into();
        format!("{row}\n")
    };
    rewarded_rows(rows).lines().enumerate().map(sampled).collect()
}
