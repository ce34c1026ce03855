//! The tasks' files in a folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use setpoint_data::{DatasetConfig, Hub, Row, read_rows_from};

use super::doc::{Gold, Task, TaskDoc};
use super::{published, rows};
use crate::csv_table::read_records;
use crate::error::Error;

/// The examples of a task.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskSet {
    /// The task.
    pub task: Task,
    /// What is asked.
    pub docs: Vec<TaskDoc>,
    /// Where few-shot examples come from, by subject; under the empty name where there are no subjects.
    pub shots: BTreeMap<String, Vec<TaskDoc>>,
    /// Examples left out because the file does not tell which choice is right.
    pub undecided: usize,
}

impl TaskSet {
    /// Reads a task from a folder of data sets. These are `mmlu/test/SUBJECT_test.csv` and `mmlu/dev/SUBJECT_dev.csv`, and the others as
    /// `.jsonl`, `.json` or `.parquet`: `gsm8k_test`, `ARC-Easy_test`, `ARC-Challenge_test`, `mathqa_test`, `socialiqa_dev`, each with
    /// `_train` beside it where few-shot examples are asked for. Or they are copies of the hub's data sets in folders of their names:
    /// `mmlu`, `gsm8k`, `ai2_arc`, `math_qa`, `social_i_qa` or `siqa`.
    ///
    /// # Errors
    /// A file that is missing, cannot be read, or holds a row that is no example of the task.
    pub fn read(task: Task, dir: &Path, shots: bool) -> Result<Self, Error> {
        if task == Task::Mmlu && dir.join("mmlu/test").is_dir() {
            return read_mmlu(&dir.join("mmlu"));
        }
        let (stem, split) = match task {
            Task::Mmlu => ("mmlu", "test"),
            Task::Gsm8k => ("gsm8k", "test"),
            Task::ArcEasy => ("ARC-Easy", "test"),
            Task::ArcChallenge => ("ARC-Challenge", "test"),
            Task::SocialIqa => ("socialiqa", "dev"),
            Task::Mathqa => ("mathqa", "test"),
        };
        let find = |split: &str| {
            let names = [".jsonl", ".json", ".parquet"].map(|ending| dir.join(format!("{stem}_{split}{ending}")));
            names.into_iter().find(|path| path.is_file())
        };
        let file = find(split).filter(|_| task != Task::Mmlu);
        let Some(path) = file else {
            let folders = published::folders(task);
            let Some(folder) = folders.iter().map(|name| dir.join(name)).find(|path| path.is_dir()) else {
                let files = match task {
                    Task::Mmlu => "mmlu/test with a CSV file for each subject".to_owned(),
                    _ => format!("{stem}_{split}.jsonl, .json or .parquet"),
                };
                let folders = folders.join(" or ");
                let reason = format!("holds neither {files} nor the hub's data set as {folders}, for {}", task.name());
                return Err(Error::file(dir, reason));
            };
            return Self::read_published(task, &folder.to_string_lossy(), shots, &Hub::from_env());
        };
        let of = |path: &Path| DatasetConfig::new(path.to_string_lossy());
        let (docs, undecided) = read_docs(task, &of(&path), &Hub::from_env())?;
        let mut set = Self { task, docs, shots: BTreeMap::new(), undecided };
        if let Some(path) = find("train").filter(|_| shots) {
            set.shots.insert(String::new(), read_docs(task, &of(&path), &Hub::from_env())?.0);
        }
        Ok(set)
    }
}

/// The examples of a file or of a split, and how many do not tell which choice is right.
pub(super) fn read_docs(task: Task, config: &DatasetConfig, hub: &Hub) -> Result<(Vec<TaskDoc>, usize), Error> {
    let (mut docs, mut undecided) = (Vec::new(), 0);
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for row in read_rows_from(config, hub)? {
        let (source, row) = row?;
        let wrong = |reason: String| Error::row(&source.path, source.row + 1, reason);
        let parsed = rows::parse(task, &row).map_err(|reason| wrong(explain(task, &row, reason)))?;
        let subject = match task {
            Task::Mmlu => Some(rows::text(&row, "subject").map_err(wrong)?.to_owned()),
            _ => None,
        };
        let count = seen.entry(subject.clone().unwrap_or_default()).or_default();
        let index = *count;
        *count += 1;
        match parsed {
            Some((question, choices, gold)) => docs.push(TaskDoc { index, subject, question, choices, gold }),
            None => undecided += 1,
        }
    }
    Ok((docs, undecided))
}

/// What is wrong with a row: the columns, if they are not the task's.
fn explain(task: Task, row: &Row, reason: String) -> String {
    let needed = rows::columns(task);
    let missing: Vec<&str> = needed.iter().copied().filter(|column| !row.contains_key(*column)).collect();
    if missing.is_empty() || row.contains_key("instruction") || row.contains_key("options") && task == Task::SocialIqa {
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

fn read_mmlu(dir: &Path) -> Result<TaskSet, Error> {
    let listed = |split: &str| -> Result<Vec<(String, PathBuf)>, Error> {
        let folder = dir.join(split);
        let entries = std::fs::read_dir(&folder).map_err(Error::io("list", &folder))?;
        let ending = format!("_{split}.csv");
        let mut files: Vec<(String, PathBuf)> = entries
            .flatten()
            .filter_map(|e| {
                let name = e.file_name().into_string().ok()?;
                Some((name.strip_suffix(&ending)?.to_owned(), e.path()))
            })
            .collect();
        files.sort();
        Ok(files)
    };
    let files = listed("test")?;
    if files.is_empty() {
        return Err(Error::file(&dir.join("test"), "holds no SUBJECT_test.csv"));
    }
    let mut set = TaskSet { task: Task::Mmlu, docs: Vec::new(), shots: BTreeMap::new(), undecided: 0 };
    for (subject, path) in files {
        set.docs.extend(mmlu_file(&subject, &path)?);
    }
    if dir.join("dev").is_dir() {
        for (subject, path) in listed("dev")? {
            let docs = mmlu_file(&subject, &path)?;
            set.shots.insert(subject, docs);
        }
    }
    Ok(set)
}

/// Columns: question, four choices, the answer as a letter or an index. The first line may name them.
fn mmlu_file(subject: &str, path: &Path) -> Result<Vec<TaskDoc>, Error> {
    let mut docs = Vec::new();
    for (line, record) in read_records(path)?.into_iter().enumerate() {
        if line == 0 && record.get(5).is_some_and(|name| name == "answer") {
            continue;
        }
        let gold = match record.get(5).map(|answer| answer.trim()) {
            Some("0" | "A") => 0,
            Some("1" | "B") => 1,
            Some("2" | "C") => 2,
            Some("3" | "D") => 3,
            other => {
                let reason = format!("expected six columns, the last 0 to 3 or A to D, found {other:?}");
                return Err(Error::row(path, line + 1, reason));
            }
        };
        docs.push(TaskDoc {
            index: docs.len(),
            subject: Some(subject.to_owned()),
            question: record[0].clone(),
            choices: (1..5).map(|i| record[i].clone()).collect(),
            gold: Gold::Choice(gold),
        });
    }
    Ok(docs)
}
