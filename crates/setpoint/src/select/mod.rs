//! `setpoint select`: selects responses by their rewards and writes them as SFT rows, as pairs or as point-wise rows.
//!
//! Rows are read, selected from and written one by one, so that memory does not grow with the file.

mod rule;
mod sampling;
mod scored;
mod tally;

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use setpoint_data::{
    BadRows, DatasetConfig, Prompt, Record, Rewards, Use, Uses, counted, pair_row, pointwise_row, read_records, sft_row,
};
use setpoint_reward::LengthUnit;

pub use self::rule::{Keep, RowForm};
pub use self::sampling::SampleReward;
use self::sampling::Sampling;
use self::scored::Scorer;
use self::tally::{Reason, Tally};
use crate::config::output::{Target, validate_output};
use crate::config::sections::{ModelSection, validate_data};
use crate::config::{Config, Problems};
use crate::failure::{Failure, Outcome};
use crate::generate::SamplingSection;
use crate::job::{DATA, DryRun, Flag, Job, MODEL, OUTPUT, Work};
use crate::partial;
use crate::reference_samples;
use crate::server::ServerSettings;
use crate::session::{Existing, Session};
use crate::setup;

/// Settings of `setpoint select`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SelectConfig {
    /// Rows with responses and rewards, as `setpoint annotate` writes them; with `generate.samples` prompts, whose responses are sampled.
    pub data: DatasetConfig,
    /// The model that samples are drawn from.
    pub model: ModelSection,
    /// The sampling of responses: `samples` to each prompt of the data, which are scored and selected from. Without `samples` the
    /// responses of the rows are.
    pub generate: SamplingSection,
    /// A server that generates in place of this program. `model` then gives the tokenizer and the sizes alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<ServerSettings>,
    /// The source of the rewards of sampled responses.
    pub reward: SampleReward,
    /// The responses of a prompt that are selected, by their scores: the rewards less the length penalty.
    pub keep: Keep,
    /// The form of the rows that are written.
    pub to: RowForm,
    /// The reward that each unit of a response's length costs. The rewards that are written are those that are left.
    #[schemars(range(min = 0))]
    pub length_penalty: f64,
    /// The unit in which the length of a response is counted.
    pub length_unit: LengthUnit,
    /// Folder with `tokenizer.json`, to count tokens.
    pub tokenizer: Option<PathBuf>,
    /// Keeps one of several responses of a prompt that are equal but for white space: the one with the greatest score, the first of equals.
    pub deduplicate: bool,
    /// The smallest difference between the scores of a pair. Equal scores make no pair.
    #[schemars(range(min = 0))]
    pub min_margin: f64,
    /// The JSONL file to write.
    pub output: Option<PathBuf>,
}

impl Default for SelectConfig {
    fn default() -> Self {
        Self {
            data: DatasetConfig::new(""),
            model: ModelSection::default(),
            generate: SamplingSection::default(),
            server: None,
            reward: SampleReward::default(),
            keep: Keep::default(),
            to: RowForm::default(),
            length_penalty: 0.0,
            length_unit: LengthUnit::Chars,
            tokenizer: None,
            deduplicate: true,
            min_margin: 0.0,
            output: None,
        }
    }
}

impl Config for SelectConfig {
    fn validate(&self, problems: &mut Problems<'_>) {
        validate_data(&self.data, "data", problems);
        problems.require(self.output.is_some(), "output", "nowhere to write: give --output FILE");
        validate_output(self.output.as_ref(), Target::File, problems);
        sampling::validate(self, problems);
        match self.keep {
            Keep::Top(count) => problems.require(count > 0, "keep", "`top` must be at least 1"),
            Keep::Above(least) => problems.require(least.is_finite(), "keep", "`above` must be a finite number"),
            Keep::Auto | Keep::Best | Keep::BestWorst | Keep::All => {}
        }
        problems.require(
            self.to != RowForm::Pairs || matches!(self.keep, Keep::Auto | Keep::BestWorst | Keep::All),
            "keep",
            "a pair has a better and a worse response: set `keep` to \"best_worst\", or to \"all\" for every two",
        );
        problems.require(
            self.to != RowForm::Sft || self.keep != Keep::BestWorst,
            "keep",
            "SFT would learn the worst response as well: set `keep` to \"best\", or `to` to \"pairs\"",
        );
        for (key, number) in [("length_penalty", self.length_penalty), ("min_margin", self.min_margin)] {
            problems.require(number.is_finite() && number >= 0.0, key, "must be a finite number, 0 or greater");
        }
        problems.require(
            self.min_margin == 0.0 || self.to == RowForm::Pairs,
            "min_margin",
            "only pairs have a margin: set `to` to \"pairs\", or leave `min_margin` out",
        );
        problems.require(
            self.length_unit != LengthUnit::Tokens || self.tokenizer.is_some(),
            "tokenizer",
            "tokens are counted by a tokenizer: set `tokenizer` to a folder with tokenizer.json",
        );
        problems.require(
            self.length_unit == LengthUnit::Tokens || self.tokenizer.is_none(),
            "tokenizer",
            "no tokens are counted: set `length_unit` to \"tokens\", or leave `tokenizer` out",
        );
    }
}

