//! Files of a run: checksums, logs that only grow, and what a process that died has left.
//!
//! Every change the engine makes to the disk goes through this module or [`setpoint_files`]. The unit tests let the n-th of
//! these operations fail, as if the process had died there.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use setpoint_files::{gate, remove_tree, rename, sync};

use crate::Error;

/// Bytes moved at a time when a file is checked.
const CHUNK: usize = 1 << 20;

/// Prefix of a file or folder that is being written; left behind only by a process that died.
pub(crate) const UNFINISHED: &str = ".unfinished-";

/// Length and checksum of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Digest {
    pub(crate) bytes: u64,
    pub(crate) crc32c: u32,
}

impl Digest {
    /// Reads a whole file.
    pub(crate) fn of_file(path: &Path) -> Result<Self, Error> {
        Self::of_start(path, u64::MAX)
    }

    /// Reads the first `length` bytes of a file, or all where it has fewer.
    pub(crate) fn of_start(path: &Path, length: u64) -> Result<Self, Error> {
        let mut file = setpoint_files::open(path)?.take(length);
        let mut buffer = vec![0; CHUNK];
        let mut digest = Self::default();
        loop {
            let read = file.read(&mut buffer).map_err(Error::io("read", path))?;
            if read == 0 {
                return Ok(digest);
            }
            digest.add(&buffer[..read]);
        }
    }

    /// Adds the next bytes of a file.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.crc32c = crc32c::crc32c_append(self.crc32c, bytes);
    }
}

/// The length of a file in bytes, and its CRC-32C in hexadecimal.
///
/// # Errors
/// When it cannot be read.
pub fn file_digest(path: impl AsRef<Path>) -> Result<(u64, String), Error> {
    let digest = Digest::of_file(path.as_ref())?;
    Ok((digest.bytes, format!("{:08x}", digest.crc32c)))
}

/// A log to which whole records are appended, each visible to readers when `append` returns.
#[derive(Debug)]
pub(crate) struct AppendLog {
    file: File,
    path: PathBuf,
    bytes: u64,
    /// Of everything in it; of what was appended alone where it was opened without looking at its content.
    crc32c: u32,
    /// True if an append failed, which may have left a part of its record behind `bytes`.
    torn: bool,
}

impl AppendLog {
    /// Opens a log and drops everything behind `keep` bytes. `expected`: the checksum of what is kept, where it is known.
    ///
    /// # Errors
    /// When the file is shorter than that, or other bytes than those that were written: nothing is dropped then.
    pub(crate) fn open(path: &Path, keep: u64, expected: Option<u32>) -> Result<Self, Error> {
        let mut log = Self::open_whole(path)?;
        if log.bytes >= keep {
            log.crc32c = Digest::of_start(path, keep)?.crc32c;
            if let Some(expected) = expected.filter(|&expected| expected != log.crc32c) {
                let found = log.crc32c;
                let reason = format!(
                    "its first {keep} bytes changed since the checkpoint was made (expected checksum {expected:08x}, found {found:08x})"
                );
                return Err(Error::corrupt(path, reason));
            }
        }
        log.truncate(keep)?;
        Ok(log)
    }

    /// Opens a whole log and locks it until it is dropped.
    pub(crate) fn open_locked(path: &Path) -> Result<Self, Error> {
        let log = Self::open_whole(path)?;
        match log.file.try_lock() {
            Ok(()) => Ok(log),
            Err(TryLockError::WouldBlock) => {
                Err(Error::Locked { path: path.to_path_buf(), holder: "(id unknown)".into() })
            }
            Err(TryLockError::Error(error)) => Err(Error::io("lock", path)(error)),
        }
    }

    /// Drops everything behind `keep` bytes.
    pub(crate) fn truncate(&mut self, keep: u64) -> Result<(), Error> {
        if self.bytes < keep {
            let reason = format!("expected at least {keep} bytes, found {}", self.bytes);
            return Err(Error::corrupt(&self.path, reason));
        }
        if self.bytes > keep {
            self.cut(keep)?;
            sync(&self.file, &self.path)?;
        }
        self.bytes = keep;
        Ok(())
    }

    fn cut(&mut self, keep: u64) -> Result<(), Error> {
        gate("truncate", &self.path)?;
        self.file.set_len(keep).map_err(Error::io("truncate", &self.path))
    }

    /// Opens a log with all that is in it.
    pub(crate) fn open_whole(path: &Path) -> Result<Self, Error> {
        gate("open", path)?;
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(Error::io("open", path))?;
        let bytes = file.metadata().map_err(Error::io("read", path))?.len();
        Ok(Self { file, path: path.to_path_buf(), bytes, crc32c: 0, torn: false })
    }

    /// Appends one record. Part of a record that could not be appended is removed first.
    pub(crate) fn append(&mut self, record: &[u8]) -> Result<(), Error> {
        self.mend()?;
        self.torn = true;
        if let Err(fault) = gate("append to", &self.path) {
            // A process that dies within `write` leaves a torn record.
            let half = &record[..record.len() / 2];
            self.file.write_all(half).map_err(Error::io("append to", &self.path))?;
            return Err(fault.into());
        }
        self.file.write_all(record).map_err(Error::io("append to", &self.path))?;
        self.torn = false;
        self.bytes += record.len() as u64;
        self.crc32c = crc32c::crc32c_append(self.crc32c, record);
        Ok(())
    }

    /// Removes what a failed append left.
    fn mend(&mut self) -> Result<(), Error> {
        if self.torn {
            self.cut(self.bytes)?;
            self.torn = false;
        }
        Ok(())
    }

    /// Brings the log to the disk and returns its length and checksum.
    pub(crate) fn sync(&mut self) -> Result<Digest, Error> {
        self.mend()?;
        sync(&self.file, &self.path)?;
        Ok(Digest { bytes: self.bytes, crc32c: self.crc32c })
    }
}

/// Replaces a file at once: readers see the old or the new text, never a part.
pub(crate) fn write_file(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    setpoint_files::replace(path, UNFINISHED, |out| Ok(out.put(bytes)?))
}

/// Removes a folder so that a crash in between leaves nothing that looks like a whole one.
pub(crate) fn remove_dir(path: &Path) -> Result<(), Error> {
    let parent = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let unfinished = parent.join(format!("{UNFINISHED}removed-{name}"));
    remove_tree(&unfinished)?;
    rename(path, &unfinished)?;
    Ok(remove_tree(&unfinished)?)
}

/// Removes what a process that died has left in a folder.
pub(crate) fn remove_unfinished(dir: &Path) -> Result<(), Error> {
    let unfinished =
        |path: &&PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(UNFINISHED));
    list(dir)?.iter().filter(unfinished).try_for_each(|path| Ok(remove_tree(path)?))
}

/// Lists a folder; one that does not exist is empty.
pub(crate) fn list(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    match fs::read_dir(dir).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect()) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(vec![]),
        listed => listed.map_err(Error::io("list", dir)),
    }
}
