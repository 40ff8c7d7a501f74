//! The guard of one name: what is queued on it, and how work gets in and out.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::{CStr, CString};
use std::fmt;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::{Condvar, Mutex, MutexGuard};

use super::append::{AppendFile, Held};
use super::at_once::Lending;
use super::behind::Behind;
use super::counts::Count;
use super::family::{self, Line};
use super::holds::Entry;
use super::locks::{Closing, Holder, Lock, Range, Space, Table};
use super::looked::Memory;
use super::pulse::Pulse;
use super::rhythm::Rhythm;
use super::signals::{self, Signals};
use super::standing::Sight;
use super::visible::Visible;
use super::{Key, Shared};
use crate::backing::Caller;
use crate::backing::credentials::Assumed;
use crate::config::Rule;
use crate::lock::fence::Fence;
use crate::lock::names::Step;
use crate::lock::turns::{Actor, KEEP_OLD, is_gone};
use crate::lock::{Directory, Identity, LockNames, RealDirectory, Turns, Unfinished};
use crate::sys;
use crate::sys::fs::{Stat, openat};
use crate::sys::process::boottime;

/// The pause before one looks once more for a turn that was perhaps taken.
const RESOLVE_AGAIN: Duration = Duration::from_secs(1);

/// The guard of one name in one directory.
pub struct Guard {
    /// For messages: the path below the root of the mount.
    pub(super) label: String,
    key: Key,
    pub(super) name: CString,
    pub(super) names: LockNames,
    pub(super) dir: Arc<RealDirectory>,
    rule: ArcSwap<Rule>,
    /// The file may end in half a record that another rule, without records or with others, has let
    /// through.
    pub(super) unknown_tail: AtomicBool,
    pub(super) shared: Arc<Shared>,
    pub(super) queue: Mutex<Queue>,
    /// Signalled when work arrives.
    pub(super) arrived: Condvar,
    /// The protocol; whoever runs the guard has it.
    pub(super) turns: Mutex<Turns>,
    /// Whose credentials made the claims of each user.
    pub(super) callers: Mutex<HashMap<u32, Caller>>,
    /// Users who may write the file but not its directory: the lock is taken as the daemon.
    pub(super) not_permitted: Mutex<HashSet<u32>>,
    /// How much of the file readers on this mount may see.
    pub visible: Visible,
    /// Appends that were answered before they are done.
    pub(super) behind: Behind,
    /// Files that were written to and not shown yet, and from where on.
    pub(super) changed: Mutex<Vec<(Arc<AppendFile>, u64)>>,
    /// Readers on other hosts have been told that the file is being written to.
    pub(super) announced: AtomicBool,
    /// The write that the claim of the turn that is held says to be under way, or may say so.
    pub(super) noted: Mutex<Option<Unfinished>>,
    /// It has been said that the directory is not writable.
    pub(super) warned: AtomicBool,
    /// A call on the file has failed in such a way that it may be done all the same, later.
    tainted: AtomicBool,
    /// The turn that is held.
    pub(super) pulse: Mutex<Option<Pulse>>,
    /// What is known of the file under that turn.
    pub(super) memory: Mutex<Memory>,
    /// How hosts take turns; only who runs the guard uses it.
    pub(super) rhythm: Mutex<Rhythm>,
    /// Whom it waits for, for those who watch.
    pub(super) sight: Sight,
    retired: AtomicBool,
    replacing: Mutex<()>,
    kept: Mutex<Vec<Kept>>,
}

/// A file that was replaced, and is there for a while yet for those who have it open.
struct Kept {
    name: CString,
    since: Duration,
    /// Who has replaced it.
    by: Caller,
}

