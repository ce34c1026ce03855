//! Operations on TOML tables by dotted path.

use serde::Serialize;
use toml::{Table, Value};

/// A configuration as a TOML table.
///
/// # Panics
/// When a configuration type has a field that TOML cannot hold, which is a mistake of this program.
pub fn to_table<C: Serialize>(config: &C) -> Table {
    match Value::try_from(config) {
        Ok(Value::Table(table)) => table,
        other => panic!("a configuration must be a TOML table, got {other:?}"),
    }
}

/// A value written on the command line: TOML where it parses as TOML, else a string.
pub(super) fn parse_value(text: &str) -> Value {
    format!("v = {text}")
        .parse::<Table>()
        .ok()
        .filter(|t| t.len() == 1)
        .and_then(|mut t| t.remove("v"))
        .unwrap_or_else(|| Value::String(text.to_owned()))
}

/// Lays `over` on `base`, table by table. A choice written as a table of one key, such as `{ ratio = 0.1 }`, is replaced whole by
/// another choice, such as `{ steps = 100 }`.
pub(super) fn merge(base: &mut Table, over: Table) {
    let other_choice = |b: &Table, o: &Table| b.len() == 1 && o.len() == 1 && b.keys().ne(o.keys());
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(Value::Table(b)), Value::Table(o)) if !other_choice(b, &o) => merge(b, o),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

/// Puts a value at a dotted path, making the tables on the way.
pub fn insert(table: &mut Table, key: &str, value: Value) {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
        }
        Some((head, rest)) => {
            let entry = table.entry(head.to_owned()).or_insert_with(|| Value::Table(Table::new()));
            if !entry.is_table() {
                *entry = Value::Table(Table::new());
            }
            if let Value::Table(inner) = entry {
                insert(inner, rest, value);
            }
        }
    }
}

/// Returns the key and value around `key` that are no table: [`insert`] replaces them.
pub(super) fn on_the_way<'k, 't>(table: &'t Table, key: &'k str) -> Option<(&'k str, &'t Value)> {
    let around = key.match_indices('.').map(|(at, _)| &key[..at]);
    around.filter_map(|around| Some((around, value_of(table, around)?))).find(|(_, value)| !value.is_table())
}

/// Removes the setting at a dotted path, and the table around it if nothing else was in that; for a path that leads into an array, the
/// array. False if nothing was there.
pub(super) fn remove(table: &mut Table, key: &str) -> bool {
    let key = key.split('[').next().unwrap_or(key);
    match key.split_once('.') {
        None => table.remove(key).is_some(),
        Some((head, rest)) => match table.get_mut(head) {
            Some(Value::Table(inner)) => {
                let removed = remove(inner, rest);
                if removed && inner.is_empty() {
                    table.remove(head);
                }
                removed
            }
            Some(_) => table.remove(head).is_some(),
            None => false,
        },
    }
}

/// The line (from 1) on which a dotted key, or the nearest table around it, is written.
pub(super) fn line_of(text: &str, key: &str) -> Option<usize> {
    let document = toml::de::DeTable::parse(text).ok()?;
    let mut table = document.get_ref();
    let mut start = None;
    let mut rest = Some(key);
    while let Some(path) = rest {
        // A dotted key may have been written as one, in quotes.
        if let Some((written, _)) = table.get_key_value(path) {
            return Some(text[..written.span().start].matches('\n').count() + 1);
        }
        let (part, after) = path.split_once('.').map_or((path, None), |(part, after)| (part, Some(after)));
        rest = after;
        let (name, mut index) = entry_of(part);
        let Some((written, value)) = table.get_key_value(name) else { break };
        start = Some(written.span().start);
        match value.get_ref() {
            toml::de::DeValue::Table(inner) => table = inner,
            toml::de::DeValue::Array(items) => {
                // `[[data]]` stands for `data.sources`: the entry follows with the next part.
                if let (None, Some(path)) = (index, rest) {
                    let (part, after) = path.split_once('.').map_or((path, None), |(part, after)| (part, Some(after)));
                    (index, rest) = (entry_of(part).1, after);
                }
                let Some(inner) = index.and_then(|index| items.get(index)).map(|item| item.get_ref()) else { break };
                let toml::de::DeValue::Table(inner) = inner else { break };
                start = inner.keys().map(|key| key.span().start).min().or(start);
                table = inner;
            }
            _ => break,
        }
    }
    start.map(|at| text[..at].matches('\n').count() + 1)
}

/// Returns the name in a part of a dotted key, and the entry of a list that it has in brackets.
fn entry_of(part: &str) -> (&str, Option<usize>) {
    match part.split_once('[') {
        Some((name, entry)) => (name, entry.trim_end_matches(']').parse().ok()),
        None => (part, None),
    }
}

/// The value of a dotted key.
pub fn value_of<'t>(table: &'t Table, key: &str) -> Option<&'t Value> {
    match key.split_once('.') {
        None => table.get(key),
        Some((head, rest)) => value_of(table.get(head)?.as_table()?, rest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_lists_have_lines() {
        let text = "seed = 1\n[[data]]\npath = 'a'\n\n[[data]]\npath = 'b'\nweight = 0\n[align]\nlosses = [{ weight = 1 },\n  { weight = 2 }]\n";
        for (key, line) in [
            ("data.sources[1].weight", 7),
            ("data.sources[1].path", 6),
            ("data.sources[0].weight", 3),
            ("data.sources", 2),
            ("data.sources[7].path", 2),
            ("align.losses[1].weight", 10),
            ("align.losses[0].method", 9),
            ("align.losses", 9),
            ("seed", 1),
        ] {
            assert_eq!(line_of(text, key), Some(line), "{key}");
        }
    }
}
