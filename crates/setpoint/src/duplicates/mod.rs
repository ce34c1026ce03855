//! `setpoint duplicates`: rows that repeat others, and rows that share text with evaluation sets.
//!
//! Rows are read one by one. The memory grows with the rows that repeat none, by about 1 KB and 8 bytes for each of their words.

mod findings;
mod texts;

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use setpoint_data::{BadRows, DatasetConfig, Duplicates, RecordStream, Row, Source, Uses, read_records};

use self::findings::Evaluation;
pub use self::findings::{EvaluationReport, Finding, Findings, Kind};
use crate::config::output::{Target, validate_output};
use crate::config::sections::validate_data;
use crate::config::{Config, Problems};
use crate::failure::{Failure, Outcome};
use crate::setup;

/// Settings of `setpoint duplicates`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DuplicatesConfig {
    /// The rows.
    pub data: DatasetConfig,
    /// Evaluation sets that the rows are compared with: files of tasks, or anything else that can be read.
    pub against: Vec<String>,
    /// The split of an evaluation set that is a folder or is on the hub.
    pub against_split: String,
    /// The column of the evaluation sets that holds the text, if they are of no known format.
    pub against_column: Option<String>,
    /// The part of a row that is compared.
    pub compare: Compared,
    /// The smallest Jaccard similarity of near-duplicates.
    #[schemars(range(min = 0, max = 1))]
    pub threshold: f64,
    /// The number of words in a row that a text and an evaluation set must share to overlap.
    #[schemars(range(min = 1))]
    pub ngram: usize,
    /// The smallest share of an evaluation text's words that is in runs which one row shares. With 0 a single run is enough.
    #[schemars(range(min = 0, max = 1))]
    pub overlap: f64,
    /// The JSONL file for the rows that repeat and overlap with none.
    pub output: Option<PathBuf>,
}

/// The part of a row that is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Compared {
    /// The turns of the user, or the prompt of plain text.
    #[default]
    Prompts,
    /// All turns and responses but the system's turns.
    Rows,
}

impl Default for DuplicatesConfig {
    fn default() -> Self {
        Self {
            data: DatasetConfig::new(""),
            against: Vec::new(),
            against_split: "test".to_owned(),
            against_column: None,
            compare: Compared::default(),
            threshold: 0.8,
            ngram: 13,
            overlap: 0.0,
            output: None,
        }
    }
}

impl Config for DuplicatesConfig {
    fn validate(&self, problems: &mut Problems<'_>) {
        validate_data(&self.data, "data", problems);
        problems.require(
            self.threshold > 0.0 && self.threshold <= 1.0,
            "threshold",
            format!("expected a similarity above 0 and at most 1, found {}", self.threshold),
        );
        problems.require(self.ngram > 0, "ngram", "must be at least 1");
        problems.require(
            (0.0..=1.0).contains(&self.overlap),
            "overlap",
            format!("expected a share from 0 to 1, found {}", self.overlap),
        );
        validate_output(self.output.as_ref(), Target::File, problems);
        if let Some(output) = self.output.as_ref().filter(|output| output.exists()) {
            problems.add("output", format!("{} exists already: choose another file", output.display()));
        }
    }
}

/// Compares the rows with each other and with the evaluation sets, writes those that repeat and overlap with none if the settings name a
/// file, and returns what was found, with the first `listed` findings.
///
/// # Errors
/// When a file cannot be read, a row is bad, or the rows cannot be written.
pub fn run(config: &DuplicatesConfig, listed: usize) -> Outcome<Findings> {
    let evaluations = config.against.iter().map(|path| Evaluation::read(config, path));
    let search = Search {
        config,
        evaluations: evaluations.collect::<Outcome<_>>()?,
        own: Duplicates::new(config.threshold),
        sources: Vec::new(),
        listed,
        findings: Findings::of(config),
    };
    let uses = if config.compare == Compared::Prompts { Uses::PROMPT } else { Uses::TEXT };
    let records = read_records(&setup::looking_at(&config.data, uses))?;
    let Some(output) = &config.output else {
        return search.finish(records, &mut |_| Ok(()));
    };
    if records.is_in_table() {
        let message = format!("{} is a table, whose cells have no types that JSON lines could hold", config.data.path);
        return Err(Failure::run(message).hint("leave --output out, or convert the table to JSON lines first"));
    }
    let mut findings = None;
    setpoint_files::write(output, |out| -> Outcome {
        let found = search.finish(records, &mut |row| {
            let line = serde_json::to_string(row)? + "\n";
            Ok(out.put(line.as_bytes())?)
        })?;
        if found.kept == 0 {
            return Err(Failure::run(format!("no row of {} is left: nothing is written", config.data.path)));
        }
        findings = Some(found);
        Ok(())
    })?;
    findings.ok_or_else(|| Failure::run("nothing was compared"))
}

/// A search through the rows.
struct Search<'c> {
    config: &'c DuplicatesConfig,
    evaluations: Vec<Evaluation>,
    own: Duplicates,
    /// The place of each row, in the order in which [`Duplicates`] numbers them.
    sources: Vec<Source>,
    /// Findings that are kept.
    listed: usize,
    findings: Findings,
}

impl Search<'_> {
    /// Compares all rows, and hands out those that are kept.
    fn finish(mut self, mut records: RecordStream, put: &mut dyn FnMut(&Row) -> Outcome) -> Outcome<Findings> {
        while let Some(found) = records.next_with_row() {
            self.findings.rows += 1;
            let (row, record) = match found {
                Ok(found) => found,
                Err(error) if self.config.data.on_bad_row == BadRows::Drop && error.is_row() => {
                    self.findings.bad += 1;
                    self.findings.first_bad.get_or_insert_with(|| error.to_string());
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let text = texts::of_record(&record, self.config.compare);
            if self.compare(&text, record.source) {
                self.findings.kept += 1;
                put(&row)?;
            }
        }
        self.findings.cut_short = self.own.cut_short()
            + self.evaluations.iter().map(|evaluation| evaluation.texts.cut_short()).sum::<usize>();
        self.findings.against = self.evaluations.iter().map(Evaluation::report).collect();
        Ok(self.findings)
    }

    /// Compares one row, and returns whether it repeats and overlaps with none.
    fn compare(&mut self, text: &str, source: Source) -> bool {
        let mut found = Vec::new();
        for evaluation in &mut self.evaluations {
            found.extend(evaluation.compare(text, self.config.overlap));
        }
        if let Some(repeated) = self.own.add(text) {
            let kind = if repeated.is_exact { Kind::Exact } else { Kind::Near };
            *(if repeated.is_exact { &mut self.findings.exact } else { &mut self.findings.near }) += 1;
            found.push((kind, self.sources[repeated.earlier].to_string(), repeated.similarity));
        }
        let is_kept = found.is_empty();
        for (kind, of, similarity) in found {
            if self.findings.found.len() < self.listed {
                self.findings.found.push(Finding { row: source.to_string(), kind, of, similarity });
            }
        }
        self.sources.push(source);
        is_kept
    }
}
