//! Rewards by rule: what can be checked without a model.
//!
//! A [`Rule`] is plain data that comes from a configuration file; [`RuleSource`] is the same rule checked and ready to run.

mod json;
mod length;
mod math;
mod number;
mod numeric;
mod reference;
mod repetition;
mod tags;
mod words;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use json::JsonRule;
pub use length::{LengthRule, LengthUnit};
pub use math::MathAnswerRule;
pub use numeric::NumericAnswerRule;
pub use repetition::RepetitionRule;
pub use tags::TagsRule;
pub use words::{ContainsRule, Quantifier, RegexRule, StartsWithRule};

use crate::error::{Error, RuleProblem};
use crate::source::{RewardSource, Scored};

/// A rule that turns a response into a number.
///
/// # Example
/// In a TOML file:
/// ```
/// use setpoint_reward::{RewardSource, Rule, RuleSource, Scored};
///
/// let rule: Rule = toml::from_str(
///     r#"
///     kind = "sum"
///
///     [[terms]]
///     weight = 2.0
///     rule = { kind = "numeric_answer", field = "answer" }
///
///     [[terms]]
///     rule = { kind = "length", unit = "words", max = 3, penalty = 0.5 }
///     "#,
/// )?;
/// let source = RuleSource::new(rule)?;
///
/// let row = serde_json::json!({"answer": "1,200"});
/// let item = Scored { response: "It makes \\boxed{1200} in total.", fields: row.as_object(), ..Scored::default() };
/// // Right: 2·1. Five words, two more than three: −0.5 each.
/// assert_eq!(source.score(&[item], &mut |_| ())?, [1.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Rule {
    /// Looks for a match of a regular expression.
    Regex(RegexRule),
    /// Looks for words in the response.
    Contains(ContainsRule),
    /// Looks for words at the start of the response.
    StartsWith(StartsWithRule),
    /// Measures how far the length is from its target.
    Length(LengthRule),
    /// Checks that the response is valid JSON.
    Json(JsonRule),
    /// Compares the response's final number with the right one.
    NumericAnswer(NumericAnswerRule),
    /// Compares the response's mathematical answer with the right one.
    MathAnswer(MathAnswerRule),
    /// Checks the tags that the response is divided by.
    Tags(TagsRule),
    /// Measures how much the response repeats itself.
    Repetition(RepetitionRule),
    /// Adds up rules with weights.
    Sum(SumRule),
}

/// `Σ weight · rule`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SumRule {
    /// The terms of the sum, at least one.
    pub terms: Vec<Term>,
}

/// One rule of a sum.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Term {
    /// The factor of the rule; negative for what is unwanted.
    #[serde(default = "one")]
    pub weight: f64,
    /// The rule that is weighted.
    pub rule: Rule,
}

/// A rule that was checked and is ready to score.
pub struct RuleSource {
    compiled: Box<dyn Compiled>,
    needs_tokens: bool,
    reads_fields: bool,
    description: String,
}

impl RuleSource {
    /// Checks `rule` and prepares it.
    ///
    /// # Errors
    /// [`Error::Rule`] with **every** setting that makes no sense (a regular expression that does not parse, an empty list of
    /// words, a minimum above the maximum …), each with its key.
    pub fn new(rule: Rule) -> Result<Self, Error> {
        let mut check = Check::default();
        let compiled = rule.compile(&mut check);
        match compiled {
            Some(compiled) if check.problems.is_empty() => Ok(Self {
                compiled,
                needs_tokens: rule.needs_tokens(),
                reads_fields: rule.reads_fields(),
                description: rule.describe(),
            }),
            _ => Err(Error::Rule { problems: check.problems }),
        }
    }
}

impl std::fmt::Debug for RuleSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("RuleSource").field(&self.description).finish()
    }
}

impl RewardSource for RuleSource {
    fn describe(&self) -> String {
        self.description.clone()
    }

    fn needs_tokens(&self) -> bool {
        self.needs_tokens
    }

    fn reads_fields(&self) -> bool {
        self.reads_fields
    }

