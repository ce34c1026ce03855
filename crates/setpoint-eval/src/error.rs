//! Errors of the numbers, files and answers that an evaluation is made of.

use std::path::{Path, PathBuf};

/// An input from which a result cannot be computed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Fewer observations than the statistic needs.
    #[error("{what}: {found} observation(s), at least {needed} needed")]
    TooFew {
        /// The input.
        what: &'static str,
        /// The number found.
        found: usize,
        /// The number needed.
        needed: usize,
    },
    /// Two inputs that belong together pairwise differ in length.
    #[error(
        "{left_name} has {left} entries and {right_name} has {right}: they are compared pairwise and must be as many"
    )]
    LengthMismatch {
        /// Name of the first input.
        left_name: &'static str,
        /// Its length.
        left: usize,
        /// Name of the second input.
        right_name: &'static str,
        /// Its length.
        right: usize,
    },
    /// A NaN or an infinity among the observations.
    #[error("{what}: entry {index} is {value}, a finite number was expected")]
    NotFinite {
        /// The input.
        what: &'static str,
        /// Its position, from 0.
        index: usize,
        /// The value found.
        value: f64,
    },
    /// A setting outside of its range.
    #[error("{name} is {value}, expected {expected}")]
    Setting {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: f64,
        /// The range it must lie in.
        expected: &'static str,
    },
    /// The file system refused.
    #[error("cannot {action} {}: {}", path.display(), setpoint_files::words::system(source))]
    Io {
        /// The attempted action: "read", "write", "create".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file that is not what it should be, as a whole.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The expected and the found value.
        reason: String,
    },
    /// A data set that cannot be read.
    #[error(transparent)]
    Data(#[from] setpoint_data::Error),
    /// One row of a file that is not what it should be.
    #[error("{}, row {row}: {reason}", path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// The row, from 1 and without a header line.
        row: usize,
        /// The expected and the found value.
        reason: String,
    },
    /// A fit that has no minimum, such as a logistic regression without penalty on rows that a plane separates.
    #[error("{what} did not converge in {iterations} iterations; with a penalty it would")]
    NotConverged {
        /// The model that was fitted.
        what: &'static str,
        /// Iterations spent.
        iterations: usize,
    },
    /// Fewer few-shot examples than asked for.
    #[error(
        "{task}: {needed} few-shot examples are asked for, and the data holds {found} to take them from; set shots = 0 or add the training split"
    )]
    Shots {
        /// The task.
        task: &'static str,
        /// Examples asked for.
        needed: usize,
        /// Examples there are.
        found: usize,
    },
    /// A row of ties of RewardBench 2 with an id of another form.
    #[error("the id `{id}` of a row of ties is of another form: expected ref:NUMBER or tied:NUMBER")]
    RewardBenchId {
        /// The id.
        id: String,
    },
    /// A question of MT-Bench without an answer to judge.
    #[error("{model} has no answer to turn {turn} of question {question}")]
    MissingAnswer {
        /// Whose answer.
        model: String,
        /// The question.
        question: u64,
        /// The turn, from 1.
        turn: usize,
    },
    /// A prompt of Arena-Hard without an answer to judge.
    #[error("{model} has no answer to the question {uid}")]
    MissingArenaAnswer {
        /// Whose answer.
        model: String,
        /// The question.
        uid: String,
    },
    /// A style by which nothing can be controlled.
    #[error("no style control: {reason}")]
    Style {
        /// A description of the missing part.
        reason: String,
    },
    /// The judge's key is not in the environment.
    #[error("the environment variable {variable} is not set: it should hold the judge's key")]
    NoKey {
        /// The variable.
        variable: String,
    },
    /// The judge's key cannot be sent.
    #[error(
        "the environment variable {variable} holds characters that no HTTP header can carry, expected a key of printable ASCII"
    )]
    KeyCharacters {
        /// The variable.
        variable: String,
    },
    /// The judge's address, which is written to results, holds the key.
    #[error("`base_url` of the judge holds the key of {variable}; the address is written to results, so it must not")]
    KeyInAddress {
        /// The variable.
        variable: String,
    },
    /// A setting of the judge that makes no sense.
    #[error("judge.{setting}: {message}")]
    JudgeSetting {
        /// The setting, without its section.
        setting: &'static str,
        /// A description of the problem.
        message: String,
    },
    /// An answer of the judge that is of no use, where such an answer ends the job.
    #[error("{item}: the judge {model} gave no usable answer: {reason}")]
    Judgment {
        /// The item that was judged.
        item: String,
        /// The judge's model.
        model: String,
        /// A description of the problem with the answer.
        reason: String,
    },
    /// The judge's endpoint refuses every request.
    #[error("the judge at {url} cannot be asked: {reason}")]
    Judge {
        /// The address.
        url: String,
        /// Its answer, or the setting that is wrong.
        reason: String,
    },
}

impl From<setpoint_files::Error> for Error {
    fn from(error: setpoint_files::Error) -> Self {
        Self::Io { action: error.action, path: error.path, source: error.source }
    }
}

impl Error {
    /// `map_err(Error::io("read", path))`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Error::Io { action, path, source }
    }

    pub(crate) fn file(path: &Path, reason: impl ToString) -> Self {
        Error::File { path: path.to_owned(), reason: reason.to_string() }
    }

    pub(crate) fn row(path: &Path, row: usize, reason: impl ToString) -> Self {
        Error::Row { path: path.to_owned(), row, reason: reason.to_string() }
    }
}

/// Fails unless there are at least `needed` values and all of them are finite.
pub(crate) fn check_sample(what: &'static str, values: &[f64], needed: usize) -> Result<(), Error> {
    if values.len() < needed {
        return Err(Error::TooFew { what, found: values.len(), needed });
    }
    match values.iter().position(|v| !v.is_finite()) {
        Some(index) => Err(Error::NotFinite { what, index, value: values[index] }),
        None => Ok(()),
    }
}

/// Fails unless both slices are equally long.
pub(crate) fn check_paired(
    left_name: &'static str,
    left: usize,
    right_name: &'static str,
    right: usize,
) -> Result<(), Error> {
    if left == right { Ok(()) } else { Err(Error::LengthMismatch { left_name, left, right_name, right }) }
}

/// Fails unless `level` lies strictly between 0 and 1.
pub(crate) fn check_level(level: f64) -> Result<(), Error> {
    if level > 0.0 && level < 1.0 {
        Ok(())
    } else {
        Err(Error::Setting { name: "level", value: level, expected: "a share between 0 and 1, both excluded" })
    }
}
