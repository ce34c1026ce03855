//! `setpoint eval ifeval`: IFEval, how often a model follows instructions that a program can verify.

mod job;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use setpoint_data::{Hub, Prompt, counted};
use setpoint_eval::{
    EvalItem, IfEvalResponse, IfEvalRow, IfEvalScores, IfEvalVerdicts, ModelIdentity, content_digest, read_ifeval,
    read_ifeval_responses, score_ifeval, sentence_rules,
};
use setpoint_transformer::GenerationConfig;

pub use self::job::IfEval;
use crate::config::output::{Target, validate_output};
use crate::config::sections::{ModelSection, Wanted};
use crate::config::{Config, Problems};
use crate::eval::answers::{Answerer, conversation, decoding};
use crate::eval::result::{self, Evaluated};
use crate::failure::{Failure, Outcome};
use crate::generate::SamplingSection;
use crate::session::Session;

/// The value of `data` that stands for the published data set.
const HUB: &str = "hub";
/// The published data set.
const PUBLISHED: &str = "google/IFEval";
/// The file of the model's responses, in the form that `responses` takes.
const RESPONSES: &str = "responses.jsonl";

/// Settings of `setpoint eval ifeval`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IfEvalConfig {
    /// The model that answers.
    pub model: ModelSection,
    /// The rows, in the published columns: a file, the folder of a copy, or a hub id, `owner/name` or `owner/name@revision`; `hub` for the
    /// published data set.
    pub data: Option<String>,
    /// The model's responses, if they exist: JSON lines with `prompt` and `response`; or give `model`.
    pub responses: Option<PathBuf>,
    /// Renders prompts with the chat template; by default if the model has one.
    pub chat: Option<bool>,
    /// Length and batches of responses; by default they are greedy, as in lm-evaluation-harness.
    pub generate: SamplingSection,
    /// The largest number of rows, from the first.
    #[schemars(range(min = 1))]
    pub max_rows: Option<usize>,
    /// The model's name in the results.
    pub name: Option<String>,
    /// Folder for `result.json`, `responses.jsonl` and `samples.jsonl`.
    pub output: Option<PathBuf>,
}

impl Default for IfEvalConfig {
    fn default() -> Self {
        Self {
            model: ModelSection::default(),
            data: None,
            responses: None,
            chat: None,
            generate: SamplingSection {
                max_new_tokens: Some(1280),
                temperature: Some(0.0),
                ..SamplingSection::default()
            },
            max_rows: None,
            name: None,
            output: None,
        }
    }
}

impl Config for IfEvalConfig {
    fn validate(&self, problems: &mut Problems<'_>) {
        validate_output(self.output.as_ref(), Target::Folder, problems);
        problems.require(
            self.data.is_some(),
            "data",
            "no rows: give --data FILE, the folder of a copy of the data set, or --data hub",
        );
        match (&self.responses, &self.model.path) {
            (Some(_), Some(_)) => problems.add("responses", "`responses` and `model` exclude each other"),
            (Some(_), None) => {}
            (None, _) => self.model.validate("model", Wanted::LanguageModel, problems),
        }
        problems.require(self.max_rows != Some(0), "max_rows", "must be at least 1");
        self.generate.validate("generate", problems);
        problems.require(
            self.generate.samples.unwrap_or(1) == 1,
            "generate.samples",
            "IFEval takes one response per prompt",
        );
    }
}

/// A row as it is written to `samples.jsonl`.
#[derive(Debug, Serialize)]
struct Sample<'a> {
    key: u64,
    prompt: &'a str,
    response: &'a str,
    instructions: Vec<&'static str>,
    #[serde(flatten)]
    verdicts: &'a IfEvalVerdicts,
}

/// Responses with what produced them.
struct Responses {
    texts: Vec<String>,
    model: ModelIdentity,
    decoding: Value,
    chat: Option<bool>,
}

