//! The record of a run: its folder holds the settings that it was started with.
//!
//! `config.toml` in the folder has every setting. Relative paths in it are relative to the working directory of the process that started the
//! run, which `run.json` records.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::json;
use setpoint_files::words;
use setpoint_train::RunDir;
use toml::{Table, Value};

use crate::config::Config;
use crate::config::load::to_table;
use crate::failure::{Failure, Outcome};
use crate::hub::by_name;
pub use crate::identity::is_place;
use crate::identity::{self, content};

/// The file of settings in a run folder.
pub const CONFIG: &str = "config.toml";
/// The file that says of which job a run is, and where its relative paths begin.
pub(super) const RECORD: &str = "run.json";
/// The version of run folders.
const VERSION: u64 = 2;

/// Settings that decide how a run is carried out, stored and shown, and may differ when it goes on.
const FREE: [&str; 14] = [
    "guards",
    "output",
    "samples",
    "keep_models",
    "frontier.kl",
    "frontier.baseline",
    "frontier.every_seed",
    "sweep.parallel",
    "sweep.metric",
    "compare.parallel",
    "train.keep_last",
    "train.mirror",
    "train.log_responses",
    "train.logging_steps",
];
/// The same, by their beginnings.
const FREE_PREFIXES: [&str; 5] = ["samples.", "tracker.", "train.save_", "train.sample_", "sweep.select."];

/// `run.json`.
#[derive(Debug, Deserialize)]
pub struct Record {
    /// The command that carries out the job.
    pub job: String,
    /// The working directory of the process that started the run.
    pub directory: PathBuf,
    /// Returns hashes of the files and models that the settings name, by setting; for jobs whose checkpoints do not hold them.
    #[serde(default)]
    pub inputs: BTreeMap<String, String>,
}

/// Leaves the settings of a new run in its folder. Models on the hub have their ids and commits.
///
/// # Errors
/// When a file cannot be written, or one that the settings name cannot be read.
pub fn record<C: Config>(run: &RunDir, config: &C) -> Outcome {
    let directory = env::current_dir()?;
    let inputs = if C::IS_TRAINING { BTreeMap::new() } else { inputs(&to_table(config))? };
    let record = json!({
        "version": VERSION,
        "job": C::JOB,
        "directory": directory.to_string_lossy(),
        "inputs": inputs,
    });
    // The settings come last: a folder that has them has the record.
    run.write_text(RECORD, &format!("{record:#}\n"))?;
    Ok(run.write_text(CONFIG, &toml::to_string(&by_name(&to_table(config)))?)?)
}

/// Returns hashes of the files and models that settings name.
pub fn inputs(settings: &Table) -> Outcome<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for (key, value) in flat_with_lists(settings) {
        if let Some(path) = value.as_str().filter(|_| is_place(&key))
            && let Some(hash) = content(Path::new(path))?
        {
            found.insert(key, hash);
        }
    }
    Ok(found)
}

/// Returns the record in a run folder, if it has one.
///
/// # Errors
/// When it is damaged.
pub fn read(folder: &Path) -> Outcome<Option<Record>> {
    let path = folder.join(RECORD);
    if !path.is_file() {
        return Ok(None);
    }
    let text = setpoint_files::read_text(&path)?;
    let record: Record = serde_json::from_str(&text)
        .map_err(|e| Failure::run(format!("{} is damaged: {}", path.display(), words::json(&e))))?;
    Ok(Some(record))
}

/// Returns every setting with its dotted key.
pub fn flat(table: &Table) -> Vec<(String, Value)> {
    fn walk(prefix: &str, table: &Table, into: &mut Vec<(String, Value)>) {
        for (key, value) in table {
            let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
            match value {
                Value::Table(inner) => walk(&key, inner, into),
                value => into.push((key, value.clone())),
            }
        }
    }
    let mut found = Vec::new();
    walk("", table, &mut found);
    found
}

