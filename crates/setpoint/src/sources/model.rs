//! A reward model.

use serde::Serialize;
use setpoint_reward::{ModelSource, RewardSource};

use super::{Opening, SourceSettings};
use crate::config::Problems;
use crate::config::sections::{ModelSection, Wanted};
use crate::failure::{Failure, Outcome};
use crate::model_folder::ModelFolder;
use crate::setup;

/// A reward model and how it scores. It is no line of the list: jobs have a section for it, `model` or `reward`.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct ModelSettings<'a> {
    /// The checkpoint.
    pub section: &'a ModelSection,
    /// True if the stored mean and deviation are applied.
    pub normalize: bool,
}

impl<'a> ModelSettings<'a> {
    /// A model whose scores are taken as they are.
    pub fn raw(section: &'a ModelSection) -> Self {
        Self { section, normalize: false }
    }
}

impl SourceSettings for ModelSettings<'_> {
    fn chosen_by(&self, key: &str) -> String {
        format!("{key}.path")
    }

    fn advice(&self, key: &str) -> String {
        match key {
            "model" => "a reward model (--model DIR)".to_owned(),
            key => format!("a reward model (--set {key}.path=DIR)"),
        }
    }

    fn is_given(&self) -> bool {
        self.section.path.is_some()
    }

    fn validate(&self, key: &str, problems: &mut Problems<'_>) {
        if self.is_given() {
            self.section.validate(key, Wanted::RewardModel, problems);
        }
    }

    fn token_use(&self) -> Option<&'static str> {
        Some("a reward model reads tokens")
    }

    fn inputs(&self) -> Outcome<Vec<(&'static str, String)>> {
        let hash = self.section.path.as_deref().map(setup::model_hash).transpose()?;
        Ok(hash.into_iter().map(|hash| ("model", hash)).collect())
    }

    fn open(&self, opening: &Opening<'_>) -> Outcome<Box<dyn RewardSource>> {
        let Opening { session, batch_tokens, padding, .. } = *opening;
        let no_model = || Failure::usage("model.path", "no source of rewards");
        let dir = self.section.path.as_deref().ok_or_else(no_model)?;
        let options = setup::load_options(self.section, session);
        let (model, config) = ModelFolder::open(dir)?.load_reward_model(&options, session.device())?;
        let source = ModelSource::new(model, dir.display().to_string()).on(&session.devices);
        let source = if self.normalize { source.normalized_by(&config, dir)? } else { source };
        Ok(Box::new(source.with_batch_tokens(batch_tokens).before_padding(padding)))
    }
}
