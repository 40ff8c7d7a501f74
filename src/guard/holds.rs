//! Locks that outlast one job: a turn is kept for as long as somebody holds it.
//!
//! An update in place holds the lock from open to the last close, an advisory lock until it is
//! let go. Meanwhile the worker keeps the turn alive, and does what does not stand against what
//! is held: the work of the holders themselves and of their families (see [`super::family`]).

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use log::Level;
use parking_lot::Mutex;

use super::events::Event;
use super::family::{Line, is_single_threaded, related};
use super::locks::{Holder, Lock};
use super::queue::{Guard, Job, Look, Queue, Waiter, Work};
use super::rhythm;
use crate::sys::process::boottime;

/// How long a call must have waited before it is asked whether its wait can ever end.
const PERHAPS_FOR_EVER: Duration = Duration::from_millis(100);

/// How long it takes at the most from a close to the news that it was the last, on a busy machine.
const TO_CLOSE: Duration = Duration::from_secs(2);
/// The same if it was not the holder that has closed it, but a child, say, that had inherited the
/// descriptor: then it was hardly the last.
const TO_CLOSE_PERHAPS: Duration = Duration::from_millis(200);
/// How long others on this host are held up, once those who hold the lock have had it for as long
/// as is fair to other hosts: perhaps it comes to its end. But nobody waits for a lock that is not
/// in the way.
const HELD_UP: Duration = Duration::from_secs(1);

/// Keeps the lock until it is dropped.
#[derive(Debug)]
pub struct Hold {
    guard: Arc<Guard>,
    entry: Arc<Entry>,
}

/// What becomes of what programs hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outlook {
    /// Nothing is held.
    Idle,
    /// All may be about to be let go: who has it was heard to close the file, but not yet whether
    /// that was the last close.
    Ending,
    /// Something is held.
    Held,
}

/// What is known of a hold.
#[derive(Debug)]
pub(super) struct Entry {
    /// The process that holds it, and those above it.
    line: Line,
    /// The lock was lost: another host has it.
    lost: AtomicBool,
    /// There is no turn: the program has made a lock file.
    under_a_lock_file: bool,
    /// The program has closed what may be its last descriptor: until when that must be known, and
    /// whether an update is to be put in its place then.
    closing: Mutex<Option<(Duration, bool)>>,
}

impl Entry {
    /// Whether it may be about to end; and if `publishing` is set, with an update.
    fn is_closing(&self, publishing: bool) -> bool {
        self.closing
            .lock()
            .is_some_and(|(until, publishes)| boottime() < until && (publishes || !publishing))
    }
}

impl Hold {
    /// Whether another host has ended our turn, so that nothing more may be written.
    pub fn is_lost(&self) -> bool {
        self.entry.lost.load(Ordering::Acquire)
    }

    /// Something was done under the lock, and is to be acknowledged.
    ///
    /// # Errors
    /// `EIO` where another host has ended our turn.
    pub fn still_ours(&self) -> io::Result<()> {
        if !self.is_lost() && (self.is_under_a_lock_file() || self.guard.still_ours().is_ok()) {
            return Ok(());
        }
        Err(io::Error::from_raw_os_error(libc::EIO))
    }

    /// The process `pid` has closed a descriptor. If that was the last, the lock is about to be let
    /// go: the kernel tells of the last close only after the program goes on. With `publishes` its
    /// update is about to be put in its place, and whoever looks at the file now waits for that.
    pub fn set_closing(&self, pid: u32, publishes: bool) {
        let patience = if pid == self.pid() {
            TO_CLOSE
        } else {
            TO_CLOSE_PERHAPS
        };
        *self.entry.closing.lock() = Some((boottime() + patience, publishes));
    }

    /// That was the last close, and an update is being put in its place until the hold is gone.
    pub fn set_publishing(&self) {
        *self.entry.closing.lock() = Some((Duration::MAX, true));
    }

    /// The program goes on writing.
    pub fn set_not_closing(&self) {
        *self.entry.closing.lock() = None;
    }

    /// Whether the program has closed a descriptor, and not gone on writing since.
    pub fn was_closed(&self) -> bool {
        self.entry.closing.lock().is_some()
    }