/// `setpoint select`.
#[derive(Debug)]
pub struct Select;

impl Job for Select {
    type Config = SelectConfig;

    const COMMAND: &'static str = "select";
    const FLAGS: &'static [Flag] = &[
        Flag { help: "Rows with responses and rewards, or prompts with --samples (setting data.path)", ..DATA },
        Flag { help: "JSONL file to write (setting output)", ..OUTPUT },
        Flag::text("to", "FORM", "to", "The rows to write: sft, pairs or pointwise (setting to)"),
        Flag::text(
            "keep",
            "RULE",
            "keep",
            "What is selected: best, best_worst or all; --set keep.top=4, --set keep.above=0.5 (setting keep)",
        ),
        Flag::count(
            "samples",
            "N",
            "generate.samples",
            "Sample N responses to each prompt, score them and select among them (setting generate.samples)",
        ),
        Flag { help: "Model that responses are sampled from (setting model.path)", ..MODEL },
        Flag::path(
            "reward",
            "DIR",
            "reward.model.path",
            "Reward model that scores the samples (setting reward.model.path)",
        ),
    ];
    const WORK: Work<SelectConfig> = Work::Rows(run);
    const DRY_RUN: DryRun<SelectConfig> = DryRun::Text(dry_run);
    const ONE_DEVICE: bool = true;

    fn about() -> Cow<'static, str> {
        "Select responses by their rewards: best of n, rejection sampling, pairs".into()
    }

    fn help() -> Cow<'static, str> {
        "Examples:\n  setpoint select --data rewards.jsonl --output best.jsonl\n  \
         setpoint select --data rewards.jsonl --set keep.above=0.5 --output good.jsonl\n  \
         setpoint select --data rewards.jsonl --to pairs --set min_margin=0.2 --output pairs.jsonl\n  \
         setpoint select --samples 8 --model runs/sft/model --reward runs/reward/model --data prompts.jsonl --output best.jsonl\n\n\
         All settings with their defaults: setpoint inspect config select"
            .into()
    }
}

/// Selects responses, and writes them.
///
/// # Errors
/// When the rows cannot be read, a response has no reward, nothing is selected, or the file cannot be written. A file that was there is then
/// as it was.
pub fn run(session: &Session, config: &SelectConfig) -> Outcome {
    let output = check(session, config)?;
    let sampled = match Sampling::of(session, config, output)? {
        Some(sampling) => Some(SelectConfig { data: sampling.run(session, config)?, ..config.clone() }),
        None => None,
    };
    let config = sampled.as_ref().unwrap_or(config);
    let mut tally = Tally::default();
    setpoint_files::write(output, |out| -> Outcome {
        tally = select(session, config, &mut |row| {
            let line = serde_json::to_string(&row)? + "\n";
            Ok(out.put(line.as_bytes())?)
        })?;
        tally.require_any(config)
    })?;
    setup::note_left_out("data", &tally.read);
    tally.left_out(config).iter().for_each(|line| log::info!("{line}"));
    log::info!("{} written to {}", tally.written(config.to), output.display());
    Ok(())
}

/// Selects responses without writing them, and returns what would be written, in sentences.
///
/// # Errors
/// Everything of [`run`] but what the disk refuses.
pub fn dry_run(session: &Session, config: &SelectConfig) -> Outcome<String> {
    let output = check(session, config)?;
    if let Some(sampling) = Sampling::of(session, config, output)? {
        return sampling.dry_run(session);
    }
    let tally = select(session, config, &mut |_| Ok(()))?;
    tally.require_any(config)?;
    let mut lines = vec![format!("{}, {} in all", tally.written(config.to), counted(tally.responses, "response"))];
    lines.extend(tally.left_out(config));
    Ok(lines.join("\n"))
}

