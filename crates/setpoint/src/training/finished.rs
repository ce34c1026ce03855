//! The mark of a finished run, with the checksums of what it left.

use std::path::Path;

use serde::{Deserialize, Serialize};
use setpoint_train::RunDir;

use crate::card::CARD;
use crate::failure::{Failure, Outcome};

/// The mark of a run that has left its model.
const FINISHED: &str = "finished.json";

/// A file that a finished run has left.
#[derive(Debug, Serialize, Deserialize)]
struct LeftFile {
    name: String,
    bytes: u64,
    crc32c: String,
}

/// `finished.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Finished {
    steps: u64,
    /// The reason for which it ended before its last step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stopped: Option<String>,
    files: Vec<LeftFile>,
}

/// Marks a run as finished, after the models in some folders of it were written.
pub fn mark_finished(run: &RunDir, steps: u64, stopped: Option<String>, folders: &[&str]) -> Outcome {
    let mut files = Vec::new();
    for folder in folders {
        let mut names = Vec::new();
        list_files(run, folder, &mut names)?;
        // The card is for people, who may change it.
        names.retain(|name| !name.ends_with(CARD));
        names.sort();
        for name in names {
            let (bytes, crc32c) = setpoint_train::file_digest(run.join(&name))?;
            files.push(LeftFile { name, bytes, crc32c });
        }
    }
    Ok(run.write_text(FINISHED, &(serde_json::to_string_pretty(&Finished { steps, stopped, files })? + "\n"))?)
}

/// Adds the files in a folder of a run, and in the folders within it.
fn list_files(run: &RunDir, folder: &str, names: &mut Vec<String>) -> Outcome {
    let cannot = |error: std::io::Error| Failure::run(format!("cannot list {folder}: {error}"));
    for entry in std::fs::read_dir(run.join(folder)).map_err(cannot)? {
        let entry = entry.map_err(cannot)?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let name = format!("{folder}/{name}");
        if entry.path().is_dir() {
            list_files(run, &name, names)?;
        } else {
            names.push(name);
        }
    }
    Ok(())
}

/// Returns the steps of the run in a folder, if it is finished.
pub fn finished_steps(folder: &Path) -> Option<u64> {
    let text = setpoint_files::read(&folder.join(FINISHED)).ok()?;
    Some(serde_json::from_slice::<Finished>(&text).ok()?.steps)
}

/// Returns whether the run in a folder is finished and its model is as it was left, which is then said.
pub fn is_finished(folder: &Path) -> bool {
    let finished = setpoint_files::read(&folder.join(FINISHED)).ok();
    let Some(finished) = finished.and_then(|text| serde_json::from_slice::<Finished>(&text).ok()) else { return false };
    for LeftFile { name, bytes, crc32c } in &finished.files {
        let path = folder.join(name);
        if setpoint_train::file_digest(&path).ok() != Some((*bytes, crc32c.clone())) {
            log::info!("{} is not as the run left it: the run goes on from its last checkpoint", path.display());
            return false;
        }
    }
    log::info!(
        "{} is finished: it ended after step {}{}, and its model is {}",
        folder.display(),
        finished.steps,
        finished.stopped.as_ref().map_or_else(String::new, |why| format!(" ({why})")),
        folder.join("model").display()
    );
    true
}
