//! ShareGPT's `conversations` of `from` and `value`, with LLaMA-Factory's `chosen` and `rejected`, `system` and `kto_tag`.

use super::columns::Columns;
use super::conversation::{Side, messages, split_last};
use super::preference::pair;
use super::single::finish;
use super::{Definition, Layout};
use crate::config::{DatasetConfig, Uses};
use crate::error::RowProblem;
use crate::record::{Message, Prompt, Response};

pub(super) const FORMAT: Definition = Definition {
    name: "sharegpt",
    layouts: &[Layout { needs: &["conversations"], may_have: &["chosen", "rejected"] }],
    priority: 50,
    about: "the last turn of `from` and `value`, or two labelled responses; `system` and `kto_tag` as in LLaMA-Factory",
    example: r#"{"conversations": [{"from": "human", "value": "Sky?"}, {"from": "gpt", "value": "Blue."}]}"#,
    parse,
};

fn parse(row: &mut Columns, uses: Uses, _: &DatasetConfig) -> Result<(Prompt, Vec<Response>), RowProblem> {
    let mut turns = messages(row.need_typed("conversations")?, "conversations")?;
    if let Some(system) = row.take_text("system")?.filter(|s| !s.is_empty())
        && turns.first().is_none_or(|m| m.role != "system")
    {
        turns.insert(0, Message::system(system));
    }
    if row.has("chosen") || row.has("rejected") {
        return pair(row, Some(Side::Messages(turns)), uses);
    }
    let (prompt, message) = split_last(turns, "conversations")?;
    finish(row, prompt, message, uses)
}

#[cfg(test)]
mod tests {
    use super::super::testing::parse;
    use super::*;
    use crate::record::Label;

    #[test]
    fn roles_are_translated() {
        let row = r#"{"conversations": [{"from": "system", "value": "s"}, {"from": "human", "value": "u"}, {"from": "gpt", "value": "a"}]}"#;
        let record = parse("sharegpt", row).unwrap();
        assert_eq!(record.prompt, Prompt::Messages(vec![Message::system("s"), Message::user("u")]));
        assert_eq!(record.responses, [Response::new("a")]);
    }

    #[test]
    fn preferences_are_objects() {
        let row = r#"{"conversations": [{"from": "human", "value": "u"}], "chosen": {"from": "gpt", "value": "a"}, "rejected": {"from": "gpt", "value": "b"}}"#;
        let record = parse("sharegpt", row).unwrap();
        assert_eq!(record.prompt, Prompt::Messages(vec![Message::user("u")]));
        let expected = [Response::new("a").labelled(Label::Chosen), Response::new("b").labelled(Label::Rejected)];
        assert_eq!(record.responses, expected);
    }

    #[test]
    fn an_unknown_role_is_named() {
        let problem = parse("sharegpt", r#"{"conversations": [{"from": "narrator", "value": "x"}]}"#).unwrap_err();
        assert!(problem.to_string().contains("`conversations[0].from`: unknown role `narrator`"), "{problem}");
    }
}
