//! Samples of a reference model for each prompt, with rewards from the same source as the responses: the columns that
//! `align.log_z0 = "per_prompt"` reads.
//!
//! Samples are drawn before anything is scored, so that the reference and a reward model are never in memory together. They and then their
//! rewards are kept in a file of their own, `OUTPUT.reference.partial`, until the output is whole: what was drawn or scored once is not
//! drawn or scored again.

mod draw;
mod plan;
mod settings;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use setpoint_align::LEAST_SAMPLES;
use setpoint_data::{EncodeOptions, Record, Response, counted};
use setpoint_eval::Summary;
use setpoint_reward::RewardSource;

use self::draw::{Drawn, draw};
pub use self::plan::Plan;
pub use self::settings::ReferenceSection;
use super::scoring::{RowTokens, ToScore, score};
use super::{AnnotateConfig, Needs};
use crate::failure::{Failure, Outcome};
use crate::partial::{self, PartialRows};
use crate::reference_samples::{RESPONSES, REWARDS, SETTINGS};
use crate::session::Session;
use crate::setup;

/// Returns the name under which drawn samples are kept, with `.partial` behind it, until the output is whole.
fn kept_path(output: &Path) -> PathBuf {
    partial::with_ending(output, ".reference")
}

/// Fails if the output, or the samples that an interrupted command kept beside it, would be replaced unasked.
pub fn check_outputs(session: &Session, config: &AnnotateConfig) -> Outcome {
    partial::check(session, config.output.as_deref())?;
    match config.output.as_deref().filter(|output| output.is_file() || !output.exists()) {
        Some(output) if config.reference.samples().is_some() => partial::check(session, Some(&kept_path(output))),
        _ => Ok(()),
    }
}

/// Removes the samples that were kept beside an output that is whole.
pub fn discard(output: &Path) {
    partial::discard(&kept_path(output));
}

/// Says what the samples of a reference model cost.
pub fn cost(plan: &Plan, needs: &Needs, records: &[Record]) -> String {
    let samples = plan.samples * plan.of_row.iter().flatten().count();
    let responses: usize = records.iter().map(|record| record.responses.len()).sum();
    let questions = needs.questions.map_or_else(String::new, |each| {
        format!(
            "; at most {} to the judge, with those about the responses",
            counted(each * (samples + responses), "question")
        )
    });
    format!("{}; scored by the same source as the responses{questions}", plan.cost())
}

/// The samples and scores of an interrupted command, and those that this one adds.
pub struct Kept {
    /// `None` if the output is a device or a pipe, which nothing can be kept beside.
    file: Option<PartialRows>,
    /// The lines that were left.
    lines: Vec<String>,
    /// Lines so far.
    count: usize,
}

impl Kept {
    /// Opens a new file, or the one that an interrupted command left.
    ///
    /// # Errors
    /// When that was computed from something else, or the disk refuses.
    pub fn open(session: &Session, output: &Path, identity: &Value) -> Outcome<Self> {
        let is_file = output.is_file() || !output.exists();
        let file = is_file.then(|| PartialRows::open(session, &kept_path(output), identity)).transpose()?;
        let lines = file.as_ref().map(|file| file.lines().to_vec()).unwrap_or_default();
        Ok(Self { count: lines.len(), file, lines })
    }

    /// Reads up to `most` of the lines that were left, from `begin` on.
    fn read<V: DeserializeOwned>(&self, begin: usize, most: usize) -> Outcome<Vec<V>> {
        let lines = self.lines.iter().skip(begin).take(most).map(|line| serde_json::from_str(line));
        lines.collect::<Result<_, _>>().map_err(|_| {
            Failure::run("the samples that an interrupted command left are damaged")
                .hint("give --overwrite to begin again")
        })
    }

    /// Adds a line for each value.
    fn push<V: Serialize>(&mut self, values: &[V]) -> Outcome {
        let lines = values.iter().map(serde_json::to_string).collect::<Result<Vec<_>, _>>()?;
        self.count += lines.len();
        match &mut self.file {
            Some(file) => file.push(&lines, self.count, &[]),
            None => Ok(()),
        }
    }
}

/// The samples of some rows, with their rewards.
pub struct Samples {
    /// Each set of samples with its rewards; `None` where the source has no score and may leave it out.
    sets: Vec<(Drawn, Vec<Option<f64>>)>,
    /// Of each row: its set, unless it keeps what it has.
    of_row: Vec<Option<usize>>,
    /// The note on the way in which they were made.
    note: Value,
}

/// Draws the samples that are planned, and has them scored by the source that `open` returns. It is not asked to end.
///
/// # Errors
/// When a model cannot be read, a sample cannot be scored or what was done cannot be kept.
pub fn draw_and_score<'s>(
    session: &Session,
    config: &AnnotateConfig,
    needs: &Needs,
    plan: Plan,
    records: &[Record],
    kept: &mut Kept,
    open: &dyn Fn() -> Outcome<&'s dyn RewardSource>,
) -> Outcome<Samples> {
    let drawn = draw(session, config, &plan, kept)?;
    warn_of_cut(&plan, &drawn);
    let source = open()?;
    let (units, of_row) = units(needs, source, &plan, records);
    let sets: Vec<Record> = units.iter().map(|&(row, prompt)| set(&records[row], &drawn[prompt])).collect();
    let tokens = match needs.tokens {
        Some(_) => tokens(config, needs, &sets)?,
        None => Vec::new(),
    };
    let mut rewards: Vec<Vec<Option<f64>>> = kept.read(drawn.len(), sets.len())?;
    let rows = ToScore { what: "rewards of reference samples", records: &sets, tokens: &tokens, is_last: false };
    let done = rewards.len();
    score(session, config, source, &rows, done, &mut |part, scores| {
        let mut scores = scores.into_iter();
        let part: Vec<Vec<Option<f64>>> =
            sets[part].iter().map(|set| scores.by_ref().take(set.responses.len()).collect()).collect();
        kept.push(&part)?;
        rewards.extend(part);
        Ok(())
    })?;
    let sets = units.into_iter().map(|(_, prompt)| drawn[prompt].clone()).zip(rewards).collect();
    Ok(Samples { sets, of_row, note: plan.note })
}

