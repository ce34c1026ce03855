//! What a report is made of: metrics, responses and samples of runs, results of evaluations.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use setpoint_eval::{EvalRun, read_outputs};
use setpoint_train::RunDir;

use super::responses::Responses;
use setpoint::{Failure, Outcome};

/// Keys of a metrics line that are no metric.
const NO_METRICS: [&str; 3] = ["step", "epoch", "num_tokens"];

/// A training run.
pub struct Run {
    /// Its name: the folder's.
    pub name: String,
    /// Metric → `(step, value)`, in the order of the steps.
    pub metrics: BTreeMap<String, Vec<(f64, f64)>>,
    /// The metrics in the order of their first appearance.
    pub order: Vec<String>,
    /// The resolved settings.
    pub config: Option<String>,
    /// The numbers of single responses.
    pub responses: Responses,
    /// Prompt and completion of the last samples made during training.
    pub samples: Vec<(String, String)>,
}

/// A result with where it came from.
pub struct Measured {
    /// The model's name.
    pub name: String,
    /// The result.
    pub run: EvalRun,
    /// Prompt and answer, where the folder holds answers to AlpacaEval.
    pub samples: Vec<(String, String)>,
}

/// Everything that was found.
#[derive(Default)]
pub struct Collected {
    /// Training runs.
    pub runs: Vec<Run>,
    /// Results of evaluations.
    pub results: Vec<Measured>,
}

impl Collected {
    /// Reads every path: a run folder, the folder of a result, or the JSON file of one.
    pub fn read(paths: &[PathBuf]) -> Outcome<Self> {
        let mut collected = Self::default();
        for path in paths {
            let (metrics, result) = (path.join(RunDir::METRICS), path.join("result.json"));
            if metrics.is_file() {
                collected.runs.push(run(path, &metrics)?);
            }
            if result.is_file() || path.is_file() {
                collected.results.push(measured(path)?);
            }
            if !metrics.is_file() && !result.is_file() && !path.is_file() {
                if path.join("trials").is_dir() {
                    return Err(Failure::run(format!("{} is the folder of a sweep or comparison", path.display()))
                        .hint(format!("name its trials: {}/*", path.join("trials").display())));
                }
                return Err(Failure::run(format!("{} holds neither metrics.jsonl nor result.json", path.display()))
                    .hint("name a run folder, the folder of an evaluation, or its JSON file"));
            }
        }
        Ok(collected)
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty() && self.results.is_empty()
    }
}

fn name(path: &Path) -> String {
    let own = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    own.file_stem().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Hands over the lines of a log one by one: that of the responses may be larger than one wants to hold as text.
pub fn each_line<L: DeserializeOwned>(path: &Path, mut take: impl FnMut(L)) -> Outcome {
    let unreadable = |e| Failure::run(format!("cannot read {}: {e}", path.display()));
    let mut file = BufReader::new(File::open(path).map_err(unreadable)?);
    let mut text = String::new();
    for number in 1.. {
        text.clear();
        if file.read_line(&mut text).map_err(unreadable)? == 0 {
            break;
        }
        match serde_json::from_str(&text) {
            _ if text.trim().is_empty() => {}
            Ok(line) => take(line),
            // A run that goes on, or was killed, may have half a last line.
            Err(_) if !text.ends_with('\n') => {}
            Err(e) => return Err(Failure::run(format!("{}:{number}: {e}", path.display()))),
        }
    }
    Ok(())
}

fn lines(path: &Path) -> Outcome<Vec<Map<String, Value>>> {
    let mut rows = Vec::new();
    each_line(path, |row| rows.push(row))?;
    Ok(rows)
}

fn run(dir: &Path, metrics: &Path) -> Outcome<Run> {
    let mut run = Run {
        name: name(dir),
        metrics: BTreeMap::new(),
        order: Vec::new(),
        config: std::fs::read_to_string(dir.join("config.toml")).ok(),
        responses: Responses::default(),
        samples: Vec::new(),
    };
    let responses = dir.join(RunDir::RESPONSES);
    if responses.is_file() {
        run.responses = Responses::read(&responses)?;
    }
    for row in lines(metrics)? {
        let Some(step) = row.get("step").and_then(Value::as_f64) else { continue };
        for (key, value) in row.iter().filter(|(k, _)| !NO_METRICS.contains(&k.as_str())) {
            let Some(value) = value.as_f64() else { continue };
            if !run.metrics.contains_key(key) {
                run.order.push(key.clone());
            }
            run.metrics.entry(key.clone()).or_default().push((step, value));
        }
    }
    let samples = dir.join(RunDir::SAMPLES);
    if samples.is_file() {
        let rows = lines(&samples)?;
        let step = |row: &Map<String, Value>| row.get("step").and_then(Value::as_u64);
        let last = rows.iter().filter_map(step).max();
        let text = |row: &Map<String, Value>, key: &str| row.get(key).and_then(Value::as_str).map(str::to_owned);
        run.samples = rows
            .iter()
            .filter(|row| step(row) == last)
            .filter_map(|row| Some((text(row, "prompt")?, text(row, "completion")?)))
            .collect();
    }
    Ok(run)
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
