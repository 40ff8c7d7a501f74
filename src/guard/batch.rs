//! How a batch of appends is written under a turn, and what becomes of it if the turn is lost.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::append::PIECES_KEPT;
use super::counts::Count;
use super::file::{GuardedFile, Target};
use super::permit::Permit;
use super::queue::{Append, Guard, Job, Place, Waiter, Work, may_come_late};
use crate::backing::Kind;
use crate::lock::Identity;
use crate::lock::fence::Fate;
use crate::sys;
use crate::sys::fs::Stat;
use crate::sys::process::boottime;

/// What is written within a page of a file is written whole or not at all: by a kernel that is killed,
/// and by a server whose disk is full. In bytes, or less than that.
const PAGE: u64 = 4096;
/// The pause before half a record is to be taken back once more.
const AGAIN: Duration = Duration::from_millis(100);
/// How long a server that is being restarted may not know a file.
const RESTART: Duration = Duration::from_secs(2);

/// One append of a batch.
pub(super) struct Queued {
    of: Append,
    waiter: Waiter,
}

impl Queued {
    /// An append that is not in a queue.
    pub(super) fn new(of: Append, waiter: Waiter) -> Queued {
        Queued { of, waiter }
    }

    /// The append in a job; gives the work back if it is of another kind.
    pub(super) fn from_job(job: Job) -> Result<Queued, Box<Work>> {
        match job.work {
            Work::Append(of) => Ok(Queued {
                of,
                waiter: job.waiter,
            }),
            other => Err(Box::new(other)),
        }
    }

    /// As a job again, to be done under another turn.
    fn into_job(self) -> Job {
        Job::new(Work::Append(self.of), self.waiter)
    }

    /// It is a piece of a call that goes on, and about to be answered: keeps what it has written, in
    /// case the turn is lost before the end of the call.
    fn remember(&mut self) {
        let mut pieces = self.of.file.pieces.lock();
        pieces.bytes += self.of.data.len();
        if pieces.bytes > PIECES_KEPT {
            pieces.data = Vec::new();
        } else {
            pieces.data.push(std::mem::take(&mut self.of.data));
        }
    }

    /// Puts the pieces of the call that were answered before this one. Gives whether they were
    /// kept.
    fn join_pieces(&mut self) -> bool {
        let pieces = std::mem::take(&mut *self.of.file.pieces.lock());
        if pieces.bytes > PIECES_KEPT {
            return false;
        }
        let data = std::mem::take(&mut self.of.data);
        self.of.data = pieces.data.into_iter().flatten().chain(data).collect();
        self.of.earlier += pieces.bytes;
        true
    }

    /// Answers the program.
    pub(super) fn answer(self, result: io::Result<()>) {
        if let Err(error) = &result {
            self.of.file.guard().count(Count::Errors, 1);
            self.of.file.tell_of_loss(self.of.earlier, error);
        }
        if result.is_err() {
            self.of.file.take_back(self.of.held);
        }
        (self.of.reply)(result.map(|()| self.of.piece.1));
    }