    /// Whether the program that holds it has locked the file by a lock file of its own.
    pub fn is_under_a_lock_file(&self) -> bool {
        self.entry.under_a_lock_file
    }

    /// The process that holds it; 0 where that is not known.
    pub fn pid(&self) -> u32 {
        self.entry.line.pid
    }

    /// The guard whose lock it is.
    pub fn guard(&self) -> &Arc<Guard> {
        &self.guard
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut queue = self.guard.queue.lock();
        queue.holds.retain(|entry| !Arc::ptr_eq(entry, &self.entry));
        drop(queue);
        self.guard.arrived.notify_one();
        self.guard.leave();
    }
}

impl Queue {
    /// Whether something outlasts the job that has brought it.
    pub(super) fn is_held(&self) -> bool {
        !self.holds.is_empty() || !self.locks.is_empty()
    }

    /// Some of those whose locks were lost know of it, or ask anew.
    pub(super) fn forget_lost(&mut self, are_these: impl Fn(&Holder) -> bool) {
        self.lost_holders.retain(|lost| !are_these(lost));
    }

    /// The processes that hold the lock.
    pub(super) fn holders(&self) -> HashSet<u32> {
        let holds = self.holds.iter().map(|entry| entry.line.pid);
        let locks = self.locks.iter().map(|lock| lock.holder.pid);
        holds.chain(locks).collect()
    }

    /// Whether an update may be about to be put in its place.
    pub(super) fn is_closing(&self) -> bool {
        self.holds.iter().any(|entry| entry.is_closing(true))
    }

    /// Whether whatever is held may be about to be let go, all of it.
    fn is_ending(&self) -> bool {
        let is_over = |lock: &Lock| self.closing.includes(lock.holder.owner);
        self.is_held()
            && self.holds.iter().all(|entry| entry.is_closing(false))
            && self.locks.iter().all(is_over)
    }

    /// Whose locks stand in the way of a job, on this host. `None`: nobody's.
    fn in_the_way(&self, job: &Job) -> Option<HashSet<u32>> {
        if !self.is_held() {
            return None;
        }
        match &job.work {
            // On a local disk, too, an advisory lock keeps out only those who ask for it.
            Work::Append(_) | Work::Write(_) => self.strangers_that_hold(job),
            Work::Lock(request) => self.strangers_that_hold(job).or_else(|| {
                // Who will not wait is refused at once, unless the other may be gone already.
                let others: HashSet<u32> = self
                    .conflicts(&request.lock)
                    .filter(|lock| request.wait || self.closing.includes(lock.holder.owner))
                    .map(|lock| lock.holder.pid)
                    .collect();
                (!others.is_empty()).then_some(others)
            }),
            Work::Alone(_) => {
                let locks = self.locks.iter().map(|lock| lock.holder.pid);
                let pid = job.pid();
                let strangers: HashSet<u32> = locks.filter(|other| !related(pid, *other)).collect();
                self.strangers_that_hold(job)
                    .or_else(|| (!strangers.is_empty()).then_some(strangers))
            }
            Work::MakeLock(_) | Work::Look(_) => None,
        }
    }

    /// The numbers of the jobs that ask for a lock which another has that may be gone already.
    pub(super) fn those_that_wait_for_a_close(&self) -> Vec<u64> {
        let waits_for_a_close = |job: &&Job| match &job.work {
            Work::Lock(request) => self
                .conflicts(&request.lock)
                .any(|lock| self.closing.includes(lock.holder.owner)),
            _ => false,
        };
        let jobs = self.jobs.iter().filter(waits_for_a_close);
        jobs.map(|job| job.number).collect()
    }

    /// Who has the file locked for longer, and does not belong with the process.
    fn strangers_that_hold(&self, job: &Job) -> Option<HashSet<u32>> {
        if self.holds.is_empty() {
            return None;
        }
        let line = job.line();
        let strangers: HashSet<u32> = self
            .holds
            .iter()
            .filter(|entry| !entry.line.is_related(line))
            .map(|entry| entry.line.pid)
            .collect();
        (!strangers.is_empty()).then_some(strangers)
    }

    /// Whether all that is held is held by the family of who waits for the job.
    pub(super) fn holds_all(&self, job: &Job) -> bool {
        let pid = job.pid();
        self.is_held()
            && self
                .holders()
                .into_iter()
                .all(|holder| related(pid, holder))
    }

