//! The work around the engine that every training shares: run folder, progress, evaluation on held-out rows, the final model.

mod finished;
pub mod history;
mod hooks;
mod kept;
pub mod mirror;
mod mix;
mod plan;
mod rates;
pub mod record;
pub mod resume;
mod samples;
mod summary;
pub mod tracker;

use std::path::Path;
use std::time::Instant;

use burn::module::Module;
use setpoint_align::DisplacementDetector;
use setpoint_data::counted;
use setpoint_eval::KlEstimates;
use setpoint_train::{Error, Fitted, Hooks, Mixed, RunDir, StepReport, StopReason, Task, TrainConfig, fit_on};
use setpoint_transformer::Recompute;

pub use self::finished::{finished_steps, is_finished};
use self::history::{Ending, Event};
use self::hooks::{Speed, TrainingHooks};
pub use self::kept::{kept_model, kept_steps};
pub use self::mix::{DataPart, Mix};
pub use self::plan::{MemoryPlan, OnDevices, Output, ParameterBytes, RoundsPlan, RunPlan, Shape};
pub use self::rates::Rates;
use self::record::{CONFIG, record};
pub use self::samples::{Sampler, SamplesSection, sampler};
pub use self::summary::conclude;
use self::tracker::TrackerSection;
use crate::config::Config;
use crate::config::load::to_table;
use crate::config::sections::{Dtype, ModelSection};
use crate::failure::{Failure, Outcome};
use crate::session::{FreeMemory, Hidden, Lines, Session};

/// Opens the run folder, and leaves in it what the run was started with, unless it holds that already.
pub(crate) fn open_run<C: Config>(session: &Session, folder: &Path, resume: bool, config: &C) -> Outcome<RunDir> {
    mirror::check(folder, &to_table(config), resume)?;
    let run = if resume { RunDir::open(folder) } else { RunDir::create(folder) }.map_err(|e| {
        let hint = match &e {
            Error::RunExists { .. } => Some("add --resume to go on with it, or choose another --run folder"),
            _ => None,
        };
        let failure = Failure::from(e);
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    })?;
    for name in ["model", "value"] {
        // What would fail at the end fails now.
        let path = run.join(name);
        if path.exists() && !path.is_dir() {
            return Err(Failure::run(format!("{} is a file, and the run leaves a folder there", path.display()))
                .hint("move it away, or choose another --run folder"));
        }
    }
    if !run.join(CONFIG).is_file() {
        record(&run, config)?;
    } else if resume && run.checkpoints()?.is_empty() {
        log::info!("{} has no checkpoint yet: the run begins at its first step", folder.display());
    }
    let versions = serde_json::json!({
        "setpoint": env!("CARGO_PKG_VERSION"),
        "burn": "0.22.1",
        "compiled_for": session.host.device_kinds(),
        "devices": session.devices.devices().iter().map(|device| format!("{device:?}")).collect::<Vec<_>>(),
        "os": std::env::consts::OS,
        "arch": std::env::consts::ARCH,
    });
    run.write_text("versions.json", &format!("{versions:#}\n"))?;
    history::open(folder, resume);
    Ok(run)
}

/// Checks that the disk has room for the checkpoints of a new run and its models, which hold so many `trained` numbers, before anything long
/// is done.
pub fn check_room(session: &Session, run: &RunDir, model: &ModelSection, trained: u64, train: &TrainConfig) -> Outcome {
    let bytes = match model.dtype {
        Dtype::F32 => 4,
        Dtype::Auto if !session.place.keeps_half_precision() => 4,
        // At least: what the checkpoint holds may be wider.
        Dtype::Auto | Dtype::Bf16 | Dtype::F16 => 2,
    };
    let checked = run.check_room(train, trained, bytes);
    checked.map_err(|error| with_remedy(error, train))
}

/// Makes the examples of a round, and returns its metrics and a line about it. `fresh`: no step of the round is done.
pub type RoundMaker<'a, M> = Box<dyn FnMut(&M, u64, bool) -> Outcome<RoundSummary> + 'a>;

/// Looks at a step; returns a warning if something looks wrong.
pub type StepGuard<'a> = Box<dyn FnMut(&StepReport) -> Option<String> + 'a>;

/// The facts about a round that are known before its first step.
#[derive(Debug, Default)]
pub struct RoundSummary {
    /// The numbers that `metrics.jsonl` holds.
    pub metrics: Vec<(String, f64)>,
    /// A line for people.
    pub line: String,
    /// Sentences about what looks wrong.
    pub warnings: Vec<String>,
}

