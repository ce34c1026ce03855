//! Training in rounds: the policy answers some prompts, its responses get rewards, and the method trains on them as on those of a file.
//!
//! There is no second trainer. The engine asks for a round's examples before its first step
//! ([`Hooks::begin_round`](setpoint_train::Hooks::begin_round)), and steps, schedule, optimizer and checkpoints are those of one run over all
//! rounds. Everything that was sampled is in the run folder before it is trained on, so a run that is killed at any moment goes on exactly.

pub mod checks;
mod fit;
mod judge;
mod metrics;
#[cfg(test)]
mod ppo_tests;
mod prompts;
mod pruning;
mod ptx;
mod remote;
mod rollout;
mod sampler;
pub mod settings;
mod store;
mod tasks;
#[cfg(test)]
mod tests;
mod watch;

use std::path::Path;

use burn::module::Module;
use serde_json::Value;
use setpoint_align::{Desirable, Training};
use setpoint_data::TextEncoder;
use setpoint_train::{Identity, RunDir, TrainConfig};
use setpoint_transformer::lora::{AdapterTask, without_adapter};
use setpoint_transformer::{CausalLm, GenerationConfig, ModelConfig};

use self::fit::Fit;
use self::judge::Judge;
use self::prompts::Prompts;
use self::ptx::Ptx;
pub use self::remote::ReloadSettings;
use self::remote::Remote;
use self::rollout::{Reference, Rollouts, Timing, reference};
use self::sampler::generation;
use self::settings::{Keep, has_one_temperature, most_examples, trained_responses, trains_at_once};
pub use self::settings::{RewardSection, RolloutSection};
use self::store::Store;
use self::tasks::{BestTasks, PairTasks, PpoTasks, PromptTasks, RowTasks, SampledTasks, ValueTasks};
use self::watch::Watch;
use super::fitting::{Fitting, initial_policy, policy_and_value};
use super::parts::VALUE;
use super::prepare::without_later_settings;
use super::settings::AlignConfig;
use super::stop::with_room;
use super::value::ValueStart;
use super::{rated, training_settings, trains_value};
use crate::adapter::{Adaptation, fix_dropout};
use crate::config::sections::warn_of_no_eval_data;
use crate::failure::{Failure, Outcome};
use crate::identity::{KeptRows, Origin, Row, prompt_and_responses};
use crate::partial;
use crate::server;
use crate::session::Session;
use crate::setup::{self, ModelFolder};
use crate::sources::TEMPLATE;
use crate::training::record::CONFIG;
use crate::training::{Output, RoundsPlan, RunPlan, Shape, check_room, open_run};

/// Everything that is known before weights are read.
struct Prepared<'a> {
    rounds: u64,
    rollout: &'a RolloutSection,
    reward: &'a RewardSection,
    encoder: TextEncoder,
    model_config: ModelConfig,
    generation: GenerationConfig,
    prompts: Prompts,
    adaptation: Option<Adaptation>,
    /// The start of PPO's value network.
    value: Option<ValueStart>,
    /// The rows that PPO keeps learning.
    ptx: Option<Ptx>,
    /// The prompts of `[eval_data]`.
    held_out: Option<Prompts>,
    /// The prompts on which a limit on the KL is checked.
    measured: Vec<Vec<u32>>,
}

/// Reads the prompts. Returns the settings with the number of them that a round has, and of the responses in a part: if the user names
/// none, they depend on the data and the devices.
fn read_prompts(session: &Session, config: &AlignConfig) -> Outcome<(AlignConfig, TextEncoder, Prompts)> {
    let encoder = setup::encoder(&config.model)?;
    let prompts = Prompts::read(session, config, &encoder)?;
    let mut config = config.clone();
    if let Some(rollout) = &mut config.rollout {
        rollout.prompts.get_or_insert_with(|| RolloutSection::default_prompts(prompts.ids.len()));
        rollout.chunk_rows =
            Some(rollout.chunk_rows.unwrap_or_else(|| rollout.default_chunk_rows(session.devices.len())));
    }
    Ok((config, encoder, prompts))
}

