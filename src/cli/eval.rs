//! `setpoint eval` and its benchmarks.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use setpoint_eval::Task;
use toml::Value;

use super::{CommonArgs, JobArgs, text};
use setpoint::config::Given;

const ALPACA_HELP: &str = "Examples:\n  setpoint eval alpaca --annotations annotations.json --set length_control.difficulty=instruction_difficulty.csv\n  \
    setpoint eval alpaca --model DIR --baseline gpt4_outputs.json --output runs/alpaca\n  \
    setpoint eval alpaca --outputs model_outputs.json --baseline gpt4_outputs.json --output runs/alpaca --set reward.path=runs/reward/model\n\n\
    The judge's key is read from OPENAI_API_KEY (setting judge.api_key_env). All settings: setpoint inspect config eval-alpaca";
const MT_BENCH_HELP: &str = "Examples:\n  setpoint eval mt-bench --judgments model_judgment/gpt-4_single.jsonl\n  \
    setpoint eval mt-bench --model DIR --questions question.jsonl --references reference_answer/gpt-4.jsonl --output runs/mt\n\n\
    The judge's key is read from OPENAI_API_KEY (setting judge.api_key_env). All settings: setpoint inspect config eval-mt-bench";
const COMPARE_HELP: &str = "Example:\n  setpoint eval compare runs/tasks-sft runs/tasks-dro";

/// `setpoint eval`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct EvalArgs {
    /// A benchmark; without one, the policy is compared with a baseline under a reward model.
    #[command(subcommand)]
    pub benchmark: Option<Benchmark>,
    /// The comparison under a reward model.
    #[command(flatten)]
    pub job: JobArgs,
}

/// The benchmarks.
#[derive(Debug, Subcommand)]
pub enum Benchmark {
    /// AlpacaEval 2: win rate and length-controlled win rate over a baseline's outputs
    #[command(after_help = ALPACA_HELP)]
    Alpaca(AlpacaArgs),
    /// MT-Bench: two-turn questions, rated by a judge or compared pair by pair
    #[command(after_help = MT_BENCH_HELP)]
    MtBench(MtBenchArgs),
    #[command(about = tasks_about(), after_help = tasks_help())]
    Tasks(TasksArgs),
    /// Put results that exist side by side, with paired significance (`setpoint compare` trains methods and compares them)
    #[command(after_help = COMPARE_HELP)]
    Compare(CompareArgs),
}

/// `setpoint eval alpaca`.
#[derive(Debug, Args)]
pub struct AlpacaArgs {
    /// Settings as TOML
    pub config: Option<PathBuf>,
    /// Annotations to score as they are: annotations.json, or CSV (setting annotations)
    #[arg(long, value_name = "FILE")]
    pub annotations: Option<PathBuf>,
    /// Hugging Face folder of the model that answers (setting model.path)
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// Answers that exist: model_outputs.json (setting outputs)
    #[arg(long, value_name = "FILE")]
    pub outputs: Option<PathBuf>,
    /// The baseline's model_outputs.json (setting baseline)
    #[arg(long, value_name = "FILE")]
    pub baseline: Option<PathBuf>,
    /// Folder for the results (setting output)
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Options of every command
    #[command(flatten)]
    pub common: CommonArgs,
}

/// `setpoint eval mt-bench`.
#[derive(Debug, Args)]
pub struct MtBenchArgs {
    /// Settings as TOML
    pub config: Option<PathBuf>,
    /// Judgments to score as they are (setting judgments)
    #[arg(long, value_name = "FILE")]
    pub judgments: Option<PathBuf>,
    /// Hugging Face folder of the model that answers (setting model.path)
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// Answers that exist (setting answers)
    #[arg(long, value_name = "FILE")]
    pub answers: Option<PathBuf>,
    /// MT-Bench's question.jsonl (setting questions)
    #[arg(long, value_name = "FILE")]
    pub questions: Option<PathBuf>,
    /// Reference answers (setting references)
    #[arg(long, value_name = "FILE")]
    pub references: Option<PathBuf>,
    /// Folder for the results (setting output)
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Options of every command
    #[command(flatten)]
    pub common: CommonArgs,
}

/// `setpoint eval tasks`.
#[derive(Debug, Args)]
pub struct TasksArgs {
    /// Settings as TOML
    pub config: Option<PathBuf>,
    /// Hugging Face model folder (setting model.path)
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// Which tasks, separated by commas; all but hellaswag by default (setting tasks)
    #[arg(long, value_name = "TASKS", value_delimiter = ',')]
    pub tasks: Vec<String>,
    /// Folder of the data sets, or `hub` (setting data); TASK=SOURCE, a hub id or a folder, for one task (setting sources.TASK).
    /// May be given several times
    #[arg(long, value_name = "DATA")]
    pub data: Vec<String>,
    /// Folder for the results (setting output)
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Options of every command
    #[command(flatten)]
    pub common: CommonArgs,
}

