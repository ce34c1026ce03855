//! Going on with a run: its folder holds the settings it was started with, and those given again must agree with them.
//!
//! `config.toml` in the folder has every setting. Relative paths in it are relative to the working directory of the process that started the
//! run, which `run.json` records. A folder without that file was made before there was one: settings that its `config.toml` lacks have the
//! meaning that they had then.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::json;
use setpoint_train::RunDir;
use toml::{Table, Value};

use crate::config::load::{self, to_table};
use crate::config::{Config, Given};
use crate::failure::{Failure, Outcome};
use crate::recipes::{content, is_place};

/// The file of settings in a run folder.
pub const CONFIG: &str = "config.toml";
/// The file that says of which job a run is, and where its relative paths begin.
const RECORD: &str = "run.json";
/// The version of run folders.
const VERSION: u64 = 2;

/// Settings that decide how a run is carried out, stored and shown, and may differ when it goes on.
const FREE: [&str; 8] = [
    "output",
    "samples",
    "sweep.parallel",
    "sweep.metric",
    "compare.parallel",
    "train.keep_last",
    "train.log_responses",
    "train.logging_steps",
];
/// The same, by their beginnings.
const FREE_PREFIXES: [&str; 3] = ["samples.", "train.save_", "train.sample_"];

/// `run.json`.
#[derive(Debug, Deserialize)]
struct Record {
    job: String,
    directory: PathBuf,
    /// Hashes of the files and models that the settings name, by setting; for jobs whose checkpoints do not hold them.
    #[serde(default)]
    inputs: BTreeMap<String, String>,
}

/// Leaves the settings of a new run in its folder.
pub fn record<C: Config>(run: &RunDir, config: &C) -> Outcome {
    let directory = env::current_dir()?;
    let inputs = if is_training::<C>() { BTreeMap::new() } else { inputs(&to_table(config))? };
    let record = json!({
        "version": VERSION,
        "job": C::JOB,
        "directory": directory.to_string_lossy(),
        "inputs": inputs,
    });
    // The settings come last: a folder that has them has the record.
    run.write_text(RECORD, &format!("{record:#}\n"))?;
    Ok(run.write_text(CONFIG, &toml::to_string(&to_table(config))?)?)
}

