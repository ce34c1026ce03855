//! Models that settings name by their id on the hub: `Qwen/Qwen3-0.6B`, or `Qwen/Qwen3-0.6B@REVISION`.
//!
//! A name becomes a folder in two steps. When settings are read, everything but the weights is downloaded and the name is replaced by the
//! folder of a commit in the hub's cache: from there on there are only folders. The weights follow when the settings are known to be right
//! ([`fetch_weights`](crate::fetching::fetch_weights)). `config.toml` of a run has the id and the commit (`by_name`), so that it goes on
//! with the same files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use setpoint_data::{Hub, HubModel};
use toml::{Table, Value};

use crate::failure::{Failure, Outcome};

/// The ends of the settings that name a model, or a folder with its tokenizer.
const MODELS: [&str; 6] = ["model.path", "reward.path", "baseline.path", "adapter.path", "value_init", "tokenizer"];
/// The reference model of an alignment.
const REFERENCE: &str = "reference";

/// Returns whether a setting names a model or a tokenizer.
pub(crate) fn names_model(key: &str) -> bool {
    key == REFERENCE
        || MODELS.iter().any(|end| key == *end || key.strip_suffix(end).is_some_and(|rest| rest.ends_with('.')))
}

/// Returns the folder of a model: that of the cache if the name is an id on the hub and no folder on this machine; else the path as it is.
///
/// # Errors
/// When the hub does not have the model or cannot be reached.
pub(crate) fn folder_of(path: &Path) -> Outcome<PathBuf> {
    let Some(model) = named(path) else { return Ok(path.to_owned()) };
    fetched(&model).map_err(|failure| {
        Failure::run(format!("`{model}` does not exist on this machine, and {}", failure.sentence()))
    })
}

/// Returns the folder of a model on the hub. A branch stands for the same commit as long as the process runs.
///
/// # Errors
/// When the hub does not have the model or cannot be reached.
pub(crate) fn fetched(model: &HubModel) -> Outcome<PathBuf> {
    static FOUND: Mutex<BTreeMap<String, PathBuf>> = Mutex::new(BTreeMap::new());
    let name = model.to_string();
    let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(folder) = found.get(&name) {
        return Ok(folder.clone());
    }
    let hub = Hub::from_env();
    let folder = hub.fetch_model(model)?;
    if !model.is_pinned()
        && let Some(at) = hub.model_at(&folder)
    {
        log::info!("{name} is at commit {}", at.revision);
    }
    found.insert(name, folder.clone());
    Ok(folder)
}

/// Returns the model on the hub that a path names: an id whose first part is no folder here.
fn named(path: &Path) -> Option<HubModel> {
    let model = HubModel::parse(path.to_str()?)?;
    let owner = model.id.split('/').next()?;
    (!path.exists() && !Path::new(owner).exists()).then_some(model)
}

/// Says why a path that looks like an id was not looked for on the hub.
pub(crate) fn why_not(path: &Path) -> Option<String> {
    let model = HubModel::parse(path.to_str()?)?;
    let owner = model.id.split('/').next()?;
    Path::new(owner)
        .exists()
        .then(|| format!("; it was not looked for on the hub, because `{owner}` exists in the working directory"))
}

/// Replaces the models on the hub that settings name by their folders. A name without a revision stands for the commit that `before`, the
/// settings of an earlier run, has for it. Returns what could not be had, by the setting.
pub(crate) fn resolve(settings: &mut Table, before: Option<&Table>) -> Vec<(String, String)> {
    let mut failed = Vec::new();
    each_model(settings, &mut |key, name| {
        let mut path = PathBuf::from(&*name);
        if named(&path).is_none() {
            return;
        }
        let pinned =
            before.and_then(|before| text_at(before, key)).filter(|then| then.starts_with(&format!("{name}@")));
        if let Some(pinned) = pinned {
            path = pinned.into();
        }
        match folder_of(&path) {
            Ok(folder) => *name = folder.to_string_lossy().into_owned(),
            Err(failure) => failed.push((key.to_owned(), failure.sentence())),
        }
    });
    failed
}

