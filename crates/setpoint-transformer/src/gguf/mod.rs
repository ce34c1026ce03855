//! Writes a Hugging Face folder as a GGUF file, which llama.cpp and Ollama read.
//!
//! The format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>. Tensors are read, converted and written one at a time, so that
//! memory holds at most one of them.

mod file;
mod numbers;
mod tensors;

use std::io::Write;
use std::path::{Path, PathBuf};

use crate::Error;
use crate::checkpoint::Checkpoint;
use crate::config::{Architecture, ModelConfig, RopeScaling};
use crate::families::{GgufLayout, ModelType, WindowKey};
pub use file::Value;
pub use numbers::NumberFormat;
use tensors::Planned;

/// A model that can be written as GGUF: its folder has been checked, and no tensor has been read.
#[derive(Debug)]
pub struct Export {
    dir: PathBuf,
    config: ModelConfig,
    layout: GgufLayout,
    checkpoint: Checkpoint,
    format: NumberFormat,
    tensors: Vec<Planned>,
}

impl Export {
    /// Opens the folder of a causal language model that is to be written in a number format.
    ///
    /// # Errors
    ///
    /// [`Error::Gguf`] for a family or a setting that GGUF files of its architecture cannot hold, [`Error::Architecture`] for a model with
    /// another head, and the errors of [`ModelConfig::from_dir`] and [`Checkpoint::open`]. Each tensor's name, shape and format is checked.
    pub fn open(dir: &Path, format: NumberFormat) -> Result<Self, Error> {
        let config = ModelConfig::from_dir(dir)?;
        let path = || dir.join("config.json");
        if config.architecture != Architecture::CausalLm {
            return Err(Error::Architecture {
                path: path(),
                expected: "causal language model".to_owned(),
                found: "sequence classifier".to_owned(),
            });
        }
        let refuse = |message: String| Err(Error::Gguf { path: path(), message });
        let family = config.model_type;
        let Some(layout) = family.family().gguf() else {
            let known: Vec<_> = ModelType::all().filter(|family| family.family().gguf().is_some()).collect();
            let known: Vec<_> = known.iter().map(ToString::to_string).collect();
            return refuse(format!("`model_type` is \"{family}\"; exported to GGUF are {}", known.join(", ")));
        };
        if let Some(problem) = problem(&config, layout) {
            return refuse(format!("this {family} model cannot be exported: {problem}"));
        }
        let checkpoint = Checkpoint::open(dir)?;
        let tensors = tensors::plan(&config, layout, &checkpoint, format)?;
        Ok(Self { dir: dir.to_owned(), config, layout, checkpoint, format, tensors })
    }

    /// Returns the shape of the model.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Returns the names of the tensors that are written in f16 because their rows are no multiple of the format's blocks.
    pub fn in_f16_instead(&self) -> impl Iterator<Item = &str> {
        self.tensors.iter().filter(|tensor| tensor.is_fallback).map(|tensor| tensor.name.as_str())
    }

    /// Writes the file: the model's own keys, then `further` ones (the tokenizer's), then the tensors.
    ///
    /// # Errors
    ///
    /// [`Error::Read`]; [`Error::Write`] for `out`, which is named as `path`; [`Error::Gguf`] for a number that is not finite, or too large
    /// for the format.
    pub fn write(
        &self,
        name: &str,
        further: &[(String, Value)],
        path: &Path,
        out: &mut dyn Write,
    ) -> Result<(), Error> {
        let mut keys = self.keys(name);
        keys.extend_from_slice(further);
        let failed = |source| Error::Write { path: path.to_owned(), source };
        file::write_header(out, &keys, self.tensors.iter().map(Planned::info)).map_err(failed)?;
        for tensor in &self.tensors {
            tensor.write(&self.checkpoint, &self.dir, path, out)?;
        }
        Ok(())
    }

