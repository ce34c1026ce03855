//! The files a run writes while it goes on.

use serde_json::{Map, Value};

use super::RunState;
use crate::storage::AppendLog;
use crate::tensorboard::EventWriter;
use crate::{Error, ResponseValues, RunDir, Sample};

/// `metrics.jsonl`, `samples.jsonl`, `responses.jsonl` and TensorBoard. A log that cannot be written is worth a warning, not the training.
pub(super) struct Logs {
    metrics: Log<AppendLog>,
    samples: Log<AppendLog>,
    responses: Log<AppendLog>,
    events: Log<EventWriter>,
    warnings: Vec<String>,
}

/// A log, as long as it can be written.
struct Log<L> {
    /// Absent if it could not be opened.
    log: Option<L>,
    /// True if a warning has told of a failure.
    warned: bool,
}

impl<L> Log<L> {
    fn new(opened: Result<L, Error>, warnings: &mut Vec<String>) -> Self {
        let log = opened.map_err(|error| warnings.push(format!("{error}; the training goes on without it"))).ok();
        Self { warned: log.is_none(), log }
    }

    /// Tries something; a first failure becomes a warning.
    fn attempt<R>(&mut self, warnings: &mut Vec<String>, action: impl FnOnce(&mut L) -> Result<R, Error>) -> Option<R> {
        match action(self.log.as_mut()?) {
            Ok(done) => Some(done),
            Err(error) => {
                if !std::mem::replace(&mut self.warned, true) {
                    warnings
                        .push(format!("{error}; the training goes on, and this log lacks what could not be written"));
                }
                None
            }
        }
    }
}

impl Logs {
    /// Opens the logs, cut to what a checkpoint vouches for.
    ///
    /// # Errors
    /// When what a checkpoint vouches for is changed. A file that is gone is worth a warning.
    pub(super) fn open(run: &RunDir, state: &RunState, purge_step: u64) -> Result<Self, Error> {
        let mut warnings = vec![];
        let metrics = reopen(run, RunDir::METRICS, state.metrics_bytes, state.metrics_crc32c, &mut warnings)?;
        let mut open = |name: &str, keep: u64, crc32c: Option<u32>| match reopen(run, name, keep, crc32c, &mut warnings)
        {
            Err(error @ Error::Corrupt { .. }) => Err(error),
            opened => Ok(Log::new(opened, &mut warnings)),
        };
        let samples = open(RunDir::SAMPLES, state.samples_bytes, state.samples_crc32c)?;
        let responses = open(RunDir::RESPONSES, state.responses_bytes, state.responses_crc32c)?;
        let events = Log::new(EventWriter::create(&run.join(RunDir::TENSORBOARD), purge_step), &mut warnings);
        Ok(Self { metrics: Log { log: Some(metrics), warned: false }, samples, responses, events, warnings })
    }

    /// Takes the warnings out that have not been given yet.
    pub(super) fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    /// A line of training metrics: step, epoch and tokens first, then the values in order.
    pub(super) fn train(&mut self, step: u64, epoch: f64, num_tokens: u64, values: &[(String, f64)]) {
        let mut start = start(step, epoch);
        start.insert("num_tokens".into(), num_tokens.into());
        let text = line(start, values);
        self.metrics.attempt(&mut self.warnings, |log| log.append(text.as_bytes()));
        let tagged: Vec<_> = values
            .iter()
            .map(|(name, value)| (format!("train/{name}"), *value))
            .chain([("train/num_tokens".to_string(), num_tokens as f64)])
            .collect();
        self.events.attempt(&mut self.warnings, |log| log.scalars(step, &tagged));
    }

    /// A line about the examples of a round.
    pub(super) fn round(&mut self, step: u64, epoch: f64, round: u64, values: &[(String, f64)]) {
        let mut start = start(step, epoch);
        start.insert("round".into(), round.into());
        let text = line(start, values);
        self.metrics.attempt(&mut self.warnings, |log| log.append(text.as_bytes()));
        let tagged: Vec<_> = values.iter().map(|(name, value)| (format!("round/{name}"), *value)).collect();
        self.events.attempt(&mut self.warnings, |log| log.scalars(step, &tagged));
    }

    /// A line of evaluation metrics.
    pub(super) fn evaluation(&mut self, step: u64, epoch: f64, values: &[(String, f64)]) {
        let text = line(start(step, epoch), values);
        self.metrics.attempt(&mut self.warnings, |log| log.append(text.as_bytes()));
        let tagged: Vec<_> = values
            .iter()
            .map(|(name, value)| {
                let name = name.strip_prefix("eval_").unwrap_or(name);
                (format!("eval/{name}"), *value)
            })
            .collect();
        self.events.attempt(&mut self.warnings, |log| log.scalars(step, &tagged));
    }

    /// A line for each sample.
    pub(super) fn samples(&mut self, step: u64, samples: &[Sample]) {
        let mut text = String::new();
        for sample in samples {
            let mut start = Map::new();
            start.insert("step".into(), step.into());
            start.insert("prompt".into(), sample.prompt.clone().into());
            start.insert("completion".into(), sample.completion.clone().into());
            text += &line(start, &[]);
        }
        if !text.is_empty() {
            self.samples.attempt(&mut self.warnings, |log| log.append(text.as_bytes()));
        }
    }

    /// A line with the numbers of single responses, where there are any. `data`: `train` or `eval`.
    pub(super) fn responses(&mut self, data: &str, step: u64, epoch: f64, responses: &ResponseValues) {
        if !responses.is_empty() {
            let text = responses.line(data, step, epoch);
            self.responses.attempt(&mut self.warnings, |log| log.append(text.as_bytes()));
        }
    }

    /// Brings the files to the disk and notes their lengths and checksums. Of a log that fails those are kept that were on the disk last.
    pub(super) fn sync(&mut self, state: &mut RunState) {
        for (log, bytes, crc32c) in [
            (&mut self.metrics, &mut state.metrics_bytes, &mut state.metrics_crc32c),
            (&mut self.samples, &mut state.samples_bytes, &mut state.samples_crc32c),
            (&mut self.responses, &mut state.responses_bytes, &mut state.responses_crc32c),
        ] {
            if let Some(digest) = log.attempt(&mut self.warnings, |log| log.sync()) {
                (*bytes, *crc32c) = (digest.bytes, Some(digest.crc32c));
            }
        }
    }
}

/// Opens a log that holds `keep` bytes of earlier steps. Without them the model is the same, so a log that was removed begins again.
fn reopen(
    run: &RunDir,
    name: &str,
    keep: u64,
    crc32c: Option<u32>,
    warnings: &mut Vec<String>,
) -> Result<AppendLog, Error> {
    let path = run.join(name);
    if keep > 0 && path.try_exists().is_ok_and(|exists| !exists) {
        warnings.push(format!("{} is missing; the run goes on with a new one", path.display()));
        return AppendLog::open(&path, 0, None);
    }
    AppendLog::open(&path, keep, crc32c).map_err(|error| match error {
        Error::Corrupt { path, reason } => {
            Error::Corrupt { path, reason: reason + "; restore it, or remove it to go on with a new one" }
        }
        other => other,
    })
}

fn start(step: u64, epoch: f64) -> Map<String, Value> {
    let mut line = Map::new();
    line.insert("step".into(), step.into());
    line.insert("epoch".into(), epoch.into());
    line
}

fn line(mut start: Map<String, Value>, values: &[(String, f64)]) -> String {
    for (name, value) in values {
        // JSON has no NaN and no infinities: they become null.
        start.insert(name.clone(), Value::from(*value));
    }
    Value::Object(start).to_string() + "\n"
}
