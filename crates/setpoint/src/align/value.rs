//! The value network that PPO trains next to the policy: where it starts from, how large it is, and how it is saved.

use std::path::{Path, PathBuf};

use setpoint_align::online::{ValueInit, ValueSource};
use setpoint_data::{EncodeReport, TextEncoder};
use setpoint_reward::{Normalization, RewardModel};
use setpoint_train::{RecomputeSetting, TrainConfig};
use setpoint_transformer::{Architecture, CausalLm, ModelConfig, Recompute, SaveOptions};

use super::fitting::policy_and_value;
use super::settings::AlignConfig;
use crate::adapter::{Adaptation, adapted};
use crate::config::Problems;
use crate::config::sections::{ModelSection, Wanted, folder_problem};
use crate::failure::{Failure, Outcome};
use crate::identity::Origin;
use crate::model_folder::is_adapter;
use crate::session::{FreeMemory, Session};
use crate::setup::{self, ModelFolder, model_hash};
use crate::tasks::dro_v::PolicyAndValue;
use crate::training::{Output, RunPlan, Shape};

/// The start of a value network.
#[derive(Debug, Clone)]
pub struct ValueStart {
    /// The reward model that it starts from; none: the policy's decoder with a head of zeros.
    reward_model: Option<PathBuf>,
    /// Its shape.
    pub config: ModelConfig,
    /// The adapter that is trained instead of its own weights, if the policy has one.
    adaptation: Option<Adaptation>,
}

impl ValueStart {
    /// Returns the start of the run's value network, if the method is PPO. `adaptation` is the policy's.
    ///
    /// # Errors
    /// When a reward model that the settings name cannot be a value network of this policy.
    pub fn of(
        config: &AlignConfig,
        encoder: &TextEncoder,
        shape: &ModelConfig,
        adaptation: Option<&Adaptation>,
    ) -> Outcome<Option<Self>> {
        let Some(settings) = config.align.ppo() else { return Ok(None) };
        let reward = config.reward.as_ref().map(|reward| reward.model.clone());
        let (section, is_asked) = match &settings.value_init {
            ValueInit::Named(ValueSource::Policy) => (None, false),
            ValueInit::Named(ValueSource::Auto) => (reward, false),
            ValueInit::Named(ValueSource::Reward) => (reward, true),
            ValueInit::Path(path) => (Some(ModelSection { path: Some(path.clone()), ..ModelSection::default() }), true),
        };
        if let Some((section, path)) = section.as_ref().and_then(|section| Some((section, section.path.as_ref()?))) {
            match unfit(section, path, encoder, shape)? {
                None => {
                    let config = scored(ModelFolder::open(path)?.config()?);
                    let adaptation = adaptation.map(|adaptation| adaptation.of_value().on(path));
                    return Ok(Some(Self { reward_model: Some(path.clone()), config, adaptation }));
                }
                Some(reason) if is_asked => {
                    return Err(Failure::usage(
                        "align.value_init",
                        format!(
                            "the value network cannot start from `{}`, because {reason}: set `align.value_init` to \"policy\"",
                            path.display()
                        ),
                    ));
                }
                Some(reason) => {
                    log::info!("the value network starts from the policy and not from `{}`: {reason}", path.display());
                }
            }
        }
        let adaptation = adaptation.map(Adaptation::of_value);
        Ok(Some(Self { reward_model: None, config: scored(shape.clone()), adaptation }))
    }

    /// Adds the reward model that it starts from to what the run is made of.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn identify(&self, origin: &mut Origin) -> Outcome {
        if let Some(path) = &self.reward_model {
            origin.model("align.value_init", path, model_hash(path)?);
        }
        Ok(())
    }

    /// Returns the plan of a run that trains a policy by `plan`, with the value network. `report` describes what both are trained on.
    ///
    /// # Errors
    /// When the adapter's settings name maps that the value network does not have.
    pub fn plan(
        &self,
        session: &Session,
        config: &AlignConfig,
        report: &EncodeReport,
        settings: &TrainConfig,
        plan: RunPlan,
    ) -> Outcome<RunPlan> {
        let adapter = self.adaptation.as_ref().map(|own| own.size(&self.config, session.device())).transpose()?;
        let shape = Shape { config: &self.config, model: &config.model, output: Output::Reward, adapter };
        // The backward pass computes the same parts of both again.
        let recompute = match plan.memory.recompute {
            Recompute::None => RecomputeSetting::None,
            Recompute::Block => RecomputeSetting::Block,
        };
        let settings = TrainConfig { recompute, ..settings.clone() };
        let own = RunPlan::of(shape, report, &settings, plan.examples, &session.place)?;
        Ok(plan.with_value(&own, self.reward_model.is_none() && self.adaptation.is_some()))
    }

    /// Adds the value network to the policy before training. `shape` and `adaptation` are the policy's.
    ///
    /// # Errors
    /// When weights cannot be read.
    pub fn complete(
        &self,
        session: &Session,
        config: &AlignConfig,
        shape: &ModelConfig,
        adaptation: Option<Adaptation>,
        policy: CausalLm,
    ) -> Outcome<PolicyAndValue> {
        let recompute = policy.model.recompute;
        let mut both = match &self.reward_model {
            None => policy_and_value(session, config, shape, adaptation, policy)?,
            Some(dir) => {
                let device = session.device().clone().autodiff();
                let options = setup::load_options(&config.model, session);
                session.host.free_memory(FreeMemory::GiveBack);
                let (value, _) = ModelFolder::open(dir)?.load_reward_model(&options, &device)?;
                session.host.free_memory(FreeMemory::Keep);
                PolicyAndValue::of(policy, adapted(value, self.adaptation.as_ref(), config.train.seed)?)
            }
        };
        both.value.model.recompute = recompute;
        Ok(both)
    }

    /// Writes the value network, or its adapter, to a folder.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn save(&self, value: &RewardModel, options: &SaveOptions, dir: &Path) -> Outcome {
        match &self.adaptation {
            Some(adaptation) => adaptation.save_reward_model(value, &self.config, dir),
            None => Ok(value.save(&self.config, dir, options)?),
        }
    }
}

