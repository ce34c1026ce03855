//! The steps of a run, and what is done between them.

mod measuring;
mod rounds;

use std::time::Instant;

use burn::module::Module;
use setpoint_transformer::lora::MaskSeed;

use super::budget::Budget;
use super::logs::Logs;
use super::saving::SaveClock;
use super::state::{Pending, RunState, StopReason};
use super::team::{Pace, Team};
use super::{Fitted, chosen, fitted, step};
use crate::hooks::{Hooks, StepReport};
use crate::mirror::Mirror;
use crate::state_file::OptimizerState;
use crate::{ClipBy, Error, Plan, RunDir, Task, TrainConfig, checkpoint, clip_scale};

/// Everything of a run but the model, which moves through the optimizer.
pub(super) struct Trainer<'a, T: Task> {
    task: &'a T,
    config: &'a TrainConfig,
    plan: Plan,
    run: &'a RunDir,
    identity: serde_json::Map<String, serde_json::Value>,
    state: RunState,
    budget: Budget,
    logs: Logs,
    /// The current epoch and its order.
    order: Option<(u64, Vec<usize>)>,
    /// The round whose examples the task has.
    round: Option<u64>,
    clock: Clock,
    saves: SaveClock,
    /// The step of the newest checkpoint.
    saved: Option<u64>,
    /// True if that checkpoint lacks something of the state.
    unsaved: bool,
    /// True if older checkpoints are kept until a step has shown that the newest one is good.
    unproven: bool,
}

/// Time and tokens of this process's steps since the last line of metrics.
#[derive(Default)]
struct Clock {
    seconds: f64,
    steps: u64,
    tokens: u64,
}

/// How a run goes on after a step.
enum Next {
    Step,
    /// All steps are done, or the evaluations say so.
    Close(StopReason),
    /// A hook asked for it.
    Stop,
}

impl<'a, T: Task> Trainer<'a, T> {
    pub(super) fn new(
        task: &'a T,
        config: &'a TrainConfig,
        plan: Plan,
        run: &'a RunDir,
        identity: serde_json::Map<String, serde_json::Value>,
        state: RunState,
        fresh: bool,
    ) -> Result<Self, Error> {
        let purge_step = if fresh { 0 } else { state.step + 1 };
        let logs = Logs::open(run, &state, purge_step)?;
        let saves = SaveClock::new(config.save_minutes, Instant::now());
        let saved = (!fresh).then_some(state.step);
        // The process may have died between saving and pruning.
        let unproven = !fresh;
        let clock = Clock::default();
        let budget = Budget::new(config.micro_batch, state.micro_batch);
        Ok(Self {
            task,
            config,
            plan,
            run,
            identity,
            state,
            budget,
            logs,
            order: None,
            round: None,
            clock,
            saves,
            saved,
            unsaved: false,
            unproven,
        })
    }

    pub(super) fn run(mut self, mut team: Team<T>, hooks: &mut dyn Hooks<T::Model>) -> Result<Fitted<T::Model>, Error> {
        hooks.begin(self.state.step, self.plan.total_steps);
        loop {
            let next = self.attend(&team, hooks);
            self.warn(hooks);
            match next? {
                Next::Step => match self.begin_round(team.model(), hooks) {
                    Ok(()) => team = self.step(team, hooks)?,
                    Err(error) => return self.leave(team, error, hooks),
                },
                Next::Close(stop) => return self.close(team, stop, hooks),
                Next::Stop => return Ok(fitted(self.run, team.into_model(), self.state, StopReason::Requested)),
            }
        }
    }

    /// Does what is due after a step: an evaluation, samples, a checkpoint.
    fn attend(&mut self, team: &Team<T>, hooks: &mut dyn Hooks<T::Model>) -> Result<Next, Error> {
        if let Some(stop) = self.over() {
            return Ok(Next::Close(stop));
        }
        if self.state.pending != Pending::default() && self.saves.due(Instant::now()) {
            self.save(team, hooks)?;
        }
        let improved = match self.evaluate(team.model(), hooks) {
            Ok(improved) => improved,
            Err(Error::Interrupted) => {
                self.save(team, hooks)?;
                return Ok(Next::Stop);
            }
            Err(error) => {
                // The evaluation is tried again when the run is resumed.
                if let Err(unsaved) = self.save(team, hooks) {
                    hooks.warning(&format!("step {} is not saved: {unsaved}", self.state.step));
                }
                return Err(error);
            }
        };
        if let Some(stop) = self.over() {
            return Ok(Next::Close(stop));
        }
        let stop = match self.sample(team.model(), hooks) {
            Err(Error::Interrupted) => true,
            done => {
                done?;
                hooks.should_stop()
            }
        };
        if stop || improved || self.due(self.config.save_steps) || self.saves.due(Instant::now()) {
            self.save(team, hooks)?;
        }
        Ok(if stop { Next::Stop } else { Next::Step })
    }