    /// Returns the keys that describe the model.
    fn keys(&self, name: &str) -> Vec<(String, Value)> {
        let c = &self.config;
        let architecture = self.layout.architecture;
        let mut keys = vec![
            ("general.architecture".to_owned(), Value::Text(architecture.to_owned())),
            ("general.name".to_owned(), Value::Text(name.to_owned())),
            ("general.file_type".to_owned(), Value::U32(self.format.file_type())),
        ];
        if self.format == NumberFormat::Q8_0 {
            // The version of the block formats.
            keys.push(("general.quantization_version".to_owned(), Value::U32(2)));
        }
        let mut own = |key: &str, value: Value| keys.push((format!("{architecture}.{key}"), value));
        let size = |size: usize| Value::U32(u32::try_from(size).unwrap_or(u32::MAX));
        own("block_count", size(c.num_hidden_layers));
        own("context_length", size(c.max_position_embeddings));
        own("embedding_length", size(c.hidden_size));
        own("feed_forward_length", size(c.intermediate_size));
        own("attention.head_count", size(c.num_attention_heads));
        own("attention.head_count_kv", size(c.num_key_value_heads));
        own("attention.layer_norm_rms_epsilon", Value::F32(c.rms_norm_eps as f32));
        own("attention.key_length", size(c.head_dim));
        own("attention.value_length", size(c.head_dim));
        own("rope.freq_base", Value::F32(c.rope.theta as f32));
        match c.rope.scaling {
            RopeScaling::Linear { factor } => {
                own("rope.scaling.type", Value::Text("linear".to_owned()));
                own("rope.scaling.factor", Value::F32(factor as f32));
            }
            RopeScaling::LongRope { original_max_position_embeddings: original, .. } => {
                own("rope.scaling.original_context_length", size(original));
                own("rope.scaling.attn_factor", Value::F32(c.rope.magnitude() as f32));
            }
            RopeScaling::Yarn {
                factor,
                original_max_position_embeddings: original,
                beta_fast,
                beta_slow,
                mscale,
                query_beta,
                ..
            } => {
                own("rope.scaling.type", Value::Text("yarn".to_owned()));
                own("rope.scaling.factor", Value::F32(factor as f32));
                own("rope.scaling.original_context_length", size(original));
                own("rope.scaling.yarn_beta_fast", Value::F32(beta_fast as f32));
                own("rope.scaling.yarn_beta_slow", Value::F32(beta_slow as f32));
                if let Some([_, weight]) = mscale {
                    own("rope.scaling.yarn_log_multiplier", Value::F32(weight as f32));
                }
                if let Some(beta) = query_beta {
                    own("attention.temperature_scale", Value::F32(beta as f32));
                }
            }
            _ => {}
        }
        if self.layout.states_sizes {
            own("vocab_size", size(c.vocab_size));
            own("rope.dimension_count", size(c.rope.rotary_width(c.head_dim)));
        }
        match self.layout.window {
            WindowKey::Absent => {}
            WindowKey::Zero => own("attention.sliding_window", Value::U32(0)),
            WindowKey::Stated => {
                let window = c.design.layers.iter().find_map(|layer| layer.window);
                own("attention.sliding_window", size(window.unwrap_or(0)));
            }
        }
        for (key, cap) in
            [("attn_logit_softcapping", c.design.attention_cap), ("final_logit_softcapping", c.design.logits_cap)]
        {
            if let Some(cap) = cap {
                own(key, Value::F32(cap as f32));
            }
        }
        if self.layout.states_multipliers {
            let factors = c.design.multipliers;
            let scores = factors.attention.unwrap_or_else(|| (c.head_dim as f64).sqrt().recip());
            own("attention.scale", Value::F32(scores as f32));
            own("embedding_scale", Value::F32(factors.embeddings as f32));
            own("residual_scale", Value::F32(factors.residual as f32));
            // A divisor there.
            own("logit_scale", Value::F32(factors.logits.recip() as f32));
        }
        keys
    }
}

/// Says what a file of the architecture cannot hold of a model, or what llama.cpp does not compute of it.
fn problem(config: &ModelConfig, layout: GgufLayout) -> Option<String> {
    let is_read = match config.rope.scaling {
        RopeScaling::Default | RopeScaling::Linear { .. } => true,
        RopeScaling::Llama3 { .. } => layout.rope_factors,
        RopeScaling::LongRope { .. } => layout.long_rope,
        RopeScaling::Yarn { .. } => layout.yarn,
        RopeScaling::Dynamic { .. } => false,
    };
    if !is_read {
        let mut known = vec!["default", "linear"];
        known.extend(layout.rope_factors.then_some("llama3"));
        known.extend(layout.long_rope.then_some("longrope"));
        known.extend(layout.yarn.then_some("yarn"));
        let (found, known) = (config.rope.scaling.name(), known.join("\", \""));
        return Some(format!("its rotary scaling is \"{found}\"; expected \"{known}\""));
    }
    let longest = config.max_position_embeddings;
    let mut windows = config.design.layers.iter().filter_map(|layer| layer.window);
    if layout.window != WindowKey::Stated
        && let Some(window) = windows.find(|&window| window < longest)
    {
        return Some(format!(
            "`sliding_window` is {window}, and llama.cpp attends to the whole text in this architecture; expected null, or at least \
             the longest text, {longest}"
        ));
    }
    config.model_type.family().gguf_problem(config)
}
