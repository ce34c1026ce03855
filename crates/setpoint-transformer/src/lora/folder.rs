//! PEFT's folders: `adapter_config.json` and `adapter_model.safetensors`, read strictly.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use burn::module::{Module, ModuleMapper, Param, ParamId};
use burn::tensor::{FloatDType, Tensor};
use serde_json::Value;

use super::adapter::{HasDecoder, attach_known, is_adapter_parameter, is_of_update};
use super::config::LoraConfig;
use super::targets::{Selection, Targets};
use crate::Error;
use crate::checkpoint::{Checkpoint, ParamPath, name_hash, parameters};
use crate::config::{Reader, object};

pub(super) const CONFIG: &str = "adapter_config.json";
pub(super) const WEIGHTS: &str = "adapter_model.safetensors";

/// The beginning of all names in the file.
pub(super) const PREFIX: &str = "base_model.model.";

/// Tables that PEFT stores with an adapter whose base had another vocabulary, although they are not trained.
const TABLES: [&str; 2] = ["model.embed_tokens.weight", "lm_head.weight"];

/// The head on top of the base that an adapter was made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdapterTask {
    /// `CAUSAL_LM`: a language model.
    CausalLm,
    /// `SEQ_CLS`: a sequence classifier, such as a reward model.
    SequenceClassification,
}

impl AdapterTask {
    /// Returns PEFT's name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::CausalLm => "CAUSAL_LM",
            Self::SequenceClassification => "SEQ_CLS",
        }
    }
}

/// A folder that holds an adapter, its settings read and checked.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterFolder {
    /// The folder.
    pub dir: PathBuf,
    /// Its settings; `path` and `plus_ratio`, which are not stored, have their defaults.
    pub config: LoraConfig,
    /// The folder or the hub id of the base (`base_model_name_or_path`).
    pub base: Option<String>,
    /// The branch, tag or commit of a base on the hub.
    pub revision: Option<String>,
    /// The kind of its base, if the file says so.
    pub task: Option<AdapterTask>,
    /// True if embeddings that it trains stay the head of a base that ties the two (`ensure_weight_tying`).
    pub ties: bool,
}

impl AdapterFolder {
    /// Returns whether a folder holds an adapter rather than a model.
    pub fn is_at(dir: &Path) -> bool {
        dir.join(CONFIG).is_file()
    }

