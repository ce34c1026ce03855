//! Sections that several jobs share. A job's own settings stand in its recipe; `[data]`, `[encode]` and `[train]` are the types of the
//! crates that act on them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use setpoint_data::{DatasetConfig, EncodeOptions, OWN_VARIABLES, ResponseEnd, Responses, TemplateDate};
use setpoint_train::{SaveDtype, TrainConfig};
use setpoint_transformer::{Architecture, ModelConfig, Quantize};
use toml::Table;

use super::Problems;
use super::output::{Target, validate_target};
use crate::hub;
use crate::model_folder::{self, ModelFolder};

/// `[model]`: which checkpoint, tokenizer and template.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ModelSection {
    /// Hugging Face folder (`config.json`, safetensors, `tokenizer.json`), or the id of a model on the hub: `Qwen/Qwen3-0.6B`, or with a
    /// branch, tag or commit `Qwen/Qwen3-0.6B@REVISION`. A folder of that name wins.
    pub path: Option<PathBuf>,
    /// `config.json` of a model to start from random weights, instead of `path`.
    pub from_scratch: Option<PathBuf>,
    /// Folder with `tokenizer.json`, if it is not the model's own.
    pub tokenizer: Option<PathBuf>,
    /// Chat template: a built-in name or a `.jinja` file; by default the tokenizer's own.
    pub template: Option<String>,
    /// Variables that the chat template is given, such as `enable_thinking = false`. A row's `chat_template_kwargs` win.
    #[serde(skip_serializing_if = "Table::is_empty")]
    #[schemars(with = "BTreeMap<String, serde_json::Value>")]
    pub template_kwargs: Table,
    /// The date that the chat template prints; by default the one that the model was trained with, else today's.
    pub template_date: Option<TemplateDate>,
    /// The precision of the parameters in memory.
    pub dtype: Dtype,
    /// Reads `pytorch_model.bin` if there are no safetensors. It is a Python pickle; nothing in it is executed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub allow_pickle: bool,
    /// Holds the matrices of the layers in 4-bit codes, which take an eighth of the memory of f32. They cannot be trained: adapters can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quantize: Option<Quantization>,
    /// Quantises the scales of the codes as well: 4.13 bits a weight instead of 4.5; so by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub double_quant: Option<bool>,
    /// The place where a reward model reads the score, see docs/REWARDS.md; by default as it was trained.
    pub response_end: Option<ResponseEnd>,
}

/// The kind of model that a job needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// A language model.
    LanguageModel,
    /// A language model, or the shape of one to start from random weights.
    LanguageModelOrShape,
    /// A reward model.
    RewardModel,
    /// A language model or a reward model.
    Either,
}

impl ModelSection {
    /// Notes a missing or doubled source of weights, and a model of another kind than the job needs.
    pub fn validate(&self, section: &str, wanted: Wanted, problems: &mut Problems<'_>) {
        match (&self.path, &self.from_scratch) {
            (None, None) => problems.add(
                &format!("{section}.path"),
                format!(
                    "no model: set `{section}.path` to a Hugging Face folder or a hub id ({})",
                    how_to_name(section)
                ),
            ),
            (Some(_), Some(_)) => problems.add(
                &format!("{section}.from_scratch"),
                format!("`{section}.path` and `{section}.from_scratch` exclude each other"),
            ),
            (None, Some(_)) if wanted != Wanted::LanguageModelOrShape => problems.add(
                &format!("{section}.from_scratch"),
                format!("this job needs a trained model: set `{section}.path` instead of `{section}.from_scratch`"),
            ),
            (None, Some(_)) => problems.require(
                self.tokenizer.is_some(),
                &format!("{section}.tokenizer"),
                format!("`{section}.from_scratch` needs `{section}.tokenizer`: the folder that holds tokenizer.json"),
            ),
            (Some(path), None) => {
                if let Some(message) = folder_problem(path, wanted) {
                    problems.add(&format!("{section}.path"), message);
                }
            }
        }
        if let Some(path) = &self.from_scratch {
            problems.require(
                path.is_file(),
                &format!("{section}.from_scratch"),
                format!("`{}` is not a file: expected a config.json", path.display()),
            );
        }
        problems.require(
            self.quantize.is_none() || self.path.is_some(),
            &format!("{section}.quantize"),
            "random weights are trained in full: leave `quantize` out",
        );
        problems.require(
            self.quantize.is_some() || self.double_quant.is_none(),
            &format!("{section}.double_quant"),
            format!(
                "without `{section}.quantize` nothing is quantised: set it to \"nf4\", or leave `double_quant` out"
            ),
        );
        for name in OWN_VARIABLES.into_iter().chain(["documents"]) {
            problems.require(
                !self.template_kwargs.contains_key(name),
                &format!("{section}.template_kwargs.{name}"),
                format!("`{name}` is given by each row: it cannot be a setting"),
            );
        }
        // Without a model in the folder, the problem is the folder.
        let is_known = |dir: &PathBuf| self.tokenizer.is_some() || dir.join("config.json").is_file();
        if let Some(dir) = self.tokenizer_dir().filter(is_known) {
            problems.require(
                dir.join("tokenizer.json").is_file(),
                &format!("{section}.tokenizer"),
                no_file(&dir, "tokenizer.json"),
            );
        }
    }

