//! safetensors files: the header, and tensors one at a time, so that a file never needs its own size in memory.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use setpoint_files::words;

use crate::Error;

/// The format's own limit on the length of a header.
const MAX_HEADER: u64 = 100_000_000;

/// A safetensors file whose header was read and checked.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    file: File,
    /// The place where the tensors begin.
    start: u64,
    tensors: BTreeMap<String, TensorInfo>,
}

impl TensorFile {
    /// Opens a file and reads its header. The length of everything is checked against the file's first, so that a damaged file costs no
    /// memory.
    ///
    /// # Errors
    /// [`Error::Read`], and [`Error::Header`] for a file that is damaged or cut off.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let read = |source| Error::Read { path: path.to_owned(), source };
        let refuse = |message| Err(Error::Header { path: path.to_owned(), message });
        let mut file = setpoint_files::open(path)?;
        let size = file.metadata().map_err(read)?.len();
        if size < 8 {
            return refuse(format!(
                "is {size} bytes long; a safetensors file begins with 8 bytes that hold the header's length"
            ));
        }
        let mut length = [0; 8];
        file.read_exact(&mut length).map_err(read)?;
        let length = u64::from_le_bytes(length);
        if length > MAX_HEADER {
            return refuse(format!("states a header of {length} bytes; at most {MAX_HEADER} are allowed"));
        }
        if length > size - 8 {
            return refuse(format!("states a header of {length} bytes, but is only {size} bytes long: truncated?"));
        }
        let mut text = vec![0; length as usize];
        file.read_exact(&mut text).map_err(read)?;
        // Also checks that the tensors follow one another and that offsets, shapes and dtypes agree.
        let metadata: Metadata = match serde_json::from_slice(&text) {
            Ok(metadata) => metadata,
            Err(error) => return refuse(format!("damaged header: {}", words::json_reason(&error))),
        };
        let (needed, found) = (metadata.data_len() as u64, size - 8 - length);
        if needed != found {
            let hint = if found < needed { ": truncated?" } else { "" };
            return refuse(format!("the header describes {needed} bytes of tensors, the file holds {found}{hint}"));
        }
        let tensors = metadata.tensors().into_iter().map(|(name, info)| (name, info.clone())).collect();
        Ok(Self { path: path.to_owned(), file, start: 8 + length, tensors })
    }

    /// Returns the path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns every tensor with its name, in the order of the names.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &TensorInfo)> {
        self.tensors.iter().map(|(name, info)| (name.as_str(), info))
    }

    /// Returns the number format, shape and place of a tensor, if the file holds it.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(name)
    }

    /// Reads the bytes of a tensor of this file.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub fn bytes(&self, info: &TensorInfo) -> Result<Vec<u8>, Error> {
        let (begin, end) = info.data_offsets;
        let mut bytes = vec![0; end - begin];
        let mut file = &self.file;
        file.seek(SeekFrom::Start(self.start + begin as u64))
            .and_then(|_| file.read_exact(&mut bytes))
            .map_err(|source| Error::Read { path: self.path.clone(), source })?;
        Ok(bytes)
    }
}

/// Returns the beginning of a safetensors file whose tensors, by name, number format and shape, follow one another. The tensors begin at a
/// multiple of 8 bytes. Those of falling element size are all aligned.
///
/// # Errors
/// When the tensors cannot be described.
pub fn tensor_header<'a>(tensors: impl IntoIterator<Item = (&'a str, Dtype, &'a [usize])>) -> io::Result<Vec<u8>> {
    let mut offset = 0;
    let infos = tensors.into_iter().map(|(name, dtype, shape)| {
        let start = offset;
        offset += shape.iter().product::<usize>() * dtype.bitsize() / 8;
        (name.to_owned(), TensorInfo { dtype, shape: shape.to_vec(), data_offsets: (start, offset) })
    });
    // Without this entry transformers refuses the file.
    let about = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let metadata = Metadata::new(Some(about), infos.collect()).map_err(io::Error::other)?;
    let mut text = serde_json::to_vec(&metadata)?;
    text.resize(text.len().next_multiple_of(8), b' ');
    Ok([&(text.len() as u64).to_le_bytes(), text.as_slice()].concat())
}
