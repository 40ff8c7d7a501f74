//! Which file a name refers to, for as long as that is known.
//!
//! Before an append the server is asked which file the name refers to, and then how long that is: two
//! or three calls. Under one turn the first answer stays true, since whoever would put another file in
//! the place takes a turn for that. So it is remembered for `LASTS`. The length stays true too, but for
//! what we append, where whoever writes to the file in another way takes a turn for it (the rule's
//! `update` is not `"off"`), and no program holds this one. That is gone by for `LENGTH_LASTS` only;
//! else, before each write, the file itself is asked for. What this host's client knows of the file is
//! looked at in any case, which costs no call: somebody may write to it here and go past us, or by
//! another name. All that is done where it is good for something and safe:
//!
//! - on NFS, where a look costs calls to the server;
//! - where the rule guards renames over the file (`replace` is not `"off"`), and the file has one name:
//!   with another it could outlive being replaced, as what [`Guard::keep`] has kept does. (So its links
//!   tell only of a replacement that goes past us; whatever replaces it on this host ends the memory.)
//!
//! A name may be moved away without a turn. Through this mount that ends the memory; by another host
//! it is noticed `LASTS` late, which is less than any NFS client takes. What is appended meanwhile
//! is in the file that was moved.
//!
//! The memory also answers look-ups of the name by users whose own look-up it has seen succeed, and
//! lends its descriptor to the next program of the same user that opens the file for appending, which
//! saves an OPEN and a CLOSE.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::file::Target;
use super::queue::Guard;
use crate::backing::{Caller, Kind};
use crate::config::{Replace, Update};
use crate::lock::Identity;
use crate::sys;
use crate::sys::fs::Stat;
use crate::sys::process::boottime;

/// How long what a look has shown is gone by, and a right that the server has granted by an OPEN.
const LASTS: Duration = Duration::from_millis(30);
/// How long a length is gone by. A call to the server costs less than a tenth of that, mostly; and who
/// does not take turns is overwritten no longer than this.
const LENGTH_LASTS: Duration = Duration::from_millis(5);
/// So many users' look-ups are remembered.
const MANY: usize = 16;

/// The memory of a guard.
#[derive(Debug, Default)]
pub(super) struct Memory {
    looked: Option<Looked>,
    /// How often it has been forgotten, and when it was last: a look that was sent before says nothing,
    /// and so does a right from before.
    times: u64,
    last: Duration,
}

/// What was seen, under the turn that is held.
#[derive(Debug)]
struct Looked {
    turn: u64,
    /// When the look was sent.
    at: Duration,
    /// What it has shown, with what we have appended since.
    stat: Stat,
    /// When the server was asked for the length, if nothing but our appends can have changed that since.
    asked: Option<Duration>,
    /// Who has found the name by an own look-up since then.
    found_by: Vec<Caller>,
    spare: Option<Spare>,
}

/// A descriptor by which the file was appended to.
#[derive(Debug, Clone)]
struct Spare {
    opener: Caller,
    flags: i32,
    target: Target,
}

impl Memory {
    /// What was seen under turn `turn`, if that may still be gone by.
    fn under(&self, turn: u64, now: Duration) -> Option<&Looked> {
        let is_young = |looked: &&Looked| now.saturating_sub(looked.at) < LASTS;
        let looked = self.looked.as_ref().filter(|looked| looked.turn == turn);
        looked.filter(is_young)
    }
}

/// What the memory was when a look was sent.
#[derive(Debug, Clone, Copy)]
pub struct Before {
    times: u64,
    at: Duration,
    /// Programs could write to the file under this turn.
    is_held: bool,
}

impl Guard {
    /// A look is about to be sent.
    pub fn before_look(&self) -> Before {
        let is_held = self.is_held();
        Before {
            times: self.memory.lock().times,
            at: boottime(),
            is_held,
        }
    }

    /// That look has shown, under turn `turn`, this.
    pub(super) fn note_look(&self, before: Before, turn: u64, stat: &Stat, kind: Kind) {
        let is_good = turn != 0
            && kind == Kind::Nfs
            && stat.is_file()
            && stat.nlink == 1
            && self.rule().replace != Replace::Off;
        let looked = is_good.then(|| Looked {
            turn,
            at: before.at,
            stat: *stat,
            asked: self.asked(before),
            found_by: Vec::new(),
            spare: None,
        });
        let mut memory = self.memory.lock();
        let looked = looked.filter(|_| memory.times == before.times);
        let old = std::mem::replace(&mut memory.looked, looked);
        // A descriptor is not closed while others wait for the memory.
        drop(memory);
        drop(old);
    }

    /// When a look was sent, if none but us can change the length while the turn lasts. (Whoever begins
    /// to hold the turn ends the memory.)
    fn asked(&self, before: Before) -> Option<Duration> {
        (self.rule().update != Update::Off && !before.is_held).then_some(before.at)
    }

