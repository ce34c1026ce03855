//! Rows that are too many for memory go to a file without a name.

#![cfg(target_os = "linux")]

use std::path::Path;
use std::process::Command;

use super::fixture::{Ran, command, file, model};

/// Rows with more tokens than are kept in memory.
fn large() -> String {
    let row = |i: usize| {
        let text = format!("{i} ").repeat(44);
        let responses = ["", "a", "b", "c"].map(|end| format!("\"{text}{end}\"")).join(", ");
        format!("{{\"prompt\": \"Count.\", \"responses\": [{responses}], \"rewards\": [{i}, 0.5, 0.25, 0]}}\n")
    };
    (1000..9999).map(row).collect()
}

/// Runs a job that must not write a file of more than a megabyte, as on a disk that is full.
fn with_little_room(job: &str, data: &str, run: &Path) -> Ran {
    let model = model().display().to_string();
    let run = run.display().to_string();
    let arguments = [job, "--quiet", "--model", &model, "--data", data, "--run", &run, "--set", "train.max_steps=1"];
    let plain = command(&arguments);
    let mut shell = Command::new("sh");
    // A signal that is ignored leaves the error of the system call.
    shell.args(["-c", "trap '' XFSZ; ulimit -f 2048; exec \"$0\" \"$@\""]).arg(plain.get_program());
    shell.args(plain.get_args()).envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    Ran::of(&shell.current_dir(plain.get_current_dir().unwrap()).output().expect("a shell"))
}

#[test]
fn a_disk_without_room_for_the_rows_is_one_sentence_and_leaves_nothing() {
    let (dir, data) = file("rows.jsonl", &large());
    for job in ["align", "reward"] {
        let run = dir.path().join(job);
        let ran = with_little_room(job, &data, &run);
        let said: Vec<&str> = ran.stderr.lines().filter(|line| line.starts_with("error")).collect();
        assert_eq!(said.len(), 1, "{ran:#?}");
        let expected = format!("could not write a temporary file in {}: ", dir.path().display());
        ran.fails(1, &[&expected, "File too large"]);
        let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["rows.jsonl"], "{job}");
    }
}
