//! The files that hold a checkpoint's weights: safetensors, and pickles where they are allowed.

use std::path::{Path, PathBuf};

use safetensors::tensor::TensorInfo;

use super::file::TensorFile;
use super::pickle::PickleFile;
use crate::Error;

pub(super) const SINGLE: &str = "model.safetensors";
pub(super) const INDEX: &str = "model.safetensors.index.json";
const PICKLE: &str = "pytorch_model.bin";
const PICKLE_INDEX: &str = "pytorch_model.bin.index.json";

/// A file of weights, its tensors known and not yet read.
#[derive(Debug)]
pub(super) enum WeightFile {
    Safetensors(TensorFile),
    Pickle(PickleFile),
}

impl WeightFile {
    pub(super) fn open(path: &Path, is_pickle: bool) -> Result<Self, Error> {
        match is_pickle {
            true => PickleFile::open(path).map(Self::Pickle),
            false => TensorFile::open(path).map(Self::Safetensors),
        }
    }

    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Safetensors(file) => file.path(),
            Self::Pickle(file) => file.path(),
        }
    }

    /// Returns every tensor with its name.
    pub(super) fn tensors(&self) -> Vec<(String, TensorInfo)> {
        match self {
            Self::Safetensors(file) => file.tensors().map(|(name, info)| (name.to_owned(), info.clone())).collect(),
            Self::Pickle(file) => file.tensors(),
        }
    }

    /// Reads the bytes of a tensor of this file.
    pub(super) fn bytes(&self, info: &TensorInfo) -> Result<Vec<u8>, Error> {
        match self {
            Self::Safetensors(file) => file.bytes(info),
            Self::Pickle(file) => file.bytes(info),
        }
    }
}

/// The files of a folder that hold its weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Layout {
    /// One file.
    Single { name: &'static str, is_pickle: bool },
    /// Shards, which an index names.
    Sharded { index: PathBuf, is_pickle: bool },
}

impl Layout {
    /// Finds the weights in a folder. Safetensors win; pickles are only read if they are allowed.
    pub(super) fn find(dir: &Path, allow_pickle: bool) -> Result<Self, Error> {
        let has = |name: &str| dir.join(name).exists();
        let pickled = [PICKLE, PICKLE_INDEX].into_iter().find(|name| has(name));
        match () {
            () if has(SINGLE) => Ok(Self::Single { name: SINGLE, is_pickle: false }),
            () if has(INDEX) => Ok(Self::Sharded { index: dir.join(INDEX), is_pickle: false }),
            () if allow_pickle && has(PICKLE) => Ok(Self::Single { name: PICKLE, is_pickle: true }),
            () if allow_pickle && has(PICKLE_INDEX) => {
                Ok(Self::Sharded { index: dir.join(PICKLE_INDEX), is_pickle: true })
            }
            () => Err(Error::NoWeights { dir: dir.to_owned(), hint: hint(dir, pickled) }),
        }
    }
}

/// Says what a folder without safetensors holds, and what to do.
fn hint(dir: &Path, pickled: Option<&str>) -> String {
    if let Some(name) = pickled {
        return format!(
            ", only {name}, a Python pickle. To read it, its section in the settings needs `allow_pickle = true`; nothing in it is executed"
        );
    }
    let ending = |wanted: &str| {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).find(|name| name.ends_with(wanted))
    };
    if let Some(name) = ending(".gguf") {
        return format!(
            ", only {name}, a file for llama.cpp. Name the Hugging Face folder of the model that it was made from"
        );
    }
    if let Some(name) = ["npz", "msgpack", "h5", "onnx", "pth"].iter().find_map(|kind| ending(&format!(".{kind}"))) {
        return format!(", only {name}, which is not read. Name a folder or a hub id that has safetensors");
    }
    String::new()
}
