//! Processes that work for a run, and do not outlive it.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

/// How long a killed process may take to be gone.
const KILL_DEADLINE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(10);

/// A child with a process group of its own; killed, group and all, if it goes out of scope before
/// it has ended.
#[derive(Debug)]
pub struct Worker {
    /// The process.
    pub child: Child,
}

impl Worker {
    /// Starts it. Ctrl-C reaches this process alone, which then ends its workers.
    ///
    /// # Errors
    /// Those of starting a program.
    pub fn start(command: &mut Command) -> io::Result<Worker> {
        let child = command.process_group(0).spawn()?;
        Ok(Worker { child })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Once waited for, its number may belong to someone else.
        if matches!(self.child.try_wait(), Ok(None)) {
            // So the number, which is that of the group, cannot have been given away. A group that
            // has ended already is no fault.
            let _ = crate::sys::process::kill_group(self.child.id());
            // Not wait(): a program inside a mount that does not answer may not even die.
            let deadline = Instant::now() + KILL_DEADLINE;
            while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
                thread::sleep(POLL);
            }
        }
    }
}
