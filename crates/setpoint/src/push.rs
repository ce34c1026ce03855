//! `setpoint push`: the folder of a model, uploaded to the Hugging Face hub.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use setpoint_data::{Hub, Push, PushFile, Pushed};
use setpoint_files::words;
use setpoint_transformer::lora::AdapterFolder;

use crate::failure::{Failure, Outcome};
use crate::model_folder::is_adapter;
use crate::session::{Meter, Session};

/// More files than a model has, and deeper folders.
const MOST_FILES: usize = 1000;
const DEEPEST: usize = 8;
/// The index of weights in several files.
const INDEX: &str = "model.safetensors.index.json";
/// The weights of an adapter.
const ADAPTER: &str = "adapter_model.safetensors";

/// The settings of an upload.
#[derive(Debug, Clone)]
pub struct PushSettings {
    /// The folder of the model.
    pub model: PathBuf,
    /// The repository, as in `user/name`.
    pub to: String,
    /// The branch that gets the commit.
    pub revision: String,
    /// True if everyone may read the repository.
    pub public: bool,
    /// The first line of the commit.
    pub message: String,
}

/// The files of a model that are uploaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushContents {
    /// The files, by name.
    pub files: Vec<PushFile>,
    /// Sentences about what others will miss.
    pub remarks: Vec<String>,
}

impl PushContents {
    /// Lists a model's files. Hidden ones, which a process that died may have left, are not among them.
    ///
    /// # Errors
    /// [`Failure::Usage`] when the folder holds no whole model.
    pub fn of(dir: &Path) -> Outcome<Self> {
        let shown = dir.display();
        let wrong = |message: String| Failure::usage("--model", message);
        if !dir.is_dir() {
            return Err(wrong(format!("`{shown}` is no folder on this machine")));
        }
        if !dir.join("config.json").is_file() && !dir.join("adapter_config.json").is_file() {
            let inner = dir.join("model");
            let remedy = match inner.is_dir() {
                true => format!(": the model of this run is `{}`", inner.display()),
                false => ": expected a Hugging Face folder with config.json, or a PEFT folder with adapter_config.json"
                    .into(),
            };
            return Err(wrong(format!("`{shown}` holds no model{remedy}")));
        }
        let mut files = Vec::new();
        list(dir, "", 0, &mut files)?;
        files.sort_by(|a, b| a.name.cmp(&b.name));
        let names: BTreeSet<&str> = files.iter().map(|file| file.name.as_str()).collect();
        if let Some(missing) = missing_weights(dir, &names)? {
            return Err(wrong(format!("`{shown}` holds no whole model: {missing} is missing")));
        }
        let remarks = remarks(dir, &names);
        Ok(Self { files, remarks })
    }

