//! An open file that is appended to. How what it appends is written: [`super::batch`].

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::behind::Ticket;
use super::file::{GuardedFile, Target};
use super::queue::{Append, Guard, Job, Place, Waiter, Work};
use super::records;
use crate::backing::Kind;
use crate::config::Ack;
use crate::sys::fs::Stat;

/// A guarded file that a program has open for appending.
pub struct AppendFile {
    pub(super) guard: Arc<Guard>,
    /// What is open below.
    pub file: GuardedFile,
    nonblocking: bool,
    held_back: Mutex<HeldBack>,
    /// The thread whose call goes on with another piece, and where the kernel says that it goes.
    next_piece: Mutex<Option<(u32, u64)>>,
    /// What was answered of a call that goes on.
    pub(super) pieces: Mutex<Pieces>,
    /// The first error, as errno, of appends that were answered, until the program is told.
    pub(super) error: Mutex<Option<i32>>,
    /// Tells the kernel that the file has changed from this offset on.
    pub(super) changed: Box<dyn Fn(u64) + Send + Sync>,
}

/// As much of one write call is kept as can be made again if the lock is lost in the middle of it.
pub(super) const PIECES_KEPT: usize = 64 * 1024 * 1024;

/// The beginning of a record whose end has not come yet.
#[derive(Debug, Default)]
struct HeldBack {
    bytes: Vec<u8>,
    /// Who wrote it: the kernel's name for the table of open files of a process. A child that
    /// closes its copy of a descriptor must not push out what its parent has not finished.
    owner: Option<u64>,
}

/// The pieces of a call that were answered, while it goes on.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    pub(super) data: Vec<Vec<u8>>,
    /// How many bytes they have; more than [`PIECES_KEPT`]: they are not kept.
    pub(super) bytes: usize,
}

/// What a queued append has done to what is held back, to be undone if it fails.
#[derive(Debug, Default)]
pub struct Held {
    /// What was held back before, and is written with it now.
    before: Vec<u8>,
    /// What it holds back itself.
    rest: Vec<u8>,
}

impl fmt::Debug for AppendFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppendFile")
            .field("guard", &self.guard)
            .finish_non_exhaustive()
    }
}

/// The flags with which the file below is opened, for a program that opened it with `flags` for
/// appending.
pub fn backing_flags(flags: i32, kind: Kind) -> i32 {
    let access = flags & libc::O_ACCMODE;
    match kind {
        // NFS refuses O_APPEND with O_DIRECT; the end is looked up under the lock instead.
        // Written so, a batch is one WRITE with FILE_SYNC, and no stale page is left behind.
        Kind::Nfs => access | libc::O_DIRECT | libc::O_DSYNC,
        Kind::Other => access,
    }
}

impl AppendFile {
    /// A program has opened the guard's file with `flags`, as `file`, below with
    /// [`backing_flags`]. The guard has counted this user already.
    pub fn new(
        guard: Arc<Guard>,
        file: GuardedFile,
        flags: i32,
        changed: Box<dyn Fn(u64) + Send + Sync>,
    ) -> Arc<AppendFile> {
        let counted = file.guard(|| Ok(Arc::clone(&guard)));
        debug_assert!(counted.is_ok_and(|known| Arc::ptr_eq(known, &guard)));
        Arc::new(AppendFile {
            guard,
            file,
            nonblocking: flags & libc::O_NONBLOCK != 0,
            held_back: Mutex::default(),
            next_piece: Mutex::default(),
            pieces: Mutex::default(),
            error: Mutex::default(),
            changed,
        })
    }

    /// The guard of the file.
    pub fn guard(&self) -> &Arc<Guard> {
        &self.guard
    }

    /// The file below as it is now; it changes when the name gets another file.
    pub fn target(&self) -> Target {
        self.file.target()
    }

