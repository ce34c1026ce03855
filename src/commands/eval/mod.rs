//! `setpoint eval`: runs an evaluation, prints its figures and writes them.

pub mod compare;
mod tables;

use std::path::Path;

use serde::Serialize;
use setpoint::eval::alpaca::{self, AlpacaConfig};
use setpoint::eval::mt_bench::{self, MtBenchConfig};
use setpoint::eval::tasks::{self, TasksConfig};
use setpoint::eval::{EvalConfig, Evaluated, report, write_json, written};
use setpoint::{Outcome, Session};

pub use self::tables::of_rewards;
use crate::progress;

/// Compares a policy with a baseline under a reward model.
pub fn reward(session: &Session, config: &EvalConfig) -> Outcome {
    let report = report(session, config)?;
    progress::say(of_rewards(&report));
    if let Some(path) = &config.output {
        write_json(path, &written(&report)?)?;
        progress::note(format!("written to {}", path.display()));
    }
    Ok(())
}

/// Runs AlpacaEval 2.
pub fn alpaca(session: &Session, config: &AlpacaConfig) -> Outcome {
    finish(alpaca::run(session, config)?, tables::of_alpaca, config.output.as_deref())
}

/// Runs MT-Bench.
pub fn mt_bench(session: &Session, config: &MtBenchConfig) -> Outcome {
    finish(mt_bench::run(session, config)?, tables::of_mt_bench, config.output.as_deref())
}

/// Runs the task benchmarks.
pub fn tasks(session: &Session, config: &TasksConfig) -> Outcome {
    finish(tasks::run(session, config)?, tables::of_tasks, config.output.as_deref())
}

/// Prints and writes the scores of a benchmark.
fn finish<S: Serialize>(evaluated: Evaluated<S>, table: fn(&S) -> String, output: Option<&Path>) -> Outcome {
    progress::say(table(&evaluated.scores));
    if let Some(dir) = output {
        evaluated.write(dir)?;
        progress::note(format!("written to {}", dir.display()));
    }
    Ok(())
}
