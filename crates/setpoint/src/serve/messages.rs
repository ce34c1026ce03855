//! Conversations in requests.

use serde_json::{Map, Value};
use setpoint_data::Message;

use super::error::{Answered, ApiError};
use super::fields::wrong;

/// Reads the turns of a conversation; `name` is their field.
///
/// A turn's content is a text or a list of text parts. Further fields of a turn, such as `name`, go to the chat template.
///
/// # Errors
/// A sentence that names the turn.
pub(super) fn read(name: &str, value: Value) -> Answered<Vec<Message>> {
    let Value::Array(turns) = value else { return Err(wrong(name, "a list of messages", &value)) };
    if turns.is_empty() {
        return Err(ApiError::field(name, format!("`{name}` is empty; expected at least one message")));
    }
    turns.into_iter().enumerate().map(|(i, turn)| message(&format!("{name}[{i}]"), turn)).collect()
}

fn message(name: &str, value: Value) -> Answered<Message> {
    let Value::Object(mut fields) = value else { return Err(wrong(name, "an object with role and content", &value)) };
    let role = match fields.remove("role") {
        Some(Value::String(role)) if !role.is_empty() => role,
        Some(other) => return Err(wrong(&format!("{name}.role"), "a text, such as user", &other)),
        None => return Err(ApiError::field(name, format!("`{name}` has no `role`"))),
    };
    let place = format!("{name}.content");
    let content = match fields.remove("content") {
        Some(Value::String(text)) => text,
        Some(Value::Array(parts)) => {
            parts.into_iter().map(|part| text_of(&place, part)).collect::<Answered<Vec<_>>>()?.concat()
        }
        // A turn that only calls tools has none.
        None | Some(Value::Null) if fields.contains_key("tool_calls") => String::new(),
        Some(other) => return Err(wrong(&place, "a text or a list of text parts", &other)),
        None => return Err(ApiError::field(name, format!("`{name}` has no `content`"))),
    };
    fields.retain(|_, value| !value.is_null());
    Ok(Message { role, content, extra: fields })
}

fn text_of(place: &str, part: Value) -> Answered<String> {
    let text = |mut fields: Map<String, Value>| match (fields.remove("type"), fields.remove("text")) {
        (Some(Value::String(kind)), Some(Value::String(text))) if kind == "text" => Some(text),
        _ => None,
    };
    let found = match &part {
        Value::Object(fields) => text(fields.clone()),
        _ => None,
    };
    found
        .ok_or_else(|| wrong(place, "of parts {\"type\": \"text\", \"text\": …}, as the model reads text alone", &part))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn turns_are_texts_or_lists_of_text_parts() {
        let turns = json!([
            { "role": "system", "content": "Be brief." },
            { "role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "name": "x" },
            { "role": "assistant", "content": null, "tool_calls": [{"id": "1"}], "refusal": null },
        ]);
        let found = read("messages", turns).unwrap();
        assert_eq!((found[0].role.as_str(), found[0].content.as_str()), ("system", "Be brief."));
        assert_eq!((found[1].content.as_str(), &found[1].extra["name"]), ("ab", &json!("x")));
        assert_eq!(found[2].extra.keys().collect::<Vec<_>>(), ["tool_calls"]);
    }

    #[test]
    fn what_is_no_turn_is_refused_with_its_place() {
        for (turns, said) in [
            (json!("hello"), "`messages` must be a list"),
            (json!([]), "`messages` is empty"),
            (json!(["hello"]), "`messages[0]` must be an object"),
            (json!([{"content": "a"}]), "`messages[0]` has no `role`"),
            (json!([{"role": 1, "content": "a"}]), "`messages[0].role` must be a text"),
            (json!([{"role": "user"}]), "`messages[0]` has no `content`"),
            (json!([{"role": "user", "content": null}]), "`messages[0].content` must be a text"),
            (json!([{"role": "user", "content": 5}]), "`messages[0].content` must be a text"),
            (
                json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]),
                "the model reads text alone",
            ),
        ] {
            let error = read("messages", turns.clone()).unwrap_err().body().to_string();
            assert!(error.contains(said), "{turns}: {error}");
        }
    }
}
