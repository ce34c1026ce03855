//! What every training recipe does around the engine: run folder, progress, evaluation on held-out rows, the final model.

pub mod history;
mod hooks;
mod kept;
pub mod mirror;
mod plan;
pub mod record;
pub mod resume;
mod summary;
pub mod tracker;

use std::ops::ControlFlow;
use std::path::Path;

use burn::module::Module;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use setpoint_align::DisplacementDetector;
use setpoint_data::{TextEncoder, counted};
use setpoint_eval::KlEstimates;
use setpoint_train::{Error, Fitted, Hooks, RunDir, Sample, StopReason, Task, TrainConfig, fit_on};
use setpoint_transformer::{CausalLm, ModelConfig, Recompute, generate_stream};

use self::history::{Ending, Event};
use self::hooks::{Speed, TrainingHooks};
pub use self::kept::{kept_model, kept_steps};
pub use self::plan::{MemoryPlan, Output, ParameterBytes, RoundsPlan, RunPlan, Shape};
use self::record::{CONFIG, record};
pub use self::summary::conclude;
use self::tracker::TrackerSection;
use crate::card::CARD;
use crate::config::Config;
use crate::config::load::to_table;
use crate::config::sections::{Dtype, ModelSection};
use crate::failure::{Failure, Outcome};
use crate::sampling::SamplingSection;
use crate::session::{FreeMemory, Hidden, Session};
use crate::setup;

/// Opens the run folder, and leaves in it what the run was started with, unless it holds that already.
pub fn open_run<C: Config>(session: &Session, folder: &Path, resume: bool, config: &C) -> Outcome<RunDir> {
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

/// The mark of a run that has left its model.
const FINISHED: &str = "finished.json";

/// A file that a finished run has left.
#[derive(Debug, Serialize, Deserialize)]
struct LeftFile {
    name: String,
    bytes: u64,
    crc32c: String,
}

/// `finished.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Finished {
    steps: u64,
    /// Why it ended before its last step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stopped: Option<String>,
    files: Vec<LeftFile>,
}

/// Marks a run as finished, after the models in some folders of it were written.
fn mark_finished(run: &RunDir, steps: u64, stopped: Option<String>, folders: &[&str]) -> Outcome {
    let mut files = Vec::new();
    for folder in folders {
        let mut names = Vec::new();
        list_files(run, folder, &mut names)?;
        // The card is for people, who may change it.
        names.retain(|name| !name.ends_with(CARD));
        names.sort();
        for name in names {
            let (bytes, crc32c) = setpoint_train::file_digest(run.join(&name))?;
            files.push(LeftFile { name, bytes, crc32c });
        }
    }
    Ok(run.write_text(FINISHED, &(serde_json::to_string_pretty(&Finished { steps, stopped, files })? + "\n"))?)
}

/// Adds the files in a folder of a run, and in the folders within it.
fn list_files(run: &RunDir, folder: &str, names: &mut Vec<String>) -> Outcome {
    let cannot = |error: std::io::Error| Failure::run(format!("cannot list {folder}: {error}"));
    for entry in std::fs::read_dir(run.join(folder)).map_err(cannot)? {
        let entry = entry.map_err(cannot)?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let name = format!("{folder}/{name}");
        if entry.path().is_dir() {
            list_files(run, &name, names)?;
        } else {
            names.push(name);
        }
    }
    Ok(())
}

/// Returns the steps of the run in a folder, if it is finished.
pub fn finished_steps(folder: &Path) -> Option<u64> {
    let text = setpoint_files::read(&folder.join(FINISHED)).ok()?;
    Some(serde_json::from_slice::<Finished>(&text).ok()?.steps)
}

/// Whether the run in a folder is finished and its model is as it was left, which is then said.
pub fn is_finished(folder: &Path) -> bool {
    let finished = setpoint_files::read(&folder.join(FINISHED)).ok();
    let Some(finished) = finished.and_then(|text| serde_json::from_slice::<Finished>(&text).ok()) else { return false };
    for LeftFile { name, bytes, crc32c } in &finished.files {
        let path = folder.join(name);
        if setpoint_train::file_digest(&path).ok() != Some((*bytes, crc32c.clone())) {
            log::info!("{} is not as the run left it: the run goes on from its last checkpoint", path.display());
            return false;
        }
    }
    log::info!(
        "{} is finished: it ended after step {}{}, and its model is {}",
        folder.display(),
        finished.steps,
        finished.stopped.as_ref().map_or_else(String::new, |why| format!(" ({why})")),
        folder.join("model").display()
    );
    true
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

/// Samples from the model in training.
pub type Sampler<'a, M> = Box<dyn FnMut(&M, u64) -> Result<Vec<Sample>, Error> + 'a>;

/// `[samples]`: answers to a few prompts during training, written to `samples.jsonl` every `train.sample_steps` steps and at the end.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SamplesSection {
    /// The number of prompts that are answered: the first of `[eval_data]`, else of `[data]`.
    pub prompts: usize,
    /// The sampling of answers.
    pub generate: SamplingSection,
}

