//! The adapter that a training trains: `[adapter]`.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use setpoint_reward::RewardModel;
use setpoint_train::TrainConfig;
use setpoint_transformer::lora::{
    AdapterAbout, AdapterFolder, AdapterSize, AdapterTask, HasDecoder, LoraConfig, adapter_size, attach, save_adapter,
};
use setpoint_transformer::{CausalLm, ModelConfig};
use toml::{Table, Value};

use crate::config::Problems;
use crate::config::sections::ModelSection;
use crate::failure::Outcome;
use crate::hub;
use crate::identity::Origin;
use crate::model_folder::{hash_on, is_adapter, is_reward, note_base, note_reward};

/// The factor by which learning rates are larger by default where an adapter is trained: as trl's documentation and "LoRA Without Regret"
/// (Schulman et al., 2025) recommend.
pub const RATE: f64 = 10.0;

/// Below this learning rate a new adapter hardly moves.
const SLOW: f64 = 2e-6;

/// The head of a reward model.
const SCORE: &str = "score";

/// The head of a language model.
const HEAD: &str = "lm_head";

/// An adapter to train, and the base that it is trained on.
#[derive(Debug, Clone)]
pub struct Adaptation {
    /// Its settings.
    config: LoraConfig,
    /// The adapter to go on from.
    start: Option<AdapterFolder>,
    /// The folder of the base.
    base: PathBuf,
    /// The task that it adapts its base to.
    task: AdapterTask,
}

impl Adaptation {
    /// Returns the adapter that a job trains, if its settings have a section `[adapter]`.
    ///
    /// # Errors
    /// When the adapter to go on from cannot be read.
    pub fn of(model: &ModelSection, section: Option<&LoraConfig>, task: AdapterTask) -> Outcome<Option<Self>> {
        let (Some(section), Some(base)) = (section, &model.path) else { return Ok(None) };
        let mut start = section.path.as_deref().map(AdapterFolder::open).transpose()?;
        let mut config = match &mut start {
            Some(folder) => {
                folder.config.dropout = section.dropout;
                LoraConfig { plus_ratio: section.plus_ratio, ..folder.config.clone() }
            }
            None => section.clone(),
        };
        if task == AdapterTask::SequenceClassification && !config.modules_to_save.iter().any(|name| name == SCORE) {
            config.modules_to_save.push(SCORE.to_owned());
        }
        Ok(Some(Self { config, start, base: base.clone(), task }))
    }

    /// Returns the same adapter as part of a reward model, new: that of a value network.
    pub(crate) fn of_value(&self) -> Self {
        let mut config = self.config.clone();
        // It has a score in place of the head.
        config.modules_to_save.retain(|name| name != HEAD);
        config.modules_to_save.push(SCORE.to_owned());
        Self { config, start: None, task: AdapterTask::SequenceClassification, ..self.clone() }
    }

    /// Returns the same adapter on another base.
    pub fn on(self, base: &Path) -> Self {
        Self { base: base.to_owned(), ..self }
    }

    /// Returns the adapter's size on a model of this shape.
    ///
    /// # Errors
    /// When the settings name maps or modules that the model does not have.
    pub fn size(&self, shape: &ModelConfig, device: &Device) -> Outcome<AdapterSize> {
        Ok(match self.task {
            AdapterTask::CausalLm => adapter_size(CausalLm::zeros(shape, device), &self.config)?,
            AdapterTask::SequenceClassification => adapter_size(RewardModel::zeros(shape, device), &self.config)?,
        })
    }

    /// Adds the adapter to its base, whose own parameters are frozen.
    ///
    /// # Errors
    /// When the adapter does not fit the model.
    pub(crate) fn add_to<M: HasDecoder>(&self, model: M, seed: u64) -> Outcome<M> {
        Ok(match &self.start {
            Some(folder) => folder.load(model)?,
            None => attach(model, &self.config, seed)?,
        })
    }

    /// Returns whether training steps drop elements.
    pub(crate) fn drops(&self) -> bool {
        self.config.dropout.is_some_and(|rate| rate > 0.0)
    }

    /// Returns whether the run goes on from a trained adapter.
    pub(crate) fn goes_on(&self) -> bool {
        self.start.is_some()
    }

    /// Returns the line that says which model is the reference of a training without one of its own.
    pub fn reference(&self) -> String {
        let base = hub::shown(&self.base);
        match &self.start {
            None => format!("reference: {base} with the adapter switched off"),
            Some(start) => format!("reference: {base} with the adapter {} as it was", start.dir.display()),
        }
    }

    /// Identifies the adapter that the run goes on from, if it does.
    ///
    /// # Errors
    /// When the adapter cannot be read, or was trained on another base.
    pub fn identify(&self, origin: &mut Origin) -> Outcome {
        if let Some(start) = &self.start {
            origin.model("adapter.path", &start.dir, hash_on(&start.dir, &self.base)?);
        }
        Ok(())
    }

    /// Gives the optimizer the adapter's own learning rates, and warns of settings that do not suit an adapter.
    pub fn adapt(&self, train: &mut TrainConfig) {
        train.optimizer.plus_ratio = self.config.plus_ratio;
        if train.learning_rate < SLOW && self.config.plus_ratio * train.learning_rate < SLOW {
            log::warn!(
                "`train.learning_rate` is {:e}, with which an adapter hardly moves: adapters need about ten times the rate of \
                 full training",
                train.learning_rate
            );
        }
        if train.optimizer.in_backward {
            log::warn!("`train.optimizer.in_backward` saves no memory here: only the adapter has gradients");
        }
    }

