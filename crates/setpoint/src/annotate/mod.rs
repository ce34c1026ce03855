//! `setpoint annotate`: gives every response a reward, by a reward model, by rules, from a column or by a judge behind an endpoint, and
//! writes point-wise rows.

pub mod fields;
mod scoring;

use std::borrow::Cow;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use setpoint_data::{
    DatasetConfig, EncodeOptions, Example, LostText, Prompt, Record, ResponseEnd, Uses, counted, load_records,
    pointwise_row,
};
use setpoint_eval::Summary;
pub use setpoint_reward::{Error as RewardError, RewardSource, Scored};

use self::scoring::score;
use crate::config::flat::flat_section;
use crate::config::output::{Target, validate_output};
use crate::config::sections::{ModelSection, validate_data, validate_encode};
use crate::config::{Config, Problems};
use crate::failure::{Failure, Outcome};
use crate::job::{DATA, DryRun, Flag, Job, MODEL, OUTPUT, Work};
use crate::partial::{self, PartialRows};
use crate::session::Session;
use crate::setup::{self, Reading};
use crate::sources::{self, Entry, ModelSettings, Opening, Sources, ToValue as _};

/// Settings of `setpoint annotate`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(remote = "Self", deny_unknown_fields)]
#[schemars(rename = "AnnotateConfig")]
pub struct AnnotateConfig {
    /// The reward model; or one of the other sources.
    pub model: ModelSection,
    /// The other sources, `rule`, `column` and so on.
    #[serde(flatten, skip_deserializing)]
    pub sources: Sources,
    /// Apply the mean and deviation that the reward model stores.
    pub normalize: bool,
    /// Rows with responses.
    pub data: DatasetConfig,
    /// The conversion of rows to tokens, for sources that read tokens.
    pub encode: EncodeOptions,
    /// Tokens in one forward pass.
    #[schemars(range(min = 1), extend("x-unit" = "tokens"))]
    pub batch_tokens: usize,
    /// The JSONL file to write.
    pub output: Option<PathBuf>,
}

flat_section!(AnnotateConfig, sources: Sources, after "model");

impl Default for AnnotateConfig {
    fn default() -> Self {
        Self {
            model: ModelSection::default(),
            sources: Sources::default(),
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
        let model = self.reward_model();
        let entries = sources::with_model("model", &model, self.sources.entries());
        sources::require_chosen("source of rewards", "", "model.path", &entries, problems);
        // A rule may need the tokenizer of a model, not its weights: that is model.tokenizer.
        sources::validate("", &entries, ("give one source of rewards", Some("model.path")), problems);
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

impl AnnotateConfig {
    fn reward_model(&self) -> ModelSettings<'_> {
        ModelSettings { section: &self.model, normalize: self.normalize }
    }
}

/// `setpoint annotate`.
#[derive(Debug)]
pub struct Annotate;

impl Job for Annotate {
    type Config = AnnotateConfig;

    const COMMAND: &'static str = "annotate";
    const FLAGS: &'static [Flag] = &[MODEL, DATA, OUTPUT];
    const WORK: Work<AnnotateConfig> = Work::Rows(run);
    const DRY_RUN: DryRun<AnnotateConfig> = DryRun::Text(dry_run);

    fn about() -> Cow<'static, str> {
        "Give every response a reward: by a reward model, by rules, or from a column".into()
    }

    fn help() -> Cow<'static, str> {
        "Examples:\n  setpoint annotate --model runs/reward/model --data responses.jsonl --output rewards.jsonl\n  \
         setpoint annotate rules.toml --data responses.jsonl --output rewards.jsonl\n\n\
         All settings with their defaults: setpoint inspect config annotate"
            .into()
    }
}

