//! The texts of rows and of evaluation sets that are compared.

use std::path::Path;

use serde_json::Value;
use setpoint_data::{DatasetConfig, Error, Format, Message, Prompt, Record, Row, Source, Uses, read_rows};
use setpoint_eval::question_of;

use super::{Compared, DuplicatesConfig};
use crate::failure::{Failure, Outcome};

/// Columns of evaluation sets that hold a text, in the order in which they are looked for.
const COLUMNS: [&str; 6] = ["question", "problem", "query", "turns", "instruction", "text"];

/// Returns the text of a record that is compared.
pub(super) fn of_record(record: &Record, compare: Compared) -> String {
    let responses = record.responses.iter().map(|response| &response.message);
    match &record.prompt {
        // A text without a prompt.
        Prompt::Text(text) if text.is_empty() => of_turns(responses),
        _ if compare == Compared::Prompts => prompt(&record.prompt),
        Prompt::Text(text) => format!("{text}\n{}", of_turns(responses)),
        Prompt::Messages(turns) => of_turns(turns.iter().filter(|turn| turn.role != "system").chain(responses)),
    }
}

/// Returns a prompt as one text: the turns of the user, or the plain text.
fn prompt(of: &Prompt) -> String {
    match of {
        Prompt::Text(text) => text.clone(),
        Prompt::Messages(messages) => of_turns(messages.iter().filter(|message| message.role == "user")),
    }
}

/// Returns the texts of turns, one after the other.
fn of_turns<'t>(turns: impl Iterator<Item = &'t Message>) -> String {
    turns.map(|turn| turn.content.as_str()).collect::<Vec<_>>().join("\n")
}

/// Reads the texts of an evaluation set, with their places.
///
/// # Errors
/// When it cannot be read, or a row has no text.
pub(super) fn of_evaluation(config: &DuplicatesConfig, path: &str) -> Outcome<Vec<(Source, String)>> {
    let mut texts = Vec::new();
    for part in parts(path, &config.against_split) {
        let data = DatasetConfig {
            split: config.against_split.clone(),
            uses: Uses::PROMPT,
            ..DatasetConfig::new(part.as_str())
        };
        let rows =
            read_rows(&data).map_err(|error| Failure::from(error).with_place("`data.split`", "--against-split"))?;
        for row in rows {
            let (source, row) = row?;
            let text = of_row(&source, row, config.against_column.as_deref(), &data)?;
            texts.push((source, text));
        }
    }
    Ok(texts)
}

/// Returns the parts of an evaluation set: `SPLIT/SUBJECT_SPLIT.csv` of a folder with a table for each subject, as of MMLU, else the set
/// itself.
fn parts(path: &str, split: &str) -> Vec<String> {
    let ending = format!("_{split}.csv");
    let entries = std::fs::read_dir(Path::new(path).join(split)).into_iter().flatten().flatten();
    let mut tables: Vec<String> = entries
        .filter_map(|entry| entry.path().to_str().map(str::to_owned))
        .filter(|table| table.ends_with(&ending))
        .collect();
    tables.sort();
    if tables.is_empty() { vec![path.to_owned()] } else { tables }
}

/// Returns the text of a row of an evaluation set: of the column that is named, else the question of a task, the prompt of a known format,
/// or a column that usually holds one.
fn of_row(source: &Source, row: Row, column: Option<&str>, data: &DatasetConfig) -> Outcome<String> {
    if let Some(column) = column {
        return match row.get(column).and_then(text_of) {
            Some(text) => Ok(text),
            None => Err(without_text(source, &row, &format!("no text in the column `{column}`"))),
        };
    }
    if let Some(question) = question_of(&row) {
        return Ok(question);
    }
    // A column of whole texts is the last in the list of those that are looked for.
    if let Some(format) = Format::detect(row.keys().map(String::as_str)).filter(|format| format.name() != "text") {
        let record = format.parse(row, source.clone(), data);
        return match record {
            Ok(record) => Ok(prompt(&record.prompt)),
            Err(problem) => Err(Error::Row { at: source.clone(), problem }.into()),
        };
    }
    match COLUMNS.iter().find_map(|column| text_of(row.get(*column)?)) {
        Some(text) => Ok(text),
        None => Err(without_text(source, &row, "a row of no known evaluation set")),
    }
}

fn without_text(source: &Source, row: &Row, reason: &str) -> Failure {
    let columns: Vec<&str> = row.keys().map(String::as_str).collect();
    Failure::run(format!("{source}: {reason}; its columns are {}", columns.join(", ")))
        .hint("name the column of the text, as in --against-column question")
}

/// Returns the text of a value: a text, or a list of texts such as the turns of MT-Bench.
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) if !parts.is_empty() => {
            let parts: Option<Vec<&str>> = parts.iter().map(Value::as_str).collect();
            Some(parts?.join("\n"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use setpoint_data::Response;

    use super::*;

    fn text(row: Value, column: Option<&str>) -> Outcome<String> {
        let Value::Object(row) = row else { panic!("an object") };
        let source = Source::line(Path::new("test.jsonl"), 0, 1);
        of_row(&source, row, column, &DatasetConfig { uses: Uses::PROMPT, ..DatasetConfig::new("test.jsonl") })
    }

    #[test]
    fn questions_of_tasks_formats_and_usual_columns() {
        for (row, expected) in [
            (json!({"question": "2 + 2?", "answer": "#### 4"}), "2 + 2?"),
            (json!({"question": "Q?", "subject": "law", "choices": ["a", "b", "c", "d"], "answer": 1}), "Q?"),
            (json!({"sentence": "S _.", "option1": "a", "option2": "b", "answer": "1"}), "S _."),
            (json!({"instruction": "Do.", "output": "Done.", "generator": "g", "dataset": "d"}), "Do."),
            (json!({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]}), "Hi"),
            (json!({"question_id": 81, "category": "w", "turns": ["One.", "Two."]}), "One.\nTwo."),
            (json!({"problem": "P", "level": 5}), "P"),
            (json!({"text": "T", "url": "u"}), "T"),
            (json!({"text": "T", "problem": "P"}), "P"),
        ] {
            assert_eq!(text(row.clone(), None).unwrap(), expected, "{row}");
        }
        assert_eq!(text(json!({"question": "Q", "goal": "G"}), Some("goal")).unwrap(), "G");
    }

    #[test]
    fn a_text_without_a_prompt_is_compared_itself() {
        let record = |prompt: &str| Record::new(Prompt::Text(prompt.into()), vec![Response::new("One. Two.")]);
        for compare in [Compared::Prompts, Compared::Rows] {
            assert_eq!(of_record(&record(""), compare), "One. Two.");
        }
        assert_eq!(of_record(&record("P"), Compared::Prompts), "P");
        assert_eq!(of_record(&record("P"), Compared::Rows), "P\nOne. Two.");
    }

    #[test]
    fn a_row_without_text_is_named_with_its_columns() {
        let sentence = |row, column| text(row, column).unwrap_err().to_string();
        let said = sentence(json!({"id": 1, "goal": "G"}), None);
        assert!(said.contains("test.jsonl:1: a row of no known evaluation set; its columns are id, goal"), "{said}");
        assert!(said.contains("--against-column"), "{said}");
        let said = sentence(json!({"id": 1}), Some("id"));
        assert!(said.contains("no text in the column `id`"), "{said}");
    }
}
