//! A job: its command, its settings and its work. [`jobs`](crate::jobs) is the list of all.
//!
//! A job is a type with an implementation of [`Job`], in the file of its work, and a line in that list. From the list follow the command
//! with its flags and its help, dry runs, `--resume`, `setpoint plan --job`, `setpoint inspect config` and `setpoint inspect data --job`,
//! and the suggestions for unknown flags.

use std::borrow::Cow;
use std::fmt::{self, Debug, Formatter};
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use setpoint_data::{DatasetConfig, EncodeOptions};
use setpoint_eval::EvalRun;
use toml::Table;

use crate::config::annotated::annotated;
use crate::config::load::{self, load_unchecked, to_table};
use crate::config::schema::schema_of;
use crate::config::{Config, Given, Problem, Problems, has_setting, settings_named};
use crate::failure::{Failure, Outcome};
use crate::fetching::fetch_weights;
use crate::hub;
use crate::session::Session;
use crate::training::{RunPlan, resume};

/// A job.
pub trait Job: Debug + Sync + 'static {
    /// The settings.
    type Config: Config + JsonSchema;

    /// The words after `setpoint` that start it, such as `eval alpaca`.
    const COMMAND: &'static str;

    /// The name under which `setpoint inspect config` knows the settings; jobs may share it.
    const SETTINGS: &'static str = Self::COMMAND;

    /// The flags that stand for settings, besides those that every job has.
    const FLAGS: &'static [Flag] = &[MODEL, DATA];

    /// The work.
    const WORK: Work<Self::Config>;

    /// The work of a dry run.
    const DRY_RUN: DryRun<Self::Config>;

    /// Tells whether the job computes on one device only.
    const ONE_DEVICE: bool = false;

    /// The name under which `setpoint plan` knows the job, if it plans it.
    const PLANNED: Option<Planned> = None;

    /// The view of the rows that `setpoint inspect data` shows under the job's name.
    const VIEW: Option<View> = None;

    /// The command that a user may want next, after a run in this folder; paths in it are [`word`]s.
    const NEXT: Option<fn(&Path) -> String> = None;

    /// Returns the line about the job in the list of commands.
    fn about() -> Cow<'static, str>;

    /// Returns the text after the list of flags: examples, and where to find the settings.
    fn help() -> Cow<'static, str>;
}

/// The work of a job, by the kind of its results.
#[derive(Debug)]
pub enum Work<C> {
    /// Fills a run folder; with `true`, goes on in it.
    Run(fn(&Session, &C, &Path, bool) -> Outcome),
    /// Writes rows as they are computed.
    Rows(fn(&Session, &C) -> Outcome),
    /// Writes a result at the end.
    Result(fn(&Session, &C) -> Outcome),
}

/// The dry run of a job: checks everything that can be checked before the work.
#[derive(Debug)]
pub enum DryRun<C> {
    /// Plans a training.
    Plan(fn(&Session, &C) -> Outcome<RunPlan>),
    /// Describes the work in a text.
    Text(fn(&Session, &C) -> Outcome<String>),
}

/// The result of a dry run.
#[derive(Debug)]
pub enum Forecast {
    /// The plan of a training.
    Plan(Box<RunPlan>),
    /// A description of the work.
    Text(String),
}

/// The kind of a job's results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A run folder.
    Run,
    /// Rows that are written as they are computed.
    Rows,
    /// A result that is written at the end.
    Result,
}

/// A job that `setpoint plan` plans.
#[derive(Debug, Clone, Copy)]
pub struct Planned {
    /// The name of the training.
    pub title: &'static str,
    /// The setting that a file of no other such job has at its top.
    pub told_by: Option<&'static str>,
}

/// A job's view of rows.
#[derive(Debug, Clone, Copy)]
pub struct View {
    /// The content of the view.
    pub about: &'static str,
    /// True if the job selects responses of a row, by `data.responses`.
    pub selects: bool,
    /// Notes what is wrong with a `[data]` section, whose name is given.
    pub validate: fn(&DatasetConfig, &str, &mut Problems<'_>),
    /// Returns how rows are read and become tokens.
    pub read: fn(&DatasetConfig, &EncodeOptions) -> (DatasetConfig, EncodeOptions),
}

/// A flag that stands for a setting.
#[derive(Debug, Clone, Copy)]
pub struct Flag {
    /// The name, without its dashes.
    pub name: &'static str,
    /// The name of its value in the help.
    pub value: &'static str,
    /// The setting.
    pub key: &'static str,
    /// The line of the help.
    pub help: &'static str,
    /// The form in which its value is written.
    pub form: Form,
    /// Another flag that it excludes.
    pub excludes: Option<&'static str>,
}

/// The form in which the value of a flag is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Any text.
    Text,
    /// A path.
    Path,
    /// A whole number.
    Count,
    /// Names, separated by commas.
    Names,
    /// Numbers, separated by commas.
    Numbers,
    /// Data sets; may be given several times.
    Sources,
    /// A text, or `NAME=TEXT` for the setting of that name in a section; may be given several times.
    Named {
        /// The section.
        section: &'static str,
    },
}

