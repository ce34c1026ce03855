//! `messages`: a conversation that ends with the response (trl, UltraChat-200k, LLaMA-Factory's KTO demo).

use super::columns::Columns;
use super::conversation::{messages, split_last};
use super::single::finish;
use super::{Definition, Layout};
use crate::config::{DatasetConfig, Uses};
use crate::error::RowProblem;
use crate::record::{Prompt, Response};

pub(super) const FORMAT: Definition = Definition {
    name: "messages",
    layouts: &[Layout { needs: &["messages"], may_have: &["label"] }],
    priority: 30,
    about: "the last turn; with `label` (true or false) an unpaired preference (trl; UltraChat-200k)",
    example: r#"{"messages": [{"role": "user", "content": "Sky?"}, {"role": "assistant", "content": "Blue."}]}"#,
    parse,
};

fn parse(row: &mut Columns, uses: Uses, _: &DatasetConfig) -> Result<(Prompt, Vec<Response>), RowProblem> {
    let turns = messages(row.need_typed("messages")?, "messages")?;
    let (prompt, message) = split_last(turns, "messages")?;
    finish(row, prompt, message, uses)
}

#[cfg(test)]
mod tests {
    use super::super::testing::parse;
    use super::*;
    use crate::record::Message;

    #[test]
    fn the_last_assistant_turn_is_the_response() {
        let row = r#"{"prompt": "A?", "prompt_id": "f1", "messages": [{"role": "user", "content": "A?"}, {"role": "assistant", "content": "a"},
            {"role": "user", "content": "B?"}, {"role": "assistant", "content": "b"}]}"#;
        let record = parse("messages", row).unwrap();
        let before = vec![Message::user("A?"), Message::assistant("a"), Message::user("B?")];
        assert_eq!(record.prompt, Prompt::Messages(before));
        assert_eq!(record.responses, [Response::new("b")]);
    }

    #[test]
    fn a_conversation_must_end_with_the_assistant() {
        let problem = |row: &str| parse("messages", row).unwrap_err().to_string();
        assert!(problem(r#"{"messages": []}"#).contains("no messages"));
        let text =
            problem(r#"{"messages": [{"role": "assistant", "content": "a"}, {"role": "user", "content": "?"}]}"#);
        assert!(
            text.contains("the last message is of role `user`") && text.contains("`data.on_bad_row = \"drop\"`"),
            "{text}"
        );
        let text = problem(r#"{"messages": [{"role": "assistant", "content": "a"}]}"#);
        assert!(text.contains("nothing precedes"), "{text}");
        let text = problem(r#"{"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": ""}]}"#);
        assert!(text.contains("`messages` is empty"), "{text}");
        // A template's `trim` leaves nothing of it.
        let text = problem(
            r#"{"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "\u001d\u00a0"}]}"#,
        );
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
        let record = parse("messages", &row(r#"{"type": "text", "text": "b"}"#)).unwrap();
        assert_eq!(record.prompt, Prompt::Messages(vec![Message::user("ab")]));
        let problem = parse("messages", &row(r#"{"type": "image"}"#)).unwrap_err();
        assert!(matches!(problem, RowProblem::WrongType { column, .. } if column == "messages[0].content[1]"));
    }

    #[test]
    fn tool_calls_are_kept_for_the_template() {
        let row = r#"{"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": null, "tool_calls": [{"function": {"name": "f"}}]},
            {"role": "tool", "content": "t", "name": null}, {"role": "assistant", "content": "a"}]}"#;
        let record = parse("messages", row).unwrap();
        let Prompt::Messages(turns) = &record.prompt else { panic!("a conversation") };
        assert_eq!(turns[1].content, "");
        assert_eq!(turns[1].extra["tool_calls"][0]["function"]["name"], "f");
        assert!(turns[2].extra.is_empty(), "null fields are absent fields");
    }
}
