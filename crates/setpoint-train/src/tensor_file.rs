//! safetensors files written and read one tensor at a time, so that a checkpoint never needs its
//! own size in host memory.

use std::path::{Path, PathBuf};

use burn::tensor::{DType, TensorData};
use safetensors::Dtype;
use safetensors::tensor::TensorInfo;
use setpoint_transformer::checkpoint::{TensorFile, tensor_header};

use crate::Error;
use crate::storage::Digest;

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
    writer: setpoint_files::Writer,
    digest: Digest,
    path: PathBuf,
    /// The tensors still to come, the next one last.
    pending: Vec<TensorSpec>,
}

impl TensorWriter {
    /// Writes the header. The tensors must follow in the order of `specs`, which must be of falling
    /// element size, so that each is aligned in the file.
    pub(crate) fn create(path: &Path, specs: Vec<TensorSpec>) -> Result<Self, Error> {
        let corrupt = |spec: &TensorSpec| {
            Error::corrupt(path, format!("`{}` has dtype {:?}, which cannot be stored", spec.name, spec.dtype))
        };
        let tensors = specs
            .iter()
            .map(|spec| {
                let dtype = stored_dtype(spec.dtype).ok_or_else(|| corrupt(spec))?;
                Ok((spec.name.as_str(), dtype, spec.shape.as_slice()))
            })
            .collect::<Result<Vec<_>, Error>>()?;
        let header = tensor_header(tensors).map_err(Error::io("describe the tensors of", path))?;
        let pending = specs.into_iter().rev().collect();
        let writer = setpoint_files::Writer::create(path)?;
        let mut new = Self { writer, digest: Digest::default(), path: path.to_path_buf(), pending };
        new.put(&header)?;
        Ok(new)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.digest.add(bytes);
        Ok(self.writer.put(bytes)?)
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
        self.put(data.as_bytes())
    }

    /// Brings the file to the disk.
    pub(crate) fn finish(self) -> Result<Digest, Error> {
        if let Some(spec) = self.pending.last() {
            return Err(Error::corrupt(&self.path, format!("`{}` was announced and not written", spec.name)));
        }
        self.writer.finish()?;
        Ok(self.digest)
    }
}

/// Reads a safetensors file.
pub(crate) struct TensorReader(TensorFile);

impl TensorReader {
    /// Reads and checks the header.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        TensorFile::open(path).map(Self).map_err(|error| in_file(path, error))
    }

    /// Returns the path of the file.
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Returns the names of all tensors, sorted.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.tensors().map(|(name, _)| name)
    }

    /// Returns the shape of a tensor, if the file holds it.
    pub(crate) fn shape(&self, name: &str) -> Option<&[usize]> {
        self.0.tensor(name).map(|info| info.shape.as_slice())
    }

    /// Finds a tensor, which must be there with this shape.
    fn find(&self, name: &str, shape: &[usize]) -> Result<&TensorInfo, Error> {
        let corrupt = |reason: String| Error::corrupt(self.path(), reason);
        let info = self.0.tensor(name).ok_or_else(|| corrupt(format!("`{name}` is missing")))?;
        match info.shape == shape {
            true => Ok(info),
            false => Err(corrupt(format!("`{name}`: expected shape {shape:?}, found {:?}", info.shape))),
        }
    }

    /// Checks that a tensor is there with this shape.
    pub(crate) fn check(&self, name: &str, shape: &[usize]) -> Result<(), Error> {
        self.find(name, shape).map(|_| ())
    }

    /// Reads one tensor, which must be there with this shape.
    pub(crate) fn read(&self, name: &str, shape: &[usize]) -> Result<TensorData, Error> {
        let info = self.find(name, shape)?;
        let corrupt = |reason: String| Error::corrupt(self.path(), reason);
        let dtype =
            tensor_dtype(info.dtype).ok_or_else(|| corrupt(format!("`{name}`: dtype {} is unknown", info.dtype)))?;
        let bytes = self.0.bytes(info).map_err(|error| in_file(self.path(), error))?;
        TensorData::try_from_bytes_vec(bytes, shape.to_vec(), dtype)
            .map_err(|error| corrupt(format!("`{name}`: {error}")))
    }
}

/// Returns an error of the safetensors file of a checkpoint.
fn in_file(path: &Path, error: setpoint_transformer::Error) -> Error {
    match error {
        setpoint_transformer::Error::Read { source, .. } => Error::io("read", path)(source),
        setpoint_transformer::Error::Header { message, .. } => Error::corrupt(path, message),
        other => Error::corrupt(path, other.to_string()),
    }
}

/// Returns whether a number is NaN or infinite: all bits of its exponent are set.
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
        DType::U8 => Dtype::U8,
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
        Dtype::U8 => DType::U8,
        _ => return None,
    })
}
