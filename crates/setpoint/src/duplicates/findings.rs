//! Evaluation sets that rows are compared with, and what is found.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Serialize;
use setpoint_data::{Duplicates, NgramIndex, Source};

use super::{Compared, DuplicatesConfig, texts};
use crate::failure::Outcome;

/// The way in which a row repeats another text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The texts are equal but for white space.
    Exact,
    /// The texts have similar shingles.
    Near,
    /// The row shares a run of words with a text of an evaluation set.
    Overlap,
}

/// A row that repeats another text.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// The place of the row.
    pub row: String,
    /// The way in which it repeats the other text.
    pub kind: Kind,
    /// The place of the other text: an earlier row, or one of an evaluation set.
    pub of: String,
    /// The Jaccard similarity; of an overlap the share of the other text's words.
    pub similarity: f64,
}

/// The findings of a search.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Findings {
    /// The data set.
    pub data: String,
    /// The part of its rows that was compared.
    pub compare: Compared,
    /// The smallest similarity of near-duplicates.
    pub threshold: f64,
    /// The words of a run that counts.
    pub ngram: usize,
    /// The smallest share of an evaluation text's words.
    pub overlap: f64,
    /// The rows.
    pub rows: usize,
    /// Rows that could not be read and were left out.
    pub bad: usize,
    /// The error of the first of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_bad: Option<String>,
    /// Rows that are equal to an earlier one.
    pub exact: usize,
    /// Rows that are similar to an earlier one.
    pub near: usize,
    /// The evaluation sets.
    pub against: Vec<EvaluationReport>,
    /// Rows that repeat and overlap with none.
    pub kept: usize,
    /// Rows with more candidates than are compared, which may be near-duplicates all the same.
    pub cut_short: usize,
    /// The first findings, in the order of the rows.
    pub found: Vec<Finding>,
}

impl Findings {
    /// Returns a report without rows.
    pub(super) fn of(config: &DuplicatesConfig) -> Self {
        Self {
            data: config.data.path.clone(),
            compare: config.compare,
            threshold: config.threshold,
            ngram: config.ngram,
            overlap: config.overlap,
            rows: 0,
            bad: 0,
            first_bad: None,
            exact: 0,
            near: 0,
            against: Vec::new(),
            kept: 0,
            cut_short: 0,
            found: Vec::new(),
        }
    }
}

/// The findings about an evaluation set.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EvaluationReport {
    /// The file, folder or id.
    pub path: String,
    /// Its texts.
    pub texts: usize,
    /// Rows that are equal to one of them.
    pub exact: usize,
    /// Rows that are similar to one.
    pub near: usize,
    /// Other rows that share a run of words with one.
    pub overlap: usize,
    /// Texts that occur in the rows in any of these ways.
    pub texts_found: usize,
}

/// An evaluation set.
#[derive(Debug)]
pub(super) struct Evaluation {
    sources: Vec<Source>,
    pub(super) texts: Duplicates,
    runs: NgramIndex,
    report: EvaluationReport,
    /// Of a text that occurs several times in the set, its other places by its first.
    copies: BTreeMap<usize, Vec<usize>>,
    found: BTreeSet<usize>,
}

impl Evaluation {
    /// Reads an evaluation set.
    ///
    /// # Errors
    /// When it cannot be read, or a row has no text.
    pub(super) fn read(config: &DuplicatesConfig, path: &str) -> Outcome<Self> {
        let read = texts::of_evaluation(config, path)?;
        let mut texts = Duplicates::new(config.threshold);
        let mut first: HashMap<String, usize> = HashMap::new();
        let mut copies: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (at, (_, text)) in read.iter().enumerate() {
            texts.insert(text);
            let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
            let of = *first.entry(words).or_insert(at);
            if of != at {
                copies.entry(of).or_default().push(at);
            }
        }
        let runs = NgramIndex::new(config.ngram, read.iter().map(|(_, text)| text));
        let report = EvaluationReport {
            path: path.to_owned(),
            texts: read.len(),
            exact: 0,
            near: 0,
            overlap: 0,
            texts_found: 0,
        };
        let sources = read.into_iter().map(|(source, _)| source).collect();
        Ok(Self { sources, texts, runs, report, copies, found: BTreeSet::new() })
    }

    /// Returns how a row repeats a text, which, and how similar the two are. `least`: the smallest share of an overlap.
    pub(super) fn compare(&mut self, text: &str, least: f64) -> Option<(Kind, String, f64)> {
        let overlaps: Vec<_> = self.runs.overlaps(text).into_iter().filter(|found| found.share >= least).collect();
        self.found.extend(overlaps.iter().map(|found| found.text));
        let (kind, at, similarity) = match self.texts.find(text) {
            Some(repeated) if repeated.is_exact => (Kind::Exact, repeated.earlier, 1.0),
            Some(repeated) => (Kind::Near, repeated.earlier, repeated.similarity),
            None => {
                let most = overlaps.iter().rev().max_by(|a, b| a.share.total_cmp(&b.share))?;
                (Kind::Overlap, most.text, most.share)
            }
        };
        self.found.insert(at);
        self.found.extend(self.copies.get(&at).into_iter().flatten());
        let count = match kind {
            Kind::Exact => &mut self.report.exact,
            Kind::Near => &mut self.report.near,
            Kind::Overlap => &mut self.report.overlap,
        };
        *count += 1;
        Some((kind, self.sources[at].to_string(), similarity))
    }

    /// Returns what was found.
    pub(super) fn report(&self) -> EvaluationReport {
        EvaluationReport { texts_found: self.found.len(), ..self.report.clone() }
    }
}
