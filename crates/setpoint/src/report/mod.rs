//! A report on runs and evaluations: one HTML page without scripts that opens offline.
//!
//! [`Report::read`] collects everything from run folders and results, and answers what people ask of them. [`Report::html`] fills the
//! templates, which escape every text.

mod answers;
mod chart;
mod curves;
mod distributions;
mod evaluation;
mod facts;
mod frontier;
mod metrics;
mod number;
mod page;
mod read;
mod responses;
mod samples;
mod scale;
mod standing;
mod targets;

use std::path::{Path, PathBuf};

use serde::Serialize;

use self::answers::Answer;
use self::chart::{Chart, Key, Look};
use self::curves::Family;
use self::evaluation::Benchmark;
use self::facts::Fact;
use self::frontier::Section;
use self::read::{Collected, Measured, Run};
use self::responses::Responses;
use self::samples::Prompt;
use self::standing::Standing;
use crate::eval::folder_name;
use crate::failure::Outcome;

pub use self::page::is_report;

/// Everything that a report shows, in the order of the page.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The runs, and the results that belong to none of them.
    subjects: Vec<Subject>,
    /// Methods at equal KL.
    frontiers: Vec<Section>,
    /// The probability that the targets of each run send to each kind of text.
    targets: Vec<Chart>,
    /// Charts of training.
    families: Vec<Family>,
    /// Histograms of single responses, run by run.
    responses: Vec<Response>,
    /// Results of evaluations.
    benchmarks: Vec<Benchmark>,
    /// Samples for the same prompts.
    samples: Vec<Prompt>,
    /// Settings and manifests.
    settings: Vec<Settings>,
    /// The numbers of the colours that the page uses.
    colours: Vec<page::Colour>,
    /// Counts of the report's content.
    #[serde(skip)]
    counts: Counts,
}

/// The numbers of what a report shows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Runs.
    pub runs: usize,
    /// Results of evaluations.
    pub results: usize,
    /// Comparisons.
    pub comparisons: usize,
}

/// A run or a result with the answers to what people ask of it.
#[derive(Debug, Serialize)]
struct Subject {
    key: Key,
    kind: String,
    facts: Vec<Fact>,
    answers: Vec<Answer>,
    more: Vec<Fact>,
}

/// The histograms of a run's responses.
#[derive(Debug, Serialize)]
struct Response {
    key: Key,
    legend: Vec<Key>,
    rows: Vec<Vec<Chart>>,
}

/// The settings of a run, or the manifest of a result.
#[derive(Debug, Serialize)]
struct Settings {
    name: String,
    text: String,
}

impl Report {
    /// Reads run folders, folders of comparisons and of results, and the JSON files of results.
    ///
    /// # Errors
    /// When a path is none of these, or a file cannot be read.
    pub fn read(paths: &[PathBuf]) -> Outcome<Self> {
        Self::read_at(paths, &[])
    }

    /// Reads the same, and says what the methods reach at some KLs from the SFT model, nats per response. Without a KL, a comparison is shown
    /// at its own.
    ///
    /// # Errors
    /// The errors of [`read`](Self::read); and when a trial of a comparison lacks its evaluation.
    pub fn read_at(paths: &[PathBuf], kls: &[f64]) -> Outcome<Self> {
        let Collected { runs, results, comparisons } = Collected::read(paths)?;
        let numbers = numbers(&runs, &results);
        let mut subjects: Vec<Subject> = Vec::new();
        for (i, run) in runs.iter().enumerate() {
            let mine = results.iter().zip(&numbers).filter(|(_, subject)| **subject == i).map(|(result, _)| result);
            let mut subject = subject_of_run(i, run, mine);
            subject.facts.extend(facts::differences(run, &runs));
            subjects.push(subject);
        }
        for (result, &number) in results.iter().zip(&numbers).filter(|(_, number)| **number >= runs.len()) {
            if let Some(subject) = subject_of_result(number, result) {
                subjects.push(subject);
            }
        }
        let responses = runs.iter().enumerate().map(|(i, run)| Response {
            key: key(i, &run.name),
            legend: if run.responses.has_sides() { Responses::legend(i) } else { Vec::new() },
            rows: run.responses.charts(i),
        });
        let mut frontiers: Vec<Section> =
            comparisons.iter().map(|folder| frontier::of_comparison(folder, kls)).collect::<Outcome<_>>()?;
        frontiers.extend(frontier::of_runs(&runs, &results, &numbers, kls)?);
        let methods = frontiers.iter().map(|section| section.legend.len()).max().unwrap_or(0);
        let colours = runs.len().max(numbers.iter().map(|number| number + 1).max().unwrap_or(0));
        Ok(Self {
            subjects,
            frontiers,
            targets: runs.iter().enumerate().filter_map(|(i, run)| targets::picture(i, run)).collect(),
            families: curves::families(&runs),
            responses: responses.filter(|response| !response.rows.is_empty()).collect(),
            benchmarks: evaluation::benchmarks(&results, &numbers)?,
            samples: samples::side_by_side(&runs, &results, &numbers),
            settings: settings(&runs, &results)?,
            colours: page::colours(colours.max(methods)),
            counts: Counts { runs: runs.len(), results: results.len(), comparisons: comparisons.len() },
        })
    }

