//! Messages in either spelling (`role`/`content`, ShareGPT's `from`/`value`), and where the response is in them.

use serde_json::Value;

use super::columns::{Columns, describe, list, response_text, text, wrong_type};
use crate::error::RowProblem;
use crate::record::{Message, Prompt};

/// Text or messages: what stands in `prompt`, `chosen`, `completion` …
pub(super) enum Side {
    Text(String),
    Messages(Vec<Message>),
}

/// A string, a message object, or a list of message objects.
pub(super) fn side(value: Value, column: &str) -> Result<Side, RowProblem> {
    match value {
        Value::String(text) => Ok(Side::Text(text)),
        Value::Array(_) => messages(value, column).map(Side::Messages),
        Value::Object(_) => message(value, column).map(|m| Side::Messages(vec![m])),
        other => Err(wrong_type(column, "text or a list of messages", &other)),
    }
}

/// A list of message objects.
pub(super) fn messages(value: Value, column: &str) -> Result<Vec<Message>, RowProblem> {
    list(value, column)?.into_iter().enumerate().map(|(i, v)| message(v, &format!("{column}[{i}]"))).collect()
}

fn message(value: Value, column: &str) -> Result<Message, RowProblem> {
    let Value::Object(mut fields) = value else {
        return Err(wrong_type(column, "a message (an object with role and content)", &value));
    };
    let sharegpt = fields.contains_key("from") && !fields.contains_key("role");
    let (role_key, content_key) = if sharegpt { ("from", "value") } else { ("role", "content") };
    let role = match fields.shift_remove(role_key) {
        Some(value) => text(value, &format!("{column}.{role_key}"))?,
        None => {
            return Err(RowProblem::WrongType {
                column: column.to_owned(),
                expected: "a message with role and content (or from and value)",
                found: describe(&Value::Object(fields)),
            });
        }
    };
    let role = if sharegpt { sharegpt_role(&role, column)?.to_owned() } else { role };
    let content = match fields.shift_remove(content_key) {
        // A turn that only calls a tool has no text.
        None | Some(Value::Null)
            if ["tool_calls", "function_call"].iter().any(|f| fields.get(*f).is_some_and(|v| !v.is_null())) =>
        {
            String::new()
        }
        None => return Err(wrong_type(&format!("{column}.{content_key}"), "text", &Value::Null)),
        Some(value) => content(value, &format!("{column}.{content_key}"))?,
    };
    // As transformers does: a null field is an absent field. Parquet fills every field of a struct.
    fields.retain(|_, v| !v.is_null());
    Ok(Message { role, content, extra: fields })
}

/// Text, or a list of text parts as multimodal data has them.
fn content(value: Value, column: &str) -> Result<String, RowProblem> {
    let Value::Array(parts) = value else { return text(value, column) };
    let mut joined = String::new();
    for (i, part) in parts.into_iter().enumerate() {
        match part {
            Value::Object(mut fields) if fields.get("type").and_then(Value::as_str) == Some("text") => {
                let part = fields.shift_remove("text").unwrap_or(Value::Null);
                joined.push_str(&text(part, &format!("{column}[{i}].text"))?);
            }
            other => return Err(wrong_type(&format!("{column}[{i}]"), "a part of type text", &other)),
        }
    }
    Ok(joined)
}

fn sharegpt_role<'a>(role: &'a str, column: &str) -> Result<&'a str, RowProblem> {
    Ok(match role {
        "human" | "user" => "user",
        "gpt" | "assistant" | "chatgpt" | "bing" | "bard" | "model" => "assistant",
        "system" => "system",
        "tool" | "observation" | "function_response" => "tool",
        _ => {
            return Err(RowProblem::UnknownName {
                column: format!("{column}.from"),
                what: "role",
                found: role.to_owned(),
                expected: "human, user, gpt, assistant, system, tool or observation",
            });
        }
    })
}

/// The last turn of a conversation must be an assistant turn with text; it is the response, what precedes it the prompt.
pub(super) fn split_last(mut messages: Vec<Message>, column: &str) -> Result<(Prompt, Message), RowProblem> {
    let bad = |reason: String| RowProblem::BadConversation { column: column.to_owned(), reason };
    let Some(last) = messages.pop() else { return Err(bad("no messages".into())) };
    if last.role != "assistant" {
        return Err(bad(format!("the last message is of role `{}`", last.role)));
    }
    let last = answer(last, column)?;
    Ok((conversation_prompt(messages, column)?, last))
}

/// Turns that precede a response: at least one, and the last of them not an assistant turn.
pub(super) fn conversation_prompt(messages: Vec<Message>, column: &str) -> Result<Prompt, RowProblem> {
    let bad = |reason: &str| RowProblem::BadConversation { column: column.to_owned(), reason: reason.into() };
    match messages.last() {
        None => Err(bad("nothing precedes the assistant turn")),
        Some(last) if last.role == "assistant" => Err(bad("two assistant turns follow each other at its end")),
        Some(_) => Ok(Prompt::Messages(messages)),
    }
}

/// An assistant turn that has text (or calls a tool).
pub(super) fn answer(message: Message, column: &str) -> Result<Message, RowProblem> {
    if message.is_empty() {
        return Err(RowProblem::EmptyResponse { column: column.to_owned() });
    }
    Ok(message)
}

/// Takes `instruction` and `input` as a user turn, with one line break between the two, as LLaMA-Factory joins them.
pub(super) fn instruction_turn(row: &mut Columns) -> Result<Message, RowProblem> {
    let instruction = row.need_text("instruction")?;
    Ok(Message::user(match row.take_text("input")?.filter(|input| !input.is_empty()) {
        Some(input) => format!("{instruction}\n{input}"),
        None => instruction,
    }))
}

/// One response: text, or messages that end with the only assistant turn.
pub(super) fn single_answer(side: Side, column: &str) -> Result<Message, RowProblem> {
    match side {
        Side::Text(text) => Ok(Message::assistant(response_text(text, column)?)),
        Side::Messages(mut messages) => match (messages.pop(), messages.is_empty()) {
            (Some(last), true) if last.role == "assistant" => answer(last, column),
            (last, _) => Err(RowProblem::BadConversation {
                column: column.to_owned(),
                reason: match last {
                    None => "no messages".into(),
                    Some(last) if messages.is_empty() => format!("its message is of role `{}`", last.role),
                    Some(_) => format!("expected one assistant message, found {} messages", messages.len() + 1),
                },
            }),
        },
    }
}
