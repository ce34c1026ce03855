//! The problems of a configuration, and the places at which settings were written.

use std::collections::BTreeSet;
use std::path::PathBuf;

use toml::{Table, Value};

use super::ranges;
use super::table::{line_of, on_the_way};
use crate::failure::Problem;

/// The places at which settings were written, to point at them in a message.
#[derive(Debug, Default)]
pub(super) struct Origins {
    pub(super) file: Option<(PathBuf, String)>,
    pub(super) set: Vec<(String, String)>,
    pub(super) flags: Vec<(String, String)>,
    /// Values that a later layer replaced because it sets something inside them.
    pub(super) replaced: Vec<Replaced>,
}

/// A value that a later layer replaced because it sets something inside it, such as `data = 5` by `--data rows.jsonl`.
#[derive(Debug)]
pub(super) struct Replaced {
    pub(super) place: String,
    pub(super) key: String,
    pub(super) value: Value,
}

impl Origins {
    /// Notes the value that is about to be replaced by a table because `key` is inside it.
    pub(super) fn note_replaced(&mut self, user: &Table, key: &str) {
        if let Some((around, value)) = on_the_way(user, key) {
            self.replaced.push(Replaced { place: self.place(around), key: around.to_owned(), value: value.clone() });
        }
    }

    pub(super) fn place(&self, key: &str) -> String {
        // An entry of a list was written with the list.
        let list = key.split('[').next().unwrap_or(key);
        let covers = |written: &str| {
            written == list
                || written == key
                || key.starts_with(&format!("{written}."))
                || written.starts_with(&format!("{key}."))
        };
        if let Some((k, v)) = self.set.iter().rev().find(|(k, _)| covers(k)) {
            return format!("--set {k}={}", ranges::shorten(without_secret(k, v)));
        }
        if let Some((_, flag)) = self.flags.iter().rev().find(|(k, _)| covers(k)) {
            return flag.clone();
        }
        if let Some((path, text)) = &self.file
            && let Some(line) = line_of(text, key)
        {
            return format!("{}:{line}", path.display());
        }
        format!("`{key}`")
    }
}

/// A value as it may be repeated on the terminal: neither a key nor an address that may hold one.
pub(crate) fn without_secret<'v>(key: &str, value: &'v str) -> &'v str {
    const NAMES: [&str; 4] = ["key", "token", "secret", "password"];
    const HIDDEN: &str = "…";
    let name = key.rsplit('.').next().unwrap_or(key);
    let named = NAMES.iter().any(|n| name.strip_suffix(n).is_some_and(|rest| rest.is_empty() || rest.ends_with('_')));
    let variable = |text: &str| text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
    let address = value.contains("://") && value.contains(['@', '?', '#']);
    if named || address || (name.ends_with("key_env") && !variable(value)) { HIDDEN } else { value }
}

/// The problems that are shown; more are counted.
pub(super) const MOST: usize = 20;

/// Collects problems and knows where each setting was written.
#[derive(Debug)]
pub struct Problems<'a> {
    pub(super) origins: &'a Origins,
    pub(super) found: Vec<Problem>,
    /// The settings whose value could not be read.
    pub(super) unread: BTreeSet<String>,
    /// The number of problems that are not shown.
    pub(super) more: usize,
}

impl<'a> Problems<'a> {
    pub(super) fn new(origins: &'a Origins, found: Vec<Problem>) -> Self {
        Self { origins, found, unread: BTreeSet::new(), more: 0 }
    }

    /// Returns whether as many problems are noted as are shown.
    pub(super) fn is_full(&self) -> bool {
        self.found.len() >= MOST
    }

    /// Takes the problems, with one sentence for those that are not shown.
    pub(super) fn take(&mut self) -> Vec<Problem> {
        let mut found = std::mem::take(&mut self.found);
        if self.more > 0 {
            let many = if self.more == 1 { "problem is" } else { "problems are" };
            let message = format!("{} more {many} not shown; correct these first", self.more);
            found.push(Problem { place: "the settings".to_owned(), message });
        }
        found
    }

    /// Notes that the setting `key` (dotted path) is wrong. On a value that cannot be read, one sentence is enough.
    pub fn add(&mut self, key: &str, message: impl Into<String>) {
        if self.unread.contains(key) {
            return;
        }
        if self.is_full() {
            self.more += 1;
            return;
        }
        let (place, mut message) = (self.origins.place(key), message.into());
        // Messages of the other crates name a setting without its section. One that has the whole key may name others next to it.
        let whole = format!("`{key}`");
        if !message.contains(&whole) {
            for (at, _) in key.match_indices('.') {
                message = message.replace(&format!("`{}`", &key[at + 1..]), &whole);
            }
        }
        let name = key.rsplit('.').next().unwrap_or(key);
        if !message.contains(name) && !place.contains(name) {
            message = format!("`{key}`: {message}");
        }
        // A place of which no more is known than the setting's name says nothing that the message does not say.
        if let Some(rest) = message.strip_prefix(&format!("{place}: ")) {
            message = rest.to_owned();
        }
        let problem = Problem { place, message };
        // A value that several methods of a comparison read is wrong once.
        if !self.found.contains(&problem) {
            self.found.push(problem);
        }
    }

    /// Returns whether a problem is noted where the setting `key` was written.
    pub(super) fn is_placed(&self, key: &str) -> bool {
        let place = self.origins.place(key);
        self.found.iter().any(|problem| problem.place == place)
    }

    /// Returns whether a setting, or one in the section of this name, has a value that could not be read.
    pub(crate) fn is_unread(&self, key: &str) -> bool {
        self.unread
            .iter()
            .any(|unread| unread.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '['])))
    }

    /// Notes `message` for `key` unless `ok`.
    pub fn require(&mut self, ok: bool, key: &str, message: impl Into<String>) {
        if !ok {
            self.add(key, message);
        }
    }
}
