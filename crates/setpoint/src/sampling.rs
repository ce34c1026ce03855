//! `[generate]`: how jobs sample.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use setpoint_data::TextEncoder;
use setpoint_transformer::{GenerationConfig, ModelConfig};

use crate::config::Problems;
use crate::config::sections::ModelSection;
use crate::failure::Outcome;
use crate::model_folder::holding;

/// `[generate]`: how to sample. What is left out comes from the model's `generation_config.json`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SamplingSection {
    /// The number of responses per prompt.
    #[schemars(range(min = 1), extend("x-unit" = "responses"))]
    pub samples: Option<usize>,
    /// The seed; a row's samples depend on it and on the row alone.
    pub seed: u64,
    /// The greatest number of new tokens.
    #[schemars(range(min = 1), extend("x-unit" = "tokens"))]
    pub max_new_tokens: Option<usize>,
    /// Divides the logits; 0 takes the likeliest token.
    #[schemars(range(min = 0))]
    pub temperature: Option<f64>,
    /// Samples from this many of the likeliest tokens.
    #[schemars(range(min = 1))]
    pub top_k: Option<usize>,
    /// Samples from the likeliest tokens that together have this share of the probability.
    #[schemars(range(max = 1), extend("exclusiveMinimum" = 0))]
    pub top_p: Option<f64>,
    /// Makes tokens that occurred less likely if it is above 1.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub repetition_penalty: Option<f64>,
    /// Leaves out answers that ran into the length limit: training would teach them an end that the model never wrote.
    pub only_finished: bool,
    /// The number of prompts that go through the model together.
    #[schemars(range(min = 1), extend("x-unit" = "prompts"))]
    pub batch_size: Option<usize>,
}

impl SamplingSection {
    /// Notes what is out of range.
    pub fn validate(&self, section: &str, problems: &mut Problems<'_>) {
        let mut check = |name: &str, holds: bool, expected: &str, found: String| {
            problems.require(
                holds,
                &format!("{section}.{name}"),
                format!("`{section}.{name}` must be {expected}; found {found}"),
            );
        };
        for (name, count) in [
            ("samples", self.samples),
            ("max_new_tokens", self.max_new_tokens),
            ("top_k", self.top_k),
            ("batch_size", self.batch_size),
        ] {
            check(name, count != Some(0), "at least 1", "0".to_owned());
        }
        if let Some(temperature) = self.temperature {
            let holds = temperature.is_finite() && temperature >= 0.0;
            check("temperature", holds, "0 (the likeliest token) or a number above 0", temperature.to_string());
        }
        if let Some(top_p) = self.top_p {
            check("top_p", top_p > 0.0 && top_p <= 1.0, "a number above 0 and up to 1", top_p.to_string());
        }
        if let Some(penalty) = self.repetition_penalty {
            check("repetition_penalty", penalty.is_finite() && penalty > 0.0, "a number above 0", penalty.to_string());
        }
    }

    /// The settings with what the model's folder says filled in.
    pub fn resolve(
        &self,
        model: &ModelSection,
        config: &ModelConfig,
        encoder: &TextEncoder,
    ) -> Outcome<GenerationConfig> {
        let mut settings = match &model.path {
            Some(dir) => GenerationConfig::for_model(&holding(dir, "generation_config.json"), config)?,
            None => GenerationConfig::default(),
        };
        if let Some(temperature) = self.temperature {
            settings.do_sample = temperature > 0.0;
            if temperature > 0.0 {
                settings.temperature = temperature;
            }
        }
        settings.max_new_tokens = self.max_new_tokens.unwrap_or(settings.max_new_tokens);
        settings.top_k = self.top_k.or(settings.top_k);
        settings.top_p = self.top_p.unwrap_or(settings.top_p);
        settings.repetition_penalty = self.repetition_penalty.unwrap_or(settings.repetition_penalty);
        settings.batch_size = self.batch_size.unwrap_or(settings.batch_size);
        for &stop in encoder.stop_ids() {
            if !settings.stop_token_ids.contains(&stop) {
                settings.stop_token_ids.push(stop);
            }
        }
        settings.validate()?;
        Ok(settings)
    }
}
