//! `setpoint completions` and `setpoint man`: the command line as shells and `man` know it.

use std::path::Path;

use clap::Command;
use clap_complete::Shell;
use setpoint::config::output::{Target, require_target};
use setpoint::{Failure, Outcome};

use crate::progress;

/// Prints the script with which a shell completes the command.
pub fn completions(mut command: Command, shell: Shell) -> Outcome {
    let mut script = Vec::new();
    let name = command.get_name().to_owned();
    clap_complete::generate(shell, &mut command, name, &mut script);
    progress::say_part(&String::from_utf8_lossy(&script));
    Ok(())
}

/// Writes a page for the command and for each one below it.
pub fn pages(command: Command, folder: &Path) -> Outcome {
    require_target(folder, Target::Folder, "DIR")?;
    let failed = |error| Failure::run(format!("cannot write pages to {}: {error}", folder.display()));
    std::fs::create_dir_all(folder).map_err(failed)?;
    clap_mangen::generate_to(command, folder).map_err(failed)?;
    progress::note(format!("written to {}: man -l {}", folder.display(), folder.join("setpoint.1").display()));
    Ok(())
}
