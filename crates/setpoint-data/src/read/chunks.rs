//! The records of data sets, a part at a time, with counts of their rows.

use serde::Serialize;

use super::room::Room;
use super::{RecordStream, read_records};
use crate::config::{BadRows, DatasetConfig, Ties};
use crate::error::Error;
use crate::record::Record;

/// Counts of the rows of a data set by the result of reading them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct ReadReport {
    /// Rows read.
    pub rows: usize,
    /// Rows that became records.
    pub kept: usize,
    /// Bad rows and ties that were left out.
    pub dropped: usize,
    /// The errors of the first few of them.
    pub examples: Vec<String>,
    /// The rows of each data set.
    pub sources: Vec<SourceReport>,
}

/// Counts of the rows of one of the data sets that a job reads.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct SourceReport {
    /// Its path.
    pub path: String,
    /// Rows read.
    pub rows: usize,
    /// Rows that became records.
    pub kept: usize,
}

/// Reads all records into memory, data set after data set, and deals with bad rows as the configuration says.
///
/// # Errors
/// As [`read_records`]; with [`BadRows::Error`] also the first bad row; when no row of a data set is left, [`Error::Empty`].
pub fn load_records(config: &DatasetConfig) -> Result<(Vec<Record>, ReadReport), Error> {
    let mut chunks = RecordChunks::open(config);
    let mut records = Vec::new();
    while let Some(mut chunk) = chunks.next_chunk()? {
        records.append(&mut chunk);
    }
    Ok((records, chunks.report))
}

/// The records of one or several data sets, a part at a time, so that not all of them are in memory at once.
#[derive(Debug)]
pub struct RecordChunks {
    /// Counts of the rows that were read so far.
    pub report: ReadReport,
    sets: std::vec::IntoIter<DatasetConfig>,
    open: Option<OpenSet>,
}

/// The data set that is read.
#[derive(Debug)]
struct OpenSet {
    config: DatasetConfig,
    stream: RecordStream,
    room: Room,
    rows: usize,
    kept: usize,
}

impl RecordChunks {
    /// The records of a part, and the bytes that end one before.
    const RECORDS: usize = 1024;
    const BYTES: u64 = 16 << 20;
    /// The bad rows that are named.
    const EXAMPLES: usize = 5;

    /// Begins with the first data set. Nothing is read yet.
    pub fn open(config: &DatasetConfig) -> Self {
        Self { report: ReadReport::default(), sets: config.each().into_iter(), open: None }
    }