    /// From now on the file was written to by us last.
    pub(super) fn set_writer(&self, file: Identity) {
        let us = std::ptr::from_ref(self).addr();
        self.shared.writer(file).store(us, Ordering::Release);
    }

    fn is_writer(&self, file: Identity) -> bool {
        let us = std::ptr::from_ref(self).addr();
        self.shared.writer(file).load(Ordering::Acquire) == us
    }

    /// The file that the name refers to, with its length as the server has it now, if it is the one
    /// that is remembered and that `target` is open on.
    pub(super) fn look_by(&self, target: &Target, turn: u64) -> Option<Stat> {
        let now = boottime();
        let (known, asked) = {
            let memory = self.memory.lock();
            let looked = memory.under(turn, now)?;
            (looked.stat, looked.asked)
        };
        if Identity::from(known) != target.id {
            return None;
        }
        // Removed, or replaced, or on the way to that by a second name.
        let is_it = |now: &Stat| Identity::from(*now) == target.id && now.nlink == 1;
        let is_young = |asked| now.saturating_sub(asked) < LENGTH_LASTS;
        if asked.is_some_and(is_young) && self.is_writer(target.id) {
            let here = sys::fs::statx(&*target.fd, c"", libc::AT_STATX_DONT_SYNC).ok()?;
            if is_it(&here) && here.size == known.size {
                return Some(known);
            }
        }
        let before = self.before_look();
        self.set_writer(target.id);
        let now = sys::fs::statx(&*target.fd, c"", libc::AT_STATX_FORCE_SYNC).ok();
        let now = now.filter(is_it)?;
        let asked = self.asked(before);
        let mut memory = self.memory.lock();
        if memory.times == before.times
            && let Some(looked) = &mut memory.looked
        {
            (looked.stat, looked.asked) = (now, asked);
        }
        Some(now)
    }

    /// The file was appended to by `target`, which is open for `opener` with `flags`, and ends at
    /// `end` now.
    pub(super) fn note_end(&self, target: &Target, (opener, flags): (&Caller, i32), end: u64) {
        let mut memory = self.memory.lock();
        let Some(looked) = &mut memory.looked else {
            return;
        };
        if Identity::from(looked.stat) != target.id {
            return;
        }
        looked.stat.size = end;
        let is_same = |spare: &Spare| Arc::ptr_eq(&spare.target.fd, &target.fd);
        if looked.spare.as_ref().is_some_and(is_same) {
            return;
        }
        let old = looked.spare.replace(Spare {
            opener: opener.clone(),
            flags,
            target: target.clone(),
        });
        drop(memory);
        drop(old);
    }

    /// What is remembered may not be true any more, nor what is about to be learnt. The descriptor that
    /// was kept is closed: a file is not removed or replaced while it is open.
    pub fn forget_look(&self) {
        let mut memory = self.memory.lock();
        memory.times += 1;
        memory.last = boottime();
        let old = memory.looked.take();
        drop(memory);
        drop(old);
    }

    /// The turn is over, and with it what was remembered.
    pub(super) fn end_memory(&self) {
        let old = self.memory.lock().looked.take();
        drop(old);
    }

    /// A program of `caller` has looked the name up, and found it.
    pub fn note_found(&self, before: Before, caller: &Caller, id: Identity) {
        let mut memory = self.memory.lock();
        let is_true = memory.times == before.times;
        if let Some(looked) = memory.looked.as_mut().filter(|_| is_true)
            && Identity::from(looked.stat) == id
            && looked.found_by.len() < MANY
            && !looked.found_by.contains(caller)
        {
            looked.found_by.push(caller.clone());
        }
    }

    /// What a program of `caller` would find if it looked the name up now, where that is known.
    pub fn known_to(&self, caller: &Caller) -> Option<Stat> {
        let turn = self.turn_number();
        let memory = self.memory.lock();
        let looked = memory.under(turn, boottime())?;
        looked.found_by.contains(caller).then_some(looked.stat)
    }

    /// A descriptor of the file `id` for another program of `caller` that opens it for appending, with
    /// these flags below.
    pub fn lend(&self, id: Identity, caller: &Caller, flags: i32) -> Option<Target> {
        let (turn, now) = (self.turn_number(), boottime());
        let mut memory = self.memory.lock();
        let spare = memory.under(turn, now)?.spare.as_ref()?;
        // Whether they may open it the server has said when it was opened.
        let opened = spare.target.opened;
        let may_open = opened > memory.last && now.saturating_sub(opened) < LASTS;
        let is_theirs = spare.opener == *caller && spare.flags == flags;
        let lent = (may_open && is_theirs && spare.target.id == id).then(|| spare.target.clone());
        if lent.is_some()
            && let Some(looked) = &mut memory.looked
        {
            // It may have been removed on another host before this program has opened it.
            looked.asked = None;
        }
        lent
    }
}