    /// Whether a program has closed the file, or asked for it to be on disk, in the middle of a
    /// record.
    fn leaves_a_tail(&self, terminator: &[u8]) -> bool {
        !self.of.data.ends_with(terminator)
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
#[derive(Default)]
pub(super) struct Written {
    outcomes: Vec<(Queued, Outcome)>,
    /// Half of it could not be taken back again, or that may be done late.
    half_left: bool,
}

impl Written {
    /// A piece of a call that cannot be sent.
    pub(super) fn not_sent(piece: Queued) -> Written {
        Written {
            outcomes: vec![(piece, Outcome::NotSent)],
            half_left: false,
        }
    }

    /// Answers the programs, the turn having been ours all the while. Gives what is left to be
    /// done under another turn.
    ///
    /// With `more`, the last is a piece of a call that goes on.
    pub(super) fn answer(self, more: bool) -> Vec<Job> {
        let mut left = Vec::new();
        let last = self.outcomes.len().saturating_sub(1);
        for (i, (mut append, outcome)) in self.outcomes.into_iter().enumerate() {
            let done = match outcome {
                Outcome::NotSent => {
                    left.push(append.into_job());
                    continue;
                }
                Outcome::WasIn => Ok(()),
                Outcome::Sent(_, result) => result,
                Outcome::Failed(error) => Err(error),
            };
            match more && i == last && done.is_ok() {
                true => append.remember(),
                false => append.of.file.forget_pieces(),
            }
            append.answer(done);
        }
        left
    }

    /// Whether all of it is in the file, as far as the answers to the calls say.
    pub(super) fn is_done(&self) -> bool {
        let is_sent =
            |(_, outcome): &(Queued, Outcome)| matches!(outcome, Outcome::Sent(_, Ok(())));
        !self.half_left && self.outcomes.iter().all(is_sent)
    }

    /// What is to be answered, all of it being [done](Self::is_done), and none a piece of a call that
    /// goes on.
    pub(super) fn into_done(self) -> Vec<Queued> {
        let done = self.outcomes.into_iter().map(|(append, _)| {
            append.of.file.forget_pieces();
            append
        });
        done.collect()
    }

    /// Whether the last of it was not sent, the turn having become slow.
    pub(super) fn is_not_sent(&self) -> bool {
        matches!(self.outcomes.last(), Some((_, Outcome::NotSent)))
    }

    /// Turn `turn` was lost before the answers. What was sent may be in the file or not; whoever has
    /// the next turn can tell, so it is left for that.
    ///
    /// With `goes_on` it is a piece of a call, and others of it were answered before. They are in
    /// the file if it is, and not if it is not, for the claim says where the call began; so they are
    /// made again with it.
    pub(super) fn lose(self, turn: u64, goes_on: bool) -> Vec<Job> {
        let mut left = Vec::new();
        for (mut append, outcome) in self.outcomes {
            let place = match outcome {
                Outcome::NotSent if goes_on => Some(Place {
                    turn,
                    ino: append.of.file.target().id.ino,
                    // It is in no file.
                    end: u64::MAX,
                }),
                Outcome::NotSent => append.of.place,
                Outcome::WasIn => {
                    append.answer(Ok(()));
                    continue;
                }
                Outcome::Sent(place, _) => Some(place),
                Outcome::Failed(error) => {
                    append.answer(Err(error));
                    continue;
                }
            };
            append.of.place = place;
            if goes_on && !append.join_pieces() {
                log::error!(
                    "{}: the lock was lost in the middle of a write of more than {} bytes, which \
                     comes back short; what of it is in the file cannot be told",
                    append.of.file.guard.label,
                    PIECES_KEPT
                );
                append.answer(Err(io::Error::from_raw_os_error(libc::EIO)));
                continue;
            }
            left.push(append.into_job());
        }
        left
    }

    /// Whether what was done must be kept from the file as if the turn had been broken: something
    /// failed in such a way that it may be done all the same, later, or half of it is left.
    pub(super) fn must_be_fenced(&self) -> bool {
        let is_late = |(_, outcome): &(Queued, Outcome)| match outcome {
            Outcome::Sent(_, Err(error)) => may_come_late(error),
            _ => false,
        };
        self.half_left || self.outcomes.iter().any(is_late)
    }

    /// Whether all of what was sent is in the file, or nothing.
    pub(super) fn is_all_or_nothing(&self) -> bool {
        let sent = |which: fn(&io::Result<()>) -> bool| {
            let is_such = move |(_, outcome): &(Queued, Outcome)| match outcome {
                Outcome::Sent(_, result) => which(result),
                _ => false,
            };
            self.outcomes.iter().any(is_such)
        };
        !(sent(io::Result::is_ok) && sent(io::Result::is_err))
    }
}

impl Guard {
    /// Writes a batch, as `permit` allows. `more` says that the last append will be followed by
    /// another piece of the same call.
    pub(super) fn write_batch(
        &self,
        batch: Vec<Queued>,
        more: bool,
        permit: &dyn Permit,
    ) -> Written {
        let mut written = Written::default();
        let mut rest = self.settle_fates(batch, permit, &mut written.outcomes);
        if rest.is_empty() {
            return written;
        }
        // Another name of the same file has a lock of its own; at least this host's writers of
        // one file go one after another, whatever they call it.
        let expected = rest[0].of.file.target().id;
        let writing = self.shared.writing(expected).lock();
        let named = match self.look_for(&rest[0].of.file.file, permit.turn()) {
            Ok(named) => named,
            Err(error) if error.raw_os_error() == Some(libc::ESTALE) => None,
            Err(error) => {
                fail_all(rest, &error, &mut written.outcomes);
                return written;
            }
        };
        let mut writing = Some(writing);
        let mut first = true;
        while !rest.is_empty() {
            let target = match rest[0].of.file.follow(named.as_ref()) {
                Ok(target) => target,
                Err(error) => {
                    written
                        .outcomes
                        .push((rest.remove(0), Outcome::Failed(error)));
                    continue;
                }
            };
            // What goes to the same file through descriptors of the same user is one write.
            let same = rest
                .iter()
                .take_while(|append| {
                    append.of.file.file.opener.uid == rest[0].of.file.file.opener.uid
                        && append
                            .of
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
        written
    }

    /// What the name refers to, for an append by way of `file`, with its length as the server has it
    /// now.
    fn look_for(&self, file: &GuardedFile, turn: u64) -> io::Result<Option<Stat>> {
        if !file.is_replaced()
            && let Some(stat) = self.look_by(&file.target(), turn)
        {
            return Ok(Some(stat));
        }
        let before = self.before_look();
        let named = {
            let _assumed = self.shared.credentials.assume(&file.opener)?;
            self.dir.look(&self.name)
        };
        match &named {
            Ok(Some(stat)) => self.note_look(before, turn, stat, file.kind),
            _ => self.forget_look(),
        }
        named
    }

    /// Takes those out of a batch that are in the file already: they were written under a turn that
    /// was lost, but had come in time.
    fn settle_fates(
        &self,
        batch: Vec<Queued>,
        permit: &dyn Permit,
        written: &mut Vec<(Queued, Outcome)>,
    ) -> Vec<Queued> {
        let mut rest = Vec::with_capacity(batch.len());
        for mut append in batch {
            let Some(place) = append.of.place else {
                // What was answered comes in order, or not at all.
                let before = append.of.file.error.lock().filter(|_| append.of.answered);
                match before.map(io::Error::from_raw_os_error) {
                    Some(error) => written.push((append, Outcome::Failed(error))),
                    None => rest.push(append),
                }
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
                    append.of.place = None;
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
        batch: Vec<Queued>,
        (named, known): (Option<&Stat>, Option<&Stat>),
        more: bool,
        permit: &dyn Permit,
        written: &mut Written,
    ) {
        let size = match known {
            Some(named) if Identity::from(*named) == target.id => Ok(named.size),
            _ => sys::fs::statx(&*target.fd, c"", libc::AT_STATX_FORCE_SYNC).map(|stat| stat.size),
        };
        let size = match size {
            Ok(size) => size,
            Err(error) => return fail_all(batch, &error, &mut written.outcomes),
        };
        let opener = batch[0].of.file.file.opener.clone();
        let set_id = named.is_none_or(|named| named.mode & (libc::S_ISUID | libc::S_ISGID) != 0);
        let bytes: usize = batch.iter().map(|append| append.of.data.len()).sum();
        let kind = batch[0].of.file.file.kind;
        let takes_several_calls = match kind {
            // NFS shows its `wsize` as the block size of a file.
            Kind::Nfs => more || bytes > named.map_or(0, |named| named.blksize as usize),
            Kind::Other => more,
        };
        let (ino, end) = (target.id.ino, size + bytes as u64);
        let begins = match takes_several_calls {
            true => permit.begins(ino, size, None, kind),
            // Some of its pages may be written, and others not.
            false if size % PAGE + bytes as u64 > PAGE => permit.begins(ino, size, Some(end), kind),
            false => permit.begins_whole(ino, size),
        };
        if let Err(error) = begins
            && permit.may_begin().is_ok()
        {
            return fail_all(batch, &error, &mut written.outcomes);
        }
        if self.unknown_tail.load(Ordering::Acquire) {
            // What is there now counts as whole, however it ends.
            if self.rule().record.is_none() || permit.leaves_a_tail(size) {
                self.unknown_tail.store(false, Ordering::Release);
                self.shared.note_tail(self.key());
            }
        }
        // The last look before the write is sent: the file that it goes to is one that a breaker
        // fences, if it is broken from here on.
        if permit.may_begin().is_err() {
            let not_sent = batch.into_iter().map(|append| (append, Outcome::NotSent));
            return written.outcomes.extend(not_sent);
        }
        self.set_writer(target.id);
        self.visible.begin(target.id, size);
        // The file system clears these bits when somebody writes who may not set them: the
        // program, then, not us.
        let assumed = set_id.then(|| self.shared.credentials.assume(&opener));
        let mut target = target.clone();
        let mut start = size;
        let write = |target: &Target, start| {
            let came = write_at(target, &batch, start, kind);
            let is_clean =
                came.error.is_none() || self.take_back(target, (start, came.keep), kind, permit);
            (came, is_clean)
        };
        let (mut came, mut is_clean) = write(&target, start);
        if (came.whole, is_clean) == (0, true) && came.error.as_ref().is_some_and(is_stale) {
            if !is_gone(&target) {
                // A server that is just being restarted says so of all files, and may have done the
                // write before.
                if cut_off(&target, start).is_ok() && permit.may_begin().is_ok() {
                    (came, is_clean) = write(&target, start);
                }
            } else if named.is_some()
                && let Ok(another) = batch[0].of.file.file.reopen(self)
                && let Ok(stat) = sys::fs::statx(&*another.fd, c"", libc::AT_STATX_FORCE_SYNC)
                && permit.may_begin().is_ok()
            {
                // The file was removed, and another has got its inode number.
                self.set_writer(another.id);
                (target, start) = (another, stat.size);
                (came, is_clean) = write(&target, start);
            }
        }
        if !is_clean {
            // What is whole goes with the rest.
            came.whole = 0;
            written.half_left = true;
        }
        drop(assumed);
        let Came { whole, error, .. } = came;
        if error.is_none() {
            self.shared.events.counts.batch(batch.len(), bytes);
        }
        if error.is_none() && is_clean && start == size {
            let file = &batch[0].of.file.file;
            self.note_end(&target, (&opener, file.flags), size + bytes as u64);
        } else {
            self.forget_look();
        }
        if let Some(terminator) = &self.rule().record
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
                .any(|(file, _)| Arc::ptr_eq(file, &append.of.file))
            {
                changed.push((Arc::clone(&append.of.file), size));
            }
            end += append.of.data.len() as u64;
            let place = Place {
                turn: permit.turn(),
                ino: target.id.ino,
                end,
            };
            let result = match &error {
                Some(error) if i >= whole => Err(copy_of(error)),
                _ => Ok(()),
            };
            written
                .outcomes
                .push((append, Outcome::Sent(place, result)));
        }
    }

    /// Takes back what is left of a batch behind the `keep` bytes of it that are whole. Gives whether
    /// that is done, and done for good. Else all of the batch is given up: it is noted in the claim, so
    /// that whoever mends the file leaves it out, as if we had died over it.
    fn take_back(
        &self,
        target: &Target,
        (start, keep): (u64, usize),
        kind: Kind,
        permit: &dyn Permit,
    ) -> bool {
        let end = start + keep as u64;
        let first = match cut_off(target, end) {
            Ok(()) => return true,
            // The file is gone, with all that is in it; its inode number may be another's by now.
            Err(_) if self.stays_gone(target, permit) => return true,
            Err(error) => match cut_off(target, end) {
                Ok(()) => return true,
                Err(_) => error,
            },
        };
        log::error!(
            "{}: could not take back half a record behind offset {end}: {first}",
            self.label
        );
        // Nobody else gets the turn before one of the two has come about, or it has become slow.
        while let Err(error) = permit.begins(target.id.ino, start, None, kind) {
            if permit.may_begin().is_err() {
                log::error!(
                    "{}: half a record stays behind {start}: {error}",
                    self.label
                );
                break;
            }
            std::thread::sleep(AGAIN);
            if cut_off(target, start).is_ok() {
                break;
            }
        }
        false
    }

    /// Whether the server does not know the file, and that not only because it is being restarted:
    /// then it does not know the directory either, for a moment.
    fn stays_gone(&self, target: &Target, permit: &dyn Permit) -> bool {
        let until = boottime() + RESTART;
        loop {
            if !is_gone(target) {
                return false;
            }
            let may_wait = permit.turn() != 0 && permit.may_begin().is_ok();
            if !self.dir.is_stale() || !may_wait || boottime() >= until {
                return true;
            }
            std::thread::sleep(AGAIN);
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
            file.pages.drop_from(from);
        }
    }

    /// The same where the kernel has no page that would have to be dropped. Gives whether that is so.
    pub(super) fn show_here(&self) -> bool {
        self.visible.end();
        let mut changed = self.changed.lock();
        let are_kept = changed.iter().any(|(file, _)| file.pages.are_kept());
        if !are_kept {
            changed.clear();
        }
        !are_kept
    }
}

/// What came of the writing of a batch.
struct Came {
    /// How many appends are whole in the file, and how many bytes that is.
    whole: usize,
    keep: usize,
    /// What kept the others out. Something of them may be left there.
    error: Option<io::Error>,
}

/// Writes the batch at `offset`.
fn write_at(target: &Target, batch: &[Queued], offset: u64, kind: Kind) -> Came {
    // One piece of memory, since the NFS client makes a WRITE of its own of each piece that does
    // not end at a page's end.
    let joined;
    let data = match batch {
        [append] => &append.of.data,
        _ => {
            joined = batch
                .iter()
                .flat_map(|append| &append.of.data)
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
        if keep + append.of.data.len() > done {
            break;
        }
        keep += append.of.data.len();
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
    Came {
        whole,
        keep,
        error: refused,
    }
}

/// After an error: half a record must not stay, since the next append would follow it. Of a write
/// in several calls a later one may have succeeded where an earlier one failed, so the size says
/// what is there, not the count that was answered.
fn cut_off(target: &Target, end: u64) -> io::Result<()> {
    match sys::fs::statx(&*target.fd, c"", libc::AT_STATX_FORCE_SYNC) {
        Ok(stat) if stat.size <= end => Ok(()),
        _ => sys::fs::ftruncate(&*target.fd, end),
    }
}

/// Whether the server does not know the file.
fn is_gone(target: &Target) -> bool {
    let stat = sys::fs::statx(&*target.fd, c"", libc::AT_STATX_FORCE_SYNC);
    stat.is_err_and(|error| is_stale(&error))
}

fn is_stale(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ESTALE)
}

/// Makes what was written durable, where the write itself did not.
fn sync(target: &Target, kind: Kind) -> io::Result<()> {
    match kind {
        Kind::Nfs => Ok(()),
        Kind::Other => sys::fs::fsync(target.fd.as_fd(), true),
    }
}

fn fail_all(batch: Vec<Queued>, error: &io::Error, written: &mut Vec<(Queued, Outcome)>) {
    let failed = |append| (append, Outcome::Failed(copy_of(error)));
    written.extend(batch.into_iter().map(failed));
}

fn copy_of(error: &io::Error) -> io::Error {
    io::Error::from_raw_os_error(error.raw_os_error().unwrap_or(libc::EIO))
}