    /// Reads `adapter_config.json`. A setting that changes what the adapter computes and that is not supported is an error.
    ///
    /// # Errors
    ///
    /// [`Error::Read`], [`Error::Json`], [`Error::MissingKey`], [`Error::UnsupportedValue`], [`Error::UnknownKey`].
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let path = dir.join(CONFIG);
        let text = setpoint_files::read_text(&path)?;
        let map = object(&path, &text)?;
        let file = Reader::new(&path, &map);
        check_keys(&file)?;
        let size = |key: &str, what: &str| file.optional_size(key)?.ok_or_else(|| file.missing(key, what));
        let config = LoraConfig {
            rank: size("r", "the rank of the adapter")?,
            alpha: file
                .optional_number("lora_alpha")?
                .ok_or_else(|| file.missing("lora_alpha", "the scale of the adapter"))?,
            rslora: file.optional_bool("use_rslora")?.unwrap_or(false),
            dora: file.optional_bool("use_dora")?.unwrap_or(false),
            // In training alone: it has no effect on what the adapter computes.
            dropout: file.optional_number("lora_dropout")?.filter(|&rate| rate != 0.0),
            targets: match selection(&file, "target_modules")? {
                Some(targets) => targets.into(),
                // PEFT's own for these families.
                None => Targets::Names(vec!["q_proj".to_owned(), "v_proj".to_owned()]),
            },
            exclude: selection(&file, "exclude_modules")?.unwrap_or_default(),
            layers: match file.value("layers_to_transform") {
                Some(Value::Number(_)) => file.optional_size("layers_to_transform")?.into_iter().collect(),
                _ => parsed(&file, "layers_to_transform", "a list of layers")?.unwrap_or_default(),
            },
            modules_to_save: parsed(&file, "modules_to_save", "a list of names")?.unwrap_or_default(),
            rank_pattern: parsed(&file, "rank_pattern", "an object of ranks")?.unwrap_or_default(),
            alpha_pattern: parsed(&file, "alpha_pattern", "an object of numbers")?.unwrap_or_default(),
            ..LoraConfig::default()
        };
        if let Some((key, reason)) = config.problems().into_iter().next() {
            let message = format!("`{}`: {reason}", name_in_file(key));
            return Err(Error::Inconsistent { path, message });
        }
        let task = match file.optional_text("task_type")? {
            None => None,
            Some("CAUSAL_LM") => Some(AdapterTask::CausalLm),
            Some("SEQ_CLS") => Some(AdapterTask::SequenceClassification),
            Some(_) => return Err(file.unsupported("task_type", "\"CAUSAL_LM\", \"SEQ_CLS\"")),
        };
        let base = file.optional_text("base_model_name_or_path")?.map(str::to_owned);
        let revision = file.optional_text("revision")?.filter(|text| !text.is_empty()).map(str::to_owned);
        let ties = file.optional_bool("ensure_weight_tying")?.unwrap_or(false);
        Ok(Self { dir: dir.to_owned(), config, base: base.filter(|base| !base.is_empty()), revision, task, ties })
    }

    /// Adds the adapter to its base, and freezes the rest of the model as [`attach`](super::attach) does.
    ///
    /// PEFT only warns of a tensor that is missing and drops one that it has no place for; here both are errors. Tables of a larger vocabulary,
    /// which PEFT stores with the adapter, replace those of the base.
    ///
    /// # Errors
    ///
    /// [`Error::Adapter`] if the settings select nothing in this model; [`Error::MissingTensor`], [`Error::UnexpectedTensor`],
    /// [`Error::WrongShape`], [`Error::UnsupportedDtype`] for a tensor; [`Error::Read`], [`Error::Header`].
    pub fn load<M: HasDecoder>(&self, model: M) -> Result<M, Error> {
        let config = self.config.of_model(&model);
        let tied = model.is_tied();
        let model = attach_known(model, &config)?;
        let weights = Checkpoint::open_file(&self.dir, WEIGHTS)?;
        let is_apart = !self.ties && self.config.is_saved(TABLES[0]);
        if let Some(message) = tied_problem(&weights, tied, is_apart)?.or_else(|| table_problem(&weights)) {
            return Err(Error::Adapter { message: format!("{}: {message}", self.dir.join(WEIGHTS).display()) });
        }
        let found = self.check(&model, &config, &weights, tied)?;
        let mut fill = Fill { path: ParamPath::default(), weights: &weights, found: &found, error: None };
        let model = model.map(&mut fill);
        fill.error.map_or(Ok(model), Err)
    }

    /// Returns the size of the vocabulary, if the file holds the table of embeddings.
    ///
    /// # Errors
    ///
    /// [`Error::Read`], [`Error::Header`].
    pub fn vocab_size(&self) -> Result<Option<usize>, Error> {
        let weights = Checkpoint::open_file(&self.dir, WEIGHTS)?;
        Ok(weights.shape(&format!("{PREFIX}{}", TABLES[0])).and_then(|shape| shape.first().copied()))
    }

    /// Checks every tensor and returns the paths of the parameters that the file holds.
    fn check<M: Module>(
        &self,
        model: &M,
        config: &LoraConfig,
        weights: &Checkpoint,
        tied: bool,
    ) -> Result<BTreeSet<String>, Error> {
        let path = self.dir.join(WEIGHTS);
        let (mut found, mut missing) = (BTreeSet::new(), Vec::new());
        for parameter in parameters(model) {
            let (name, needed) = (format!("{PREFIX}{}", parameter.name), is_adapter_parameter(config, &parameter.name));
            match weights.shape(&name) {
                None if needed => missing.push((name, parameter.shape)),
                Some(shape) if needed && shape == parameter.shape => {
                    found.insert(parameter.name);
                }
                Some(shape) if TABLES.contains(&parameter.name.as_str()) && is_extended(&parameter.shape, shape) => {
                    found.insert(parameter.name);
                }
                Some(shape) if needed => {
                    return Err(Error::WrongShape {
                        path,
                        tensor: name,
                        expected: parameter.shape,
                        found: shape.to_vec(),
                    });
                }
                _ => {}
            }
        }
        if let Some((tensor, expected)) = missing.first() {
            return Err(Error::MissingTensor {
                dir: self.dir.clone(),
                tensor: tensor.clone(),
                expected: expected.clone(),
                hint: String::new(),
                more: missing.len() - 1,
            });
        }
        let known = |name: &str| {
            let name = name.strip_prefix(PREFIX).unwrap_or_default();
            found.contains(name) || (tied && name == TABLES[1] && found.contains(TABLES[0]))
        };
        let mut unexpected = weights.names().filter(|name| !known(name));
        if let Some(tensor) = unexpected.next() {
            return Err(Error::UnexpectedTensor {
                path,
                tensor: tensor.to_owned(),
                found: weights.shape(tensor).unwrap_or_default().to_vec(),
                more: unexpected.count(),
            });
        }
        Ok(found)
    }
}

