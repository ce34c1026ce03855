//! `[tracker]`: a copy of a run's metrics for another tool.
//!
//! A thread follows `metrics.jsonl` and hands its lines to the tool. The file is the queue: the training never waits for the tool, and a
//! slow tool takes no memory. A resumed run cuts `metrics.jsonl` to its checkpoint and writes the same lines again; `metrics.csv` is made
//! from the file, and `tracker.py` notes in `tracker.json` how far it came and skips them.

mod follow;
mod sheet;
#[cfg(all(test, unix))]
mod tests;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use toml::{Table, Value};

use self::follow::{Line, Lines};
use self::sheet::Sheet;
use super::history::Ending;
use super::record::{CONFIG, flat};
use crate::config::output::{Target, validate_target};
use crate::config::{Problems, without_secret};
use crate::failure::{Failure, Outcome};
use crate::process_group::ProcessGroup;
use crate::sources::command::find_program;
use crate::visible::one_line;

/// The program that hands metrics to the tools' own packages, and its name in a run folder.
const SCRIPT: &str = include_str!("tracker.py");
const SCRIPT_NAME: &str = "tracker.py";
/// The file in a run folder in which the script notes the tool's run and how far it came.
const STATE: &str = "tracker.json";
/// The file in a run folder that has the messages of the script and the tool.
const LOG: &str = "tracker.log";
/// The settings that name a place.
pub const PLACES: [&str; 2] = ["tracker.folder", "tracker.python"];

/// The time that the thread waits for more lines.
const POLL: Duration = Duration::from_millis(200);
/// The longest time that a run waits for the tool at its end.
const LAST: Duration = Duration::from_secs(60);
/// The longest time that the import of a package may take.
const IMPORT: Duration = Duration::from_secs(120);
/// The time that is waited for the exit status of a program that closed its input.
const EXIT: Duration = Duration::from_millis(500);
/// The most bytes of messages that are read for an error.
const KEPT: u64 = 1 << 16;

/// `[tracker]`: a copy of the metrics for another tool.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TrackerSection {
    /// The tool.
    pub kind: TrackerKind,
    /// The project of the run, which MLflow calls an experiment; by default `setpoint`.
    #[schemars(extend("examples" = ["setpoint"]))]
    pub project: Option<String>,
    /// The name of the run; by default that of the run folder.
    #[schemars(extend("examples" = ["dro-1"]))]
    pub name: Option<String>,
    /// The folder of the tool's files, which several runs may share; by default `RUN/tracker`.
    #[schemars(extend("examples" = ["mlruns"]))]
    pub folder: Option<PathBuf>,
    /// The Python interpreter that has the tool's package; by default `python3`.
    #[schemars(extend("examples" = ["venv/bin/python"]))]
    pub python: Option<String>,
}

/// A tool that metrics are copied for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TrackerKind {
    /// A table, `RUN/metrics.csv`.
    #[default]
    Csv,
    /// Weights & Biases, offline: `wandb sync` uploads the run.
    Wandb,
    /// MLflow, in files.
    Mlflow,
    /// Trackio, on this machine.
    Trackio,
}

impl TrackerKind {
    /// Returns the Python package of the tool, if it is one.
    fn package(self) -> Option<&'static str> {
        match self {
            Self::Csv => None,
            Self::Wandb => Some("wandb"),
            Self::Mlflow => Some("mlflow"),
            Self::Trackio => Some("trackio"),
        }
    }
}