impl<'a> Prepared<'a> {
    /// Reads everything but the prompts and weights. The settings name the number of prompts of a round.
    fn new(session: &Session, config: &'a AlignConfig, encoder: TextEncoder, prompts: Prompts) -> Outcome<Self> {
        let (rounds, rollout, reward) = config
            .in_rounds()
            .ok_or_else(|| Failure::usage("rounds", "rounds need the sections `rollout` and `reward`"))?;
        let model_config = setup::model_config(&config.model, &encoder)?;
        let generation = generation(config, rollout, &model_config, &encoder)?;
        setup::check_room(&prompts.records, &prompts.ids, &generation, None, &model_config)?;
        let adaptation = Adaptation::of(&config.model, config.adapter.as_ref(), AdapterTask::CausalLm)?;
        let value = ValueStart::of(config, &encoder, &model_config, adaptation.as_ref())?;
        let ptx = Ptx::read(session, config, &encoder, &model_config)?;
        let held_out = Prompts::read_held_out(session, config, &encoder)?;
        warn_of_no_eval_data(&config.train, config.eval_data.as_ref());
        let measured = match &held_out {
            Some(held_out) => {
                let first = held_out.ids.iter().take(config.stop.prompts).cloned().collect();
                with_room(config, &encoder, &model_config, first)?
            }
            None => Vec::new(),
        };
        Ok(Self {
            rounds,
            rollout,
            reward,
            encoder,
            model_config,
            generation,
            prompts,
            adaptation,
            value,
            ptx,
            held_out,
            measured,
        })
    }

    /// Returns the training settings: one run over all rounds.
    fn settings(&self, config: &AlignConfig) -> TrainConfig {
        let mut settings = training_settings(config);
        settings.epochs = self.rounds as f64 * self.rollout.epochs_per_round as f64;
        if let Some(rate) = config.align.ppo().and_then(|ppo| ppo.value_learning_rate) {
            settings.optimizer.value_ratio = rate / settings.learning_rate;
        }
        settings
    }

    /// Checks what earlier builds let a new run begin with.
    ///
    /// # Errors
    /// When a round has too few prompts for the method, when the adapter has dropout and the method trains the policy that samples, and when
    /// the settings ask for more steps than the rounds have.
    fn check_new(&self, config: &AlignConfig) -> Outcome {
        if let Training::Rows(objective) = config.align.training()
            && objective.baseline().is_some()
            && self.rollout.prompts() < 2
        {
            let message = format!(
                "`{}` compares with the responses to another prompt of the round: set `rollout.prompts` to at least 2; found 1",
                config.align.name()
            );
            return Err(Failure::usage("rollout.prompts", message));
        }
        let is_ratio_1 = matches!(config.align.training(), Training::Sampled(_));
        if is_ratio_1 && self.adaptation.as_ref().is_some_and(Adaptation::drops) {
            let message = format!(
                "`{}` trains the policy that samples, and dropout makes it another one in each step: set `adapter.dropout` to 0",
                config.align.name()
            );
            return Err(Failure::usage("adapter.dropout", message));
        }
        let Some(asked) = config.train.max_steps else { return Ok(()) };
        let examples = most_examples(&config.align, self.rollout);
        let all = TrainConfig { max_steps: None, ..self.settings(config) }.plan(examples)?.total_steps;
        if asked <= all {
            return Ok(());
        }
        let message = format!(
            "`train.max_steps` is {asked}, and the run has {all} in its rounds ({}): set more `rounds`, or leave `train.max_steps` out",
            self.rounds
        );
        Err(Failure::usage("train.max_steps", message))
    }

    /// Returns which model the reference is.
    fn reference(&self, config: &AlignConfig) -> Reference {
        reference(config, self.rollout, self.adaptation.is_some())
    }

