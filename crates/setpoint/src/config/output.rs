//! Checks that results can be written, before anything long is started.

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use setpoint_files::words;

use super::Problems;
use crate::failure::{Failure, Outcome};

/// The kind of thing that a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// A file to write.
    File,
    /// A folder to write files into.
    Folder,
}

/// The longest ending that a file's name has until the file is finished.
const UNFINISHED: &str = ".partial";

/// Notes why the setting `output` cannot be written.
pub(crate) fn validate_output(path: Option<&PathBuf>, target: Target, problems: &mut Problems<'_>) {
    validate_target(path, target, "output", problems);
}

/// Notes why the path of the setting `key` cannot be written.
pub(crate) fn validate_target(path: Option<&PathBuf>, target: Target, key: &str, problems: &mut Problems<'_>) {
    if let Some(problem) = path.and_then(|path| problem(path, target)) {
        problems.add(key, problem);
    }
}

/// Fails if the path that a flag gives cannot be written.
pub fn require_target(path: &Path, target: Target, flag: &str) -> Outcome {
    match problem(path, target) {
        Some(problem) => Err(Failure::usage(flag, problem)),
        None => Ok(()),
    }
}

/// Returns why nothing could be written to the path, or `None`. Folders that are missing count as writable where they could be created;
/// nothing is left behind.
fn problem(path: &Path, target: Target) -> Option<String> {
    let shown = path.display();
    if path.as_os_str().is_empty() {
        return Some("the path is empty".to_owned());
    }
    let found = match fs::metadata(path) {
        Ok(found) => Some(found),
        Err(error) if is_absent(&error) => None,
        Err(error) => return Some(format!("`{shown}` cannot be written: {error}")),
    };
    match (target, found) {
        (Target::File, Some(found)) if found.is_dir() => {
            return Some(format!("`{shown}` is a folder: expected the name of a file to write"));
        }
        (Target::File, None)
            if path.to_string_lossy().ends_with(std::path::is_separator) || path.file_name().is_none() =>
        {
            return Some(format!("`{shown}` names a folder: expected the name of a file to write"));
        }
        // A device or a pipe, which is written in place.
        (Target::File, Some(found)) if !found.is_file() => return None,
        (Target::Folder, Some(found)) if !found.is_dir() => {
            return Some(format!("`{shown}` is a file: expected a folder"));
        }
        _ => {}
    }
    let folder = match target {
        Target::File => path.parent().unwrap_or(Path::new("")),
        Target::Folder => path,
    };
    let existing = match nearest(folder) {
        Ok(existing) => existing,
        Err(reason) => return Some(format!("`{shown}` cannot be written: {reason}")),
    };
    // Below a folder that is missing, a name that is too long has not been noticed yet.
    for part in path.strip_prefix(existing).unwrap_or(path) {
        let mut name = part.to_owned();
        name.push(UNFINISHED);
        if fs::symlink_metadata(existing.join(name)).is_err_and(|error| error.kind() == ErrorKind::InvalidFilename) {
            let length = part.len();
            return Some(format!("`{shown}` cannot be written: a name of {length} bytes in it is too long"));
        }
    }
    let tried = tempfile::Builder::new()
        .prefix(".setpoint-")
        .tempfile_in(existing)
        .and_then(|mut file| file.write_all(b"Can this be written?\n"));
    tried.err().map(|error| {
        let reason = words::system(&error);
        // The file that was tried has a name that says nothing.
        let reason = reason.split(" at path ").next().unwrap_or(&reason);
        format!("`{shown}` cannot be written: {}: {reason}", existing.display())
    })
}

/// Returns the deepest folder on the way to `folder` that exists.
fn nearest(folder: &Path) -> Result<&Path, String> {
    for candidate in folder.ancestors() {
        let candidate = if candidate.as_os_str().is_empty() { Path::new(".") } else { candidate };
        match fs::metadata(candidate) {
            Ok(found) if found.is_dir() => return Ok(candidate),
            Ok(_) => return Err(format!("{} is a file, not a folder", candidate.display())),
            Err(error) if is_absent(&error) => {
                if fs::symlink_metadata(candidate).is_ok() {
                    return Err(format!("{} is a link to nothing", candidate.display()));
                }
            }
            Err(error) => return Err(format!("{}: {error}", candidate.display())),
        }
    }
    Ok(Path::new("."))
}

fn is_absent(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_written_is_found_and_nothing_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("file"), "").unwrap();
        fs::create_dir(at("folder")).unwrap();
        for (name, target) in [
            ("new.jsonl", Target::File),
            ("file", Target::File),
            ("no/such/folder/new.jsonl", Target::File),
            ("folder", Target::Folder),
            ("no/such/folder", Target::Folder),
        ] {
            assert_eq!(problem(&at(name), target), None, "{name}");
        }
        for (name, target, reason) in [
            ("folder", Target::File, "is a folder"),
            ("new/", Target::File, "names a folder"),
            ("file/new.jsonl", Target::File, "is a file, not a folder"),
            ("file", Target::Folder, "is a file"),
            ("file/deeper/still", Target::Folder, "is a file, not a folder"),
            (&"n".repeat(300), Target::File, "cannot be written"),
            // Too long for the file until it is finished, and behind a folder that is missing.
            (&"n".repeat(250), Target::File, "a name of 250 bytes in it is too long"),
            (&format!("no/{}/x.jsonl", "n".repeat(300)), Target::File, "a name of 300 bytes in it is too long"),
            (&format!("no/{}", "n".repeat(300)), Target::Folder, "a name of 300 bytes in it is too long"),
        ] {
            let found = problem(&at(name), target).unwrap_or_default();
            assert!(found.contains(reason), "{name}: {found}");
        }
        assert_eq!(problem(Path::new("plain-name"), Target::File), None);
        assert!(problem(Path::new(""), Target::File).is_some());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing is left behind");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_disk_that_takes_nothing_is_found() {
        let found = problem(Path::new("/proc/setpoint/x.jsonl"), Target::File).unwrap();
        assert!(found.contains("`/proc/setpoint/x.jsonl` cannot be written: /proc"), "{found}");
        assert_eq!(problem(Path::new("/dev/null"), Target::File), None);
    }
}
