//! Whether a signal was sent to this process alone, or to its whole process group.
//!
//! The command is in the same group. What a terminal sends, or `kill` with a negative number, it has
//! got already, and a second one may mean something else to it: many programs end in good order at
//! the first SIGINT or SIGTERM, and drop everything at the second. A signal does not tell to whom it
//! was sent. So there is a witness, a process in the group that does nothing but keep all signals
//! waiting: those that it has, too, were for the group.

use std::fs;
use std::io;
use std::thread;
use std::time::Duration;

use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, getpid, getppid, pause};

use super::again;
use crate::sys::process;

/// How often the witness is looked at: the kernel may not have come to it yet.
const LOOKS: u32 = 5;

/// The witness.
#[derive(Debug)]
pub(super) struct Witness(Pid);

impl Witness {
    /// Starts it. Signals must be blocked.
    pub(super) fn start() -> io::Result<Witness> {
        let parent = getpid();
        if let Some(pid) = process::fork_with_id()? {
            return Ok(Witness(pid));
        }
        let _ = process::leave_errors();
        let _ = prctl::set_pdeathsig(Signal::SIGKILL);
        while getppid() == parent {
            pause();
        }
        process::exit_now(0)
    }

    /// Whether the signal, which this process has got, was for the whole group.
    pub(super) fn has_seen(&mut self, signal: Signal) -> bool {
        let seen = (0..LOOKS).any(|look| {
            if look > 0 {
                thread::sleep(Duration::from_millis(1));
            }
            self.has(signal)
        });
        // It must not bear witness to the next one. The new one is there before the old one goes.
        if seen && let Ok(next) = Witness::start() {
            drop(std::mem::replace(self, next));
        }
        seen
    }

    fn has(&self, signal: Signal) -> bool {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0)).unwrap_or_default();
        status
            .lines()
            .find_map(|line| line.strip_prefix("ShdPnd:"))
            .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
            .is_some_and(|mask| mask >> (signal as i32 - 1) & 1 == 1)
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGKILL);
        let _ = again(|| waitpid(self.0, None));
    }
}
