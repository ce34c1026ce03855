//! The rows of a data set as a run read them, kept in its folder to find the row that differs when the data has changed.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde_json::json;
use setpoint_data::{ExampleStore, Label, Spool, hex};
use setpoint_train::RunDir;
use sha2::{Digest, Sha256};

use super::Row;
use crate::failure::Outcome;

/// The longest file whose rows are compared one by one.
const MOST_COMPARED: u64 = 1 << 28;

/// The bytes of rows that are kept in memory.
const IN_MEMORY: usize = 4 << 20;

/// The aspects of a row that are compared, and their names in messages.
pub(super) const ASPECTS: [(&str, &str); 4] = [
    ("tokens", "the prompts or responses"),
    ("rewards", "the rewards"),
    ("labels", "the labels"),
    ("margins", "the margins"),
];

/// Rows, one a line, with a digest of each aspect. They are on disk if they are many.
#[derive(Debug)]
pub struct KeptRows {
    lines: Spool,
    digests: [Sha256; 4],
}

impl KeptRows {
    /// Begins without rows. `folder`: where a file goes if they become many.
    pub fn new(folder: &Path) -> Self {
        Self { lines: Spool::new(folder, IN_MEMORY), digests: Default::default() }
    }

    /// Keeps rows in memory.
    ///
    /// # Errors
    /// When one cannot be written as JSON.
    pub fn of(rows: &[Row]) -> Outcome<Self> {
        let mut kept = Self { lines: Spool::new("", usize::MAX), digests: Default::default() };
        rows.iter().try_for_each(|row| kept.push(row))?;
        Ok(kept)
    }

    /// Keeps the rows of a store. `folder`: where a file goes if they are many.
    ///
    /// # Errors
    /// When one cannot be read or written.
    pub fn of_store(rows: &ExampleStore, folder: &Path) -> Outcome<Self> {
        let mut kept = Self::new(folder);
        for example in rows.iter() {
            kept.push(&Row::of_example(&example?))?;
        }
        Ok(kept)
    }

    /// Adds a row.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn push(&mut self, row: &Row) -> Outcome {
        let aspects = [json!(row.tokens), json!(row.rewards), json!(row.labels), json!(row.margin)];
        for (digest, aspect) in self.digests.iter_mut().zip(aspects) {
            digest.update(serde_json::to_vec(&aspect)?);
            digest.update(b"\n");
        }
        let mut line = serde_json::to_vec(row)?;
        line.push(b'\n');
        self.lines.push(&line)?;
        Ok(())
    }

    /// Returns the digest of each aspect, in the order of [`ASPECTS`].
    pub(super) fn digests(&self) -> [String; 4] {
        self.digests.clone().map(|digest| hex(&digest.finalize()))
    }

    /// Gives all lines to `take`, piece by piece.
    fn each_piece(&self, take: &mut dyn FnMut(&[u8]) -> Outcome) -> Outcome {
        const PIECE: u64 = 1 << 20;
        let mut piece = Vec::new();
        let mut at = 0;
        while at < self.lines.len() {
            piece.resize(PIECE.min(self.lines.len() - at) as usize, 0);
            self.lines.read(at, &mut piece)?;
            take(&piece)?;
            at += piece.len() as u64;
        }
        Ok(())
    }

    /// Returns all rows; `None` if they are too many to be compared one by one.
    fn read(&self) -> Option<Vec<Row>> {
        if self.lines.len() > MOST_COMPARED {
            return None;
        }
        let mut text = Vec::new();
        self.each_piece(&mut |piece| {
            text.extend_from_slice(piece);
            Ok(())
        })
        .ok()?;
        let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_slice(line).ok()).collect()
    }
}

/// The rows of one or several data sets, and the file that keeps them.
#[derive(Debug)]
pub struct RowsFile {
    /// `data` or `eval_data`.
    pub section: &'static str,
    /// The paths of the data sets.
    pub paths: Vec<String>,
    /// Its rows now.
    pub rows: KeptRows,
    /// The name of a row's hash in messages.
    pub parts: fn(usize) -> String,
}

impl RowsFile {
    /// The file's name in a run folder.
    pub fn place(&self, run: &RunDir) -> PathBuf {
        run.join(self.name())
    }

    fn name(&self) -> String {
        format!("rows-{}.jsonl", self.section)
    }

    /// Writes the rows, one a line.
    pub fn write(&self, run: &RunDir) -> Outcome {
        setpoint_files::write(&self.place(run), |out| self.rows.each_piece(&mut |piece| Ok(out.put(piece)?)))
    }

    /// The first row that differs from the kept ones in an aspect, as a sentence; `None` where the file does not tell.
    pub fn difference(&self, run: &RunDir, aspect: &str) -> Option<String> {
        let text = setpoint_files::read_text_up_to(&self.place(run), MOST_COMPARED).ok()?;
        let then: Vec<Row> = text.lines().map(|line| serde_json::from_str(line).ok()).collect::<Option<_>>()?;
        let now = self.rows.read()?;
        (0..self.paths.len()).find_map(|set| {
            let of_set = |rows: &[Row]| rows.iter().filter(|row| row.set == set).cloned().collect::<Vec<_>>();
            self.difference_in(set, &of_set(&then), &of_set(&now), aspect)
        })
    }

