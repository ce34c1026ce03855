//! The commands of the jobs. Their flags and their help follow from the list of jobs.

use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, Subcommand, value_parser};
use setpoint::config::Given;
use setpoint::jobs::{self, AnyJob, Flag, Form, JOBS, Kind, OUTPUT};
use setpoint::session::Existing;
use toml::Value;

use super::amount::parse_memory;
use super::{CommonArgs, DEVICE_MEMORY_HELP, text};

/// A command that starts a job, or one below it.
#[derive(Debug)]
pub enum JobCommand {
    /// The job.
    Job(Box<JobArgs>),
    /// A command of the same family that is no job.
    Other(OtherCommand),
}

/// The commands below a job that are no jobs.
#[derive(Debug, Subcommand)]
pub enum OtherCommand {
    /// Put results that exist side by side, with paired significance (`setpoint compare` trains methods and compares them)
    #[command(display_order = place(PARENT) + 10 * JOBS.len(), after_help = "Example:\n  setpoint eval compare runs/tasks-sft runs/tasks-dro")]
    Compare(CompareArgs),
}

/// The job that [`OtherCommand`] is below.
const PARENT: &str = "eval";

/// `setpoint eval compare`.
#[derive(Debug, Args)]
pub struct CompareArgs {
    /// Folders of results, or their result.json; the others are compared with the first
    #[arg(required = true, num_args = 2.., value_name = "RESULT")]
    pub results: Vec<PathBuf>,
    /// Compare results that are not comparable
    #[arg(long)]
    pub force: bool,
    /// JSON file to write
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Replace a file that exists
    #[arg(long)]
    pub overwrite: bool,
}

/// The arguments of a job.
#[derive(Debug)]
pub struct JobArgs {
    /// The job.
    pub job: &'static dyn AnyJob,
    /// Its settings.
    pub given: Given,
    /// The run folder, if the job fills one.
    pub run: RunArgs,
    /// The choice about an output that exists.
    pub existing: Existing,
    /// Options of every job.
    pub common: CommonArgs,
}

/// Options of a job that fills a run folder.
#[derive(Debug, Default, Args)]
pub struct RunArgs {
    /// Run folder: settings, metrics, checkpoints and the model
    #[arg(long = "run", value_name = "DIR")]
    pub folder: Option<PathBuf>,
    /// Go on from the last checkpoint in the run folder, with the settings that it holds; settings given again must agree with them
    #[arg(long)]
    pub resume: bool,
    #[arg(long, value_name = "SIZE", value_parser = parse_memory, help = DEVICE_MEMORY_HELP)]
    pub device_memory: Option<f64>,
}

/// The option of a job that writes a result at the end.
#[derive(Debug, Args)]
struct OverwriteArgs {
    /// Replace a result that exists
    #[arg(long)]
    overwrite: bool,
}

/// Options of a job that writes rows as they are computed.
#[derive(Debug, Args)]
struct ExistingArgs {
    /// Replace an output that exists
    #[arg(long, conflicts_with = "go_on")]
    overwrite: bool,
    /// Keep the rows that the same command wrote before it was interrupted, and go on after them
    #[arg(long = "continue")]
    go_on: bool,
}

impl ExistingArgs {
    fn choice(&self) -> Existing {
        match (self.overwrite, self.go_on) {
            (true, _) => Existing::Overwrite,
            (false, true) => Existing::Continue,
            (false, false) => Existing::Refuse,
        }
    }
}

/// Returns the place of a command in the list: behind that of a job.
pub fn after(job: &str) -> usize {
    place(job) + 1
}

/// Returns the place of a job's command: others fit between two jobs.
fn place(job: &str) -> usize {
    10 * JOBS.iter().take_while(|other| other.command() != job).count()
}

/// Returns the last word of a job's command.
fn name(job: &dyn AnyJob) -> &'static str {
    job.command().rsplit(' ').next().unwrap_or_default()
}

/// Returns the jobs whose command consists of `parent` and one more word; without a parent, of one word.
fn jobs_below(parent: Option<&str>) -> impl Iterator<Item = &'static dyn AnyJob> {
    JOBS.iter().copied().filter(move |job| job.command().rsplit_once(' ').map(|(before, _)| before) == parent)
}

/// Returns the command of a job, with those below it.
fn command_of(job: &'static dyn AnyJob) -> Command {
    let config = Arg::new("config").value_name("CONFIG").help("Settings as TOML").value_parser(value_parser!(PathBuf));
    let mut command = Command::new(name(job)).arg(config);
    if job.kind() == Kind::Run {
        command = RunArgs::augment_args(command);
    }
    command = CommonArgs::augment_args(command.args(job.flags().iter().map(argument)));
    command = match job.kind() {
        Kind::Rows => ExistingArgs::augment_args(command),
        Kind::Result if job.has_setting(OUTPUT.key) => OverwriteArgs::augment_args(command),
        Kind::Result | Kind::Run => command,
    };
    command = jobs_below(Some(job.command())).fold(command, |command, job| command.subcommand(command_of(job)));
    if job.command() == PARENT {
        command = OtherCommand::augment_subcommands(command);
    }
    let has_others = command.has_subcommands();
    command
        .mut_arg("set", |set| set.help(format!("Override one setting, as in --set {}; may be repeated", example(job))))
        .about(job.about().into_owned())
        .after_help(job.help().into_owned())
        .display_order(place(job.command()))
        .subcommand_required(false)
        .arg_required_else_help(false)
        .args_conflicts_with_subcommands(has_others)
}

