//! Answers to a few prompts during training.

use std::ops::ControlFlow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use setpoint_data::TextEncoder;
use setpoint_train::{Error, Sample};
use setpoint_transformer::{CausalLm, ModelConfig, generate_stream};

use crate::config::sections::ModelSection;
use crate::failure::{Failure, Outcome};
use crate::sampling::SamplingSection;
use crate::session::Session;
use crate::setup;

/// Samples from the model in training.
pub type Sampler<'a, M> = Box<dyn FnMut(&M, u64) -> Result<Vec<Sample>, Error> + 'a>;

/// `[samples]`: answers to a few prompts during training, written to `samples.jsonl` every `train.sample_steps` steps and at the end.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SamplesSection {
    /// The number of prompts that are answered: the first of `[eval_data]`, else of `[data]`.
    pub prompts: usize,
    /// The sampling of answers.
    pub generate: SamplingSection,
}

impl Default for SamplesSection {
    fn default() -> Self {
        Self { prompts: 4, generate: SamplingSection { max_new_tokens: Some(64), ..SamplingSection::default() } }
    }
}

/// Answers the first prompts of a data set with the model in training.
pub fn sampler<'a>(
    session: &'a Session,
    section: &SamplesSection,
    model: &ModelSection,
    config: &ModelConfig,
    encoder: &'a TextEncoder,
    prompts: impl Iterator<Item = Vec<u32>>,
) -> Outcome<Option<Sampler<'a, CausalLm>>> {
    if section.prompts == 0 {
        return Ok(None);
    }
    let mut settings = section.generate.resolve(model, config, encoder).or_else(|failure| {
        // The model's own settings are for those who use it; training does without them.
        let unread = ModelSection { path: None, ..model.clone() };
        let settings = section.generate.resolve(&unread, config, encoder)?;
        log::warn!("samples during training follow `samples.generate` alone: {}", failure.sentence());
        Ok::<_, Failure>(settings)
    })?;
    settings.max_length = None;
    let seed = section.generate.seed;
    let mut prompts: Vec<Vec<u32>> = prompts.take(section.prompts).collect();
    let asked = prompts.len();
    prompts.retain(|prompt| settings.room(prompt.len(), config.max_position_embeddings) > 0);
    if prompts.len() < asked {
        log::warn!(
            "{} of {asked} sample prompts leave no room for an answer and are skipped: prompt and answer have at most {} tokens",
            asked - prompts.len(),
            settings.max_length.unwrap_or(usize::MAX).min(config.max_position_embeddings)
        );
    }
    if prompts.is_empty() {
        return Ok(None);
    }
    let texts: Vec<String> = prompts.iter().map(|p| Ok(encoder.decode_visible(p)?)).collect::<Outcome<_>>()?;
    Ok(Some(Box::new(move |model, step| {
        let go_on = |_, _| if session.host.should_stop() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
        let answers = match generate_stream(model, &prompts, &settings, seed, go_on) {
            // A device that fails fails the training as well; anything else costs the samples alone.
            Err(error @ setpoint_transformer::Error::Device { .. }) => return Err(Error::task(error)),
            Err(error) => {
                log::warn!("no samples at step {step}: {error}");
                return Ok(Vec::new());
            }
            Ok(answers) => answers,
        };
        if session.host.should_stop() {
            return Err(Error::Interrupted);
        }
        prompts
            .iter()
            .zip(&texts)
            .zip(answers)
            .map(|((ids, prompt), answer)| {
                let completion =
                    setup::answer_text(encoder, ids, &answer.ids).map_err(|f| Error::task(f.to_string()))?;
                Ok(Sample { prompt: prompt.clone(), completion })
            })
            .collect()
    })))
}
