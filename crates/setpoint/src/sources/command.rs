//! An external command that scores responses: it reads a line of JSON for each, and prints a line with the score.

mod program;
#[cfg(all(test, unix))]
mod tests;

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::path::Path;
use std::process::{ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use setpoint_reward::{Error, RewardSource, Scored};

pub use self::program::find_program;
use super::{Opening, SourceSettings};
use crate::config::Problems;
use crate::failure::Outcome;
use crate::process_group::ProcessGroup;
use crate::session::Session;
use crate::setup;
use crate::visible::one_line;

/// The longest line of an answer, in bytes.
const LONGEST_LINE: u64 = 1 << 20;
/// Lines that are read ahead; a command that prints more waits.
const AHEAD: usize = 64;
/// Bytes of the command's messages that are kept for an error, and lines of them that it quotes.
const KEPT: usize = 2000;
const QUOTED_LINES: usize = 5;
/// The time between two looks at whether the job should stop.
const POLL: Duration = Duration::from_millis(50);
/// The time that is waited for the exit status and the last messages of a command that closed its output.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// The longest wait for a line more than a command was asked for.
const LONGEST_CHECK: Duration = Duration::from_secs(1);

/// `[command]`: the program and its limits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CommandSettings {
    /// The program and its arguments, which no shell reads.
    pub run: Vec<String>,
    /// The number of responses that the command is given at once; the next ones follow when it has scored them.
    #[schemars(range(min = 1), extend("x-unit" = "responses"))]
    pub batch: usize,
    /// The longest time that the scores of a batch may take.
    #[schemars(range(min = 1))]
    pub timeout_seconds: u64,
    /// The longest time that the first score may take: a command may load a model before it.
    #[schemars(range(min = 1), extend("x-unit" = "seconds"))]
    pub startup_seconds: u64,
    /// Gives the command the columns of the row as well, as `fields`.
    pub fields: bool,
}

impl Default for CommandSettings {
    fn default() -> Self {
        Self { run: Vec::new(), batch: 64, timeout_seconds: 60, startup_seconds: 300, fields: false }
    }
}

impl SourceSettings for Option<CommandSettings> {
    fn advice(&self, key: &str) -> String {
        format!("a `[{key}]`")
    }

    fn is_given(&self) -> bool {
        self.is_some()
    }

    fn validate(&self, key: &str, problems: &mut Problems<'_>) {
        let Some(settings) = self else { return };
        if let Err(message) = find_program(&settings.run) {
            problems.add(&format!("{key}.run"), message);
        }
        problems.require(settings.batch > 0, &format!("{key}.batch"), "must be at least 1");
        problems.require(settings.timeout_seconds > 0, &format!("{key}.timeout_seconds"), "must be at least 1");
        problems.require(settings.startup_seconds > 0, &format!("{key}.startup_seconds"), "must be at least 1");
    }

    fn inputs(&self) -> Outcome<Vec<(&'static str, String)>> {
        let Some(settings) = self else { return Ok(Vec::new()) };
        // The script is the program itself or the first file among the arguments; the command may write the others.
        let (program, arguments) = settings.run.split_at(settings.run.len().min(1));
        let script = arguments.iter().find(|argument| Path::new(argument).is_file());
        let files = program.iter().chain(script).map(Path::new).filter(|path| path.is_file());
        let digests = files.map(setpoint_train::file_digest).collect::<Result<Vec<_>, _>>()?;
        Ok(vec![("command's script", setup::text_hash(&format!("{digests:?}")))])
    }

    fn free_settings(&self) -> &'static [&'static str] {
        &["timeout_seconds", "startup_seconds"]
    }

    fn open(&self, opening: &Opening<'_>) -> Outcome<Box<dyn RewardSource>> {
        let source = CommandSource::new(self.clone().unwrap_or_default(), opening.session.clone());
        Ok(Box::new(CommandSource { key: opening.key("command"), ..source }))
    }
}

