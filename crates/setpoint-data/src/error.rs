//! The one error type of this crate, and what can be wrong with one row.

mod encode;

use std::path::PathBuf;

pub use self::encode::EncodeProblem;
use crate::record::Source;

/// The remedy for the files of `Dataset.save_to_disk`.
const ARROW: &str =
    ". Arrow files, which `save_to_disk` writes, are not read: write the data set by `to_parquet` or `to_json`";

/// An error between a file on disk and token ids.
///
/// Every variant names the input at fault (file, line or row, column, token), what was expected, what was found, and what
/// to do about it. [`Error::is_row`] tells errors that concern one row, which a caller may choose to skip, from those that
/// concern the whole job.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be opened, read, written or renamed.
    #[error("could not {action} {}: {}", path.display(), setpoint_files::words::system(source))]
    Io {
        /// The verb, such as "read".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The data set has the name of a file or folder, and there is none.
    #[error("{}: no such file or folder. Check the path", path.display())]
    NoFile {
        /// The name that was asked for.
        path: PathBuf,
    },
    /// The data set is something else than a file or a folder.
    #[error("{}: it is {kind}, not a file. Write the rows to a file, such as rows.jsonl", path.display())]
    NoDataFile {
        /// The name that was asked for.
        path: PathBuf,
        /// The kind of thing found there, with its article.
        kind: &'static str,
    },
    /// The data set is neither a path that exists nor something that could be a hub id.
    #[error(
        "{dataset}: no such file or folder, and not a hub id either (owner/name). Check the path, or give the id of a hub data set"
    )]
    NotFound {
        /// The name that was asked for.
        dataset: String,
    },
    /// The name of a file does not say how it is encoded.
    #[error(
        "{}: unknown file type; expected .jsonl, .ndjson, .json, .csv, .tsv (also .gz or .zst) or .parquet{}",
        path.display(),
        if path.extension().is_some_and(|extension| extension == "arrow") { ARROW } else { "" }
    )]
    UnknownFileType {
        /// The file.
        path: PathBuf,
    },
    /// A folder or hub repository holds no file that can be read.
    #[error(
        "{dataset}: no data files; expected .parquet, .jsonl, .json, .csv or .tsv{}",
        if *has_arrow { ARROW } else { "" }
    )]
    NoDataFiles {
        /// The data set.
        dataset: String,
        /// True if there are Arrow files.
        has_arrow: bool,
    },
    /// A folder or hub repository does not hold the subset that was asked for.
    #[error("{dataset}: no subset `{wanted}`; {}", if found.is_empty() { "it has none. Leave `data.subset` out".to_owned() } else { format!("found: {found}. Set `data.subset` to one of these, or leave it out") })]
    NoSubset {
        /// The data set.
        dataset: String,
        /// The subset asked for.
        wanted: String,
        /// The subsets there are.
        found: String,
    },
    /// A folder or hub repository does not hold the split that was asked for.
    #[error("{dataset}: no split `{wanted}`{}; found: {found}. Set `data.split`{} to one of these", subset.as_ref().map(|s| format!(" in subset `{s}`")).unwrap_or_default(), if subset.is_some() { " or `data.subset`" } else { "" })]
    NoSplit {
        /// The data set.
        dataset: String,
        /// The subset asked for, if any.
        subset: Option<String>,
        /// The split asked for.
        wanted: String,
        /// The splits there are.
        found: String,
    },
    /// The split exists in several folders (subsets) and none was chosen.
    #[error("{dataset}: split `{split}` exists in several subsets: {found}. Set `data.subset` to one of these")]
    AmbiguousSubset {
        /// The data set.
        dataset: String,
        /// The split asked for.
        split: String,
        /// The subsets that have it.
        found: String,
    },
    /// The data set has no rows.
    #[error("{dataset}: no rows. Expected at least one")]
    Empty {
        /// The data set.
        dataset: String,
    },
    /// A compressed file unpacks to more records than fit into memory.
    #[error(
        "{dataset}: its first {rows} rows take {bytes} bytes of memory, unpacked from {files} bytes of files. Set `data.max_rows`, or split the data set"
    )]
    TooDense {
        /// The data set.
        dataset: String,
        /// The rows read so far.
        rows: usize,
        /// The memory that they take.
        bytes: u64,
        /// The length of its files.
        files: u64,
    },
    /// The hub could not be reached, or refused.
    #[error(
        "hub data set {id} ({endpoint}): {reason}. Check the id and the network, HF_ENDPOINT, and HF_TOKEN for a private data set"
    )]
    Hub {
        /// The data set's id.
        id: String,
        /// The server that was asked.
        endpoint: String,
        /// A description of the failure.
        reason: String,
    },
    /// A model could not be uploaded to the hub.
    #[error("cannot push to {id} ({endpoint}): {reason}")]
    Push {
        /// The repository's id.
        id: String,
        /// The server that was asked.
        endpoint: String,
        /// A description of the failure.
        reason: String,
    },
    /// A model of the hub cannot be had.
    #[error("hub model {id} ({endpoint}): {reason}")]
    HubModel {
        /// The model's id, with its revision if it is not the main branch.
        id: String,
        /// The server that was asked.
        endpoint: String,
        /// A description of the failure, with a remedy if there is a known one.
        reason: String,
    },
    /// A line or file is not JSON.
    #[error("{at}: not valid JSON: {reason}")]
    Json {
        /// The place.
        at: Source,
        /// The parser's reason, with a remedy where one is known.
        reason: String,
    },
    /// A Parquet file is damaged or uses what is not supported.
    #[error("{at}: could not read Parquet: {reason}")]
    Parquet {
        /// The place.
        at: Source,
        /// The reader's reason.
        reason: String,
    },
    /// The columns of the first row belong to no known format.
    #[error(
        "{at}: columns [{columns}] belong to no known format. Set `data.format`, rename columns with `data.columns`, or use one of: {}",
        crate::format::Format::known_columns()
    )]
    UnknownFormat {
        /// The first row.
        at: Source,
        /// The columns that it has.
        columns: String,
    },
    /// A row does not hold what its format needs.
    #[error("{at}: {problem}")]
    Row {
        /// The row.
        at: Source,
        /// The problem of the row.
        problem: RowProblem,
    },
    /// A record cannot be turned into tokens.
    #[error("{at}: {problem}")]
    Encode {
        /// The row.
        at: Source,
        /// The problem of the record.
        problem: Box<EncodeProblem>,
    },
    /// A tokenizer folder lacks a file, or a file in it is wrong.
    #[error("tokenizer {}: {reason}", path.display())]
    Tokenizer {
        /// The file or folder.
        path: PathBuf,
        /// The expected and the found value.
        reason: String,
    },
    /// A chat template does not exist, does not parse or does not work.
    #[error("chat template `{name}`: {reason}")]
    Template {
        /// The template's name or file.
        name: String,
        /// A description of the problem.
        reason: String,
    },
    /// A model's `setpoint.json` is damaged.
    #[error("{}: {reason}. Fix the file, or remove it", path.display())]
    Notes {
        /// The file.
        path: PathBuf,
        /// A description of the problem.
        reason: String,
    },
    /// The prompts do not share the tokens that count as t0.
    #[error("{at}: {reason}")]
    T0 {
        /// The first row that differs.
        at: Source,
        /// The difference, with a remedy.
        reason: String,
    },
    /// A record cannot be written as a row.
    #[error("{at}: cannot be written as JSONL: {reason}")]
    Write {
        /// The row that the record came from.
        at: Source,
        /// A description of the problem.
        reason: String,
    },
}

