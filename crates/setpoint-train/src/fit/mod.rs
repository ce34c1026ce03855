//! The training loop.
//!
//! A step is: the batch's gradient, accumulated over micro-batches and added up over devices; its norm; clipping; AdamW. Then,
//! where due, lines of metrics and responses, an evaluation, samples and a checkpoint, in this order, so that a
//! checkpoint has all that belongs to its step behind it. What a run does depends on its settings,
//! task, model and step alone; that is what makes an exact resume possible.

mod logs;
mod meeting;
mod moving;
mod state;
mod step;
mod team;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::thread::scope;
use std::time::Instant;

use burn::module::Module;
use burn::tensor::Device;

use crate::checkpoint::{self, Checkpoint};
use crate::hooks::{Evaluation, Hooks, Measurement, StepReport};
use crate::{AdamW, DeviceGroup, Error, Plan, RunDir, Task, TrainConfig, clip_scale, parameters};
use logs::Logs;
pub(crate) use state::RunState;
pub use state::{Best, StopReason};
use team::{Replica, Team};

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
    let devices = DeviceGroup::single(device_of(&model)?);
    fit_on(&devices, task, model, config, run, hooks)
}

/// [`fit`] on several devices at once: each has the whole model and computes a share of every batch, their gradients are added up, and each
/// moves its model by the sum.
///
/// `model` is on the first device, which also evaluates, samples and saves; the others are sent copies. The gradient does not depend on the
/// number of devices but for rounding, nor does the order of the data: a run may go on with more devices or fewer, and is exact to the bit
/// as long as it goes on with as many.
///
/// # Errors
/// As [`fit`]; and when the model is not on the first device.
pub fn fit_on<T: Task>(
    devices: &DeviceGroup,
    task: &T,
    model: T::Model,
    config: &TrainConfig,
    run: &RunDir,
    hooks: &mut dyn Hooks<T::Model>,
) -> Result<Fitted<T::Model>, Error> {
    let plan = config.plan(task.len())?;
    let home = device_of(&model)?;
    if home != *devices.first() {
        let reason = format!("the model is on {home:?}, and the first of the devices is {:?}", devices.first());
        return Err(Error::Forward { reason });
    }
    let identity = config.identity(&plan);
    let newest = checkpoint::newest(&run.checkpoints_path(), |text| hooks.warning(text))?;
    let fresh = newest.is_none();
    let (model, optimizer, mut state) = match newest {
        None => (model, AdamW::new(config.optimizer), RunState::default()),
        Some(checkpoint) => {
            checkpoint.check_identity(&config.identity, &identity)?;
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
    for warning in warnings(devices, config, (!fresh).then_some(&state)) {
        hooks.warning(&warning);
    }
    state.devices = devices.len();
    let purge_step = if fresh { 0 } else { state.step + 1 };
    let logs = Logs::open(run, &state, purge_step)?;
    let trainer = Trainer { task, config, plan, run, identity, state, logs, order: None, clock: Clock::default() };
    scope(|scope| trainer.run(Team::assemble(scope, devices, task, Replica { model, optimizer }), fresh, hooks))
}

/// The plain device of a model that can be trained.
fn device_of<M: Module>(model: &M) -> Result<Device, Error> {
    let trained = parameters::list(model).into_iter().find(|info| info.trains);
    let reason = || "no parameter of the model requires a gradient; is it on an autodiff device?".into();
    trained.map(|info| info.device).ok_or_else(|| Error::Forward { reason: reason() })
}

/// What a person should know about the devices of a run, which goes on from `earlier` if it is not new.
fn warnings(devices: &DeviceGroup, config: &TrainConfig, earlier: Option<&RunState>) -> Vec<String> {
    let (count, batch) = (devices.len(), config.batch_size);
    let plural = |count: usize| if count == 1 { "" } else { "s" };
    let mut warnings = vec![];
    if batch < count {
        let idle = count - batch;
        let have = if idle == 1 { "has" } else { "have" };
        warnings.push(format!(
            "{idle} of {count} devices {have} nothing to do: a batch has {batch} example{}",
            plural(batch)
        ));
    }
    if let Some(earlier) = earlier.map(|state| state.devices).filter(|&earlier| earlier != count) {
        warnings.push(format!(
            "the run began on {earlier} device{} and goes on with {count}: its gradients are added up in another order, so the last digits differ",
            plural(earlier)
        ));
    }
    warnings
}

/// Everything of a run but the model, which moves through the optimizer.
struct Trainer<'a, T: Task> {
    task: &'a T,
    config: &'a TrainConfig,
    plan: Plan,
    run: &'a RunDir,
    identity: serde_json::Map<String, serde_json::Value>,
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
        mut team: Team<T::Model>,
        fresh: bool,
        hooks: &mut dyn Hooks<T::Model>,
    ) -> Result<Fitted<T::Model>, Error> {
        if fresh && self.config.eval_on_start && self.evaluate(&team.first().model, hooks)? {
            self.save(team.first())?;
        }
        loop {
            team = self.step(team, hooks)?;
            let last = self.state.step == self.plan.total_steps;
            let improved = (last || self.due(self.config.eval_steps)) && self.evaluate(&team.first().model, hooks)?;
            self.state.stop = if last {
                Some(StopReason::Completed)
            } else if self.out_of_patience() {
                Some(StopReason::Patience)
            } else {
                None
            };
            let over = self.state.stop.is_some();
            if over || self.due(self.config.sample_steps) {
                let samples = hooks.sample(&team.first().model.valid(), self.state.step)?;
                self.logs.samples(self.state.step, &samples)?;
            }
            let save = over || improved || self.due(self.config.save_steps);
            if save {
                self.save(team.first())?;
            }
            if let Some(stop) = self.state.stop {
                return finish(self.config, self.run, team.into_model(), self.state, stop);
            }
            if hooks.should_stop() {
                if !save {
                    self.save(team.first())?;
                }
                return finish(self.config, self.run, team.into_model(), self.state, StopReason::Requested);
            }
        }
    }

    /// One optimizer step and, where due, its line of metrics.
    fn step(&mut self, team: Team<T::Model>, hooks: &mut dyn Hooks<T::Model>) -> Result<Team<T::Model>, Error> {
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
        let (mut team, done) = step::compute(self.task, team, batch, self.config, learning_rate, step, progress)?;
        if !self.config.optimizer.in_backward {
            let scale = self.config.clip_norm().map_or(1.0, |max_norm| clip_scale(done.grad_norm, max_norm));
            team = team.apply(learning_rate, scale)?;
        }

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
        Ok(team)
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

    fn save(&mut self, Replica { model, optimizer }: &Replica<T::Model>) -> Result<(), Error> {
        // What the checkpoint says about the logs must be on the disk before it is.
        self.logs.sync(&mut self.state)?;
        checkpoint::save(
            &self.run.checkpoints_path(),
            self.state.step,
            model,
            optimizer,
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
