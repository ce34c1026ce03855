//! `setpoint annotate`: gives every response a reward, by a reward model, by rules, from a column or by a judge behind an endpoint, and
//! writes point-wise rows.

pub mod fields;
mod generative;

use std::collections::HashSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use setpoint_data::{
    DatasetConfig, EncodeOptions, Example, LostText, Prompt, Record, ResponseEnd, Uses, load_records, pointwise_row,
};
use setpoint_eval::Summary;
use setpoint_reward::{ColumnSource, ModelSource, Rule, RuleSource};
pub use setpoint_reward::{Error as RewardError, RewardSource, Scored};

use self::generative::{GenerativeSection, GenerativeSource};
use crate::config::output::{Target, validate_output};
use crate::config::sections::{ModelSection, Wanted, validate_data, validate_encode, validate_rule};
use crate::config::{Config, Problems};
use crate::failure::{Failure, Outcome};
use crate::judge;
use crate::partial::{self, PartialRows};
use crate::session::{Meter, Session};
use crate::setup::{self, Reading};

/// Settings of `setpoint annotate`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnnotateConfig {
    /// The reward model; or `rule`, or `column`.
    pub model: ModelSection,
    /// A rule, see `docs/REWARDS.md`.
    pub rule: Option<Rule>,
    /// The column that holds the rewards.
    pub column: Option<String>,
    /// A judge behind a chat endpoint, see `docs/REWARDS.md`; it is the source where `generative.judge.model` names one.
    pub generative: GenerativeSection,
    /// Apply the mean and deviation that the reward model stores.
    pub normalize: bool,
    /// Rows with responses.
    pub data: DatasetConfig,
    /// How rows become tokens, for sources that read tokens.
    pub encode: EncodeOptions,
    /// Tokens in one forward pass.
    pub batch_tokens: usize,
    /// The JSONL file to write.
    pub output: Option<PathBuf>,
}

impl Default for AnnotateConfig {
    fn default() -> Self {
        Self {
            model: ModelSection::default(),
            rule: None,
            column: None,
            generative: GenerativeSection::default(),
            normalize: false,
            data: DatasetConfig::new(""),
            encode: EncodeOptions {
                max_length: None,
                max_prompt_length: None,
                response_end: ResponseEnd::Auto,
                ..EncodeOptions::default()
            },
            batch_tokens: 8192,
            output: None,
        }
    }
}

impl Config for AnnotateConfig {
    fn validate(&self, problems: &mut Problems<'_>) {
        let given = usize::from(self.model.path.is_some())
            + usize::from(self.rule.is_some())
            + usize::from(self.column.is_some())
            + usize::from(self.generative.is_given());
        match given {
            0 => problems.add(
                "model.path",
                "no source of rewards: give a reward model (--model DIR), a `[rule]`, the name of a `column`, or `generative.judge.model`",
            ),
            // A rule may need the tokenizer of a model, not its weights: that is model.tokenizer.
            1 => {}
            _ => problems.add("model.path", "give one source of rewards: `model.path`, `rule`, `column` or `generative.judge.model`"),
        }
        if let Some(rule) = &self.rule {
            validate_rule(rule, "rule", problems);
        }
        if self.model.path.is_some() {
            self.model.validate("model", Wanted::RewardModel, problems);
        }
        if self.generative.is_given() {
            self.generative.validate(problems);
        } else {
            judge::validate_address(&self.generative.judge, "generative.judge", problems);
        }
        problems.require(
            !self.normalize || self.model.path.is_some(),
            "normalize",
            "only a reward model stores a mean and deviation to apply",
        );
        problems.require(self.batch_tokens > 0, "batch_tokens", "must be at least 1");
        problems.require(self.output.is_some(), "output", "nowhere to write: give --output FILE");
        validate_output(self.output.as_ref(), Target::File, problems);
        validate_data(&self.data, "data", problems);
        validate_encode(&self.encode, problems);
    }
}

/// Scores every response by the source that the settings name, and writes the rows with their rewards.
///
/// # Errors
/// When a file cannot be read or written, or a response cannot be scored.
pub fn run(session: &Session, config: &AnnotateConfig) -> Outcome {
    annotate(session, config, None)
}

