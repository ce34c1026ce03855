//! Data sets of the Hugging Face hub, downloaded to its cache.

use std::path::{Component, Path, PathBuf};

use hf_hub::api::sync::{ApiBuilder, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};

use super::folder;
use crate::config::DatasetConfig;
use crate::error::Error;

/// A hub client: server, cache and token.
#[derive(Clone)]
pub struct Hub {
    endpoint: String,
    cache: PathBuf,
    token: Option<String>,
    offline: bool,
}

/// Without the token.
impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub")
            .field("endpoint", &self.endpoint)
            .field("cache", &self.cache)
            .field("offline", &self.offline)
            .finish_non_exhaustive()
    }
}

impl Hub {
    /// As the environment says: `HF_ENDPOINT`, `HF_HOME`, `HF_TOKEN` (else the token stored in `HF_HOME`), `HF_HUB_OFFLINE`.
    #[must_use]
    pub fn from_env() -> Self {
        let variable = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
        let cache = Cache::from_env();
        Self {
            endpoint: variable("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into()),
            token: variable("HF_TOKEN").or_else(|| cache.token()),
            cache: cache.path().clone(),
            offline: variable("HF_HUB_OFFLINE")
                .is_some_and(|v| matches!(v.as_str(), "1" | "true" | "TRUE" | "yes" | "YES" | "on" | "ON")),
        }
    }

    /// A server and a cache folder of the caller's own, without a token.
    pub fn new(endpoint: impl Into<String>, cache: impl Into<PathBuf>) -> Self {
        Self { endpoint: endpoint.into(), cache: cache.into(), token: None, offline: false }
    }

    /// Downloads the files of the configured split, or finds them in the cache.
    ///
    /// Without a network, a snapshot that is in the cache serves.
    pub(super) fn fetch(&self, config: &DatasetConfig) -> Result<Vec<PathBuf>, Error> {
        let id = &config.path;
        let failed = |reason: String| Error::Hub { id: id.clone(), endpoint: self.endpoint.clone(), reason };
        if self.offline {
            return self
                .cached(config)
                .unwrap_or_else(|| Err(failed("HF_HUB_OFFLINE is set and the data set is not in the cache".into())));
        }
        let repo = Repo::with_revision(id.clone(), RepoType::Dataset, config.revision.clone());
        let api = ApiBuilder::from_cache(Cache::new(self.cache.clone()))
            .with_endpoint(self.endpoint.trim_end_matches('/').to_owned())
            .with_token(self.token.clone())
            .with_progress(false)
            .with_retries(3)
            .build()
            .map_err(|e| failed(e.to_string()))?
            .repo(repo);
        let info = match api.info() {
            Ok(info) => info,
            Err(error) => return self.cached(config).unwrap_or_else(|| Err(failed(error.to_string()))),
        };
        let names: Vec<String> = info.siblings.into_iter().map(|s| s.rfilename).collect();
        let chosen = folder::select(&names, config)?;
        chosen.into_iter().map(|name| download(&api, name, &info.sha).map_err(failed)).collect()
    }

    /// The split from the snapshot in the cache; `None` when there is none.
    fn cached(&self, config: &DatasetConfig) -> Option<Result<Vec<PathBuf>, Error>> {
        let repo = self.cache.join(format!("datasets--{}", config.path.replace('/', "--")));
        let commit = std::fs::read_to_string(repo.join("refs").join(&config.revision)).ok();
        let snapshot = repo.join("snapshots").join(commit.as_deref().map_or(config.revision.as_str(), str::trim));
        snapshot.is_dir().then(|| folder::select_local(&snapshot, config))
    }
}

fn download(api: &ApiRepo, name: &str, commit: &str) -> Result<PathBuf, String> {
    // The server's word is not trusted with a place on this disk.
    let plain = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
    if !plain || name.contains('\\') {
        return Err(format!("the server lists the file {name:?}, which leaves the folder"));
    }
    let of_commit = |path: &Path| path.components().any(|part| part.as_os_str() == commit);
    let failed = |e| format!("{name}: {e}");
    let mut path = api.get(name).map_err(failed)?;
    if !of_commit(&path) {
        // The cache holds an older commit of the branch.
        path = api.download(name).map_err(failed)?;
    }
    // The files of a split must be of one commit; a branch may move while they are fetched.
    if of_commit(&path) {
        Ok(path)
    } else {
        Err(format!(
            "{name} is of another commit than {commit}: the data set changed. Run again, or set `revision` to a commit"
        ))
    }
}

/// Whether this can be a hub id: `owner/name` or `name`, of the characters that the hub allows.
pub(super) fn is_id(text: &str) -> bool {
    let parts: Vec<_> = text.split('/').collect();
    let part = |p: &str| {
        !p.is_empty()
            && !p.starts_with(['.', '-'])
            && p.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    parts.len() == 2 && parts.into_iter().all(part)
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
}
