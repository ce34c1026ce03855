//! Reference log-probabilities, stored beside the data.
//!
//! A JSONL file: a line that says what the numbers belong to, then a line for each response, which ends with a checksum of the rest.
//! It grows row by row, so an interrupted computation goes on where it stopped. Files of version 1 have no checksums.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use setpoint_files::words;

use crate::Error;
use crate::storage::AppendLog;

const FORMAT: &str = "setpoint-reference-logps";
const VERSION: u64 = 2;
/// Key of a line's checksum.
const CHECKSUM: &str = "crc32c";

/// The inputs that decide reference log-probabilities. The strings are hashes or names, chosen by the caller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReferenceKey {
    /// The reference model's weights and dtype.
    pub model: String,
    /// Tokenizer and chat template.
    pub tokenizer: String,
    /// Token ids of the examples.
    pub examples: String,
}

/// The reference model's log-probabilities of one response.
///
/// # Units
/// Nats; f64 sums of f32 token values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReferenceRow {
    /// Row of the example.
    pub row: usize,
    /// Index of the response in its row.
    pub response: usize,
    /// Scored tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens of the response.
    pub response_tokens: usize,
    /// Log-probability of the prompt after t0.
    pub prompt_logp: f64,
    /// Log-probability of the response.
    pub response_logp: f64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    format: String,
    version: u64,
    key: ReferenceKey,
}

/// An open file of reference log-probabilities, locked against other processes. What it holds is not kept in memory.
#[derive(Debug)]
pub struct ReferenceStore {
    path: PathBuf,
    log: AppendLog,
    /// The version of the file.
    version: u64,
}

impl ReferenceStore {
    /// Opens a file, or starts it, and gives each response that it holds to `take`: of one that was added again, the last counts. A last line
    /// that was torn by a killed process is dropped.
    ///
    /// # Errors
    /// When the file belongs to another model, tokenizer or data set, is damaged, or is in use by another process.
    pub fn open(path: impl AsRef<Path>, key: &ReferenceKey, take: &mut dyn FnMut(ReferenceRow)) -> Result<Self, Error> {
        let path = path.as_ref();
        // The lock comes first: a holder may be writing what would be read here.
        let mut log = AppendLog::open_locked(path)?;
        let mut file = BufReader::new(File::open(path).map_err(Error::io("read", path))?);
        let (mut line, mut whole, mut version) = (Vec::new(), 0, VERSION);
        for number in 1.. {
            line.clear();
            file.read_until(b'\n', &mut line).map_err(Error::io("read", path))?;
            if line.pop() != Some(b'\n') {
                break;
            }
            whole += line.len() as u64 + 1;
            let wrong = |error: serde_json::Error| {
                Error::corrupt(path, format!("line {number}: {}", words::json_in_line(&error)))
            };
            if number == 1 {
                let header: Header = serde_json::from_slice(&line).map_err(wrong)?;
                check_key(path, &header, key)?;
                version = header.version;
            } else {
                let mut value: Value = serde_json::from_slice(&line).map_err(wrong)?;
                if version > 1 {
                    check_line(path, number, &mut value)?;
                }
                take(serde_json::from_value(value).map_err(wrong)?);
            }
        }
        log.truncate(whole)?;
        let mut store = Self { path: path.to_path_buf(), log, version };
        if whole == 0 {
            let header = Header { format: FORMAT.into(), version: VERSION, key: key.clone() };
            store.append_line(&header)?;
            store.sync()?;
        }
        Ok(store)
    }

    /// Adds a response; one that is there already is replaced.
    ///
    /// # Errors
    /// When a log-probability is not finite, or the file cannot be written.
    pub fn append(&mut self, row: &ReferenceRow) -> Result<(), Error> {
        if !(row.prompt_logp.is_finite() && row.response_logp.is_finite()) {
            return Err(Error::Sequence {
                index: row.row,
                reason: format!(
                    "the reference log-probabilities of response {} are not finite: prompt {}, response {}",
                    row.response, row.prompt_logp, row.response_logp
                ),
            });
        }
        if self.version > 1 {
            let mut value = serde_json::to_value(row).map_err(|error| Error::corrupt(&self.path, error.to_string()))?;
            let sum = checksum(&value);
            value[CHECKSUM] = sum.into();
            self.append_line(&value)
        } else {
            self.append_line(row)
        }
    }

    /// Brings everything to the disk.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn sync(&mut self) -> Result<(), Error> {
        self.log.sync().map(|_| ())
    }

    fn append_line(&mut self, value: &impl Serialize) -> Result<(), Error> {
        let mut line = serde_json::to_string(value).map_err(|error| Error::corrupt(&self.path, error.to_string()))?;
        line.push('\n');
        self.log.append(line.as_bytes())
    }
}

/// The checksum of a line without it.
fn checksum(line: &Value) -> String {
    format!("{:08x}", crc32c::crc32c(line.to_string().as_bytes()))
}

/// Takes the checksum out of a line, which must have the right one.
fn check_line(path: &Path, number: usize, line: &mut Value) -> Result<(), Error> {
    let expected = line.as_object_mut().and_then(|fields| fields.shift_remove(CHECKSUM));
    let found = checksum(line);
    if expected.as_ref().and_then(Value::as_str) == Some(found.as_str()) {
        return Ok(());
    }
    let expected = expected.map_or_else(|| "none".to_owned(), |value| value.to_string());
    Err(Error::corrupt(
        path,
        format!(
            "line {number} is not as it was written (its checksum is {expected}, expected \"{found}\"); delete the file to compute the \
             reference log-probabilities again"
        ),
    ))
}

