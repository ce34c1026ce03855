//! Data sets and models of the Hugging Face hub, downloaded to its cache.
//!
//! The server is not trusted: its answers never decide where a file is written ([`cache`]), and the token goes to the
//! hub's own address alone ([`http`]).

mod cache;
mod download;
mod http;
mod model;
mod push;

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use self::cache::{Kind, Repo};
use self::download::Wanted;
use self::http::Client;
pub use self::model::HubModel;
pub use self::push::{Push, PushFile, Pushed};
use super::folder;
use crate::config::DatasetConfig;
use crate::error::Error;

/// How long a server may stay silent unless a setting says otherwise; the same as in `huggingface_hub`.
const SILENCE: Duration = Duration::from_secs(10);
/// The longest list of files that is read.
const LONGEST_LIST: u64 = 64 << 20;

/// A hub client: server, cache and token.
#[derive(Clone)]
pub struct Hub {
    endpoint: String,
    cache: PathBuf,
    token: Option<String>,
    offline: bool,
    silence: Duration,
}

/// Without the token, and without a password in the address.
impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub")
            .field("endpoint", &without_user(&self.endpoint))
            .field("cache", &self.cache)
            .field("offline", &self.offline)
            .finish_non_exhaustive()
    }
}

/// The hub's description of a repository at a revision.
#[derive(Deserialize)]
struct Listing {
    siblings: Vec<Sibling>,
    sha: String,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    /// The length in bytes, where it was asked for.
    #[serde(default)]
    size: Option<u64>,
}

