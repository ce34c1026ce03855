//! From the configuration to prompts with rewards, and every check of the input on the way.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use setpoint_align::{Error, LogZ0, RowObjective, Summary, T0Name, T0Setting, Training};
use setpoint_data::{DatasetConfig, EncodeOptions, EncodeReport, ExampleStore, T0, TextEncoder, Use, Uses, hex};
use setpoint_transformer::ModelConfig;
use setpoint_transformer::lora::AdapterTask;
use sha2::{Digest, Sha256};

use super::conflicts::warn_of_conflicts;
use super::data::{PreparedSet, Sets, TrainingData};
use super::examples::{ReadSet, best, paired, rewarded, rows, rows_with_value};
use super::settings::AlignConfig;
use super::{ensemble, reference_dir};
use crate::adapter::{Adaptation, with_tokenizer};
use crate::config::sections::warn_of_no_eval_data;
use crate::failure::{Failure, Outcome};
use crate::identity::{KeptRows, Origin, prompt_and_responses};
use crate::reference_samples::Reader;
use crate::session::Session;
use crate::setup;
use crate::tasks::stages::PromptList;

/// Everything that is known before weights are read.
pub struct Prepared {
    /// Tokenizer and template.
    pub encoder: TextEncoder,
    /// The shape of the policy.
    pub model_config: ModelConfig,
    /// The method and its data, without the reference's log-probabilities.
    pub data: TrainingData,
    /// Counts of the examples dropped, cut or merged in the training data.
    pub report: EncodeReport,
    /// The adapter that is trained, if one is.
    pub adaptation: Option<Adaptation>,
}

impl Prepared {
    /// Returns β and the level of the targets, if the method has targets.
    pub fn targets(&self) -> Option<(f64, LogZ0)> {
        let objective = self.data.with_targets()?;
        Some((objective.beta(), objective.level()?))
    }

    /// Returns the level of the targets, in nats, and a summary of the rewards to compare it with.
    pub fn level(&self, beta: f64, level: LogZ0) -> Outcome<(f64, Summary)> {
        let train = self.data.sets().0;
        let all = Summary::of(&train.all_rewards()?).ok_or(Error::Empty { what: "the training data" })?;
        Ok((train.level(beta, level)?, all))
    }

    /// Describes the origin of the run, before the reference model has scored anything. `run`: its folder, which need not exist.
    pub fn origin(&self, config: &AlignConfig, reference: Option<&Path>, run: &Path) -> Outcome<Origin> {
        let model = config.model.path.as_deref().map(setup::model_hash).transpose()?.unwrap_or_default();
        let reference_model = match reference {
            Some(path) if config.model.path.as_deref() == Some(path) => model.clone(),
            Some(path) => setup::model_hash(path)?,
            None => String::new(),
        };
        let (train, eval) = self.data.sets();
        let has_ensemble =
            matches!(config.align.training(), Training::Pairs(method) if !method.reward_files().is_empty());
        let ensemble = ensemble_hash(train.prompts, has_ensemble)?;
        let folder = setup::folder_of_rows(Some(run));
        let objective = objective_in_version_1(config)?;
        let version_1 = [model.as_str(), &reference_model, train.hash, &objective, &ensemble];
        let settings = without_later_settings(serde_json::to_value(config)?);
        let mut origin = Origin::new(&settings, setup::text_hash(&version_1.join("\n")))?;
        if let Some(path) = &config.model.path {
            origin.model("model.path", path, model);
        }
        if let Some(path) = reference {
            origin.model("reference", path, reference_model);
        }
        if let Some(adaptation) = &self.adaptation {
            adaptation.identify(&mut origin)?;
        }
        origin.encoder(&config.model, &self.encoder);
        origin.data("data", &config.data, KeptRows::of_store(train.rows, &folder)?, prompt_and_responses);
        if let (Some(set), Some(data)) = (eval, &config.eval_data) {
            origin.data("eval_data", data, KeptRows::of_store(set.rows, &folder)?, prompt_and_responses);
        }
        origin.ensemble(ensemble);
        Ok(origin)
    }
}

/// Identifies the rewards that further reward models give: a hash of them as JSON, a list of lists for each prompt. Without an ensemble the
/// lists are empty.
fn ensemble_hash(prompts: &dyn PromptList, has_ensemble: bool) -> Outcome<String> {
    let mut hash = Sha256::new();
    for number in 0..prompts.len() {
        hash.update(if number == 0 { "[" } else { "," });
        match has_ensemble {
            true => hash.update(serde_json::to_vec(prompts.get(number)?.ensemble())?),
            false => hash.update("[]"),
        }
    }
    hash.update(if prompts.is_empty() { "[]" } else { "]" });
    Ok(hex(&hash.finalize()))
}

