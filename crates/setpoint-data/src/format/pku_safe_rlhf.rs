//! PKU-SafeRLHF: two responses, and the number of the better one.

use serde_json::Value;

use super::columns::Columns;
use super::judged::{Judged, Preferred};
use super::{Definition, Layout};
use crate::config::{DatasetConfig, Uses};
use crate::error::RowProblem;
use crate::record::{Prompt, Response};

pub(super) const FORMAT: Definition = Definition {
    name: "pku_safe_rlhf",
    layouts: &[Layout { needs: &["prompt", "response_0", "response_1", "better_response_id"], may_have: &[] }],
    priority: 36,
    about: "two labelled responses; the one that `better_response_id` (0 or 1) names is chosen (PKU-SafeRLHF)",
    example: r#"{"prompt": "Name a colour.", "response_0": "Tree.", "response_1": "Blue.", "better_response_id": 1}"#,
    parse,
};

const JUDGED: Judged = Judged {
    responses: ["response_0", "response_1"],
    preference: "better_response_id",
    expected: "0 or 1, the number of the better response",
    meaning: |value: &Value| match value.as_f64() {
        Some(0.0) => Some(Preferred::First),
        Some(1.0) => Some(Preferred::Second),
        _ => None,
    },
};

fn parse(row: &mut Columns, uses: Uses, config: &DatasetConfig) -> Result<(Prompt, Vec<Response>), RowProblem> {
    let prompt = Prompt::Text(row.need_text("prompt")?);
    Ok((prompt, JUDGED.take(row, [None, None], uses, config)?))
}

#[cfg(test)]
mod tests {
    use super::super::testing::parse;
    use super::*;
    use crate::record::Label;

    /// A row as it is published, with texts of our own.
    fn row(better: &str) -> String {
        format!(
            r#"{{"prompt": "Sky?", "response_0": "Blue.", "response_1": "Green.", "is_response_0_safe": true, "is_response_1_safe": true,
            "better_response_id": {better}, "safer_response_id": 1}}"#
        )
    }

    #[test]
    fn the_better_response_is_chosen() {
        for (better, chosen, rejected) in
            [("0", "Blue.", "Green."), ("1", "Green.", "Blue."), ("1.0", "Green.", "Blue.")]
        {
            let record = parse("pku_safe_rlhf", &row(better)).unwrap();
            assert_eq!(record.prompt, Prompt::Text("Sky?".into()));
            let expected =
                [Response::new(chosen).labelled(Label::Chosen), Response::new(rejected).labelled(Label::Rejected)];
            assert_eq!(record.responses, expected);
            assert_eq!(record.extra["safer_response_id"], 1);
        }
    }

    #[test]
    fn other_numbers_are_errors() {
        for found in ["2", "-1", "null", "true"] {
            let problem = parse("pku_safe_rlhf", &row(found)).unwrap_err().to_string();
            assert!(problem.starts_with("`better_response_id`: expected 0 or 1"), "{problem}");
        }
    }
}
