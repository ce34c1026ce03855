//! `setpoint annotate`: gives every response a reward, by a reward model, by rules, from a column or by a judge behind an endpoint, and
//! writes point-wise rows.

pub(super) mod fields;
mod generative;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use setpoint_data::{
    DatasetConfig, EncodeOptions, LostText, Prompt, Record, ResponseEnd, Uses, load_records, write_pointwise,
};
use setpoint_eval::Summary;
use setpoint_reward::{ColumnSource, ModelSource, RewardSource, Rule, RuleSource, Scored};

use self::generative::{GenerativeSection, GenerativeSource};
use super::eval::result;
use super::reading::Reading;
use super::{Session, setup};
use crate::config::sections::{ModelSection, validate_data};
use crate::config::{Config, Problems};
use crate::failure::{Failure, Outcome};
use crate::progress::{self, Meter};

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
        if self.model.path.is_some() {
            self.model.validate("model", false, problems);
        }
        if self.generative.is_given() {
            self.generative.validate(problems);
        } else {
            result::validate_address(&self.generative.judge, "generative.judge", problems);
        }
        problems.require(
            !self.normalize || self.model.path.is_some(),
            "normalize",
            "only a reward model stores a mean and deviation to apply",
        );
        problems.require(self.batch_tokens > 0, "batch_tokens", "must be at least 1");
        problems.require(self.output.is_some(), "output", "nowhere to write: give --output FILE");
        validate_data(&self.data, "data", problems);
    }
}

/// Scores every response and writes the rows with their rewards.
pub fn run(session: &Session, config: &AnnotateConfig) -> Outcome {
    let (mut records, read) = load_records(&setup::looking_at(&config.data, Uses::TEXT))?;
    setup::note_left_out("data", &read);
    if config.data.system.is_some() && config.model.tokenizer_dir().is_some() {
        // The next job would not know the system turn of these settings: it is written with the prompt.
        setup::text_prompts_become_turns(&mut records, &config.data, &setup::encoder(&config.model)?);
    }
    let (source, reading) = source(session, config)?;
    let rewards = score(session, config, source.as_ref(), reading.as_ref(), &records)?;
    let mut next = rewards.iter();
    records.retain_mut(|record| {
        let all = record.responses.len();
        for response in &mut record.responses {
            response.reward = next.next().copied().flatten();
        }
        record.responses.retain(|response| response.reward.is_some());
        // A row without any responses is an error, and `write_pointwise` names it.
        all == 0 || !record.responses.is_empty()
    });
    let rewards: Vec<f64> = rewards.into_iter().flatten().collect();
    if rewards.is_empty() {
        return Err(Failure::run(format!("no response of {} has a score by {}", config.data.path, source.describe())));
    }
    let output = config.output.as_deref().unwrap_or(std::path::Path::new("rewards.jsonl"));
    write_pointwise(output, &records)?;
    let summary = Summary::of(&rewards)?;
    progress::note(format!(
        "{} rewards of {} rows by {}: mean {:.3}, deviation {:.3}, from {:.3} to {:.3}; written to {}",
        rewards.len(),
        records.len(),
        source.describe(),
        summary.mean,
        summary.std_dev,
        summary.min,
        summary.max,
        output.display()
    ));
    Ok(())
}

/// Checks everything that can be checked without scoring.
pub fn dry_run(session: &Session, config: &AnnotateConfig) -> Outcome {
    let (records, read) = load_records(&setup::looking_at(&config.data, Uses::TEXT))?;
    let (source, _) = source(session, config)?;
    progress::say(toml::to_string(&crate::config::load::to_table(config))?);
    let responses: usize = records.iter().map(|r| r.responses.len()).sum();
    progress::say(format!("{} rows, {responses} responses to score by {}", read.kept, source.describe()));
    Ok(())
}

/// What gives the rewards, and where a reward model reads them.
fn source(session: &Session, config: &AnnotateConfig) -> Outcome<(Box<dyn RewardSource>, Option<Reading>)> {
    if let Some(rule) = &config.rule {
        return Ok((Box::new(RuleSource::new(rule.clone())?), None));
    }
    if let Some(column) = &config.column {
        return Ok((Box::new(ColumnSource::new(column.clone())), None));
    }
    if config.generative.is_given() {
        return Ok((Box::new(GenerativeSource::open(&config.generative, config.output.as_deref())?), None));
    }
    let dir = config.model.path.as_deref().ok_or_else(|| Failure::usage("model.path", "no source of rewards"))?;
    let encoder = setup::encoder(&config.model)?;
    setup::model_config(&config.model, &encoder)?;
    let options = setup::load_options(config.model.dtype, session.device());
    let model = ModelSource::load(dir, &options, config.normalize, session.device())?.on(&session.devices);
    let reading = Reading::of(&config.model, &encoder, config.encode.response_end)?;
    let model = model.with_batch_tokens(config.batch_tokens).before_padding(reading.padding);
    Ok((Box::new(model), Some(reading)))
}

/// One reward per response, row by row; none where the source has none and may leave it out.
fn score(
    session: &Session,
    config: &AnnotateConfig,
    source: &dyn RewardSource,
    reading: Option<&Reading>,
    records: &[Record],
) -> Outcome<Vec<Option<f64>>> {
    let rows = if source.reads_fields() { fields::of_rows(&config.data, records)? } else { Vec::new() };
    let prompts: Vec<String> = records.iter().map(|r| prompt_text(&r.prompt)).collect();
    let examples = if source.needs_tokens() {
        if config.model.tokenizer_dir().is_none() {
            return Err(Failure::usage(
                "model.tokenizer",
                "this rule counts tokens: set `model.tokenizer` to a folder with tokenizer.json",
            ));
        }
        let encoder = setup::encoder(&config.model)?;
        // A reward model may be meant to read the answers without their thoughts, but its user should know.
        let response_end = reading.map_or(config.encode.response_end, |reading| reading.end);
        let options = EncodeOptions { lost_text: LostText::Count, response_end, ..config.encode.clone() };
        let mut seen = records.to_vec();
        if setup::text_prompts_become_turns(&mut seen, &config.data, &encoder) && !session.quiet {
            setup::note_turns("data");
        }
        let (examples, report) = encoder.encode_all(&seen, &options)?;
        if let Some(first) = &report.first_lost {
            progress::note(format!(
                "warning: the reward model does not see all of the responses of {} of {} rows; the first: {first}",
                report.lost, report.rows
            ));
        }
        if examples.len() < records.len() {
            return Err(Failure::run(format!(
                "{} of {} rows of {} are longer than encode.max_length: {report}",
                records.len() - examples.len(),
                records.len(),
                config.data.path
            ))
            .hint("a reward needs the whole response: raise encode.max_length, or leave it out"));
        }
        examples
    } else {
        Vec::new()
    };
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
    let mut meter = Meter::new(items.len(), "rewards", "responses", session.quiet);
    let rewards = source.score_available(&items, &mut |done| meter.reach(done));
    meter.finish();
    rewards.map_err(|error| {
        // An endpoint that refuses everything is no matter of single responses.
        let single =
            matches!(&error, setpoint_reward::Error::Source { source, .. } if !source.is::<setpoint_eval::Error>());
        let failure = Failure::from(error);
        match source.remedy().filter(|_| single) {
            Some(remedy) => failure.hint(remedy),
            None => failure,
        }
    })
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
