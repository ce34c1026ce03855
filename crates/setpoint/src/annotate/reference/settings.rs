//! `[reference]`: the samples of a reference model.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use setpoint_align::LEAST_SAMPLES;

use crate::config::Problems;
use crate::config::sections::{ModelSection, Wanted};
use crate::sampling::SamplingSection;
use crate::server::ServerSettings;

/// The setting that decides how many samples there are.
pub const SAMPLES: &str = "reference.generate.samples";

/// `[reference]`: samples of a reference model for each prompt, which get rewards from the same source as the responses.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("x-chosen-by" = "generate.samples"))]
pub struct ReferenceSection {
    /// The reference model: the one that `setpoint align` starts from.
    pub model: ModelSection,
    /// The drawing of samples: `samples`, at least 8, and if need be `seed`, `max_new_tokens` (by default 1024) and `batch_size`. The other
    /// settings stay as they are: log Z(x) needs samples of the model itself.
    pub generate: SamplingSection,
    /// A server that draws the samples in place of this program. `model` then gives the tokenizer and the sizes alone: its weights are not
    /// loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<ServerSettings>,
}

impl ReferenceSection {
    /// Returns how many samples are drawn for each prompt, if any are.
    pub fn samples(&self) -> Option<usize> {
        self.generate.samples
    }

    /// Notes what is wrong with the settings.
    pub fn validate(&self, problems: &mut Problems<'_>) {
        let generate = &self.generate;
        let Some(samples) = generate.samples else {
            let counts = [generate.max_new_tokens, generate.batch_size, generate.top_k];
            let numbers = [generate.temperature, generate.top_p, generate.repetition_penalty];
            let is_set = self.model.path.is_some()
                || counts.iter().any(Option::is_some)
                || numbers.iter().any(Option::is_some)
                || generate.only_finished
                || generate.seed != 0
                || self.server.is_some();
            problems.require(
                !is_set,
                SAMPLES,
                "nothing is drawn from the reference model without a number of samples: give --reference-samples 16",
            );
            return;
        };
        if let Err(message) = enough(samples) {
            problems.add(SAMPLES, message);
        }
        self.model.validate("reference.model", Wanted::LanguageModel, problems);
        let differs = |value: Option<f64>| value.is_some_and(|value| value != 1.0);
        for (name, is_other) in [
            ("temperature", differs(generate.temperature)),
            ("top_k", generate.top_k.is_some()),
            ("top_p", differs(generate.top_p)),
            ("repetition_penalty", differs(generate.repetition_penalty)),
        ] {
            problems.require(
                !is_other,
                &format!("reference.generate.{name}"),
                format!(
                    "log Z(x) needs samples of the reference model's own distribution, at temperature 1 and with nothing cut off: leave \
                     `{name}` out"
                ),
            );
        }
        problems.require(
            !generate.only_finished,
            "reference.generate.only_finished",
            "the samples that are left would be the short ones, and log Z(x) that of short responses: leave it out",
        );
        if let Some(server) = &self.server {
            server.validate("reference.server", problems);
        }
        let rest = SamplingSection {
            samples: None,
            temperature: None,
            top_k: None,
            top_p: None,
            repetition_penalty: None,
            ..generate.clone()
        };
        rest.validate("reference.generate", problems);
    }
}

/// Checks that a number of samples is enough for an estimate of log Z(x).
///
/// # Errors
/// The sentence for one that is not.
pub fn enough(samples: usize) -> Result<(), String> {
    match samples {
        LEAST_SAMPLES.. => Ok(()),
        _ => Err(format!(
            "{samples} samples for each prompt are too few for an estimate of log Z(x), which single rewards would decide: give at least \
             {LEAST_SAMPLES}"
        )),
    }
}
