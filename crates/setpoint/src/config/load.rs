//! Layers a job's configuration: built-in defaults, the TOML file, the command's flags, `--set key=value`.
//!
//! Every problem is collected before any is reported: a wrong value is noted, replaced by its default and the reading goes on,
//! so one run of the command shows all of them, each with its line.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use setpoint_files::words;
use toml::{Table, Value};

use super::collect::read_collecting;
use super::problems::{Origins, Problems};
pub use super::table::insert;
pub use super::table::to_table;
use super::table::{merge, parse_value, remove, value_of};
use super::{positions, ranges, sources};
use crate::failure::Problem;
use crate::hub;

/// A job's configuration: its defaults are its `Default`, its settings its fields.
pub trait Config: Serialize + DeserializeOwned + Default {
    /// The command that carries out the job, where it has a run folder.
    const JOB: &'static str = "";

    /// Tells whether the job is one training, whose checkpoints hold its identity.
    const IS_TRAINING: bool = false;

    /// Adds what is wrong although every value has the right type.
    fn validate(&self, problems: &mut Problems<'_>);

    /// Adapts the defaults to a setting that decides which other settings exist (such as a method's name).
    fn defaults(_user: &Table) -> Result<Table, (String, String)> {
        Ok(to_table(&Self::default()))
    }

    /// Replaces another spelling of a name that decides which other settings exist, such as `DPO` for the method `dpo`.
    fn respell(_user: &mut Table) {}

    /// Adds settings that a run folder's `config.toml` of an older version lacks and whose default has another meaning than their absence
    /// had.
    fn complete_older(_table: &mut Table) {}
}

/// The user's input: a file, flags that stand for a setting, and `--set` pairs.
#[derive(Debug, Default, Clone)]
pub struct Given {
    /// The TOML file.
    pub file: Option<PathBuf>,
    /// `(key, value, flag as written)`.
    pub flags: Vec<(String, Value, String)>,
    /// `key=value`, as written.
    pub set: Vec<String>,
    /// The command that the settings are for, if there is one.
    pub neighbours: Option<Neighbours>,
}

/// A command among the others, one of which may have a setting that it lacks.
#[derive(Debug, Clone, Copy)]
pub struct Neighbours {
    /// The command.
    pub command: &'static str,
    /// Returns the commands that have a setting or section of a dotted key.
    pub with: fn(&str) -> Vec<&'static str>,
}

impl Given {
    /// Adds a flag that stands for the setting `key`.
    pub fn flag(&mut self, key: &str, value: Option<impl Into<Value>>, flag: &str) {
        if let Some(value) = value {
            let value = value.into();
            self.flags.push((key.to_owned(), value, flag.to_owned()));
        }
    }