/// Notes what is wrong with the value network of PPO and with the rows that it keeps learning.
pub fn validate(config: &AlignConfig, problems: &mut Problems<'_>) {
    let Some(ppo) = config.align.ppo() else {
        return problems.require(
            config.sft_data.is_none(),
            "sft_data",
            format!(
                "`{}` learns no other rows, as `ppo` does by `align.ptx_weight`: leave `sft_data` out",
                config.align.name()
            ),
        );
    };
    problems.require(
        ppo.ptx_weight == 0.0 || config.sft_data.is_some(),
        "sft_data",
        "`align.ptx_weight` is the weight of the SFT loss on other rows: set `sft_data.path` to them, or leave `align.ptx_weight` out",
    );
    problems.require(
        ppo.ptx_weight > 0.0 || config.sft_data.is_none(),
        "align.ptx_weight",
        "`sft_data` has no effect while `align.ptx_weight` is 0: set a weight, or leave `sft_data` out",
    );
    problems.require(
        ppo.ptx_weight == 0.0 || config.rollout.as_ref().is_none_or(|rollout| rollout.temperature == 1.0),
        "align.ptx_weight",
        "other rows are learned at temperature 1, in one pass with the samples: leave `align.ptx_weight` out, or `rollout.temperature`",
    );
    let rounds = config.rounds.unwrap_or(0);
    problems.require(
        ppo.value_warmup < rounds,
        "align.value_warmup",
        format!(
            "the policy stays as it is in the first `align.value_warmup` rounds, {}, and the run has {rounds}: set fewer, or more `rounds`",
            ppo.value_warmup
        ),
    );
    problems.require(
        ppo.value_learning_rate.is_none() || config.train.learning_rate > 0.0,
        "align.value_learning_rate",
        "a learning rate of the value network alone is not possible with `train.learning_rate` = 0: to train values first, set \
         `align.value_warmup`",
    );
    let has_model = config.reward.as_ref().is_some_and(|reward| reward.model.path.is_some());
    match &ppo.value_init {
        ValueInit::Named(ValueSource::Reward) => problems.require(
            has_model,
            "align.value_init",
            "`align.value_init` = \"reward\" starts the value network from the reward model, and `reward.model.path` names none: give the \
             folder of one as `align.value_init`, or set it to \"policy\"",
        ),
        ValueInit::Path(path) => {
            if let Some(message) = folder_problem(path, Wanted::RewardModel) {
                problems.add("align.value_init", message);
            }
        }
        ValueInit::Named(_) => {}
    }
}

/// Returns why a reward model cannot be the value network of a policy, if it cannot.
fn unfit(section: &ModelSection, path: &Path, encoder: &TextEncoder, shape: &ModelConfig) -> Outcome<Option<String>> {
    if is_adapter(path) {
        return Ok(Some("it is an adapter (`setpoint merge` makes a whole model of it)".to_owned()));
    }
    if !setup::encoder(section)?.agrees_with(encoder) {
        return Ok(Some("its tokenizer or chat template is not the policy's".to_owned()));
    }
    let (own, policy) = (ModelFolder::open(path)?.config()?.vocab_size, shape.vocab_size);
    Ok((own < policy).then(|| format!("it has embeddings of {own} tokens, and the policy of {policy}")))
}

/// Returns the shape of a value network on a decoder of this shape. The scale of a reward model's scores is not its own.
fn scored(mut config: ModelConfig) -> ModelConfig {
    config.architecture = Architecture::SequenceClassification;
    config.num_labels = 1;
    Normalization::write(None, &mut config);
    config
}