    /// Writes the adapter of a language model as a PEFT folder.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub(crate) fn save_policy(&self, policy: &CausalLm, dir: &Path) -> Outcome {
        self.save(policy, dir)?;
        note_base(dir, &self.base)
    }

    /// Writes the adapter of a reward model as a PEFT folder. `config` holds the model's scale and padding token.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub(crate) fn save_reward_model(&self, model: &RewardModel, config: &ModelConfig, dir: &Path) -> Outcome {
        self.save(model, dir)?;
        note_reward(dir, config)?;
        note_base(dir, &self.base)
    }

    fn save<M: HasDecoder>(&self, model: &M, dir: &Path) -> Outcome {
        let (base, revision) = match hub::model_at(&self.base) {
            Some(model) => (model.id, Some(model.revision)),
            None => (self.base.to_string_lossy().into_owned(), None),
        };
        let about = AdapterAbout { base, revision, task: self.task };
        Ok(save_adapter(model, &self.config, &about, dir)?)
    }
}

/// Gives the settings of a new run the dropout of the adapter that it goes on from, unless they have their own. `config.toml` in the run's folder
/// then holds it: a resumed run has what its settings say, and none if they were written before there was dropout.
///
/// # Errors
/// When the adapter cannot be read.
pub(crate) fn fix_dropout(section: &mut Option<LoraConfig>, resume: bool) -> Outcome {
    if let Some(section) = section.as_mut().filter(|_| !resume)
        && let Some(path) = &section.path
    {
        section.dropout = section.dropout.or(AdapterFolder::open(path)?.config.dropout);
    }
    Ok(())
}

/// Returns the model that a training starts from: with the adapter that it goes on from, if it does.
pub(crate) fn starting_model(model: &ModelSection, section: Option<&LoraConfig>) -> ModelSection {
    match section.and_then(|section| section.path.clone()) {
        Some(path) => ModelSection { path: Some(path), ..model.clone() },
        None => model.clone(),
    }
}

/// Returns the model with the tokenizer and the template of the adapter that a training goes on from, unless another is set: it was trained
/// with them, and its base may have others.
pub(crate) fn with_tokenizer(model: &ModelSection, section: Option<&LoraConfig>) -> ModelSection {
    let adapter =
        section.and_then(|section| section.path.as_ref()).filter(|path| path.join("tokenizer.json").is_file());
    ModelSection { tokenizer: model.tokenizer.clone().or(adapter.cloned()), ..model.clone() }
}

/// Adds the adapter to a model, if one is trained.
///
/// # Errors
/// When the adapter does not fit the model.
pub fn adapted<M: HasDecoder>(model: M, adaptation: Option<&Adaptation>, seed: u64) -> Outcome<M> {
    match adaptation {
        Some(adaptation) => adaptation.add_to(model, seed),
        None => Ok(model),
    }
}

/// Returns the default learning rate of a job, whose rate for all weights is given.
pub(crate) fn default_rate(full: f64, has_adapter: bool) -> f64 {
    if has_adapter { full * RATE } else { full }
}

/// Multiplies the default learning rate of a job by [`RATE`] if the user's settings have a section `[adapter]`.
pub(crate) fn adapt_rate(defaults: &mut Table, user: &Table) {
    let rate = defaults.get_mut("train").and_then(|train| train.get_mut("learning_rate"));
    if user.contains_key("adapter")
        && let Some(Value::Float(rate)) = rate
    {
        *rate *= RATE;
    }
}

/// Notes what is wrong with a section `[adapter]`, and an adapter where a job needs a whole model. `wants_reward`: the job trains a reward
/// model.
pub fn validate(section: Option<&LoraConfig>, model: &ModelSection, wants_reward: bool, problems: &mut Problems<'_>) {
    if let Some(path) = model.path.as_ref().filter(|path| is_adapter(path)) {
        let shown = path.display();
        let base = AdapterFolder::open(path).ok().and_then(|folder| folder.base);
        let base = base.unwrap_or_else(|| "the folder of its base".to_owned());
        problems.add(
            "model.path",
            format!(
                "`{shown}` is an adapter, and training starts from a whole model: to go on with it, give --model {base} \
                 --adapter {shown}; to train all weights, merge it first (setpoint merge)"
            ),
        );
    }
    let Some(section) = section else { return };
    for (key, message) in section.problems() {
        problems.add(&format!("adapter.{key}"), format!("`adapter.{key}` {message}"));
    }
    problems.require(
        model.from_scratch.is_none(),
        "adapter",
        "an adapter changes a trained model a little: random weights are trained in full, without `[adapter]`",
    );
    let Some(path) = &section.path else { return };
    let shown = path.display();
    if !is_adapter(path) {
        let inner = path.join("model");
        let run = if is_adapter(&inner) {
            format!("; the adapter of that run is `{}`", inner.display())
        } else {
            String::new()
        };
        problems.add("adapter.path", format!("`{shown}` holds no adapter (adapter_config.json){run}"));
        return;
    }
    let folder = match AdapterFolder::open(path) {
        Ok(folder) => folder,
        Err(error) => return problems.add("adapter.path", error.to_string()),
    };
    problems.require(
        wants_reward == is_reward(&folder),
        "adapter.path",
        if wants_reward {
            format!("`{shown}` is the adapter of a language model, and this job trains a reward model")
        } else {
            format!("`{shown}` is the adapter of a reward model, and this job trains a language model")
        },
    );
    let given = LoraConfig { path: None, plus_ratio: 1.0, dropout: None, ..section.clone() };
    problems.require(
        given == LoraConfig::default() || given == LoraConfig { dropout: None, ..folder.config },
        "adapter.path",
        format!("the settings of `{shown}` apply: leave out all of `[adapter]` but `path`, `dropout` and `plus_ratio`"),
    );
}
