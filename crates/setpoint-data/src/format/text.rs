//! `text` alone: a whole text that is learned (trl's language modelling, axolotl's `completion`, LLaMA-Factory's `pt`).

use super::columns::{Columns, response_text};
use super::{Definition, Layout};
use crate::config::{DatasetConfig, Uses};
use crate::error::RowProblem;
use crate::record::{Prompt, Response};

/// Columns next to which a text is a question or an article, and not the whole row; `data.format` says if it is.
pub(super) const ANSWERS: [&str; 11] = [
    "answer",
    "chosen",
    "completion",
    "output",
    "rejected",
    "response",
    "responses",
    "solution",
    "summary",
    "target",
    "targets",
];

pub(super) const FORMAT: Definition = Definition {
    name: "text",
    layouts: &[Layout { needs: &["text"], may_have: &[] }],
    // Rows that have a prompt, messages or an instruction may have a text next to them.
    priority: 5,
    about: "one response without a prompt: plain text that SFT learns whole, without the chat template (trl)",
    example: r#"{"text": "The sky is blue."}"#,
    parse,
};

fn parse(row: &mut Columns, _: Uses, _: &DatasetConfig) -> Result<(Prompt, Vec<Response>), RowProblem> {
    let text = response_text(row.need_text("text")?, "text")?;
    Ok((Prompt::Text(String::new()), vec![Response::new(text)]))
}

#[cfg(test)]
mod tests {
    use super::super::Format;
    use super::super::testing::parse;
    use super::*;

    #[test]
    fn a_text_is_a_response_without_a_prompt() {
        let record = parse("text", r#"{"text": "The sky is blue.", "label": 1, "url": "x"}"#).unwrap();
        assert_eq!(record.prompt, Prompt::Text(String::new()));
        assert!(record.whole);
        assert_eq!(record.responses, [Response::new("The sky is blue.")]);
        assert_eq!(record.extra.keys().collect::<Vec<_>>(), ["label", "url"], "what others mean by these is unknown");
        for blank in [" \\n", "\\u001d"] {
            let problem = parse("text", &format!(r#"{{"text": "{blank}"}}"#)).unwrap_err();
            assert_eq!(problem, RowProblem::EmptyResponse { column: "text".into() }, "{blank}");
        }
        assert!(parse("text", r#"{"text": ["a", "b"]}"#).unwrap_err().to_string().contains("expected text, found"));
    }

    #[test]
    fn a_text_next_to_other_columns_is_not_the_row() {
        for (columns, format) in [
            (&["instruction", "input", "output", "text"][..], "alpaca"),
            (&["prompt", "text"], "prompts"),
            (&["messages", "text"], "messages"),
        ] {
            assert_eq!(Format::detect(columns.iter().copied()), Format::named(format), "{columns:?}");
        }
        for answer in ["summary", "response", "completion", "target"] {
            assert_eq!(Format::detect(["text", answer, "id"]), None, "{answer}");
        }
        assert_eq!(Format::detect(["text", "url", "label"]), Format::named("text"));
    }
}
