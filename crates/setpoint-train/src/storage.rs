//! Writing so that a crash at any moment leaves either the old or the new state.
//!
//! Every change the engine makes to the disk goes through this module: a file is complete once it
//! is synced, and visible under its name once it is renamed and the folder is synced as well. The
//! unit tests let the n-th of these operations fail, as if the process had died there.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use crate::Error;

/// Bytes moved at a time when a file is checked.
const CHUNK: usize = 1 << 20;

/// Prefix of a file or folder that is being written; left behind only by a process that died.
pub(crate) const UNFINISHED: &str = ".unfinished-";

/// Length and checksum of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
        let mut file = File::open(path).map_err(Error::io("open", path))?.take(length);
        let mut buffer = vec![0; CHUNK];
        let mut digest = Self { bytes: 0, crc32c: 0 };
        loop {
            let read = file.read(&mut buffer).map_err(Error::io("read", path))?;
            if read == 0 {
                return Ok(digest);
            }
            digest.bytes += read as u64;
            digest.crc32c = crc32c::crc32c_append(digest.crc32c, &buffer[..read]);
        }
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

/// A file being written, with a running checksum.
pub(crate) struct Writer {
    file: BufWriter<File>,
    path: PathBuf,
    digest: Digest,
}

impl Writer {
    /// Starts a new file; an existing one is emptied.
    pub(crate) fn create(path: &Path) -> Result<Self, Error> {
        gate("create", path)?;
        #[cfg(test)]
        if fault::is_full() {
            return Err(Error::io("write", path)(std::io::ErrorKind::StorageFull.into()));
        }
        let file = File::create(path).map_err(Error::io("create", path))?;
        Ok(Self {
            file: BufWriter::with_capacity(CHUNK, file),
            path: path.to_path_buf(),
            digest: Digest { bytes: 0, crc32c: 0 },
        })
    }

    /// Adds bytes.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.file.write_all(bytes).map_err(Error::io("write", &self.path))?;
        self.digest.bytes += bytes.len() as u64;
        self.digest.crc32c = crc32c::crc32c_append(self.digest.crc32c, bytes);
        Ok(())
    }

    /// Brings everything to the disk.
    pub(crate) fn finish(mut self) -> Result<Digest, Error> {
        gate("write", &self.path)?;
        self.file.flush().map_err(Error::io("write", &self.path))?;
        sync(self.file.get_ref(), &self.path)?;
        Ok(self.digest)
    }
}

/// A log to which whole records are appended, each visible to readers when `append` returns.
#[derive(Debug)]
pub(crate) struct AppendLog {
    file: File,
    path: PathBuf,
    bytes: u64,
    /// Of everything in it; of what was appended alone where it was opened without looking at its content.
    crc32c: u32,
    /// Whether an append failed, which may have left a part of its record behind `bytes`.
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
        #[cfg(test)]
        if fault::fires() {
            // A process that dies within `write` leaves a torn record.
            let half = &record[..record.len() / 2];
            self.file.write_all(half).map_err(Error::io("append to", &self.path))?;
            return Err(fault::error("append to", &self.path));
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
pub(crate) fn write_file(path: &Path, bytes: &[u8]) -> Result<Digest, Error> {
    let parent = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let unfinished = parent.join(format!("{UNFINISHED}{name}"));
    let mut writer = Writer::create(&unfinished)?;
    writer.write(bytes)?;
    let digest = writer.finish()?;
    rename(&unfinished, path)?;
    sync_dir(parent)?;
    Ok(digest)
}

/// Renames a file or folder; durable after [`sync_dir`] of the parent.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<(), Error> {
    gate("rename", from)?;
    fs::rename(from, to).map_err(Error::io("rename", from))
}

/// Creates a folder and its parents.
pub(crate) fn create_dir(path: &Path) -> Result<(), Error> {
    gate("create", path)?;
    fs::create_dir_all(path).map_err(Error::io("create", path))
}

/// Makes names in a folder durable.
pub(crate) fn sync_dir(path: &Path) -> Result<(), Error> {
    gate("sync", path)?;
    // Only Unix lets a folder be opened and synced; elsewhere the system does it by itself.
    #[cfg(test)]
    if fault::syncs_are_skipped() {
        return Ok(());
    }
    #[cfg(unix)]
    File::open(path).and_then(|dir| dir.sync_all()).map_err(Error::io("sync", path))?;
    Ok(())
}

/// Removes a folder so that a crash in between leaves nothing that looks like a whole one.
pub(crate) fn remove_dir(path: &Path) -> Result<(), Error> {
    let parent = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let unfinished = parent.join(format!("{UNFINISHED}removed-{name}"));
    remove_tree(&unfinished)?;
    rename(path, &unfinished)?;
    remove_tree(&unfinished)
}

/// Removes what a process that died has left in a folder.
pub(crate) fn remove_unfinished(dir: &Path) -> Result<(), Error> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io("list", dir)(error)),
    };
    for entry in entries {
        let path = entry.map_err(Error::io("list", dir))?.path();
        let unfinished = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(UNFINISHED));
        if unfinished {
            remove_tree(&path)?;
        }
    }
    Ok(())
}

