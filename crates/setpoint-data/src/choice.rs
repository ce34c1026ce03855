//! Settings that are a choice between names of a list.

use std::fmt;
use std::marker::PhantomData;

use schemars::{Schema, json_schema};
use serde::Deserializer;
use serde::de::{EnumAccess, Error, VariantAccess, Visitor};

/// A setting whose values are the names of a list, such as the data formats or the tasks.
pub trait Choice: Copy + 'static {
    /// The name of the type, for messages of serde.
    const TYPE: &'static str;

    /// Returns all names, in the order of messages and docs.
    fn names() -> &'static [&'static str];

    /// Returns the value of a name.
    fn named(name: &str) -> Option<Self>;
}

/// Returns the schema of a choice: its names.
pub fn choice_schema<T: Choice>() -> Schema {
    json_schema!({ "type": "string", "enum": T::names() })
}

/// Reads a choice by its name. Errors list the names, as they do for an enum with these variants.
///
/// # Errors
/// Any other value than one of the names.
pub fn deserialize_choice<'de, T: Choice, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    deserializer.deserialize_enum(T::TYPE, T::names(), NameOf(PhantomData))
}

struct NameOf<T>(PhantomData<T>);

impl<'de, T: Choice> Visitor<'de> for NameOf<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "enum {}", T::TYPE)
    }

    fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<T, A::Error> {
        let (name, variant) = data.variant::<String>()?;
        variant.unit_variant()?;
        T::named(&name).ok_or_else(|| A::Error::unknown_variant(&name, T::names()))
    }
}
