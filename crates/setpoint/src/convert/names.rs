//! The names of other tools' settings, next to ours. The converter and the table in `docs/COMING_FROM.md` follow from this list.

use super::Tool;
use super::draft::Draft;
use super::rules;

/// A setting, under its names here and in the other tools.
#[derive(Debug)]
pub struct Setting {
    /// Its name here, as the docs show it; several are separated by commas.
    pub ours: &'static str,
    /// trl's names, transformers' included.
    pub trl: &'static [&'static str],
    /// axolotl's names.
    pub axolotl: &'static [&'static str],
    /// LLaMA-Factory's names.
    pub llama_factory: &'static [&'static str],
    /// Carries the values over. It is called once, if the file sets one of the names.
    pub carry: Carry,
}

/// How a setting is carried over.
#[derive(Debug, Clone, Copy)]
pub enum Carry {
    /// A number, as it is.
    Number,
    /// A whole number, as it is.
    Count,
    /// True or false, as it is.
    Flag,
    /// By a function that is given the names of the tool at hand.
    By(fn(&mut Draft<'_>, &'static [&'static str])),
}

/// Settings that are not carried over, and why.
#[derive(Debug)]
pub struct Absent {
    /// Their names in any of the tools; one that ends in `*` covers all that begin like it.
    pub names: &'static [&'static str],
    /// The reason, with the remedy if there is one; empty if nothing is lost.
    pub reason: &'static str,
}

impl Setting {
    /// Returns its names in a tool.
    pub fn names(&self, tool: Tool) -> &'static [&'static str] {
        match tool {
            Tool::Trl => self.trl,
            Tool::Axolotl => self.axolotl,
            Tool::LlamaFactory => self.llama_factory,
        }
    }
}

/// A setting whose names differ between the tools.
const fn named(
    ours: &'static str,
    carry: Carry,
    trl: &'static [&'static str],
    axolotl: &'static [&'static str],
    llama_factory: &'static [&'static str],
) -> Setting {
    Setting { ours, trl, axolotl, llama_factory, carry }
}