/// Generates the responses that do not exist yet, and verifies them. Responses and verdicts are written into the folder of the settings, if there is
/// one.
///
/// # Errors
/// When a file cannot be read or written, a row is none, a prompt has no response, or the model has no room for one.
pub fn run(session: &Session, config: &IfEvalConfig) -> Outcome<Evaluated<IfEvalScores>> {
    let rows = rows(config)?;
    if let Some(dir) = &config.output {
        result::folder(dir)?;
    }
    let responses = match &config.responses {
        Some(path) => existing(config, &rows, path)?,
        None => generated(session, config, &rows)?,
    };
    let verdicts: Vec<IfEvalVerdicts> =
        rows.iter().zip(&responses.texts).map(|(row, response)| row.verdicts(response)).collect();
    let scores = score_ifeval(&rows, &verdicts)?;
    if let Some(dir) = &config.output {
        let samples: Vec<Sample<'_>> = rows
            .iter()
            .zip(&responses.texts)
            .zip(&verdicts)
            .map(|((row, response), v)| sample(row, response, v))
            .collect();
        result::write_lines(&dir.join("samples.jsonl"), &samples)?;
    }
    let mut manifest = result::manifest("ifeval", responses.model, digest(&rows));
    manifest.decoding = responses.decoding;
    manifest.scoring = json!({
        "verdicts": "lm-evaluation-harness 0.4.13",
        "sentences": sentence_rules(),
        "chat": responses.chat,
    });
    let item = |(row, verdicts): (&IfEvalRow, &IfEvalVerdicts)| EvalItem {
        id: format!("ifeval/{}", row.key),
        value: f64::from(u8::from(verdicts.strict.iter().all(|followed| *followed))),
    };
    let items = rows.iter().zip(&verdicts).map(item).collect();
    Ok(Evaluated { scores, manifest, items })
}

/// Checks everything that can be checked without the weights, and returns what would be asked, in a sentence.
///
/// # Errors
/// Everything of [`run`] that can be found without the weights.
pub fn dry_run(session: &Session, config: &IfEvalConfig) -> Outcome<String> {
    let rows = rows(config)?;
    let asked = match &config.responses {
        Some(path) => {
            existing(config, &rows, path)?;
            "to verify"
        }
        None => {
            let answerer = Answerer::open(session, &config.model)?;
            prompts(config, &answerer, &answerer.settings(&config.generate)?, &rows)?;
            "to follow"
        }
    };
    let instructions: usize = rows.iter().map(|row| row.instructions.len()).sum();
    Ok(format!("{}, {} {asked}", counted(rows.len(), "prompt"), counted(instructions, "instruction")))
}

fn rows(config: &IfEvalConfig) -> Outcome<Vec<IfEvalRow>> {
    let source = config.data.as_deref().ok_or_else(|| Failure::usage("data", "no rows"))?;
    // A file or folder of this name wins, as it does over a hub id.
    let published = source == HUB && !Path::new(source).exists();
    let mut rows = read_ifeval(if published { PUBLISHED } else { source }, &Hub::from_env())?;
    rows.truncate(config.max_rows.unwrap_or(usize::MAX));
    log::info!("rules for sentences: {}", sentence_rules());
    Ok(rows)
}

fn existing(config: &IfEvalConfig, rows: &[IfEvalRow], path: &Path) -> Outcome<Responses> {
    let name = config.name.clone().unwrap_or_else(|| result::folder_name(&path.with_extension("")));
    let model = ModelIdentity { name, ..ModelIdentity::default() };
    let texts = in_order(rows, read_ifeval_responses(path)?, path)?;
    Ok(Responses { texts, model, decoding: Value::Null, chat: None })
}

