//! `setpoint logps`: log-probabilities of prompts and responses under a model, one JSON line per response.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use setpoint_data::{DatasetConfig, EncodeOptions, Uses};
use setpoint_train::ScoredSequence;

use super::scoring::score;
use super::{Session, align, setup};
use crate::config::sections::{ModelSection, validate_data};
use crate::config::{Config, Problems};
use crate::failure::{Failure, Outcome};
use crate::progress;

/// Settings of `setpoint logps`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogpsConfig {
    /// The model.
    pub model: ModelSection,
    /// Rows with responses.
    pub data: DatasetConfig,
    /// How rows become tokens.
    pub encode: EncodeOptions,
    /// Tokens of every prompt that are not counted in `prompt_logp`: the first, unless more is asked for.
    pub t0: usize,
    /// Tokens in one forward pass.
    pub batch_tokens: usize,
    /// The JSONL file to write; standard output by default.
    pub output: Option<PathBuf>,
}

impl Default for LogpsConfig {
    fn default() -> Self {
        Self {
            model: ModelSection::default(),
            data: DatasetConfig::new(""),
            encode: EncodeOptions { max_length: None, max_prompt_length: None, ..EncodeOptions::default() },
            t0: 1,
            batch_tokens: 8192,
            output: None,
        }
    }
}

impl Config for LogpsConfig {
    fn validate(&self, problems: &mut Problems<'_>) {
        self.model.validate("model", false, problems);
        validate_data(&self.data, "data", problems);
        problems.require(self.t0 >= 1, "t0", "must be at least 1: the first token has nothing before it");
        problems.require(self.batch_tokens > 0, "batch_tokens", "must be at least 1");
    }
}

/// A line of the output.
#[derive(Debug, Serialize)]
struct Line {
    row: usize,
    response: usize,
    prompt_tokens: usize,
    response_tokens: usize,
    prompt_logp: f64,
    response_logp: f64,
}

/// Scores every response and writes a line for each.
pub fn run(session: &Session, config: &LogpsConfig) -> Outcome {
    let encoder = setup::encoder(&config.model)?;
    let model_config = setup::model_config(&config.model, &encoder)?;
    let data =
        setup::examples(&setup::looking_at(&config.data, Uses::TEXT), &config.encode, &encoder, "data", session)?;
    let sequences: Vec<_> = data.examples.iter().flat_map(|e| align::sequences(e, Some(config.t0))).collect();
    let model = setup::policy(&config.model, &model_config, 0, session.device())?;
    let counts: Vec<usize> = data.examples.iter().map(|e| e.responses.len()).collect();
    let scores = score(session, "logps", &model, &sequences, &counts, config.batch_tokens)?;
    let responses = data.examples.iter().flat_map(|e| e.responses.iter().map(move |r| (e, r)));
    let lines: Vec<String> = responses
        .zip(&scores)
        .map(|((example, response), score): (_, &ScoredSequence)| {
            serde_json::to_string(&Line {
                row: example.row,
                response: response.index,
                prompt_tokens: example.prompt.len(),
                response_tokens: response.ids.len(),
                prompt_logp: score.prompt_logp,
                response_logp: score.response_logp,
            })
        })
        .collect::<Result<_, _>>()?;
    match &config.output {
        None => progress::say(lines.join("\n")),
        Some(path) => {
            setup::write_text(path, &(lines.join("\n") + "\n"))?;
            progress::note(format!("{} lines written to {}", lines.len(), path.display()));
        }
    }
    Ok(())
}

/// Checks everything and says what would be scored.
pub fn dry_run(session: &Session, config: &LogpsConfig) -> Outcome {
    let encoder = setup::encoder(&config.model)?;
    setup::model_config(&config.model, &encoder)?;
    let data =
        setup::examples(&setup::looking_at(&config.data, Uses::TEXT), &config.encode, &encoder, "data", session)?;
    progress::say(toml::to_string(&crate::config::load::to_table(config))?);
    let responses: usize = data.examples.iter().map(|e| e.responses.len()).sum();
    if responses == 0 {
        return Err(Failure::run(format!("{}: no responses to score", config.data.path)));
    }
    progress::say(format!("{responses} responses of {} rows", data.examples.len()));
    Ok(())
}
