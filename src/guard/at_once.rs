//! Appends that are made by the thread that has brought them.
//!
//! A program that writes record after record comes back a moment after each answer. The worker keeps
//! the turn for that moment, and to wake it for each record takes two switches between threads. So a
//! worker that waits for work *lends* its turn: the thread that brings an append from the kernel makes
//! it itself, under the same turn and by the same steps, and the worker does nothing until it has done.
//! Whatever does not go off well is left to the worker, who goes on as if it had made that write.
//!
//! Meanwhile this thread answers no other request. So one of a mount does this at a time, if there is
//! another; and nothing is done here that waits for a program, or for the kernel to get an answer
//! from us: what has further pieces to come, or is in the kernel's pages (dropping one waits for its
//! reader), goes to the worker at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::batch::{Queued, Written};
use super::permit::UnderTurn;
use super::queue::{Append, Guard, Job, Queue, Waiter, Work};
use crate::backing::Caller;
use crate::lock::Turn;
use crate::sys::process::boottime;

/// A turn that a worker lends.
pub(super) struct Loan {
    /// In whose name it was taken.
    pub caller: Caller,
    /// The turn.
    pub turn: Turn,
    /// When it has lasted for as long as it may.
    pub until: Duration,
}

/// Whether the turn of a guard is lent, and what came of it.
#[derive(Default)]
pub(super) struct Lending {
    state: State,
    /// When it was given back last.
    used: Duration,
    /// The worker waits for the turn to come back.
    awaited: bool,
    /// What was written and could not be answered by who has written it.
    left: Option<Written>,
}

#[derive(Default)]
enum State {
    /// There is none, or the worker itself uses it.
    #[default]
    Kept,
    /// Whoever has an append may use it.
    Free(Arc<Loan>),
    /// Somebody does; the worker must not.
    Borrowed,
}

/// One of a mount at a time uses a turn that is lent.
pub(super) type Borrowing = AtomicBool;

/// A turn in the hands of another than the worker.
struct Borrowed<'a> {
    guard: &'a Guard,
    loan: Arc<Loan>,
    is_back: bool,
}

impl Borrowed<'_> {
    /// The turn was used, and may be again.
    fn give_back(mut self, now: Duration) {
        self.is_back = true;
        let loan = Arc::clone(&self.loan);
        self.give(|queue| {
            queue.lending.used = now;
            queue.lending.state = State::Free(loan);
        });
    }

    /// The worker has to see to this.
    fn leave(mut self, left: Written) {
        self.is_back = true;
        self.give(|queue| {
            debug_assert!(queue.lending.left.is_none());
            queue.lending.left = Some(left);
            queue.lending.state = State::Kept;
        });
    }

    fn give(&self, how: impl FnOnce(&mut Queue)) {
        let mut queue = self.guard.queue.lock();
        how(&mut queue);
        let is_awaited = std::mem::take(&mut queue.lending.awaited)
            || queue.lending.left.is_some()
            || !queue.jobs.is_empty();
        drop(queue);
        self.guard.shared.borrowing.store(false, Ordering::Release);
        if is_awaited {
            self.guard.arrived.notify_one();
        }
    }
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        if !self.is_back {
            // A fault in this program: what has come of the write nobody knows.
            self.guard.taint();
            self.guard.forget_look();
            self.give(|queue| queue.lending.state = State::Kept);
        }
    }
}

impl Guard {
    /// Makes an append for which a program waits, if that can be done at once; else it is queued.
    pub(super) fn append_soon(self: &Arc<Self>, append: Append, waiter: Waiter) {
        match self.borrow_for(&append, &waiter) {
            Some(borrowed) => self.append_now(append, waiter, borrowed),
            None => self.submit(Job::new(Work::Append(append), waiter)),
        }
    }