#[derive(Default)]
pub(super) struct Queue {
    pub(super) jobs: VecDeque<Job>,
    /// A worker runs, or will.
    scheduled: bool,
    /// Open files.
    users: usize,
    last_use: Duration,
    /// When a visit is planned to see whether it is still in use.
    visit: Option<Duration>,
    /// What waits for the guard to be idle.
    after: Vec<WhenIdle>,
    /// Holds of the lock: the turn is kept until they are gone.
    pub(super) holds: Vec<Arc<Entry>>,
    /// Advisory locks of programs on this host; they keep the turn too.
    pub(super) locks: Table,
    /// Whose advisory locks were lost to another host, until they give them up.
    pub(super) lost_holders: Vec<Holder>,
    /// Whose locks may be about to go.
    pub(super) closing: Closing,
    /// What is done now needs no turn: the program itself has made a lock file, or the directory is
    /// gone.
    pub(super) under_a_lock_file: bool,
    /// Whether the turn is lent to whoever has an append.
    pub(super) lending: Lending,
    /// How many jobs there have been.
    pub(super) jobs_so_far: u64,
}

impl Queue {
    /// Whether a program has the file open, or something is to be done, or kept, for one.
    fn is_in_use(&self) -> bool {
        let is_held = !self.holds.is_empty() || !self.locks.is_empty();
        self.users > 0 || self.scheduled || !self.jobs.is_empty() || is_held
    }

    /// Whether no program has had the file open for a while.
    fn is_unused(&self) -> bool {
        self.users == 0 && boottime() >= self.last_use + KEEP_OLD
    }
}

/// Who waits for a job.
#[derive(Debug, Clone)]
pub struct Waiter {
    /// For the lock, and for the permission to take it.
    pub caller: Caller,
    /// The waiting thread, or 0 where it is not known.
    pub tid: u32,
    /// The process, where it is not that of the thread.
    pub process: Option<u32>,
    /// How long it would wait before it fails with `EAGAIN`; `None`: as long as the rule says.
    pub patience: Option<Duration>,
}

/// Bytes that are to be appended.
pub struct Append {
    /// Through this open file.
    pub file: Arc<AppendFile>,
    /// What goes to the file.
    pub data: Vec<u8>,
    /// What it has done to what is held back.
    pub held: Held,
    /// Where the kernel believes that the piece goes, and its length as the program sees it.
    /// The next piece of the same call follows there.
    pub piece: (u64, usize),
    /// Where it was written before, under a turn that was lost: whether it is in the file is
    /// not known.
    pub place: Option<Place>,
    /// How many bytes it begins with that were answered before, as pieces of the same call, and
    /// must be made again with it.
    pub earlier: usize,
    /// The program was answered when it was queued ([`super::behind`]).
    pub answered: bool,
    /// Gets the number of bytes that the program has written.
    pub reply: Box<dyn FnOnce(io::Result<usize>) + Send>,
}

/// What is to be done under the lock.
pub enum Work {
    /// Append bytes.
    Append(Append),
    /// Take an advisory lock.
    Lock(LockRequest),
    /// Change the file where it is, as a program does that asks for no lock.
    Write(Alone),
    /// Anything else. Called with `Ok` under the lock, or with the error that prevented it.
    Alone(Alone),
    /// Look at what the name refers to, or whether it is held.
    Look(Look),
    /// A program makes the lock file `X.lock` itself: done in a turn in which we have not made
    /// it. Where there is no such turn it is done all the same, and will be refused.
    MakeLock(Box<dyn FnOnce() + Send>),
}

/// Who waits until a guard has nothing to do.
struct WhenIdle {
    until: Duration,
    then: Box<dyn FnOnce(bool) + Send>,
}

/// What is done without a turn, once those who have closed the file are known to be gone or not.
pub struct Look {
    /// It waits for all that may be about to be let go. Otherwise only for an update that is about
    /// to be put in its place.
    pub for_all: bool,
    /// What is done then.
    pub run: Box<dyn FnOnce() + Send>,
}

/// Where an append was written under a turn that was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The turn.
    pub turn: u64,
    /// The inode number of the file.
    pub ino: u64,
    /// Where it ends.
    pub end: u64,
}

/// A program asks for an advisory lock.
pub struct LockRequest {
    /// What it asks for.
    pub lock: Lock,
    /// Whether it waits for those in its way, for as long as that takes.
    pub wait: bool,
    /// It only asks whether it would get the lock.
    pub test: bool,
    /// The owner, where the system looks for circles of owners who wait for each other: those of
    /// traditional fcntl locks.
    pub deadlock_owner: Option<u64>,
    /// Called under the lock, or with the error that prevented it.
    pub granted: Alone,
}

