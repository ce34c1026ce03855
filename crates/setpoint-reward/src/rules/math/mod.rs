//! A rule about the equivalence of mathematical answers.
//!
//! The crates that were judged (November 2026): `evalexpr` (AGPL since version 12), `meval` (unmaintained since 2018, an advisory
//! says so), `symbolica` (its licence asks for payment), `exmex` (kept up, but it reads no LaTeX and computes in f64, where 0.1 + 0.2
//! is not 0.3). None reads answers as people write them, so this module does: rational numbers are compared exactly, and
//! everything else by its values at some points.

mod expression;
mod rational;
mod tokens;

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::expression::{Expression, parse};
use self::tokens::{Token, tokenize};
use super::numeric::last_boxed;
use super::reference::{answer, reference};
use super::tags::last_content;
use super::{Check, Compiled, one};
use crate::error::Error;
use crate::source::Scored;

/// `score_if_equal` where the response's answer is mathematically the reference answer of the row, else `else`.
///
/// The answer is, in this order: the content of the tag `tag`, if it is set; the content of the last `\boxed{…}`; the text after
/// the last `####`; the whole response. Answers are numbers, fractions, roots, powers, expressions in variables, lists, tuples,
/// intervals and sets, in LaTeX or plain text: `\frac{1}{2}`, `0.5` and `1/2` are equal, and so are `(x+1)^2` and `x^2+2x+1`.
/// Rational numbers are compared exactly, other expressions by their values at several points. Texts that are no mathematics are
/// compared as texts, spaces and upper case aside.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MathAnswerRule {
    /// The column of the reference answer, a number or a text.
    #[serde(default = "answer")]
    pub field: String,
    /// The tag that the answer is in, such as `answer`; without it in the response there is no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// The reward for the right answer.
    #[serde(default = "one")]
    pub score_if_equal: f64,
    /// The reward for another answer or none.
    #[serde(default, rename = "else")]
    pub otherwise: f64,
}

/// The longest answer that is read, in bytes: a longer one is no answer but a text.
const LONGEST: usize = 2000;

impl MathAnswerRule {
    pub(super) fn compile(&self, check: &mut Check) -> Option<Box<dyn Compiled>> {
        check.finite("score_if_equal", self.score_if_equal);
        check.finite("else", self.otherwise);
        check.column("field", &self.field);
        if self.tag.as_ref().is_some_and(|tag| tag.is_empty() || tag.contains(['<', '>'])) {
            check.problem("tag", "is no name of a tag, expected one such as \"answer\", without < and >");
        }
        Some(Box::new(CompiledMath(self.clone())))
    }
}

struct CompiledMath(MathAnswerRule);

impl CompiledMath {
    fn reference(&self, item: &Scored<'_>) -> Result<String, Error> {
        reference(item, &self.0.field, "a reference answer, a number or a text", |value| match value {
            Value::String(text) if !answer_in(text).is_empty() => Ok(answer_in(text).to_owned()),
            Value::Number(number) => Ok(number.to_string()),
            other => Err(other.to_string()),
        })
    }
}

impl Compiled for CompiledMath {
    fn score(&self, item: &Scored<'_>) -> Result<f64, Error> {
        // The reference first: a row without one is an error whatever the response says.
        let reference = self.reference(item)?;
        let text = match &self.0.tag {
            Some(tag) => last_content(item.response, tag),
            None => Some(item.response),
        };
        let equal = text.is_some_and(|text| are_equal(answer_in(text), &reference));
        Ok(if equal { self.0.score_if_equal } else { self.0.otherwise })
    }
}

/// Returns the part of a text that is its answer.
fn answer_in(text: &str) -> &str {
    last_boxed(text).or_else(|| text.rsplit_once("####").map(|(_, after)| after)).unwrap_or(text).trim()
}

/// Returns whether two answers are the same.
fn are_equal(given: &str, reference: &str) -> bool {
    if given.len() > LONGEST || reference.len() > LONGEST || given.is_empty() {
        return false;
    }
    plain(given) == plain(reference)
        || matches!((Answer::read(given), Answer::read(reference)), (Some(a), Some(b)) if a.equals(&b))
}

/// Returns a text without spaces, dollar signs, upper case, a final point and the command around a text.
fn plain(text: &str) -> String {
    let mut text = text.trim_end_matches('.').to_lowercase();
    for command in ["\\text{", "\\mathrm{", "\\textbf{", "\\mbox{"] {
        if let Some(inside) = text.trim().strip_prefix(command).and_then(|inside| inside.strip_suffix('}')) {
            text = inside.to_owned();
        }
    }
    text.chars().filter(|c| !c.is_whitespace() && *c != '$').collect()
}

/// An answer.
#[derive(Debug, Clone, PartialEq)]
enum Answer {
    One(Expression),
    /// Entries in their order between brackets: a tuple, a vector or an interval.
    Ordered(char, Vec<Answer>, char),
    /// A set, or a list without brackets: the order says nothing.
    Set(Vec<Answer>),
    /// Intervals that are united.
    Union(Vec<Answer>),
}

impl Answer {
    fn read(text: &str) -> Option<Self> {
        // A full stop ends the sentence, inside or outside of dollar signs.
        Self::of(&tokenize(text.trim_end_matches(|c: char| c.is_whitespace() || matches!(c, '.' | '$')))?, 0)
    }

