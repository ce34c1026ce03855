//! Uploads of a folder to a model repository of the hub, by the protocol of `huggingface_hub`.
//!
//! The hub says of each file whether it goes into the commit itself or into the storage of large files. The large files are sent first
//! ([`lfs`]), and one commit then adds everything, so a push that breaks off changes nothing. Files that the repository has already, and
//! large files that the storage has already, are not sent again. The token goes to the hub's own address alone ([`client`]).

mod client;
mod lfs;

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::json;
use sha1::{Digest as _, Sha1};

use self::client::{Body, Client};
use super::{Hub, cache, is_id, without_user};
use crate::error::Error;
use crate::hash::hex;

/// Files that the hub is asked about at a time.
const CHUNK: usize = 256;
/// The first bytes of a file, by which the hub tells text from other content.
const SAMPLE: u64 = 512;
/// The longest file that goes into the commit itself, and all of them together.
const LONGEST_REGULAR: u64 = 16 << 20;
const MOST_REGULAR: u64 = 128 << 20;

/// A file to upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushFile {
    /// Its name in the repository, with `/` between folders.
    pub name: String,
    /// The path of the file.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
}

/// The upload of a model.
#[derive(Debug, Clone)]
pub struct Push<'a> {
    /// The repository, as in `user/name`.
    pub id: &'a str,
    /// The branch that gets the commit; made if it does not exist.
    pub revision: &'a str,
    /// True if everyone may read the repository. A public one is refused unless this is set.
    pub public: bool,
    /// The first line of the commit.
    pub message: &'a str,
    /// The files.
    pub files: &'a [PushFile],
}

/// The result of an upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// The address of the repository.
    pub url: String,
    /// The commit; none if the repository had all files already.
    pub commit: Option<String>,
    /// The files that the commit adds or replaces.
    pub changed: usize,
    /// Bytes that were sent.
    pub sent: u64,
    /// True if the repository was made.
    pub created: bool,
    /// True if only its owner and those he names may read it.
    pub private: bool,
}

impl Push<'_> {
    /// Returns why a text is no name of a repository, or `None`.
    #[must_use]
    pub fn id_problem(id: &str) -> Option<String> {
        let named = is_id(id) && !id.contains("--") && !id.contains("..") && !id.ends_with(".git");
        (!named).then(|| {
            format!(
                "{:?} is no repository: expected USER/NAME, of letters, digits, `-`, `_` and `.`",
                cache::shorten(id)
            )
        })
    }

    /// Returns why a text is no name of a branch, or `None`.
    #[must_use]
    pub fn revision_problem(revision: &str) -> Option<String> {
        let named = cache::check_name(revision).is_ok() && !revision.contains([' ', '~', '^', '?', '*', '[']);
        (!named).then(|| format!("{:?} is no branch: expected a name such as main", cache::shorten(revision)))
    }
}

/// The hub's description of a repository.
#[derive(Deserialize)]
struct Repository {
    private: bool,
}

/// How the hub wants a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    Regular,
    Lfs,
}

/// The hub's answer about a file.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wanted {
    path: String,
    upload_mode: Mode,
    #[serde(default)]
    should_ignore: bool,
    /// The file that the repository has under this name: SHA-256 of a large file, else the identifier that git gives its content.
    #[serde(default)]
    oid: Option<String>,
}

#[derive(Deserialize)]
struct Preupload {
    files: Vec<Wanted>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Commit {
    commit_oid: String,
}

/// A file that differs from the repository's.
struct Changed<'a> {
    file: &'a PushFile,
    /// Content of a file that goes into the commit.
    content: Option<Vec<u8>>,
    /// SHA-256 of a large file.
    oid: String,
}

impl Hub {
    /// Uploads files as one commit. `progress` is told how many bytes of large files were sent, and of how many.
    ///
    /// # Errors
    /// [`Error::Push`] when there is no token, when the hub refuses or cannot be reached, and when a file cannot be read.
    pub fn push(&self, push: &Push<'_>, progress: &mut dyn FnMut(u64, u64)) -> Result<Pushed, Error> {
        let pushed = self.try_push(push, progress).map_err(|reason| Error::Push {
            id: push.id.to_owned(),
            endpoint: without_user(&self.endpoint),
            reason: match &self.token {
                Some(token) => self.without_user(reason).replace(token.as_str(), "…"),
                None => self.without_user(reason),
            },
        })?;
        Ok(Pushed { url: self.without_user(pushed.url), ..pushed })
    }

