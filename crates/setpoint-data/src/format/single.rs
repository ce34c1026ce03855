//! One response for a prompt: `messages`, or `prompt` with `completion`; with `label` an unpaired preference.

use serde_json::Value;

use super::columns::{Columns, wrong_type};
use super::conversation::{Side, conversation_prompt, messages, side, single_answer, split_last};
use crate::config::Uses;
use crate::error::RowProblem;
use crate::record::{Label, Message, Prompt, Response};

pub(super) fn parse_messages(row: &mut Columns, uses: Uses) -> Result<(Prompt, Vec<Response>), RowProblem> {
    let turns = messages(row.need("messages")?, "messages")?;
    let (prompt, message) = split_last(turns, "messages")?;
    finish(row, prompt, message, uses)
}

pub(super) fn parse_completion(row: &mut Columns, uses: Uses) -> Result<(Prompt, Vec<Response>), RowProblem> {
    let column = if row.has("completion") || !row.has("response") { "completion" } else { "response" };
    let prompt = side(row.need("prompt")?, "prompt")?;
    let completion = side(row.need(column)?, column)?;
    let prompt = match (prompt, &completion) {
        (Side::Messages(messages), _) => conversation_prompt(messages, "prompt")?,
        (Side::Text(text), Side::Messages(_)) => Prompt::Messages(vec![Message::user(text)]),
        (Side::Text(text), Side::Text(_)) => Prompt::Text(text),
    };
    let message = single_answer(completion, column)?;
    finish(row, prompt, message, uses)
}

/// A prompt without a response.
pub(super) fn parse_prompt(row: &mut Columns) -> Result<Prompt, RowProblem> {
    match side(row.need("prompt")?, "prompt")? {
        Side::Messages(messages) => conversation_prompt(messages, "prompt"),
        Side::Text(text) => Ok(Prompt::Text(text)),
    }
}

/// Adds the optional label and reward.
pub(super) fn finish(
    row: &mut Columns,
    prompt: Prompt,
    message: Message,
    uses: Uses,
) -> Result<(Prompt, Vec<Response>), RowProblem> {
    let column = if row.has("kto_tag") && !row.has("label") { "kto_tag" } else { "label" };
    let label = row.take_parsed(column, uses.labels.applies(1, false), |value| match value {
        Value::Bool(true) => Ok(Label::Desirable),
        Value::Bool(false) => Ok(Label::Undesirable),
        other => Err(wrong_type(column, "true or false", other)),
    })?;
    let reward = row.take_reward(&["reward", "score"], uses.rewards.applies(1, label.is_some()))?;
    Ok((prompt, vec![Response { message, reward, label }]))
}

#[cfg(test)]
mod tests {
    use super::super::Format;
    use super::super::testing::parse;
    use super::*;

    #[test]
    fn a_prompt_alone_has_no_response() {
        let record =
            parse(Format::Prompts, r#"{"prompt": [{"role": "user", "content": "A?"}], "topic": "letters"}"#).unwrap();
        assert_eq!(record.prompt, Prompt::Messages(vec![Message::user("A?")]));
        assert!(record.responses.is_empty());
        assert_eq!(record.extra["topic"], "letters");
    }

    #[test]
    fn the_last_assistant_turn_is_the_response() {
        let row = r#"{"prompt": "A?", "prompt_id": "f1", "messages": [{"role": "user", "content": "A?"}, {"role": "assistant", "content": "a"},
            {"role": "user", "content": "B?"}, {"role": "assistant", "content": "b"}]}"#;
        let record = parse(Format::Messages, row).unwrap();
        let before = vec![Message::user("A?"), Message::assistant("a"), Message::user("B?")];
        assert_eq!(record.prompt, Prompt::Messages(before));
        assert_eq!(record.responses, [Response::new("b")]);
    }

    #[test]
    fn labels_are_booleans() {
        let row = |label: &str| format!(r#"{{"prompt": "p", "completion": "c", "label": {label}}}"#);
        let label = |text: &str| parse(Format::PromptCompletion, &row(text)).map(|r| r.responses[0].label);
        assert_eq!(label("true"), Ok(Some(Label::Desirable)));
        assert_eq!(label("false"), Ok(Some(Label::Undesirable)));
        assert!(matches!(label("1"), Err(RowProblem::WrongType { column, .. }) if column == "label"));
    }

    #[test]
    fn a_response_column_serves_as_completion() {
        let record = parse(Format::PromptCompletion, r#"{"prompt": "p", "response": "r", "reward": 0.25}"#).unwrap();
        assert_eq!(record.responses, [Response::new("r").rewarded(0.25)]);
    }

    #[test]
    fn a_conversation_must_end_with_the_assistant() {
        let problem = |row: &str| parse(Format::Messages, row).unwrap_err().to_string();
        assert!(problem(r#"{"messages": []}"#).contains("no messages"));
        let text =
            problem(r#"{"messages": [{"role": "assistant", "content": "a"}, {"role": "user", "content": "?"}]}"#);
        assert!(text.contains("the last message is of role `user`"), "{text}");
        let text = problem(r#"{"messages": [{"role": "assistant", "content": "a"}]}"#);
        assert!(text.contains("nothing precedes"), "{text}");
        let text = problem(r#"{"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": ""}]}"#);
        assert!(text.contains("`messages` is empty"), "{text}");
        let text = problem(r#"{"messages": [{"role": "user", "content": 4}, {"role": "assistant", "content": "a"}]}"#);
        assert!(text.contains("`messages[0].content`: expected text, found the number 4"), "{text}");
    }

    #[test]
    fn text_parts_are_joined_and_other_parts_refused() {
        let row = |part: &str| {
            format!(
                r#"{{"messages": [{{"role": "user", "content": [{{"type": "text", "text": "a"}}, {part}]}}, {{"role": "assistant", "content": "c"}}]}}"#
            )
        };
        let record = parse(Format::Messages, &row(r#"{"type": "text", "text": "b"}"#)).unwrap();
        assert_eq!(record.prompt, Prompt::Messages(vec![Message::user("ab")]));
        let problem = parse(Format::Messages, &row(r#"{"type": "image"}"#)).unwrap_err();
        assert!(matches!(problem, RowProblem::WrongType { column, .. } if column == "messages[0].content[1]"));
    }

    #[test]
    fn tool_calls_are_kept_for_the_template() {
        let row = r#"{"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": null, "tool_calls": [{"function": {"name": "f"}}]},
            {"role": "tool", "content": "t", "name": null}, {"role": "assistant", "content": "a"}]}"#;
        let record = parse(Format::Messages, row).unwrap();
        let Prompt::Messages(turns) = &record.prompt else { panic!("a conversation") };
        assert_eq!(turns[1].content, "");
        assert_eq!(turns[1].extra["tool_calls"][0]["function"]["name"], "f");
        assert!(turns[2].extra.is_empty(), "null fields are absent fields");
    }
}
