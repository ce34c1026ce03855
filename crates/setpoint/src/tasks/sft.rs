//! Supervised fine-tuning as a task of the engine.

use setpoint_align::weighted_sum;
use setpoint_train::{BatchContext, Error, Forward, MetricSums, ResponseValues, Task, token_logps};
use setpoint_transformer::CausalLm;

/// A conversation as tokens.
#[derive(Debug, Clone)]
pub struct SftExample {
    /// File and row, for messages.
    pub name: String,
    /// Index of the data set among those of the job.
    pub set: usize,
    /// All tokens.
    pub ids: Vec<u32>,
    /// Which of them the loss counts: the assistant's, stop tokens included.
    pub counted: Vec<bool>,
}

/// Conversations; the loss is the mean cross-entropy over the counted tokens of the global batch.
#[derive(Debug)]
pub struct SftTask {
    /// The data.
    pub examples: Vec<SftExample>,
}

impl Task for SftTask {
    type Model = CausalLm;
    type Probe = ();
    type Survey = ();

    fn len(&self) -> usize {
        self.examples.len()
    }

    fn weight(&self, example: usize) -> f64 {
        // The first token has nothing before it to be predicted from.
        self.examples[example].counted.iter().skip(1).filter(|c| **c).count() as f64
    }

    fn cost(&self, example: usize) -> usize {
        self.examples[example].ids.len()
    }

    fn forward(&self, model: &CausalLm, examples: &[usize], batch: &BatchContext<()>) -> Result<Forward, Error> {
        let rows: Vec<(&[u32], &[bool])> =
            examples.iter().map(|&e| (self.examples[e].ids.as_slice(), self.examples[e].counted.as_slice())).collect();
        let logps = token_logps(model, &rows)?;
        let loss = weighted_sum(logps.sums.clone(), &vec![-1.0 / batch.denominator; rows.len()]);
        let sums: Vec<f64> = logps.sums.into_data().iter::<f64>().collect();
        let per_example = sums.iter().zip(&logps.counts).map(|(sum, &count)| (-sum / count as f64) as f32).collect();
        let mut responses = ResponseValues::default();
        for ((&example, &logp), &count) in examples.iter().zip(&sums).zip(&logps.counts) {
            responses.push(example, [("tokens", count as f64), ("logp", logp)]);
        }
        let metrics = MetricSums::new();
        Ok(Forward { loss, metrics, per_example, responses, tape: logps.tape, second_tape: None })
    }

    fn describe(&self, example: usize) -> String {
        self.examples[example].name.clone()
    }
}
