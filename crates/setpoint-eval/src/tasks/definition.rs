//! Everything that is to be known of a task.

use std::collections::BTreeMap;
use std::path::Path;

use setpoint_data::Row;

use super::doc::{Gold, TaskDoc, TaskMode};
use super::extract::{self, Extracted};
use super::prompt::lettered;
use crate::error::Error;

/// A task: its data, its prompts and its grades. What the methods do by default is what most multiple-choice tasks of the
/// harness do.
pub(super) trait Definition: Sync {
    /// Returns the name in lm-evaluation-harness.
    fn name(&self) -> &'static str;

    /// Returns the name of the benchmark in a text. Tasks of one benchmark share it.
    fn title(&self) -> &'static str;

    /// Returns what is asked and where it comes from, in a few words.
    fn about(&self) -> &'static str;

    /// Returns whether the task is asked when no tasks are named. A new task is not, so that commands without `--tasks` go
    /// on measuring the same.
    fn by_default(&self) -> bool {
        false
    }

    /// Returns the hub's data set that the harness reads.
    fn published(&self) -> Published;

    /// Returns the task's files in a folder of data sets.
    fn files(&self) -> Files;

    /// Returns the columns without which a published row is no example.
    fn columns(&self) -> &'static [&'static str];

    /// Returns whether a row has the columns of another form in which the task's data are found.
    fn is_rewrapped(&self, row: &Row) -> bool {
        row.contains_key("instruction")
    }

    /// Reads a row; `None` if it does not tell which choice is right.
    fn parse(&self, row: &Row) -> Result<Option<Parsed>, String>;

    /// Returns how the task is divided into subjects.
    fn subjects(&self) -> Option<Subjects> {
        None
    }

    /// Returns the number of few-shot examples unless told otherwise.
    fn default_shots(&self, _mode: TaskMode) -> usize {
        0
    }

    /// Returns whether few-shot examples are the first of their split, rather than drawn from it.
    fn shows_first_shots(&self) -> bool {
        false
    }

    /// Returns the question as it is put to a model whose likeliest choice counts: the harness's `doc_to_text`.
    fn ask(&self, doc: &TaskDoc) -> String {
        format!("Question: {}\nAnswer:", doc.question)
    }

    /// Returns the question as it is put to a model that thinks step by step.
    fn ask_step_by_step(&self, doc: &TaskDoc) -> String {
        // The form of `mmlu_flan_cot_zeroshot`.
        let choices = lettered(doc, " ", |letter| format!("({letter}) "));
        format!("Q: {}\n{choices}\nA: Let's think step by step.", doc.question.trim())
    }

    /// Returns the question with each choice put into it, if the choices are part of the context and the continuation is the
    /// same for all.
    fn contexts(&self, _doc: &TaskDoc) -> Option<Vec<String>> {
        None
    }

    /// Returns the continuation of a choice.
    fn target(&self, doc: &TaskDoc, index: usize) -> String {
        doc.choices[index].clone()
    }

    /// Finds the answer in a generated text.
    fn extract(&self, _mode: TaskMode, choices: &[String], text: &str) -> Extracted {
        extract::choice(choices, text)
    }

    /// Returns whether `acc_norm` is reported next to `acc`.
    fn has_normalized_accuracy(&self) -> bool {
        false
    }
}

/// A row as a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parsed {
    /// The question, without the choices.
    pub question: String,
    /// The choices; none if an answer is generated.
    pub choices: Vec<String>,
    /// The right answer.
    pub gold: Gold,
}

/// A data set of the hub.
pub(super) struct Published {
    /// Its id.
    pub id: &'static str,
    /// Names of a folder that holds a copy, the usual one last.
    pub folders: &'static [&'static str],
    /// The subset.
    pub subset: Option<&'static str>,
    /// The split whose examples are asked.
    pub split: &'static str,
    /// The split of few-shot examples.
    pub shots: &'static str,
}

/// A task's files in a folder of data sets.
pub(super) enum Files {
    /// `STEM_SPLIT` as `.jsonl`, `.json` or `.parquet`, few-shot examples in `STEM_train`.
    Split {
        /// The name without split and ending.
        stem: &'static str,
        /// The split that is asked.
        split: &'static str,
    },
    /// Files of another form.
    Own {
        /// The files as a pattern, for help.
        pattern: &'static str,
        /// The files in words, for errors.
        described: &'static str,
        /// Reads them, if the folder has them.
        read: fn(&Path) -> Result<Option<Examples>, Error>,
    },
}

/// Examples, and few-shot examples by subject.
pub(super) type Examples = (Vec<TaskDoc>, BTreeMap<String, Vec<TaskDoc>>);

/// The division of a task into subjects.
pub(super) struct Subjects {
    /// The column that names a row's subject.
    pub column: &'static str,
    /// A subset that is no subject.
    pub no_subject: &'static str,
    /// Returns the sentence that precedes the prompts of a subject.
    pub describe: fn(&str) -> String,
}

/// Returns the text in a column.
pub(super) fn text<'a>(row: &'a Row, column: &str) -> Result<&'a str, String> {
    row.get(column).and_then(serde_json::Value::as_str).ok_or_else(|| format!("expected a text in `{column}`"))
}

/// Returns the list of texts in a value.
pub(super) fn texts(value: Option<&serde_json::Value>, column: &str) -> Result<Vec<String>, String> {
    let list =
        value.and_then(|v| v.as_array()).and_then(|list| list.iter().map(|v| v.as_str().map(str::to_owned)).collect());
    list.ok_or_else(|| format!("expected a list of texts in `{column}`"))
}

/// Returns the index of the choice that equals `answer`.
pub(super) fn position(choices: &[String], answer: &str) -> Result<usize, String> {
    let found = choices.iter().position(|c| c == answer);
    found.ok_or_else(|| format!("the answer `{answer}` is none of the choices {choices:?}"))
}