/// Returns a setting of a job with a value, as an example.
fn example(job: &dyn AnyJob) -> &'static str {
    const EXAMPLES: [&str; 6] = [
        "train.learning_rate=1e-6",
        "generate.temperature=0.7",
        "data.max_rows=100",
        "shots=0",
        "data.path=rows.jsonl",
        "model.template=chatml",
    ];
    let is_its_own = |pair: &&str| job.has_setting(pair.split('=').next().unwrap_or_default());
    EXAMPLES.into_iter().find(is_its_own).unwrap_or("KEY=VALUE")
}

/// Returns a flag that stands for a setting.
fn argument(flag: &Flag) -> Arg {
    let argument = Arg::new(flag.name).long(flag.name).value_name(flag.value).help(flag.help);
    let argument = match flag.form {
        Form::Path => argument.value_parser(value_parser!(PathBuf)),
        Form::Text => argument,
        Form::Sources => argument.action(ArgAction::Append),
        Form::Count => argument.value_parser(value_parser!(u32)),
        Form::Names => argument.action(ArgAction::Append).value_delimiter(','),
        Form::Numbers => argument.action(ArgAction::Append).value_delimiter(',').value_parser(value_parser!(f64)),
        Form::Named { .. } => argument.action(ArgAction::Append),
    };
    match flag.excludes {
        Some(other) => argument.conflicts_with(other),
        None => argument,
    }
}

/// Adds the setting that a flag stands for.
fn give(given: &mut Given, flag: &Flag, matches: &mut ArgMatches) {
    let written = ["--", flag.name].concat();
    match flag.form {
        Form::Path => {
            given.flag(flag.key, matches.remove_one::<PathBuf>(flag.name).map(|path| text(&path)), &written);
        }
        Form::Text => given.flag(flag.key, matches.remove_one::<String>(flag.name), &written),
        Form::Sources => {
            let paths: Vec<String> = matches.remove_many(flag.name).into_iter().flatten().collect();
            given.data(&paths);
        }
        Form::Count => {
            let count = matches.remove_one::<u32>(flag.name).map(|count| Value::Integer(count.into()));
            given.flag(flag.key, count, &written);
        }
        Form::Names => {
            let names = matches.remove_many::<String>(flag.name);
            let names = names.map(|names| Value::Array(names.map(Value::String).collect()));
            given.flag(flag.key, names, &written);
        }
        Form::Numbers => {
            let numbers = matches.remove_many::<f64>(flag.name);
            let numbers = numbers.map(|numbers| Value::Array(numbers.map(Value::Float).collect()));
            given.flag(flag.key, numbers, &written);
        }
        Form::Named { section } => {
            for value in matches.remove_many::<String>(flag.name).into_iter().flatten() {
                let is_name = |name: &str| name.chars().all(|c| c.is_ascii_lowercase() || "_0123456789".contains(c));
                let (key, value) = match value.split_once('=').filter(|(name, _)| is_name(name)) {
                    Some((name, value)) => (format!("{section}.{name}"), value.to_owned()),
                    None => (flag.key.to_owned(), value),
                };
                given.flag(&key, Some(value), &written);
            }
        }
    }
}

impl JobArgs {
    fn read(job: &'static dyn AnyJob, matches: &mut ArgMatches) -> Result<Self, clap::Error> {
        let file = matches.remove_one::<PathBuf>("config");
        let mut given = Given { file, neighbours: Some(jobs::neighbours(job.command())), ..Given::default() };
        job.flags().iter().for_each(|flag| give(&mut given, flag, matches));
        let (run, existing) = match job.kind() {
            Kind::Run => (RunArgs::from_arg_matches_mut(matches)?, Existing::default()),
            Kind::Rows => (RunArgs::default(), ExistingArgs::from_arg_matches_mut(matches)?.choice()),
            Kind::Result if job.has_setting(OUTPUT.key) => {
                (RunArgs::default(), Existing::given(OverwriteArgs::from_arg_matches_mut(matches)?.overwrite))
            }
            Kind::Result => (RunArgs::default(), Existing::default()),
        };
        let common = CommonArgs::from_arg_matches_mut(matches)?;
        given.set.clone_from(&common.set);
        Ok(Self { job, given, run, existing, common })
    }
}

impl Subcommand for JobCommand {
    fn augment_subcommands(command: Command) -> Command {
        jobs_below(None).fold(command, |command, job| command.subcommand(command_of(job)))
    }

    fn augment_subcommands_for_update(command: Command) -> Command {
        Self::augment_subcommands(command)
    }

    fn has_subcommand(name: &str) -> bool {
        jobs::of_command(name).is_some()
    }
}

impl FromArgMatches for JobCommand {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Self::from_arg_matches_mut(&mut matches.clone())
    }

    fn from_arg_matches_mut(matches: &mut ArgMatches) -> Result<Self, clap::Error> {
        let missing = || clap::Error::new(ErrorKind::MissingSubcommand);
        let (name, mut matches) = matches.remove_subcommand().ok_or_else(missing)?;
        let mut job = jobs::of_command(&name).ok_or_else(missing)?;
        while let Some(name) = matches.subcommand_name() {
            let Some(below) = jobs::of_command(&format!("{} {name}", job.command())) else {
                return OtherCommand::from_arg_matches_mut(&mut matches).map(Self::Other);
            };
            job = below;
            matches = matches.remove_subcommand().ok_or_else(missing)?.1;
        }
        JobArgs::read(job, &mut matches).map(|args| Self::Job(Box::new(args)))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
