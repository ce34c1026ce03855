//! The settings of `setpoint serve`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::sections::{ModelSection, Wanted};
use crate::config::{Config, Problems};
use crate::sampling::SamplingSection;

/// Settings of `setpoint serve`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServeConfig {
    /// The model: a language model that answers, or a reward model that scores.
    pub model: ModelSection,
    /// The sampling of a request that does not say otherwise. `batch_size` is the number of answers that are generated together.
    pub generate: SamplingSection,
    /// The address and the limits.
    pub serve: ServeSection,
}

/// `[serve]`: the address and the limits of the server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ServeSection {
    /// The host name or address to listen at. An address that other machines reach needs a key in the environment variable
    /// `SETPOINT_API_KEY`.
    pub host: String,
    /// The port; 0 takes a free one, which the first line of the output names.
    #[schemars(range(max = 65535))]
    pub port: u32,
    /// The name of the model in requests and answers; by default `model.path` as it is given.
    pub name: Option<String>,
    /// The number of answers, or scores, that may wait for their turn. A request beyond that is refused with status 429.
    #[schemars(range(max = 65536), extend("x-unit" = "answers"))]
    pub queue: usize,
    /// The time after which a request fails with status 408, from its first byte to the end of its answer.
    #[schemars(extend("x-unit" = "seconds"))]
    pub timeout_seconds: f64,
}

impl Default for ServeSection {
    fn default() -> Self {
        Self { host: "127.0.0.1".to_owned(), port: 8000, name: None, queue: 256, timeout_seconds: 600.0 }
    }
}

/// The longest name of a model.
const LONGEST_NAME: usize = 256;
/// The most answers that are generated together, and the most that may wait.
const MOST_ANSWERS: usize = 65536;

impl Config for ServeConfig {
    fn validate(&self, problems: &mut Problems<'_>) {
        self.model.validate("model", Wanted::Either, problems);
        self.generate.validate("generate", problems);
        let Self { generate, serve, .. } = self;
        let by_request =
            |name: &str, field: &str| format!("a request says this itself: leave `{name}` out (`{field}`)");
        problems.require(generate.samples.is_none(), "generate.samples", by_request("generate.samples", "n"));
        problems.require(generate.seed == 0, "generate.seed", by_request("generate.seed", "seed"));
        problems.require(
            !generate.only_finished,
            "generate.only_finished",
            "a server answers every request; `finish_reason` tells which answers ran into the limit",
        );
        problems.require(
            !serve.host.trim().is_empty(),
            "serve.host",
            "`serve.host` is empty; expected an address, as in 127.0.0.1",
        );
        problems.require(
            serve.port <= u32::from(u16::MAX),
            "serve.port",
            format!("`serve.port` must be at most 65535; found {}", serve.port),
        );
        let is_name =
            |name: &String| !name.is_empty() && name.len() <= LONGEST_NAME && !name.chars().any(char::is_control);
        problems.require(
            serve.name.as_ref().is_none_or(is_name),
            "serve.name",
            format!("`serve.name` must have 1 to {LONGEST_NAME} bytes and no control characters"),
        );
        let together = generate.batch_size.unwrap_or(1);
        for (name, answers) in [("generate.batch_size", together), ("serve.queue", serve.queue)] {
            let message = format!("`{name}` must be at most {MOST_ANSWERS}; found {answers}");
            problems.require(answers <= MOST_ANSWERS, name, message);
        }
        let timeout = serve.timeout_seconds;
        problems.require(
            (0.1..=86400.0).contains(&timeout),
            "serve.timeout_seconds",
            format!("`serve.timeout_seconds` must be from 0.1 to 86400, which is a day; found {timeout}"),
        );
    }
}
