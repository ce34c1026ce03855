//! Sections that several jobs share. A job's own settings stand in its recipe.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Problems;

/// `[model]`: which checkpoint, tokenizer and template.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSection {
    /// Hugging Face folder: `config.json`, safetensors, `tokenizer.json`.
    pub path: Option<PathBuf>,
    /// `config.json` of a model to start from random weights, instead of `path`.
    pub from_scratch: Option<PathBuf>,
    /// Folder with `tokenizer.json`, when it is not the model's own.
    pub tokenizer: Option<PathBuf>,
    /// Chat template: a built-in name, a `.jinja` file; the tokenizer's own by default.
    pub template: Option<String>,
    /// `auto`, `f32`, `bf16` or `f16`.
    #[serde(default)]
    pub dtype: Dtype,
}

impl ModelSection {
    /// Notes a missing or doubled source of weights.
    pub fn validate(&self, section: &str, scratch_allowed: bool, problems: &mut Problems<'_>) {
        match (&self.path, &self.from_scratch) {
            (None, None) => problems.add(
                &format!("{section}.path"),
                format!("no model: set `{section}.path` to a Hugging Face folder (or give --{section} DIR)"),
            ),
            (Some(_), Some(_)) => problems.add(
                &format!("{section}.from_scratch"),
                format!("`{section}.path` and `{section}.from_scratch` exclude each other"),
            ),
            (None, Some(_)) if !scratch_allowed => problems.add(
                &format!("{section}.from_scratch"),
                "this job needs a trained model: set `path` instead of `from_scratch`",
            ),
            (None, Some(_)) => problems.require(
                self.tokenizer.is_some(),
                &format!("{section}.tokenizer"),
                format!("`{section}.from_scratch` needs `{section}.tokenizer`: the folder that holds tokenizer.json"),
            ),
            (Some(path), None) => problems.require(
                path.join("config.json").is_file(),
                &format!("{section}.path"),
                format!("`{}` holds no config.json: expected a Hugging Face model folder", path.display()),
            ),
        }
        if let Some(path) = &self.from_scratch {
            problems.require(
                path.is_file(),
                &format!("{section}.from_scratch"),
                format!("`{}` is not a file: expected a config.json", path.display()),
            );
        }
        if let Some(dir) = self.tokenizer_dir() {
            problems.require(
                dir.join("tokenizer.json").is_file(),
                &format!("{section}.tokenizer"),
                format!("`{}` holds no tokenizer.json", dir.display()),
            );
        }
    }

    /// The folder of tokenizer.json.
    pub fn tokenizer_dir(&self) -> Option<&PathBuf> {
        self.tokenizer.as_ref().or(self.path.as_ref())
    }
}

/// The dtype of the parameters in memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
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

/// `[data]`: where the rows come from.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSection {
    /// A file (`.jsonl`, `.json`, `.parquet`), a folder, or a hub dataset id.
    pub path: Option<String>,
    /// The split of a folder or hub dataset.
    pub split: Option<String>,
    /// The format of the rows; detected from the columns by default.
    pub format: Option<String>,
    /// Only so many rows, from the first.
    pub max_rows: Option<usize>,
}

impl DataSection {
    /// Notes a missing path.
    pub fn validate(&self, section: &str, problems: &mut Problems<'_>) {
        problems.require(
            self.path.as_ref().is_some_and(|p| !p.is_empty()),
            &format!("{section}.path"),
            format!("no data: set `{section}.path` to a .jsonl, .json or .parquet file, a folder, or a hub dataset id"),
        );
        problems.require(self.max_rows != Some(0), &format!("{section}.max_rows"), "must be at least 1");
    }
}

/// `[encode]`: how rows become tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncodeSection {
    /// Longest row in tokens, prompt and response together.
    pub max_length: usize,
    /// Longest prompt in tokens.
    pub max_prompt_length: usize,
    /// What happens to a row that is too long: `drop`, `error` or `cut_prompt`.
    pub long_rows: LongRowsSetting,
    /// Where tokenising the joined text merges tokens across the prompt's end: `separate` or `error`.
    pub boundary: BoundarySetting,
    /// Where a response ends: at the `stop` token, or after what the `template` prints behind it (trl).
    pub response_end: ResponseEndSetting,
}

impl Default for EncodeSection {
    fn default() -> Self {
        Self {
            max_length: 2048,
            max_prompt_length: 1800,
            long_rows: LongRowsSetting::Drop,
            boundary: BoundarySetting::Separate,
            response_end: ResponseEndSetting::Stop,
        }
    }
}

impl EncodeSection {
    /// Notes lengths that leave no room.
    pub fn validate(&self, problems: &mut Problems<'_>) {
        problems.require(self.max_length >= 2, "encode.max_length", "must be at least 2 tokens");
        problems.require(
            self.max_prompt_length >= 1 && self.max_prompt_length < self.max_length,
            "encode.max_prompt_length",
            format!(
                "must be between 1 and encode.max_length - 1 = {}, found {}",
                self.max_length.saturating_sub(1),
                self.max_prompt_length
            ),
        );
    }
}

/// What happens to a row that is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LongRowsSetting {
    /// It is left out and counted.
    Drop,
    /// The job stops and names it.
    Error,
    /// Its prompt loses tokens from the left, behind t0; the response is never cut.
    CutPrompt,
}

