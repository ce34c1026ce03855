//! Writes PEFT's folders.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use super::adapter::{HasDecoder, is_adapter_parameter, map_of};
use super::config::LoraConfig;
use super::folder::{AdapterTask, CONFIG, PREFIX, WEIGHTS};
use super::targets::Targets;
use crate::Error;
use crate::checkpoint::{parameters, save_selected};

/// The statements of a folder about an adapter besides its settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdapterAbout {
    /// The folder or the hub id of the base.
    pub base: String,
    /// The commit of a base on the hub.
    pub revision: Option<String>,
    /// The head on top of it.
    pub task: AdapterTask,
}

/// Writes an adapter as PEFT does: `adapter_model.safetensors` and `adapter_config.json`. The base is not written.
///
/// # Errors
///
/// [`Error::Write`], [`Error::Device`].
pub fn save_adapter<M: HasDecoder>(
    model: &M,
    config: &LoraConfig,
    about: &AdapterAbout,
    dir: &Path,
) -> Result<(), Error> {
    let config = &config.of_model(model);
    let tied = model.is_tied();
    let names = |path: &str| -> Vec<String> {
        let mut names = Vec::new();
        if is_adapter_parameter(config, path) {
            names.push(format!("{PREFIX}{path}"));
            if tied && path == "model.embed_tokens.weight" {
                names.push(format!("{PREFIX}lm_head.weight"));
            }
        }
        names
    };
    let mut settings = json!({
        "alpha_pattern": config.alpha_pattern,
        "base_model_name_or_path": about.base,
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "lora_alpha": whole(config.alpha),
        "lora_dropout": config.dropout_rate(),
        "modules_to_save": if config.modules_to_save.is_empty() { Value::Null } else { json!(config.modules_to_save) },
        "peft_type": "LORA",
        "r": config.rank,
        "rank_pattern": config.rank_pattern,
        "target_modules": target_modules(model, config),
        "task_type": about.task.name(),
        "use_dora": config.dora,
        "use_rslora": config.rslora,
    });
    if let Some(revision) = &about.revision {
        settings["revision"] = json!(revision);
    }
    if !config.layers.is_empty() {
        settings["layers_to_transform"] = json!(config.layers);
    }
    if !config.exclude.is_empty() {
        settings["exclude_modules"] = json!(config.exclude);
    }
    if tied && config.is_saved("model.embed_tokens.weight") {
        settings["ensure_weight_tying"] = json!(true);
    }
    save_selected(model, dir, WEIGHTS, &names, &[(CONFIG, settings)])
}

/// Returns the targets as every version of PEFT reads them: names rather than `all-linear`, which stands for whatever maps a model has.
fn target_modules<M: HasDecoder>(model: &M, config: &LoraConfig) -> Value {
    match &config.targets {
        Targets::Pattern(pattern) => json!(pattern),
        Targets::Names(names) => json!(names.iter().collect::<BTreeSet<_>>()),
        Targets::AllLinear => {
            let paths: Vec<String> = parameters(model).into_iter().map(|parameter| parameter.name).collect();
            let maps = paths.iter().filter_map(|path| map_of(path)?.rsplit('.').next());
            json!(maps.collect::<BTreeSet<_>>())
        }
    }
}

/// Returns a number without a fraction as an integer, as PEFT declares `lora_alpha`.
fn whole(number: f64) -> Value {
    if number.fract() == 0.0 && number.abs() < 1e9 { json!(number as i64) } else { json!(number) }
}
