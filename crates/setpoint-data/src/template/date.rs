//! The date that a chat template prints.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use chrono::{NaiveDate, NaiveDateTime};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A day, written as 2026-11-29.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TemplateDate(NaiveDate);

impl TemplateDate {
    /// The date of this moment, by the local clock.
    #[must_use]
    pub fn today() -> Self {
        Self(chrono::Local::now().date_naive())
    }

    /// The first moment of the day.
    #[must_use]
    pub fn midnight(self) -> NaiveDateTime {
        self.0.and_time(chrono::NaiveTime::MIN)
    }
}

impl fmt::Display for TemplateDate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.format("%Y-%m-%d"))
    }
}

impl FromStr for TemplateDate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let date = NaiveDate::parse_from_str(text.trim(), "%Y-%m-%d");
        date.map(Self).map_err(|_| format!("expected a date such as 2026-11-29, found {text:?}"))
    }
}

impl Serialize for TemplateDate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for TemplateDate {
    fn schema_name() -> Cow<'static, str> {
        "TemplateDate".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "date", "examples": ["2026-11-29"] })
    }
}

impl<'de> Deserialize<'de> for TemplateDate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Date;

        impl<'de> Visitor<'de> for Date {
            type Value = TemplateDate;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a date such as 2026-11-29")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<TemplateDate, E> {
                text.parse().map_err(E::custom)
            }

            // A date of TOML's own, without quotes, comes as a map of one text.
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<TemplateDate, A::Error> {
                match map.next_entry::<String, String>()? {
                    Some((_, text)) => self.visit_str(&text),
                    None => Err(A::Error::custom("expected a date such as 2026-11-29")),
                }
            }
        }

        deserializer.deserialize_any(Date)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read_and_written() {
        let date: TemplateDate = "2026-11-29".parse().unwrap();
        assert_eq!(date.to_string(), "2026-11-29");
        assert_eq!(serde_json::to_string(&date).unwrap(), "\"2026-11-29\"");
        for wrong in ["29.11.2026", "2026-13-01", "2026-11-31", "today", ""] {
            assert!(wrong.parse::<TemplateDate>().unwrap_err().contains("2026-11-29"), "{wrong}");
        }
    }
}
