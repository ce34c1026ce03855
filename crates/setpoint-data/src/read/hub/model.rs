//! Models of the hub: which files of a repository make a model, and their download in two steps. The first fetches everything that tells
//! what the model is (a few megabytes), so that wrong settings are found before the second fetches the weights.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::cache::{self, Kind, Repo};
use super::download::{self, Wanted};
use super::http::Client;
use super::{Hub, is_id};
use crate::error::Error;

/// The branch that is meant if no revision is named.
const MAIN: &str = "main";
const CONFIG: &str = "config.json";
const ADAPTER: &str = "adapter_config.json";
const TOKENIZER: &str = "tokenizer.json";

/// The files besides weights that a model may consist of.
const SMALL: [&str; 16] = [
    CONFIG,
    ADAPTER,
    TOKENIZER,
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "setpoint.json",
    INDEX,
    PICKLE_INDEX,
];
/// The folder of further chat templates.
const TEMPLATES: &str = "additional_chat_templates/";
/// The most bytes of such a file: a tokenizer of many languages has 40 MB.
const MOST_SMALL: u64 = 256 << 20;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const OF_ADAPTER: &str = "adapter_model.safetensors";
const PICKLE: &str = "pytorch_model.bin";
const PICKLE_INDEX: &str = "pytorch_model.bin.index.json";
/// The most shards of a model.
const MOST_SHARDS: usize = 2000;

/// A model on the hub: `owner/name`, at a branch, tag or commit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HubModel {
    /// The id, `owner/name`.
    pub id: String,
    /// The branch, tag or commit; `main` if none is named.
    pub revision: String,
}

impl HubModel {
    /// Reads `owner/name` or `owner/name@revision`; `None` if the text is no such name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (id, revision) = text.split_once('@').unwrap_or((text, MAIN));
        let is_revision = cache::check_name(revision).is_ok() && !revision.contains(char::is_whitespace);
        (is_id(id) && is_revision).then(|| Self { id: id.to_owned(), revision: revision.to_owned() })
    }

    /// Returns whether the revision is a commit, which never changes.
    #[must_use]
    pub fn is_pinned(&self) -> bool {
        cache::commit(&self.revision).is_ok()
    }
}

/// As it is written in settings: the main branch is not named.
impl fmt::Display for HubModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.revision.as_str() {
            MAIN => f.write_str(&self.id),
            revision => write!(f, "{}@{revision}", self.id),
        }
    }
}

impl Hub {
    /// Downloads everything of a model but its weights, or finds it in the cache, and returns its folder there: that of a commit.
    /// [`fetch_weights`](Self::fetch_weights) completes it.
    ///
    /// Without a network, a snapshot that is in the cache serves. A commit that is in the cache is not asked for again.
    ///
    /// # Errors
    /// [`Error::HubModel`].
    pub fn fetch_model(&self, model: &HubModel) -> Result<PathBuf, Error> {
        let folder = self.find_model(model).map_err(|reason| self.failed(model, reason))?;
        std::path::absolute(&folder).map_err(Error::io("find", &folder))
    }

    fn find_model(&self, model: &HubModel) -> Result<PathBuf, String> {
        let repo = Repo::new(Kind::Model, &self.cache, &model.id, &model.revision)?;
        let cached = || {
            let folder = repo.snapshot(&repo.commit()?);
            [CONFIG, ADAPTER, TOKENIZER].iter().any(|name| folder.join(name).is_file()).then_some(folder)
        };
        if self.offline {
            return cached().ok_or_else(|| "HF_HUB_OFFLINE is set and the model is not in the cache".to_owned());
        }
        if model.is_pinned()
            && let Some(folder) = cached().filter(|_| repo.remembered(&model.revision).is_some())
        {
            return Ok(folder);
        }
        let client = Client::new(&self.endpoint, self.token.as_deref(), self.silence)?;
        let listing = match self.list(&client, "api/models", &model.id, &model.revision) {
            Ok(listing) => listing,
            Err(error) => return cached().ok_or_else(|| format!("{error}. {}", self.advice())),
        };
        let commit = cache::commit(&listing.sha)?;
        if model.is_pinned() && commit != model.revision {
            return Err(format!("the server answers with another commit, {commit}"));
        }
        let names: Vec<String> = listing.siblings.into_iter().map(|sibling| sibling.rfilename).collect();
        require_model(&names)?;
        for name in names.iter().filter(|name| is_small(name)) {
            cache::check_name(name)?;
            self.fetch_file(&client, &repo, (model.id.as_str(), commit, name.as_str()), Some(MOST_SMALL), &mut |_| {})?;
        }
        repo.point_at(commit)?;
        repo.remember(commit, &names);
        Ok(repo.snapshot(commit))
    }