    /// Returns what the run needs, with what sampling and scoring add.
    fn plan(&self, session: &Session, config: &AlignConfig) -> Outcome<RunPlan> {
        let (model, adaptation) = (&self.model_config, self.adaptation.as_ref());
        let adapter = adaptation.map(|adaptation| adaptation.size(model, session.device())).transpose()?;
        let shape = Shape { config: model, model: &config.model, output: Output::Tokens, adapter };
        let most = config.encode.max_length.unwrap_or(usize::MAX).min(model.max_position_embeddings);
        let sampled = self.rollout.responses();
        let report = self.prompts.report(self.rollout, sampled, most);
        let (examples, settings) = (most_examples(&config.align, self.rollout), self.settings(config));
        let mut trained = self.prompts.report(self.rollout, trained_responses(&config.align, self.rollout), most);
        if let Some(ptx) = &self.ptx {
            // Every response brings a row of other data along.
            ptx.lengthen(&mut trained, sampled);
        }
        let plan = RunPlan::of(shape, &trained, &settings, examples, &session.place)?;
        let mut plan = rated(plan, config, adaptation.is_some());
        if let Some(mix) = &self.prompts.mix {
            plan = plan.with_parts(mix);
        }
        if trains_value(config) {
            // The value network has the policy's size.
            plan = plan.twice();
        }
        if let Some(value) = &self.value {
            plan = value.plan(session, config, &report, &settings, plan)?;
        }
        let own = model.num_parameters() as f64;
        let value = self.value.as_ref().map_or(0.0, |value| value.config.num_parameters() as f64);
        // With an adapter the policy before training shares the base.
        let is_shared = self.adaptation.is_some() && config.reference.is_none();
        let (reference, kept_reference, loaded_reference) = match self.reference(config) {
            Reference::None => (0.0, 0.0, 0.0),
            // Its numbers are the policy's, unless those are at another temperature.
            Reference::Previous => (if has_one_temperature(&config.align, self.rollout) { 0.0 } else { own }, 0.0, 0.0),
            Reference::Held => (own, if is_shared { 0.0 } else { own }, 0.0),
            Reference::OnDisk => (own, 0.0, own),
        };
        let size = |source: Option<&RewardSection>| -> Outcome<f64> {
            match source.and_then(|source| source.model.path.as_ref()) {
                Some(dir) => Ok(ModelFolder::open(dir)?.config()?.num_parameters() as f64),
                None => Ok(0.0),
            }
        };
        let (judge, watch) = (size(Some(self.reward))?, size(config.watch.as_ref())?);
        let (kept, scoring) = match self.rollout.keep {
            Keep::Memory => (kept_reference + judge + watch, kept_reference + judge + watch),
            // The second source is opened when the other models have left.
            Keep::Reload => (kept_reference, kept_reference + (loaded_reference + judge).max(watch)),
        };
        let responses = report.response_tokens as f64;
        // A prompt is read once to sample, and once by each model that scores.
        let all = report.prompt_tokens as f64 + responses;
        // A server samples elsewhere.
        let (generator, at_once) = match self.rollout.server {
            Some(_) => (0.0, 0),
            None => (own, self.generation.batch_size),
        };
        let rows = at_once.min(sampled);
        let token = 8.0 * (model.num_hidden_layers * model.num_key_value_heads * model.head_dim) as f64;
        let mismatched = match config.align.training() {
            // The reference scores other prompts' responses, too.
            Training::Rows(objective) if objective.baseline().is_some() => own,
            _ => 0.0,
        };
        let scored = if trains_at_once(config, self.rollout) { 0.0 } else { own };
        // `train.max_steps` may end the run before its last round.
        let of_round = plan.steps_per_epoch.saturating_mul(self.rollout.epochs_per_round).max(1);
        let rounds = self.rounds.min(plan.steps.div_ceil(of_round));
        Ok(plan.with_rounds(RoundsPlan {
            rounds,
            prompts: self.rollout.prompts(),
            samples: self.rollout.samples,
            max_new_tokens: self.rollout.max_new_tokens,
            all_prompts: self.prompts.ids.len(),
            lengths: self.prompts.lengths(),
            operations: rounds as f64
                * 2.0
                * all
                * (generator + scored + reference + mismatched + judge + watch + value),
            kept,
            scoring,
            cache: rows as f64 * report.longest.max as f64 * token,
        }))
    }

