//! The tasks' files, as published and as LLM-Adapters re-wraps them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Map, Value};

use super::doc::{Gold, Task, TaskDoc};
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
    /// Reads a task from a folder of data sets: `mmlu/test/SUBJECT_test.csv` and `mmlu/dev/SUBJECT_dev.csv`, and the others as `.jsonl`
    /// or `.json`: `gsm8k_test`, `ARC-Easy_test`, `ARC-Challenge_test`, `mathqa_test`, `socialiqa_dev`, each with `_train` beside it
    /// where few-shot examples are asked for.
    ///
    /// # Errors
    /// A file that is missing, cannot be read, or holds a row that is no example of the task.
    pub fn read(task: Task, dir: &Path) -> Result<Self, Error> {
        if task == Task::Mmlu {
            return read_mmlu(&dir.join("mmlu"));
        }
        let (stem, split) = match task {
            Task::Gsm8k => ("gsm8k", "test"),
            Task::ArcEasy => ("ARC-Easy", "test"),
            Task::ArcChallenge => ("ARC-Challenge", "test"),
            Task::SocialIqa => ("socialiqa", "dev"),
            Task::Mathqa | Task::Mmlu => ("mathqa", "test"),
        };
        let find = |split: &str| {
            [".jsonl", ".json"].iter().map(|e| dir.join(format!("{stem}_{split}{e}"))).find(|p| p.is_file())
        };
        let path = find(split).ok_or_else(|| {
            Error::file(dir, format!("holds neither {stem}_{split}.jsonl nor {stem}_{split}.json, for {}", task.name()))
        })?;
        let (docs, undecided) = read_rows(task, &path)?;
        let mut shots = BTreeMap::new();
        if let Some(path) = find("train") {
            shots.insert(String::new(), read_rows(task, &path)?.0);
        }
        Ok(Self { task, docs, shots, undecided })
    }
}

/// Rows of a JSON array or of JSON lines.
fn rows(path: &Path) -> Result<Vec<Map<String, Value>>, Error> {
    let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
    let rows: Vec<Map<String, Value>> = if text.trim_start().starts_with('[') {
        serde_json::from_str(&text).map_err(|e| Error::file(path, format!("expected an array of objects: {e}")))?
    } else {
        let lines = text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty());
        lines.map(|(i, l)| serde_json::from_str(l).map_err(|e| Error::row(path, i + 1, e))).collect::<Result<_, _>>()?
    };
    if rows.is_empty() { Err(Error::file(path, "holds no rows")) } else { Ok(rows) }
}

fn read_rows(task: Task, path: &Path) -> Result<(Vec<TaskDoc>, usize), Error> {
    let (mut docs, mut undecided) = (Vec::new(), 0);
    for (index, row) in rows(path)?.iter().enumerate() {
        let parsed = match task {
            Task::Gsm8k => gsm8k(row).map(Some),
            Task::ArcEasy | Task::ArcChallenge => arc(row).map(Some),
            Task::SocialIqa => social_iqa(row).map(Some),
            Task::Mathqa | Task::Mmlu => mathqa(row),
        };
        match parsed.map_err(|reason| Error::row(path, index + 1, reason))? {
            Some((question, choices, gold)) => docs.push(TaskDoc { index, subject: None, question, choices, gold }),
            None => undecided += 1,
        }
    }
    Ok((docs, undecided))
}

type Parsed = (String, Vec<String>, Gold);

fn text<'a>(row: &'a Map<String, Value>, key: &str) -> Result<&'a str, String> {
    row.get(key).and_then(Value::as_str).ok_or_else(|| format!("expected a text in `{key}`"))
}

fn texts(value: Option<&Value>, key: &str) -> Result<Vec<String>, String> {
    let list =
        value.and_then(Value::as_array).and_then(|list| list.iter().map(|v| v.as_str().map(str::to_owned)).collect());
    list.ok_or_else(|| format!("expected a list of texts in `{key}`"))
}

/// The choice that equals `answer`.
fn position(choices: &[String], answer: &str) -> Result<usize, String> {
    let found = choices.iter().position(|c| c == answer);
    found.ok_or_else(|| format!("the answer `{answer}` is none of the choices {choices:?}"))
}

