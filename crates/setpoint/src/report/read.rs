//! Everything that a report is made of: runs with their metrics, responses and samples, and results of evaluations.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use setpoint_align::Masses;
use setpoint_eval::{EvalRun, read_outputs};
use setpoint_files::words;
use setpoint_train::RunDir;
use toml::Table;

use super::frontier::by_prompt;
use super::responses::Responses;
use crate::align::audit::AUDIT;
use crate::failure::{Failure, Outcome};
use crate::training::history::History;
use crate::training::{finished_steps, record};

/// Keys of a metrics line that are no metric.
const NO_METRICS: [&str; 4] = ["step", "epoch", "round", "num_tokens"];
/// The most metrics of a run that are kept, in the order of their appearance.
const MOST_METRICS: usize = 200;
/// The most runs and results in a report.
const MOST: usize = 50;
/// The longest line of a log, bytes.
const LONGEST_LINE: u64 = 256 << 20;
/// The longest `config.toml` that is read, bytes.
const LONGEST_CONFIG: u64 = 1 << 20;

/// The parts of the held-out rows of a search, the most telling first.
const PARTS: [&str; 3] = ["report", "all", "select"];

/// The points of a metric: `(step, value)`, in the order of the steps.
pub type Points = Vec<(f64, f64)>;

/// A training run.
#[derive(Debug, Default)]
pub struct Run {
    /// Its name: the end of its folder's path, as long as it takes to tell the runs apart.
    pub name: String,
    /// `sft`, `reward` or `align`.
    pub job: String,
    /// Metrics by name.
    pub metrics: BTreeMap<String, Points>,
    /// The metrics in the order of their first appearance.
    pub order: Vec<String>,
    /// Values that JSON cannot write: those that are not finite.
    pub not_finite: u64,
    /// Passes over the data.
    pub epochs: Option<f64>,
    /// Tokens that it was trained on.
    pub tokens: Option<u64>,
    /// `config.toml`.
    pub config: Option<String>,
    /// The same as a table; empty if it cannot be read.
    pub settings: Table,
    /// The processes that worked on it, if the version of the program noted them.
    pub history: Option<History>,
    /// The steps of a finished run.
    pub finished: Option<u64>,
    /// The program and the devices of the last start.
    pub versions: Option<Value>,
    /// The figures of the evaluation in the run's own folder, if it is a trial of a search.
    pub trial: Option<Value>,
    /// The values of each prompt, by part of the held-out rows and metric, if it is a trial of a search.
    pub by_prompt: Vec<(&'static str, BTreeMap<String, Vec<f64>>)>,
    /// The probability that its targets send to each kind of text, if it has targets and its version of the program noted that.
    pub masses: Option<Masses>,
    /// The numbers of single responses.
    pub responses: Responses,
    /// The last samples made during training.
    pub samples: Samples,
}

/// Samples of a model.
#[derive(Debug, Default)]
pub struct Samples {
    /// The step that they were made after.
    pub step: Option<u64>,
    /// Prompts and completions.
    pub pairs: Vec<(String, String)>,
}

/// A result with where it came from.
#[derive(Debug)]
pub struct Measured {
    /// The model's name.
    pub name: String,
    /// The result.
    pub run: EvalRun,
    /// Prompts and answers, if the folder holds answers to AlpacaEval.
    pub samples: Vec<(String, String)>,
}

/// Everything that was found.
#[derive(Debug, Default)]
pub struct Collected {
    /// Training runs.
    pub runs: Vec<Run>,
    /// Results of evaluations.
    pub results: Vec<Measured>,
    /// Folders of comparisons.
    pub comparisons: Vec<PathBuf>,
}

impl Collected {
    /// Reads every path: a run folder, the folder of a comparison or of a result, or the JSON file of one.
    ///
    /// # Errors
    /// When a path is none of these, a file cannot be read, or there are too many.
    pub fn read(paths: &[PathBuf]) -> Outcome<Self> {
        if paths.len() > MOST {
            return Err(Failure::run(format!("a report shows at most {MOST} runs and results, not {}", paths.len())));
        }
        let mut collected = Self::default();
        let mut folders = Vec::new();
        for path in paths {
            let (metrics, result) = (path.join(RunDir::METRICS), path.join(EvalRun::FILE));
            if metrics.is_file() {
                collected.runs.push(run(path, &metrics)?);
                folders.push(parts(path));
            }
            if result.is_file() || path.is_file() {
                collected.results.push(measured(path)?);
            }
            if path.join("compare.json").is_file() {
                collected.comparisons.push(path.clone());
                continue;
            }
            if !metrics.is_file() && !result.is_file() && !path.is_file() {
                if path.join("trials").is_dir() {
                    return Err(Failure::run(format!(
                        "{} is the folder of a sweep or comparison without compare.json",
                        path.display()
                    ))
                    .hint(format!("name its trials: {}/*", path.join("trials").display())));
                }
                return Err(Failure::run(format!("{} holds neither metrics.jsonl nor result.json", path.display()))
                    .hint("name a run folder, the folder of an evaluation, or its JSON file"));
            }
        }
        for (run, name) in collected.runs.iter_mut().zip(unique(&folders)) {
            run.name = name;
        }
        Ok(collected)
    }
}

/// Returns the names in a path, the last first.
fn parts(path: &Path) -> Vec<String> {
    let own = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let names = own.components().rev().filter_map(|part| match part {
        std::path::Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
        _ => None,
    });
    names.collect()
}

/// Returns a name for each folder: its last part, with as many of the parts before as it takes. The same folder twice is numbered.
fn unique(folders: &[Vec<String>]) -> Vec<String> {
    let name = |folder: &[String], length: usize| {
        let parts: Vec<&str> = folder.iter().take(length).rev().map(String::as_str).collect();
        parts.join("/")
    };
    let of = |i: usize| {
        let (folder, longest) = (&folders[i], folders[i].len().max(1));
        let others = || folders.iter().enumerate().filter(|(j, other)| *j != i && *other != folder);
        let length = (1..longest).find(|&n| others().all(|(_, other)| name(other, n) != name(folder, n)));
        let name = name(folder, length.unwrap_or(longest));
        match folders[..i].iter().filter(|earlier| *earlier == folder).count() {
            0 => name,
            earlier => format!("{name} ({})", earlier + 1),
        }
    };
    (0..folders.len()).map(of).collect()
}

/// Hands over the lines of a log one by one: the log of the responses may be larger than one wants to hold as text.
///
/// # Errors
/// When the file cannot be read, or a line before the last is damaged.
pub fn each_line<L: DeserializeOwned>(path: &Path, mut take: impl FnMut(L)) -> Outcome {
    let unreadable = |e| Failure::run(format!("cannot read {}: {}", path.display(), words::system(&e)));
    let mut file = BufReader::new(setpoint_files::open(path)?);
    let mut text = String::new();
    for number in 1.. {
        text.clear();
        if file.by_ref().take(LONGEST_LINE).read_line(&mut text).map_err(unreadable)? == 0 {
            break;
        }
        if text.len() as u64 == LONGEST_LINE {
            return Err(Failure::run(format!("{}:{number}: the line is too long for a log", path.display())));
        }
        match serde_json::from_str(&text) {
            _ if text.trim().is_empty() => {}
            Ok(line) => take(line),
            // A run that goes on, or was killed, may have half a last line.
            Err(_) if !text.ends_with('\n') => {}
            Err(e) => return Err(Failure::run(format!("{}:{number}: {}", path.display(), words::json_in_line(&e)))),
        }
    }
    Ok(())
}

fn run(dir: &Path, metrics: &Path) -> Outcome<Run> {
    let mut run = Run {
        config: read_config(&dir.join(record::CONFIG)),
        history: History::read(dir),
        finished: finished_steps(dir),
        versions: read_json(&dir.join("versions.json")),
        trial: PARTS
            .iter()
            .find_map(|part| Some(read_json(&dir.join(format!("eval-{part}.json")))?.get("report")?.clone())),
        by_prompt: PARTS.iter().filter_map(|part| Some((*part, by_prompt(dir, part)?))).collect(),
        masses: read_json(&dir.join(AUDIT))
            .and_then(|mut audit| serde_json::from_value(audit.get_mut("masses")?.take()).ok()),
        ..Run::default()
    };
    run.settings = run.config.as_deref().and_then(|text| text.parse().ok()).unwrap_or_default();
    let responses = dir.join(RunDir::RESPONSES);
    if responses.is_file() {
        run.responses = Responses::read(&responses)?;
    }
    each_line(metrics, |row| run.add(&row))?;
    run.job = match record::read(dir) {
        Ok(Some(record)) => record.job,
        _ => run.guessed_job(),
    };
    let samples = dir.join(RunDir::SAMPLES);
    if samples.is_file() {
        each_line(&samples, |row| run.samples.add(&row))?;
    }
    Ok(run)
}

fn read_config(path: &Path) -> Option<String> {
    let mut text = String::new();
    setpoint_files::open(path).ok()?.take(LONGEST_CONFIG).read_to_string(&mut text).ok()?;
    Some(text)
}

fn read_json(path: &Path) -> Option<Value> {
    serde_json::from_slice(&setpoint_files::read(path).ok()?).ok()
}

impl Run {
    fn add(&mut self, row: &Map<String, Value>) {
        let Some(step) = row.get("step").and_then(Value::as_f64) else { return };
        self.epochs = row.get("epoch").and_then(Value::as_f64).or(self.epochs);
        self.tokens = row.get("num_tokens").and_then(Value::as_u64).or(self.tokens);
        for (key, value) in row.iter().filter(|(k, _)| !NO_METRICS.contains(&k.as_str())) {
            let Some(value) = value.as_f64() else {
                self.not_finite += u64::from(value.is_null());
                continue;
            };
            if !self.metrics.contains_key(key) {
                if self.order.len() == MOST_METRICS {
                    continue;
                }
                self.order.push(key.clone());
            }
            self.metrics.entry(key.clone()).or_default().push((step, value));
        }
    }