    /// Returns how the weights are quantised while they are read, if they are.
    pub fn quantized(&self) -> Option<Quantize> {
        self.quantize.map(|Quantization::Nf4| Quantize::Nf4 { double_quant: self.double_quant.unwrap_or(true) })
    }

    /// Notes a model whose parameters cannot be trained: quantised matrices have no gradient, and dequantised ones would be another model.
    /// An adapter leaves them as they are.
    pub(crate) fn validate_trained(&self, section: &str, has_adapter: bool, problems: &mut Problems<'_>) {
        if has_adapter {
            return;
        }
        problems.require(
            self.quantize.is_none(),
            &format!("{section}.quantize"),
            "a quantised model is trained by an adapter: add a section `[adapter]`, as with --set adapter.rank=16, or leave `quantize` out",
        );
        let config = self.path.as_ref().and_then(|path| ModelConfig::from_dir(path).ok());
        problems.require(
            config.is_none_or(|config| config.quantization.is_none()),
            &format!("{section}.path"),
            "this checkpoint is quantised, and all of its parameters would be trained: name the full-precision checkpoint that \
             it was made from",
        );
    }

    /// Returns the folder of tokenizer.json.
    pub(crate) fn tokenizer_dir(&self) -> Option<PathBuf> {
        let own = || self.path.as_deref().map(|path| model_folder::holding(path, "tokenizer.json"));
        self.tokenizer.clone().or_else(own)
    }
}

/// Says that a folder lacks a file, or holds something else under its name.
fn no_file(folder: &Path, name: &str) -> String {
    let path = folder.join(name);
    match path.metadata() {
        Ok(found) => format!("`{}` is {}, not a file", path.display(), setpoint_files::kind(found.file_type())),
        Err(_) => format!("`{}` holds no {name}", folder.display()),
    }
}

/// Says why a folder does not hold a model of the kind that is wanted, in one sentence with the remedy.
pub(crate) fn folder_problem(path: &Path, wanted: Wanted) -> Option<String> {
    let shown = path.display();
    let is_adapter = model_folder::is_adapter(path);
    if is_adapter || path.join("config.json").is_file() {
        let config = match ModelFolder::open(path) {
            Ok(folder) => folder.config(),
            Err(failure) => return Some(failure.sentence()),
        };
        // A file that cannot be read is reported where it is read.
        let config = config.ok()?;
        return match (wanted, config.architecture == Architecture::SequenceClassification) {
            (Wanted::LanguageModel | Wanted::LanguageModelOrShape, true) => {
                Some(format!("`{shown}` holds a reward model (a sequence classifier), not a causal language model"))
            }
            (Wanted::RewardModel, false) => Some(format!(
                "`{shown}` holds a causal language model, not a reward model (`architectures` in its config.json ends in \
                 ForSequenceClassification): `setpoint reward` trains one"
            )),
            _ => None,
        };
    }
    let inner = path.join("model");
    if inner.join("config.json").is_file() || model_folder::is_adapter(&inner) {
        return Some(format!("`{shown}` is the folder of a run; its model is `{}`", inner.display()));
    }
    if path.exists() {
        let found = no_file(path, "config.json");
        return Some(match gguf_in(path) {
            Some(file) => format!("{found}, only {file}, a file for llama.cpp: name the model that it was made from"),
            None => format!("{found}: expected a Hugging Face model folder"),
        });
    }
    let remedy = hub::why_not(path).unwrap_or_default();
    Some(format!(
        "`{shown}` does not exist: expected a Hugging Face model folder, with config.json and the weights, or the id of a model on the \
         hub (owner/name){remedy}"
    ))
}