impl TrackerSection {
    /// Notes settings that the tool does not have or cannot take, and an interpreter that does not exist.
    pub fn validate(&self, problems: &mut Problems<'_>) {
        let Some(package) = self.kind.package() else {
            for (name, is_given) in [
                ("project", self.project.is_some()),
                ("name", self.name.is_some()),
                ("folder", self.folder.is_some()),
                ("python", self.python.is_some()),
            ] {
                let message = format!(
                    "the tracker `csv` writes RUN/metrics.csv and has no `{name}`: leave it out, or set `tracker.kind` to \"wandb\", \
                     \"mlflow\" or \"trackio\""
                );
                problems.require(!is_given, &format!("tracker.{name}"), message);
            }
            return;
        };
        for (key, text) in [("project", &self.project), ("name", &self.name)] {
            let is_name = |text: &String| {
                let is_odd = |c: char| c.is_control() || (key == "project" && "/\\#?%:".contains(c));
                !text.trim().is_empty() && text.chars().count() <= 128 && !text.contains(is_odd)
            };
            let message =
                format!("`tracker.{key}` must have 1 to 128 characters, and none of / \\ # ? % : in a project");
            problems.require(text.as_ref().is_none_or(is_name), &format!("tracker.{key}"), message);
        }
        validate_target(self.folder.as_ref(), Target::Folder, "tracker.folder", problems);
        if let Err(message) = find_program(&[self.python().to_owned()]) {
            let remedy = format!("set `tracker.python` to a Python interpreter that has the package `{package}`");
            problems.add("tracker.python", format!("{message}: {remedy}"));
        }
    }

    fn python(&self) -> &str {
        self.python.as_deref().unwrap_or("python3")
    }
}

