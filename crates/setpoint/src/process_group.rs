//! Programs that are started in a process group of their own, so that they end with everything that they started.

use std::io;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

/// A program and its descendants. They are killed when this is dropped.
#[derive(Debug)]
pub struct ProcessGroup {
    /// The program, whose pipes may be taken.
    pub child: Child,
}

impl ProcessGroup {
    /// Starts a program in a group of its own. On systems without process groups its descendants may outlive it.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn spawn(command: &mut Command) -> io::Result<Self> {
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(command, 0);
        Ok(Self { child: command.spawn()? })
    }

    /// Waits for the program to end, until `deadline`. Returns `None` if it still runs then.
    pub fn wait_until(&mut self, deadline: Instant) -> Option<ExitStatus> {
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Some(status),
                Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
                _ => return None,
            }
        }
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        #[cfg(unix)]
        if let Ok(id) = libc::pid_t::try_from(self.child.id()) {
            // SAFETY: the call takes two numbers, and no memory of this process. The group is the child's own.
            unsafe { libc::killpg(id, libc::SIGKILL) };
        }
        // Both fail only if the program ended before.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::process::Stdio;

    use super::*;

    #[test]
    fn descendants_end_with_the_program() {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 1000 & echo $!; wait"]).stdout(Stdio::piped());
        let mut group = ProcessGroup::spawn(&mut command).unwrap();
        let mut line = String::new();
        let mut output = BufReader::new(group.child.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        assert!(group.wait_until(Instant::now()).is_none());
        drop(group);
        // The pipe closes when the last process that holds it is gone.
        let mut rest = String::new();
        assert_eq!(output.read_line(&mut rest).unwrap(), 0);
    }
}
