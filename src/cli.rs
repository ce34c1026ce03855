//! The command line: what can be asked for, and how it becomes a configuration.

mod amount;
#[cfg(test)]
mod documents;
mod eval;
mod export;
#[cfg(test)]
mod hints;
mod unknown;

use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};
use toml::Value;

use self::amount::parse_memory;
use crate::commands::convert::{self, ConvertArgs};
use crate::commands::inspect::{InspectedJob, JobName};
use crate::host::TRIAL;
pub use eval::{Benchmark, EvalArgs};
pub use export::ExportCommand;
use setpoint::config::Given;
use setpoint::session::Existing;
pub use unknown::with_remedy;

/// Aligns language models to exact reward targets: SFT, reward model, annotation, audit, Direct Reward Optimization, evaluation.
#[derive(Debug, Parser)]
#[command(name = "setpoint", version, max_term_width = 120, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// The whole job on a small model and data that come with the program; downloads nothing
    #[command(after_help = DEMO_HELP)]
    Demo(DemoArgs),
    /// Supervised fine-tuning on conversations or prompts with completions
    #[command(after_help = SFT_HELP)]
    Sft(TrainArgs),
    /// Train a Bradley–Terry reward model on preference pairs
    #[command(after_help = REWARD_HELP)]
    Reward(TrainArgs),
    /// Give every response a reward: by a reward model, by rules, or from a column
    #[command(after_help = ANNOTATE_HELP)]
    Annotate(RowsArgs),
    /// Log-probabilities of prompts and responses under a model, one JSON line per response
    #[command(after_help = LOGPS_HELP)]
    Logps(RowsArgs),
    /// Check the reward targets before training: which cannot be reached, which responses lose probability
    #[command(after_help = AUDIT_HELP)]
    Audit(JobArgs),
    /// Align a policy by DRO or one of the other methods
    #[command(after_help = ALIGN_HELP)]
    Align(TrainArgs),
    /// Memory, steps and arithmetic of a training run, part by part, before it begins
    #[command(after_help = PLAN_HELP)]
    Plan(PlanArgs),
    /// One alignment method under many settings: a grid or drawn at random, each trained and evaluated
    #[command(after_help = SWEEP_HELP)]
    Sweep(TrainArgs),
    /// Train several alignment methods from one model and one annotated file with equal budgets, in one table
    /// (`eval compare` puts results side by side that exist)
    #[command(after_help = COMPARE_HELP)]
    Compare(TrainArgs),
    /// One trial of a sweep or comparison, which start it. The name is like nothing that somebody types, so that it is never suggested.
    #[command(name = TRIAL, hide = true)]
    Trial(TrialArgs),
    /// The alignment methods: what each needs, its settings and their defaults
    Methods {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Sample responses for a file of prompts or one prompt
    #[command(after_help = GENERATE_HELP)]
    Generate(GenerateArgs),
    /// Talk to a model in the terminal
    Chat(ChatArgs),
    /// Compare a policy with a baseline: reward win rate, KL, pair accuracy; or run a benchmark
    #[command(after_help = EVAL_HELP)]
    Eval(Box<EvalArgs>),
    /// Write a model as a file of other programs: GGUF for llama.cpp and Ollama
    Export {
        /// The kind of file.
        #[command(subcommand)]
        what: ExportCommand,
    },
    /// Lend this machine's devices to trainings that are started on another
    #[command(after_help = LEND_HELP)]
    Lend {
        #[arg(long, value_name = "DEVICE", help = DEVICE_HELP)]
        device: Option<String>,
        /// Address to listen at; 0.0.0.0:3000 to be reached from other machines
        #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:3000")]
        listen: String,
    },
    /// The former name of `lend`, kept so that whoever types it learns the new one.
    #[command(hide = true)]
    Serve {
        /// Whatever follows.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
        rest: Vec<String>,
    },
    /// One HTML file of runs and results: curves, tables, samples side by side; opens offline
    #[command(after_help = REPORT_HELP)]
    Report {
        /// Run folders, folders of evaluations, or their JSON files
        #[arg(required = true, value_name = "RUN")]
        runs: Vec<PathBuf>,
        /// The file to write
        #[arg(long, value_name = "FILE", default_value = "report.html")]
        output: PathBuf,
    },
    /// Settings from a configuration of trl, axolotl or LLaMA-Factory
    #[command(after_help = convert::HELP)]
    Convert(ConvertArgs),
    /// Look at data as tokens, at a checkpoint's shape, at a job's settings
    Inspect {
        /// What to look at.
        #[command(subcommand)]
        what: InspectCommand,
    },
}

const DEVICE_HELP: &str = "flex, ndarray, wgpu[:i], cuda[:i] or remote:HOST:PORT (see setpoint lend); several, as in cuda:0,1 or cuda:0-7, train \
    and score together; by default the fastest this binary was built with";
const PLANNED_DEVICE_HELP: &str = "Where it will run: flex, ndarray, wgpu[:i], cuda[:i] or remote:HOST:PORT, several as in cuda:0,1; none has to be in \
    this binary or machine";