/// Scores every response by a source of the caller's. The settings name none; `model.tokenizer` is needed if the source reads tokens.
///
/// # Errors
/// Those of [`run`].
pub fn run_with(session: &Session, config: &AnnotateConfig, source: &dyn RewardSource) -> Outcome {
    annotate(session, config, Some(source))
}

fn annotate(session: &Session, config: &AnnotateConfig, given: Option<&dyn RewardSource>) -> Outcome {
    partial::check(session, config.output.as_deref())?;
    let (mut records, read) = load_records(&setup::looking_at(&config.data, Uses::TEXT))?;
    setup::note_left_out("data", &read);
    if config.data.system.is_some() && config.model.tokenizer_dir().is_some() {
        // The next job would not know the system turn of these settings: it is written with the prompt.
        setup::text_prompts_become_turns(&mut records, &config.data, &setup::encoder(&config.model)?);
    }
    let reading = reading(config)?;
    let examples = examples(session, config, reads_tokens(config, given)?, reading.as_ref(), &mut records)?;
    let output = config.output.as_deref().unwrap_or(Path::new("rewards.jsonl"));
    let identity = identity(session, config, given, &records)?;
    if partial::is_complete(session, output, &identity)? {
        return Ok(());
    }
    let mut file = PartialRows::open(session, output, &identity)?;
    let opened;
    let source = match given {
        Some(source) => source,
        None => {
            opened = source(session, config, reading.as_ref())?;
            opened.as_ref()
        }
    };
    let mut rewards = kept_rewards(file.lines());
    let done = file.done();
    score(session, config, source, &examples, &records, done, &mut |rows, scores| {
        let mut next = scores.iter();
        let mut lines = Vec::new();
        for record in &records[rows.clone()] {
            let mut record = record.clone();
            let all = record.responses.len();
            for response in &mut record.responses {
                response.reward = next.next().copied().flatten();
            }
            record.responses.retain(|response| response.reward.is_some());
            // A row without any responses is an error, which `pointwise_row` names.
            if all == 0 || !record.responses.is_empty() {
                lines.push(serde_json::to_string(&pointwise_row(&record)?)?);
            }
        }
        rewards.extend(scores.into_iter().flatten());
        if rewards.is_empty() && rows.end == records.len() {
            let source = source.describe();
            return Err(Failure::run(format!("no response of {} has a score by {source}", config.data.path)));
        }
        file.push(&lines, rows.end, &[])
    })?;
    let written = file.finish()?;
    let summary = Summary::of(&rewards)?;
    log::info!(
        "{} rewards of {written} rows by {}: mean {:.3}, deviation {:.3}, from {:.3} to {:.3}; written to {}",
        rewards.len(),
        source.describe(),
        summary.mean,
        summary.std_dev,
        summary.min,
        summary.max,
        output.display()
    );
    Ok(())
}

/// The rewards in the rows that an interrupted command left.
fn kept_rewards(lines: &[String]) -> Vec<f64> {
    let rows = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let rewards = rows.map(|row| row["rewards"].as_array().cloned().unwrap_or_default());
    rewards.flatten().filter_map(|reward| reward.as_f64()).collect()
}

/// What decides the rewards.
fn identity(
    session: &Session,
    config: &AnnotateConfig,
    given: Option<&dyn RewardSource>,
    records: &[Record],
) -> Outcome<Value> {
    let mut inputs = vec![("data", partial::records_hash(records))];
    if let Some(dir) = &config.model.path {
        inputs.push(("model", setup::model_hash(dir)?));
    }
    if config.model.tokenizer_dir().is_some() {
        inputs.push(("tokenizer or template", setup::encoder(&config.model)?.fingerprint()));
    }
    if let Some(source) = given {
        inputs.push(("source", setup::text_hash(&source.describe())));
    }
    partial::identity(session, "annotate", config, &inputs)
}

