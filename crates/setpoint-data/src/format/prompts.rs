//! `prompt` alone: rows to generate from.

use super::columns::Columns;
use super::conversation::{Side, conversation_prompt, side};
use super::{Definition, Layout};
use crate::config::{DatasetConfig, Uses};
use crate::error::RowProblem;
use crate::record::{Prompt, Response};

pub(super) const FORMAT: Definition = Definition {
    name: "prompts",
    layouts: &[Layout { needs: &["prompt"], may_have: &[] }],
    priority: 10,
    about: "no response: prompts to generate from",
    example: r#"{"prompt": "Why is the sky blue?"}"#,
    parse,
};

fn parse(row: &mut Columns, _: Uses, _: &DatasetConfig) -> Result<(Prompt, Vec<Response>), RowProblem> {
    let prompt = match side(row.need_turns("prompt")?, "prompt")? {
        Side::Messages(messages) => conversation_prompt(messages, "prompt")?,
        Side::Text(text) => Prompt::Text(text),
    };
    Ok((prompt, Vec::new()))
}

#[cfg(test)]
mod tests {
    use super::super::testing::parse;
    use super::*;
    use crate::record::Message;

    #[test]
    fn a_prompt_alone_has_no_response() {
        let record =
            parse("prompts", r#"{"prompt": [{"role": "user", "content": "A?"}], "topic": "letters"}"#).unwrap();
        assert_eq!(record.prompt, Prompt::Messages(vec![Message::user("A?")]));
        assert!(record.responses.is_empty());
        assert_eq!(record.extra["topic"], "letters");
    }
}
