//! Reading of small files, which may come from anybody: a configuration that is no file has no end, or never begins.

use std::fs::{self, File, FileType};
use std::io::{self, ErrorKind, Read as _};
use std::path::Path;

use crate::Error;

/// More bytes than any small file has: settings, the configuration of a model, a template, a note in a run folder.
pub const SMALL: u64 = 64 << 20;

/// More bytes than a file has that holds answers or results, row by row, and is read whole.
pub const LARGE: u64 = 1 << 30;

/// Reads a small file.
///
/// # Errors
/// When it cannot be read, is no regular file, or has more than [`SMALL`] bytes.
pub fn read(path: &Path) -> Result<Vec<u8>, Error> {
    read_up_to(path, SMALL)
}

/// Reads a small file of text.
///
/// # Errors
/// The errors of [`read`], and text that is not UTF-8.
pub fn read_text(path: &Path) -> Result<String, Error> {
    read_text_up_to(path, SMALL)
}

/// Reads a file of at most `most` bytes.
///
/// # Errors
/// When it cannot be read, is no regular file, or is longer.
pub fn read_up_to(path: &Path, most: u64) -> Result<Vec<u8>, Error> {
    let file = open(path)?;
    let failed = |source| Error::io("read", path)(source);
    let too_long = || failed(io::Error::new(ErrorKind::FileTooLarge, format!("it has more than {most} bytes")));
    // A file of the system may be longer than it says, and one with holes takes no space on the disk.
    let length = file.metadata().map_err(failed)?.len();
    if length > most {
        return Err(too_long());
    }
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > most { Err(too_long()) } else { Ok(bytes) }
}

/// Reads a file of text of at most `most` bytes.
///
/// # Errors
/// The errors of [`read_up_to`], and text that is not UTF-8.
pub fn read_text_up_to(path: &Path, most: u64) -> Result<String, Error> {
    String::from_utf8(read_up_to(path, most)?).map_err(|error| {
        let line = error.as_bytes()[..error.utf8_error().valid_up_to()].split(|&byte| byte == b'\n').count();
        Error::io("read", path)(io::Error::new(ErrorKind::InvalidData, format!("line {line} is not UTF-8 text")))
    })
}

/// Opens a regular file for reading. A pipe is refused before it is opened, which would wait for whoever writes to it.
///
/// # Errors
/// When it cannot be opened or is no regular file.
pub fn open(path: &Path) -> Result<File, Error> {
    let failed = |source| Error::io("read", path)(source);
    let found = fs::metadata(path).map_err(failed)?.file_type();
    if !found.is_file() {
        return Err(failed(io::Error::new(ErrorKind::InvalidInput, format!("it is {}, not a file", kind(found)))));
    }
    File::open(path).map_err(failed)
}

/// Returns what is at a place, with its article.
pub fn kind(found: FileType) -> &'static str {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt as _;
        if found.is_fifo() {
            return "a pipe";
        }
        if found.is_char_device() || found.is_block_device() {
            return "a device";
        }
        if found.is_socket() {
            return "a socket";
        }
    }
    match () {
        () if found.is_dir() => "a folder",
        () if found.is_symlink() => "a link",
        () => "a file",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_up_to_its_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        fs::write(&path, "äb").unwrap();
        assert_eq!(read_text_up_to(&path, 3).unwrap(), "äb");
        let message = read_text_up_to(&path, 2).unwrap_err().to_string();
        assert!(message.contains("a.json: it has more than 2 bytes"), "{message}");
        fs::write(&path, b"good\n\xff").unwrap();
        let message = read_text(&path).unwrap_err().to_string();
        assert!(message.contains("line 2 is not UTF-8 text"), "{message}");
        // A file with a hole, which would be larger than the memory.
        File::create(&path).unwrap().set_len(1 << 40).unwrap();
        assert_eq!(read(&path).unwrap_err().source.kind(), ErrorKind::FileTooLarge);
        assert_eq!(read(&dir.path().join("none")).unwrap_err().source.kind(), ErrorKind::NotFound);
    }

    #[test]
    fn only_a_regular_file_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let message = read(dir.path()).unwrap_err().to_string();
        assert!(message.contains("it is a folder, not a file"), "{message}");
        #[cfg(unix)]
        {
            let link = dir.path().join("zero");
            std::os::unix::fs::symlink("/dev/zero", &link).unwrap();
            let message = read(&link).unwrap_err().to_string();
            assert!(message.contains("it is a device, not a file"), "{message}");
            let pipe = dir.path().join("pipe");
            // Opened, it would wait for a process that writes.
            assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
            let message = read(&pipe).unwrap_err().to_string();
            assert!(message.contains("it is a pipe, not a file"), "{message}");
        }
    }
}