    /// Returns the job of a folder from before the job was recorded.
    fn guessed_job(&self) -> String {
        let job = match () {
            () if self.settings.contains_key("align") || self.metrics.contains_key("rewards/accuracies") => "align",
            () if self.metrics.contains_key("mean_reward") => "reward",
            () => "sft",
        };
        job.to_owned()
    }

    /// Returns the points of a metric.
    pub fn points(&self, metric: &str) -> &[(f64, f64)] {
        self.metrics.get(metric).map_or(&[], Vec::as_slice)
    }

    /// Returns a setting by its dotted key.
    pub fn setting(&self, key: &str) -> Option<&toml::Value> {
        let mut parts = key.split('.');
        let first = self.settings.get(parts.next()?)?;
        parts.try_fold(first, |value, part| value.get(part))
    }

    /// Returns a setting that is a text.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.setting(key)?.as_str()
    }

    /// Returns the steps that were made.
    pub fn steps(&self) -> u64 {
        let logged = self.metrics.values().filter_map(|points| points.last()).map(|point| point.0 as u64).max();
        let processes = self.history.as_ref().map(|history| history.processes.as_slice()).unwrap_or_default();
        let noted = processes.iter().rev().find_map(|process| process.end.as_ref()?.step);
        // A killed process logged steps after the last end that was noted.
        self.finished.or(noted).max(logged).unwrap_or(0)
    }
}

