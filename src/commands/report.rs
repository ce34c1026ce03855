//! `setpoint report`: runs and results as one HTML file that opens offline.

use std::path::{Path, PathBuf};

use crate::progress;
use setpoint::Outcome;
use setpoint::config::output::{Target, require_target};
use setpoint::report::Report;
use setpoint::setup;
use setpoint_data::counted;

/// Reads run folders and results of evaluations, and writes the page.
pub fn run(paths: &[PathBuf], output: &Path) -> Outcome {
    require_target(output, Target::File, "--output")?;
    let report = Report::read(paths)?;
    setup::write_text(output, &report.html()?)?;
    let (runs, results) = report.counts();
    let parts = [(runs, "run"), (results, "result")].into_iter().filter(|(count, _)| *count > 0);
    let parts: Vec<String> = parts.map(|(count, noun)| counted(count, noun)).collect();
    progress::note(format!("{} written to {}", parts.join(" and "), output.display()));
    Ok(())
}
