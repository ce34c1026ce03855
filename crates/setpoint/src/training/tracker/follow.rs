//! The lines of `metrics.jsonl` while it grows.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use setpoint_train::RunDir;

/// The longest line, in bytes.
const LONGEST: u64 = 1 << 20;

/// A line of `metrics.jsonl`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Line {
    /// Names and values, in the order of the file.
    pub(super) values: Map<String, Value>,
}

impl Line {
    /// Returns the steps that were done.
    pub(super) fn step(&self) -> u64 {
        self.values.get("step").and_then(Value::as_u64).unwrap_or_default()
    }

    /// Returns the kind of the line (`train`, `eval` or `round`), and its values by the names that TensorBoard shows. Values that are
    /// not finite are null in the file and left out.
    pub(super) fn tagged(&self) -> (&'static str, Map<String, Value>) {
        let kind = match ["round", "num_tokens"].map(|name| self.values.contains_key(name)) {
            [true, _] => "round",
            [false, true] => "train",
            [false, false] => "eval",
        };
        let is_metric = |name: &str| !["step", "epoch", "round"].contains(&name);
        let tag = |name: &str| match name.strip_prefix("eval_").filter(|_| kind == "eval") {
            Some(rest) => format!("{kind}/{rest}"),
            None => format!("{kind}/{name}"),
        };
        let metrics = self.values.iter().filter(|(name, value)| is_metric(name) && value.is_number());
        (kind, metrics.map(|(name, value)| (tag(name), value.clone())).collect())
    }
}

/// Reads a file of metrics that another thread appends to.
#[derive(Debug)]
pub(super) struct Lines {
    path: PathBuf,
    file: Option<BufReader<File>>,
    /// The bytes of the lines that were read.
    at: u64,
}

impl Lines {
    /// Begins with the first line of a run.
    pub(super) fn new(run: &Path) -> Self {
        Self { path: run.join(RunDir::METRICS), file: None, at: 0 }
    }

    /// Returns the next whole line, or `None` if there is none yet.
    ///
    /// # Errors
    /// When the file cannot be read, or is no file of metrics.
    pub(super) fn next_line(&mut self) -> Result<Option<Line>, String> {
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let opened = setpoint_files::open(&self.path).map_err(|error| error.to_string())?;
                self.file.insert(BufReader::new(opened))
            }
        };
        let failed = |error: std::io::Error| format!("cannot read {}: {error}", self.path.display());
        let mut line = Vec::new();
        file.by_ref().take(LONGEST).read_until(b'\n', &mut line).map_err(failed)?;
        if line.last() != Some(&b'\n') {
            if line.len() as u64 == LONGEST {
                return Err(format!("cannot read {}: a line has more than {LONGEST} bytes", self.path.display()));
            }
            // A part of a line is read again when the rest of it is written.
            file.seek(SeekFrom::Start(self.at)).map_err(failed)?;
            return Ok(None);
        }
        self.at += line.len() as u64;
        let values = serde_json::from_slice(&line).map_err(|_| {
            format!("cannot read {}: the line that ends at byte {} is no JSON object", self.path.display(), self.at)
        })?;
        Ok(Some(Line { values }))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_line_is_returned_when_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = File::create(dir.path().join(RunDir::METRICS)).unwrap();
        let mut lines = Lines::new(dir.path());
        assert_eq!(lines.next_line(), Ok(None));
        file.write_all(b"{\"step\": 1}\n{\"step\"").unwrap();
        assert_eq!(lines.next_line().unwrap().unwrap().step(), 1);
        assert_eq!(lines.next_line(), Ok(None));
        file.write_all(b": 2}\n").unwrap();
        assert_eq!(lines.next_line().unwrap().unwrap().step(), 2);
        file.write_all(b"no JSON\n").unwrap();
        assert!(lines.next_line().unwrap_err().contains("the line that ends at byte 32 is no JSON object"));
    }

    #[test]
    fn names_are_those_of_tensorboard() {
        let tagged = |text: &str| {
            let (kind, values) = Line { values: serde_json::from_str(text).unwrap() }.tagged();
            (kind, Value::Object(values).to_string())
        };
        let train = tagged(r#"{"step": 3, "epoch": 0.5, "num_tokens": 70, "loss": 0.25, "kl": null}"#);
        assert_eq!(train, ("train", r#"{"train/num_tokens":70,"train/loss":0.25}"#.to_owned()));
        let eval = tagged(r#"{"step": 3, "epoch": 0.5, "eval_loss": 0.5}"#);
        assert_eq!(eval, ("eval", r#"{"eval/loss":0.5}"#.to_owned()));
        let round = tagged(r#"{"step": 3, "epoch": 0.5, "round": 1, "reward": -2.0}"#);
        assert_eq!(round, ("round", r#"{"round/reward":-2.0}"#.to_owned()));
    }
}
