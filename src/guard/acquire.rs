//! Getting a turn: a guard's worker waits until nobody else has the lock, nor its `X.lock`, and
//! meanwhile answers those who wait no longer.

use std::ffi::CStr;
use std::io;
use std::ops::ControlFlow;
use std::time::Duration;

use log::Level;

use super::counts::Count;
use super::events::Event;
use super::holds::MOMENT;
use super::pulse::Pulse;
use super::queue::{Guard, Job, Work};
use crate::backing::Caller;
use crate::lock::dotlock::{self, Dotlock};
use crate::lock::turns::is_gone;
use crate::lock::{Death, Directory, Owner, Progress, Turn, Turns};
use crate::sys::process::boottime;

/// The first pause between two looks at a turn that somebody else holds, and the longest. A look
/// costs one GETATTR.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(1);
pub(super) const LONGEST_PAUSE: Duration = Duration::from_millis(8);
/// The longest pause between two looks at a lock file of another program: such locks are held
/// for longer, and nobody hands them over.
const LONGEST_FOREIGN_PAUSE: Duration = Duration::from_millis(50);
/// So many lock files of other programs are remembered at the most.
const MANY_FOREIGN: usize = 4096;

impl Guard {
    /// A program that would make the lock file need not wait for a turn where another program
    /// has made one: it will be told so.
    pub(super) fn make_locks_in_vain(&self) {
        if !self.has_lock_to_make() {
            return;
        }
        let is_foreign = self.names.dotlock().is_some_and(|lock| {
            let record = self.dir.read(lock);
            record.is_ok_and(|record| Owner::parse(&record).is_none())
        });
        if is_foreign {
            self.make_locks();
        }
    }

    /// Waits for the turn, in the name of `caller`; `None` when nobody waits for it any more.
    pub(super) fn acquire(&self, turns: &mut Turns, caller: &Caller) -> io::Result<Option<Turn>> {
        let mut pause = FIRST_PAUSE;
        let turn = loop {
            let began = boottime();
            let mut leave = |n| {
                let hurry = self.is_in_a_hurry();
                self.rhythm.lock().leaves(n, hurry, boottime())
            };
            let attempt = self.as_permitted(caller, |actor| {
                turns.attempt(&*self.dir, actor, boottime, &mut leave)
            });
            match attempt {
                Ok(Progress::Held(turn)) => break turn,
                Ok(Progress::Again) => {
                    let holder = || "others, one after another".to_owned();
                    if self.wait(&mut pause, LONGEST_PAUSE, holder).is_break() {
                        return Ok(None);
                    }
                }
                Ok(Progress::Broken { n, holder, death }) => {
                    let why = match death {
                        Death::Ended => "which has ended".to_owned(),
                        Death::Silent(time) => {
                            let time = Duration::from_secs(time.as_secs());
                            let time = humantime::format_duration(time);
                            format!("which has shown no sign of life for {time}")
                        }
                    };
                    self.happened(
                        Event::Break,
                        Level::Warn,
                        format_args!("broke turn {n} of {holder}, {why}"),
                    );
                }
                Ok(Progress::Taken(n)) => {
                    let now = boottime();
                    let holder = turns.holder_of(n);
                    self.sees(n, || turns.owner_of(n));
                    let mut pause = {
                        let mut rhythm = self.rhythm.lock();
                        rhythm.sees(n, holder, now.saturating_sub(began), now);
                        rhythm.pause(now)
                    };
                    let holder = || turns.describe_holder(&*self.dir, n);
                    if self.wait(&mut pause, LONGEST_PAUSE, holder).is_break() {
                        return Ok(None);
                    }
                }
                Ok(Progress::Left(_)) => {
                    // It is free: nobody is refused for it.
                    self.make_locks_in_vain();
                    self.serve_lock_maker();
                    if self.queue.lock().jobs.is_empty() {
                        return Ok(None);
                    }
                    let pause = self.rhythm.lock().pause_while_left();
                    std::thread::sleep(pause);
                }
                Err(error) if is_gone(&error) && self.directory_is_gone() => {
                    // Another directory may get its inode number; it must not get this guard.
                    self.disown();
                    self.serve_without_lock();
                    return Ok(None);
                }
                Err(error) => {
                    if is_gone(&error) && self.dir.is_stale() {
                        // The same, removed on another host; or the server is just being restarted.
                        // Who has the file open keeps this guard, and may come in time; others get
                        // a new one, which does no harm, since nothing is held here.
                        self.disown();
                    }
                    return Err(error);
                }
            }
        };
        self.rhythm.lock().takes(turn.n, boottime());
        self.count(Count::Turns, 1);
        self.sees_nobody();
        self.set_pulse(Some(Pulse {
            turn: turn.n,
            actor: turn.actor,
            claim: turn.claim.clone(),
            identity: turn.identity,
            sign: turn.sign,
            slow: false,
            over: false,
        }));
        if self.has_lock_to_make() {
            return Ok(Some(turn));
        }
        match self.acquire_dotlock(turns, caller, &turn) {
            Ok(true) => {
                self.sees_nobody();
                Ok(Some(turn))
            }
            Ok(false) => {
                self.end_turn(turns, caller, &turn);
                Ok(None)
            }
            Err(error) => {
                self.refuse_unless_gone(caller, &error);
                self.end_turn(turns, caller, &turn);
                Ok(None)
            }
        }
    }

