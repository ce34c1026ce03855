//! The training loop.
//!
//! A step is: the batch's gradient, accumulated over micro-batches; its norm; clipping; AdamW. Then,
//! where due, lines of metrics and responses, an evaluation, samples and a checkpoint, in this order, so that a
//! checkpoint has all that belongs to its step behind it. What a run does depends on its settings,
//! task, model and step alone; that is what makes an exact resume possible.

mod logs;
mod state;
mod step;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::Instant;

use burn::module::Module;

use crate::checkpoint::{self, Checkpoint};
use crate::hooks::{Evaluation, Hooks, Measurement, StepReport};
use crate::{AdamW, Error, Plan, RunDir, Task, TrainConfig, clip_scale};
use logs::Logs;
pub(crate) use state::RunState;
pub use state::{Best, StopReason};

/// A finished or interrupted run.
#[derive(Debug)]
pub struct Fitted<M> {
    /// The model after the last step, or the best one if the settings ask for it.
    pub model: M,
    /// Optimizer steps done.
    pub steps: u64,
    /// Why the run ended.
    pub stop: StopReason,
    /// Tokens trained on.
    pub num_tokens: u64,
    /// The best model's step and metric.
    pub best: Option<Best>,
    /// What the last evaluation measured.
    pub evaluation: Vec<(String, f64)>,
    /// The checkpoint that holds the model after the last step.
    pub checkpoint: PathBuf,
}

/// Trains a model, from the beginning or from the newest checkpoint in the run folder.
///
/// The folder decides: with [`RunDir::create`] there is no checkpoint, with [`RunDir::open`] the run
/// goes on where the newest intact one stands. A process that was killed at any moment and started
/// again ends with the same bits in every parameter as one that was not, and with the same
/// logs (`metrics.jsonl` apart from the fields that hold times).
///
/// `model` must be on an autodiff device and be built the same way each time; parameters that do not
/// require gradients are not saved.
///
/// # Errors
/// When settings, data or the fingerprint differ from those the checkpoint was made with; when the
/// loss or gradient is not finite (the last checkpoint stays as it is); when the disk, the task or a
/// hook fails.
pub fn fit<T: Task>(
    task: &T,
    model: T::Model,
    config: &TrainConfig,
    run: &RunDir,
    hooks: &mut dyn Hooks<T::Model>,
) -> Result<Fitted<T::Model>, Error> {
    let plan = config.plan(task.len())?;
    if !step::trains(&model) {
        return Err(Error::Forward {
            reason: "no parameter of the model requires a gradient; is it on an autodiff device?".into(),
        });
    }
    let identity = config.identity(&plan);
    let newest = checkpoint::newest(&run.checkpoints_path(), |text| hooks.warning(text))?;
    let fresh = newest.is_none();
    let (model, optimizer, state) = match newest {
        None => (model, AdamW::new(config.optimizer), RunState::default()),
        Some(checkpoint) => {
            checkpoint.check_identity(&identity)?;
            let state: RunState = checkpoint.state()?;
            let model = checkpoint.load_model(model)?;
            let optimizer = checkpoint.load_optimizer(config.optimizer, &model)?;
            // The process may have died between saving and pruning.
            prune(config, run, &state)?;
            (model, optimizer, state)
        }
    };
    if let Some(stop) = state.stop {
        return finish(config, run, model, state, stop);
    }
    let purge_step = if fresh { 0 } else { state.step + 1 };
    let logs = Logs::open(run, &state, purge_step)?;
    Trainer { task, config, plan, run, identity, optimizer, state, logs, order: None, clock: Clock::default() }
        .run(model, fresh, hooks)
}

/// Everything of a run but the model, which moves through the optimizer.
struct Trainer<'a, T: Task> {
    task: &'a T,
    config: &'a TrainConfig,
    plan: Plan,
    run: &'a RunDir,
    identity: serde_json::Map<String, serde_json::Value>,
    optimizer: AdamW,
    state: RunState,
    logs: Logs,
    /// The current epoch and its order.
    order: Option<(u64, Vec<usize>)>,
    clock: Clock,
}