/// Returns the responses in the order of the rows.
fn in_order(rows: &[IfEvalRow], responses: Vec<IfEvalResponse>, path: &Path) -> Outcome<Vec<String>> {
    let mut by_prompt: HashMap<String, String> = HashMap::with_capacity(responses.len());
    for (i, IfEvalResponse { prompt, response }) in responses.into_iter().enumerate() {
        if by_prompt.get(&prompt).is_some_and(|earlier| *earlier != response) {
            let row = i + 1;
            let message =
                format!("{}, row {row}: a second response to the prompt of an earlier row; keep one", path.display());
            return Err(Failure::run(message));
        }
        by_prompt.insert(prompt, response);
    }
    let of = |row: &IfEvalRow| {
        by_prompt.get(&row.prompt).cloned().ok_or_else(|| {
            Failure::run(format!("{}: no response to the prompt of row {} (`key`)", path.display(), row.key))
        })
    };
    rows.iter().map(of).collect()
}

fn generated(session: &Session, config: &IfEvalConfig, rows: &[IfEvalRow]) -> Outcome<Responses> {
    let answerer = Answerer::open(session, &config.model)?;
    let settings = answerer.settings(&config.generate)?;
    let model = result::identity(&config.model, config.name.as_deref(), answerer.encoder.fingerprint())?;
    let chat = uses_chat(config, &answerer);
    let mut decoding = decoding(&settings, config.generate.seed);
    decoding["chat"] = json!(chat);
    let data = digest(rows);
    if let Some(dir) = config.output.as_deref().filter(|dir| result::is_generated(dir, &model, &decoding, &data)) {
        let path = dir.join(RESPONSES);
        log::info!("responses are taken from {}", path.display());
        let texts = in_order(rows, read_ifeval_responses(&path)?, &path)?;
        return Ok(Responses { texts, model, decoding, chat: Some(chat) });
    }
    let ids = prompts(config, &answerer, &settings, rows)?;
    let weights = answerer.load()?;
    let mut meter = answerer.meter(ids.len(), &settings);
    let texts = answerer.answer(&weights, &ids, &settings, config.generate.seed, &[], &mut meter);
    meter.finish();
    let texts = texts?;
    if let Some(dir) = &config.output {
        let row =
            |(row, text): (&IfEvalRow, &String)| IfEvalResponse { prompt: row.prompt.clone(), response: text.clone() };
        let responses: Vec<IfEvalResponse> = rows.iter().zip(&texts).map(row).collect();
        result::write_lines(&dir.join(RESPONSES), &responses)?;
        result::mark_generated(dir, &model, &decoding, &data)?;
    }
    Ok(Responses { texts, model, decoding, chat: Some(chat) })
}

fn uses_chat(config: &IfEvalConfig, answerer: &Answerer<'_>) -> bool {
    config.chat.unwrap_or_else(|| answerer.encoder.template().is_some())
}

/// Returns the prompts as tokens, each with room for a response.
fn prompts(
    config: &IfEvalConfig,
    answerer: &Answerer<'_>,
    settings: &GenerationConfig,
    rows: &[IfEvalRow],
) -> Outcome<Vec<Vec<u32>>> {
    let chat = uses_chat(config, answerer);
    let ids = rows.iter().map(|row| {
        answerer.ids(if chat {
            conversation([("user", row.prompt.as_str())])
        } else {
            Prompt::Text(row.prompt.clone())
        })
    });
    let ids: Vec<Vec<u32>> = ids.collect::<Outcome<_>>()?;
    let name = |row: usize| format!("row {} (`key`)", rows[row].key);
    answerer.check_room(&ids, &name, settings, config.generate.max_new_tokens)?;
    Ok(ids)
}

fn sample<'a>(row: &'a IfEvalRow, response: &'a str, verdicts: &'a IfEvalVerdicts) -> Sample<'a> {
    let instructions = row.instructions.iter().map(|instruction| instruction.name()).collect();
    Sample { key: row.key, prompt: &row.prompt, response, instructions, verdicts }
}

/// Prompts and instructions of all rows. A prompt states the arguments of its instructions.
fn digest(rows: &[IfEvalRow]) -> String {
    let texts = rows.iter().flat_map(|row| {
        [row.prompt.as_str()].into_iter().chain(row.instructions.iter().map(|instruction| instruction.name()))
    });
    content_digest(texts)
}
