//! Layers a job's configuration: built-in defaults, the TOML file, the command's flags, `--set key=value`.
//!
//! Every problem is collected before any is reported: a wrong value is noted, replaced by its default and the reading goes on,
//! so one run of the command shows all of them, each with its line.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::explain::explain;
use super::names::keys_named;
pub use super::table::insert;
pub use super::table::to_table;
use super::table::{line_of, merge, parse_value, remove, value_of};
use super::{positions, ranges};
use crate::failure::Problem;

/// A job's configuration: its defaults are its `Default`, its settings its fields.
pub trait Config: Serialize + DeserializeOwned + Default {
    /// The command that carries out the job, where it has a run folder.
    const JOB: &'static str = "";

    /// Adds what is wrong although every value has the right type.
    fn validate(&self, problems: &mut Problems<'_>);

    /// Adapts the defaults to a setting that decides which other settings exist (such as a method's name).
    fn defaults(_user: &Table) -> Result<Table, (String, String)> {
        Ok(to_table(&Self::default()))
    }

    /// Adds settings that a run folder's `config.toml` of an older version lacks and whose default has another meaning than their absence
    /// had.
    fn complete_older(_table: &mut Table) {}
}

/// Where a setting was written, to point at it in a message.
#[derive(Debug, Default)]
struct Origins {
    file: Option<(PathBuf, String)>,
    set: Vec<(String, String)>,
    flags: Vec<(String, String)>,
}

impl Origins {
    fn place(&self, key: &str) -> String {
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
    origins: &'a Origins,
    found: Vec<Problem>,
    /// The settings whose value could not be read.
    unread: BTreeSet<String>,
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

/// What the user gave: a file, flags that stand for a setting, and `--set` pairs.
#[derive(Debug, Default, Clone)]
pub struct Given {
    /// The TOML file.
    pub file: Option<PathBuf>,
    /// `(key, value, flag as written)`.
    pub flags: Vec<(String, Value, String)>,
    /// `key=value`, as written.
    pub set: Vec<String>,
}

impl Given {
    /// Adds a flag that stands for the setting `key`.
    pub fn flag(&mut self, key: &str, value: Option<impl Into<Value>>, flag: &str) {
        if let Some(value) = value {
            let value = value.into();
            self.flags.push((key.to_owned(), value, flag.to_owned()));
        }
    }
}

/// Reads, layers and checks a job's configuration.
///
/// # Errors
/// All problems at once: unreadable file, TOML syntax, unknown keys, wrong types, and what [`Config::validate`] finds.
pub fn load<C: Config>(given: &Given) -> Result<C, Vec<Problem>> {
    read(None, given, &|_, _| {}, Checks::All)
}

/// The same for settings that this program wrote to a file in full: among them are values that nobody chose.
///
/// # Errors
/// Everything of [`load`].
pub fn load_written<C: Config>(given: &Given) -> Result<C, Vec<Problem>> {
    read(None, given, &|_, _| {}, Checks::Values)
}

/// Reads and checks a configuration that a program holds as TOML text.
///
/// # Errors
/// All problems at once, as for [`load`]; their places are keys.
pub fn from_toml<C: Config>(text: &str) -> Result<C, Vec<Problem>> {
    let table = text.parse::<Table>().map_err(|e| {
        let message = format!("not valid TOML: {}", e.message());
        vec![Problem { place: "the settings".to_owned(), message }]
    })?;
    let nowhere = Base { path: PathBuf::new(), text: String::new(), table };
    read(Some(&nowhere), &Given::default(), &|_, _| {}, Checks::All)
}

/// How far a configuration is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Checks {
    /// Keys and types.
    Types,
    /// Values as well.
    Values,
    /// Also what only a value that the user chose can have wrong.
    All,
}

/// Tables whose keys are not settings of the program.
pub(super) const FREE_TABLES: [&str; 5] =
    ["data.columns", "eval_data.columns", "model.template_kwargs", "sweep.settings", "compare.grids"];

/// A configuration that was written to a file in full, which others are laid on.
#[derive(Debug, Clone)]
pub struct Base {
    /// The file.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
    /// Its settings.
    pub table: Table,
}

/// What is given, laid on a stored configuration. `adapt` may change given values, which it is told with their dotted keys.
///
/// # Errors
/// Everything of [`load`].
pub fn load_over<C: Config>(base: &Base, given: &Given, adapt: &dyn Fn(&str, &mut Value)) -> Result<C, Vec<Problem>> {
    read(Some(base), given, adapt, Checks::Values)
}

/// A stored configuration as it is. Its files need not exist.
///
/// # Errors
/// Unknown keys and wrong types.
pub fn load_stored<C: Config>(base: &Base) -> Result<C, Vec<Problem>> {
    read(Some(base), &Given::default(), &|_, _| {}, Checks::Types)
}

/// What is given, as a table of its own.
///
/// # Errors
/// When the file cannot be read or is not TOML, or a `--set` has no value.
pub fn written(given: &Given, adapt: &dyn Fn(&str, &mut Value)) -> Result<Table, Vec<Problem>> {
    let mut origins = Origins::default();
    let mut found = Vec::new();
    let mut user = from_file(given, &mut origins)?;
    adapt_all("", &mut user, adapt);
    from_command_line(given, &mut user, &mut origins, &mut found, adapt);
    if found.is_empty() { Ok(user) } else { Err(found) }
}

/// The same without [`Config::validate`]: settings that are only shown need no model and no data.
///
/// # Errors
/// Everything of [`load`] but what `validate` finds.
pub fn load_unchecked<C: Config>(given: &Given) -> Result<C, Vec<Problem>> {
    read(None, given, &|_, _| {}, Checks::Types)
}

/// Settings that a program puts together: `over`, by dotted keys, on a whole configuration.
///
/// # Errors
/// Everything of [`load`] but what a file and a command line can have wrong; places are bare keys.
pub fn from_table<C: Config>(mut base: Table, over: &[(String, Value)]) -> Result<C, Vec<Problem>> {
    let origins = Origins::default();
    for (key, value) in over {
        if let Some(message) = ranges::too_deep(key) {
            return Err(vec![Problem { place: ranges::shorten(key), message }]);
        }
        insert(&mut base, key, value.clone());
    }
    let mut problems = Problems { origins: &origins, found: Vec::new(), unread: BTreeSet::new() };
    let defaults =
        C::defaults(&base).map_err(|(key, message)| vec![Problem { place: origins.place(&key), message }])?;
    let config: C = read_collecting(defaults, base.clone(), &mut problems)?;
    ranges::check(&base, &mut problems);
    if over.iter().any(|(key, _)| key == positions::MAX_LENGTH) {
        positions::check(&base, &mut problems);
    }
    config.validate(&mut problems);
    if problems.found.is_empty() { Ok(config) } else { Err(problems.found) }
}

fn read<C: Config>(
    base: Option<&Base>,
    given: &Given,
    adapt: &dyn Fn(&str, &mut Value),
    checks: Checks,
) -> Result<C, Vec<Problem>> {
    let mut origins = Origins::default();
    let mut user = from_file(given, &mut origins)?;
    adapt_all("", &mut user, adapt);
    if let Some(base) = base {
        let mut under = base.table.clone();
        // Tables with free keys are given whole or not at all.
        for key in FREE_TABLES.iter().filter(|key| value_of(&user, key).is_some()) {
            remove(&mut under, key);
        }
        merge(&mut under, user);
        user = under;
        if origins.file.is_none() {
            origins.file = Some((base.path.clone(), base.text.clone()));
        }
    }
    let mut found = Vec::new();
    from_command_line(given, &mut user, &mut origins, &mut found, adapt);
    let mut defaults = match C::defaults(&user) {
        Ok(table) => table,
        Err((key, message)) => {
            found.push(Problem { place: origins.place(&key), message });
            return Err(found);
        }
    };
    positions::adapt_default(&mut defaults, &user);
    let mut problems = Problems { origins: &origins, found, unread: BTreeSet::new() };
    let config: C = read_collecting(defaults, user.clone(), &mut problems)?;
    if checks == Checks::All {
        positions::check(&user, &mut problems);
    }
    if checks != Checks::Types {
        ranges::check(&user, &mut problems);
        config.validate(&mut problems);
    }
    if problems.found.is_empty() { Ok(config) } else { Err(problems.found) }
}

/// The settings in the given file.
fn from_file(given: &Given, origins: &mut Origins) -> Result<Table, Vec<Problem>> {
    let Some(path) = &given.file else { return Ok(Table::new()) };
    let text = std::fs::read_to_string(path).map_err(|e| {
        let message = match e.kind() {
            std::io::ErrorKind::NotFound => "no such file; expected a TOML file of settings".to_owned(),
            _ => format!("cannot be read as a TOML file of settings: {e}"),
        };
        vec![Problem { place: path.display().to_string(), message }]
    })?;
    let table = text.parse::<Table>().map_err(|e| {
        let line = e.span().map_or(1, |s| text[..s.start.min(text.len())].matches('\n').count() + 1);
        vec![Problem {
            place: format!("{}:{line}", path.display()),
            message: format!("not valid TOML: {}", e.message()),
        }]
    })?;
    origins.file = Some((path.clone(), text));
    Ok(table)
}

/// Puts flags and `--set` pairs into a table.
fn from_command_line(
    given: &Given,
    user: &mut Table,
    origins: &mut Origins,
    found: &mut Vec<Problem>,
    adapt: &dyn Fn(&str, &mut Value),
) {
    for (key, value, flag) in &given.flags {
        let mut value = value.clone();
        adapt_value(key, &mut value, adapt);
        insert(user, key, value);
        origins.flags.push((key.clone(), flag.clone()));
    }
    for pair in &given.set {
        match pair.split_once('=') {
            Some((key, _)) if ranges::too_deep(key).is_some() => found.push(Problem {
                place: format!("--set {}", ranges::shorten(pair)),
                message: ranges::too_deep(key).unwrap_or_default(),
            }),
            Some((key, value)) if !key.trim().is_empty() => {
                let (key, value) = (key.trim(), value.trim());
                let mut parsed = parse_value(value);
                adapt_value(key, &mut parsed, adapt);
                insert(user, key, parsed);
                origins.set.push((key.to_owned(), value.to_owned()));
            }
            _ => found.push(Problem {
                place: format!("--set {}", ranges::shorten(pair)),
                message: "expected key=value, as in --set train.learning_rate=1e-6".into(),
            }),
        }
    }
}

fn adapt_all(prefix: &str, table: &mut Table, adapt: &dyn Fn(&str, &mut Value)) {
    for (name, value) in table.iter_mut() {
        let key = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") };
        adapt_value(&key, value, adapt);
    }
}

fn adapt_value(key: &str, value: &mut Value, adapt: &dyn Fn(&str, &mut Value)) {
    match value {
        Value::Table(inner) => adapt_all(key, inner, adapt),
        value => adapt(key, value),
    }
}

/// Deserialises `user` over `defaults`; every setting that does not fit is noted and dropped, until the rest reads.
fn read_collecting<C: DeserializeOwned>(
    defaults: Table,
    mut user: Table,
    problems: &mut Problems<'_>,
) -> Result<C, Vec<Problem>> {
    let attempt = |user: &Table| {
        let mut merged = defaults.clone();
        merge(&mut merged, user.clone());
        serde_path_to_error::deserialize::<_, C>(Value::Table(merged))
            .map_err(|e| (e.path().to_string(), e.into_inner().to_string()))
    };
    loop {
        match attempt(&user) {
            Ok(config) => return Ok(config),
            Err((path, message)) => {
                let key = blame(&user, &path, |without| attempt(without).err().is_none_or(|e| e.1 != message));
                let key = reached(&user, &key);
                let fits = |value: Value| {
                    let mut alone = Table::new();
                    insert(&mut alone, &key, value);
                    attempt(&alone)
                        .map(drop)
                        .map_err(|(_, message)| message.lines().next().unwrap_or_default().to_owned())
                };
                let sentence = explain(
                    &message,
                    &key,
                    &siblings(&defaults, &key),
                    |name| keys_named::<C>(&defaults, name),
                    value_of(&user, &key),
                    fits,
                );
                problems.add(&key, sentence);
                problems.unread.insert(key.clone());
                if !remove(&mut user, &key) {
                    return Err(std::mem::take(&mut problems.found));
                }
            }
        }
    }
}

/// Which setting under `path` causes an error: serde names only the table where a table's meaning hangs on one of its keys
/// (a method's settings). It is the one without which the error goes away.
fn blame(user: &Table, path: &str, goes_away: impl Fn(&Table) -> bool) -> String {
    let mut table = Some(user);
    if path != "." {
        for part in path.split('.') {
            table = table.and_then(|t| t.get(part)).and_then(Value::as_table);
        }
    }
    let Some(table) = table else { return path.to_owned() };
    let culprit = table.keys().map(|child| if path == "." { child.clone() } else { format!("{path}.{child}") }).find(
        |candidate| {
            let mut without = user.clone();
            remove(&mut without, candidate) && goes_away(&without)
        },
    );
    culprit.unwrap_or_else(|| path.to_owned())
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

#[cfg(test)]
mod tests;
