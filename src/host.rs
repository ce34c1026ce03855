//! The command as the host of jobs: the terminal, the signals and the allocator.

use std::fs::OpenOptions;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use setpoint::session::{Bar, FreeMemory, Host, Printed, TrialProcess};
use setpoint::{Failure, Outcome, Session};

use crate::{device, interrupt, memory, progress};

/// The hidden command that carries out a trial of a sweep or comparison.
pub const TRIAL: &str = "@";

/// The time between two looks at a trial's process.
const POLL: Duration = Duration::from_millis(20);

/// Opens the devices that `--device` names, and returns a session on them.
///
/// # Errors
/// When a device is not in this binary or machine.
pub fn session(device: Option<&str>, quiet: bool) -> Outcome<Session> {
    let devices = device::open(device)?;
    let place = device::place(&devices, None);
    let host = Arc::new(Process { device: device.map(str::to_owned) });
    Ok(Session { quiet, place, host, ..Session::new(devices) })
}

/// Fails if several devices are named for a command that computes on one.
pub fn require_one_device(session: &Session, command: &str) -> Outcome {
    match session.devices.len() {
        1 => Ok(()),
        count => Err(Failure::usage(
            "--device",
            format!("`setpoint {command}` computes on one device, and {count} are named"),
        )),
    }
}

/// This process.
#[derive(Debug)]
pub struct Process {
    /// The name of its device, under which the processes of trials open it.
    pub device: Option<String>,
}

impl Process {
    fn spawn(&self, trial: &TrialProcess<'_>) -> std::io::Result<bool> {
        let log = OpenOptions::new().create(true).write(true).truncate(true).open(trial.log)?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(TRIAL).arg(trial.folder).arg("--part").arg(trial.part).arg("--shared").arg(trial.shared);
        if let Some(device) = &self.device {
            command.args(["--device", device]);
        }
        if let Some(threads) = trial.threads.filter(|_| std::env::var_os("RAYON_NUM_THREADS").is_none()) {
            command.env("RAYON_NUM_THREADS", threads.to_string());
        }
        // The child ends when its end of this pipe closes, however this process ends.
        command.stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log);
        let mut child = command.spawn()?;
        let mut pipe = child.stdin.take();
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if interrupt::requested() {
                // The child saves its step and ends.
                pipe.take();
            }
            std::thread::sleep(POLL);
        };
        drop(pipe);
        Ok(status.success())
    }
}

impl Host for Process {
    fn bar(&self, what: &str, start: u64, total: u64) -> Box<dyn Bar> {
        Box::new(progress::bar(what, start, total))
    }

    fn print(&self, result: Printed<'_>) {
        match result {
            Printed::Json(rows) => progress::say_json(rows),
            Printed::Text(text) => progress::say_text(text),
            Printed::Lines(lines) => progress::say(lines),
            Printed::Table(table) => progress::say(progress::drawn(table)),
        }
    }

    fn is_closed(&self) -> bool {
        progress::is_closed()
    }

    fn should_stop(&self) -> bool {
        interrupt::requested()
    }

    fn watched(&self, begins: bool) {
        if begins { interrupt::watch() } else { interrupt::ignore() }
    }

    fn take_warnings(&self) -> Vec<String> {
        progress::take_warnings()
    }

    fn run_trial(&self, trial: &TrialProcess<'_>) -> Option<std::io::Result<bool>> {
        Some(self.spawn(trial))
    }

    fn free_memory(&self, policy: FreeMemory) {
        match policy {
            FreeMemory::GiveBack => memory::give_pages_back(),
            FreeMemory::Keep => memory::keep_pages(),
            FreeMemory::KeepBriefly => memory::keep_pages_briefly(),
        }
    }

    fn device_kinds(&self) -> Vec<&'static str> {
        device::compiled()
    }
}