/// A setting of transformers, which all tools name alike.
const fn common(ours: &'static str, carry: Carry, names: &'static [&'static str]) -> Setting {
    named(ours, carry, names, names, names)
}

use Carry::{By, Count, Flag, Number};

/// The settings that are carried over.
pub const SETTINGS: &[Setting] = &[
    named("model.path", By(rules::model), &["model_name_or_path"], &["base_model"], &["model_name_or_path"]),
    named("model.tokenizer", By(rules::tokenizer), &[], &["tokenizer_config"], &[]),
    named(
        "model.template",
        By(rules::template),
        &["chat_template_path"],
        &["chat_template", "chat_template_jinja"],
        &["template"],
    ),
    named("model.template_kwargs", By(rules::template_kwargs), &[], &["chat_template_kwargs"], &["enable_thinking"]),
    named(
        "model.dtype",
        By(rules::dtype),
        &["dtype", "bf16", "fp16"],
        &["bf16", "bfloat16", "fp16", "float16", "float32"],
        &["bf16", "fp16", "pure_bf16"],
    ),
    named("reference", By(rules::reference), &[], &[], &["ref_model"]),
    named(
        "data.path, data.split, data.subset",
        By(rules::data),
        &["dataset_name", "dataset_config", "dataset_train_split", "datasets"],
        &["datasets"],
        &["dataset", "dataset_dir"],
    ),
    named("data.max_rows", Count, &[], &[], &["max_samples"]),
    named("data.system", By(rules::system), &[], &["default_system_message"], &["default_system"]),
    named("eval_data", By(rules::eval_data), &["dataset_test_split"], &["test_datasets"], &["eval_dataset"]),
    named("encode.max_length", Count, &["max_length"], &["sequence_len"], &["cutoff_len"]),
    named("encode.long_rows", By(rules::long_rows), &["truncation_mode"], &["excess_length_strategy"], &[]),
    named("align.method", By(rules::method), &["loss_type"], &["rl", "dpo_loss_type"], &["pref_loss"]),
    named(
        "align.losses, align.nll_weight",
        By(rules::weights),
        &["loss_weights", "cpo_alpha"],
        &["dpo_loss_weights", "cpo_alpha"],
        &["pref_bco_weight", "pref_ftx"],
    ),
    named(
        "align.beta, align.lambda",
        By(rules::beta),
        &["beta"],
        &["rl_beta", "orpo_alpha", "trl.beta"],
        &["pref_beta"],
    ),
    named("align.gamma_beta_ratio", By(rules::simpo_gamma), &["simpo_gamma"], &["simpo_gamma"], &["simpo_gamma"]),
    named(
        "align.label_smoothing",
        By(rules::label_smoothing),
        &["label_smoothing"],
        &["dpo_label_smoothing"],
        &["dpo_label_smoothing"],
    ),
    named("align.tau", By(rules::tau), &["discopop_tau"], &[], &[]),
    named(
        "align.desirable_weight",
        By(rules::desirable),
        &["desirable_weight"],
        &["kto_desirable_weight"],
        &["kto_chosen_weight"],
    ),
    named(
        "align.undesirable_weight",
        By(rules::undesirable),
        &["undesirable_weight"],
        &["kto_undesirable_weight"],
        &["kto_rejected_weight"],
    ),
    named("center", Number, &["center_rewards_coefficient"], &["center_rewards_coefficient"], &[]),
    named("train.epochs", Number, &["num_train_epochs"], &["num_epochs"], &["num_train_epochs"]),
    common("train.max_steps", By(rules::max_steps), &["max_steps"]),
    named(
        "train.batch_size, train.micro_batch",
        By(rules::batch),
        &["per_device_train_batch_size", "gradient_accumulation_steps"],
        &["micro_batch_size", "gradient_accumulation_steps", "batch_size"],
        &["per_device_train_batch_size", "gradient_accumulation_steps"],
    ),
    common("train.drop_last", Flag, &["dataloader_drop_last"]),
    named(
        "train.recompute",
        By(rules::recompute),
        &["gradient_checkpointing"],
        &["gradient_checkpointing"],
        &["disable_gradient_checkpointing"],
    ),
    common("train.seed", Count, &["seed"]),
    common("train.learning_rate", Number, &["learning_rate"]),
    named(
        "train.schedule.kind",
        By(rules::schedule),
        &["lr_scheduler_type"],
        &["lr_scheduler"],
        &["lr_scheduler_type"],
    ),
    common("train.schedule.warmup", By(rules::warmup), &["warmup_steps", "warmup_ratio"]),
    common("train.optimizer.betas", By(rules::betas), &["adam_beta1", "adam_beta2"]),
    common("train.optimizer.eps", Number, &["adam_epsilon"]),
    common("train.optimizer.weight_decay", Number, &["weight_decay"]),
    named("train.optimizer", By(rules::optimizer), &["optim"], &["optimizer"], &["optim"]),
    common("train.max_grad_norm", Number, &["max_grad_norm"]),
    common("train.logging_steps", By(rules::logging_steps), &["logging_steps"]),
    common("train.eval_steps", By(rules::eval_steps), &["eval_strategy", "eval_steps"]),
    named("train.eval_on_start", Flag, &["eval_on_start"], &[], &["eval_on_start"]),
    common("train.save_steps", By(rules::save_steps), &["save_strategy", "save_steps"]),
    common("train.keep_last", Count, &["save_total_limit"]),
    named(
        "train.best",
        By(rules::best),
        &["load_best_model_at_end", "metric_for_best_model", "greater_is_better"],
        &["load_best_model_at_end", "metric_for_best_model", "greater_is_better", "early_stopping_patience"],
        &["load_best_model_at_end", "metric_for_best_model", "greater_is_better", "early_stopping_steps"],
    ),
    common("--run", By(rules::run_folder), &["output_dir"]),
];

/// The settings that are not.
pub const ABSENT: &[Absent] = &[
    Absent {
        names: &[
            "use_peft",
            "adapter",
            "finetuning_type",
            "lora_*",
            "peft_*",
            "use_rslora",
            "use_dora",
            "loraplus_*",
            "adapter_name_or_path",
            "additional_target",
            "pissa_*",
            "create_new_adapter",
        ],
        reason: "adapters are not supported yet: all weights are trained, which takes about a tenth of an adapter's learning rate",
    },
    Absent {
        names: &[
            "load_in_4bit",
            "load_in_8bit",
            "quantization_*",
            "double_quantization",
            "bnb_*",
            "gptq",
            "fp8*",
            "use_bnb_nested_quant",
        ],
        reason: "weights are not quantised",
    },
    Absent {
        names: &["val_set_size", "val_size"],
        reason: "rows are not split off for evaluation: put them into a file of their own and set eval_data.path",
    },
    Absent {
        names: &["evals_per_epoch", "saves_per_epoch"],
        reason: "evaluations and checkpoints are counted in steps: set train.eval_steps and train.save_steps",
    },
    Absent {
        names: &["deepspeed*", "fsdp*", "tensor_parallel_size", "context_parallel_size", "parallelism_config"],
        reason: "each device holds the whole model: name several with --device cuda:0-7",
    },
    Absent {
        names: &["f_divergence_type", "f_alpha_divergence_coef", "ld_alpha", "use_weighting", "dpo_use_weighting"],
        reason: "this variant of the loss does not exist here",
    },
    Absent { names: &["unfrozen_parameters", "freeze_*"], reason: "all weights are trained" },
    Absent { names: &["sync_ref_model", "ref_model_*"], reason: "the reference model stays as it is" },
    Absent {
        names: &["train_on_inputs", "train_on_prompt", "mask_history", "assistant_only_loss", "completion_only_loss"],
        reason: "SFT trains on every assistant turn and on no other; a message with \"weight\": 0 is left out",
    },
    Absent {
        names: &[
            "neftune_noise_alpha",
            "label_smoothing_factor",
            "lr_scheduler_kwargs",
            "cosine_min_lr_ratio",
            "cosine_constant_lr_ratio",
            "lr_groups",
            "embedding_lr*",
        ],
        reason: "has no counterpart",
    },
    Absent {
        names: &["reward_model", "reward_model_*"],
        reason: "rewards are computed before, by `setpoint annotate`",
    },
    Absent {
        names: &[
            "special_tokens",
            "added_tokens_overrides",
            "add_tokens",
            "add_special_tokens",
            "resize_*",
            "pad_token",
            "eos_token",
            "eot_tokens",
        ],
        reason: "the tokenizer is used as it is in the model's folder",
    },
    Absent {
        names: &["streaming", "dataset_streaming", "mix_strategy", "interleave_probs", "pretraining_dataset"],
        reason: "one data set is read completely",
    },
    Absent {
        names: &[
            "tokenizer_use_*",
            "tokenizer_legacy",
            "skip_prepare_dataset",
            "loss_watchdog_*",
            "use_kernels",
            "cut_cross_entropy",
            "device_map",
            "hf_use_auth_token",
            "report_to",
            "run_name",
            "project",
            "logging_*",
            "log_*",
            "wandb_*",
            "use_wandb",
            "mlflow_*",
            "use_mlflow",
            "comet_*",
            "use_comet",
            "swanlab_*",
            "use_swanlab",
            "use_tensorboard",
            "plot_loss",
            "push_to_hub",
            "hub_*",
            "dataloader_*",
            "dataset_num_proc",
            "dataset_processes",
            "preprocessing_*",
            "dataset_prepared_path",
            "tokenized_path",
            "overwrite_*",
            "attn_implementation",
            "flash_attention",
            "flash_attn",
            "xformers_attention",
            "sdp_attention",
            "eager_attention",
            "sample_packing*",
            "eval_sample_packing",
            "packing*",
            "eval_packing",
            "neat_packing",
            "padding_free",
            "dpo_padding_free",
            "pad_to_*",
            "group_by_length",
            "length_column_name",
            "use_liger_kernel",
            "liger_*",
            "dpo_use_liger_kernel",
            "enable_liger_kernel",
            "use_unsloth*",
            "plugins",
            "tf32",
            "torch_compile*",
            "torch_empty_cache_steps",
            "gc_steps",
            "ddp_*",
            "gradient_checkpointing_kwargs",
            "use_reentrant_gc",
            "precompute_ref_*",
            "disable_dropout",
            "trust_remote_code",
            "use_cache",
            "do_train",
            "do_eval",
            "strict",
            "model_type",
            "tokenizer_type",
            "is_*_derived_model",
            "remove_unused_columns",
            "save_safetensors",
            "save_only_model",
            "save_first_step",
            "per_device_eval_batch_size",
            "eval_batch_size",
            "activation_offloading",
            "resume_from_checkpoint",
            "auto_resume_from_checkpoints",
            "include_*",
            "skip_memory_metrics",
            "local_rank",
            "use_fast_tokenizer",
            "shuffle_merged_datasets",
            "stage",
            "dataset_text_field",
            "average_tokens_across_devices",
            "cache_dir",
            "upcast_*",
            "low_cpu_mem_usage",
        ],
        reason: "",
    },
];

/// Returns why a name of another tool is not carried over, if it is known.
pub fn absent(name: &str) -> Option<&'static str> {
    let covers = |pattern: &str| match pattern.split_once('*') {
        Some((start, end)) => name.len() >= start.len() + end.len() && name.starts_with(start) && name.ends_with(end),
        None => pattern == name,
    };
    ABSENT.iter().find(|absent| absent.names.iter().any(|pattern| covers(pattern))).map(|absent| absent.reason)
}
