//! The rows of the published data sets.

use std::collections::HashSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use setpoint_data::{Hub, Row, read_rows_from};

use super::ties;
use crate::dataset::dataset_at;
use crate::error::Error;

/// A version of RewardBench.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RewardBenchVersion {
    /// RewardBench: pairs of responses in 23 subsets, which form four sections.
    V1,
    /// RewardBench 2: the best of four responses in five subsets, and ties.
    #[default]
    V2,
}

impl RewardBenchVersion {
    /// Returns the name of the benchmark in a text.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::V1 => "RewardBench",
            Self::V2 => "RewardBench 2",
        }
    }

    /// Returns the hub's data set.
    #[must_use]
    pub fn hub_id(self) -> &'static str {
        match self {
            Self::V1 => "allenai/reward-bench",
            Self::V2 => "allenai/reward-bench-2",
        }
    }

    /// Returns the split that is scored.
    #[must_use]
    pub fn split(self) -> &'static str {
        match self {
            // The `raw` split has the rows that its authors removed.
            Self::V1 => "filtered",
            Self::V2 => "test",
        }
    }
}

/// A prompt with responses, of which the right ones come first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RewardBenchRow {
    /// The row's id: a number, or `ref:NUMBER` and `tied:NUMBER` in the subset of ties.
    pub id: String,
    /// The subset.
    pub subset: String,
    /// The question.
    pub prompt: String,
    /// The responses, the right ones first.
    pub responses: Vec<String>,
    /// The number of right ones.
    pub correct: usize,
}

/// Reads the rows of a version from a file, from the folder of a copy of the data set, or from the hub, `owner/name` or
/// `owner/name@revision`.
///
/// # Errors
/// Data that cannot be found or read, other columns, or no row.
pub fn read_reward_bench(version: RewardBenchVersion, source: &str, hub: &Hub) -> Result<Vec<RewardBenchRow>, Error> {
    let config = dataset_at(source, version.split());
    let mut rows = Vec::new();
    let mut seen = HashSet::new();
    for row in read_rows_from(&config, hub)? {
        let (source, row) = row?;
        let wrong = |reason: String| Error::row(&source.path, source.row + 1, reason);
        let parsed = parse(version, &row).map_err(wrong)?;
        let has_ties = version == RewardBenchVersion::V2 && ties::is_subset(&parsed.subset);
        // Of two rows with one id the score would know the last alone.
        if has_ties && !seen.insert(ties::place(&parsed.id)?) {
            return Err(wrong(format!("the subset `{}` has the id {} twice", parsed.subset, parsed.id)));
        }
        rows.push(parsed);
    }
    if rows.is_empty() {
        return Err(Error::TooFew { what: "rows of RewardBench", found: 0, needed: 1 });
    }
    Ok(rows)
}

fn parse(version: RewardBenchVersion, row: &Row) -> Result<RewardBenchRow, String> {
    let needed = ["id", "subset", "prompt", "chosen", "rejected"];
    let missing: Vec<&str> = needed.into_iter().filter(|column| !row.contains_key(*column)).collect();
    if !missing.is_empty() {
        let found: Vec<&str> = row.keys().map(String::as_str).collect();
        return Err(format!(
            "not the columns of {}: expected {}, found {} (without {})",
            version.title(),
            needed.join(", "),
            found.join(", "),
            missing.join(", ")
        ));
    }
    let id = match &row["id"] {
        Value::String(id) => id.clone(),
        Value::Number(id) => id.to_string(),
        other => return Err(format!("expected a text or a number in `id`, found {other}")),
    };
    let chosen = responses(version, row, "chosen")?;
    let correct = chosen.len();
    if let Some(count) = row.get("num_correct").filter(|count| !count.is_null())
        && count.as_f64() != Some(correct as f64)
    {
        return Err(format!("`num_correct` is {count}, but `chosen` holds {correct}"));
    }
    let responses = [chosen, responses(version, row, "rejected")?].concat();
    let subset = text(row, "subset")?;
    if version == RewardBenchVersion::V2 && ties::is_subset(&subset) {
        ties::place(&id).map_err(|error| error.to_string())?;
    }
    Ok(RewardBenchRow { id, subset, prompt: text(row, "prompt")?, responses, correct })
}

fn text(row: &Row, column: &str) -> Result<String, String> {
    let text = row.get(column).and_then(Value::as_str).map(str::to_owned);
    text.ok_or_else(|| format!("expected a text in `{column}`"))
}