impl Hub {
    /// Reads the environment: `HF_ENDPOINT`, `HF_HUB_CACHE` or `HF_HOME`, `HF_TOKEN` (else the token stored in `HF_HOME`),
    /// `HF_HUB_OFFLINE`, `HF_HUB_DOWNLOAD_TIMEOUT` (seconds that a server may stay silent, 10 by default).
    #[must_use]
    pub fn from_env() -> Self {
        let variable = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
        let home = variable("HF_HOME").map(PathBuf::from).unwrap_or_else(|| {
            // Without a home directory the cache is in the working directory.
            std::env::home_dir().unwrap_or_default().join(".cache/huggingface")
        });
        let stored = || setpoint_files::read_text(&home.join("token")).ok();
        Self {
            endpoint: variable("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into()),
            token: variable("HF_TOKEN").or_else(stored).map(|t| t.trim().to_owned()).filter(|t| !t.is_empty()),
            cache: variable("HF_HUB_CACHE").map_or_else(|| home.join("hub"), PathBuf::from),
            offline: variable("HF_HUB_OFFLINE")
                .is_some_and(|v| matches!(v.as_str(), "1" | "true" | "TRUE" | "yes" | "YES" | "on" | "ON")),
            silence: variable("HF_HUB_DOWNLOAD_TIMEOUT")
                .and_then(|v| v.trim().parse().ok())
                .filter(|seconds| (1..=3600).contains(seconds))
                .map_or(SILENCE, Duration::from_secs),
        }
    }

    /// Names a server and a cache folder, without a token.
    pub fn new(endpoint: impl Into<String>, cache: impl Into<PathBuf>) -> Self {
        Self { endpoint: endpoint.into(), cache: cache.into(), token: None, offline: false, silence: SILENCE }
    }

    /// Adds a token, which is sent to this hub's address and to no other.
    #[must_use]
    pub fn with_token(self, token: impl Into<String>) -> Self {
        Self { token: Some(token.into()), ..self }
    }

    /// Sets how long the server may stay silent before a request fails.
    #[must_use]
    pub fn with_timeout(self, silence: Duration) -> Self {
        Self { silence, ..self }
    }

    /// Downloads the files of the configured split, or finds them in the cache.
    ///
    /// Without a network, a snapshot that is in the cache serves.
    pub(super) fn fetch(&self, config: &DatasetConfig) -> Result<Vec<PathBuf>, Error> {
        let id = &config.path;
        let failed = |reason: String| {
            let (endpoint, reason) = (without_user(&self.endpoint), self.without_user(reason));
            Error::Hub { id: id.clone(), endpoint, reason }
        };
        let repo = Repo::new(Kind::Dataset, &self.cache, id, &config.revision).map_err(failed)?;
        if self.offline {
            return self
                .cached(&repo, config)
                .unwrap_or_else(|| Err(failed("HF_HUB_OFFLINE is set and the data set is not in the cache".into())));
        }
        let client = Client::new(&self.endpoint, self.token.as_deref(), self.silence).map_err(failed)?;
        let listing = match self.list(&client, "api/datasets", id, &config.revision) {
            Ok(listing) => listing,
            Err(error) => return self.cached(&repo, config).unwrap_or_else(|| Err(failed(error))),
        };
        let commit = cache::commit(&listing.sha).map_err(failed)?;
        let names: Vec<String> = listing.siblings.into_iter().map(|s| s.rfilename).collect();
        let chosen = folder::select(&names, config)?;
        for name in &chosen {
            cache::check_name(name).map_err(failed)?;
        }
        let files: Vec<PathBuf> = chosen
            .iter()
            .map(|name| {
                let url = self.url(&["datasets", id, "resolve"], &config.revision, Some(name));
                download::file(&client, &repo, Wanted { url: &url, commit, name, most: None }, &mut |_| {})
            })
            .collect::<Result<_, _>>()
            .map_err(failed)?;
        // Only now: a branch never points at a commit whose split is there in part.
        repo.point_at(commit).map_err(failed)?;
        repo.remember(commit, &names);
        Ok(files)
    }

    fn list(&self, client: &Client, api: &str, id: &str, revision: &str) -> Result<Listing, String> {
        read_listing(client, &self.url(&[api, id, "revision"], revision, None))
    }

    /// Hides the user name and the password of the server's address in a message.
    fn without_user(&self, message: String) -> String {
        let endpoint = self.endpoint.trim_end_matches('/');
        if endpoint.contains('@') { message.replace(endpoint, &without_user(endpoint)) } else { message }
    }

    /// The address of a revision, or of a file in it. The parts before the revision need no encoding.
    fn url(&self, before: &[&str], revision: &str, name: Option<&str>) -> String {
        let mut url = self.endpoint.trim_end_matches('/').to_owned();
        for part in before {
            url.push('/');
            url.push_str(part);
        }
        url.push('/');
        http::percent_encode(revision, "", &mut url);
        if let Some(name) = name {
            url.push('/');
            http::percent_encode(name, "/", &mut url);
        }
        url
    }

    /// The split from the snapshot in the cache; `None` when there is none.
    fn cached(&self, repo: &Repo, config: &DatasetConfig) -> Option<Result<Vec<PathBuf>, Error>> {
        let commit = repo.commit()?;
        let snapshot = repo.snapshot(&commit);
        if !snapshot.is_dir() {
            return None;
        }
        let Some(names) = repo.remembered(&commit) else {
            // Downloaded by another program: the files that are there are taken for all.
            return Some(folder::select_local(&snapshot, config));
        };
        let files: Vec<PathBuf> = match folder::select(&names, config) {
            Ok(chosen) if chosen.iter().any(|name| cache::check_name(name).is_err()) => return None,
            Ok(chosen) => chosen.into_iter().map(|name| snapshot.join(name)).collect(),
            Err(error) => return Some(Err(error)),
        };
        // A split that was downloaded in part is none.
        files.iter().all(|file| file.is_file()).then_some(Ok(files))
    }
}

/// Reads the hub's description of a repository.
fn read_listing(client: &Client, url: &str) -> Result<Listing, String> {
    let bytes = client.read(url, LONGEST_LIST)?;
    serde_json::from_slice(&bytes).map_err(|_| "the answer is not the list of files that the hub sends".to_owned())
}

/// Returns whether this can be a hub id: `owner/name`, of the characters that the hub allows.
pub(super) fn is_id(text: &str) -> bool {
    let parts: Vec<_> = text.split('/').collect();
    let part = |p: &str| {
        !p.is_empty()
            && p.len() <= 96
            && !p.starts_with(['.', '-'])
            && p.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    parts.len() == 2 && parts.into_iter().all(part)
}

/// Returns an address as it is shown: without a user name and a password.
fn without_user(address: &str) -> String {
    let start = address.find("://").map_or(0, |at| at + 3);
    match address.rfind('@') {
        Some(at) if at >= start => format!("{}…{}", &address[..start], &address[at..]),
        _ => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids() {
        assert!(is_id("HuggingFaceH4/ultrachat_200k"));
        for not in ["data", "./data/x", "a/b/c", "../x", "/etc", "a b/c", "C:\\x"] {
            assert!(!is_id(not), "{not}");
        }
    }

    #[test]
    fn the_password_of_an_address_is_hidden() {
        for (address, shown) in [
            ("https://hub.example/x", "https://hub.example/x"),
            ("https://me:pass@word@hub.example:80/x", "https://…@hub.example:80/x"),
            ("me:secret@hub", "…@hub"),
            ("", ""),
        ] {
            assert_eq!(without_user(address), shown);
        }
        let hub = Hub::new("http://me:secret@hub/", "cache");
        let message = hub.without_user("\"http://me:secret@hub/a/b\": no answer".to_owned());
        assert_eq!(message, "\"http://…@hub/a/b\": no answer");
        assert!(!format!("{hub:?}").contains("secret"));
        assert_eq!(Hub::new("", "cache").without_user("as it is".to_owned()), "as it is");
    }

    #[test]
    fn addresses_are_encoded() {
        let hub = Hub::new("http://hub/", "cache");
        let url = hub.url(&["datasets", "a/b", "resolve"], "refs/convert/parquet", Some("my data/50% #1?.jsonl"));
        assert_eq!(url, "http://hub/datasets/a/b/resolve/refs%2Fconvert%2Fparquet/my%20data/50%25%20%231%3F.jsonl");
    }
}