impl Flag {
    /// A path.
    pub const fn path(name: &'static str, value: &'static str, key: &'static str, help: &'static str) -> Self {
        Self { name, value, key, help, form: Form::Path, excludes: None }
    }

    /// A text.
    pub const fn text(name: &'static str, value: &'static str, key: &'static str, help: &'static str) -> Self {
        Self { form: Form::Text, ..Self::path(name, value, key, help) }
    }

    /// A whole number.
    pub const fn count(name: &'static str, value: &'static str, key: &'static str, help: &'static str) -> Self {
        Self { form: Form::Count, ..Self::path(name, value, key, help) }
    }
}

/// `--model`.
pub const MODEL: Flag =
    Flag::path("model", "DIR", "model.path", "Hugging Face model folder or hub model id (setting model.path)");
/// `--data`.
pub const DATA: Flag = Flag {
    form: Form::Sources,
    ..Flag::text(
        "data",
        "FILE",
        "data.path",
        ".jsonl, .json, .csv or .parquet file, folder or hub dataset id (setting data.path); may be repeated",
    )
};
/// `--adapter`.
pub const ADAPTER: Flag =
    Flag::path("adapter", "DIR", "adapter.path", "PEFT folder with an adapter to go on from (setting adapter.path)");
/// `--output`.
pub const OUTPUT: Flag =
    Flag::path("output", "FILE", "output", "Where the result is written, as JSON (setting output)");

/// Returns a path as a word of a shell's command line.
pub fn word(path: &Path) -> Cow<'_, str> {
    let text = path.to_string_lossy();
    let is_plain = |c: char| c.is_alphanumeric() || "_-./+,:=@%".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''")).into()
    }
}

/// A job whose type is not known, as the list holds it.
pub trait AnyJob: Debug + Sync {
    /// Returns the words after `setpoint` that start the job.
    fn command(&self) -> &'static str;

    /// Returns the name under which `setpoint inspect config` knows its settings.
    fn settings(&self) -> &'static str;

    /// Returns the line about the job in the list of commands.
    fn about(&self) -> Cow<'static, str>;

    /// Returns the text after the list of flags.
    fn help(&self) -> Cow<'static, str>;

    /// Returns the flags that stand for settings.
    fn flags(&self) -> &'static [Flag];

    /// Returns the kind of its results.
    fn kind(&self) -> Kind;

    /// Returns whether the job computes on one device only.
    fn on_one_device(&self) -> bool;

    /// Returns how `setpoint plan` knows the job, if it plans it.
    fn planned(&self) -> Option<Planned>;

    /// Returns the view of the rows under the job's name.
    fn view(&self) -> Option<View>;

    /// Returns the dotted keys of all settings that have this name.
    fn settings_named(&self, name: &str) -> Vec<String>;

    /// Returns whether it has a setting of this dotted key, also one that is not set by default.
    fn has_setting(&self, key: &str) -> bool;

    /// Reads and checks the settings.
    ///
    /// # Errors
    /// All problems at once, as [`load::load`] finds them.
    fn load(&self, given: &Given) -> Result<Box<dyn Ready>, Vec<Problem>>;

    /// Reads the settings, which need no model and no data.
    ///
    /// # Errors
    /// All problems at once, as [`load_unchecked`] finds them.
    fn load_unchecked(&self, given: &Given) -> Result<Table, Vec<Problem>>;

    /// Returns the schema of the settings with their defaults.
    fn schema(&self) -> serde_json::Value;

    /// Returns a file with every setting below its description; those that are not set are commented out.
    ///
    /// # Errors
    /// All problems at once, as [`load_unchecked`] finds them.
    fn annotated(&self, given: &Given) -> Result<String, Vec<Problem>>;

    /// Reads the settings of the run in a folder, see [`resume::settings`].
    ///
    /// # Errors
    /// When there is no such run, or a given setting differs from its own.
    fn resume(&self, folder: &Path, given: &Given) -> Outcome<(Box<dyn Ready>, PathBuf)>;
}

/// A job with its settings.
pub trait Ready: Debug {
    /// Returns the settings.
    fn settings(&self) -> Table;

    /// Checks everything that can be checked before the work.
    ///
    /// # Errors
    /// When data or models cannot be read or do not fit.
    fn dry_run(&self, session: &Session) -> Outcome<Forecast>;