/// The settings of the run in `folder`, with those that are given again, which must agree with them. Makes the directory that the run was
/// started in the working directory, so that its relative paths lead to the same files; paths given now are relative to the present one.
///
/// # Errors
/// When the folder holds no settings, and either no steps or nothing is given; when the run is of another job; when a given setting has another value.
pub fn settings<C: Config>(folder: &Path, given: &Given) -> Outcome<(C, PathBuf)> {
    let nothing = given.file.is_none() && given.flags.is_empty() && given.set.is_empty();
    let path = folder.join(CONFIG);
    if !path.is_file() {
        if nothing {
            let reason = format!("{} holds no {CONFIG}: there is no run to go on with", folder.display());
            return Err(Failure::usage("--run", reason));
        }
        // A run that left steps but no settings is from before they were kept; any other begins like a new one.
        if !RunDir::has_traces(folder) {
            let reason = format!("no run to resume in {}: start it without --resume", folder.display());
            return Err(Failure::usage("--run", reason));
        }
        return Ok((load::load(given)?, folder.to_owned()));
    }
    let text = fs::read_to_string(&path).map_err(|e| Failure::run(format!("cannot read {}: {e}", path.display())))?;
    let mut stored: Table =
        text.parse().map_err(|e| Failure::run(format!("{} is not valid TOML: {e}", path.display())))?;
    let record = read_record(folder)?;
    if let Some(record) = &record
        && record.job != C::JOB
    {
        let reason =
            format!("{} is a run of `setpoint {}`, not of `setpoint {}`", folder.display(), record.job, C::JOB);
        return Err(Failure::usage("--run", reason));
    }
    if record.is_none() {
        C::complete_older(&mut stored);
    }
    let here = env::current_dir()?;
    let there = record.as_ref().map(|record| record.directory.clone());
    let there = there.filter(|there| *there != here && there.is_dir());
    let mut given = given.clone();
    let mut folder = folder.to_owned();
    if let Some(there) = &there {
        given.file = given.file.map(|file| here.join(file));
        folder = here.join(folder);
        env::set_current_dir(there).map_err(|e| {
            Failure::run(format!("cannot change to {}, where the run was started: {e}", there.display()))
        })?;
    }
    let from_here = |key: &str, value: &mut Value| {
        if there.is_some() && is_place(key) {
            absolute(&here, value);
        }
    };
    let base = load::Base { path, text, table: stored.clone() };
    let then: C = load::load_stored(&base)?;
    let now = match load::load_over::<C>(&base, &given, &from_here) {
        Ok(config) => config,
        Err(problems) => {
            // A value that does not go with the others differs in the first place.
            let written = load::written(&given, &from_here)?;
            let differing = differences(&stored, &written, false).into_iter().find(|(key, _, _)| !is_place(key));
            return Err(differing.map_or_else(|| problems.into(), |found| other_settings(&folder, found)));
        }
    };
    // Files of a training are compared by their contents, wherever they are.
    let by_content = is_training::<C>();
    let mut differing = differences(&to_table(&then), &to_table(&now), true).into_iter();
    let same_content = |key: &str, was: &Option<Value>, is: &Option<Value>| {
        by_content && is_place(key) && was.is_some() && is.is_some()
    };
    if let Some(found) = differing.find(|(key, was, is)| !same_content(key, was, is)) {
        return Err(other_settings(&folder, found));
    }
    let implied = implied::<C>(&load::written(&given, &from_here)?);
    if let Some(found) = differences(&to_table(&then), &implied, false).into_iter().next() {
        return Err(other_settings(&folder, found));
    }
    if let Some(record) = record.filter(|record| !record.inputs.is_empty()) {
        let table = to_table(&now);
        let found = inputs(&table)?;
        let changed = |(key, _): &(String, Value)| found.get(key) != record.inputs.get(key);
        if let Some((key, value)) = flat(&table).into_iter().find(changed) {
            return Err(Failure::run(format!(
                "cannot resume {}: `{key}`: {value} changed since the run was started",
                folder.display()
            ))
            .hint("restore what the run was started with, or start a new one in another --run folder"));
        }
    }
    Ok((now, folder))
}

/// Settings that follow from those that are given, and are not given themselves: those of a preset.
fn implied<C: Config>(given: &Table) -> Table {
    let mut method = Table::new();
    if let Some(name) = given.get("align").and_then(|align| align.get("method")) {
        method.insert("align".into(), Value::Table(Table::from_iter([("method".to_owned(), name.clone())])));
    }
    let mut implied = Table::new();
    if let (Ok(usual), Ok(adapted)) = (C::defaults(&method), C::defaults(given)) {
        let own = flat(given);
        for (key, _, is) in differences(&usual, &adapted, false) {
            if let Some(is) = is.filter(|_| own.iter().all(|(given, _)| *given != key)) {
                load::insert(&mut implied, &key, is);
            }
        }
    }
    implied
}

/// Whether a job is one training, whose checkpoints hold its identity.
fn is_training<C: Config>() -> bool {
    matches!(C::JOB, "sft" | "reward" | "align")
}

/// Hashes of the files and models that settings name.
fn inputs(settings: &Table) -> Outcome<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for (key, value) in flat(settings) {
        if let Some(path) = value.as_str().filter(|_| is_place(&key))
            && let Some(hash) = content(Path::new(path))?
        {
            found.insert(key, hash);
        }
    }
    Ok(found)
}