impl Default for SamplesSection {
    fn default() -> Self {
        Self { prompts: 4, generate: SamplingSection { max_new_tokens: Some(64), ..SamplingSection::default() } }
    }
}

/// Answers the first prompts of a data set with the model in training.
pub fn sampler<'a>(
    session: &'a Session,
    section: &SamplesSection,
    model: &ModelSection,
    config: &ModelConfig,
    encoder: &'a TextEncoder,
    prompts: impl Iterator<Item = Vec<u32>>,
) -> Outcome<Option<Sampler<'a, CausalLm>>> {
    if section.prompts == 0 {
        return Ok(None);
    }
    let mut settings = section.generate.resolve(model, config, encoder).or_else(|failure| {
        // The model's own settings are for those who use it; training does without them.
        let unread = ModelSection { path: None, ..model.clone() };
        let settings = section.generate.resolve(&unread, config, encoder)?;
        log::warn!("samples during training follow `samples.generate` alone: {}", failure.sentence());
        Ok::<_, Failure>(settings)
    })?;
    settings.max_length = None;
    let seed = section.generate.seed;
    let mut prompts: Vec<Vec<u32>> = prompts.take(section.prompts).collect();
    let asked = prompts.len();
    prompts.retain(|prompt| settings.room(prompt.len(), config.max_position_embeddings) > 0);
    if prompts.len() < asked {
        log::warn!(
            "{} of {asked} sample prompts leave no room for an answer and are skipped: prompt and answer have at most {} tokens",
            asked - prompts.len(),
            settings.max_length.unwrap_or(usize::MAX).min(config.max_position_embeddings)
        );
    }
    if prompts.is_empty() {
        return Ok(None);
    }
    let texts: Vec<String> = prompts.iter().map(|p| Ok(encoder.decode_visible(p)?)).collect::<Outcome<_>>()?;
    Ok(Some(Box::new(move |model, step| {
        let go_on = |_, _| if session.host.should_stop() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
        let answers = match generate_stream(model, &prompts, &settings, seed, go_on) {
            // A device that fails fails the training as well; anything else costs the samples alone.
            Err(error @ setpoint_transformer::Error::Device { .. }) => return Err(Error::task(error)),
            Err(error) => {
                log::warn!("no samples at step {step}: {error}");
                return Ok(Vec::new());
            }
            Ok(answers) => answers,
        };
        if session.host.should_stop() {
            return Err(Error::Interrupted);
        }
        prompts
            .iter()
            .zip(&texts)
            .zip(answers)
            .map(|((ids, prompt), answer)| {
                let completion =
                    setup::answer_text(encoder, ids, &answer.ids).map_err(|f| Error::task(f.to_string()))?;
                Ok(Sample { prompt: prompt.clone(), completion })
            })
            .collect()
    })))
}

/// Makes the examples of a round, and returns its metrics and a line about it. `fresh`: no step of the round is done.
pub type RoundMaker<'a, M> = Box<dyn FnMut(&M, u64, bool) -> Outcome<RoundSummary> + 'a>;

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
pub fn kl_passed<M>(fitted: &Fitted<M>, max_kl: Option<f64>) -> Option<String> {
    let (_, kl) = fitted.evaluation.iter().find(|(name, _)| name == KL)?;
    let max_kl = max_kl.filter(|_| fitted.stop == StopReason::Limit)?;
    Some(format!("the KL from the reference is {kl:.2} nats per response, above align.max_kl = {max_kl}"))
}

/// What accompanies a run.
pub struct Companions<'a, T: Task> {
    /// Held-out examples.
    pub eval: Option<&'a T>,
    /// Watches the chosen responses' log-ratio.
    pub displacement: Option<DisplacementDetector>,
    /// Tokens of a chosen response, on average, for the detector.
    pub chosen_tokens: f64,
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
    /// How the model gets at its activations. Where it computes blocks again memory is what counts.
    pub recompute: Recompute,
}

impl<T: Task> Default for Companions<'_, T> {
    fn default() -> Self {
        Self {
            eval: None,
            displacement: None,
            chosen_tokens: 1.0,
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
    companions: Companions<'_, T>,
) -> Outcome<Fitted<T::Model>> {
    let plan = config.plan(task.len())?;
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
        },
    );
    let watch = session.watch();
    let fitted = fit_on(&session.devices, task, model, config, run, &mut hooks);
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