    /// Does the work, in a run folder if the job fills one.
    ///
    /// # Errors
    /// When the work fails or is told to stop, or a run folder is missing.
    fn run(&self, session: &Session, folder: Option<RunFolder<'_>>) -> Outcome;
}

/// The folder of a run.
#[derive(Debug, Clone, Copy)]
pub struct RunFolder<'a> {
    /// Its path.
    pub path: &'a Path,
    /// True if the run in it goes on.
    pub resume: bool,
}

/// Returns the failure of a job that needs a run folder and is given none.
pub fn no_run_folder() -> Failure {
    Failure::usage("--run", "no run folder: say where the run is kept, as in --run runs/first")
}

impl<J: Job> AnyJob for J {
    fn command(&self) -> &'static str {
        J::COMMAND
    }

    fn settings(&self) -> &'static str {
        J::SETTINGS
    }

    fn about(&self) -> Cow<'static, str> {
        J::about()
    }

    fn help(&self) -> Cow<'static, str> {
        J::help()
    }

    fn flags(&self) -> &'static [Flag] {
        J::FLAGS
    }

    fn kind(&self) -> Kind {
        match J::WORK {
            Work::Run(_) => Kind::Run,
            Work::Rows(_) => Kind::Rows,
            Work::Result(_) => Kind::Result,
        }
    }

    fn on_one_device(&self) -> bool {
        J::ONE_DEVICE
    }

    fn planned(&self) -> Option<Planned> {
        J::PLANNED
    }

    fn view(&self) -> Option<View> {
        J::VIEW
    }

    fn settings_named(&self, name: &str) -> Vec<String> {
        settings_named::<J::Config>(name)
    }

    fn has_setting(&self, key: &str) -> bool {
        has_setting::<J::Config>(key)
    }

    fn load(&self, given: &Given) -> Result<Box<dyn Ready>, Vec<Problem>> {
        Ok(Box::new(Configured::<J>(load::load(given)?)))
    }

    fn load_unchecked(&self, given: &Given) -> Result<Table, Vec<Problem>> {
        Ok(to_table(&load_unchecked::<J::Config>(given)?))
    }

    fn schema(&self) -> serde_json::Value {
        schema_of::<J::Config>()
    }

    fn annotated(&self, given: &Given) -> Result<String, Vec<Problem>> {
        Ok(annotated(&self.schema(), &self.load_unchecked(given)?))
    }

    fn resume(&self, folder: &Path, given: &Given) -> Outcome<(Box<dyn Ready>, PathBuf)> {
        let (config, folder) = resume::settings(folder, given)?;
        Ok((Box::new(Configured::<J>(config)), folder))
    }
}

/// The settings of a job.
struct Configured<J: Job>(J::Config);

impl<J: Job> Debug for Configured<J> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "the settings of `setpoint {}`", J::COMMAND)
    }
}

impl<J: Job> Configured<J> {
    /// Fails if the result of an earlier command would be replaced unasked: the file, or that of a benchmark in its folder. Jobs that write
    /// rows or fill a run folder look for themselves, since they may go on with it.
    fn require_new(&self, session: &Session) -> Outcome {
        let settings = to_table(&self.0);
        let output = settings.get("output").and_then(toml::Value::as_str).map(Path::new);
        match (J::WORK, output) {
            (Work::Result(_), Some(output)) => {
                session.existing.require_new(output)?;
                session.existing.require_new(&output.join(EvalRun::FILE))
            }
            _ => Ok(()),
        }
    }
}

impl<J: Job> Ready for Configured<J> {
    fn settings(&self) -> Table {
        hub::by_name(&to_table(&self.0))
    }

    fn dry_run(&self, session: &Session) -> Outcome<Forecast> {
        self.require_new(session)?;
        Ok(match J::DRY_RUN {
            DryRun::Plan(plan) => Forecast::Plan(Box::new(plan(session, &self.0)?)),
            DryRun::Text(describe) => Forecast::Text(describe(session, &self.0)?),
        })
    }

    fn run(&self, session: &Session, folder: Option<RunFolder<'_>>) -> Outcome {
        self.require_new(session)?;
        fetch_weights(session, &to_table(&self.0))?;
        match J::WORK {
            Work::Run(run) => {
                let RunFolder { path, resume } = folder.ok_or_else(no_run_folder)?;
                run(session, &self.0, path, resume)?;
                if let Some(next) = J::NEXT {
                    log::info!("next: {}", next(path));
                }
                Ok(())
            }
            Work::Rows(run) | Work::Result(run) => run(session, &self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_words_of_a_shell() {
        let cases =
            [("runs/sft/model", "runs/sft/model"), ("my runs/a", "'my runs/a'"), ("it's", r"'it'\''s'"), ("", "''")];
        for (path, expected) in cases {
            assert_eq!(word(Path::new(path)), expected);
        }
    }
}