/// Work that is not an append.
pub type Alone = Box<dyn FnOnce(io::Result<()>) + Send>;

/// Work, and who waits for it.
pub struct Job {
    /// What to do.
    pub work: Work,
    /// For whom.
    pub waiter: Waiter,
    pub(super) queued: Duration,
    /// Tells it apart from all others of its guard.
    pub(super) number: u64,
    /// The process that waits, and those above it; see [`line`](Self::line).
    line: OnceLock<Line>,
}

impl Job {
    /// A job that is queued now.
    pub fn new(work: Work, waiter: Waiter) -> Job {
        Job {
            work,
            waiter,
            queued: boottime(),
            number: 0,
            line: OnceLock::new(),
        }
    }

    /// The process that waits; 0 where that cannot be seen.
    pub(super) fn pid(&self) -> u32 {
        self.line().pid
    }

    /// The process that waits, and those above it.
    pub(super) fn line(&self) -> &Line {
        self.line.get_or_init(|| {
            let of_thread = || family::process_of(self.waiter.tid);
            Line::of(self.waiter.process.unwrap_or_else(of_thread))
        })
    }

    /// Whether pieces of its call were answered that are in no file now: it must not fail, since the
    /// program would take them for written.
    pub(super) fn is_half_done(&self) -> bool {
        matches!(self.work, Work::Append(Append { earlier: 1.., .. }))
    }

    /// Answers without having done the work.
    pub(super) fn refuse(self, errno: i32) {
        let error = io::Error::from_raw_os_error(errno);
        match self.work {
            Work::Append(Append {
                file,
                held,
                reply,
                place,
                earlier,
                ..
            }) => {
                file.tell_of_loss(earlier, &error);
                file.take_back(held);
                // What may be in the file must not look as if it could be tried again.
                let unknown = place.map(|_| io::Error::from_raw_os_error(libc::EIO));
                reply(Err(unknown.unwrap_or(error)));
            }
            Work::Alone(run) | Work::Write(run) | Work::Lock(LockRequest { granted: run, .. }) => {
                run(Err(error))
            }
            Work::MakeLock(run) | Work::Look(Look { run, .. }) => run(),
        }
    }
}

/// Whether a call that failed with this error may be done all the same, later: a server that did
/// not answer in time may still have it. (A file system that refuses does so for good.)
pub(super) fn may_come_late(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EIO | libc::ETIMEDOUT | libc::EREMOTEIO | libc::ECONNRESET) | None
    )
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard")
            .field("label", &self.label)
            .finish_non_exhaustive()
    }
}

impl Guard {
    pub(super) fn new(
        key: &Key,
        dir: Arc<RealDirectory>,
        rule: &Arc<Rule>,
        label: &str,
        shared: &Arc<Shared>,
    ) -> Arc<Guard> {
        let names = LockNames::new(&key.name);
        Arc::new(Guard {
            label: label.to_owned(),
            key: key.clone(),
            name: CString::new(key.name.as_bytes()).expect("a name holds no NUL byte"),
            names: names.clone(),
            dir,
            rule: ArcSwap::new(Arc::clone(rule)),
            unknown_tail: AtomicBool::new(shared.has_unknown_tail(key)),
            shared: Arc::clone(shared),
            queue: Mutex::new(Queue {
                users: 1,
                ..Queue::default()
            }),
            arrived: Condvar::new(),
            turns: Mutex::new(Turns::new(
                names,
                Arc::clone(&shared.owner),
                rule.stale_after,
            )),
            callers: Mutex::default(),
            not_permitted: Mutex::default(),
            visible: Visible::default(),
            behind: Behind::default(),
            changed: Mutex::default(),
            announced: AtomicBool::new(false),
            noted: Mutex::default(),
            warned: AtomicBool::new(false),
            tainted: AtomicBool::new(false),
            pulse: Mutex::new(None),
            memory: Mutex::default(),
            rhythm: Mutex::default(),
            sight: Sight::default(),
            retired: AtomicBool::new(false),
            replacing: Mutex::new(()),
            kept: Mutex::default(),
        })
    }

    /// The rule that it goes by. It changes only while nobody uses the guard.
    pub fn rule(&self) -> arc_swap::Guard<Arc<Rule>> {
        self.rule.load()
    }

