//! The mount that is watched: from its parts to what is told of it.

use std::cmp::{Ordering, Reverse};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::report::{Calls, FORMAT, Guard, Holder, Options, Report, Rules, State, Totals, Waits};
use crate::config::error::shown;
use crate::fs::Overlay;
use crate::guard::counts::Count;
use crate::guard::standing::{Look, Seen, Standing};
use crate::sys::calls::{self, Call};
use crate::sys::process::boottime;
use crate::sys::{creds, mount_table};

/// So many guards are told of at the most: those at work first.
const MANY: usize = 1000;

/// What is known of a mount from its beginning on.
#[derive(Debug)]
pub struct Watched {
    /// The mount itself.
    pub overlay: Arc<Overlay>,
    /// The directory that is guarded.
    pub source: PathBuf,
    /// Where.
    pub mountpoint: PathBuf,
    /// Device number of the mount.
    pub dev: u64,
    /// The type of the file system that the source is on, if that is known.
    pub file_system: Option<String>,
    /// The rule file, if rules stand in one when there are any.
    pub rule_file: Option<PathBuf>,
    /// All users may use it.
    pub allow_other: bool,
    /// Threads that read requests.
    pub threads: usize,
    /// Where metrics are served.
    pub metrics: Option<String>,
    /// When it was mounted, on [`boottime`]'s clock.
    pub since: Duration,
}

impl Watched {
    /// What there is to tell just now. Asks no file system.
    pub fn report(&self) -> Report {
        let mut all = self.all_guards();
        all.sort_by(by_rank);
        let guards = self.overlay.guards();
        let rules = self.overlay.rules();
        let count = match rules.guards_everything_alike() {
            Some(_) => 0,
            None => rules.rules().len(),
        };
        let with = |state| all.iter().filter(|guard| guard.state == state).count();
        Report {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: guards.owner().pid,
            uid: creds::euid(),
            host: guards.owner().host.clone(),
            source: shown(&self.source),
            mountpoint: shown(&self.mountpoint),
            device: format!("{}:{}", libc::major(self.dev), libc::minor(self.dev)),
            file_system: self.file_system.clone(),
            uptime_seconds: self.uptime_seconds(),
            options: Options {
                read_only: mount_table::of_device(self.dev).is_some_and(|mount| mount.read_only()),
                allow_other: self.allow_other,
                passthrough: self.overlay.passes_through(),
                threads: self.threads,
                metrics: self.metrics.clone(),
            },
            rules: Rules {
                // There need not be one; and it may come later, by SIGHUP.
                file: self.rule_file.as_deref().filter(|_| count > 0).map(shown),
                count,
            },
            guards_total: all.len(),
            guards_held: with(State::Held),
            guards_waiting: with(State::Waiting),
            guards: all.into_iter().take(MANY).collect(),
            totals: self.totals(),
            calls: calls_made(),
        }
    }

    /// Since it was mounted.
    pub(super) fn uptime_seconds(&self) -> f64 {
        seconds(boottime().saturating_sub(self.since))
    }

    /// All guards, in no order.
    pub(super) fn all_guards(&self) -> Vec<Guard> {
        let all = self.overlay.guards().all();
        all.iter()
            .map(|guard| told(guard.label(), guard.stands()))
            .collect()
    }

    /// What has happened.
    pub(super) fn totals(&self) -> Totals {
        let counts = &self.overlay.guards().events().counts;
        let get = |what| counts.get(what);
        let times = counts.waits.read();
        Totals {
            waits: Waits {
                count: times.count(),
                median_seconds: seconds(times.quantile(0.5)),
                p99_seconds: seconds(times.quantile(0.99)),
                max_seconds: seconds(times.longest),
                sum_seconds: seconds(times.sum),
            },
            turns: get(Count::Turns),
            batches: get(Count::Batches),
            appends: get(Count::Appends),
            appended_bytes: get(Count::AppendedBytes),
            largest_batch: counts.largest_batch(),
            breaks: get(Count::Breaks),
            turns_lost: get(Count::Lost),
            fences: get(Count::Fences),
            refused_stale: get(Count::Stale),
            refused_denied: get(Count::Denied),
            timeouts: get(Count::Timeouts),
            deadlocks: get(Count::Deadlocks),
            interrupted: get(Count::Interrupted),
            errors: get(Count::Errors),
        }
    }
}

/// System calls of this process.
pub(super) fn calls_made() -> Calls {
    Calls {
        link: calls::made(Call::Link),
        getattr: calls::made(Call::Getattr),
        write: calls::made(Call::Write),
        sync: calls::made(Call::Sync),
    }
}

/// First where calls wait for others, the longest wait first; then what is held; and then the others,
/// by name.
fn by_rank(a: &Guard, b: &Guard) -> Ordering {
    let rank = |guard: &Guard| Reverse(guard.state as u8);
    let by_state = rank(a).cmp(&rank(b));
    let by_wait = b.waited_seconds.total_cmp(&a.waited_seconds);
    by_state.then(by_wait).then_with(|| a.file.cmp(&b.file))
}

/// To the microsecond: more would only look exact.
fn seconds(time: Duration) -> f64 {
    time.as_micros() as f64 / 1e6
}

fn told(file: &str, look: Look) -> Guard {
    let (state, holder) = match look.standing {
        Standing::Free => (State::Free, None),
        Standing::Held(programs) => (State::Held, Some(Holder::Here { programs })),
        Standing::Waiting(seen) => {
            let holder = match seen {
                None | Some(Seen::Daemon(None)) => None,
                Some(Seen::Daemon(Some(owner))) => Some(Holder::Other {
                    host: owner.host.clone(),
                    pid: owner.pid,
                }),
                Some(Seen::LockFile) => Some(Holder::LockFile),
            };
            (State::Waiting, holder)
        }
    };
    Guard {
        file: file.to_owned(),
        state,
        holder,
        queued: look.queued,
        waited_seconds: seconds(look.longest),
    }
}