    /// Ends a run that needs no more steps. Its checkpoint comes first, then the model, and only then what may fail without harm.
    fn close(
        mut self,
        team: Team<T>,
        stop: StopReason,
        hooks: &mut dyn Hooks<T::Model>,
    ) -> Result<Fitted<T::Model>, Error> {
        self.save(&team, hooks)?;
        prune(self.config, self.run, &self.state, self.config.keep_last, hooks);
        let model = team.into_model();
        let restores = self.config.best.as_ref().is_some_and(|best| best.restore);
        if !restores {
            hooks.save_model(&model.valid(), self.state.step)?;
        }
        let mut best = None;
        let done = self.evaluate(&model, hooks).and_then(|_| {
            if restores {
                let model = best.insert(chosen(self.config, self.run, model.clone(), &self.state)?);
                hooks.save_model(&model.valid(), self.state.step)?;
            }
            self.sample(&model, hooks)
        });
        let stop = match done {
            Err(Error::Interrupted) => StopReason::Requested,
            done => {
                done?;
                self.state.stop = Some(stop);
                stop
            }
        };
        self.unsaved = true;
        self.restate()?;
        self.mirror(hooks);
        prune(self.config, self.run, &self.state, self.config.keep_last, hooks);
        self.warn(hooks);
        Ok(fitted(self.run, best.unwrap_or(model), self.state, stop))
    }

    /// One optimizer step and, where due, its line of metrics.
    fn step(&mut self, team: Team<T>, hooks: &mut dyn Hooks<T::Model>) -> Result<Team<T>, Error> {
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
        if self.is_idle(batch) {
            self.order = Some((epoch, order));
            self.rest(hooks);
            return Ok(team);
        }
        let tokens: usize = batch.iter().map(|&example| self.task.tokens(example)).sum();

        let progress = index as f64 / self.plan.total_steps as f64;
        let learning_rate = self.config.learning_rate * self.config.schedule.factor(index, self.plan.total_steps);
        let pace = |norm: Option<f64>| {
            let clips = self.config.clip_norm().zip(norm);
            Pace { learning_rate, scale: clips.map_or(1.0, |(max_norm, norm)| clip_scale(norm, max_norm)) }
        };
        let by_previous = self.config.clip_by == ClipBy::Previous;
        let before = by_previous.then(|| pace(self.state.grad_norm));
        // Without clipping the norms do not matter.
        let in_backward = self.config.optimizer.in_backward.then(|| before.unwrap_or_else(|| pace(None)));
        let micro_batch = self.budget.micro_batch();
        let masks = MaskSeed::of_step(self.config.seed, step);
        let turn = step::Turn { number: step, masks, progress, in_backward, budget: &mut self.budget };
        let computed = step::compute(self.task, team, batch, turn);
        let (mut team, done) = computed.map_err(|error| self.locate(error))?;
        let now = self.budget.micro_batch();
        if now != micro_batch {
            hooks.warning(&micro_batch.lowered(now, &format!("step {step}")));
        }
        if in_backward.is_none() {
            team = team.apply(before.unwrap_or_else(|| pace(Some(done.grad_norm))))?;
        }

        self.order = Some((epoch, order));
        self.state.step = step;
        self.state.micro_batch = self.budget.lowered();
        self.state.grad_norm = by_previous.then_some(done.grad_norm);
        self.state.num_tokens += tokens as u64;
        let window = &mut self.state.window;
        window.steps += 1;
        window.loss += done.loss;
        window.metrics.merge(&done.metrics);
        let seconds = start.elapsed().as_secs_f64();
        self.clock.seconds += seconds;
        self.clock.steps += 1;
        self.clock.tokens += tokens as u64;
        self.unsaved = true;

        let last = self.note_pending();
        if last || self.due(Some(self.config.logging_steps)) {
            self.log(done.grad_norm, learning_rate);
        }
        if self.config.logs_step(step, &self.plan) {
            self.logs.responses("train", step, self.epoch(), &done.responses);
        }
        if std::mem::take(&mut self.unproven) {
            // Loss and gradient of the newest checkpoint's model are finite.
            prune(self.config, self.run, &self.state, self.config.keep_last, hooks);
        }
        hooks.progress(&StepReport {
            step,
            total_steps: self.plan.total_steps,
            epoch: self.epoch(),
            loss: done.loss,
            grad_norm: done.grad_norm,
            learning_rate,
            tokens: tokens as u64,
            num_tokens: self.state.num_tokens,
            micro_batches: done.micro_batches,
            seconds,
            metrics: done.metrics.values(),
        });
        Ok(team)
    }

    /// Writes a line of metrics over the window, and begins the next one.
    fn log(&mut self, grad_norm: f64, learning_rate: f64) {
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
        self.logs.train(self.state.step, self.epoch(), self.state.num_tokens, &values);
    }