/// Returns the sets of samples that are scored, each as its first row and its prompt, and which of them each row has. Rows share one if the
/// source cannot tell them apart.
fn units(
    needs: &Needs,
    source: &dyn RewardSource,
    plan: &Plan,
    records: &[Record],
) -> (Vec<(usize, usize)>, Vec<Option<usize>>) {
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut units = Vec::new();
    let of_row = plan.of_row.iter().enumerate().map(|(row, prompt)| {
        let prompt = (*prompt)?;
        let Record { prompt: text, extra, .. } = &records[row];
        let seen = match needs.reading {
            Some(_) => format!("{prompt} {text:?}"),
            None if source.reads_fields() => format!("{prompt} {row}"),
            None => format!("{prompt} {text:?} {extra:?}"),
        };
        Some(*places.entry(seen).or_insert_with(|| {
            units.push((row, prompt));
            units.len() - 1
        }))
    });
    let of_row = of_row.collect();
    (units, of_row)
}

/// Returns a row whose responses are the samples of its prompt.
fn set(row: &Record, drawn: &Drawn) -> Record {
    let responses = drawn.samples.iter().map(Response::new).collect();
    Record { responses, ..row.clone() }
}

/// Returns the samples as the tokens that the source reads.
fn tokens(config: &AnnotateConfig, needs: &Needs, sets: &[Record]) -> Outcome<Vec<RowTokens>> {
    let encoder = setup::encoder(&config.model)?;
    let positions = match needs.reading {
        Some(_) => Some(setup::model_config(&config.model, &encoder)?.max_position_embeddings),
        None => None,
    };
    let options = EncodeOptions { response_end: config.encode.response_end, ..EncodeOptions::default() };
    let row = |set: &Record| -> Outcome<RowTokens> {
        let mut row = RowTokens::default();
        for (i, sample) in set.responses.iter().enumerate() {
            // One of whitespace alone is no response of a template.
            let text = if sample.message.is_empty() { "" } else { sample.text() };
            let (prompt, ids) = match &needs.reading {
                Some(reading) => setup::answer_ids(&encoder, set, text, reading)?,
                None => setup::answer_tokens(&encoder, set, text, &options, &|_| ())?,
            };
            let length = prompt.len() + ids.len();
            if let Some(positions) = positions.filter(|&positions| length > positions) {
                return Err(Failure::run(format!(
                    "{}: reference sample {i} has {length} tokens with its prompt, but the reward model reads {positions}",
                    set.source
                ))
                .hint("lower reference.generate.max_new_tokens"));
            }
            row.prompt = prompt;
            row.responses.push(ids);
        }
        Ok(row)
    };
    setup::seen(sets, &config.data, &encoder).iter().map(row).collect()
}

fn warn_of_cut(plan: &Plan, drawn: &[Drawn]) {
    let cut: usize = drawn.iter().map(|drawn| drawn.cut).sum();
    if cut > 0 {
        log::warn!(
            "{cut} of {} did not end within {} and are kept as they were cut: their rewards are those of unfinished texts; raise \
             reference.generate.max_new_tokens if they are many",
            counted(plan.samples * drawn.len(), "reference sample"),
            counted(plan.settings.max_new_tokens, "token"),
        );
    }
}

impl Samples {
    /// Adds its samples to a row that has none of its own.
    pub fn add_to(&self, row: usize, record: &mut Record) {
        let Some(set) = self.of_row[row] else { return };
        let (drawn, rewards) = &self.sets[set];
        let scored = drawn.samples.iter().zip(rewards).filter_map(|(sample, reward)| Some((sample, (*reward)?)));
        let (samples, rewards): (Vec<Value>, Vec<Value>) =
            scored.map(|(sample, reward)| (Value::from(sample.as_str()), Value::from(reward))).unzip();
        let columns =
            [(RESPONSES, Value::Array(samples)), (REWARDS, Value::Array(rewards)), (SETTINGS, self.note.clone())];
        record.extra.extend(columns.map(|(name, value)| (name.to_owned(), value)));
    }

    /// Says how many there are and what their rewards are.
    pub fn report(&self) -> Outcome {
        let scored = |set: &(Drawn, Vec<Option<f64>>)| set.1.iter().flatten().count();
        let rewards: Vec<f64> = self.sets.iter().flat_map(|set| set.1.iter().flatten().copied()).collect();
        if rewards.is_empty() {
            return Ok(());
        }
        let summary = Summary::of(&rewards)?;
        log::info!(
            "{} with rewards: mean {:.3}, deviation {:.3}, from {:.3} to {:.3}",
            counted(rewards.len(), "reference sample"),
            summary.mean,
            summary.std_dev,
            summary.min,
            summary.max
        );
        let few = self.sets.iter().filter(|set| scored(set) < LEAST_SAMPLES).count();
        if few > 0 {
            log::warn!(
                "{few} of {} have fewer than {LEAST_SAMPLES} samples with a reward, which are too few for an estimate of log Z(x)",
                counted(self.sets.len(), "prompt")
            );
        }
        Ok(())
    }
}