    /// Returns the next records, at least one and all of the same data set; `None` at the end.
    ///
    /// # Errors
    /// As [`load_records`].
    pub fn next_chunk(&mut self) -> Result<Option<Vec<Record>>, Error> {
        loop {
            let Some(open) = &mut self.open else {
                let Some(config) = self.sets.next() else { return Ok(None) };
                let stream = read_records(&config)?;
                let room = Room::of(stream.rows.bytes);
                self.open = Some(OpenSet { config, stream, room, rows: 0, kept: 0 });
                continue;
            };
            let set = self.report.sources.len();
            let mut chunk = Vec::new();
            let full = open.room.taken.saturating_add(Self::BYTES);
            while chunk.len() < Self::RECORDS && open.room.taken < full {
                let Some(record) = open.stream.next() else { break };
                open.rows += 1;
                self.report.rows += 1;
                match record {
                    Ok(mut record) => {
                        open.room.take(&record, open.rows, &open.config)?;
                        record.source.set = set;
                        chunk.push(record);
                    }
                    Err(error)
                        if (open.config.on_bad_row == BadRows::Drop && error.is_row())
                            || (open.config.ties == Ties::Drop && error.is_tie()) =>
                    {
                        self.report.dropped += 1;
                        if self.report.examples.len() < Self::EXAMPLES {
                            self.report.examples.push(error.to_string());
                        }
                    }
                    Err(error) => return Err(error),
                }
            }
            open.kept += chunk.len();
            self.report.kept += chunk.len();
            if !chunk.is_empty() {
                return Ok(Some(chunk));
            }
            // A part without any record is the end of its data set.
            if open.kept == 0 {
                return Err(Error::Empty { dataset: open.config.path.clone() });
            }
            let (path, rows, kept) = (open.config.path.clone(), open.rows, open.kept);
            self.report.sources.push(SourceReport { path, rows, kept });
            self.open = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::DataSource;

    #[test]
    fn ties_are_left_out_where_asked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("train.csv");
        let text = "prompt,response_a,response_b,winner\np,a,b,model_b\np,a,b,tie\np,a,b,nobody\np,a,b,a\n";
        std::fs::write(&path, text).unwrap();
        let config = DatasetConfig { ties: Ties::Drop, ..DatasetConfig::new(path.to_str().unwrap()) };
        let message = load_records(&config).unwrap_err().to_string();
        assert!(message.contains("train.csv:4: `winner`: expected \"a\""), "other bad rows stay errors: {message}");
        std::fs::write(&path, text.replace("nobody", "b")).unwrap();
        let (records, report) = load_records(&config).unwrap();
        assert_eq!((records.len(), report.rows, report.dropped), (3, 4, 1));
        assert!(report.examples[0].contains("train.csv:3: `winner` is the text \"tie\""), "{:?}", report.examples);
        let message = load_records(&DatasetConfig { ties: Ties::Error, ..config }).unwrap_err().to_string();
        assert!(message.contains("train.csv:3: `winner` is the text"), "{message}");
    }

    #[test]
    fn records_come_in_parts_of_one_data_set() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, rows: usize| {
            let path = dir.path().join(name);
            let row = |i: usize| {
                if i % 500 == 7 { "{\"prompt\": 1}\n".to_owned() } else { format!("{{\"prompt\": \"{i}\"}}\n") }
            };
            std::fs::write(&path, (0..rows).map(row).collect::<String>()).unwrap();
            DataSource::new(path.to_str().unwrap())
        };
        let sources = vec![write("a.jsonl", 2500), write("b.jsonl", 3)];
        let config = DatasetConfig { sources, on_bad_row: BadRows::Drop, ..DatasetConfig::new("") };
        let mut chunks = RecordChunks::open(&config);
        let mut sizes = Vec::new();
        let mut all = Vec::new();
        while let Some(mut chunk) = chunks.next_chunk().unwrap() {
            assert!(chunk.iter().all(|record| record.source.set == chunk[0].source.set));
            sizes.push((chunk[0].source.set, chunk.len()));
            all.append(&mut chunk);
        }
        assert_eq!(sizes, [(0, 1024), (0, 1024), (0, 447), (1, 3)]);
        let (records, report) = load_records(&config).unwrap();
        assert_eq!((&records, &report), (&all, &chunks.report));
        assert_eq!((report.rows, report.kept, report.dropped, report.examples.len()), (2503, 2498, 5, 5));
    }

    #[test]
    fn data_sets_are_read_one_after_the_other_each_in_its_own_way() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let chat = write(
            "chat.jsonl",
            "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": \"b\"}]}\n",
        );
        let table = write("math.csv", "q,a\n1+1,2\n1+2,3\n1+3,4\n");
        let columns = |prompt: &str, completion: &str| {
            Some([("prompt".to_owned(), prompt.to_owned()), ("completion".to_owned(), completion.to_owned())].into())
        };
        let math = DataSource { columns: columns("q", "a"), max_rows: Some(2), ..DataSource::new(&table) };
        // The same file under other columns: its rows are other records.
        let reversed = DataSource { columns: columns("a", "q"), ..DataSource::new(&table) };
        let config = |sources: Vec<DataSource>| DatasetConfig { sources, ..DatasetConfig::new("") };
        let all = config(vec![DataSource::new(&chat), math.clone()]);
        let (records, report) = load_records(&all).unwrap();
        let texts: Vec<_> = records.iter().map(|r| (r.source.set, r.responses[0].text().to_owned())).collect();
        assert_eq!(texts, [(0, "b".to_owned()), (1, "2".to_owned()), (1, "3".to_owned())]);
        let source = |path: &str, rows| SourceReport { path: path.to_owned(), rows, kept: rows };
        assert_eq!(report.sources, [source(&chat, 1), source(&table, 2)]);
        assert_eq!((report.rows, report.kept), (3, 3));
        let streamed: Vec<Record> = read_records(&all).unwrap().collect::<Result<_, _>>().unwrap();
        assert_eq!(streamed, records);
        let (records, _) = load_records(&config(vec![math, reversed])).unwrap();
        assert_eq!(records.len(), 5);
        assert_eq!((records[2].responses[0].text(), records[2].source.set), ("1+1", 1));

        let empty = write("empty.jsonl", "");
        let message =
            load_records(&config(vec![DataSource::new(&chat), DataSource::new(&empty)])).unwrap_err().to_string();
        assert!(message.contains("empty.jsonl: no rows"), "{message}");
        let message =
            load_records(&config(vec![DataSource::new(&chat), DataSource::new("no.jsonl")])).unwrap_err().to_string();
        assert_eq!(message, "no.jsonl: no such file or folder. Check the path");
    }
}
