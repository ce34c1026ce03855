//! `setpoint report`: runs and results as one HTML file that opens offline.

use std::path::{Path, PathBuf};

use crate::progress;
use setpoint::config::output::{Target, require_target};
use setpoint::report::{Counts, Report, is_report};
use setpoint::setup;
use setpoint::{Failure, Outcome};
use setpoint_data::counted;

/// Reads run folders, comparisons and results of evaluations, and writes the page. An older report is replaced, and with `overwrite` any
/// other file. `kls`: where methods are compared, nats per response.
pub fn run(paths: &[PathBuf], output: &Path, overwrite: bool, kls: &[f64]) -> Outcome {
    require_target(output, Target::File, "--output")?;
    if !overwrite && output.is_file() && !is_report(output) {
        return Err(Failure::run(format!("{} exists already, and is no report", output.display()))
            .hint("give --overwrite to replace it, or another --output"));
    }
    if kls.iter().any(|kl| !kl.is_finite() || *kl <= 0.0) {
        return Err(Failure::usage("--at-kl", "a KL must be above 0 nats per response"));
    }
    let report = Report::read_at(paths, kls)?;
    setup::write_text(output, &report.html()?)?;
    let Counts { runs, results, comparisons } = report.counts();
    let parts =
        [(comparisons, "comparison"), (runs, "run"), (results, "result")].into_iter().filter(|(count, _)| *count > 0);
    let parts: Vec<String> = parts.map(|(count, noun)| counted(count, noun)).collect();
    progress::note(format!("{} written to {}", parts.join(" and "), output.display()));
    Ok(())
}
