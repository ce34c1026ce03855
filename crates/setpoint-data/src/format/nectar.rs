//! Nectar: several answers to a transcript, ranked from 1, the best.

use serde_json::Value;

use super::columns::{Columns, finite, if_used, list, response_text, text, wrong_type};
use super::transcript::turns;
use super::{Definition, Layout};
use crate::config::{DatasetConfig, Uses};
use crate::error::RowProblem;
use crate::record::{Message, Prompt, Response};

pub(super) const FORMAT: Definition = Definition {
    name: "nectar",
    layouts: &[Layout { needs: &["prompt", "answers", "num_responses"], may_have: &[] }],
    priority: 75,
    about: "one response for each of `answers`, with minus its `rank` as its reward (Nectar)",
    example: r#"{"prompt": "\n\nHuman: Sky?\n\nAssistant: ", "answers": [{"answer": "Blue.", "rank": 1}, {"answer": "Green.", "rank": 2}], "num_responses": 2}"#,
    parse,
};

fn parse(row: &mut Columns, uses: Uses, _: &DatasetConfig) -> Result<(Prompt, Vec<Response>), RowProblem> {
    let prompt = row.need_text("prompt")?;
    let prompt = match turns(&prompt) {
        Some(turns) => Prompt::Messages(turns),
        None => Prompt::Text(prompt),
    };
    let answers = list(row.need_typed("answers")?, "answers")?;
    // As many as there are answers.
    row.take("num_responses");
    if answers.is_empty() {
        return Err(RowProblem::NoResponses { column: "answers".into() });
    }
    let used = uses.rewards.applies(answers.len(), false);
    let mut responses = Vec::with_capacity(answers.len());
    for (i, value) in answers.into_iter().enumerate() {
        let column = format!("answers[{i}]");
        let Value::Object(mut fields) = value else {
            return Err(wrong_type(&column, "an object with answer and rank", &value));
        };
        let column_text = format!("{column}.answer");
        let answer = fields.shift_remove("answer").unwrap_or(Value::Null);
        let answer = response_text(text(answer, &column_text)?, &column_text)?;
        let rank = fields.shift_remove("rank").unwrap_or(Value::Null);
        let rank = if_used(finite(&rank, &format!("{column}.rank")).map(Some), used)?;
        responses.push(Response { message: Message::assistant(answer), reward: rank.map(|rank| -rank), label: None });
    }
    if responses.iter().any(|response| response.reward.is_none()) {
        responses.iter_mut().for_each(|response| response.reward = None);
    }
    Ok((prompt, responses))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{parse, parse_with};
    use super::*;

    /// A row as it is published, with texts of our own.
    const ROW: &str = r#"{"prompt": "\n\nHuman: Hi\n\nAssistant: Ho\n\nHuman: Sky?\n\nAssistant: ", "answers": [
        {"answer": "Blue.", "model": "gpt-4", "rank": 1.0}, {"answer": "Green.", "model": "llama", "rank": 3.0},
        {"answer": "Grey.", "model": "mistral", "rank": 2.0}], "turns": 2, "num_responses": 3, "source": ["own"], "good_natured": true}"#;

    #[test]
    fn ranks_are_rewards() {
        let record = parse("nectar", ROW).unwrap();
        let before = vec![Message::user("Hi"), Message::assistant("Ho"), Message::user("Sky?")];
        assert_eq!(record.prompt, Prompt::Messages(before));
        let expected = [("Blue.", -1.0), ("Green.", -3.0), ("Grey.", -2.0)];
        assert_eq!(record.responses, expected.map(|(text, reward)| Response::new(text).rewarded(reward)));
        assert_eq!(record.extra.keys().collect::<Vec<_>>(), ["turns", "source", "good_natured"]);
    }

    #[test]
    fn bad_rows() {
        let row = ROW.replace(r#""rank": 3.0"#, r#""rank": "last""#);
        let problem = parse("nectar", &row).unwrap_err().to_string();
        assert!(problem.starts_with("`answers[1].rank`: expected a number"), "{problem}");
        let texts = DatasetConfig { uses: Uses::TEXT, ..DatasetConfig::new("test") };
        let record = parse_with("nectar", &row, &texts).unwrap();
        assert_eq!(record.responses, ["Blue.", "Green.", "Grey."].map(Response::new), "a job that only reads texts");
        let problem = parse("nectar", &ROW.replace("Green.", "")).unwrap_err();
        assert_eq!(problem, RowProblem::EmptyResponse { column: "answers[1].answer".into() });
        let problem = parse("nectar", r#"{"prompt": "Sky?", "answers": [], "num_responses": 0}"#).unwrap_err();
        assert_eq!(problem, RowProblem::NoResponses { column: "answers".into() });
    }
}
