//! Which files of a folder or repository make up a split.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::files::{is_data, is_table, split_name};
use crate::config::DatasetConfig;
use crate::error::Error;

/// The most files and folders below the folder of a data set.
const MOST_ENTRIES: usize = 10_000_000;

/// The files of the split in a local folder, sorted by name.
pub(super) fn select_local(root: &Path, config: &DatasetConfig) -> Result<Vec<PathBuf>, Error> {
    let names = Walk::through(root, MOST_ENTRIES)?;
    let chosen = select(&names, config)?;
    Ok(chosen.into_iter().map(|name| root.join(name)).collect())
}

/// A walk through all folders below one. It follows links, of which the hub's cache consists, but not back to a folder that it is in.
struct Walk<'a> {
    root: &'a Path,
    most: usize,
    /// The files and folders so far.
    entries: usize,
    /// The folders that it is in, without links.
    above: Vec<PathBuf>,
    /// Relative names of files, with `/`.
    names: Vec<String>,
}

impl<'a> Walk<'a> {
    /// Returns the relative names, with `/`, of all files below a folder. Hidden folders (`.git`, `.cache`) are left out.
    fn through(root: &'a Path, most: usize) -> Result<Vec<String>, Error> {
        let mut walk = Self { root, most, entries: 0, above: Vec::new(), names: Vec::new() };
        walk.enter("")?;
        Ok(walk.names)
    }

    fn enter(&mut self, below: &str) -> Result<(), Error> {
        let folder = self.root.join(below);
        let place = folder.canonicalize().map_err(Error::io("list", &folder))?;
        if self.above.contains(&place) {
            return Ok(());
        }
        self.above.push(place);
        for entry in std::fs::read_dir(&folder).map_err(Error::io("list", &folder))? {
            let entry = entry.map_err(Error::io("list", &folder))?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            if name.starts_with('.') {
                continue;
            }
            self.entries += 1;
            if self.entries > self.most {
                let reason = format!("it has more than {} files and folders; name one of its folders", self.most);
                return Err(Error::io("list", self.root)(std::io::Error::new(std::io::ErrorKind::InvalidData, reason)));
            }
            let path = if below.is_empty() { name } else { format!("{below}/{name}") };
            if self.root.join(&path).is_dir() {
                self.enter(&path)?;
            } else {
                self.names.push(path);
            }
        }
        self.above.pop();
        Ok(())
    }
}

/// A data file's place in the layout.
struct Entry<'a> {
    name: &'a str,
    subset: &'a str,
    split: &'a str,
}

/// The folder in which the hub puts the files of the only subset.
const DATA_FOLDER: &str = "data";

fn entry(name: &str) -> Option<Entry<'_>> {
    let (folder, file) = name.rsplit_once('/').unwrap_or(("", name));
    if !is_data(file) {
        return None;
    }
    let stem = split_name(file);
    // `train/0000.parquet`: the folder is the split.
    let shard_of_folder = stem.bytes().all(|b| b.is_ascii_digit()) || matches!(stem, "data" | "part");
    let (subset, split) = match folder.rsplit_once('/') {
        Some((above, last)) if shard_of_folder => (above, last),
        None if shard_of_folder && !folder.is_empty() && folder != DATA_FOLDER => ("", folder),
        _ => (folder, stem),
    };
    Some(Entry { name, subset: if subset == DATA_FOLDER { "" } else { subset }, split })
}

