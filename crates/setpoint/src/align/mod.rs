//! `setpoint align`: trains a policy so that each response gets the probability its reward implies (DRO), or by one of the other methods.
//!
//! Everything that can be wrong with the input is found before the run folder is made and any weights are read. The reference model, for
//! methods that have one, is loaded once, gives two numbers per response, and leaves memory before the policy trains.

pub mod audit;
mod desirable;
mod ensemble;
mod identify;
mod pairs;
mod prepare;
mod reference;
mod settings;

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use burn::module::Module;
use setpoint_align::{
    DisplacementDetector, DisplacementSettings, Method, PairwiseMethod, PromptObjective, Role, RowObjective,
    ScoredResponse, Training, TrainsOn, Update, WeightedObjective, prompt_log_mass,
};
use setpoint_reward::RewardModel;
use setpoint_train::{Task, TrainConfig};
use setpoint_transformer::{CausalLm, Recompute, SaveOptions};

use crate::failure::Outcome;
use crate::saving::{learned_stop, save_policy};
use crate::session::Session;
use crate::setup;
use crate::tasks::ScoredPrompt;
use crate::tasks::dro_v::{DroVTask, PolicyAndValue};
use crate::tasks::pairwise::PairwiseTask;
use crate::tasks::prompts::PromptTask;
use crate::tasks::rows::RowTask;
use crate::tasks::single::SingleResponses;
use crate::training::{
    Companions, Output, RunPlan, Sampler, Saver, Shape, check_room, mark_finished, open_run, sampler, train,
};

use self::identify::identify;
pub use prepare::{Prepared, named, prepare};
pub use reference::{ReferenceSet, with_reference};
pub use settings::{AlignConfig, adapt, to_value};

/// Trains, and leaves the model in `<folder>/model`.
pub fn run(session: &Session, config: &AlignConfig, folder: &Path, resume: bool) -> Outcome {
    let mut config = config.clone();
    setup::fix_template_date(&mut config.model, folder, resume)?;
    let config = &config;
    let prepared = prepare(session, config)?;
    let plan = run_plan(session, config, &prepared)?;
    plan.warn();
    let run = open_run(session, folder, resume, config)?;
    if !resume {
        let models = if trains_value(config) { 2 } else { 1 };
        check_room(session, &run, &config.model, &prepared.model_config, models, &config.train)?;
    }
    let reference = match config.align.about().reference {
        true => Some(setup::reference_path(config.reference.as_deref(), &config.model)?),
        false => None,
    };
    // Before the reference model is asked: its answers are kept by the tokens alone.
    let mut origin = prepared.origin(config, reference)?;
    origin.check(&run)?;
    let (data, eval) = with_reference(session, config, &prepared, reference, Some(folder))?;
    identify(&mut origin, "data", "reference-train.jsonl", [&data.prompts, &data.mismatched])?;
    if let Some(set) = &eval {
        identify(&mut origin, "eval_data", "reference-eval.jsonl", [&set.prompts, &set.mismatched])?;
    }

    let mut settings = training_settings(config);
    settings.identity = origin.identity();
    let recompute = plan.memory.recompute;
    let chosen_tokens = mean_chosen_tokens(&data.prompts);
    let job = Job { session, config, prepared: &prepared, run: &run, recompute, chosen_tokens };
    let shown = shown(eval.as_ref().unwrap_or(&data), config.samples.prompts);
    match config.align.training() {
        Training::Prompts(objective) => {
            let (mut level, mut target) = (0.0, None);
            if let Some((beta, rule)) = config.align.targets() {
                let report = audit::of_prompts(beta, rule, &data.prompts)?;
                audit::introduce(&report);
                run.write_text("audit.json", &(serde_json::to_string_pretty(&report)? + "\n"))?;
                level = report.log_z0;
                target = report.chosen.targets.map(|targets| targets.mean);
            }
            let objective: Arc<dyn PromptObjective> = objective.into();
            let task = |set: ReferenceSet| prompt_task(objective.clone(), level, set.prompts);
            job.train(&task(data), eval.map(task).as_ref(), &settings, target, shown, Ok)
        }
        Training::Pairs(method) => {
            let PairwiseMethod { objectives, nll_weight, .. } = method;
            let objectives: Arc<[WeightedObjective]> = objectives.into();
            let reference = config.align.about().reference;
            let task = |set: ReferenceSet| PairwiseTask::new(set.prompts, objectives.clone(), nll_weight, reference);
            job.train(&task(data), eval.map(task).as_ref(), &settings, None, shown, Ok)
        }
        Training::Rows(objective) => {
            let objective: Arc<dyn RowObjective> = objective.into();
            let task = |set: ReferenceSet| {
                let rows = singles(&config.align, set.prompts);
                RowTask { rows, mismatched: set.mismatched, objective: objective.clone() }
            };
            job.train(&task(data), eval.map(task).as_ref(), &settings, None, shown, Ok)
        }
        Training::RowsWithValue(dro_v) => {
            let task =
                |set: ReferenceSet| DroVTask { rows: singles(&config.align, set.prompts), settings: dro_v.clone() };
            let shape = &prepared.model_config;
            let with_value = |policy: CausalLm| {
                let value = setup::policy(
                    session,
                    &config.model,
                    shape,
                    config.train.seed,
                    &session.device().clone().autodiff(),
                )?;
                Ok(PolicyAndValue::new(policy, value, shape))
            };
            job.train(&task(data), eval.map(task).as_ref(), &settings, None, shown, with_value)?;
            log::info!("the value network: {}", run.join(VALUE).display());
            Ok(())
        }
    }
}

