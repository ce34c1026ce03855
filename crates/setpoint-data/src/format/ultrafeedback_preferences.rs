//! UltraFeedback as Argilla binarized it first: `instruction`, `chosen_response`, `rejected_response` and the means of their ratings.

use super::columns::{Columns, response_text};
use super::preference::{labelled, rewards};
use super::{Definition, Layout};
use crate::config::{DatasetConfig, Uses};
use crate::error::RowProblem;
use crate::record::{Message, Prompt, Response};

pub(super) const FORMAT: Definition = Definition {
    name: "ultrafeedback_preferences",
    layouts: &[Layout {
        needs: &["instruction", "chosen_response", "rejected_response"],
        may_have: &["chosen_avg_rating", "rejected_avg_rating"],
    }],
    priority: 72,
    about: "two labelled responses, with the mean ratings as rewards (Argilla's ultrafeedback-binarized-preferences)",
    example: r#"{"instruction": "Sky?", "chosen_response": "Blue.", "rejected_response": "Green.", "chosen_avg_rating": 4.5, "rejected_avg_rating": 2.0}"#,
    parse,
};

fn parse(row: &mut Columns, uses: Uses, _: &DatasetConfig) -> Result<(Prompt, Vec<Response>), RowProblem> {
    let prompt = Prompt::Messages(vec![Message::user(row.need_text("instruction")?)]);
    let chosen = response_text(row.need_text("chosen_response")?, "chosen_response")?;
    let rejected = row.need_text("rejected_response")?;
    let rejected = if uses.rejected { response_text(rejected, "rejected_response")? } else { rejected };
    let rewards = rewards(row, uses)?;
    Ok((prompt, labelled([chosen, rejected].map(Message::assistant), rewards)))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{parse, parse_with};
    use super::*;
    use crate::record::Label;

    /// A row as it is published, with texts of our own.
    const ROW: &str = r#"{"source": "evol_instruct", "instruction": "Sky?", "chosen_response": "Blue.", "rejected_response": "Green.",
        "chosen_avg_rating": 4.75, "rejected_avg_rating": 3.25, "chosen_model": "gpt-4"}"#;

    #[test]
    fn mean_ratings_are_rewards() {
        let record = parse("ultrafeedback_preferences", ROW).unwrap();
        assert_eq!(record.prompt, Prompt::Messages(vec![Message::user("Sky?")]));
        let expected = [("Blue.", 4.75, Label::Chosen), ("Green.", 3.25, Label::Rejected)];
        assert_eq!(
            record.responses,
            expected.map(|(text, reward, label)| Response::new(text).rewarded(reward).labelled(label))
        );
        assert_eq!(record.extra.keys().collect::<Vec<_>>(), ["source", "chosen_model"]);
    }

    #[test]
    fn bad_rows() {
        let problem = parse("ultrafeedback_preferences", &ROW.replace("Green.", "")).unwrap_err();
        assert_eq!(problem, RowProblem::EmptyResponse { column: "rejected_response".into() });
        let problem = parse("ultrafeedback_preferences", &ROW.replace("3.25", "null")).unwrap_err();
        assert_eq!(problem, RowProblem::MissingReward { column: "rejected_avg_rating".into() });
        let texts = DatasetConfig { uses: Uses::TEXT, ..DatasetConfig::new("test") };
        let record = parse_with("ultrafeedback_preferences", &ROW.replace("3.25", "null"), &texts).unwrap();
        assert!(record.responses.iter().all(|response| response.reward.is_none()));
    }
}