    fn of(tokens: &[Token], depth: usize) -> Option<Self> {
        if tokens.is_empty() || depth > 3 {
            return None;
        }
        let parts = split(tokens, &Token::Sign('∪'))?;
        if parts.len() > 1 {
            return Some(Self::Union(parts.into_iter().map(|part| Self::of(part, depth + 1)).collect::<Option<_>>()?));
        }
        let parts = split(tokens, &Token::Comma)?;
        if parts.len() > 1 {
            return Some(Self::Set(parts.into_iter().map(|part| Self::of(part, depth + 1)).collect::<Option<_>>()?));
        }
        if let (Some(&Token::Open(open)), Some(&Token::Close(close))) = (tokens.first(), tokens.last())
            && encloses(tokens)
        {
            let inside = &tokens[1..tokens.len() - 1];
            // Plain braces are a set as well: {1, 2}.
            let parts = split(inside, &Token::Comma)?;
            if open == 's' || open == '{' && parts.len() > 1 {
                let of = |part: &[Token]| Self::of(part, depth + 1);
                return Some(Self::Set(parts.into_iter().map(of).collect::<Option<_>>()?));
            }
            if parts.len() > 1 {
                let entries = parts.into_iter().map(|part| Self::of(part, depth + 1)).collect::<Option<_>>()?;
                return Some(Self::Ordered(open, entries, close));
            }
        }
        if let Some(at) = tokens.iter().position(|token| *token == Token::PlusMinus) {
            let with = |sign: char| {
                let mut tokens = tokens.to_vec();
                tokens[at] = Token::Sign(sign);
                Self::of(&tokens, depth + 1)
            };
            return Some(Self::Set(vec![with('+')?, with('-')?]));
        }
        // "x = 5" is 5.
        let value = match tokens {
            [Token::Name(_), Token::Sign('='), value @ ..] => value,
            _ => tokens,
        };
        // A percent sign is a unit: "50\%" and "50" are equal, as in most references.
        let value = value.strip_suffix(&[Token::Sign('%')]).unwrap_or(value);
        parse(value).map(Self::One)
    }

    fn equals(&self, other: &Self) -> bool {
        let in_order = |a: &[Self], b: &[Self]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.equals(b));
        match (self, other) {
            (Self::One(a), Self::One(b)) => have_equal_values(a, b),
            (Self::Ordered(open, a, close), Self::Ordered(o, b, c)) => open == o && close == c && in_order(a, b),
            (Self::Union(a), Self::Union(b)) => in_order(a, b),
            (Self::Set(a), Self::Set(b)) => {
                a.len() == b.len()
                    && a.iter().all(|one| b.iter().any(|other| one.equals(other)))
                    && b.iter().all(|one| a.iter().any(|other| one.equals(other)))
            }
            _ => false,
        }
    }
}

/// Splits tokens outside of brackets; `None` if the brackets do not close. An interval may end with another bracket than it begins.
fn split<'a>(tokens: &'a [Token], at: &Token) -> Option<Vec<&'a [Token]>> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0_usize);
    for (i, token) in tokens.iter().enumerate() {
        match token {
            Token::Open(_) => depth += 1,
            Token::Close(_) => depth = depth.checked_sub(1)?,
            token if depth == 0 && token == at => {
                parts.push(&tokens[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&tokens[start..]);
    (depth == 0).then_some(parts)
}

/// Returns whether the first bracket is closed by the last token.
fn encloses(tokens: &[Token]) -> bool {
    let mut depth = 0_usize;
    for (i, token) in tokens.iter().enumerate() {
        match token {
            Token::Open(_) => depth += 1,
            Token::Close(_) => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return i + 1 == tokens.len();
        }
    }
    false
}

/// The points at which expressions are compared; negative ones tell `x` from `√(x²)`.
const POINTS: [f64; 6] = [0.731_058, 1.324_717, 2.236_679, -0.415_926, -1.901_388, 3.302_775];

/// The largest relative difference of two values that count as equal: f64 rounds to 1e-16 in each of a few dozen operations.
const TOLERANCE: f64 = 1e-9;

/// Returns whether two expressions have the same values: exactly if both are rational numbers, else at several points.
fn have_equal_values(a: &Expression, b: &Expression) -> bool {
    if let (Some(a), Some(b)) = (a.exact(), b.exact()) {
        return a == b;
    }
    let mut variables = BTreeSet::new();
    a.variables(&mut variables);
    b.variables(&mut variables);
    let variables: Vec<String> = variables.into_iter().collect();
    let mut compared = 0;
    for i in 0..POINTS.len() {
        // Every variable has a point of its own, moved a little so that no two are equal.
        let variable = |name: &str| {
            let index = variables.iter().position(|own| own == name).unwrap_or(0);
            POINTS[(i + index) % POINTS.len()] * (1.0 + 0.01 * index as f64)
        };
        let (left, right) = (a.value(&variable), b.value(&variable));
        if left.is_nan() && right.is_nan() {
            continue;
        }
        // Numbers that are too large for f64 are not infinity, nor equal to each other.
        let equal = match left.is_infinite() || right.is_infinite() {
            true => a == b,
            false => (left - right).abs() <= TOLERANCE * left.abs().max(right.abs()),
        };
        if !equal {
            return false;
        }
        compared += 1;
    }
    compared > 0
}

#[cfg(test)]
mod tests;
