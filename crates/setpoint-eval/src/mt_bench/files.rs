//! FastChat's JSON lines: questions, answers, judgments.

use std::path::Path;

use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};
use setpoint_files::words;

use super::verdict::MtWinner;
use crate::error::Error;
use crate::json_lines::{read_lines, read_unmarked};

/// A row of `question.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MtQuestion {
    /// 81 to 160.
    pub question_id: u64,
    /// `writing`, `roleplay`, `reasoning`, `math`, `coding`, `extraction`, `stem` or `humanities`.
    pub category: String,
    /// The user's words, turn by turn.
    pub turns: Vec<String>,
}

/// One of the answers to a question.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MtChoice {
    /// From 0.
    pub index: usize,
    /// The model's words, turn by turn.
    pub turns: Vec<String>,
}

/// A row of `model_answer/MODEL.jsonl`, and of `reference_answer/JUDGE.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MtAnswer {
    /// The question.
    pub question_id: u64,
    /// An identifier of this answer.
    pub answer_id: String,
    /// The model.
    pub model_id: String,
    /// Its answers; the first counts.
    pub choices: Vec<MtChoice>,
    /// `tstamp` and whatever else the file holds.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// An answer that the judge compares with.
pub type MtReference = MtAnswer;

/// A row of `model_judgment/JUDGE_single.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MtSingleJudgment {
    /// The question.
    pub question_id: u64,
    /// The model.
    pub model: String,
    /// The judge's model and the name of the prompt.
    pub judge: (String, String),
    /// The prompt of the judge.
    pub user_prompt: String,
    /// The judge's answer; `$ERROR$` where there is none.
    pub judgment: String,
    /// Its rating; −1 where the answer holds none.
    #[serde(serialize_with = "as_python")]
    pub score: f64,
    /// 1 or 2.
    pub turn: u8,
    /// `tstamp` and whatever else the file holds.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// A row of `model_judgment/JUDGE_pair.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MtPairJudgment {
    /// The question.
    pub question_id: u64,
    /// The first model.
    pub model_1: String,
    /// The second model.
    pub model_2: String,
    /// The winner with the first model shown as assistant A.
    pub g1_winner: MtWinner,
    /// The winner with the second model shown as assistant A.
    pub g2_winner: MtWinner,
    /// The judge's model and the name of the prompt.
    pub judge: (String, String),
    /// The prompt of the judge in the first game.
    #[serde(default)]
    pub g1_user_prompt: String,
    /// The judge's answer.
    #[serde(default)]
    pub g1_judgment: String,
    /// The prompt of the judge in the second game.
    #[serde(default)]
    pub g2_user_prompt: String,
    /// The judge's answer.
    #[serde(default)]
    pub g2_judgment: String,
    /// 1 or 2; older files have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turn: Option<u8>,
    /// `tstamp` and whatever else the file holds.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Whole numbers without a fraction, as Python writes the integers that FastChat parses.
fn as_python<S: Serializer>(score: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if score.fract() == 0.0 && score.abs() < 1e15 {
        serializer.serialize_i64(*score as i64)
    } else {
        serializer.serialize_f64(*score)
    }
}

/// Reads `question.jsonl`.
///
/// # Errors
/// A file that cannot be read, or a row without a turn.
pub fn read_questions(path: &Path) -> Result<Vec<MtQuestion>, Error> {
    let questions: Vec<MtQuestion> = read_lines(path)?;
    match questions.iter().position(|q| q.turns.is_empty()) {
        Some(i) => Err(Error::row(path, i + 1, "the question has no turns")),
        None => Ok(questions),
    }
}

/// Reads answers of a model, or reference answers.
///
/// # Errors
/// A file that cannot be read, or a row without an answer.
pub fn read_answers(path: &Path) -> Result<Vec<MtAnswer>, Error> {
    let answers: Vec<MtAnswer> = read_lines(path)?;
    match answers.iter().position(|a| a.choices.first().is_none_or(|c| c.turns.is_empty())) {
        Some(i) => Err(Error::row(path, i + 1, "`choices` holds no answer")),
        None => Ok(answers),
    }
}

/// Reads single-answer judgments.
///
/// # Errors
/// A file that cannot be read, or a row that is none.
pub fn read_single_judgments(path: &Path) -> Result<Vec<MtSingleJudgment>, Error> {
    read_lines(path)
}

/// Reads pairwise judgments.
///
/// # Errors
/// A file that cannot be read, or a row that is none.
pub fn read_pair_judgments(path: &Path) -> Result<Vec<MtPairJudgment>, Error> {
    read_lines(path)
}

/// Returns whether a judgment file is pairwise, by its first row.
///
/// # Errors
/// A file that cannot be read, or whose first row is no JSON object.
pub fn is_pairwise(path: &Path) -> Result<bool, Error> {
    let text = read_unmarked(path)?;
    let first = text.lines().find(|l| !l.trim().is_empty()).ok_or_else(|| Error::file(path, "holds no rows"))?;
    let row: Map<String, Value> =
        serde_json::from_str(first).map_err(|e| Error::row(path, 1, words::json_in_line(&e)))?;
    Ok(row.contains_key("g1_winner"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_known_by_their_first_row() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (text, pairwise) in [
            ("{\"g1_winner\": \"tie\"}\n", true),
            ("\u{feff}\r\n{\"g1_winner\": \"tie\"}", true),
            ("\n{\"score\": 7}\n{\"g1_winner\": \"tie\"}\n", false),
        ] {
            std::fs::write(file.path(), text).unwrap();
            assert_eq!(is_pairwise(file.path()).unwrap(), pairwise, "{text:?}");
        }
    }
}
