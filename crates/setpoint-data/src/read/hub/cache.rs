//! Places in the hub's cache. Everything that a server sends is checked before it becomes part of a path.

use std::fs;
use std::path::{Path, PathBuf};

/// The kind of a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A data set.
    Dataset,
    /// A model.
    Model,
}

impl Kind {
    /// Returns the beginning of the name of a repository's folder in the cache.
    pub(super) fn prefix(self) -> &'static str {
        match self {
            Self::Dataset => "datasets--",
            Self::Model => "models--",
        }
    }
}

/// A repository's folder in the cache, in the layout of `huggingface_hub`: `refs/<branch>` holds a commit and
/// `snapshots/<commit>` its files. `.setpoint` holds what this program adds: unfinished downloads and lists of files.
pub(super) struct Repo {
    folder: PathBuf,
    revision: String,
}

/// The name of the folder for this program's own files, hidden from those that list data.
const OWN: &str = ".setpoint";

impl Repo {
    /// Names the folder of a repository. The id has the form that [`is_id`](super::is_id) accepts.
    pub(super) fn new(kind: Kind, cache: &Path, id: &str, revision: &str) -> Result<Self, String> {
        check_name(revision).map_err(|_| {
            format!("`revision` is {revision:?}; expected a branch, a tag or a commit such as main or refs/pr/1")
        })?;
        let folder = cache.join(format!("{}{}", kind.prefix(), id.replace('/', "--")));
        Ok(Self { folder, revision: revision.to_owned() })
    }

    /// The commit that the revision was at when it was last downloaded.
    pub(super) fn commit(&self) -> Option<String> {
        match setpoint_files::read_text(&self.folder.join("refs").join(&self.revision)) {
            Ok(text) => commit(text.trim()).ok().map(str::to_owned),
            Err(_) => commit(&self.revision).ok().map(str::to_owned),
        }
    }

    /// The folder of a commit's files.
    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    /// Records that the revision is at this commit.
    pub(super) fn point_at(&self, commit: &str) -> Result<(), String> {
        if self.revision == commit {
            return Ok(());
        }
        let path = self.make_parent(&["refs", &self.revision])?;
        if setpoint_files::read_text(&path).is_ok_and(|text| text.trim() == commit) {
            return Ok(());
        }
        write_whole(&path, commit.as_bytes())
    }

    /// Keeps the list of a commit's files, so that a split of which some files are missing is not taken for whole.
    pub(super) fn remember(&self, commit: &str, names: &[String]) {
        // A list that cannot be kept is no reason to fail: the files are here.
        if let (Ok(path), Ok(text)) = (self.make_parent(&[OWN, &list_name(commit)]), serde_json::to_vec(names)) {
            let _ = write_whole(&path, &text);
        }
    }

    /// The list that [`remember`](Self::remember) kept. Its names are as the server sent them.
    pub(super) fn remembered(&self, commit: &str) -> Option<Vec<String>> {
        serde_json::from_slice(&setpoint_files::read(&self.folder.join(OWN).join(list_name(commit))).ok()?).ok()
    }

    /// Where a file of a commit belongs; its folders are made.
    pub(super) fn place(&self, commit: &str, name: &str) -> Result<PathBuf, String> {
        self.make_parent(&["snapshots", commit, name])
    }

    /// Where a file of a commit is written until it is whole, and the file that is locked meanwhile.
    pub(super) fn unfinished(&self, commit: &str, name: &str) -> Result<(PathBuf, PathBuf), String> {
        let stem = crate::hash::hash_parts("hub file", &[commit.as_bytes(), name.as_bytes()]);
        Ok((self.make_parent(&[OWN, &format!("{stem}.part")])?, self.make_parent(&[OWN, &format!("{stem}.lock")])?))
    }

    /// Joins checked names to the repository's folder and makes the folders above the last. Those inside the repository's
    /// folder must be folders, not links: a link could lead out of the cache.
    fn make_parent(&self, parts: &[&str]) -> Result<PathBuf, String> {
        let failed = |path: &Path, e: std::io::Error| format!("could not create the folder {}: {e}", path.display());
        fs::create_dir_all(&self.folder).map_err(|e| failed(&self.folder, e))?;
        let mut names: Vec<&str> = Vec::new();
        for part in parts {
            check_name(part)?;
            names.extend(part.split('/'));
        }
        let last = names.pop().ok_or("no name")?;
        let mut path = self.folder.clone();
        for name in names {
            path.push(name);
            match fs::symlink_metadata(&path) {
                Ok(found) if found.is_dir() => {}
                Ok(_) => return Err(format!("{} is in the way: expected a folder of the cache", path.display())),
                Err(_) => match fs::create_dir(&path) {
                    // Made by another process meanwhile.
                    Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists && !path.is_symlink() => {}
                    made => made.map_err(|e| failed(&path, e))?,
                },
            }
        }
        Ok(path.join(last))
    }
}