const DEVICE_MEMORY_HELP: &str = "Memory of each device, as in 80GiB or 24GB, to say whether the job fits; by default the available memory on a CPU, unknown on a GPU";
const DEMO_HELP: &str = "Example:\n  setpoint demo --run runs/demo";
const SFT_HELP: &str = "Examples:\n  setpoint sft --model Qwen2.5-0.5B --data chats.jsonl --run runs/sft\n  \
    setpoint sft sft.toml --run runs/sft --set train.learning_rate=1e-5\n  \
    setpoint sft --run runs/sft --resume\n\nAll settings with their defaults: setpoint inspect config sft";
const REWARD_HELP: &str = "Example:\n  setpoint reward --model runs/sft/model --data preferences.jsonl --run runs/reward\n\n\
    All settings with their defaults: setpoint inspect config reward";
const ANNOTATE_HELP: &str = "Examples:\n  setpoint annotate --model runs/reward/model --data responses.jsonl --output rewards.jsonl\n  \
    setpoint annotate rules.toml --data responses.jsonl --output rewards.jsonl\n\n\
    All settings with their defaults: setpoint inspect config annotate";
const PLAN_HELP: &str = "Examples:\n  setpoint plan dro.toml\n  setpoint plan --job sft --model Qwen2.5-0.5B --data chats.jsonl --json\n  \
    setpoint plan dro.toml --device cuda:0-3 --device-memory 80GiB\n\n\
    Without --job the job is align where the file has a section [align], reward where it sets `center`, else sft.";
const LOGPS_HELP: &str = "Example:\n  setpoint logps --model DIR --data FILE --output OUT.jsonl\n\n\
    A line per response: {\"row\":0,\"response\":0,\"prompt_tokens\":9,\"response_tokens\":4,\
    \"prompt_logp\":-31.2,\"response_logp\":-7.9}\n\
    Sums of log-probabilities in nats; prompt_logp counts the tokens after the first.";
const AUDIT_HELP: &str = "Example:\n  setpoint audit --model runs/sft/model --data rewards.jsonl --set align.log_z0=50";
const ALIGN_HELP: &str = "Examples:\n  setpoint align --model runs/sft/model --data rewards.jsonl --run runs/dro\n  \
    setpoint align dro.toml --run runs/dro --set align.beta=0.5\n  \
    setpoint align --model runs/sft/model --data pairs.jsonl --run runs/dpo --set align.method=dpo\n\n\
    Methods: setpoint methods. All settings of one with their defaults: setpoint inspect config align --set align.method=dpo";
const SWEEP_HELP: &str = "Example:\n  setpoint sweep sweep.toml --run runs/sweep\n  \
    setpoint sweep --run runs/sweep --resume\n\n\
    sweep.toml:\n  model.path = \"runs/sft/model\"\n  data.path = \"rewards.jsonl\"\n  align.method = \"dpo\"\n  \
    [eval]\n  data.path = \"prompts.jsonl\"\n  reward.path = \"runs/reward/model\"\n  \
    [sweep.settings]\n  \"align.beta\" = [0.05, 0.1, 0.5]\n  \"train.learning_rate\" = [2e-7, 5e-7]\n\n\
    With sweep.trials = 20 so many are drawn at random, also from ranges: { low = 1e-7, high = 1e-5, log = true }.\n\
    All settings with their defaults: setpoint inspect config sweep";
const COMPARE_HELP: &str = "Example:\n  setpoint compare compare.toml --run runs/compare\n  \
    setpoint compare --run runs/compare --resume\n\n\
    compare.toml:\n  model.path = \"runs/sft/model\"\n  data.path = \"rewards.jsonl\"\n  \
    [eval]\n  data.path = \"prompts.jsonl\"\n  pairs.path = \"held-out-pairs.jsonl\"\n  reward.path = \"runs/reward/model\"\n  \
    [compare]\n  methods = [\"dro\", \"dpo\", \"simpo\"]\n  search = \"preset\"\n  seeds = [0, 1, 2]\n\n\
    Settings are selected on one part of the held-out prompts, the table is measured on the other.\n\
    All settings with their defaults: setpoint inspect config compare";
const GENERATE_HELP: &str = "Examples:\n  setpoint generate --model DIR --prompt \"Why is the sky blue?\"\n  \
    setpoint generate --model DIR --data prompts.jsonl --output samples.jsonl --set generate.samples=4";
const EVAL_HELP: &str = "Example:\n  setpoint eval --model runs/dro/model --set baseline.path=runs/sft/model \\\n    \
    --set reward.path=runs/reward/model --data prompts.jsonl\n\nAll settings with their defaults: setpoint inspect config eval";

const LEND_HELP: &str = "Example, on gpu1 and gpu2 and then anywhere:\n  SETPOINT_TOKEN=… setpoint lend --device cuda:0-7 --listen 0.0.0.0:3000\n  \
    SETPOINT_TOKEN=… setpoint align dro.toml --run runs/dro --device remote:gpu1:3000,remote:gpu2:3000\n\n\
    For a network that you trust: the traffic is not encrypted. The machines must reach each other under the names given after --device.";
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

