//! Everything that a run is made from, so that a process that goes on with it can tell whether it is the same run, and name the setting, the
//! file and the row that differ.
//!
//! The checkpoints hold a digest of each input. The rows of the data are also kept one by one, as hashes and numbers, in the run folder
//! (`rows-data.jsonl`, `rows-eval_data.jsonl`): only to find the row that differs when a digest does.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use setpoint_data::{DatasetConfig, Example, Label, TextEncoder, hex};
use setpoint_train::{Change, Identity, Input, RunDir};
use sha2::{Digest, Sha256};

mod rows_file;

use self::rows_file::ASPECTS;
pub use self::rows_file::{KeptRows, RowsFile, conversation, prompt_and_responses};
use crate::config::sections::ModelSection;
use crate::failure::{Failure, Outcome};
use crate::hub;
use crate::setup;

/// Ranks of inputs, from causes to consequences.
mod rank {
    pub const MODEL: u8 = 1;
    pub const ENCODER: u8 = 2;
    pub const DATA: u8 = 3;
    /// Of the same rows as the data.
    pub const ENSEMBLE: u8 = 4;
    pub const LOSS: u8 = 5;
    pub const REFERENCE: u8 = 6;
    pub const TREATMENT: u8 = 7;
}

/// A row of a data set: its tokens as hashes, and the numbers that a loss may read.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// File and row.
    pub name: String,
    /// Index of the data set among those of the section.
    #[serde(default, skip_serializing_if = "is_first")]
    pub set: usize,
    /// Hashes of the prompt and of each response.
    pub tokens: Vec<String>,
    /// The reward of each response.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rewards: Vec<Option<f64>>,
    /// The label of each response.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<Option<Label>>,
    /// By how much chosen is better than rejected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub margin: Option<f64>,
}

/// Returns whether a row is of the first data set, or of the only one.
fn is_first(set: &usize) -> bool {
    *set == 0
}

impl Row {
    /// The row of an example, with its rewards, labels and margin.
    pub fn of_example(example: &Example) -> Self {
        let rewards: Vec<Option<f64>> = example.responses.iter().map(|r| r.reward).collect();
        let labels: Vec<Option<Label>> = example.responses.iter().map(|r| r.label).collect();
        let ids = std::iter::once(&example.prompt).chain(example.responses.iter().map(|r| &r.ids));
        Self {
            name: example.source.to_string(),
            set: example.source.set,
            tokens: ids.map(|ids| format!("{:016x}", setup::token_hash(ids))).collect(),
            rewards: if rewards.iter().any(Option::is_some) { rewards } else { Vec::new() },
            labels: if labels.iter().any(Option::is_some) { labels } else { Vec::new() },
            margin: example.margin,
        }
    }

    /// The row of a conversation: all its tokens, and which of them count.
    pub fn of_conversation(name: &str, set: usize, ids: &[u32], counted: &[bool]) -> Self {
        let counted: Vec<u32> = counted.iter().map(|&counts| u32::from(counts)).collect();
        let tokens = [ids, &counted].map(|ids| format!("{:016x}", setup::token_hash(ids)));
        Self { name: name.to_owned(), set, tokens: tokens.into(), ..Self::default() }
    }
}

/// The inputs that a run is made from, collected step by step.
#[derive(Debug)]
pub struct Origin {
    identity: Identity,
    files: Vec<RowsFile>,
}

impl Origin {
    /// Begins with a job's settings. `version_1`: the fingerprint that builds before there were versions gave the run.
    pub fn new<C: Serialize>(config: &C, version_1: String) -> Outcome<Self> {
        let mut settings = match serde_json::to_value(config)? {
            Value::Object(map) => map,
            _ => Map::new(),
        };
        // The engine has its own; samples, outputs and trackers decide nothing.
        for key in ["train", "samples", "output", "guards", "tracker"] {
            settings.shift_remove(key);
        }
        without_places(&mut settings);
        let mut free = Vec::new();
        each_table("", &mut settings, &mut |prefix, table| {
            free.extend(table.keys().map(|name| format!("{prefix}{name}")).filter(|key| is_free(key)));
        });
        Ok(Self { identity: Identity { settings, inputs: Vec::new(), version_1, free }, files: Vec::new() })
    }

    /// Adds an input.
    fn input(&mut self, name: &str, what: String, digest: String, rank: u8) {
        self.identity.inputs.push(Input { name: name.to_owned(), what, digest, rank });
    }

    /// Adds the weights and the shape of a model. `setting`: where its folder is named.
    pub fn model(&mut self, setting: &str, dir: &Path, hash: String) {
        self.input(
            setting,
            format!("`{setting}`: the weights or the config.json of `{}`", hub::shown(dir)),
            hash,
            rank::MODEL,
        );
    }

    /// Adds the shape of a model that starts from random weights.
    pub fn shape(&mut self, file: &Path, hash: String) {
        self.input(
            "model.from_scratch",
            format!("`model.from_scratch`: the shape in `{}`", file.display()),
            hash,
            rank::MODEL,
        );
    }

