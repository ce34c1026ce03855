//! Records as rows: point-wise JSONL, all of it or nothing, and rows of other formats.

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::Error;
use crate::format::{Format, LABELS, PROMPT, RESPONSES, REWARDS};
use crate::record::{Message, Prompt, Record, Response};

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
    row.insert(PROMPT.into(), prompt(&record.prompt));
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

/// Returns one response of a record as a row that SFT reads: `{"messages": […]}`, or `{"prompt": …, "completion": …}` after plain text.
///
/// `reward` stands there if the response has one, and the record's extra columns, but for those with which the row would be of another
/// format.
///
/// # Errors
/// [`Error::Write`] for a reward that is not finite, and for a response that calls tools after a prompt of plain text.
pub fn sft_row(record: &Record, response: &Response) -> Result<Map<String, Value>, Error> {
    let mut row = Map::new();
    match &record.prompt {
        Prompt::Text(text) => {
            row.insert(PROMPT.into(), text.as_str().into());
            row.insert("completion".into(), plain(record, response)?);
        }
        Prompt::Messages(messages) => {
            let turns = messages.iter().chain([&response.message]).map(message);
            row.insert("messages".into(), turns.collect());
        }
    }
    put_reward(&mut row, "reward", record, response)?;
    Ok(with_extra(row, record))
}

/// Returns two responses of a record as a preference: `{"prompt": …, "chosen": …, "rejected": …}`. After a prompt of messages each of the two
/// is a list of one message.
///
/// `reward_chosen` and `reward_rejected` stand there if both have a reward, and the record's extra columns as in [`sft_row`].
///
/// # Errors
/// As [`sft_row`].
pub fn pair_row(record: &Record, chosen: &Response, rejected: &Response) -> Result<Map<String, Value>, Error> {
    let side = |response: &Response| match &record.prompt {
        Prompt::Text(_) => plain(record, response),
        Prompt::Messages(_) => Ok(Value::Array(vec![message(&response.message)])),
    };
    let mut row = Map::new();
    row.insert(PROMPT.into(), prompt(&record.prompt));
    row.insert("chosen".into(), side(chosen)?);
    row.insert("rejected".into(), side(rejected)?);
    if chosen.reward.is_some() && rejected.reward.is_some() {
        put_reward(&mut row, "reward_chosen", record, chosen)?;
        put_reward(&mut row, "reward_rejected", record, rejected)?;
    }
    Ok(with_extra(row, record))
}

fn prompt(prompt: &Prompt) -> Value {
    match prompt {
        Prompt::Text(text) => text.as_str().into(),
        Prompt::Messages(messages) => messages.iter().map(message).collect(),
    }
}

/// Returns a response as text, which has no place for tool calls.
fn plain(record: &Record, response: &Response) -> Result<Value, Error> {
    if !response.message.tool_calls().is_empty() {
        let reason = "a response that calls tools needs a prompt of messages".to_owned();
        return Err(Error::Write { at: record.source.clone(), reason });
    }
    Ok(response.text().into())
}

/// Adds the reward of a response, if it has one.
fn put_reward(row: &mut Map<String, Value>, column: &str, record: &Record, response: &Response) -> Result<(), Error> {
    let Some(reward) = response.reward else { return Ok(()) };
    let Some(number) = number(reward) else {
        let reason = format!("`{column}` is {reward}, expected a finite number");
        return Err(Error::Write { at: record.source.clone(), reason });
    };
    row.insert(column.into(), number);
    Ok(())
}

/// Adds the record's extra columns to a row, but for those with which it would be of another format.
fn with_extra(mut row: Map<String, Value>, record: &Record) -> Map<String, Value> {
    let format = Format::detect(row.keys().map(String::as_str));
    for (column, value) in &record.extra {
        let with_it = Format::detect(row.keys().map(String::as_str).chain([column.as_str()]));
        if with_it == format && !row.contains_key(column) {
            row.insert(column.clone(), value.clone());
        }
    }
    row
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
    use crate::record::Label;

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

    /// Reads a row back as the file would be read.
    fn read_row(row: Map<String, Value>) -> Record {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.jsonl");
        std::fs::write(&path, format!("{}\n", Value::Object(row))).unwrap();
        read(&path).remove(0)
    }

    #[test]
    fn rows_of_other_formats_are_read_as_they_are_written() {
        let chosen = Response::new(" a\n").rewarded(1.5).labelled(Label::Chosen);
        let rejected = Response::new("b").rewarded(-0.5).labelled(Label::Rejected);
        let mut extra = Map::from_iter([("id".to_owned(), Value::from(7))]);
        // With these, the rows would be of another format.
        for column in ["responses", "messages", "conversations", "instruction", "output", "completions"] {
            extra.insert(column.into(), Value::Array(Vec::new()));
        }
        let turns = vec![
            Message::system("s"),
            Message::user("u"),
            Message::assistant("v"),
            Message { extra: Map::from_iter([("name".to_owned(), Value::from("n"))]), ..Message::user("w") },
        ];
        for prompt in [Prompt::Text("p ".into()), Prompt::Messages(turns)] {
            let record = Record { extra: extra.clone(), ..Record::new(prompt, vec![chosen.clone(), rejected.clone()]) };
            let back = read_row(pair_row(&record, &chosen, &rejected).unwrap());
            assert_eq!((&back.prompt, &back.responses), (&record.prompt, &record.responses));
            assert_eq!(back.extra["id"], 7);
            let back = read_row(sft_row(&record, &chosen).unwrap());
            assert_eq!(back.prompt, record.prompt);
            assert_eq!(back.responses, [Response { label: None, ..chosen.clone() }]);
            assert_eq!(back.extra["id"], 7);
        }
    }

    #[test]
    fn tool_calls_need_a_conversation_and_rewards_are_finite() {
        let mut calls = Response::new("r");
        calls.message.extra.insert("tool_calls".into(), serde_json::json!([{"function": {"name": "add"}}]));
        let text = Record::new(Prompt::Text("p".into()), vec![calls.clone()]);
        let message = sft_row(&text, &calls).unwrap_err().to_string();
        assert!(message.contains("needs a prompt of messages"), "{message}");
        assert!(pair_row(&text, &Response::new("a"), &calls).is_err());
        let chat = Record::new(Prompt::Messages(vec![Message::user("u")]), vec![calls.clone()]);
        assert_eq!(read_row(sft_row(&chat, &calls).unwrap()).responses, [calls]);
        let infinite = Response::new("a").rewarded(f64::INFINITY);
        let message = sft_row(&text, &infinite).unwrap_err().to_string();
        assert!(message.contains("`reward` is inf"), "{message}");
    }
}