    fn try_push(&self, push: &Push<'_>, progress: &mut dyn FnMut(u64, u64)) -> Result<Pushed, String> {
        if self.offline {
            return Err("HF_HUB_OFFLINE is set: nothing is sent".to_owned());
        }
        let Some(token) = self.token.as_deref() else {
            return Err(
                "there is no token: set HF_TOKEN to one with write access, or log in with `hf auth login`".to_owned()
            );
        };
        upload(&Client::new(&self.endpoint, token, self.silence)?, push, progress)
    }
}

/// Finds or makes the repository, sends the large files, and makes the commit.
fn upload(client: &Client<'_>, push: &Push<'_>, progress: &mut dyn FnMut(u64, u64)) -> Result<Pushed, String> {
    if let Some(problem) = Push::id_problem(push.id).or_else(|| Push::revision_problem(push.revision)) {
        return Err(problem);
    }
    let (private, created) = find_or_create(client, push)?;
    if push.revision != "main" {
        make_branch(client, push)?;
    }
    let changed = find_changes(client, push)?;
    let url = client.url(push.id);
    if changed.is_empty() {
        return Ok(Pushed { url, commit: None, changed: 0, sent: 0, created, private });
    }
    let large: Vec<lfs::Object<'_>> = changed
        .iter()
        .filter(|changed| changed.content.is_none())
        .map(|changed| lfs::Object { file: changed.file, oid: &changed.oid })
        .collect();
    let mut sent = lfs::send(client, push, &large, progress)?;
    sent +=
        changed.iter().filter_map(|changed| changed.content.as_ref()).map(|content| content.len() as u64).sum::<u64>();
    let commit = commit(client, push, &changed)?;
    Ok(Pushed { url, commit: Some(commit), changed: changed.len(), sent, created, private })
}

/// Finds the repository, or makes it. Returns whether it is private, and whether it was made.
fn find_or_create(client: &Client<'_>, push: &Push<'_>) -> Result<(bool, bool), String> {
    let describe = || -> Result<Option<Repository>, String> {
        let answer = client.get(&client.url(&format!("api/models/{}", push.id)))?;
        match answer.status {
            404 => Ok(None),
            _ => answer.parse("the description of a repository", push.id).map(Some),
        }
    };
    if let Some(found) = describe()? {
        if !found.private && !push.public {
            return Err(
                "the repository is public, and everyone could read the model: give --public if that is meant".into()
            );
        }
        return Ok((found.private, false));
    }
    let (organization, name) = push.id.split_once('/').unwrap_or(("", push.id));
    let visibility = if push.public { "public" } else { "private" };
    let request = json!({ "name": name, "organization": organization, "visibility": visibility });
    let answer = client.post_json(&client.url("api/repos/create"), &request)?;
    // It may have been made meanwhile.
    if answer.status != 409 {
        answer.check(push.id)?;
    }
    // Not before it is certain who can read it is anything sent.
    let made = describe()?.ok_or("the hub has just made the repository and does not find it: try again in a minute")?;
    if !made.private && !push.public {
        return Err("the hub made a public repository where a private one was asked for: nothing was sent".into());
    }
    Ok((made.private, answer.status != 409))
}

/// Makes the branch, unless it exists.
fn make_branch(client: &Client<'_>, push: &Push<'_>) -> Result<(), String> {
    let url = client.url_at(&format!("api/models/{}/branch", push.id), push.revision);
    let answer = client.post_json(&url, &json!({}))?;
    if answer.status == 409 { Ok(()) } else { answer.check(push.id) }
}