/// Fails if the tool's package cannot be imported, before any long work.
///
/// # Errors
/// [`Failure::Usage`] that names the package and says how to install it.
pub fn check(section: Option<&TrackerSection>) -> Outcome {
    let Some((section, package)) = section.and_then(|section| Some((section, section.kind.package()?))) else {
        return Ok(());
    };
    let python = section.python();
    let cannot = |reason: String| {
        Failure::usage(
            "tracker.kind",
            format!(
                "`{python}` cannot import the package `{package}` ({reason}): install it with `{python} -m pip install {package}`, name \
                 another interpreter with `tracker.python`, or leave `tracker` out"
            ),
        )
    };
    let mut messages = tempfile::tempfile()?;
    let mut command = Command::new(python);
    // A folder of the package's name in the working directory is not the package.
    command
        .args(["-c", &format!("import sys; sys.path[:] = [place for place in sys.path if place]; import {package}")]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(messages.try_clone()?);
    let mut group = ProcessGroup::spawn(&mut command).map_err(|error| cannot(error.to_string()))?;
    match group.wait_until(Instant::now() + IMPORT) {
        Some(status) if status.success() => Ok(()),
        Some(status) => {
            let mut said = Vec::new();
            messages.seek(SeekFrom::Start(0))?;
            messages.take(KEPT).read_to_end(&mut said)?;
            Err(cannot(last_line(&said).unwrap_or_else(|| status.to_string())))
        }
        None => Err(cannot(format!("the import took longer than {} s", IMPORT.as_secs()))),
    }
}

/// Returns the last line of a program's messages that is not empty.
fn last_line(said: &[u8]) -> Option<String> {
    let said = String::from_utf8_lossy(said);
    said.lines().rev().find(|line| !line.trim().is_empty()).map(|line| one_line(line).into_owned())
}

/// A receiver of metrics.
trait Sink: Send {
    /// Takes a line of `metrics.jsonl`.
    ///
    /// # Errors
    /// A part of a sentence that says why it cannot.
    fn take(&mut self, line: &Line) -> Result<(), String>;

    /// Takes the end of the run: `finished`, `stopped` or `failed`.
    ///
    /// # Errors
    /// As [`Self::take`].
    fn end(&mut self, how: &'static str) -> Result<(), String>;
}

/// A tool that follows a run. Its program is killed when this is dropped.
#[derive(Debug)]
pub(super) struct Tracker {
    kind: TrackerKind,
    /// The end of the run, once it has come.
    ended: Arc<OnceLock<&'static str>>,
    /// The thread's only message, when it ends.
    done: Receiver<Result<(), String>>,
    /// The script, if the tool is a package.
    child: Option<ProcessGroup>,
    log: PathBuf,
    /// The longest time that [`Self::finish`] takes.
    limit: Duration,
    /// True if a warning was given. There is no second one.
    has_failed: bool,
}

impl Tracker {
    /// Starts to follow the run in a folder, whose `metrics.jsonl` is open.
    ///
    /// # Errors
    /// A sentence that says why it cannot.
    pub(super) fn start(section: &TrackerSection, run: &Path) -> Result<Self, String> {
        Self::start_within(section, run, LAST)
    }

    /// The same with a limit on the time of [`Self::finish`].
    fn start_within(section: &TrackerSection, run: &Path, limit: Duration) -> Result<Self, String> {
        let log = run.join(LOG);
        let started = Self::open(section, run, &log);
        let (child, sink) = started.map_err(|reason| warning(section.kind, &reason, &log))?;
        let lines = Lines::new(run);
        let ended = Arc::new(OnceLock::new());
        let (send, done) = channel();
        let seen = Arc::clone(&ended);
        let spawned = thread::Builder::new().name("tracker".to_owned()).spawn(move || {
            // If nobody receives it, the run does without the tool already.
            let _ = send.send(hand_over(lines, sink, &seen));
        });
        spawned.map_err(|error| warning(section.kind, &error.to_string(), &log))?;
        Ok(Self { kind: section.kind, ended, done, child, log, limit, has_failed: false })
    }

    /// Opens the table, or starts the script.
    fn open(section: &TrackerSection, run: &Path, log: &Path) -> Result<(Option<ProcessGroup>, Box<dyn Sink>), String> {
        if section.kind.package().is_none() {
            return Ok((None, Box::new(Sheet::new(run)?)));
        }
        let say = |error: std::io::Error| error.to_string();
        let run = std::path::absolute(run).map_err(say)?;
        let folder = section.folder.clone().unwrap_or_else(|| run.join("tracker"));
        let folder = std::path::absolute(folder).map_err(say)?;
        setpoint_files::create_dir(&folder).map_err(|error| error.to_string())?;
        let script = run.join(SCRIPT_NAME);
        setpoint_files::write::<setpoint_files::Error>(&script, |out| out.put(SCRIPT.as_bytes()))
            .map_err(|error| error.to_string())?;
        let messages = File::create(log).map_err(say)?;
        let mut command = Command::new(section.python());
        command.arg(&script).stdin(Stdio::piped()).stderr(messages.try_clone().map_err(say)?).stdout(messages);
        let mut group = ProcessGroup::spawn(&mut command).map_err(say)?;
        let input = group.child.stdin.take().ok_or("it has no input")?;
        let name = run.file_name().map_or_else(|| "run".to_owned(), |name| name.to_string_lossy().into_owned());
        let start = json!({
            "kind": section.kind,
            "project": section.project.as_deref().unwrap_or("setpoint"),
            "name": section.name.as_ref().unwrap_or(&name),
            "folder": folder.to_string_lossy(),
            "state": run.join(STATE).to_string_lossy(),
            "config": settings_of(&run)?,
        });
        Ok((Some(group), Box::new(Script { input: Some(input), start: Some(start) })))
    }

    /// Returns the warning that the tool has failed, once.
    pub(super) fn take_warning(&mut self) -> Option<String> {
        match self.done.try_recv() {
            Ok(Err(reason)) => Some(self.failed(&reason)),
            _ => None,
        }
    }

    /// Hands over what is left, and waits for the tool to end, up to a limit. Returns a warning if it failed and none was given.
    pub(super) fn finish(mut self, ending: Ending) -> Option<String> {
        if self.has_failed {
            return None;
        }
        let how = match ending {
            Ending::Finished | Ending::Early | Ending::Limit => "finished",
            Ending::Stopped => "stopped",
            Ending::Failed => "failed",
        };
        // It is set here alone.
        let _ = self.ended.set(how);
        let deadline = Instant::now() + self.limit;
        let slow = format!("it did not end within {} s and was stopped", self.limit.as_secs());
        match self.done.recv_timeout(self.limit) {
            Err(RecvTimeoutError::Timeout) => return Some(self.failed(&slow)),
            Ok(Err(reason)) => return Some(self.failed(&reason)),
            Ok(Ok(())) | Err(RecvTimeoutError::Disconnected) => {}
        }
        let status = self.child.as_mut().map(|child| child.wait_until(deadline));
        match status {
            Some(None) => Some(self.failed(&slow)),
            Some(Some(status)) if !status.success() => Some(warning(self.kind, &ended_with(status), &self.log)),
            _ => None,
        }
    }

    /// Ends the program and returns the warning about it.
    fn failed(&mut self, reason: &str) -> String {
        self.has_failed = true;
        let status = self.child.take().and_then(|mut child| child.wait_until(Instant::now() + EXIT));
        let reason = status.map_or_else(|| reason.to_owned(), ended_with);
        warning(self.kind, &reason, &self.log)
    }
}

fn ended_with(status: ExitStatus) -> String {
    format!("it ended early ({status})")
}

/// Returns the one sentence about a tool that fails.
fn warning(kind: TrackerKind, reason: &str, log: &Path) -> String {
    match kind.package() {
        None => format!("the tracker `csv` failed: {reason}; the training goes on without it"),
        Some(package) => format!(
            "the tracker `{package}` failed: {reason}; the training goes on without it, and its messages are in {}",
            log.display()
        ),
    }
}

/// Hands every line of `metrics.jsonl` to the tool until the run has ended.
fn hand_over(mut lines: Lines, mut sink: Box<dyn Sink>, ended: &OnceLock<&'static str>) -> Result<(), String> {
    loop {
        // Asked before the file is read: every line is written before the run ends.
        let how = ended.get().copied();
        while let Some(line) = lines.next_line()? {
            sink.take(&line)?;
        }
        match how {
            Some(how) => return sink.end(how),
            None => thread::sleep(POLL),
        }
    }
}

/// The script that hands metrics to a package.
struct Script {
    /// Closed by the end of the run.
    input: Option<ChildStdin>,
    /// The first message, until it is sent.
    start: Option<Json>,
}

impl Script {
    fn send(&mut self, message: &Json) -> Result<(), String> {
        let first = self.start.take().map_or_else(String::new, |start| format!("{start}\n"));
        let Some(input) = &mut self.input else { return Ok(()) };
        let sent = input.write_all(format!("{first}{message}\n").as_bytes());
        sent.map_err(|error| format!("it no longer reads ({error})"))
    }
}

impl Sink for Script {
    fn take(&mut self, line: &Line) -> Result<(), String> {
        let (kind, values) = line.tagged();
        self.send(&json!({ "step": line.step(), "kind": kind, "values": values }))
    }

    fn end(&mut self, how: &'static str) -> Result<(), String> {
        self.send(&json!({ "end": how }))?;
        self.input = None;
        Ok(())
    }
}

/// Returns the settings of a run as its `config.toml` has them, by dotted key, without secrets.
fn settings_of(run: &Path) -> Result<BTreeMap<String, Json>, String> {
    let path = run.join(CONFIG);
    let text = setpoint_files::read_text(&path).map_err(|error| error.to_string())?;
    let table = text.parse::<Table>().map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    Ok(flat(&table).into_iter().map(|(key, value)| (key.clone(), without_secrets(&key, &value))).collect())
}

/// Converts the value of a setting. A key, or an address that may hold one, is hidden.
fn without_secrets(key: &str, value: &Value) -> Json {
    match value {
        Value::String(text) => without_secret(key, text).into(),
        Value::Integer(number) => (*number).into(),
        Value::Float(number) => (*number).into(),
        Value::Boolean(is) => (*is).into(),
        Value::Datetime(date) => date.to_string().into(),
        Value::Array(items) => items.iter().map(|item| without_secrets(key, item)).collect(),
        Value::Table(table) => {
            let entry =
                |(name, value): (&String, &Value)| (name.clone(), without_secrets(&format!("{key}.{name}"), value));
            Json::Object(table.iter().map(entry).collect())
        }
    }
}