fn list_name(commit: &str) -> String {
    format!("{commit}.files.json")
}

/// Writes a small file so that it is there whole or not at all, and never through a link.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), String> {
    let written = setpoint_files::replace(path, ".writing-", |out| out.put(bytes));
    written.map_err(|error| error.to_string())
}

/// Checks that a text is a commit: 40 hexadecimal digits, or 64 of a repository with SHA-256.
pub(super) fn commit(text: &str) -> Result<&str, String> {
    if matches!(text.len(), 40 | 64) && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        Ok(text)
    } else {
        Err(format!("the server names the commit {:?}; expected 40 hexadecimal digits", shorten(text)))
    }
}

/// Checks that a name, with `/` between its parts, stays inside the folder that it is joined to on every system.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    let part = |p: &str| {
        !p.is_empty()
            && p != "."
            && p != ".."
            && p.len() <= 255
            && !p.ends_with([' ', '.'])
            && !p.contains(['\\', ':'])
            && !p.chars().any(char::is_control)
    };
    if name.len() <= 1024 && name.split('/').all(part) {
        return Ok(());
    }
    let outside = name.contains('\\') || name.starts_with('/') || name.split('/').any(|p| p == "..");
    let reason = if outside { "which leaves the folder" } else { "which cannot be a file's name here" };
    Err(format!("the server lists the file {:?}, {reason}", shorten(name)))
}

/// The beginning of a text that may be long.
pub(super) fn shorten(text: &str) -> String {
    match text.char_indices().nth(120) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn names_that_stay_inside() {
        for name in ["train.jsonl", "data/train-00000-of-00001.parquet", "a b/é.json", ".gitattributes", "a/..b/c"] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
        let hostile = [
            "",
            "/",
            "/etc/passwd",
            "a//b",
            "a/",
            "../x",
            "a/../../x",
            "..",
            ".",
            "a/./b",
            "a\\..\\b",
            "C:x",
            "c:/x",
            "a\0b",
            "a\nb",
            "\u{1b}[2J",
            "trailing. ",
            "trailing.",
        ];
        for name in hostile {
            assert!(check_name(name).is_err(), "{name:?}");
        }
        assert!(check_name(&"x".repeat(256)).is_err());
        let message = check_name("../../train.jsonl").unwrap_err();
        assert_eq!(message, "the server lists the file \"../../train.jsonl\", which leaves the folder");
    }

    #[test]
    fn commits() {
        assert!(commit(COMMIT).is_ok());
        for not in ["", "main", "../../../X", "/abs", &COMMIT.to_uppercase(), &COMMIT[1..], &format!("{COMMIT}/..")] {
            assert!(commit(not).is_err(), "{not}");
        }
    }

    #[test]
    fn revisions_stay_inside() {
        let cache = tempfile::tempdir().unwrap();
        assert!(Repo::new(Kind::Dataset, cache.path(), "a/b", "refs/pr/1").is_ok());
        for revision in ["../../../x", "/etc/x", ""] {
            assert!(Repo::new(Kind::Dataset, cache.path(), "a/b", revision).is_err(), "{revision}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn links_are_not_followed_out_of_the_cache() {
        let (cache, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let repo = Repo::new(Kind::Dataset, cache.path(), "a/b", "main").unwrap();
        fs::create_dir_all(repo.snapshot(COMMIT)).unwrap();
        std::os::unix::fs::symlink(outside.path(), repo.snapshot(COMMIT).join("data")).unwrap();
        let message = repo.place(COMMIT, "data/train.jsonl").unwrap_err();
        assert!(message.contains("is in the way"), "{message}");
        // A link in the place of a small file is replaced, not written through.
        fs::create_dir_all(repo.folder.join("refs")).unwrap();
        fs::write(outside.path().join("ref"), "untouched").unwrap();
        std::os::unix::fs::symlink(outside.path().join("ref"), repo.folder.join("refs/main")).unwrap();
        repo.point_at(COMMIT).unwrap();
        assert_eq!(fs::read_to_string(outside.path().join("ref")).unwrap(), "untouched");
        assert_eq!(repo.commit().as_deref(), Some(COMMIT));
    }
}