/// A job that reads a configuration.
#[derive(Debug, Args)]
pub struct JobArgs {
    /// Settings as TOML
    pub config: Option<PathBuf>,
    /// Hugging Face model folder (setting model.path)
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// .jsonl, .json or .parquet file, folder or hub dataset id (setting data.path)
    #[arg(long, value_name = "FILE")]
    pub data: Option<String>,
    /// Where the result is written, as JSON (setting output)
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Options of every command
    #[command(flatten)]
    pub common: CommonArgs,
}

/// A job that writes rows as they are computed.
#[derive(Debug, Args)]
pub struct RowsArgs {
    /// The job.
    #[command(flatten)]
    pub job: JobArgs,
    /// What is done about an output that exists.
    #[command(flatten)]
    pub existing: ExistingArgs,
}

/// What is done about an output that exists.
#[derive(Debug, Args)]
pub struct ExistingArgs {
    /// Replace an output that exists
    #[arg(long, conflicts_with = "go_on")]
    pub overwrite: bool,
    /// Keep the rows that the same command wrote before it was interrupted, and go on after them
    #[arg(long = "continue")]
    pub go_on: bool,
}

impl ExistingArgs {
    /// The same as one value.
    pub fn choice(&self) -> Existing {
        match (self.overwrite, self.go_on) {
            (true, _) => Existing::Overwrite,
            (false, true) => Existing::Continue,
            (false, false) => Existing::Refuse,
        }
    }
}

/// A training job.
#[derive(Debug, Args)]
pub struct TrainArgs {
    /// Settings as TOML
    pub config: Option<PathBuf>,
    /// Run folder: settings, metrics, checkpoints and the model
    #[arg(long, value_name = "DIR")]
    pub run: Option<PathBuf>,
    /// Go on from the last checkpoint in the run folder, with the settings that it holds; settings given again must agree with them
    #[arg(long)]
    pub resume: bool,
    #[arg(long, value_name = "SIZE", value_parser = parse_memory, help = DEVICE_MEMORY_HELP)]
    pub device_memory: Option<f64>,
    /// Hugging Face model folder (setting model.path)
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// .jsonl, .json or .parquet file, folder or hub dataset id (setting data.path)
    #[arg(long, value_name = "FILE")]
    pub data: Option<String>,
    /// Options of every command
    #[command(flatten)]
    pub common: CommonArgs,
}

/// `setpoint plan`.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// Settings as TOML
    pub config: Option<PathBuf>,
    /// The job that the settings are of
    #[arg(long, value_enum)]
    pub job: Option<crate::commands::plan::PlannedJob>,
    /// Hugging Face model folder (setting model.path)
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// .jsonl, .json or .parquet file, folder or hub dataset id (setting data.path)
    #[arg(long, value_name = "FILE")]
    pub data: Option<String>,
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

/// `setpoint generate`.
#[derive(Debug, Args)]
pub struct GenerateArgs {
    /// Settings as TOML
    pub config: Option<PathBuf>,
    /// Hugging Face model folder (setting model.path)
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// Rows whose prompts are answered (setting data.path)
    #[arg(long, value_name = "FILE", conflicts_with = "prompt")]
    pub data: Option<String>,
    /// One prompt, as a user's message
    #[arg(long, value_name = "TEXT")]
    pub prompt: Option<String>,
    /// JSONL file to write; standard output by default (setting output)
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// What is done about an output that exists.
    #[command(flatten)]
    pub existing: ExistingArgs,
    /// Options of every command
    #[command(flatten)]
    pub common: CommonArgs,
}

/// `setpoint chat`.
#[derive(Debug, Args)]
pub struct ChatArgs {
    /// Hugging Face model folder
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
        /// Hugging Face folder, for its tokenizer and template (setting model.path)
        #[arg(long, value_name = "DIR")]
        model: PathBuf,
        /// .jsonl, .json or .parquet file, folder or hub dataset id (setting data.path)
        #[arg(long, value_name = "FILE")]
        data: String,
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
        #[arg(long)]
        job: Option<InspectedJob>,
    },
    /// A checkpoint's shape: family, parameters, tensors, memory per job
    Model {
        /// Hugging Face folder
        model: PathBuf,
        /// List every tensor
        #[arg(long)]
        tensors: bool,
    },
    /// All settings of a job with their defaults, as TOML
    Config {
        /// The job
        job: JobName,
        /// Settings to apply first
        #[arg(long = "set", value_name = "KEY=VALUE")]
        set: Vec<String>,
    },
}

fn text(path: &Path) -> Value {
    Value::String(path.to_string_lossy().into_owned())
}

/// Layers a command's file, flags and `--set` pairs.
pub fn given(
    config: Option<&PathBuf>,
    model: Option<&PathBuf>,
    data: Option<&String>,
    output: Option<&PathBuf>,
    set: &[String],
) -> Given {
    let mut given = Given { file: config.cloned(), set: set.to_vec(), ..Given::default() };
    given.flag("model.path", model.map(|p| text(p)), "--model");
    given.flag("data.path", data.map(|d| Value::String(d.clone())), "--data");
    given.flag("output", output.map(|p| text(p)), "--output");
    given
}
