//! `setpoint align`: trains a policy so that each response gets the probability its reward implies (DRO), or by one of the other methods.
//!
//! Everything that can be wrong with the input is found before the run folder is made and any weights are read. The reference model, for
//! methods that have one, is loaded once, gives two numbers per response, and leaves memory before the policy trains.

pub mod audit;
mod conflicts;
mod data;
mod desirable;
mod ensemble;
mod examples;
mod fitting;
mod identify;
mod parts;
mod prepare;
mod reference;
pub mod rounds;
mod settings;
mod stop;
mod value;

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use burn::module::Module;
use setpoint_align::{
    LogZ0, PairwiseMethod, PromptLogZ, PromptObjective, Role, ScoredResponse, Training, Update, WeightedObjective,
    least_level_per_token, prompt_log_mass, prompt_log_z,
};
use setpoint_data::Uses;
use setpoint_train::{OnDemand, TrainConfig};
use setpoint_transformer::lora::without_adapter;
use setpoint_transformer::{CausalLm, RopeSwitch};

use crate::adapter::{default_rate, fix_dropout, with_tokenizer};
use crate::config::sections::validate_training_data;
use crate::failure::{Failure, Outcome};
use crate::job::{ADAPTER, DATA, DryRun, Flag, Job, MODEL, Planned, View, Work, word};
use crate::session::Session;
use crate::setup;
use crate::tasks::dro_v::DroVTask;
use crate::tasks::nll::NllTask;
use crate::tasks::pairwise::PairwiseTask;
use crate::tasks::prompts::{PromptLevel, PromptTask};
use crate::tasks::rows::RowTask;
use crate::tasks::single::SingleResponses;
use crate::tasks::stages::{PairedPrompt, RewardedPrompt, RowPrompt, WithReference};
use crate::training::tracker;
use crate::training::{Mix, Output, Rates, RunPlan, Shape, check_room, open_run};

pub use self::audit::Audit;
use self::data::{PreparedSet, ReferencedSet, SetReference, SetView, rows_of};
use self::fitting::{Fitting, initial_policy, policy_and_value};
use self::identify::identify;
use self::parts::VALUE;
use self::stop::held_out;
pub use data::TrainingData;
pub use prepare::{Prepared, named, prepare};
pub use reference::{ReferenceModel, reference_dir, reference_logps};
pub use settings::{AlignConfig, adapt, online_method, respell_method, to_value, unknown_method_hint};
pub use stop::StopSection;

/// `setpoint align`.
#[derive(Debug)]
pub struct Align;

impl Job for Align {
    type Config = AlignConfig;

    const COMMAND: &'static str = "align";
    const FLAGS: &'static [Flag] = &[
        MODEL,
        DATA,
        ADAPTER,
        Flag::count(
            "rounds",
            "N",
            "rounds",
            "Rounds of training on responses that the policy samples (setting rounds)",
        ),
    ];
    const PLANNED: Option<Planned> = Some(Planned { title: "Alignment", told_by: Some("align") });
    const VIEW: Option<View> = Some(View {
        about: "`setpoint align`, `reward` and `logps`: the responses of each prompt",
        selects: false,
        validate: validate_training_data,
        read: |data, encode| (setup::looking_at(data, Uses::TEXT), encode.clone()),
    });
    const WORK: Work<AlignConfig> = Work::Run(run);
    const DRY_RUN: DryRun<AlignConfig> = DryRun::Plan(plan);
    const NEXT: Option<fn(&Path) -> String> = Some(|run| format!("setpoint report {}", word(run)));

    fn about() -> Cow<'static, str> {
        "Align a policy by DRO or one of the other methods".into()
    }

    fn help() -> Cow<'static, str> {
        "Examples:\n  setpoint align --model runs/sft/model --data rewards.jsonl --run runs/dro\n  \
         setpoint align dro.toml --run runs/dro --set align.beta=0.5\n  \
         setpoint align --model runs/sft/model --data pairs.jsonl --run runs/dpo --set align.method=dpo\n  \
         setpoint align --model runs/sft/model --data prompts.jsonl --run runs/online --rounds 20 --set \
         reward.model.path=runs/reward/model\n\n\
         Methods: setpoint methods. All settings of one with their defaults: setpoint inspect config align --set \
         align.method=dpo"
            .into()
    }
}