    /// Adds the tokenizer and the chat template.
    pub fn encoder(&mut self, model: &ModelSection, encoder: &TextEncoder) {
        let source = encoder.template().map_or("", |template| template.source());
        let template = match &model.template {
            Some(name) => format!("`model.template`: the chat template `{name}`"),
            None => "the chat template of the tokenizer".to_owned(),
        };
        self.input("template", template, setup::text_hash(source), rank::MODEL);
        if let Some(file) = model.tokenizer_dir().map(|dir| dir.join("tokenizer.json"))
            && let Ok(bytes) = setpoint_files::read_up_to(&file, setpoint_files::LARGE)
        {
            self.input(
                "tokenizer",
                format!("the tokenizer `{}`", file.display()),
                hex(&Sha256::digest(bytes)),
                rank::MODEL,
            );
        }
        let what = "the special tokens or the variables of the chat template".to_owned();
        self.input("encoder", what, encoder.fingerprint(), rank::ENCODER);
    }

    /// Adds data, row by row. `section`: `data` or `eval_data`; `parts`: how messages name the first hash of a row, and the others.
    pub fn data(&mut self, section: &'static str, data: &DatasetConfig, rows: KeptRows, parts: fn(usize) -> String) {
        let paths: Vec<String> = data.each().into_iter().map(|data| data.path).collect();
        let setting = if paths.len() > 1 { "sources" } else { "path" };
        let path = data.name();
        for ((name, what), digest) in ASPECTS.into_iter().zip(rows.digests()) {
            let what = format!("`{section}.{setting}`: {what} in `{path}`");
            self.input(&format!("{section}.{name}"), what, digest, rank::DATA);
        }
        self.files.push(RowsFile { section, paths, rows, parts });
    }

    /// Adds pairs as the loss reads them.
    pub fn loss(&mut self, section: &str, digest: String) {
        let what = format!("`{section}.path`: the data as the loss reads it");
        self.input(&format!("{section}.loss"), what, digest, rank::LOSS);
    }

    /// Adds the reference log-probabilities. `file`: where they come from.
    pub fn reference(&mut self, section: &str, file: &str, digest: String) {
        let what = format!("the reference log-probabilities in `{file}`");
        self.input(&format!("{section}.reference"), what, digest, rank::REFERENCE);
    }

    /// Adds something that decides the rewards of sampled responses besides the settings, which are those of `section`.
    pub fn reward(&mut self, section: &str, what: &str, digest: String) {
        self.input(&format!("{section}.{what}"), format!("`{section}`: the {what}"), digest, rank::MODEL);
    }

    /// Adds how the method treats something that an earlier build treated in another way.
    pub fn treatment(&mut self, name: &str, what: &str, how: &str) {
        self.input(&format!("treatment.{name}"), what.to_owned(), setup::text_hash(how), rank::TREATMENT);
    }

    /// Adds the rewards of further reward models.
    pub fn ensemble(&mut self, rewards: String) {
        let what = "`align.ensemble`: the rewards in its files".to_owned();
        self.input("align.ensemble", what, rewards, rank::ENSEMBLE);
    }

    /// The identity collected so far.
    pub fn identity(&self) -> Identity {
        self.identity.clone()
    }

    /// Returns the identity without the settings that may change when the run goes on.
    pub fn stable(&self) -> Identity {
        let mut identity = self.identity();
        each_table("", &mut identity.settings, &mut |prefix, table| {
            table.retain(|name, _| !is_free(&format!("{prefix}{name}")));
        });
        identity
    }

    /// Fails where the run was started with other settings or inputs than those collected so far. A run without a checkpoint starts
    /// with these.
    pub fn check(&self, run: &RunDir) -> Outcome {
        let compared = run.compare(&self.identity)?;
        if let Some((_, changes)) = &compared
            && !changes.is_empty()
        {
            // Of each data set, the first aspect that differs says enough.
            let mut told: Vec<&str> = Vec::new();
            let mut said: Vec<String> = Vec::new();
            for change in changes {
                if let Some(section) = self.section(change) {
                    if told.contains(&section) {
                        continue;
                    }
                    told.push(section);
                }
                said.push(self.sentence(run, change));
            }
            return Err(Failure::run(format!("cannot resume {}: {}", run.path().display(), said.join("; ")))
                .hint("restore what the run was started with, or start a new one in another --run folder"));
        }
        for file in &self.files {
            if compared.is_none() || !file.place(run).exists() {
                file.write(run)?;
            }
        }
        Ok(())
    }

    /// The data set, read row by row, that a change is of.
    fn section(&self, change: &Change) -> Option<&'static str> {
        let Change::Input { name, .. } = change else { return None };
        let (section, _) = name.split_once('.')?;
        self.files.iter().map(|file| file.section).find(|known| *known == section)
    }

    fn sentence(&self, run: &RunDir, change: &Change) -> String {
        let general = change.to_string();
        let Change::Input { name, .. } = change else { return general };
        let Some((section, aspect)) = name.split_once('.') else { return general };
        let file = self.files.iter().find(|file| file.section == section);
        file.and_then(|file| file.difference(run, aspect)).unwrap_or(general)
    }
}

