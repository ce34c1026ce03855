//! The remarks and warnings of the library, which come through the `log` crate.

use std::sync::{Mutex, PoisonError};

use log::{Level, LevelFilter, Log, Metadata, Record};

use super::output::{note, warn};

/// Warnings that were printed and not yet taken.
static WARNINGS: Mutex<Vec<String>> = Mutex::new(Vec::new());
/// The most warnings that are kept.
const MOST_WARNINGS: usize = 100;

/// Prints the records of this project's crates. Those of others are not meant for users.
struct Remarks;

/// Has remarks and warnings of the library printed from now on.
pub fn install_logger() {
    // It fails only if there is a logger already, which would do.
    if log::set_logger(&Remarks).is_ok() {
        log::set_max_level(LevelFilter::Info);
    }
}

/// Returns the library's warnings since this was last called, for the history of a run.
pub fn take_warnings() -> Vec<String> {
    std::mem::take(&mut *WARNINGS.lock().unwrap_or_else(PoisonError::into_inner))
}

impl Log for Remarks {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().split(&[':', '_']).next() == Some("setpoint") && metadata.level() <= Level::Info
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        match record.level() {
            Level::Error | Level::Warn => {
                let mut warnings = WARNINGS.lock().unwrap_or_else(PoisonError::into_inner);
                if warnings.len() < MOST_WARNINGS {
                    warnings.push(record.args().to_string());
                }
                drop(warnings);
                warn(record.args());
            }
            _ => note(record.args()),
        }
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_projects_remarks_are_printed() {
        let prints = |target: &str, level| Remarks.enabled(&Metadata::builder().target(target).level(level).build());
        assert!(prints("setpoint::align", Level::Info) && prints("setpoint_train", Level::Warn));
        assert!(!prints("setpoint::align", Level::Debug) && !prints("wgpu_core::device", Level::Error));
    }
}