/// The files of the configured split among the files of a repository, sorted by name.
pub(super) fn select<'a>(names: &'a [String], config: &DatasetConfig) -> Result<Vec<&'a str>, Error> {
    let mut entries: Vec<_> = names.iter().filter_map(|name| entry(name)).collect();
    if entries.is_empty() {
        let has_arrow = names.iter().any(|name| name.ends_with(".arrow"));
        return Err(Error::NoDataFiles { dataset: config.path.clone(), has_arrow });
    }
    if let Some(wanted) = &config.subset {
        let found = subsets(entries.iter().map(|e| e.subset).filter(|subset| !subset.is_empty()));
        entries.retain(|e| e.subset == wanted || e.subset.ends_with(&format!("/{wanted}")));
        if entries.is_empty() {
            return Err(Error::NoSubset { dataset: config.path.clone(), wanted: wanted.clone(), found });
        }
    }
    // Next to other data a table is a summary, or the same rows again.
    if entries.iter().any(|e| !is_table(e.name)) {
        entries.retain(|e| !is_table(e.name));
    }
    let mut by_subset: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for e in entries.iter().filter(|e| e.split == config.split) {
        by_subset.entry(e.subset).or_default().push(e.name);
    }
    if by_subset.len() > 1 {
        let found = subsets(by_subset.into_keys());
        return Err(Error::AmbiguousSubset { dataset: config.path.clone(), split: config.split.clone(), found });
    }
    if let Some((_, mut files)) = by_subset.pop_first() {
        files.sort_unstable();
        return Ok(files);
    }
    // A single file whose name is no split's is the training data, as for the hub.
    let known = |split: &str| {
        ["train", "test", "valid", "dev", "eval"].iter().any(|known| split.to_ascii_lowercase().contains(known))
    };
    match entries.as_slice() {
        [only] if config.split == "train" && !known(only.split) => Ok(vec![only.name]),
        _ => {
            let found: BTreeSet<_> = entries.iter().map(|e| e.split).collect();
            Err(no_split(config, found.into_iter().collect::<Vec<_>>().join(", ")))
        }
    }
}

/// Returns the names of subsets in one line, each once.
fn subsets<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: BTreeSet<&str> = names.map(|name| if name.is_empty() { "(top)" } else { name }).collect();
    names.into_iter().collect::<Vec<_>>().join(", ")
}