    fn rate(&self, items: &[Scored<'_>], progress: &mut dyn FnMut(usize)) -> Result<Vec<f64>, Error> {
        let rewards = items.iter().map(|item| self.compiled.score(item)).collect();
        progress(items.len());
        rewards
    }
}

impl Rule {
    fn compile(&self, check: &mut Check) -> Option<Box<dyn Compiled>> {
        match self {
            Self::Regex(rule) => rule.compile(check),
            Self::Contains(rule) => rule.compile(check),
            Self::StartsWith(rule) => rule.compile(check),
            Self::Length(rule) => rule.compile(check),
            Self::Json(rule) => rule.compile(check),
            Self::NumericAnswer(rule) => rule.compile(check),
            Self::MathAnswer(rule) => rule.compile(check),
            Self::Tags(rule) => rule.compile(check),
            Self::Repetition(rule) => rule.compile(check),
            Self::Sum(rule) => rule.compile(check),
        }
    }

    fn needs_tokens(&self) -> bool {
        match self {
            Self::Length(rule) => rule.unit == LengthUnit::Tokens,
            Self::Sum(sum) => sum.terms.iter().any(|term| term.rule.needs_tokens()),
            _ => false,
        }
    }

    fn reads_fields(&self) -> bool {
        match self {
            Self::NumericAnswer(_) | Self::MathAnswer(_) => true,
            Self::Sum(sum) => sum.terms.iter().any(|term| term.rule.reads_fields()),
            _ => false,
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::Regex(_) => "rule regex".to_owned(),
            Self::Contains(_) => "rule contains".to_owned(),
            Self::StartsWith(_) => "rule starts_with".to_owned(),
            Self::Length(_) => "rule length".to_owned(),
            Self::Json(_) => "rule json".to_owned(),
            Self::NumericAnswer(_) => "rule numeric_answer".to_owned(),
            Self::MathAnswer(_) => "rule math_answer".to_owned(),
            Self::Tags(_) => "rule tags".to_owned(),
            Self::Repetition(_) => "rule repetition".to_owned(),
            Self::Sum(sum) => {
                let names: Vec<String> = sum.terms.iter().map(|term| term.rule.describe()).collect();
                format!("sum of {}", names.join(", "))
            }
        }
    }
}

impl SumRule {
    fn compile(&self, check: &mut Check) -> Option<Box<dyn Compiled>> {
        if self.terms.is_empty() {
            check.problem("terms", "is empty, a sum needs at least one term");
            return None;
        }
        let terms: Vec<_> = (self.terms.iter().enumerate())
            .map(|(index, term)| {
                check.within(&format!("terms[{index}]"), |check| {
                    check.finite("weight", term.weight);
                    let rule = check.within("rule", |check| term.rule.compile(check));
                    rule.map(|rule| (term.weight, rule))
                })
            })
            // Every term is looked at, so that all problems are found, before the first failure counts.
            .collect::<Vec<_>>();
        let terms = terms.into_iter().collect::<Option<Vec<_>>>()?;
        Some(Box::new(CompiledSum { terms }))
    }
}

struct CompiledSum {
    terms: Vec<(f64, Box<dyn Compiled>)>,
}

impl Compiled for CompiledSum {
    fn score(&self, item: &Scored<'_>) -> Result<f64, Error> {
        self.terms.iter().try_fold(0.0, |sum, (weight, rule)| Ok(sum + weight * rule.score(item)?))
    }
}

/// A rule with its regular expressions built.
trait Compiled: Send + Sync {
    fn score(&self, item: &Scored<'_>) -> Result<f64, Error>;
}

/// Collects what is wrong with a rule, with the key at which it stands.
#[derive(Default)]
struct Check {
    path: Vec<String>,
    problems: Vec<RuleProblem>,
}

impl Check {
    fn within<T>(&mut self, key: &str, body: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(key.to_owned());
        let result = body(self);
        self.path.pop();
        result
    }

    fn problem(&mut self, key: &str, message: impl Into<String>) {
        let mut path = self.path.clone();
        path.push(key.to_owned());
        self.problems.push(RuleProblem { key: path.join("."), message: message.into() });
    }

