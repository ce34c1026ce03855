//! The values that the trials of a sweep or comparison have in common: computed by the first that needs them, read by the others.
//!
//! A value is a file whose name has the hash of everything that the value is a function of. Under its lock it is computed once, also where
//! several processes want it at the same time, and written whole or not at all; a process that is killed lets go of the lock, and the next
//! one computes. What is stored is read back to the bit, so nothing depends on who computed it.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::failure::{Failure, Outcome};
use crate::files::{text_hash, write_text};
use crate::session::memory;

/// The cost of a computation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cost {
    /// Seconds.
    pub seconds: f64,
    /// Greatest resident memory of its process up to its end, bytes; the device's own memory is not in it. Where the system tells.
    pub peak_memory: Option<u64>,
}

impl Cost {
    /// Measures the cost to this process since then.
    pub fn since(start: Instant) -> Self {
        Self { seconds: start.elapsed().as_secs_f64(), peak_memory: memory::peak() }
    }

    /// Of two computations, one after the other.
    pub fn and(self, other: Self) -> Self {
        Self { seconds: self.seconds + other.seconds, peak_memory: self.peak_memory.max(other.peak_memory) }
    }
}

/// A folder of shared values.
#[derive(Debug, Clone)]
pub struct Shared {
    folder: PathBuf,
    /// The cost to others of values that were only read here, less the time that was waited for them.
    saved: Arc<Mutex<Cost>>,
}

/// A value as it stands in its file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored<V> {
    /// The inputs that it is a function of.
    key: Value,
    cost: Cost,
    value: V,
    /// A hash of the value; absent in files of before there was one.
    #[serde(default)]
    digest: Option<String>,
}

impl Shared {
    /// Values in this folder, which must exist.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), saved: Arc::default() }
    }

    /// Returns the further cost had everything been computed here: so that a trial's time and memory do not depend on
    /// whether it was the first.
    pub fn saved(&self) -> Cost {
        *self.saved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value of a key, which must name everything that decides it. `what`: the beginning of the file's name. A file that cannot be
    /// read, or belongs to another key, is computed again.
    pub fn once<V: Serialize + DeserializeOwned>(
        &self,
        what: &str,
        key: &Value,
        compute: impl FnOnce() -> Outcome<V>,
    ) -> Outcome<V> {
        let started = Instant::now();
        let stem = format!("{what}-{}", &text_hash(&key.to_string())[..16]);
        let path = self.folder.join(format!("{stem}.json"));
        let lock_path = self.folder.join(format!("{stem}.lock"));
        let failed = |e: std::io::Error| Failure::run(format!("cannot lock {}: {e}", lock_path.display()));
        let lock = OpenOptions::new().create(true).append(true).open(&lock_path).map_err(failed)?;
        // Until whoever computes it is done, or dead.
        lock.lock().map_err(failed)?;
        if let Some(Stored { cost, value, .. }) = read(&path, key) {
            let mut saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
            let waited = started.elapsed().as_secs_f64();
            *saved = saved.and(Cost { seconds: cost.seconds - waited, ..cost });
            return Ok(value);
        }
        let started = Instant::now();
        let value = compute()?;
        let digest = Some(digest(&serde_json::to_value(&value)?));
        let stored = Stored { key: key.clone(), cost: Cost::since(started), value, digest };
        write_text(&path, &(serde_json::to_string(&stored)? + "\n"))?;
        Ok(stored.value)
    }
}

fn read<V: DeserializeOwned>(path: &Path, key: &Value) -> Option<Stored<V>> {
    let text = setpoint_files::read_text_up_to(path, setpoint_files::LARGE).ok()?;
    let Stored { key: found, cost, value, digest: expected } = serde_json::from_str::<Stored<Value>>(&text).ok()?;
    if found != *key || expected.is_some_and(|expected| expected != digest(&value)) {
        return None;
    }
    let value = serde_json::from_value(value).ok()?;
    Some(Stored { key: found, cost, value, digest: None })
}

fn digest(value: &Value) -> String {
    text_hash(&value.to_string())[..16].to_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use serde_json::json;

    use super::*;

    fn only_file(folder: &Path) -> PathBuf {
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let mut json: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|e| e == "json")).collect();
        assert_eq!(json.len(), 1, "{json:?}");
        json.remove(0)
    }

    #[test]
    fn a_value_is_computed_once_and_comes_back_to_the_bit() {
        let folder = tempfile::tempdir().unwrap();
        let computed = AtomicUsize::new(0);
        let values = [-1.0 / 3.0, f64::MIN_POSITIVE, 1e300 / 7.0];
        // As trials do it: each with a handle of its own, all at the same time.
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let shared = Shared::new(folder.path());
                    let found: Vec<f64> = shared
                        .once("sums", &json!({ "model": "a" }), || {
                            computed.fetch_add(1, Ordering::Relaxed);
                            std::thread::sleep(std::time::Duration::from_millis(30));
                            Ok(values.to_vec())
                        })
                        .unwrap();
                    assert_eq!(found.iter().map(|v| v.to_bits()).collect::<Vec<_>>(), values.map(f64::to_bits));
                });
            }
        });
        assert_eq!(computed.into_inner(), 1);
    }

    #[test]
    fn another_key_and_a_damaged_file_are_computed_again() {
        let folder = tempfile::tempdir().unwrap();
        let shared = Shared::new(folder.path());
        let once = |key: &str, value: i32| shared.once("n", &json!({ "model": key }), || Ok(value)).unwrap();
        assert_eq!([once("a", 1), once("a", 2)], [1, 1]);
        let file = only_file(folder.path());
        let text = std::fs::read_to_string(&file).unwrap();
        // Torn, with the key of something else, and with another value.
        let other = text.replace("\"value\":1", "\"value\":2");
        assert_ne!(text, other);
        for damaged in [&text[..text.len() / 2], &text.replace("\"a\"", "\"b\""), &other] {
            std::fs::write(&file, damaged).unwrap();
            assert_eq!([once("a", 3), once("a", 4)], [3, 3]);
        }
        assert_eq!(once("b", 5), 5);
    }

    #[test]
    fn who_fails_leaves_nothing_and_the_next_computes() {
        let folder = tempfile::tempdir().unwrap();
        let shared = Shared::new(folder.path());
        let key = json!(0);
        assert!(shared.once::<i32>("n", &key, || Err(Failure::run("no memory"))).is_err());
        assert_eq!(shared.once("n", &key, || Ok(7)).unwrap(), 7);
    }

    #[test]
    fn the_cost_of_what_is_read_is_that_of_computing_it() {
        let folder = tempfile::tempdir().unwrap();
        let [first, second] = [Shared::new(folder.path()), Shared::new(folder.path())];
        let slow = || {
            std::thread::sleep(std::time::Duration::from_millis(200));
            Ok(0)
        };
        first.once("n", &json!(1), slow).unwrap();
        assert_eq!(first.saved(), Cost::default(), "its own work is in its own time");
        second.once("n", &json!(1), slow).unwrap();
        let saved = second.saved();
        assert!(saved.seconds > 0.1, "{saved:?}");
        assert!(!cfg!(target_os = "linux") || saved.peak_memory > Some(1 << 20), "{saved:?}");
        let sum = Cost { seconds: 1.0, peak_memory: Some(5) }.and(Cost { seconds: 2.0, peak_memory: Some(3) });
        assert_eq!(sum, Cost { seconds: 3.0, peak_memory: Some(5) });
    }
}