/// Says so if an adapter trained a head apart from embeddings that the base ties it to. `is_apart`: PEFT trained the embeddings without the
/// head.
fn tied_problem(weights: &Checkpoint, tied: bool, is_apart: bool) -> Result<Option<String>, Error> {
    let [table, head] = TABLES.map(|name| format!("{PREFIX}{name}"));
    if !tied {
        return Ok(None);
    }
    if weights.shape(&head).is_none() {
        let message = || {
            format!(
                "`{table}` was trained apart from the head that the base ties to it, and PEFT goes on with the head of the base; give it a \
                 base with tie_word_embeddings = false that holds the embeddings once more as `{}`, or train with PEFT's \
                 ensure_weight_tying",
                TABLES[1]
            )
        };
        return Ok((is_apart && weights.shape(&table).is_some()).then(message));
    }
    let is_apart = match weights.require_equal(&head, &table) {
        Ok(()) => weights.shape(&table).is_none(),
        Err(Error::TiedHeadDiffers { .. }) => true,
        Err(error) => return Err(error),
    };
    Ok(is_apart.then(|| {
        format!(
            "`{head}` is a head that was trained apart from the embeddings, and the base ties the two; give it a base with \
             tie_word_embeddings = false that holds the embeddings once more as `{}`, or train with PEFT's ensure_weight_tying",
            TABLES[1]
        )
    }))
}

/// Says so if a file holds a low-rank update of the embeddings or of the head.
fn table_problem(weights: &Checkpoint) -> Option<String> {
    let updated =
        |name: &str| ["embed_tokens", "lm_head"].into_iter().find(|table| name.contains(&format!("{table}.lora_")));
    let (tensor, table) = weights.names().find_map(|name| Some((name, updated(name)?)))?;
    Some(format!(
        "`{tensor}` belongs to a low-rank update of `{table}`, which is not computed; merge the adapter with PEFT, or train `{table}` \
         in full by modules_to_save"
    ))
}

/// Returns the name that a setting has in `adapter_config.json`.
fn name_in_file(setting: &str) -> &str {
    match setting {
        "rank" => "r",
        "alpha" => "lora_alpha",
        "dropout" => "lora_dropout",
        "targets" => "target_modules",
        "exclude" => "exclude_modules",
        "layers" => "layers_to_transform",
        same => same,
    }
}

/// Returns whether a table in the file has the width of the model's and at least as many rows.
fn is_extended(own: &[usize], stored: &[usize]) -> bool {
    matches!((own, stored), (&[rows, width], &[more, same]) if same == width && more >= rows)
}

/// Returns whether no number of a tensor is NaN or infinite.
fn is_finite<const D: usize>(tensor: &Tensor<D>) -> bool {
    tensor.clone().cast(FloatDType::F32).is_finite().all().into_data().iter::<bool>().all(|all| all)
}

struct Fill<'a> {
    path: ParamPath,
    weights: &'a Checkpoint,
    found: &'a BTreeSet<String>,
    error: Option<Error>,
}

