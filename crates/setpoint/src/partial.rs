//! A file of rows that is written as they are computed. Until it is whole it has another name, `rewards.jsonl.partial`, and begins with a
//! line that tells what it is computed from, so that a command that was killed goes on where it was. The whole file has that line next to
//! it, in `rewards.jsonl.settings`, so that a command which is given once more finds that nothing is left to do.

use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use setpoint_data::Record;
use setpoint_files::words;

use crate::failure::{Failure, Outcome};
use crate::session::{Existing, Session};
use crate::setup;
use crate::sources::TEMPLATE;

/// The key of lines between the rows: how many rows of the input are done, and counts that go with them.
const DONE: &str = "{\"setpoint_done\":";

/// The first bytes of a file of rows that is not whole, and of a whole one's record.
const PARTIAL_START: &str = "{\"setpoint_partial\":";
const RECORD_START: &str = "{\"bytes\":";

/// Settings that say where things are. What is in them is compared by its hash.
const PLACES: [&str; 6] =
    ["output", "model.path", "model.tokenizer", "data.path", "reference.model.path", "reference.model.tokenizer"];

/// Fails if the output exists and the flags do not say what to do about it. Called before anything is read.
pub fn check(session: &Session, output: Option<&Path>) -> Outcome {
    let refuse = |message: String, hint: &str| Err(Failure::run(message).hint(hint));
    let Some(path) = output else {
        return match session.existing {
            Existing::Continue => Err(Failure::usage("--continue", "needs a file to go on with: give --output FILE")),
            _ => Ok(()),
        };
    };
    let (whole, partial) = (path.is_file(), partial_path(path));
    if whole || !path.exists() {
        check_own(&partial, PARTIAL_START)?;
        check_own(&record_path(path), RECORD_START)?;
    }
    let begun = is_begun(path);
    match session.existing {
        Existing::Refuse if whole => session.existing.require_new(path),
        Existing::Refuse if begun => refuse(
            format!("{} holds the first rows of a command that was interrupted", partial.display()),
            "give --continue to keep them, or --overwrite to begin again",
        ),
        Existing::Continue if whole && !begun && !record_path(path).is_file() => refuse(
            format!("{} is whole already, and nothing tells what it was computed from", path.display()),
            "give --overwrite to replace it",
        ),
        _ => Ok(()),
    }
}

/// Returns whether an interrupted command left rows.
fn is_begun(path: &Path) -> bool {
    read_plain(&partial_path(path)).is_ok_and(|bytes| Kept::read(&bytes).done > 0)
}

/// Reads a file that is no link to one, and neither a pipe nor a device.
fn read_plain(path: &Path) -> std::io::Result<Vec<u8>> {
    if is_plain(path)? { std::fs::read(path) } else { Err(ErrorKind::InvalidInput.into()) }
}

/// Returns whether there is a file at a place, not a link to one.
fn is_plain(path: &Path) -> std::io::Result<bool> {
    Ok(std::fs::symlink_metadata(path)?.is_file())
}

/// Fails if a file that is about to be replaced is not of this program: its bytes begin otherwise. A link is none.
fn check_own(path: &Path, start: &str) -> Outcome {
    let found = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("read", path, 0)(error)),
        Ok(found) => found.file_type(),
    };
    let is_own = found.is_file() && {
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(failed("open", path, 0))?;
        file.take(start.len() as u64).read_to_end(&mut bytes).map_err(failed("read", path, 0))?;
        // A command that was interrupted may have left its first bytes alone.
        start.as_bytes().starts_with(&bytes)
    };
    if is_own {
        return Ok(());
    }
    let what = if found.is_file() { "a file that Setpoint did not write" } else { setpoint_files::kind(found) };
    Err(Failure::run(format!("{} is {what}; rows are kept under this name until they are complete", path.display()))
        .hint("move it away, or give another --output"))
}

fn partial_path(path: &Path) -> PathBuf {
    with_ending(path, ".partial")
}

/// Removes what an interrupted command left, once nothing of it is needed. A file that this program did not write stays.
pub fn discard(path: &Path) {
    let partial = partial_path(path);
    if check_own(&partial, PARTIAL_START).is_ok() {
        // What is left does no harm.
        let _ = std::fs::remove_file(&partial);
    }
}