/// Returns settings with the ids and commits of models in the hub's cache in place of their folders.
pub(crate) fn by_name(settings: &Table) -> Table {
    by_name_in(&Hub::from_env(), settings)
}

fn by_name_in(hub: &Hub, settings: &Table) -> Table {
    let mut settings = settings.clone();
    each_model(&mut settings, &mut |_, name| {
        if let Some(model) = hub.model_at(Path::new(&*name)) {
            *name = model.to_string();
        }
    });
    settings
}

/// Returns the name under which a folder is shown: the id and the commit if it is one of the hub's cache.
pub fn shown(folder: &Path) -> String {
    Hub::from_env().model_at(folder).map_or_else(|| folder.display().to_string(), |model| model.to_string())
}

/// Returns the model whose commit a folder of the hub's cache holds.
pub fn model_at(folder: &Path) -> Option<HubModel> {
    Hub::from_env().model_at(folder)
}

/// Downloads the weights of a folder of the hub's cache, unless they are there. `reached` is told the bytes that are there and their sum.
///
/// # Errors
/// When the hub cannot be reached, or the model has no weights that are read.
pub(crate) fn complete(folder: &Path, allow_pickle: bool, reached: &mut dyn FnMut(u64, Option<u64>)) -> Outcome {
    Ok(Hub::from_env().fetch_weights(folder, allow_pickle, reached)?)
}

/// Calls `act` with the key and the value of each setting that names a model.
pub(crate) fn each_model(settings: &mut Table, act: &mut dyn FnMut(&str, &mut String)) {
    fn walk(prefix: &str, table: &mut Table, act: &mut dyn FnMut(&str, &mut String)) {
        for (name, value) in table.iter_mut() {
            let key = format!("{prefix}{name}");
            match value {
                Value::Table(inner) => walk(&format!("{key}."), inner, act),
                Value::String(text) if names_model(&key) => act(&key, text),
                _ => {}
            }
        }
    }
    walk("", settings, act);
}

pub(crate) fn value_at<'t>(settings: &'t Table, key: &str) -> Option<&'t Value> {
    let mut parts = key.split('.');
    let first = settings.get(parts.next()?)?;
    parts.try_fold(first, |value, part| value.get(part))
}

fn text_at<'t>(settings: &'t Table, key: &str) -> Option<&'t str> {
    value_at(settings, key)?.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::JOBS;

    #[test]
    fn every_setting_with_a_path_is_data_or_names_a_model() {
        const OTHERS: [&str; 4] = ["data.path", "eval_data.path", "pairs.path", "prompts.path"];
        let is_other = |key: &str| OTHERS.iter().any(|end| key == *end || key.ends_with(&format!(".{end}")));
        for job in JOBS {
            for key in job.settings_named("path").into_iter().chain(job.settings_named("tokenizer")) {
                assert_ne!(names_model(&key), is_other(&key), "{}: {key}", job.command());
            }
        }
        assert!(names_model("reference") && names_model("reference.model.path"));
        assert!(!names_model("supermodel.path") && !names_model("align.reference"));
    }

    #[test]
    fn a_local_path_wins_and_an_id_is_none_below_a_folder() {
        let here = ["src/no-such-file", "src", "./Qwen/Qwen3", "no-such-folder", "a/b/c", "/no/such"];
        for path in here {
            assert_eq!(named(Path::new(path)), None, "{path}");
        }
        assert!(named(Path::new("some-owner/some-model")).is_some());
        assert!(why_not(Path::new("src/no-such-file")).unwrap().contains("because `src` exists"));
        assert_eq!(why_not(Path::new("some-owner/some-model")), None);
    }

    #[test]
    fn settings_have_the_name_and_the_commit() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let hub = Hub::new("http://hub", "/cache");
        let folder = format!("/cache/models--a--b/snapshots/{commit}");
        let settings: Table = format!("[model]\npath = '{}'\n[data]\npath = 'x'", folder).parse().unwrap();
        assert_eq!(text_at(&by_name_in(&hub, &settings), "model.path").unwrap(), format!("a/b@{commit}"));
        let local: Table = "[model]\npath = 'runs/sft/model'".parse().unwrap();
        assert_eq!(by_name_in(&hub, &local), local);
    }
}
