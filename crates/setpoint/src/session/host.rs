//! The interface to the program around a job: what it shows, and when it wants the job to stop.

use std::fmt::Debug;
use std::path::Path;

/// The program that runs jobs: it shows their progress and asks them to stop. A program needs to implement only what it cares about.
///
/// Remarks and warnings do not come here: jobs send them through the `log` crate, at the levels `Info` and `Warn`.
pub trait Host: Debug + Send + Sync {
    /// Begins to show work of `total` items, `start` of which are done; none of it is shown by default.
    fn bar(&self, _what: &str, _start: u64, _total: u64) -> Box<dyn Bar> {
        Box::new(Hidden)
    }

    /// Takes a result of a job that has no file to write to.
    fn print(&self, _result: Printed<'_>) {}

    /// Returns whether [`print`](Self::print) has no reader left, so that work for it alone may end.
    fn is_closed(&self) -> bool {
        false
    }

    /// Returns whether a training should save its step and stop.
    fn should_stop(&self) -> bool {
        false
    }

    /// Learns that a training begins or ends to look at [`should_stop`](Self::should_stop).
    fn watched(&self, _begins: bool) {}

    /// Runs a trial of a search in a process of its own and returns whether it succeeded. By default there is none (`None`), and the trial
    /// runs in this process.
    fn run_trial(&self, _trial: &TrialProcess<'_>) -> Option<std::io::Result<bool>> {
        None
    }

    /// Learns what to do with memory that is free, if it can tell its allocator.
    fn free_memory(&self, _policy: FreeMemory) {}

    /// Returns the warnings since this was last asked, which a run folder notes. By default there are none.
    fn take_warnings(&self) -> Vec<String> {
        Vec::new()
    }

    /// Returns the kinds of devices that the program was built with; a run folder notes them.
    fn device_kinds(&self) -> Vec<&'static str> {
        Vec::new()
    }
}

/// A trial of a search, for a process that calls [`carry_out`](crate::search::carry_out).
#[derive(Debug, Clone, Copy)]
pub struct TrialProcess<'a> {
    /// The trial's run folder, with its settings.
    pub folder: &'a Path,
    /// The part of the held-out rows that it is evaluated on.
    pub part: &'a str,
    /// The folder of values that trials share.
    pub shared: &'a Path,
    /// The file for what the process prints.
    pub log: &'a Path,
    /// The number of threads that it should use, if several trials run at once.
    pub threads: Option<usize>,
}

/// A result that is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Printed<'a> {
    /// Rows of JSON, one a line.
    Json(&'a str),
    /// A model's answer.
    Text(&'a str),
    /// Lines about the results, for people.
    Lines(&'a str),
    /// A table of results, for people.
    Table(&'a TextTable),
}

/// A table of texts. The host decides how it looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextTable {
    /// The rows, the titles of the columns first. A short row ends before the last column.
    pub rows: Vec<Vec<String>>,
    /// True if lines are drawn around its cells.
    pub is_framed: bool,
    /// The first columns, which say what a row is about. A host that folds the table repeats them.
    pub keys: usize,
}

impl TextTable {
    /// Creates a table with lines around its cells.
    pub fn framed(titles: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let mut table = Self { rows: Vec::new(), is_framed: true, keys: 1 };
        table.push(titles);
        table
    }

    /// Creates a table without lines.
    pub fn plain(titles: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { is_framed: false, ..Self::framed(titles) }
    }

    /// Adds a row.
    pub fn push(&mut self, row: impl IntoIterator<Item = impl Into<String>>) {
        self.rows.push(row.into_iter().map(Into::into).collect());
    }
}

/// The treatment of memory that becomes free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FreeMemory {
    /// The system gets it back at once.
    GiveBack,
    /// It is kept for the tensors to come: where they are large, page faults cost more than the arithmetic.
    Keep,
    /// It is kept for a moment: enough for what comes and goes within an operation.
    KeepBriefly,
}

/// A bar that shows how far some work is. Several threads may do the work.
pub trait Bar: Send {
    /// Returns whether the user does not see it.
    fn is_hidden(&self) -> bool;

    /// Shows that `done` items are done.
    fn reach(&self, done: u64);

    /// Shows a text next to the bar, which is never cut off.
    fn message(&self, text: String);

    /// Runs `print`, which prints lines, with the bar out of the way.
    fn above(&self, print: &mut dyn FnMut());

    /// Takes the bar away.
    fn clear(&self);
}

/// A bar that is not shown.
#[derive(Debug, Clone, Copy, Default)]
pub struct Hidden;

impl Bar for Hidden {
    fn is_hidden(&self) -> bool {
        true
    }

    fn reach(&self, _done: u64) {}

    fn message(&self, _text: String) {}

    fn above(&self, print: &mut dyn FnMut()) {
        print();
    }

    fn clear(&self) {}
}

/// A host that shows nothing and never stops a job.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Host for Silent {}
