//! What is measured beside the rounds: memory, and sleep.

use std::thread;
use std::time::{Duration, Instant};

use super::daemon;
use super::figures::{Idle, Memory};
use super::job::{FILES_IN_DIRECTORY, Job, Style};
use super::measures::{Ack, Kind};
use super::place::{Place, Subject};
use super::rounds::Bench;
use crate::cli::stage::interrupt::Failure;

/// The tree of the files that daemons get to know, below the source.
const TREE: &str = "inodes";
/// How long nothing is asked of a daemon that should sleep.
const QUIET: Duration = Duration::from_secs(2);
/// How long after an append a daemon may have something to put away: names of old turns are removed
/// after 5 seconds, and threads end after 10 without work.
const SETTLES: Duration = Duration::from_secs(12);
/// By when it must have come to rest, on a machine that is busy otherwise.
const SETTLED: Duration = Duration::from_secs(40);
const POLL: Duration = Duration::from_millis(20);

impl Bench<'_> {
    /// How large the daemons of a place become by knowing many files.
    ///
    /// # Errors
    /// A signal, or a sentence.
    pub fn memory(&self, number: usize, place: &Place) -> Result<Vec<Memory>, Failure> {
        let (tree, files) = (place.source.join(TREE), self.amounts.inodes);
        self.work(&[Job::Plant { tree, files }])?;
        let mut memory = Vec::new();
        for kind in [Kind::Dotlockfs, Kind::Bindfs] {
            if place.subjects.iter().all(|subject| subject.kind != kind) {
                continue;
            }
            // Afresh: what was allocated for other measures would be used again.
            let mount = place.mount(kind, self.dotlockfs, &format!("{}-fresh", kind.name()))?;
            let gone = || {
                Failure::on(
                    "look at the process that serves",
                    mount.point(),
                    "it has ended",
                )
            };
            let pid = mount.daemon()?;
            let tree = mount.point().join(TREE);
            // What the first requests need once does not count.
            self.work(&[Job::Walk {
                tree: tree.join("0"),
            }])?;
            let before = daemon::resident(pid).ok_or_else(gone)?;
            self.work(&[Job::Walk { tree }])?;
            let after = daemon::resident(pid).ok_or_else(gone)?;
            let known = files.saturating_sub(FILES_IN_DIRECTORY);
            let inodes = u64::from(known + known.div_ceil(FILES_IN_DIRECTORY));
            let bytes = after.saturating_sub(before);
            memory.push(Memory {
                place: number,
                subject: kind.name(),
                inodes,
                bytes,
                bytes_per_inode: bytes as f64 / inodes.max(1) as f64,
            });
        }
        Ok(memory)
    }

    /// Whether the daemon of a place sleeps, some time after an append.
    ///
    /// # Errors
    /// A signal, or a sentence.
    pub fn idle(&self, number: usize, place: &Place) -> Result<Option<Idle>, Failure> {
        let ours = |subject: &&Subject| subject.kind == Kind::Dotlockfs;
        let Some(subject) = place.subjects.iter().find(ours) else {
            return Ok(None);
        };
        let Some(pid) = subject.daemon else {
            return Ok(None);
        };
        self.work(&[Job::Append {
            file: subject
                .root
                .join(Place::appended(subject, Ack::Write, "last")),
            writer: 1,
            style: Style::OpenEach,
            time: Duration::ZERO,
        }])?;
        let appended = Instant::now();
        let wait_for = |end: Duration| {
            while appended.elapsed() < end {
                self.interrupts.check()?;
                thread::sleep(POLL);
            }
            Ok(())
        };
        wait_for(SETTLES)?;
        loop {
            let (before, began) = (daemon::sleeps(pid), appended.elapsed());
            wait_for(began + QUIET)?;
            let woken = daemon::woken(&before, &daemon::sleeps(pid));
            if woken == 0 || began > SETTLED {
                return Ok(Some(Idle {
                    place: number,
                    seconds: QUIET.as_secs_f64(),
                    woken,
                    after_seconds: began.as_secs_f64(),
                }));
            }
        }
    }
}