/// Returns the path of a whole file's record, which names the inputs that it was computed from.
fn record_path(path: &Path) -> PathBuf {
    with_ending(path, ".settings")
}

/// Returns a path with something behind its name, its extension included.
pub fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// The record of a whole file.
#[derive(Debug, Serialize, Deserialize)]
struct WholeFile {
    bytes: u64,
    crc32c: String,
    identity: Value,
}

/// Returns whether a command that is to go on finds its output whole, which is then said.
///
/// # Errors
/// When it was computed from something else, which is named, or was changed since.
pub fn is_complete(session: &Session, path: &Path, identity: &Value) -> Outcome<bool> {
    let begun = is_begun(path);
    if session.existing != Existing::Continue || !path.is_file() || begun {
        return Ok(false);
    }
    let record = record_path(path);
    let text = setpoint_files::read(&record)?;
    let found: WholeFile = serde_json::from_slice(&text).map_err(|e| {
        Failure::run(format!("{} is damaged: {}", record.display(), words::json(&e)))
            .hint("give --overwrite to begin again")
    })?;
    if setpoint_train::file_digest(path)? != (found.bytes, found.crc32c) {
        return Err(Failure::run(format!("{} is not as the command left it that wrote it", path.display()))
            .hint("give --overwrite to begin again"));
    }
    compare(&found.identity, identity, path)?;
    log::info!("{} is complete: nothing is left to do", path.display());
    Ok(true)
}

/// Collects the inputs that the rows are computed from, to be compared when a command goes on.
pub fn identity(
    session: &Session,
    command: &str,
    config: &impl Serialize,
    inputs: &[(&str, String)],
) -> Outcome<Value> {
    let mut settings = serde_json::to_value(config)?;
    for place in PLACES {
        let (table, key) = match place.rsplit_once('.') {
            Some((section, key)) => (settings.pointer_mut(&format!("/{}", section.replace('.', "/"))), key),
            None => (Some(&mut settings), place),
        };
        if let Some(table) = table.and_then(Value::as_object_mut) {
            table.shift_remove(key);
        }
    }
    let sources = settings.pointer_mut("/data/sources").and_then(Value::as_array_mut);
    for source in sources.into_iter().flatten().filter_map(Value::as_object_mut) {
        source.shift_remove("path");
    }
    let device = format!("{:?}", session.device());
    let kind = device.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
    let inputs: Map<String, Value> = inputs.iter().map(|(name, hash)| ((*name).to_owned(), json!(hash))).collect();
    Ok(json!({
        "setpoint_partial": 1, "setpoint": env!("CARGO_PKG_VERSION"), "command": command, "device": kind,
        "inputs": inputs, "settings": settings,
    }))
}

/// Identifies records by everything that is known of them.
pub fn records_hash(records: &[Record]) -> String {
    let all: Vec<String> = records
        .iter()
        .map(|Record { prompt, responses, margin, extra, .. }| format!("{prompt:?}{responses:?}{margin:?}{extra:?}"))
        .collect();
    setup::text_hash(&all.join("\n"))
}

/// The file, open at its end.
pub struct PartialRows {
    target: PathBuf,
    /// Its name until it is whole; `None` for a device or a pipe, which is written directly.
    partial: Option<PathBuf>,
    file: File,
    kept: Kept,
}

/// The rows that an interrupted command left.
#[derive(Debug, Default, PartialEq)]
struct Kept {
    /// Bytes of the file up to here.
    bytes: usize,
    lines: Vec<String>,
    done: usize,
    tally: Vec<usize>,
}