fn check_key(path: &Path, header: &Header, key: &ReferenceKey) -> Result<(), Error> {
    if header.format != FORMAT || !(1..=VERSION).contains(&header.version) {
        return Err(Error::corrupt(
            path,
            format!(
                "expected format {FORMAT}, version 1 to {VERSION}, found {} version {}",
                header.format, header.version
            ),
        ));
    }
    let found = &header.key;
    let differences: Vec<String> = [
        ("model", &found.model, &key.model),
        ("tokenizer", &found.tokenizer, &key.tokenizer),
        ("examples", &found.examples, &key.examples),
    ]
    .into_iter()
    .filter(|(_, was, is)| was != is)
    .map(|(name, was, is)| format!("its {name} is `{was}`, expected `{is}`"))
    .collect();
    if differences.is_empty() {
        return Ok(());
    }
    Err(Error::ReferenceKey { path: path.to_path_buf(), differences })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn key() -> ReferenceKey {
        ReferenceKey { model: "m1".into(), tokenizer: "t1".into(), examples: "e1".into() }
    }

    fn row(row: usize, response: usize) -> ReferenceRow {
        ReferenceRow {
            row,
            response,
            prompt_tokens: 3,
            response_tokens: 5,
            prompt_logp: -1.0 / 3.0,
            response_logp: -(row as f64) - 0.1,
        }
    }

    /// Opens a file; also returns what it holds.
    fn open(path: &Path, key: &ReferenceKey) -> Result<(ReferenceStore, Vec<ReferenceRow>), Error> {
        let mut rows = Vec::new();
        let store = ReferenceStore::open(path, key, &mut |row| rows.push(row))?;
        Ok((store, rows))
    }

    #[test]
    fn rows_come_back_to_the_bit_and_a_torn_line_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("reference.jsonl");
        let (mut store, _) = open(&path, &key()).unwrap();
        store.append(&row(0, 0)).unwrap();
        store.append(&row(0, 1)).unwrap();
        store.append(&row(2, 0)).unwrap();
        drop(store);
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 4);

        // Cut anywhere within the last line, also right before its end.
        let third = text.trim_end().rfind('\n').unwrap() + 1;
        for length in [third + 1, third + 20, text.len() - 1] {
            fs::write(&path, &text[..length]).unwrap();
            let (mut store, rows) = open(&path, &key()).unwrap();
            assert_eq!(rows, [row(0, 0), row(0, 1)]);
            store.append(&row(2, 0)).unwrap();
            store.sync().unwrap();
            drop(store);
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn a_torn_header_is_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("reference.jsonl");
        fs::write(&path, "{\"format\":\"setpo").unwrap();
        assert!(open(&path, &key()).unwrap().1.is_empty());
        assert!(open(&path, &key()).unwrap().1.is_empty());
    }

    #[test]
    fn another_key_is_refused_and_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("reference.jsonl");
        open(&path, &key()).unwrap().0.append(&row(0, 0)).unwrap();
        let before = fs::read(&path).unwrap();
        let other = ReferenceKey { model: "m2".into(), examples: "e2".into(), ..key() };
        let error = open(&path, &other).unwrap_err().to_string();
        assert!(error.contains("its model is `m1`, expected `m2`"), "{error}");
        assert!(error.contains("its examples is `e1`, expected `e2`"), "{error}");
        assert!(!error.contains("t1"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), before);
    }

    #[test]
    fn a_damaged_line_is_an_error_with_its_number() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("reference.jsonl");
        open(&path, &key()).unwrap();
        let header = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("{header}{{\"row\":0}}\n")).unwrap();
        let error = open(&path, &key()).unwrap_err().to_string();
        assert!(error.contains("line 2"), "{error}");
    }

    #[test]
    fn changed_digits_are_noticed_and_a_file_without_checksums_still_grows() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("reference.jsonl");
        let (mut store, _) = open(&path, &key()).unwrap();
        (0..3).for_each(|i| store.append(&row(i, 0)).unwrap());
        drop(store);
        let text = fs::read_to_string(&path).unwrap();
        for (old, new) in [("-1.1", "-1.2"), ("\"row\":2", "\"row\":1"), ("response_tokens\":5", "response_tokens\":6")]
        {
            let changed = text.replacen(old, new, 1);
            assert_ne!(text, changed);
            fs::write(&path, changed).unwrap();
            let error = open(&path, &key()).unwrap_err().to_string();
            assert!(error.contains("reference.jsonl is damaged: line") && error.contains("checksum"), "{error}");
        }

        // As version 1 wrote it.
        let (header, first) = (text.lines().next().unwrap(), serde_json::to_string(&row(0, 0)).unwrap());
        fs::write(&path, format!("{}\n{first}\n", header.replace("\"version\":2", "\"version\":1"))).unwrap();
        let (mut store, _) = open(&path, &key()).unwrap();
        store.append(&row(1, 0)).unwrap();
        drop(store);
        assert!(!fs::read_to_string(&path).unwrap().contains(CHECKSUM));
        assert_eq!(open(&path, &key()).unwrap().1, [row(0, 0), row(1, 0)]);
    }

    #[test]
    fn what_is_not_finite_is_not_stored() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.jsonl");
        let (mut store, _) = open(&path, &key()).unwrap();
        let error = store.append(&ReferenceRow { response_logp: f64::NAN, ..row(7, 1) }).unwrap_err();
        assert!(error.to_string().contains("sequence 7: the reference log-probabilities of response 1"), "{error}");
        drop(store);
        assert!(open(&path, &key()).unwrap().1.is_empty());
    }

    #[test]
    fn two_writers_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("reference.jsonl");
        let store = open(&path, &key()).unwrap();
        let error = open(&path, &key()).unwrap_err();
        assert!(matches!(error, Error::Locked { .. }), "{error}");
        drop(store);
    }
}
