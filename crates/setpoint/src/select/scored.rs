//! The scores that responses are selected by, and responses that repeat another one.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use serde_json::Value;
use setpoint_data::{Record, Response, TextEncoder};
use setpoint_reward::LengthUnit;

use super::SelectConfig;
use crate::config::sections::ModelSection;
use crate::failure::{Failure, Outcome};
use crate::setup;

/// Turns rewards into scores.
pub(super) struct Scorer {
    penalty: f64,
    unit: LengthUnit,
    /// The tokenizer, if tokens are counted.
    encoder: Option<TextEncoder>,
    deduplicate: bool,
}

impl Scorer {
    /// Reads the tokenizer, if the settings name one.
    pub(super) fn new(config: &SelectConfig) -> Outcome<Self> {
        let section = config
            .tokenizer
            .as_ref()
            .map(|dir| ModelSection { tokenizer: Some(dir.clone()), ..ModelSection::default() });
        let encoder = section.as_ref().map(setup::encoder).transpose()?;
        Ok(Self { penalty: config.length_penalty, unit: config.length_unit, encoder, deduplicate: config.deduplicate })
    }

    /// Makes scores of a record's rewards, leaves out labels, the margin and responses that repeat another one, and returns how many these
    /// are.
    ///
    /// # Errors
    /// When a text cannot become tokens, or a score is too large for a number.
    pub(super) fn score(&self, record: &mut Record) -> Outcome<usize> {
        record.margin = None;
        for response in &mut record.responses {
            response.label = None;
            if self.penalty > 0.0 {
                let length = self
                    .length(response.text())
                    .map_err(|problem| Failure::run(format!("{}: {problem}", record.source)))?;
                let score = response.reward.map(|reward| reward - self.penalty * length as f64);
                if score.is_some_and(|score| !score.is_finite()) {
                    let message = format!(
                        "{}: the penalty of a response of length {length} is too large for a number: \
                         lower `length_penalty`",
                        record.source
                    );
                    return Err(Failure::run(message));
                }
                response.reward = score;
            }
        }
        Ok(if self.deduplicate { remove_repeated(&mut record.responses) } else { 0 })
    }

    /// Returns the length of a text in the unit of the settings. The stop token of a response counts, as in the rule `length`.
    fn length(&self, text: &str) -> Result<usize, setpoint_data::EncodeProblem> {
        Ok(match (self.unit, &self.encoder) {
            (LengthUnit::Words, _) => text.split_whitespace().count(),
            (LengthUnit::Tokens, Some(encoder)) => encoder.encode_text(text)?.len() + 1,
            (LengthUnit::Chars | LengthUnit::Tokens, _) => text.chars().count(),
        })
    }
}

/// Keeps one of several equal responses, the one with the greatest reward and of these the first, and returns how many are removed.
fn remove_repeated(responses: &mut Vec<Response>) -> usize {
    let mut best: HashMap<String, usize> = HashMap::new();
    for (j, response) in responses.iter().enumerate() {
        match best.entry(without_spaces(response)) {
            Entry::Vacant(free) => _ = free.insert(j),
            Entry::Occupied(mut kept) => {
                if response.reward > responses[*kept.get()].reward {
                    kept.insert(j);
                }
            }
        }
    }
    let removed = responses.len() - best.len();
    let mut kept = vec![false; responses.len()];
    best.into_values().for_each(|j| kept[j] = true);
    let mut kept = kept.into_iter();
    responses.retain(|_| kept.next().unwrap_or(true));
    removed
}

/// Returns what makes a response different from others: its words with single spaces, and what the turn holds besides them.
fn without_spaces(response: &Response) -> String {
    let words = response.text().split_whitespace().collect::<Vec<_>>().join(" ");
    let extra = &response.message.extra;
    if extra.is_empty() { words } else { format!("{words}\n{}", Value::Object(extra.clone())) }
}

#[cfg(test)]
mod tests {
    use setpoint_data::{Label, Message, Prompt};

    use super::*;

    fn record(responses: &[(&str, f64)]) -> Record {
        let responses =
            responses.iter().map(|(text, reward)| Response::new(*text).rewarded(*reward).labelled(Label::Chosen));
        Record { margin: Some(1.0), ..Record::new(Prompt::Text("p".into()), responses.collect()) }
    }

    fn scored(config: &SelectConfig, responses: &[(&str, f64)]) -> (Vec<(String, f64)>, usize) {
        let mut record = record(responses);
        let repeated = Scorer::new(config).unwrap().score(&mut record).unwrap();
        assert!(record.margin.is_none() && record.responses.iter().all(|response| response.label.is_none()));
        let scores = record.responses.iter().map(|response| (response.text().to_owned(), response.reward.unwrap()));
        (scores.collect(), repeated)
    }

    fn owned(scores: &[(&str, f64)]) -> Vec<(String, f64)> {
        scores.iter().map(|(text, score)| ((*text).to_owned(), *score)).collect()
    }

    #[test]
    fn a_penalty_is_taken_off_for_each_unit() {
        let responses = [("Größe", 1.0), ("two words", -1.0)];
        let of = |length_penalty, length_unit| {
            scored(&SelectConfig { length_penalty, length_unit, ..SelectConfig::default() }, &responses).0
        };
        assert_eq!(of(0.0, LengthUnit::Chars), owned(&responses));
        assert_eq!(of(0.5, LengthUnit::Chars), owned(&[("Größe", 1.0 - 2.5), ("two words", -1.0 - 4.5)]));
        assert_eq!(of(0.5, LengthUnit::Words), owned(&[("Größe", 0.5), ("two words", -2.0)]));
    }

    #[test]
    fn a_penalty_beyond_all_numbers_is_refused() {
        let config = SelectConfig { length_penalty: 1e308, ..SelectConfig::default() };
        let mut record = record(&[("short", 1.0), ("a response of more characters", 2.0)]);
        let message = Scorer::new(&config).unwrap().score(&mut record).unwrap_err().to_string();
        assert!(message.contains("too large for a number") && message.contains("length_penalty"), "{message}");
    }

    #[test]
    fn of_equal_responses_the_best_is_kept() {
        let responses = [("a b", 0.0), ("c", 1.0), (" a\n b ", 2.0), ("a  b", 2.0), ("ab", -1.0)];
        let config = SelectConfig::default();
        assert_eq!(scored(&config, &responses), (owned(&[("c", 1.0), (" a\n b ", 2.0), ("ab", -1.0)]), 2));
        let config = SelectConfig { deduplicate: false, ..config };
        assert_eq!(scored(&config, &responses), (owned(&responses), 0));
    }

    #[test]
    fn responses_that_call_other_tools_are_different() {
        let call = |name: &str| {
            let mut message = Message::assistant("");
            message.extra.insert("tool_calls".into(), serde_json::json!([{ "function": { "name": name } }]));
            Response { message, ..Response::new("").rewarded(0.0) }
        };
        let mut responses = vec![call("add"), call("subtract"), call("add")];
        assert_eq!(remove_repeated(&mut responses), 1);
        assert_eq!(responses, [call("add"), call("subtract")]);
    }
}
