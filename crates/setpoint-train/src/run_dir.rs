//! The folder of a run, and its lock.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::{Change, Error, Identity, checkpoint, storage};

/// Files that give a run away.
const TRACES: [&str; 2] = [RunDir::METRICS, RunDir::CHECKPOINTS];

/// A run's folder, locked against other processes for as long as the value lives.
///
/// ```text
/// run.lock            process id of the holder
/// metrics.jsonl       one JSON object a line, trl's names
/// samples.jsonl       generations made during training
/// responses.jsonl     numbers of single responses, a line for each step or evaluation that is logged
/// tensorboard/        event files
/// checkpoints/        step-00000100/ …
/// ```
///
/// The caller adds its resolved settings and versions with [`RunDir::write_text`]. Checkpoints hold checksums of their files and of the
/// logs, and the [`Identity`] of the run.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    /// Holds the lock.
    _lock: File,
}

impl RunDir {
    /// Name of the metrics file.
    pub const METRICS: &'static str = "metrics.jsonl";
    /// Name of the file of samples.
    pub const SAMPLES: &'static str = "samples.jsonl";
    /// Name of the file of single responses' numbers.
    pub const RESPONSES: &'static str = "responses.jsonl";
    /// Name of the folder of TensorBoard event files.
    pub const TENSORBOARD: &'static str = "tensorboard";
    /// Name of the folder of checkpoints.
    pub const CHECKPOINTS: &'static str = "checkpoints";
    /// The lock file. It stays behind; the lock itself ends with the process.
    pub(crate) const LOCK: &'static str = "run.lock";

    /// A folder for a new run, created where it does not exist.
    ///
    /// # Errors
    /// When the folder holds a run already, or another process uses it.
    pub fn create(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        setpoint_files::create_dir(path)?;
        let run = Self::lock(path)?;
        for found in TRACES {
            if path.join(found).exists() {
                return Err(Error::RunExists { path: path.to_path_buf(), found });
            }
        }
        Ok(run)
    }

    /// Returns whether a folder holds steps of a run: no new one can be created there.
    pub fn has_traces(path: impl AsRef<Path>) -> bool {
        TRACES.iter().any(|found| path.as_ref().join(found).exists())
    }

    /// The folder of a run that is to go on. What a killed process left half-written is removed.
    ///
    /// # Errors
    /// When there is no such folder, or another process uses it.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        if !path.is_dir() {
            return Err(Error::NoRun { path: path.to_path_buf() });
        }
        Self::lock(path)
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file or folder in it.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// Writes a text file, replacing an older one at once.
    ///
    /// # Errors
    /// When it cannot be written; an older file is then unharmed.
    pub fn write_text(&self, name: &str, text: &str) -> Result<(), Error> {
        storage::write_file(&self.path.join(name), text.as_bytes())
    }

    /// The checkpoints that bear a final name, oldest first. They are not checked.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn checkpoints(&self) -> Result<Vec<PathBuf>, Error> {
        Ok(checkpoint::list(&self.checkpoints_path())?.into_iter().map(|(_, path)| path).collect())
    }

    /// The step of the newest checkpoint, and the settings and inputs known so far that differ from those it was made with; `None` where
    /// there is no checkpoint. Inputs that only the checkpoint knows are not compared: [`fit`](crate::fit) does that.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn compare(&self, identity: &Identity) -> Result<Option<(u64, Vec<Change>)>, Error> {
        checkpoint::compare_newest(&self.checkpoints_path(), identity)
    }

    pub(crate) fn checkpoints_path(&self) -> PathBuf {
        self.path.join(Self::CHECKPOINTS)
    }

    fn lock(path: &Path) -> Result<Self, Error> {
        let lock_path = path.join(Self::LOCK);
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&lock_path)
            .map_err(Error::io("open", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // The holder may be about to write its id; the message is then less precise.
                let _ = lock.read_to_string(&mut holder);
                let holder = match holder.trim() {
                    "" => "unknown".to_string(),
                    id => id.to_string(),
                };
                return Err(Error::Locked { path: path.to_path_buf(), holder });
            }
            Err(TryLockError::Error(error)) => return Err(Error::io("lock", &lock_path)(error)),
        }
        lock.set_len(0)
            .and_then(|()| lock.seek(SeekFrom::Start(0)))
            .and_then(|_| writeln!(lock, "{}", std::process::id()))
            .map_err(Error::io("write", &lock_path))?;
        let run = Self { path: path.to_path_buf(), _lock: lock };
        storage::remove_unfinished(path)?;
        storage::remove_unfinished(&run.checkpoints_path())?;
        Ok(run)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_second_holder_is_refused_with_the_first_ones_id() {
        let dir = tempfile::tempdir().unwrap();
        let first = RunDir::create(dir.path()).unwrap();
        let error = RunDir::open(dir.path()).unwrap_err();
        assert!(matches!(error, Error::Locked { .. }), "{error}");
        let id = std::process::id().to_string();
        assert!(error.to_string().contains(&id), "{error}");
        drop(first);
        RunDir::open(dir.path()).unwrap();
    }

    #[test]
    fn a_folder_with_a_run_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(RunDir::METRICS), "{}\n").unwrap();
        let error = RunDir::create(dir.path()).unwrap_err();
        assert!(error.to_string().contains("metrics.jsonl exists"), "{error}");
        RunDir::open(dir.path()).unwrap();
    }

    #[test]
    fn a_missing_folder_is_not_a_run() {
        let dir = tempfile::tempdir().unwrap();
        let error = RunDir::open(dir.path().join("none")).unwrap_err();
        assert!(matches!(error, Error::NoRun { .. }), "{error}");
    }

    #[test]
    fn half_written_files_of_a_killed_process_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let checkpoints = dir.path().join(RunDir::CHECKPOINTS);
        fs::create_dir_all(checkpoints.join(".unfinished-step-00000001")).unwrap();
        fs::create_dir_all(checkpoints.join("step-00000002")).unwrap();
        fs::write(dir.path().join(".unfinished-config.toml"), "half").unwrap();
        let run = RunDir::open(dir.path()).unwrap();
        assert_eq!(fs::read_dir(&checkpoints).unwrap().count(), 1);
        assert!(!run.join(".unfinished-config.toml").exists());
    }
}
