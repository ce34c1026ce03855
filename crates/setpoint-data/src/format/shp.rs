//! Stanford Human Preferences: two comments on a post, which of them readers preferred, and their scores.

use serde_json::Value;

use super::columns::Columns;
use super::judged::{Judged, Preferred};
use super::{Definition, Layout};
use crate::config::{DatasetConfig, Uses};
use crate::error::RowProblem;
use crate::record::{Prompt, Response};

pub(super) const FORMAT: Definition = Definition {
    name: "shp",
    layouts: &[Layout {
        needs: &["history", "human_ref_A", "human_ref_B", "labels"],
        may_have: &["score_A", "score_B"],
    }],
    priority: 37,
    about: "two labelled responses with their scores as rewards; `labels` is 1 if the first is preferred, 0 if the second (SHP)",
    example: r#"{"history": "Name a colour.", "human_ref_A": "Tree.", "human_ref_B": "Blue.", "labels": 0, "score_A": 2, "score_B": 7}"#,
    parse,
};

const JUDGED: Judged = Judged {
    responses: ["human_ref_A", "human_ref_B"],
    preference: "labels",
    expected: "1 (the first response is preferred) or 0 (the second is)",
    meaning: |value: &Value| match value.as_f64() {
        Some(1.0) => Some(Preferred::First),
        Some(0.0) => Some(Preferred::Second),
        _ => None,
    },
};

fn parse(row: &mut Columns, uses: Uses, config: &DatasetConfig) -> Result<(Prompt, Vec<Response>), RowProblem> {
    let prompt = Prompt::Text(row.need_text("history")?);
    let used = uses.rewards.applies(2, true);
    let rewards = match [row.take_reward(&["score_A"], used)?, row.take_reward(&["score_B"], used)?] {
        [Some(first), Some(second)] => [Some(first), Some(second)],
        [Some(_), None] if used => return Err(RowProblem::MissingReward { column: "score_B".into() }),
        [None, Some(_)] if used => return Err(RowProblem::MissingReward { column: "score_A".into() }),
        _ => [None, None],
    };
    Ok((prompt, JUDGED.take(row, rewards, uses, config)?))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{parse, parse_with};
    use super::*;
    use crate::config::Margins;
    use crate::record::Label;

    /// A row as it is published, with texts of our own.
    fn row(labels: &str, score: &str) -> String {
        format!(
            r#"{{"post_id": "x1", "domain": "askscience_train", "upvote_ratio": 0.98, "history": "Sky?", "c_root_id_A": "a", "c_root_id_B": "b",
            "score_A": {score}, "score_B": 9, "human_ref_A": "Blue.", "human_ref_B": "Green.", "labels": {labels}, "seconds_difference": 60.0, "score_ratio": 3.0}}"#
        )
    }

    #[test]
    fn labels_and_scores() {
        let record = parse("shp", &row("0", "3")).unwrap();
        assert_eq!(record.prompt, Prompt::Text("Sky?".into()));
        let (blue, green) = (Response::new("Blue.").rewarded(3.0), Response::new("Green.").rewarded(9.0));
        let expected = [green.clone().labelled(Label::Chosen), blue.clone().labelled(Label::Rejected)];
        assert_eq!((&record.responses[..], record.margin), (&expected[..], None));
        let record = parse("shp", &row("1", "3")).unwrap();
        assert_eq!(record.responses, [blue.labelled(Label::Chosen), green.labelled(Label::Rejected)]);
    }

    #[test]
    fn margins_from_scores() {
        let config = DatasetConfig { margins: Margins::Scores, ..DatasetConfig::new("test") };
        assert_eq!(parse_with("shp", &row("0", "3"), &config).unwrap().margin, Some(6.0));
        // A margin of the file's own stays, whatever the scores are.
        let own = row("0", "3").replace(r#""post_id": "x1""#, r#""margin": 0.5"#);
        assert_eq!(parse_with("shp", &own, &config).unwrap().margin, Some(0.5));
    }

    #[test]
    fn bad_rows() {
        assert_eq!(
            parse("shp", &row("0", "null")).unwrap_err(),
            RowProblem::MissingReward { column: "score_A".into() }
        );
        let problem = parse("shp", &row("2", "3")).unwrap_err().to_string();
        assert!(problem.starts_with("`labels`: expected 1 (the first"), "{problem}");
        let pairs = DatasetConfig { uses: Uses::PAIRS, ..DatasetConfig::new("test") };
        assert_eq!(parse_with("shp", &row("0", "null"), &pairs).unwrap().chosen().unwrap().reward, None);
    }
}
