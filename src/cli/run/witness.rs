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

use super::supervise::Arrived;
use crate::sys::{again, process};

/// How often the witness is looked at: the kernel may not have come to it yet.
const LOOKS: u32 = 5;

/// The witness, and what older ones knew.
#[derive(Debug)]
pub(super) struct Witnesses {
    /// The newest is the last. None where no process can be started: then all signals are passed
    /// on, for one that is doubled is better than one that is lost.
    witnesses: Vec<Witness>,
    /// Signals, one bit each, that witnesses had which are gone, and that have not come here yet.
    to_come: u64,
}

impl Witnesses {
    /// Starts one. Signals must be blocked.
    pub(super) fn start() -> Witnesses {
        Witnesses {
            witnesses: Witness::start().into_iter().collect(),
            to_come: 0,
        }
    }

    /// Gives those of all signals that have come (`arrived` takes them) which were for this process
    /// alone.
    ///
    /// A witness that has a signal must not bear witness to the next one, so another takes its
    /// place. What came before that one was there is known to the old one only; therefore both are
    /// asked, until nothing has come since the newest was there.
    ///
    /// # Errors
    /// Those of `arrived`.
    pub(super) fn for_us_alone(
        &mut self,
        mut arrived: impl FnMut() -> io::Result<Vec<Arrived>>,
    ) -> io::Result<Vec<Signal>> {
        let mut alone = Vec::new();
        loop {
            let all = arrived()?;
            if all.is_empty() {
                self.forget_old();
                return Ok(alone);
            }
            for Arrived {
                signal,
                by_terminal,
            } in all
            {
                // Asked in any case, so that the witness has got it before it is replaced.
                let seen = self.have_seen(bit(signal));
                if !seen && !by_terminal {
                    alone.push(signal);
                }
            }
            if self.witnesses.last().is_none_or(|last| last.has() != 0) {
                match Witness::start() {
                    Ok(next) => self.witnesses.push(next),
                    Err(_) => self.witnesses.clear(),
                }
            }
        }
    }

    fn have_seen(&mut self, bit: u64) -> bool {
        let seen = self.to_come & bit != 0
            || (0..LOOKS).any(|look| {
                if look > 0 {
                    thread::sleep(Duration::from_millis(1));
                }
                self.witnesses
                    .iter()
                    .any(|witness| witness.has() & bit != 0)
            });
        self.to_come &= !bit;
        for witness in &mut self.witnesses {
            witness.told |= bit;
        }
        seen
    }

    /// Ends all but the newest. What they have that has not come here is on its way.
    fn forget_old(&mut self) {
        let old = self.witnesses.len().saturating_sub(1);
        for witness in self.witnesses.drain(..old) {
            self.to_come |= witness.has() & !witness.told;
        }
    }
}

/// The place of a signal in the masks of proc_pid_status(5).
fn bit(signal: Signal) -> u64 {
    1 << (signal as i32 - 1)
}

/// A process that keeps signals waiting.
#[derive(Debug)]
struct Witness {
    pid: Pid,
    /// Signals, one bit each, about which it was asked.
    told: u64,
}

impl Witness {
    fn start() -> io::Result<Witness> {
        let parent = getpid();
        if let Some(pid) = process::fork_with_id()? {
            return Ok(Witness { pid, told: 0 });
        }
        // `killall dotlockfs` does not mean the whole group, and must not look as if it did.
        let _ = prctl::set_name(c"run-witness");
        let _ = process::leave_errors();
        let _ = prctl::set_pdeathsig(Signal::SIGKILL);
        while getppid() == parent {
            pause();
        }
        process::exit_now(0)
    }

    /// The signals that it has, one bit each.
    fn has(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        status
            .lines()
            .find_map(|line| line.strip_prefix("ShdPnd:"))
            .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
            .unwrap_or(0)
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        let _ = kill(self.pid, Signal::SIGKILL);
        let _ = again(|| waitpid(self.pid, None));
    }
}
