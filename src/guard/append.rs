//! Appends: an open file that is appended to, and how a batch of appends is written under a turn.

use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::file::{GuardedFile, Target};
use super::permit::Permit;
use super::queue::{Guard, Job, Place, Waiter, Work, may_come_late};
use super::records;
use crate::backing::Kind;
use crate::lock::Identity;
use crate::lock::fence::Fate;
use crate::sys;
use crate::sys::fs::Stat;

/// A guarded file that a program has open for appending.
pub struct AppendFile {
    guard: Arc<Guard>,
    /// What is open below.
    pub file: GuardedFile,
    nonblocking: bool,
    held_back: Mutex<HeldBack>,
    /// Tells the kernel that the file has changed from this offset on.
    changed: Box<dyn Fn(u64) + Send + Sync>,
}

/// The size of a page, in bytes, or less than that.
const PAGE: u64 = 4096;

/// The beginning of a record whose end has not come yet.
#[derive(Debug, Default)]
struct HeldBack {
    bytes: Vec<u8>,
    /// Who wrote it: the kernel's name for the table of open files of a process. A child that
    /// closes its copy of a descriptor must not push out what its parent has not finished.
    owner: Option<u64>,
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
        let written = data.len();
        let (whole, held) = match &self.guard.rule.record {
            None => (data.to_vec(), Held::default()),
            Some(terminator) => {
                let mut held_back = self.held_back.lock();
                let before = std::mem::take(&mut held_back.bytes);
                let split = records::split(&before, data, terminator);
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
        let work = Work::Append {
            file: Arc::clone(self),
            data: whole,
            held,
            piece: (offset, written),
            place: None,
            reply,
        };
        self.guard.submit(Job::new(work, self.waiter(tid)));
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
        let work = Work::Append {
            file: Arc::clone(self),
            data: before.clone(),
            held: Held {
                before,
                rest: Vec::new(),
            },
            piece: (0, 0),
            place: None,
            reply,
        };
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

    fn follow(&self, named: Option<&Stat>) -> io::Result<Target> {
        self.file.follow(&self.guard, named)
    }
}

/// One append of a batch, taken apart.
pub(super) struct Append {
    file: Arc<AppendFile>,
    data: Vec<u8>,
    held: Held,
    piece: (u64, usize),
    place: Option<Place>,
    reply: Box<dyn FnOnce(io::Result<usize>) + Send>,
    waiter: Waiter,
}

impl Append {
    /// The append in a job; gives the work back if it is of another kind.
    pub(super) fn from_job(job: Job) -> Result<Append, Box<Work>> {
        match job.work {
            Work::Append {
                file,
                data,
                held,
                piece,
                place,
                reply,
            } => Ok(Append {
                file,
                data,
                held,
                piece,
                place,
                reply,
                waiter: job.waiter,
            }),
            other => Err(Box::new(other)),
        }
    }

    /// As a job again, to be done under another turn.
    fn into_job(self) -> Job {
        let work = Work::Append {
            file: self.file,
            data: self.data,
            held: self.held,
            piece: self.piece,
            place: self.place,
            reply: self.reply,
        };
        Job::new(work, self.waiter)
    }

    /// Answers the program.
    fn answer(self, result: io::Result<()>) {
        if result.is_err() {
            self.file.take_back(self.held);
        }
        (self.reply)(result.map(|()| self.piece.1));
    }

    /// Whether a program has closed the file, or asked for it to be on disk, in the middle of a
    /// record.
    fn leaves_a_tail(&self, terminator: &[u8]) -> bool {
        !self.data.ends_with(terminator)
    }
}

/// How an append of a batch came out.
enum Outcome {
    /// It was not sent: the turn had become slow.
    NotSent,
    /// It was written before, under a turn that was lost, and is in the file.
    WasIn,
    /// It was sent to this place.
    Sent(Place, io::Result<()>),
    /// It failed before it was sent.
    Failed(io::Error),
}

/// A batch that is written, but not answered yet.
pub(super) struct Written(Vec<(Append, Outcome)>);

impl Written {
    /// Answers the programs, the turn having been ours all the while. Gives what is left to be
    /// done under another turn.
    pub(super) fn answer(self) -> Vec<Job> {
        let mut left = Vec::new();
        for (append, outcome) in self.0 {
            match outcome {
                Outcome::NotSent => left.push(append.into_job()),
                Outcome::WasIn => append.answer(Ok(())),
                Outcome::Sent(_, result) => append.answer(result),
                Outcome::Failed(error) => append.answer(Err(error)),
            }
        }
        left
    }

    /// The turn was lost before the answers. What was sent may be in the file or not; whoever has
    /// the next turn can tell, so it is left for that.
    pub(super) fn lose(self) -> Vec<Job> {
        let mut left = Vec::new();
        for (mut append, outcome) in self.0 {
            match outcome {
                Outcome::NotSent => left.push(append.into_job()),
                Outcome::WasIn => append.answer(Ok(())),
                Outcome::Sent(place, _) => {
                    append.place = Some(place);
                    left.push(append.into_job());
                }
                Outcome::Failed(error) => append.answer(Err(error)),
            }
        }
        left
    }

    /// It cannot be left for another turn: pieces of the same call were acknowledged before.
    pub(super) fn fail(self) {
        for (append, _) in self.0 {
            append.answer(Err(io::Error::from_raw_os_error(libc::EIO)));
        }
    }

    /// Whether something failed in such a way that it may be done all the same, later.
    pub(super) fn may_come_late(&self) -> bool {
        self.0.iter().any(|(_, outcome)| match outcome {
            Outcome::Sent(_, Err(error)) => may_come_late(error),
            _ => false,
        })
    }
}

impl Guard {
    /// Writes a batch, as `permit` allows. `more` says that the last append will be followed by
    /// another piece of the same call.
    pub(super) fn write_batch(
        &self,
        batch: Vec<Append>,
        more: bool,
        permit: &dyn Permit,
    ) -> Written {
        let mut written = Vec::with_capacity(batch.len());
        let mut rest = self.settle_fates(batch, permit, &mut written);
        if rest.is_empty() {
            return Written(written);
        }
        // Another name of the same file has a lock of its own; at least this host's writers of
        // one file go one after another, whatever they call it.
        let expected = rest[0].file.target().id;
        let writing = self.shared.writing(expected).lock();
        let opener = rest[0].file.file.opener.clone();
        let look = || {
            let _assumed = self.shared.credentials.assume(&opener)?;
            self.dir.look(&self.name)
        };
        let named = match look() {
            Ok(named) => named,
            Err(error) if error.raw_os_error() == Some(libc::ESTALE) => None,
            Err(error) => {
                fail_all(rest, &error, &mut written);
                return Written(written);
            }
        };
        let mut writing = Some(writing);
        let mut first = true;
        while !rest.is_empty() {
            let target = match rest[0].file.follow(named.as_ref()) {
                Ok(target) => target,
                Err(error) => {
                    written.push((rest.remove(0), Outcome::Failed(error)));
                    continue;
                }
            };
            // What goes to the same file through descriptors of the same user is one write.
            let same = rest
                .iter()
                .take_while(|append| {
                    append.file.file.opener.uid == rest[0].file.file.opener.uid
                        && append
                            .file
                            .follow(named.as_ref())
                            .is_ok_and(|t| t.id == target.id)
                })
                .count()
                .max(1);
            if target.id != expected {
                // A size that was looked up before would not be the last word on this one.
                writing = None;
            }
            let later = rest.split_off(same);
            let more = more && later.is_empty();
            let _writing = match writing {
                Some(_) => None,
                None => Some(self.shared.writing(target.id).lock()),
            };
            let known = named.as_ref().filter(|_| writing.is_some() && first);
            first = false;
            self.write_to(
                &target,
                rest,
                (named.as_ref(), known),
                more,
                permit,
                &mut written,
            );
            rest = later;
        }
        Written(written)
    }

    /// Takes those out of a batch that are in the file already: they were written under a turn that
    /// was lost, but had come in time.
    fn settle_fates(
        &self,
        batch: Vec<Append>,
        permit: &dyn Permit,
        written: &mut Vec<(Append, Outcome)>,
    ) -> Vec<Append> {
        let mut rest = Vec::with_capacity(batch.len());
        for mut append in batch {
            let Some(place) = append.place else {
                rest.push(append);
                continue;
            };
            match permit.fate(place) {
                Ok(Fate::Cut(size)) if place.end <= size => {
                    log::info!(
                        "{}: an append under lost turn {} is in the file",
                        self.label,
                        place.turn
                    );
                    written.push((append, Outcome::WasIn));
                }
                Ok(Fate::Cut(_)) => {
                    log::info!(
                        "{}: an append under lost turn {} is not in the file, and is made again",
                        self.label,
                        place.turn
                    );
                    append.place = None;
                    rest.push(append);
                }
                Ok(Fate::Unknown) => {
                    log::error!(
                        "{}: what became of an append under lost turn {} cannot be told; it fails \
                         with EIO",
                        self.label,
                        place.turn
                    );
                    let unknown = io::Error::from_raw_os_error(libc::EIO);
                    written.push((append, Outcome::Failed(unknown)));
                }
                Err(error) => {
                    log::error!("{}: cannot read its fences: {error}", self.label);
                    let unknown = io::Error::from_raw_os_error(libc::EIO);
                    written.push((append, Outcome::Failed(unknown)));
                }
            }
        }
        rest
    }

    fn write_to(
        &self,
        target: &Target,
        batch: Vec<Append>,
        (named, known): (Option<&Stat>, Option<&Stat>),
        more: bool,
        permit: &dyn Permit,
        written: &mut Vec<(Append, Outcome)>,
    ) {
        let size = match known {
            Some(named) if Identity::from(*named) == target.id => Ok(named.size),
            _ => sys::fs::statx(&*target.fd, c"", libc::AT_STATX_FORCE_SYNC).map(|stat| stat.size),
        };
        let size = match size {
            Ok(size) => size,
            Err(error) => return fail_all(batch, &error, written),
        };
        let opener = batch[0].file.file.opener.clone();
        let set_id = named.is_none_or(|named| named.mode & (libc::S_ISUID | libc::S_ISGID) != 0);
        let bytes: usize = batch.iter().map(|append| append.data.len()).sum();
        let kind = batch[0].file.file.kind;
        let takes_several_calls = match kind {
            // NFS shows its `wsize` as the block size of a file.
            Kind::Nfs => more || bytes > named.map_or(0, |named| named.blksize as usize),
            // A kill can come between any two pages.
            Kind::Other => more || size % PAGE + bytes as u64 > PAGE,
        };
        if takes_several_calls
            && let Err(error) = permit.begins(target.id.ino, size, kind)
            && permit.may_begin().is_ok()
        {
            return fail_all(batch, &error, written);
        }
        // The last look before the write is sent: the file that it goes to is one that a breaker
        // fences, if it is broken from here on.
        if permit.may_begin().is_err() {
            written.extend(batch.into_iter().map(|append| (append, Outcome::NotSent)));
            return;
        }
        self.visible.begin(target.id, size);
        // The file system clears these bits when somebody writes who may not set them: the
        // program, then, not us.
        let assumed = set_id.then(|| self.shared.credentials.assume(&opener));
        let (mut whole, mut error) = write_at(target, &batch, size, kind);
        let (mut ino, mut start) = (target.id.ino, size);
        if whole == 0
            && error.as_ref().and_then(io::Error::raw_os_error) == Some(libc::ESTALE)
            && named.is_some()
            && let Ok(another) = batch[0].file.file.reopen(self)
            && let Ok(stat) = sys::fs::statx(&*another.fd, c"", libc::AT_STATX_FORCE_SYNC)
            && permit.may_begin().is_ok()
        {
            // The file was removed, and another has got its inode number.
            (ino, start) = (another.id.ino, stat.size);
            (whole, error) = write_at(&another, &batch, start, kind);
        }
        drop(assumed);
        if let Some(terminator) = &self.rule.record
            && error.is_none()
            && batch
                .last()
                .is_some_and(|last| last.leaves_a_tail(terminator))
        {
            permit.leaves_a_tail(start + bytes as u64);
        }
        let mut changed = self.changed.lock();
        let mut end = start;
        for (i, append) in batch.into_iter().enumerate() {
            if !changed
                .iter()
                .any(|(file, _)| Arc::ptr_eq(file, &append.file))
            {
                changed.push((Arc::clone(&append.file), size));
            }
            end += append.data.len() as u64;
            let place = Place {
                turn: permit.turn(),
                ino,
                end,
            };
            let result = match &error {
                Some(error) if i >= whole => Err(copy_of(error)),
                _ => Ok(()),
            };
            written.push((append, Outcome::Sent(place, result)));
        }
    }

    /// What was written is whole: readers on this mount may see it.
    pub(super) fn show(&self) {
        self.visible.end();
        // Only now, and before the answers: a page that was cached while less was shown must not
        // outlive it. The kernel itself does not notice where the size it computed for an append
        // and the time of the file happen to be right.
        let changed = std::mem::take(&mut *self.changed.lock());
        for (file, from) in changed {
            (file.changed)(from);
        }
    }
}

/// Writes the batch at `offset`. Gives how many appends are whole in the file, and the error that
/// kept the others out; of those nothing is left there.
fn write_at(
    target: &Target,
    batch: &[Append],
    offset: u64,
    kind: Kind,
) -> (usize, Option<io::Error>) {
    // One piece of memory, since the NFS client makes a WRITE of its own of each piece that does
    // not end at a page's end.
    let joined;
    let data = match batch {
        [append] => &append.data,
        _ => {
            joined = batch
                .iter()
                .flat_map(|append| &append.data)
                .copied()
                .collect::<Vec<u8>>();
            &joined
        }
    };
    let mut done = 0;
    let mut refused = None;
    while done < data.len() {
        match sys::fs::pwrite(&*target.fd, &data[done..], offset + done as u64) {
            Ok(0) => refused = Some(io::Error::from_raw_os_error(libc::ENOSPC)),
            Ok(len) => done += len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => refused = Some(error),
        }
        if refused.is_some() {
            break;
        }
    }
    // What is whole stays.
    let (mut whole, mut keep) = (0, 0);
    for append in batch {
        if keep + append.data.len() > done {
            break;
        }
        keep += append.data.len();
        whole += 1;
    }
    if refused.as_ref().is_some_and(may_come_late) {
        // What is there of it cannot be told; and whoever mends the file leaves all of it out.
        (whole, keep) = (0, 0);
    }
    if let Err(error) = sync(target, kind) {
        // Nothing of the batch is known to be on disk. Asking again would say that all is well:
        // Linux tells an error of writing back once.
        (whole, keep, refused) = (0, 0, Some(error));
    }
    if refused.is_some() {
        cut_off(target, offset + keep as u64);
    }
    (whole, refused)
}

/// After an error: half a record must not stay, since the next append would follow it. Of a write
/// in several calls a later one may have succeeded where an earlier one failed, so the size says
/// what is there, not the count that was answered.
fn cut_off(target: &Target, end: u64) {
    let size = sys::fs::statx(&*target.fd, c"", libc::AT_STATX_FORCE_SYNC).map(|stat| stat.size);
    let cut = match size {
        Ok(size) if size <= end => Ok(()),
        _ => sys::fs::ftruncate(&*target.fd, end),
    };
    if let Err(error) = cut {
        log::error!("could not take back half a record behind offset {end}: {error}");
    }
}

/// Makes what was written durable, where the write itself did not.
fn sync(target: &Target, kind: Kind) -> io::Result<()> {
    match kind {
        Kind::Nfs => Ok(()),
        Kind::Other => sys::fs::fsync(target.fd.as_fd(), true),
    }
}

fn fail_all(batch: Vec<Append>, error: &io::Error, written: &mut Vec<(Append, Outcome)>) {
    let failed = |append| (append, Outcome::Failed(copy_of(error)));
    written.extend(batch.into_iter().map(failed));
}

fn copy_of(error: &io::Error) -> io::Error {
    io::Error::from_raw_os_error(error.raw_os_error().unwrap_or(libc::EIO))
}