/// Trains, and leaves the model in `<folder>/model`.
pub fn run(session: &Session, config: &AlignConfig, folder: &Path, resume: bool) -> Outcome {
    tracker::check(config.tracker.as_ref())?;
    let mut config = config.clone();
    config.model = with_tokenizer(&config.model, config.adapter.as_ref());
    setup::fix_template_date(&mut config.model, folder, resume)?;
    fix_dropout(&mut config.adapter, resume)?;
    let config = &config;
    if config.is_in_rounds() {
        return rounds::run(session, config, folder, resume);
    }
    let prepared = prepare(session, config, Some(folder))?;
    train_on(session, config, prepared, folder, resume)
}

/// Trains on data that is prepared.
fn train_on(session: &Session, config: &AlignConfig, prepared: Prepared, folder: &Path, resume: bool) -> Outcome {
    let measured = held_out(config, &prepared)?;
    let mix = mix(config, &prepared)?;
    let plan = run_plan(session, config, &prepared, &mix)?;
    plan.warn(session.quiet);
    let run = open_run(session, folder, resume, config)?;
    if !resume {
        check_room(session, &run, &config.model, plan.trained, &config.train)?;
    }
    let reference = match config.align.about().reference {
        true => Some(reference_dir(config)?),
        false => None,
    };
    // Before the reference model is asked: its answers are kept by the tokens alone.
    let mut origin = prepared.origin(config, reference, folder)?;
    origin.check(&run)?;
    let (policy, reference) = match (&prepared.adaptation, reference) {
        // The policy before training is its own reference: no second model is loaded.
        (Some(adaptation), Some(dir)) if config.reference.is_none() => {
            log::info!("{}", adaptation.reference());
            let policy = initial_policy(session, config, &prepared.model_config, Some(adaptation))?;
            let model = if adaptation.goes_on() { policy.clone() } else { without_adapter(&policy) };
            (Some(policy), Some(ReferenceModel { dir, model: Some(model.valid()) }))
        }
        (_, dir) => (None, dir.map(|dir| ReferenceModel { dir, model: None })),
    };
    let reference = reference_logps(session, config, &prepared, reference, Some(folder))?;
    let (train, eval) = prepared.data.sets();
    identify(&mut origin, "data", "reference-train.jsonl", &train, &reference.train)?;
    if let (Some(set), Some(reference)) = (&eval, &reference.eval) {
        identify(&mut origin, "eval_data", "reference-eval.jsonl", set, reference)?;
    }

    let mut settings = training_settings(config);
    settings.identity = origin.identity();
    if let Some(adaptation) = &prepared.adaptation {
        adaptation.adapt(&mut settings);
    }
    let recompute = plan.memory.recompute;
    let chosen_tokens = mean_chosen_tokens(&train)?;
    let shown = shown(eval.as_ref().unwrap_or(&train), config.samples.prompts)?;
    // The token that ends the template's turns, if the model was trained to end its responses with it.
    let stop = match prepared.encoder.template_stop() {
        Some(stop) if train.teaches(stop)? => Some(stop),
        _ => None,
    };
    let Prepared { encoder, model_config, data, adaptation, .. } = prepared;
    let policy = match policy {
        Some(policy) => policy,
        None => initial_policy(session, config, &model_config, adaptation.as_ref())?,
    };
    let job = Fitting {
        session,
        config,
        encoder: &encoder,
        model_config,
        adaptation,
        value: None,
        policy,
        stop,
        mix: Some(mix),
        run: &run,
        recompute,
        chosen_tokens,
        measured,
    };
    let switch = job.model_config.rope.switch();
    match data {
        TrainingData::Prompts { objective, sets } => {
            let (data, eval) = sets.with_reference(reference);
            let (mut level, mut target) = (0.0, None);
            if objective.level().is_some() {
                let report = audit::of_prompts(&*objective, &data.prompts)?;
                audit::introduce(&report);
                run.write_text(audit::AUDIT, &(serde_json::to_string_pretty(&report)? + "\n"))?;
                level = report.log_z0;
                target = report.chosen.targets.map(|targets| targets.mean);
            }
            let task = |set: ReferencedSet<RewardedPrompt>| prompt_task(objective.clone(), level, switch, set.prompts);
            let eval = eval.map(task).transpose()?;
            job.train(&task(data)?, eval.as_ref(), &settings, target, shown, Ok)
        }
        TrainingData::Pairs { method, sets } => {
            let PairwiseMethod { objectives, nll_weight, .. } = method;
            let objectives: Arc<[WeightedObjective]> = objectives.into();
            let with_reference = config.align.about().reference;
            let task = |set: PreparedSet<PairedPrompt>, reference: SetReference| {
                let reference = with_reference.then_some(reference.prompts);
                PairwiseTask::new(set.prompts, reference, objectives.clone(), nll_weight, switch)
            };
            let eval = sets.eval.zip(reference.eval).map(|(set, reference)| task(set, reference)).transpose()?;
            job.train(&task(sets.train, reference.train)?, eval.as_ref(), &settings, None, shown, Ok)
        }
        TrainingData::Rows { objective, sets } => {
            let (data, eval) = sets.with_reference(reference);
            let task = |set: ReferencedSet<RowPrompt>| -> Outcome<RowTask> {
                let rows = SingleResponses::new(set.prompts, |prompt| rows_of(&*objective, prompt))?;
                Ok(RowTask { rows, mismatched: set.mismatched, objective: objective.clone() })
            };
            let eval = eval.map(task).transpose()?;
            job.train(&task(data)?, eval.as_ref(), &settings, None, shown, Ok)
        }
        TrainingData::RowsWithValue { settings: dro_v, sets } => {
            let (data, eval) = sets.with_reference(reference);
            let task = |set: ReferencedSet<RowPrompt>| -> Outcome<DroVTask> {
                let rows = SingleResponses::new(set.prompts, |prompt| (0..prompt.roles.len()).collect())?;
                Ok(DroVTask::new(rows, dro_v.clone()))
            };
            let (shape, adaptation) = (job.model_config.clone(), job.adaptation.clone());
            let with_value = |policy: CausalLm| policy_and_value(session, config, &shape, adaptation, policy);
            let eval = eval.map(task).transpose()?;
            job.train(&task(data)?, eval.as_ref(), &settings, None, shown, with_value)?;
            log::info!("the value network: {}", run.join(VALUE).display());
            Ok(())
        }
        TrainingData::Best { sets } => {
            let eval = sets.eval.map(|set| NllTask::new(set.prompts)).transpose()?;
            job.train(&NllTask::new(sets.train.prompts)?, eval.as_ref(), &settings, None, shown, Ok)
        }
    }
}

