//! The training itself, with everything around it, and how it is saved.

use setpoint_align::{DisplacementDetector, DisplacementSettings};
use setpoint_data::TextEncoder;
use setpoint_reward::{HeadInit, RewardModel};
use setpoint_train::{RunDir, Task, TrainConfig};
use setpoint_transformer::lora::without_adapter;
use setpoint_transformer::{CausalLm, ModelConfig, Recompute, SaveOptions};

use super::parts::{HasPolicy, Part, keeping};
use super::settings::AlignConfig;
use super::stop::{Measuring, kl_meter};
use super::value::ValueStart;
use crate::adapter::{Adaptation, adapted};
use crate::failure::Outcome;
use crate::saving::{Saving, save_policy, saved_dtype};
use crate::session::Session;
use crate::setup;
use crate::tasks::dro_v::PolicyAndValue;
use crate::training::{Companions, KlLimit, KlMeter, Mix, Sampler, Saver, conclude, kl_passed, sampler, train};

/// The inputs of every method's training.
pub struct Fitting<'a> {
    /// The devices, and the program around the job.
    pub session: &'a Session,
    /// All settings.
    pub config: &'a AlignConfig,
    /// The policy's tokenizer and template.
    pub encoder: &'a TextEncoder,
    /// The shape of the policy.
    pub model_config: ModelConfig,
    /// The adapter that is trained, if one is.
    pub adaptation: Option<Adaptation>,
    /// The start of PPO's value network, if one is trained.
    pub value: Option<ValueStart>,
    /// The policy before training.
    pub policy: CausalLm,
    /// The token that the policy learns to end its turns with.
    pub stop: Option<u32>,
    /// The parts of several data sets in an epoch; none for a training in rounds, whose prompts are mixed before.
    pub mix: Option<Mix>,
    /// The run folder.
    pub run: &'a RunDir,
    /// The parts of the forward pass that the backward pass computes again.
    pub recompute: Recompute,
    /// Tokens of a chosen response, on average.
    pub chosen_tokens: f64,
    /// The held-out prompts that a limit on the KL is checked on.
    pub measured: Vec<Vec<u32>>,
}

impl Fitting<'_> {
    /// Trains what `complete` makes of the policy, and saves it. `target`: the mean target of the chosen responses, nats, for methods with
    /// targets.
    pub fn train<T: Task<Model: HasPolicy>>(
        mut self,
        task: &T,
        eval: Option<&T>,
        settings: &TrainConfig,
        target: Option<f64>,
        shown: Vec<Vec<u32>>,
        complete: impl FnOnce(CausalLm) -> Outcome<T::Model>,
    ) -> Outcome {
        // Without a reference there are no log-ratios to watch.
        let displacement = match self.config.align.about().reference {
            true => {
                let levers = self.config.align.levers();
                Some(DisplacementDetector::new(DisplacementSettings {
                    target,
                    levers,
                    ..DisplacementSettings::default()
                })?)
            }
            false => None,
        };
        let (mix, chosen_tokens) = (self.mix.take(), self.chosen_tokens);
        let companions = Companions { eval, mix, displacement, chosen_tokens, ..Companions::default() };
        self.train_with(task, settings, companions, shown, complete)
    }

    /// The same with companions, to which those are added that every training has.
    pub fn train_with<T: Task<Model: HasPolicy>>(
        self,
        task: &T,
        settings: &TrainConfig,
        companions: Companions<'_, T>,
        shown: Vec<Vec<u32>>,
        complete: impl FnOnce(CausalLm) -> Outcome<T::Model>,
    ) -> Outcome {
        let Self {
            session,
            config,
            encoder,
            model_config,
            adaptation,
            value: start,
            mut policy,
            stop,
            mix: _,
            run,
            recompute,
            chosen_tokens: _,
            measured,
        } = self;
        let max_kl = config.stop.max_kl;
        let limit = match max_kl {
            None => None,
            Some(max) => {
                let (shape, adaptation) = (&model_config, adaptation.as_ref());
                let measuring = Measuring { session, config, encoder, shape, adaptation, prompts: measured };
                let mut meter = kl_meter(measuring, &policy)?;
                let measure: KlMeter<'_, T::Model> = Box::new(move |model: &T::Model| meter(model.policy()));
                Some(KlLimit { max, measure })
            }
        };
        policy.model.recompute = recompute;
        let model = complete(policy)?;
        let sampler = sampler(session, &config.samples, &config.model, &model_config, encoder, shown.into_iter())?;
        let sampler = sampler.map(|mut sample| -> Sampler<'_, T::Model> {
            Box::new(move |model: &T::Model, step| sample(model.policy(), step))
        });
        let saving = Saving {
            config: &model_config,
            encoder,
            from: &config.model,
            stop,
            adaptation: adaptation.as_ref(),
            dtype: saved_dtype(session, settings, &config.model, &model_config, adaptation.is_some()),
        };
        let sampler = if config.keep_models { Some(keeping(run, &saving, sampler)) } else { sampler };
        let saver: Saver<'_, T::Model> = Box::new(|model| {
            for (name, part) in model.parts() {
                let dir = run.join(name);
                match part {
                    Part::Policy(policy) => save_policy(policy, &saving, &dir)?,
                    Part::Value(value) => {
                        let options = SaveOptions { dtype: saving.dtype, ..SaveOptions::default() };
                        match (&start, &adaptation) {
                            (Some(start), _) => start.save(value, &options, &dir)?,
                            (None, Some(adaptation)) => {
                                adaptation.of_value().save_reward_model(value, &model_config, &dir)?
                            }
                            (None, None) => value.save(&model_config, &dir, &options)?,
                        }
                        encoder.save(&dir)?;
                    }
                }
            }
            Ok(())
        });
        let saver = Some(saver);
        let companions =
            Companions { recompute, limit, sampler, saver, tracker: config.tracker.as_ref(), ..companions };
        let name = config.align.name().to_uppercase().replace('_', "-");
        let fitted = train(session, &name, run, task, model, settings, companions)?;
        let folders: Vec<&str> = fitted.model.parts().into_iter().map(|(name, _)| name).collect();
        let stopped = kl_passed(&fitted, max_kl);
        conclude(session, run, &name, (fitted.steps, stopped), &folders, settings)
    }
}

/// Loads the policy as it is before training.
pub fn initial_policy(
    session: &Session,
    config: &AlignConfig,
    shape: &ModelConfig,
    adaptation: Option<&Adaptation>,
) -> Outcome<CausalLm> {
    let (seed, device) = (config.train.seed, session.device().clone().autodiff());
    adapted(setup::policy(session, &config.model, shape, seed, &device)?, adaptation, seed)
}

/// Adds a value network to the policy before training.
pub fn policy_and_value(
    session: &Session,
    config: &AlignConfig,
    shape: &ModelConfig,
    adaptation: Option<Adaptation>,
    policy: CausalLm,
) -> Outcome<PolicyAndValue> {
    Ok(match adaptation {
        // Both adapters have the same base.
        Some(adaptation) => {
            let base = without_adapter(&policy);
            let (value, _) = RewardModel::from_causal_lm(base, shape, HeadInit::Zeros);
            PolicyAndValue::of(policy, adaptation.of_value().add_to(value, config.train.seed)?)
        }
        None => {
            let value = initial_policy(session, config, shape, None)?;
            PolicyAndValue::new(policy, value, shape)
        }
    })
}
