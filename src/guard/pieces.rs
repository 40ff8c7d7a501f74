//! Writes that the kernel hands over in several requests, and that must be one.

use std::sync::Arc;
use std::time::Duration;

use super::append::AppendFile;
use super::queue::{Append, Guard, Job, Work};
use super::syscall::{self, Call};
use crate::sys::process::boottime;

/// How long a turn is kept for the next piece of a large write when neither its length nor its
/// end can be seen.
const PERHAPS_MORE: Duration = Duration::from_millis(200);
/// The same when the end of the call is known when it comes.
const SURELY_MORE: Duration = Duration::from_secs(10);

/// Pieces of `writev(2)` may be small: one byte for each of 256 pieces of memory at the least.
const LEAST_PIECE: u64 = 256;

/// A call whose next piece is expected.
pub(super) struct Unfinished {
    file: Arc<AppendFile>,
    pub(super) tid: u32,
    /// Where the kernel will say that the next piece goes.
    next: u64,
    /// How much is still to come, if that is known.
    left: Option<u64>,
    /// It writes from so many pieces of memory that a request may end before it is full.
    vector: bool,
    /// The number of the call, if it could be seen.
    number: Option<i64>,
    /// How many write calls the thread had finished before this one, if that is known.
    finished: Option<u64>,
    deadline: Duration,
}

impl Unfinished {
    /// The file that it writes to.
    pub(super) fn file(&self) -> Arc<AppendFile> {
        Arc::clone(&self.file)
    }

    /// Whether its thread is known to have finished it.
    fn is_over(&self) -> bool {
        self.finished.is_some() && syscall::writes_finished(self.tid) != self.finished
    }
}

/// Whether a call may write from so many pieces of memory that a request may end before it is full.
/// (What cannot be seen may be one; its end is seen all the same.)
fn is_vector(seen: &Call) -> bool {
    seen.pieces > 256 || seen.running
}

impl Guard {
    /// The next piece of an unfinished call, or nothing when it is known that there is none, or
    /// for a moment (`unfinished` is set again then).
    pub(super) fn next_piece(
        &self,
        call: Unfinished,
        unfinished: &mut Option<Unfinished>,
    ) -> Vec<Job> {
        let mut queue = self.queue.lock();
        let is_next = |job: &Job| match &job.work {
            Work::Append(Append { file, piece, .. }) => {
                Arc::ptr_eq(file, &call.file) && job.waiter.tid == call.tid && piece.0 == call.next
            }
            _ => false,
        };
        if let Some(at) = queue.jobs.iter().position(is_next) {
            let job = queue.jobs.remove(at);
            drop(queue);
            // The thread may have ended that call, and be in its next one by now, which goes on at
            // the same offset; that may have more pieces than the other had left.
            let before = Some(&call).filter(|call| !call.is_over());
            if let Some(job) = &job {
                *unfinished = self.more_to_come(job, before);
            }
            return job.into_iter().collect();
        }
        // The kernel lets one write to a file pass at a time: another one through the same
        // descriptor means that the call is over.
        let is_other = |job: &Job| matches!(&job.work, Work::Append(Append { file, .. }) if Arc::ptr_eq(file, &call.file));
        let over = queue.jobs.iter().any(is_other)
            || boottime() >= call.deadline
            || call.is_over()
            || syscall::has_left(call.tid, call.number);
        if over {
            if call.left.is_some_and(|left| left > 0) {
                log::debug!("{}: a large write ended before its end", self.label);
            }
        } else {
            self.arrived.wait_for(&mut queue, Duration::from_millis(1));
            *unfinished = Some(call);
        }
        Vec::new()
    }

    /// Whether a piece of a plain buffer may have been cut: only where it is as large as a piece can
    /// be, less what the buffer's first page lacks.
    fn is_full(&self, len: u64) -> bool {
        len + 4096 > self.shared.max_write as u64
    }

    /// Whether a call that `tid` waits in, and of which `len` bytes have come, may go on with
    /// another piece.
    pub(super) fn is_followed(&self, len: usize, tid: u32) -> bool {
        let len = len as u64;
        if len < LEAST_PIECE {
            return false;
        }
        let seen = syscall::of_waiting_thread(tid);
        let whole = seen.count.is_some_and(|count| count <= len);
        !whole && (self.is_full(len) || is_vector(&seen))
    }

    /// Whether another piece of the call that this job belongs to will follow. `before` is the
    /// call, when this is not its first piece.
    pub(super) fn more_to_come(
        &self,
        job: &Job,
        before: Option<&Unfinished>,
    ) -> Option<Unfinished> {
        let Work::Append(Append {
            file,
            piece: (offset, len),
            earlier,
            answered: false,
            ..
        }) = &job.work
        else {
            return None;
        };
        let len = *len as u64;
        if before.is_none() && len < LEAST_PIECE {
            return None;
        }
        let full = self.is_full(len);
        let seen = match before {
            Some(_) => Call::default(),
            None => syscall::of_waiting_thread(job.waiter.tid),
        };
        let (known, vector, number) = match before {
            Some(call) => (call.left, call.vector, call.number),
            None => (seen.count, is_vector(&seen), seen.number),
        };
        let left = known.map(|count| count.saturating_sub(len + *earlier as u64));
        if left == Some(0) || !(full || vector) {
            return None;
        }
        let finished = match before {
            Some(call) => call.finished,
            // Asynchronous writes are not counted.
            None if seen.is_asynchronous() => None,
            None => syscall::writes_finished(job.waiter.tid),
        };
        let patience = if left.is_some() || finished.is_some() {
            SURELY_MORE
        } else {
            PERHAPS_MORE
        };
        Some(Unfinished {
            file: Arc::clone(file),
            tid: job.waiter.tid,
            next: offset + len,
            left,
            vector,
            number,
            finished,
            deadline: boottime() + patience,
        })
    }
}
