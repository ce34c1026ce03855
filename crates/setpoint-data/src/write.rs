//! Writing point-wise JSONL, all of it or nothing.

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::Error;
use crate::format::{LABELS, PROMPT, RESPONSES, REWARDS};
use crate::record::{Message, Prompt, Record};

/// Writes records as point-wise JSONL, one object a line, and returns their number.
///
/// `{"prompt": …, "responses": […], "rewards": […], "labels": […], "margin": …}` and the record's extra columns. The prompt
/// is text or a list of messages. `rewards` stands there when every response has one, `labels` when one has. What this writes,
/// [`read_records`](crate::read_records) reads as the same records.
///
/// # Errors
/// [`Error::Write`] for a record without responses, with rewards for only some of them, or with a reward or margin that is
/// not finite; [`Error::Io`] when the disk refuses. The file that was there is then untouched.
pub fn write_pointwise<'a>(path: &Path, records: impl IntoIterator<Item = &'a Record>) -> Result<usize, Error> {
    let mut count = 0;
    setpoint_files::write(path, |out| {
        for record in records {
            let row = Value::Object(pointwise_row(record)?);
            out.put(format!("{row}\n").as_bytes())?;
            count += 1;
        }
        Ok::<_, Error>(())
    })?;
    Ok(count)
}

/// One record as a row of the point-wise format.
///
/// # Errors
/// As [`write_pointwise`].
pub fn pointwise_row(record: &Record) -> Result<Map<String, Value>, Error> {
    let refuse = |reason: String| Err(Error::Write { at: record.source.clone(), reason });
    if record.responses.is_empty() {
        return refuse("it has no responses".into());
    }
    let mut row = Map::new();
    row.insert(
        PROMPT.into(),
        match &record.prompt {
            Prompt::Text(text) => text.as_str().into(),
            Prompt::Messages(messages) => messages.iter().map(message).collect(),
        },
    );
    let responses = record.responses.iter().map(|r| match r.message.extra.is_empty() {
        true => r.text().into(),
        false => message(&r.message),
    });
    row.insert(RESPONSES.into(), responses.collect());
    let scored = record.responses.iter().filter(|r| r.reward.is_some()).count();
    if scored > 0 {
        if scored < record.responses.len() {
            return refuse(format!("{scored} of its {} responses have a reward", record.responses.len()));
        }
        let mut rewards = Vec::with_capacity(scored);
        for (i, reward) in record.responses.iter().filter_map(|r| r.reward).enumerate() {
            match number(reward) {
                Some(number) => rewards.push(number),
                None => return refuse(format!("reward {i} is {reward}, expected a finite number")),
            }
        }
        row.insert(REWARDS.into(), rewards.into());
    }
    if record.responses.iter().any(|r| r.label.is_some()) {
        let labels = record.responses.iter().map(|r| serde_json::to_value(r.label).unwrap_or(Value::Null));
        row.insert(LABELS.into(), labels.collect());
    }
    if let Some(margin) = record.margin {
        match number(margin) {
            Some(number) => row.insert("margin".into(), number),
            None => return refuse(format!("its margin is {margin}, expected a finite number")),
        };
    }
    for (column, value) in &record.extra {
        row.entry(column.clone()).or_insert_with(|| value.clone());
    }
    Ok(row)
}

fn number(x: f64) -> Option<Value> {
    serde_json::Number::from_f64(x).map(Value::Number)
}

fn message(message: &Message) -> Value {
    let mut fields = Map::new();
    fields.insert("role".into(), message.role.as_str().into());
    fields.insert("content".into(), message.content.as_str().into());
    fields.extend(message.extra.clone());
    Value::Object(fields)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::DatasetConfig;
    use crate::read::read_records;
    use crate::record::{Label, Response};

    fn read(path: &Path) -> Vec<Record> {
        let config = DatasetConfig::new(path.to_str().unwrap());
        read_records(&config).unwrap().map(Result::unwrap).collect()
    }

    fn label() -> impl Strategy<Value = Option<Label>> {
        proptest::sample::select(vec![
            None,
            Some(Label::Chosen),
            Some(Label::Rejected),
            Some(Label::Desirable),
            Some(Label::Undesirable),
        ])
    }

    fn record() -> impl Strategy<Value = Record> {
        let text = "[\\PC\n\t\"\\\\]{0,12}";
        let turns = proptest::collection::vec((text, text), 0..3).prop_map(|pairs| {
            let pairs = pairs.into_iter().flat_map(|(u, a)| [Message::user(u), Message::assistant(a)]);
            Prompt::Messages(pairs.chain([Message::user("last")]).collect())
        });
        let prompt = prop_oneof![text.prop_map(Prompt::Text), turns];
        let finite = proptest::num::f64::NORMAL | proptest::num::f64::ZERO | proptest::num::f64::SUBNORMAL;
        let responses = (any::<bool>(), proptest::collection::vec((text, finite, label()), 1..5)).prop_map(
            |(scored, responses)| {
                let one = |(text, reward, label)| Response {
                    reward: scored.then_some(reward),
                    label,
                    ..Response::new(format!("x{text}"))
                };
                responses.into_iter().map(one).collect::<Vec<_>>()
            },
        );
        (prompt, responses, proptest::option::of(finite), text).prop_map(|(prompt, responses, margin, extra)| {
            let extra = Map::from_iter([("id".to_owned(), Value::String(extra))]);
            Record { margin, extra, ..Record::new(prompt, responses) }
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_is_written_is_read(records in proptest::collection::vec(record(), 1..4)) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("out.jsonl");
            prop_assert_eq!(write_pointwise(&path, &records).unwrap(), records.len());
            let mut back = read(&path);
            for (record, written) in back.iter_mut().zip(&records) {
                record.source = written.source.clone();
            }
            prop_assert_eq!(back, records);
        }
    }

    #[test]
    fn extra_fields_of_a_turn_survive() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.jsonl");
        let mut record = Record::new(Prompt::Messages(vec![Message::user("u")]), vec![Response::new("r")]);
        record.responses[0].message.extra.insert("name".into(), "bot".into());
        write_pointwise(&path, [&record]).unwrap();
        let back = read(&path).remove(0);
        assert_eq!((back.prompt, back.responses), (record.prompt, record.responses));
    }

    #[test]
    fn records_that_cannot_be_written() {
        let pair = |a: Option<f64>, b: Option<f64>| {
            let one = |reward| Response { reward, ..Response::new("r") };
            Record::new(Prompt::Text("p".into()), vec![one(a), one(b)])
        };
        let reason = |record: &Record| pointwise_row(record).unwrap_err().to_string();
        assert!(reason(&pair(Some(1.0), None)).contains("1 of its 2 responses have a reward"));
        assert!(reason(&pair(Some(1.0), Some(f64::NAN))).contains("reward 1 is NaN"));
        assert!(reason(&Record { margin: Some(f64::INFINITY), ..pair(None, None) }).contains("margin is inf"));
        assert!(reason(&Record::new(Prompt::Text("p".into()), vec![])).contains("no responses"));
    }

    #[test]
    fn a_row_is_a_line_and_a_record_that_cannot_be_written_costs_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.jsonl");
        let good = Record::new(Prompt::Text("p".into()), vec![Response::new("r")]);
        write_pointwise(&path, [&good]).unwrap();
        let bad = Record::new(Prompt::Text("p".into()), vec![]);
        assert!(matches!(write_pointwise(&path, [&good, &bad]), Err(Error::Write { .. })));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"prompt\":\"p\",\"responses\":[\"r\"]}\n");
    }
}
