//! UltraFeedback's `instruction` with four `completions`, each with a response and its scores.

use serde_json::Value;

use super::columns::{Columns, finite, if_used, list, response_text, text, wrong_type};
use super::{Definition, Layout};
use crate::config::{DatasetConfig, UltraFeedbackScore, Uses};
use crate::error::RowProblem;
use crate::record::{Message, Prompt, Response};

pub(super) const FORMAT: Definition = Definition {
    name: "ultrafeedback",
    layouts: &[Layout { needs: &["instruction", "completions"], may_have: &[] }],
    priority: 70,
    about: "one response for each completion, with the score that `data.ultrafeedback_score` names as its reward",
    example: r#"{"instruction": "Sky?", "completions": [{"response": "Blue.", "overall_score": 8.5}]}"#,
    parse,
};

fn parse(row: &mut Columns, uses: Uses, config: &DatasetConfig) -> Result<(Prompt, Vec<Response>), RowProblem> {
    let prompt = Prompt::Messages(vec![Message::user(row.need_text("instruction")?)]);
    let completions = list(row.need_typed("completions")?, "completions")?;
    if completions.is_empty() {
        return Err(RowProblem::NoResponses { column: "completions".into() });
    }
    let score = match config.ultrafeedback_score {
        UltraFeedbackScore::FineGrained => "fine-grained_score",
        UltraFeedbackScore::Overall => "overall_score",
    };
    let used = uses.rewards.applies(completions.len(), false);
    let mut responses = Vec::with_capacity(completions.len());
    for (i, value) in completions.into_iter().enumerate() {
        let column = format!("completions[{i}]");
        let Value::Object(mut fields) = value else {
            return Err(wrong_type(&column, "an object with response and scores", &value));
        };
        let column_text = format!("{column}.response");
        let response = fields.shift_remove("response").unwrap_or(Value::Null);
        let response = response_text(text(response, &column_text)?, &column_text)?;
        let reward = match fields.shift_remove(score) {
            Some(value) => if_used(finite(&value, &format!("{column}.{score}")).map(Some), used)?,
            None => None,
        };
        responses.push(Response { message: Message::assistant(response), reward, label: None });
    }
    if responses.iter().any(|r| r.reward.is_some())
        && let Some(i) = responses.iter().position(|r| r.reward.is_none())
    {
        if used {
            return Err(RowProblem::MissingReward { column: format!("completions[{i}].{score}") });
        }
        responses.iter_mut().for_each(|r| r.reward = None);
    }
    Ok((prompt, responses))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{parse, parse_with};
    use super::*;

    const ROW: &str = r#"{"source": "evol_instruct", "instruction": "Sky?", "models": ["a", "b"], "completions": [
        {"model": "a", "response": "Blue.", "overall_score": 8.5, "fine-grained_score": 4.75, "critique": "Good."},
        {"model": "b", "response": "Green.", "overall_score": 2, "fine-grained_score": 1.5, "critique": "Bad."}]}"#;

    #[test]
    fn scores_serve_as_rewards() {
        let record = parse("ultrafeedback", ROW).unwrap();
        assert_eq!(record.prompt, Prompt::Messages(vec![Message::user("Sky?")]));
        assert_eq!(record.responses, [Response::new("Blue.").rewarded(8.5), Response::new("Green.").rewarded(2.0)]);
        let config =
            DatasetConfig { ultrafeedback_score: UltraFeedbackScore::FineGrained, ..DatasetConfig::new("test") };
        let record = parse_with("ultrafeedback", ROW, &config).unwrap();
        assert_eq!(record.responses.iter().map(|r| r.reward).collect::<Vec<_>>(), [Some(4.75), Some(1.5)]);
    }

    #[test]
    fn a_row_without_completions_is_an_error() {
        let problem = parse("ultrafeedback", r#"{"instruction": "Sky?", "completions": []}"#).unwrap_err();
        assert_eq!(problem, RowProblem::NoResponses { column: "completions".into() });
    }

    #[test]
    fn a_missing_score_is_an_error() {
        let row = ROW.replace(r#""overall_score": 2,"#, "");
        let problem = parse("ultrafeedback", &row).unwrap_err();
        assert_eq!(problem, RowProblem::MissingReward { column: "completions[1].overall_score".into() });
    }
}
