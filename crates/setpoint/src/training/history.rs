//! The history of a run: when processes worked on it, what they warned of, and how they ended.
//!
//! `history.jsonl` in the run folder has a line for each event. Nothing in it decides the result, so a run whose history cannot be written
//! goes on, and folders of older versions have none.

use std::fs::{self, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};

use super::mix::DataPart;
use crate::session::{Host, memory};
use crate::visible::shortened;

/// The file of the history.
pub(super) const HISTORY: &str = "history.jsonl";

/// An event in the life of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A process opened the folder.
    Opened,
    /// It begins to train.
    Began {
        /// Steps that are done already.
        step: u64,
        /// Steps of the whole run.
        total_steps: u64,
        /// Training examples: conversations, pairs, or prompts with their responses.
        examples: usize,
        /// Examples of the evaluation data.
        eval_examples: usize,
        /// Parameters of the model.
        parameters: usize,
        /// The parts of the data sets in an epoch, if there are several.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        parts: Vec<DataPart>,
    },
    /// It gave a warning.
    Warned {
        /// The warning.
        message: String,
    },
    /// It ended in an orderly way. A process that was killed leaves no such event.
    Ended {
        /// The way in which it ended.
        ending: Ending,
        /// Steps that are done, if the training got that far.
        step: Option<u64>,
        /// Greatest resident memory of the process so far, bytes, if the system tells; the memory of a GPU is not in it.
        peak_memory: Option<u64>,
    },
}

/// The way in which a training ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// After its last step.
    Finished,
    /// Before its last step, because evaluations no longer improved.
    Early,
    /// Before its last step, because the KL from the reference passed its limit.
    Limit,
    /// On request, to be resumed.
    Stopped,
    /// By an error.
    Failed,
}

/// An event with its time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Entry {
    /// UTC, as in RFC 3339.
    time: String,
    #[serde(flatten)]
    event: Event,
}

/// Notes that a process opened the folder of a run. A new run begins a new history.
pub fn open(folder: &Path, resume: bool) {
    if !resume {
        // What an earlier attempt left, which never made a step. That it cannot be removed shows when it is written.
        let _ = fs::remove_file(folder.join(HISTORY));
    }
    append(folder, Event::Opened);
}

/// Appends an event to the history of the run in a folder. If that fails, it is a warning.
pub fn append(folder: &Path, event: Event) {
    let time = Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true);
    let path = folder.join(HISTORY);
    let written = serde_json::to_string(&Entry { time, event }).map_err(std::io::Error::from).and_then(|line| {
        if let Ok(found) = fs::metadata(&path).map(|found| found.file_type())
            && !found.is_file()
        {
            // Opening a pipe waits for whoever reads it.
            return Err(std::io::Error::other(format!("it is {}, not a file", setpoint_files::kind(found))));
        }
        let mut file = OpenOptions::new().create(true).read(true).append(true).open(&path)?;
        // A process that was killed may have left half a line.
        let mut last = [b'\n'];
        if file.seek(SeekFrom::End(0))? > 0 {
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
        }
        let line = format!("{}{line}\n", if last == [b'\n'] { "" } else { "\n" });
        file.write_all(line.as_bytes())
    });
    if let Err(error) = written {
        log::warn!("cannot write {}: {error}; the training goes on without it", path.display());
    }
}

/// Appends the warnings that the program around the job gave since they were last asked for.
pub(crate) fn append_warnings(folder: &Path, host: &dyn Host) {
    for warning in host.take_warnings() {
        append(folder, Event::Warned { message: shortened(&warning).into_owned() });
    }
}

/// Appends the end of a training.
pub(crate) fn append_end(folder: &Path, ending: Ending, step: Option<u64>) {
    append(folder, Event::Ended { ending, step, peak_memory: memory::peak() });
}

/// The work of one process on a run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Process {
    /// The time at which it opened the folder.
    pub opened: Option<DateTime<Utc>>,
    /// The steps that were done before, and those of the whole run; `None` if it did not begin to train.
    pub steps: Option<(u64, u64)>,
    /// Its end; `None` if it was killed or still works.
    pub end: Option<End>,
}

/// The end of a process.
#[derive(Debug, Clone, PartialEq)]
pub struct End {
    /// Its time.
    pub time: Option<DateTime<Utc>>,
    /// The way in which the training ended.
    pub ending: Ending,
    /// Steps that are done.
    pub step: Option<u64>,
    /// Greatest resident memory of the process, bytes.
    pub peak_memory: Option<u64>,
}

impl Process {
    /// Returns the seconds from opening the folder to the end, if both are known.
    pub fn seconds(&self) -> Option<f64> {
        let spent = self.end.as_ref()?.time?.signed_duration_since(self.opened?);
        Some(spent.num_milliseconds() as f64 / 1000.0).filter(|seconds| *seconds >= 0.0)
    }
}

/// Everything that is known of the processes of a run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct History {
    /// The processes, in the order of time.
    pub processes: Vec<Process>,
    /// Training examples.
    pub examples: Option<usize>,
    /// Examples of the evaluation data.
    pub eval_examples: Option<usize>,
    /// Parameters of the model.
    pub parameters: Option<usize>,
    /// The parts of the data sets in an epoch, if there are several.
    pub parts: Vec<DataPart>,
    /// Warnings, each once.
    pub warnings: Vec<String>,
}