/// Returns whether a value network is trained next to the policy.
fn trains_value(config: &AlignConfig) -> bool {
    matches!(config.align.training(), Training::RowsWithValue(_))
}

/// The first prompts of a set, for samples during training.
fn shown(set: &SetView<'_>, count: usize) -> Outcome<Vec<Vec<u32>>> {
    set.prompts.iter().take(count).map(|prompt| Ok(prompt?.prompt().prompt_ids().to_vec())).collect()
}

/// Checks everything; what a run needs.
pub fn plan(session: &Session, config: &AlignConfig) -> Outcome<RunPlan> {
    if config.is_in_rounds() {
        return rounds::plan(session, config);
    }
    let prepared = prepare(session, config, None)?;
    held_out(config, &prepared)?;
    // Levels of single prompts need the reference model.
    if let Some((beta, level)) = prepared.targets().filter(|(_, level)| *level != LogZ0::PerPrompt) {
        let (log_z0, rewards) = prepared.level(beta, level)?;
        log::info!("{}", audit::level(beta, log_z0, &rewards));
    }
    run_plan(session, config, &prepared, &mix(config, &prepared)?)
}

/// Returns what a run of these settings needs, in rounds or without.
pub fn planned(session: &Session, config: &AlignConfig) -> Outcome<RunPlan> {
    match config.is_in_rounds() {
        true => rounds::plan(session, config),
        false => {
            let prepared = prepare(session, config, None)?;
            run_plan(session, config, &prepared, &mix(config, &prepared)?)
        }
    }
}

/// The parts of the data sets in an epoch.
fn mix(config: &AlignConfig, prepared: &Prepared) -> Outcome<Mix> {
    Mix::of(&config.data, &prepared.data.examples()?)
}

/// Computes the needs of a run: the one place that knows how a method changes the steps and the memory of a training.
fn run_plan(session: &Session, config: &AlignConfig, prepared: &Prepared, mix: &Mix) -> Outcome<RunPlan> {
    let settings = training_settings(config);
    let (model, adaptation) = (&prepared.model_config, prepared.adaptation.as_ref());
    let adapter = adaptation.map(|adaptation| adaptation.size(model, session.device())).transpose()?;
    let shape = Shape { config: model, model: &config.model, output: Output::Tokens, adapter };
    let plan = RunPlan::of(shape, &prepared.report, &settings, mix.visits(), &session.place)?;
    let plan = rated(plan, config, adaptation.is_some()).mixed(mix, &prepared.report);
    // The value network has the policy's size.
    Ok(if trains_value(config) { plan.twice() } else { plan })
}

