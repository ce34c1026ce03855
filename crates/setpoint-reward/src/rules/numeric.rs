//! A rule about the final answer of a calculation.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::number::{Decimal, numbers};
use super::reference::{answer, reference};
use super::{Check, Compiled, one};
use crate::error::Error;
use crate::source::Scored;

/// `score_if_equal` where the response's final number equals the reference answer of the row, else `else`.
///
/// The final number is, in this order: the number in the last `\boxed{…}` (exactly one, or there is no answer); the first number
/// after the last `####` (the format of GSM8K); the last number of the response. Numbers are compared as decimals, so `1,200.0`
/// equals `1200` exactly and no rounding hides a difference.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NumericAnswerRule {
    /// The column of the reference answer, a number or a text with one.
    #[serde(default = "answer")]
    pub field: String,
    /// The greatest absolute difference that still counts as equal.
    #[serde(default)]
    pub tolerance: f64,
    /// The reward for the right number.
    #[serde(default = "one")]
    pub score_if_equal: f64,
    /// The reward for another number or none.
    #[serde(default, rename = "else")]
    pub otherwise: f64,
}

impl NumericAnswerRule {
    pub(super) fn compile(&self, check: &mut Check) -> Option<Box<dyn Compiled>> {
        check.finite("score_if_equal", self.score_if_equal);
        check.finite("else", self.otherwise);
        if !(self.tolerance.is_finite() && self.tolerance >= 0.0) {
            check.problem("tolerance", format!("is {}, expected a finite number, 0 or greater", self.tolerance));
        }
        check.column("field", &self.field);
        Some(Box::new(CompiledNumeric(self.clone())))
    }
}

struct CompiledNumeric(NumericAnswerRule);

impl CompiledNumeric {
    fn reference(&self, item: &Scored<'_>) -> Result<Decimal, Error> {
        reference(item, &self.0.field, "a reference answer with a number", |value| {
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Number(number) => number.to_string(),
                other => return Err(other.to_string()),
            };
            final_number(&text).ok_or_else(|| format!("{text:?}"))
        })
    }
}

impl Compiled for CompiledNumeric {
    fn score(&self, item: &Scored<'_>) -> Result<f64, Error> {
        // The reference first: a row without one is an error whatever the response says.
        let reference = self.reference(item)?;
        let equal = final_number(item.response).is_some_and(|given| {
            given == reference
                || (self.0.tolerance > 0.0 && (given.to_f64() - reference.to_f64()).abs() <= self.0.tolerance)
        });
        Ok(if equal { self.0.score_if_equal } else { self.0.otherwise })
    }
}

/// The number that a text gives as its answer.
fn final_number(text: &str) -> Option<Decimal> {
    if let Some(content) = last_boxed(text) {
        // LaTeX writes thousands as `1{,}000`, `1\,000` or `1\!000`.
        let content = content.replace("{,}", ",").replace("\\,", "").replace("\\!", "");
        let mut found = numbers(&content);
        return if found.len() == 1 { found.pop() } else { None };
    }
    if let Some((_, after)) = text.rsplit_once("####") {
        return numbers(after).into_iter().next();
    }
    numbers(text).pop()
}

/// The content of the last `\boxed{…}` whose braces close.
pub(super) fn last_boxed(text: &str) -> Option<&str> {
    text.rmatch_indices("\\boxed{").find_map(|(start, marker)| {
        let content = &text[start + marker.len()..];
        let mut depth = 1_usize;
        for (at, character) in content.char_indices() {
            match character {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return Some(&content[..at]);
            }
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Rule, RuleSource, problems_of};
    use super::*;
    use crate::source::RewardSource;
    use serde_json::json;

    fn score(rule: &str, row: &Value, response: &str) -> Result<f64, Error> {
        let rule: Rule = toml::from_str(&format!("kind = 'numeric_answer'\n{rule}")).unwrap();
        let item = Scored { row: 8, response, fields: row.as_object(), ..Scored::default() };
        RuleSource::new(rule).unwrap().score(&[item], &mut |_| ()).map(|rewards| rewards[0])
    }

    #[test]
    fn where_the_answer_stands() {
        for (response, expected) in [
            ("First 3, then 72.", "72"),
            ("Half of 144.\n#### 72", "72"),
            ("#### 70\nNo:\n#### 72 because 1 + 71", "72"),
            ("so \\boxed{72}, not 73", "72"),
            ("\\boxed{1} then \\boxed{\\text{about } 72\\%}", "72"),
            ("\\boxed{1{,}072}", "1072"),
            ("\\boxed{1\\,072}", "1072"),
            ("\\boxed{72} and an open \\boxed{73", "72"),
        ] {
            let row = json!({ "answer": expected });
            assert_eq!(score("", &row, response).unwrap(), 1.0, "{response}");
        }
    }

    #[test]
    fn what_is_no_answer() {
        let row = json!({"answer": 2});
        for response in ["", "two", "\\boxed{\\frac{1}{2}}", "\\boxed{} 2", "2 ####", "-2", "2.0001", "20"] {
            assert_eq!(score("else = -1.0", &row, response).unwrap(), -1.0, "{response}");
        }
    }

    #[test]
    fn the_reference_is_a_number_or_a_text_with_one() {
        for reference in [json!(1200), json!(1200.0), json!("1,200"), json!("They make 3 × 400.\n#### 1,200")] {
            assert_eq!(score("", &json!({ "answer": reference }), "1200").unwrap(), 1.0, "{reference}");
        }
        assert_eq!(score("field = 'gold'", &json!({"gold": -0.5}), "It is -.50").unwrap(), 1.0);
    }

    #[test]
    fn tolerance_is_absolute_and_off_by_default() {
        let row = json!({"answer": "3.14159"});
        assert_eq!(score("", &row, "3.14").unwrap(), 0.0);
        assert_eq!(score("tolerance = 0.01", &row, "3.14").unwrap(), 1.0);
        assert_eq!(score("tolerance = 0.001", &row, "3.14").unwrap(), 0.0);
    }

    #[test]
    fn a_missing_reference_is_an_error_with_its_row() {
        for (row, found) in [
            (json!({"other": 1}), "no such column"),
            (json!({"answer": null}), "null"),
            (json!({"answer": "none"}), "\"none\""),
        ] {
            let message = score("", &row, "1").unwrap_err().to_string();
            assert!(message.contains("row 8") && message.contains("`answer`") && message.ends_with(found), "{message}");
        }
    }

    #[test]
    fn senseless_settings_are_named() {
        let problems = problems_of("kind = 'numeric_answer'\nfield = ''\ntolerance = -1.0\nelse = nan");
        assert_eq!(problems.iter().map(|p| p.key.as_str()).collect::<Vec<_>>(), ["else", "tolerance", "field"]);
    }
}