    /// Counts one more user, unless the guard has retired. One that nobody uses goes by `rule` from
    /// then on.
    pub(super) fn enter(&self, rule: &Arc<Rule>) -> bool {
        let mut queue = self.queue.lock();
        if self.is_retired() {
            return false;
        }
        if !queue.is_in_use() && !Arc::ptr_eq(&self.rule(), rule) {
            if self.rule().record != rule.record {
                self.unknown_tail.store(true, Ordering::Release);
            }
            self.rule.store(Arc::clone(rule));
        }
        queue.users += 1;
        true
    }

    /// Counts one user less.
    pub fn leave(self: &Arc<Self>) {
        let mut queue = self.queue.lock();
        queue.users -= 1;
        queue.last_use = boottime();
        self.plan_visit(&mut queue);
    }

    /// If no program has the file open, looks once more when it would have been unused for long
    /// enough. (It may be opened and closed a thousand times until then.)
    fn plan_visit(self: &Arc<Self>, queue: &mut Queue) {
        let now = boottime();
        let is_planned = queue.visit.is_some_and(|visit| visit > now);
        if queue.users == 0 && !is_planned && !self.is_retired() {
            let later = queue.last_use + KEEP_OLD;
            queue.visit = Some(later);
            self.shared.keeper.run_at(later, self);
        }
    }

    pub(super) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    /// What it guards.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// For messages: the path below the root of the mount.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// What the name refers to, as the server has it now.
    ///
    /// # Errors
    /// Those of `statx(2)`; that there is no such name is no error.
    pub fn look(&self) -> io::Result<Option<Stat>> {
        self.dir.look_anew(&self.name)
    }

    /// Gives the file of this name, which is `id` and about to be replaced, another name, so that
    /// those who have it open on other hosts can read on for a while. It goes by itself.
    ///
    /// # Errors
    /// Those of `link(2)`.
    pub fn keep(&self, id: Identity, by: &Caller) -> io::Result<CString> {
        let name = self.names.kept(id.ino);
        let link = || {
            let _assumed = self.shared.credentials.assume(by)?;
            match self.dir.link(&self.name, &name) {
                Err(_) if self.dir.identity(&name)? == Some(id) => Ok(()),
                other => other,
            }
        };
        link()?;
        self.kept.lock().push(Kept {
            name: name.clone(),
            since: boottime(),
            by: by.clone(),
        });
        Ok(name)
    }

    /// Whether a file was replaced a moment ago, on whatever host.
    ///
    /// # Errors
    /// Those of `statx(2)`.
    pub fn is_kept(&self, id: Identity) -> io::Result<bool> {
        let name = self.names.kept(id.ino);
        Ok(self.dir.identity(&name)? == Some(id))
    }

