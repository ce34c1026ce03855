//! `setpoint plan`: prints what a training run needs before it begins.

use std::path::Path;

use clap::ValueEnum;
use serde::Serialize;
use setpoint::Outcome;
use setpoint::config::load::to_table;
use setpoint::training::RunPlan;

use crate::progress;

/// The job of a config file, by the keys that only one job has. What is wrong with the file is said by whoever loads it.
pub fn job_of(config: &Path) -> PlannedJob {
    let table = std::fs::read_to_string(config).ok().and_then(|text| text.parse::<toml::Table>().ok());
    let has = |key: &str| table.as_ref().is_some_and(|table| table.contains_key(key));
    match (has("align"), has("center")) {
        (true, _) => PlannedJob::Align,
        (false, true) => PlannedJob::Reward,
        (false, false) => PlannedJob::Sft,
    }
}

/// A job that trains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PlannedJob {
    /// Supervised fine-tuning.
    Sft,
    /// A reward model.
    Reward,
    /// Alignment.
    Align,
}

/// Prints a plan, as text or as JSON.
pub fn print(plan: &RunPlan, json: bool) -> Outcome {
    if json {
        progress::say_json(&serde_json::to_string_pretty(plan)?);
    } else {
        say(plan);
    }
    Ok(())
}

/// Prints what a run would do: its settings and its plan.
pub fn describe<C: Serialize>(config: &C, plan: &RunPlan) -> Outcome {
    progress::say(toml::to_string(&to_table(config))?);
    say(plan);
    Ok(())
}

fn say(plan: &RunPlan) {
    progress::say(plan);
    if let Some(warning) = plan.warning() {
        progress::note(format!("warning: {warning}"));
    }
}
