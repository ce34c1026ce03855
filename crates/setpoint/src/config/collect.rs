//! Reads a table of settings as a job's configuration and notes everything that does not fit, instead of the first thing alone.

use std::collections::BTreeSet;
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::explain::{Known, expects_table, explain, no_settings, respelled};
use super::load::Neighbours;
use super::names::{all_keys, is_section, is_setting, keys_named, remove_unknown};
use super::problems::{MOST, Problems, Replaced};
use super::table::{insert, merge, remove, to_table, value_of};
use crate::failure::Problem;

/// The keys up to which all are looked at one by one.
const MANY_KEYS: usize = 200;

/// Deserialises `user` over `defaults`; every setting that does not fit is noted and dropped, until the rest reads.
pub(super) fn read_collecting<C: Serialize + DeserializeOwned>(
    defaults: Table,
    mut user: Table,
    neighbours: Option<Neighbours>,
    problems: &mut Problems<'_>,
) -> Result<C, Vec<Problem>> {
    let attempt = |user: &Table| {
        let mut merged = defaults.clone();
        merge(&mut merged, user.clone());
        serde_path_to_error::deserialize::<_, C>(Value::Table(merged))
            .map_err(|e| (e.path().to_string(), e.into_inner().to_string()))
    };
    let known = Settings { defaults: &defaults, neighbours, config: PhantomData::<C> };
    note_replaced(&attempt, &known, problems);
    if count_keys(&user) > MANY_KEYS {
        problems.more += remove_unknown::<C>(&defaults, &mut user, MOST);
    }
    let mut respellings = BTreeSet::new();
    loop {
        if problems.is_full() {
            // Each further one takes time.
            problems.more += usize::from(attempt(&user).is_err());
            return Err(problems.take());
        }
        match attempt(&user) {
            Ok(config) => match list_for_table(&user, &to_table(&config)) {
                None => return Ok(config),
                Some(key) => {
                    problems.add(&key, a_list(&key));
                    problems.unread.insert(key.clone());
                    if !remove(&mut user, &key) {
                        return Err(problems.take());
                    }
                }
            },
            Err((path, message)) => {
                let missed = quoted_after("missing field ", &message);
                if missed.is_some_and(|name| problems.unread.contains(&format!("{path}.{name}")))
                    && remove(&mut user, &path)
                {
                    // It was given, and its value is reported already.
                    continue;
                }
                // A setting is missed in a table whatever else is there; an unknown one may be a whole table.
                let is_told = quoted_after("unknown field ", &message) == path.rsplit('.').next();
                let key = match missed.is_some() || is_told {
                    true => path,
                    false => {
                        blame(&user, &path, &message, |without| attempt(without).err().is_none_or(|e| e.1 != message))
                    }
                };
                let key = reached(&user, &key);
                let key = without_position(&user, key, |without| attempt(without).map_err(|(_, message)| message));
                let fits = &|value: Value| {
                    let mut alone = Table::new();
                    insert(&mut alone, &key, value);
                    attempt(&alone)
                        .map(drop)
                        .map_err(|(_, message)| message.lines().next().unwrap_or_default().to_owned())
                };
                if let Some(name) = respelled(value_of(&user, &key), fits)
                    && respellings.insert(key.clone())
                {
                    insert(&mut user, &key, Value::String(name));
                    continue;
                }
                let sentence = explain(&message, &key, &known, value_of(&user, &key), fits);
                problems.add(&key, sentence);
                problems.unread.insert(key.clone());
                if !remove(&mut user, &key) {
                    return Err(problems.take());
                }
            }
        }
    }
}

/// Notes what is wrong with values that a later layer replaced, which nothing else looks at.
fn note_replaced<C: Serialize>(
    attempt: &impl Fn(&Table) -> Result<C, (String, String)>,
    known: &impl Known,
    problems: &mut Problems<'_>,
) {
    for Replaced { place, key, value } in &problems.origins.replaced {
        let alone = |value: Value| {
            let mut alone = Table::new();
            insert(&mut alone, key, value);
            alone
        };
        let fits = |value: Value| attempt(&alone(value)).map(drop).map_err(|(_, message)| message);
        let user = alone(value.clone());
        let message = match attempt(&user) {
            Ok(config) => list_for_table(&user, &to_table(&config)).map(|key| a_list(&key)),
            Err((path, message)) => (path.starts_with(key.as_str()) && respelled(Some(value), fits).is_none())
                .then(|| explain(&message, key, known, Some(value), fits)),
        };
        if let Some(message) = message {
            problems.found.push(Problem { place: place.clone(), message });
        }
    }
}

/// Returns the key of a list that was read as a table of settings: serde takes the entries of a list for its fields, in their order.
fn list_for_table(user: &Table, read: &Table) -> Option<String> {
    user.iter().find_map(|(name, value)| list_read_as_table(name, value, read.get(name)?))
}