/// The settings of the method as version 1 of a run's identity held them: without those that came later.
fn objective_in_version_1(config: &AlignConfig) -> Outcome<String> {
    let mut settings = without_later_settings(json!({ "align": config.align }));
    let mut align = settings["align"].take();
    if let Some(table) = align.as_object_mut() {
        table.shift_remove("preset");
    }
    Ok(align.to_string())
}

/// Removes settings that came after there were runs, where they have the values that mean what runs did before: a run that was started
/// without them is still the same run.
pub(super) fn without_later_settings(mut settings: Value) -> Value {
    let later = [
        ("dro", "level_weight", json!(1.0)),
        ("dro", "nll_weight", json!(0.0)),
        ("dro", "length_normalize", json!(false)),
        ("dro", "beta_sigma", Value::Null),
        ("qrpo", "reference_samples", json!(false)),
    ];
    if let Some(align) = settings.get_mut("align").and_then(Value::as_object_mut)
        && let Some(method) = align.get("method").and_then(Value::as_str).map(str::to_owned)
    {
        let is_later = |key: &String, value: &Value| {
            later.iter().any(|(of, name, before)| *of == method && key == name && value == before)
        };
        align.retain(|key, value| !is_later(key, value));
    }
    settings
}

/// An error of the objectives' crate, which numbers rows from 0, with the row's place in its file, which `name` returns.
pub fn named(error: Error, name: impl FnOnce(usize) -> Option<String>) -> Failure {
    let name = error.row().and_then(|row| Some((row, name(row)?)));
    let Some((row, name)) = name else { return error.into() };
    let message = error.to_string().replacen(&format!("row {row}"), &name, 1);
    match error {
        Error::LargeReward { .. } | Error::TransformedReward { .. } => Failure::run(message)
            .hint("bring the rewards to an ordinary scale: by align.reward_transform = \"zscore\" where there is one, or in the file"),
        _ => Failure::run(message),
    }
}

/// Reads, encodes and checks the data. `run`: the folder of the run, which need not exist, if there is one.
pub fn prepare(session: &Session, config: &AlignConfig, run: Option<&Path>) -> Outcome<Prepared> {
    let folder = setup::folder_of_rows(run);
    let encoder = setup::encoder(&with_tokenizer(&config.model, config.adapter.as_ref()))?;
    let model_config = setup::model_config(&config.model, &encoder)?;
    let encode = setup::within(&config.encode, &model_config);
    warn_of_no_eval_data(&config.train, config.eval_data.as_ref());
    let read = |data: &DatasetConfig, what| read_set(session, config, data, (&encoder, &encode), what, &folder);
    let (train, report) = read(&config.data, "training data")?;
    let train = ReadSet { training: true, ..train };
    // Held-out data is read when the training data has been prepared.
    let eval = || -> Outcome<Option<ReadSet>> {
        let Some(data) = &config.eval_data else { return Ok(None) };
        Ok(Some(read(data, "evaluation data")?.0))
    };
    let about = config.align.about();
    let data = match config.align.training() {
        Training::Prompts(mut objective) => {
            let mut fitted = None;
            let sets = sets(train, eval, |set| rewarded(set, &*objective, &about, &mut fitted))?;
            let rewards = sets.train.view().all_rewards()?;
            if let Some(share) = objective.resolve(&rewards)?
                && !session.quiet
            {
                log::info!(
                    "beta = {} reward per nat: {share} standard deviations of the {} training rewards",
                    objective.beta(),
                    rewards.len()
                );
            }
            TrainingData::Prompts { objective: Arc::from(objective), sets }
        }
        Training::Pairs(method) => {
            let files = method.reward_files();
            let sets = sets(train, eval, |set| {
                let training = set.training;
                let mut set = paired(set, method.pairs, &about, config.train.seed)?;
                if training {
                    set.prompts = ensemble::read(config, &files, &encoder, &encode, session, &folder, set.prompts)?;
                }
                Ok(set)
            })?;
            TrainingData::Pairs { method, sets }
        }
        Training::Rows(objective) => {
            let objective: Arc<dyn RowObjective> = Arc::from(objective);
            let sets = sets(train, eval, |set| rows(set, &objective, &about))?;
            TrainingData::Rows { objective, sets }
        }
        Training::RowsWithValue(settings) => {
            let sets = sets(train, eval, |set| rows_with_value(set, &about))?;
            TrainingData::RowsWithValue { settings, sets }
        }
        Training::Best => TrainingData::Best { sets: sets(train, eval, best)? },
        Training::Sampled(_) => {
            let message =
                format!("`{}` trains on responses that the policy samples: set `rounds`", config.align.name());
            return Err(Failure::usage("rounds", message));
        }
    };
    let adaptation = Adaptation::of(&config.model, config.adapter.as_ref(), AdapterTask::CausalLm)?;
    warn_of_conflicts(&data.sets().0)?;
    let prepared = Prepared { encoder, model_config, data, report, adaptation };
    let (beta, log_z0) = match prepared.targets() {
        Some((beta, level)) => (beta, prepared.level(beta, level)?.0),
        // Their rewards enter the loss as they are.
        None => (1.0, 0.0),
    };
    if about.rewards {
        let (train, eval) = prepared.data.sets();
        for set in [train].into_iter().chain(eval) {
            set.check_targets(beta, log_z0)?;
        }
    }
    Ok(prepared)
}

