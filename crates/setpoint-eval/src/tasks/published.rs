//! The hub's data sets of the tasks.

use std::collections::BTreeMap;
use std::path::Path;

use setpoint_data::{DatasetConfig, Error as DataError, Hub};

use super::definition::{Published, Subjects};
use super::doc::TaskDoc;
use super::read::{TaskSet, read_docs};
use super::task::Task;
use crate::error::Error;

/// The hub's own conversion of data sets that are published as a script.
const CONVERTED: &str = "refs/convert/parquet";

impl TaskSet {
    /// Reads a task in the columns and splits of the hub's data set. `source` is the folder of a copy, or a hub id, `owner/name` or
    /// `owner/name@revision`; a data set that holds no files but a script is read as the hub has converted it to Parquet. Few-shot
    /// examples are read where `shots` is set.
    ///
    /// # Errors
    /// A data set or split that is not there, other columns, or a row that is no example of the task.
    ///
    /// ```no_run
    /// use setpoint_data::Hub;
    /// use setpoint_eval::{Task, TaskSet};
    ///
    /// let gsm8k = Task::named("gsm8k").unwrap();
    /// let set = TaskSet::read_published(gsm8k, gsm8k.hub_id(), true, &Hub::from_env())?;
    /// assert_eq!(set.docs.len(), 1319);
    /// # Ok::<(), setpoint_eval::Error>(())
    /// ```
    pub fn read_published(task: Task, source: &str, shots: bool, hub: &Hub) -> Result<Self, Error> {
        let Published { subset, split, shots: shot_split, .. } = task.definition().published();
        let (path, revision) = match source.split_once('@') {
            Some((id, revision)) if !Path::new(source).exists() => (id, Some(revision)),
            _ => (source, None),
        };
        let mut config =
            DatasetConfig { subset: subset.map(str::to_owned), split: split.to_owned(), ..DatasetConfig::new(path) };
        config.revision = revision.map_or(config.revision, str::to_owned);
        let (mut docs, undecided) = match read_docs(task, &config, hub) {
            Err(Error::Data(error)) if lacks(&error) && !Path::new(path).exists() && revision.is_none() => {
                config.revision = CONVERTED.to_owned();
                // Where there is no conversion either, what was found in the first place is the more useful answer.
                read_docs(task, &config, hub).map_err(|_| error)?
            }
            Err(Error::Data(error)) if lacks(&error) && Path::new(path).is_dir() => {
                let Some(subjects) = task.definition().subjects() else { return Err(error.into()) };
                return by_subject(task, &subjects, path, shots, hub)?.ok_or_else(|| error.into());
            }
            read => read?,
        };
        let mut set = Self { task, docs: Vec::new(), shots: BTreeMap::new(), undecided };
        if shots {
            config.split = shot_split.to_owned();
            for doc in read_docs(task, &config, hub)?.0 {
                set.shots.entry(doc.subject.clone().unwrap_or_default()).or_default().push(doc);
            }
        }
        // Stable: the order within a subject is the file's.
        docs.sort_by(|a: &TaskDoc, b: &TaskDoc| a.subject.cmp(&b.subject));
        set.docs = docs;
        Ok(set)
    }
}

/// Returns whether a data set does not hold the files that were asked for.
fn lacks(error: &DataError) -> bool {
    matches!(error, DataError::NoSplit { .. } | DataError::NoSubset { .. } | DataError::NoDataFiles { .. })
}

/// Reads a task from a folder that holds subjects but not the subset of all; `None` if it holds none.
fn by_subject(task: Task, kinds: &Subjects, path: &str, shots: bool, hub: &Hub) -> Result<Option<TaskSet>, Error> {
    let root = Path::new(path);
    let entries = std::fs::read_dir(root).map_err(Error::io("list", root))?.flatten();
    let mut subjects: Vec<String> =
        entries.filter(|e| e.path().is_dir()).filter_map(|e| e.file_name().into_string().ok()).collect();
    subjects.retain(|name| name != kinds.no_subject && !name.starts_with('.'));
    subjects.sort();
    let mut set = TaskSet { task, docs: Vec::new(), shots: BTreeMap::new(), undecided: 0 };
    let Published { split, shots: shot_split, .. } = task.definition().published();
    for subject in subjects {
        let of = |split: &str| DatasetConfig {
            subset: Some(subject.clone()),
            split: split.to_owned(),
            ..DatasetConfig::new(path)
        };
        set.docs.extend(read_docs(task, &of(split), hub)?.0);
        if shots {
            let docs = read_docs(task, &of(shot_split), hub)?.0;
            set.shots.insert(subject, docs);
        }
    }
    Ok((!set.docs.is_empty()).then_some(set))
}
