//! Alpaca's `instruction`, `input`, `output`, with LLaMA-Factory's `system` and `history`, and preference columns.

use super::columns::{Columns, list, response_text, text, wrong_type};
use super::conversation::{Side, conversation_prompt, instruction_turn};
use super::preference::pair;
use super::single::finish;
use super::{Definition, Layout};
use crate::config::{DatasetConfig, Uses};
use crate::error::RowProblem;
use crate::record::{Message, Prompt, Response};

pub(super) const FORMAT: Definition = Definition {
    name: "alpaca",
    layouts: &[
        Layout { needs: &["instruction", "output"], may_have: &["input"] },
        Layout { needs: &["instruction", "chosen", "rejected"], may_have: &["input"] },
    ],
    priority: 60,
    about: "a user turn and its response, or two labelled responses; `system` and `history` as in LLaMA-Factory",
    example: r#"{"instruction": "Add the numbers.", "input": "1 and 2", "output": "3"}"#,
    parse,
};

fn parse(row: &mut Columns, uses: Uses, _: &DatasetConfig) -> Result<(Prompt, Vec<Response>), RowProblem> {
    let mut messages = Vec::new();
    if let Some(system) = row.take_text("system")?.filter(|s| !s.is_empty()) {
        messages.push(Message::system(system));
    }
    if let Some(history) = row.take_typed("history") {
        for (i, turn) in list(history, "history")?.into_iter().enumerate() {
            let column = format!("history[{i}]");
            let [question, answer] = <[_; 2]>::try_from(list(turn, &column)?).map_err(|found| {
                wrong_type(&column, "a list of two texts (question, answer)", &serde_json::Value::Array(found))
            })?;
            messages.push(Message::user(text(question, &column)?));
            messages.push(Message::assistant(text(answer, &column)?));
        }
    }
    messages.push(instruction_turn(row)?);
    if row.has("chosen") && row.has("rejected") {
        return pair(row, Some(Side::Messages(messages)), uses);
    }
    let output = Message::assistant(response_text(row.need_text("output")?, "output")?);
    let prompt = conversation_prompt(messages, "instruction")?;
    finish(row, prompt, output, uses)
}

#[cfg(test)]
mod tests {
    use super::super::testing::parse;
    use super::*;
    use crate::record::Label;

    #[test]
    fn input_is_appended_where_there_is_one() {
        let prompt = |input: &str| {
            let row = format!(r#"{{"instruction": "Add.", "input": "{input}", "output": "3"}}"#);
            parse("alpaca", &row).unwrap().prompt
        };
        assert_eq!(prompt("1 + 2"), Prompt::Messages(vec![Message::user("Add.\n1 + 2")]));
        assert_eq!(prompt(""), Prompt::Messages(vec![Message::user("Add.")]));
    }

    #[test]
    fn system_and_history_precede() {
        let row = r#"{"instruction": "And 2?", "output": "4", "system": "Double.", "history": [["1?", "2"]]}"#;
        let expected =
            vec![Message::system("Double."), Message::user("1?"), Message::assistant("2"), Message::user("And 2?")];
        assert_eq!(parse("alpaca", row).unwrap().prompt, Prompt::Messages(expected));
    }

    #[test]
    fn chosen_and_rejected_win_over_output() {
        let row =
            r#"{"instruction": "Add.", "input": "", "output": "3", "chosen": "It is 3.", "rejected": "Go away."}"#;
        let record = parse("alpaca", row).unwrap();
        let expected =
            [Response::new("It is 3.").labelled(Label::Chosen), Response::new("Go away.").labelled(Label::Rejected)];
        assert_eq!(record.responses, expected);
        assert_eq!(record.extra["output"], "3", "kept for whoever wants it");
    }

    #[test]
    fn an_empty_output_is_an_error() {
        let problem = parse("alpaca", r#"{"instruction": "Add.", "output": ""}"#).unwrap_err();
        assert_eq!(problem, RowProblem::EmptyResponse { column: "output".into() });
    }
}
