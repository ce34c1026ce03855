//! The models that an alignment trains, and those that it leaves.

use burn::module::Module;
use setpoint_reward::RewardModel;
use setpoint_train::{Error, RunDir};
use setpoint_transformer::CausalLm;

use crate::saving::{Saving, save_policy};
use crate::tasks::dro_v::PolicyAndValue;
use crate::training::{Sampler, kept_model};

/// The folder in which the policy is saved.
const POLICY: &str = "model";
/// The folder in which a value network is saved.
pub const VALUE: &str = "value";

/// A trained module: the policy, and the further parts that a method may train with it.
pub trait HasPolicy: Module {
    fn policy(&self) -> &CausalLm;

    /// The value network that is trained next to it, if one is.
    fn value(&self) -> Option<&RewardModel> {
        None
    }

    /// Everything that is saved, with the names of the folders in the run.
    fn parts(&self) -> Vec<(&'static str, Part<'_>)> {
        vec![(POLICY, Part::Policy(self.policy()))]
    }
}

/// A model that is saved.
pub enum Part<'a> {
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

    fn value(&self) -> Option<&RewardModel> {
        Some(&self.value)
    }

    fn parts(&self) -> Vec<(&'static str, Part<'_>)> {
        vec![(POLICY, Part::Policy(&self.policy)), (VALUE, Part::Value(&self.value))]
    }
}

/// Returns a sampler that saves the policy before its samples are made, where [`kept_model`] says.
pub fn keeping<'a, M: HasPolicy + 'a>(
    run: &'a RunDir,
    saving: &'a Saving<'a>,
    mut sampler: Option<Sampler<'a, M>>,
) -> Sampler<'a, M> {
    Box::new(move |model: &M, step| {
        let saved = save_policy(model.policy(), saving, &kept_model(run.path(), step));
        saved.map_err(|failure| Error::task(format!("the policy is not kept: {failure}")))?;
        match &mut sampler {
            Some(sample) => sample(model, step),
            None => Ok(Vec::new()),
        }
    })
}