impl History {
    /// Reads the history of the run in a folder; `None` if it has none, as folders of older versions. Damaged lines are skipped.
    pub fn read(folder: &Path) -> Option<Self> {
        /// More events than any run has.
        const MOST: usize = 100_000;
        let text = setpoint_files::read_text(&folder.join(HISTORY)).ok()?;
        let mut history = Self::default();
        for line in text.lines().take(MOST) {
            if let Ok(entry) = serde_json::from_str::<Entry>(line) {
                history.add(entry);
            }
        }
        // A process that was refused, say because its settings differ, never began.
        let began = |process: &Process| process.steps.is_some() || process.end.is_some();
        if history.processes.iter().any(began) {
            history.processes.retain(began);
        }
        Some(history)
    }

    fn add(&mut self, Entry { time, event }: Entry) {
        let time = DateTime::parse_from_rfc3339(&time).ok().map(|time| time.with_timezone(&Utc));
        if event == Event::Opened || self.processes.is_empty() {
            self.processes.push(Process { opened: time, ..Process::default() });
        }
        let Some(process) = self.processes.last_mut() else { return };
        match event {
            Event::Opened => {}
            Event::Began { step, total_steps, examples, eval_examples, parameters, parts } => {
                process.steps = Some((step, total_steps));
                (self.examples, self.eval_examples) = (Some(examples), Some(eval_examples));
                (self.parameters, self.parts) = (Some(parameters), parts);
            }
            Event::Warned { message } if self.warnings.contains(&message) => {}
            Event::Warned { message } => self.warnings.push(message),
            Event::Ended { ending, step, peak_memory } => {
                process.end = Some(End { time, ending, step, peak_memory });
            }
        }
    }

    /// Returns the seconds that all processes took, and whether the time of each is known.
    pub fn seconds(&self) -> (f64, bool) {
        let known: Vec<f64> = self.processes.iter().filter_map(Process::seconds).collect();
        (known.iter().sum(), known.len() == self.processes.len())
    }

    /// Returns the greatest peak memory of the processes, bytes.
    pub fn peak_memory(&self) -> Option<u64> {
        self.processes.iter().filter_map(|process| process.end.as_ref()?.peak_memory).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn began(step: u64) -> Event {
        Event::Began { step, total_steps: 40, examples: 400, eval_examples: 0, parameters: 1000, parts: Vec::new() }
    }

    #[test]
    fn a_killed_and_resumed_run_has_two_processes() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(History::read(dir.path()), None);
        append(dir.path(), Event::Opened);
        append(dir.path(), began(0));
        append(dir.path(), Event::Warned { message: "few steps".into() });
        // Killed while it wrote a line.
        let path = dir.path().join(HISTORY);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("{text}{{\"time\":\"2026-")).unwrap();
        append(dir.path(), Event::Opened);
        append(dir.path(), began(12));
        append(dir.path(), Event::Warned { message: "few steps".into() });
        append(dir.path(), Event::Ended { ending: Ending::Finished, step: Some(40), peak_memory: Some(7) });
        let history = History::read(dir.path()).unwrap();
        let steps: Vec<_> = history.processes.iter().map(|process| process.steps).collect();
        assert_eq!(steps, [Some((0, 40)), Some((12, 40))]);
        assert_eq!(history.processes[0].end, None);
        assert_eq!(history.processes[1].end.as_ref().unwrap().step, Some(40));
        assert_eq!((history.examples, history.peak_memory()), (Some(400), Some(7)));
        assert_eq!(history.warnings, ["few steps"]);
        let (seconds, complete) = history.seconds();
        assert!((0.0..60.0).contains(&seconds) && !complete);
    }

    #[test]
    fn a_process_that_never_began_does_not_count() {
        let dir = tempfile::tempdir().unwrap();
        append(dir.path(), Event::Opened);
        assert_eq!(History::read(dir.path()).unwrap().processes.len(), 1);
        append(dir.path(), began(0));
        append_end(dir.path(), Ending::Finished, Some(40));
        append(dir.path(), Event::Opened);
        let history = History::read(dir.path()).unwrap();
        assert_eq!(history.processes.len(), 1);
        assert!(history.seconds().1 && history.processes[0].end.as_ref().is_some_and(|end| end.step == Some(40)));
    }

    #[test]
    fn times_are_differences_of_the_clock() {
        let mut history = History::default();
        let at = |time: &str, event| Entry { time: time.into(), event };
        history.add(at("2026-11-29T23:59:30.500Z", Event::Opened));
        let end = Event::Ended { ending: Ending::Stopped, step: Some(3), peak_memory: None };
        history.add(at("2026-11-30T00:01:00.750Z", end));
        assert_eq!(history.seconds(), (90.25, true));
        // A clock that was set back says nothing.
        history.add(at("2026-11-30T00:02:00.000Z", Event::Opened));
        history.add(at(
            "2026-11-30T00:01:00.000Z",
            Event::Ended { ending: Ending::Finished, step: None, peak_memory: None },
        ));
        assert_eq!(history.seconds(), (90.25, false));
    }
}
