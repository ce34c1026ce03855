use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use burn::tensor::FloatDType;
use safetensors::tensor::TensorInfo;
use serde_json::Value;

use super::numbers;
use super::quantized::Packed;
use super::weights::{Layout, WeightFile};
use crate::Error;
use crate::config::object;

/// The weight files of a folder, opened and checked, no tensor read yet.
#[derive(Debug)]
pub struct Checkpoint {
    pub(super) dir: PathBuf,
    pub(super) files: Vec<WeightFile>,
    pub(super) tensors: BTreeMap<String, Entry>,
}

/// A tensor and the file that holds it.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) file: usize,
    pub(super) info: TensorInfo,
    /// The parts of a quantised matrix, whose shape and format are then those of its numbers.
    pub(super) packed: Option<Box<Packed>>,
}

impl Checkpoint {
    /// Opens `model.safetensors` in `dir`, or else the shards that `model.safetensors.index.json` names, and checks their headers. Of a
    /// multimodal model, only the text part is there, under the names of a language model.
    ///
    /// # Errors
    ///
    /// [`Error::NoWeights`], [`Error::Read`], [`Error::Header`], [`Error::Json`], [`Error::MissingKey`], [`Error::UnsupportedValue`],
    /// [`Error::ShardPath`], [`Error::ShardLacksTensor`]. [`Error::Header`] also for a quantised matrix whose parts do not fit together.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        Self::open_any(dir, false)
    }

    /// Opens the weights in `dir` as [`open`](Self::open) does, or `pytorch_model.bin` or its shards if there are no safetensors and
    /// `allow_pickle` is set. Nothing in a pickle is executed.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open), and [`Error::Pickle`].
    pub fn open_any(dir: &Path, allow_pickle: bool) -> Result<Self, Error> {
        let mut checkpoint = Self { dir: dir.to_owned(), files: Vec::new(), tensors: BTreeMap::new() };
        match Layout::find(dir, allow_pickle)? {
            Layout::Single { name, is_pickle } => checkpoint.add(name, is_pickle)?,
            Layout::Sharded { index, is_pickle } => {
                let map = weight_map(&index)?;
                for shard in map.values().collect::<BTreeSet<_>>() {
                    checkpoint.add(shard, is_pickle)?;
                }
                for (tensor, shard) in &map {
                    let found = checkpoint.tensors.get(tensor).map(|entry| checkpoint.files[entry.file].path());
                    if found != Some(dir.join(shard).as_path()) {
                        let (tensor, shard) = (tensor.clone(), shard.clone());
                        return Err(Error::ShardLacksTensor { path: index, tensor, shard });
                    }
                }
            }
        }
        checkpoint.keep_text_part()?;
        checkpoint.unite_quantized()?;
        Ok(checkpoint)
    }

    /// Opens one file in `dir` and checks its header.
    ///
    /// # Errors
    ///
    /// [`Error::Read`], [`Error::Header`].
    pub(crate) fn open_file(dir: &Path, name: &str) -> Result<Self, Error> {
        let mut checkpoint = Self { dir: dir.to_owned(), files: Vec::new(), tensors: BTreeMap::new() };
        checkpoint.add(name, false)?;
        Ok(checkpoint)
    }

    /// The names of the tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The shape of a tensor, if the files hold it.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|entry| entry.info.shape.as_slice())
    }

    /// Holds if the files do not have both tensors, or have the same bytes for both: the two names of a tied matrix.
    ///
    /// # Errors
    ///
    /// [`Error::TiedHeadDiffers`], [`Error::Read`].
    pub(crate) fn require_equal(&self, head: &str, embedding: &str) -> Result<(), Error> {
        let (Some(a), Some(b)) = (self.tensors.get(head), self.tensors.get(embedding)) else {
            return Ok(());
        };
        let equal = a.info.dtype == b.info.dtype && a.info.shape == b.info.shape && self.bytes(a)? == self.bytes(b)?;
        if equal {
            Ok(())
        } else {
            Err(Error::TiedHeadDiffers {
                path: self.files[a.file].path().to_owned(),
                head: head.to_owned(),
                embedding: embedding.to_owned(),
            })
        }
    }

    /// Returns the format of a tensor, after checking its shape; `None` if the files do not hold it.
    ///
    /// # Errors
    ///
    /// [`Error::WrongShape`], [`Error::UnsupportedDtype`].
    pub(crate) fn format(&self, name: &str, expected: &[usize]) -> Result<Option<FloatDType>, Error> {
        let Some(entry) = self.tensors.get(name) else { return Ok(None) };
        let path = || self.files[entry.file].path().to_owned();
        let tensor = || name.to_owned();
        if entry.info.shape != expected {
            let (expected, found) = (expected.to_vec(), entry.info.shape.clone());
            return Err(Error::WrongShape { path: path(), tensor: tensor(), expected, found });
        }
        let found = || format!("{:?}", entry.info.dtype);
        let format = numbers::float(entry.info.dtype);
        format.map(Some).ok_or_else(|| Error::UnsupportedDtype { path: path(), tensor: tensor(), found: found() })
    }

    /// Returns the bytes of a tensor that the files hold.
    ///
    /// # Errors
    ///
    /// [`Error::Read`].
    pub(crate) fn bytes_of(&self, name: &str) -> Result<Vec<u8>, Error> {
        self.bytes(&self.tensors[name])
    }

    /// Returns the file of a tensor that the files hold.
    pub(crate) fn path_of(&self, name: &str) -> PathBuf {
        self.files[self.tensors[name].file].path().to_owned()
    }

    pub(super) fn bytes(&self, entry: &Entry) -> Result<Vec<u8>, Error> {
        if let Some(packed) = &entry.packed {
            return self.unpack(entry, packed);
        }
        self.files[entry.file].bytes(&entry.info)
    }

    fn add(&mut self, name: &str, is_pickle: bool) -> Result<(), Error> {
        let file = WeightFile::open(&self.dir.join(name), is_pickle)?;
        for (tensor, info) in file.tensors() {
            let entry = Entry { file: self.files.len(), info, packed: None };
            if let Some(first) = self.tensors.insert(tensor.clone(), entry) {
                let first = self.files[first.file].path().display();
                let message = format!("tensor `{tensor}` is also in {first}");
                return Err(Error::Header { path: file.path().to_owned(), message });
            }
        }
        self.files.push(file);
        Ok(())
    }
}

