//! Writing so that a crash at any moment leaves either the old or the new state.
//!
//! A file is complete once it is synced, and visible under its name once it is renamed and its folder is synced as well.
//! [`write()`] does this for one file, [`Stage`] for several that belong together. The operations they are made of are public for
//! other needs, such as a folder that appears as a whole. Each fails when the disk refuses.
//!
//! [`read`] and its kin read files that are small by their nature, and [`words`] says in plain words what is wrong with them.
//!
//! Each operation first passes a [`gate`]. With the feature `test-faults`, a test can let the n-th one fail, as if the process
//! had died there.

mod disk;
#[cfg(any(test, feature = "test-faults"))]
pub mod fault;
mod read;
mod stage;
pub mod words;
mod write;

use std::io;
use std::path::PathBuf;

pub use self::disk::{create_dir, free_space, gate, remove_tree, rename, sync, sync_dir};
pub use self::read::{LARGE, SMALL, kind, open, read, read_text, read_text_up_to, read_up_to};
pub use self::stage::Stage;
pub use self::write::{Writer, replace, write};

/// An operation on the disk that failed. The crates that write files turn it into their own error.
#[derive(Debug, thiserror::Error)]
#[error("could not {action} {}: {}", path.display(), words::system(source))]
pub struct Error {
    /// The verb, such as "write".
    pub action: &'static str,
    /// The file or folder.
    pub path: PathBuf,
    /// The system's reason.
    pub source: io::Error,
}

impl Error {
    /// Returns a function for `map_err` that adds the attempted action and its place.
    pub fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self { action, path, source }
    }
}
