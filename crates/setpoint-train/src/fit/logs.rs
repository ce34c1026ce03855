//! The files a run writes while it goes on.

use serde_json::{Map, Value};

use crate::storage::AppendLog;
use crate::tensorboard::EventWriter;
use crate::{Error, RunDir, Sample};

/// `metrics.jsonl`, `samples.jsonl` and TensorBoard.
pub(super) struct Logs {
    metrics: AppendLog,
    samples: AppendLog,
    events: EventWriter,
}

impl Logs {
    /// Opens the logs, cut to what a checkpoint vouches for.
    pub(super) fn open(run: &RunDir, metrics_bytes: u64, samples_bytes: u64, purge_step: u64) -> Result<Self, Error> {
        Ok(Self {
            metrics: AppendLog::open(&run.join(RunDir::METRICS), metrics_bytes)?,
            samples: AppendLog::open(&run.join(RunDir::SAMPLES), samples_bytes)?,
            events: EventWriter::create(&run.join(RunDir::TENSORBOARD), purge_step)?,
        })
    }

    /// A line of training metrics: step, epoch and tokens first, then the values in order.
    pub(super) fn train(
        &mut self,
        step: u64,
        epoch: f64,
        num_tokens: u64,
        values: &[(String, f64)],
    ) -> Result<(), Error> {
        let mut line = start(step, epoch);
        line.insert("num_tokens".into(), num_tokens.into());
        append(&mut self.metrics, line, values)?;
        let tagged: Vec<_> = values
            .iter()
            .map(|(name, value)| (format!("train/{name}"), *value))
            .chain([("train/num_tokens".to_string(), num_tokens as f64)])
            .collect();
        self.events.scalars(step, &tagged)
    }

    /// A line of evaluation metrics.
    pub(super) fn evaluation(&mut self, step: u64, epoch: f64, values: &[(String, f64)]) -> Result<(), Error> {
        append(&mut self.metrics, start(step, epoch), values)?;
        let tagged: Vec<_> = values
            .iter()
            .map(|(name, value)| {
                let name = name.strip_prefix("eval_").unwrap_or(name);
                (format!("eval/{name}"), *value)
            })
            .collect();
        self.events.scalars(step, &tagged)
    }

    /// A line for each sample.
    pub(super) fn samples(&mut self, step: u64, samples: &[Sample]) -> Result<(), Error> {
        for sample in samples {
            let mut line = Map::new();
            line.insert("step".into(), step.into());
            line.insert("prompt".into(), sample.prompt.clone().into());
            line.insert("completion".into(), sample.completion.clone().into());
            append(&mut self.samples, line, &[])?;
        }
        Ok(())
    }

    /// Brings metrics and samples to the disk and returns their lengths.
    pub(super) fn sync(&self) -> Result<(u64, u64), Error> {
        Ok((self.metrics.sync()?, self.samples.sync()?))
    }
}

fn start(step: u64, epoch: f64) -> Map<String, Value> {
    let mut line = Map::new();
    line.insert("step".into(), step.into());
    line.insert("epoch".into(), epoch.into());
    line
}

fn append(log: &mut AppendLog, mut line: Map<String, Value>, values: &[(String, f64)]) -> Result<(), Error> {
    for (name, value) in values {
        // JSON has no NaN and no infinities: they become null.
        line.insert(name.clone(), Value::from(*value));
    }
    let mut text = Value::Object(line).to_string();
    text.push('\n');
    log.append(text.as_bytes())
}