    /// Downloads the weights of a model whose folder [`fetch_model`](Self::fetch_model) returned, unless they are there; a folder elsewhere is
    /// left alone. `allow_pickle`: `pytorch_model.bin` will do if there are no safetensors. `reached` is told the bytes that are there of
    /// all files that were missing, and their sum if the hub names it.
    ///
    /// # Errors
    /// [`Error::HubModel`].
    pub fn fetch_weights(
        &self,
        folder: &Path,
        allow_pickle: bool,
        reached: &mut dyn FnMut(u64, Option<u64>),
    ) -> Result<(), Error> {
        let Some(model) = self.model_at(folder) else { return Ok(()) };
        self.complete(&model, folder, allow_pickle, reached).map_err(|reason| self.failed(&model, reason))
    }

    fn complete(
        &self,
        model: &HubModel,
        folder: &Path,
        allow_pickle: bool,
        reached: &mut dyn FnMut(u64, Option<u64>),
    ) -> Result<(), String> {
        let (id, commit) = (model.id.as_str(), model.revision.as_str());
        let repo = Repo::new(Kind::Model, &self.cache, id, commit)?;
        let is_here = |name: &String| folder.join(name).is_file();
        let local: Vec<String> = std::fs::read_dir(folder)
            .map(|entries| entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
            .unwrap_or_default();
        // Those that are here were allowed before.
        let has_pickle = local.iter().any(|name| name.starts_with("pytorch_model") && name.ends_with(".bin"));
        let allow_pickle = allow_pickle || has_pickle;
        // Files that another program or an earlier run put there need no server.
        let known = match repo.remembered(commit) {
            Some(names) => weights(&names, folder, allow_pickle)?,
            None => weights(&local, folder, allow_pickle).unwrap_or_default(),
        };
        if !known.is_empty() && known.iter().all(is_here) {
            return Ok(());
        }
        if self.offline {
            return Err("HF_HUB_OFFLINE is set and the model's weights are not all in the cache".to_owned());
        }
        let client = Client::new(&self.endpoint, self.token.as_deref(), self.silence)?;
        let listing = self.list_with_sizes(&client, id, commit)?;
        if listing.sha != commit {
            return Err(format!("the server answers with another commit, {:?}", cache::shorten(&listing.sha)));
        }
        let names: Vec<String> = listing.siblings.iter().map(|sibling| sibling.rfilename.clone()).collect();
        for index in [INDEX, PICKLE_INDEX].into_iter().filter(|name| names.iter().any(|listed| listed == name)) {
            self.fetch_file(&client, &repo, (id, commit, index), Some(MOST_SMALL), &mut |_| {})?;
        }
        let missing: Vec<String> =
            weights(&names, folder, allow_pickle)?.into_iter().filter(|name| !is_here(name)).collect();
        let size = |name: &String| listing.siblings.iter().find(|sibling| sibling.rfilename == *name)?.size;
        let total: Option<u64> = missing.iter().map(size).try_fold(0u64, |sum, size| sum.checked_add(size?));
        if let (Some(total), Some(free)) = (total, setpoint_files::free_space(folder))
            && free < total
        {
            return Err(format!(
                "its weights have {total} bytes and the disk of the cache has {free} free; set HF_HOME to a folder on another disk"
            ));
        }
        let mut before = 0;
        for name in &missing {
            cache::check_name(name)?;
            let mut at = 0;
            let mut count = |done: u64| {
                at = done;
                reached(before + done, total);
            };
            self.fetch_file(&client, &repo, (id, commit, name.as_str()), None, &mut count)?;
            before += size(name).unwrap_or(at);
            reached(before, total);
        }
        repo.remember(commit, &names);
        Ok(())
    }

    fn fetch_file(
        &self,
        client: &Client,
        repo: &Repo,
        (id, commit, name): (&str, &str, &str),
        most: Option<u64>,
        reached: &mut dyn FnMut(u64),
    ) -> Result<PathBuf, String> {
        // Of a commit: a branch may move meanwhile.
        let url = self.url(&[id, "resolve"], commit, Some(name));
        download::file(client, repo, Wanted { url: &url, commit, name, most }, reached)
    }

    fn list_with_sizes(&self, client: &Client, id: &str, commit: &str) -> Result<super::Listing, String> {
        let url = self.url(&["api/models", id, "revision"], commit, None) + "?blobs=true";
        super::read_listing(client, &url)
    }

    /// Returns the model whose commit a folder of the cache holds; `None` for any other folder.
    #[must_use]
    pub fn model_at(&self, folder: &Path) -> Option<HubModel> {
        let folder = std::path::absolute(folder).ok()?;
        let commit = cache::commit(folder.file_name()?.to_str()?).ok()?;
        let snapshots = folder.parent()?;
        let repo = snapshots.parent()?;
        let is_cache = repo.parent()? == std::path::absolute(&self.cache).ok()?;
        let (owner, name) = repo.file_name()?.to_str()?.strip_prefix(Kind::Model.prefix())?.split_once("--")?;
        let id = format!("{owner}/{name}");
        (is_cache && snapshots.file_name()? == "snapshots" && is_id(&id))
            .then(|| HubModel { id, revision: commit.to_owned() })
    }

    fn failed(&self, model: &HubModel, reason: String) -> Error {
        let (endpoint, reason) = (super::without_user(&self.endpoint), self.without_user(reason));
        Error::HubModel { id: model.to_string(), endpoint, reason }
    }

    fn advice(&self) -> &'static str {
        if self.token.is_some() {
            "Check the id and the network, and whether your token may read this model"
        } else {
            "Check the id and the network, HF_ENDPOINT, and HF_TOKEN for a private or gated model"
        }
    }
}