    /// Returns all that the run is made from.
    fn origin(&self, config: &AlignConfig) -> Outcome<Origin> {
        let mut settings = without_later_settings(serde_json::to_value(config)?);
        if let Some(rollout) = settings.get_mut("rollout").and_then(Value::as_object_mut) {
            // They decide nothing about the responses.
            rollout.retain(|name, _| !["keep_rounds", "log_kl", "reload"].contains(&name.as_str()));
            if let Some(server) = &self.rollout.server {
                rollout.insert("server".to_owned(), serde_json::to_value(server.deciding())?);
            }
        }
        let mut origin = Origin::new(&settings, setup::text_hash("rounds"))?;
        if let Some(path) = &config.model.path {
            origin.model("model.path", path, setup::model_hash(path)?);
        }
        if let Some(path) = &config.reference {
            origin.model("reference", path, setup::model_hash(path)?);
        }
        if let Some(adaptation) = &self.adaptation {
            adaptation.identify(&mut origin)?;
        }
        origin.encoder(&config.model, &self.encoder);
        if let Training::Rows(objective) = config.align.training()
            && objective.desirable() == Some(Desirable::Best)
        {
            // The first builds took the first of equal responses for the good one.
            origin.treatment("ties", "the treatment of prompts whose responses have equal rewards", "left out");
        }
        let rows = rows_of(&self.prompts)?;
        origin.data("data", &config.data, rows, prompt_and_responses);
        if let (Some(held_out), Some(data)) = (&self.held_out, &config.eval_data) {
            let rows = rows_of(held_out)?;
            origin.data("eval_data", data, rows, prompt_and_responses);
        }
        origin.reward("reward", "columns of the data", partial::records_hash(&self.prompts.records));
        Judge::identify(self.reward, "reward", &mut origin)?;
        if let Some(watch) = &config.watch {
            Judge::identify(watch, "watch", &mut origin)?;
        }
        if let Some(value) = &self.value {
            value.identify(&mut origin)?;
        }
        if let (Some(ptx), Some(data)) = (&self.ptx, &config.sft_data) {
            ptx.identify(&mut origin, data)?;
        }
        Ok(origin)
    }
}

/// Returns the rows of prompts, for the identity of the run.
fn rows_of(prompts: &Prompts) -> Outcome<KeptRows> {
    KeptRows::of(&prompts.examples().iter().map(Row::of_example).collect::<Vec<_>>())
}

/// Returns the hash that tells whether the responses in a run's folder are those of a run of this identity.
fn store_key(identity: &Identity, seed: u64) -> String {
    let Identity { settings, inputs, version_1, .. } = identity;
    // As the first builds wrote it.
    let text = format!("Identity {{ settings: {settings:?}, inputs: {inputs:?}, version_1: {version_1:?} }} {seed}");
    setup::text_hash(&text)
}

/// Returns the identity that earlier builds gave a run: with the values that its free settings had when it was started.
///
/// # Errors
/// When the settings that the run was started with cannot be read.
fn as_started(mut identity: Identity, run: &RunDir) -> Outcome<Identity> {
    let started = setpoint_files::read_text(&run.join(CONFIG))?;
    let started: toml::Table = toml::from_str(&started).map_err(|error| Failure::run(error.to_string()))?;
    let started = serde_json::to_value(started)?;
    let mut settings = Value::Object(std::mem::take(&mut identity.settings));
    for key in &identity.free {
        let at = format!("/{}", key.replace('.', "/"));
        if let Some(value) = settings.pointer_mut(&at) {
            *value = started.pointer(&at).cloned().unwrap_or_default();
        }
    }
    if let Value::Object(settings) = settings {
        identity.settings = settings;
    }
    // They did not note this one.
    identity.inputs.retain(|input| !input.name.ends_with(TEMPLATE));
    Ok(identity)
}

/// Checks everything; what a run needs.
///
/// # Errors
/// When settings, data or models do not fit.
pub fn plan(session: &Session, config: &AlignConfig) -> Outcome<RunPlan> {
    let (mut config, encoder, prompts) = read_prompts(session, config)?;
    fix_dropout(&mut config.adapter, false)?;
    let prepared = Prepared::new(session, &config, encoder, prompts)?;
    prepared.check_new(&config)?;
    prepared.plan(session, &config)
}