    /// The turn, if it is lent and this append may be made under it here.
    fn borrow_for(&self, append: &Append, waiter: &Waiter) -> Option<Borrowed<'_>> {
        let (len, tid) = (append.piece.1, waiter.tid);
        if !self.shared.may_lend
            || self.shared.borrowing.load(Ordering::Relaxed)
            || append.file.pages.are_kept()
        {
            return None;
        }
        let loan = {
            let queue = self.queue.lock();
            match &queue.lending.state {
                State::Free(loan) if queue.may_lend() => Arc::clone(loan),
                _ => return None,
            }
        };
        let now = boottime();
        let may_be = now < loan.until && self.is_fresh(loan.turn.n, now);
        // Another name of the file may be written to by a worker, who waits for the server.
        let target = append.file.target().id;
        if !may_be || self.is_followed(len, tid) || self.shared.writing(target).is_locked() {
            return None;
        }
        if self.shared.borrowing.swap(true, Ordering::Acquire) {
            return None;
        }
        // Not before, for it looks at a thread, and not later: others are kept away by it.
        let mut queue = self.queue.lock();
        match &queue.lending.state {
            State::Free(still) if Arc::ptr_eq(still, &loan) && queue.may_lend() => {
                queue.lending.state = State::Borrowed;
            }
            _ => {
                drop(queue);
                self.shared.borrowing.store(false, Ordering::Release);
                return None;
            }
        }
        drop(queue);
        Some(Borrowed {
            guard: self,
            loan,
            is_back: false,
        })
    }

    fn append_now(&self, append: Append, waiter: Waiter, borrowed: Borrowed<'_>) {
        let permit = UnderTurn {
            guard: self,
            caller: &borrowed.loan.caller,
            turn: &borrowed.loan.turn,
        };
        let written = self.write_batch(vec![Queued::new(append, waiter)], false, &permit);
        let is_plain = !self.announced.load(Ordering::Acquire) && self.note_may_stay();
        let now = boottime();
        // In this order: what was answered late may have been done under another's turn.
        if !is_plain || !written.is_done() || self.is_slow_at(now) || !self.show_here() {
            return borrowed.leave(written);
        }
        self.has_not_waited();
        let done = written.into_done();
        // The next record may be here as soon as this one is answered.
        borrowed.give_back(now);
        for append in done {
            append.answer(Ok(()));
        }
    }

    /// The worker has nothing to do for now: its turn may be used by others.
    pub(super) fn lend_turn(&self, loan: &Arc<Loan>) {
        self.queue.lock().lend(loan);
    }

    /// Makes sure, as a worker, that no turn is lent that another worker has left by a fault.
    pub(super) fn end_lending(&self) {
        let mut queue = self.queue.lock();
        while matches!(queue.lending.state, State::Borrowed) {
            queue.lending.awaited = true;
            self.arrived.wait(&mut queue);
        }
        queue.lending = Lending::default();
    }

    /// Waits, as the worker, until there is something to do, or has been nothing for as long as
    /// `linger`. The turn is lent meanwhile, and back when this ends. Gives what a borrower has left to
    /// be seen to.
    pub(super) fn wait_for_work(&self, loan: &Arc<Loan>, linger: Duration) -> Option<Written> {
        let began = boottime();
        let mut queue = self.queue.lock();
        queue.lend(loan);
        loop {
            if matches!(queue.lending.state, State::Borrowed) {
                queue.lending.awaited = true;
                self.arrived.wait(&mut queue);
                continue;
            }
            // A lock that is let go wakes us, too, and leaves nothing to do.
            if !queue.jobs.is_empty() || queue.lending.left.is_some() {
                break;
            }
            let until = (queue.lending.used.max(began) + linger).min(loan.until);
            match until.checked_sub(boottime()) {
                Some(left) if !left.is_zero() => self.arrived.wait_for(&mut queue, left),
                _ => break,
            };
        }
        queue.lending.state = State::Kept;
        queue.lending.awaited = false;
        queue.lending.left.take()
    }
}

impl Queue {
    fn lend(&mut self, loan: &Arc<Loan>) {
        if self.may_lend() && matches!(self.lending.state, State::Kept) {
            self.lending.state = State::Free(Arc::clone(loan));
        }
    }

    /// Whether nothing stands against an append that another than the worker makes.
    fn may_lend(&self) -> bool {
        self.jobs.is_empty()
            && self.lending.left.is_none()
            && !self.is_held()
            && !self.under_a_lock_file
    }
}
