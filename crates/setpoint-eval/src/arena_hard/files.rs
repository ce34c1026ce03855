//! The benchmark's JSON lines: questions, answers, judgments.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::prompts::arena_categories;
use super::style::ArenaStyle;
use super::verdict::ArenaVerdict;
use crate::error::Error;
use crate::json_lines::{check_unique, read_lines};
use crate::judge::ChatMessage;

/// A row of `question.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ArenaQuestion {
    /// Its id.
    pub uid: String,
    /// `hard_prompt` or `creative_writing`.
    pub category: String,
    /// The prompt.
    pub prompt: String,
    /// `subcategory` and whatever else the file holds.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// A message of an answer: the content is a text, or an object with the text under `answer`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ArenaMessage {
    /// `user` or `assistant`.
    pub role: String,
    /// The content.
    pub content: Value,
}

/// A row of `model_answer/MODEL.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ArenaAnswer {
    /// The question.
    pub uid: String,
    /// An identifier of this answer.
    pub ans_id: String,
    /// The model.
    pub model: String,
    /// The prompt and the answer.
    pub messages: Vec<ArenaMessage>,
    /// Seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tstamp: Option<f64>,
    /// The answer's style.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<ArenaStyle>,
    /// Whatever else the file holds.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl ArenaAnswer {
    /// Returns the answer's text.
    #[must_use]
    pub fn text(&self) -> &str {
        self.content().unwrap_or_default()
    }

    fn content(&self) -> Option<&str> {
        let content = &self.messages.last()?.content;
        content.get("answer").unwrap_or(content).as_str()
    }
}

/// One of the two rounds of a judgment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ArenaGame {
    /// The verdict; null if the judge's text holds none.
    #[serde(deserialize_with = "known_label")]
    pub score: Option<ArenaVerdict>,
    /// The judge's answer, under `answer`.
    pub judgment: Value,
    /// The judge's prompt.
    pub prompt: Vec<ChatMessage>,
}

/// A row of `model_judgment/JUDGE/MODEL.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ArenaJudgment {
    /// The question.
    pub uid: String,
    /// Its category.
    pub category: String,
    /// The judge's model.
    pub judge: String,
    /// The model.
    pub model: String,
    /// The model it is compared with.
    pub baseline: String,
    /// The round with the baseline as assistant A, and the one with the model as A; null if the judge gave no answer.
    pub games: Vec<Option<ArenaGame>>,
}

impl ArenaJudgment {
    /// Returns the outcomes of the battles for the model, those of the second round first; `None` unless both rounds have a verdict.
    #[must_use]
    pub fn outcomes(&self) -> Option<Vec<f64>> {
        let score = |round: usize| self.games.get(round)?.as_ref()?.score;
        let (first, second) = (score(0)?, score(1)?);
        let mut outcomes = second.outcomes();
        outcomes.extend(first.outcomes().into_iter().map(|outcome| 1.0 - outcome));
        Some(outcomes)
    }
}

/// Reads a label; a text that is none counts as no verdict.
fn known_label<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<ArenaVerdict>, D::Error> {
    let label = Option::<String>::deserialize(deserializer)?;
    Ok(label.and_then(|label| serde_json::from_value(label.into()).ok()))
}

/// Reads `question.jsonl`.
///
/// # Errors
/// A file that cannot be read, a row of another category, or a question that is there twice.
pub fn read_arena_questions(path: &Path) -> Result<Vec<ArenaQuestion>, Error> {
    let questions: Vec<ArenaQuestion> = read_lines(path)?;
    check_unique(path, &questions, |question| format!("the question {}", question.uid))?;
    let unknown = questions.iter().position(|q| !arena_categories().any(|known| known == q.category));
    match unknown {
        Some(i) => {
            let known: Vec<&str> = arena_categories().collect();
            let found = &questions[i].category;
            Err(Error::row(path, i + 1, format!("the category is `{found}`, expected {}", known.join(" or "))))
        }
        None => Ok(questions),
    }
}

/// Reads the answers of a model.
///
/// # Errors
/// A file that cannot be read, a row without an answer, or a second answer to a question.
pub fn read_arena_answers(path: &Path) -> Result<Vec<ArenaAnswer>, Error> {
    let answers: Vec<ArenaAnswer> = read_lines(path)?;
    check_unique(path, &answers, |answer| format!("{}'s answer to the question {}", answer.model, answer.uid))?;
    match answers.iter().position(|answer| answer.content().is_none()) {
        Some(i) => Err(Error::row(path, i + 1, "the last of `messages` holds no answer")),
        None => Ok(answers),
    }
}

