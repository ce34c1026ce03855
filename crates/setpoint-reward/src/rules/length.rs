//! A rule about length.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Check, Compiled};
use crate::error::Error;
use crate::source::Scored;

/// The unit that is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LengthUnit {
    /// Runs of characters between white space.
    Words,
    /// Unicode scalar values.
    Chars,
    /// The response's tokens, its stop token included.
    Tokens,
}

/// `score − penalty · distance`, where the distance is how far the length is from `target`, or outside of `[min, max]`;
/// never below `floor`.
///
/// A plain penalty on length is `max = 0`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LengthRule {
    /// The unit in which the length is counted.
    pub unit: LengthUnit,
    /// The length that is wanted; excludes `min` and `max`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<usize>,
    /// The smallest length without a penalty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<usize>,
    /// The greatest length without a penalty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<usize>,
    /// The reward at distance 0.
    #[serde(default)]
    pub score: f64,
    /// The reward that is taken off per unit of distance.
    #[serde(default = "super::one")]
    pub penalty: f64,
    /// The smallest reward, however far off the length is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub floor: Option<f64>,
}

impl LengthRule {
    pub(super) fn compile(&self, check: &mut Check) -> Option<Box<dyn Compiled>> {
        check.finite("score", self.score);
        if !(self.penalty.is_finite() && self.penalty >= 0.0) {
            check.problem("penalty", format!("is {}, expected a finite number, 0 or greater", self.penalty));
        }
        if let Some(floor) = self.floor
            && !(floor.is_finite() && floor <= self.score)
        {
            check.problem("floor", format!("is {floor}, expected a finite number not above `score` ({})", self.score));
        }
        let (least, most) = match (self.target, self.min, self.max) {
            (Some(target), None, None) => (target, target),
            (Some(_), _, _) => {
                check.problem("target", "stands beside `min` or `max`; give one or the other");
                return None;
            }
            (None, None, None) => {
                check.problem("target", "is missing; give `target`, or `min`, `max` or both");
                return None;
            }
            (None, min, max) => (min.unwrap_or(0), max.unwrap_or(usize::MAX)),
        };
        if least > most {
            check.problem("min", format!("is {least}, above `max` ({most})"));
            return None;
        }
        Some(Box::new(CompiledLength { rule: self.clone(), least, most }))
    }
}

struct CompiledLength {
    rule: LengthRule,
    least: usize,
    most: usize,
}

impl Compiled for CompiledLength {
    fn score(&self, item: &Scored<'_>) -> Result<f64, Error> {
        let length = match self.rule.unit {
            LengthUnit::Words => item.response.split_whitespace().count(),
            LengthUnit::Chars => item.response.chars().count(),
            LengthUnit::Tokens => {
                if item.response_ids.is_empty() && !item.response.is_empty() {
                    return Err(Error::MissingTokens { row: item.row, response: item.response_index });
                }
                item.response_ids.len()
            }
        };
        let distance = self.least.saturating_sub(length).max(length.saturating_sub(self.most));
        let reward = self.rule.score - self.rule.penalty * distance as f64;
        Ok(self.rule.floor.map_or(reward, |floor| reward.max(floor)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Rule, RuleSource, problems_of, score_of};
    use crate::error::Error;
    use crate::source::{RewardSource, Scored};

    #[test]
    fn distance_to_a_target() {
        let rule = "kind = 'length'\nunit = 'words'\ntarget = 4\nscore = 1.0\npenalty = 0.25";
        for (response, expected) in
            [("one two three four", 1.0), ("one  two\nthree", 0.75), ("a b c d e f", 0.5), ("", 0.0)]
        {
            assert_eq!(score_of(rule, response), expected, "{response:?}");
        }
    }

    #[test]
    fn distance_outside_of_a_range() {
        let rule = "kind = 'length'\nunit = 'chars'\nmin = 3\nmax = 5";
        for (response, expected) in [("é", -2.0), ("ééé", 0.0), ("12345", 0.0), ("12345678", -3.0)] {
            assert_eq!(score_of(rule, response), expected, "{response:?}");
        }
        assert_eq!(score_of("kind = 'length'\nunit = 'chars'\nmin = 3", &"x".repeat(999)), 0.0);
        assert_eq!(score_of("kind = 'length'\nunit = 'chars'\nmax = 0\npenalty = 0.5", "1234"), -2.0);
    }

    #[test]
    fn the_floor_bounds_the_penalty() {
        let rule = "kind = 'length'\nunit = 'chars'\nmax = 2\nfloor = -3.0";
        assert_eq!(score_of(rule, "1234"), -2.0);
        assert_eq!(score_of(rule, "123456789"), -3.0);
    }

    #[test]
    fn tokens_are_those_of_the_response() {
        let rule: Rule = toml::from_str("kind = 'length'\nunit = 'tokens'\ntarget = 3").unwrap();
        let source = RuleSource::new(rule).unwrap();
        let item = Scored { response: "a", response_ids: &[5, 6, 7, 2, 2], prompt_ids: &[1; 9], ..Scored::default() };
        assert_eq!(source.score(&[item], &mut |_| ()).unwrap(), [-2.0]);
        let without = Scored { row: 3, response: "a", ..Scored::default() };
        let error = source.score(&[without], &mut |_| ()).unwrap_err();
        assert!(matches!(error, Error::MissingTokens { row: 3, response: 0 }), "{error}");
    }

    #[test]
    fn senseless_settings_are_named() {
        for (settings, key) in [
            ("", "target"),
            ("target = 3\nmax = 4", "target"),
            ("min = 4\nmax = 3", "min"),
            ("max = 3\npenalty = -1.0", "penalty"),
            ("max = 3\nfloor = 1.0", "floor"),
            ("max = 3\nscore = nan", "score"),
        ] {
            let problems = problems_of(&format!("kind = 'length'\nunit = 'words'\n{settings}"));
            assert_eq!(problems[0].key, key, "{settings}");
        }
    }
}
