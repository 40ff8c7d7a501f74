//! Whether the turn that is held can have been broken.
//!
//! Nobody breaks a turn before its claim has shown no sign of life for `stale_after`. So what is
//! answered within half of that after the last sign was done while the turn was ours, and costs no
//! further call. Later (the host was paused, the network cut, the server slow) the turn is *slow*:
//! an answer waits for a fresh look whether the turn is still the newest, and so does an append by
//! programs that hold it; no other update begins under it, since a breaker's link may be on its way.

use std::ffi::CString;
use std::io;
use std::time::Duration;

use super::queue::Guard;
use crate::lock::turns::Actor;
use crate::lock::{Directory, Identity, LockNames, Turns};
use crate::sys::process::boottime;

/// The turn that a guard holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pulse {
    /// Its number.
    pub turn: u64,
    /// Whose claim holds it.
    pub actor: Actor,
    /// That claim.
    pub claim: CString,
    /// Its inode.
    pub identity: Identity,
    /// When its last sign of life was sent, or earlier.
    pub sign: Duration,
    /// It has been slow at some time. A sign of life after that undoes nothing: a breaker may have
    /// made up its mind before.
    pub slow: bool,
    /// It is not ours any more, or its claim is gone, which comes to the same.
    pub over: bool,
}

impl Guard {
    /// The turn is held, or none is.
    pub(super) fn set_pulse(&self, pulse: Option<Pulse>) {
        *self.pulse.lock() = pulse;
    }

    /// Shows a sign of life, where that is due, by `refresh`, which gives the time of the last.
    ///
    /// # Errors
    /// Those of `refresh`.
    pub(super) fn beat(
        &self,
        now: Duration,
        refresh: impl FnOnce() -> io::Result<Duration>,
    ) -> io::Result<()> {
        let slow = self.is_slow_at(now);
        if let Some(pulse) = &mut *self.pulse.lock() {
            pulse.slow = slow;
        }
        let sign = refresh()?;
        if let Some(pulse) = &mut *self.pulse.lock() {
            pulse.sign = pulse.sign.max(sign);
        }
        Ok(())
    }

    /// No update begins under this turn any more, and what programs hold is lost.
    pub(super) fn set_over(&self) {
        if let Some(pulse) = &mut *self.pulse.lock() {
            (pulse.slow, pulse.over) = (true, true);
        }
    }

    /// Whether that is so.
    pub(super) fn is_over(&self) -> bool {
        self.pulse.lock().as_ref().is_none_or(|pulse| pulse.over)
    }

    /// Shows a sign of life, where that is due, in the middle of work that takes long. A failure
    /// shows in that the turn becomes slow.
    pub fn show_life(&self) {
        let slow = self.is_slow();
        let due = {
            let mut pulse = self.pulse.lock();
            let Some(pulse) = &mut *pulse else { return };
            pulse.slow = slow;
            let age = boottime().saturating_sub(pulse.sign);
            (age >= self.rule.stale_after / 4).then(|| pulse.clone())
        };
        let Some(pulse) = due else {
            return;
        };
        let sign = boottime();
        let _assumed = self.act_as(pulse.actor);
        let shown = self.dir.touch(&pulse.claim, pulse.identity);
        match shown.and_then(|()| self.is_newest(&pulse)) {
            Ok(true) => {
                if let Some(pulse) = &mut *self.pulse.lock() {
                    pulse.sign = pulse.sign.max(sign);
                }
            }
            Ok(false) => self.set_over(),
            Err(error) => log::warn!(
                "{}: no sign of life could be shown for its lock: {error}",
                self.label
            ),
        }
    }

    /// The number of the turn that is held; 0 where none is.
    pub(super) fn turn_number(&self) -> u64 {
        self.pulse.lock().as_ref().map_or(0, |pulse| pulse.turn)
    }

    /// Whether the turn is slow, or there is none.
    pub(super) fn is_slow(&self) -> bool {
        self.is_slow_at(boottime())
    }

    /// The same at a time that was looked at before.
    pub(super) fn is_slow_at(&self, now: Duration) -> bool {
        self.pulse.lock().as_ref().is_none_or(|pulse| {
            pulse.slow || now.saturating_sub(pulse.sign) >= self.rule.stale_after / 2
        })
    }

    /// An update is about to begin whose target has been looked up under the turn.
    ///
    /// # Errors
    /// `EIO` where the turn is slow; nothing may be done then.
    pub fn may_begin(&self) -> io::Result<()> {
        self.is_prompt()
            .map_err(|_| io::Error::from_raw_os_error(libc::EIO))
    }

    /// The same for what can be done again under another turn.
    ///
    /// # Errors
    /// `ETIMEDOUT` where the turn is slow.
    pub(super) fn is_prompt(&self) -> io::Result<()> {
        if self.is_unlocked() || !self.is_slow() {
            return Ok(());
        }
        Err(io::Error::from_raw_os_error(libc::ETIMEDOUT))
    }

    /// An update was done, and is to be acknowledged: was the turn ours all the while?
    ///
    /// # Errors
    /// `EIO` where it was lost, or that cannot be told; what is held by programs is lost then.
    pub fn still_ours(&self) -> io::Result<()> {
        if self.is_unlocked() || !self.is_slow() {
            return Ok(());
        }
        let lost = || io::Error::from_raw_os_error(libc::EIO);
        let Some(pulse) = self.pulse.lock().clone() else {
            return Err(lost());
        };
        match self.is_newest(&pulse) {
            Ok(true) => Ok(()),
            Ok(false) => {
                self.lose(pulse.turn);
                Err(lost())
            }
            Err(error) => {
                log::error!(
                    "{}: cannot tell whether the lock was lost: {error}",
                    self.label
                );
                Err(lost())
            }
        }
    }

    /// What is done now needs no turn: a program's own lock file stands, or the directory is gone.
    fn is_unlocked(&self) -> bool {
        self.queue.lock().under_a_lock_file
    }

    /// Whether the turn is the newest, and not over; fresh.
    fn is_newest(&self, pulse: &Pulse) -> io::Result<bool> {
        let names = LockNames::new(&self.key().name);
        let _assumed = self.act_as(pulse.actor);
        Turns::is_newest(&*self.dir, &names, (pulse.turn, &pulse.claim), boottime())
    }
}
