//! A worker's shift: take a turn, do what is queued while it is held, end it.

use std::ffi::CStr;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::acquire::FIRST_PAUSE;
use super::at_once::Loan;
use super::batch::{Queued, Written};
use super::counts::Count;
use super::events::Event;
use super::mend::{self, Mending};
use super::permit::{UnderTurn, WithoutTurn};
use super::pieces::Unfinished;
use super::queue::{Guard, Job, LockRequest, Work};
use super::syscall;
use crate::backing::Caller;
use crate::config::Rule;
use crate::lock::dotlock;
use crate::lock::part::{self, Part};
use crate::lock::turns::{Actor, is_gone};
use crate::lock::{Directory, Ended, Turn, Turns};
use crate::sys::process::boottime;

/// How long the worker sleeps at a time while the lock is held by programs, and others wait: then
/// it looks who has waited for too long.
const WHILE_HELD: Duration = Duration::from_millis(100);
/// How long an append waits for a lock file that a program on this host has made.
const APPEND_PATIENCE: Duration = Duration::from_millis(100);
/// How long a directory may be unknown to the server, before it is taken to be gone for good:
/// longer than a restart and the grace period after it.
const LONGEST_END: Duration = Duration::from_secs(120);
/// The most that one batch holds.
const BATCH_BYTES: usize = 16 * 1024 * 1024;

impl Guard {
    /// Works off the queue, turn by turn, until it is empty.
    pub(super) fn work_off(&self, turns: &mut Turns) {
        loop {
            self.serve_lock_maker();
            for job in self.take_jobs(|job| matches!(job.work, Work::Look(_))) {
                self.do_alone(job.work);
            }
            let Some(caller) = self.next_caller() else {
                return;
            };
            let mut turn = match self.acquire(turns, &caller) {
                Ok(Some(turn)) => turn,
                Ok(None) => continue,
                Err(error) => {
                    self.refuse_unless_gone(&caller, &error);
                    continue;
                }
            };
            if let Err(error) = self.mend(turns, &caller, &mut turn) {
                // A slow turn does nothing, but the next one may.
                if error.raw_os_error() == Some(libc::ETIMEDOUT) {
                    self.expire(|| "nobody, but the file cannot be fenced yet".to_owned());
                } else {
                    if turn.inherits {
                        log::error!(
                            "{}: cannot be fenced after its lock was broken: {error}",
                            self.label
                        );
                    }
                    // Before the end of the turn, which may not come about for the same reason.
                    self.refuse_unless_gone(&caller, &error);
                }
                self.end_turn(turns, &caller, &turn);
                continue;
            }
            if self.has_lock_to_make() {
                self.make_locks();
            } else {
                self.serve(turns, &caller, &mut turn);
            }
            self.end_turn(turns, &caller, &turn);
        }
    }

    /// Does what the turn has inherited from a broken one.
    fn mend(&self, turns: &mut Turns, caller: &Caller, turn: &mut Turn) -> io::Result<()> {
        self.show_sign(turns, caller, turn)?;
        if !turn.inherits {
            return Ok(());
        }
        let put = |staged: &CStr| match self.shared.put.get() {
            Some(put) => put(self, staged),
            None => self.dir.rename(staged, &self.name),
        };
        let mut rule = Rule::clone(&self.rule());
        if self.unknown_tail.load(Ordering::Acquire) {
            // What looks like half a record may be meant so.
            rule.record = None;
        }
        let mending = Mending {
            dir: &self.dir,
            name: &self.name,
            names: &self.names,
            rule: &rule,
            label: &self.label,
            turn: turn.n,
            claim: &turn.claim,
            show_life: &|| self.show_life(),
            is_prompt: &|| self.is_prompt(),
            put: &put,
            events: &self.shared.events,
        };
        let credentials = &self.shared.credentials;
        mend::as_whoever_may(credentials, &self.dir, &self.name, caller, || {
            mending.mend()
        })?;
        turn.inherits = false;
        Ok(())
    }

    /// Shows a sign of life, where that is due.
    pub(super) fn show_sign(
        &self,
        turns: &mut Turns,
        caller: &Caller,
        turn: &Turn,
    ) -> io::Result<()> {
        let now = boottime();
        self.beat(now, || {
            self.as_actor(caller, turn.actor, || {
                turns.refresh(&*self.dir, turn, || now)
            })
        })
    }

