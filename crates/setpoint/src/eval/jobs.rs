//! The evaluations as jobs.

use std::borrow::Cow;
use std::path::Path;

use serde::Serialize;
use setpoint_eval::Task;

use super::alpaca::{self, AlpacaConfig};
use super::mt_bench::{self, MtBenchConfig};
use super::reward::{self, EvalConfig, report};
use super::tables;
use super::tasks::{self, TasksConfig};
use super::{Evaluated, write_json, written};
use crate::failure::Outcome;
use crate::job::{DATA, DryRun, Flag, Form, Job, MODEL, OUTPUT, Work};
use crate::session::Session;

/// `setpoint eval`.
#[derive(Debug)]
pub struct Reward;

impl Job for Reward {
    type Config = EvalConfig;

    const COMMAND: &'static str = "eval";
    const FLAGS: &'static [Flag] = &[MODEL, DATA, OUTPUT];
    const WORK: Work<EvalConfig> = Work::Result(compare_with_baseline);
    const DRY_RUN: DryRun<EvalConfig> = DryRun::Text(reward::dry_run);

    fn about() -> Cow<'static, str> {
        "Compare a policy with a baseline: reward win rate, KL, pair accuracy; or run a benchmark".into()
    }

    fn help() -> Cow<'static, str> {
        "Example:\n  setpoint eval --model runs/dro/model --set baseline.path=runs/sft/model \\\n    \
         --set reward.path=runs/reward/model --data prompts.jsonl\n\nAll settings with their defaults: setpoint inspect config eval"
            .into()
    }
}

/// `setpoint eval alpaca`.
#[derive(Debug)]
pub struct Alpaca;

impl Job for Alpaca {
    type Config = AlpacaConfig;

    const COMMAND: &'static str = "eval alpaca";
    const SETTINGS: &'static str = "eval-alpaca";
    const FLAGS: &'static [Flag] = &[
        Flag::path(
            "annotations",
            "FILE",
            "annotations",
            "Annotations to score as they are: annotations.json, or CSV (setting annotations)",
        ),
        ANSWERING_MODEL,
        Flag::path("outputs", "FILE", "outputs", "Answers that exist: model_outputs.json (setting outputs)"),
        Flag::path("baseline", "FILE", "baseline", "The baseline's model_outputs.json (setting baseline)"),
        OUTPUT_FOLDER,
    ];
    const WORK: Work<AlpacaConfig> = Work::Result(|session, config| {
        let evaluated = alpaca::run(session, config)?;
        session.say(tables::of_alpaca(&evaluated.scores));
        write(evaluated, config.output.as_deref())
    });
    const DRY_RUN: DryRun<AlpacaConfig> = DryRun::Text(alpaca::dry_run);

    fn about() -> Cow<'static, str> {
        "AlpacaEval 2: win rate and length-controlled win rate over a baseline's outputs".into()
    }

    fn help() -> Cow<'static, str> {
        "Examples:\n  setpoint eval alpaca --annotations annotations.json --set length_control.difficulty=instruction_difficulty.csv\n  \
         setpoint eval alpaca --model DIR --baseline gpt4_outputs.json --output runs/alpaca\n  \
         setpoint eval alpaca --outputs model_outputs.json --baseline gpt4_outputs.json --output runs/alpaca --set reward.path=runs/reward/model\n\n\
         The judge's key is read from OPENAI_API_KEY (setting judge.api_key_env). All settings: setpoint inspect config eval-alpaca"
            .into()
    }
}

/// `setpoint eval mt-bench`.
#[derive(Debug)]
pub struct MtBench;

impl Job for MtBench {
    type Config = MtBenchConfig;

    const COMMAND: &'static str = "eval mt-bench";
    const SETTINGS: &'static str = "eval-mt-bench";
    const FLAGS: &'static [Flag] = &[
        Flag::path("judgments", "FILE", "judgments", "Judgments to score as they are (setting judgments)"),
        ANSWERING_MODEL,
        Flag::path("answers", "FILE", "answers", "Answers that exist (setting answers)"),
        Flag::path("questions", "FILE", "questions", "MT-Bench's question.jsonl (setting questions)"),
        Flag::path("references", "FILE", "references", "Reference answers (setting references)"),
        OUTPUT_FOLDER,
    ];
    const WORK: Work<MtBenchConfig> = Work::Result(|session, config| {
        let evaluated = mt_bench::run(session, config)?;
        tables::show_mt_bench(session, &evaluated.scores);
        write(evaluated, config.output.as_deref())
    });
    const DRY_RUN: DryRun<MtBenchConfig> = DryRun::Text(mt_bench::dry_run);

    fn about() -> Cow<'static, str> {
        "MT-Bench: two-turn questions, rated by a judge or compared pair by pair".into()
    }

    fn help() -> Cow<'static, str> {
        "Examples:\n  setpoint eval mt-bench --judgments model_judgment/gpt-4_single.jsonl\n  \
         setpoint eval mt-bench --model DIR --questions question.jsonl --references reference_answer/gpt-4.jsonl --output runs/mt\n\n\
         The judge's key is read from OPENAI_API_KEY (setting judge.api_key_env). All settings: setpoint inspect config eval-mt-bench"
            .into()
    }
}

/// `setpoint eval tasks`.
#[derive(Debug)]
pub struct Tasks;

impl Job for Tasks {
    type Config = TasksConfig;

    const COMMAND: &'static str = "eval tasks";
    const SETTINGS: &'static str = "eval-tasks";
    const FLAGS: &'static [Flag] = &[
        MODEL,
        Flag {
            form: Form::Names,
            ..Flag::text(
                "tasks",
                "TASKS",
                "tasks",
                "Which tasks, separated by commas; all but hellaswag by default (setting tasks)",
            )
        },
        Flag {
            form: Form::Named { section: "sources" },
            ..Flag::text(
                "data",
                "DATA",
                "data",
                "Folder of the data sets, or `hub` (setting data); TASK=SOURCE, a hub id or a folder, for one task (setting \
                 sources.TASK). May be given several times",
            )
        },
        OUTPUT_FOLDER,
    ];
    const WORK: Work<TasksConfig> = Work::Result(|session, config| {
        let evaluated = tasks::run(session, config)?;
        session.show(&tables::of_tasks(&evaluated.scores));
        write(evaluated, config.output.as_deref())
    });
    const DRY_RUN: DryRun<TasksConfig> = DryRun::Text(tasks::dry_run);

    fn about() -> Cow<'static, str> {
        tasks_about().into()
    }

    fn help() -> Cow<'static, str> {
        tasks_help().into()
    }
}

/// `--model` of the benchmarks that ask for answers.
const ANSWERING_MODEL: Flag =
    Flag { help: "Hugging Face folder of the model that answers (setting model.path)", ..MODEL };
/// `--output` of the benchmarks.
const OUTPUT_FOLDER: Flag = Flag { value: "DIR", help: "Folder for the results (setting output)", ..OUTPUT };

/// Compares a policy with a baseline under a source of rewards, prints the figures and writes them.
fn compare_with_baseline(session: &Session, config: &EvalConfig) -> Outcome {
    let report = report(session, config)?;
    session.say(tables::of_rewards(&report));
    if let Some(path) = &config.output {
        write_json(path, &written(&report)?)?;
        log::info!("written to {}", path.display());
    }
    Ok(())
}

/// Writes the scores of a benchmark.
fn write<S: Serialize>(evaluated: Evaluated<S>, output: Option<&Path>) -> Outcome {
    if let Some(dir) = output {
        evaluated.write(dir)?;
        log::info!("written to {}", dir.display());
    }
    Ok(())
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
