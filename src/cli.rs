//! The command line: what can be asked for, and how it becomes a configuration.

mod amount;
#[cfg(test)]
mod documents;
mod examples;
mod export;
#[cfg(test)]
mod hints;
mod job;
mod merge;
mod push;
mod unknown;

use std::path::{Path, PathBuf};

use clap::builder::{PossibleValue, PossibleValuesParser};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::Shell;
use toml::Value;

use self::amount::parse_memory;
use self::examples::with_examples;
pub use self::export::ExportCommand;
use self::job::after;
pub use self::job::{JobArgs, JobCommand, OtherCommand};
use self::merge::{MERGE_HELP, MergeArgs};
use self::push::{PUSH_HELP, PushArgs};
pub use self::unknown::with_remedy;
use crate::commands::convert::{self, ConvertArgs};
use crate::commands::duplicates::{self, DuplicatesArgs};
use crate::commands::inspect;
use crate::host::TRIAL;
use setpoint::config::Given;
use setpoint::jobs::JOBS;

/// Aligns language models to exact reward targets: SFT, reward model, annotation, audit, Direct Reward Optimization, evaluation.
#[derive(Debug, Parser)]
#[command(name = "setpoint", version, max_term_width = 120, propagate_version = true)]
pub struct Cli {
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// The whole job on a small model and data that come with the program; downloads nothing
    #[command(display_order = 0, after_help = DEMO_HELP)]
    Demo(DemoArgs),
    /// A job.
    #[command(flatten)]
    Job(JobCommand),
    /// Memory, steps and arithmetic of a training run, part by part, before it begins
    #[command(display_order = after("align"), after_help = PLAN_HELP)]
    Plan(PlanArgs),
    /// One trial of a sweep or comparison, which start it. The name is like nothing that somebody types, so that it is never suggested.
    #[command(name = TRIAL, hide = true)]
    Trial(TrialArgs),
    /// The alignment methods: what each needs, its settings and their defaults
    #[command(display_order = after("compare"))]
    Methods {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Talk to a model in the terminal
    #[command(display_order = after("generate"), after_help = CHAT_HELP)]
    Chat(ChatArgs),
    /// Write a model as a file of other programs: GGUF for llama.cpp and Ollama
    #[command(display_order = after("eval"))]
    Export {
        /// The kind of file.
        #[command(subcommand)]
        what: ExportCommand,
    },
    /// Add an adapter's updates to the weights of its model
    #[command(display_order = after("eval"), after_help = MERGE_HELP)]
    Merge(MergeArgs),
    /// Upload a model to the Hugging Face hub
    #[command(display_order = after("eval"), after_help = PUSH_HELP)]
    Push(PushArgs),
    /// Lend this machine's devices to trainings that are started on another
    #[command(display_order = after("eval") + 1, after_help = LEND_HELP)]
    Lend {
        #[arg(long, value_name = "DEVICE", help = DEVICE_HELP)]
        device: Option<String>,
        /// Address to listen at; 0.0.0.0:3000 to be reached from other machines
        #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:3000")]
        listen: String,
    },
    /// One HTML file of runs and results: curves, tables, samples side by side; opens offline
    #[command(display_order = after("eval") + 2, after_help = REPORT_HELP)]
    Report {
        /// Run folders, folders of comparisons or evaluations, or the JSON files of evaluations
        #[arg(required = true, value_name = "RUN")]
        runs: Vec<PathBuf>,
        /// The file to write
        #[arg(long, value_name = "FILE", default_value = "report.html")]
        output: PathBuf,
        /// Replace a file that is no report; an older report is always replaced
        #[arg(long)]
        overwrite: bool,
        /// KLs from the SFT model at which methods are compared, separated by commas
        #[arg(long, value_name = "NATS", value_delimiter = ',')]
        at_kl: Vec<f64>,
    },
    /// Settings from a configuration of trl, axolotl or LLaMA-Factory
    #[command(display_order = after("eval") + 3, after_help = convert::HELP)]
    Convert(ConvertArgs),
    /// Rows that repeat others, exactly or nearly, and rows that overlap with evaluation sets
    #[command(display_order = after("select"), after_help = duplicates::HELP)]
    Duplicates(DuplicatesArgs),
    /// Print a script with which a shell completes the command
    #[command(display_order = after("eval") + 4, after_help = COMPLETIONS_HELP)]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write a manual page for every command into a folder
    #[command(display_order = after("eval") + 5, after_help = "Example:\n  setpoint man ~/.local/share/man/man1")]
    Man {
        /// The folder
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
    /// Look at data as tokens, at a checkpoint's shape, at a job's settings
    #[command(display_order = after("eval") + 6)]
    Inspect {
        /// The object of the inspection.
        #[command(subcommand)]
        what: InspectCommand,
    },
}

const DEVICE_HELP: &str = "flex, ndarray, wgpu[:i], cuda[:i] or remote:HOST:PORT (see setpoint lend); several, as in cuda:0,1 or cuda:0-7, train \
    and score together; by default the fastest this binary was built with";
const PLANNED_DEVICE_HELP: &str = "Where it will run: flex, ndarray, wgpu[:i], cuda[:i] or remote:HOST:PORT, several as in cuda:0,1; none has to be in \
    this binary or machine";
const DEVICE_MEMORY_HELP: &str = "Memory of each device, as in 80GiB or 24GB, to say whether the job fits; by default the available memory on a CPU, unknown on a GPU";
const CHAT_HELP: &str = "Example:\n  setpoint chat --model runs/sft/model --system \"Answer briefly.\"\n\n\
    An empty line, /quit or Ctrl-D ends the conversation.";
const DEMO_HELP: &str = "Example:\n  setpoint demo --run runs/demo";
const PLAN_HELP: &str = "Examples:\n  setpoint plan dro.toml\n  setpoint plan --job sft --model Qwen2.5-0.5B --data chats.jsonl --json\n  \
    setpoint plan dro.toml --device cuda:0-3 --device-memory 80GiB\n  \
    setpoint plan --rounds 50 --model runs/sft/model --data prompts.jsonl --set reward.model.path=runs/reward/model\n\n\
    Without --job the job is align with --rounds or where the file has a section [align], reward where it sets `center`, else sft.";

const LEND_HELP: &str = "Example, on gpu1 and gpu2 and then anywhere:\n  SETPOINT_TOKEN=… setpoint lend --device cuda:0-7 --listen 0.0.0.0:3000\n  \
    SETPOINT_TOKEN=… setpoint align dro.toml --run runs/dro --device remote:gpu1:3000,remote:gpu2:3000\n\n\
    For a network that you trust: the traffic is not encrypted. The machines must reach each other under the names given after --device.";
const COMPLETIONS_HELP: &str = "Examples:\n  setpoint completions bash > ~/.local/share/bash-completion/completions/setpoint\n  \
    setpoint completions fish > ~/.config/fish/completions/setpoint.fish\n  \
    setpoint completions zsh > ~/.zfunc/_setpoint";
const REPORT_HELP: &str = "Example:\n  setpoint report runs/sft runs/dro runs/dro-tasks --output report.html";

/// Options of every command that runs on a model.
#[derive(Debug, Args)]
pub struct CommonArgs {
    #[arg(long, value_name = "DEVICE", help = DEVICE_HELP)]
    pub device: Option<String>,
    /// Override one setting, as in --set train.learning_rate=1e-6; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Check everything, print the resolved settings, token and step counts and estimates, and stop
    #[arg(long)]
    pub dry_run: bool,
    /// No progress bars
    #[arg(long)]
    pub quiet: bool,
}

/// `setpoint plan`.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// Settings as TOML
    pub config: Option<PathBuf>,
    /// The job that the settings are of
    #[arg(long, value_parser = planned_jobs())]
    pub job: Option<String>,
    /// Hugging Face model folder or hub model id (setting model.path)
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// .jsonl, .json, .csv or .parquet file, folder or hub dataset id (setting data.path); may be repeated
    #[arg(long, value_name = "FILE")]
    pub data: Vec<String>,
    /// Rounds of training on responses that the policy samples, of align (setting rounds)
    #[arg(long, value_name = "N")]
    pub rounds: Option<u64>,
    /// One setting; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    #[arg(long, value_name = "DEVICE", help = PLANNED_DEVICE_HELP)]
    pub device: Option<String>,
    #[arg(long, value_name = "SIZE", value_parser = parse_memory, help = DEVICE_MEMORY_HELP)]
    pub device_memory: Option<f64>,
    /// As JSON, in bytes
    #[arg(long)]
    pub json: bool,
}

/// `setpoint trial`.
#[derive(Debug, Args)]
pub struct TrialArgs {
    /// The trial's folder
    pub folder: PathBuf,
    /// Part of the held-out rows to evaluate on
    #[arg(long)]
    pub part: String,
    /// Folder of what the trials have in common; computed anew without
    #[arg(long, value_name = "DIR")]
    pub shared: Option<PathBuf>,
    #[arg(long, value_name = "DEVICE", help = DEVICE_HELP)]
    pub device: Option<String>,
}

/// `setpoint chat`.
#[derive(Debug, Args)]
pub struct ChatArgs {
    /// Hugging Face model folder or hub model id
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// System message
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// Override a setting, as in --set generate.temperature=0.7
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    #[arg(long, value_name = "DEVICE", help = DEVICE_HELP)]
    pub device: Option<String>,
}

/// `setpoint demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Folder for everything the demo writes
    #[arg(long, value_name = "DIR", default_value = "runs/demo")]
    pub run: PathBuf,
    /// Seed of the whole demo
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    #[arg(long, value_name = "DEVICE", help = DEVICE_HELP)]
    pub device: Option<String>,
    /// No progress bars
    #[arg(long)]
    pub quiet: bool,
}