/// Writes the trained model.
pub type Saver<'a, M> = Box<dyn FnMut(&M) -> Outcome + 'a>;

/// The metric of evaluations under which the KL from the reference is logged.
const KL: &str = "eval_kl";

/// Measures how far the model in training is from the reference.
pub type KlMeter<'a, M> = Box<dyn FnMut(&M) -> Result<KlEstimates, Error> + 'a>;

/// A limit on the KL from the reference.
pub struct KlLimit<'a, M> {
    /// The greatest KL, nats per response.
    pub max: f64,
    /// Measures it at each evaluation.
    pub measure: KlMeter<'a, M>,
}

/// Returns why a training stopped before its last step, if it was for the KL.
pub(crate) fn kl_passed<M>(fitted: &Fitted<M>, max_kl: Option<f64>) -> Option<String> {
    let (_, kl) = fitted.evaluation.iter().find(|(name, _)| name == KL)?;
    let max_kl = max_kl.filter(|_| fitted.stop == StopReason::Limit)?;
    Some(format!("the KL from the reference is {kl:.2} nats per response, above align.max_kl = {max_kl}"))
}

/// The companions of a run.
pub struct Companions<'a, T: Task> {
    /// Held-out examples.
    pub eval: Option<&'a T>,
    /// The parts of several data sets in an epoch.
    pub mix: Option<Mix>,
    /// Watches the chosen responses' log-ratio.
    pub displacement: Option<DisplacementDetector>,
    /// Tokens of a chosen response, on average, for the detector.
    pub chosen_tokens: f64,
    /// Looks at each step.
    pub step_guard: Option<StepGuard<'a>>,
    /// Makes the examples of each round, for a task whose examples change.
    pub maker: Option<RoundMaker<'a, T::Model>>,
    /// Ends the run if the policy is too far from the reference.
    pub limit: Option<KlLimit<'a, T::Model>>,
    /// Generates during training.
    pub sampler: Option<Sampler<'a, T::Model>>,
    /// Writes the model that the run ends with, as soon as that is certain. A resumed run may do it again.
    pub saver: Option<Saver<'a, T::Model>>,
    /// A copy of the metrics for another tool.
    pub tracker: Option<&'a TrackerSection>,
    /// The source of the model's activations in the backward pass. Where it computes blocks again memory is what counts.
    pub recompute: Recompute,
}

impl<T: Task> Default for Companions<'_, T> {
    fn default() -> Self {
        Self {
            eval: None,
            mix: None,
            displacement: None,
            chosen_tokens: 1.0,
            step_guard: None,
            maker: None,
            limit: None,
            sampler: None,
            saver: None,
            tracker: None,
            recompute: Recompute::None,
        }
    }
}

