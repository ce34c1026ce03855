//! `pytorch_model.bin`, as torch has written it since version 1.6: a zip archive with a pickle that describes the tensors, and their bytes.
//!
//! The pickle is read by `pytorch-reader`, the reader of `burn-store`. It interprets the few calls that describe tensors and executes
//! nothing. It bounds nesting, copies and the size of a tensor; what it leaves open is bounded here: the size of the pickle, each byte of
//! which may become an object of a hundred. Tensors are read one at a time, and only those whose shape the model asks for.

use std::collections::BTreeMap;
use std::io::{BufReader, Read as _};
use std::path::{Path, PathBuf};

use pytorch_reader::{DType, PytorchReader, Tensor};
use safetensors::Dtype;
use safetensors::tensor::TensorInfo;
use zip::ZipArchive;

use crate::Error;

/// The longest pickle. It describes a tensor in about 150 bytes.
const MOST_PICKLE: u64 = 4 << 20;
/// The most files in an archive: one for each tensor, and a few more.
const MOST_FILES: usize = 100_000;

/// A pickled file whose tensors are known and not yet read.
#[derive(Debug)]
pub(super) struct PickleFile {
    path: PathBuf,
    /// In the order of their names.
    tensors: Vec<Tensor>,
}

impl PickleFile {
    /// Opens a file and reads the description of its tensors.
    ///
    /// # Errors
    /// [`Error::Read`], and [`Error::Pickle`] for a file that is damaged, too old, or holds something else.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let refuse = |message: String| Error::Pickle { path: path.to_owned(), message };
        check(path, &refuse)?;
        let read = || PytorchReader::new(path).map_err(|error| refuse(in_one_line(&error.to_string())));
        // The reader has no known panic; a file from a stranger is no place to find the first.
        let reader = std::panic::catch_unwind(read).map_err(|_| refuse("it is damaged".to_owned()))??;
        let tensors: BTreeMap<String, Tensor> = reader.into_tensors().into_iter().collect();
        if tensors.is_empty() {
            return Err(refuse("it holds no tensors; expected the weights of a model, by their names".to_owned()));
        }
        Ok(Self { path: path.to_owned(), tensors: tensors.into_values().collect() })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns every tensor with its name. Its place is its number in this list.
    pub(super) fn tensors(&self) -> Vec<(String, TensorInfo)> {
        let info = |(i, tensor): (usize, &Tensor)| {
            let info =
                TensorInfo { dtype: dtype(tensor.dtype()), shape: tensor.shape().to_vec(), data_offsets: (i, i) };
            (tensor.name.clone(), info)
        };
        self.tensors.iter().enumerate().map(info).collect()
    }

    /// Reads the bytes of a tensor of this file, in the order of its indices.
    pub(super) fn bytes(&self, info: &TensorInfo) -> Result<Vec<u8>, Error> {
        let failed = |message: String| Error::Pickle { path: self.path.clone(), message };
        let tensor = self.tensors.get(info.data_offsets.0).ok_or_else(|| failed("it lacks a tensor".to_owned()))?;
        let read = std::panic::AssertUnwindSafe(|| tensor.read());
        let bytes =
            std::panic::catch_unwind(read).map_err(|_| failed(format!("tensor `{}` is damaged", tensor.name)))?;
        bytes.map_err(|error| failed(in_one_line(&error.to_string())))
    }
}

/// Checks that a file is a zip archive with a pickle of a bounded size.
fn check(path: &Path, refuse: &dyn Fn(String) -> Error) -> Result<(), Error> {
    let read = |source| Error::Read { path: path.to_owned(), source };
    let mut file = setpoint_files::open(path)?;
    let mut magic = [0; 4];
    let length = file.metadata().map_err(read)?.len();
    if length < 4 || file.read_exact(&mut magic).is_err() || magic != *b"PK\x03\x04" {
        return Err(refuse(
            "it is no zip archive, as torch writes since version 1.6. Load it with torch and save it again, best as safetensors"
                .to_owned(),
        ));
    }
    let damaged =
        |error: zip::result::ZipError| refuse(format!("damaged zip archive: {}", in_one_line(&error.to_string())));
    let open = std::panic::AssertUnwindSafe(|| ZipArchive::new(BufReader::new(file)));
    let opened = std::panic::catch_unwind(open).map_err(|_| refuse("damaged zip archive".to_owned()))?;
    let mut archive = opened.map_err(damaged)?;
    if archive.len() > MOST_FILES {
        return Err(refuse(format!("the archive holds {} files; at most {MOST_FILES} are allowed", archive.len())));
    }
    for i in 0..archive.len() {
        let entry = archive.by_index_raw(i).map_err(damaged)?;
        let size = entry.size();
        let name = entry.name().map_err(damaged)?;
        if (name == "data.pkl" || name.ends_with("/data.pkl")) && size > MOST_PICKLE {
            return Err(refuse(format!("its pickle has {size} bytes; at most {MOST_PICKLE} are allowed")));
        }
    }
    Ok(())
}

fn dtype(dtype: DType) -> Dtype {
    match dtype {
        DType::F64 => Dtype::F64,
        DType::F32 => Dtype::F32,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        DType::I64 => Dtype::I64,
        DType::I32 => Dtype::I32,
        DType::I16 => Dtype::I16,
        DType::I8 => Dtype::I8,
        DType::U64 => Dtype::U64,
        DType::U32 => Dtype::U32,
        DType::U16 => Dtype::U16,
        DType::U8 => Dtype::U8,
        DType::Bool => Dtype::BOOL,
    }
}

/// Returns the beginning of a message that may repeat what the file holds.
fn in_one_line(message: &str) -> String {
    const MOST: usize = 300;
    let shown: String = message.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MOST).collect();
    if message.chars().count() > MOST { format!("{shown}…") } else { shown }
}