/// Removes a file or folder with all that is in it; one that does not exist is fine.
pub(crate) fn remove_tree(path: &Path) -> Result<(), Error> {
    gate("remove", path)?;
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(Error::io("remove", path)),
    }
}

/// Bytes that can still be written to the disk of a folder, where the system tells.
pub(crate) fn free_space(path: &Path) -> Option<u64> {
    #[cfg(test)]
    if let Some(free) = fault::free() {
        return Some(free);
    }
    fs4::available_space(path).ok()
}

fn sync(file: &File, path: &Path) -> Result<(), Error> {
    gate("sync", path)?;
    #[cfg(test)]
    if fault::syncs_are_skipped() {
        return Ok(());
    }
    file.sync_all().map_err(Error::io("sync", path))
}

/// Where a test can make an operation fail; nothing elsewhere.
fn gate(action: &'static str, path: &Path) -> Result<(), Error> {
    #[cfg(test)]
    if fault::fires() {
        return Err(fault::error(action, path));
    }
    let _ = (action, path);
    Ok(())
}

/// Failing operations for the tests.
#[cfg(test)]
pub(crate) mod fault {
    use std::cell::Cell;
    use std::path::Path;

    use crate::Error;

    thread_local! {
        static LEFT: Cell<Option<u64>> = const { Cell::new(None) };
        static FIRED: Cell<bool> = const { Cell::new(false) };
        static ONCE: Cell<bool> = const { Cell::new(false) };
        static SKIP_SYNCS: Cell<bool> = const { Cell::new(false) };
        static FULL: Cell<bool> = const { Cell::new(false) };
        static FREE: Cell<Option<u64>> = const { Cell::new(None) };
    }

    /// Lets `count` operations of this thread succeed; all later ones fail, as for a process that
    /// has died. `None` lets everything succeed.
    pub(crate) fn after(count: Option<u64>) {
        LEFT.set(count);
        ONCE.set(false);
        FIRED.set(false);
    }

    /// Lets a single operation of this thread fail, the one after `count` others.
    pub(crate) fn once_after(count: u64) {
        after(Some(count));
        ONCE.set(true);
    }

    pub(super) fn fires() -> bool {
        match LEFT.get() {
            None => false,
            Some(0) => {
                FIRED.set(true);
                if ONCE.get() {
                    LEFT.set(None);
                }
                true
            }
            Some(left) => {
                LEFT.set(Some(left - 1));
                false
            }
        }
    }

    /// Lets this thread's syncs do nothing, in tests of hundreds of runs: only a power failure would show it.
    pub(crate) fn skip_syncs() {
        SKIP_SYNCS.set(true);
    }

    pub(super) fn syncs_are_skipped() -> bool {
        SKIP_SYNCS.get()
    }

    /// Leaves no room on the disk for the next file; there is room again for those after it.
    pub(crate) fn fill() {
        FULL.set(true);
    }

    pub(super) fn is_full() -> bool {
        FULL.take()
    }

    /// Gives the disk so many bytes of free space.
    pub(crate) fn leave(bytes: Option<u64>) {
        FREE.set(bytes);
    }

    pub(super) fn free() -> Option<u64> {
        FREE.get()
    }

    /// Whether the failure has come up.
    pub(crate) fn fired() -> bool {
        FIRED.get()
    }

    pub(super) fn error(action: &'static str, path: &Path) -> Error {
        Error::io(action, path)(std::io::Error::other("injected fault"))
    }
}
