//! `setpoint plan`: prints what a training run needs before it begins.

use std::path::Path;

use setpoint::jobs::{AnyJob, Forecast, JOBS, Planned, Ready};
use setpoint::training::RunPlan;
use setpoint::{Failure, Outcome, Session};
use toml::Table;

use crate::progress;

/// Returns the jobs that are planned, and how they are told apart.
fn planned() -> impl DoubleEndedIterator<Item = (&'static dyn AnyJob, Planned)> {
    JOBS.iter().copied().filter_map(|job| Some((job, job.planned()?)))
}

/// Returns the job to plan: the one that is named, else that of the file.
///
/// # Errors
/// When no job is named and there is no file to take it from.
pub fn job(name: Option<&str>, config: Option<&Path>) -> Outcome<&'static dyn AnyJob> {
    let named = |name: &str| planned().map(|(job, _)| job).find(|job| job.command().eq_ignore_ascii_case(name));
    let found = match (name, config) {
        // Also with `--rounds`, which names a job.
        (_, Some(config)) if !config.exists() && named(&config.to_string_lossy()).is_some() => {
            let name = config.display();
            return Err(Failure::usage(
                name.to_string(),
                format!("no such file of settings; to name the job say --job {name}"),
            ));
        }
        (Some(name), _) => named(name),
        (None, Some(config)) => of_file(config),
        (None, None) => None,
    };
    found.ok_or_else(|| {
        let names: Vec<String> = planned().map(|(job, _)| job.command().to_owned()).collect();
        let names = setpoint::sources::alternatives(&names);
        Failure::usage("--job", format!("no settings file to take the job from: say --job {names}"))
    })
}

/// Returns the job of a config file, by the keys that only one job has. What is wrong with the file is said by whoever loads it.
fn of_file(config: &Path) -> Option<&'static dyn AnyJob> {
    let table = setpoint::setup::read_text(config).ok().and_then(|text| text.parse::<Table>().ok());
    let has = |key: &str| table.as_ref().is_some_and(|table| table.contains_key(key));
    let told = planned().rev().find(|(_, planned)| planned.told_by.is_none_or(has));
    told.map(|(job, _)| job)
}

/// Prints the plan of a job, as text or as JSON.
pub fn run(session: &Session, job: &dyn AnyJob, ready: &dyn Ready, json: bool) -> Outcome {
    let Forecast::Plan(plan) = ready.dry_run(session)? else {
        return Err(Failure::usage("--job", "this job is no training"));
    };
    if json {
        progress::say_json(&serde_json::to_string_pretty(&plan)?);
    } else {
        // It may follow from the keys of the file, and a file without the sections of its job looks like that of another.
        progress::say(format!("job       {} (--job names another)", job.command()));
        say(&plan);
    }
    Ok(())
}

/// Prints what a job would do: its settings and its plan, or what it says of itself.
pub fn dry_run(session: &Session, job: &dyn Ready) -> Outcome {
    let forecast = job.dry_run(session)?;
    progress::say_file(toml::to_string(&job.settings())?);
    match forecast {
        Forecast::Plan(plan) => say(&plan),
        Forecast::Text(text) => progress::say(text),
    }
    Ok(())
}

fn say(plan: &RunPlan) {
    progress::say(plan);
    if let Some(warning) = plan.warning() {
        progress::note(format!("warning: {warning}"));
    }
    if let Some(remark) = plan.remark() {
        progress::note(remark);
    }
}
