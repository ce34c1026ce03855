//! `setpoint annotate`: gives every response a reward, by a reward model, by rules, from a column or by a judge behind an endpoint, and
//! writes point-wise rows.

pub mod fields;
mod reference;
mod rows;
mod scoring;

use std::borrow::Cow;
use std::cell::OnceCell;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use setpoint_data::{DatasetConfig, EncodeOptions, Prompt, Record, ResponseEnd, counted, pointwise_row};
use setpoint_eval::Summary;
pub use setpoint_reward::{Error as RewardError, RewardSource, Scored};

pub use self::reference::ReferenceSection;
use self::reference::{Kept, Plan, check_outputs, cost, discard, draw_and_score};
use self::rows::{read, reading, tokens};
use self::scoring::{ToScore, score};
use crate::config::flat::flat_section;
use crate::config::output::{Target, validate_output};
use crate::config::sections::{ModelSection, validate_data, validate_encode};
use crate::config::{Config, Problems};
use crate::failure::{Failure, Outcome};
use crate::job::{DATA, DryRun, Flag, Job, MODEL, OUTPUT, Work};
use crate::partial::{self, PartialRows};
use crate::session::Session;
use crate::setup::{self, Reading};
use crate::sources::{self, Entry, ModelSettings, Opening, SourceSettings as _, Sources, ToValue as _};

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
    /// Samples of a reference model for each prompt, with rewards, as `align.log_z0 = "per_prompt"` reads them.
    pub reference: ReferenceSection,
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
            reference: ReferenceSection::default(),
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
        self.reference.validate(problems);
        problems.require(
            self.reference.samples().is_none() || !self.sources.column.is_given(),
            "column",
            "a column has no rewards for samples that are yet to be drawn: score them by a reward model, a rule, a command or a judge, \
             or leave --reference-samples out",
        );
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
    const FLAGS: &'static [Flag] = &[
        MODEL,
        DATA,
        OUTPUT,
        Flag::path(
            "reference",
            "DIR",
            "reference.model.path",
            "Model that samples are drawn from: the one to be aligned (setting reference.model.path)",
        ),
        Flag::count(
            "reference-samples",
            "K",
            "reference.generate.samples",
            "Draw K samples of the reference for each prompt, at least 8, and score them too (setting reference.generate.samples)",
        ),
    ];
    const WORK: Work<AnnotateConfig> = Work::Rows(run);
    const DRY_RUN: DryRun<AnnotateConfig> = DryRun::Text(dry_run);

    fn about() -> Cow<'static, str> {
        "Give every response a reward: by a reward model, by rules, or from a column".into()
    }

    fn help() -> Cow<'static, str> {
        "Examples:\n  setpoint annotate --model runs/reward/model --data responses.jsonl --output rewards.jsonl\n  \
         setpoint annotate rules.toml --data responses.jsonl --output rewards.jsonl\n  \
         setpoint annotate --model runs/reward/model --reference runs/sft/model --reference-samples 16 --data responses.jsonl --output \
         rewards.jsonl\n\n\
         All settings with their defaults: setpoint inspect config annotate"
            .into()
    }
}