impl ModuleMapper for Fill<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.enter(name);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let path = self.path.name();
        if self.error.is_some() || !self.found.contains(&path) {
            return param;
        }
        // Updates are f32 whatever the model is; everything else has the model's dtype.
        let dtype = if is_of_update(&path) { FloatDType::F32 } else { param.val().dtype().into() };
        let name = format!("{PREFIX}{path}");
        let loaded = self.weights.tensor(&name, dtype, &param.lazy_device());
        // The file holds an adapter alone, so that this is quick. One bad number makes everything that the model computes NaN.
        let checked = loaded.and_then(|tensor: Tensor<D>| {
            if is_finite(&tensor) {
                return Ok(tensor);
            }
            Err(Error::NonFiniteTensor { path: self.weights.path_of(&name), tensor: name })
        });
        match checked {
            Ok(tensor) => param.transform_for_load(tensor, ParamId::from(name_hash(&path))),
            Err(error) => {
                self.error = Some(error);
                param
            }
        }
    }
}

/// Settings that are read, or that have no effect on what a trained adapter computes.
const READ_OR_HARMLESS: &[&str] = &[
    "alpha_pattern",
    "auto_mapping",
    "base_model_name_or_path",
    "ensure_weight_tying",
    "eva_config",
    "exclude_modules",
    "inference_mode",
    "layers_to_transform",
    "lora_alpha",
    "lora_dropout",
    "megatron_core",
    "modules_to_save",
    "peft_version",
    "qalora_group_size",
    "r",
    "rank_pattern",
    "revision",
    "runtime_config",
    "target_modules",
    "task_type",
    "use_dora",
    "use_rslora",
];

/// Settings that may have their neutral value only: anything else is another function or another base.
const NEUTRAL: &[(&str, &str)] = &[
    ("bias", "\"none\""),
    ("fan_in_fan_out", "false"),
    ("layers_pattern", "null"),
    ("lora_bias", "false"),
    ("peft_type", "\"LORA\""),
    ("use_qalora", "false"),
];

/// Ways to begin that leave the base as it is.
const INITS: &[&str] = &["eva", "gaussian", "orthogonal"];

/// All values of `init_lora_weights` that are read.
const INITS_READ: &str = "true, false, \"gaussian\", \"eva\", \"orthogonal\"";

/// Refuses every setting that is neither known nor neutral.
fn check_keys(file: &Reader<'_>) -> Result<(), Error> {
    if file.value("peft_type").is_none() {
        return Err(file.missing("peft_type", "\"LORA\""));
    }
    for key in file.keys().filter(|key| !READ_OR_HARMLESS.contains(key)) {
        let Some(value) = file.value(key) else { continue };
        let neutral = NEUTRAL.iter().find(|(name, _)| *name == key).map(|(_, value)| *value);
        let fits = match (key, neutral, value) {
            (_, _, Value::Null) => true,
            ("init_lora_weights", _, Value::Bool(_)) => true,
            ("init_lora_weights", _, Value::String(init)) => INITS.contains(&init.as_str()),
            (_, Some(neutral), value) => is_written(value, neutral) || is_empty(value),
            (_, None, value) => is_empty(value),
        };
        match (fits, key) {
            (true, _) => {}
            (false, "init_lora_weights") => return Err(file.unsupported(key, INITS_READ)),
            (false, _) => return Err(file.unsupported(key, neutral.unwrap_or("null"))),
        }
    }
    Ok(())
}

/// Returns whether a value is written like this.
fn is_written(value: &Value, text: &str) -> bool {
    let written = value.to_string();
    written == text
}

/// Returns whether a value says nothing.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

/// Returns names or a regular expression.
fn selection(file: &Reader<'_>, key: &str) -> Result<Option<Selection>, Error> {
    parsed(file, key, "a list of names or a regular expression")
}

/// Returns a value of any type, if there is one.
fn parsed<T: serde::de::DeserializeOwned>(file: &Reader<'_>, key: &str, expected: &str) -> Result<Option<T>, Error> {
    match file.value(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => serde_json::from_value(value.clone()).map(Some).map_err(|_| file.unsupported(key, expected)),
    }
}