/// Trains in rounds, and leaves the model in `<folder>/model`.
///
/// # Errors
/// When settings, data or models do not fit; when a response cannot be scored; those of training.
pub fn run(session: &Session, config: &AlignConfig, folder: &Path, resume: bool) -> Outcome {
    let (config, encoder, prompts) = read_prompts(session, config)?;
    let config = &config;
    let prepared = Prepared::new(session, config, encoder, prompts)?;
    if let Some(server) = &prepared.rollout.server {
        server::check(server)?;
    }
    let sources = [("reward", Some(prepared.reward)), ("watch", config.watch.as_ref())];
    for (section, settings) in sources.into_iter().filter_map(|(section, settings)| Some((section, settings?))) {
        // Nothing is asked any more if the last round has its rewards.
        if !(resume && Store::has_round(folder, prepared.rounds.saturating_sub(1))) {
            Judge::try_out(session, (section, settings))?;
        }
    }
    if !resume {
        prepared.check_new(config)?;
    }
    let plan = prepared.plan(session, config)?;
    plan.warn(session.quiet);
    let run = open_run(session, folder, resume, config)?;
    if !resume {
        check_room(session, &run, &config.model, plan.trained, &config.train)?;
    }
    let origin = prepared.origin(config)?;
    origin.check(&run)?;
    let mut settings = prepared.settings(config);
    settings.identity = origin.identity();
    if let Some(adaptation) = &prepared.adaptation {
        log::info!("{}", adaptation.reference());
        adaptation.adapt(&mut settings);
    }
    let key = store_key(&origin.stable(), settings.seed);
    let earlier = store_key(&as_started(origin.identity(), &run)?, settings.seed);
    Store::adopt(&run, &earlier, &key)?;
    let store = Store::open(&run, &key)?;
    let reference = prepared.reference(config);
    let Prepared {
        rollout, reward, encoder, model_config, generation, prompts, adaptation, value, ptx, measured, ..
    } = prepared;
    let output = store.folder().join("rewards.jsonl");
    let judge = Judge::new(session, config, ("reward", reward), rollout.keep, &encoder, &prompts, output)?;
    let watch = match &config.watch {
        Some(settings) => {
            let output = store.folder().join("watch.jsonl");
            let judge = Judge::new(session, config, ("watch", settings), rollout.keep, &encoder, &prompts, output)?;
            Some(Watch::new(judge))
        }
        None => None,
    };
    let policy = initial_policy(session, config, &model_config, adaptation.as_ref())?;
    let is_initial = reference == Reference::Held && config.reference.is_none();
    let reference_model = is_initial.then(|| match &adaptation {
        Some(adaptation) if !adaptation.goes_on() => without_adapter(&policy).valid(),
        _ => policy.valid(),
    });
    let shape = model_config.clone();
    let remote = Remote::new(session, config, rollout, &encoder, &prompts, (&shape, adaptation.as_ref()));
    let rollouts = Rollouts {
        session,
        config,
        rollout,
        encoder: &encoder,
        prompts: &prompts,
        generation,
        reference,
        reference_model,
        judge,
        store,
        remote,
        timing: Timing::default(),
    };
    let shown = prompts.ids.iter().take(config.samples.prompts).cloned().collect();
    let stop = encoder.template_stop();
    let job = Fitting {
        session,
        config,
        encoder: &encoder,
        model_config,
        adaptation,
        value: value.clone(),
        policy,
        stop,
        mix: None,
        run: &run,
        recompute: plan.memory.recompute,
        chosen_tokens: 1.0,
        measured,
    };
    let (about, fit) = (config.align.about(), Fit { job, rollouts, watch, settings, shown });
    let switch = fit.job.model_config.rope.switch();
    match config.align.training() {
        Training::Prompts(objective) => fit.fit(PromptTasks::new(objective, about, switch, session.quiet), Ok),
        Training::Pairs(method) => fit.fit(PairTasks::new(method, about, switch, config.train.seed), Ok),
        Training::Rows(objective) => fit.fit(RowTasks::new(objective, about), Ok),
        Training::RowsWithValue(settings) => {
            let (shape, adaptation) = (fit.job.model_config.clone(), fit.job.adaptation.clone());
            let with_value = |policy: CausalLm| policy_and_value(session, config, &shape, adaptation, policy);
            fit.fit(ValueTasks { settings, about }, with_value)?;
            log::info!("the value network: {}", run.join(VALUE).display());
            Ok(())
        }
        Training::Best => fit.fit(BestTasks, Ok),
        Training::Sampled(objective) => match config.align.ppo().zip(value) {
            Some((settings, value)) => {
                let tasks = PpoTasks::new(settings, rollout.max_new_tokens, rollout.responses(), ptx);
                let tasks = tasks.corrected(rollout.correction());
                let (shape, adaptation) = (fit.job.model_config.clone(), fit.job.adaptation.clone());
                let complete = |policy: CausalLm| value.complete(session, config, &shape, adaptation, policy);
                fit.fit(tasks.at_temperature(rollout.temperature), complete)?;
                log::info!("the value network: {}", run.join(VALUE).display());
                Ok(())
            }
            None => {
                let tasks = SampledTasks::new(objective, rollout.max_new_tokens).corrected(rollout.correction());
                let tasks = tasks.on_policy(trains_at_once(config, rollout));
                fit.fit(tasks.at_temperature(rollout.temperature), Ok)
            }
        },
    }
}