/// Adds a remark on the learning rate to a plan, if it is the default and does not suit the model.
fn rated(plan: RunPlan, config: &AlignConfig, has_adapter: bool) -> RunPlan {
    let rates = if config.align.about().name == "orpo" { Rates::Orpo } else { Rates::Align };
    let default = default_rate(AlignConfig::default().train.learning_rate, has_adapter);
    plan.rated(rates, &config.train, default, has_adapter)
}

/// The training settings, as the method uses them.
fn training_settings(config: &AlignConfig) -> TrainConfig {
    let mut settings = config.train.clone();
    if matches!(config.align.training(), Training::Prompts(objective) if objective.update() == Update::PerPrompt) {
        settings.batch_size = 1;
    }
    settings
}

/// Makes the task of an objective on prompts. `level`: the level of the targets that prompts share.
fn prompt_task(
    objective: Arc<dyn PromptObjective>,
    level: f64,
    switch: RopeSwitch,
    prompts: OnDemand<WithReference<RewardedPrompt>>,
) -> Outcome<PromptTask> {
    let of = objective.clone();
    leveled_task(objective, switch, prompts, |_, prompt| Ok(log_z(&*of, prompt)?.map_or(level, |own| own.log_z)))
}

/// The same with the level of each prompt's targets.
fn leveled_task(
    objective: Arc<dyn PromptObjective>,
    switch: RopeSwitch,
    prompts: OnDemand<WithReference<RewardedPrompt>>,
    mut level: impl FnMut(usize, &WithReference<RewardedPrompt>) -> Outcome<f64>,
) -> Outcome<PromptTask> {
    let of = objective.clone();
    PromptTask::new(prompts, objective, switch, |number, prompt| {
        let (responses, tokens) = distinct(prompt);
        let log_mass = match of.length_normalize() {
            true => least_level_per_token(&responses, &tokens, of.beta()),
            false => prompt_log_mass(&responses, of.beta()),
        };
        Ok(PromptLevel { level: level(number, prompt)?, log_mass })
    })
}

/// Returns the distinct responses of a prompt, with their numbers of tokens. One that occurs with several rewards gets their mean.
fn distinct(prompt: &WithReference<RewardedPrompt>) -> (Vec<ScoredResponse>, Vec<usize>) {
    let mut found: Vec<(usize, Vec<f64>)> = Vec::new();
    let mut places = HashMap::new();
    for j in 0..prompt.prompt.sequences.len() {
        let place = *places.entry(prompt.prompt.response_ids(j)).or_insert(found.len());
        match found.get_mut(place) {
            Some((_, rewards)) => rewards.push(prompt.rewards[j]),
            None => found.push((j, vec![prompt.rewards[j]])),
        }
    }
    let response = |(j, rewards): &(usize, Vec<f64>)| {
        let reward = rewards.iter().sum::<f64>() / rewards.len() as f64;
        ScoredResponse { ref_logp: prompt.ref_logps[*j], reward }
    };
    let tokens = found.iter().map(|(j, _)| prompt.prompt.response_ids(*j).len()).collect();
    (found.iter().map(response).collect(), tokens)
}

/// Estimates log Z(x) of a prompt, if each prompt has its own level.
pub fn log_z(objective: &dyn PromptObjective, prompt: &WithReference<RewardedPrompt>) -> Outcome<Option<PromptLogZ>> {
    if objective.level() != Some(LogZ0::PerPrompt) {
        return Ok(None);
    }
    let found = prompt_log_z(&distinct(prompt).0, &prompt.samples, objective.beta());
    Ok(Some(found.map_err(|error| Failure::run(format!("{}: {error}", prompt.prompt.name)))?))
}

fn mean_chosen_tokens(set: &SetView<'_>) -> Outcome<f64> {
    let (mut tokens, mut count) = (0, 0);
    for prompt in set.prompts.iter() {
        let prompt = prompt?;
        let roles = prompt.roles().iter().enumerate().filter(|(_, role)| **role == Some(Role::Chosen));
        for (j, _) in roles {
            tokens += prompt.prompt().response_ids(j).len();
            count += 1;
        }
    }
    Ok(if count == 0 { 1.0 } else { tokens as f64 / count as f64 })
}