/// `setpoint inspect …`.
#[derive(Debug, Subcommand)]
pub enum InspectCommand {
    /// Rows as tokens, coloured: t0, prompt, response, stop token
    Data {
        /// Hugging Face folder or hub model id, for its tokenizer and template (setting model.path)
        #[arg(long, value_name = "DIR")]
        model: PathBuf,
        /// .jsonl, .json, .csv or .parquet file, folder or hub dataset id (setting data.path); may be repeated
        #[arg(long, value_name = "FILE", required = true)]
        data: Vec<String>,
        /// Rows to show
        #[arg(long, default_value_t = 3)]
        rows: usize,
        /// Override one setting, as in --set model.template=chatml
        #[arg(long = "set", value_name = "KEY=VALUE")]
        set: Vec<String>,
        /// Print `[response]…` marks instead of colours
        #[arg(long)]
        plain: bool,
        /// Whose view to show; by default sft's, or align's where a row has several responses (setting job)
        #[arg(long, value_parser = views())]
        job: Option<String>,
    },
    /// A checkpoint's shape: family, parameters, tensors, memory per job
    Model {
        /// Hugging Face folder or hub model id
        model: PathBuf,
        /// List every tensor
        #[arg(long)]
        tensors: bool,
    },
    /// Every setting of a job with its meaning, as TOML; those that are not set are commented out
    Config {
        /// The job
        #[arg(value_parser = jobs_with_settings())]
        job: String,
        /// Settings to apply first
        #[arg(long = "set", value_name = "KEY=VALUE")]
        set: Vec<String>,
    },
    /// A JSON schema of a job's settings, for editors; without a job, one that takes the settings of any
    Schema {
        /// The job
        #[arg(value_parser = jobs_with_settings())]
        job: Option<String>,
    },
}