/// Asks the hub how it wants each file, and returns those that it does not have.
fn find_changes<'a>(client: &Client<'_>, push: &Push<'a>) -> Result<Vec<Changed<'a>>, String> {
    let url = client.url_at(&format!("api/models/{}/preupload", push.id), push.revision);
    let mut changed = Vec::new();
    let mut regular = 0;
    for files in push.files.chunks(CHUNK) {
        let described = files.iter().map(|file| {
            let sample = read(file, SAMPLE)?;
            Ok(json!({ "path": file.name, "sample": STANDARD.encode(sample), "size": file.bytes }))
        });
        let described = described.collect::<Result<Vec<_>, String>>()?;
        let answer = client.post_json(&url, &json!({ "files": described }))?;
        let wanted: Preupload = answer.parse("the list of files that it wants", push.id)?;
        for file in files {
            let found = wanted.files.iter().find(|wanted| wanted.path == file.name);
            let Wanted { upload_mode, should_ignore, oid, .. } =
                found.ok_or_else(|| format!("the hub does not say how it wants {}", file.name))?;
            if *should_ignore {
                return Err(format!("{}: the repository's .gitignore excludes it: change that file first", file.name));
            }
            // Nothing can be stored as a large file that is empty.
            let (content, own) = if *upload_mode == Mode::Lfs && file.bytes > 0 {
                (None, lfs::digest(file)?)
            } else {
                regular += file.bytes;
                if file.bytes > LONGEST_REGULAR || regular > MOST_REGULAR {
                    return Err(format!(
                        "{}: the hub wants it in the commit itself, which is for files of at most {} MiB",
                        file.name,
                        LONGEST_REGULAR >> 20
                    ));
                }
                let content = read(file, file.bytes)?;
                if client.is_secret_in(&content) {
                    return Err(format!("{} contains the token of the hub: remove it from the file", file.name));
                }
                let own = git_hash(&content);
                (Some(content), own)
            };
            if oid.as_ref() != Some(&own) {
                changed.push(Changed { file, content, oid: own });
            }
        }
    }
    Ok(changed)
}

/// Adds the files in one commit and returns its hash.
fn commit(client: &Client<'_>, push: &Push<'_>, changed: &[Changed<'_>]) -> Result<String, String> {
    let mut lines =
        format!("{}\n", json!({ "key": "header", "value": { "summary": push.message, "description": "" } }));
    for Changed { file, content, oid } in changed {
        let line = match content {
            Some(content) => {
                let content = STANDARD.encode(content);
                json!({ "key": "file", "value": { "content": content, "path": file.name, "encoding": "base64" } })
            }
            None => {
                json!({ "key": "lfsFile", "value": { "path": file.name, "algo": "sha256", "oid": oid, "size": file.bytes } })
            }
        };
        lines.push_str(&line.to_string());
        lines.push('\n');
    }
    let url = client.url_at(&format!("api/models/{}/commit", push.id), push.revision);
    // Not repeated: an answer that is lost may be that of a commit that was made.
    let answer = client.post_once(&url, &Body::Bytes { bytes: lines.as_bytes(), kind: "application/x-ndjson" })?;
    let commit: Commit = answer.parse("the hash of the commit", push.id)?;
    Ok(commit.commit_oid)
}

/// Reads the first bytes of a file.
fn read(file: &PushFile, most: u64) -> Result<Vec<u8>, String> {
    use std::io::Read as _;

    let mut bytes = Vec::new();
    setpoint_files::open(&file.path)
        .map_err(|error| error.to_string())?
        .take(most)
        .read_to_end(&mut bytes)
        .map_err(|error| setpoint_files::Error::io("read", &file.path)(error).to_string())?;
    Ok(bytes)
}

/// Returns the identifier that git gives a file of this content.
fn git_hash(content: &[u8]) -> String {
    let mut hash = Sha1::new();
    hash.update(format!("blob {}\0", content.len()));
    hash.update(content);
    hex(&hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_of_a_file_is_that_of_git() {
        // `printf 'hello\n' | git hash-object --stdin`, and that of nothing.
        assert_eq!(git_hash(b"hello\n"), "ce013625030ba8dba906f756967f9e9ca394464a");
        assert_eq!(git_hash(b""), "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391");
    }

    #[test]
    fn repositories_and_branches_have_names() {
        assert_eq!(Push::id_problem("someone/a-model_1.5"), None);
        for wrong in ["model", "a/b/c", "a--b/c", "a/b..c", "a/b.git", "/a", "a b/c", "../b", ""] {
            assert!(Push::id_problem(wrong).is_some_and(|problem| problem.contains("USER/NAME")), "{wrong}");
        }
        assert_eq!(Push::revision_problem("refs/pr/1"), None);
        for wrong in ["", "a b", "../main", "a:b", "main^"] {
            assert!(Push::revision_problem(wrong).is_some_and(|problem| problem.contains("no branch")), "{wrong:?}");
        }
    }
}
