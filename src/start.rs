//! Starts a job: reads its settings, opens its devices, and runs it or says what it would do.

use std::path::Path;

use setpoint::config::nearest;
use setpoint::config::output::{Target, require_target};
use setpoint::jobs::{RunFolder, no_run_folder};
use setpoint::{Failure, Outcome, Session};

use crate::cli::{self, JobArgs};
use crate::commands::plan;
use crate::device;
use crate::host::{require_one_device, session};

/// Starts a job.
///
/// # Errors
/// When the settings are wrong, or the job fails.
pub fn job(args: &JobArgs) -> Outcome {
    let JobArgs { job, given, run, existing, common } = args;
    if let Some(folder) = &run.folder {
        require_target(folder, Target::Folder, "--run")?;
    }
    if let Some(config) = &given.file {
        refuse_misspelt(job.command(), config)?;
    }
    let open = || -> Outcome<Session> {
        let session = Session { existing: *existing, ..session(common.device.as_deref(), common.quiet)? };
        if job.on_one_device() {
            require_one_device(&session, job.command())?;
        }
        Ok(session)
    };
    if run.resume {
        let (ready, folder) = job.resume(run.folder.as_deref().ok_or_else(no_run_folder)?, given)?;
        let session = open()?;
        return match () {
            () if common.dry_run => plan::dry_run(&session, ready.as_ref()),
            () if setpoint::training::is_finished(&folder) => Ok(()),
            () => ready.run(&session, Some(RunFolder { path: &folder, resume: true })),
        };
    }
    let ready = job.load(given)?;
    let session = open()?;
    let place = device::place(&session.devices, run.device_memory);
    let session = Session { place, ..session };
    if common.dry_run {
        return plan::dry_run(&session, ready.as_ref());
    }
    ready.run(&session, run.folder.as_deref().map(|path| RunFolder { path, resume: false }))
}

/// Fails if a file of settings does not exist and its name is almost that of a command below the job.
fn refuse_misspelt(command: &str, config: &Path) -> Outcome {
    let below = cli::below(command);
    match nearest(&config.to_string_lossy(), below.iter().map(String::as_str)) {
        Some(near) if !config.exists() => {
            let message = format!("neither a benchmark nor a file of settings; did you mean `{near}`?");
            Err(Failure::usage(config.display().to_string(), message))
        }
        _ => Ok(()),
    }
}