/// Returns the line about `setpoint eval tasks` in the list of benchmarks.
fn tasks_about() -> String {
    let titles = distinct(Task::by_default().map(|task| task.title().to_owned()));
    let (last, others) = titles.split_last().map_or(("", &[][..]), |(last, others)| (last.as_str(), others));
    format!("{} and {last}, by likelihood or by chain of thought", others.join(", "))
}

/// Returns the examples of `setpoint eval tasks` and the data that it reads.
fn tasks_help() -> String {
    let names = Task::all().map(Task::name).collect::<Vec<_>>().join(", ");
    let files = Task::all().map(Task::file).collect::<Vec<_>>().join(", ");
    let folders = distinct(Task::all().map(|task| task.folder().to_owned())).join(", ");
    let tasks = filled(&format!("Tasks: {names}"));
    let data =
        filled(&format!("DATA holds {files}, or .json or .parquet; or copies of the hub's data sets ({folders})."));
    format!(
        "Examples:\n  setpoint eval tasks --model DIR --data DATA --tasks arc_easy,arc_challenge --output runs/tasks\n  \
         setpoint eval tasks --model DIR --data DATA --set mode=cot --output runs/cot\n  \
         setpoint eval tasks --model DIR --data hub --tasks mmlu,gsm8k --output runs/tasks\n  \
         setpoint eval tasks --model DIR --tasks mmlu,gsm8k --data mmlu=cais/mmlu --data gsm8k=openai/gsm8k@main\n\n\
         {tasks}\n{data}\nAll settings: setpoint inspect config eval-tasks"
    )
}

fn distinct(names: impl Iterator<Item = String>) -> Vec<String> {
    let mut names: Vec<String> = names.collect();
    names.dedup();
    names
}

/// Breaks a text into lines, as long as those of the other help.
fn filled(text: &str) -> String {
    const WIDTH: usize = 118;
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.is_empty() => word.clone_into(line),
            Some(line) if line.len() + 1 + word.len() <= WIDTH => *line += &format!(" {word}"),
            _ => lines.push(word.to_owned()),
        }
    }
    lines.join("\n")
}

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
}

/// A file, its `--set` pairs and its flags, as `(setting, value, flag)`.
fn layered(config: Option<&PathBuf>, set: &[String], flags: &[(&str, Option<&PathBuf>, &str)]) -> Given {
    let mut given = Given { file: config.cloned(), set: set.to_vec(), ..Given::default() };
    for (key, path, flag) in flags {
        given.flag(key, path.map(|p| text(p)), flag);
    }
    given
}

impl AlpacaArgs {
    /// The settings asked for.
    pub fn given(&self) -> Given {
        let flags = [
            ("annotations", self.annotations.as_ref(), "--annotations"),
            ("model.path", self.model.as_ref(), "--model"),
            ("outputs", self.outputs.as_ref(), "--outputs"),
            ("baseline", self.baseline.as_ref(), "--baseline"),
            ("output", self.output.as_ref(), "--output"),
        ];
        layered(self.config.as_ref(), &self.common.set, &flags)
    }
}

impl MtBenchArgs {
    /// The settings asked for.
    pub fn given(&self) -> Given {
        let flags = [
            ("judgments", self.judgments.as_ref(), "--judgments"),
            ("model.path", self.model.as_ref(), "--model"),
            ("answers", self.answers.as_ref(), "--answers"),
            ("questions", self.questions.as_ref(), "--questions"),
            ("references", self.references.as_ref(), "--references"),
            ("output", self.output.as_ref(), "--output"),
        ];
        layered(self.config.as_ref(), &self.common.set, &flags)
    }
}

impl TasksArgs {
    /// The settings asked for.
    pub fn given(&self) -> Given {
        let flags = [("model.path", self.model.as_ref(), "--model"), ("output", self.output.as_ref(), "--output")];
        let mut given = layered(self.config.as_ref(), &self.common.set, &flags);
        for data in &self.data {
            match data
                .split_once('=')
                .filter(|(task, _)| task.chars().all(|c| c.is_ascii_lowercase() || "_0123456789".contains(c)))
            {
                Some((task, source)) => {
                    given.flag(&format!("sources.{task}"), Some(Value::String(source.to_owned())), "--data");
                }
                None => given.flag("data", Some(Value::String(data.clone())), "--data"),
            }
        }
        let tasks: Vec<Value> = self.tasks.iter().map(|t| Value::String(t.clone())).collect();
        given.flag("tasks", (!tasks.is_empty()).then_some(Value::Array(tasks)), "--tasks");
        given
    }
}
