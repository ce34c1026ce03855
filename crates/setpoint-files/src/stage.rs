//! Files that appear together or not at all.

use std::path::{Path, PathBuf};

use crate::disk::{create_dir, remove_file, remove_tree, rename, sync_dir};
use crate::{Error, Writer};

const HIDDEN: &str = ".saving";

/// A hidden folder inside a target folder, in which files are completed before the first of them takes its place.
///
/// Dropped without [`commit`](Self::commit), it takes everything it wrote with it.
pub struct Stage {
    dir: PathBuf,
    hidden: PathBuf,
    made_dir: bool,
    files: Vec<String>,
}

impl Stage {
    /// Makes the hidden folder, and `dir` if it does not exist.
    pub fn new(dir: &Path) -> Result<Self, Error> {
        let hidden = dir.join(HIDDEN);
        let made_dir = !dir.exists();
        // Left over from a process that died, if it exists: its space may be needed.
        remove_tree(&hidden).and_then(|()| create_dir(&hidden)).map_err(|error| at(dir, error))?;
        Ok(Self { dir: dir.to_owned(), hidden, made_dir, files: Vec::new() })
    }

    /// Writes a file by `fill` and waits until it is on the disk.
    pub fn write<E: From<Error>>(
        &mut self,
        name: &str,
        fill: impl FnOnce(&mut Writer) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut writer = Writer::create_as(&self.hidden.join(name), &self.dir.join(name))?;
        fill(&mut writer)?;
        writer.finish()?;
        self.files.push(name.to_owned());
        Ok(())
    }

    /// Puts the files in their places, in the order in which they were written, and removes other ones, some before and some after.
    pub fn commit(mut self, before: &[&str], after: &[String]) -> Result<(), Error> {
        for name in before {
            remove_file(&self.dir.join(name))?;
        }
        for name in std::mem::take(&mut self.files) {
            let target = self.dir.join(&name);
            rename(&self.hidden.join(&name), &target).map_err(|error| at(&target, error))?;
        }
        self.made_dir = false;
        for name in after {
            remove_file(&self.dir.join(name))?;
        }
        sync_dir(&self.dir)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // Nothing can be done about a failure here, and the error that led here matters more.
        let _ = remove_tree(&self.hidden);
        if self.made_dir {
            let _ = std::fs::remove_dir(&self.dir);
        }
    }
}

/// Names the place that the caller knows in an error about the hidden one.
fn at(path: &Path, error: Error) -> Error {
    Error { path: path.to_owned(), ..error }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::io::ErrorKind;

    use super::*;
    use crate::fault;

    const ORDER: [&str; 3] = ["z", "m", "a"];

    /// Replaces three files, and removes `index` before and `stale` after.
    fn save(dir: &Path, text: &str) -> Result<(), Error> {
        let mut stage = Stage::new(dir)?;
        for name in ORDER {
            stage.write(name, |out| out.put(text.as_bytes()))?;
        }
        stage.commit(&["index"], &["stale".to_owned()])
    }

    /// The whole content of a folder. A folder in it is a file without content.
    fn content(dir: &Path) -> BTreeMap<String, String> {
        let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
        let text = |path: &Path| fs::read_to_string(path).unwrap_or_default();
        entries.map(|entry| (entry.file_name().into_string().unwrap(), text(&entry.path()))).collect()
    }

    #[test]
    fn a_process_that_dies_at_any_operation_leaves_whole_files_in_their_order() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("model");
        for operations in 0.. {
            save(&dir, "old").unwrap();
            let names: Vec<_> = content(&dir).into_keys().filter(|name| name != "other").collect();
            assert_eq!(names, ["a", "m", "z"], "what a dead process left is removed");
            for name in ["index", "stale", "other"] {
                fs::write(dir.join(name), "old").unwrap();
            }
            fault::after(Some(operations));
            let done = save(&dir, "new").is_ok();
            fault::after(None);
            let found = content(&dir);
            let new = ORDER.iter().take_while(|&&name| found[name] == "new").count();
            assert!(ORDER[new..].iter().all(|&name| found[name] == "old"), "{found:?}");
            assert!(new == 0 || !found.contains_key("index"), "{found:?}");
            assert!(new == 3 || found.contains_key("stale"), "{found:?}");
            assert_eq!(found["other"], "old");
            if done {
                assert!(operations > 12, "{operations}");
                break;
            }
        }
    }

    #[test]
    fn a_full_disk_harms_nothing() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("model");
        let save_until_full = || {
            let mut stage = Stage::new(&dir).unwrap();
            stage.write("z", |out| out.put(b"new")).unwrap();
            fault::fill();
            stage.write("a", |out| out.put(b"new")).unwrap_err()
        };
        // A folder that was not there is not there afterwards, one that was is as it was.
        let error = save_until_full();
        assert_eq!((error.source.kind(), error.path), (ErrorKind::StorageFull, dir.join("a")));
        assert!(!dir.exists());
        save(&dir, "old").unwrap();
        save_until_full();
        assert_eq!(content(&dir), BTreeMap::from(ORDER.map(|name| (name.to_owned(), "old".to_owned()))));
    }
}
