//! Decoder-only transformers on [Burn](burn): one decoder for all [families](ModelType), Hugging Face checkpoints in and out, and batched
//! generation with a key-value cache.
//!
//! - [`ModelConfig`] is `config.json`, read strictly.
//! - [`CausalLm`] and its [`Decoder`] have the names and layouts of the checkpoints, so that loading needs no table of names.
//! - [`checkpoint`] reads and writes `.safetensors` folders for any module.
//! - [`generate`](mod@generate) samples.
//! - [`gguf`] writes the files that llama.cpp and Ollama read.
//! - [`lora`] adds low-rank adapters, and reads and writes PEFT's folders.
//!
//! Nothing here names a backend: it is a property of the [`Device`](burn::tensor::Device) that a model is made on. On a device with autodiff
//! the parameters require gradients.
//!
//! Shapes are written with these letters: `b` rows, `s` new tokens per row, `t` tokens attended to, `d` hidden size, `f` feed-forward size,
//! `h` query heads, `g` key-value heads, `r = h/g`, `n` head width, `v` vocabulary.

mod block;
mod causal_lm;
pub mod checkpoint;
mod config;
mod decoder;
mod design;
mod error;
mod families;
#[cfg(test)]
mod finite_difference;
pub mod generate;
pub mod gguf;
mod init;
mod linear;
pub mod lora;
mod nf4;
mod norm;
mod optional;
mod prefix;
mod quantize;
mod rope;
mod tape;
mod weight;

pub use block::{Block, Mlp, SelfAttention};
pub use causal_lm::{CausalLm, bound_logits};
pub use checkpoint::{LoadOptions, SaveOptions};
pub use config::{Architecture, ModelConfig, Quantization, RopeConfig, RopeScaling, RopeSwitch};
pub use decoder::{Decoder, PackedIds, pack};
pub use design::{
    Activation, Biases, Design, HeadNorms, LayerDesign, LayerRope, Maps, Multipliers, NormPlacement, NormWeight,
};
pub use error::Error;
pub use families::ModelType;
pub use generate::{
    Drawn, Finish, Generated, GenerationConfig, LiveBatch, NewRow, RowId, check_prompts, generate, generate_on_streams,
    generate_part, generate_stream,
};
pub use init::init_weights;
pub use linear::{Embedding, Linear};
pub use nf4::{Nf4Matrix, NotFinite, Quantize};
pub use norm::RmsNorm;
pub use optional::OptionalLinear;
pub use prefix::{PrefixGroup, Text, group_by_prefix};
pub use setpoint_ops::{Packing, Segment};
pub use tape::{Part, Recompute, Tape};
pub use weight::{Nf4Weight, Weight, is_quantized, quantized_matrices};
