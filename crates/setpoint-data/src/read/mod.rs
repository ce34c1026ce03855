//! Reading data sets: files, folders and hub ids as one stream of records.

mod files;
mod folder;
mod hub;
mod json;
mod parquet;
mod rows;
mod table;
mod unique;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

pub use self::hub::{Hub, HubModel, Push, PushFile, Pushed};
pub use self::rows::{RowStream, read_rows, read_rows_from};
use crate::config::{BadRows, DatasetConfig, Ties};
use crate::error::Error;
use crate::format::{Format, Row};
use crate::record::{Prompt, Record, Response, Source};

/// The rows of one file, with their places.
type Rows = Box<dyn Iterator<Item = Result<(Source, Row), Error>> + Send>;

/// Opens a data set and returns its records one by one.
///
/// JSON lines, tables and Parquet are streamed (a line, a row, a batch of rows at a time); a JSON array is read whole. The format is
/// detected from the first row of each file unless the configuration names it. A bad row is an `Err` for which
/// [`Error::is_row`] holds, and the stream goes on behind it; after any other error it ends.
///
/// # Errors
/// When the data set, its split or its first file cannot be found or opened.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use setpoint_data::{DatasetConfig, read_records};
///
/// let dir = tempfile::tempdir()?;
/// let path = dir.path().join("data.jsonl");
/// std::fs::write(&path, "{\"prompt\": \"2+2=\", \"completion\": \"4\"}\n")?;
/// for record in read_records(&DatasetConfig::new(path.to_str().unwrap()))? {
///     assert_eq!(record?.responses[0].text(), "4");
/// }
/// # Ok(())
/// # }
/// ```
pub fn read_records(config: &DatasetConfig) -> Result<RecordStream, Error> {
    read_records_from(config, &Hub::from_env())
}

/// [`read_records`] with a hub client of the caller's own.
///
/// # Errors
/// As [`read_records`].
pub fn read_records_from(config: &DatasetConfig, hub: &Hub) -> Result<RecordStream, Error> {
    Ok(RecordStream { rows: read_rows_from(config, hub)?, format: None })
}

/// The files of a data set, in order.
fn locate(config: &DatasetConfig, hub: &Hub) -> Result<Vec<PathBuf>, Error> {
    let path = Path::new(&config.path);
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    if path.is_dir() {
        return folder::select_local(path, config);
    }
    if let Ok(found) = path.metadata() {
        // Rows are read more than once, which a pipe cannot give.
        let kind = setpoint_files::kind(found.file_type());
        return Err(Error::NoDataFile { path: path.to_owned(), kind });
    }
    // The name of a file that does not exist is no reason to ask a server.
    if files::is_file_name(&config.path) || config.path.ends_with('/') {
        return Err(Error::NoFile { path: path.to_owned() });
    }
    if hub::is_id(&config.path) {
        return hub.fetch(config);
    }
    Err(Error::NotFound { dataset: config.path.clone() })
}

/// The records of a data set. Made by [`read_records`].
pub struct RecordStream {
    rows: RowStream,
    /// The format of a file's rows. A file may belong to two data sets, with different columns.
    format: Option<((Arc<Path>, usize), Format)>,
}

impl std::fmt::Debug for RecordStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecordStream")
            .field("path", &self.rows.config.path)
            .field("read", &self.rows.read)
            .finish_non_exhaustive()
    }
}

impl RecordStream {
    /// Returns the next record with the row that it was read from.
    pub fn next_with_row(&mut self) -> Option<Result<(Row, Record), Error>> {
        let found = match self.rows.next()? {
            Ok((source, row)) => self.record(source, row.clone()).map(|record| (row, record)),
            Err(error) => Err(error),
        };
        self.rows.ended |= found.as_ref().is_err_and(|error| !error.is_row());
        Some(found)
    }

    /// Returns whether the file that is being read is a table, in whose rows everything is text.
    #[must_use]
    pub fn is_in_table(&self) -> bool {
        self.rows.in_cells
    }

    fn record(&mut self, source: Source, row: Row) -> Result<Record, Error> {
        let place = (source.path.clone(), source.set);
        let known = self.format.as_ref().filter(|(known, _)| *known == place).map(|(_, format)| *format);
        let format = match self.rows.config.format.or(known) {
            Some(format) => format,
            None => self.format.insert((place, detect(&row, &source)?)).1,
        };
        let config = &self.rows.config;
        let record = if self.rows.in_cells {
            format.parse_cells(row, source.clone(), config)
        } else {
            format.parse(row, source.clone(), config)
        };
        record.map_err(|problem| Error::Row { at: source, problem })
    }
}

