//! The tasks' files in a folder.

use std::collections::BTreeMap;
use std::path::Path;

use setpoint_data::{DatasetConfig, Hub, Row, read_rows_from};

use super::definition::{Files, Parsed, text};
use super::doc::TaskDoc;
use super::task::Task;
use crate::error::Error;

/// The examples of a task.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskSet {
    /// The task.
    pub task: Task,
    /// The examples that are asked.
    pub docs: Vec<TaskDoc>,
    /// The source of few-shot examples, by subject; under the empty name where there are no subjects.
    pub shots: BTreeMap<String, Vec<TaskDoc>>,
    /// Examples left out because the file does not tell which choice is right.
    pub undecided: usize,
}

impl TaskSet {
    /// Reads a task from a folder of data sets: from the file that [`Task::file`] names, which may also end in `.json` or `.parquet`,
    /// with few-shot examples in a file whose name ends in `_train`, if they are asked for. Or from a copy of the hub's data set in a
    /// folder of the name [`Task::folder`].
    ///
    /// # Errors
    /// A file that is missing, cannot be read, or holds a row that is no example of the task.
    pub fn read(task: Task, dir: &Path, shots: bool) -> Result<Self, Error> {
        let definition = task.definition();
        let (stem, split) = match definition.files() {
            Files::Split { stem, split } => (stem, split),
            Files::Own { described, read, .. } => {
                return match read(dir)? {
                    Some((docs, shots)) => Ok(Self { task, docs, shots, undecided: 0 }),
                    None => Self::read_copy(task, dir, shots, described),
                };
            }
        };
        let find = |split: &str| {
            let names = [".jsonl", ".json", ".parquet"].map(|ending| dir.join(format!("{stem}_{split}{ending}")));
            names.into_iter().find(|path| path.is_file())
        };
        let Some(path) = find(split) else {
            return Self::read_copy(task, dir, shots, &format!("{stem}_{split}.jsonl, .json or .parquet"));
        };
        let of = |path: &Path| DatasetConfig::new(path.to_string_lossy());
        let (docs, undecided) = read_docs(task, &of(&path), &Hub::from_env())?;
        let mut set = Self { task, docs, shots: BTreeMap::new(), undecided };
        // A task without a split of its own for few-shot examples takes them from the examples that are asked.
        let published = definition.published();
        let shot_split = if published.shots == published.split { split } else { "train" };
        if let Some(path) = find(shot_split).filter(|_| shots) {
            set.shots.insert(String::new(), read_docs(task, &of(&path), &Hub::from_env())?.0);
        }
        Ok(set)
    }

    /// Reads a copy of the hub's data set, if the folder has one. `files` are those that were looked for in the first place.
    fn read_copy(task: Task, dir: &Path, shots: bool, files: &str) -> Result<Self, Error> {
        let folders = task.definition().published().folders;
        let Some(folder) = folders.iter().map(|name| dir.join(name)).find(|path| path.is_dir()) else {
            let folders = folders.join(" or ");
            let reason = format!("holds neither {files} nor the hub's data set as {folders}, for {}", task.name());
            return Err(Error::file(dir, reason));
        };
        Self::read_published(task, &folder.to_string_lossy(), shots, &Hub::from_env())
    }
}

/// Returns the question of a row that has the columns of a task, whichever it is.
///
/// ```
/// use serde_json::json;
///
/// let row = |row: serde_json::Value| setpoint_eval::question_of(row.as_object().unwrap());
/// assert_eq!(row(json!({"question": "2 + 2?", "answer": "#### 4"})).as_deref(), Some("2 + 2?"));
/// assert_eq!(row(json!({"prompt": "2 + 2?"})), None);
/// ```
#[must_use]
pub fn question_of(row: &Row) -> Option<String> {
    Task::all().find_map(|task| {
        let definition = task.definition();
        let fits = definition.columns().iter().all(|column| row.contains_key(*column));
        let parsed = if fits { definition.parse(row).ok().flatten() } else { None };
        parsed.map(|parsed| parsed.question)
    })
}

/// The examples of a file or of a split, and how many do not tell which choice is right.
pub(super) fn read_docs(task: Task, config: &DatasetConfig, hub: &Hub) -> Result<(Vec<TaskDoc>, usize), Error> {
    let definition = task.definition();
    let (mut docs, mut undecided) = (Vec::new(), 0);
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for row in read_rows_from(config, hub)? {
        let (source, row) = row?;
        let wrong = |reason: String| Error::row(&source.path, source.row + 1, reason);
        let parsed = definition.parse(&row).map_err(|reason| wrong(explain(task, &row, reason)))?;
        let subject = match definition.subjects() {
            Some(subjects) => Some(text(&row, subjects.column).map_err(wrong)?.to_owned()),
            None => None,
        };
        let count = seen.entry(subject.clone().unwrap_or_default()).or_default();
        let index = *count;
        *count += 1;
        match parsed {
            Some(Parsed { question, choices, gold }) => docs.push(TaskDoc { index, subject, question, choices, gold }),
            None => undecided += 1,
        }
    }
    if docs.is_empty() && undecided > 0 {
        let reason = format!("no row tells which choice is right, for {}; use a split with answers", task.name());
        return Err(Error::file(Path::new(&config.path), reason));
    }
    Ok((docs, undecided))
}

/// Explains the problem of a row: the columns, if they are not the task's.
fn explain(task: Task, row: &Row, reason: String) -> String {
    let needed = task.definition().columns();
    let missing: Vec<&str> = needed.iter().copied().filter(|column| !row.contains_key(*column)).collect();
    if missing.is_empty() || task.definition().is_rewrapped(row) {
        return reason;
    }
    let found: Vec<&str> = row.keys().map(String::as_str).collect();
    format!(
        "not the columns of {}: expected {}, found {} (without {})",
        task.name(),
        needed.join(", "),
        found.join(", "),
        missing.join(", ")
    )
}
