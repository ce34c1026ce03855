//! `prompt` with `completion` or `response`, as text or as messages (trl).

use super::columns::Columns;
use super::conversation::{Side, conversation_prompt, side, single_answer};
use super::single::finish;
use super::{Definition, Layout};
use crate::config::{DatasetConfig, Uses};
use crate::error::RowProblem;
use crate::record::{Message, Prompt, Response};

pub(super) const FORMAT: Definition = Definition {
    name: "prompt_completion",
    layouts: &[
        Layout { needs: &["prompt", "completion"], may_have: &["label"] },
        Layout { needs: &["prompt", "response"], may_have: &["label"] },
    ],
    priority: 20,
    about: "one response; with `label` (true or false) an unpaired preference, with `reward` a scored one (trl)",
    example: r#"{"prompt": "The sky is", "completion": " blue."}"#,
    parse,
};

fn parse(row: &mut Columns, uses: Uses, _: &DatasetConfig) -> Result<(Prompt, Vec<Response>), RowProblem> {
    let column = if row.has("completion") || !row.has("response") { "completion" } else { "response" };
    let prompt = side(row.need_turns("prompt")?, "prompt")?;
    let completion = side(row.need_turns(column)?, column)?;
    let prompt = match (prompt, &completion) {
        (Side::Messages(messages), _) => conversation_prompt(messages, "prompt")?,
        (Side::Text(text), Side::Messages(_)) => Prompt::Messages(vec![Message::user(text)]),
        (Side::Text(text), Side::Text(_)) => Prompt::Text(text),
    };
    let message = single_answer(completion, column)?;
    finish(row, prompt, message, uses)
}

#[cfg(test)]
mod tests {
    use super::super::testing::parse;
    use super::*;
    use crate::record::Label;

    #[test]
    fn labels_are_booleans() {
        let row = |label: &str| format!(r#"{{"prompt": "p", "completion": "c", "label": {label}}}"#);
        let label = |text: &str| parse("prompt_completion", &row(text)).map(|r| r.responses[0].label);
        assert_eq!(label("true"), Ok(Some(Label::Desirable)));
        assert_eq!(label("false"), Ok(Some(Label::Undesirable)));
        assert!(matches!(label("1"), Err(RowProblem::WrongType { column, .. }) if column == "label"));
    }

    #[test]
    fn a_response_column_serves_as_completion() {
        let record = parse("prompt_completion", r#"{"prompt": "p", "response": "r", "reward": 0.25}"#).unwrap();
        assert_eq!(record.responses, [Response::new("r").rewarded(0.25)]);
    }
}
