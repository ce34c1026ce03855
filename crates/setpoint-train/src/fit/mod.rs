//! The training loop.
//!
//! A step is: the batch's gradient, accumulated over micro-batches and added up over devices; its norm; clipping; AdamW. Then,
//! where due, lines of metrics and responses, an evaluation, samples and a checkpoint. A checkpoint that is saved before the
//! evaluation or the samples of its step notes that they are pending, and a resumed run begins with them: so the last step is on the
//! disk, and the finished model too, before anything else can fail. What a run does depends on its settings, task, model and
//! step alone; that is what makes an exact resume possible.

mod budget;
mod logs;
mod meeting;
mod moving;
mod orders;
mod saving;
mod state;
mod step;
mod team;
#[cfg(test)]
mod tests;
mod trainer;
mod warnings;

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::scope;

use burn::module::Module;
use burn::tensor::Device;

use crate::checkpoint::{self, Checkpoint};
use crate::hooks::Hooks;
use crate::shard::Owners;
use crate::{AdamWConfig, DeviceGroup, Error, RunDir, Task, TrainConfig, parameters};
pub(crate) use state::RunState;
pub use state::{Best, StopReason};
use team::{Replica, Start, Team};
use trainer::Trainer;

/// A finished or interrupted run.
#[derive(Debug)]
pub struct Fitted<M> {
    /// The model after the last step, or the best one if the settings ask for it.
    pub model: M,
    /// Optimizer steps done.
    pub steps: u64,
    /// The reason for the end of the run.
    pub stop: StopReason,
    /// Tokens trained on.
    pub num_tokens: u64,
    /// The best model's step and metric.
    pub best: Option<Best>,
    /// The values measured by the last evaluation.
    pub evaluation: Vec<(String, f64)>,
    /// The checkpoint that holds the model after the last step. A run that was stopped before its first step has none.
    pub checkpoint: PathBuf,
}

/// Trains a model, from the beginning or from the newest checkpoint in the run folder.
///
/// The folder decides: with [`RunDir::create`] there is no checkpoint, with [`RunDir::open`] the run
/// goes on where the newest intact one stands. A process that was killed at any moment and started
/// again ends with the same bits in every parameter as one that was not, and with the same
/// logs (`metrics.jsonl` apart from the fields that hold times).
///
/// A step that a device has too little memory for is tried again with a smaller [`TrainConfig::micro_batch`], for the rest of the run: a
/// warning says so, and checkpoints note it. The result is the same but for rounding. On the CPU an allocation that fails aborts the process.
///
/// `model` must be on an autodiff device and be built the same way each time; parameters that do not
/// require gradients are not saved.
///
/// # Errors
/// When settings, data or the fingerprint differ from those the checkpoint was made with; when the checkpoint was saved without its
/// optimizer; when the loss, the gradient or a parameter is not finite (the last checkpoint stays as it is); when the disk has no room for two
/// checkpoints, or cannot be written; when a device has too little memory for a single example; when the task or a hook fails.
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

/// [`fit`] on several devices at once: each has the whole model and computes a share of every batch, and their gradients are added up. With
/// [`AdamWConfig::shard`] each holds the optimizer's state of some parameters, moves these and sends them to the others; without it each
/// moves the whole model. The weights have the same bits either way, on devices of one kind whose sums are exact copies.
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
    let plan = config.plan(task.visits())?;
    let home = device_of(&model)?;
    if home != *devices.first() {
        let reason = format!("the model is on {home:?}, and the first of the devices is {:?}", devices.first());
        return Err(Error::Forward { reason });
    }
    if let Some(problem) = config.optimizer.state.problem_on(&home) {
        return Err(Error::Config { problems: vec![problem] });
    }
    let identity = config.identity(&plan);
    let newest = checkpoint::newest(&run.checkpoints_path(), |text| hooks.warning(text))?;
    let fresh = newest.is_none();
    let (model, mut state) = match &newest {
        None => (model, RunState::new(config)),
        Some(checkpoint) => {
            checkpoint.check_identity(&config.identity, &identity)?;
            (checkpoint.load_model(model)?, checkpoint.state()?)
        }
    };
    // After its last step a run needs no optimizer.
    let over = state.stop.is_some() || state.step >= plan.total_steps;
    let start = Start {
        config: config.optimizer,
        checkpoint: newest.as_ref().filter(|checkpoint| !over || checkpoint.has_optimizer()),
        owners: shares(config, devices, &model),
    };
    let optimizer = start.optimizer(&model, 0)?;
    if let Some(stop) = state.stop {
        // The process may have died between saving and pruning.
        trainer::prune(config, run, &state, config.keep_last, hooks);
        let model = chosen(config, run, model, &state)?;
        hooks.save_model(&model.valid(), state.step)?;
        return Ok(fitted(run, model, state, stop));
    }
    for warning in warnings::warnings(devices, config, (!fresh).then_some(&state)) {
        hooks.warning(&warning);
    }
    if state.step < plan.total_steps {
        saving::check_room(run, config, &model)?;
    }
    state.devices = devices.len();
    let trainer = Trainer::new(task, config, plan, run, identity, state, fresh)?;
    scope(|scope| trainer.run(Team::assemble(scope, devices, task, &start, Replica { model, optimizer }), hooks))
}

/// The owners of a model's parameters, if the optimizer is divided among devices.
fn shares<M: Module>(config: &TrainConfig, devices: &DeviceGroup, model: &M) -> Option<Arc<Owners>> {
    let AdamWConfig { shard, state, .. } = config.optimizer;
    (shard && devices.len() > 1).then(|| Arc::new(Owners::of(model, state, devices.len())))
}

/// The plain device of a model that can be trained.
fn device_of<M: Module>(model: &M) -> Result<Device, Error> {
    let trained = parameters::list(model).into_iter().find(|info| info.trains);
    let reason = || "no parameter of the model requires a gradient; is it on an autodiff device?".into();
    trained.map(|info| info.device).ok_or_else(|| Error::Forward { reason: reason() })
}

/// The model that a finished run returns: the last one, or the best one if the settings ask for it.
fn chosen<M: Module>(config: &TrainConfig, run: &RunDir, last: M, state: &RunState) -> Result<M, Error> {
    let restore = config.best.as_ref().is_some_and(|best| best.restore);
    match &state.best {
        Some(best) if restore && best.step != state.step => {
            Checkpoint::open(&checkpoint::path_of(&run.checkpoints_path(), best.step))?.load_model(last)
        }
        _ => Ok(last),
    }
}

fn fitted<M>(run: &RunDir, model: M, state: RunState, stop: StopReason) -> Fitted<M> {
    Fitted {
        model,
        steps: state.step,
        stop,
        num_tokens: state.num_tokens,
        checkpoint: checkpoint::path_of(&run.checkpoints_path(), state.step),
        best: state.best,
        evaluation: state.last_evaluation.values(),
    }
}
