//! What is wrong with a configuration, and where each setting was written.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::ranges;
use super::table::line_of;
use crate::failure::Problem;

/// Where a setting was written, to point at it in a message.
#[derive(Debug, Default)]
pub(super) struct Origins {
    pub(super) file: Option<(PathBuf, String)>,
    pub(super) set: Vec<(String, String)>,
    pub(super) flags: Vec<(String, String)>,
}

impl Origins {
    pub(super) fn place(&self, key: &str) -> String {
        let covers = |written: &str| {
            written == key || key.starts_with(&format!("{written}.")) || written.starts_with(&format!("{key}."))
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
fn without_secret<'v>(key: &str, value: &'v str) -> &'v str {
    const NAMES: [&str; 4] = ["key", "token", "secret", "password"];
    const HIDDEN: &str = "…";
    let name = key.rsplit('.').next().unwrap_or(key);
    let named = NAMES.iter().any(|n| name.strip_suffix(n).is_some_and(|rest| rest.is_empty() || rest.ends_with('_')));
    let variable = |text: &str| text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
    let address = value.contains("://") && value.contains(['@', '?', '#']);
    if named || address || (name.ends_with("key_env") && !variable(value)) { HIDDEN } else { value }
}

/// Collects problems and knows where each setting was written.
#[derive(Debug)]
pub struct Problems<'a> {
    pub(super) origins: &'a Origins,
    pub(super) found: Vec<Problem>,
    /// The settings whose value could not be read.
    pub(super) unread: BTreeSet<String>,
}

impl Problems<'_> {
    /// Notes that the setting `key` (dotted path) is wrong. On a value that cannot be read, one sentence is enough.
    pub fn add(&mut self, key: &str, message: impl Into<String>) {
        if self.unread.contains(key) {
            return;
        }
        let (place, mut message) = (self.origins.place(key), message.into());
        let name = key.rsplit('.').next().unwrap_or(key);
        if !message.contains(name) && !place.contains(name) {
            message = format!("`{key}`: {message}");
        }
        self.found.push(Problem { place, message });
    }

    /// Notes `message` for `key` unless `ok`.
    pub fn require(&mut self, ok: bool, key: &str, message: impl Into<String>) {
        if !ok {
            self.add(key, message);
        }
    }
}
