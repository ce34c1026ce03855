//! Ends processes of tests that hang, so that a test fails by name instead of the whole suite without one.

use std::path::Path;
use std::sync::Once;
use std::time::Duration;

/// The time that a process may take. The slowest takes about a minute on two busy cores.
const LIMIT: Duration = Duration::from_secs(600);

/// Starts a thread that kills each process of this one's that has run for [`LIMIT`], with all that it started, and says so.
///
/// Does nothing where there is no `/proc`.
pub fn watch_processes() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        std::thread::spawn(|| {
            loop {
                std::thread::sleep(Duration::from_secs(5));
                let processes = read_processes();
                for id in find_old_children(&processes, LIMIT) {
                    say_killed(id);
                    kill(id, &processes);
                }
            }
        });
    });
}

/// A line of the table of processes.
struct Process {
    id: u32,
    parent: u32,
    /// Since the machine started.
    began: Duration,
}

impl Process {
    /// Reads `/proc/ID/stat`, which counts time in hundredths of a second.
    fn read(folder: &Path) -> Option<Self> {
        let id = folder.file_name()?.to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(folder.join("stat")).ok()?;
        // The name, in brackets, may hold spaces and brackets.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let (parent, ticks) = (fields.get(1)?.parse().ok()?, fields.get(19)?.parse::<u64>().ok()?);
        Some(Self { id, parent, began: Duration::from_millis(ticks * 10) })
    }
}

/// Returns all processes of the machine.
fn read_processes() -> Vec<Process> {
    let folders = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    folders.filter_map(|folder| Process::read(&folder.path())).collect()
}

/// Returns this process's children that have run for longer than a limit.
fn find_old_children(processes: &[Process], limit: Duration) -> Vec<u32> {
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    let Some(now) = uptime.split(' ').next().and_then(|seconds| seconds.parse().ok()) else { return Vec::new() };
    let is_old = |process: &&Process| Duration::from_secs_f64(now).saturating_sub(process.began) > limit;
    let children = processes.iter().filter(|process| process.parent == std::process::id());
    children.filter(is_old).map(|process| process.id).collect()
}

#[allow(clippy::print_stderr, reason = "the log of a test run must name what was killed")]
fn say_killed(id: u32) {
    let command = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
    let command = String::from_utf8_lossy(&command).replace('\0', " ");
    eprintln!("killed after {} seconds: {command}", LIMIT.as_secs());
}

/// Kills a process and its descendants, which may hold its pipes open.
fn kill(id: u32, processes: &[Process]) {
    let _ = std::process::Command::new("kill").args(["-9", &id.to_string()]).status();
    for child in processes.iter().filter(|process| process.parent == id) {
        kill(child.id, processes);
    }
}

#[test]
fn an_old_process_ends_with_its_children_and_a_young_one_goes_on() {
    let sleep = || {
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", "sleep 100 & wait"]).stdout(std::process::Stdio::piped()).spawn().unwrap()
    };
    let old = sleep();
    std::thread::sleep(Duration::from_millis(1500));
    let mut young = sleep();
    let processes = read_processes();
    let found = find_old_children(&processes, Duration::from_secs(1));
    assert!(found.contains(&old.id()) && !found.contains(&young.id()), "{found:?}");
    kill(old.id(), &processes);
    // The shell's child holds the pipe, too.
    assert!(!old.wait_with_output().unwrap().status.success());
    assert!(young.try_wait().unwrap().is_none());
    kill(young.id(), &processes);
    young.wait().unwrap();
}
