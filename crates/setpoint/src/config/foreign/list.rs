//! The list of other tools' names. A new name takes one line. Names that are converted together are next to each other, and each such
//! group comes after those that its rule builds on.

use super::Carry::{self, Bool, By, Count, Dropped, Lost, Number};
use super::Here::{self, Flag, Missing, Nothing, Setting, Written};
use super::Tool::{Axolotl, LlamaFactory, Trl};
use super::{Foreign, Rule, Tool};

const ALL: &[Tool] = &[Trl, Axolotl, LlamaFactory];
const TRL: &[Tool] = &[Trl];
const AXOLOTL: &[Tool] = &[Axolotl];
const FACTORY: &[Tool] = &[LlamaFactory];
const NOT_AXOLOTL: &[Tool] = &[Trl, LlamaFactory];
const NOT_FACTORY: &[Tool] = &[Trl, Axolotl];
const NOT_TRL: &[Tool] = &[Axolotl, LlamaFactory];

const MIXED: Here =
    Written("data.stopping_strategy", "\"first_exhausted\"; data sets without weights are read one after the other");
const WEIGHTS: Here =
    Written("data.sources", "[{ path = \"a.jsonl\", weight = 0.7 }, { path = \"b.jsonl\", weight = 0.3 }]");
const METHOD: Here = Written("align.method", "\"dpo\"; `setpoint methods` lists the losses");
const LOSSES: Here =
    Written("align.losses", "[{ method = \"dpo\", weight = 0.8 }, { method = \"hinge\", weight = 0.2 }]");
const GAMMA: Here = Written("align.gamma_beta_ratio", "0.5, which is simpo_gamma divided by the β");
const ADAMW: Here = Written("train.optimizer.state", "\"8bit\" or \"f32\": the optimizer is AdamW");
const EXAMPLES: Here = Written("train.micro_batch", "{ examples = 8 }");
const WHOLE_BATCH: Here = Written(
    "train.batch_size",
    "128, the examples of a whole step: examples on a device × devices × accumulation steps",
);
const PACKED: Here = Written("train.micro_batch", "{ tokens = 8192 }: rows are always packed");
const THINKING: Here = Written("model.template_kwargs", "{ enable_thinking = true }");
const EVALUATED: Here = Written("train.eval_steps", "100; without it the model is evaluated at the end");
const SAVED: Here = Written("train.save_steps", "100; without it a run is saved by time and at the end");
const OWN_FOLDER: Here = Nothing("a run folder is never overwritten: name another with --run");
const TRACKED: Here =
    Written("tracker.kind", "\"wandb\"; a run always writes metrics.jsonl and TensorBoard files to its folder");
const DATA_SETS: Here = Written("data.path", "\"FILE\"; each of several data sets is a section [[data]]");
const TEXTS: Here = Written("data.columns", "{ text = \"content\" }; a column `text` needs no setting");
const COMMAND: Here = Nothing("the command says what is done: sft, reward or align");

const ADAPTERS: &str = "adapters do not have this: the section [adapter] has what there is";
const ADAPTER: Here = Written("adapter.rank", "16: the section [adapter] turns it on");
const NF4: Here = Written("model.quantize", "\"nf4\", with a section [adapter]");
const QUANTISED: &str = "weights are quantised in one format: set model.quantize = \"nf4\", with a section [adapter]";
const SPLIT: &str = "rows are not split off for evaluation: put them into a file of their own and set eval_data.path";
const IN_STEPS: &str = "evaluations and checkpoints are counted in steps: set train.eval_steps and train.save_steps";
const SHARD: Here = Written("train.optimizer.shard", "true, the default with several devices: --device cuda:0-7");
const SHARDED: &str = "the optimizer's state is divided among the devices (train.optimizer.shard), and each holds all weights: name several with --device cuda:0-7";
const WHOLE: &str = "each device holds all weights: name several with --device cuda:0-7";
const VARIANT: &str = "this variant of the loss does not exist";
const FROZEN: &str = "all weights are trained";
const MOVING: &str = "the reference model stays as it is";
const TURNS: &str = "SFT trains on every assistant turn and on no other; a message with \"weight\": 0 is left out";
const NONE: &str = "it has no counterpart";
const ANNOTATE: &str = "rewards are computed before, by `setpoint annotate`";
const TOKENS: &str = "the tokenizer is used as it is in the model's folder";
const COMPLETE: &str = "data sets are read completely";
const SAMPLING: &str = "it concerns sampling alone: the settings of `setpoint generate` have it";