impl Samples {
    /// Takes a row of `samples.jsonl`. Those of the last step stay.
    fn add(&mut self, row: &Map<String, Value>) {
        let text = |key: &str| row.get(key).and_then(Value::as_str).map(str::to_owned);
        let step = row.get("step").and_then(Value::as_u64);
        let (Some(prompt), Some(completion)) = (text("prompt"), text("completion")) else { return };
        if step > self.step {
            self.step = step;
            self.pairs.clear();
        }
        if step == self.step {
            self.pairs.push((prompt, completion));
        }
    }
}

fn measured(path: &Path) -> Outcome<Measured> {
    let run = EvalRun::read(path)?;
    let outputs = path.join("model_outputs.json");
    let samples = match outputs.is_file() {
        true => read_outputs(&outputs)?.into_iter().map(|o| (o.instruction, o.output)).collect(),
        false => Vec::new(),
    };
    Ok(Measured { name: run.manifest.model.name.clone(), run, samples })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_long_as_it_takes() {
        let folder = |path: &str| path.rsplit('/').map(str::to_owned).collect::<Vec<_>>();
        let names = |paths: &[&str]| unique(&paths.iter().map(|path| folder(path)).collect::<Vec<_>>());
        assert_eq!(names(&["runs/dro", "runs/dpo"]), ["dro", "dpo"]);
        assert_eq!(names(&["a/dro", "b/dro", "b/dpo"]), ["a/dro", "b/dro", "dpo"]);
        assert_eq!(names(&["a/dro", "a/dro"]), ["dro", "dro (2)"]);
    }

    #[test]
    fn the_samples_of_the_last_step_stay() {
        let mut samples = Samples::default();
        for (step, text) in [(0, "a"), (4, "b"), (4, "c"), (2, "d")] {
            let row = serde_json::json!({ "step": step, "prompt": text, "completion": text });
            samples.add(row.as_object().unwrap());
        }
        assert_eq!(samples.step, Some(4));
        assert_eq!(samples.pairs.iter().map(|(prompt, _)| prompt.as_str()).collect::<String>(), "bc");
    }

    #[test]
    fn damaged_lines_are_errors_unless_they_are_the_last() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let lines = |text: &str| {
            std::fs::write(&path, text).unwrap();
            let mut found = 0;
            each_line(&path, |_: Map<String, Value>| found += 1).map(|()| found)
        };
        assert_eq!(lines("{\"step\":1}\n\n{\"step\":2}\n{\"st").unwrap(), 2);
        assert!(lines("{\"st\n{\"step\":2}\n").unwrap_err().to_string().contains("metrics.jsonl:1:"));
    }
}
