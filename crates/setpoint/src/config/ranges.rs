//! Bounds that hold for every job's numbers: no setting may be not a number, and none may ask for more than any machine has.

use toml::{Table, Value};

use super::Problems;

/// The greatest whole number of any setting but a seed. Products of two of them still fit 64 bits.
const GREATEST: i64 = 1 << 32;

/// The greatest values of settings that decide how much is set up at once, by their names.
const COUNTS: &[(&str, i64)] = &[
    ("batch_size", 1 << 24),
    ("concurrency", 512),
    ("parallel", 1024),
    ("points", 100_000),
    ("prompts", 1_000_000),
    ("resamples", 10_000_000),
    ("retries", 1000),
    ("samples", 100_000),
    ("shots", 1000),
    ("trials", 100_000),
];

/// The deepest that settings are nested, in a dotted key or otherwise.
pub(super) const DEEPEST: usize = 32;

/// Notes every number of the user's that is out of bounds for whatever job.
pub(super) fn check(user: &Table, problems: &mut Problems<'_>) {
    user.iter().for_each(|(key, value)| walk(key, value, problems));
}

fn walk(key: &str, value: &Value, problems: &mut Problems<'_>) {
    match value {
        Value::Integer(number) => {
            let name = key.rsplit('.').next().unwrap_or(key);
            let most = COUNTS.iter().find(|(count, _)| *count == name).map_or(GREATEST, |(_, most)| *most);
            let seed = name == "seed" || name == "seeds";
            // The setting's own check, which may be stricter, says what is expected.
            let is_fine = seed || *number <= most || problems.is_placed(key);
            problems.require(is_fine, key, format!("`{key}` is {number}; expected at most {most}"));
        }
        Value::Float(number) if number.is_nan() && !problems.unread.contains(key) => {
            if !problems.is_placed(key) {
                problems.add(key, format!("`{key}` is not a number (nan); expected a number"));
            }
            problems.unread.insert(key.to_owned());
        }
        Value::Table(table) => table.iter().for_each(|(inner, value)| walk(&format!("{key}.{inner}"), value, problems)),
        Value::Array(items) => items.iter().for_each(|item| walk(key, item, problems)),
        _ => {}
    }
}

/// The sentence for a key that is nested too deeply; `None` for any other.
pub(super) fn too_deep(key: &str) -> Option<String> {
    let parts = key.split('.').count();
    (parts > DEEPEST).then(|| format!("the key has {parts} parts; expected at most {DEEPEST}"))
}

/// The beginning of what a user wrote, for a message.
pub(super) fn shorten(text: &str) -> String {
    match text.char_indices().nth(100) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