/// A hash of the content of a file, or of a folder with a model or a tokenizer; `None` where the path leads to neither.
pub fn content(path: &Path) -> Outcome<Option<String>> {
    let read = |path: &Path| setpoint_files::read_up_to(path, setpoint_files::LARGE);
    if path.is_file() {
        return Ok(Some(hex(&Sha256::digest(read(path)?))));
    }
    let held = ["config.json", "adapter_config.json", "tokenizer.json"].map(|name| path.join(name).is_file());
    if !held.contains(&true) {
        return Ok(None);
    }
    let mut hash = Sha256::new();
    hash.update(setup::model_hash(path)?);
    let files = [
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "additional_chat_templates/tool_use.jinja",
        "setpoint.json",
    ];
    for file in files.map(|name| path.join(name)) {
        if file.is_file() {
            hash.update(hex(&Sha256::digest(read(&file)?)));
        }
    }
    Ok(Some(hex(&hash.finalize())))
}

/// Settings that name a place: its content is compared instead.
pub fn is_place(key: &str) -> bool {
    key == "path" || key.ends_with(".path") || PLACES.contains(&key)
}

const PLACES: [&str; 5] = ["model.from_scratch", "model.tokenizer", "model.template", "reference", "align.ensemble"];

/// The settings of a client by which a server or a judge is asked that say nothing about the answers.
const OF_CLIENT: [&str; 11] = [
    "api_key_env",
    "backoff_seconds",
    "base_url",
    "cache",
    "completion_price",
    "concurrency",
    "on_failure",
    "prompt_price",
    "requests_per_minute",
    "retries",
    "timeout_seconds",
];

/// Returns whether a setting of rounds says where something is, how long it is waited for or how long it is kept, and nothing about responses
/// and their rewards: it may change when a run goes on.
pub fn is_free(key: &str) -> bool {
    if let Some(name) = key.strip_prefix("rollout.") {
        let of_server = name.strip_prefix("server.").is_some_and(|name| OF_CLIENT.contains(&name));
        return of_server || ["keep_rounds", "reload.timeout_seconds"].contains(&name);
    }
    let source = ["reward.", "watch."].iter().find_map(|section| key.strip_prefix(section));
    source.is_some_and(|name| {
        let of_judge = name.strip_prefix("generative.judge.").is_some_and(|name| OF_CLIENT.contains(&name));
        of_judge || ["command.timeout_seconds", "command.startup_seconds"].contains(&name)
    })
}

/// Removes the settings that name a place.
fn without_places(settings: &mut Map<String, Value>) {
    each_table("", settings, &mut |prefix, table| table.retain(|name, _| !is_place(&format!("{prefix}{name}"))));
}

/// Calls a function with each table of settings and the beginning of the keys in it, the outermost table first.
fn each_table(prefix: &str, table: &mut Map<String, Value>, act: &mut dyn FnMut(&str, &mut Map<String, Value>)) {
    act(prefix, table);
    for (name, value) in table.iter_mut() {
        let tables = match value {
            Value::Object(_) => std::slice::from_mut(value),
            Value::Array(items) => items.as_mut_slice(),
            _ => continue,
        };
        let prefix = format!("{prefix}{name}.");
        tables.iter_mut().filter_map(Value::as_object_mut).for_each(|inner| each_table(&prefix, inner, act));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn waits_and_addresses_of_rounds_may_change_and_sources_may_not() {
        for key in [
            "reward.command.timeout_seconds",
            "watch.command.startup_seconds",
            "reward.generative.judge.on_failure",
            "watch.generative.judge.base_url",
            "rollout.server.base_url",
            "rollout.reload.timeout_seconds",
            "rollout.keep_rounds",
        ] {
            assert!(is_free(key), "{key}");
        }
        for key in [
            "reward.command.run",
            "reward.command.batch",
            "reward.generative.judge.model",
            "reward.generative.min",
            "reward.missing_stop_penalty",
            "rollout.server.model",
            "rollout.reload.run",
            "rollout.samples",
            "rollout.on_failure",
            "align.cache",
            "reward",
        ] {
            assert!(!is_free(key), "{key}");
        }
        let origin = |timeout: u64, batch: u64| {
            let command = json!({ "run": ["score"], "batch": batch, "timeout_seconds": timeout });
            let settings = json!({ "rounds": 3, "reward": { "command": command }, "rollout": { "samples": 4 } });
            Origin::new(&settings, String::new()).unwrap()
        };
        assert_eq!(origin(60, 8).identity().free, ["reward.command.timeout_seconds"]);
        assert_eq!(origin(60, 8).stable(), origin(90, 8).stable());
        assert_ne!(origin(60, 8).stable(), origin(60, 9).stable());
        let settings = origin(60, 8).stable().settings;
        assert_eq!(settings["reward"]["command"], json!({ "run": ["score"], "batch": 8 }));
    }
}