/// Returns whether a value network is trained next to the policy.
fn trains_value(config: &AlignConfig) -> bool {
    matches!(config.align.training(), Training::RowsWithValue(_))
}

/// What every method's training needs.
struct Job<'a> {
    session: &'a Session,
    config: &'a AlignConfig,
    prepared: &'a Prepared,
    run: &'a setpoint_train::RunDir,
    recompute: Recompute,
    chosen_tokens: f64,
}

impl Job<'_> {
    /// The token that the policy learns to end its turns with.
    fn stop(&self) -> Option<u32> {
        let sequences = self.prepared.train.prompts.iter().flat_map(|prompt| &prompt.sequences);
        learned_stop(&self.prepared.encoder, sequences.map(|sequence| &sequence.ids[sequence.prompt_len..]))
    }

    /// Trains what `complete` makes of the policy, and saves it. `target`: the mean target of the chosen responses, nats, for methods with
    /// targets.
    fn train<T: Task<Model: HasPolicy>>(
        &self,
        task: &T,
        eval: Option<&T>,
        settings: &TrainConfig,
        target: Option<f64>,
        shown: Vec<Vec<u32>>,
        complete: impl FnOnce(CausalLm) -> Outcome<T::Model>,
    ) -> Outcome {
        let Self { session, config, prepared, run, recompute, chosen_tokens } = self;
        let device = session.device().clone().autodiff();
        let mut policy = setup::policy(session, &config.model, &prepared.model_config, settings.seed, &device)?;
        policy.model.recompute = *recompute;
        let model = complete(policy)?;
        let sampler = sampler(
            session,
            &config.samples,
            &config.model,
            &prepared.model_config,
            &prepared.encoder,
            shown.into_iter(),
        )?;
        let sampler = sampler.map(|mut sample| -> Sampler<'_, T::Model> {
            Box::new(move |model: &T::Model, step| sample(model.policy(), step))
        });
        // Without a reference there are no log-ratios to watch.
        let displacement = match config.align.about().reference {
            true => {
                Some(DisplacementDetector::new(DisplacementSettings { target, ..DisplacementSettings::default() })?)
            }
            false => None,
        };
        let (shape, stop) = (&prepared.model_config, self.stop());
        let saver: Saver<'_, T::Model> = Box::new(|model| {
            for (name, part) in model.parts() {
                let dir = run.join(name);
                match part {
                    Part::Policy(policy) => {
                        save_policy(policy, shape, &prepared.encoder, &config.model, stop, &dir)?;
                    }
                    Part::Value(value) => {
                        value.save(shape, &dir, &SaveOptions::default())?;
                        prepared.encoder.save(&dir)?;
                    }
                }
            }
            Ok(())
        });
        let saver = Some(saver);
        let companions =
            Companions { eval, recompute: *recompute, displacement, chosen_tokens: *chosen_tokens, sampler, saver };
        let name = config.align.name().to_uppercase().replace('_', "-");
        let fitted = train(session, &name, run, task, model, settings, companions)?;
        let folders: Vec<&str> = fitted.model.parts().into_iter().map(|(name, _)| name).collect();
        mark_finished(run, fitted.steps, &folders)?;
        log::info!("the aligned model: {}", run.join(POLICY).display());
        Ok(())
    }
}

/// What is trained: the policy, and what a method may train beside it.
trait HasPolicy: Module {
    fn policy(&self) -> &CausalLm;

    /// Everything that is saved, with the names of the folders in the run.
    fn parts(&self) -> Vec<(&'static str, Part<'_>)> {
        vec![(POLICY, Part::Policy(self.policy()))]
    }
}

/// Where the policy is saved.
const POLICY: &str = "model";
/// Where a value network is saved.
const VALUE: &str = "value";

