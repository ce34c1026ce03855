//! Turns the configuration of trl, axolotl or LLaMA-Factory into settings of this program.
//!
//! The names are those of [`FOREIGN`]. Every setting of the file is carried over or named in a remark. The tools' own defaults are written out
//! where ours differ, so that the settings mean the same.

mod adapters;
mod data;
mod draft;
mod leftover;
mod methods;
mod rules;
#[cfg(test)]
mod tests;
mod tracker;
mod yaml;

use std::fmt::{self, Write as _};

use serde_json::{Map, Value as Json};
use setpoint_train::TrainConfig;
use toml::{Table, Value};

use self::draft::{Draft, count, number};
pub use crate::config::Tool;
use crate::config::{Carry, FOREIGN};
use crate::failure::{Failure, Outcome};

/// The longest file that is read, in bytes.
pub const LONGEST: usize = 1 << 20;

/// The tools whose files are understood.
pub const TOOLS: [Tool; 3] = [Tool::Trl, Tool::Axolotl, Tool::LlamaFactory];

/// The training that a file describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trainer {
    /// Supervised fine-tuning.
    Sft,
    /// A reward model.
    Reward,
    /// DPO and the other losses of its trainer.
    Dpo,
    /// KTO.
    Kto,
    /// ORPO.
    Orpo,
    /// SimPO.
    Simpo,
}

/// A sentence about a setting of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// Its name there.
    pub name: String,
    /// The sentence.
    pub text: String,
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.text)
    }
}

/// A converted file.
#[derive(Debug, Clone, PartialEq)]
pub struct Converted {
    /// The tool it is of.
    pub tool: Tool,
    /// The job it is for: `sft`, `reward` or `align`.
    pub job: &'static str,
    /// Our settings.
    pub settings: Table,
    /// The run folder.
    pub run: Option<String>,
    /// Remarks on values that were not carried over, or not exactly.
    pub remarks: Vec<Remark>,
}

/// Returns the tool that a file is of, by the keys that only one of them has.
fn tool_of(source: &Map<String, Json>) -> Option<Tool> {
    let has = |names: &[&str]| names.iter().any(|name| source.contains_key(*name));
    if has(&["base_model"]) {
        return Some(Tool::Axolotl);
    }
    if has(&["stage", "finetuning_type", "cutoff_len", "pref_loss", "dataset_dir"]) {
        return Some(Tool::LlamaFactory);
    }
    has(&["model_name_or_path"]).then_some(Tool::Trl)
}

/// Returns the examples of a tool's forward pass unless told.
fn default_batch(tool: Tool) -> i64 {
    match tool {
        Tool::Trl | Tool::LlamaFactory => 8,
        Tool::Axolotl => 1,
    }
}

/// Returns the settings that a tool takes unless told, where ours are others.
fn defaults(tool: Tool, trainer: Trainer) -> Vec<(&'static str, Value)> {
    let rate = match (tool, trainer) {
        (Tool::Trl, Trainer::Sft) => Some(2e-5),
        (Tool::Trl, Trainer::Reward) => Some(1e-4),
        (Tool::Trl, Trainer::Dpo | Trainer::Kto | Trainer::Orpo | Trainer::Simpo) => Some(1e-6),
        // axolotl's files always have one.
        (Tool::Axolotl, _) => None,
        (Tool::LlamaFactory, _) => Some(5e-5),
    };
    let (epochs, length, kind) = match tool {
        Tool::Trl => (3.0, 1024, "linear"),
        Tool::Axolotl => (1.0, 512, "cosine"),
        Tool::LlamaFactory => (3.0, 2048, "linear"),
    };
    let warmup = match tool {
        Tool::Axolotl => Table::from_iter([("ratio".to_owned(), Value::Float(0.03))]),
        Tool::Trl | Tool::LlamaFactory => Table::from_iter([("steps".to_owned(), Value::Integer(0))]),
    };
    let mut defaults = vec![
        ("encode.max_length", Value::Integer(length)),
        ("train.epochs", Value::Float(epochs)),
        ("train.batch_size", Value::Integer(default_batch(tool))),
        ("train.seed", Value::Integer(42)),
        ("train.schedule.kind", Value::from(kind)),
        ("train.schedule.warmup", Value::Table(warmup)),
    ];
    defaults.extend(rate.map(|rate| ("train.learning_rate", Value::Float(rate))));
    if trainer == Trainer::Reward {
        defaults.push(("center", Value::Float(0.0)));
    }
    defaults
}

impl Trainer {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Sft, Self::Reward, Self::Dpo, Self::Kto, Self::Orpo, Self::Simpo];

    /// Returns its name.
    pub fn name(self) -> &'static str {
        self.method().unwrap_or(if self == Self::Sft { "sft" } else { "reward" })
    }

    /// Returns the method of `setpoint align`, if it is one.
    fn method(self) -> Option<&'static str> {
        match self {
            Self::Sft | Self::Reward => None,
            Self::Dpo => Some("dpo"),
            Self::Kto => Some("kto"),
            Self::Orpo => Some("orpo"),
            Self::Simpo => Some("simpo"),
        }
    }

    fn job(self) -> &'static str {
        if self.method().is_some() { "align" } else { self.name() }
    }
}