fn list_read_as_table(key: &str, given: &Value, read: &Value) -> Option<String> {
    match (given, read) {
        (Value::Array(_), Value::Table(_)) => Some(key.to_owned()),
        (Value::Table(given), Value::Table(read)) => {
            given.iter().find_map(|(name, value)| list_read_as_table(&format!("{key}.{name}"), value, read.get(name)?))
        }
        (Value::Array(given), Value::Array(read)) => {
            let pairs = given.iter().zip(read).enumerate();
            pairs.into_iter().find_map(|(i, (given, read))| list_read_as_table(&format!("{key}[{i}]"), given, read))
        }
        _ => None,
    }
}

fn a_list(key: &str) -> String {
    format!("`{key}` is a table of settings; found a list")
}

/// Counts the keys of a table and of the tables in it.
fn count_keys(table: &Table) -> usize {
    table.values().map(|value| 1 + value.as_table().map_or(0, count_keys)).sum()
}

/// Returns the name in quotes with which a message goes on after `start`, if it begins so.
fn quoted_after<'m>(start: &str, message: &'m str) -> Option<&'m str> {
    message.strip_prefix(start)?.split('`').nth(1)
}

/// The settings of a job by its defaults.
struct Settings<'d, C> {
    defaults: &'d Table,
    neighbours: Option<Neighbours>,
    config: PhantomData<C>,
}

impl<C: DeserializeOwned> Known for Settings<'_, C> {
    fn siblings(&self, key: &str) -> Vec<String> {
        siblings(self.defaults, key)
    }

    fn named(&self, name: &str) -> Vec<String> {
        keys_named::<C>(self.defaults, name)
    }

    fn all(&self) -> Vec<String> {
        all_keys::<C>(self.defaults)
    }

    fn has(&self, key: &str) -> bool {
        is_setting::<C>(self.defaults, key)
    }

    fn is_section(&self, key: &str) -> bool {
        is_section::<C>(self.defaults, key)
    }

    fn commands_with(&self, key: &str) -> Option<(&'static str, Vec<&'static str>)> {
        let Neighbours { command, with } = self.neighbours?;
        Some((command, with(key)))
    }
}

/// Returns the setting under `path` that causes an error: the one without which the error goes away, and of several the one that the
/// message is about. Serde names only the table if a table's meaning depends on one of its keys, as that of a method's settings does.
fn blame(user: &Table, path: &str, message: &str, goes_away: impl Fn(&Table) -> bool) -> String {
    let mut table = Some(user);
    if path != "." {
        for part in path.split('.') {
            table = table.and_then(|t| t.get(part)).and_then(Value::as_table);
        }
    }
    let Some(table) = table else { return path.to_owned() };
    // The key that gives the others their meaning takes every error along.
    let (told, others): (Vec<_>, Vec<_>) =
        table.iter().take(MANY_KEYS).partition(|(child, value)| is_told_of(message, child, value));
    let culprit = told
        .into_iter()
        .chain(others)
        .map(|(child, _)| if path == "." { child.clone() } else { format!("{path}.{child}") })
        .find(|candidate| {
            let mut without = user.clone();
            remove(&mut without, candidate) && goes_away(&without)
        });
    culprit.unwrap_or_else(|| path.to_owned())
}

/// Returns whether a message of serde quotes the name or the value of a setting.
fn is_told_of(message: &str, name: &str, value: &Value) -> bool {
    let quoted = match value {
        Value::String(text) if quoted_after("unknown variant ", message) == Some(text.as_str()) => return true,
        Value::String(text) => format!(": string {text:?},"),
        Value::Integer(number) => format!(": integer `{number}`,"),
        Value::Float(number) => format!(": floating point `{number:?}`,"),
        Value::Boolean(is_so) => format!(": boolean `{is_so}`,"),
        _ => String::new(),
    };
    quoted_after("unknown field ", message) == Some(name) || (!quoted.is_empty() && message.contains(&quoted))
}

/// Returns the key of a list instead of that of its entry, if a table of settings is expected there: serde reads lists as tables, entry
/// by entry.
fn without_position<T>(user: &Table, key: String, attempt: impl Fn(&Table) -> Result<T, String>) -> String {
    let Some((list, _)) = key.split_once('[') else { return key };
    let mut table = user.clone();
    insert(&mut table, list, no_settings());
    let message = attempt(&table).err().unwrap_or_default();
    if expects_table(&message) { list.to_owned() } else { key }
}

/// The settings that stand beside `key` by default.
fn siblings(defaults: &Table, key: &str) -> Vec<String> {
    let Some((parent, _)) = key.rsplit_once('.') else { return defaults.keys().cloned().collect() };
    let table = parent.split('.').try_fold(defaults, |table, part| table.get(part).and_then(Value::as_table));
    table.map(|table| table.keys().cloned().collect()).unwrap_or_default()
}

/// The key up to the user's value: serde goes on into the choices that a value might have been.
fn reached(user: &Table, key: &str) -> String {
    let mut parts = Vec::new();
    let mut table = Some(user);
    for part in key.split('.') {
        let Some(inner) = table else { break };
        parts.push(part);
        table = match inner.get(part) {
            Some(Value::Table(inner)) => Some(inner),
            // A list, whose entries are named in brackets, or nothing.
            None => return key.to_owned(),
            Some(_) => None,
        };
    }
    parts.join(".")
}