    /// Adds the data sets of `--data`: one, or several that are read as one.
    pub fn data(&mut self, paths: &[String]) {
        match paths {
            [] => {}
            [path] => self.flag("data.path", Some(path.as_str()), "--data"),
            paths => {
                let sources = paths.iter().map(|path| Value::Table(sources::source(path))).collect();
                self.flag("data.sources", Some(Value::Array(sources)), "--data");
            }
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
pub(crate) fn load_written<C: Config>(given: &Given) -> Result<C, Vec<Problem>> {
    read(None, given, &|_, _| {}, Checks::Values)
}

/// Reads and checks a configuration that a program holds as TOML text.
///
/// # Errors
/// All problems at once, as for [`load`]; their places are keys.
pub fn from_toml<C: Config>(text: &str) -> Result<C, Vec<Problem>> {
    let mut table = text.parse::<Table>().map_err(|e| {
        let message = format!("not valid TOML: {}", e.message());
        vec![Problem { place: "the settings".to_owned(), message }]
    })?;
    sources::spread(&mut table);
    let nowhere = Base { path: PathBuf::new(), text: String::new(), table };
    read(Some(&nowhere), &Given::default(), &|_, _| {}, Checks::All)
}

/// The extent to which a configuration is checked.
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
pub(super) const FREE_TABLES: [&str; 11] = [
    "data.columns",
    "eval_data.columns",
    "sft_data.columns",
    "model.template_kwargs",
    "reference.model.template_kwargs",
    "adapter.rank_pattern",
    "adapter.alpha_pattern",
    "reward.model.template_kwargs",
    "watch.model.template_kwargs",
    "sweep.settings",
    "compare.grids",
];

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

/// Lays the given settings on a stored configuration. `adapt` may change given values, which it is told with their dotted keys.
///
/// # Errors
/// Everything of [`load`].
pub(crate) fn load_over<C: Config>(
    base: &Base,
    given: &Given,
    adapt: &dyn Fn(&str, &mut Value),
) -> Result<C, Vec<Problem>> {
    read(Some(base), given, adapt, Checks::Values)
}

/// A stored configuration as it is. Its files need not exist.
///
/// # Errors
/// Unknown keys and wrong types.
pub(crate) fn load_stored<C: Config>(base: &Base) -> Result<C, Vec<Problem>> {
    read(Some(base), &Given::default(), &|_, _| {}, Checks::Types)
}

/// Returns the given settings as a table of its own.
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
pub(crate) fn from_table<C: Config>(mut base: Table, over: &[(String, Value)]) -> Result<C, Vec<Problem>> {
    let origins = Origins::default();
    for (key, value) in over {
        if let Some(message) = ranges::too_deep(key) {
            return Err(vec![Problem { place: ranges::shorten(key), message }]);
        }
        insert(&mut base, key, value.clone());
    }
    let mut problems = Problems::new(&origins, Vec::new());
    C::respell(&mut base);
    let defaults =
        C::defaults(&base).map_err(|(key, message)| vec![Problem { place: origins.place(&key), message }])?;
    let config: C = read_collecting(defaults, base.clone(), None, &mut problems)?;
    if over.iter().any(|(key, _)| key == positions::MAX_LENGTH) {
        positions::check(&base, &mut problems);
    }
    config.validate(&mut problems);
    ranges::check(&base, &mut problems);
    if problems.found.is_empty() { Ok(config) } else { Err(problems.take()) }
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
    // Settings that are only shown need no model. Those of a run that goes on have the names of models, which the others are compared with.
    let missing = match (checks, base) {
        (Checks::Types, None) => Vec::new(),
        _ => hub::resolve(&mut user, base.map(|base| &base.table)),
    };
    C::respell(&mut user);
    let mut defaults = match C::defaults(&user) {
        Ok(table) => table,
        Err((key, message)) => {
            found.push(Problem { place: origins.place(&key), message });
            return Err(found);
        }
    };
    positions::adapt_default(&mut defaults, &user);
    let mut problems = Problems::new(&origins, found);
    let config: C = read_collecting(defaults, user.clone(), given.neighbours, &mut problems)?;
    if checks != Checks::Types {
        for (key, message) in missing {
            problems.add(&key, message);
            // The folder that is none has its message.
            problems.unread.insert(key);
        }
    }
    if checks == Checks::All {
        positions::check(&user, &mut problems);
    }
    if checks != Checks::Types {
        config.validate(&mut problems);
        ranges::check(&user, &mut problems);
    }
    if problems.found.is_empty() { Ok(config) } else { Err(problems.take()) }
}

/// Parses the text of a TOML file.
///
/// # Errors
/// The line that is not TOML, and why.
pub(crate) fn parse_file(path: &Path, text: &str) -> Result<Table, Problem> {
    text.parse::<Table>().map_err(|e| {
        let line = e.span().map_or(1, |s| text[..s.start.min(text.len())].matches('\n').count() + 1);
        let reason = e.message().lines().next().unwrap_or_default();
        let advice = text.lines().nth(line - 1).and_then(|header| two_forms(text, header)).unwrap_or_default();
        let message = format!("not valid TOML: {reason}{advice}");
        Problem { place: format!("{}:{line}", path.display()), message }
    })
}

/// Tells how a section and a list of data sets stand together, if a file has both under the name of this header.
fn two_forms(text: &str, header: &str) -> Option<String> {
    let name = header.trim().trim_matches(['[', ']']);
    let has = |header: String| text.lines().any(|line| line.trim() == header);
    (name.ends_with("data") && has(format!("[{name}]")) && has(format!("[[{name}]]"))).then(|| {
        format!(": `[{name}]` and the list `[[{name}]]` have one key, so write the list as `[[{name}.sources]]`")
    })
}

/// The settings in the given file.
fn from_file(given: &Given, origins: &mut Origins) -> Result<Table, Vec<Problem>> {
    let Some(path) = &given.file else { return Ok(Table::new()) };
    let text = setpoint_files::read_text(path).map_err(|e| {
        let message = match e.source.kind() {
            std::io::ErrorKind::NotFound => "no such file; expected a TOML file of settings".to_owned(),
            _ => {
                let is_model = ["config.json", "adapter_config.json"].iter().any(|name| path.join(name).exists());
                let advice = if is_model { "; the folder of a model is given by --model" } else { "" };
                format!("cannot be read as a TOML file of settings: {}{advice}", words::system(&e.source))
            }
        };
        vec![Problem { place: path.display().to_string(), message }]
    })?;
    let ending = path.extension().map(|ending| ending.to_ascii_lowercase());
    if ending.is_some_and(|ending| ending == "yaml" || ending == "yml") {
        let (yaml, toml) = (path.display(), path.with_extension("toml"));
        let message = format!(
            "a file of settings is TOML; one of trl, axolotl or LLaMA-Factory becomes it by: setpoint convert {yaml} --output {}",
            toml.display()
        );
        return Err(vec![Problem { place: yaml.to_string(), message }]);
    }
    let mut table = parse_file(path, &text).map_err(|problem| vec![problem])?;
    sources::spread(&mut table);
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
        origins.note_replaced(user, key);
        sources::replace(user, key);
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
                origins.note_replaced(user, key);
                sources::replace(user, key);
                insert(user, key, parsed);
                sources::spread(user);
                origins.set.push((key.to_owned(), value.to_owned()));
            }
            _ => found.push(Problem {
                place: format!("--set {}", ranges::shorten(pair)),
                message: format!("expected key=value, as in --set {}=VALUE", example_key(pair)),
            }),
        }
    }
}

/// Returns the key of a pair without a value, or a word in its place.
fn example_key(pair: &str) -> &str {
    let key = pair.split('=').next().unwrap_or_default().trim();
    let is_key = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.".contains(&b));
    if is_key && ranges::too_deep(key).is_none() { key } else { "KEY" }
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
        Value::Array(items) if items.iter().any(Value::is_table) => {
            items.iter_mut().for_each(|item| adapt_value(key, item, adapt));
        }
        value => adapt(key, value),
    }
}

#[cfg(test)]
mod tests;
