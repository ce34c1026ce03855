//! The error type of the engine.

use std::io;
use std::path::{Path, PathBuf};

/// Everything that can go wrong while training, saving or resuming.
///
/// Each variant names the offending input, what was expected and what was found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused a read or a write.
    #[error("cannot {action} {}: {}", .path.display(), setpoint_files::words::system(source))]
    Io {
        /// The attempted action, as a verb: `write`, `sync`, `rename`, …
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A second process wants a run folder or file that is in use.
    #[error("{} is in use by process {holder}; wait for it to end or choose another place", .path.display())]
    Locked {
        /// The run folder or file.
        path: PathBuf,
        /// Process id of the holder, where its lock file states it.
        holder: String,
    },
    /// A new run was asked for in a folder that already holds one.
    #[error(
        "{} already holds a run ({found} exists); resume it, or choose an empty folder",
        .path.display()
    )]
    RunExists {
        /// The run folder.
        path: PathBuf,
        /// The file or folder that gives the run away.
        found: &'static str,
    },
    /// A run was to be continued in a folder that does not exist.
    #[error("{} is not a run folder: it does not exist", .path.display())]
    NoRun {
        /// The run folder.
        path: PathBuf,
    },
    /// Settings that contradict each other or are out of range; every problem is listed.
    #[error("the training settings are wrong: {}", .problems.join("; "))]
    Config {
        /// One sentence for each problem.
        problems: Vec<String>,
    },
    /// A run was resumed with other settings or data than it was started with.
    #[error(
        "cannot resume {}: {}; a resumed run must be the same run, so restore these settings or start a new run folder",
        .path.display(), .differences.join("; ")
    )]
    Changed {
        /// The checkpoint.
        path: PathBuf,
        /// The differences: name, value in the checkpoint, value now.
        differences: Vec<String>,
    },
    /// Checkpoints exist, but not one of them is intact.
    #[error(
        "no checkpoint in {} can be used: {}; restore one from a backup, or delete the folder to start over",
        .path.display(), .reasons.join("; ")
    )]
    NoUsableCheckpoint {
        /// The `checkpoints` folder.
        path: PathBuf,
        /// Checkpoint and reason, for each of them.
        reasons: Vec<String>,
    },
    /// A run was to go on from a checkpoint that was saved without its optimizer.
    #[error(
        "{} holds no optimizer, as `train.save_only_model` asked for: a run cannot go on from it, so start a new one in another folder",
        .path.display()
    )]
    NoOptimizer {
        /// The checkpoint.
        path: PathBuf,
    },
    /// A file is damaged or is not what it should be.
    #[error("{} is damaged: {reason}", .path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// The expected and the found value.
        reason: String,
    },
    /// Loss or gradient is NaN or infinite.
    #[error(
        "step {step}: the {quantity} is not finite ({value}); {}; offending: {}",
        good_checkpoints(.checkpoints), .examples.join(", ")
    )]
    NonFinite {
        /// The optimizer step, counted from 1.
        step: u64,
        /// `loss` or `gradient norm`.
        quantity: &'static str,
        /// The value found.
        value: f64,
        /// The examples, as [`Task::describe`](crate::Task::describe) names them.
        examples: Vec<String>,
        /// Step and folder of the checkpoints to go on from, the newest first.
        checkpoints: Vec<(u64, PathBuf)>,
    },
    /// A parameter, or what the optimizer keeps of it, is NaN or infinite, so it is not saved.
    #[error("after step {step} `{tensor}` is not finite and is not saved; {}", good_checkpoints(.checkpoints))]
    NonFiniteTensor {
        /// Optimizer steps done.
        step: u64,
        /// The tensor.
        tensor: String,
        /// Step and folder of the checkpoints to go on from, the newest first.
        checkpoints: Vec<(u64, PathBuf)>,
    },
    /// The disk has no room for the checkpoints of a run and its model.
    #[error(
        "{} has {}: its checkpoints have {} each",
        .path.display(), shortage(*.free, *.needed), size(*.checkpoint)
    )]
    DiskSpace {
        /// The run folder.
        path: PathBuf,
        /// Bytes needed.
        needed: u64,
        /// Bytes free.
        free: u64,
        /// Bytes of a checkpoint.
        checkpoint: u64,
    },
    /// A batch weighs nothing, so a mean over it does not exist.
    #[error("step {step}: the total weight of the batch is {found}, expected a positive number; examples: {}", .examples.join(", "))]
    Weight {
        /// The optimizer step, counted from 1.
        step: u64,
        /// Sum of the weights.
        found: f64,
        /// The examples of the batch.
        examples: Vec<String>,
    },
    /// A device has too little memory for the smallest part of the work.
    #[error("{work}: the device is out of memory {remedy}; `setpoint plan` shows what a run needs ({reason})")]
    OutOfMemory {
        /// The work, such as `step 3`.
        work: String,
        /// The attempt that failed, and the settings that need less memory.
        remedy: &'static str,
        /// The device's own words.
        reason: String,
    },
    /// A task returned something that does not fit its inputs.
    #[error("the task's forward pass is wrong: {reason}")]
    Forward {
        /// The expected and the found value.
        reason: String,
    },
    /// A task's order of the data does not visit different examples.
    #[error("the data order of epoch {epoch} does not visit different examples of 0..{examples}: {reason}")]
    Order {
        /// The epoch, from 0.
        epoch: u64,
        /// Number of examples.
        examples: usize,
        /// A description of the problem.
        reason: String,
    },
    /// A gradient whose path names no parameter of the model.
    #[error("a gradient was accumulated for `{path}`, which is not a trainable parameter of the model")]
    StrayGradient {
        /// Path of the gradient.
        path: String,
    },
    /// The metric that decides which checkpoint is best was not measured.
    #[error("step {step}: the evaluation did not measure `{metric}`, which decides the best checkpoint; it measured: {}", .measured.join(", "))]
    Metric {
        /// The optimizer step.
        step: u64,
        /// The metric that was expected.
        metric: String,
        /// The metrics that were found.
        measured: Vec<String>,
    },
    /// A sequence that log-probabilities cannot be computed for.
    #[error("sequence {index}: {reason}")]
    Sequence {
        /// Index in the slice given.
        index: usize,
        /// The expected and the found value.
        reason: String,
    },
    /// Stored reference log-probabilities belong to another model, tokenizer or data set.
    #[error(
        "{} belongs to another job: {}; delete it to compute the reference anew, or restore what it was made with",
        .path.display(), .differences.join("; ")
    )]
    ReferenceKey {
        /// The file.
        path: PathBuf,
        /// The differences: name, value in the file, value now.
        differences: Vec<String>,
    },
    /// A hook was told to stop before it was done. [`fit`](crate::fit) saves the run and ends it, to be resumed later.
    #[error("interrupted")]
    Interrupted,
    /// An error of the task or of a hook.
    #[error(transparent)]
    Task(Box<dyn std::error::Error + Send + Sync + 'static>),
}