    /// The locks in the way of another.
    pub(super) fn conflicts(&self, wanted: &Lock) -> impl Iterator<Item = &Lock> {
        self.locks
            .in_the_way(&wanted.holder, wanted.range, wanted.kind)
    }

    /// Whether a job may be done while the turn is ours. Once the turn has lasted as long as is
    /// fair to other hosts, those who hold something come first, so that they come to their end.
    pub(super) fn admits(&self, job: &Job, tired: bool) -> bool {
        if !self.is_held() {
            // A lock file is made in a turn of its own.
            return !matches!(job.work, Work::MakeLock(_));
        }
        if self.is_closing() && matches!(job.work, Work::Alone(_) | Work::Look(_)) {
            return false;
        }
        if matches!(&job.work, Work::Look(look) if look.for_all) && self.is_ending() {
            return false;
        }
        // Our own lock file would be in its way.
        let one_ends = || self.holds.iter().any(|entry| entry.is_closing(false));
        if matches!(job.work, Work::MakeLock(_)) && one_ends() {
            return false;
        }
        if self.in_the_way(job).is_some() {
            return false;
        }
        if !tired || boottime().saturating_sub(job.queued) >= HELD_UP {
            return true;
        }
        let will_not_wait = matches!(&job.work, Work::Lock(request) if !request.wait);
        let pid = job.pid();
        will_not_wait
            || self
                .holders()
                .into_iter()
                .any(|holder| related(pid, holder))
    }

    /// The first job that may be done.
    pub(super) fn first_admitted(&self, tired: bool) -> Option<usize> {
        self.jobs.iter().position(|job| self.admits(job, tired))
    }
}

impl Guard {
    /// Keeps the lock for the process `pid`. Only while the lock is held: in the work of a job.
    pub fn hold(self: &Arc<Self>, pid: u32) -> Hold {
        let line = Line::of(pid);
        let mut queue = self.queue.lock();
        let entry = Arc::new(Entry {
            line,
            lost: AtomicBool::new(false),
            under_a_lock_file: queue.under_a_lock_file,
            closing: Mutex::new(None),
        });
        if !queue.under_a_lock_file {
            queue.holds.push(Arc::clone(&entry));
        }
        drop(queue);
        self.enter(&self.rule());
        Hold {
            guard: Arc::clone(self),
            entry,
        }
    }

    /// Whether something is held that outlasts the job that has brought it.
    pub fn is_held(&self) -> bool {
        self.queue.lock().is_held()
    }

    /// Calls `run`, which looks at what the name refers to: at once, or, if an update is about to
    /// be put in its place, after that.
    pub fn after_closing(self: &Arc<Self>, waiter: &Waiter, run: Box<dyn FnOnce() + Send>) {
        if self.queue.lock().is_closing() {
            let for_all = false;
            self.submit(Job::new(Work::Look(Look { for_all, run }), waiter.clone()));
        } else {
            run();
        }
    }

    /// Whether something is held, and will be.
    pub fn outlook(&self) -> Outlook {
        let queue = self.queue.lock();
        match (queue.is_held(), queue.is_ending()) {
            (false, _) => Outlook::Idle,
            (true, true) => Outlook::Ending,
            (true, false) => Outlook::Held,
        }
    }

    /// Calls `run` once it is known of all that is `Ending` whether it goes on.
    pub fn after_ending(self: &Arc<Self>, waiter: Waiter, run: Box<dyn FnOnce() + Send>) {
        let for_all = true;
        self.submit(Job::new(Work::Look(Look { for_all, run }), waiter));
    }

    /// Turn `turn` was lost: whatever programs hold by it is.
    pub(super) fn lose(&self, turn: u64) {
        let mut queue = self.queue.lock();
        if self.turn_number() != turn || !queue.is_held() {
            return;
        }
        self.has_lost(
            turn,
            Event::LostWhileHeld,
            " while programs on this one held the lock; what they write now fails with EIO",
        );
        // A write of theirs may be under way. So if the turn stands after all, being only not the
        // newest, it must not end well.
        self.taint();
        for entry in queue.holds.drain(..) {
            entry.lost.store(true, Ordering::Release);
        }
        let locks = std::mem::take(&mut queue.locks);
        let lost = locks.iter().map(|lock| lock.holder);
        queue.lost_holders.extend(lost);
        drop(queue);
        self.arrived.notify_one();
    }

