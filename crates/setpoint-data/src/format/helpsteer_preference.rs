//! HelpSteer2's and HelpSteer3's preferences: two responses, and by how much the second is better, from -3 to 3.

use serde_json::Value;

use super::columns::Columns;
use super::conversation::{Side, conversation_prompt, side};
use super::judged::{Judged, Preferred};
use super::transcript::helpsteer_prompt;
use super::{Definition, Layout};
use crate::config::{DatasetConfig, Margins, Uses};
use crate::error::RowProblem;
use crate::record::{Prompt, Response};

pub(super) const FORMAT: Definition = Definition {
    name: "helpsteer_preference",
    layouts: &[
        Layout { needs: &["context", "response1", "response2", "overall_preference"], may_have: &[] },
        Layout { needs: &["prompt", "response_1", "response_2", "preference_strength"], may_have: &[] },
    ],
    priority: 38,
    about: "two labelled responses; a preference below 0 chooses the first, above 0 the second (HelpSteer3, HelpSteer2)",
    example: r#"{"context": [{"role": "user", "content": "Name a colour."}], "response1": "Blue.", "response2": "Tree.", "overall_preference": -2}"#,
    parse,
};

const EXPECTED: &str = "a number from -3 (the first response is much better) to 3 (the second is)";
const THREE: Judged = Judged {
    responses: ["response1", "response2"],
    preference: "overall_preference",
    expected: EXPECTED,
    meaning: preferred,
};
const TWO: Judged = Judged {
    responses: ["response_1", "response_2"],
    preference: "preference_strength",
    expected: EXPECTED,
    meaning: preferred,
};

fn parse(row: &mut Columns, uses: Uses, config: &DatasetConfig) -> Result<(Prompt, Vec<Response>), RowProblem> {
    let (prompt, judged) = if row.has_column("context") || !row.has_column("preference_strength") {
        let prompt = match side(row.need_turns("context")?, "context")? {
            Side::Messages(messages) => conversation_prompt(messages, "context")?,
            Side::Text(text) => Prompt::Text(text),
        };
        (prompt, THREE)
    } else {
        (helpsteer_prompt(row.need_text("prompt")?), TWO)
    };
    if config.margins == Margins::Scores
        && let Some(strength) = row.peek_number(judged.preference)
    {
        row.put_margin(strength.abs());
    }
    let responses = judged.take(row, [None, None], uses, config)?;
    Ok((prompt, responses))
}

fn preferred(value: &Value) -> Option<Preferred> {
    let number = value.as_f64().filter(|number| (-3.0..=3.0).contains(number))?;
    Some(if number < 0.0 {
        Preferred::First
    } else if number > 0.0 {
        Preferred::Second
    } else {
        Preferred::Neither
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{parse, parse_with};
    use super::*;
    use crate::config::Ties;
    use crate::record::{Label, Message};

    /// Rows as they are published, with texts of our own.
    fn three(preference: &str) -> String {
        format!(
            r#"{{"domain": "general", "language": "english", "context": [{{"role": "user", "content": "Hi"}}, {{"role": "assistant", "content": "Ho"}},
            {{"role": "user", "content": "Sky?"}}], "response1": "Blue.", "response2": "Green.", "overall_preference": {preference},
            "individual_preference": [{{"score": -2, "reasoning": "It is.", "feedback1": "", "feedback2": ""}}]}}"#
        )
    }

    fn two(preference: &str) -> String {
        format!(
            r#"{{"split": "train", "prompt": "Sky?", "response_1": "Blue.", "response_2": "Green.", "preference_strength": {preference},
            "preference_statement": "It is.", "preference_elaboration": ""}}"#
        )
    }

    #[test]
    fn the_sign_says_which_is_better() {
        let before = vec![Message::user("Hi"), Message::assistant("Ho"), Message::user("Sky?")];
        for (preference, chosen, rejected) in
            [("-3", "Blue.", "Green."), ("-1", "Blue.", "Green."), ("2", "Green.", "Blue."), ("3.0", "Green.", "Blue.")]
        {
            let expected =
                [Response::new(chosen).labelled(Label::Chosen), Response::new(rejected).labelled(Label::Rejected)];
            let record = parse("helpsteer_preference", &three(preference)).unwrap();
            assert_eq!(record.prompt, Prompt::Messages(before.clone()));
            assert_eq!((&record.responses[..], record.margin), (&expected[..], None));
            assert_eq!(record.extra.keys().collect::<Vec<_>>(), ["domain", "language", "individual_preference"]);
            let record = parse("helpsteer_preference", &two(preference)).unwrap();
            assert_eq!(record.prompt, Prompt::Text("Sky?".into()));
            assert_eq!(record.responses, expected);
        }
    }

    #[test]
    fn its_strength_is_the_margin_where_margins_come_from_scores() {
        let config = DatasetConfig { margins: Margins::Scores, ..DatasetConfig::new("test") };
        for (preference, margin) in [("-3", 3.0), ("1", 1.0)] {
            assert_eq!(parse_with("helpsteer_preference", &three(preference), &config).unwrap().margin, Some(margin));
            assert_eq!(parse_with("helpsteer_preference", &two(preference), &config).unwrap().margin, Some(margin));
        }
    }

    #[test]
    fn ties_and_other_values() {
        let problem = parse("helpsteer_preference", &three("0")).unwrap_err();
        assert_eq!(problem, RowProblem::Tie { column: "overall_preference".into(), found: "the number 0".into() });
        assert!(problem.to_string().contains("`data.ties`"), "{problem}");
        let keep = DatasetConfig { ties: Ties::Keep, ..DatasetConfig::new("test") };
        let record = parse_with("helpsteer_preference", &three("0"), &keep).unwrap();
        assert_eq!(record.responses, ["Blue.", "Green."].map(Response::new));
        for found in ["4", "null", "\"first\""] {
            let problem = parse("helpsteer_preference", &two(found)).unwrap_err().to_string();
            assert!(problem.starts_with("`preference_strength`: expected a number from -3"), "{problem}");
        }
    }
}
