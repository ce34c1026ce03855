//! The task benchmarks as a job.

use std::borrow::Cow;

use setpoint_eval::{MeanScore, Task};

use super::{TasksConfig, TasksReport, dry_run, run};
use crate::eval::job::{OUTPUT_FOLDER, write};
use crate::job::{DryRun, Flag, Form, Job, MODEL, Work};
use crate::session::TextTable;

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
                "Which tasks, separated by commas; the default is below (setting tasks)",
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
        let evaluated = run(session, config)?;
        session.show(&table(&evaluated.scores));
        write(evaluated, config.output.as_deref())
    });
    const DRY_RUN: DryRun<TasksConfig> = DryRun::Text(dry_run);

    fn about() -> Cow<'static, str> {
        about().into()
    }

    fn help() -> Cow<'static, str> {
        help().into()
    }
}

/// Returns the scores of the tasks as a table.
fn table(report: &TasksReport) -> TextTable {
    let mut table = TextTable::plain(["task", "metric", "value", "stderr", "examples"]);
    let mut row = |task: &str, metric: &str, score: &MeanScore| {
        let figures = [format!("{:.4}", score.value), format!("{:.4}", score.std_error), score.n.to_string()];
        table.push([task.to_owned(), metric.to_owned()].into_iter().chain(figures));
    };
    for task in &report.order {
        for (metric, score) in &report.tasks[task] {
            row(task, metric, &score.overall);
        }
    }
    if let Some(average) = report.average.filter(|_| report.order.len() > 1) {
        row("average", "", &average);
    }
    table
}

/// Returns the line about `setpoint eval tasks` in the list of benchmarks.
fn about() -> String {
    let titles = distinct(Task::by_default().map(|task| task.title().to_owned()));
    let (last, others) = titles.split_last().map_or(("", &[][..]), |(last, others)| (last.as_str(), others));
    format!("{} and {last}, by likelihood or by chain of thought", others.join(", "))
}

/// Returns the examples of `setpoint eval tasks` and the data that it reads.
fn help() -> String {
    let names = |tasks: Vec<Task>| tasks.into_iter().map(Task::name).collect::<Vec<_>>().join(", ");
    let (by_default, others): (Vec<Task>, Vec<Task>) =
        Task::all().partition(|task| Task::by_default().any(|other| other == *task));
    let files = distinct(Task::all().map(Task::file)).join(", ");
    let folders = distinct(Task::all().map(|task| task.folder().to_owned())).join(", ");
    let tasks = format!("Tasks: {}; only if named: {}", names(by_default), names(others));
    let data = format!("DATA holds {files}, or .json or .parquet; or copies of the hub's data sets ({folders}).");
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