/// Runs the engine with a progress bar. SIGINT and SIGTERM stop it after its step.
pub fn train<T: Task>(
    session: &Session,
    what: &str,
    run: &RunDir,
    task: &T,
    model: T::Model,
    config: &TrainConfig,
    mut companions: Companions<'_, T>,
) -> Outcome<Fitted<T::Model>> {
    let (mixture, parts) = companions.mix.take().map_or_else(Default::default, |mix| (mix.mixture, mix.parts));
    let mixed = Mixed::new(task, mixture);
    let plan = config.plan(mixed.visits())?;
    let total_steps = plan.total_steps;
    let begun = run.compare(&config.identity)?;
    if let Some((step, _)) = &begun {
        log::info!("{what}: going on from step {step} of {total_steps}");
    }
    session.host.free_memory(FreeMemory::GiveBack);
    session.host.free_memory(match companions.recompute {
        Recompute::None => FreeMemory::Keep,
        Recompute::Block => FreeMemory::KeepBriefly,
    });
    // Its remedies are not those of rounds.
    let few_steps = config.few_steps(&plan).filter(|_| task.passes_per_round().is_none());
    let max_kl = companions.limit.as_ref().map(|limit| limit.max);
    let mut hooks = TrainingHooks {
        session,
        what,
        companions,
        micro_batch: config.micro_batch,
        total_steps,
        bar: Box::new(Hidden),
        lines: Lines::from(Instant::now()),
        folder: run.path(),
        few_steps,
        speed: Speed::default(),
        tracker: None,
        best_metric: config.best.as_ref().map(|best| best.metric.as_str()),
        failed: None,
    };
    if begun.is_none() {
        check_best(config, total_steps, &model, &mut hooks)?;
    }
    history::append(
        run.path(),
        Event::Began {
            step: begun.as_ref().map_or(0, |(step, _)| *step),
            total_steps,
            examples: task.len(),
            eval_examples: hooks.companions.eval.map_or(0, |eval| eval.len()),
            parameters: model.num_params(),
            parts,
        },
    );
    let watch = session.watch();
    let fitted = fit_on(&session.devices, &mixed, model, config, run, &mut hooks);
    drop(watch);
    hooks.bar.clear();
    let stopped = |fitted: &Fitted<T::Model>| fitted.stop == StopReason::Requested || session.host.should_stop();
    let ending = match &fitted {
        Err(_) => Ending::Failed,
        Ok(fitted) if stopped(fitted) => Ending::Stopped,
        Ok(fitted) if fitted.stop == StopReason::Patience => Ending::Early,
        Ok(fitted) if fitted.stop == StopReason::Limit => Ending::Limit,
        Ok(_) => Ending::Finished,
    };
    hooks.end_tracker(ending);
    history::append_warnings(run.path(), session.host.as_ref());
    history::append_end(run.path(), ending, fitted.as_ref().ok().map(|fitted| fitted.steps));
    if let Some(failure) = hooks.failed {
        return Err(failure);
    }
    let fitted = fitted.map_err(|error| with_remedy(error, config))?;
    if ending == Ending::Stopped {
        let end = if fitted.steps < total_steps { format!(" of {total_steps}") } else { ", the last one".into() };
        let next = match config.save_only_model {
            true => "its checkpoint holds no optimizer (train.save_only_model), so it cannot go on",
            false => "continue with --resume",
        };
        let message = format!("stopped at step {}{end}; {next}", fitted.steps);
        return Err(Failure::Stopped { message });
    }
    if let StopReason::Patience = fitted.stop {
        log::info!("{what}: stopped early at step {}: {}", fitted.steps, patience_ended(config));
    }
    if let Some(why) = kl_passed(&fitted, max_kl) {
        log::info!("{what}: stopped early at step {}: {why}", fitted.steps);
    } else if let Some(max_kl) = max_kl
        && let Some((_, kl)) = fitted.evaluation.iter().find(|(name, kl)| name == KL && *kl > max_kl)
    {
        log::warn!(
            "{what}: the KL was found above align.max_kl = {max_kl} only after the last step ({kl:.2} nats per response): evaluate more often \
             (train.eval_steps)"
        );
    }
    Ok(fitted)
}

/// Checks that evaluations measure the metric that decides the best checkpoint, where they do so before the last step. A wrong name would
/// end the run at its first evaluation, and every time it is resumed.
fn check_best<T: Task>(
    config: &TrainConfig,
    total_steps: u64,
    model: &T::Model,
    hooks: &mut TrainingHooks<'_, T>,
) -> Outcome {
    let Some(best) = config.best.as_ref().filter(|_| config.eval_steps.is_some_and(|steps| steps < total_steps)) else {
        return Ok(());
    };
    let measured: Vec<String> = hooks.evaluate(&model.valid(), 0)?.metrics.into_iter().map(|(name, _)| name).collect();
    if measured.contains(&best.metric) {
        return Ok(());
    }
    let message = format!("the evaluation does not measure `{}`; it measures: {}", best.metric, measured.join(", "));
    Err(Failure::usage("train.best.metric", message))
}

/// Returns why a training stopped before its last step.
fn patience_ended(config: &TrainConfig) -> String {
    let patience = config.best.as_ref().and_then(|best| best.patience).unwrap_or_default();
    format!("no improvement in {} (train.best.patience)", counted(patience as usize, "evaluation"))
}

/// An error with what can be done about it.
fn with_remedy(error: Error, config: &TrainConfig) -> Failure {
    let hint = match &error {
        Error::NonFinite { checkpoints, .. } | Error::NonFiniteTensor { checkpoints, .. } => {
            let rate = config.learning_rate;
            let remedy = format!(
                "the usual cause is a learning rate that is too high: start a new run with `train.learning_rate` below {rate:e}"
            );
            let rows = match error {
                Error::NonFinite { .. } => ", or look at the rows that are named",
                _ => "",
            };
            let resume = match checkpoints[..] {
                [] => "",
                _ => "; --resume goes on from the newest checkpoint in the folder, with everything as it is",
            };
            Some(remedy + rows + resume)
        }
        Error::DiskSpace { .. } => Some("free some space, or choose a --run folder on another disk".into()),
        _ => None,
    };
    let failure = Failure::from(error);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}
