//! Answers on disk: one JSON line each, appended whole.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde_json::{Value, json};

use crate::error::Error;

/// Answers by the hash of their request. One process at a time holds the file.
#[derive(Debug)]
pub(super) struct Cache {
    path: PathBuf,
    inner: Mutex<(File, HashMap<String, Value>)>,
}

impl Cache {
    /// Opens or begins a cache. A last line that a killed process left unfinished is cut off.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            std::fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
        }
        let open = OpenOptions::new().read(true).append(true).create(true).open(path);
        let mut file = open.map_err(Error::io("open", path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => {
                return Err(Error::file(path, "is in use by another evaluation; give each its own cache"));
            }
            Err(std::fs::TryLockError::Error(e)) => return Err(Error::io("lock", path)(e)),
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(Error::io("read", path))?;
        let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        if whole < bytes.len() {
            file.set_len(whole as u64).map_err(Error::io("repair", path))?;
            file.seek(SeekFrom::End(0)).map_err(Error::io("repair", path))?;
        }
        let mut answers = HashMap::new();
        for (i, line) in bytes[..whole].split(|b| *b == b'\n').enumerate().filter(|(_, l)| !l.is_empty()) {
            let wrong = || Error::row(path, i + 1, "expected a cached answer: an object with `key` and `response`");
            let mut entry: Value = serde_json::from_slice(line).map_err(|_| wrong())?;
            let key = entry["key"].as_str().ok_or_else(wrong)?.to_owned();
            let response = entry.get_mut("response").ok_or_else(wrong)?.take();
            answers.insert(key, response);
        }
        Ok(Self { path: path.to_owned(), inner: Mutex::new((file, answers)) })
    }

    pub(super) fn get(&self, key: &str) -> Option<Value> {
        self.lock().1.get(key).cloned()
    }

    /// Appends an answer in one write and waits until it is on the disk: it has been paid for.
    pub(super) fn put(&self, key: &str, response: &Value) -> Result<(), Error> {
        let line = json!({ "key": key, "response": response }).to_string() + "\n";
        let mut inner = self.lock();
        inner
            .0
            .write_all(line.as_bytes())
            .and_then(|()| inner.0.sync_data())
            .map_err(Error::io("write", &self.path))?;
        inner.1.insert(key.to_owned(), response.clone());
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (File, HashMap<String, Value>)> {
        // Entries are inserted after they are written; whoever panicked left nothing half done.
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