    /// Returns the length of all files together.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

/// Uploads a model as one commit.
///
/// # Errors
/// [`Failure::Usage`] for names that none can have and for a folder without a whole model; [`Failure::Run`] when the hub refuses or cannot
/// be reached, and when a file cannot be read.
pub fn push(session: &Session, hub: &Hub, settings: &PushSettings, contents: &PushContents) -> Outcome<Pushed> {
    check(settings)?;
    let push = Push {
        id: &settings.to,
        revision: &settings.revision,
        public: settings.public,
        message: &settings.message,
        files: &contents.files,
    };
    let mut meter: Option<Meter> = None;
    let megabytes = |bytes: u64| (bytes / 1_000_000) as usize;
    let pushed = hub.push(&push, &mut |sent, total| {
        meter.get_or_insert_with(|| Meter::new(session, megabytes(total), "upload", "MB")).reach(megabytes(sent));
    })?;
    if let Some(meter) = meter {
        meter.finish();
    }
    Ok(pushed)
}

/// Fails if the repository or the branch has a name that none can have.
///
/// # Errors
/// [`Failure::Usage`] that names the flag.
pub fn check(settings: &PushSettings) -> Outcome {
    if let Some(problem) = Push::id_problem(&settings.to) {
        return Err(Failure::usage("--to", problem));
    }
    match Push::revision_problem(&settings.revision) {
        Some(problem) => Err(Failure::usage("--revision", problem)),
        None => Ok(()),
    }
}

/// Adds the files in a folder, and in the folders within it.
fn list(dir: &Path, prefix: &str, depth: usize, files: &mut Vec<PushFile>) -> Outcome {
    let cannot = |path: &Path, error: &std::io::Error| {
        Failure::run(format!("could not read {}: {}", path.display(), words::system(error)))
    };
    for entry in fs::read_dir(dir).map_err(|error| cannot(dir, &error))? {
        let entry = entry.map_err(|error| cannot(dir, &error))?;
        let path = entry.path();
        let Ok(name) = entry.file_name().into_string() else {
            return Err(Failure::run(format!("{}: its name is not UTF-8 text: rename it", path.display())));
        };
        if name.starts_with('.') {
            continue;
        }
        let found = fs::metadata(&path).map_err(|error| cannot(&path, &error))?;
        let name = format!("{prefix}{name}");
        if found.is_dir() {
            // A link to a folder could lead anywhere.
            if !path.is_symlink() && depth < DEEPEST {
                list(&path, &format!("{name}/"), depth + 1, files)?;
            }
        } else if found.is_file() {
            files.push(PushFile { name, path, bytes: found.len() });
            if files.len() > MOST_FILES {
                return Err(Failure::usage(
                    "--model",
                    format!("more than {MOST_FILES} files: this is no model's folder"),
                ));
            }
        }
    }
    Ok(())
}

/// Returns the first file of weights that is missing, if one is.
fn missing_weights(dir: &Path, names: &BTreeSet<&str>) -> Outcome<Option<String>> {
    if is_adapter(dir) {
        return Ok((!names.contains(ADAPTER)).then(|| ADAPTER.to_owned()));
    }
    if !names.contains(INDEX) {
        let any = names.iter().any(|name| name.ends_with(".safetensors"));
        return Ok((!any).then(|| "model.safetensors".to_owned()));
    }
    let path = dir.join(INDEX);
    let index: Value = serde_json::from_str(&setpoint_files::read_text(&path)?)
        .map_err(|error| Failure::run(format!("{} is damaged: {}", path.display(), words::json(&error))))?;
    let shards = index["weight_map"].as_object().into_iter().flat_map(|map| map.values()).filter_map(Value::as_str);
    Ok(shards.filter(|shard| !names.contains(shard)).min().map(str::to_owned))
}

/// Returns what others will miss.
fn remarks(dir: &Path, names: &BTreeSet<&str>) -> Vec<String> {
    let mut remarks = Vec::new();
    if is_adapter(dir)
        && let Ok(AdapterFolder { base: Some(base), .. }) = AdapterFolder::open(dir)
        && (Push::id_problem(&base).is_some() || Path::new(&base).exists())
    {
        remarks.push(format!(
            "adapter_config.json names its base by a path of this machine, `{base}`: set `base_model_name_or_path` to the id of the base, \
             or others cannot load the adapter"
        ));
    }
    for (file, what) in [("README.md", "a model card"), ("tokenizer.json", "a tokenizer")] {
        if !names.contains(file) {
            remarks.push(format!("there is no {file}: the repository will be without {what}"));
        }
    }
    remarks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    #[test]
    fn the_files_of_a_model_are_listed_without_hidden_ones() {
        let dir = folder(&[
            ("config.json", "{}"),
            ("model.safetensors", "12345"),
            (".env", "SECRET"),
            (".saving/config.json", "{}"),
            ("additional_chat_templates/tool_use.jinja", "x"),
            ("README.md", "card"),
        ]);
        let found = PushContents::of(dir.path()).unwrap();
        let names: Vec<&str> = found.files.iter().map(|file| file.name.as_str()).collect();
        assert_eq!(
            names,
            ["README.md", "additional_chat_templates/tool_use.jinja", "config.json", "model.safetensors"]
        );
        assert_eq!(found.bytes(), 4 + 1 + 2 + 5);
        assert_eq!(found.remarks, ["there is no tokenizer.json: the repository will be without a tokenizer"]);
    }

    #[test]
    fn folders_without_a_whole_model_are_refused() {
        let index =
            r#"{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}"#;
        let cases: [(&[(&str, &str)], &str); 5] = [
            (&[("x.txt", "")], "holds no model: expected a Hugging Face folder"),
            (&[("config.toml", ""), ("model/config.json", "{}")], "holds no model: the model of this run is"),
            (&[("config.json", "{}")], "model.safetensors is missing"),
            (
                &[("config.json", "{}"), (INDEX, index), ("model-00001-of-00002.safetensors", "")],
                "model-00002-of-00002.safetensors is missing",
            ),
            (&[("adapter_config.json", "{}")], "adapter_model.safetensors is missing"),
        ];
        for (files, expected) in cases {
            let dir = folder(files);
            let message = PushContents::of(dir.path()).unwrap_err().to_string();
            assert!(message.contains("--model") && message.contains(expected), "{message}");
        }
        let message = PushContents::of(Path::new("no/such/folder")).unwrap_err().to_string();
        assert!(message.contains("`no/such/folder` is no folder"), "{message}");
    }
}