    /// The same for the rows of a single data set.
    fn difference_in(&self, set: usize, then: &[Row], now: &[Row], aspect: &str) -> Option<String> {
        let path = &self.paths[set];
        let setting = match self.paths.len() {
            1 => format!("`{}.path`: ", self.section),
            _ => format!("`{}.sources[{set}].path`: ", self.section),
        };
        let differs = |(was, is): &(&Row, &Row)| match aspect {
            "tokens" => was.tokens != is.tokens,
            "rewards" => was.rewards != is.rewards,
            "labels" => was.labels != is.labels,
            "margins" => was.margin != is.margin,
            _ => false,
        };
        let differing: Vec<(usize, (&Row, &Row))> =
            then.iter().zip(now).enumerate().filter(|(_, pair)| differs(pair)).collect();
        if then.len() != now.len() {
            let same = if differing.is_empty() { "; those that both have are the same" } else { "" };
            return Some(format!("{setting}`{path}` had {} rows and now has {}{same}", then.len(), now.len()));
        }
        let (index, (was, is)) = *differing.first()?;
        if aspect == "tokens" && reordered(then, now) {
            return Some(format!("{setting}the rows of `{path}` are in another order, from {} on", is.name));
        }
        let what = match aspect {
            "tokens" => self.tokens(was, is),
            "rewards" => numbers("reward", &was.rewards, &is.rewards, |reward| format!("{reward:?}")),
            "labels" => numbers("label", &was.labels, &is.labels, name_of),
            _ => format!("the margin was {} and is now {}", margin(was.margin), margin(is.margin)),
        };
        let others = match differing.len() - 1 {
            0 => String::new(),
            1 => " (and 1 more row differs)".to_owned(),
            more => format!(" (and {more} more rows differ)"),
        };
        // A name without a file is that of a row.
        let name = if is.name.is_empty() { format!("row {index}") } else { is.name.clone() };
        Some(format!("{setting}{name}: {what}{others}"))
    }

    fn tokens(&self, was: &Row, is: &Row) -> String {
        if was.tokens.len() != is.tokens.len() {
            return format!("it had {} responses and now has {}", was.tokens.len() - 1, is.tokens.len() - 1);
        }
        let changed: Vec<String> = (0..was.tokens.len())
            .filter(|&part| was.tokens[part] != is.tokens[part])
            .map(|part| (self.parts)(part))
            .collect();
        format!("{} changed since the run was started", changed.join(" and "))
    }
}

/// Returns whether the same rows are there in another order.
fn reordered(then: &[Row], now: &[Row]) -> bool {
    let mut counts: HashMap<&[String], i64> = HashMap::new();
    then.iter().for_each(|row| *counts.entry(&row.tokens).or_default() += 1);
    now.iter().for_each(|row| *counts.entry(&row.tokens).or_default() -= 1);
    counts.values().all(|&count| count == 0)
}

/// The first number of a row that differs.
fn numbers<T: Copy + PartialEq>(what: &str, was: &[Option<T>], is: &[Option<T>], text: impl Fn(T) -> String) -> String {
    let at = |list: &[Option<T>], i: usize| list.get(i).copied().flatten();
    let text = |value: Option<T>| value.map_or_else(|| "missing".to_owned(), &text);
    let first = (0..was.len().max(is.len())).find(|&i| at(was, i) != at(is, i)).unwrap_or(0);
    format!("the {what} of response {first} was {} and is now {}", text(at(was, first)), text(at(is, first)))
}

fn name_of(label: Label) -> String {
    serde_json::to_value(label).ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
}

fn margin(margin: Option<f64>) -> String {
    margin.map_or_else(|| "missing".to_owned(), |margin| format!("{margin:?}"))
}

/// Names the parts of a row with a prompt and responses.
pub fn prompt_and_responses(part: usize) -> String {
    if part == 0 { "the prompt".to_owned() } else { format!("response {}", part - 1) }
}

/// Names the parts of a conversation.
pub fn conversation(part: usize) -> String {
    if part == 0 { "the conversation".to_owned() } else { "the choice of tokens that count".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_on_disk_are_written_and_compared_as_those_in_memory() {
        let rows: Vec<Row> =
            (0..50).map(|i| Row::of_conversation(&format!("a.jsonl:{i}"), i % 2, &[i as u32; 9], &[true])).collect();
        let folder = tempfile::tempdir().unwrap();
        let memory = KeptRows::of(&rows).unwrap();
        let mut disk = KeptRows { lines: Spool::new(folder.path(), 100), digests: Default::default() };
        rows.iter().for_each(|row| disk.push(row).unwrap());
        assert!(disk.lines.has_file() && !memory.lines.has_file());
        assert_eq!(memory.digests(), disk.digests());
        assert_eq!(disk.read().unwrap(), rows);
        // The digest of a version before rows were kept in pieces: each row's tokens as JSON, one a line.
        let lines: String = rows.iter().map(|row| serde_json::to_string(&row.tokens).unwrap() + "\n").collect();
        assert_eq!(disk.digests()[0], hex(&Sha256::digest(lines)));

        let run = RunDir::create(folder.path().join("run")).unwrap();
        let file = |rows| RowsFile { section: "data", paths: vec!["a".into(), "b".into()], rows, parts: conversation };
        let file = file(disk);
        file.write(&run).unwrap();
        let lines: Vec<String> = rows.iter().map(|row| serde_json::to_string(row).unwrap() + "\n").collect();
        assert_eq!(std::fs::read_to_string(file.place(&run)).unwrap(), lines.concat());
        assert_eq!(file.difference(&run, "tokens"), None);
    }
}
