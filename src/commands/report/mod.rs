//! `setpoint report`: runs and results as one HTML file that opens offline.

mod chart;
mod collect;
mod page;
mod responses;

use std::path::{Path, PathBuf};

use self::collect::Collected;
use crate::progress;
use setpoint::config::output::{Target, require_target};
use setpoint::setup;
use setpoint::{Failure, Outcome};

/// Reads run folders and results of evaluations, and writes the page.
pub fn run(paths: &[PathBuf], output: &Path) -> Outcome {
    require_target(output, Target::File, "--output")?;
    let collected = Collected::read(paths)?;
    if collected.is_empty() {
        return Err(Failure::run(
            "nothing to report: the paths hold neither metrics.jsonl nor the result of an evaluation",
        ));
    }
    setup::write_text(output, &page::html(&collected)?)?;
    progress::note(format!(
        "{} runs and {} results written to {}",
        collected.runs.len(),
        collected.results.len(),
        output.display()
    ));
    Ok(())
}