/// Time and tokens of this process's steps since the last line of metrics.
#[derive(Default)]
struct Clock {
    seconds: f64,
    steps: u64,
    tokens: u64,
}

impl<T: Task> Trainer<'_, T> {
    fn run(
        mut self,
        mut model: T::Model,
        fresh: bool,
        hooks: &mut dyn Hooks<T::Model>,
    ) -> Result<Fitted<T::Model>, Error> {
        if fresh && self.config.eval_on_start && self.evaluate(&model, hooks)? {
            self.save(&model)?;
        }
        loop {
            model = self.step(model, hooks)?;
            let last = self.state.step == self.plan.total_steps;
            let improved = (last || self.due(self.config.eval_steps)) && self.evaluate(&model, hooks)?;
            self.state.stop = if last {
                Some(StopReason::Completed)
            } else if self.out_of_patience() {
                Some(StopReason::Patience)
            } else {
                None
            };
            let over = self.state.stop.is_some();
            if over || self.due(self.config.sample_steps) {
                let samples = hooks.sample(&model.valid(), self.state.step)?;
                self.logs.samples(self.state.step, &samples)?;
            }
            let save = over || improved || self.due(self.config.save_steps);
            if save {
                self.save(&model)?;
            }
            if let Some(stop) = self.state.stop {
                return finish(self.config, self.run, model, self.state, stop);
            }
            if hooks.should_stop() {
                if !save {
                    self.save(&model)?;
                }
                return finish(self.config, self.run, model, self.state, StopReason::Requested);
            }
        }
    }

    /// One optimizer step and, where due, its line of metrics.
    fn step(&mut self, model: T::Model, hooks: &mut dyn Hooks<T::Model>) -> Result<T::Model, Error> {
        let start = Instant::now();
        let index = self.state.step;
        let step = index + 1;
        let epoch = index / self.plan.steps_per_epoch;
        let order = match self.order.take() {
            Some((known, order)) if known == epoch => order,
            _ => step::epoch_order(self.task, self.config.seed, epoch)?,
        };
        let within = index % self.plan.steps_per_epoch;
        let batch = step::batch(&order, self.config.batch_size, within);
        let tokens: usize = batch.iter().map(|&example| self.task.tokens(example)).sum();

        let progress = index as f64 / self.plan.total_steps as f64;
        let learning_rate = self.config.learning_rate * self.config.schedule.factor(index, self.plan.total_steps);
        let (model, done) = if self.config.optimizer.in_backward {
            step::move_in_backward(self.task, model, batch, &mut self.optimizer, learning_rate, step, progress)?
        } else {
            let (sink, done) = step::accumulate(self.task, &model, batch, self.config, step, progress)?;
            let scale = self.config.clip_norm().map_or(1.0, |max_norm| clip_scale(done.grad_norm, max_norm));
            (self.optimizer.step(model, sink, learning_rate, scale)?, done)
        };

        self.order = Some((epoch, order));
        self.state.step = step;
        self.state.num_tokens += tokens as u64;
        let window = &mut self.state.window;
        window.steps += 1;
        window.loss += done.loss;
        window.metrics.merge(&done.metrics);
        let seconds = start.elapsed().as_secs_f64();
        self.clock.seconds += seconds;
        self.clock.steps += 1;
        self.clock.tokens += tokens as u64;

        let last = step == self.plan.total_steps;
        if last || self.due(Some(self.config.logging_steps)) {
            self.log(done.grad_norm, learning_rate)?;
        }
        if self.config.logs_step(step, &self.plan) {
            self.logs.responses("train", step, self.epoch(), &done.responses)?;
        }
        hooks.progress(&StepReport {
            step,
            total_steps: self.plan.total_steps,
            epoch: self.epoch(),
            loss: done.loss,
            grad_norm: done.grad_norm,
            learning_rate,
            num_tokens: self.state.num_tokens,
            micro_batches: done.micro_batches,
            seconds,
            metrics: done.metrics.values(),
        });
        Ok(model)
    }

    /// A line of metrics over the window, which starts anew.
    fn log(&mut self, grad_norm: f64, learning_rate: f64) -> Result<(), Error> {
        let window = std::mem::take(&mut self.state.window);
        let clock = std::mem::take(&mut self.clock);
        let mut values: Vec<(String, f64)> = vec![
            ("loss".into(), window.loss / window.steps as f64),
            ("grad_norm".into(), grad_norm),
            ("learning_rate".into(), learning_rate),
        ];
        values.extend(window.metrics.values());
        values.push(("step_seconds".into(), clock.seconds / clock.steps as f64));
        values.push(("tokens_per_second".into(), clock.tokens as f64 / clock.seconds));
        self.logs.train(self.state.step, self.epoch(), self.state.num_tokens, &values)
    }

    /// Evaluates and tells whether the model is the best so far.
    fn evaluate(&mut self, model: &T::Model, hooks: &mut dyn Hooks<T::Model>) -> Result<bool, Error> {
        let step = self.state.step;
        let Measurement { metrics, responses } = hooks.evaluate(&model.valid(), step)?;
        let first = self.state.last_evaluation.is_empty();
        if !metrics.is_empty() {
            self.logs.evaluation(step, self.epoch(), &metrics)?;
        }
        self.state.last_evaluation = Default::default();
        for (name, value) in &metrics {
            self.state.last_evaluation.sum(name, *value);
        }
        let best = match &self.config.best {
            None => false,
            Some(config) => {
                let value = metrics.iter().find(|(name, _)| *name == config.metric);
                let &(_, value) = value.ok_or_else(|| Error::Metric {
                    step,
                    metric: config.metric.clone(),
                    measured: metrics.iter().map(|(name, _)| name.clone()).collect(),
                })?;
                self.state.judge(config, value)
            }
        };
        let last = step == self.plan.total_steps || self.out_of_patience();
        if self.config.logs_evaluation(first, last) {
            self.logs.responses("eval", step, self.epoch(), &responses)?;
        }
        hooks.evaluated(&Evaluation { step, metrics, best });
        Ok(best)
    }

    fn save(&mut self, model: &T::Model) -> Result<(), Error> {
        // What the checkpoint says about the logs must be on the disk before it is.
        self.logs.sync(&mut self.state)?;
        checkpoint::save(
            &self.run.checkpoints_path(),
            self.state.step,
            model,
            &self.optimizer,
            self.identity.clone(),
            &self.state,
        )?;
        prune(self.config, self.run, &self.state)
    }

    fn due(&self, every: Option<u64>) -> bool {
        every.is_some_and(|steps| self.state.step.is_multiple_of(steps))
    }

    fn out_of_patience(&self) -> bool {
        let patience = self.config.best.as_ref().and_then(|best| best.patience);
        patience.is_some_and(|patience| self.state.stale_evaluations >= patience)
    }

    fn epoch(&self) -> f64 {
        self.state.step as f64 / self.plan.steps_per_epoch as f64
    }
}

/// Removes the checkpoints that the settings do not ask for.
fn prune(config: &TrainConfig, run: &RunDir, state: &RunState) -> Result<(), Error> {
    let best = state.best.as_ref().map(|best| best.step);
    checkpoint::prune(&run.checkpoints_path(), config.keep_last, best.as_slice())
}

fn finish<M: Module>(
    config: &TrainConfig,
    run: &RunDir,
    model: M,
    state: RunState,
    stop: StopReason,
) -> Result<Fitted<M>, Error> {
    let dir = run.checkpoints_path();
    let restore = config.best.as_ref().is_some_and(|best| best.restore) && stop != StopReason::Requested;
    let model = match &state.best {
        Some(best) if restore && best.step != state.step => {
            Checkpoint::open(&checkpoint::path_of(&dir, best.step))?.load_model(model)?
        }
        _ => model,
    };
    Ok(Fitted {
        model,
        steps: state.step,
        stop,
        num_tokens: state.num_tokens,
        best: state.best,
        evaluation: state.last_evaluation.values(),
        checkpoint: checkpoint::path_of(&dir, state.step),
    })
}
