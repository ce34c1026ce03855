//! Sources of rewards as settings: reward models, and the list of all others.
//!
//! A source is one file here, with its settings and how they are opened, and one line in the list below: `any` sources score whatever
//! response they are given, also those that an evaluation samples; `recorded` ones score the responses of a file. From the list follow the
//! settings of `annotate`, `eval`, `sweep` and `compare`, their checks and messages, and what decides whether an interrupted job goes on.
//! `docs/dev/reward-source.md` walks through the addition of one.

#[macro_use]
mod list;

mod model;

use std::collections::HashSet;
use std::fmt::Debug;
use std::path::Path;

use serde::Serialize;
use serde::de::MapAccess;
use serde_json::Value;
use setpoint_data::Source;
use setpoint_reward::{Error, RewardSource, Rule};

pub use self::model::ModelSettings;
use crate::config::Problems;
use crate::config::flat::Section;
use crate::failure::{Failure, Outcome};
use crate::session::Session;

reward_sources! {
    any {
        /// A rule that gives rewards without a model (docs/REWARDS.md).
        rule: Option<Rule>,
        /// A program of your own that gives rewards (docs/REWARDS.md).
        command: Option<command::CommandSettings>,
    }
    recorded {
        /// The column of the rows that holds rewards (docs/REWARDS.md).
        column: column::ColumnSettings,
        /// A judge behind an endpoint that is asked for a score (docs/REWARDS.md).
        generative: generative::GenerativeSection,
    }
}

/// The input of a judge whose template is a file.
pub(crate) const TEMPLATE: &str = "judge's template";

/// The settings of one kind of source.
pub trait SourceSettings: Debug + ToValue {
    /// Returns the setting that chooses the source, whose settings are in the section `key`.
    fn chosen_by(&self, key: &str) -> String {
        key.to_owned()
    }

    /// Tells how to give the source, as part of a list: "the name of a `column`".
    fn advice(&self, key: &str) -> String;

    /// Returns whether the settings choose the source.
    fn is_given(&self) -> bool;

    /// Notes what is wrong with the settings, also those of a source that is not chosen.
    fn validate(&self, key: &str, problems: &mut Problems<'_>);

    /// Says why the source needs tokens, if it does.
    fn token_use(&self) -> Option<&'static str> {
        None
    }

    /// Returns whether the source scores responses that are sampled in the job, not only those of a file.
    fn scores_samples(&self) -> bool {
        true
    }

    /// Returns whether scoring costs nothing, so that a dry run does it to find what is wrong with the rows.
    fn is_free(&self) -> bool {
        false
    }

    /// Returns hashes of what decides the rewards besides the settings, each with a name for messages.
    ///
    /// # Errors
    /// When a file cannot be read.
    fn inputs(&self) -> Outcome<Vec<(&'static str, String)>> {
        Ok(Vec::new())
    }

    /// Returns those settings that do not decide the rewards, such as timeouts: they may change before an interrupted job goes on.
    fn free_settings(&self) -> &'static [&'static str] {
        &[]
    }

    /// Returns how many questions a judge is asked about a response, if a judge gives the rewards.
    fn questions(&self) -> Option<usize> {
        None
    }

    /// Makes the source ready to score.
    ///
    /// # Errors
    /// When a file cannot be read or does not fit.
    fn open(&self, opening: &Opening<'_>) -> Outcome<Box<dyn RewardSource>>;
}

/// A value of settings.
pub trait ToValue {
    /// Returns the settings as JSON.
    ///
    /// # Errors
    /// When they cannot be written as JSON.
    fn to_value(&self) -> Outcome<Value>;
}

impl<T: Serialize> ToValue for T {
    fn to_value(&self) -> Outcome<Value> {
        Ok(serde_json::to_value(self)?)
    }
}

/// The job that a source is opened for.
#[derive(Debug, Clone, Copy)]
pub struct Opening<'a> {
    /// The devices, and the program around the job.
    pub session: &'a Session,
    /// Tokens in one forward pass.
    pub batch_tokens: usize,
    /// The token at the end of a response that a reward model passes over, see [`Reading`](crate::setup::Reading).
    pub padding: Option<u32>,
    /// The file that the rewards go to.
    pub output: Option<&'a Path>,
    /// The section that the settings of sources are in, for messages; empty if they are sections of the job.
    pub section: &'a str,
}

impl Opening<'_> {
    /// Returns the full key of a setting of a source.
    pub fn key(&self, setting: &str) -> String {
        match self.section {
            "" => setting.to_owned(),
            section => format!("{section}.{setting}"),
        }
    }
}

/// A source as it is configured, under its key.
pub type Entry<'a> = (&'static str, &'a dyn SourceSettings);

/// Returns all sources of a job, its reward model first.
pub fn with_model<'a>(key: &'static str, model: &'a ModelSettings<'a>, others: Vec<Entry<'a>>) -> Vec<Entry<'a>> {
    let mut entries: Vec<Entry<'a>> = vec![(key, model as &dyn SourceSettings)];
    entries.extend(others);
    entries
}