impl Error {
    /// Wraps an error of a [`Task`](crate::Task) or of [`Hooks`](crate::Hooks).
    pub fn task(error: impl Into<Box<dyn std::error::Error + Send + Sync + 'static>>) -> Self {
        Self::Task(error.into())
    }

    /// A function for `map_err` that adds what was attempted and where.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { action, path, source }
    }

    /// Fills in what only the training loop knows of values that are not finite: the steps done, and its checkpoints, oldest first.
    pub(crate) fn located(mut self, done: u64, mut found: Vec<(u64, PathBuf)>) -> Self {
        found.reverse();
        match &mut self {
            Self::NonFinite { examples, checkpoints, .. } => {
                // Where several examples fail at once it is the parameters: their checkpoint is not a good one.
                let own = found.first().is_some_and(|(step, _)| *step == done);
                if own && examples.len() > 1 && found.len() > 1 {
                    found.remove(0);
                }
                *checkpoints = found;
            }
            Self::NonFiniteTensor { step, checkpoints, .. } => {
                *step = done;
                *checkpoints = found;
            }
            _ => {}
        }
        self
    }

    /// Returns whether a write failed for lack of space.
    pub(crate) fn is_disk_full(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self, Self::Io { source, .. } if matches!(source.kind(), StorageFull | QuotaExceeded))
    }

    /// A damaged file.
    pub(crate) fn corrupt(path: &Path, reason: impl Into<String>) -> Self {
        Self::Corrupt { path: path.to_path_buf(), reason: reason.into() }
    }
}

impl From<setpoint_files::Error> for Error {
    fn from(error: setpoint_files::Error) -> Self {
        Self::Io { action: error.action, path: error.path, source: error.source }
    }
}

/// Names the checkpoints that a run can go on from, the newest first.
fn good_checkpoints(found: &[(u64, PathBuf)]) -> String {
    match found {
        [] => "no checkpoint has been saved yet".into(),
        [(step, path)] => format!("the newest good checkpoint is {} (step {step})", path.display()),
        [(step, path), (before, _), ..] => {
            format!(
                "the newest good checkpoint is {} (step {step}), the one before it is of step {before}",
                path.display()
            )
        }
    }
}

/// `812 bytes`, `3.4 MB`, `12.0 GB`.
fn size(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{bytes} bytes"),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

/// Says how much room there is and how much is needed, in bytes if they are about as large.
fn shortage(free: u64, needed: u64) -> String {
    let (mut has, mut wants) = (size(free), size(needed));
    if has == wants {
        (has, wants) = (format!("{free} bytes"), format!("{needed} bytes"));
    }
    format!("{has} free, and the run needs {wants}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_that_is_short_by_little_is_told_in_bytes() {
        assert_eq!(shortage(12_000_000, 15_500_000), "12.0 MB free, and the run needs 15.5 MB");
        assert_eq!(shortage(12_582_912, 12_600_000), "12582912 bytes free, and the run needs 12600000 bytes");
    }
}
