//! The keys of `config.json` that have no effect, and those that may have one value only.

use serde_json::Value;

/// Keys that are read into fields, whatever the family.
pub(super) const READ: &[&str] = &[
    "architectures",
    "bos_token_id",
    "dtype",
    "eos_token_id",
    "head_dim",
    "hidden_size",
    "id2label",
    "initializer_range",
    "intermediate_size",
    "max_position_embeddings",
    "model_type",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "num_labels",
    "pad_token_id",
    "quantization_config",
    "rms_norm_eps",
    "rope_parameters",
    "rope_scaling",
    "rope_theta",
    "tie_word_embeddings",
    "torch_dtype",
    "vocab_size",
];

/// Keys that do not change what the model computes: bookkeeping of transformers, and generation settings of old files (which belong to
/// `generation_config.json`).
const HARMLESS: &[&str] = &[
    "auto_map",
    "bad_words_ids",
    "begin_suppress_tokens",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "is_decoder",
    "is_llama_config",
    "label2id",
    "length_penalty",
    "max_length",
    "min_length",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_scores",
    "prefix",
    "problem_type",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict",
    "return_dict_in_generate",
    "sep_token_id",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tf_legacy_loss",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torchscript",
    "transformers.js_config",
    "transformers_version",
    "typical_p",
    "use_bfloat16",
    "use_cache",
];

/// Keys beginning so have no effect: private ones of transformers, a trainer's stamp, and Setpoint's own.
const HARMLESS_PREFIXES: &[&str] = &["_", "unsloth_", "setpoint_"];

/// The judgement on a key that is not read into a field.
pub(super) enum Verdict {
    /// It has no effect.
    Harmless,
    /// It has an effect, and this is the only value that can be computed.
    Only {
        /// True if the value is that one.
        holds: bool,
        /// The value, in words.
        expected: &'static str,
    },
    /// Nothing is known about it.
    Unknown,
}

/// Judges a key that neither all families nor the file's own family read.
pub(super) fn verdict(key: &str, value: &Value, layers: usize) -> Verdict {
    let only = |holds: bool, expected: &'static str| Verdict::Only { holds, expected };
    // Absent and null are the same to transformers.
    if value.is_null() || HARMLESS.contains(&key) || HARMLESS_PREFIXES.iter().any(|prefix| key.starts_with(prefix)) {
        return Verdict::Harmless;
    }
    let off = value.as_bool() == Some(false);
    match key {
        "hidden_act" => only(matches!(value.as_str(), Some("silu" | "swish")), "\"silu\""),
        "pretraining_tp" => only(value.as_f64() == Some(1.0), "1"),
        "attention_dropout" => only(value.as_f64() == Some(0.0), "0 (no dropout is applied, in training or inference)"),
        "partial_rotary_factor" => only(value.as_f64() == Some(1.0), "1"),
        "chunk_size_feed_forward" => only(value.as_f64() == Some(0.0), "0"),
        "use_sliding_window" => only(off, "false (every layer attends to the whole context)"),
        "layer_types" => only(full_attention(value, layers), "a list with \"full_attention\" for each layer"),
        "sliding_window" => only(false, "null (every layer attends to the whole context)"),
        "add_cross_attention" | "is_encoder_decoder" | "rope_interleaved" | "tie_encoder_decoder" | "use_mrope" => {
            only(off, "false")
        }
        "pruned_heads" => only(value.as_object().is_some_and(|map| map.is_empty()), "{}"),
        _ => Verdict::Unknown,
    }
}

fn full_attention(value: &Value, layers: usize) -> bool {
    value.as_array().is_some_and(|kinds| kinds.len() == layers && kinds.iter().all(|kind| kind == "full_attention"))
}