    /// For messages: who keeps others waiting on this host.
    pub(super) fn describe_holders(&self) -> String {
        let mut pids: Vec<u32> = self.queue.lock().holders().into_iter().collect();
        pids.sort_unstable();
        let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
        format!("this host, for process {}", pids.join(", "))
    }
}

/// A process or, for fcntl locks, a table of open files: what waits, and what is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Party {
    Process(u32),
    Owner(u64),
}

/// Who waits for whom on this host.
#[derive(Debug, Default)]
struct Circles {
    edges: HashMap<Party, HashSet<Party>>,
    /// Where each has last begun to wait.
    jobs: HashMap<Party, (Arc<Guard>, Duration, u64)>,
}

impl Circles {
    fn of(guards: &[Arc<Guard>]) -> Circles {
        let now = boottime();
        let mut waits = Circles::default();
        for guard in guards {
            let queue = guard.queue.lock();
            if !queue.is_held() {
                continue;
            }
            for job in &queue.jobs {
                if now.saturating_sub(job.queued) >= PERHAPS_FOR_EVER {
                    waits.add(guard, &queue, job);
                }
            }
        }
        waits
    }

    fn add(&mut self, guard: &Arc<Guard>, queue: &Queue, job: &Job) {
        // The system's own rule for fcntl locks goes by tables of open files, whatever the other
        // threads of a process do.
        if let Work::Lock(request) = &job.work
            && let Some(owner) = request.deadlock_owner
        {
            let owners: HashSet<Party> = queue
                .conflicts(&request.lock)
                .map(|lock| Party::Owner(lock.holder.owner))
                .collect();
            self.insert(Party::Owner(owner), owners, guard, job);
        }
        let pid = job.pid();
        // Nor does the system look for circles in other advisory locks.
        let holders = match &job.work {
            Work::Lock(_) => queue.strangers_that_hold(job),
            _ => queue.in_the_way(job),
        };
        if let Some(others) = holders
            && is_single_threaded(pid)
        {
            let others = others.into_iter().map(Party::Process).collect();
            self.insert(Party::Process(pid), others, guard, job);
        }
    }

    fn insert(&mut self, party: Party, others: HashSet<Party>, guard: &Arc<Guard>, job: &Job) {
        self.edges.entry(party).or_default().extend(others);
        self.jobs
            .insert(party, (Arc::clone(guard), job.queued, job.number));
    }

    /// Whether a wait leads back to its beginning.
    fn is_circle(&self, from: Party) -> bool {
        let mut seen = HashSet::new();
        let mut next: Vec<Party> = self
            .edges
            .get(&from)
            .into_iter()
            .flatten()
            .copied()
            .collect();
        while let Some(party) = next.pop() {
            if party == from {
                return true;
            }
            if seen.insert(party) {
                next.extend(self.edges.get(&party).into_iter().flatten());
            }
        }
        false
    }
}

/// Answers a wait that can never end, because those who are waited for wait themselves, with
/// `EDEADLK`: the one of a circle that began last.
pub(super) fn end_circles(guards: &[Arc<Guard>]) {
    loop {
        let waits = Circles::of(guards);
        let last = waits
            .jobs
            .iter()
            .filter(|(party, _)| waits.is_circle(**party))
            .max_by_key(|(_, (_, queued, number))| (*queued, *number));
        let Some((_, (guard, _, number))) = last else {
            return;
        };
        for job in guard.take_jobs(|job| job.number == *number) {
            guard.happened(
                Event::Deadlock,
                Level::Warn,
                format_args!(
                    "process {} waits for itself by way of others, and gets EDEADLK",
                    job.pid()
                ),
            );
            job.refuse(libc::EDEADLK);
        }
    }
}

/// How long a request that will not wait is kept, when another host has the lock: most turns are
/// over in less, and were not taken for what the program asks about.
pub const MOMENT: Duration = rhythm::LONGEST_TURN.saturating_add(Duration::from_millis(50));