/// Returns the jobs that `setpoint plan` plans.
fn planned_jobs() -> PossibleValuesParser {
    let values = JOBS.iter().filter_map(|job| Some(PossibleValue::new(job.command()).help(job.planned()?.title)));
    values.collect::<Vec<_>>().into()
}

/// Returns the views that `setpoint inspect data` shows.
fn views() -> PossibleValuesParser {
    let automatic = PossibleValue::new(inspect::AUTO).help(
        "That of `align` where a row has several responses and `data.responses` selects none, else that of `sft`",
    );
    let of_jobs = JOBS.iter().filter_map(|job| Some(PossibleValue::new(job.command()).help(job.view()?.about)));
    std::iter::once(automatic).chain(of_jobs).collect::<Vec<_>>().into()
}

/// Returns the names of jobs by their settings, with the commands that have them.
fn jobs_with_settings() -> PossibleValuesParser {
    let mut commands: Vec<(&'static str, Vec<String>)> = Vec::new();
    for job in JOBS {
        let (settings, command) = (job.settings(), format!("`setpoint {}`", job.command()));
        match commands.iter_mut().find(|(name, _)| *name == settings) {
            Some((_, of_name)) => of_name.push(command),
            None => commands.push((settings, vec![command])),
        }
    }
    let value = |(name, commands): (&'static str, Vec<String>)| PossibleValue::new(name).help(commands.join(" and "));
    commands.into_iter().map(value).collect::<Vec<_>>().into()
}

/// Reads the command line of this process.
///
/// # Errors
/// When it is wrong, or asks for help or the version.
pub fn parse() -> Result<Cli, clap::Error> {
    let matches = command().try_get_matches()?;
    Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command()))
}

/// Returns all commands, as their help shows them.
pub fn command() -> clap::Command {
    with_examples(Cli::command())
}

/// Returns the names of the commands below a command, such as `eval`.
pub fn below(command: &str) -> Vec<String> {
    let mut found = Some(Cli::command());
    for word in command.split(' ') {
        found = found.and_then(|command| command.find_subcommand(word).cloned());
    }
    found.iter().flat_map(clap::Command::get_subcommands).map(|below| below.get_name().to_owned()).collect()
}

fn text(path: &Path) -> Value {
    Value::String(path.to_string_lossy().into_owned())
}

/// Layers a command's file, flags and `--set` pairs.
pub fn given(config: Option<&PathBuf>, model: Option<&PathBuf>, data: &[String], set: &[String]) -> Given {
    let mut given = Given { file: config.cloned(), set: set.to_vec(), ..Given::default() };
    given.flag("model.path", model.map(|p| text(p)), "--model");
    given.data(data);
    given
}