/// Reads judgments of a model.
///
/// # Errors
/// A file that cannot be read, a row without two rounds, or a judgment that is there twice.
pub fn read_arena_judgments(path: &Path) -> Result<Vec<ArenaJudgment>, Error> {
    let judgments: Vec<ArenaJudgment> = read_lines(path)?;
    check_unique(path, &judgments, |judgment| {
        let ArenaJudgment { uid, judge, model, baseline, .. } = judgment;
        format!("{judge}'s judgment of {model} and {baseline} on the question {uid}")
    })?;
    match judgments.iter().position(|judgment| judgment.games.len() != 2) {
        Some(i) => {
            let found = judgments[i].games.len();
            Err(Error::row(path, i + 1, format!("`games` has {found} entries, expected the two rounds")))
        }
        None => Ok(judgments),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn written(rows: &[Value]) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows.jsonl");
        std::fs::write(&path, rows.iter().map(|row| format!("{row}\n")).collect::<String>()).unwrap();
        (dir, path)
    }

    fn judgment(first: Value, second: Value) -> Value {
        let game = |score: Value| json!({"score": score, "judgment": {"answer": "x"}, "prompt": [{"role": "user", "content": "p"}]});
        json!({"uid": "1", "category": "hard_prompt", "judge": "j", "model": "m", "baseline": "b",
            "games": [game(first), game(second)]})
    }

    #[test]
    fn rows_come_out_as_they_went_in() {
        let answer = json!({"uid": "a", "ans_id": "x", "model": "m", "messages": [{"role": "user", "content": "q"},
            {"role": "assistant", "content": {"answer": "yes", "thought": "hm"}}], "tstamp": 1.5, "metadata": {"token_len": 1,
            "header_count": {"h1": 0, "h2": 0, "h3": 0, "h4": 0, "h5": 0, "h6": 0}, "list_count": {"ordered": 0, "unordered": 2},
            "bold_count": {"**": 0, "__": 0}}, "more": 1});
        let (_dir, path) = written(std::slice::from_ref(&answer));
        let read = read_arena_answers(&path).unwrap();
        assert_eq!((read[0].text(), serde_json::to_value(&read[0]).unwrap()), ("yes", answer));
        let row = judgment(json!("A>>B"), Value::Null);
        let (_dir, path) = written(std::slice::from_ref(&row));
        assert_eq!(serde_json::to_value(&read_arena_judgments(&path).unwrap()[0]).unwrap(), row);
        // An older answer is a plain text.
        let plain =
            json!({"uid": "a", "ans_id": "x", "model": "m", "messages": [{"role": "assistant", "content": "yes"}]});
        let (_dir, path) = written(&[plain]);
        assert_eq!(read_arena_answers(&path).unwrap()[0].text(), "yes");
    }

    #[test]
    fn both_rounds_count_for_the_model() {
        let outcomes = |first: &str, second: &str| {
            let row: ArenaJudgment = serde_json::from_value(judgment(json!(first), json!(second))).unwrap();
            row.outcomes()
        };
        // The baseline is A in the first round, the model in the second.
        assert_eq!(outcomes("A>>B", "A>B"), Some(vec![1.0, 0.0, 0.0, 0.0]));
        assert_eq!(outcomes("B>A", "A=B"), Some(vec![0.5, 1.0]));
        assert_eq!(outcomes("A>B", "A>>>B"), None);
    }

    #[test]
    fn rows_that_are_there_twice_are_refused() {
        let question = json!({"uid": "1", "category": "hard_prompt", "prompt": "p"});
        let (_dir, path) = written(&[question.clone(), question]);
        let message = read_arena_questions(&path).unwrap_err().to_string();
        assert!(message.contains("row 2: the question 1 is in row 1 already"), "{message}");
        let answer = |model: &str, text: &str| {
            let messages = json!([{"role": "assistant", "content": text}]);
            json!({"uid": "1", "ans_id": "x", "model": model, "messages": messages})
        };
        let (_dir, path) = written(&[answer("m", "a"), answer("n", "a"), answer("m", "b")]);
        let message = read_arena_answers(&path).unwrap_err().to_string();
        assert!(message.contains("row 3: m's answer to the question 1 is in row 1 already"), "{message}");
        let row = judgment(json!("A>B"), json!("A>B"));
        let (_dir, path) = written(&[row.clone(), row]);
        let message = read_arena_judgments(&path).unwrap_err().to_string();
        assert!(message.contains("row 2: j's judgment of m and b on the question 1 is in row 1 already"), "{message}");
    }

    #[test]
    fn wrong_rows_are_named() {
        let (_dir, path) = written(&[json!({"uid": "1", "category": "math", "prompt": "p"})]);
        let message = read_arena_questions(&path).unwrap_err().to_string();
        assert!(
            message.ends_with("row 1: the category is `math`, expected hard_prompt or creative_writing"),
            "{message}"
        );
        let (_dir, path) = written(&[json!({"uid": "1", "ans_id": "x", "model": "m", "messages": []})]);
        let message = read_arena_answers(&path).unwrap_err().to_string();
        assert!(message.contains("row 1: the last of `messages` holds no answer"), "{message}");
        let mut row = judgment(json!("A>B"), json!("A>B"));
        row["games"] = json!([]);
        let (_dir, path) = written(&[row]);
        let message = read_arena_judgments(&path).unwrap_err().to_string();
        assert!(message.contains("`games` has 0 entries, expected the two rounds"), "{message}");
        let (_dir, path) = written(&[json!({"uid": "1"})]);
        assert!(read_arena_judgments(&path).unwrap_err().to_string().contains("row 1"));
    }
}
