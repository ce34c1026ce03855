//! Responses that `setpoint select` samples and scores itself, by the jobs that `setpoint generate` and `setpoint annotate` are.
//!
//! Both write next to the output, `best.samples.jsonl` and `best.rewards.jsonl`. The files stay: another rule selects from the second one
//! without any new sample.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use setpoint_data::DatasetConfig;

use super::SelectConfig;
use crate::annotate::{self, AnnotateConfig};
use crate::config::Problems;
use crate::config::flat::flat_section;
use crate::config::sections::{ModelSection, Wanted};
use crate::failure::{Failure, Outcome};
use crate::generate::{self, GenerateConfig, SamplingSection};
use crate::partial;
use crate::session::{Existing, Session};
use crate::sources::{self, ModelSettings, Sources};

/// `[reward]` of `setpoint select`: a source of the rewards of sampled responses, one of those of `setpoint annotate`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(remote = "Self", deny_unknown_fields, default)]
#[schemars(rename = "SelectReward")]
pub struct SampleReward {
    /// The reward model; or one of the other sources.
    pub model: ModelSection,
    /// The other sources, `rule`, `command` and so on.
    #[serde(flatten, skip_deserializing)]
    pub sources: Sources,
    /// Apply the mean and deviation that the reward model stores.
    pub normalize: bool,
    /// Tokens in one forward pass of a reward model.
    #[schemars(range(min = 1), extend("x-unit" = "tokens"))]
    pub batch_tokens: usize,
}

flat_section!(SampleReward, sources: Sources, after "model");

impl Default for SampleReward {
    fn default() -> Self {
        Self {
            model: ModelSection::default(),
            sources: Sources::default(),
            normalize: false,
            batch_tokens: AnnotateConfig::default().batch_tokens,
        }
    }
}

impl SampleReward {
    fn reward_model(&self) -> ModelSettings<'_> {
        ModelSettings { section: &self.model, normalize: self.normalize }
    }

    /// Returns the setting of the source that is chosen.
    fn chosen(&self) -> Option<String> {
        let model = self.reward_model();
        let (key, settings) = sources::chosen(("model", &model), &self.sources.entries())?;
        Some(settings.chosen_by(&format!("reward.{key}")))
    }
}

/// Notes what is wrong with the settings of samples, and such settings without samples.
pub(super) fn validate(config: &SelectConfig, problems: &mut Problems<'_>) {
    if config.generate.samples.is_none() {
        let is_set =
            serde_json::to_value(&config.generate).ok() != serde_json::to_value(SamplingSection::default()).ok();
        for (key, is_given) in [
            ("model", config.model.path.is_some()),
            ("generate", is_set),
            ("server", config.server.is_some()),
            ("reward", config.reward.chosen().is_some()),
        ] {
            problems.require(
                !is_given,
                key,
                format!("`{key}` is for responses that are sampled: give --samples N, or leave it out to select among those of the rows"),
            );
        }
        return;
    }
    config.model.validate("model", Wanted::LanguageModel, problems);
    config.generate.validate("generate", problems);
    if let Some(server) = &config.server {
        server.validate("server", problems);
    }
    let SampleReward { sources, normalize, batch_tokens, model } = &config.reward;
    let reward_model = config.reward.reward_model();
    let entries = sources::with_model("model", &reward_model, sources.entries());
    sources::require_for_samples("reward.", "reward", &entries, problems);
    sources::validate("reward.", &entries, ("give one source of rewards", None), problems);
    problems.require(
        sources.column.0.is_none(),
        "reward.column",
        "a column has no rewards for responses that are yet to be sampled: give another source of rewards",
    );
    problems.require(
        !normalize || model.path.is_some(),
        "reward.normalize",
        "only a reward model stores a mean and deviation to apply",
    );
    problems.require(*batch_tokens > 0, "reward.batch_tokens", "must be at least 1");
}

/// The two jobs before the selection.
pub(super) struct Sampling {
    generate: GenerateConfig,
    annotate: AnnotateConfig,
    /// The setting of the source of rewards.
    source: String,
}

impl Sampling {
    /// Returns the jobs, if the settings ask for samples. `output`: the file of the selection.
    ///
    /// # Errors
    /// When files of an earlier command would be replaced unasked.
    pub(super) fn of(session: &Session, config: &SelectConfig, output: &Path) -> Outcome<Option<Self>> {
        if config.generate.samples.is_none() {
            return Ok(None);
        }
        let [samples, rewards] = ["samples", "rewards"].map(|what| output.with_extension(format!("{what}.jsonl")));
        refuse_earlier(session, [&samples, &rewards])?;
        let generate = GenerateConfig {
            model: config.model.clone(),
            data: config.data.clone(),
            prompt: None,
            generate: config.generate.clone(),
            server: config.server.clone(),
            output: Some(samples.clone()),
        };
        let SampleReward { model, sources, normalize, batch_tokens } = config.reward.clone();
        let annotate = AnnotateConfig {
            model,
            sources,
            normalize,
            batch_tokens,
            data: written(config, &samples),
            output: Some(rewards),
            ..AnnotateConfig::default()
        };
        let source = config.reward.chosen().unwrap_or_default();
        Ok(Some(Self { generate, annotate, source }))
    }

    /// Samples and scores, and returns the rows to select from.
    ///
    /// # Errors
    /// The errors of the two jobs.
    pub(super) fn run(&self, session: &Session, config: &SelectConfig) -> Outcome<DatasetConfig> {
        generate::run(session, &self.generate)?;
        annotate::run(session, &self.annotate)?;
        Ok(written(config, self.annotate.output.as_deref().unwrap_or(Path::new(""))))
    }

    /// Returns what would be sampled, in a sentence.
    ///
    /// # Errors
    /// Everything that can be found without the weights.
    pub(super) fn dry_run(&self, session: &Session) -> Outcome<String> {
        let sampled = generate::dry_run(session, &self.generate)?;
        Ok(format!("{sampled}; rewards by `{}`", self.source))
    }
}

/// A file that one of the jobs wrote. The system turn and the names of columns are those of its rows.
fn written(config: &SelectConfig, path: &Path) -> DatasetConfig {
    DatasetConfig { text_prompts: config.data.text_prompts, ..DatasetConfig::new(path.to_string_lossy()) }
}

/// Fails if an earlier command left samples or rewards, and the flags do not say what to do about them.
fn refuse_earlier(session: &Session, files: [&PathBuf; 2]) -> Outcome {
    let unfinished = files.map(|file| partial::with_ending(file, ".partial"));
    let found = files.into_iter().chain(&unfinished).find(|file| file.is_file());
    match found.filter(|_| session.existing == Existing::Refuse) {
        Some(file) => Err(Failure::run(format!("{} is there from an earlier command", file.display()))
            .hint("give --continue to go on with it, --overwrite to sample again, or another --output")),
        None => Ok(()),
    }
}