/// Returns the responses in a column: a text in the first version, a list of texts in the second.
fn responses(version: RewardBenchVersion, row: &Row, column: &str) -> Result<Vec<String>, String> {
    match (version, row.get(column)) {
        (RewardBenchVersion::V1, Some(Value::String(text))) => Ok(vec![text.clone()]),
        (RewardBenchVersion::V1, _) => Err(format!(
            "expected a text in `{column}`, as RewardBench has; rows of RewardBench 2 need version = \"v2\""
        )),
        (RewardBenchVersion::V2, Some(Value::Array(list))) if !list.is_empty() => {
            let texts = list.iter().map(|value| value.as_str().map(str::to_owned)).collect::<Option<Vec<String>>>();
            texts.ok_or_else(|| format!("expected a list of texts in `{column}`"))
        }
        (RewardBenchVersion::V2, _) => Err(format!(
            "expected a list of texts in `{column}`, as RewardBench 2 has; rows of RewardBench need version = \"v1\""
        )),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parsed(version: RewardBenchVersion, row: Value) -> Result<RewardBenchRow, String> {
        parse(version, row.as_object().unwrap())
    }

    #[test]
    fn both_versions_are_read_from_their_columns() {
        let first =
            json!({"id": 7, "subset": "hep-go", "prompt": "p", "chosen": "a", "rejected": "b", "chosen_model": "x"});
        let row = parsed(RewardBenchVersion::V1, first.clone()).unwrap();
        assert_eq!((row.id.as_str(), row.responses, row.correct), ("7", vec!["a".to_owned(), "b".to_owned()], 1));
        let second = json!({"id": "tied:3", "subset": "Ties", "prompt": "p", "chosen": ["a", "b"], "rejected": ["c"], "num_correct": 2});
        let row = parsed(RewardBenchVersion::V2, second.clone()).unwrap();
        assert_eq!((row.id.as_str(), row.responses.concat().as_str(), row.correct), ("tied:3", "abc", 2));
        assert!(parsed(RewardBenchVersion::V1, second).unwrap_err().ends_with("need version = \"v2\""));
        assert!(parsed(RewardBenchVersion::V2, first).unwrap_err().ends_with("need version = \"v1\""));
    }

    #[test]
    fn other_columns_are_named() {
        let message = parsed(RewardBenchVersion::V2, json!({"prompt": "p", "chosen": ["a"]})).unwrap_err();
        assert!(message.starts_with("not the columns of RewardBench 2: expected id, subset"), "{message}");
        assert!(message.ends_with("(without id, subset, rejected)"), "{message}");
        let row =
            json!({"id": "1", "subset": "Math", "prompt": "p", "chosen": ["a"], "rejected": ["c"], "num_correct": 2});
        let message = parsed(RewardBenchVersion::V2, row).unwrap_err();
        assert_eq!(message, "`num_correct` is 2, but `chosen` holds 1");
        let row = json!({"id": "1", "subset": "Math", "prompt": "p", "chosen": [], "rejected": ["c"]});
        assert!(parsed(RewardBenchVersion::V2, row).unwrap_err().starts_with("expected a list of texts in `chosen`"));
    }

    #[test]
    fn ids_of_ties_are_checked() {
        let row = |id: &str| json!({"id": id, "subset": "Ties", "prompt": "p", "chosen": ["a"], "rejected": ["c"]});
        assert!(parsed(RewardBenchVersion::V2, row("ref:3")).is_ok());
        let message = parsed(RewardBenchVersion::V2, row("x")).unwrap_err();
        assert!(message.contains("expected ref:NUMBER or tied:NUMBER"), "{message}");
    }

    #[test]
    fn files_are_read_and_empty_ones_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows.jsonl");
        let row = json!({"id": 1, "subset": "hep-go", "prompt": "p", "chosen": "a", "rejected": "b"}).to_string();
        std::fs::write(&path, format!("{row}\n{{\"id\": 2}}\n")).unwrap();
        let hub = Hub::new("http://127.0.0.1:9", dir.path());
        let read = || read_reward_bench(RewardBenchVersion::V1, &path.to_string_lossy(), &hub);
        let message = read().unwrap_err().to_string();
        assert!(message.contains("rows.jsonl, row 2: not the columns of RewardBench:"), "{message}");
        std::fs::write(&path, format!("{row}\n")).unwrap();
        assert_eq!(read().unwrap().len(), 1);
    }

    #[test]
    fn a_prompt_of_ties_has_one_row_of_each_kind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows.jsonl");
        let hub = Hub::new("http://127.0.0.1:9", dir.path());
        let read = |rows: [(&str, &str); 3]| {
            let row = |(subset, id): (&str, &str)| {
                format!("{}\n", json!({"id": id, "subset": subset, "prompt": "p", "chosen": ["a"], "rejected": ["b"]}))
            };
            std::fs::write(&path, rows.map(row).concat()).unwrap();
            let rows = read_reward_bench(RewardBenchVersion::V2, &path.to_string_lossy(), &hub);
            rows.map(|rows| rows.len()).map_err(|error| error.to_string())
        };
        assert_eq!(read([("Ties", "ref:3"), ("Ties", "tied:3"), ("Ties", "ref:4")]), Ok(3));
        assert_eq!(read([("Math", "3"), ("Math", "3"), ("Ties", "ref:3")]), Ok(3), "other rows count one by one");
        let said = read([("Ties", "tied:3"), ("Math", "3"), ("Ties", "tied:03")]).unwrap_err();
        assert!(said.contains("rows.jsonl, row 3: the subset `Ties` has the id tied:03 twice"), "{said}");
    }
}
