//! A rule against responses that go round in circles.

use std::collections::HashSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Check, Compiled, one};
use crate::error::Error;
use crate::source::Scored;

/// `−penalty · (1 − distinct share)`, where the distinct share is the number of different word n-grams over the number of all of
/// them ("distinct-n", Li et al. 2016): 0 for a response that never repeats itself, towards `−penalty` for a loop.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RepetitionRule {
    /// The number of words in an n-gram; responses of fewer words repeat nothing.
    #[serde(default = "three")]
    pub n: usize,
    /// The reward that is taken off a response of nothing but repetitions.
    #[serde(default = "one")]
    pub penalty: f64,
}

fn three() -> usize {
    3
}

impl RepetitionRule {
    pub(super) fn compile(&self, check: &mut Check) -> Option<Box<dyn Compiled>> {
        if self.n == 0 {
            check.problem("n", "is 0, expected at least 1 word");
        }
        if !(self.penalty.is_finite() && self.penalty >= 0.0) {
            check.problem("penalty", format!("is {}, expected a finite number, 0 or greater", self.penalty));
        }
        Some(Box::new(CompiledRepetition(self.clone())))
    }
}

struct CompiledRepetition(RepetitionRule);

impl Compiled for CompiledRepetition {
    fn score(&self, item: &Scored<'_>) -> Result<f64, Error> {
        let lower = item.response.to_lowercase();
        let words: Vec<&str> = lower.split_whitespace().collect();
        let total = words.windows(self.0.n).count();
        if total == 0 {
            return Ok(0.0);
        }
        let distinct = words.windows(self.0.n).collect::<HashSet<_>>().len();
        // Counted as repetitions, so that none is exactly 0 and not −0.
        Ok(self.0.penalty * (distinct as f64 - total as f64) / total as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{problems_of, score_of};

    #[test]
    fn the_share_of_repeated_ngrams_is_taken_off() {
        // Bigrams of "a b a b a": ab ba ab ba: 2 of 4 are distinct.
        assert_eq!(score_of("kind = 'repetition'\nn = 2\npenalty = 3.0", "a b A b a"), -1.5);
        assert_eq!(score_of("kind = 'repetition'\nn = 1", "x x x x x"), -0.8);
        assert_eq!(score_of("kind = 'repetition'", "all of these words differ"), 0.0);
    }

    #[test]
    fn short_responses_repeat_nothing() {
        assert_eq!(score_of("kind = 'repetition'", "a a"), 0.0);
        assert_eq!(score_of("kind = 'repetition'", ""), 0.0);
    }

    #[test]
    fn senseless_settings_are_named() {
        let problems = problems_of("kind = 'repetition'\nn = 0\npenalty = -1.0");
        assert_eq!(problems.iter().map(|p| p.key.as_str()).collect::<Vec<_>>(), ["n", "penalty"]);
    }
}