    /// Whether a program is about to make the lock file itself.
    pub(super) fn has_lock_to_make(&self) -> bool {
        let is_lock = |job: &Job| matches!(job.work, Work::MakeLock(_));
        self.queue.lock().jobs.iter().any(is_lock)
    }

    /// Lets programs make the lock file.
    pub(super) fn make_locks(&self) {
        for job in self.take_jobs(|job| matches!(job.work, Work::MakeLock(_))) {
            self.do_alone(job.work);
        }
    }

    fn next_caller(&self) -> Option<Caller> {
        self.queue
            .lock()
            .jobs
            .front()
            .map(|job| job.waiter.caller.clone())
    }

    /// Does what is queued while the turn is held, and keeps it for as long as programs hold it.
    fn serve(&self, turns: &mut Turns, caller: &Caller, turn: &mut Turn) {
        let (contended, (longest, linger)) = {
            let (rhythm, now) = (self.rhythm.lock(), boottime());
            (rhythm.is_contended(now), rhythm.limits(now))
        };
        let loan = Arc::new(Loan {
            caller: caller.clone(),
            turn: turn.clone(),
            until: turn.taken + longest,
        });
        let mut unfinished: Option<Unfinished> = None;
        let mut has_begun = false;
        loop {
            if has_begun && unfinished.is_none() && !self.is_held() {
                if let Some(written) = self.wait_for_work(&loan, linger) {
                    match self.conclude(turn, &loan, written, (false, false)) {
                        ControlFlow::Continue(()) => continue,
                        ControlFlow::Break(()) => return,
                    }
                }
                if boottime() >= loan.until {
                    return;
                }
            }
            has_begun = true;
            if let Err(error) = self.show_sign(turns, caller, turn) {
                log::warn!(
                    "{}: no sign of life could be shown for its lock: {error}",
                    self.label
                );
                if !self.is_held() || is_gone(&error) {
                    if let Some(call) = unfinished.take() {
                        self.rescue(call, turn.n);
                        turn.inherits = true;
                    }
                    self.lose(turn.n);
                    return self.settle(caller, turn);
                }
                // What programs hold they hold until it is known to be lost.
                std::thread::sleep(WHILE_HELD);
            }
            // Nothing begins under a slow turn that nobody holds. What programs hold they keep, as long
            // as nobody has broken it: what they write goes to a file that would be fenced.
            if self.is_slow() && (!self.is_held() || self.is_over() || self.still_ours().is_err()) {
                if let Some(call) = unfinished.take() {
                    // The next piece cannot be written under this turn, and what of the call was
                    // must not stay without it.
                    self.settle(caller, turn);
                    self.rescue(call, turn.n);
                    turn.inherits = true;
                    return self.lose(turn.n);
                }
                self.lose(turn.n);
                return self.settle(caller, turn);
            }
            // What others wait for counts only where something is held.
            let tired = contended && self.is_held() && boottime() >= loan.until;
            let goes_on = unfinished.is_some();
            let called = unfinished.as_ref().map(Unfinished::file);
            let batch = self.next_batch(&mut unfinished, tired);
            if batch.is_empty() {
                if unfinished.is_some() {
                    self.expire(|| "a program in the middle of a large write".to_owned());
                    continue;
                }
                if let Some(file) = called {
                    // It has ended early, and the program knows how much of it is written.
                    let unnoted = self.unnote(caller, turn);
                    self.settle(caller, turn);
                    if unnoted.is_err() {
                        self.requeue(file.pieces_again(turn.n).into_iter().collect());
                        turn.inherits = true;
                        return self.lose(turn.n);
                    }
                    file.forget_pieces();
                }
                if self.is_held() {
                    self.expire(|| self.describe_holders());
                    continue;
                }
                return self.settle(caller, turn);
            }
            let now = boottime();
            if self.is_slow_at(now) && !goes_on && !self.is_held() {
                // We slept while we waited for it; it is done under another turn.
                self.requeue(batch);
                return self.settle(caller, turn);
            }
            self.has_waited(&batch, now);
            let mut appends = Vec::new();
            for job in batch {
                let tid = job.waiter.tid;
                if matches!(job.work, Work::MakeLock(_)) && self.queue.lock().holds_all(&job) {
                    self.give_up_dotlock(caller, turn);
                }
                match Queued::from_job(job) {
                    Ok(append) => appends.push((append, tid)),
                    Err(other) => {
                        // It may make the file shorter, and what is left was whole. (Where this fails
                        // the turn is most likely lost.)
                        if !matches!(*other, Work::Look(_)) {
                            _ = self.unnote(caller, turn);
                        }
                        self.do_alone(*other);
                    }
                }
            }
            if let Some((_, tid)) = appends.last() {
                let more = unfinished.as_ref().is_some_and(|call| call.tid == *tid);
                let appends = appends.into_iter().map(|(append, _)| append).collect();
                let permit = UnderTurn {
                    guard: self,
                    caller,
                    turn,
                };
                let written = self.write_batch(appends, more, &permit);
                let concluded = self.conclude(turn, &loan, written, (goes_on, more));
                if concluded.is_break() {
                    return;
                }
            }
        }
    }