fn no_split(config: &DatasetConfig, found: String) -> Error {
    Error::NoSplit { dataset: config.path.clone(), subset: config.subset.clone(), wanted: config.split.clone(), found }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(names: &[&str], split: &str, subset: Option<&str>) -> Result<Vec<String>, String> {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let config =
            DatasetConfig { split: split.into(), subset: subset.map(Into::into), ..DatasetConfig::new("folder") };
        select(&names, &config).map(|v| v.into_iter().map(Into::into).collect()).map_err(|e| e.to_string())
    }

    #[test]
    fn the_hubs_layouts() {
        let ultrachat = [
            "README.md",
            "data/train_sft-00001-of-00002.parquet",
            "data/train_sft-00000-of-00002.parquet",
            "data/test_sft-00000-of-00001.parquet",
        ];
        let expected = ["data/train_sft-00000-of-00002.parquet", "data/train_sft-00001-of-00002.parquet"];
        assert_eq!(choose(&ultrachat, "train_sft", None).unwrap(), expected);
        let message = choose(&ultrachat, "train", None).unwrap_err();
        assert_eq!(message, "folder: no split `train`; found: test_sft, train_sft. Set `data.split` to one of these");

        assert_eq!(choose(&["train.jsonl", "test.jsonl"], "test", None).unwrap(), ["test.jsonl"]);
        assert_eq!(choose(&["train/0000.parquet", "test/0000.parquet"], "test", None).unwrap(), ["test/0000.parquet"]);
        assert_eq!(choose(&["rasbt.json", "dataset_infos.json"], "train", None).unwrap(), ["rasbt.json"]);
        assert!(choose(&["rasbt.json"], "test", None).is_err());
        assert!(choose(&["test.json"], "train", None).is_err(), "the test split is not the training data");
    }

    #[test]
    fn a_folder_without_data_says_what_is_read() {
        let saved = ["dataset_info.json", "state.json", "data-00000-of-00001.arrow"];
        let message = choose(&saved, "train", None).unwrap_err();
        assert!(message.starts_with("folder: no data files; expected .parquet, ") && message.contains("`to_parquet`"));
        let message = choose(&["README.md"], "train", Some("main")).unwrap_err();
        assert_eq!(message, "folder: no data files; expected .parquet, .jsonl, .json, .csv or .tsv");
        let file = Error::UnknownFileType { path: "data/train.arrow".into() }.to_string();
        assert!(file.contains("`save_to_disk`"), "{file}");
        assert!(!Error::UnknownFileType { path: "train.txt".into() }.to_string().contains("save_to_disk"));
    }

    #[test]
    fn tables_are_data_where_there_is_nothing_else() {
        assert_eq!(choose(&["train.csv", "test.csv.zst"], "test", None).unwrap(), ["test.csv.zst"]);
        assert_eq!(choose(&["train.csv", "train.jsonl", "sweep.csv"], "train", None).unwrap(), ["train.jsonl"]);
        assert!(choose(&["train.jsonl", "test.csv"], "test", None).is_err());
    }

    #[test]
    fn subsets_are_chosen_by_name() {
        let names = ["main/train-00000-of-00001.parquet", "socratic/train-00000-of-00001.parquet"];
        let message = choose(&names, "train", None).unwrap_err();
        assert!(message.contains("several subsets: main, socratic"), "{message}");
        assert_eq!(choose(&names, "train", Some("socratic")).unwrap(), [names[1]]);
        let message = choose(&names, "train", Some("other")).unwrap_err();
        let expected =
            "folder: no subset `other`; found: main, socratic. Set `data.subset` to one of these, or leave it out";
        assert_eq!(message, expected);
        let message = choose(&["train.jsonl"], "train", Some("main")).unwrap_err();
        assert_eq!(message, "folder: no subset `main`; it has none. Leave `data.subset` out");
        assert!(choose(&names, "test", Some("main")).unwrap_err().contains("no split `test` in subset `main`"));
        // The hub's converted files: default/train/0000.parquet.
        let names = ["default/train/0000.parquet", "default/train/0001.parquet", "default/test/0000.parquet"];
        assert_eq!(choose(&names, "train", None).unwrap(), &names[..2]);
    }

    #[test]
    fn a_folder_on_disk() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("data")).unwrap();
        std::fs::create_dir_all(dir.path().join(".cache")).unwrap();
        for name in ["data/train-00000-of-00001.jsonl", ".cache/train.jsonl", "README.md"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let files = select_local(dir.path(), &DatasetConfig::new("folder")).unwrap();
        assert_eq!(files, [dir.path().join("data/train-00000-of-00001.jsonl")]);
    }

    #[cfg(unix)]
    #[test]
    fn links_that_lead_back_are_not_followed() {
        use std::os::unix::fs::symlink;

        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("set");
        std::fs::create_dir_all(root.join("inner")).unwrap();
        std::fs::write(root.join("train.jsonl"), "").unwrap();
        std::fs::write(dir.path().join("blob"), "").unwrap();
        // Two of them in one folder would be followed along 2^40 paths, as far as the system goes.
        for link in ["again", "inner/back", "inner/once_more"] {
            symlink(&root, root.join(link)).unwrap();
        }
        // Links to files and to folders elsewhere are what the hub's cache consists of.
        std::fs::create_dir(dir.path().join("elsewhere")).unwrap();
        std::fs::write(dir.path().join("elsewhere/test.jsonl"), "").unwrap();
        symlink(dir.path().join("blob"), root.join("valid.jsonl")).unwrap();
        symlink(dir.path().join("elsewhere"), root.join("data")).unwrap();
        let mut names = Walk::through(&root, MOST_ENTRIES).unwrap();
        names.sort_unstable();
        assert_eq!(names, ["data/test.jsonl", "train.jsonl", "valid.jsonl"]);
        let files = select_local(&root, &DatasetConfig::new("folder")).unwrap();
        assert_eq!(files, [root.join("train.jsonl")]);
    }

    #[test]
    fn a_folder_of_too_much_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("data")).unwrap();
        for name in ["data/a.jsonl", "data/b.jsonl", "c.jsonl"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        assert_eq!(Walk::through(dir.path(), 4).unwrap().len(), 3);
        let said = Walk::through(dir.path(), 3).unwrap_err().to_string();
        assert!(said.contains("it has more than 3 files and folders"), "{said}");
    }
}
