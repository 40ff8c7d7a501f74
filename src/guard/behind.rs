//! Appends that are answered before they are done (`ack = "close"`).
//!
//! The program goes on as soon as we have its data; `close`, `fsync` and whatever looks at the file
//! through this mount wait until all that was answered before is on the server, and the first error
//! is told by the next `write`, `fsync` or `close` through the descriptor. That is NFS's own promise
//! (close-to-open), but for the lock, and that nothing stays behind for longer than its turn in the
//! queue.
//!
//! Not answered before they are done are: an append while programs on this host hold a lock on the
//! file (it may have to wait for its own process, which is known only while that waits), one through
//! a non-blocking descriptor (it may have to fail with `EAGAIN`), the pieces of a call that the
//! kernel has cut into several (only the waiting thread shows that more is to come), and whatever
//! finds no room: that is how a program is slowed down to the speed of the server.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::queue::Guard;

/// The most that may be behind on one file, in bytes.
const ROOM_OF_FILE: usize = 16 * 1024 * 1024;
/// The same for all files of a mount.
const ROOM: usize = 64 * 1024 * 1024;
/// What an append takes besides its bytes.
const OVERHEAD: usize = 512;

/// What of one guard is behind.
#[derive(Default)]
pub(super) struct Behind(Mutex<State>);

#[derive(Default)]
struct State {
    /// The number of the last append that was answered before it was done.
    last: u64,
    /// Those that are not done yet.
    open: BTreeSet<u64>,
    /// How much room they take.
    bytes: usize,
    /// What waits until all up to a number are done.
    waiting: Vec<(u64, Box<dyn FnOnce() + Send>)>,
}

impl State {
    /// Takes out what need not wait any more.
    fn ready(&mut self) -> Vec<Box<dyn FnOnce() + Send>> {
        let first = self.open.first().copied().unwrap_or(u64::MAX);
        let ready = self.waiting.extract_if(.., |(number, _)| *number < first);
        ready.map(|(_, then)| then).collect()
    }
}

/// An append that is answered and not done; it is done, or has failed, when this is dropped.
pub(super) struct Ticket {
    guard: Arc<Guard>,
    number: u64,
    bytes: usize,
}

impl Ticket {
    /// A ticket for an append of `len` bytes, where there is room for it.
    pub fn take(guard: &Arc<Guard>, len: usize) -> Option<Ticket> {
        let bytes = len + OVERHEAD;
        let of_mount = &guard.shared.behind;
        if of_mount.fetch_add(bytes, Ordering::Relaxed) + bytes > ROOM {
            of_mount.fetch_sub(bytes, Ordering::Relaxed);
            return None;
        }
        let mut state = guard.behind.0.lock();
        if state.bytes + bytes > ROOM_OF_FILE {
            drop(state);
            of_mount.fetch_sub(bytes, Ordering::Relaxed);
            return None;
        }
        state.bytes += bytes;
        state.last += 1;
        let number = state.last;
        state.open.insert(number);
        drop(state);
        Some(Ticket {
            guard: Arc::clone(guard),
            number,
            bytes,
        })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = self.guard.behind.0.lock();
        state.bytes -= self.bytes;
        state.open.remove(&self.number);
        let ready = state.ready();
        drop(state);
        self.guard
            .shared
            .behind
            .fetch_sub(self.bytes, Ordering::Relaxed);
        for then in ready {
            then();
        }
    }
}

impl Guard {
    /// Whether an append was answered that is not done yet.
    pub fn is_behind(&self) -> bool {
        !self.behind.0.lock().open.is_empty()
    }

    /// Calls `then` when all appends that have been answered so far are done, or have failed.
    pub fn after_appends(&self, then: Box<dyn FnOnce() + Send>) {
        let mut state = self.behind.0.lock();
        if state.open.is_empty() {
            drop(state);
            return then();
        }
        let last = state.last;
        state.waiting.push((last, then));
    }

    /// Whether a program on this host holds a lock on the file, or has made its lock file.
    pub(super) fn is_locked_here(&self) -> bool {
        self.queue.lock().is_held() || self.shared.dotlocks.beside(self.key()).is_some()
    }
}

/// How much is behind on all files of a mount, in bytes.
pub(super) type OfMount = AtomicUsize;