impl PartialRows {
    /// Opens a new file, or the one that an interrupted command left.
    ///
    /// # Errors
    /// When that was computed from something else, which is named; when another process writes it, or the disk refuses.
    pub fn open(session: &Session, target: &Path, identity: &Value) -> Outcome<Self> {
        let target = target.to_owned();
        if target.exists() && !target.is_file() {
            let file = File::options().write(true).open(&target).map_err(failed("open", &target, 0))?;
            return Ok(Self { target, partial: None, file, kept: Kept::default() });
        }
        if let Some(folder) = target.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(failed("create", folder, 0))?;
        }
        let partial = partial_path(&target);
        check_own(&partial, PARTIAL_START)?;
        let is_new = !is_plain(&partial).unwrap_or(false);
        let mut options = File::options();
        // A new file is never created through a link.
        let mut file =
            options.read(true).write(true).create_new(is_new).open(&partial).map_err(failed("open", &partial, 0))?;
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            return Err(Failure::run(format!("{} is being written by another process", partial.display())));
        }
        let mut bytes = Vec::new();
        if session.existing == Existing::Continue {
            file.read_to_end(&mut bytes).map_err(failed("read", &partial, 0))?;
        }
        let header = format!("{identity}\n");
        let kept = match whole_lines(&bytes).next() {
            None => Kept::default(),
            Some(first) => match Kept::read(&bytes) {
                // Nothing would be mixed.
                kept if kept.done == 0 && is_header(first) => Kept::default(),
                kept => {
                    if !is_header(first) {
                        return Err(Failure::run(format!("{} was not begun by this command", partial.display()))
                            .hint("give --overwrite to begin again"));
                    }
                    compare(&serde_json::from_slice(first).unwrap_or_default(), identity, &partial)?;
                    kept
                }
            },
        };
        let write = |file: &mut File| -> std::io::Result<()> {
            file.set_len(kept.bytes as u64)?;
            file.seek(SeekFrom::End(0))?;
            if kept.bytes == 0 { file.write_all(header.as_bytes()) } else { Ok(()) }
        };
        write(&mut file).map_err(failed("write", &partial, kept.done))?;
        if kept.done > 0 {
            log::info!("{} rows of {} are kept", kept.done, partial.display());
        }
        Ok(Self { target, partial: Some(partial), file, kept })
    }

    /// Rows of the input that are done.
    pub fn done(&self) -> usize {
        self.kept.done
    }

    /// The lines that an interrupted command left.
    pub fn lines(&self) -> &[String] {
        &self.kept.lines
    }

    /// The counts that were written with them.
    pub fn tally(&self) -> &[usize] {
        &self.kept.tally
    }

    /// Adds lines, after which `done` rows of the input are done. `tally`: counts up to here, to be shown at the end.
    pub fn push(&mut self, lines: &[String], done: usize, tally: &[usize]) -> Outcome {
        let mut text: String = lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
        if self.partial.is_some() {
            text.push_str(&format!("{DONE}{done},\"tally\":{}}}\n", json!(tally)));
        }
        let written = self.file.write_all(text.as_bytes()).and_then(|()| match self.partial {
            Some(_) => self.file.sync_data(),
            None => self.file.flush(),
        });
        let kept = if self.partial.is_some() { self.kept.done } else { 0 };
        written.map_err(failed("write", self.partial.as_ref().unwrap_or(&self.target), kept))?;
        self.kept.done = done;
        Ok(())
    }

    /// Gives the file its name, without the lines that are not rows. Returns the number of rows.
    pub fn finish(mut self) -> Outcome<usize> {
        let Some(partial) = self.partial.take() else { return Ok(0) };
        let mut bytes = Vec::new();
        self.file.rewind().and_then(|()| self.file.read_to_end(&mut bytes)).map_err(failed(
            "read",
            &partial,
            self.kept.done,
        ))?;
        let identity = whole_lines(&bytes).next().and_then(|line| serde_json::from_slice(line).ok());
        let rows: Vec<&[u8]> = whole_lines(&bytes).skip(1).filter(|line| !line.starts_with(DONE.as_bytes())).collect();
        setpoint_files::write(&self.target, |out| rows.iter().try_for_each(|row| out.put(row)))?;
        // The rows are safe; what is left of the other file does no harm.
        let _ = std::fs::remove_file(&partial);
        if let Err(failure) = record(&self.target, identity.unwrap_or_default()) {
            log::warn!("{failure}: --continue will not know that the file is complete");
        }
        Ok(rows.len())
    }
}