    /// Whether somebody waits who will not wait for long.
    fn is_in_a_hurry(&self) -> bool {
        let is_impatient = |job: &Job| job.waiter.patience.is_some_and(|limit| limit <= MOMENT);
        self.queue.lock().jobs.iter().any(is_impatient)
    }

    /// Waits for `X.lock`, where the rule asks for it; `false` when nobody waits for it any more.
    fn acquire_dotlock(&self, turns: &mut Turns, caller: &Caller, turn: &Turn) -> io::Result<bool> {
        let rule = self.rule();
        let Some(lock) = self.names.dotlock().filter(|_| rule.dotlock) else {
            return Ok(true);
        };
        let mut pause = FIRST_PAUSE;
        loop {
            if self.has_lock_to_make() {
                return Ok(true);
            }
            let taken =
                self.as_actor(caller, turn.actor, || dotlock::take(&*self.dir, turn, lock))?;
            if taken == Dotlock::Held {
                self.shared.foreign.remove(self.key());
                return Ok(true);
            }
            let look = || self.dir.identity(lock);
            let theirs = self.as_actor(caller, turn.actor, look)?;
            let made = self.shared.dotlocks.beside(self.key());
            if made.is_some_and(|made| made.makers.is_none() && Some(made.id) == theirs) {
                return Ok(true);
            }
            if self.as_actor(caller, turn.actor, || self.remove_left_behind(lock))? {
                continue;
            }
            self.sees_lock_file();
            let holder = || format!("a program that made {}.lock", self.label);
            if self
                .wait(&mut pause, LONGEST_FOREIGN_PAUSE, holder)
                .is_break()
            {
                return Ok(false);
            }
            // The turn is held all the while.
            self.show_sign(turns, caller, turn)?;
        }
    }

    /// Removes the lock file of another program that is dead. Gives whether it did.
    fn remove_left_behind(&self, lock: &CStr) -> io::Result<bool> {
        let known = &self.shared.foreign;
        if known.len() > MANY_FOREIGN {
            known.clear();
        }
        let mut seen = known.get(self.key()).map(|seen| *seen);
        let limit = (&*self.shared.owner.host, self.rule().foreign_stale_after);
        let left = dotlock::is_left_behind(&*self.dir, lock, &mut seen, limit, boottime())?;
        let Some(judged) = seen else { return Ok(true) };
        known.insert(self.key().clone(), judged);
        if left {
            log::warn!(
                "{}: removing {}.lock, which a dead program has left behind",
                self.label,
                self.label
            );
            dotlock::remove_foreign(&*self.dir, &self.names, lock, &judged)?;
            known.remove(self.key());
        }
        Ok(left)
    }

    /// Answers the jobs that would not wait, or have waited for too long, for what `holder` has.
    pub(super) fn expire(&self, holder: impl Fn() -> String) {
        self.expire_at(boottime(), holder);
    }

    /// The same at a time that was looked at before.
    pub(super) fn expire_at(&self, now: Duration, holder: impl Fn() -> String) {
        let timeout = self.rule().lock_timeout;
        let waited = |job: &Job| now.saturating_sub(job.queued);
        self.tell_of_long_wait(now, &holder);
        let spared = self.queue.lock().those_that_wait_for_a_close();
        let impatient = |job: &Job| {
            let patience = job.waiter.patience.filter(|_| !job.is_half_done());
            patience.is_some_and(|limit| waited(job) >= limit) && !spared.contains(&job.number)
        };
        for job in self.take_jobs(impatient) {
            self.count(Count::Timeouts, fails_late(&job).into());
            job.refuse(libc::EAGAIN);
        }
        let late = |job: &Job| {
            job.waiter.patience.is_none() && waited(job) >= timeout && !job.is_half_done()
        };
        let late = self.take_jobs(late);
        let failing = late.iter().filter(|job| fails_late(job)).count();
        if failing > 0 {
            self.count(Count::Timeouts, failing as u64);
            self.happened(
                Event::Timeout,
                Level::Warn,
                format_args!(
                    "waited {} for the lock, which is held by {}; {} calls fail with EAGAIN",
                    humantime::format_duration(timeout),
                    holder(),
                    failing,
                ),
            );
        }
        for job in late {
            job.refuse(libc::EAGAIN);
        }
    }

    /// One pause while somebody else has the lock. Answers the jobs whose time is over; breaks
    /// when none is left.
    pub(super) fn wait(
        &self,
        pause: &mut Duration,
        longest: Duration,
        holder: impl Fn() -> String,
    ) -> ControlFlow<()> {
        self.make_locks_in_vain();
        self.serve_lock_maker();
        self.expire(holder);
        if self.queue.lock().jobs.is_empty() {
            return ControlFlow::Break(());
        }
        std::thread::sleep(*pause);
        *pause = (*pause * 2).min(longest);
        ControlFlow::Continue(())
    }
}

/// Whether the program's call fails when the job is refused. Who only asks for a lock is told of it, and
/// what is only looked at, or makes the lock file, is done all the same.
fn fails_late(job: &Job) -> bool {
    match &job.work {
        Work::Lock(request) => !request.test,
        Work::MakeLock(_) | Work::Look(_) => false,
        Work::Append(_) | Work::Write(_) | Work::Alone(_) => true,
    }
}