    /// Whether a fence has put a copy in the place of this file, which may have further names.
    ///
    /// # Errors
    /// Those of the directory.
    pub fn was_fenced(&self, id: Identity) -> io::Result<bool> {
        for (step, name) in self.dir.listed(&self.names)? {
            if matches!(step, Step::Fence(_)) {
                let fence = Fence::parse(&self.dir.read_if_ours(&name)?, &self.names);
                if fence.is_some_and(|fence| fence.old == id.ino) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Removes what has been kept for long enough, or all of it. Gives when there is more to do.
    fn remove_kept(&self, all: bool) -> Option<Duration> {
        let now = boottime();
        let mut kept = self.kept.lock();
        kept.retain(|kept| {
            if !all && now < kept.since + KEEP_OLD {
                return true;
            }
            let removed = self
                .shared
                .credentials
                .assume(&kept.by)
                .and_then(|_assumed| self.dir.remove(&kept.name));
            if let Err(error) = removed {
                log::debug!("{}: {:?} may stay: {error}", self.label, kept.name);
            }
            false
        });
        kept.iter().map(|kept| kept.since + KEEP_OLD).min()
    }

    /// Opens another name in the directory.
    ///
    /// # Errors
    /// Those of `open(2)`.
    pub fn open_beside(&self, other: &CStr, flags: i32) -> io::Result<OwnedFd> {
        openat(
            self.dir.fd(),
            other,
            flags | libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY,
            0,
        )
    }

    /// A call on the file under the turn has failed with this error. If that leaves open whether
    /// it is done later, the turn must not end well, so that the file is fenced against it.
    pub fn note_failure(&self, error: &io::Error) {
        if may_come_late(error) {
            self.taint();
        }
    }

    /// The turn must not end well: something that was begun under it may still be under way.
    pub(super) fn taint(&self) {
        self.tainted.store(true, Ordering::Release);
    }

    /// Whether such a call was noted under the turn that ends now.
    pub(super) fn take_taint(&self) -> bool {
        self.tainted.swap(false, Ordering::AcqRel)
    }

    /// Renames another name in the directory to that of the guard.
    ///
    /// # Errors
    /// Those of `rename(2)`.
    pub fn rename_beside(&self, other: &CStr) -> io::Result<()> {
        self.dir.rename(other, &self.name)
    }

    /// The directory that the name is in.
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.dir.fd()
    }

    /// Held while one file is put in the place of another under this name.
    pub fn replacing(&self) -> MutexGuard<'_, ()> {
        self.replacing.lock()
    }

    /// A program gives up the lock that it has on these bytes.
    pub fn unlock(&self, owner: u64, space: Option<Space>, range: Range) {
        self.give_up_locks(
            |locks| locks.unset(owner, space, range),
            |lost| lost.owner == owner,
        );
    }

    /// A program gives up all its locks of this kind, as at a `close(2)`.
    pub fn drop_owner(&self, owner: u64, space: Option<Space>) {
        self.give_up_locks(
            |locks| locks.drop_owner(owner, space),
            |lost| lost.owner == owner,
        );
    }

    /// An open file has come to its end: what was locked by way of it goes.
    pub fn drop_file(&self, file: u64) {
        self.give_up_locks(|locks| locks.drop_file(file), |lost| lost.file == file);
    }

    /// Locks are given up, also those which were `lost` before.
    fn give_up_locks(&self, locks: impl FnOnce(&mut Table), lost: impl Fn(&Holder) -> bool) {
        let mut queue = self.queue.lock();
        locks(&mut queue.locks);
        queue.forget_lost(lost);
        drop(queue);
        self.arrived.notify_one();
    }

    /// Something was changed through a descriptor by which these owners have taken advisory locks.
    ///
    /// # Errors
    /// `EIO` where such a lock was lost to another host.
    pub fn locks_are_ours(&self, owners: &[u64]) -> io::Result<()> {
        let queue = self.queue.lock();
        let is_lost = |lost: &Holder| owners.contains(&lost.owner);
        if queue.lost_holders.iter().any(is_lost) {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        let holds = |lock: &Lock| owners.contains(&lock.holder.owner);
        let is_holder = queue.locks.iter().any(holds);
        drop(queue);
        match is_holder {
            true => self.still_ours(),
            false => Ok(()),
        }
    }

    /// A descriptor was closed through which these owners have taken locks.
    pub fn closing(&self, owners: &[u64]) {
        if !owners.is_empty() {
            self.queue.lock().closing.begin(owners);
        }
    }

    /// The lock of a program on this host that is in the way of another.
    pub fn conflict(&self, wanted: &Lock) -> Option<Lock> {
        self.queue.lock().conflicts(wanted).next().copied()
    }

    /// Forgets whatever programs hold: the mount comes to its end.
    pub(super) fn let_all_go(&self) {
        let mut queue = self.queue.lock();
        queue.holds.clear();
        queue.locks = Table::default();
        drop(queue);
        self.arrived.notify_one();
    }

    /// Nobody else gets this guard any more.
    pub(super) fn disown(&self) {
        let map = &self.shared.by_key;
        map.remove_if(&self.key, |_, guard| std::ptr::eq(&raw const **guard, self));
        self.shared
            .directories
            .remove(&(self.key.dev, self.key.ino));
    }

    /// Queues a job; it is answered by a worker.
    pub fn submit(self: &Arc<Self>, mut job: Job) {
        let mut queue = self.queue.lock();
        queue.jobs_so_far += 1;
        job.number = queue.jobs_so_far;
        queue.jobs.push_back(job);
        if queue.scheduled {
            drop(queue);
            self.arrived.notify_one();
        } else {
            queue.scheduled = true;
            drop(queue);
            self.shared.workers.submit(Arc::clone(self));
        }
    }

    /// Calls `then` with `true` once nothing is queued and no turn is held, or with `false` some time
    /// after `until`, on [`boottime`]'s clock, if it has not come to that: there may be more to do all
    /// the time.
    pub fn when_idle(&self, until: Duration, then: Box<dyn FnOnce(bool) + Send>) {
        let mut queue = self.queue.lock();
        if queue.scheduled && !self.is_retired() {
            queue.after.push(WhenIdle { until, then });
        } else {
            drop(queue);
            then(true);
        }
    }

    /// Tells those who have waited for long enough that it does not come to rest.
    pub(super) fn end_waits_for_idle(&self, now: Duration) {
        let mut queue = self.queue.lock();
        let late: Vec<_> = queue
            .after
            .extract_if(.., |wait| wait.until <= now)
            .collect();
        drop(queue);
        for wait in late {
            (wait.then)(false);
        }
    }

    /// Whether something is queued, or a turn may be held.
    pub fn is_busy(&self) -> bool {
        self.queue.lock().scheduled && !self.is_retired()
    }

    /// Whether a program has the file open, or something is to be done, or kept, for one.
    pub fn is_in_use(&self) -> bool {
        self.queue.lock().is_in_use() && !self.is_retired()
    }

    /// Lets a worker look after the guard, though there is no job.
    pub(super) fn wake(self: &Arc<Self>) {
        let mut queue = self.queue.lock();
        if !queue.scheduled && !self.is_retired() {
            queue.scheduled = true;
            drop(queue);
            self.shared.workers.submit(Arc::clone(self));
        }
    }

    /// A worker's visit: does what is queued, and cleans up after it.
    pub(super) fn run(self: &Arc<Self>) {
        let mut turns = self.turns.lock();
        // Not before the lock: an earlier run of this guard would take it for its own.
        self.shared.keeper.works(self);
        self.end_lending();
        loop {
            self.work_off(&mut turns);
            let unresolved = self.resolve(&mut turns);
            let mut next = unresolved.into_iter().chain(self.clean(&mut turns)).min();
            if next.is_none() && self.queue.lock().is_unused() {
                // Another host may have had the last turn; then ours need not stay.
                self.look_once_more(&mut turns);
                next = self.clean(&mut turns);
            }
            let mut queue = self.queue.lock();
            if !queue.jobs.is_empty() {
                continue;
            }
            let after = std::mem::take(&mut queue.after);
            let unused = queue.is_unused();
            if unused && next.is_none() {
                self.retired.store(true, Ordering::Release);
                queue.scheduled = false;
                drop(queue);
                self.retire(&mut turns);
                let map = &self.shared.by_key;
                map.remove_if(&self.key, |_, guard| Arc::ptr_eq(guard, self));
            } else {
                queue.scheduled = false;
                if !unused {
                    self.plan_visit(&mut queue);
                }
                drop(queue);
                if let Some(time) = next {
                    self.shared.keeper.run_at(time, self);
                }
            }
            self.shared.keeper.rests(self);
            drop(turns);
            for wait in after {
                (wait.then)(true);
            }
            return;
        }
    }

    /// Ends a turn that was perhaps taken by a call whose answer was an error. Gives when to try
    /// again: others wait for it.
    fn resolve(&self, turns: &mut Turns) -> Option<Duration> {
        let mut again = None;
        for actor in turns.actors() {
            if let Some(_assumed) = self.act_as(actor)
                && let Err(error) = turns.resolve(&*self.dir, boottime())
            {
                log::debug!("{}: a turn may be left standing: {error}", self.label);
                if !is_gone(&error) {
                    again = Some(boottime() + RESOLVE_AGAIN);
                }
            }
        }
        again
    }

    /// Removes the names of old turns. Gives when there is more to remove.
    fn clean(&self, turns: &mut Turns) -> Option<Duration> {
        let actors = turns.actors();
        let times = actors.into_iter().filter_map(|actor| {
            let _assumed = self.act_as(actor)?;
            turns.clean(&*self.dir, actor, boottime())
        });
        times.chain(self.remove_kept(false)).min()
    }

    fn look_once_more(&self, turns: &mut Turns) {
        for actor in turns.actors() {
            if let Some(_assumed) = self.act_as(actor)
                && let Err(error) = turns.discover(&*self.dir, actor, boottime, KEEP_OLD / 5)
            {
                log::debug!("{}: old names may stay: {error}", self.label);
            }
        }
    }

    fn retire(&self, turns: &mut Turns) {
        for actor in turns.actors() {
            if let Some(_assumed) = self.act_as(actor) {
                turns.retire(&*self.dir, actor);
            }
        }
    }

    /// Takes the credentials with which an actor's claim was made.
    pub(super) fn act_as(&self, actor: Actor) -> Option<Assumed> {
        let caller = match actor {
            None => self.shared.credentials.own().clone(),
            Some(uid) => self.callers.lock().get(&uid)?.clone(),
        };
        self.shared.credentials.assume(&caller).ok()
    }

    /// Answers jobs whose program has a signal to handle with `EINTR`.
    pub(super) fn interrupt_waiters(&self) {
        let waiting: Vec<u32> = {
            let queue = self.queue.lock();
            queue.jobs.iter().map(|job| job.waiter.tid).collect()
        };
        let interrupted: HashSet<u32> = waiting
            .into_iter()
            .filter(|tid| signals::of_thread(*tid) == Signals::Pending)
            .collect();
        if interrupted.is_empty() {
            return;
        }
        // (Making a lock file is left to the worker, which knows what it holds, and is soon done.)
        let is_meant = |job: &Job| {
            interrupted.contains(&job.waiter.tid)
                && !matches!(job.work, Work::MakeLock(_))
                && !job.is_half_done()
        };
        for job in self.take_jobs(is_meant) {
            self.count(Count::Interrupted, 1);
            job.refuse(libc::EINTR);
        }
    }

    /// There is no thread for the guard, and none to be had.
    pub(super) fn give_up(&self) {
        self.queue.lock().scheduled = false;
        for job in self.take_jobs(|_| true) {
            self.count(Count::Errors, 1);
            job.refuse(libc::EAGAIN);
        }
    }

    /// Takes the jobs that `which` chooses out of the queue.
    pub(super) fn take_jobs(&self, which: impl Fn(&Job) -> bool) -> Vec<Job> {
        let mut queue = self.queue.lock();
        let (chosen, rest) = queue.jobs.drain(..).partition(|job| which(job));
        queue.jobs = rest;
        Vec::from(chosen)
    }

    /// Waits until nothing is queued and no turn is held, then removes our claims. Gives whether
    /// that came about before `deadline`.
    pub(super) fn finish(self: &Arc<Self>, deadline: Duration) -> bool {
        while let Some(left) = deadline.checked_sub(boottime()) {
            // Whoever runs the guard has the protocol's state.
            let Some(mut turns) = self.turns.try_lock_for(left) else {
                break;
            };
            let mut queue = self.queue.lock();
            if queue.jobs.is_empty() && !queue.scheduled {
                queue.scheduled = true;
                self.retired.store(true, Ordering::Release);
                drop(queue);
                self.remove_kept(true);
                self.clean(&mut turns);
                self.retire(&mut turns);
                return true;
            }
            drop(queue);
            drop(turns);
            std::thread::sleep(Duration::from_millis(1));
        }
        log::warn!(
            "{}: the lock could not be given back in time; who waits for it breaks it after \
             stale_after",
            self.label
        );
        false
    }

    /// Whether the directory of the file is gone, so that the file has no name that others could
    /// reach it by. `ESTALE` does not say so: a server that is just being restarted gives it too.
    pub(super) fn directory_is_gone(&self) -> bool {
        let stat = sys::fs::statx(self.dir.fd(), c"", libc::AT_STATX_FORCE_SYNC);
        stat.is_ok_and(|stat| stat.nlink == 0)
    }

    /// Opens the file that the name refers to now.
    pub(super) fn open_by_name(&self, flags: i32) -> io::Result<OwnedFd> {
        self.open_beside(&self.name, flags)
    }
}