/// Leaves next to a whole file what it was computed from.
fn record(path: &Path, identity: Value) -> Outcome {
    let (bytes, crc32c) = setpoint_train::file_digest(path)?;
    let text = serde_json::to_string(&WholeFile { bytes, crc32c, identity })? + "\n";
    let place = record_path(path);
    check_own(&place, RECORD_START)?;
    // Replaces the name, so that no link is followed.
    Ok(setpoint_files::replace(&place, ".writing-", |out| out.put(text.as_bytes()))?)
}

impl Drop for PartialRows {
    fn drop(&mut self) {
        // A command that fails before its first row leaves nothing to go on with.
        if let (Some(partial), 0) = (&self.partial, self.kept.done) {
            let _ = std::fs::remove_file(partial);
        }
    }
}

impl Kept {
    /// Reads up to the last line that says how many rows are done: what follows was cut off, or is computed again.
    fn read(bytes: &[u8]) -> Self {
        let (mut kept, mut at, mut open) = (Self::default(), 0, Vec::new());
        for (i, line) in whole_lines(bytes).enumerate() {
            at += line.len();
            let text = String::from_utf8_lossy(line).trim_end().to_owned();
            if i == 0 {
                kept.bytes = at;
            } else if text.starts_with(DONE) {
                let Ok(marker) = serde_json::from_str::<Value>(&text) else { break };
                let count = |value: &Value| value.as_u64().and_then(|n| usize::try_from(n).ok());
                kept.lines.append(&mut open);
                kept.done = count(&marker["setpoint_done"]).unwrap_or_default();
                kept.tally = marker["tally"].as_array().into_iter().flatten().filter_map(count).collect();
                kept.bytes = at;
            } else {
                open.push(text);
            }
        }
        kept
    }
}

/// The lines that end, with their ends.
fn whole_lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split_inclusive(|&byte| byte == b'\n').filter(|line| line.ends_with(b"\n"))
}

fn is_header(first: &[u8]) -> bool {
    serde_json::from_slice::<Value>(first).is_ok_and(|found| found.get("setpoint_partial").is_some())
}

/// Fails if an earlier command's rows were computed from something else.
fn compare(found: &Value, identity: &Value, file: &Path) -> Outcome {
    let mut differences = Vec::new();
    differ("", found, identity, &mut differences);
    if differences.is_empty() {
        return Ok(());
    }
    Err(Failure::run(format!("{} was begun with something else: {}", file.display(), differences.join("; ")))
        .hint("give the same settings to go on, or --overwrite to begin again"))
}

/// Notes where two values differ.
fn differ(key: &str, found: &Value, now: &Value, differences: &mut Vec<String>) {
    match (found, now) {
        (Value::Object(a), Value::Object(b)) => {
            let names = a.keys().chain(b.keys().filter(|name| !a.contains_key(*name)));
            for name in names {
                let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                let of = |map: &Map<String, Value>| map.get(name).cloned().unwrap_or_default();
                differ(&key, &of(a), &of(b), differences);
            }
        }
        _ if found == now => {}
        // Earlier builds did not note it.
        (Value::Null, _) if key == format!("inputs.{TEMPLATE}") => {}
        _ => differences.push(match key.split_once('.') {
            Some(("inputs", input)) => format!("the {input} changed"),
            Some(("settings", setting)) => format!("`{setting}` was {found} and is {now}"),
            _ => format!("`{key}` was {found} and is {now}"),
        }),
    }
}

/// Returns the failure of an operation on a file of which `kept` rows of the input are done.
fn failed(action: &'static str, path: &Path, kept: usize) -> impl FnOnce(std::io::Error) -> Failure {
    let path = path.display().to_string();
    move |error| {
        let failure = Failure::run(format!("cannot {action} {path}: {}", words::system(&error)));
        match error.kind() {
            ErrorKind::StorageFull if kept > 0 => {
                failure.hint("free some space and add --continue: the rows that are written are kept")
            }
            ErrorKind::StorageFull => failure.hint("free some space and run the same command again"),
            _ => failure,
        }
    }
}

#[cfg(test)]
mod tests;
