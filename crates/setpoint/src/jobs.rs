//! The list of jobs.

use serde_json::{Map, Value, json};

use crate::align::{Align, Audit};
use crate::annotate::Annotate;
use crate::compare::Compare;
use crate::config::load::Neighbours;
use crate::eval::{BENCHMARKS, Reward as RewardEval};
use crate::generate::Generate;
pub use crate::job::{
    AnyJob, Flag, Forecast, Form, Job, Kind, OUTPUT, Planned, Ready, RunFolder, View, no_run_folder, word,
};
use crate::logps::Logps;
use crate::reward::Reward;
use crate::select::Select;
use crate::serve::Serve;
use crate::sft::Sft;
use crate::sweep::Sweep;

/// Every job but the benchmarks, in the order of the help.
const OTHERS: &[&dyn AnyJob] =
    &[&Sft, &Reward, &Annotate, &Select, &Logps, &Audit, &Align, &Sweep, &Compare, &Generate, &Serve, &RewardEval];

/// Every job, in the order of the help.
pub const JOBS: &[&dyn AnyJob] = &with_benchmarks();

const fn with_benchmarks() -> [&'static dyn AnyJob; OTHERS.len() + BENCHMARKS.len()] {
    let mut jobs = [OTHERS[0]; OTHERS.len() + BENCHMARKS.len()];
    let mut i = 1;
    while i < jobs.len() {
        jobs[i] = if i < OTHERS.len() { OTHERS[i] } else { BENCHMARKS[i - OTHERS.len()] };
        i += 1;
    }
    jobs
}

/// Returns the job that a command starts, such as `eval alpaca`.
pub fn of_command(command: &str) -> Option<&'static dyn AnyJob> {
    JOBS.iter().copied().find(|job| job.command() == command)
}

/// Returns a command among those of the jobs.
pub fn neighbours(command: &'static str) -> Neighbours {
    Neighbours { command, with: commands_with }
}

/// Returns the commands that have a setting or section of a dotted key.
fn commands_with(key: &str) -> Vec<&'static str> {
    JOBS.iter().filter(|job| job.has_setting(key)).map(|job| job.command()).collect()
}

/// Returns the first of the jobs whose settings have a name.
pub fn of_settings(name: &str) -> Option<&'static dyn AnyJob> {
    JOBS.iter().copied().find(|job| job.settings() == name)
}

/// Returns a schema that the settings of each job fit.
pub fn schema() -> Value {
    let mut schemas: Vec<Value> = Vec::new();
    let mut definitions = Map::new();
    for (i, job) in JOBS.iter().enumerate() {
        if JOBS[..i].iter().all(|other| other.settings() != job.settings()) {
            let mut schema = job.schema();
            if let Some(object) = schema.as_object_mut() {
                object.remove("$schema");
                object.insert("title".into(), format!("setpoint {}", job.command()).into());
                // Their references lead to the top.
                definitions.extend(
                    object.remove("definitions").and_then(|inner| inner.as_object().cloned()).unwrap_or_default(),
                );
            }
            schemas.push(schema);
        }
    }
    json!({ "$schema": "http://json-schema.org/draft-07/schema#", "anyOf": schemas, "definitions": definitions })
}