/// Checks that a repository holds something that can be a model, a tokenizer or an adapter, or says what it holds instead.
fn require_model(names: &[String]) -> Result<(), String> {
    if [CONFIG, ADAPTER, TOKENIZER].iter().any(|wanted| names.iter().any(|name| name == wanted)) {
        return Ok(());
    }
    if names.iter().any(|name| name.ends_with(".gguf")) {
        return Err("it holds GGUF files, which are not read: name the model that they were made from".to_owned());
    }
    Err("it holds no config.json: it is no model of transformers".to_owned())
}

fn is_small(name: &str) -> bool {
    SMALL.contains(&name)
        || name.strip_prefix(TEMPLATES).is_some_and(|rest| rest.ends_with(".jinja") && !rest.contains('/'))
}

/// Returns the names of the files that hold the weights, of those in a repository. An index is read from the model's folder.
fn weights(names: &[String], folder: &Path, allow_pickle: bool) -> Result<Vec<String>, String> {
    let has = |wanted: &str| names.iter().any(|name| name == wanted);
    if has(ADAPTER) && !has(CONFIG) {
        return match has(OF_ADAPTER) {
            true => Ok(vec![OF_ADAPTER.to_owned()]),
            false => Err(format!("it holds an adapter without {OF_ADAPTER}")),
        };
    }
    match () {
        () if has(SINGLE) => Ok(vec![SINGLE.to_owned()]),
        () if has(INDEX) => shards(&folder.join(INDEX), ".safetensors", names),
        () if allow_pickle && has(PICKLE) => Ok(vec![PICKLE.to_owned()]),
        () if allow_pickle && has(PICKLE_INDEX) => shards(&folder.join(PICKLE_INDEX), ".bin", names),
        () if has(PICKLE) || has(PICKLE_INDEX) => Err(format!(
            "it holds no safetensors, only {PICKLE}, a Python pickle. To read it, its section in the settings needs `allow_pickle = true`; \
             nothing in it is executed"
        )),
        () if !has(CONFIG) => Err("it holds no weights".to_owned()),
        () => Err(format!("it holds neither {SINGLE} nor {INDEX}")),
    }
}

