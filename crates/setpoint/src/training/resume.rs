//! Going on with a run: its folder holds the settings it was started with, and those given again must agree with them.
//!
//! `config.toml` in the folder has every setting. Relative paths in it are relative to the working directory of the process that started the
//! run, which `run.json` records. A folder without that file was made before there was one: settings that its `config.toml` lacks have the
//! meaning that they had then.

use std::env;
use std::path::{Path, PathBuf};

use setpoint_train::RunDir;
use toml::{Table, Value};

use super::record::{CONFIG, Difference, differences, flat_with_lists, inputs, is_place, read};
use super::{mirror, tracker};
use crate::config::load::{self, to_table};
use crate::config::{Config, Given};
use crate::failure::{Failure, Outcome};

/// Returns the settings of the run in `folder`, with those that are given again, which must agree with them. Makes the directory that the run was
/// started in the working directory, so that its relative paths lead to the same files; paths given now are relative to the present one.
///
/// # Errors
/// When the folder holds no settings, and either no steps or nothing is given; when the run is of another job; when a given setting has another value.
pub fn settings<C: Config>(folder: &Path, given: &Given) -> Outcome<(C, PathBuf)> {
    let nothing = given.file.is_none() && given.flags.is_empty() && given.set.is_empty();
    if C::IS_TRAINING && !nothing {
        mirror::restore(folder, &load::written(given, &|_, _| {})?)?;
    }
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
    let text = setpoint_files::read_text(&path)?;
    let mut stored = load::parse_file(&path, &text).map_err(|problem| vec![problem])?;
    let record = read(folder)?;
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
        if there.is_some() && (is_place(key) || key == mirror::MIRROR || tracker::PLACES.contains(&key)) {
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
    let by_content = C::IS_TRAINING;
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
        if let Some((key, value)) = flat_with_lists(&table).into_iter().find(changed) {
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
    // Rounds bring sections of their own, whose settings need not be given again.
    if let Some(rounds) = given.get("rounds") {
        method.insert("rounds".into(), rounds.clone());
    }
    let mut implied = Table::new();
    if let (Ok(usual), Ok(adapted)) = (C::defaults(&method), C::defaults(given)) {
        let own = flat_with_lists(given);
        for (key, _, is) in differences(&usual, &adapted, false) {
            if let Some(is) = is.filter(|_| own.iter().all(|(given, _)| *given != key)) {
                load::insert(&mut implied, &key, is);
            }
        }
    }
    implied
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

fn other_settings(folder: &Path, (key, was, is): Difference) -> Failure {
    let text = |value: Option<Value>| value.map_or_else(|| "not set".to_owned(), |value| value.to_string());
    Failure::usage(
        folder.display().to_string(),
        format!(
            "the run was started with other settings: `{key}` was {}, and is now {}; go on with the settings it was started with, or \
             choose another --run folder",
            text(was),
            text(is)
        ),
    )
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

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
}
