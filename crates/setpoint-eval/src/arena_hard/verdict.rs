//! A judge's label: `[[A>>B]]`.

use std::sync::LazyLock;

use regex::Regex;
use serde::{Deserialize, Serialize};

/// Battles that a clear verdict counts as.
const CLEAR: usize = 3;

/// The comparison of the answers of assistants A and B.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ArenaVerdict {
    /// A is significantly better.
    #[serde(rename = "A>>B", alias = "B<<A")]
    MuchBetter,
    /// A is slightly better.
    #[serde(rename = "A>B", alias = "B<A")]
    Better,
    /// Neither is better.
    #[serde(rename = "A=B", alias = "B=A")]
    Same,
    /// B is slightly better.
    #[serde(rename = "B>A", alias = "A<B")]
    Worse,
    /// B is significantly better.
    #[serde(rename = "B>>A", alias = "A<<B")]
    MuchWorse,
}

impl ArenaVerdict {
    /// Reads the last label in a judge's text: in double brackets, else in single ones. `None` if it is none of the ten.
    ///
    /// # Example
    /// ```
    /// use setpoint_eval::ArenaVerdict;
    ///
    /// assert_eq!(ArenaVerdict::parse("Not [[B>A]] but [[A>>B]]"), Some(ArenaVerdict::MuchBetter));
    /// assert_eq!(ArenaVerdict::parse("tie: [a=b]"), Some(ArenaVerdict::Same));
    /// assert_eq!(ArenaVerdict::parse("A is better"), None);
    /// ```
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        static LABELS: LazyLock<[Option<Regex>; 2]> =
            LazyLock::new(|| [r"\[\[([AB<>=]+)\]\]", r"\[([AB<>=]+)\]"].map(|pattern| Regex::new(pattern).ok()));
        let text = text.to_uppercase();
        let last = |pattern: &Regex| Some(pattern.captures_iter(&text).last()?.get(1)?.as_str().to_owned());
        let label = LABELS.iter().flatten().find_map(last)?;
        serde_json::from_value(label.into()).ok()
    }

    /// Returns the outcomes of the battles that a verdict counts as, for A: 1 if it wins, ½ for a tie. A clear verdict counts as three battles.
    #[must_use]
    pub fn outcomes(self) -> Vec<f64> {
        match self {
            Self::MuchBetter => vec![1.0; CLEAR],
            Self::Better => vec![1.0],
            Self::Same => vec![0.5],
            Self::Worse => vec![0.0],
            Self::MuchWorse => vec![0.0; CLEAR],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_labels_are_read() {
        for (label, verdict, sum) in [
            ("A>>B", ArenaVerdict::MuchBetter, 3.0),
            ("B<<A", ArenaVerdict::MuchBetter, 3.0),
            ("A>B", ArenaVerdict::Better, 1.0),
            ("B<A", ArenaVerdict::Better, 1.0),
            ("A=B", ArenaVerdict::Same, 0.5),
            ("B=A", ArenaVerdict::Same, 0.5),
            ("A<B", ArenaVerdict::Worse, 0.0),
            ("B>A", ArenaVerdict::Worse, 0.0),
            ("A<<B", ArenaVerdict::MuchWorse, 0.0),
            ("B>>A", ArenaVerdict::MuchWorse, 0.0),
        ] {
            assert_eq!(ArenaVerdict::parse(&format!("so [[{label}]].")), Some(verdict), "{label}");
            assert_eq!(verdict.outcomes().iter().sum::<f64>(), sum);
        }
        assert_eq!(ArenaVerdict::parse("[[A>>>B]]"), None, "no such label");
        assert_eq!(ArenaVerdict::parse("[B>A] or [[A>B]]"), Some(ArenaVerdict::Better), "double brackets first");
        assert_eq!(serde_json::to_value(ArenaVerdict::MuchWorse).unwrap(), "B>>A");
    }
}
