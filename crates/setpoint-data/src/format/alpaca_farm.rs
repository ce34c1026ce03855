//! AlpacaFarm's preferences: two outputs for an instruction, and the number of the preferred one.

use serde_json::Value;

use super::columns::Columns;
use super::conversation::instruction_turn;
use super::judged::{Judged, Preferred};
use super::{Definition, Layout};
use crate::config::{DatasetConfig, Uses};
use crate::error::RowProblem;
use crate::record::{Prompt, Response};

pub(super) const FORMAT: Definition = Definition {
    name: "alpaca_farm",
    layouts: &[Layout { needs: &["instruction", "output_1", "output_2", "preference"], may_have: &["input"] }],
    priority: 65,
    about: "two labelled responses; the one that `preference` (1 or 2) names is chosen (AlpacaFarm)",
    example: r#"{"instruction": "Name a colour.", "input": "", "output_1": "Tree.", "output_2": "Blue.", "preference": 2}"#,
    parse,
};

/// AlpacaFarm's own code takes 1 and 2 and fails on anything else; 0 and 1.5 are how AlpacaEval's annotators mark a tie. Parquet may hold
/// the numbers as floats.
const JUDGED: Judged = Judged {
    responses: ["output_1", "output_2"],
    preference: "preference",
    expected: "1 or 2, the number of the preferred output",
    meaning: |value: &Value| match value.as_f64() {
        Some(1.0) => Some(Preferred::First),
        Some(2.0) => Some(Preferred::Second),
        Some(0.0 | 1.5) => Some(Preferred::Neither),
        _ => None,
    },
};

fn parse(row: &mut Columns, uses: Uses, config: &DatasetConfig) -> Result<(Prompt, Vec<Response>), RowProblem> {
    let prompt = Prompt::Messages(vec![instruction_turn(row)?]);
    Ok((prompt, JUDGED.take(row, [None, None], uses, config)?))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{parse, parse_with};
    use super::*;
    use crate::record::{Label, Message};

    fn row(preference: &str) -> String {
        format!(
            r#"{{"instruction": "Add.", "input": "1 + 2", "output_1": "3", "output_2": "4", "preference": {preference}, "annotator": 7}}"#
        )
    }

    #[test]
    fn the_preferred_output_is_chosen() {
        for (preference, chosen, rejected) in [("1", "3", "4"), ("2", "4", "3"), ("2.0", "4", "3")] {
            let record = parse("alpaca_farm", &row(preference)).unwrap();
            assert_eq!(record.prompt, Prompt::Messages(vec![Message::user("Add.\n1 + 2")]));
            let expected =
                [Response::new(chosen).labelled(Label::Chosen), Response::new(rejected).labelled(Label::Rejected)];
            assert_eq!(record.responses, expected, "{preference}");
            assert_eq!(record.extra.keys().collect::<Vec<_>>(), ["annotator"]);
        }
    }

    #[test]
    fn a_tie_is_a_bad_row_of_a_job_that_needs_pairs() {
        for (preference, found) in [("3", "the number 3"), ("-1", "the number -1"), (r#""1""#, r#"the text "1""#)] {
            let problem = parse("alpaca_farm", &row(preference)).unwrap_err().to_string();
            let expected = format!("`preference`: expected 1 or 2, the number of the preferred output, found {found}.");
            assert!(problem.starts_with(&expected), "{problem}");
        }
        for (preference, found) in [("0", "the number 0"), ("1.5", "the number 1.5")] {
            let problem = parse("alpaca_farm", &row(preference)).unwrap_err();
            assert_eq!(problem, RowProblem::Tie { column: "preference".into(), found: found.into() });
        }
        assert!(parse("alpaca_farm", &row("null")).unwrap_err().to_string().contains("found null"));
        let texts = DatasetConfig { uses: Uses::TEXT, ..DatasetConfig::new("test") };
        let record = parse_with("alpaca_farm", &row("0"), &texts).unwrap();
        assert_eq!(record.responses, ["3", "4"].map(Response::new), "a job that only reads texts");
        assert_eq!(record.extra["preference"], 0, "kept for another job");
    }

    #[test]
    fn an_empty_output_is_an_error_where_it_is_used() {
        let empty = row("2").replace(r#""output_1": "3""#, r#""output_1": " ""#);
        let problem = parse("alpaca_farm", &empty).unwrap_err();
        assert_eq!(problem, RowProblem::EmptyResponse { column: "output_1".into() });
        let sft =
            DatasetConfig { uses: Uses::of_selection(crate::config::Responses::Chosen), ..DatasetConfig::new("test") };
        assert_eq!(parse_with("alpaca_farm", &empty, &sft).unwrap().chosen().unwrap().text(), "4");
    }
}