/// Returns the name of a GGUF file in a folder, or of the file itself.
fn gguf_in(path: &Path) -> Option<String> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files = entries.chain([path.to_owned()]);
    let found = files.find(|file| file.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("gguf")))?;
    Some(format!("`{}`", found.file_name()?.to_string_lossy()))
}

/// Describes how a model is named on the command line: only those of `[model]` and `[reference.model]` have a flag.
fn how_to_name(section: &str) -> String {
    match section {
        "model" => "or give --model DIR".to_owned(),
        "reference.model" => "or give --reference DIR".to_owned(),
        other => format!("or give --set {other}.path=DIR"),
    }
}

/// The dtype of the parameters in memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// f32 on CPUs and wgpu; on CUDA what the checkpoint holds.
    #[default]
    Auto,
    /// 32-bit float.
    F32,
    /// bfloat16.
    Bf16,
    /// IEEE half.
    F16,
}

/// A way to hold weights in fewer bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Quantization {
    /// The 4-bit codes of bitsandbytes' NF4 (Dettmers et al., <https://arxiv.org/abs/2305.14314>).
    Nf4,
}

/// Notes what is wrong with a `[data]` section of a job that looks at all responses.
pub(crate) fn validate_data(data: &DatasetConfig, section: &str, problems: &mut Problems<'_>) {
    validate_no_weights(data, section, problems);
    validate_training_data(data, section, problems);
}

/// Notes what is wrong with the `[data]` section of a training that looks at all responses: its data sets may have weights.
pub(crate) fn validate_training_data(data: &DatasetConfig, section: &str, problems: &mut Problems<'_>) {
    let own = data.sources.iter().enumerate().map(|(i, source)| (format!("sources[{i}].responses"), source.responses));
    for (name, responses) in [("responses".to_owned(), data.responses)].into_iter().chain(own) {
        let key = format!("{section}.{name}");
        let message = format!("`{key}` is a setting of `setpoint sft` alone; this job looks at all responses of a row");
        problems.require(responses.is_none(), &key, message);
    }
    validate_rows(data, section, problems);
}

/// Notes weights of data sets whose rows are each read once.
fn validate_no_weights(data: &DatasetConfig, section: &str, problems: &mut Problems<'_>) {
    for (i, source) in data.sources.iter().enumerate().filter(|(_, source)| source.weight.is_some()) {
        let message = format!(
            "data set {} of `{section}` (`{}`) has a `weight`, which says how often a training sees its rows; here each row is read \
             once: leave the weights out",
            i + 1,
            source.path
        );
        problems.add(&format!("{section}.sources[{i}].weight"), message);
    }
}

/// Notes what is wrong with a section of rows that `setpoint sft` reads once, such as `[eval_data]`.
pub(crate) fn validate_sft_data(data: &DatasetConfig, section: &str, problems: &mut Problems<'_>) {
    validate_no_weights(data, section, problems);
    validate_sft_training_data(data, section, problems);
}

/// Notes what is wrong with the `[data]` section of `setpoint sft`, which selects responses: its data sets may have weights.
pub fn validate_sft_training_data(data: &DatasetConfig, section: &str, problems: &mut Problems<'_>) {
    for responses in data.sources.iter().map(|source| source.responses).chain([data.responses]) {
        if let Some(Responses::Above(least)) = responses {
            problems.require(least.is_finite(), &format!("{section}.responses"), "`above` must be a finite reward");
        }
    }
    validate_rows(data, section, problems);
}

