//! The files a run writes while it goes on.

use serde_json::{Map, Value};

use super::RunState;
use crate::storage::AppendLog;
use crate::tensorboard::EventWriter;
use crate::{Error, ResponseValues, RunDir, Sample};

/// `metrics.jsonl`, `samples.jsonl`, `responses.jsonl` and TensorBoard.
pub(super) struct Logs {
    metrics: AppendLog,
    samples: AppendLog,
    responses: AppendLog,
    events: EventWriter,
}

impl Logs {
    /// Opens the logs, cut to what a checkpoint vouches for.
    pub(super) fn open(run: &RunDir, state: &RunState, purge_step: u64) -> Result<Self, Error> {
        Ok(Self {
            metrics: AppendLog::open(&run.join(RunDir::METRICS), state.metrics_bytes, state.metrics_crc32c)?,
            samples: AppendLog::open(&run.join(RunDir::SAMPLES), state.samples_bytes, state.samples_crc32c)?,
            responses: AppendLog::open(&run.join(RunDir::RESPONSES), state.responses_bytes, state.responses_crc32c)?,
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

    /// A line with the numbers of single responses, where there are any. `data`: `train` or `eval`.
    pub(super) fn responses(
        &mut self,
        data: &str,
        step: u64,
        epoch: f64,
        responses: &ResponseValues,
    ) -> Result<(), Error> {
        if responses.is_empty() {
            return Ok(());
        }
        self.responses.append(responses.line(data, step, epoch).as_bytes())
    }

    /// Brings the files to the disk and notes their lengths and checksums.
    pub(super) fn sync(&self, state: &mut RunState) -> Result<(), Error> {
        for (log, bytes, crc32c) in [
            (&self.metrics, &mut state.metrics_bytes, &mut state.metrics_crc32c),
            (&self.samples, &mut state.samples_bytes, &mut state.samples_crc32c),
            (&self.responses, &mut state.responses_bytes, &mut state.responses_crc32c),
        ] {
            let digest = log.sync()?;
            (*bytes, *crc32c) = (digest.bytes, Some(digest.crc32c));
        }
        Ok(())
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
