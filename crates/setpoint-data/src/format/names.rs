//! Formats by their names: in settings and printed.

use std::borrow::Cow;
use std::fmt;
use std::sync::LazyLock;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{FORMATS, Format};
use crate::choice::{Choice, choice_schema, deserialize_choice};

impl Choice for Format {
    const TYPE: &'static str = "Format";

    fn names() -> &'static [&'static str] {
        static NAMES: LazyLock<Vec<&'static str>> =
            LazyLock::new(|| FORMATS.iter().map(|format| format.name).collect());
        &NAMES
    }

    fn named(name: &str) -> Option<Self> {
        Self::named(name)
    }
}

impl fmt::Debug for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Format({})", self.name())
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Format {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl JsonSchema for Format {
    fn schema_name() -> Cow<'static, str> {
        Self::TYPE.into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        choice_schema::<Self>()
    }
}

impl<'de> Deserialize<'de> for Format {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize_choice(deserializer)
    }
}