/// Prepares the training data, and then the held-out data in the same way.
fn sets<P>(
    train: ReadSet,
    eval: impl FnOnce() -> Outcome<Option<ReadSet>>,
    mut prepare: impl FnMut(ReadSet) -> Outcome<PreparedSet<P>>,
) -> Outcome<Sets<P>> {
    let train = prepare(train)?;
    Ok(Sets { train, eval: eval()?.map(prepare).transpose()? })
}

fn read_set(
    session: &Session,
    config: &AlignConfig,
    data: &DatasetConfig,
    (encoder, encode): (&TextEncoder, &EncodeOptions),
    what: &str,
    folder: &Path,
) -> Outcome<(ReadSet, EncodeReport)> {
    let data = &setup::looking_at(data, uses(config));
    let (rows, report) = setup::stored(data, encode, encoder, what, session, folder)?;
    let t0 = unscored_tokens(config, &rows)?;
    let samples = match samples_setting(config) {
        Some(setting) => {
            let reader = samples_reader(config, data, setting);
            Some(Arc::new(reader.read(&rows, folder, session.rows_in_memory)?))
        }
        None => None,
    };
    Ok((ReadSet { path: data.name(), rows: Arc::new(rows), training: false, t0, samples }, report))
}

/// Returns the setting by which a method reads samples of the reference model, if it does.
pub fn samples_setting(config: &AlignConfig) -> Option<&'static str> {
    match config.align.training() {
        Training::Rows(objective) if objective.reads_reference_samples() => Some("align.reference_samples = true"),
        _ if config.align.level() == Some(LogZ0::PerPrompt) => Some("align.log_z0 = \"per_prompt\""),
        _ => None,
    }
}

/// Returns the reader of the samples of the reference model that the rows of a file have.
pub fn samples_reader<'a>(config: &'a AlignConfig, data: &'a DatasetConfig, setting: &'a str) -> Reader<'a> {
    Reader { setting, data, reference: reference_dir(config).ok() }
}

/// Returns the number of tokens at the beginning of each prompt that are not scored; `None` if no prompt is scored at all.
///
/// # Errors
/// When the prompts do not share the beginning that the method asks for.
pub fn unscored_tokens(config: &AlignConfig, examples: &ExampleStore) -> Outcome<Option<usize>> {
    let common_prefix = match config.align.training() {
        Training::Prompts(objective) => objective.scored_prompts(),
        _ => None,
    };
    Ok(match common_prefix {
        Some(t0) => {
            let rule = match t0 {
                T0Setting::Named(T0Name::FirstToken) => T0::FirstToken,
                T0Setting::Named(T0Name::CommonPrefix) => T0::CommonPrefix,
                T0Setting::Tokens(n) => T0::Tokens(n),
            };
            let t0 = rule.resolve(examples).map_err(|e| {
                Failure::from(e).hint(
                    "the prompt term derives every prompt's normaliser from a beginning that all prompts share: let text prompts \
                     become user turns of a chat template (data.text_prompts = \"user\", and model.template where the model has \
                     none), use a tokenizer that begins with a fixed token, or do without, as is the default, with \
                     align.prompt_term = \"off\"",
                )
            })?;
            Some(t0)
        }
        None => config.align.scores_prompts().then_some(1),
    })
}

/// The optional columns that a method looks at.
fn uses(config: &AlignConfig) -> Uses {
    match config.align.training() {
        Training::Rows(objective) if objective.desirable().is_some() => Uses { labels: Use::Always, ..Uses::PAIRS },
        _ if config.align.about().rewards => Uses { rewards: Use::Always, ..Uses::PAIRS },
        _ => Uses::PAIRS,
    }
}