    /// Answers what was written, if the turn was ours all the while; breaks where it must end. With
    /// `goes_on` pieces of the same call were answered before, with `more` others follow.
    fn conclude(
        &self,
        turn: &mut Turn,
        loan: &Arc<Loan>,
        written: Written,
        (goes_on, more): (bool, bool),
    ) -> ControlFlow<()> {
        let caller = &loan.caller;
        // Pieces of the call before that one are in the file, and others must not come
        // between: it is made again as a whole. (The note of its beginning stays.)
        let torn = goes_on && written.is_not_sent();
        // Where a note stays that the write is under way, whoever mends the file leaves the
        // write out.
        let fenced = written.must_be_fenced();
        let stays = torn || fenced || more || (self.note_may_stay() && written.is_all_or_nothing());
        let noted = !stays && self.unnote(caller, turn).is_err();
        if !more {
            self.settle(caller, turn);
        }
        let left = match self.still_ours() {
            Ok(()) if !torn && !noted => {
                if !more && written.is_done() {
                    // Before the answers: the next record may be here as soon as one is answered.
                    self.lend_turn(loan);
                }
                written.answer(more)
            }
            ours => {
                self.settle(caller, turn);
                if ours.is_err() {
                    self.has_lost(turn.n, Event::Lost, " while we wrote");
                }
                self.lose(turn.n);
                turn.inherits = true;
                let left = written.lose(turn.n, goes_on);
                self.requeue(left);
                return ControlFlow::Break(());
            }
        };
        self.requeue(left);
        if fenced {
            // What may be executed late, though it was answered with an error, must be kept
            // from the file as if the turn had been broken.
            turn.inherits = true;
            self.lose(turn.n);
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    /// The turn must end in the middle of a call, whose pieces so far will not be in the file: waits
    /// for its next piece, and leaves all of it to be made again under another turn.
    fn rescue(&self, call: Unfinished, turn: u64) {
        let (file, tid) = (call.file(), call.tid);
        let mut unfinished = Some(call);
        while let Some(call) = unfinished.take() {
            let piece = self.next_piece(call, &mut unfinished).pop();
            if let Some(Ok(piece)) = piece.map(Queued::from_job) {
                return self.requeue(Written::not_sent(piece).lose(turn, true));
            }
        }
        // It has ended early. If its program lives, it knows what was answered for written.
        if syscall::is_there(tid) {
            self.requeue(file.pieces_again(turn).into_iter().collect());
        } else {
            file.forget_pieces();
        }
    }

    /// Puts back what is to be done under another turn, before what came after it.
    fn requeue(&self, jobs: Vec<Job>) {
        let mut queue = self.queue.lock();
        for mut job in jobs.into_iter().rev() {
            queue.jobs_so_far += 1;
            job.number = queue.jobs_so_far;
            queue.jobs.push_front(job);
        }
    }

    /// Whether the note of a write that has come to its end does no harm, if that was done as a whole or
    /// not at all: the file tells which.
    /// (Not where programs hold the lock: they may make the file shorter without asking us.)
    pub(super) fn note_may_stay(&self) -> bool {
        self.noted.lock().is_none_or(|write| write.end.is_some()) && !self.is_held()
    }

    /// A write that was noted, if one was, has come to its end.
    ///
    /// # Errors
    /// Where that could not be noted too.
    pub(super) fn unnote(&self, caller: &Caller, turn: &Turn) -> io::Result<()> {
        let mut noted = self.noted.lock();
        if noted.is_none() {
            return Ok(());
        }
        let unnoted = self.as_actor(caller, turn.actor, || {
            Turns::note_write(&*self.dir, &self.shared.owner, turn, None)
        });
        match &unnoted {
            Ok(()) => *noted = None,
            Err(error) => log::warn!(
                "{}: the end of a write could not be noted: {error}",
                self.label
            ),
        }
        unnoted
    }

    /// A program that holds the lock makes the lock file too: ours makes room for it.
    fn give_up_dotlock(&self, caller: &Caller, turn: &Turn) {
        let Some(lock) = self.names.dotlock().filter(|_| self.rule().dotlock) else {
            return;
        };
        let given_up = self.as_actor(caller, turn.actor, || {
            dotlock::release(&*self.dir, turn, lock)
        });
        if let Err(error) = given_up {
            log::debug!("{}: its lock file stays: {error}", self.label);
        }
    }

    /// Does work that is no append, under the lock.
    fn do_alone(&self, work: Work) {
        if let Work::Look(look) = work {
            return (look.run)();
        }
        // It may change the file, or its name, or leave a lock behind under which programs do.
        self.forget_look();
        match work {
            Work::Alone(run) | Work::Write(run) => run(Ok(())),
            Work::MakeLock(run) => run(),
            Work::Lock(request) => self.lock_now(request),
            // These were taken out before.
            Work::Append(_) | Work::Look(_) => {}
        }
        self.forget_look();
    }

    /// Takes an advisory lock, unless another is in its way.
    fn lock_now(&self, request: LockRequest) {
        let mut queue = self.queue.lock();
        queue.locks.give_up_flock(&request.lock);
        if queue.conflicts(&request.lock).next().is_some() {
            drop(queue);
            if !request.test {
                self.count(Count::Timeouts, 1);
            }
            return (request.granted)(Err(io::Error::from_raw_os_error(libc::EAGAIN)));
        }
        if !request.test {
            queue.locks.set(request.lock);
            let owner = request.lock.holder.owner;
            queue.forget_lost(|lost| lost.owner == owner);
        }
        drop(queue);
        (request.granted)(Ok(()));
    }

    /// While a program's own lock file stands, what that program and its family want is done
    /// under it, without a turn: every host keeps away from the file.
    pub(super) fn serve_lock_maker(&self) {
        let Some(made) = self.shared.dotlocks.beside(self.key()) else {
            return;
        };
        if made.makers.is_none() || !self.rule().dotlock {
            return;
        }
        // While a write waits here, the kernel lets nobody else write to the file, not even who has
        // made the lock file. On a local disk, too, that keeps out only those who look at it; so
        // an append of a stranger on this host goes through after a while. (Others of its kind
        // wait where they do no harm: when they open the file.)
        let now = boottime();
        let has_waited = |job: &Job| {
            matches!(&job.work, Work::Append(append) if append.place.is_none())
                && now.saturating_sub(job.queued) >= APPEND_PATIENCE
        };
        let is_theirs = |job: &Job| made.is_of(job.pid()) || has_waited(job);
        if !self.queue.lock().jobs.iter().any(is_theirs) {
            return;
        }
        let Some(lock) = self.names.dotlock() else {
            return;
        };
        match self.dir.identity(lock) {
            Ok(Some(id)) if id == made.id => {}
            // It was removed elsewhere; then it locks nothing any more.
            Ok(_) => return self.shared.dotlocks.forget(self.key(), made.id),
            Err(error) => {
                log::debug!("{}: cannot look at its lock file: {error}", self.label);
                return;
            }
        }
        self.queue.lock().under_a_lock_file = true;
        for job in self.take_jobs(is_theirs) {
            match Queued::from_job(job) {
                Ok(append) => {
                    let written = self.write_batch(vec![append], false, &WithoutTurn);
                    self.show();
                    written.answer(false);
                }
                Err(other) => self.do_alone(*other),
            }
        }
        self.queue.lock().under_a_lock_file = false;
    }

    /// Lets readers on other hosts know that the file is being written from `start` on. That they
    /// see half of a long write is no loss of data, so a failure is no reason not to write.
    pub(super) fn announce(&self, caller: &Caller, turn: &Turn, start: u64) {
        if self.announced.swap(true, Ordering::AcqRel) {
            return;
        }
        let part = Part {
            turn: turn.n,
            start,
        };
        let put = self.as_actor(caller, turn.actor, || {
            part::put(&*self.dir, &self.names, part)
        });
        if let Err(error) = put {
            log::debug!("{}: could not announce a long write: {error}", self.label);
        }
    }

    /// What was written is whole: readers may see it.
    fn settle(&self, caller: &Caller, turn: &Turn) {
        if self.announced.swap(false, Ordering::AcqRel) {
            let removed =
                self.as_actor(caller, turn.actor, || part::remove(&*self.dir, &self.names));
            if let Err(error) = removed {
                // It goes with the turn: once that is over, nobody heeds it.
                log::debug!("{}: could not end the announcement: {error}", self.label);
            }
        }
        self.show();
    }

    /// The jobs to do next: appends that come one after another, or one job of another kind.
    /// While a call is unfinished, only its next piece. Waits a little where programs hold the turn;
    /// empty when there is none, or none that may be done now.
    fn next_batch(&self, unfinished: &mut Option<Unfinished>, tired: bool) -> Vec<Job> {
        if let Some(call) = unfinished.take() {
            return self.next_piece(call, unfinished);
        }
        let mut queue = self.queue.lock();
        let is_lock = |job: &Job| matches!(job.work, Work::MakeLock(_));
        let mut next = queue.first_admitted(tired);
        if !queue.is_held() && queue.jobs.iter().any(is_lock) {
            return Vec::new();
        }
        if next.is_none() && queue.is_held() {
            let patience = match queue.jobs.is_empty() {
                false => WHILE_HELD,
                // Only the claim must be refreshed, every quarter of the time.
                true => self.rule().stale_after / 8,
            };
            self.arrived.wait_for(&mut queue, patience);
            next = queue.first_admitted(tired);
        }
        let mut batch: Vec<Job> = Vec::new();
        let mut bytes = 0;
        while let Some(at) = next {
            let job = &queue.jobs[at];
            let Work::Append(append) = &job.work else {
                if batch.is_empty() {
                    batch.extend(queue.jobs.remove(at));
                }
                break;
            };
            bytes += append.data.len();
            if bytes > BATCH_BYTES && !batch.is_empty() {
                break;
            }
            let call = self.more_to_come(job, None);
            if call.is_some() && !batch.is_empty() {
                // What is answered before the call is over must not be behind where it began: there
                // the file ends if we die in the middle of it.
                break;
            }
            batch.extend(queue.jobs.remove(at));
            if call.is_some() {
                *unfinished = call;
                break;
            }
            next = queue.first_admitted(tired);
        }
        batch
    }

    /// Ends the turn, and the dotlock within it, however long that takes: as long as the end is
    /// not there, others wait for us.
    pub(super) fn end_turn(&self, turns: &mut Turns, caller: &Caller, turn: &Turn) {
        self.give_turn_up(turns, caller, turn);
        self.rhythm.lock().ends(turn.n, turn.taken, boottime());
        // A descriptor is closed when others can have the turn.
        self.end_memory();
    }

    fn give_turn_up(&self, turns: &mut Turns, caller: &Caller, turn: &Turn) {
        let slow = self.is_slow();
        let inherits = self.take_taint() || turn.inherits;
        self.set_pulse(None);
        *self.noted.lock() = None;
        let began = boottime();
        let mut pause = FIRST_PAUSE;
        let mut actor = turn.actor;
        loop {
            let ended = self.as_actor(caller, actor, || {
                if let Some(lock) = self.names.dotlock().filter(|_| self.rule().dotlock)
                    && let Err(error) = dotlock::release(&*self.dir, turn, lock)
                {
                    // The next holder of a turn knows it for left behind, and removes it.
                    log::warn!(
                        "{}: could not remove {}.lock: {error}",
                        self.label,
                        self.label
                    );
                }
                if inherits {
                    // What it has not mended whoever comes next must.
                    let given_back = turns.give_back(&*self.dir, turn, boottime());
                    return given_back.map(|()| Ended::Clean);
                }
                turns.end(&*self.dir, turn, (boottime(), slow))
            });
            let error = match ended {
                Ok(Ended::Clean) => return,
                Ok(Ended::Broken) => {
                    self.has_lost(turn.n, Event::Lost, "");
                    return;
                }
                Err(error) if is_gone(&error) && self.directory_is_gone() => return,
                Err(error) if boottime() >= began + LONGEST_END && self.dir.is_stale() => {
                    log::error!(
                        "{}: its directory is gone from the server, and the lock with it: {error}",
                        self.label
                    );
                    return;
                }
                Err(error) => error,
            };
            if pause == FIRST_PAUSE {
                log::error!(
                    "{}: could not give the lock back, trying on: {error}",
                    self.label
                );
            }
            if is_refusal(&error) {
                // The user may have lost the right to write the directory; perhaps we have it.
                actor = if actor.is_some() { None } else { turn.actor };
            }
            self.expire(|| "this host, which cannot give it back".to_owned());
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }

    /// Makes the calls of the lock as `caller`, or, where the caller may write the file but not
    /// the directory, as the daemon.
    pub(super) fn as_permitted<T>(
        &self,
        caller: &Caller,
        mut calls: impl FnMut(Actor) -> io::Result<T>,
    ) -> io::Result<T> {
        let own = self.shared.credentials.own();
        if caller.uid != own.uid && !self.not_permitted.lock().contains(&caller.uid) {
            let actor = Some(caller.uid);
            match self.as_actor(caller, actor, || calls(actor)) {
                Err(error) if is_refusal(&error) => {
                    self.not_permitted.lock().insert(caller.uid);
                }
                other => {
                    self.callers.lock().insert(caller.uid, caller.clone());
                    return other;
                }
            }
        }
        let result = calls(None);
        let Err(error) = &result else { return result };
        if !is_refusal(error) {
            return result;
        }
        // Where nobody may, that is perhaps for a while only, and the user may again before us.
        self.not_permitted.lock().remove(&caller.uid);
        if !self.warned.swap(true, Ordering::AcqRel) {
            log::warn!(
                "{}: its directory must be writable for uid {} (or for uid {}, who runs \
                 dotlockfs), since the lock is made there: {error}",
                self.label,
                caller.uid,
                own.uid
            );
        }
        result
    }

    /// Makes calls with the credentials that belong to `actor`.
    pub(super) fn as_actor<T>(
        &self,
        caller: &Caller,
        actor: Actor,
        mut calls: impl FnMut() -> io::Result<T>,
    ) -> io::Result<T> {
        let _assumed = match actor {
            None => None,
            Some(uid) if uid == caller.uid => Some(self.shared.credentials.assume(caller)?),
            // A turn that a claim of another user of ours turned out to hold.
            Some(_) => self.act_as(actor),
        };
        calls()
    }

    /// The same, unless something was missing: then only those that have waited for too long. Nothing
    /// was done yet; most likely our claim was removed behind our back, and the next turn has a new
    /// one.
    pub(super) fn refuse_unless_gone(&self, caller: &Caller, error: &io::Error) {
        if !is_gone(error) {
            return self.refuse_all_of(caller, error);
        }
        log::debug!("{}: the lock is tried again: {error}", self.label);
        let now = boottime();
        let is_late = |job: &Job| {
            let waited = now.saturating_sub(job.queued);
            waited >= self.rule().lock_timeout && !job.is_half_done()
        };
        for job in self.take_jobs(is_late) {
            self.count(Count::Errors, 1);
            job.refuse(error.raw_os_error().unwrap_or(libc::EIO));
        }
        self.expire_at(now, || {
            "nobody, but what it is made of is missing".to_owned()
        });
        std::thread::sleep(FIRST_PAUSE);
    }

    fn refuse_all_of(&self, caller: &Caller, error: &io::Error) {
        log::debug!("{}: could not take the lock: {error}", self.label);
        let errno = error.raw_os_error().unwrap_or(libc::EIO);
        for job in self.take_jobs(|job| job.waiter.caller.uid == caller.uid) {
            self.count(Count::Errors, 1);
            job.refuse(errno);
        }
    }

    /// The directory is gone, and the file with it: whoever still has it open has it alone.
    pub(super) fn serve_without_lock(&self) {
        self.queue.lock().under_a_lock_file = true;
        for job in self.take_jobs(|_| true) {
            match Queued::from_job(job) {
                Ok(append) => {
                    let written = self.write_batch(vec![append], false, &WithoutTurn);
                    self.show();
                    written.answer(false);
                }
                Err(other) => self.do_alone(*other),
            }
        }
        self.queue.lock().under_a_lock_file = false;
    }
}

fn is_refusal(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EACCES | libc::EPERM | libc::EROFS)
    )
}