    /// Writes `data`, as one piece, at the end of the file; `reply` gets the number of bytes
    /// written. `owner` names the process, `offset` is where the kernel believes the end to be.
    pub fn append(
        self: &Arc<Self>,
        data: &[u8],
        offset: u64,
        owner: Option<u64>,
        tid: u32,
        reply: Box<dyn FnOnce(io::Result<usize>) + Send>,
    ) {
        if self.error.lock().is_some() {
            // Not before all that was queued with what failed has failed too, or been done.
            let (file, data) = (Arc::clone(self), data.to_vec());
            let tell = move || match file.take_error() {
                Err(error) => reply(Err(error)),
                // Another thread was told.
                Ok(()) => file.append(&data, offset, owner, tid, reply),
            };
            return self.guard.after_appends(Box::new(tell));
        }
        let written = data.len();
        let (whole, held) = match &self.guard.rule.record {
            None => (data.to_vec(), Held::default()),
            Some(terminator) => {
                let mut held_back = self.held_back.lock();
                let before = std::mem::take(&mut held_back.bytes);
                let split = records::split(&before, data, terminator);
                if split.too_long > 0 {
                    log::warn!(
                        "{}: {} bytes without the end of a record are written as they are; does \
                         `record` in the rule say what ends one?",
                        self.guard.label(),
                        split.too_long
                    );
                }
                held_back.owner = owner;
                held_back.bytes.clone_from(&split.rest);
                if split.whole.is_empty() {
                    drop(held_back);
                    return reply(Ok(written));
                }
                let rest = split.rest;
                (split.whole, Held { before, rest })
            }
        };
        let append = |held, answered, reply| {
            Work::Append(Append {
                file: Arc::clone(self),
                data: whole,
                held,
                piece: (offset, written),
                place: None,
                earlier: 0,
                answered,
                reply,
            })
        };
        let may_be =
            self.guard.rule.ack == Ack::Close && self.may_be_answered(written, offset, tid);
        let ticket = may_be.then(|| Ticket::take(&self.guard, written)).flatten();
        let Some(ticket) = ticket else {
            let work = append(held, false, reply);
            return self.guard.submit(Job::new(work, self.waiter(tid)));
        };
        let file = Arc::clone(self);
        let note = move |result: io::Result<usize>| {
            if let Err(error) = result {
                file.note_error(&error);
            }
            drop(ticket);
        };
        // What is held back stays so if this fails: the program knows it for written.
        let work = append(Held::default(), true, Box::new(note));
        // The thread does not wait, so what can be seen of it says nothing.
        self.guard.submit(Job::new(work, self.waiter(0)));
        reply(Ok(written));
    }

    /// Whether an append may be answered before it is done; see [`super::behind`].
    fn may_be_answered(&self, len: usize, offset: u64, tid: u32) -> bool {
        let mut next_piece = self.next_piece.lock();
        let goes_on = *next_piece == Some((tid, offset));
        let more = self.guard.is_followed(len, tid);
        *next_piece = more.then_some((tid, offset + len as u64));
        drop(next_piece);
        !goes_on && !more && !self.nonblocking && !self.guard.is_locked_here()
    }

    /// A call fails whose first `pieces` bytes were answered, and cannot be made again.
    pub(super) fn tell_of_loss(&self, pieces: usize, error: &io::Error) {
        if pieces > 0 {
            log::error!(
                "{}: a write comes back short, and what it says to be written, {pieces} bytes, is \
                 not in the file: {error}",
                self.guard.label
            );
        }
    }

    /// The pieces that were kept, as an append for which nobody waits. Turn `turn` was lost after
    /// they were written.
    pub(super) fn pieces_again(self: &Arc<Self>, turn: u64) -> Option<Job> {
        let pieces = std::mem::take(&mut *self.pieces.lock());
        if pieces.data.is_empty() {
            self.tell_of_loss(pieces.bytes, &io::Error::from_raw_os_error(libc::EIO));
            return None;
        }
        let work = Work::Append(Append {
            file: Arc::clone(self),
            data: pieces.data.concat(),
            held: Held::default(),
            piece: (0, 0),
            place: Some(Place {
                turn,
                ino: self.target().id.ino,
                end: u64::MAX,
            }),
            earlier: pieces.bytes,
            answered: true,
            reply: Box::new(|_| ()),
        });
        Some(Job::new(work, self.waiter(0)))
    }

