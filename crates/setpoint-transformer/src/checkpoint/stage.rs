//! Files that appear together or not at all.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::Error;

/// A file being written.
pub(super) trait Sink: Write {
    /// Returns when the bytes are on the disk.
    fn sync(&mut self) -> io::Result<()>;
}

impl Sink for File {
    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }
}

pub(super) type Open = fn(&Path) -> io::Result<Box<dyn Sink>>;

/// Opens a new file on the disk.
pub(super) fn on_disk(path: &Path) -> io::Result<Box<dyn Sink>> {
    Ok(Box::new(File::create_new(path)?))
}

const HIDDEN: &str = ".saving";

/// A hidden folder inside the target folder, in which files are completed before the first of them takes its place.
///
/// Dropped without [`commit`](Self::commit), it takes everything it wrote with it.
pub(super) struct Stage {
    dir: PathBuf,
    hidden: PathBuf,
    made_dir: bool,
    open: Open,
    files: Vec<String>,
}

impl Stage {
    pub(super) fn new(dir: &Path, open: Open) -> Result<Self, Error> {
        let made_dir = !dir.exists();
        let hidden = dir.join(HIDDEN);
        let failed = |source| Error::Write { path: dir.to_owned(), source };
        // Left over from a process that died, if it exists: its space may be needed.
        match fs::remove_dir_all(&hidden) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(failed(source)),
            _ => fs::create_dir_all(&hidden).map_err(failed)?,
        }
        Ok(Self { dir: dir.to_owned(), hidden, made_dir, open, files: Vec::new() })
    }

    /// Writes a file by `fill` and waits until it is on the disk.
    pub(super) fn write(
        &mut self,
        name: &str,
        fill: impl FnOnce(&mut dyn Write) -> Result<(), Failed>,
    ) -> Result<(), Error> {
        let path = self.dir.join(name);
        let failed = |source| Error::Write { path: path.clone(), source };
        let mut sink = (self.open)(&self.hidden.join(name)).map_err(failed)?;
        {
            let mut writer = BufWriter::with_capacity(1 << 20, &mut *sink);
            let filled = fill(&mut writer);
            filled.map_err(|error| match error {
                Failed::Io(source) => failed(source),
                Failed::Other(error) => *error,
            })?;
            writer.flush().map_err(failed)?;
        }
        sink.sync().map_err(failed)?;
        self.files.push(name.to_owned());
        Ok(())
    }

    /// Puts the files in their places, in the order in which they were written, and removes other ones, some before and some after.
    pub(super) fn commit(mut self, before: &[&str], after: &[String]) -> Result<(), Error> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::Write { path, source }
        };
        for name in before {
            remove(&self.dir.join(name))?;
        }
        for name in std::mem::take(&mut self.files) {
            let target = self.dir.join(&name);
            fs::rename(self.hidden.join(&name), &target).map_err(failed(&target))?;
        }
        self.made_dir = false;
        for name in after {
            remove(&self.dir.join(name))?;
        }
        // The renames themselves are on the disk only when the folder is.
        #[cfg(unix)]
        File::open(&self.dir).and_then(|dir| dir.sync_all()).map_err(failed(&self.dir))?;
        Ok(())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // Nothing can be done about a failure here, and the error that led here matters more.
        let _ = fs::remove_dir_all(&self.hidden);
        if self.made_dir {
            let _ = fs::remove_dir(&self.dir);
        }
    }
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Error::Write { path: path.to_owned(), source }),
        _ => Ok(()),
    }
}

/// Why a file could not be filled.
pub(super) enum Failed {
    Io(io::Error),
    Other(Box<Error>),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}