/// A source of rewards that asks a command. It is started by the first response, and ends with the job.
#[derive(Debug)]
pub struct CommandSource {
    settings: CommandSettings,
    /// The key of its section, for messages.
    key: String,
    session: Session,
    running: Mutex<Option<Running>>,
    was_slow: AtomicBool,
}

impl CommandSource {
    /// Creates a source that starts the command when the first response is to be scored.
    pub fn new(settings: CommandSettings, session: Session) -> Self {
        let (key, running) = ("command".to_owned(), Mutex::new(None));
        Self { settings, key, session, running, was_slow: AtomicBool::new(false) }
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, (row, response): (usize, usize), reason: String) -> Error {
        Error::Source { source_name: self.describe(), row, response, source: reason.into() }
    }

    /// Returns the line of a response, as the command reads it.
    fn request(&self, item: &Scored<'_>) -> Vec<u8> {
        let mut request = json!({
            "prompt": item.prompt, "response": item.response, "row": item.row, "response_index": item.response_index,
        });
        if self.settings.fields {
            request["fields"] = json!(item.fields);
        }
        let mut line = request.to_string().into_bytes();
        line.push(b'\n');
        line
    }

    /// Scores a batch; an error comes with the place of the response that it is about.
    fn score_batch(&self, running: &mut Option<Running>, batch: &[Scored<'_>]) -> Result<Vec<f64>, (usize, String)> {
        let is_first = running.is_none();
        let running = match running {
            Some(running) => running,
            None => {
                let started = Running::start(&self.settings.run);
                running.insert(started.map_err(|error| (0, format!("it cannot be started: {error}")))?)
            }
        };
        // One that answers before it reads is told apart only later.
        if !is_first && let Ok(Answer::Line(line)) = running.answers.try_recv() {
            return Err((0, surplus(&line)));
        }
        let started = Instant::now();
        running.send(batch.iter().flat_map(|item| self.request(item)).collect());
        let mut limit = if is_first { self.settings.startup_seconds } else { self.settings.timeout_seconds };
        let mut deadline = started + Duration::from_secs(limit);
        let mut scores = Vec::with_capacity(batch.len());
        for (at, item) in batch.iter().enumerate() {
            let line = self.next_line(running, deadline, limit).map_err(|reason| {
                let progress = format!("after {at} of {} scores of a batch", batch.len());
                (at, format!("{reason} {progress}{}", running.last_words()))
            })?;
            let score = read_score(&line, item);
            scores.push(score.map_err(|reason| (at, format!("{reason}{}", running.last_words())))?);
            running.last = (item.row, item.response_index);
            if is_first && at == 0 {
                limit = self.settings.timeout_seconds;
                deadline = Instant::now() + Duration::from_secs(limit);
            }
        }
        running.pace = started.elapsed() / u32::try_from(batch.len().max(1)).unwrap_or(u32::MAX);
        Ok(scores)
    }

    /// Waits for a line until `deadline`, which is `limit` seconds after the wait for its batch began.
    fn next_line(&self, running: &mut Running, deadline: Instant, limit: u64) -> Result<Vec<u8>, String> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match running.answers.recv_timeout(left.min(POLL)) {
                Ok(Answer::Line(line)) => return Ok(line),
                Ok(Answer::TooLong) => return Err(format!("it printed a line of more than {LONGEST_LINE} bytes")),
                Err(RecvTimeoutError::Disconnected) => return Err(running.ending()),
                Err(RecvTimeoutError::Timeout) if self.session.host.should_stop() => {
                    return Err("the job was told to stop".to_owned());
                }
                Err(RecvTimeoutError::Timeout) if left.is_zero() => {
                    self.was_slow.store(true, Ordering::Relaxed);
                    return Err(format!("it took longer than {limit} s"));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

impl RewardSource for CommandSource {
    fn describe(&self) -> String {
        let command = self.settings.run.join(" ");
        format!("command {}", quoted(command.as_bytes()))
    }

    fn reads_fields(&self) -> bool {
        self.settings.fields
    }

    fn part_size(&self) -> Option<usize> {
        Some(self.settings.batch)
    }

    fn remedy(&self) -> Option<String> {
        self.was_slow.load(Ordering::Relaxed).then(|| {
            let key = &self.key;
            format!(
                "the command must print and flush a line for each line it reads, before its input ends; if it needs more time, set \
                 {key}.timeout_seconds, or {key}.startup_seconds for the first score"
            )
        })
    }

    fn rate(&self, items: &[Scored<'_>], progress: &mut dyn FnMut(usize)) -> Result<Vec<f64>, Error> {
        // A signal then ends the wait for an answer, and with it the command.
        let _watch = self.session.watch();
        let mut running = self.running();
        let mut scores = Vec::with_capacity(items.len());
        for batch in items.chunks(self.settings.batch.max(1)) {
            match self.score_batch(&mut running, batch) {
                Ok(found) => scores.extend(found),
                Err((at, reason)) => {
                    *running = None;
                    return Err(self.failed((batch[at].row, batch[at].response_index), reason));
                }
            }
            progress(scores.len());
        }
        Ok(scores)
    }

    fn check(&self) -> Result<(), Error> {
        let mut running = self.running();
        let Some(open) = running.as_mut() else { return Ok(()) };
        // A command with several lines for a response prints the next one after about as long as those before.
        let wait = (2 * open.pace).clamp(POLL, LONGEST_CHECK);
        let Ok(Answer::Line(line)) = open.answers.recv_timeout(wait) else { return Ok(()) };
        let error = self.failed(open.last, surplus(&line));
        *running = None;
        Err(error)
    }

    fn finish(&self) -> Result<(), Error> {
        let _watch = self.session.watch();
        let Some(mut running) = self.running().take() else { return Ok(()) };
        running.input = None;
        let limit = self.settings.timeout_seconds;
        let deadline = Instant::now() + Duration::from_secs(limit);
        if let Ok(line) = self.next_line(&mut running, deadline, limit) {
            return Err(self.failed(running.last, surplus(&line)));
        }
        if self.session.host.should_stop() {
            return Err(self.failed(running.last, "the job was told to stop".to_owned()));
        }
        // All scores are there: a command that ends badly is worth a warning.
        match running.group.wait_until(deadline) {
            Some(status) if status.success() => {}
            Some(status) => log::warn!("{}: {status} after all scores{}", self.describe(), running.last_words()),
            None => log::warn!("{}: still ran {limit} s after its last score, and was killed", self.describe()),
        }
        Ok(())
    }
}

/// Says that a command printed a line that belongs to no response.
fn surplus(line: &[u8]) -> String {
    format!("it printed a line more than it read: {}", quoted(line))
}

/// Reads the score of a response from the command's answer.
fn read_score(line: &[u8], item: &Scored<'_>) -> Result<f64, String> {
    let answer: Option<Value> = serde_json::from_slice(line).ok();
    let field = |name: &str| answer.as_ref().and_then(Value::as_object).and_then(|answer| answer.get(name));
    if let Some(error) = field("error").filter(|error| !error.is_null()) {
        return Err(format!("it reports {}", quoted(error.to_string().as_bytes())));
    }
    for (name, expected) in [("row", item.row), ("response_index", item.response_index)] {
        if let Some(found) = field(name).filter(|found| found.as_u64() != Some(expected as u64)) {
            return Err(format!("its answers are out of order: found `{name}` {found}, expected {expected}"));
        }
    }
    field("score").and_then(Value::as_f64).ok_or_else(|| {
        format!("it printed {}, expected an object with a number, as in `{{\"score\": 0.5}}`", quoted(line))
    })
}

/// Returns the beginning of a text from the command, in one line.
fn quoted(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let mut beginning: String = text.chars().take(200).collect();
    if beginning.len() < text.len() {
        beginning.push('…');
    }
    format!("`{}`", one_line(&beginning))
}

/// A line of the command's.
enum Answer {
    Line(Vec<u8>),
    TooLong,
}

/// A command that was started. It is killed when this is dropped.
#[derive(Debug)]
struct Running {
    group: ProcessGroup,
    /// Lines for its input; none once it is closed.
    input: Option<Sender<Vec<u8>>>,
    answers: Receiver<Answer>,
    messages: Arc<Mutex<Vec<u8>>>,
    listener: Option<JoinHandle<()>>,
    /// Row and response of the last score.
    last: (usize, usize),
    /// The time that a score of the last batch took.
    pace: Duration,
}

impl Running {
    fn start(run: &[String]) -> std::io::Result<Self> {
        let program = find_program(run).map_err(std::io::Error::other)?;
        let mut command = Command::new(program);
        command.args(&run[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Python would keep its answers back until 8 KiB of them have come together.
        command.env("PYTHONUNBUFFERED", "1");
        let mut group = ProcessGroup::spawn(&mut command)?;
        // A thread for each pipe: whatever the command does first, neither side waits for the other.
        let (input, lines) = channel();
        let (answer, answers) = sync_channel(AHEAD);
        let messages = Arc::new(Mutex::new(Vec::new()));
        if let Some(pipe) = group.child.stdin.take() {
            thread::spawn(move || write_lines(pipe, lines));
        }
        if let Some(pipe) = group.child.stdout.take() {
            thread::spawn(move || read_lines(pipe, answer));
        }
        let listener = group.child.stderr.take().map(|pipe| {
            let messages = messages.clone();
            thread::spawn(move || keep_last(pipe, &messages))
        });
        Ok(Self { group, input: Some(input), answers, messages, listener, last: (0, 0), pace: Duration::ZERO })
    }

    /// Hands lines to the command. One that has closed its input does not get them, which its answers show.
    fn send(&self, lines: Vec<u8>) {
        if let Some(input) = &self.input {
            let _ = input.send(lines);
        }
    }

    /// Says how a command ended that closed its output.
    fn ending(&mut self) -> String {
        match self.group.wait_until(Instant::now() + LAST_WORDS) {
            Some(status) => format!("it ended ({status})"),
            None => "it closed its output".to_owned(),
        }
    }

    /// Quotes the last lines of the command's messages, if it has printed any.
    fn last_words(&mut self) -> String {
        let deadline = Instant::now() + LAST_WORDS;
        let has_ended = self.group.wait_until(Instant::now()).is_some();
        while has_ended && self.listener.as_ref().is_some_and(|it| !it.is_finished()) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
        let messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&messages);
        let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
        let last = &lines[lines.len().saturating_sub(QUOTED_LINES)..];
        if last.is_empty() {
            String::new()
        } else {
            format!("; its messages end with: {}", one_line(&last.join(" / ")))
        }
    }
}

fn write_lines(mut pipe: ChildStdin, lines: Receiver<Vec<u8>>) {
    // A command that reads no more ends the writing.
    while let Ok(lines) = lines.recv() {
        if pipe.write_all(&lines).and_then(|()| pipe.flush()).is_err() {
            return;
        }
    }
}

fn read_lines(pipe: ChildStdout, answers: SyncSender<Answer>) {
    let mut pipe = BufReader::new(pipe);
    loop {
        let mut line = Vec::new();
        let read = pipe.by_ref().take(LONGEST_LINE + 1).read_until(b'\n', &mut line);
        if !matches!(read, Ok(1..)) {
            return;
        }
        let is_too_long = line.len() as u64 > LONGEST_LINE;
        while line.last().is_some_and(u8::is_ascii_whitespace) {
            line.pop();
        }
        let answer = if is_too_long { Answer::TooLong } else { Answer::Line(line) };
        // Nothing is read from a command whose answers nothing waits for.
        if answers.send(answer).is_err() || is_too_long {
            return;
        }
    }
}

fn keep_last(mut pipe: ChildStderr, messages: &Mutex<Vec<u8>>) {
    let mut part = [0; 1024];
    while let Ok(read @ 1..) = pipe.read(&mut part) {
        let mut messages = messages.lock().unwrap_or_else(PoisonError::into_inner);
        messages.extend_from_slice(&part[..read]);
        let excess = messages.len().saturating_sub(KEPT);
        messages.drain(..excess);
    }
}
