//! The part of a caller while a run goes on.

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
    /// After the last step, and where the evaluation decides nothing, an error is a warning. Elsewhere it ends the run, which is
    /// saved first. [`Error::Interrupted`] ends the run as [`should_stop`](Self::should_stop) does, to be evaluated when it is resumed.
    fn evaluate(&mut self, model: &M, step: u64) -> Result<Measurement, Error> {
        let _ = (model, step);
        Ok(Measurement::default())
    }

    /// Returns whether an evaluation may end the run ([`Measurement::ends`]). Then one that fails ends it as well.
    fn evaluation_decides(&self) -> bool {
        false
    }

    /// Generates from the model; what is returned goes to `samples.jsonl`.
    ///
    /// # Errors
    /// An error is a warning. [`Error::Interrupted`] ends the run as for [`evaluate`](Self::evaluate).
    fn sample(&mut self, model: &M, step: u64) -> Result<Vec<Sample>, Error> {
        let _ = (model, step);
        Ok(vec![])
    }

    /// Called once, before the first step of this process: `step` of `total_steps` are done, none unless the run is resumed.
    fn begin(&mut self, step: u64, total_steps: u64) {
        let _ = (step, total_steps);
    }

    /// Makes the examples of a round, counted from 0, for a task whose examples change
    /// ([`Task::passes_per_round`](crate::Task::passes_per_round)). Called before the first step of the round, with `fresh`, and without it
    /// before the first step of a process that goes on in the middle of the round: the model has moved since the round began then, and the
    /// examples must be those that were made at its beginning. What is returned becomes a line of `metrics.jsonl`, if it is `fresh`.
    ///
    /// # Errors
    /// Ends the run, which is saved first. [`Error::Interrupted`] ends it as [`should_stop`](Self::should_stop) does; a resumed run begins
    /// the round again.
    fn begin_round(&mut self, model: &M, round: u64, fresh: bool) -> Result<Vec<(String, f64)>, Error> {
        let _ = (model, round, fresh);
        Ok(vec![])
    }

    /// Saves the model that the run ends with, outside the engine's checkpoints.
    ///
    /// Called once the model is certain, when its checkpoint is on the disk: before the last samples, and before the last evaluation
    /// unless that decides which model is the best. A resumed run may call it again, also when all its steps were done before.
    ///
    /// # Errors
    /// Ends the run. What is in the run folder stays as it is, and a resumed run tries again.
    fn save_model(&mut self, model: &M, step: u64) -> Result<(), Error> {
        let _ = (model, step);
        Ok(())
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

    /// Asked before the first step and after every one: `true` saves a checkpoint and ends the run, to be resumed later.
    fn should_stop(&mut self) -> bool {
        false
    }
}

/// Hooks that do nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoHooks;

impl<M: Module> Hooks<M> for NoHooks {}

/// The result of [`Hooks::evaluate`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measurement {
    /// Name and value of each metric, written to `metrics.jsonl` as they are (`eval_loss`,
    /// `eval_rewards/accuracies`, …).
    pub metrics: Vec<(String, f64)>,
    /// Numbers of single responses, for `responses.jsonl`.
    pub responses: ResponseValues,
    /// True if a measured value has passed its limit, so that the run ends with this step.
    pub ends: bool,
}

/// A generation made during training.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Sample {
    /// The model's input.
    pub prompt: String,
    /// The model's output.
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
    /// Tokens of this step.
    pub tokens: u64,
    /// Tokens trained on since the start of the run, whichever processes did it.
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
    /// The measured values.
    pub metrics: Vec<(String, f64)>,
    /// True if the model is the best so far by the configured metric.
    pub best: bool,
}