/// Returns the source that is chosen: a reward model, or one of the list. At most one is, see [`validate`].
pub fn chosen<'a>(model: Entry<'a>, others: &[Entry<'a>]) -> Option<Entry<'a>> {
    others.iter().copied().chain([model]).find(|(_, settings)| settings.is_given())
}

/// Notes what is wrong with the settings of all sources. `prefix`: the section that they are in, with its dot. Of several that are chosen,
/// the message begins with `several`.
pub fn validate(prefix: &str, entries: &[Entry<'_>], several: (&str, Option<&str>), problems: &mut Problems<'_>) {
    let names: Vec<String> =
        entries.iter().map(|(key, settings)| settings.chosen_by(&format!("{prefix}{key}"))).collect();
    let given = || entries.iter().zip(&names).filter(|((_, settings), _)| settings.is_given()).map(|(_, name)| name);
    let (beginning, place) = several;
    if let Some(second) = given().nth(1) {
        let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
        problems.add(place.unwrap_or(second), format!("{beginning}: {}", alternatives(&names)));
    }
    validate_each(prefix, entries, problems);
}

/// Notes what is wrong with the settings of all sources, of which several may be chosen. `prefix`: the section that they are in, with its dot.
pub fn validate_each(prefix: &str, entries: &[Entry<'_>], problems: &mut Problems<'_>) {
    for (key, settings) in entries {
        settings.validate(&format!("{prefix}{key}"), problems);
    }
}

/// Notes that no source is chosen, and how one is. `what`: the name of a source in the message; `place`: the setting to point at.
pub(crate) fn require_chosen(
    what: &str,
    prefix: &str,
    place: &str,
    entries: &[Entry<'_>],
    problems: &mut Problems<'_>,
) {
    require(what, prefix, place, (entries, entries), problems);
}

/// Notes that no source is chosen for responses that the job samples, and how one is that scores them. `place`: the setting to point at.
pub(crate) fn require_for_samples(prefix: &str, place: &str, entries: &[Entry<'_>], problems: &mut Problems<'_>) {
    let advised: Vec<Entry<'_>> = entries.iter().copied().filter(|(_, settings)| settings.scores_samples()).collect();
    require("source of rewards for the sampled responses", prefix, place, (entries, &advised), problems);
}

/// Notes that none of the first sources is chosen, and how one of the second is.
fn require(
    what: &str,
    prefix: &str,
    place: &str,
    (entries, advised): (&[Entry<'_>], &[Entry<'_>]),
    problems: &mut Problems<'_>,
) {
    let is_chosen = |(key, settings): &Entry<'_>| {
        // One that is given and cannot be read has its own message.
        settings.is_given() || problems.is_unread(&settings.chosen_by(&format!("{prefix}{key}")))
    };
    if !entries.iter().any(is_chosen) {
        let advice: Vec<String> =
            advised.iter().map(|(key, settings)| settings.advice(&format!("{prefix}{key}"))).collect();
        problems.add(place, format!("no {what}: give {}", alternatives(&advice)));
    }
}

/// Joins clauses as `a`, `a or b`, `a, b or c`.
pub fn alternatives(clauses: &[String]) -> String {
    match clauses {
        [most @ .., last] if !most.is_empty() => format!("{} or {last}", most.join(", ")),
        _ => clauses.concat(),
    }
}

/// Turns the error of a source into that of a job: a source that was told to stop did not fail. `rows`: those that the responses belong to.
/// A source knows the number of a row alone; the message names its file, too.
pub fn failure<'r>(session: &Session, error: Error, rows: impl IntoIterator<Item = &'r Source>) -> Failure {
    let failure = match Failure::from(error) {
        Failure::Run { message, hint } => Failure::Run { message: in_file(message, rows), hint },
        other => other,
    };
    match session.host.should_stop() {
        true => Failure::Stopped { message: format!("stopped: {}", failure.sentence()) },
        false => failure,
    }
}

/// Names the file and the line of the row that a message begins with, as in `row 2, response 0: …`. Rows of several files may have the same
/// number: then it names them all, or how many there are.
fn in_file<'r>(message: String, rows: impl IntoIterator<Item = &'r Source>) -> String {
    const MOST_NAMED: usize = 3;
    let Some(after) = message.strip_prefix("row ") else { return message };
    let end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
    let (number, rest) = after.split_at(end);
    let Ok(number) = number.parse::<usize>() else { return message };
    let found: HashSet<&Source> = rows.into_iter().filter(|row| row.is_file() && row.row == number).collect();
    let mut names: Vec<String> = found.into_iter().map(ToString::to_string).collect();
    names.sort();
    match names.len() {
        0 => message,
        1..=MOST_NAMED => format!("{}{rest}", alternatives(&names)),
        more => format!("row {number} of one of {more} files{rest}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_sources_name_the_file_of_the_row() {
        let said = |error: Error, rows: &[Source]| in_file(Failure::from(error).sentence(), rows);
        let missing = || Error::MissingTokens { row: 2, response: 1 };
        let line = |file: &str, row: usize| Source::line(Path::new(file), row, row + 1);
        let [own, other] = [line("a.jsonl", 2), line("a.jsonl", 20)];
        assert!(
            said(missing(), &[other.clone(), own.clone(), own.clone()]).starts_with("a.jsonl:3, response 1: has no")
        );
        let failed = Error::Source { source_name: "judge".into(), row: 20, response: 0, source: "it is down".into() };
        assert_eq!(said(failed, &[own.clone(), other]), "a.jsonl:21, response 0: judge failed: it is down");
        let table = Source::row(Path::new("b.parquet"), 2);
        assert!(
            said(missing(), &[own.clone(), table]).starts_with("a.jsonl:3 or b.parquet: row 2, response 1: has no")
        );
        let many: Vec<Source> = (0..9).map(|file| line(&format!("{file}.jsonl"), 2)).collect();
        assert!(said(missing(), &many).starts_with("row 2 of one of 9 files, response 1: has no"));
        // Rows without a file, of another number, and messages about no row stay as they are.
        let memory = Source::row(Path::new("<memory>"), 2);
        for rows in [&[][..], &[memory], &[line("a.jsonl", 3)]] {
            assert!(said(missing(), rows).starts_with("row 2, response 1: has no"));
        }
        let count = || Error::Count { source_name: "row".into(), expected: 2, found: 1 };
        assert_eq!(said(count(), &[own]), count().to_string());
    }
}
