//! JSON in which no object gives a key twice, and whose values have a bounded number.
//!
//! Parsers take the last of several values without a word, so that a row may be read in another way than it was meant. And a value takes
//! far more memory than the two bytes that it may have in a text: `[0,0,…` of a compressed file of a few bytes would fill any memory.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::map::Entry;
use serde_json::{Map, Number, Value};

/// A text as its reader sees it.
type Text<'t> = serde_json::Deserializer<serde_json::de::SliceRead<'t>>;

/// The most values of a row, those within lists and objects included: about 300 MiB.
pub(crate) const MOST_VALUES: usize = 1 << 22;

/// Reads a JSON text of at most `most` values, as [`Value`] is read.
///
/// # Errors
/// When it is no JSON, when an object gives a key twice, and when there are more values.
pub(crate) fn parse(text: &[u8], most: usize) -> Result<Value, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let value = read(&mut deserializer, most)?;
    deserializer.end()?;
    Ok(value)
}

/// Reads the JSON value that a text begins with, of at most `most` values, and returns with it whether nothing follows.
///
/// # Errors
/// The errors of [`parse`], but for what follows.
pub(crate) fn parse_first(text: &[u8], most: usize) -> Result<(Value, bool), serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let value = read(&mut deserializer, most)?;
    Ok((value, deserializer.end().is_ok()))
}

fn read(deserializer: &mut Text<'_>, most: usize) -> Result<Value, serde_json::Error> {
    Values { most, left: &Cell::new(most) }.deserialize(deserializer)
}

/// Reads values, and counts them.
#[derive(Clone, Copy)]
struct Values<'a> {
    most: usize,
    left: &'a Cell<usize>,
}

impl<'de> DeserializeSeed<'de> for Values<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        match self.left.get().checked_sub(1) {
            Some(left) => self.left.set(left),
            None => return Err(D::Error::custom(format_args!("it has more than {} values", self.most))),
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Values<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            match object.entry(key) {
                Entry::Vacant(place) => {
                    place.insert(entries.next_value_seed(self)?);
                }
                Entry::Occupied(place) => {
                    return Err(A::Error::custom(format_args!("duplicate field `{}`", place.key())));
                }
            }
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_of_serde_json() {
        let text = r#"{"b": [1, -2, 1.5, 1e300, 18446744073709551615, 123456789012345678901234567890, 0.1, null, true, "é\n\u0041", [], {}],
                       "a": {"b": {"b": "", "a": false}}}"#;
        let read = parse(text.as_bytes(), MOST_VALUES).unwrap();
        let expected: Value = serde_json::from_str(text).unwrap();
        assert_eq!(read, expected);
        assert_eq!(read.to_string(), expected.to_string(), "the order of the keys");
        let deep = format!("{}{}", "[".repeat(1000), "]".repeat(1000));
        assert!(parse(deep.as_bytes(), MOST_VALUES).is_err(), "nested too deeply");
    }

    #[test]
    fn a_key_that_is_given_twice_is_named() {
        for (text, key) in [
            (r#"{"a": 1, "b": 2, "a": 1}"#, "a"),
            (r#"[{"x": {"text": "", "text": null}}]"#, "text"),
            // The same key, written in another way.
            (r#"{"prompt": 1, "\u0070rompt": 2}"#, "prompt"),
        ] {
            let error = parse(text.as_bytes(), MOST_VALUES).unwrap_err();
            assert_eq!(setpoint_files::words::json_reason(&error), format!("`{key}` is given twice"));
        }
    }

    #[test]
    fn values_are_counted_wherever_they_are() {
        let reason =
            |text: &str, most| parse(text.as_bytes(), most).map_err(|e| setpoint_files::words::json_reason(&e));
        for (text, values) in [("3", 1), ("[]", 1), ("[1, [2], {\"a\": null}]", 6), ("{\"a\": 1, \"b\": [[]]}", 4)] {
            assert!(reason(text, values).is_ok(), "{text}");
            assert_eq!(reason(text, values - 1), Err(format!("it has more than {} values", values - 1)), "{text}");
        }
        assert_eq!(reason("[0, 0, 0, no JSON", 3), Err("it has more than 3 values".to_owned()), "the rest is not read");
    }

    #[test]
    fn what_follows_a_value_is_told() {
        let first = |text: &str| parse_first(text.as_bytes(), 9).map(|(value, is_all)| (value.to_string(), is_all));
        assert_eq!(first(" [1] \r\n").unwrap(), ("[1]".to_owned(), true));
        assert_eq!(first("{}\n{}").unwrap(), ("{}".to_owned(), false));
        assert_eq!(first("[1] x").unwrap(), ("[1]".to_owned(), false));
        assert!(parse(b"{} {}", 9).is_err() && first("{").is_err());
    }
}