/// What happens where tokens would merge across the prompt's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BoundarySetting {
    /// Prompt and response are tokenised apart, and counted.
    Separate,
    /// The job stops and names the row.
    Error,
}

/// Where a response ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResponseEndSetting {
    /// At the template's stop token.
    Stop,
    /// After everything the template prints for the turn.
    Template,
}

/// `[train]`: the optimizer, the schedule, and what happens on the way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainSection {
    /// Passes over the data; fractions are allowed. Ignored when `max_steps` is set.
    pub epochs: f64,
    /// Optimizer steps, instead of `epochs`.
    pub max_steps: Option<usize>,
    /// Examples per optimizer step (rows for SFT, pairs for a reward model, prompts for DRO).
    pub batch_size: usize,
    /// Tokens, padding included, in one forward and backward pass; a step is split into as many as it needs.
    pub tokens_per_micro_batch: usize,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// `constant`, `linear` or `cosine`, as in transformers.
    pub schedule: ScheduleSetting,
    /// Share of the steps over which the learning rate rises from 0.
    pub warmup_ratio: f64,
    /// Steps of warm-up, instead of `warmup_ratio`.
    pub warmup_steps: Option<usize>,
    /// AdamW's first decay rate.
    pub adam_beta1: f64,
    /// AdamW's second decay rate.
    pub adam_beta2: f64,
    /// AdamW's epsilon.
    pub adam_epsilon: f64,
    /// Decoupled weight decay, on matrices only.
    pub weight_decay: f64,
    /// Gradients are scaled down to this global norm; 0 turns clipping off.
    pub max_grad_norm: f64,
    /// Steps between lines of metrics.jsonl.
    pub log_every: usize,
    /// Steps between evaluations on `[eval_data]`; 0: only at the end.
    pub eval_every: usize,
    /// Steps between checkpoints; 0: only at the end.
    pub checkpoint_every: usize,
    /// Checkpoints kept besides the best one.
    pub keep_checkpoints: usize,
    /// Metric that picks the best checkpoint, such as `eval_loss`.
    pub best_metric: Option<String>,
    /// Whether a greater value of `best_metric` is better.
    pub greater_is_better: bool,
    /// Stop after so many evaluations without a better `best_metric`.
    pub patience: Option<usize>,
}

impl Default for TrainSection {
    fn default() -> Self {
        Self {
            epochs: 1.0,
            max_steps: None,
            batch_size: 128,
            tokens_per_micro_batch: 8192,
            learning_rate: 5e-7,
            schedule: ScheduleSetting::Cosine,
            warmup_ratio: 0.1,
            warmup_steps: None,
            adam_beta1: 0.9,
            adam_beta2: 0.999,
            adam_epsilon: 1e-8,
            weight_decay: 0.0,
            max_grad_norm: 1.0,
            log_every: 1,
            eval_every: 0,
            checkpoint_every: 0,
            keep_checkpoints: 1,
            best_metric: None,
            greater_is_better: false,
            patience: None,
        }
    }
}

impl TrainSection {
    /// Notes values out of range.
    pub fn validate(&self, problems: &mut Problems<'_>) {
        let positive = |v: f64| v.is_finite() && v > 0.0;
        let share = |v: f64| (0.0..1.0).contains(&v);
        problems.require(positive(self.epochs), "train.epochs", "must be greater than 0");
        problems.require(self.max_steps != Some(0), "train.max_steps", "must be at least 1");
        problems.require(self.batch_size >= 1, "train.batch_size", "must be at least 1");
        problems.require(self.tokens_per_micro_batch >= 2, "train.tokens_per_micro_batch", "must be at least 2");
        problems.require(positive(self.learning_rate), "train.learning_rate", "must be greater than 0");
        problems.require(share(self.warmup_ratio), "train.warmup_ratio", "must be at least 0 and less than 1");
        problems.require(share(self.adam_beta1), "train.adam_beta1", "must be at least 0 and less than 1");
        problems.require(share(self.adam_beta2), "train.adam_beta2", "must be at least 0 and less than 1");
        problems.require(positive(self.adam_epsilon), "train.adam_epsilon", "must be greater than 0");
        let not_negative = |v: f64| v.is_finite() && v >= 0.0;
        problems.require(not_negative(self.weight_decay), "train.weight_decay", "must not be negative");
        problems.require(not_negative(self.max_grad_norm), "train.max_grad_norm", "must not be negative (0: off)");
        problems.require(self.log_every >= 1, "train.log_every", "must be at least 1");
        problems.require(self.keep_checkpoints >= 1, "train.keep_checkpoints", "must be at least 1");
        problems.require(
            self.patience.is_none() || self.best_metric.is_some(),
            "train.patience",
            "early stopping needs `train.best_metric`, such as \"eval_loss\"",
        );
        problems.require(
            self.patience.is_none() || self.eval_every > 0,
            "train.patience",
            "early stopping needs `train.eval_every`, the steps between evaluations",
        );
    }
}

/// The shape of the learning rate over the steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleSetting {
    /// Constant after the warm-up.
    Constant,
    /// Falls in a line to 0.
    Linear,
    /// Falls along half a cosine to 0.
    Cosine,
}