/// `weight_map` of an index: the shard of each tensor, plain file names only.
fn weight_map(path: &Path) -> Result<BTreeMap<String, String>, Error> {
    let text = setpoint_files::read_text(path)?;
    let index = object(path, &text)?;
    let Some(map) = index.get("weight_map") else {
        return Err(Error::MissingKey {
            path: path.to_owned(),
            key: "weight_map".to_owned(),
            expected: "an object of tensor names and shard file names".to_owned(),
        });
    };
    let unsupported = |found: &Value| Error::UnsupportedValue {
        path: path.to_owned(),
        key: "weight_map".to_owned(),
        expected: "an object of tensor names and shard file names".to_owned(),
        found: found.to_string(),
    };
    let mut shards = BTreeMap::new();
    for (tensor, shard) in map.as_object().ok_or_else(|| unsupported(map))? {
        let shard = shard.as_str().ok_or_else(|| unsupported(shard))?;
        let mut parts = Path::new(shard).components();
        // A backslash separates folders on one system and not on another; no shard has one.
        let plain = matches!((parts.next(), parts.next()), (Some(Component::Normal(name)), None) if name == shard)
            && !shard.contains('\\');
        if !plain {
            return Err(Error::ShardPath { path: path.to_owned(), tensor: tensor.clone(), shard: shard.to_owned() });
        }
        shards.insert(tensor.clone(), shard.to_owned());
    }
    Ok(shards)
}
