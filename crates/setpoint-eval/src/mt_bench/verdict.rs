//! The verdict in a judge's text: `[[7.5]]`, `[[A]]`.

use std::sync::LazyLock;

use regex::Regex;
use serde::{Deserialize, Serialize};

/// The winner of a game.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MtWinner {
    /// The first model.
    #[serde(rename = "model_1")]
    Model1,
    /// The second model.
    #[serde(rename = "model_2")]
    Model2,
    /// Neither.
    Tie,
    /// The judge's text names no winner.
    Error,
}

/// The first `[[number]]` of a judgment, else the first `[number]`, as FastChat parses it. `None` where there is neither.
///
/// # Example
/// ```
/// use setpoint_eval::parse_rating;
///
/// assert_eq!(parse_rating("Rating: [[7.5]]"), Some(7.5));
/// assert_eq!(parse_rating("I give it [8], that is 8/10"), Some(8.0));
/// assert_eq!(parse_rating("Rating: 7"), None);
/// ```
pub fn parse_rating(judgment: &str) -> Option<f64> {
    static DOUBLE: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"\[\[([0-9]+\.?[0-9]*)\]\]").ok());
    static SINGLE: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"\[([0-9]+\.?[0-9]*)\]").ok());
    let number = |regex: &Option<Regex>| regex.as_ref()?.captures(judgment)?.get(1)?.as_str().parse().ok();
    number(&DOUBLE).or_else(|| number(&SINGLE))
}

/// The verdict `[[A]]`, `[[B]]` or `[[C]]` (a tie), in this order of precedence as in FastChat; A is model 1 unless `swapped`.
///
/// # Example
/// ```
/// use setpoint_eval::{MtWinner, parse_verdict};
///
/// assert_eq!(parse_verdict("My verdict: [[A]]", false), MtWinner::Model1);
/// assert_eq!(parse_verdict("My verdict: [[A]]", true), MtWinner::Model2);
/// assert_eq!(parse_verdict("A is better", false), MtWinner::Error);
/// ```
pub fn parse_verdict(judgment: &str, swapped: bool) -> MtWinner {
    let (a, b) = if swapped { (MtWinner::Model2, MtWinner::Model1) } else { (MtWinner::Model1, MtWinner::Model2) };
    let marks = [("[[A]]", a), ("[[B]]", b), ("[[C]]", MtWinner::Tie)];
    marks.iter().find(|(mark, _)| judgment.contains(mark)).map_or(MtWinner::Error, |(_, winner)| *winner)
}