fn gsm8k(row: &Map<String, Value>) -> Result<Parsed, String> {
    let answer = text(row, "answer")?;
    if !answer.contains("#### ") {
        return Err("expected `answer` to end in `#### number`".to_owned());
    }
    Ok((text(row, "question")?.to_owned(), Vec::new(), Gold::Solution(answer.to_owned())))
}

/// As published: `question`, `choices.text`, `choices.label`, `answerKey`. Re-wrapped: one text in `instruction`, `answer3` in `answer`.
fn arc(row: &Map<String, Value>) -> Result<Parsed, String> {
    if let Some(choices) = row.get("choices") {
        let options = texts(choices.get("text"), "choices.text")?;
        let labels = texts(choices.get("label"), "choices.label")?;
        let at = position(&labels, text(row, "answerKey")?)?;
        return Ok((text(row, "question")?.to_owned(), options, Gold::Choice(at)));
    }
    let wrapped = text(row, "instruction")?;
    let expected = || "expected `question: …`, then `Answer1: … Answer2: …`, then `Answer format: …`".to_owned();
    let (_, rest) = wrapped.split_once("the correct answer to the question: ").ok_or_else(expected)?;
    let (question, rest) = rest.rsplit_once("\n\nAnswer1: ").ok_or_else(expected)?;
    let (mut rest, format) = rest.rsplit_once("\n\nAnswer format: ").ok_or_else(expected)?;
    let mut choices = Vec::new();
    for number in 2..=format.split('/').count() {
        let (choice, after) = rest.split_once(&format!(" Answer{number}: ")).ok_or_else(expected)?;
        choices.push(choice.to_owned());
        rest = after;
    }
    choices.push(rest.to_owned());
    let number = text(row, "answer")?.strip_prefix("answer").and_then(|n| n.parse::<usize>().ok());
    match number.filter(|n| (1..=choices.len()).contains(n)) {
        Some(number) => Ok((question.to_owned(), choices, Gold::Choice(number - 1))),
        None => Err(format!("expected `answer` to be answer1 to answer{}", choices.len())),
    }
}

/// `context`, `question`, and `answerA` … with `label` from 1 as published, or `options` with the right one in `answer`.
fn social_iqa(row: &Map<String, Value>) -> Result<Parsed, String> {
    let question = format!("{} {}", text(row, "context")?, text(row, "question")?);
    if row.contains_key("options") {
        let choices = texts(row.get("options"), "options")?;
        let gold = position(&choices, text(row, "answer")?)?;
        return Ok((question, choices, Gold::Choice(gold)));
    }
    let choices: Vec<String> =
        ["answerA", "answerB", "answerC"].iter().map(|k| text(row, k).map(str::to_owned)).collect::<Result<_, _>>()?;
    match text(row, "label")?.trim() {
        label @ ("1" | "2" | "3") => Ok((question, choices, Gold::Choice(usize::from(label.as_bytes()[0] - b'1')))),
        other => Err(format!("expected `label` to be 1, 2 or 3, found {other}")),
    }
}

/// As published: `Problem`, `options`, `correct`. Re-wrapped: one text in `instruction`, and in `answer` the number that the right option
/// holds; `None` where no option, or more than one, holds it.
fn mathqa(row: &Map<String, Value>) -> Result<Option<Parsed>, String> {
    if row.contains_key("Problem") {
        let choices = options(text(row, "options")?)?;
        let letter = text(row, "correct")?;
        let index = ["a", "b", "c", "d", "e"].iter().position(|l| *l == letter);
        let index = index.ok_or_else(|| format!("expected `correct` to be a letter from a to e, found {letter}"))?;
        return Ok(Some((text(row, "Problem")?.to_owned(), choices, Gold::Choice(index))));
    }
    let (problem, rest) = text(row, "instruction")?
        .rsplit_once(", The options: ")
        .ok_or_else(|| "expected a problem, then `, The options: a ) …`".to_owned())?;
    let choices = options(rest)?;
    let answer: f64 = text(row, "answer")?.parse().map_err(|_| "expected a number in `answer`".to_owned())?;
    let holds = |choice: &String| numbers(choice).iter().any(|n| (n - answer).abs() <= 1e-9 * answer.abs().max(1.0));
    let right: Vec<usize> = (0..choices.len()).filter(|&i| holds(&choices[i])).collect();
    Ok(match right[..] {
        [index] => Some((problem.to_owned(), choices, Gold::Choice(index))),
        _ => None,
    })
}

