//! What the writing of a batch needs of the turn under which it is done.

use std::io;

use super::queue::{Guard, Place};
use crate::backing::{Caller, Kind};
use crate::lock::fence::{self, Fate};
use crate::lock::turns::is_gone;
use crate::lock::{Turn, Turns, Unfinished, tail};
use crate::sys::process::boottime;

/// The turn under which a batch is written, as far as that concerns the batch.
pub(super) trait Permit {
    /// The turn's number.
    fn turn(&self) -> u64;

    /// The target is known: may the update begin?
    ///
    /// # Errors
    /// Where the turn is slow, and no program holds it; where it was lost, or that cannot be told.
    fn may_begin(&self) -> io::Result<()>;

    /// A write begins at `start` of the file with inode number `ino`, of which a part might be left:
    /// in one call that ends at `end`, or in several, of which somebody might also see a part.
    ///
    /// # Errors
    /// Where that could not be noted; then it must not begin. If the claim is gone where it is to
    /// be noted, nothing begins under this turn any more.
    fn begins(&self, ino: u64, start: u64, end: Option<u64>, kind: Kind) -> io::Result<()>;

    /// A write begins at `start` of which no part can be left. What is noted of an earlier one must
    /// not be held against it.
    ///
    /// # Errors
    /// Where the note is of a file that was longer once, and cannot be taken back.
    fn begins_whole(&self, ino: u64, start: u64) -> io::Result<()>;

    /// What became of a write under a turn that was lost.
    ///
    /// # Errors
    /// Those of the directory.
    fn fate(&self, place: Place) -> io::Result<Fate>;

    /// The file was left with half a record that ends at `end`, as the program wants it. Gives whether
    /// that is noted.
    fn leaves_a_tail(&self, end: u64) -> bool;
}

/// An append under a turn.
pub(super) struct UnderTurn<'a> {
    pub guard: &'a Guard,
    pub caller: &'a Caller,
    pub turn: &'a Turn,
}

impl Permit for UnderTurn<'_> {
    fn turn(&self) -> u64 {
        self.turn.n
    }

    fn may_begin(&self) -> io::Result<()> {
        // What programs hold they keep as long as nobody has broken it. The target was looked up
        // before that is asked, so it is the file that a breaker would fence.
        match self.guard.is_held() && !self.guard.is_over() {
            true => self.guard.still_ours(),
            false => self.guard.is_prompt(),
        }
    }

    fn begins(&self, ino: u64, start: u64, end: Option<u64>, kind: Kind) -> io::Result<()> {
        let guard = self.guard;
        let mut noted = guard.noted.lock();
        // The pieces of one call have one note, from where the first begins.
        if noted.is_some_and(|write| write.end.is_none()) {
            return Ok(());
        }
        let write = Unfinished {
            turn: self.turn.n,
            ino,
            start,
            end,
        };
        let written = guard.as_actor(self.caller, self.turn.actor, || {
            Turns::note_write(&*guard.dir, &guard.shared.owner, self.turn, Some(write))
        });
        // A call that failed may have written it. That is no note to rely on; but it must be taken back,
        // for no file will be long enough to show that the write is done.
        let doubtful = Unfinished {
            end: Some(u64::MAX),
            ..write
        };
        *noted = Some(if written.is_ok() { write } else { doubtful });
        if written.as_ref().is_err_and(is_gone) {
            guard.set_over();
        }
        written?;
        if end.is_none() && kind == Kind::Nfs {
            guard.announce(self.caller, self.turn, start);
        }
        Ok(())
    }

    fn begins_whole(&self, ino: u64, start: u64) -> io::Result<()> {
        let is_longer =
            |write: Unfinished| write.ino == ino && write.end.is_some_and(|end| end > start);
        if self.guard.noted.lock().is_some_and(is_longer) {
            self.guard.unnote(self.caller, self.turn)?;
        }
        Ok(())
    }

    fn fate(&self, place: Place) -> io::Result<Fate> {
        let (guard, names) = (self.guard, &self.guard.names);
        guard.as_actor(self.caller, self.turn.actor, || {
            fence::fate(
                &*guard.dir,
                names,
                (place.turn, place.ino),
                (&self.turn.claim, boottime()),
            )
        })
    }

    fn leaves_a_tail(&self, end: u64) -> bool {
        let (guard, names) = (self.guard, &self.guard.names);
        let put = guard.as_actor(self.caller, self.turn.actor, || {
            tail::put(&*guard.dir, names, end)
        });
        if let Err(error) = &put {
            log::debug!(
                "{}: an unfinished record is not noted: {error}",
                guard.label
            );
        }
        put.is_ok()
    }
}

/// An append that needs no turn: the directory is gone, or the program has made a lock file.
pub(super) struct WithoutTurn;

impl Permit for WithoutTurn {
    fn turn(&self) -> u64 {
        0
    }

    fn may_begin(&self) -> io::Result<()> {
        Ok(())
    }

    fn begins(&self, _: u64, _: u64, _: Option<u64>, _: Kind) -> io::Result<()> {
        Ok(())
    }

    fn begins_whole(&self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn fate(&self, _place: Place) -> io::Result<Fate> {
        Ok(Fate::Unknown)
    }

    fn leaves_a_tail(&self, _end: u64) -> bool {
        false
    }
}
