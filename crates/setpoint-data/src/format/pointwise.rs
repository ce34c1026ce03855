//! `prompt`, `responses`, `rewards`: any number of scored responses for a prompt.

use serde_json::Value;

use super::columns::{Columns, finite, if_used, list, wrong_type};
use super::conversation::{Side, conversation_prompt, side, single_answer};
use super::{Definition, Layout};
use crate::config::{DatasetConfig, Uses};
use crate::error::RowProblem;
use crate::record::{Label, Prompt, Response};

/// The column of the prompt: text or messages.
pub const PROMPT: &str = "prompt";
/// The column of the responses: a list of texts or assistant messages.
pub const RESPONSES: &str = "responses";
/// The column of the rewards: a list of numbers, one for each response.
pub const REWARDS: &str = "rewards";
/// The column of the labels: a list of `chosen`, `rejected`, `desirable`, `undesirable` or null, one for each response.
pub const LABELS: &str = "labels";

pub(super) const FORMAT: Definition = Definition {
    name: "pointwise",
    layouts: &[Layout { needs: &[PROMPT, RESPONSES], may_have: &[REWARDS, LABELS] }],
    priority: 80,
    about: "each of `responses`, with the reward and the label at its place in the lists",
    example: r#"{"prompt": "Sky?", "responses": ["Blue.", "Green."], "rewards": [1.5, -2.0]}"#,
    parse,
};

fn parse(row: &mut Columns, uses: Uses, _: &DatasetConfig) -> Result<(Prompt, Vec<Response>), RowProblem> {
    let prompt = match side(row.need_turns(PROMPT)?, PROMPT)? {
        Side::Text(text) => Prompt::Text(text),
        Side::Messages(messages) => conversation_prompt(messages, PROMPT)?,
    };
    let texts = list(row.need_typed(RESPONSES)?, RESPONSES)?;
    if texts.is_empty() {
        return Err(RowProblem::NoResponses { column: RESPONSES.into() });
    }
    let mut responses = Vec::with_capacity(texts.len());
    for (i, value) in texts.into_iter().enumerate() {
        let column = format!("{RESPONSES}[{i}]");
        let message = single_answer(side(value, &column)?, &column)?;
        responses.push(Response { message, reward: None, label: None });
    }
    let count = responses.len();
    let labels = row.take_parsed(LABELS, uses.labels.applies(count, false), |value| {
        let labels = one_each(value.clone(), LABELS, count)?;
        labels
            .into_iter()
            .enumerate()
            .map(|(i, value)| label(value, &format!("{LABELS}[{i}]")))
            .collect::<Result<Vec<_>, _>>()
    })?;
    // What is written later has other responses, or labels of its own.
    row.take(LABELS);
    for (label, response) in labels.into_iter().flatten().zip(&mut responses) {
        response.label = label;
    }
    let labelled = responses.iter().any(|r| r.label.is_some());
    for (reward, response) in
        rewards(row, count, uses.rewards.applies(count, labelled))?.into_iter().zip(&mut responses)
    {
        response.reward = Some(reward);
    }
    Ok((prompt, responses))
}

/// One reward for each response, or none at all. A file without the column is one that is yet to be scored; a row without it in a file that
/// has it is a mistake.
fn rewards(row: &mut Columns, count: usize, used: bool) -> Result<Vec<f64>, RowProblem> {
    if !row.has_column(REWARDS) {
        return Ok(Vec::new());
    }
    let rewards = match row.take_typed(REWARDS) {
        None => Err(RowProblem::MissingReward { column: REWARDS.into() }),
        Some(rewards) => one_each(rewards, REWARDS, count).and_then(|rewards| {
            rewards.iter().enumerate().map(|(i, value)| finite(value, &format!("{REWARDS}[{i}]"))).collect()
        }),
    };
    Ok(if_used(rewards.map(Some), used)?.unwrap_or_default())
}

fn one_each(value: Value, column: &str, responses: usize) -> Result<Vec<Value>, RowProblem> {
    let items = list(value, column)?;
    if items.len() != responses {
        return Err(RowProblem::LengthMismatch { column: column.to_owned(), responses, found: items.len() });
    }
    Ok(items)
}

