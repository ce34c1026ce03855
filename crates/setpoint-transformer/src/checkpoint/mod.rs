//! Hugging Face's weight files in and out, for any module whose field names are the names in the file.
//!
//! A parameter's name is its path in the module: the field `model.layers[0].mlp.up_proj.weight` is `model.layers.0.mlp.up_proj.weight`.

mod file;
mod fp8;
mod load;
mod names;
mod numbers;
mod pickle;
mod quantized;
mod reader;
mod save;
mod text_part;
mod weights;

use std::path::Path;

use burn::module::Module;
use burn::tensor::FloatDType;

use crate::Error;
use crate::generate::GenerationConfig;
use crate::lora::HasDecoder;
use crate::nf4::Quantize;
pub use file::{TensorFile, tensor_header};
pub(crate) use load::is_obsolete;
pub(crate) use names::name_hash;
pub use names::{ParamPath, Parameter, parameters, with_stable_ids};
pub(crate) use numbers::widen;
pub use reader::Checkpoint;
pub use save::save_model;
pub(crate) use save::save_selected;

/// Options for reading weights.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// The number format of the parameters. By default the file's; f32 if the file mixes formats or the device does not compute in the file's.
    pub dtype: Option<FloatDType>,
    /// The prefix of a parameter's path in the file: `"model."` reads the decoder of a language model into a bare
    /// [`Decoder`](crate::Decoder).
    pub prefix: String,
    /// Parameters (by their name in the file) that may be absent; they keep the value they have. An entry that ends in `.` stands for
    /// everything that begins so.
    pub optional: Vec<String>,
    /// Tensors of the file that the module has no place for and that are left unread. Entries as in `optional`.
    pub ignore: Vec<String>,
    /// The form in which the matrices of the layers are held; the numbers themselves by default. The head, the embeddings, norms and biases
    /// always are. Only [`load_model`] and what calls it can do so.
    pub quantize: Option<Quantize>,
    /// True if `pytorch_model.bin`, or its shards, are read if the folder has no safetensors. Nothing in them is executed.
    pub allow_pickle: bool,
}

/// Options for writing weights.
#[derive(Clone, Debug)]
pub struct SaveOptions {
    /// Files are split so that none holds more bytes of tensors than this (a single larger tensor excepted). 5 GB by default, as in
    /// transformers.
    pub max_shard_bytes: u64,
    /// The number format in the file; by default that of the parameters.
    pub dtype: Option<FloatDType>,
    /// The content of `generation_config.json`; without it none is written, and an existing one stays.
    pub generation: Option<GenerationConfig>,
}

impl Default for SaveOptions {
    fn default() -> Self {
        Self { max_shard_bytes: 5_000_000_000, dtype: None, generation: None }
    }
}

/// Reads the weights in `dir` into a module, after checking all of them.
///
/// Parameters keep their place (device, autodiff, whether they require gradients) and get ids that follow from their names
/// ([`with_stable_ids`]).
///
/// # Errors
///
/// Before anything is read: [`Error::NoWeights`], [`Error::Read`], [`Error::Header`], [`Error::Json`], [`Error::ShardPath`],
/// [`Error::ShardLacksTensor`] for the files; [`Error::MissingTensor`], [`Error::UnexpectedTensor`], [`Error::WrongShape`],
/// [`Error::UnsupportedDtype`] for a tensor; [`Error::DeviceDtype`]. [`Error::Quantized`] if the options say to quantise.
pub fn load_module<M: Module>(module: M, dir: &Path, options: &LoadOptions) -> Result<M, Error> {
    Checkpoint::open_any(dir, options.allow_pickle)?.load(module, options)
}

/// Reads the weights in `dir` into a model as [`load_module`] does, and puts the matrices of its layers into codes if `options.quantize` says
/// so. One of them at a time is in memory in full.
///
/// # Errors
///
/// As [`load_module`], and [`Error::NotFinite`] for a number that has no code.
pub fn load_model<M: HasDecoder>(model: M, dir: &Path, options: &LoadOptions) -> Result<M, Error> {
    Checkpoint::open_any(dir, options.allow_pickle)?.load_model(model, options)
}
