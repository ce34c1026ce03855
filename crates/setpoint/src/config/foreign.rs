//! The names that other tools have for what is set here, so that who comes from them finds it.

use super::spelling::plain;

/// A tool whose configurations use the names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tool {
    /// trl, and the `TrainingArguments` of transformers that it extends.
    Trl,
    /// axolotl.
    Axolotl,
    /// LLaMA-Factory.
    LlamaFactory,
}

impl Tool {
    /// Returns its name as its users write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Trl => "trl",
            Self::Axolotl => "axolotl",
            Self::LlamaFactory => "LLaMA-Factory",
        }
    }
}

/// What a name of another tool corresponds to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Here {
    /// A setting of the same meaning, which takes the same values.
    Setting(&'static str),
    /// A setting whose values are written in another way: the setting, and an example of its value.
    Written(&'static str, &'static str),
    /// A flag of the command.
    Flag(&'static str),
    /// Nothing has to be set: a sentence that says why.
    Nothing(&'static str),
}

/// A name of other tools.
#[derive(Debug, Clone, Copy)]
pub struct Foreign {
    /// The name.
    pub name: &'static str,
    /// The tools that use it.
    pub tools: &'static [Tool],
    /// What it corresponds to.
    pub here: Here,
}

use Here::{Flag, Nothing, Setting, Written};
use Tool::{Axolotl, LlamaFactory, Trl};

const ALL: &[Tool] = &[Trl, Axolotl, LlamaFactory];
const TRL: &[Tool] = &[Trl, LlamaFactory];
const AXOLOTL: &[Tool] = &[Axolotl];
const FACTORY: &[Tool] = &[LlamaFactory];

/// Every name of another tool that is known. Names that mean the same setting here, such as `learning_rate`, need no entry.
pub const FOREIGN: &[Foreign] = &[
    entry("model_name_or_path", TRL, Setting("model.path")),
    entry("base_model", AXOLOTL, Setting("model.path")),
    entry("tokenizer_config", AXOLOTL, Setting("model.tokenizer")),
    entry("torch_dtype", AXOLOTL, Setting("model.dtype")),
    entry("bf16", ALL, Written("model.dtype", "\"bf16\"")),
    entry("fp16", ALL, Written("model.dtype", "\"f16\"")),
    entry("chat_template_path", &[Trl], Setting("model.template")),
    entry("chat_template", AXOLOTL, Setting("model.template")),
    entry("ref_model", FACTORY, Setting("reference")),
    entry("dataset_name", &[Trl], Setting("data.path")),
    entry("datasets", AXOLOTL, Setting("data.path")),
    entry("dataset", FACTORY, Setting("data.path")),
    entry("test_datasets", AXOLOTL, Setting("eval_data.path")),
    entry("eval_dataset", FACTORY, Setting("eval_data.path")),
    entry("max_samples", FACTORY, Setting("data.max_rows")),
    entry("max_seq_length", &[Trl], Setting("encode.max_length")),
    entry("sequence_len", AXOLOTL, Setting("encode.max_length")),
    entry("cutoff_len", FACTORY, Setting("encode.max_length")),
    entry("output_dir", ALL, Flag("--run DIR")),
    entry("resume_from_checkpoint", ALL, Flag("--resume")),
    entry("overwrite_output_dir", TRL, Nothing("a run folder is never overwritten: name another with --run")),
    entry("per_device_train_batch_size", TRL, Written("train.micro_batch", "{ examples = 8 }")),
    entry("micro_batch_size", AXOLOTL, Written("train.micro_batch", "{ examples = 8 }")),
    entry("per_device_eval_batch_size", TRL, Written("train.micro_batch", "{ examples = 8 }")),
    entry(
        "gradient_accumulation_steps",
        ALL,
        Written(
            "train.batch_size",
            "128, the examples of a whole step: examples on a device × devices × accumulation steps",
        ),
    ),
    entry("packing", ALL, Written("train.micro_batch", "{ tokens = 8192 }: rows are always packed")),
    entry("padding_free", &[Trl], Nothing("rows are packed without padding")),
    entry("sample_packing", AXOLOTL, Written("train.micro_batch", "{ tokens = 8192 }: rows are always packed")),
    entry("neat_packing", FACTORY, Written("train.micro_batch", "{ tokens = 8192 }: rows are always packed")),
    entry("gradient_checkpointing", ALL, Written("train.recompute", "\"block\"")),
    entry("num_train_epochs", TRL, Setting("train.epochs")),
    entry("num_epochs", AXOLOTL, Setting("train.epochs")),
    entry("lr", AXOLOTL, Setting("train.learning_rate")),
    entry("lr_scheduler_type", TRL, Setting("train.schedule.kind")),
    entry("lr_scheduler", AXOLOTL, Setting("train.schedule.kind")),
    entry("warmup_ratio", ALL, Written("train.schedule.warmup", "{ ratio = 0.1 }")),
    entry("warmup_steps", ALL, Written("train.schedule.warmup", "{ steps = 100 }")),
    entry("adam_beta1", ALL, Written("train.optimizer.betas", "[0.9, 0.999]")),
    entry("adam_beta2", ALL, Written("train.optimizer.betas", "[0.9, 0.999]")),
    entry("adam_epsilon", ALL, Setting("train.optimizer.eps")),
    entry("optim", TRL, Nothing("the optimizer is AdamW; its constants are the settings of train.optimizer")),
    entry("optimizer", AXOLOTL, Nothing("the optimizer is AdamW; its constants are the settings of train.optimizer")),
    entry("max_norm", &[Trl], Setting("train.max_grad_norm")),
    entry("data_seed", TRL, Setting("train.seed")),
    entry("save_total_limit", ALL, Setting("train.keep_last")),
    entry("load_best_model_at_end", ALL, Setting("train.best.restore")),
    entry("metric_for_best_model", ALL, Setting("train.best.metric")),
    entry("early_stopping_patience", AXOLOTL, Setting("train.best.patience")),
    entry("eval_strategy", ALL, Written("train.eval_steps", "100; without it the model is evaluated at the end")),
    entry("save_strategy", ALL, Written("train.save_steps", "100; without it a run is saved by time and at the end")),
    entry("evals_per_epoch", AXOLOTL, Written("train.eval_steps", "100, in steps")),
    entry("saves_per_epoch", AXOLOTL, Written("train.save_steps", "100, in steps")),
    entry("do_eval", TRL, Written("eval_data.path", "\"FILE\"")),
    entry("do_train", TRL, Nothing("the command says what is done: sft, reward or align")),
    entry("loss_type", &[Trl], Written("align.method", "\"dpo\"; `setpoint methods` lists the losses")),
    entry("pref_loss", FACTORY, Written("align.method", "\"dpo\"; `setpoint methods` lists the losses")),
    entry("rl", AXOLOTL, Written("align.method", "\"dpo\"; `setpoint methods` lists the losses")),
    entry("pref_beta", FACTORY, Setting("align.beta")),
    entry("rl_beta", AXOLOTL, Setting("align.beta")),
    entry("stage", FACTORY, Nothing("the command says what is done: sft, reward or align")),
    entry("finetuning_type", FACTORY, Nothing("all parameters are trained")),
    entry("report_to", TRL, Nothing("a run always writes metrics.jsonl and TensorBoard files to its folder")),
    entry("logging_dir", TRL, Nothing("a run writes its metrics to its own folder")),
    entry("deepspeed", ALL, Flag("--device cuda:0-7")),
    entry("fsdp", ALL, Flag("--device cuda:0-7")),
    entry("dataloader_num_workers", ALL, Nothing("rows are encoded once, before the training")),
    entry("max_tokens", TRL, Setting("generate.max_new_tokens")),
    entry("num_return_sequences", TRL, Setting("generate.samples")),
    entry("do_sample", TRL, Written("generate.temperature", "0 for the most likely tokens")),
];

const fn entry(name: &'static str, tools: &'static [Tool], here: Here) -> Foreign {
    Foreign { name, tools, here }
}

/// Returns what a name of another tool corresponds to.
pub fn foreign(name: &str) -> Option<&'static Foreign> {
    let name = plain(name);
    FOREIGN.iter().find(|foreign| foreign.name == name)
}

impl Foreign {
    /// Returns the setting that it corresponds to, if it does to one.
    pub fn setting(&self) -> Option<&'static str> {
        match self.here {
            Setting(key) | Written(key, _) => Some(key),
            Flag(_) | Nothing(_) => None,
        }
    }

    /// Returns a sentence that says what to write here instead.
    pub fn remedy(&self) -> String {
        let tools: Vec<&str> = self.tools.iter().map(|tool| tool.name()).collect();
        let whose = match tools[..] {
            [one] => format!("a name of {one}"),
            [one, other] => format!("a name of {one} and {other}"),
            _ => format!("a name of {}", tools.join(", ")),
        };
        match self.here {
            Setting(key) => format!("`{}` is {whose}; here it is `{key}`", self.name),
            Written(key, value) => format!("`{}` is {whose}; here it is `{key}`, as in {key} = {value}", self.name),
            Flag(flag) => format!("`{}` is {whose}; here it is the flag {flag}", self.name),
            Nothing(reason) => format!("`{}` is {whose} and not needed here: {reason}", self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::align::AlignConfig;
    use crate::config::has_setting;
    use crate::generate::GenerateConfig;

    #[test]
    fn every_name_leads_to_a_setting_that_exists() {
        let mut names = BTreeSet::new();
        for foreign in FOREIGN {
            assert!(names.insert(foreign.name), "`{}` is listed twice", foreign.name);
            if let Some(key) = foreign.setting() {
                assert!(has_setting::<AlignConfig>(key) || has_setting::<GenerateConfig>(key), "{foreign:?}");
                assert!(!key.ends_with(&format!(".{}", foreign.name)), "{foreign:?} has the same name here");
            }
        }
        assert_eq!(foreign("per-device-train-batch-size").and_then(Foreign::setting), Some("train.micro_batch"));
        assert!(foreign("learning_rate").is_none());
    }
}