/// Returns the shards that an index names: files next to it that the repository lists.
fn shards(index: &Path, ending: &str, names: &[String]) -> Result<Vec<String>, String> {
    let text = setpoint_files::read_text_up_to(index, MOST_SMALL).map_err(|error| error.to_string())?;
    let wrong = |what: &str| format!("{} {what}", index.display());
    let json: Value = serde_json::from_str(&text).map_err(|_| wrong("is not JSON"))?;
    let map = json.get("weight_map").and_then(Value::as_object).ok_or_else(|| wrong("has no `weight_map`"))?;
    let shards: Option<BTreeSet<&str>> = map.values().map(Value::as_str).collect();
    let shards = shards.ok_or_else(|| wrong("names a shard that is no text"))?;
    if shards.is_empty() || shards.len() > MOST_SHARDS {
        return Err(wrong(&format!("names {} shards; expected 1 to {MOST_SHARDS}", shards.len())));
    }
    for shard in &shards {
        cache::check_name(shard)?;
        if shard.contains('/') || !shard.ends_with(ending) || !names.iter().any(|name| name == shard) {
            return Err(wrong(&format!("names the shard {:?}, which is not in the repository", cache::shorten(shard))));
        }
    }
    Ok(shards.into_iter().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn names_of_models() {
        let model = HubModel::parse("Qwen/Qwen3-0.6B").unwrap();
        assert_eq!((model.id.as_str(), model.revision.as_str(), model.is_pinned()), ("Qwen/Qwen3-0.6B", "main", false));
        assert_eq!(model.to_string(), "Qwen/Qwen3-0.6B");
        let pinned = HubModel::parse(&format!("a/b@{COMMIT}")).unwrap();
        assert!(pinned.is_pinned());
        assert_eq!(pinned.to_string(), format!("a/b@{COMMIT}"));
        assert_eq!(HubModel::parse("a/b@refs/pr/1").unwrap().revision, "refs/pr/1");
        for not in
            ["a", "./a/b", "/a/b", "a/b/c", "a/b@", "a/b@../x", "a/b@x y", "~/models/x", "runs/sft/model", "a b/c"]
        {
            assert_eq!(HubModel::parse(not), None, "{not}");
        }
    }

    #[test]
    fn a_snapshot_knows_its_model() {
        let hub = Hub::new("http://hub", "/cache");
        let at = |path: String| hub.model_at(Path::new(&path)).map(|model| model.to_string());
        assert_eq!(at(format!("/cache/models--a--b-c/snapshots/{COMMIT}")), Some(format!("a/b-c@{COMMIT}")));
        for other in [
            format!("/elsewhere/models--a--b/snapshots/{COMMIT}"),
            format!("/cache/datasets--a--b/snapshots/{COMMIT}"),
            format!("/cache/models--a--b/blobs/{COMMIT}"),
            "/cache/models--a--b/snapshots/main".to_owned(),
            "/".to_owned(),
        ] {
            assert_eq!(at(other.clone()), None, "{other}");
        }
    }

    #[test]
    fn only_the_files_that_are_needed_are_chosen() {
        let folder = tempfile::tempdir().unwrap();
        let names = |list: &[&str]| list.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let chosen = |list: &[&str], allow| weights(&names(list), folder.path(), allow);
        let all = [CONFIG, "model.safetensors", PICKLE, "model.gguf", "consolidated.safetensors", "original/x.pth"];
        assert_eq!(chosen(&all, true).unwrap(), ["model.safetensors"]);
        assert!(chosen(&[CONFIG, PICKLE], false).unwrap_err().contains("allow_pickle = true"));
        assert_eq!(chosen(&[CONFIG, PICKLE], true).unwrap(), [PICKLE]);
        assert_eq!(chosen(&[ADAPTER, OF_ADAPTER], false).unwrap(), [OF_ADAPTER]);
        assert!(chosen(&[CONFIG], true).unwrap_err().contains("neither"));
        assert!(["chat_template.jinja", "additional_chat_templates/rag.jinja", INDEX].into_iter().all(is_small));
        assert!(!["README.md", "original/params.json", "model.safetensors", "x/config.json"].into_iter().any(is_small));
        let of_gguf = require_model(&names(&["README.md", "q8_0.gguf"])).unwrap_err();
        assert!(of_gguf.contains("GGUF"), "{of_gguf}");
    }

    #[test]
    fn an_index_names_files_of_its_repository() {
        let folder = tempfile::tempdir().unwrap();
        let index = folder.path().join(INDEX);
        let names = ["a.safetensors", "b.safetensors", "../c.safetensors"].map(str::to_owned);
        let of = |map: Value| {
            std::fs::write(&index, serde_json::json!({ "weight_map": map }).to_string()).unwrap();
            shards(&index, ".safetensors", &names)
        };
        let map = serde_json::json!({"x": "b.safetensors", "y": "a.safetensors", "z": "b.safetensors"});
        assert_eq!(of(map).unwrap(), ["a.safetensors", "b.safetensors"]);
        for (name, said) in
            [("../c.safetensors", "leaves the folder"), ("d.safetensors", "not in the repository"), ("a.bin", "not in")]
        {
            let message = of(serde_json::json!({ "x": name })).unwrap_err();
            assert!(message.contains(said), "{message}");
        }
        assert!(of(serde_json::json!({})).unwrap_err().contains("expected 1 to 2000"));
        assert!(of(serde_json::json!({"x": 7})).unwrap_err().contains("no text"));
    }
}