    /// Saves a checkpoint, unless the newest one has everything.
    fn save(&mut self, team: &Team<T>, hooks: &mut dyn Hooks<T::Model>) -> Result<(), Error> {
        if !self.unsaved || self.saved == Some(self.state.step) {
            let changed = self.unsaved;
            self.restate()?;
            if changed {
                self.mirror(hooks);
            }
            return Ok(());
        }
        let begun = Instant::now();
        // What the checkpoint says about the logs must be on the disk before it is.
        self.logs.sync(&mut self.state);
        let mut saved = self.write(team);
        if saved.as_ref().is_err_and(Error::is_disk_full) && prune(self.config, self.run, &self.state, 1, hooks) > 0 {
            hooks.warning("the disk is full: older checkpoints are removed to make room for the new one");
            saved = self.write(team);
        }
        saved.map_err(|error| self.locate(error))?;
        self.mirror(hooks);
        self.saves.saved(begun, Instant::now());
        self.saved = Some(self.state.step);
        self.unsaved = false;
        self.unproven = true;
        // Besides the new checkpoint, one is kept that is known to be good.
        prune(self.config, self.run, &self.state, self.config.keep_last.max(2), hooks);
        Ok(())
    }

    fn write(&self, team: &Team<T>) -> Result<(), Error> {
        let dir = self.run.checkpoints_path();
        let optimizer = (!self.config.save_only_model).then_some(team as &dyn OptimizerState);
        checkpoint::save(&dir, self.state.step, team.model(), optimizer, self.identity.clone(), &self.state).map(|_| ())
    }

    /// Copies the checkpoint of this step to the mirror, if there is one. A failure is a warning.
    fn mirror(&self, hooks: &mut dyn Hooks<T::Model>) {
        let Some(dir) = &self.config.mirror else { return };
        let (step, keep) = (self.state.step, best_step(self.config, &self.state));
        let keep_last = self.config.keep_last.max(2);
        let copied =
            Mirror::open(dir, step).and_then(|mirror| mirror.update(self.run, step, keep_last, keep.as_slice()));
        if let Err(error) = copied {
            hooks.warning(&format!("the checkpoint of step {step} is not mirrored to {}: {error}", dir.display()));
        }
    }

    /// Brings the newest checkpoint up to date, whose step is done and whose parameters are the model's.
    fn restate(&mut self) -> Result<(), Error> {
        if std::mem::take(&mut self.unsaved) && self.saved == Some(self.state.step) {
            self.logs.sync(&mut self.state);
            checkpoint::restate(&self.run.checkpoints_path(), self.state.step, &self.state)?;
        }
        Ok(())
    }

    /// Adds the step, and the checkpoints to go on from, to an error about values that are not finite.
    fn locate(&self, error: Error) -> Error {
        let checkpoints = checkpoint::list(&self.run.checkpoints_path()).unwrap_or_default();
        error.located(self.state.step, checkpoints)
    }

    fn warn(&mut self, hooks: &mut dyn Hooks<T::Model>) {
        self.logs.take_warnings().iter().for_each(|warning| hooks.warning(warning));
    }

    /// Why the run ends with the step that is done, if it does.
    fn over(&self) -> Option<StopReason> {
        if self.state.step == self.plan.total_steps {
            return Some(StopReason::Completed);
        }
        if self.state.pending.evaluation {
            return None;
        }
        match self.state.ended {
            true => Some(StopReason::Limit),
            false => self.out_of_patience().then_some(StopReason::Patience),
        }
    }

    fn due(&self, every: Option<u64>) -> bool {
        every.is_some_and(|steps| self.state.step > 0 && self.state.step.is_multiple_of(steps))
    }

    fn out_of_patience(&self) -> bool {
        let patience = self.config.best.as_ref().and_then(|best| best.patience);
        patience.is_some_and(|patience| self.state.stale_evaluations >= patience)
    }

    fn epoch(&self) -> f64 {
        self.state.step as f64 / self.plan.steps_per_epoch as f64
    }
}

/// Returns the step of the checkpoint that is kept as the best one.
fn best_step(config: &TrainConfig, state: &RunState) -> Option<u64> {
    state.best.as_ref().map(|best| best.step).filter(|_| config.best.is_some())
}

/// Removes all but the last `keep` checkpoints and the best one. Returns how many were removed; a failure is a warning.
pub(super) fn prune<M: Module>(
    config: &TrainConfig,
    run: &RunDir,
    state: &RunState,
    keep: usize,
    hooks: &mut dyn Hooks<M>,
) -> usize {
    let best = best_step(config, state);
    checkpoint::prune(&run.checkpoints_path(), keep, best.as_slice()).unwrap_or_else(|error| {
        hooks.warning(&format!("an old checkpoint stays: {error}"));
        0
    })
}
