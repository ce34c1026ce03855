//! The number in a judge's answer.

use regex::Regex;
use serde_json::Value;

/// Where a generative reward model puts its score.
#[derive(Debug, Clone)]
pub enum ScoreReader {
    /// The first group of this pattern (the whole match without one), where it matches last: reasoning comes before the score.
    Pattern(Regex),
    /// A number at this dotted path of a JSON object in the answer.
    Field(String),
}

impl ScoreReader {
    /// A reader by pattern.
    ///
    /// # Errors
    /// What is wrong with the pattern.
    pub fn pattern(pattern: &str) -> Result<Self, String> {
        Regex::new(pattern).map(ScoreReader::Pattern).map_err(|e| e.to_string())
    }

    /// The score, if the answer holds a finite one.
    ///
    /// # Example
    /// ```
    /// use setpoint_eval::ScoreReader;
    ///
    /// let rating = ScoreReader::pattern(r"\[\[(-?\d+(?:\.\d+)?)\]\]")?;
    /// assert_eq!(rating.read("First [[2]], on reflection [[7.5]]"), Some(7.5));
    /// let field = ScoreReader::Field("scores.helpful".into());
    /// assert_eq!(field.read("```json\n{\"scores\": {\"helpful\": 4}}\n```"), Some(4.0));
    /// assert_eq!(field.read("four"), None);
    /// # Ok::<(), String>(())
    /// ```
    pub fn read(&self, answer: &str) -> Option<f64> {
        let score = match self {
            ScoreReader::Pattern(regex) => {
                let found = regex.captures_iter(answer).last()?;
                found.get(1).or_else(|| found.get(0))?.as_str().trim().parse().ok()?
            }
            ScoreReader::Field(path) => {
                // Models wrap their JSON in fences and remarks.
                let (open, close) = (answer.find('{')?, answer.rfind('}')?);
                let json: Value = serde_json::from_str(answer.get(open..=close)?).ok()?;
                let value = path.split('.').try_fold(&json, |value, key| value.get(key))?;
                value.as_f64().or_else(|| value.as_str()?.trim().parse().ok())?
            }
        };
        Some(score).filter(|s: &f64| s.is_finite())
    }
}
