//! The operations that change the disk.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::Path;

use crate::Error;
#[cfg(any(test, feature = "test-faults"))]
use crate::fault;

/// Lets a test make the operation that follows fail; does nothing without the feature `test-faults`.
pub fn gate(action: &'static str, path: &Path) -> Result<(), Error> {
    #[cfg(any(test, feature = "test-faults"))]
    if fault::fires() {
        return Err(Error::io(action, path)(io::Error::other("injected fault")));
    }
    let _ = (action, path);
    Ok(())
}

/// Creates a folder and its parents.
pub fn create_dir(path: &Path) -> Result<(), Error> {
    gate("create", path)?;
    fs::create_dir_all(path).map_err(Error::io("create", path))
}

/// Renames a file or folder; durable after [`sync_dir`] of the parent.
pub fn rename(from: &Path, to: &Path) -> Result<(), Error> {
    gate("rename", from)?;
    fs::rename(from, to).map_err(Error::io("rename", from))
}

/// Brings the bytes of a file to the disk. `path` is its name in errors.
pub fn sync(file: &File, path: &Path) -> Result<(), Error> {
    gate("sync", path)?;
    #[cfg(any(test, feature = "test-faults"))]
    if fault::SKIP_SYNCS.get() {
        return Ok(());
    }
    file.sync_all().map_err(Error::io("sync", path))
}

/// Makes the names in a folder durable, as far as the system can.
pub fn sync_dir(path: &Path) -> Result<(), Error> {
    // The answers of a file system that cannot sync a folder, and of a folder that can be written and not opened.
    const UNABLE: [ErrorKind; 3] = [ErrorKind::InvalidInput, ErrorKind::Unsupported, ErrorKind::PermissionDenied];
    // Only Unix lets a folder be opened and synced; elsewhere the system does it by itself.
    if !cfg!(unix) {
        return Ok(());
    }
    match File::open(path).map_err(Error::io("sync", path)).and_then(|dir| sync(&dir, path)) {
        // The files themselves are safe.
        Err(error) if UNABLE.contains(&error.source.kind()) => Ok(()),
        synced => synced,
    }
}

/// Removes a file or folder with all that is in it; one that does not exist is fine.
pub fn remove_tree(path: &Path) -> Result<(), Error> {
    if path.is_dir() { remove(path, || fs::remove_dir_all(path)) } else { remove_file(path) }
}

/// Removes a file, and no folder; one that does not exist is fine.
pub(crate) fn remove_file(path: &Path) -> Result<(), Error> {
    remove(path, || fs::remove_file(path))
}

fn remove(path: &Path, remove: impl FnOnce() -> io::Result<()>) -> Result<(), Error> {
    gate("remove", path)?;
    match remove() {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(Error::io("remove", path)),
    }
}

/// Returns the bytes that can still be written to the disk of a file or folder, if the system tells.
pub fn free_space(path: &Path) -> Option<u64> {
    #[cfg(any(test, feature = "test-faults"))]
    if let Some(free) = fault::FREE.get() {
        return Some(free);
    }
    fs4::available_space(path).ok()
}
