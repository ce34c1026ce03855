//! The parts of several data sets in an epoch.

use std::fmt;

use serde::{Deserialize, Serialize};
use setpoint_data::{DatasetConfig, StoppingStrategy};
use setpoint_train::{EpochEnd, Mixture, MixtureError};

use crate::failure::{Failure, Outcome};

/// The part of a data set in an epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DataPart {
    /// The path of the data set.
    pub path: String,
    /// Its weight, if the data sets have weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<f64>,
    /// Its examples.
    pub examples: usize,
    /// Its examples that an epoch visits; one that is visited twice counts twice.
    pub visits: usize,
}

/// `chat.jsonl: 450 of 1000 examples (weight 0.9)`.
impl fmt::Display for DataPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, weight, examples, visits } = self;
        match visits.cmp(examples) {
            std::cmp::Ordering::Greater => {
                let times = *visits as f64 / *examples as f64;
                write!(f, "{path}: {visits} visits to {examples} examples, each {times:.1} times on average")?;
            }
            _ => write!(f, "{path}: {visits} of {examples} examples")?,
        }
        weight.map_or(Ok(()), |weight| write!(f, " (weight {weight})"))
    }
}

/// An epoch over the data of a training.
#[derive(Debug, Clone, PartialEq)]
pub struct Mix {
    /// The order of the examples, if the data sets have weights.
    pub mixture: Option<Mixture>,
    /// The parts of the data sets, if there are several.
    pub parts: Vec<DataPart>,
    visits: usize,
}

impl Mix {
    /// Mixes the examples of a training. `sets`: the data set of each example.
    ///
    /// # Errors
    /// When a data set has no example, or an epoch would be too long.
    pub fn of(data: &DatasetConfig, sets: &[usize]) -> Outcome<Self> {
        let several = data.sources.len() > 1;
        if !several {
            return Ok(Self { mixture: None, parts: Vec::new(), visits: sets.len() });
        }
        let mut counts = vec![0; data.sources.len()];
        sets.iter().for_each(|&set| counts[set] += 1);
        let path = |set: usize| data.sources[set].path.clone();
        if let Some(set) = counts.iter().position(|count| *count == 0) {
            return Err(Failure::run(format!("{}: none of its rows is an example of this training", path(set)))
                .hint("leave the data set out, or give its rows what the method needs"));
        }
        let end = match data.stopping_strategy {
            StoppingStrategy::FirstExhausted => EpochEnd::FirstExhausted,
            StoppingStrategy::AllExhausted => EpochEnd::AllExhausted,
        };
        let weights = data.weights();
        let mixture = weights.as_ref().map(|weights| Mixture::new(sets, weights, end)).transpose();
        let mixture = mixture.map_err(|error| match error {
            MixtureError::TooLong { set, examples } => Failure::run(format!(
                "an epoch would have {} examples: the weight of {} is so small that its {} examples are to be seen among as many",
                length(examples),
                path(set),
                counts[set]
            ))
            .hint("raise its weight, or leave data.stopping_strategy at \"first_exhausted\""),
            error => Failure::run(error.to_string()),
        })?;
        let visits: Vec<usize> = match &mixture {
            Some(mixture) => mixture.shares().map(|(_, visits)| visits).collect(),
            None => counts.clone(),
        };
        let part = |set: usize| DataPart {
            path: path(set),
            weight: weights.as_ref().map(|weights| weights[set]),
            examples: counts[set],
            visits: visits[set],
        };
        Ok(Self { parts: (0..counts.len()).map(part).collect(), visits: visits.iter().sum(), mixture })
    }

    /// Returns the number of examples that an epoch visits.
    pub fn visits(&self) -> usize {
        self.visits
    }
}

/// Formats the length of an epoch, which may be far too large for its digits.
fn length(examples: f64) -> String {
    if examples < 1e15 { format!("{examples:.0}") } else { "more than 1e15".to_owned() }
}

#[cfg(test)]
mod tests {
    use setpoint_data::DataSource;

    use super::*;

    fn data(weights: &[Option<f64>]) -> DatasetConfig {
        let source = |(i, weight): (usize, &Option<f64>)| DataSource {
            weight: *weight,
            ..DataSource::new(format!("{i}.jsonl"))
        };
        DatasetConfig { sources: weights.iter().enumerate().map(source).collect(), ..DatasetConfig::new("") }
    }

    #[test]
    fn parts_say_what_an_epoch_has_of_each_data_set() {
        let sets: Vec<usize> = [vec![0; 1000], vec![1; 50]].concat();
        let mix = Mix::of(&data(&[Some(9.0), Some(1.0)]), &sets).unwrap();
        let lines: Vec<String> = mix.parts.iter().map(DataPart::to_string).collect();
        assert_eq!(lines, ["0.jsonl: 450 of 1000 examples (weight 9)", "1.jsonl: 50 of 50 examples (weight 1)"]);
        assert_eq!(mix.visits(), 500);

        let all = DatasetConfig { stopping_strategy: StoppingStrategy::AllExhausted, ..data(&[Some(9.0), Some(1.0)]) };
        let lines: Vec<String> = Mix::of(&all, &sets).unwrap().parts.iter().map(DataPart::to_string).collect();
        assert_eq!(lines[1], "1.jsonl: 111 visits to 50 examples, each 2.2 times on average (weight 1)");

        let mix = Mix::of(&data(&[None, None]), &sets).unwrap();
        assert_eq!((mix.mixture.is_none(), mix.visits()), (true, 1050));
        assert_eq!(mix.parts[1].to_string(), "1.jsonl: 50 of 50 examples");
        let mix = Mix::of(&DatasetConfig::new("a.jsonl"), &[0, 0]).unwrap();
        assert_eq!((mix.parts.len(), mix.visits()), (0, 2));
    }

    #[test]
    fn a_data_set_that_cannot_be_mixed_is_named() {
        let said = |data: &DatasetConfig, sets: &[usize]| Mix::of(data, sets).unwrap_err().to_string();
        for weights in [[None, None], [Some(1.0), Some(1.0)]] {
            assert!(said(&data(&weights), &[0, 0]).contains("1.jsonl: none of its rows is an example"));
        }
        let all =
            DatasetConfig { stopping_strategy: StoppingStrategy::AllExhausted, ..data(&[Some(1.0), Some(1e-12)]) };
        let message = said(&all, &[0, 1]);
        assert!(message.contains("the weight of 1.jsonl is so small"), "{message}");
        assert!(message.contains("an epoch would have 1000000000001 examples"), "{message}");
        let all =
            DatasetConfig { stopping_strategy: StoppingStrategy::AllExhausted, ..data(&[Some(1e300), Some(1.0)]) };
        assert!(said(&all, &[0, 1]).contains("an epoch would have more than 1e15 examples"));
    }
}