/// Checks everything that can be checked without scoring, and returns what would be scored, in a sentence.
///
/// # Errors
/// Everything of [`run`] that can be found without scoring.
pub fn dry_run(session: &Session, config: &AnnotateConfig) -> Outcome<String> {
    partial::check(session, config.output.as_deref())?;
    let (mut records, _) = load_records(&setup::looking_at(&config.data, Uses::TEXT))?;
    let reading = reading(config)?;
    examples(session, config, reads_tokens(config, None)?, reading.as_ref(), &mut records)?;
    let source = source(session, config, reading.as_ref())?;
    if config.column.is_some() {
        score(session, config, source.as_ref(), &[], &records, 0, &mut |_, _| Ok(()))?;
    }
    let responses: usize = records.iter().map(|r| r.responses.len()).sum();
    Ok(format!("{} rows, {responses} responses to score by {}", records.len(), source.describe()))
}

/// Where a reward model reads the rewards, if one gives them.
fn reading(config: &AnnotateConfig) -> Outcome<Option<Reading>> {
    if config.model.path.is_none() {
        return Ok(None);
    }
    let encoder = setup::encoder(&config.model)?;
    setup::model_config(&config.model, &encoder)?;
    Ok(Some(Reading::of(&config.model, &encoder, config.encode.response_end)?))
}

/// What gives the rewards.
fn source(session: &Session, config: &AnnotateConfig, reading: Option<&Reading>) -> Outcome<Box<dyn RewardSource>> {
    if let Some(rule) = &config.rule {
        return Ok(Box::new(RuleSource::new(rule.clone())?));
    }
    if let Some(column) = &config.column {
        return Ok(Box::new(ColumnSource::new(column.clone())));
    }
    if config.generative.is_given() {
        return Ok(Box::new(GenerativeSource::open(&config.generative, config.output.as_deref())?));
    }
    let dir = config.model.path.as_deref().ok_or_else(|| Failure::usage("model.path", "no source of rewards"))?;
    let options = setup::load_options(config.model.dtype, session);
    let model = ModelSource::load(dir, &options, config.normalize, session.device())?.on(&session.devices);
    let padding = reading.and_then(|reading| reading.padding);
    Ok(Box::new(model.with_batch_tokens(config.batch_tokens).before_padding(padding)))
}

/// Returns whether a rule, or a source of the caller's, reads tokens.
fn reads_tokens(config: &AnnotateConfig, given: Option<&dyn RewardSource>) -> Outcome<bool> {
    match (&config.rule, given) {
        (_, Some(source)) => Ok(source.needs_tokens()),
        (Some(rule), None) => Ok(RuleSource::new(rule.clone())?.needs_tokens()),
        (None, None) => Ok(false),
    }
}

/// The rows as tokens for a source that reads tokens, none for another. Rows that do not become tokens, too long ones for example, are left
/// out of the records and counted, unless the settings make them an error.
fn examples(
    session: &Session,
    config: &AnnotateConfig,
    reads_tokens: bool,
    reading: Option<&Reading>,
    records: &mut Vec<Record>,
) -> Outcome<Vec<Example>> {
    if reading.is_none() && !reads_tokens {
        return Ok(Vec::new());
    }
    if config.model.tokenizer_dir().is_none() {
        return Err(Failure::usage(
            "model.tokenizer",
            "this rule counts tokens: set `model.tokenizer` to a folder with tokenizer.json",
        ));
    }
    let encoder = setup::encoder(&config.model)?;
    // A reward model may be meant to read the answers without their thoughts, but its user should know.
    let response_end = reading.map_or(config.encode.response_end, |reading| reading.end);
    let mut options = EncodeOptions { lost_text: LostText::Count, response_end, ..config.encode.clone() };
    if reading.is_some() {
        options = setup::within(&options, &setup::model_config(&config.model, &encoder)?);
    }
    let mut seen = records.clone();
    if setup::text_prompts_become_turns(&mut seen, &config.data, &encoder) && !session.quiet {
        setup::note_turns("data");
    }
    let (examples, report) = encoder.encode_all(&seen, &options)?;
    if let Some(first) = &report.first_lost {
        log::warn!(
            "the reward model does not see all of the responses of {} of {} rows; the first: {first}",
            report.lost,
            report.rows
        );
    }
    let kept: HashSet<usize> = examples.iter().map(|example| example.row).collect();
    if let Some(first) = (0..records.len()).find(|row| !kept.contains(row)) {
        let counts = report.to_string();
        let counts = counts.lines().next().unwrap_or_default();
        log::info!("data: {counts}; the first that is left out: {}", records[first].source);
        if kept.is_empty() {
            return Err(Failure::run(format!("none of the {} rows of {} is left", records.len(), config.data.path))
                .hint("`setpoint inspect data` shows the rows as tokens; see encode.max_length and encode.long_rows"));
        }
        let mut row = 0..;
        records.retain(|_| row.next().is_some_and(|row| kept.contains(&row)));
    }
    Ok(examples)
}

