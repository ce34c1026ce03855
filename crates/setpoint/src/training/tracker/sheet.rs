//! `metrics.csv`: a row for each line of `metrics.jsonl`, a column for each name in it.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::Sink;
use super::follow::{Line, Lines};

/// The file in a run folder.
const NAME: &str = "metrics.csv";
/// Begins the name of a file that is being written, as those of the engine.
const UNFINISHED: &str = ".unfinished-";

/// The table. A line with a new name gives it another column, for which it is written again.
pub(super) struct Sheet {
    run: PathBuf,
    path: PathBuf,
    /// The names, in the order in which they came.
    columns: Vec<String>,
    /// Lines of `metrics.jsonl` that are in the table.
    rows: usize,
}

impl Sheet {
    /// Begins the table of a run, in place of an older one.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn new(run: &Path) -> Result<Self, String> {
        let sheet = Self { run: run.to_owned(), path: run.join(NAME), columns: Vec::new(), rows: 0 };
        sheet.write_whole()?;
        Ok(sheet)
    }

    /// Writes the table of the lines so far.
    fn write_whole(&self) -> Result<(), String> {
        let mut lines = Lines::new(&self.run);
        let written = setpoint_files::replace::<Failed>(&self.path, UNFINISHED, |out| {
            if !self.columns.is_empty() {
                out.put(&row(self.columns.iter().map(String::as_str))?)?;
            }
            for _ in 0..self.rows {
                if let Some(line) = lines.next_line()? {
                    out.put(&self.row(&line)?)?;
                }
            }
            Ok(())
        });
        written.map_err(|Failed(reason)| reason)
    }

    /// Returns the row of a line.
    fn row(&self, line: &Line) -> Result<Vec<u8>, String> {
        let cell = |name: &String| match line.values.get(name) {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(value) => value.to_string(),
        };
        row(self.columns.iter().map(cell))
    }

    fn append(&self, line: &Line) -> Result<(), String> {
        let row = self.row(line)?;
        let opened = OpenOptions::new().append(true).open(&self.path);
        let written = opened.and_then(|mut file: File| file.write_all(&row));
        written.map_err(|error| format!("cannot append to {}: {error}", self.path.display()))
    }
}

impl Sink for Sheet {
    fn take(&mut self, line: &Line) -> Result<(), String> {
        let known = self.columns.len();
        for name in line.values.keys() {
            if !self.columns.contains(name) {
                self.columns.push(name.clone());
            }
        }
        self.rows += 1;
        if self.columns.len() > known { self.write_whole() } else { self.append(line) }
    }

    fn end(&mut self, _how: &'static str) -> Result<(), String> {
        Ok(())
    }
}

/// The reason for which the table cannot be written.
struct Failed(String);

impl From<String> for Failed {
    fn from(reason: String) -> Self {
        Self(reason)
    }
}

impl From<setpoint_files::Error> for Failed {
    fn from(error: setpoint_files::Error) -> Self {
        Self(error.to_string())
    }
}

/// Writes a row as CSV.
fn row(cells: impl Iterator<Item = impl AsRef<[u8]>>) -> Result<Vec<u8>, String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(cells).map_err(|error| error.to_string())?;
    writer.into_inner().map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use setpoint_train::RunDir;

    use super::*;

    #[test]
    fn the_table_has_every_line_and_column_after_any_start() {
        let dir = tempfile::tempdir().unwrap();
        let metrics = "{\"step\":1,\"loss\":0.5}\n{\"step\":2,\"loss\":null}\n{\"step\":2,\"eval_loss\":1e-7}\n{\"step\":3,\"loss\":0.125}\n";
        fs::write(dir.path().join(RunDir::METRICS), metrics).unwrap();
        fs::write(dir.path().join(NAME), "of a process that was killed").unwrap();
        let expected = ["step,loss,eval_loss", "1,0.5,", "2,,", "2,,1e-7", "3,0.125,"];
        let mut sheet = Sheet::new(dir.path()).unwrap();
        let text = || fs::read_to_string(dir.path().join(NAME)).unwrap();
        assert_eq!(text(), "");
        let mut lines = Lines::new(dir.path());
        while let Some(line) = lines.next_line().unwrap() {
            sheet.take(&line).unwrap();
        }
        assert_eq!(text().lines().collect::<Vec<_>>(), expected);
    }
}