/// Converts a file.
///
/// # Errors
/// One sentence if the text is no YAML of a known tool, or trains something that does not exist here.
pub fn convert(text: &str, tool: Option<Tool>, trainer: Option<Trainer>) -> Outcome<Converted> {
    let source = read(text)?;
    let tool = tool.or_else(|| tool_of(&source)).ok_or_else(|| {
        Failure::usage("--from", "the file is of none of the known tools: say which, as in --from trl")
    })?;
    let trainer = methods::trainer(tool, &source, trainer)?;
    let mut draft = Draft::new(tool, trainer, &source);
    if tool == Tool::Axolotl && trainer == Trainer::Reward {
        // The trainer follows from it.
        draft.agree("reward_model");
    }
    for group in FOREIGN.chunk_by(|one, next| one.goes_with(next)) {
        let of_tool = group.iter().filter(|foreign| foreign.is_carried() && foreign.tools.contains(&tool));
        let names: Vec<&'static str> = of_tool.map(|foreign| foreign.name).collect();
        let before = draft.begin();
        let Some((name, value)) = draft.first(&names) else { continue };
        let key = group[0].setting().unwrap_or_default();
        match group[0].carry {
            Carry::By(rule) => rules::carry(rule, &mut draft, &names),
            // Only reward models have it.
            _ if key == "center" && trainer != Trainer::Reward => draft.lose(name, "this job has no such setting"),
            Carry::Number => match number(value) {
                Some(number) => draft.set(key, number),
                None => draft.misread(name, "a number"),
            },
            Carry::Count => match count(value).filter(|count| *count >= 0) {
                Some(count) => draft.set(key, count),
                None => draft.misread(name, "a whole number"),
            },
            Carry::Bool => match value.as_bool() {
                Some(on) => draft.set(key, on),
                None => draft.misread(name, "true or false"),
            },
            Carry::Lost(_) | Carry::Dropped => {}
        }
        draft.end(&before);
    }
    methods::complete(&mut draft);
    rules::warn_of_no_eval_data(&mut draft);
    for (key, value) in defaults(tool, trainer) {
        if value_of(&draft.settings, key).is_none() {
            draft.set(key, value);
        }
    }
    note_refused(&mut draft);
    leftover::name(&mut draft, &source);
    Ok(Converted {
        tool,
        job: trainer.job(),
        settings: ordered(draft.settings),
        run: draft.run,
        remarks: draft.remarks,
    })
}

/// Notes values that the job would refuse, and a learning rate that nothing would survive.
fn note_refused(draft: &mut Draft<'_>) {
    let train = draft.settings.get("train").cloned().and_then(|train| train.try_into::<TrainConfig>().ok());
    if let Some(rate) = train.as_ref().map(|train| train.learning_rate).filter(|rate| *rate > 1.0) {
        let text = format!("{rate:e} moves every parameter by more than its size in a step: check it");
        draft.remarks.push(Remark { name: "learning_rate".to_owned(), text });
    }
    for problem in train.map(|train| train.problems()).unwrap_or_default() {
        let name = problem.split('`').nth(1).unwrap_or("train").to_owned();
        draft.remarks.push(Remark { name, text: format!("the job refuses it: {problem}") });
    }
}

impl Converted {
    /// Returns the settings as the text of a file.
    ///
    /// # Errors
    /// If a value cannot be written as TOML.
    pub fn to_toml(&self) -> Outcome<String> {
        let mut text = format!("# Converted from a configuration of {}.\n", self.tool.name());
        let run = self.run.as_deref().unwrap_or("runs/converted");
        let run = crate::visible::one_line(run);
        writeln!(text, "# setpoint {} FILE --run {run}\n", self.job).map_err(Failure::run)?;
        Ok(text + &toml::to_string(&self.settings)?)
    }
}

/// Reads YAML within bounds: files may come from anybody.
fn read(text: &str) -> Outcome<Map<String, Json>> {
    if text.len() > LONGEST {
        return Err(Failure::run(format!("the file has {} bytes: a configuration has at most {LONGEST}", text.len())));
    }
    let budget = serde_saphyr::budget! { max_nodes: 20_000, max_aliases: 100, max_anchors: 100, max_depth: 32, max_documents: 1 };
    let options = serde_saphyr::options! { budget: budget, with_snippet: false };
    let value: Json =
        serde_saphyr::from_str_with_options(text, options).map_err(|error| Failure::run(yaml::reason(&error)))?;
    match value {
        Json::Object(map) => Ok(map),
        _ => {
            Err(Failure::run("expected `key: value` lines of YAML, as in the files of trl, axolotl and LLaMA-Factory"))
        }
    }
}

fn value_of<'t>(table: &'t Table, key: &str) -> Option<&'t Value> {
    match key.split_once('.') {
        None => table.get(key),
        Some((head, rest)) => value_of(table.get(head)?.as_table()?, rest),
    }
}

/// Returns the settings with their sections in the order of the job.
fn ordered(mut settings: Table) -> Table {
    let mut table = Table::new();
    for key in ["reference", "center", "model", "data", "eval_data", "encode", "align", "train"] {
        if let Some(value) = settings.remove(key) {
            table.insert(key.to_owned(), value);
        }
    }
    table.extend(settings);
    table
}
