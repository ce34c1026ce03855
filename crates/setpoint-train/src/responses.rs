//! Numbers of single responses, beside the metrics of whole batches.

use std::fmt::Write as _;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The steps and evaluations that leave the numbers of their single responses in `responses.jsonl`. They come from passes that are made
/// anyway, so all that a choice costs is the space of the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogResponses {
    /// None.
    None,
    /// The steps of the first and of the last pass over the data, and the first and the last evaluation: the file does not grow with the
    /// number of epochs. All steps where `best.patience` may end the run, since nobody knows then which pass will be the last.
    #[default]
    FirstAndLast,
    /// All of them.
    All,
}

/// Named numbers of each response that a forward pass went through, for `responses.jsonl`.
///
/// The task decides what the numbers mean. They come from a pass that is made anyway, and are kept in f32, the precision in which a
/// loss sees them.
///
/// ```
/// use setpoint_train::ResponseValues;
///
/// let mut values = ResponseValues::default();
/// values.push(7, [("reward", 1.5), ("log_ratio", 0.0)]);
/// values.push(7, [("log_ratio", -0.25)]);
/// assert_eq!(values.series("log_ratio"), Some(&[0.0, -0.25][..]));
/// assert!(values.series("reward").unwrap()[1].is_nan());
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ResponseValues {
    /// The example that each response belongs to.
    examples: Vec<usize>,
    /// Name and numbers, as many as there are responses, NaN where one is not known; in the order of their first appearance.
    series: Vec<(&'static str, Vec<f32>)>,
}

impl ResponseValues {
    /// Adds a response of an example. A number that is not given, or is NaN, is not known.
    pub fn push(&mut self, example: usize, values: impl IntoIterator<Item = (&'static str, f64)>) {
        let at = self.len();
        self.grow([example]);
        for (name, value) in values {
            self.column(name)[at] = value as f32;
        }
    }

    /// Adds the responses of other examples behind those that are there.
    pub fn append(&mut self, other: Self) {
        let at = self.len();
        self.grow(other.examples);
        for (name, values) in other.series {
            self.column(name)[at..].copy_from_slice(&values);
        }
    }

    /// Number of responses.
    pub fn len(&self) -> usize {
        self.examples.len()
    }

    /// Returns whether there is no response.
    pub fn is_empty(&self) -> bool {
        self.examples.is_empty()
    }

    /// The example of each response.
    pub fn examples(&self) -> &[usize] {
        &self.examples
    }

    /// The numbers of a name, one of each response, NaN where it is not known.
    pub fn series(&self, name: &str) -> Option<&[f32]> {
        self.series.iter().find(|(known, _)| *known == name).map(|(_, values)| values.as_slice())
    }

    fn grow(&mut self, examples: impl IntoIterator<Item = usize>) {
        self.examples.extend(examples);
        let responses = self.examples.len();
        self.series.iter_mut().for_each(|(_, values)| values.resize(responses, f32::NAN));
    }

    fn column(&mut self, name: &'static str) -> &mut [f32] {
        let known = self.series.iter().position(|(known, _)| *known == name);
        let place = known.unwrap_or_else(|| {
            self.series.push((name, vec![f32::NAN; self.examples.len()]));
            self.series.len() - 1
        });
        &mut self.series[place].1
    }

    /// A line of the log: one JSON object, a list for each name, `null` for what is not known. Names without any number are left out.
    pub(crate) fn line(&self, data: &str, step: u64, epoch: f64) -> String {
        let mut line = format!("{{\"data\":{},\"step\":{step},\"epoch\":{}", Value::from(data), Value::from(epoch));
        let mut list = |name: &str, items: &mut dyn Iterator<Item = String>| {
            let items: Vec<String> = items.collect();
            // Writing to a string cannot fail.
            let _ = write!(line, ",{}:[{}]", Value::from(name), items.join(","));
        };
        list("example", &mut self.examples.iter().map(usize::to_string));
        for (name, values) in self.series.iter().filter(|(_, values)| values.iter().any(|v| v.is_finite())) {
            list(name, &mut values.iter().map(|&value| number(value)));
        }
        line.push_str("}\n");
        line
    }
}

/// The shortest JSON that reads back as this number. JSON has no NaN and no infinities: they become null.
fn number(value: f32) -> String {
    // Up to here every whole number is an f32.
    const WHOLE: f32 = 16_777_216.0;
    if value.fract() == 0.0 && value.abs() <= WHOLE {
        return (value as i32).to_string();
    }
    serde_json::to_string(&value).unwrap_or_else(|_| "null".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn micro_batches_that_know_different_things_fit_together() {
        let mut step = ResponseValues::default();
        step.push(3, [("chosen", 1.0), ("reward", 0.1)]);
        step.push(3, [("reward", -2.0), ("chosen", 0.0)]);
        let mut second = ResponseValues::default();
        second.push(0, [("log_ratio", -1e-9)]);
        step.append(second);
        step.append(ResponseValues::default());
        assert_eq!((step.len(), step.examples()), (3, &[3, 3, 0][..]));
        assert_eq!(step.series("chosen").unwrap()[..2], [1.0, 0.0]);
        assert_eq!(step.series("log_ratio").unwrap()[2], -1e-9);
        assert_eq!(step.series("target"), None);
        assert_eq!(
            step.line("train", 4, 0.5),
            "{\"data\":\"train\",\"step\":4,\"epoch\":0.5,\"example\":[3,3,0],\"chosen\":[1,0,null],\"reward\":[0.1,-2,null],\
             \"log_ratio\":[null,null,-1e-9]}\n"
        );
    }

    #[test]
    fn a_line_is_json_and_reads_back_as_the_same_numbers() {
        let numbers =
            [0.1, -0.0, 1.0 / 3.0, 16_777_216.0, 3e8, f64::from(f32::MAX), f64::from(f32::MIN_POSITIVE), -7.25];
        let mut values = ResponseValues::default();
        for (i, value) in numbers.into_iter().enumerate() {
            values.push(i, [("a \"name\"", value), ("nothing", f64::NAN)]);
        }
        let line: Value = serde_json::from_str(&values.line("eval", 0, 0.0)).unwrap();
        let read: Vec<f32> =
            line["a \"name\""].as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect();
        assert_eq!(read, numbers.map(|v| v as f32));
        assert_eq!(line.get("nothing"), None, "nothing is known of it");
        assert_eq!(line["data"], "eval");
        assert_eq!([f32::NAN, f32::INFINITY, f32::NEG_INFINITY].map(number), ["null", "null", "null"]);
    }
}