/// Fails if the output must not be written, and returns it.
fn check<'c>(session: &Session, config: &'c SelectConfig) -> Outcome<&'c Path> {
    let Some(output) = config.output.as_deref() else {
        return Err(Failure::usage("output", "nowhere to write: give --output FILE"));
    };
    let place = |path: &Path| path.canonicalize().ok();
    let is_output = |data: DatasetConfig| place(Path::new(&data.path)) == place(output);
    if place(output).is_some() && config.data.each().into_iter().any(is_output) {
        return Err(Failure::usage("output", format!("`{}` is the data: give another file", output.display())));
    }
    if session.existing == Existing::Continue && output.is_file() {
        let message = format!("{} exists already, and a selection is written whole", output.display());
        return Err(Failure::run(message).hint("give --overwrite to replace it, or another --output"));
    }
    partial::check(session, Some(output))?;
    Ok(output)
}

/// A row that is written.
type Row = Map<String, Value>;

/// Hands out the rows of what is selected, one by one.
fn select(session: &Session, config: &SelectConfig, put: &mut dyn FnMut(Row) -> Outcome) -> Outcome<Tally> {
    // The rewards decide, whatever the labels say.
    const USES: Uses = Uses { rewards: Use::Always, labels: Use::Never, margin: false, rejected: true };
    let data = DatasetConfig { rewards: Rewards::Required, ..setup::looking_at(&config.data, USES) };
    let scorer = Scorer::new(config)?;
    let _watch = session.watch();
    let mut tally = Tally::default();
    for record in read_records(&data)? {
        if session.host.should_stop() {
            return Err(Failure::Stopped { message: "stopped: nothing is written".to_owned() });
        }
        tally.read.rows += 1;
        let mut record = match record {
            Ok(record) => record,
            Err(error) if data.on_bad_row == BadRows::Drop && error.is_row() => {
                tally.leave_out(&error);
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        tally.read.kept += 1;
        check_row(config, &record)?;
        tally.responses += record.responses.len();
        tally.repeated += scorer.score(&mut record)?;
        match put_selected(config, &mut record, put)? {
            Ok(written) => {
                tally.selected += 1;
                tally.written += written;
            }
            Err(reason) => tally.select_none(reason, &record.source),
        }
    }
    Ok(tally)
}

/// Fails if a setting does not reach a part of the row.
fn check_row(config: &SelectConfig, record: &Record) -> Outcome {
    let at = &record.source;
    if config.data.system.is_some() && matches!(record.prompt, Prompt::Text(_)) {
        let message = format!("{at}: `data.system` is a turn of a conversation, and the prompt is plain text");
        return Err(Failure::run(message).hint("make user turns of such prompts: --set data.text_prompts=user"));
    }
    let sampled = reference_samples::column(record, reference_samples::REWARDS).is_some();
    if sampled && config.length_penalty > 0.0 && config.to == RowForm::Pointwise {
        let message = format!("{at}: the length penalty does not reach `{}`", reference_samples::REWARDS);
        return Err(Failure::run(message).hint("put the penalty into the rewards, by a rule of `setpoint annotate`"));
    }
    Ok(())
}

/// Hands out the rows of one prompt and returns their number, or why there are none. Leaves in the record what is selected.
fn put_selected(
    config: &SelectConfig,
    record: &mut Record,
    put: &mut dyn FnMut(Row) -> Outcome,
) -> Outcome<Result<usize, Reason>> {
    let keep = config.keep.of_form(config.to);
    let scores: Vec<f64> = record.responses.iter().map(|response| response.reward.unwrap_or(0.0)).collect();
    if scores.is_empty() {
        return Ok(Err(Reason::Unanswered));
    }
    if config.to == RowForm::Pairs {
        if scores.len() == 1 {
            return Ok(Err(Reason::Single));
        }
        let responses = &record.responses;
        let count = keep.pairs(&scores, config.min_margin, &mut |better, worse| -> Outcome {
            put(pair_row(record, &responses[better], &responses[worse])?)
        })?;
        return Ok(if count > 0 { Ok(count) } else { Err(Reason::Close) });
    }
    let selected = keep.responses(&scores);
    if selected.is_empty() {
        return Ok(Err(Reason::Below));
    }
    if config.to == RowForm::Sft {
        for &at in &selected {
            put(sft_row(record, &record.responses[at])?)?;
        }
        return Ok(Ok(selected.len()));
    }
    let mut at = 0..;
    record.responses.retain(|_| at.next().is_some_and(|j| selected.binary_search(&j).is_ok()));
    put(pointwise_row(record)?)?;
    Ok(Ok(1))
}