fn read_record(folder: &Path) -> Outcome<Option<Record>> {
    let path = folder.join(RECORD);
    if !path.is_file() {
        return Ok(None);
    }
    let text = fs::read_to_string(&path).map_err(|e| Failure::run(format!("cannot read {}: {e}", path.display())))?;
    let record: Record =
        serde_json::from_str(&text).map_err(|e| Failure::run(format!("{} is damaged: {e}", path.display())))?;
    Ok(Some(record))
}

/// Makes a relative path that exists absolute.
fn absolute(here: &Path, value: &mut Value) {
    match value {
        Value::String(path) if !path.is_empty() && here.join(&*path).exists() => {
            *path = here.join(&*path).to_string_lossy().into_owned();
        }
        Value::Array(paths) => paths.iter_mut().for_each(|path| absolute(here, path)),
        _ => {}
    }
}

type Difference = (String, Option<Value>, Option<Value>);

fn other_settings(folder: &Path, (key, was, is): Difference) -> Failure {
    let text = |value: Option<Value>| value.map_or_else(|| "not set".to_owned(), |value| value.to_string());
    Failure::run(format!(
        "{} was started with other settings: `{key}` was {}, and is now {}",
        folder.display(),
        text(was),
        text(is)
    ))
    .hint("go on with the settings it was started with, or choose another --run folder")
}

/// Whether every setting of an older table has the same value in a newer one.
pub fn agrees(then: &Table, now: &Table) -> bool {
    differences(now, then, false).is_empty()
}

/// The settings that differ. `whole`: also those that only `then` has.
fn differences(then: &Table, now: &Table, whole: bool) -> Vec<Difference> {
    let (then, now) = (flat(then), flat(now));
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
    FREE.contains(&key) || FREE_PREFIXES.iter().any(|prefix| key.starts_with(prefix))
}

/// Whether two values of a setting mean the same: `1` and `1.0` do, and two paths to one file.
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

/// Every setting with its dotted key.
fn flat(table: &Table) -> Vec<(String, Value)> {
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

#[cfg(test)]
mod tests {
    use serde::Serialize;

    use super::*;
    use crate::config::Problems;

    #[derive(Debug, Default, Serialize, Deserialize)]
    struct Preset {
        beta: f64,
        level: f64,
    }

    impl Config for Preset {
        fn defaults(user: &Table) -> Result<Table, (String, String)> {
            let (beta, level) = if user.contains_key("preset") { (0.5, 50.0) } else { (0.0, 0.0) };
            Ok(to_table(&Self { beta, level }))
        }

        fn validate(&self, _: &mut Problems<'_>) {}
    }

    #[test]
    fn what_a_preset_stands_for_is_given_with_it() {
        let given = |text: &str| implied::<Preset>(&text.parse().unwrap());
        assert!(given("beta = 3.0").is_empty());
        assert_eq!(given("preset = true"), "beta = 0.5\nlevel = 50.0".parse().unwrap());
        assert_eq!(given("preset = true\nlevel = 7.0"), "beta = 0.5".parse().unwrap());
    }

    #[test]
    fn values_that_mean_the_same_do_not_differ() {
        let found = |then: &str, now: &str| differences(&then.parse().unwrap(), &now.parse().unwrap(), true).len();
        assert_eq!(found("a = 1\ntrain.save_steps = 2", "a = 1.0\ntrain.save_minutes = 3.0"), 0);
        assert_eq!(found("a = 1\nb = 2", "a = 1"), 1);
        assert_eq!(found("[data]\npath = 'Cargo.toml'", "[data]\npath = './Cargo.toml'"), 0);
        assert_eq!(found("[data]\npath = 'Cargo.toml'", "[data]\npath = 'README.md'"), 1);
        assert!(agrees(&"a = 1".parse().unwrap(), &"a = 1\nb = 2".parse().unwrap()));
        assert!(!agrees(&"a = 1\nb = 2".parse().unwrap(), &"a = 1".parse().unwrap()));
    }
}