/// The harness's `doc_to_choice`.
fn options(list: &str) -> Result<Vec<String>, String> {
    static OPTION: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"[abcd] \) .*?, |e \) .*?$").ok());
    let found = OPTION.iter().flat_map(|r| r.find_iter(list));
    let choices: Vec<String> = found.map(|m| m.as_str()[4..].trim_end_matches([' ', ',']).to_owned()).collect();
    if choices.len() == 5 { Ok(choices) } else { Err(format!("expected five options from a to e, found {list}")) }
}

/// What an option may stand for: its first number with and without digit groups, and a ratio.
fn numbers(option: &str) -> Vec<f64> {
    static NUMBER: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"(?:- ?)?(?:\d+(?:\.\d+)?|\.\d+)").ok());
    static RATIO: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new(r"(\d+(?:\.\d+)?)\s*[/:]\s*(\d+(?:\.\d+)?)").ok());
    let first = |s: &str| NUMBER.as_ref()?.find(s)?.as_str().replace(' ', "").parse::<f64>().ok();
    let ratio = RATIO.as_ref().and_then(|r| r.captures(option)).and_then(|c| {
        let part = |i| c.get(i)?.as_str().parse::<f64>().ok();
        Some(part(1)? / part(2).filter(|d| *d != 0.0)?)
    });
    [first(option), first(&option.replace(',', "")), ratio].into_iter().flatten().collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn row(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn published_and_re_wrapped_rows_are_the_same_example() {
        let published = row(
            json!({"question": "Why: so?", "choices": {"text": ["one", "two."], "label": ["A", "B"]}, "answerKey": "B"}),
        );
        let wrapped = row(json!({
            "instruction": "Please choose the correct answer to the question: Why: so?\n\nAnswer1: one Answer2: two.\n\nAnswer format: answer1/answer2",
            "answer": "answer2"
        }));
        assert_eq!(arc(&published), arc(&wrapped));
        assert_eq!(arc(&wrapped).unwrap().2, Gold::Choice(1));
        assert!(arc(&row(json!({"instruction": "?", "answer": "answer1"}))).is_err());

        let published = row(
            json!({"Problem": "half of 9 ?", "options": "a ) 4 , b ) 4.5 , c ) 5 , d ) 1 / 9 , e ) none", "correct": "d"}),
        );
        let wrapped = row(
            json!({"instruction": "half of 9 ?, The options: a ) 4 , b ) 4.5 , c ) 5 , d ) 1 / 9 , e ) none", "answer": "0.1111111111111111"}),
        );
        assert_eq!(mathqa(&published), mathqa(&wrapped));
        assert_eq!(mathqa(&published).unwrap().unwrap().1, ["4", "4.5", "5", "1 / 9", "none"]);

        let published = row(
            json!({"context": "A met B.", "question": "Why?", "answerA": "x", "answerB": "y", "answerC": "z", "label": "3"}),
        );
        let wrapped =
            row(json!({"context": "A met B.", "question": "Why?", "options": ["x", "y", "z"], "answer": "z"}));
        assert_eq!(social_iqa(&published), social_iqa(&wrapped));
    }

    #[test]
    fn a_number_that_two_options_hold_decides_nothing() {
        let of = |options: &str, answer: &str| {
            mathqa(&row(json!({"instruction": format!("x ?, The options: {options}"), "answer": answer})))
        };
        assert_eq!(of("a ) 20 % , b ) 20 , c ) 3 , d ) 4 , e ) 5", "20.0"), Ok(None));
        assert_eq!(of("a ) 21 , b ) 20 , c ) 3 , d ) 4 , e ) 5", "7.0"), Ok(None));
        let negative = of("a ) - 2 , b ) 2 , c ) 3 , d ) 4 , e ) 5", "-2").unwrap().unwrap();
        assert_eq!(negative.2, Gold::Choice(0));
        assert!(of("a ) 1 , b ) 2", "1").is_err());
    }
}