/// Passes of a reward model after which the rows so far are written.
const PART: usize = 32;

/// Hands out the rewards of some rows, part by part after the first `done` rows: one per response, none where the source has none and may
/// leave it out. A part follows from the rows alone, so that a command that goes on forms the same batches.
fn score(
    session: &Session,
    config: &AnnotateConfig,
    source: &dyn RewardSource,
    examples: &[Example],
    records: &[Record],
    mut done: usize,
    write: &mut dyn FnMut(Range<usize>, Vec<Option<f64>>) -> Outcome,
) -> Outcome {
    let rows = if source.reads_fields() { fields::of_rows(&config.data, records)? } else { Vec::new() };
    let prompts: Vec<String> = records.iter().map(|r| prompt_text(&r.prompt)).collect();
    let mut items = Vec::new();
    for (i, record) in records.iter().enumerate() {
        for (j, response) in record.responses.iter().enumerate() {
            let tokens = examples.get(i).map(|e| (e.prompt.as_slice(), e.responses[j].ids.as_slice()));
            items.push(Scored {
                row: record.source.row,
                response_index: j,
                prompt: &prompts[i],
                response: response.text(),
                prompt_ids: tokens.map_or(&[], |t| t.0),
                response_ids: tokens.map_or(&[], |t| t.1),
                recorded: response.reward,
                fields: rows.get(i).or(Some(&record.extra)),
            });
        }
    }
    // Of each row: where its items begin.
    let begin: Vec<usize> = std::iter::once(0)
        .chain(records.iter().scan(0, |sum, record| {
            *sum += record.responses.len();
            Some(*sum)
        }))
        .collect();
    let tokens = |row: usize| -> usize {
        items[begin[row]..begin[row + 1]].iter().map(|item| item.prompt_ids.len() + item.response_ids.len()).sum()
    };
    let first = begin[done];
    let mut meter = Meter::new(session, items.len() - first, "rewards", "responses");
    while done < records.len() {
        let (start, mut sum) = (done, 0);
        // Sources that do not read tokens score all rows at once.
        while done < records.len() && (done == start || sum + tokens(done) <= PART * config.batch_tokens) {
            sum += tokens(done);
            done += 1;
        }
        let part = &items[begin[start]..begin[done]];
        let rewards = source.score_available(part, &mut |scored| meter.reach(begin[start] - first + scored));
        if rewards.is_err() {
            meter.finish();
        }
        let rewards = rewards.map_err(|error| {
            // An endpoint that refuses everything is no matter of single responses.
            let single =
                matches!(&error, setpoint_reward::Error::Source { source, .. } if !source.is::<setpoint_eval::Error>());
            let failure = match error {
                setpoint_reward::Error::Field { row, column, expected, found } => {
                    let item = part.iter().find(|item| item.row == row);
                    let record = records.iter().find(|record| record.source.row == row);
                    fields::wrong_column(record, item.and_then(|item| item.fields), &column, &expected, &found)
                }
                error => Failure::from(error),
            };
            match source.remedy().filter(|_| single) {
                Some(remedy) => failure.hint(remedy),
                None => failure,
            }
        })?;
        write(start..done, rewards)?;
    }
    meter.finish();
    Ok(())
}

/// The prompt as a rule or a judge reads it.
pub fn prompt_text(prompt: &Prompt) -> String {
    match prompt {
        Prompt::Text(text) => text.clone(),
        Prompt::Messages(messages) => {
            messages.iter().map(|m| format!("{}: {}", m.role, m.content)).collect::<Vec<_>>().join("\n")
        }
    }
}
