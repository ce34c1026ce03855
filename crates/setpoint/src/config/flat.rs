//! Sections whose settings belong to the table around them, such as the sources of rewards: `rule`, `column` and so on are settings of a
//! job like any other, but a list defines them once for all jobs.
//!
//! serde's `flatten` would do, but it forgets where in the file a wrong value is, and which other settings there are.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IntoDeserializer, MapAccess, Visitor};
use serde::{Deserialize, forward_to_deserialize_any};

/// Settings that belong to the table around them.
pub trait Section: Default {
    /// Their names.
    const NAMES: &'static [&'static str];

    /// Reads the value of the setting `name`, one of [`NAMES`](Self::NAMES), which comes next in the map.
    ///
    /// # Errors
    /// When the value does not fit the setting.
    fn read<'de, A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error>;
}

/// A deserializer that keeps the settings of a section to itself.
#[derive(Debug)]
pub struct Around<'s, D, S> {
    inner: D,
    section: &'s mut S,
    after: &'static str,
}

impl<'s, D, S> Around<'s, D, S> {
    /// Creates a deserializer of a struct without the settings of `section`, which are read into it. Messages list them after the field
    /// `after`.
    pub fn new(inner: D, section: &'s mut S, after: &'static str) -> Self {
        Self { inner, section, after }
    }
}

impl<'de, D: Deserializer<'de>, S: Section> Deserializer<'de> for Around<'_, D, S> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.deserialize_struct("", &[], visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let Self { inner, section, after } = self;
        inner.deserialize_struct(name, fields, Table { visitor, section, names: Names { fields, after } })
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct seq
        tuple tuple_struct map enum identifier ignored_any
    }
}

/// The names of the settings around a section.
#[derive(Debug, Clone, Copy)]
struct Names {
    fields: &'static [&'static str],
    after: &'static str,
}

impl Names {
    /// Lists all settings, as serde does.
    fn with(self, section: &[&str]) -> String {
        let mut all = Vec::new();
        for field in self.fields {
            all.push(format!("`{field}`"));
            if *field == self.after {
                all.extend(section.iter().map(|name| format!("`{name}`")));
            }
        }
        all.join(", ")
    }
}

struct Table<'s, V, S> {
    visitor: V,
    section: &'s mut S,
    names: Names,
}

impl<'de, V: Visitor<'de>, S: Section> Visitor<'de> for Table<'_, V, S> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.visitor.expecting(f)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        self.visitor.visit_map(Rest { map, section: self.section, names: self.names })
    }
}

/// The entries of a table that are not the section's.
struct Rest<'s, A, S> {
    map: A,
    section: &'s mut S,
    names: Names,
}

impl<'de, A: MapAccess<'de>, S: Section> MapAccess<'de> for Rest<'_, A, S> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, mut seed: K) -> Result<Option<K::Value>, A::Error> {
        loop {
            let name = Name::<K, S> { seed, names: self.names, section: PhantomData };
            match self.map.next_key_seed(name)? {
                None => return Ok(None),
                Some(Key::Field(key)) => return Ok(Some(key)),
                Some(Key::Section(name, unused)) => {
                    self.section.read(&name, &mut self.map)?;
                    seed = unused;
                }
            }
        }
    }

    fn next_value_seed<W: DeserializeSeed<'de>>(&mut self, seed: W) -> Result<W::Value, A::Error> {
        self.map.next_value_seed(seed)
    }
}

/// A name in the table: one of the section's, for which the seed was not needed, or another.
enum Key<K, V> {
    Section(String, K),
    Field(V),
}

struct Name<K, S> {
    seed: K,
    names: Names,
    section: PhantomData<S>,
}

impl<'de, K: DeserializeSeed<'de>, S: Section> DeserializeSeed<'de> for Name<K, S> {
    type Value = Key<K, K::Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        let name = String::deserialize(deserializer)?;
        if S::NAMES.contains(&name.as_str()) {
            return Ok(Key::Section(name, self.seed));
        }
        if !self.names.fields.contains(&name.as_str()) {
            let all = self.names.with(S::NAMES);
            return Err(D::Error::custom(format_args!("unknown field `{name}`, expected one of {all}")));
        }
        self.seed.deserialize(name.into_deserializer()).map(Key::Field)
    }
}

/// Implements `Serialize` and `Deserialize` for a struct of settings with a [`Section`] in one of its fields. The struct derives both with
/// `#[serde(remote = "Self", deny_unknown_fields)]`, and the field has `#[serde(flatten, skip_deserializing)]`.
macro_rules! flat_section {
    ($config:ident, $field:ident: $section:ty, after $after:literal) => {
        impl<'de> ::serde::Deserialize<'de> for $config {
            fn deserialize<D: ::serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let mut section = <$section>::default();
                let config = Self::deserialize($crate::config::flat::Around::new(deserializer, &mut section, $after))?;
                Ok(Self { $field: section, ..config })
            }
        }

        impl ::serde::Serialize for $config {
            fn serialize<S: ::serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                Self::serialize(self, serializer)
            }
        }
    };
}
pub(crate) use flat_section;
