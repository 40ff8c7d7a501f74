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

/// The witness, and older ones for as long as they may know more.
#[derive(Debug)]
pub(super) struct Witnesses(Vec<Witness>);

impl Witnesses {
    /// Starts one. Signals must be blocked.
    ///
    /// # Errors
    /// Those of starting a process.
    pub(super) fn start() -> io::Result<Witnesses> {
        Ok(Witnesses(vec![Witness::start()?]))
    }

    /// Gives those of all signals that have come (`arrived` takes them) which were for this process
    /// alone.
    ///
    /// A witness that has seen a signal must not bear witness to the next one, so another takes its
    /// place. What came before that one was there is known to the old one only; therefore both are
    /// asked, until nothing has come since the newest was there.
    ///
    /// # Errors
    /// Those of `arrived`, and of starting a process.
    pub(super) fn for_us_alone(
        &mut self,
        mut arrived: impl FnMut() -> io::Result<Vec<Signal>>,
    ) -> io::Result<Vec<Signal>> {
        let mut alone = Vec::new();
        loop {
            let signals = arrived()?;
            if signals.is_empty() {
                self.0.drain(..self.0.len() - 1);
                return Ok(alone);
            }
            let (seen, unseen): (Vec<_>, Vec<_>) = signals
                .into_iter()
                .partition(|signal| self.have_seen(*signal));
            alone.extend(unseen);
            if !seen.is_empty() {
                self.0.push(Witness::start()?);
            }
        }
    }

    fn have_seen(&self, signal: Signal) -> bool {
        (0..LOOKS).any(|look| {
            if look > 0 {
                thread::sleep(Duration::from_millis(1));
            }
            self.0.iter().any(|witness| witness.has(signal))
        })
    }
}

/// A process that keeps signals waiting.
#[derive(Debug)]
struct Witness(Pid);

impl Witness {
    fn start() -> io::Result<Witness> {
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
