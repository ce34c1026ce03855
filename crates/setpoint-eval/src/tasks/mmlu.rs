//! MMLU: massive multitask language understanding, 57 subjects with four choices (Hendrycks et al. 2021).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use setpoint_data::Row;

use super::definition::{Definition, Examples, Files, Parsed, Published, Subjects, text, texts};
use super::doc::{Gold, TaskDoc};
use super::prompt::{letter, lettered};
use crate::csv_table::read_records;
use crate::error::Error;

pub(super) struct Mmlu;

impl Definition for Mmlu {
    fn name(&self) -> &'static str {
        "mmlu"
    }

    fn title(&self) -> &'static str {
        "MMLU"
    }

    fn about(&self) -> &'static str {
        "57 subjects, four choices (Hendrycks et al. 2021)"
    }

    fn by_default(&self) -> bool {
        true
    }

    fn published(&self) -> Published {
        // The other subsets are single subjects.
        Published { id: "cais/mmlu", folders: &["mmlu"], subset: Some("all"), split: "test", shots: "dev" }
    }

    fn files(&self) -> Files {
        Files::Own {
            pattern: "mmlu/{dev,test}/*.csv",
            described: "mmlu/test with a CSV file for each subject",
            read: read_tables,
        }
    }

    fn columns(&self) -> &'static [&'static str] {
        &["question", "subject", "choices", "answer"]
    }

    /// As published: `question`, four `choices`, and the index of the right one in `answer`.
    fn parse(&self, row: &Row) -> Result<Option<Parsed>, String> {
        let choices = texts(row.get("choices"), "choices")?;
        if choices.len() != 4 {
            return Err(format!("expected four `choices`, found {}", choices.len()));
        }
        let answer = row.get("answer").unwrap_or(&Value::Null);
        let letter = || ["A", "B", "C", "D"].iter().position(|letter| answer == letter);
        let index = (0..4).find(|i| answer.as_u64() == Some(*i as u64)).or_else(letter);
        let index = index.ok_or_else(|| format!("expected `answer` to be 0 to 3 or A to D, found {answer}"))?;
        Ok(Some(Parsed { question: text(row, "question")?.to_owned(), choices, gold: Gold::Choice(index) }))
    }

    fn subjects(&self) -> Option<Subjects> {
        // One of the hub's subsets is training data.
        Some(Subjects { column: "subject", no_subject: "auxiliary_train", describe })
    }

    fn shows_first_shots(&self) -> bool {
        true
    }

    fn ask(&self, doc: &TaskDoc) -> String {
        let choices = lettered(doc, "\n", |letter| format!("{letter}. "));
        format!("{}\n{choices}\nAnswer:", doc.question.trim())
    }

    fn target(&self, _doc: &TaskDoc, index: usize) -> String {
        letter(index).to_string()
    }
}

fn describe(subject: &str) -> String {
    let subject = subject.replace('_', " ");
    format!("The following are multiple choice questions (with answers) about {subject}.\n\n")
}

/// Reads `mmlu/test/SUBJECT_test.csv` and `mmlu/dev/SUBJECT_dev.csv`.
fn read_tables(root: &Path) -> Result<Option<Examples>, Error> {
    let dir = root.join("mmlu");
    if !dir.join("test").is_dir() {
        return Ok(None);
    }
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
    let (mut docs, mut shots) = (Vec::new(), BTreeMap::new());
    for (subject, path) in files {
        docs.extend(read_table(&subject, &path)?);
    }
    if dir.join("dev").is_dir() {
        for (subject, path) in listed("dev")? {
            let docs = read_table(&subject, &path)?;
            shots.insert(subject, docs);
        }
    }
    Ok(Some((docs, shots)))
}

/// Reads a table with the columns question, four choices, the answer as a letter or an index. The first line may name them.
fn read_table(subject: &str, path: &Path) -> Result<Vec<TaskDoc>, Error> {
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

#[cfg(test)]
mod tests {
    use super::super::{Task, TaskMode, TaskSet};
    use super::*;

    fn doc(index: usize, question: &str, choices: &[&str], gold: Gold, subject: Option<&str>) -> TaskDoc {
        TaskDoc {
            index,
            subject: subject.map(str::to_owned),
            question: question.into(),
            choices: choices.iter().map(|c| (*c).to_owned()).collect(),
            gold,
        }
    }

    #[test]
    fn mmlu_shows_the_first_examples_of_its_own_subject() {
        let subject = Some("high_school_biology");
        let shots = vec![
            doc(0, "one? ", &["a", "b", "c", "d"], Gold::Choice(2), subject),
            doc(1, "two?", &["a", "b", "c", "d"], Gold::Choice(0), subject),
        ];
        let set = TaskSet {
            task: Task::named("mmlu").unwrap(),
            docs: vec![doc(0, " three? ", &["w", "x", "y", "z"], Gold::Choice(1), subject)],
            shots: BTreeMap::from([("high_school_biology".to_owned(), shots)]),
            undecided: 0,
        };
        let request = &set.requests(TaskMode::Likelihood, 1).unwrap()[0];
        assert_eq!(
            request.context,
            "The following are multiple choice questions (with answers) about high school biology.\n\n\
             one?\nA. a\nB. b\nC. c\nD. d\nAnswer: C\n\nthree?\nA. w\nB. x\nC. y\nD. z\nAnswer:"
        );
        assert_eq!(request.continuations, [" A", " B", " C", " D"]);
        let cot = &set.requests(TaskMode::Cot, 0).unwrap()[0];
        assert!(cot.context.ends_with("Q: three?\n(A) w (B) x (C) y (D) z\nA: Let's think step by step."), "{cot:?}");
        assert!(matches!(set.requests(TaskMode::Likelihood, 3), Err(Error::Shots { needed: 3, found: 2, .. })));
    }
}
