use std::io;
use std::path::PathBuf;

/// Everything that can go wrong while a model is read, written or sampled from.
///
/// Each variant names the offending input, what was expected and what was found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read.
    #[error("cannot read {}: {}", path.display(), setpoint_files::words::system(source))]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// A file or folder could not be written. What stood there before is still there.
    #[error("cannot write {}: {}", path.display(), setpoint_files::words::system(source))]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// A file that must hold a JSON object does not.
    #[error("{}: not a JSON object: {message}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The parser's message, with line and column if it knows them.
        message: String,
    },
    /// A configuration lacks a key without which the model is undefined.
    #[error("{}: the key `{key}` is missing; expected {expected}", path.display())]
    MissingKey {
        /// The file.
        path: PathBuf,
        /// The key, with dots for nested ones.
        key: String,
        /// The value that it should hold.
        expected: String,
    },
    /// A configuration key has a value of the wrong type, or one that is not supported.
    #[error("{}: `{key}` is {found}; supported: {expected}", path.display())]
    UnsupportedValue {
        /// The file.
        path: PathBuf,
        /// The key, with dots for nested ones.
        key: String,
        /// The supported values.
        expected: String,
        /// The value in the file, as JSON.
        found: String,
    },
    /// A configuration key that might change the model's mathematics and that is not known here.
    #[error(
        "{}: the key `{key}` (value {found}) is not known and might change what the model computes; remove it from the file if it has no \
         effect", path.display()
    )]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// Its value, as JSON.
        found: String,
    },
    /// The keys of a configuration contradict each other.
    #[error("{}: {message}", path.display())]
    Inconsistent {
        /// The file (or a description, for a configuration made in memory).
        path: PathBuf,
        /// The values that do not fit together, and some that would.
        message: String,
    },
    /// The folder holds a model of another kind than the one asked for.
    #[error("{}: holds a {found}, not a {expected}", path.display())]
    Architecture {
        /// The folder or its `config.json`.
        path: PathBuf,
        /// The kind of model asked for.
        expected: String,
        /// The kind of model found.
        found: String,
    },
    /// A folder without weights.
    #[error("{}: found neither model.safetensors nor model.safetensors.index.json{hint}", dir.display())]
    NoWeights {
        /// The folder.
        dir: PathBuf,
        /// A hint at the content found instead, with a remedy, or empty.
        hint: String,
    },
    /// Weights in a form that is not read.
    #[error("{}: {what}. {instead}", path.display())]
    OtherFormat {
        /// The file that says so.
        path: PathBuf,
        /// The form.
        what: String,
        /// The name to give instead.
        instead: String,
    },
    /// A pickled checkpoint that cannot be read.
    #[error("{}: {message}", path.display())]
    Pickle {
        /// The file.
        path: PathBuf,
        /// The problem.
        message: String,
    },
    /// A `.safetensors` file whose header is damaged or that ends too early or too late.
    #[error("{}: {message}", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// The problem.
        message: String,
    },
    /// An index that names a shard outside its folder.
    #[error(
        "{}: tensor `{tensor}` is said to be in `{shard}`; a shard must be a plain file name in the same folder", path.display()
    )]
    ShardPath {
        /// The index file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The offending shard name.
        shard: String,
    },
    /// An index and its shards disagree about where a tensor is.
    #[error("{}: says that tensor `{tensor}` is in `{shard}`, which does not hold it", path.display())]
    ShardLacksTensor {
        /// The index file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The shard that should hold it.
        shard: String,
    },
    /// A tensor with numbers that are not finite.
    #[error("{}: tensor `{tensor}` holds NaN or infinite numbers: the file is damaged, or its training diverged", path.display())]
    NonFiniteTensor {
        /// The file.
        path: PathBuf,
        /// The name in the file.
        tensor: String,
    },
    /// A parameter of the model for which the folder has no tensor.
    #[error(
        "{}: tensor `{tensor}` of shape {expected:?} is missing{hint}{}", dir.display(), and_more(*more)
    )]
    MissingTensor {
        /// The folder.
        dir: PathBuf,
        /// The name in the file.
        tensor: String,
        /// The shape the model needs.
        expected: Vec<usize>,
        /// A remedy, or empty.
        hint: String,
        /// The number of further tensors that are missing.
        more: usize,
    },
    /// A tensor of the folder for which the model has no parameter.
    #[error("{}: tensor `{tensor}` of shape {found:?} has no place in the model{}", path.display(), and_more(*more))]
    UnexpectedTensor {
        /// The file.
        path: PathBuf,
        /// The name in the file.
        tensor: String,
        /// Its shape.
        found: Vec<usize>,
        /// The number of further tensors that are unexpected.
        more: usize,
    },
    /// A tensor whose shape is not that of its parameter.
    #[error("{}: tensor `{tensor}` has shape {found:?}, the model needs {expected:?}", path.display())]
    WrongShape {
        /// The file.
        path: PathBuf,
        /// The name in the file.
        tensor: String,
        /// The shape the model needs.
        expected: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
    },
    /// A tensor of a number format that weights cannot have here.
    #[error("{}: tensor `{tensor}` has dtype {found}; supported: F32, BF16, F16", path.display())]
    UnsupportedDtype {
        /// The file.
        path: PathBuf,
        /// The name in the file.
        tensor: String,
        /// Its dtype.
        found: String,
    },
    /// Tied embeddings, yet the file holds another matrix for the head.
    #[error(
        "{}: config.json says that `{head}` is tied to `{embedding}`, but the two differ in the file; set tie_word_embeddings to false \
         if the head is meant to be separate", path.display()
    )]
    TiedHeadDiffers {
        /// The file that holds the head.
        path: PathBuf,
        /// The head's name.
        head: String,
        /// The embedding's name.
        embedding: String,
    },
    /// A model that a GGUF file cannot hold.
    #[error("{}: {message}", path.display())]
    Gguf {
        /// The folder or its `config.json`.
        path: PathBuf,
        /// A sentence that says what cannot be held, and what could.
        message: String,
    },
    /// The device cannot compute in the requested number format.
    #[error("the device {device} does not compute in {dtype}; supported by it: {supported}")]
    DeviceDtype {
        /// The device.
        device: String,
        /// The requested dtype.
        dtype: String,
        /// The formats that it supports among F32, BF16 and F16.
        supported: String,
    },
    /// The device failed to hand out a value.
    #[error("cannot read `{what}` back from the device: {message}")]
    Device {
        /// A tensor's name, or what was being computed.
        what: String,
        /// The device's answer.
        message: String,
    },
    /// An adapter that does not fit its model.
    #[error("the adapter does not fit the model: {message}")]
    Adapter {
        /// The part that does not fit, and what would.
        message: String,
    },
    /// A number that has no 4-bit code.
    #[error(
        "{}: tensor `{tensor}` holds {found} at place {place}; only finite numbers can be quantised", path.display()
    )]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// The name in the file.
        tensor: String,
        /// The place, counted row by row from 0.
        place: usize,
        /// Infinite or not a number.
        found: f32,
    },
    /// A model whose matrices are in 4-bit codes, or would be, where that cannot be.
    #[error("{message}")]
    Quantized {
        /// A sentence that says what to do.
        message: String,
    },
    /// A generation setting out of its range.
    #[error("generation setting `{key}` is {found}; expected {expected}")]
    GenerationSetting {
        /// The setting.
        key: String,
        /// Its range.
        expected: String,
        /// Its value.
        found: String,
    },
    /// A prompt without tokens.
    #[error("prompt {row} is empty; a prompt has at least one token (the BOS token, if nothing else)")]
    EmptyPrompt {
        /// The row, from 0.
        row: usize,
    },
    /// A prompt that leaves no room for an answer.
    #[error("prompt {row} has {found} tokens; the model takes at most {max}, one of them new")]
    PromptTooLong {
        /// The row, from 0.
        row: usize,
        /// Its length.
        found: usize,
        /// The greatest total length.
        max: usize,
    },
    /// A token id that the model has no embedding for.
    #[error("token {position} of prompt {row} has id {found}; the model's vocabulary has {vocab_size} entries")]
    TokenOutOfRange {
        /// The row, from 0.
        row: usize,
        /// The position in the row, from 0.
        position: usize,
        /// The id.
        found: u32,
        /// The size of the vocabulary.
        vocab_size: usize,
    },
    /// Logits that are not numbers: the weights are damaged or the model has diverged.
    #[error("row {row}, new token {step}: the model's logits hold NaN or no finite value")]
    BadLogits {
        /// The row, from 0.
        row: usize,
        /// The new token, from 0.
        step: usize,
    },
}

impl From<setpoint_files::Error> for Error {
    fn from(error: setpoint_files::Error) -> Self {
        match error.action {
            "read" => Self::Read { path: error.path, source: error.source },
            _ => Self::Write { path: error.path, source: error.source },
        }
    }
}

fn and_more(more: usize) -> String {
    match more {
        0 => String::new(),
        more => format!(" (and {more} more)"),
    }
}
