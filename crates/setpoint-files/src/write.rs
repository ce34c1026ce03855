//! Writing one file, all of it or nothing.

use std::borrow::Cow;
use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::Error;
use crate::disk::{create_dir, gate, remove_file, rename, sync, sync_dir};

/// Bytes collected before they are written.
const BUFFER: usize = 1 << 20;

/// A file being written.
pub struct Writer {
    file: BufWriter<File>,
    /// The file's name in errors.
    path: PathBuf,
}

impl Writer {
    /// Starts a new file. One that exists is an error.
    pub fn create(path: &Path) -> Result<Self, Error> {
        Self::create_as(path, path)
    }

    /// Starts a new file at a temporary place. Errors name `path`.
    pub(crate) fn create_as(place: &Path, path: &Path) -> Result<Self, Error> {
        gate("create", path)?;
        #[cfg(any(test, feature = "test-faults"))]
        if crate::fault::FULL.take() {
            return Err(Error::io("write", path)(ErrorKind::StorageFull.into()));
        }
        Ok(Self::new(File::create_new(place).map_err(Error::io("create", path))?, path))
    }

    fn new(file: File, path: &Path) -> Self {
        Self { file: BufWriter::with_capacity(BUFFER, file), path: path.to_owned() }
    }

    /// Adds bytes. An error names the file, which one of [`Write`] does not.
    pub fn put(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.file.write_all(bytes).map_err(|source| self.failed(source))
    }

    /// Adds the file to an error.
    pub fn failed(&self, source: io::Error) -> Error {
        Error::io("write", &self.path)(source)
    }

    /// Brings everything to the disk.
    pub fn finish(mut self) -> Result<(), Error> {
        gate("write", &self.path)?;
        self.file.flush().map_err(|source| self.failed(source))?;
        sync(self.file.get_ref(), &self.path)
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Writes a file under a temporary name in its folder, syncs it and renames it: a reader sees the old file or the new one.
/// Folders on the way to it are created. A link is followed, and a device or a pipe is written in place.
///
/// # Errors
/// When the disk refuses; whatever `fill` returns. The file that was there is then untouched, and nothing else is left behind.
pub fn write<E: From<Error>>(path: &Path, fill: impl FnOnce(&mut Writer) -> Result<(), E>) -> Result<(), E> {
    let target = match fs::symlink_metadata(path) {
        Ok(found) if found.is_symlink() => fs::canonicalize(path).map_or(Cow::Borrowed(path), Cow::Owned),
        _ => Cow::Borrowed(path),
    };
    if fs::metadata(&target).is_ok_and(|found| !found.is_file() && !found.is_dir()) {
        let file = File::options().write(true).open(path).map_err(Error::io("write", path))?;
        let mut writer = Writer::new(file, path);
        fill(&mut writer)?;
        return writer.flush().map_err(|source| writer.failed(source).into());
    }
    put_in_place(&target, path, ".writing-", fill)
}

/// Does the same, and replaces a link, a device or a pipe. The temporary name begins with `prefix`, by which a caller finds what
/// a process that died has left.
pub fn replace<E: From<Error>>(
    path: &Path,
    prefix: &str,
    fill: impl FnOnce(&mut Writer) -> Result<(), E>,
) -> Result<(), E> {
    put_in_place(path, path, prefix, fill)
}

/// Replaces `target`. Errors name `path`.
fn put_in_place<E: From<Error>>(
    target: &Path,
    path: &Path,
    prefix: &str,
    fill: impl FnOnce(&mut Writer) -> Result<(), E>,
) -> Result<(), E> {
    let folder = match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    create_dir(folder)?;
    let (mut temporary, mut writer) = Temporary::create(folder, path, prefix)?;
    fill(&mut writer)?;
    writer.finish()?;
    rename(&temporary.place, target).map_err(|error| Error { action: "rename to", path: path.to_owned(), ..error })?;
    temporary.renamed = true;
    Ok(sync_dir(folder)?)
}

/// A file under a temporary name. Dropped before it is renamed, it is removed.
struct Temporary {
    place: PathBuf,
    renamed: bool,
}

impl Temporary {
    /// Creates a file under a name of its own. Errors name `path`.
    fn create(folder: &Path, path: &Path, prefix: &str) -> Result<(Self, Writer), Error> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        loop {
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let place = folder.join(format!("{prefix}{}-{count}", process::id()));
            match Writer::create_as(&place, path) {
                // Left by a process with the same id that died, or in use on another machine.
                Err(error) if error.source.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
                Ok(writer) => return Ok((Self { place, renamed: false }, writer)),
            }
        }
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.renamed {
            // Nothing can be done about a failure here, and the error that led here matters more.
            let _ = remove_file(&self.place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault;

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
        entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn whatever_operation_fails_the_old_file_or_the_new_one_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        let put = |text: &str| replace(&path, ".unfinished-", |out| out.put(text.as_bytes()));
        // Folder, file, bytes, file's sync, name, folder's sync.
        for operations in 0..=6 {
            let expected = if operations < 5 { "old" } else { "new" };
            for dies in [false, true] {
                put("old").unwrap();
                if dies {
                    fault::after(Some(operations))
                } else {
                    fault::once_after(operations)
                };
                assert_eq!(put("new").is_ok(), operations == 6, "operation {operations}");
                fault::after(None);
                assert_eq!(fs::read_to_string(&path).unwrap(), expected, "operation {operations}");
                // Only a process that dies leaves its file behind.
                let left: Vec<_> = names(dir.path()).into_iter().filter(|name| name != "a.json").collect();
                assert_eq!(left.len(), usize::from(dies && (2..5).contains(&operations)), "{left:?}");
                for name in left {
                    assert!(name.starts_with(".unfinished-"), "{name}");
                    fs::remove_file(dir.path().join(name)).unwrap();
                }
            }
        }
    }

    #[test]
    fn a_failure_leaves_the_old_file_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.jsonl");
        fs::write(&path, "old").unwrap();
        let full = |out: &mut Writer| out.put(b"half").and(Err(out.failed(ErrorKind::StorageFull.into())));
        let error = write(&path, full).unwrap_err();
        assert_eq!((error.action, error.source.kind(), &error.path), ("write", ErrorKind::StorageFull, &path));
        let panics = std::panic::catch_unwind(|| write(&path, |_| -> Result<(), Error> { panic!("in the middle") }));
        assert!(panics.is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(names(dir.path()), ["out.jsonl"]);
    }

    #[test]
    fn a_missing_folder_is_created_or_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("no/such/out.jsonl");
        write(&path, |out| out.put(b"new")).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        let message = write(&path.join("x/out.jsonl"), |out| out.put(b"new")).unwrap_err().to_string();
        assert!(message.contains("out.jsonl/x"), "{message}");
    }

    #[cfg(unix)]
    #[test]
    fn links_and_devices_stay_what_they_are() {
        use std::os::unix::fs::{PermissionsExt, symlink};

        let dir = tempfile::tempdir().unwrap();
        let [path, link, null] = ["out.jsonl", "link.jsonl", "null"].map(|name| dir.path().join(name));
        symlink(&path, &link).unwrap();
        fs::write(&path, "old").unwrap();
        let mode = || fs::metadata(&path).unwrap().permissions().mode();
        let of_new_files = mode();
        write(&link, |out| out.put(b"new")).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), mode()), ("new", of_new_files));
        symlink("/dev/null", &null).unwrap();
        write(&null, |out| out.put(b"new")).unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
        replace(&link, ".writing-", |out| out.put(b"newer")).unwrap();
        assert!(!fs::symlink_metadata(&link).unwrap().is_symlink());
    }
}
