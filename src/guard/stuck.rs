//! Holders that cannot go on because of those who wait for them.
//!
//! While a WRITE, a RENAME or a CREATE waits here, the kernel keeps the inode of the file, or that
//! of the directory, locked. If the program that holds our lock then writes to the same file, or
//! makes another in the same directory, it is stuck in the kernel behind the one that waits for
//! it. Nothing comes to us of that, but `/proc/PID/wchan` (proc(5)) tells where in the kernel a
//! process sleeps. So a call that waits in this way is refused when a holder, or one of its
//! family, is seen to wait for a lock of the kernel, in one sleep all the while: a busy program
//! waits for such a lock, or for the disk, again and again, but each time not for long.

use std::collections::HashMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use log::Level;

use super::events::Event;
use super::family;
use super::queue::{Guard, Job, Work};
use crate::sys::process::boottime;

/// How long a call must have waited before it is asked whether it keeps its holder from going on.
const PERHAPS_IN_THE_WAY: Duration = Duration::from_millis(200);

/// How long a holder must have slept for a lock of the kernel.
const STUCK: Duration = Duration::from_millis(100);

/// The same where it cannot be told what it sleeps for: a disk or a server may be slow.
const PERHAPS_STUCK: Duration = Duration::from_secs(2);

/// The processes that wait in the kernel: since when they were seen in this sleep, and which of
/// their sleeps it is.
pub(super) type Sleeps = HashMap<u32, (Duration, u64)>;

/// Answers calls for which the kernel keeps something locked that a holder waits for, with
/// `EDEADLK`. `sleeps` keeps what the last look has found for the next.
pub(super) fn free_holders(guards: &[Arc<Guard>], sleeps: &mut Sleeps) {
    let now = boottime();
    let is_in_the_way = |job: &Job| {
        let locks_something = !matches!(job.work, Work::Lock(_) | Work::Look(_));
        locks_something && now.saturating_sub(job.queued) >= PERHAPS_IN_THE_WAY
    };
    let mut looked = false;
    for guard in guards {
        if !guard.queue.lock().jobs.iter().any(is_in_the_way) {
            continue;
        }
        let made = guard.shared.dotlocks.beside(guard.key());
        let mut holders: Vec<u32> = guard.queue.lock().holders().into_iter().collect();
        holders.extend(made.iter().filter_map(|made| made.holder()));
        if holders.is_empty() {
            continue;
        }
        if !looked {
            *sleeps = waiting_in_the_kernel(sleeps, now);
            looked = true;
        }
        let enough = if tells_places() { STUCK } else { PERHAPS_STUCK };
        let is_long = |since: &Duration| now.saturating_sub(*since) >= enough;
        let stuck = sleeps.iter().filter(|(_, (since, _))| is_long(since));
        let is_held_up = |pid: &&u32| holders.iter().any(|holder| family::related(*holder, **pid));
        // Who waits here is not stuck there.
        let waits_here = |pid: &&u32| {
            let queue = guard.queue.lock();
            queue.jobs.iter().any(|job| job.pid() == **pid)
        };
        let mut pids = stuck.map(|(pid, _)| pid);
        let Some(pid) = pids.find(|pid| is_held_up(pid) && !waits_here(pid)) else {
            continue;
        };
        for job in guard.take_jobs(|job| is_in_the_way(job) && !family::related(job.pid(), *pid)) {
            guard.happened(
                Event::Deadlock,
                Level::Warn,
                format_args!(
                    "process {} waits for the lock, and keeps process {pid}, which has it, from \
                     going on; it gets EDEADLK",
                    job.pid()
                ),
            );
            job.refuse(libc::EDEADLK);
        }
    }
    if !looked {
        sleeps.clear();
    }
}

/// The processes that wait for a lock on an inode (`rwsem_down_write_slowpath` and its like). Where
/// the kernel does not tell the place, those in an uninterruptible sleep.
fn waiting_in_the_kernel(before: &Sleeps, now: Duration) -> Sleeps {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Sleeps::new();
    };
    let is_told = tells_places();
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &u32| {
        let place = fs::read_to_string(format!("/proc/{pid}/wchan"));
        match is_told {
            true => place.is_ok_and(|place| place.starts_with("rwsem_down")),
            false => family::sleeps_deeply(*pid),
        }
    })
    .filter_map(|pid| {
        let sleep = sleeps_of(pid)?;
        let since = before.get(&pid).filter(|(_, which)| *which == sleep);
        Some((pid, (since.map_or(now, |(since, _)| *since), sleep)))
    })
    .collect()
}

/// How often a process has gone to sleep (proc_pid_status(5)).
fn sleeps_of(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| {
        line.strip_prefix("voluntary_ctxt_switches:")?
            .trim()
            .parse()
            .ok()
    })
}

/// Whether `wchan` tells where a process sleeps. Some kernels show 0, and User-mode Linux functions
/// that have nothing to do with it. Threads of ours wait for requests of the kernel.
fn tells_places() -> bool {
    static TELLS: AtomicBool = AtomicBool::new(false);
    if TELLS.load(Ordering::Relaxed) {
        return true;
    }
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten();
    let tells = tasks
        .filter_map(|task| fs::read_to_string(task.ok()?.path().join("wchan")).ok())
        .any(|place| place.starts_with("fuse_dev"));
    TELLS.store(tells, Ordering::Relaxed);
    tells
}