fn validate_rows(data: &DatasetConfig, section: &str, problems: &mut Problems<'_>) {
    for (key, message) in data.source_problems(section) {
        problems.add(&format!("{section}.{key}"), message);
    }
    problems.require(
        !data.path.is_empty() || !data.sources.is_empty() || problems.is_unread(&format!("{section}.sources")),
        &format!("{section}.path"),
        format!(
            "no data: set `{section}.path` to a .jsonl, .json, .csv or .parquet file, a folder, or a hub dataset id"
        ),
    );
    problems.require(data.max_rows != Some(0), &format!("{section}.max_rows"), "must be at least 1");
}

/// Notes a best checkpoint that no evaluation can tell.
pub(crate) fn validate_best(train: &TrainConfig, eval_data: Option<&DatasetConfig>, problems: &mut Problems<'_>) {
    problems.require(
        train.best.is_none() || eval_data.is_some(),
        "train.best",
        "the best checkpoint is found by evaluations: set `eval_data.path` to the rows to evaluate on",
    );
}

/// Warns of evaluations that are asked for without rows to evaluate on.
pub(crate) fn warn_of_no_eval_data(train: &TrainConfig, eval_data: Option<&DatasetConfig>) {
    let asked = [("eval_steps", train.eval_steps.is_some()), ("eval_on_start", train.eval_on_start)];
    if let (None, Some((name, _))) = (eval_data, asked.iter().find(|(_, asked)| *asked)) {
        log::warn!("train.{name} has no effect: no rows to evaluate on are given (eval_data.path)");
    }
}

/// Notes what is wrong with the `[train]` section.
pub(crate) fn validate_train(train: &TrainConfig, problems: &mut Problems<'_>) {
    for problem in train.problems() {
        // The engine's messages begin with the setting they are about.
        let key = match problem.split('`').nth(1) {
            Some(name @ ("betas" | "eps" | "weight_decay")) => format!("train.optimizer.{name}"),
            Some(name @ ("patience" | "min_delta")) => format!("train.best.{name}"),
            Some(name) => format!("train.{name}"),
            None => "train.schedule.warmup".to_owned(),
        };
        problems.add(&key, problem);
    }
}

/// Notes settings of `[train]` about files that do not go with the job, and a mirror that cannot be written.
pub(crate) fn validate_saving(train: &TrainConfig, has_adapter: bool, problems: &mut Problems<'_>) {
    problems.require(
        !has_adapter || train.save_dtype == SaveDtype::Auto,
        "train.save_dtype",
        "an adapter is saved in the format in which it was trained: leave `save_dtype` out, and choose the format where the adapter is \
         merged (setpoint merge --dtype)",
    );
    validate_target(train.mirror.as_ref(), Target::Folder, "train.mirror", problems);
}

/// Notes a mirror for a job of many runs.
pub(crate) fn validate_no_mirror(train: &TrainConfig, problems: &mut Problems<'_>) {
    problems.require(
        train.mirror.is_none(),
        "train.mirror",
        "a mirror is the copy of one run, and this job has many: leave `mirror` out",
    );
}

/// Notes what is wrong with the `[encode]` section of a job that goes by whole responses.
pub(crate) fn validate_encode(encode: &EncodeOptions, problems: &mut Problems<'_>) {
    problems.require(
        encode.learns_thoughts(),
        "encode.train_on_thoughts",
        "`encode.train_on_thoughts` is a setting of `setpoint sft` alone; this job goes by whole responses, thoughts included",
    );
    validate_sft_encode(encode, problems);
}

/// Notes what is wrong with the `[encode]` section of `setpoint sft`, which may learn answers without their thoughts.
pub(crate) fn validate_sft_encode(encode: &EncodeOptions, problems: &mut Problems<'_>) {
    for (key, most) in [("max_length", encode.max_length), ("max_prompt_length", encode.max_prompt_length)] {
        problems.require(most != Some(0), &format!("encode.{key}"), format!("`encode.{key}` must be at least 1"));
    }
}