/// Every name of another tool that is known.
pub const FOREIGN: &[Foreign] = &[
    // Carried over.
    name("model_name_or_path", NOT_AXOLOTL, Setting("model.path"), By(Rule::Model)),
    name("base_model", AXOLOTL, Setting("model.path"), By(Rule::Model)),
    name("tokenizer_config", AXOLOTL, Setting("model.tokenizer"), By(Rule::Tokenizer)),
    name("chat_template_path", TRL, Setting("model.template"), By(Rule::Template)),
    name("chat_template", AXOLOTL, Setting("model.template"), By(Rule::Template)),
    name("chat_template_jinja", AXOLOTL, Written("model.template", "\"FILE.jinja\""), By(Rule::Template)),
    name("template", FACTORY, Setting("model.template"), By(Rule::Template)),
    name("chat_template_kwargs", AXOLOTL, Setting("model.template_kwargs"), By(Rule::TemplateKwargs)),
    name("enable_thinking", FACTORY, THINKING, By(Rule::TemplateKwargs)),
    name("dtype", TRL, Setting("model.dtype"), By(Rule::Dtype)),
    name("torch_dtype", AXOLOTL, Setting("model.dtype"), By(Rule::Dtype)),
    name("bf16", ALL, Written("model.dtype", "\"bf16\""), By(Rule::Dtype)),
    name("bfloat16", AXOLOTL, Written("model.dtype", "\"bf16\""), By(Rule::Dtype)),
    name("fp16", ALL, Written("model.dtype", "\"f16\""), By(Rule::Dtype)),
    name("float16", AXOLOTL, Written("model.dtype", "\"f16\""), By(Rule::Dtype)),
    name("float32", AXOLOTL, Written("model.dtype", "\"f32\""), By(Rule::Dtype)),
    name("pure_bf16", FACTORY, Written("model.dtype", "\"bf16\""), By(Rule::Dtype)),
    name("ref_model", FACTORY, Setting("reference"), By(Rule::Reference)),
    name("dataset_name", TRL, Setting("data.path"), By(Rule::Data)),
    name("dataset_config", TRL, Setting("data.subset"), By(Rule::Data)),
    name("dataset_train_split", TRL, Setting("data.split"), By(Rule::Data)),
    name("dataset_text_field", TRL, TEXTS, By(Rule::Data)),
    name("datasets", NOT_FACTORY, DATA_SETS, By(Rule::Data)),
    name("dataset", FACTORY, Setting("data.path"), By(Rule::Data)),
    name("dataset_dir", FACTORY, Written("data.path", "\"FILE\""), By(Rule::Data)),
    name("mix_strategy", FACTORY, MIXED, By(Rule::Data)),
    name("interleave_probs", FACTORY, WEIGHTS, By(Rule::Data)),
    name("max_samples", FACTORY, Setting("data.max_rows"), Count),
    name("default_system_message", AXOLOTL, Setting("data.system"), By(Rule::System)),
    name("default_system", FACTORY, Setting("data.system"), By(Rule::System)),
    name("test_datasets", AXOLOTL, Setting("eval_data.path"), By(Rule::EvalData)),
    name("eval_dataset", FACTORY, Setting("eval_data.path"), By(Rule::EvalData)),
    name("dataset_test_split", TRL, Setting("eval_data.split"), By(Rule::EvalData)),
    name("max_length", TRL, Setting("encode.max_length"), Count),
    name("max_seq_length", TRL, Setting("encode.max_length"), Count),
    name("sequence_len", AXOLOTL, Setting("encode.max_length"), Count),
    name("cutoff_len", FACTORY, Setting("encode.max_length"), Count),
    name("truncation_mode", TRL, Written("encode.long_rows", "\"drop\""), By(Rule::LongRows)),
    name("excess_length_strategy", AXOLOTL, Written("encode.long_rows", "\"drop\""), By(Rule::LongRows)),
    name("loss_type", TRL, METHOD, By(Rule::Method)),
    name("rl", AXOLOTL, METHOD, By(Rule::Method)),
    name("dpo_loss_type", AXOLOTL, METHOD, By(Rule::Method)),
    name("pref_loss", FACTORY, METHOD, By(Rule::Method)),
    name("loss_weights", TRL, LOSSES, By(Rule::Losses)),
    name("dpo_loss_weights", AXOLOTL, LOSSES, By(Rule::Losses)),
    name("pref_bco_weight", FACTORY, LOSSES, By(Rule::Losses)),
    name("cpo_alpha", NOT_FACTORY, Setting("align.nll_weight"), By(Rule::Losses)),
    name("pref_ftx", FACTORY, Setting("align.nll_weight"), By(Rule::Losses)),
    name("beta", TRL, Setting("align.beta"), By(Rule::Beta)),
    name("rl_beta", AXOLOTL, Setting("align.beta"), By(Rule::Beta)),
    name("orpo_alpha", AXOLOTL, Setting("align.lambda"), By(Rule::Beta)),
    name("trl.beta", AXOLOTL, Setting("align.beta"), By(Rule::Beta)),
    name("pref_beta", FACTORY, Setting("align.beta"), By(Rule::Beta)),
    name("simpo_gamma", ALL, GAMMA, By(Rule::GammaBetaRatio)),
    name("label_smoothing", TRL, Setting("align.label_smoothing"), By(Rule::LabelSmoothing)),
    name("dpo_label_smoothing", NOT_TRL, Setting("align.label_smoothing"), By(Rule::LabelSmoothing)),
    name("discopop_tau", TRL, Setting("align.tau"), By(Rule::Tau)),
    name("desirable_weight", TRL, Setting("align.desirable_weight"), By(Rule::DesirableWeight)),
    name("kto_desirable_weight", AXOLOTL, Setting("align.desirable_weight"), By(Rule::DesirableWeight)),
    name("kto_chosen_weight", FACTORY, Setting("align.desirable_weight"), By(Rule::DesirableWeight)),
    name("undesirable_weight", TRL, Setting("align.undesirable_weight"), By(Rule::UndesirableWeight)),
    name("kto_undesirable_weight", AXOLOTL, Setting("align.undesirable_weight"), By(Rule::UndesirableWeight)),
    name("kto_rejected_weight", FACTORY, Setting("align.undesirable_weight"), By(Rule::UndesirableWeight)),
    name("center_rewards_coefficient", NOT_FACTORY, Setting("center"), Number),
    name("num_train_epochs", NOT_AXOLOTL, Setting("train.epochs"), Number),
    name("num_epochs", AXOLOTL, Setting("train.epochs"), Number),
    name("max_steps", ALL, Setting("train.max_steps"), By(Rule::MaxSteps)),
    name("per_device_train_batch_size", NOT_AXOLOTL, EXAMPLES, By(Rule::BatchSize)),
    name("micro_batch_size", AXOLOTL, EXAMPLES, By(Rule::BatchSize)),
    name("gradient_accumulation_steps", ALL, WHOLE_BATCH, By(Rule::BatchSize)),
    name("batch_size", AXOLOTL, Setting("train.batch_size"), By(Rule::BatchSize)),
    name("dataloader_drop_last", ALL, Setting("train.drop_last"), Bool),
    name("gradient_checkpointing", ALL, Written("train.recompute", "\"block\""), By(Rule::Recompute)),
    name("disable_gradient_checkpointing", FACTORY, Written("train.recompute", "\"none\""), By(Rule::Recompute)),
    name("seed", ALL, Setting("train.seed"), Count),
    name("data_seed", NOT_AXOLOTL, Setting("train.seed"), Count),
    name("learning_rate", ALL, Setting("train.learning_rate"), Number),
    name("lr", AXOLOTL, Setting("train.learning_rate"), Number),
    name("lr_scheduler_type", NOT_AXOLOTL, Setting("train.schedule.kind"), By(Rule::Schedule)),
    name("lr_scheduler", AXOLOTL, Setting("train.schedule.kind"), By(Rule::Schedule)),
    name("warmup_steps", ALL, Written("train.schedule.warmup", "{ steps = 100 }"), By(Rule::Warmup)),
    name("warmup_ratio", ALL, Written("train.schedule.warmup", "{ ratio = 0.1 }"), By(Rule::Warmup)),
    name("adam_beta1", ALL, Written("train.optimizer.betas", "[0.9, 0.999]"), By(Rule::Betas)),
    name("adam_beta2", ALL, Written("train.optimizer.betas", "[0.9, 0.999]"), By(Rule::Betas)),
    name("adam_epsilon", ALL, Setting("train.optimizer.eps"), Number),
    name("weight_decay", ALL, Setting("train.optimizer.weight_decay"), Number),
    name("optim", NOT_AXOLOTL, ADAMW, By(Rule::Optimizer)),
    name("optimizer", AXOLOTL, ADAMW, By(Rule::Optimizer)),
    name("max_grad_norm", ALL, Setting("train.max_grad_norm"), Number),
    name("max_norm", TRL, Setting("train.max_grad_norm"), Number),
    name("logging_steps", ALL, Setting("train.logging_steps"), By(Rule::LoggingSteps)),
    name("eval_strategy", ALL, EVALUATED, By(Rule::EvalSteps)),
    name("eval_steps", ALL, Setting("train.eval_steps"), By(Rule::EvalSteps)),
    name("eval_on_start", NOT_AXOLOTL, Setting("train.eval_on_start"), Bool),
    name("save_strategy", ALL, SAVED, By(Rule::SaveSteps)),
    name("save_steps", ALL, Setting("train.save_steps"), By(Rule::SaveSteps)),
    name("save_total_limit", ALL, Setting("train.keep_last"), Count),
    name("save_only_model", ALL, Setting("train.save_only_model"), Bool),
    name("load_best_model_at_end", ALL, Setting("train.best.restore"), By(Rule::Best)),
    name("metric_for_best_model", ALL, Setting("train.best.metric"), By(Rule::Best)),
    name("greater_is_better", ALL, Setting("train.best.greater_is_better"), By(Rule::Best)),
    name("early_stopping_patience", AXOLOTL, Setting("train.best.patience"), By(Rule::Best)),
    name("early_stopping_steps", FACTORY, Setting("train.best.patience"), By(Rule::Best)),
    name("use_peft", TRL, ADAPTER, By(Rule::Adapter)),
    name("adapter", AXOLOTL, ADAPTER, By(Rule::Adapter)),
    name("finetuning_type", FACTORY, ADAPTER, By(Rule::Adapter)),
    name("lora_r", NOT_FACTORY, Setting("adapter.rank"), By(Rule::Adapter)),
    name("lora_rank", FACTORY, Setting("adapter.rank"), By(Rule::Adapter)),
    name("lora_alpha", ALL, Setting("adapter.alpha"), By(Rule::Adapter)),
    name("lora_dropout", ALL, Setting("adapter.dropout"), By(Rule::Adapter)),
    name("lora_target_modules", NOT_FACTORY, Setting("adapter.targets"), By(Rule::Adapter)),
    name("lora_target_linear", AXOLOTL, Written("adapter.targets", "\"all-linear\""), By(Rule::Adapter)),
    name("lora_target", FACTORY, Setting("adapter.targets"), By(Rule::Adapter)),
    name("lora_modules_to_save", NOT_FACTORY, Setting("adapter.modules_to_save"), By(Rule::Adapter)),
    name("additional_target", FACTORY, Setting("adapter.modules_to_save"), By(Rule::Adapter)),
    name("use_rslora", NOT_AXOLOTL, Setting("adapter.rslora"), By(Rule::Adapter)),
    name("peft_use_rslora", AXOLOTL, Setting("adapter.rslora"), By(Rule::Adapter)),
    name("use_dora", NOT_AXOLOTL, Setting("adapter.dora"), By(Rule::Adapter)),
    name("peft_use_dora", AXOLOTL, Setting("adapter.dora"), By(Rule::Adapter)),
    name("loraplus_lr_ratio", NOT_TRL, Setting("adapter.plus_ratio"), By(Rule::Adapter)),
    name("adapter_name_or_path", FACTORY, Setting("adapter.path"), By(Rule::Adapter)),
    name("lora_model_dir", AXOLOTL, Setting("adapter.path"), By(Rule::Adapter)),
    name("load_in_4bit", NOT_FACTORY, NF4, By(Rule::Quantize)),
    name("quantization_bit", FACTORY, NF4, By(Rule::Quantize)),
    name("use_bnb_nested_quant", TRL, Setting("model.double_quant"), By(Rule::Quantize)),
    name("double_quantization", FACTORY, Setting("model.double_quant"), By(Rule::Quantize)),
    name("output_dir", ALL, Flag("--run DIR"), By(Rule::Run)),
    name("report_to", NOT_AXOLOTL, TRACKED, By(Rule::Tracker)),
    name("use_wandb", AXOLOTL, TRACKED, By(Rule::Tracker)),
    name("use_mlflow", AXOLOTL, TRACKED, By(Rule::Tracker)),
    name("use_trackio", AXOLOTL, TRACKED, By(Rule::Tracker)),
    name("project", TRL, Setting("tracker.project"), By(Rule::Tracker)),
    name("wandb_project", AXOLOTL, Setting("tracker.project"), By(Rule::Tracker)),
    name("mlflow_experiment_name", AXOLOTL, Setting("tracker.project"), By(Rule::Tracker)),
    name("trackio_project_name", AXOLOTL, Setting("tracker.project"), By(Rule::Tracker)),
    name("run_name", NOT_AXOLOTL, Setting("tracker.name"), By(Rule::Tracker)),
    name("wandb_name", AXOLOTL, Setting("tracker.name"), By(Rule::Tracker)),
    name("mlflow_run_name", AXOLOTL, Setting("tracker.name"), By(Rule::Tracker)),
    name("trackio_run_name", AXOLOTL, Setting("tracker.name"), By(Rule::Tracker)),
    // Lost.
    lost("lora_*", ADAPTERS),
    lost("peft_*", ADAPTERS),
    lost("loraplus_*", ADAPTERS),
    lost("pissa_*", ADAPTERS),
    lost("create_new_adapter", ADAPTERS),
    lost("load_in_8bit", QUANTISED),
    lost("quantization_*", QUANTISED),
    lost("bnb_*", QUANTISED),
    lost("gptq", QUANTISED),
    lost("fp8*", QUANTISED),
    lost("val_set_size", SPLIT),
    lost("val_size", SPLIT),
    name("evals_per_epoch", AXOLOTL, Written("train.eval_steps", "100, in steps"), Lost(IN_STEPS)),
    name("saves_per_epoch", AXOLOTL, Written("train.save_steps", "100, in steps"), Lost(IN_STEPS)),
    name("deepspeed*", ALL, SHARD, Lost(SHARDED)),
    name("fsdp*", ALL, SHARD, Lost(SHARDED)),
    name("zero_stage", &[], SHARD, Lost(SHARDED)),
    name("zero_optimization", &[], SHARD, Lost(SHARDED)),
    lost("tensor_parallel_size", WHOLE),
    lost("context_parallel_size", WHOLE),
    lost("parallelism_config", WHOLE),
    lost("f_divergence_type", VARIANT),
    lost("f_alpha_divergence_coef", VARIANT),
    lost("ld_alpha", VARIANT),
    lost("use_weighting", VARIANT),
    lost("dpo_use_weighting", VARIANT),
    lost("unfrozen_parameters", FROZEN),
    lost("freeze_*", FROZEN),
    lost("sync_ref_model", MOVING),
    lost("ref_model_*", MOVING),
    lost("train_on_inputs", TURNS),
    lost("train_on_prompt", TURNS),
    lost("mask_history", TURNS),
    lost("assistant_only_loss", TURNS),
    lost("completion_only_loss", TURNS),
    lost("neftune_noise_alpha", NONE),
    lost("label_smoothing_factor", NONE),
    lost("lr_scheduler_kwargs", NONE),
    lost("cosine_min_lr_ratio", NONE),
    lost("cosine_constant_lr_ratio", NONE),
    lost("lr_groups", NONE),
    lost("embedding_lr*", NONE),
    name("limit", &[], Setting("max_rows"), Lost(NONE)),
    name("num_fewshot", &[], Setting("shots"), Lost(NONE)),
    lost("reward_model", ANNOTATE),
    lost("reward_model_*", ANNOTATE),
    lost("special_tokens", TOKENS),
    lost("added_tokens_overrides", TOKENS),
    lost("add_tokens", TOKENS),
    lost("add_special_tokens", TOKENS),
    lost("resize_*", TOKENS),
    lost("pad_token", TOKENS),
    lost("eos_token", TOKENS),
    lost("eot_tokens", TOKENS),
    lost("streaming", COMPLETE),
    lost("dataset_streaming", COMPLETE),
    lost("pretraining_dataset", COMPLETE),
    name("max_tokens", NOT_AXOLOTL, Setting("generate.max_new_tokens"), Lost(SAMPLING)),
    name("num_return_sequences", NOT_AXOLOTL, Setting("generate.samples"), Lost(SAMPLING)),
    name("do_sample", NOT_AXOLOTL, Written("generate.temperature", "0 for the most likely tokens"), Lost(SAMPLING)),
    // Dropped without a loss.
    name("resume_from_checkpoint", ALL, Flag("--resume"), Dropped),
    name("overwrite_output_dir", NOT_AXOLOTL, OWN_FOLDER, Dropped),
    name("per_device_eval_batch_size", NOT_AXOLOTL, EXAMPLES, Dropped),
    name("packing", ALL, PACKED, Dropped),
    name("sample_packing", AXOLOTL, PACKED, Dropped),
    name("neat_packing", FACTORY, PACKED, Dropped),
    name("padding_free", TRL, Nothing("rows are packed without padding"), Dropped),
    name("do_eval", NOT_AXOLOTL, Written("eval_data.path", "\"FILE\""), Dropped),
    name("do_train", NOT_AXOLOTL, COMMAND, Dropped),
    name("stage", FACTORY, COMMAND, Dropped),
    name("logging_dir", NOT_AXOLOTL, Nothing("a run writes its metrics to its own folder"), Dropped),
    name("dataloader_num_workers", ALL, Nothing("rows are encoded once, before the training"), Dropped),
    dropped("tokenizer_use_*"),
    dropped("tokenizer_legacy"),
    dropped("skip_prepare_dataset"),
    dropped("loss_watchdog_*"),
    dropped("use_kernels"),
    dropped("cut_cross_entropy"),
    dropped("device_map"),
    dropped("hf_use_auth_token"),
    dropped("logging_*"),
    dropped("log_*"),
    dropped("wandb_*"),
    dropped("mlflow_*"),
    dropped("trackio_*"),
    dropped("comet_*"),
    dropped("use_comet"),
    dropped("swanlab_*"),
    dropped("use_swanlab"),
    dropped("use_tensorboard"),
    dropped("plot_loss"),
    dropped("push_to_hub"),
    dropped("hub_*"),
    dropped("dataloader_*"),
    dropped("dataset_num_proc"),
    dropped("dataset_processes"),
    dropped("preprocessing_*"),
    dropped("dataset_prepared_path"),
    dropped("tokenized_path"),
    dropped("overwrite_*"),
    dropped("attn_implementation"),
    dropped("flash_attention"),
    dropped("flash_attn"),
    dropped("xformers_attention"),
    dropped("sdp_attention"),
    dropped("eager_attention"),
    dropped("sample_packing*"),
    dropped("eval_sample_packing"),
    dropped("packing*"),
    dropped("eval_packing"),
    dropped("dpo_padding_free"),
    dropped("pad_to_*"),
    dropped("group_by_length"),
    dropped("length_column_name"),
    dropped("use_liger_kernel"),
    dropped("liger_*"),
    dropped("dpo_use_liger_kernel"),
    dropped("enable_liger_kernel"),
    dropped("use_unsloth*"),
    dropped("plugins"),
    dropped("tf32"),
    dropped("torch_compile*"),
    dropped("torch_empty_cache_steps"),
    dropped("gc_steps"),
    dropped("ddp_*"),
    dropped("gradient_checkpointing_kwargs"),
    dropped("use_reentrant_gc"),
    dropped("precompute_ref_*"),
    dropped("disable_dropout"),
    dropped("trust_remote_code"),
    dropped("use_cache"),
    dropped("strict"),
    dropped("model_type"),
    dropped("tokenizer_type"),
    dropped("is_*_derived_model"),
    dropped("remove_unused_columns"),
    dropped("save_safetensors"),
    dropped("save_first_step"),
    dropped("eval_batch_size"),
    dropped("activation_offloading"),
    dropped("auto_resume_from_checkpoints"),
    dropped("include_*"),
    dropped("skip_memory_metrics"),
    dropped("local_rank"),
    dropped("use_fast_tokenizer"),
    dropped("shuffle_merged_datasets"),
    dropped("average_tokens_across_devices"),
    dropped("cache_dir"),
    dropped("upcast_*"),
    dropped("low_cpu_mem_usage"),
];

/// An entry.
const fn name(name: &'static str, tools: &'static [Tool], here: Here, carry: Carry) -> Foreign {
    Foreign { name, tools, here, carry }
}

/// An entry for a feature that does not exist here.
const fn lost(name: &'static str, reason: &'static str) -> Foreign {
    Foreign { name, tools: &[], here: Missing(reason), carry: Lost(reason) }
}

/// An entry for what concerns only logging, speed or storage of the other tool.
const fn dropped(name: &'static str) -> Foreign {
    Foreign { name, tools: &[], here: Nothing(""), carry: Dropped }
}
