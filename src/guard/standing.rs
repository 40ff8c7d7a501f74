//! How a guard stands: who has its lock, and who waits for it. For those who watch, and for the
//! log; nothing rests on it, and nobody waits for a server to tell it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use log::Level;
use parking_lot::Mutex;

use super::counts::Count;
use super::events::Event;
use super::queue::{Guard, Job, Work};
use crate::lock::Owner;
use crate::sys::process::boottime;

/// A wait that is longer is told in the log.
const LONG_WAIT: Duration = Duration::from_secs(5);

/// Whom a guard waits for, as its worker has last seen.
#[derive(Debug, Default)]
pub(super) struct Sight {
    /// With the number of the turn.
    seen: Mutex<Option<(u64, Seen)>>,
    /// Of the jobs up to this number it was said that they wait for long.
    told: AtomicU64,
    /// The last turn that was lost.
    lost: AtomicU64,
}

/// Who has a lock that this host waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// Another dotlockfs; `None` where its claim does not tell which.
    Daemon(Option<Arc<Owner>>),
    /// A program that has made `X.lock`.
    LockFile,
}

/// Who has the lock, as far as this host knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Nobody here has it or wants it. (Another host may have it.)
    Free,
    /// This host, and these of its programs, if they hold it themselves.
    Held(Vec<u32>),
    /// Somebody else, if that is known, and somebody here waits.
    Waiting(Option<Seen>),
}

/// What [`Guard::stands`] has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// Who has the lock.
    pub standing: Standing,
    /// How many calls are queued.
    pub queued: usize,
    /// How long the first of them has waited.
    pub longest: Duration,
}

impl Guard {
    /// How it stands. Waits for no server: only for what is held for a moment.
    pub fn stands(&self) -> Look {
        let now = boottime();
        let queue = self.queue.lock();
        let queued = queue.jobs.len();
        let first = queue.jobs.iter().map(|job| job.queued).min();
        let mut programs: Vec<u32> = queue.holders().into_iter().collect();
        drop(queue);
        programs.sort_unstable();
        let seen = self.sight.seen.lock().clone().map(|(_, seen)| seen);
        let is_held = self.pulse.lock().is_some();
        let standing = match (is_held, seen, queued) {
            // It waits for an `X.lock` within its turn.
            (true, Some(Seen::LockFile), 1..) => Standing::Waiting(Some(Seen::LockFile)),
            (true, ..) => Standing::Held(programs),
            (false, seen, 1..) => Standing::Waiting(seen),
            (false, _, 0) => Standing::Free,
        };
        Look {
            standing,
            queued,
            longest: first.map_or(Duration::ZERO, |first| now.saturating_sub(first)),
        }
    }

    /// Turn `n` is somebody else's.
    pub(super) fn sees(&self, n: u64, owner: impl FnOnce() -> Option<Arc<Owner>>) {
        let mut seen = self.sight.seen.lock();
        let is_known = |(of, seen): &(u64, Seen)| *of == n && *seen != Seen::Daemon(None);
        if !seen.as_ref().is_some_and(is_known) {
            *seen = Some((n, Seen::Daemon(owner())));
        }
    }

    /// A program's lock file is in the way.
    pub(super) fn sees_lock_file(&self) {
        *self.sight.seen.lock() = Some((0, Seen::LockFile));
    }

    /// Nobody is in the way.
    pub(super) fn sees_nobody(&self) {
        *self.sight.seen.lock() = None;
    }

    /// So many more.
    pub(super) fn count(&self, what: Count, number: u64) {
        self.shared.events.counts.add(what, number);
    }

    /// These jobs begin now.
    pub(super) fn has_waited(&self, jobs: &[Job], now: Duration) {
        for job in jobs {
            let waited = now.saturating_sub(job.queued);
            self.shared.events.counts.waits.add(waited);
        }
    }

    /// A call was served at once.
    pub(super) fn has_not_waited(&self) {
        self.shared.events.counts.waits.add(Duration::ZERO);
    }

    /// Something has happened to the file: counts it and says it.
    pub fn happened(&self, event: Event, level: Level, what: fmt::Arguments<'_>) {
        let events = &self.shared.events;
        events.happened(event, level, &self.label, what);
    }

    /// Turn `turn` was ended by another host; `when` goes on with the sentence.
    pub(super) fn has_lost(&self, turn: u64, event: Event, when: &str) {
        if self.sight.lost.swap(turn, Ordering::Relaxed) != turn {
            self.count(Count::Lost, 1);
        }
        let level = match when {
            "" => Level::Warn,
            _ => Level::Error,
        };
        let what = format_args!("turn {turn} was ended by another host{when}");
        self.happened(event, level, what);
    }

    /// Says so, once, where a call waits for long for what `holder` has.
    pub(super) fn tell_of_long_wait(&self, now: Duration, holder: &impl Fn() -> String) {
        let queue = self.queue.lock();
        let told = self.sight.told.load(Ordering::Relaxed);
        let is_long = |job: &&Job| job.number > told && now.saturating_sub(job.queued) >= LONG_WAIT;
        let Some(job) = queue.jobs.iter().find(is_long) else {
            return;
        };
        // Those wait for a lock that programs hold for as long as they like.
        let level = match &job.work {
            Work::Lock(_) => Level::Info,
            _ => Level::Warn,
        };
        let waited = Duration::from_secs(now.saturating_sub(job.queued).as_secs());
        // Those behind it wait for the same.
        self.sight.told.store(queue.jobs_so_far, Ordering::Relaxed);
        let (pid, others) = (job.pid(), queue.jobs.len() - 1);
        drop(queue);
        let more = match others {
            0 => String::new(),
            _ => format!("; {others} more wait"),
        };
        let waited = humantime::format_duration(waited);
        let holder = holder();
        self.happened(
            Event::Wait,
            level,
            format_args!(
                "process {pid} has waited {waited} for the lock, which is held by {holder}{more}"
            ),
        );
    }
}
