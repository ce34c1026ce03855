//! The list of jobs.

use crate::align::{Align, Audit};
use crate::annotate::Annotate;
use crate::compare::Compare;
use crate::eval::{Alpaca, MtBench, Reward as RewardEval, Tasks};
use crate::generate::Generate;
pub use crate::job::{AnyJob, Flag, Forecast, Form, Job, Kind, Planned, Ready, RunFolder, View, no_run_folder};
use crate::logps::Logps;
use crate::reward::Reward;
use crate::sft::Sft;
use crate::sweep::Sweep;

/// Every job, in the order of the help.
pub const JOBS: &[&dyn AnyJob] = &[
    &Sft,
    &Reward,
    &Annotate,
    &Logps,
    &Audit,
    &Align,
    &Sweep,
    &Compare,
    &Generate,
    &RewardEval,
    &Alpaca,
    &MtBench,
    &Tasks,
];

/// Returns the job that a command starts, such as `eval alpaca`.
pub fn of_command(command: &str) -> Option<&'static dyn AnyJob> {
    JOBS.iter().copied().find(|job| job.command() == command)
}

/// Returns the first of the jobs whose settings have a name.
pub fn of_settings(name: &str) -> Option<&'static dyn AnyJob> {
    JOBS.iter().copied().find(|job| job.settings() == name)
}
