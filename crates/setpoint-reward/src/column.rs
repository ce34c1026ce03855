//! Rewards that stand in the file already.

use serde_json::Value;

use crate::error::Error;
use crate::source::{RewardSource, Scored};

/// Takes the reward from the data: the one that the record carries ([`recorded`](Self::recorded)), or any column of the row
/// ([`new`](Self::new)) with a list of one number per response, or one number where the row has one response. `true` counts as 1,
/// `false` as 0.
///
/// # Example
/// ```
/// use serde_json::json;
/// use setpoint_reward::{ColumnSource, RewardSource, Scored};
///
/// let row = json!({"helpfulness": [4.5, 2]});
/// let fields = row.as_object();
/// let items = [0, 1].map(|response_index| Scored { response_index, fields, recorded: Some(0.5), ..Scored::default() });
/// assert_eq!(ColumnSource::new("helpfulness").score(&items, &mut |_| ())?, [4.5, 2.0]);
/// assert_eq!(ColumnSource::recorded().score(&items, &mut |_| ())?, [0.5, 0.5]);
/// # Ok::<(), setpoint_reward::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnSource {
    /// None for the record's own reward.
    column: Option<String>,
}

impl ColumnSource {
    /// A source that reads `column` among [`Scored::fields`].
    pub fn new(column: impl Into<String>) -> Self {
        Self { column: Some(column.into()) }
    }

    /// A source that repeats [`Scored::recorded`].
    pub fn recorded() -> Self {
        Self { column: None }
    }

    fn reward(&self, item: &Scored<'_>) -> Result<f64, Error> {
        let Some(column) = &self.column else {
            return item.recorded.ok_or(Error::NotRecorded { row: item.row, response: item.response_index });
        };
        let field = |expected: &str, found: String| Error::Field {
            row: item.row,
            column: column.clone(),
            expected: expected.to_owned(),
            found,
        };
        let value = item
            .fields
            .and_then(|fields| fields.get(column))
            .ok_or_else(|| field("a reward", "no such column".to_owned()))?;
        let entry = match value {
            Value::Array(list) => list.get(item.response_index).ok_or_else(|| {
                field(
                    &format!("a reward for response {}", item.response_index),
                    format!("a list of {} entries", list.len()),
                )
            })?,
            // One number for a row with several responses would silently make them equally good.
            single if item.response_index == 0 => single,
            single => {
                return Err(field(
                    &format!("a list with a reward for response {}", item.response_index),
                    single.to_string(),
                ));
            }
        };
        // KTO's labels are booleans.
        let label = |good: bool| if good { 1.0 } else { 0.0 };
        entry.as_f64().or_else(|| entry.as_bool().map(label)).ok_or_else(|| field("a number", entry.to_string()))
    }
}

impl RewardSource for ColumnSource {
    fn describe(&self) -> String {
        match &self.column {
            Some(column) => format!("column `{column}`"),
            None => "the data's own rewards".to_owned(),
        }
    }

    fn reads_fields(&self) -> bool {
        self.column.is_some()
    }

    fn rate(&self, items: &[Scored<'_>], progress: &mut dyn FnMut(usize)) -> Result<Vec<f64>, Error> {
        let rewards = items.iter().map(|item| self.reward(item)).collect();
        progress(items.len());
        rewards
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(row: &Value, response_index: usize) -> Result<f64, Error> {
        let item = Scored { row: 12, response_index, fields: row.as_object(), ..Scored::default() };
        ColumnSource::new("score").score(&[item], &mut |_| ()).map(|rewards| rewards[0])
    }

    #[test]
    fn lists_and_single_numbers() {
        assert_eq!(read(&json!({"score": true}), 0).unwrap(), 1.0);
        assert_eq!(read(&json!({"score": [1, false]}), 1).unwrap(), 0.0);
        assert_eq!(read(&json!({"score": [1, -2.5]}), 1).unwrap(), -2.5);
        assert_eq!(read(&json!({"score": 3}), 0).unwrap(), 3.0);
    }

    #[test]
    fn a_record_without_its_own_reward_is_named() {
        let item = Scored { row: 12, response_index: 1, ..Scored::default() };
        let error = ColumnSource::recorded().score(&[item], &mut |_| ()).unwrap_err();
        assert!(matches!(error, Error::NotRecorded { row: 12, response: 1 }), "{error}");
    }

    #[test]
    fn what_is_no_reward_is_named_with_its_row() {
        for (row, index, found) in [
            (json!({"other": 1}), 0, "no such column"),
            (json!({"score": null}), 0, "null"),
            (json!({"score": "5"}), 0, "\"5\""),
            (json!({"score": [1]}), 1, "a list of 1 entries"),
            (json!({"score": [1, null]}), 1, "null"),
            (json!({"score": 1}), 1, "1"),
        ] {
            let message = read(&row, index).unwrap_err().to_string();
            assert!(message.contains("row 12") && message.contains("`score`"), "{message}");
            assert!(message.ends_with(found), "{message}");
        }
    }
}
