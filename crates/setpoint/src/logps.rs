//! `setpoint logps`: log-probabilities of prompts and responses under a model, one JSON line per response.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use setpoint_data::{DatasetConfig, EncodeOptions, Example, TextEncoder, Uses, counted};
use setpoint_train::ScoredSequence;
use setpoint_transformer::ModelConfig;

use crate::config::output::{Target, validate_output};
use crate::config::sections::{ModelSection, Wanted, validate_data, validate_encode};
use crate::config::{Config, Problems};
use crate::failure::{Failure, Outcome};
use crate::job::{DATA, DryRun, Flag, Job, MODEL, OUTPUT, Work};
use crate::partial::{self, PartialRows};
use crate::scoring::Scoring;
use crate::session::{Printed, Session};
use crate::setup::{self, Encoded};

/// Settings of `setpoint logps`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LogpsConfig {
    /// The model.
    pub model: ModelSection,
    /// Rows with responses.
    pub data: DatasetConfig,
    /// The conversion of rows to tokens.
    pub encode: EncodeOptions,
    /// The first tokens of every prompt, which `prompt_logp` does not count.
    #[schemars(range(min = 1), extend("x-unit" = "tokens"))]
    pub t0: usize,
    /// Tokens in one forward pass.
    #[schemars(range(min = 1), extend("x-unit" = "tokens"))]
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
        self.model.validate("model", Wanted::LanguageModel, problems);
        validate_data(&self.data, "data", problems);
        validate_encode(&self.encode, problems);
        validate_output(self.output.as_ref(), Target::File, problems);
        problems.require(self.t0 >= 1, "t0", "must be at least 1: the first token has nothing before it");
        problems.require(self.batch_tokens > 0, "batch_tokens", "must be at least 1");
    }
}

/// `setpoint logps`.
#[derive(Debug)]
pub struct Logps;

impl Job for Logps {
    type Config = LogpsConfig;

    const COMMAND: &'static str = "logps";
    const FLAGS: &'static [Flag] = &[MODEL, DATA, OUTPUT];
    const WORK: Work<LogpsConfig> = Work::Rows(run);
    const DRY_RUN: DryRun<LogpsConfig> = DryRun::Text(dry_run);

    fn about() -> Cow<'static, str> {
        "Log-probabilities of prompts and responses under a model, one JSON line per response".into()
    }

    fn help() -> Cow<'static, str> {
        "Example:\n  setpoint logps --model DIR --data FILE --output OUT.jsonl\n\n\
         A line per response: {\"row\":0,\"response\":0,\"prompt_tokens\":9,\"response_tokens\":4,\
         \"prompt_logp\":-31.2,\"response_logp\":-7.9}\n\
         Sums of log-probabilities in nats; prompt_logp counts the tokens after the first."
            .into()
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
    partial::check(session, config.output.as_deref())?;
    let encoder = setup::encoder(&config.model)?;
    let model_config = setup::model_config(&config.model, &encoder)?;
    let data = examples(session, config, &encoder, &model_config)?;
    let mut file = match &config.output {
        Some(path) => {
            let identity = identity(session, config, &encoder, &data.examples)?;
            if partial::is_complete(session, path, &identity)? {
                return Ok(());
            }
            Some(PartialRows::open(session, path, &identity)?)
        }
        None => None,
    };
    let model = setup::policy(session, &config.model, &model_config, 0, session.device())?;
    let mut done = file.as_ref().map_or(0, PartialRows::done);
    let mut scoring =
        Scoring::new(session, ("logps", "rows"), data.examples.len() - done, tokens(&data.examples[done..]));
    while done < data.examples.len() && !(file.is_none() && session.host.is_closed()) {
        let end = done + part(&data.examples[done..], PART * config.batch_tokens);
        let examples = &data.examples[done..end];
        let sequences: Vec<_> = examples.iter().flat_map(|e| setup::sequences(e, Some(config.t0))).collect();
        let counts: Vec<usize> = examples.iter().map(|e| e.responses.len()).collect();
        let scores = scoring.score(session, &model, &sequences, &counts, config.batch_tokens)?;
        let responses = examples.iter().flat_map(|e| e.responses.iter().map(move |r| (e, r)));
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
        done = end;
        match &mut file {
            Some(file) => file.push(&lines, done, &[])?,
            None => session.host.print(Printed::Json(&lines.join("\n"))),
        }
    }
    scoring.conclude();
    if let (Some(file), Some(path)) = (file, &config.output) {
        log::info!("{} lines written to {}", file.finish()?, path.display());
    }
    Ok(())
}

/// The rows that the model has room for.
fn examples(session: &Session, config: &LogpsConfig, encoder: &TextEncoder, model: &ModelConfig) -> Outcome<Encoded> {
    let data = setup::looking_at(&config.data, Uses::TEXT);
    setup::examples(&data, &setup::within(&config.encode, model), encoder, "data", session)
}

/// Passes after which the lines so far are written.
const PART: usize = 32;

fn tokens(examples: &[Example]) -> usize {
    let of = |e: &Example| e.responses.iter().map(|r| e.prompt.len() + r.ids.len()).sum::<usize>();
    examples.iter().map(of).sum()
}

/// The number of examples, at least one, that hold `most` tokens together. It follows from the examples alone, so that a command that goes on
/// forms the same batches.
fn part(examples: &[Example], most: usize) -> usize {
    let mut sum = 0;
    let fits = |example: &&Example| {
        sum += tokens(std::slice::from_ref(*example));
        sum <= most
    };
    examples.iter().take_while(fits).count().max(1)
}

/// Collects the inputs that decide the log-probabilities.
fn identity(session: &Session, config: &LogpsConfig, encoder: &TextEncoder, examples: &[Example]) -> Outcome<Value> {
    let dir = config.model.path.as_deref().unwrap_or(Path::new(""));
    let inputs = [
        ("model", setup::model_hash(dir)?),
        ("tokenizer or template", encoder.fingerprint()),
        ("data", setpoint_data::content_hash(examples)),
    ];
    partial::identity(session, "logps", config, &inputs)
}

/// Checks everything and returns what would be scored, in a sentence.
///
/// # Errors
/// Everything of [`run`] that can be found without the weights.
pub fn dry_run(session: &Session, config: &LogpsConfig) -> Outcome<String> {
    partial::check(session, config.output.as_deref())?;
    let encoder = setup::encoder(&config.model)?;
    let model_config = setup::model_config(&config.model, &encoder)?;
    let data = examples(session, config, &encoder, &model_config)?;
    let responses: usize = data.examples.iter().map(|e| e.responses.len()).sum();
    if responses == 0 {
        return Err(Failure::run(format!("{}: no responses to score", config.data.name())));
    }
    Ok(format!("{} of {}", counted(responses, "response"), counted(data.examples.len(), "row")))
}