fn detect(row: &Row, source: &Source) -> Result<Format, Error> {
    Format::detect(row.keys().map(String::as_str)).ok_or_else(|| Error::UnknownFormat {
        at: source.clone(),
        columns: row.keys().map(String::as_str).collect::<Vec<_>>().join(", "),
    })
}

impl Iterator for RecordStream {
    type Item = Result<Record, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let record = match self.rows.next()? {
            Ok((source, row)) => self.record(source, row),
            Err(error) => Err(error),
        };
        self.rows.ended |= record.as_ref().is_err_and(|error| !error.is_row());
        Some(record)
    }
}

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

/// The memory that a data set's records may take: compressed files of a few bytes can hold more rows than any memory.
#[derive(Debug)]
struct Room {
    files: u64,
    taken: u64,
    most: u64,
}

impl Room {
    /// What records always may take, and how many times the length of their files.
    const ALWAYS: u64 = 512 << 20;
    const DENSEST: u64 = 256;

    fn of(files: u64) -> Self {
        Self { files, taken: 0, most: files.saturating_mul(Self::DENSEST).max(Self::ALWAYS) }
    }

    fn take(&mut self, record: &Record, rows: usize, config: &DatasetConfig) -> Result<(), Error> {
        self.taken += footprint(record);
        if self.taken <= self.most {
            return Ok(());
        }
        let (dataset, bytes, files) = (config.path.clone(), self.taken, self.files);
        Err(Error::TooDense { dataset, rows, bytes, files })
    }
}

/// About how many bytes a record takes.
fn footprint(record: &Record) -> u64 {
    let message = |m: &crate::record::Message| {
        size_of::<crate::record::Message>() + m.role.len() + m.content.len() + map(&m.extra)
    };
    let prompt = match &record.prompt {
        Prompt::Text(text) => text.len(),
        Prompt::Messages(messages) => messages.iter().map(message).sum(),
    };
    let response = |r: &Response| size_of::<Response>() + message(&r.message);
    let responses: usize = record.responses.iter().map(response).sum();
    (size_of::<Record>() + prompt + responses + map(&record.extra)) as u64
}

fn map(fields: &serde_json::Map<String, Value>) -> usize {
    fields.iter().map(|(key, field)| key.len() + weight(field) + size_of::<(String, Value)>()).sum()
}

fn weight(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(|item| size_of::<Value>() + weight(item)).sum(),
        Value::Object(fields) => map(fields),
        _ => 0,
    }
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
    fn records_of_a_dense_file_are_bounded() {
        let record = Record::new(Prompt::Text("x".repeat(1000)), vec![Response::new("y")]);
        assert!((1000..2000).contains(&footprint(&record)));
        let mut room = Room { most: 3000, ..Room::of(10) };
        let config = DatasetConfig::new("train.parquet");
        let message = (1..9).find_map(|row| room.take(&record, row, &config).err()).unwrap().to_string();
        assert!(message.starts_with("train.parquet: its first 3 rows take "), "{message}");
        assert_eq!(Room::of(1 << 40).most, 256 << 40);
    }

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
    fn a_file_that_does_not_exist_is_not_looked_for_on_the_hub() {
        let dir = tempfile::tempdir().unwrap();
        // A request would fail otherwise, and name the server.
        let hub = Hub::new("http://127.0.0.1:1", dir.path());
        let message = |path: &str| match read_records_from(&DatasetConfig::new(path), &hub) {
            Ok(_) => panic!("{path} was found"),
            Err(error) => error.to_string(),
        };
        for path in [
            "data/train.jsonl",
            "data/train.json",
            "data/Train.JSONL.gz",
            "x/y.parquet",
            "x/y.csv",
            "train.ndjson",
            "no/such/dir/",
        ] {
            assert_eq!(message(path), format!("{path}: no such file or folder. Check the path"));
        }
        for path in ["data/train/more", "a/b/c/d", "train", "./owner/name"] {
            assert!(message(path).starts_with(&format!("{path}: no such file or folder, and not a hub id")), "{path}");
        }
        assert!(message("owner/name").contains("http://127.0.0.1:1"));
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
