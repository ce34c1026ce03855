//! Tasks by their names.

use std::borrow::Cow;
use std::fmt;
use std::sync::LazyLock;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use setpoint_data::{Choice, choice_schema, deserialize_choice};

use super::TASKS;
use super::definition::{Definition, Files};
use super::doc::TaskMode;

/// A task benchmark.
///
/// ```
/// use setpoint_eval::Task;
///
/// assert_eq!(Task::named("arc_easy").unwrap().hub_id(), "allenai/ai2_arc");
/// assert_eq!(Task::named("arc"), None);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Task(usize);

impl Task {
    /// Returns every task.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..TASKS.len()).map(Self)
    }

    /// Returns the tasks that are asked when none are named.
    pub fn by_default() -> impl Iterator<Item = Self> {
        Self::all().filter(|task| task.definition().by_default())
    }

    /// Returns the task of a name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::all().find(|task| task.name() == name)
    }

    /// Returns the name in lm-evaluation-harness.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.definition().name()
    }

    /// Returns the name of the benchmark in a text. Tasks of one benchmark share it.
    #[must_use]
    pub fn title(self) -> &'static str {
        self.definition().title()
    }

    /// Returns what is asked and where it comes from, in a few words.
    #[must_use]
    pub fn about(self) -> &'static str {
        self.definition().about()
    }

    /// Returns the number of few-shot examples unless told otherwise, as in the harness.
    #[must_use]
    pub fn default_shots(self, mode: TaskMode) -> usize {
        self.definition().default_shots(mode)
    }

    /// Returns whether `acc_norm` is reported next to `acc`.
    #[must_use]
    pub fn has_normalized_accuracy(self) -> bool {
        self.definition().has_normalized_accuracy()
    }

    /// Returns the hub's data set that lm-evaluation-harness 0.4.13 reads.
    #[must_use]
    pub fn hub_id(self) -> &'static str {
        self.definition().published().id
    }

    /// Returns the usual name of a folder with a copy of the hub's data set.
    #[must_use]
    pub fn folder(self) -> &'static str {
        self.definition().published().folders.last().copied().unwrap_or_default()
    }

    /// Returns the file that [`TaskSet::read`](super::TaskSet::read) looks for, or a pattern of several.
    #[must_use]
    pub fn file(self) -> String {
        match self.definition().files() {
            Files::Split { stem, split } => format!("{stem}_{split}.jsonl"),
            Files::Own { pattern, .. } => pattern.to_owned(),
        }
    }

    pub(super) fn definition(self) -> &'static dyn Definition {
        TASKS[self.0]
    }
}

impl Choice for Task {
    const TYPE: &'static str = "Task";

    fn names() -> &'static [&'static str] {
        static NAMES: LazyLock<Vec<&'static str>> = LazyLock::new(|| Task::all().map(Task::name).collect());
        &NAMES
    }

    fn named(name: &str) -> Option<Self> {
        Self::named(name)
    }
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Task({})", self.name())
    }
}

impl Serialize for Task {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl JsonSchema for Task {
    fn schema_name() -> Cow<'static, str> {
        Self::TYPE.into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        choice_schema::<Self>()
    }
}

impl<'de> Deserialize<'de> for Task {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize_choice(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct() {
        for (i, task) in Task::all().enumerate() {
            assert_eq!(Task::named(task.name()), Some(Task(i)));
            assert_eq!(serde_json::from_value::<Task>(serde_json::to_value(task).unwrap()).unwrap(), task);
        }
    }

    #[test]
    fn the_docs_list_all_tasks() {
        let code =
            |names: &[&str], between: &str| names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(between);
        let mut table = String::from(
            "| task | asks | hub id with `--data hub` | subset | split | few-shot | columns | file in `DATA` | or folder |\n\
             |---|---|---|---|---|---|---|---|---|\n",
        );
        for task in Task::all() {
            let published = task.definition().published();
            let subset = code(published.subset.as_slice(), "");
            let subset = if task.definition().subjects().is_some() { subset + ", or the subjects" } else { subset };
            let cells = [
                code(&[task.name()], ""),
                task.about().to_owned(),
                code(&[published.id], ""),
                subset,
                code(&[published.split], ""),
                code(&[published.shots], ""),
                code(task.definition().columns(), ", "),
                code(&[task.file().trim_end_matches(".jsonl")], ""),
                code(published.folders, " or "),
            ];
            table += &format!("| {} |\n", cells.join(" | "));
        }
        let docs = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/EVALUATION.md")).unwrap();
        assert!(docs.contains(&format!("\n\n{table}\n")), "docs/EVALUATION.md must hold this table:\n\n{table}");
    }
}