fn label(value: Value, column: &str) -> Result<Option<Label>, RowProblem> {
    match value {
        Value::Null => Ok(None),
        Value::String(name) => {
            serde_json::from_value(Value::String(name.clone())).map(Some).map_err(|_| RowProblem::UnknownName {
                column: column.to_owned(),
                what: "label",
                found: name,
                expected: "chosen, rejected, desirable, undesirable or null",
            })
        }
        other => Err(wrong_type(column, "text or null", &other)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::parse;
    use super::*;
    use crate::record::Message;

    fn problem(row: &str) -> RowProblem {
        parse("pointwise", row).unwrap_err()
    }

    #[test]
    fn reads_texts_rewards_and_labels() {
        let record = parse(
            "pointwise",
            r#"{"prompt": "p", "responses": ["a", "b", "c"], "rewards": [1, -0.5, 2e3], "labels": ["chosen", null, "rejected"]}"#,
        )
        .unwrap();
        assert_eq!(record.prompt, Prompt::Text("p".into()));
        let expected = vec![
            Response::new("a").rewarded(1.0).labelled(Label::Chosen),
            Response::new("b").rewarded(-0.5),
            Response::new("c").rewarded(2000.0).labelled(Label::Rejected),
        ];
        assert_eq!(record.responses, expected);
    }

    #[test]
    fn reads_messages() {
        let record = parse(
            "pointwise",
            r#"{"prompt": [{"role": "user", "content": "p"}], "responses": ["a", [{"role": "assistant", "content": "b"}], {"role": "assistant", "content": "c"}]}"#,
        )
        .unwrap();
        assert_eq!(record.prompt, Prompt::Messages(vec![Message::user("p")]));
        assert_eq!(record.responses, ["a", "b", "c"].map(Response::new));
    }

    #[test]
    fn refuses_what_is_not_a_reward() {
        let row = |rewards: &str| format!(r#"{{"prompt": "p", "responses": ["a", "b"], "rewards": {rewards}}}"#);
        assert_eq!(
            problem(&row("[1.0]")),
            RowProblem::LengthMismatch { column: "rewards".into(), responses: 2, found: 1 }
        );
        assert_eq!(problem(&row("[1.0, null]")), RowProblem::MissingReward { column: "rewards[1]".into() });
        assert_eq!(problem(&row("null")), RowProblem::MissingReward { column: "rewards".into() });
        for text in ["NaN", "Infinity", "-inf"] {
            assert_eq!(
                problem(&row(&format!("[\"{text}\", 1]"))),
                RowProblem::NotFinite { column: "rewards[0]".into(), found: text.into() }
            );
        }
        assert!(
            matches!(problem(&row("[\"good\", 1]")), RowProblem::WrongType { column, .. } if column == "rewards[0]")
        );
        assert!(matches!(problem(&row("3.5")), RowProblem::WrongType { column, .. } if column == "rewards"));
    }

    #[test]
    fn refuses_what_is_not_a_response() {
        assert_eq!(
            problem(r#"{"prompt": "p", "responses": ["a", " \n"], "rewards": [1, 2]}"#),
            RowProblem::EmptyResponse { column: "responses[1]".into() }
        );
        assert_eq!(
            problem(r#"{"prompt": "p", "responses": []}"#),
            RowProblem::NoResponses { column: "responses".into() }
        );
        assert!(matches!(
            problem(r#"{"prompt": "p", "responses": [[{"role": "user", "content": "x"}]]}"#),
            RowProblem::BadConversation { column, .. } if column == "responses[0]"
        ));
        assert!(matches!(
            problem(r#"{"prompt": 3, "responses": ["a"]}"#),
            RowProblem::WrongType { column, .. } if column == "prompt"
        ));
    }

    #[test]
    fn refuses_an_unknown_label() {
        assert!(matches!(
            problem(r#"{"prompt": "p", "responses": ["a"], "labels": ["best"]}"#),
            RowProblem::UnknownName { column, found, .. } if column == "labels[0]" && found == "best"
        ));
    }
}
