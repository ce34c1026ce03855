//! What a caller does while a run goes on.

use burn::module::Module;
use serde::Serialize;

use crate::{Error, ResponseValues};

/// Callbacks of [`fit`](crate::fit). Every method has a default that does nothing.
///
/// Evaluation and samples must follow from the model and the step alone, or a resumed run would not
/// repeat an uninterrupted one. The model handed over is `model.valid()`, on the plain device.
pub trait Hooks<M: Module> {
    /// Measures the model.
    ///
    /// # Errors
    /// Ends the run.
    fn evaluate(&mut self, model: &M, step: u64) -> Result<Measurement, Error> {
        let _ = (model, step);
        Ok(Measurement::default())
    }

    /// Generates from the model; what is returned goes to `samples.jsonl`.
    ///
    /// # Errors
    /// Ends the run.
    fn sample(&mut self, model: &M, step: u64) -> Result<Vec<Sample>, Error> {
        let _ = (model, step);
        Ok(vec![])
    }

    /// Called after every optimizer step.
    fn progress(&mut self, report: &StepReport) {
        let _ = report;
    }

    /// Called when an evaluation is done.
    fn evaluated(&mut self, evaluation: &Evaluation) {
        let _ = evaluation;
    }

    /// Something a person should know that does not end the run, such as a damaged checkpoint.
    fn warning(&mut self, message: &str) {
        let _ = message;
    }

    /// Asked after every step: `true` saves a checkpoint and ends the run, to be resumed later.
    fn should_stop(&mut self) -> bool {
        false
    }
}

/// Hooks that do nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoHooks;

impl<M: Module> Hooks<M> for NoHooks {}

/// What [`Hooks::evaluate`] has measured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measurement {
    /// Name and value of each metric, written to `metrics.jsonl` as they are (`eval_loss`,
    /// `eval_rewards/accuracies`, …).
    pub metrics: Vec<(String, f64)>,
    /// Numbers of single responses, for `responses.jsonl`.
    pub responses: ResponseValues,
}

/// A generation made during training.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Sample {
    /// What the model was given.
    pub prompt: String,
    /// What it wrote.
    pub completion: String,
}

/// One optimizer step.
#[derive(Clone, Debug, PartialEq)]
pub struct StepReport {
    /// The step, from 1.
    pub step: u64,
    /// Steps of the whole run.
    pub total_steps: u64,
    /// Passes over the data so far.
    pub epoch: f64,
    /// Loss of the batch.
    pub loss: f64,
    /// Norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Learning rate of this step.
    pub learning_rate: f64,
    /// Tokens trained on since the start of the run.
    pub num_tokens: u64,
    /// Micro-batches of this step.
    pub micro_batches: usize,
    /// Time the step took, in seconds.
    pub seconds: f64,
    /// The task's metrics for this batch.
    pub metrics: Vec<(String, f64)>,
}

/// One evaluation.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// Optimizer steps done.
    pub step: u64,
    /// What was measured.
    pub metrics: Vec<(String, f64)>,
    /// Whether the model is the best so far by the configured metric.
    pub best: bool,
}
