//! HelpSteer and HelpSteer2: a response with its ratings from 0 to 4, of which helpfulness is the reward.

use super::columns::{Columns, response_text};
use super::transcript::helpsteer_prompt;
use super::{Definition, Layout};
use crate::config::{DatasetConfig, Uses};
use crate::error::RowProblem;
use crate::record::{Message, Prompt, Response};

pub(super) const FORMAT: Definition = Definition {
    name: "helpsteer",
    layouts: &[Layout { needs: &["prompt", "response", "helpfulness"], may_have: &[] }],
    priority: 22,
    about: "one response, with `helpfulness` as its reward (HelpSteer, HelpSteer2)",
    example: r#"{"prompt": "Name a colour.", "response": "Blue.", "helpfulness": 4}"#,
    parse,
};

fn parse(row: &mut Columns, uses: Uses, _: &DatasetConfig) -> Result<(Prompt, Vec<Response>), RowProblem> {
    let prompt = helpsteer_prompt(row.need_text("prompt")?);
    let message = Message::assistant(response_text(row.need_text("response")?, "response")?);
    let reward = row.take_reward(&["helpfulness"], uses.rewards.applies(1, false))?;
    Ok((prompt, vec![Response { message, reward, label: None }]))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{parse, parse_with};
    use super::*;

    /// A row as it is published, with a text of our own.
    const ROW: &str = r#"{"prompt": "c#", "response": "A language.", "helpfulness": 3, "correctness": 4, "coherence": 4,
        "complexity": 1, "verbosity": 2}"#;

    #[test]
    fn helpfulness_is_the_reward() {
        let record = parse("helpsteer", ROW).unwrap();
        assert_eq!(record.prompt, Prompt::Text("c#".into()));
        assert_eq!(record.responses, [Response::new("A language.").rewarded(3.0)]);
        assert_eq!(record.extra.len(), 4, "the other ratings are kept");
    }

    #[test]
    fn turns_are_told_apart() {
        let row = ROW.replace(r#""c#""#, r#""Hi\n<extra_id_1>Assistant\nHo\n\nho\n<extra_id_1>User\nAnd c#?""#);
        let turns = vec![Message::user("Hi"), Message::assistant("Ho\n\nho"), Message::user("And c#?")];
        assert_eq!(parse("helpsteer", &row).unwrap().prompt, Prompt::Messages(turns));
    }

    #[test]
    fn a_rating_that_is_none_is_an_error_where_it_is_used() {
        let row = ROW.replace(r#""helpfulness": 3"#, r#""helpfulness": "high""#);
        let problem = parse("helpsteer", &row).unwrap_err().to_string();
        assert!(problem.starts_with("`helpfulness`: expected a number, found the text \"high\""), "{problem}");
        let texts = DatasetConfig { uses: Uses::TEXT, ..DatasetConfig::new("test") };
        assert_eq!(parse_with("helpsteer", &row, &texts).unwrap().responses, [Response::new("A language.")]);
        let problem = parse("helpsteer", &ROW.replace("A language.", " ")).unwrap_err();
        assert_eq!(problem, RowProblem::EmptyResponse { column: "response".into() });
    }
}