impl Error {
    /// Returns whether this concerns one row only: a caller who tolerates bad rows may count it and go on.
    #[must_use]
    pub fn is_row(&self) -> bool {
        matches!(self, Self::Row { .. } | Self::Encode { .. })
            || matches!(self, Self::Json { at, .. } if at.line.is_some())
    }

    /// Returns whether a row is left out since neither of its responses is preferred.
    pub(crate) fn is_tie(&self) -> bool {
        matches!(self, Self::Row { problem: RowProblem::Tie { .. }, .. })
    }

    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}

impl From<setpoint_files::Error> for Error {
    fn from(error: setpoint_files::Error) -> Self {
        Self::io(error.action, error.path)(error.source)
    }
}

/// An error in one row of a file.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RowProblem {
    /// The row is not a JSON object.
    #[error("expected an object with columns, found {found}")]
    NotAnObject {
        /// The value found.
        found: String,
    },
    /// A row of a table has another number of cells than its first line.
    #[error(
        "found {}, expected {expected}, as in the first line. Quote a cell that holds the separator, a line end or a quote",
        crate::counted::counted(*found, "cell")
    )]
    CellCount {
        /// The number of cells.
        found: usize,
        /// The number of columns.
        expected: usize,
    },
    /// A cell of a table is not UTF-8.
    #[error("`{column}` is not valid UTF-8. Save the file as UTF-8, or set `data.on_bad_row = \"drop\"`")]
    NotUtf8 {
        /// The column.
        column: String,
    },
    /// Neither of two responses is preferred.
    #[error(
        "`{column}` is {found}: neither response is preferred. Set `data.ties` to \"drop\" to leave such rows out, or to \"keep\" to read both responses without labels"
    )]
    Tie {
        /// The column.
        column: String,
        /// Its value.
        found: String,
    },
    /// The margin is to come from scores, and there are none.
    #[error(
        "`data.margins` is \"scores\", and the two responses have none. Give the chosen and the rejected response a score (`score_chosen`, `score_rejected`), or a `margin`"
    )]
    NoScores,
    /// A column that is to be renamed is absent.
    #[error("`data.columns` takes `{expected}` from a column `{column}`, and there is none; there are: {}", found.join(", "))]
    NothingToRename {
        /// The name that the formats know.
        expected: String,
        /// The column.
        column: String,
        /// The columns that are left.
        found: Vec<String>,
    },
    /// A column that the format needs is absent.
    #[error(
        "missing column `{column}` (format `{format}`). Add it, rename a column to it with `data.columns`, or set another `data.format`"
    )]
    MissingColumn {
        /// The column.
        column: String,
        /// The format that needs it.
        format: &'static str,
    },
    /// A value is of the wrong type.
    #[error("`{column}`: expected {expected}, found {found}. Fix the row, or set `data.on_bad_row = \"drop\"`")]
    WrongType {
        /// The column, with an index or field where it is nested.
        column: String,
        /// The type it must have.
        expected: &'static str,
        /// The value found.
        found: String,
    },
    /// A response has no text.
    #[error(
        "`{column}` is empty: there is nothing to learn from an empty response. Remove it, or leave its row out (`data.on_bad_row = \"drop\"`)"
    )]
    EmptyResponse {
        /// The column, with an index where it is a list.
        column: String,
    },
    /// A row has no response at all.
    #[error("`{column}` holds no responses. Remove the row, or set `data.on_bad_row = \"drop\"`")]
    NoResponses {
        /// The column.
        column: String,
    },
    /// A row with several responses does not say which of them SFT is to learn.
    #[error(
        "{responses} responses, none of them marked as chosen and not all of them with a reward: which is to be learned? Give labels or rewards (`setpoint annotate`), or set `data.responses = \"all\"`"
    )]
    NoSelection {
        /// The number of responses.
        responses: usize,
    },
    /// None of a row's responses is marked as chosen.
    #[error(
        "none of the {responses} responses is marked as chosen, and `data.responses` is \"chosen\". Set it to \"best\" (by reward) or \"all\", or set `data.on_bad_row = \"drop\"`"
    )]
    NoneChosen {
        /// The number of responses.
        responses: usize,
    },
    /// A reward is absent.
    #[error(
        "`{column}`: missing reward. Give every response a finite number, or score the file first (`setpoint annotate`)"
    )]
    MissingReward {
        /// The column, with an index where it is a list.
        column: String,
    },
    /// A number is NaN or infinite.
    #[error("`{column}` is {found}: a reward or margin must be a finite number. Fix or remove the row")]
    NotFinite {
        /// The column, with an index where it is a list.
        column: String,
        /// The value.
        found: String,
    },
    /// The lists `responses` and another one differ in length.
    #[error("{responses} responses but {found} entries in `{column}`: expected one for each response")]
    LengthMismatch {
        /// The other list.
        column: String,
        /// The number of responses.
        responses: usize,
        /// The length of the other list.
        found: usize,
    },
    /// A conversation does not end with an assistant turn.
    #[error(
        "`{column}`: {reason}. A conversation must end with the assistant turn that is to be learned. Fix the row, or set `data.on_bad_row = \"drop\"`"
    )]
    BadConversation {
        /// The column.
        column: String,
        /// A description of the problem.
        reason: String,
    },
    /// Chosen and rejected are not two answers to one prompt.
    #[error(
        "`chosen` and `rejected` share only their first {shared} of {chosen} and {rejected} messages: each must be one assistant turn after the same prompt"
    )]
    NoCommonPrompt {
        /// Messages in common.
        shared: usize,
        /// Messages in `chosen`.
        chosen: usize,
        /// Messages in `rejected`.
        rejected: usize,
    },
    /// A role or label is not one of the known ones.
    #[error("`{column}`: unknown {what} `{found}`; expected {expected}")]
    UnknownName {
        /// The column.
        column: String,
        /// "role" or "label".
        what: &'static str,
        /// The value.
        found: String,
        /// The known ones.
        expected: &'static str,
    },
}
