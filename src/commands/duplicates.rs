//! `setpoint duplicates`: rows that repeat others, and rows that overlap with evaluation sets.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use setpoint::Outcome;
use setpoint::config::Given;
use setpoint::duplicates::{DuplicatesConfig, Findings, Kind, run as search};
use setpoint::session::TextTable;
use setpoint_data::{SHINGLE_WORDS, counted};
use toml::Value;

use crate::progress;

/// The text after the list of flags.
pub const HELP: &str = "Examples:\n  setpoint duplicates --data chats.jsonl --output clean.jsonl\n  \
    setpoint duplicates --data chats.jsonl --against gsm8k_test.jsonl --against mmlu\n  \
    setpoint duplicates --data chats.jsonl --against gsm8k_test.jsonl --ngram 8 --overlap 0.5 --json";

/// Findings that are printed as text.
const LISTED: usize = 20;

/// `setpoint duplicates`.
#[derive(Debug, Args)]
pub struct DuplicatesArgs {
    /// .jsonl, .json, .csv or .parquet file, folder or hub dataset id (setting data.path)
    #[arg(long, value_name = "FILE")]
    pub data: String,
    /// Evaluation set to compare with: the file of a task, or anything else that --data takes; may be repeated
    #[arg(long, value_name = "FILE")]
    pub against: Vec<String>,
    /// Column of the evaluation sets that holds the text, if they are of no known format
    #[arg(long, value_name = "COLUMN")]
    pub against_column: Option<String>,
    /// Split of an evaluation set that is a folder or on the hub; test by default
    #[arg(long, value_name = "SPLIT")]
    pub against_split: Option<String>,
    /// Part of a row that is compared; prompts by default
    #[arg(long, value_name = "PART")]
    pub compare: Option<Part>,
    /// Jaccard similarity from which two texts are near-duplicates; 0.8 by default
    #[arg(long, value_name = "SIMILARITY")]
    pub threshold: Option<f64>,
    /// Words in a row that a text and an evaluation set must share; 13 by default
    #[arg(long, value_name = "N")]
    pub ngram: Option<u32>,
    /// Share of an evaluation text's words that must be in shared runs; 0 by default: one run is enough
    #[arg(long, value_name = "SHARE")]
    pub overlap: Option<f64>,
    /// JSONL file for the rows that repeat and overlap with none; none is replaced
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// As JSON, with all findings
    #[arg(long)]
    pub json: bool,
    /// Override one setting, as in --set data.columns.prompt=question; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

/// The part of a row that is compared.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Part {
    /// The turns of the user, or the prompt of plain text
    Prompts,
    /// All turns and responses but the system's turns
    Rows,
}

impl DuplicatesArgs {
    /// Adds the flags to those that every command has.
    pub fn layered(&self, mut given: Given) -> Given {
        let part = self.compare.map(|part| match part {
            Part::Prompts => "prompts",
            Part::Rows => "rows",
        });
        let against: Vec<Value> = self.against.iter().map(|path| path.as_str().into()).collect();
        given.flag("against", (!against.is_empty()).then_some(Value::Array(against)), "--against");
        given.flag("against_column", self.against_column.clone(), "--against-column");
        given.flag("against_split", self.against_split.clone(), "--against-split");
        given.flag("compare", part, "--compare");
        given.flag("threshold", self.threshold, "--threshold");
        given.flag("ngram", self.ngram.map(i64::from), "--ngram");
        given.flag("overlap", self.overlap, "--overlap");
        given.flag("output", self.output.as_ref().map(|path| path.to_string_lossy().into_owned()), "--output");
        given
    }
}

/// Searches the rows, and prints what was found.
pub fn run(config: &DuplicatesConfig, json: bool) -> Outcome {
    let found = search(config, if json { usize::MAX } else { LISTED })?;
    if json {
        progress::say_json(&serde_json::to_string_pretty(&found)?);
    } else {
        progress::say(summary(&found));
        if !found.found.is_empty() {
            progress::say(progress::drawn(&table(&found)));
        }
    }
    if let Some(first) = &found.first_bad {
        progress::note(format!("{} left out; the first: {first}", counted(found.bad, "bad row")));
    }
    if found.cut_short > 0 {
        let rows = counted(found.cut_short, "row");
        progress::warn(format!("{rows} resemble too many others: near-duplicates of them may have been missed"));
    }
    if let Some(output) = &config.output {
        progress::note(format!("{} written to {}", counted(found.kept, "row"), output.display()));
    }
    Ok(())
}

/// Returns the numbers, in sentences.
fn summary(found: &Findings) -> String {
    let Findings { data, rows, exact, near, threshold, ngram, overlap, kept, .. } = found;
    let least = format!("Jaccard similarity of {SHINGLE_WORDS}-word shingles {threshold} or more");
    let mut lines = vec![
        format!("{data}: {}", counted(*rows, "row")),
        format!("  equal to an earlier row: {exact}"),
        format!("  near-duplicates of an earlier row: {near} ({least})"),
    ];
    for set in &found.against {
        let share = if *overlap > 0.0 { format!(" and cover {overlap} of a text") } else { String::new() };
        lines.extend([
            format!("{}: {}, found in the rows: {}", set.path, counted(set.texts, "text"), set.texts_found),
            format!("  rows equal to a text: {}, near-duplicates of one: {}", set.exact, set.near),
            format!("  other rows that share {ngram} words in a row{share}: {}", set.overlap),
        ]);
    }
    lines.push(format!("without a finding: {kept} of {}", counted(*rows, "row")));
    lines.join("\n")
}

fn table(found: &Findings) -> TextTable {
    let mut table = TextTable::plain(["row", "is", "of", "similarity"]);
    for finding in &found.found {
        let kind = match finding.kind {
            Kind::Exact => "equal",
            Kind::Near => "near-duplicate",
            Kind::Overlap => "overlap",
        };
        table.push([finding.row.clone(), kind.to_owned(), finding.of.clone(), format!("{:.3}", finding.similarity)]);
    }
    table
}