/// What has to be known of a source before it is opened.
struct Needs {
    /// Why it reads tokens, if it does.
    tokens: Option<&'static str>,
    /// Where a reward model reads the rewards, if one gives them.
    reading: Option<Reading>,
    /// Hashes of what decides the rewards besides the settings.
    inputs: Vec<(&'static str, String)>,
    /// Settings of the source that do not decide the rewards, with its key.
    free: (&'static str, &'static [&'static str]),
}

impl Needs {
    fn of(config: &AnnotateConfig, (key, settings): Entry<'_>) -> Outcome<Self> {
        Ok(Self {
            tokens: settings.token_use(),
            reading: reading(config)?,
            inputs: Vec::new(),
            free: (key, settings.free_settings()),
        })
    }
}

/// Scores every response by the source that the settings choose, and writes the rows with their rewards.
///
/// # Errors
/// When the settings choose no source; when data, model or source cannot be read or do not fit; when a response cannot be scored or a row
/// cannot be written.
pub fn run(session: &Session, config: &AnnotateConfig) -> Outcome {
    let model = config.reward_model();
    let chosen = chosen(config, &model)?;
    let needs = || -> Outcome<Needs> {
        let needs = Needs::of(config, chosen)?;
        Ok(Needs { inputs: chosen.1.inputs()?, ..needs })
    };
    write(session, config, &needs, &|needs| chosen.1.open(&opening(session, config, needs)))
}

/// Scores every response by a source of the caller's, and writes the rows with their rewards. A source that reads tokens gets those of
/// `model.tokenizer`.
///
/// # Errors
/// When the settings choose a source as well; else those of [`run`].
pub fn run_with(session: &Session, config: &AnnotateConfig, source: &dyn RewardSource) -> Outcome {
    let model = config.reward_model();
    if let Some((key, settings)) = sources::chosen(("model", &model), &config.sources.entries()) {
        let message = "the program brings a source of rewards: leave out that of the settings";
        return Err(Failure::usage(settings.chosen_by(key), message));
    }
    let needs = || -> Outcome<Needs> {
        Ok(Needs {
            tokens: source.needs_tokens().then_some("this source reads tokens"),
            reading: None,
            inputs: vec![("source", source.identity())],
            free: ("", &[]),
        })
    };
    write(session, config, &needs, &|_| Ok(Box::new(source)))
}

/// Returns the source that the settings choose.
fn chosen<'a>(config: &'a AnnotateConfig, model: &'a ModelSettings<'a>) -> Outcome<Entry<'a>> {
    sources::chosen(("model", model), &config.sources.entries())
        .ok_or_else(|| Failure::usage("model.path", "no source of rewards"))
}

fn opening<'a>(session: &'a Session, config: &'a AnnotateConfig, needs: &Needs) -> Opening<'a> {
    let padding = needs.reading.as_ref().and_then(|reading| reading.padding);
    Opening { session, batch_tokens: config.batch_tokens, padding, output: config.output.as_deref() }
}

fn write<'s>(
    session: &Session,
    config: &AnnotateConfig,
    needs: &dyn Fn() -> Outcome<Needs>,
    open: &dyn Fn(&Needs) -> Outcome<Box<dyn RewardSource + 's>>,
) -> Outcome {
    partial::check(session, config.output.as_deref())?;
    let (mut records, read) = load_records(&setup::looking_at(&config.data, Uses::TEXT))?;
    setup::note_left_out("data", &read);
    if config.data.system.is_some() && config.model.tokenizer_dir().is_some() {
        // The next job would not know the system turn of these settings: it is written with the prompt.
        setup::text_prompts_become_turns(&mut records, &config.data, &setup::encoder(&config.model)?);
    }
    let needs = needs()?;
    let examples = examples(session, config, &needs, &mut records)?;
    let output = config.output.as_deref().unwrap_or(Path::new("rewards.jsonl"));
    let identity = identity(session, config, &needs, &records)?;
    if partial::is_complete(session, output, &identity)? {
        return Ok(());
    }
    let mut file = PartialRows::open(session, output, &identity)?;
    let source = open(&needs)?;
    let mut rewards = kept_rewards(file.lines());
    let done = file.done();
    score(session, config, source.as_ref(), &examples, &records, done, &mut |rows, scores| {
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
        "{} of {} by {}: mean {:.3}, deviation {:.3}, from {:.3} to {:.3}; written to {}",
        counted(rewards.len(), "reward"),
        counted(written, "row"),
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

/// Returns what decides the rewards.
fn identity(session: &Session, config: &AnnotateConfig, needs: &Needs, records: &[Record]) -> Outcome<Value> {
    let mut inputs = vec![("data", partial::records_hash(records))];
    inputs.extend(needs.inputs.iter().cloned());
    if config.model.tokenizer_dir().is_some() {
        inputs.push(("tokenizer or template", setup::encoder(&config.model)?.fingerprint()));
    }
    let mut settings = config.to_value()?;
    let (key, free) = needs.free;
    if let Some(section) = settings.get_mut(key).and_then(Value::as_object_mut) {
        section.retain(|name, _| !free.contains(&name.as_str()));
    }
    partial::identity(session, "annotate", &settings, &inputs)
}

/// Checks everything that can be checked without scoring, and returns what would be scored, in a sentence.
///
/// # Errors
/// Everything of [`run`] that can be found without scoring.
pub fn dry_run(session: &Session, config: &AnnotateConfig) -> Outcome<String> {
    partial::check(session, config.output.as_deref())?;
    let (mut records, _) = load_records(&setup::looking_at(&config.data, Uses::TEXT))?;
    let model = config.reward_model();
    let chosen = chosen(config, &model)?;
    let needs = Needs::of(config, chosen)?;
    examples(session, config, &needs, &mut records)?;
    let source = chosen.1.open(&opening(session, config, &needs))?;
    if chosen.1.is_free() {
        score(session, config, source.as_ref(), &[], &records, 0, &mut |_, _| Ok(()))?;
    }
    let responses: usize = records.iter().map(|r| r.responses.len()).sum();
    Ok(format!(
        "{}, {} to score by {}",
        counted(records.len(), "row"),
        counted(responses, "response"),
        source.describe()
    ))
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

/// The rows as tokens for a source that reads tokens, none for another. Rows that do not become tokens, too long ones for example, are left
/// out of the records and counted, unless the settings make them an error.
fn examples(
    session: &Session,
    config: &AnnotateConfig,
    needs: &Needs,
    records: &mut Vec<Record>,
) -> Outcome<Vec<Example>> {
    let Some(why) = needs.tokens else { return Ok(Vec::new()) };
    if config.model.tokenizer_dir().is_none() {
        return Err(Failure::usage(
            "model.tokenizer",
            format!("{why}: set `model.tokenizer` to a folder with tokenizer.json"),
        ));
    }
    let reading = needs.reading.as_ref();
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

/// The prompt as a rule or a judge reads it.
pub fn prompt_text(prompt: &Prompt) -> String {
    match prompt {
        Prompt::Text(text) => text.clone(),
        Prompt::Messages(messages) => {
            messages.iter().map(|m| format!("{}: {}", m.role, m.content)).collect::<Vec<_>>().join("\n")
        }
    }
}
