//! `response_a` and `response_b`, with the winner in words.

use serde_json::Value;

use super::columns::Columns;
use super::conversation::{Side, conversation_prompt, side};
use super::judged::{Judged, Preferred};
use super::{Definition, Layout};
use crate::config::{DatasetConfig, Uses};
use crate::error::RowProblem;
use crate::record::{Prompt, Response};

pub(super) const FORMAT: Definition = Definition {
    name: "response_ab",
    layouts: &[
        Layout { needs: &["prompt", "response_a", "response_b", "winner"], may_have: &[] },
        Layout { needs: &["prompt", "response_a", "response_b", "preference"], may_have: &[] },
        Layout { needs: &["prompt", "response_a", "response_b", "label"], may_have: &[] },
    ],
    priority: 35,
    about: "two labelled responses; the winner is `a` or `b`, also as `model_a` or `response_a`, or a `tie`",
    example: r#"{"prompt": "Name a colour.", "response_a": "Tree.", "response_b": "Blue.", "winner": "b"}"#,
    parse,
};

fn parse(row: &mut Columns, uses: Uses, config: &DatasetConfig) -> Result<(Prompt, Vec<Response>), RowProblem> {
    let prompt = match side(row.need_turns("prompt")?, "prompt")? {
        Side::Messages(messages) => conversation_prompt(messages, "prompt")?,
        Side::Text(text) => Prompt::Text(text),
    };
    let preference = ["winner", "preference", "label"].into_iter().find(|column| row.has_column(column));
    let judged = Judged {
        responses: ["response_a", "response_b"],
        preference: preference.unwrap_or("winner"),
        expected: "\"a\", \"b\" or \"tie\"",
        meaning: preferred,
    };
    Ok((prompt, judged.take(row, [None, None], uses, config)?))
}

/// Returns the meaning of a winner's name. Numbers have none: 0 and 1 mean this in one data set and that in another.
fn preferred(value: &Value) -> Option<Preferred> {
    match value.as_str()?.trim().to_ascii_lowercase().as_str() {
        "a" | "model_a" | "response_a" => Some(Preferred::First),
        "b" | "model_b" | "response_b" => Some(Preferred::Second),
        "tie" | "tie (bothbad)" | "both_bad" | "bothbad" | "both" | "neither" => Some(Preferred::Neither),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{parse, parse_with};
    use super::*;
    use crate::config::Ties;
    use crate::record::Label;

    fn row(column: &str, winner: &str) -> String {
        format!(r#"{{"prompt": "Sky?", "response_a": "Blue.", "response_b": "Green.", "{column}": {winner}}}"#)
    }

    #[test]
    fn the_winner_is_chosen() {
        for (winner, chosen, rejected) in [
            (r#""a""#, "Blue.", "Green."),
            (r#""A""#, "Blue.", "Green."),
            (r#""model_a""#, "Blue.", "Green."),
            (r#""response_b""#, "Green.", "Blue."),
            (r#""Model_B""#, "Green.", "Blue."),
        ] {
            for column in ["winner", "preference", "label"] {
                let record = parse("response_ab", &row(column, winner)).unwrap();
                assert_eq!(record.prompt, Prompt::Text("Sky?".into()));
                let expected =
                    [Response::new(chosen).labelled(Label::Chosen), Response::new(rejected).labelled(Label::Rejected)];
                assert_eq!(record.responses, expected, "{column} {winner}");
                assert!(record.extra.is_empty());
            }
        }
    }

    #[test]
    fn ties_are_errors_unless_a_setting_says_otherwise() {
        let tie = row("winner", r#""tie (bothbad)""#);
        let problem = parse("response_ab", &tie).unwrap_err().to_string();
        let expected = "`winner` is the text \"tie (bothbad)\": neither response is preferred.";
        assert!(problem.starts_with(expected), "{problem}");
        let keep = DatasetConfig { ties: Ties::Keep, ..DatasetConfig::new("test") };
        let both = ["Blue.", "Green."].map(Response::new);
        assert_eq!(parse_with("response_ab", &tie, &keep).unwrap().responses, both);
        let texts = DatasetConfig { uses: Uses::TEXT, ..DatasetConfig::new("test") };
        assert_eq!(parse_with("response_ab", &tie, &texts).unwrap().responses, both, "nobody looks at the winner");
        for found in ["1", "0", "true", "null", r#""gpt-4""#] {
            let problem = parse("response_ab", &row("winner", found)).unwrap_err().to_string();
            assert!(problem.starts_with("`winner`: expected \"a\", \"b\" or \"tie\""), "{problem}");
        }
    }
}