/// A model that is saved.
enum Part<'a> {
    Policy(&'a CausalLm),
    Value(&'a RewardModel),
}

impl HasPolicy for CausalLm {
    fn policy(&self) -> &CausalLm {
        self
    }
}

impl HasPolicy for PolicyAndValue {
    fn policy(&self) -> &CausalLm {
        &self.policy
    }

    fn parts(&self) -> Vec<(&'static str, Part<'_>)> {
        vec![(POLICY, Part::Policy(&self.policy)), (VALUE, Part::Value(&self.value))]
    }
}

/// The first prompts of a set, for samples during training.
fn shown(set: &ReferenceSet, count: usize) -> Vec<Vec<u32>> {
    let prompt = |prompt: &ScoredPrompt| {
        let first = &prompt.sequences[0];
        first.ids[..first.prompt_len].to_vec()
    };
    set.prompts.iter().take(count).map(prompt).collect()
}

/// How many examples the method makes of the training data: prompts, pairs or single responses.
fn examples(config: &AlignConfig, prepared: &Prepared) -> usize {
    let prompts = &prepared.train.prompts;
    match config.align.about().trains_on {
        TrainsOn::Responses => prompts.len(),
        TrainsOn::Pairs => prompts.iter().map(|prompt| prompt.pairs.len()).sum(),
        TrainsOn::Rows => prompts.iter().map(|prompt| rows(&config.align, prompt).len()).sum(),
    }
}

/// Checks everything; what a run needs.
pub fn plan(session: &Session, config: &AlignConfig) -> Outcome<RunPlan> {
    let prepared = prepare(session, config)?;
    if let Some((beta, level)) = config.align.targets() {
        let (log_z0, rewards) = prepared.level(beta, level)?;
        log::info!("{}", audit::level(beta, log_z0, &rewards));
    }
    run_plan(session, config, &prepared)
}

/// What a run needs: the one place that knows how a method changes the steps and the memory of a training.
pub fn run_plan(session: &Session, config: &AlignConfig, prepared: &Prepared) -> Outcome<RunPlan> {
    let settings = training_settings(config);
    let examples = examples(config, prepared);
    let shape = Shape { config: &prepared.model_config, model: &config.model, output: Output::Tokens };
    let plan = RunPlan::of(shape, &prepared.report, &settings, examples, &session.place)?;
    // The value network has the policy's size.
    Ok(if trains_value(config) { plan.twice() } else { plan })
}

/// The training settings, as the method uses them.
fn training_settings(config: &AlignConfig) -> TrainConfig {
    let mut settings = config.train.clone();
    if matches!(config.align.training(), Training::Prompts(objective) if objective.update() == Update::PerPrompt) {
        settings.batch_size = 1;
    }
    settings
}

fn prompt_task(objective: Arc<dyn PromptObjective>, level: f64, prompts: Vec<ScoredPrompt>) -> PromptTask {
    let log_mass = prompts
        .iter()
        .map(|prompt| {
            // A response that occurs twice counts once.
            let mut seen = HashSet::new();
            let distinct: Vec<ScoredResponse> = (0..prompt.sequences.len())
                .filter(|&j| seen.insert(&prompt.sequences[j].ids))
                .map(|j| ScoredResponse { ref_logp: prompt.ref_logps[j], reward: prompt.rewards[j] })
                .collect();
            prompt_log_mass(&distinct, objective.beta())
        })
        .collect();
    PromptTask { prompts, objective, level, log_mass }
}

/// Every row of the method as an example.
fn singles(method: &Method, prompts: Vec<ScoredPrompt>) -> SingleResponses {
    let places = |(i, prompt)| rows(method, prompt).into_iter().map(move |j| (i, j));
    SingleResponses { places: prompts.iter().enumerate().flat_map(places).collect(), prompts }
}

/// The responses of a prompt that are rows: if the objective's rows are good or bad, those that are either.
fn rows(method: &Method, prompt: &ScoredPrompt) -> Vec<usize> {
    let labelled = matches!(method.training(), Training::Rows(objective) if objective.desirable().is_some());
    (0..prompt.sequences.len()).filter(|&j| !labelled || prompt.roles[j].is_some()).collect()
}

fn mean_chosen_tokens(prompts: &[ScoredPrompt]) -> f64 {
    let lengths: Vec<usize> = prompts
        .iter()
        .flat_map(|p| p.sequences.iter().zip(&p.roles))
        .filter(|(_, role)| **role == Some(Role::Chosen))
        .map(|(sequence, _)| sequence.ids.len() - sequence.prompt_len)
        .collect();
    if lengths.is_empty() { 1.0 } else { lengths.iter().sum::<usize>() as f64 / lengths.len() as f64 }
}
