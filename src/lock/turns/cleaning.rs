//! Removing the names of old turns: our own a while after they were of use, those of dead daemons
//! when they have been seen for long enough.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::time::Duration;

use super::{Actor, Newest, Turn, Turns};
use crate::lock::directory::Directory;
use crate::lock::record::Owner;

/// How long the names of a turn stay after its end: longer than `KNOWLEDGE` and `SLOW_LINK`
/// together, with room to spare.
pub const KEEP_OLD: Duration = Duration::from_secs(5);
/// How long the old names of another daemon must have been seen before they are taken for
/// leftovers of a dead one and removed.
pub(super) const LEFTOVER: Duration = Duration::from_secs(60);

/// Names of a turn of ours that is over, to be removed later.
#[derive(Debug)]
pub(super) struct Old {
    n: u64,
    actor: Actor,
    ended: Duration,
    /// The turn's own name is gone.
    turn_removed: bool,
    /// Since when the end of a later turn has been seen. This turn's end stays for as long again:
    /// a listing that is made while one name goes and another comes may show neither.
    superseded: Option<Duration>,
}

impl Old {
    pub(super) fn new(turn: &Turn, ended: Duration) -> Old {
        Old {
            n: turn.n,
            actor: turn.actor,
            ended,
            turn_removed: false,
            superseded: None,
        }
    }
}

impl Turns {
    /// Step: removes the names of our own old turns whose time has come, a turn before its end,
    /// and never the newest end. Gives the time at which there is more to do, if there is.
    pub fn clean(
        &mut self,
        dir: &impl Directory,
        actor: Actor,
        time: Duration,
    ) -> Option<Duration> {
        let over = match self.known.map(|known| known.newest) {
            Some(Newest::Over(n)) => n,
            Some(Newest::Taken(n)) => n.saturating_sub(1),
            None => 0,
        };
        let names = &self.names;
        let mut next: Option<Duration> = None;
        let mut is_due = |since: Duration| {
            let due = since + KEEP_OLD;
            if time < due {
                next = Some(next.map_or(due, |next| next.min(due)));
            }
            time >= due
        };
        self.old.retain_mut(|old| {
            if old.actor != actor {
                return true;
            }
            if old.n < over && old.superseded.is_none() {
                old.superseded = Some(time);
            }
            if !old.turn_removed && is_due(old.ended) {
                old.turn_removed = dir.remove(&names.turn(old.n)).is_ok();
            }
            let gone = old.superseded.is_some_and(&mut is_due)
                && old.turn_removed
                && dir.remove(&names.done(old.n)).is_ok();
            !gone
        });
        next
    }

    /// Removes names of turns long over that nobody else has removed. Such a name is used once,
    /// so removing it twice or late does no harm; the newest `done` always stays, since numbers
    /// must not start again. If `last`, the last turn that is over, was broken, nothing goes:
    /// whoever mends what is broken wants to know what the holders were about.
    pub(super) fn remove_leftovers(
        &mut self,
        dir: &impl Directory,
        last: u64,
        old: impl Iterator<Item = CString>,
        now: Duration,
    ) {
        let mut seen = HashMap::new();
        let mut may_go = None;
        for name in old {
            let since = *self.leftovers.get(&name).unwrap_or(&now);
            let is_old = now.saturating_sub(since) >= LEFTOVER;
            let goes = is_old
                && (!self.names.is_claim(&name) || self.is_of_the_dead(dir, &name))
                && *may_go.get_or_insert_with(|| matches!(self.inspect(dir, last), Ok(false)))
                && dir.remove(&name).is_ok();
            if !goes {
                seen.insert(name, since);
            }
        }
        self.leftovers = seen;
    }

    /// Whether a claim is that of a daemon of this host that has ended. Others' may be at rest.
    fn is_of_the_dead(&self, dir: &impl Directory, claim: &CStr) -> bool {
        let owner = dir.read(claim).ok().and_then(|text| Owner::parse(&text));
        owner.is_some_and(|owner| owner.has_ended(&self.owner))
    }
}