    /// Returns the numbers of what it shows.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Returns the page.
    ///
    /// # Errors
    /// When a template cannot be filled, which would be a fault of the program.
    pub fn html(&self) -> Outcome<String> {
        page::render(self)
    }
}

fn key(subject: usize, name: &str) -> Key {
    Key { subject: Some(subject), look: Look::Solid, name: name.to_owned() }
}

/// Returns a number for each result, which decides its colour: that of the run whose model was measured, else a new one for each model.
fn numbers(runs: &[Run], results: &[Measured]) -> Vec<usize> {
    let mut others: Vec<&str> = Vec::new();
    let number = |result: &'_ Measured| runs.iter().position(|run| run.name == result.name);
    results
        .iter()
        .map(|result| {
            number(result).unwrap_or_else(|| {
                let place = others.iter().position(|other| *other == result.name).unwrap_or_else(|| {
                    others.push(&result.name);
                    others.len() - 1
                });
                runs.len() + place
            })
        })
        .collect()
}

fn subject_of_run<'a>(number: usize, run: &Run, results: impl Iterator<Item = &'a Measured>) -> Subject {
    let start = run.text("model.path").map(|path| folder_name(Path::new(path))).unwrap_or_default();
    let mut standings: Vec<Standing> = results.filter_map(|result| Standing::of(&result.run)).collect();
    standings.extend(run.trial.as_ref().and_then(|scores| Standing::of_rewards(scores, &start)));
    let worth = match run.job.as_str() {
        "reward" => answers::agrees(run),
        _ => answers::better(run, &start, standings),
    };
    let answers =
        vec![answers::learned(run), answers::overfitted(run), worth, answers::cost(run), answers::warnings(run)];
    let (facts, more) = facts::facts(run);
    Subject { key: key(number, &run.name), kind: facts::kind(run), facts, answers, more }
}

/// Returns the answer of a result that belongs to no run of the report, if it compares two models.
fn subject_of_result(number: usize, result: &Measured) -> Option<Subject> {
    let standing = Standing::of(&result.run)?;
    let answers = vec![answers::better_than_baseline(&standing)];
    let model = &result.run.manifest.model;
    let facts = [("Model", Some(&model.name)), ("Baseline", result.run.manifest.baseline.as_ref().map(|b| &b.name))];
    let facts = facts.into_iter().filter_map(|(name, value)| Some(Fact { name, value: value?.clone() })).collect();
    Some(Subject { key: key(number, &result.name), kind: "Evaluation".to_owned(), facts, answers, more: Vec::new() })
}

fn settings(runs: &[Run], results: &[Measured]) -> Outcome<Vec<Settings>> {
    let of_run = |run: &Run| Settings {
        name: run.name.clone(),
        text: run.config.clone().unwrap_or_else(|| "no config.toml".to_owned()),
    };
    let mut found: Vec<Settings> = runs.iter().map(of_run).collect();
    for result in results {
        let manifest = &result.run.manifest;
        let name = format!("{}: {}", manifest.benchmark, result.name);
        found.push(Settings { name, text: serde_json::to_string_pretty(manifest)? });
    }
    Ok(found)
}