    fn finite(&mut self, key: &str, value: f64) {
        if !value.is_finite() {
            self.problem(key, format!("is {value}, expected a finite number"));
        }
    }
}

/// Default of a weight or of the score for success.
fn one() -> f64 {
    1.0
}

#[cfg(test)]
fn score_of(rule_toml: &str, response: &str) -> f64 {
    let rule: Rule = toml::from_str(rule_toml).unwrap();
    let item = Scored { response, ..Scored::default() };
    RuleSource::new(rule).unwrap().score(&[item], &mut |_| ()).unwrap()[0]
}

#[cfg(test)]
fn problems_of(rule_toml: &str) -> Vec<RuleProblem> {
    let rule: Rule = toml::from_str(rule_toml).unwrap();
    match RuleSource::new(rule) {
        Err(Error::Rule { problems }) => problems,
        other => panic!("expected problems, got {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_weighs_its_terms_and_nests() {
        let rule = r#"
            kind = "sum"
            [[terms]]
            weight = 3.0
            rule = { kind = "contains", words = ["yes"] }
            [[terms]]
            weight = -0.5
            rule = { kind = "sum", terms = [
                { rule = { kind = "contains", words = ["maybe"] } },
                { weight = 4.0, rule = { kind = "starts_with", words = ["well"] } },
            ] }
        "#;
        assert_eq!(score_of(rule, "yes"), 3.0);
        assert_eq!(score_of(rule, "Well, maybe yes"), 3.0 - 0.5 * (1.0 + 4.0));
        assert_eq!(score_of(rule, "no"), 0.0);
    }

    #[test]
    fn every_problem_of_a_sum_is_reported_with_its_key() {
        let problems = problems_of(
            r#"
            kind = "sum"
            [[terms]]
            weight = nan
            rule = { kind = "regex", pattern = "(" }
            [[terms]]
            rule = { kind = "contains", words = [] }
            "#,
        );
        let keys: Vec<&str> = problems.iter().map(|p| p.key.as_str()).collect();
        assert_eq!(keys, ["terms[0].weight", "terms[0].rule.pattern", "terms[1].rule.words"]);
        assert_eq!(problems_of("kind = 'sum'\nterms = []")[0].key, "terms");
    }

    #[test]
    fn unknown_kinds_and_keys_are_refused_by_name() {
        let kind = toml::from_str::<Rule>("kind = 'regexp'\npattern = 'a'").unwrap_err().to_string();
        assert!(kind.contains("regexp") && kind.contains("starts_with"), "{kind}");
        let key = toml::from_str::<Rule>("kind = 'regex'\npatern = 'a'").unwrap_err().to_string();
        assert!(key.contains("patern"), "{key}");
        let nested = toml::from_str::<Rule>("kind = 'sum'\nterms = [{ wieght = 1, rule = { kind = 'json' } }]");
        assert!(nested.unwrap_err().to_string().contains("wieght"));
    }

    #[test]
    fn a_rule_written_back_reads_the_same() {
        let rule: Rule = toml::from_str(
            "kind = 'sum'\nterms = [{ weight = 2.0, rule = { kind = 'length', unit = 'chars', target = 5 } }]",
        )
        .unwrap();
        let text = toml::to_string(&rule).unwrap();
        assert_eq!(toml::from_str::<Rule>(&text).unwrap(), rule, "{text}");
    }

    #[test]
    fn overflow_is_caught_with_row_and_response() {
        let rule: Rule = toml::from_str(
            "kind = 'sum'\nterms = [{ weight = 1e308, rule = { kind = 'regex', pattern = 'a', score_if_match = 100.0 } }]",
        )
        .unwrap();
        let item = Scored { row: 4, response_index: 2, response: "a", ..Scored::default() };
        let error = RuleSource::new(rule).unwrap().score(&[item], &mut |_| ()).unwrap_err();
        assert!(matches!(error, Error::NotFinite { row: 4, response: 2, value: f64::INFINITY, .. }), "{error}");
    }

    #[test]
    fn tokens_are_asked_for_only_where_a_rule_counts_them() {
        let needs = |text: &str| RuleSource::new(toml::from_str(text).unwrap()).unwrap().needs_tokens();
        assert!(!needs("kind = 'length'\nunit = 'words'\nmax = 3"));
        assert!(needs("kind = 'length'\nunit = 'tokens'\nmax = 3"));
        assert!(needs("kind = 'sum'\nterms = [{ rule = { kind = 'length', unit = 'tokens', max = 3 } }]"));
    }
}