/// Returns the same, with the settings of each table in a list: `data.sources[0].path`.
pub(crate) fn flat_with_lists(table: &Table) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    for (key, value) in flat(table) {
        match value {
            Value::Array(items) if !items.is_empty() && items.iter().all(Value::is_table) => {
                for (i, item) in items.iter().enumerate().filter_map(|(i, item)| Some((i, item.as_table()?))) {
                    found.extend(flat(item).into_iter().map(|(name, value)| (format!("{key}[{i}].{name}"), value)));
                }
            }
            value => found.push((key, value)),
        }
    }
    found
}

/// Returns whether every setting of an older table has the same value in a newer one.
pub fn agrees(then: &Table, now: &Table) -> bool {
    differences(now, then, false).is_empty()
}

/// A setting that differs: its key, its value then, and its value now.
pub type Difference = (String, Option<Value>, Option<Value>);

/// Returns the settings that differ. `whole`: also those that only `then` has.
pub fn differences(then: &Table, now: &Table, whole: bool) -> Vec<Difference> {
    let (then, now) = (flat_with_lists(then), flat_with_lists(now));
    let at = |list: &[(String, Value)], key: &str| list.iter().find(|(k, _)| k == key).map(|(_, v)| v.clone());
    let gone = then.iter().filter(|(key, _)| whole && at(&now, key).is_none());
    now.iter()
        .chain(gone)
        .filter(|(key, _)| !is_free(key))
        .map(|(key, _)| (key.clone(), at(&then, key), at(&now, key)))
        .filter(|(key, was, is)| match (was, is) {
            (Some(was), Some(is)) => !same(key, was, is),
            _ => true,
        })
        .collect()
}

fn is_free(key: &str) -> bool {
    FREE.contains(&key) || FREE_PREFIXES.iter().any(|prefix| key.starts_with(prefix)) || identity::is_free(key)
}

/// Returns whether two values of a setting mean the same: `1` and `1.0` do, and two paths to one file.
fn same(key: &str, was: &Value, is: &Value) -> bool {
    let number = |value: &Value| value.as_float().or_else(|| value.as_integer().map(|value| value as f64));
    if let (Some(was), Some(is)) = (number(was), number(is)) {
        return was == is;
    }
    let place = |value: &Value| {
        let path = value.as_str()?;
        fs::canonicalize(path).or_else(|_| std::path::absolute(path)).ok()
    };
    was == is || (is_place(key) && place(was).is_some() && place(was) == place(is))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_mean_the_same_do_not_differ() {
        let found = |then: &str, now: &str| differences(&then.parse().unwrap(), &now.parse().unwrap(), true).len();
        assert_eq!(found("a = 1\ntrain.save_steps = 2", "a = 1.0\ntrain.save_minutes = 3.0"), 0);
        assert_eq!(found("a = 1\nb = 2", "a = 1"), 1);
        assert_eq!(found("[data]\npath = 'Cargo.toml'", "[data]\npath = './Cargo.toml'"), 0);
        assert_eq!(found("[data]\npath = 'Cargo.toml'", "[data]\npath = 'src/lib.rs'"), 1);
        let sources =
            |weight: f64| format!("[[data.sources]]\npath = 'a'\n[[data.sources]]\npath = './b'\nweight = {weight:?}");
        assert_eq!(found(&sources(1.0), &sources(1.0).replace("./b", "b")), 0);
        let found = differences(&sources(1.0).parse().unwrap(), &sources(2.0).parse().unwrap(), true);
        assert_eq!(found, [("data.sources[1].weight".to_owned(), Some(Value::Float(1.0)), Some(Value::Float(2.0)))]);
        let waits = |seconds: u32, batch: u32| {
            format!("[reward.command]\ntimeout_seconds = {seconds}\nbatch = {batch}").parse::<Table>().unwrap()
        };
        assert!(agrees(&waits(60, 8), &waits(90, 8)) && !agrees(&waits(60, 8), &waits(60, 9)));
        assert!(agrees(&"a = 1".parse().unwrap(), &"a = 1\nb = 2".parse().unwrap()));
        assert!(!agrees(&"a = 1\nb = 2".parse().unwrap(), &"a = 1".parse().unwrap()));
    }
}