/// The needs of a source, known before it is opened.
struct Needs {
    /// The reason for which it reads tokens, if it does.
    tokens: Option<&'static str>,
    /// The place at which a reward model reads the rewards, if one gives them.
    reading: Option<Reading>,
    /// Hashes of what decides the rewards besides the settings.
    inputs: Vec<(&'static str, String)>,
    /// Settings of the source that do not decide the rewards, with its key.
    free: (&'static str, &'static [&'static str]),
    /// The number of questions that a judge is asked about a response, if a judge gives the rewards.
    questions: Option<usize>,
}

impl Needs {
    fn of(config: &AnnotateConfig, (key, settings): Entry<'_>) -> Outcome<Self> {
        Ok(Self {
            tokens: settings.token_use(),
            reading: reading(config)?,
            inputs: Vec::new(),
            free: (key, settings.free_settings()),
            questions: settings.questions(),
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
            questions: None,
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
    Opening { session, batch_tokens: config.batch_tokens, padding, output: config.output.as_deref(), section: "" }
}

fn write<'s>(
    session: &Session,
    config: &AnnotateConfig,
    needs: &dyn Fn() -> Outcome<Needs>,
    open: &dyn Fn(&Needs) -> Outcome<Box<dyn RewardSource + 's>>,
) -> Outcome {
    check_outputs(session, config)?;
    let mut records = read(config, true)?;
    let needs = needs()?;
    let tokens = tokens(session, config, &needs, &mut records)?;
    let plan = Plan::new(session, config, &needs, &records)?;
    let output = config.output.as_deref().unwrap_or(Path::new("rewards.jsonl"));
    let identity = identity(session, config, &needs, &records, plan.as_ref())?;
    if partial::is_complete(session, output, &identity)? {
        discard(output);
        return Ok(());
    }
    let mut file = PartialRows::open(session, output, &identity)?;
    let opened: OnceCell<Box<dyn RewardSource + 's>> = OnceCell::new();
    let source = || -> Outcome<&dyn RewardSource> {
        if opened.get().is_none() {
            _ = opened.set(open(&needs)?);
        }
        opened.get().map(|source| &**source as &dyn RewardSource).ok_or_else(|| Failure::run("no source of rewards"))
    };
    // A reward model waits until the reference is gone: both may not fit.
    if config.model.path.is_none() || plan.is_none() {
        source()?;
    }
    let samples = match plan {
        None => None,
        Some(plan) => {
            if !session.quiet {
                log::info!("{}", cost(&plan, &needs, &records));
            }
            let mut kept = Kept::open(session, output, &identity)?;
            Some((draw_and_score(session, config, &needs, plan, &records, &mut kept, &source)?, kept))
        }
    };
    let source = source()?;
    let mut rewards = kept_rewards(file.lines());
    let done = file.done();
    let rows = ToScore { what: "rewards", records: &records, tokens: &tokens, is_last: true };
    score(session, config, source, &rows, done, &mut |rows, scores| {
        let mut next = scores.iter();
        let mut lines = Vec::new();
        for row in rows.clone() {
            let mut record = records[row].clone();
            let all = record.responses.len();
            for response in &mut record.responses {
                response.reward = next.next().copied().flatten();
            }
            record.responses.retain(|response| response.reward.is_some());
            if let Some((samples, _)) = &samples {
                samples.add_to(row, &mut record);
            }
            // A row without any responses is an error, which `pointwise_row` names.
            if all == 0 || !record.responses.is_empty() {
                lines.push(serde_json::to_string(&pointwise_row(&record)?)?);
            }
        }
        rewards.extend(scores.into_iter().flatten());
        if rewards.is_empty() && rows.end == records.len() {
            let source = source.describe();
            return Err(Failure::run(format!("no response of {} has a score by {source}", config.data.name())));
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
    if let Some((samples, kept)) = samples {
        samples.report()?;
        // It is closed before it is removed.
        drop(kept);
        discard(output);
    }
    Ok(())
}

/// The rewards in the rows that an interrupted command left.
fn kept_rewards(lines: &[String]) -> Vec<f64> {
    let rows = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let rewards = rows.map(|row| row["rewards"].as_array().cloned().unwrap_or_default());
    rewards.flatten().filter_map(|reward| reward.as_f64()).collect()
}

/// Returns what decides the rewards.
fn identity(
    session: &Session,
    config: &AnnotateConfig,
    needs: &Needs,
    records: &[Record],
    plan: Option<&Plan>,
) -> Outcome<Value> {
    let mut inputs = vec![("data", partial::records_hash(records))];
    inputs.extend(needs.inputs.iter().cloned());
    if config.model.tokenizer_dir().is_some() {
        inputs.push(("tokenizer or template", setup::encoder(&config.model)?.fingerprint()));
    }
    let mut settings = config.to_value()?;
    if let (Some(server), Some(section)) = (&config.reference.server, settings.pointer_mut("/reference/server")) {
        *section = server.deciding().to_value()?;
    }
    if let Some(section) = settings.get_mut(needs.free.0) {
        *section = needs.without_free(section.take());
    }
    match (plan, settings.as_object_mut()) {
        (Some(plan), _) => {
            inputs.extend([
                ("reference model", plan.model_hash.clone()),
                ("reference's tokenizer or template", plan.encoder.fingerprint()),
            ]);
        }
        // Without samples it is the job that it was before there were any.
        (None, Some(settings)) => _ = settings.shift_remove("reference"),
        (None, None) => {}
    }
    partial::identity(session, "annotate", &settings, &inputs)
}

/// Checks everything that can be checked without scoring, and returns what would be scored, in a sentence.
///
/// # Errors
/// Everything of [`run`] that can be found without scoring.
pub fn dry_run(session: &Session, config: &AnnotateConfig) -> Outcome<String> {
    check_outputs(session, config)?;
    let mut records = read(config, false)?;
    let model = config.reward_model();
    let chosen = chosen(config, &model)?;
    let mut needs = Needs::of(config, chosen)?;
    if config.reference.samples().is_some() {
        // They tell which rows have their samples already.
        needs.inputs = chosen.1.inputs()?;
    }
    tokens(session, config, &needs, &mut records)?;
    let plan = Plan::new(session, config, &needs, &records)?;
    let source = chosen.1.open(&opening(session, config, &needs))?;
    if chosen.1.is_free() {
        let rows = ToScore { what: "rewards", records: &records, tokens: &[], is_last: true };
        score(session, config, source.as_ref(), &rows, 0, &mut |_, _| Ok(()))?;
    }
    let responses: usize = records.iter().map(|r| r.responses.len()).sum();
    let work = format!(
        "{}, {} to score by {}",
        counted(records.len(), "row"),
        counted(responses, "response"),
        source.describe()
    );
    Ok(match plan {
        Some(plan) => format!("{work}\n{}", cost(&plan, &needs, &records)),
        None => work,
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
