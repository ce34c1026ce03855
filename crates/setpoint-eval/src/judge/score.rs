//! The number in a judge's answer.

use regex::Regex;
use serde_json::Value;

/// The place of the score in the answer of a generative reward model.
#[derive(Debug, Clone)]
pub enum ScoreReader {
    /// The first group of this pattern (the whole match without one), where it matches last: reasoning comes before the score.
    Pattern(Regex),
    /// The number at this dotted path of the last JSON object in the answer that has it.
    Field(String),
}

impl ScoreReader {
    /// A reader by pattern.
    ///
    /// # Errors
    /// The fault of the pattern.
    pub fn pattern(pattern: &str) -> Result<Self, String> {
        Regex::new(pattern).map(ScoreReader::Pattern).map_err(|e| {
            // The message shows the pattern over several lines; the last one gives the reason.
            let message = e.to_string();
            let reason = message.lines().last().unwrap_or_default();
            format!("is no valid regular expression: {}", reason.trim_start_matches("error: "))
        })
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
    /// assert_eq!(field.read("{1, 2}: {\"scores\": {\"helpful\": 4}} in {braces}"), Some(4.0));
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
                let value = last_with(answer, path)?;
                value.as_f64().or_else(|| value.as_str()?.trim().parse().ok())?
            }
        };
        // Sums of greater ones are no numbers.
        Some(score).filter(|score: &f64| score.abs() <= 1e30)
    }
}

/// Returns the value at `path` in the last JSON object of a text that has it. Braces that begin no JSON are text.
fn last_with(text: &str, path: &str) -> Option<Value> {
    let mut found = None;
    let mut at = 0;
    while let Some(open) = text[at..].find('{') {
        at += open;
        let mut objects = serde_json::Deserializer::from_str(&text[at..]).into_iter::<Value>();
        match objects.next() {
            Some(Ok(object)) => {
                at += objects.byte_offset();
                found = last_within(&object, path).or(found);
            }
            _ => at += 1,
        }
    }
    found
}

/// The value at `path` of the object itself, else of the last object inside it that has it.
fn last_within(value: &Value, path: &str) -> Option<Value> {
    match value {
        Value::Object(fields) => {
            if let Some(found) = path.split('.').try_fold(value, |value, key| value.get(key)) {
                return Some(found.clone());
            }
            fields.values().rev().find_map(|inner| last_within(inner, path))
        }
        Value::Array(items) => items.iter().rev().find_map(|inner| last_within(inner, path)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(answer: &str) -> Option<f64> {
        ScoreReader::Field("score".into()).read(answer)
    }

    #[test]
    fn the_last_object_that_has_the_field_counts() {
        for (answer, expected) in [
            (r#"The set {1, 2} is right, so: {"score": 8}"#, 8.0),
            (r#"{"score": 5} and then {braces} and } and {"#, 5.0),
            (r#"<think>{maybe 3}</think>{"score": 4}"#, 4.0),
            (r#"<think>{"score": 3}? No.</think>{"score": 4}"#, 4.0),
            ("```json\n{\n  \"score\": 7,\n  \"why\": \"a } in {text}\"\n}\n```\nDone {here}.", 7.0),
            (r#"{"score": 6, "why": "not {\"score\": 1}"}"#, 6.0),
            (r#"{"score": 6, "details": {"score": 1}}"#, 6.0),
            (r#"{"verdict": {"score": 2}} {"note": "over"}"#, 2.0),
            (r#"[{"score": 2}, {"score": 9}]"#, 9.0),
            (r#"{"reason": "unfinished {"score": "3.5"}"#, 3.5),
            (r#"{{"score": 1}}"#, 1.0),
            (r#"{"score": -1.5e0}{"other": 2}"#, -1.5),
            ("\u{201c}{\u{201d} \u{e9}{\"score\": 8} \u{1f600}{", 8.0),
        ] {
            assert_eq!(score(answer), Some(expected), "{answer}");
        }
        // Nothing is guessed from an object that is broken, has no number, or lacks the field.
        for answer in
            [r#"{"score": }"#, r#"{"score": "high"}"#, r#"{"scores": 1}"#, "{score: 1}", r#"{"score": 1e999}"#, ""]
        {
            assert_eq!(score(answer), None, "{answer}");
        }
        assert_eq!(score(&"{".repeat(100_000)), None);
        assert_eq!(score(&("{\"a\":".repeat(50_000) + "{\"score\": 2}")), Some(2.0));
    }

    #[test]
    fn a_dotted_path_is_followed() {
        let reader = ScoreReader::Field("scores.helpful".into());
        assert_eq!(reader.read(r#"{"scores": {"helpful": 3}} {"scores": {"clear": 9}}"#), Some(3.0));
    }
}
