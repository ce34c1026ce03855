//! `setpoint eval reward-bench`: RewardBench 1 and 2, how often a reward model prefers the right response.

mod job;

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use setpoint_data::{Hub, ResponseEnd, TextEncoder, counted};
use setpoint_eval::{
    EvalItem, RewardBenchRow, RewardBenchScores, RewardBenchVersion, content_digest, read_reward_bench,
    score_reward_bench,
};

pub use self::job::RewardBench;
use super::local_judge::{answer_ids, rewards_at};
use super::result::{self, Evaluated};
use crate::config::output::{Target, validate_output};
use crate::config::sections::{ModelSection, Wanted};
use crate::config::{Config, Problems};
use crate::failure::{Failure, Outcome};
use crate::session::Session;
use crate::setup::{self, Reading};

/// The value of `data` that stands for the published data set.
const HUB: &str = "hub";

/// Settings of `setpoint eval reward-bench`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RewardBenchConfig {
    /// The reward model.
    pub model: ModelSection,
    /// The version of the benchmark.
    pub version: RewardBenchVersion,
    /// The rows, in the published columns: a file, the folder of a copy, or a hub id, `owner/name` or `owner/name@revision`; `hub` for the
    /// published data set.
    pub data: Option<String>,
    /// The model's name in the results.
    pub name: Option<String>,
    /// Folder for `result.json` and `samples.jsonl`.
    pub output: Option<PathBuf>,
}

impl Config for RewardBenchConfig {
    fn validate(&self, problems: &mut Problems<'_>) {
        self.model.validate("model", Wanted::RewardModel, problems);
        validate_output(self.output.as_ref(), Target::Folder, problems);
        problems.require(
            self.data.is_some(),
            "data",
            "no rows: give --data FILE, the folder of a copy of the data set, or --data hub",
        );
    }
}

/// A row as it is written to `samples.jsonl`.
#[derive(Debug, Serialize)]
struct Sample<'a> {
    id: &'a str,
    subset: &'a str,
    /// One for each response, the right ones first.
    rewards: &'a [f64],
    /// The number of right responses.
    correct: usize,
    score: f64,
}

/// The rows, and their responses as the reward model reads them.
struct Asked {
    rows: Vec<RewardBenchRow>,
    encoder: TextEncoder,
    reading: Reading,
    ids: Vec<(Vec<u32>, Vec<u32>)>,
}

/// Scores every response with the reward model, and the rewards as the benchmark does. The rows with their rewards are written into the folder
/// of the settings, if there is one.
///
/// # Errors
/// When a file cannot be read or written, a row has other columns, or the model has no room for a response.
pub fn run(session: &Session, config: &RewardBenchConfig) -> Outcome<Evaluated<RewardBenchScores>> {
    let Asked { rows, encoder, reading, ids } = read(config)?;
    let identity = result::identity(&config.model, config.name.as_deref(), encoder.fingerprint())?;
    if let Some(dir) = &config.output {
        result::folder(dir)?;
    }
    let mut rest = rewards_at(session, &config.model, &reading, &answers(&rows), &ids)?.into_iter();
    let rewards: Vec<Vec<f64>> = rows.iter().map(|row| rest.by_ref().take(row.responses.len()).collect()).collect();
    let scores = score_reward_bench(config.version, &rows, &rewards)?;
    if let Some(dir) = &config.output {
        let samples: Vec<Sample<'_>> = rows.iter().zip(&rewards).zip(&scores.rows).map(sample).collect();
        result::write_lines(&dir.join("samples.jsonl"), &samples)?;
    }
    let mut manifest = result::manifest("reward_bench", identity, digest(&rows));
    manifest.scoring = json!({ "version": config.version, "response_end": reading.end });
    let item = |(row, &value): (&RewardBenchRow, &f64)| EvalItem { id: format!("{}/{}", row.subset, row.id), value };
    let items = rows.iter().zip(&scores.rows).map(item).collect();
    Ok(Evaluated { scores, manifest, items })
}

/// Checks everything that can be checked without the weights, and returns what would be scored, in a sentence.
///
/// # Errors
/// Everything of [`run`] that can be found without the weights.
pub fn dry_run(_session: &Session, config: &RewardBenchConfig) -> Outcome<String> {
    let asked = read(config)?;
    let rows = counted(asked.rows.len(), "row");
    Ok(format!("{}: {rows}, {} to score", config.version.title(), counted(asked.ids.len(), "response")))
}

fn read(config: &RewardBenchConfig) -> Outcome<Asked> {
    let source = config.data.as_deref().ok_or_else(|| Failure::usage("data", "no rows"))?;
    // A file or folder of this name wins, as it does over a hub id.
    let published = source == HUB && !Path::new(source).exists();
    let source = if published { config.version.hub_id() } else { source };
    let rows = read_reward_bench(config.version, source, &Hub::from_env())?;
    let encoder = setup::encoder(&config.model)?;
    let positions = setup::model_config(&config.model, &encoder)?.max_position_embeddings;
    let reading = Reading::of(&config.model, &encoder, ResponseEnd::Auto)?;
    let ids = answer_ids(&encoder, &reading, &answers(&rows))?;
    let row_of = rows.iter().flat_map(|row| row.responses.iter().map(move |_| row));
    for ((prompt, response), row) in ids.iter().zip(row_of) {
        let tokens = prompt.len() + response.len();
        if tokens > positions {
            let place = format!("row {} of subset {}", row.id, row.subset);
            return Err(Failure::run(format!(
                "{place}: prompt and response have {tokens} tokens, and the model takes {positions} \
                 (max_position_embeddings of config.json)"
            ))
            .hint("use a model with a longer context, or leave the row out of the data"));
        }
    }
    Ok(Asked { rows, encoder, reading, ids })
}

/// Returns each response with its prompt.
fn answers(rows: &[RewardBenchRow]) -> Vec<(&str, &str)> {
    rows.iter()
        .flat_map(|row| row.responses.iter().map(move |response| (row.prompt.as_str(), response.as_str())))
        .collect()
}

fn sample<'a>(((row, rewards), score): ((&'a RewardBenchRow, &'a Vec<f64>), &'a f64)) -> Sample<'a> {
    Sample { id: &row.id, subset: &row.subset, rewards, correct: row.correct, score: *score }
}

/// Subsets, prompts and responses of all rows.
fn digest(rows: &[RewardBenchRow]) -> String {
    let texts = rows.iter().flat_map(|row| {
        let head = [row.subset.as_str(), row.id.as_str(), row.prompt.as_str()];
        head.into_iter().chain(row.responses.iter().map(String::as_str))
    });
    content_digest(texts)
}