    /// The call whose pieces were kept is over.
    pub(super) fn forget_pieces(&self) {
        let mut pieces = self.pieces.lock();
        if pieces.bytes > 0 {
            *pieces = Pieces::default();
        }
    }

    /// An append that was answered has failed.
    fn note_error(&self, error: &io::Error) {
        let errno = match error.raw_os_error() {
            // The call that tells it cannot be tried again with success.
            Some(libc::EAGAIN | libc::EINTR) | None => libc::EIO,
            Some(errno) => errno,
        };
        let mut known = self.error.lock();
        if known.is_none() {
            log::error!(
                "{}: an append that was answered before it was done (ack = \"close\") has failed: \
                 {error}; the next write, fsync or close through that descriptor tells it",
                self.guard.label
            );
            *known = Some(errno);
        }
    }

    /// The error of appends that were answered, which is told once.
    fn take_error(&self) -> io::Result<()> {
        match self.error.lock().take() {
            Some(errno) => Err(io::Error::from_raw_os_error(errno)),
            None => Ok(()),
        }
    }

    /// Writes what is held back of an unfinished record, as [`finish_record`](Self::finish_record)
    /// does, and waits for all that was answered before it was done: `reply` gets the first error.
    pub fn finish(
        self: &Arc<Self>,
        owner: Option<u64>,
        who: (u32, Option<u32>),
        reply: Box<dyn FnOnce(io::Result<usize>) + Send>,
    ) {
        if self.guard.rule.ack != Ack::Close {
            return self.finish_record(owner, who, reply);
        }
        let file = Arc::clone(self);
        let then = move |result: io::Result<usize>| {
            let guard = Arc::clone(&file.guard);
            let tell = move || reply(file.take_error().and(result));
            guard.after_appends(Box::new(tell));
        };
        self.finish_record(owner, who, Box::new(then));
    }

    /// Writes what is held back of an unfinished record. With an `owner`, only if it was written
    /// by that process. `process` is whose work it is, if that is not the thread's.
    pub fn finish_record(
        self: &Arc<Self>,
        owner: Option<u64>,
        (tid, process): (u32, Option<u32>),
        reply: Box<dyn FnOnce(io::Result<usize>) + Send>,
    ) {
        let mut held_back = self.held_back.lock();
        let of_another = owner.is_some() && held_back.owner != owner;
        if held_back.bytes.is_empty() || of_another {
            drop(held_back);
            return reply(Ok(0));
        }
        let before = std::mem::take(&mut held_back.bytes);
        drop(held_back);
        let work = Work::Append(Append {
            file: Arc::clone(self),
            data: before.clone(),
            held: Held {
                before,
                rest: Vec::new(),
            },
            piece: (0, 0),
            place: None,
            earlier: 0,
            answered: false,
            reply,
        });
        let waiter = Waiter {
            process,
            ..self.waiter(tid)
        };
        self.guard.submit(Job::new(work, waiter));
    }

    /// An append has failed: what was held back before it still is, and what it held back itself
    /// was never written as far as the program knows.
    pub(super) fn take_back(&self, mut held: Held) {
        let mut held_back = self.held_back.lock();
        let later = held_back.bytes.strip_prefix(&*held.rest);
        let later = later.unwrap_or(&held_back.bytes);
        held.before.extend_from_slice(later);
        held_back.bytes = held.before;
    }

    fn waiter(&self, tid: u32) -> Waiter {
        Waiter {
            caller: self.file.opener.clone(),
            tid,
            process: None,
            patience: self.nonblocking.then_some(Duration::ZERO),
        }
    }

    pub(super) fn follow(&self, named: Option<&Stat>) -> io::Result<Target> {
        self.file.follow(&self.guard, named)
    }
}
