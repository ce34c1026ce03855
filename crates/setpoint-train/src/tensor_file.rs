//! safetensors files written and read one tensor at a time, so that a checkpoint never needs its
//! own size in host memory.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use burn::tensor::{DType, TensorData};
use safetensors::tensor::{Dtype, Metadata, TensorInfo};

use crate::Error;
use crate::storage::{Digest, Writer};

/// The largest header accepted, as in the safetensors library.
const MAX_HEADER: u64 = 100_000_000;

/// Name, type and shape of a tensor to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TensorSpec {
    pub(crate) name: String,
    pub(crate) dtype: DType,
    pub(crate) shape: Vec<usize>,
}

impl TensorSpec {
    fn bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.size()
    }
}

/// Writes a safetensors file.
pub(crate) struct TensorWriter {
    writer: Writer,
    path: PathBuf,
    /// What is still to come, the next one last.
    pending: Vec<TensorSpec>,
}

impl TensorWriter {
    /// Writes the header. The tensors must follow in the order of `specs`, which must be of falling
    /// element size, so that each lies aligned in the file.
    pub(crate) fn create(path: &Path, specs: Vec<TensorSpec>) -> Result<Self, Error> {
        let mut header = serde_json::Map::new();
        // transformers refuses a file that does not say which framework's layout it has.
        header.insert("__metadata__".into(), serde_json::json!({ "format": "pt" }));
        let mut offset = 0;
        for spec in &specs {
            let dtype = stored_dtype(spec.dtype).ok_or_else(|| {
                Error::corrupt(path, format!("`{}` has dtype {:?}, which cannot be stored", spec.name, spec.dtype))
            })?;
            let end = offset + spec.bytes();
            header.insert(
                spec.name.clone(),
                serde_json::json!({
                    "dtype": dtype, "shape": spec.shape, "data_offsets": [offset, end],
                }),
            );
            offset = end;
        }
        let mut text = serde_json::Value::Object(header).to_string();
        while !text.len().is_multiple_of(8) {
            text.push(' ');
        }
        let mut writer = Writer::create(path)?;
        writer.write(&(text.len() as u64).to_le_bytes())?;
        writer.write(text.as_bytes())?;
        Ok(Self { writer, path: path.to_path_buf(), pending: specs.into_iter().rev().collect() })
    }

    /// Writes the next tensor, which must be finite.
    pub(crate) fn write(&mut self, name: &str, data: &TensorData) -> Result<(), Error> {
        let expected = self.pending.pop();
        let fits = expected.as_ref().is_some_and(|spec| {
            spec.name == name && spec.dtype == data.dtype() && spec.bytes() == data.as_bytes().len()
        });
        if !fits {
            return Err(Error::corrupt(
                &self.path,
                format!("expected {expected:?} next, got `{name}` of {:?}", data.dtype()),
            ));
        }
        if has_non_finite(data) {
            return Err(Error::NonFiniteTensor { step: 0, tensor: name.to_owned(), checkpoints: vec![] });
        }
        self.writer.write(data.as_bytes())
    }

    /// Brings the file to the disk.
    pub(crate) fn finish(self) -> Result<Digest, Error> {
        if let Some(spec) = self.pending.last() {
            return Err(Error::corrupt(&self.path, format!("`{}` was announced and not written", spec.name)));
        }
        self.writer.finish()
    }
}

/// Reads a safetensors file.
pub(crate) struct TensorReader {
    file: File,
    path: PathBuf,
    start: u64,
    tensors: BTreeMap<String, TensorInfo>,
}

impl TensorReader {
    /// Reads and checks the header.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let mut file = File::open(path).map_err(Error::io("open", path))?;
        let size = file.metadata().map_err(Error::io("read", path))?.len();
        let mut length = [0; 8];
        file.read_exact(&mut length).map_err(|_| Error::corrupt(path, "no safetensors header"))?;
        let length = u64::from_le_bytes(length);
        if length > MAX_HEADER || length + 8 > size {
            return Err(Error::corrupt(path, format!("the header claims {length} bytes, the file has {size}")));
        }
        let mut header = vec![0; length as usize];
        file.read_exact(&mut header).map_err(Error::io("read", path))?;
        let metadata: Metadata =
            serde_json::from_slice(&header).map_err(|error| Error::corrupt(path, format!("header: {error}")))?;
        let start = length + 8;
        let expected = start + metadata.data_len() as u64;
        if expected != size {
            return Err(Error::corrupt(path, format!("expected {expected} bytes, found {size}")));
        }
        let tensors = metadata.tensors().into_iter().map(|(name, info)| (name, info.clone())).collect();
        Ok(Self { file, path: path.to_path_buf(), start, tensors })
    }

    /// Where the tensors come from.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The names of all tensors, sorted.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Shape of a tensor.
    pub(crate) fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|info| info.shape.as_slice())
    }

    /// Reads one tensor, which must be there with this shape.
    pub(crate) fn read(&mut self, name: &str, shape: &[usize]) -> Result<TensorData, Error> {
        let info = self.tensors.get(name).ok_or_else(|| Error::corrupt(&self.path, format!("`{name}` is missing")))?;
        if info.shape != shape {
            return Err(Error::corrupt(
                &self.path,
                format!("`{name}`: expected shape {shape:?}, found {:?}", info.shape),
            ));
        }
        let dtype = tensor_dtype(info.dtype)
            .ok_or_else(|| Error::corrupt(&self.path, format!("`{name}`: dtype {} is unknown", info.dtype)))?;
        let (begin, end) = info.data_offsets;
        let mut bytes = vec![0; end - begin];
        self.file
            .seek(SeekFrom::Start(self.start + begin as u64))
            .and_then(|_| self.file.read_exact(&mut bytes))
            .map_err(Error::io("read", &self.path))?;
        TensorData::try_from_bytes_vec(bytes, shape.to_vec(), dtype)
            .map_err(|error| Error::corrupt(&self.path, format!("`{name}`: {error}")))
    }
}

/// Whether a number is NaN or infinite: all bits of its exponent are set.
fn has_non_finite(data: &TensorData) -> bool {
    // Every chunk is looked at: a loop without an exit is the fast one.
    fn any<const N: usize>(bytes: &[u8], bad: impl Fn([u8; N]) -> bool) -> bool {
        bytes.as_chunks::<N>().0.iter().fold(false, |found, &chunk| found | bad(chunk))
    }
    let half = |exponent: u16| any(data.as_bytes(), |bytes| u16::from_ne_bytes(bytes) & exponent == exponent);
    match data.dtype() {
        DType::F64 => any(data.as_bytes(), |bytes| !f64::from_ne_bytes(bytes).is_finite()),
        DType::F32 => any(data.as_bytes(), |bytes| !f32::from_ne_bytes(bytes).is_finite()),
        DType::F16 => half(0x7c00),
        DType::BF16 => half(0x7f80),
        _ => false,
    }
}

fn stored_dtype(dtype: DType) -> Option<Dtype> {
    Some(match dtype {
        DType::F64 => Dtype::F64,
        DType::F32 => Dtype::F32,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        DType::I64 => Dtype::I64,
        _ => return None,
    })
}

fn tensor_dtype(dtype: Dtype) -> Option<DType> {
    Some(match dtype {
        Dtype::F64 => DType::F64,
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        Dtype::I64 => DType::I64,
        _ => return None,
    })
}
