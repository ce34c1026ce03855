//! The rows of the published data set, and responses to them.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use setpoint_data::{Hub, Row, read_rows_from};

use super::instruction::IfEvalInstruction;
use super::scores::IfEvalVerdicts;
use crate::dataset::dataset_at;
use crate::error::Error;
use crate::json_lines::read_lines;

/// The split of the published data set, which has no other.
const SPLIT: &str = "train";

/// A prompt with instructions.
#[derive(Debug)]
pub struct IfEvalRow {
    /// The row's number in the data.
    pub key: u64,
    /// The prompt, which states the instructions in words.
    pub prompt: String,
    /// The instructions.
    pub instructions: Vec<IfEvalInstruction>,
}

impl IfEvalRow {
    /// Judges a response, instruction by instruction.
    #[must_use]
    pub fn verdicts(&self, response: &str) -> IfEvalVerdicts {
        let of = |check: fn(&IfEvalInstruction, &str) -> bool| {
            self.instructions.iter().map(|instruction| check(instruction, response)).collect()
        };
        IfEvalVerdicts { strict: of(IfEvalInstruction::is_followed), loose: of(IfEvalInstruction::is_followed_loosely) }
    }
}

/// A response as Google's files have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IfEvalResponse {
    /// The prompt, word for word.
    pub prompt: String,
    /// The response.
    pub response: String,
}

/// Reads the rows from a file, from the folder of a copy of the data set, or from the hub, `owner/name` or `owner/name@revision`.
///
/// # Errors
/// Data that cannot be found or read, other columns, an unknown instruction, wrong arguments, or no row.
pub fn read_ifeval(source: &str, hub: &Hub) -> Result<Vec<IfEvalRow>, Error> {
    let mut rows = Vec::new();
    for row in read_rows_from(&dataset_at(source, SPLIT), hub)? {
        let (source, row) = row?;
        rows.push(parse(&row).map_err(|reason| Error::row(&source.path, source.row + 1, reason))?);
    }
    if rows.is_empty() {
        return Err(Error::TooFew { what: "rows of IFEval", found: 0, needed: 1 });
    }
    Ok(rows)
}

/// Reads responses from JSON lines with `prompt` and `response`.
///
/// # Errors
/// A file that cannot be read, or a row without these.
pub fn read_ifeval_responses(path: &Path) -> Result<Vec<IfEvalResponse>, Error> {
    read_lines(path)
}

fn parse(row: &Row) -> Result<IfEvalRow, String> {
    let needed = ["key", "prompt", "instruction_id_list", "kwargs"];
    let missing: Vec<&str> = needed.into_iter().filter(|column| !row.contains_key(*column)).collect();
    if !missing.is_empty() {
        let found: Vec<&str> = row.keys().map(String::as_str).collect();
        return Err(format!(
            "not the columns of IFEval: expected {}, found {} (without {})",
            needed.join(", "),
            found.join(", "),
            missing.join(", ")
        ));
    }
    let key = row["key"].as_u64().ok_or_else(|| format!("expected a number in `key`, found {}", row["key"]))?;
    let prompt = row["prompt"].as_str().ok_or("expected a text in `prompt`")?.to_owned();
    let names: Option<Vec<&str>> =
        row["instruction_id_list"].as_array().and_then(|list| list.iter().map(Value::as_str).collect());
    let names = names.filter(|names| !names.is_empty()).ok_or("expected a list of names in `instruction_id_list`")?;
    let kwargs: Option<Vec<&Map<String, Value>>> =
        row["kwargs"].as_array().and_then(|list| list.iter().map(Value::as_object).collect());
    let kwargs = kwargs.ok_or("expected a list of objects in `kwargs`")?;
    if names.len() != kwargs.len() {
        return Err(format!(
            "`instruction_id_list` has {} entries and `kwargs` {}, expected as many",
            names.len(),
            kwargs.len()
        ));
    }
    let instructions = names.iter().zip(kwargs).map(|(name, kwargs)| IfEvalInstruction::new(name, kwargs));
    Ok(IfEvalRow { key, prompt, instructions: instructions.collect::<Result<_, _>>()? })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn error(row: Value) -> String {
        parse(row.as_object().unwrap()).unwrap_err()
    }

    #[test]
    fn rows_are_read_with_the_gaps_of_tables() {
        let row = json!({
            "key": 1000,
            "prompt": "Write, briefly.",
            "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"],
            "kwargs": [
                {"num_words": null, "relation": null},
                {"num_words": 3.0, "relation": "less than"},
            ],
        });
        let row = parse(row.as_object().unwrap()).unwrap();
        assert_eq!(
            (row.key, row.instructions.len(), row.instructions[1].name()),
            (1000, 2, "length_constraints:number_words")
        );
        let verdicts = row.verdicts("Sure, here you are:\nso it is");
        assert_eq!((verdicts.strict, verdicts.loose), (vec![false, false], vec![true, false]));
    }

    #[test]
    fn wrong_rows_are_named() {
        let message = error(json!({"prompt": "p", "kwargs": []}));
        assert!(message.starts_with("not the columns of IFEval: expected key, prompt"), "{message}");
        assert!(message.ends_with("(without key, instruction_id_list)"), "{message}");
        let row = |names: Value, kwargs: Value| {
            error(json!({"key": 1, "prompt": "p", "instruction_id_list": names, "kwargs": kwargs}))
        };
        assert!(row(json!([]), json!([])).contains("a list of names in `instruction_id_list`"));
        assert!(row(json!(["a", 1]), json!([{}, {}])).contains("a list of names"));
        assert!(row(json!(["punctuation:no_comma"]), json!(["x"])).contains("a list of objects in `kwargs`"));
        let message = row(json!(["punctuation:no_comma"]), json!([{}, {}]));
        assert_eq!(message, "`instruction_id_list` has 1 entries and `kwargs` 2, expected as many");
        assert!(row(json!(["no_comma"]), json!([{}])).starts_with("unknown instruction `no_comma`"));
        let text = error(json!({"key": "a", "prompt": "p", "instruction_id_list": ["x"], "kwargs": [{}]}));
        assert_eq!(text, "expected a number in `key`, found \"a\"");
    }

    #[test]
    fn files_are_read_and_empty_ones_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows.jsonl");
        let row = json!({"key": 1, "prompt": "p", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]});
        std::fs::write(&path, format!("{row}\n{{\"key\": 2}}\n")).unwrap();
        let hub = Hub::new("http://127.0.0.1:9", dir.path());
        let read = || read_ifeval(&path.to_string_lossy(), &hub);
        let message = read().unwrap_err().to_string();
        assert!(message.contains("rows.jsonl, row 2: not the columns of IFEval"), "{message}");
        std::fs::write(&path, format!("{row}\n")).unwrap();
        assert_eq!(read().unwrap().len(), 1);
        std::fs::write(&path, "{\"prompt\": \"p\"}\n").unwrap();
        let message = read_ifeval_responses(&path).unwrap_err().to_string();
        assert!(message.contains("row 1") && message.contains("response"), "{message}");
    }
}
