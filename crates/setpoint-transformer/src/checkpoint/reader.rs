use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use safetensors::Dtype;
use safetensors::tensor::Metadata;
use serde_json::Value;

use crate::Error;
use crate::config::object;

pub(super) const SINGLE: &str = "model.safetensors";
pub(super) const INDEX: &str = "model.safetensors.index.json";

/// The format's own limit on the length of a header.
const MAX_HEADER: u64 = 100_000_000;

/// The weight files of a folder, opened and checked, no tensor read yet.
#[derive(Debug)]
pub struct Checkpoint {
    pub(super) dir: PathBuf,
    pub(super) files: Vec<WeightFile>,
    pub(super) tensors: BTreeMap<String, Entry>,
}

#[derive(Debug)]
pub(super) struct WeightFile {
    pub(super) path: PathBuf,
    file: File,
    /// Where the tensors begin.
    start: u64,
}

/// Where a tensor is and what it looks like.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) file: usize,
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    offset: u64,
    len: usize,
}

impl Checkpoint {
    /// Opens `model.safetensors` in `dir`, or else the shards that `model.safetensors.index.json` names, and checks their headers.
    ///
    /// # Errors
    ///
    /// [`Error::NoWeights`], [`Error::Read`], [`Error::Header`], [`Error::Json`], [`Error::MissingKey`], [`Error::UnsupportedValue`],
    /// [`Error::ShardPath`], [`Error::ShardLacksTensor`].
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let mut checkpoint = Self { dir: dir.to_owned(), files: Vec::new(), tensors: BTreeMap::new() };
        let index = dir.join(INDEX);
        if dir.join(SINGLE).exists() {
            checkpoint.add(SINGLE)?;
        } else if index.exists() {
            let map = weight_map(&index)?;
            for shard in map.values().collect::<BTreeSet<_>>() {
                checkpoint.add(shard)?;
            }
            for (tensor, shard) in &map {
                let found = checkpoint.tensors.get(tensor).map(|entry| &checkpoint.files[entry.file].path);
                if found != Some(&dir.join(shard)) {
                    return Err(Error::ShardLacksTensor { path: index, tensor: tensor.clone(), shard: shard.clone() });
                }
            }
        } else {
            return Err(Error::NoWeights { dir: dir.to_owned() });
        }
        Ok(checkpoint)
    }

    /// The names of the tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The shape of a tensor, if the files hold it.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|entry| entry.shape.as_slice())
    }

    /// Holds if the files do not have both tensors, or have the same bytes for both: the two names of a tied matrix.
    ///
    /// # Errors
    ///
    /// [`Error::TiedHeadDiffers`], [`Error::Read`].
    pub fn require_equal(&self, head: &str, embedding: &str) -> Result<(), Error> {
        let (Some(a), Some(b)) = (self.tensors.get(head), self.tensors.get(embedding)) else {
            return Ok(());
        };
        let equal = a.dtype == b.dtype && a.shape == b.shape && self.bytes(a)? == self.bytes(b)?;
        if equal {
            Ok(())
        } else {
            Err(Error::TiedHeadDiffers {
                path: self.files[a.file].path.clone(),
                head: head.to_owned(),
                embedding: embedding.to_owned(),
            })
        }
    }

    pub(super) fn bytes(&self, entry: &Entry) -> Result<Vec<u8>, Error> {
        let file = &self.files[entry.file];
        let mut bytes = vec![0; entry.len];
        let mut reader = &file.file;
        reader
            .seek(SeekFrom::Start(file.start + entry.offset))
            .and_then(|_| reader.read_exact(&mut bytes))
            .map_err(|source| Error::Read { path: file.path.clone(), source })?;
        Ok(bytes)
    }

    fn add(&mut self, name: &str) -> Result<(), Error> {
        let path = self.dir.join(name);
        let (file, start, metadata) = open(&path)?;
        for (tensor, info) in metadata.tensors() {
            let entry = Entry {
                file: self.files.len(),
                dtype: info.dtype,
                shape: info.shape.clone(),
                offset: info.data_offsets.0 as u64,
                len: info.data_offsets.1 - info.data_offsets.0,
            };
            if let Some(first) = self.tensors.insert(tensor.clone(), entry) {
                let first = self.files[first.file].path.display();
                return Err(header(&path, format!("tensor `{tensor}` is also in {first}")));
            }
        }
        self.files.push(WeightFile { path, file, start });
        Ok(())
    }
}

fn header(path: &Path, message: String) -> Error {
    Error::Header { path: path.to_owned(), message }
}

/// Opens a file and reads its header; answers where the tensors begin. The length of everything is checked against the file's first, so that
/// a damaged file costs no memory.
fn open(path: &Path) -> Result<(File, u64, Metadata), Error> {
    let read = |source| Error::Read { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(read)?;
    let size = file.metadata().map_err(read)?.len();
    if size < 8 {
        return Err(header(
            path,
            format!("is {size} bytes long; a safetensors file begins with 8 bytes that hold the header's length"),
        ));
    }
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(read)?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER {
        return Err(header(path, format!("states a header of {length} bytes; at most {MAX_HEADER} are allowed")));
    }
    if length > size - 8 {
        return Err(header(
            path,
            format!("states a header of {length} bytes, but is only {size} bytes long: truncated?"),
        ));
    }
    let mut text = vec![0; length as usize];
    file.read_exact(&mut text).map_err(read)?;
    // Also checks that the tensors lie one after the other and that offsets, shapes and dtypes agree.
    let metadata: Metadata =
        serde_json::from_slice(&text).map_err(|error| header(path, format!("damaged header: {error}")))?;
    let (needed, found) = (metadata.data_len() as u64, size - 8 - length);
    if needed != found {
        let hint = if found < needed { ": truncated?" } else { "" };
        return Err(header(
            path,
            format!("the header describes {needed} bytes of tensors, the file holds {found}{hint}"),
        ));
    }
    Ok((file, 8 + length, metadata))
}

/// `weight_map` of an index: the shard of each tensor, plain file names only.
fn weight_map(path: &Path) -> Result<BTreeMap<String, String>, Error> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
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
