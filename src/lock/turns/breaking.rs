//! Turns whose holders have died, hang, or are cut off the network.
//!
//! Dead is observed, not computed: a waiter breaks a turn only after it has itself seen the same
//! turn, held by the same claim with the same time, for `stale_after` on its own clock. No clocks of
//! different hosts are compared. A holder refreshes its claim four times as often, and one that
//! could not for half of that time does no further update. Of a process of this host it is known
//! whether it lives.
//!
//! A turn is broken by the very link that its holder would end it with. Whether it ended well is
//! told by the inode of that: whose turn follows looks ([`Turns::inspect`]), and sees to what the
//! old holder may still have under way ([`crate::lock::fence`]).

use std::io;
use std::time::Duration;

use super::{Actor, Turns};
use crate::lock::directory::{Directory, Sign, display};
use crate::lock::record::{Life, Owner};

/// How many looks at a turn fall into `stale_after`, at the most. Most turns are over before the
/// second.
const LOOKS: u32 = 16;

/// What has been seen of a turn that somebody else holds.
#[derive(Debug)]
pub(super) struct Watched {
    n: u64,
    sign: Sign,
    /// Since when it has been seen like this: after the answer to the first look.
    since: Duration,
    /// When it was last looked at.
    looked: Duration,
    /// Its holder, if that is a process on this host.
    local: Option<Owner>,
}

/// Why a turn is taken for dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    /// Its holder was a process of this host, and has ended.
    Ended,
    /// It has shown no sign of life for this long.
    Silent(Duration),
}

impl Turns {
    /// Step: whether the holder of turn `n`, which is somebody else's, is dead.
    ///
    /// # Errors
    /// Those of the directory.
    pub fn judge(
        &mut self,
        dir: &impl Directory,
        n: u64,
        now: impl Fn() -> Duration,
    ) -> io::Result<Option<Death>> {
        let time = now();
        let known = self.watched.take().filter(|watched| watched.n == n);
        if let Some(watched) = known {
            let ended = watched
                .local
                .as_ref()
                .is_some_and(|o| o.has_ended(&self.owner));
            let early = time.saturating_sub(watched.looked) < self.stale_after / LOOKS;
            if ended || early {
                self.watched = Some(watched);
                return Ok(ended.then_some(Death::Ended));
            }
            let sign = dir.sign(&self.names.turn(n))?;
            if sign == Some(watched.sign) {
                let silent = time.saturating_sub(watched.since);
                self.watched = Some(Watched {
                    looked: time,
                    ..watched
                });
                return Ok((silent >= self.stale_after).then_some(Death::Silent(silent)));
            }
        }
        let name = self.names.turn(n);
        let Some(sign) = dir.sign(&name)? else {
            // It is over, and cleaned away.
            self.known = None;
            return Ok(None);
        };
        let seen = now();
        let owner = dir.read(&name).ok().and_then(|text| Owner::parse(&text));
        let local = owner.filter(|owner| owner.life(&self.owner) != Life::Unknown);
        let ended = local.as_ref().is_some_and(|o| o.has_ended(&self.owner));
        self.watched = Some(Watched {
            n,
            sign,
            since: seen,
            looked: seen,
            local,
        });
        Ok(ended.then_some(Death::Ended))
    }

    /// Step: ends turn `n` of somebody else. Any number of hosts may do so; it makes no difference
    /// who was first.
    ///
    /// # Errors
    /// Those of the directory; the turn may be over or not.
    pub fn break_turn(&mut self, dir: &impl Directory, actor: Actor, n: u64) -> io::Result<()> {
        let claim = self.claim(actor)?.name.clone();
        let done = self.names.done(n);
        // What follows is found by a listing.
        self.known = None;
        match dir.link(&claim, &done) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => {
                log::debug!("{} was made by a waiter, or its holder", display(&done));
                self.watched = None;
                Ok(())
            }
        }
    }

    /// Step: whether turn `n`, which is over, was ended by anybody but its holder. Then what its
    /// holder has under way may still arrive, and whoever has the next turn must see to that.
    ///
    /// # Errors
    /// Those of the directory.
    pub fn inspect(&mut self, dir: &impl Directory, n: u64) -> io::Result<bool> {
        if n == 0 || self.ended_well == Some(n) {
            return Ok(false);
        }
        let known = |known: Option<(u64, _)>| known.filter(|(of, _)| *of == n).map(|(_, id)| id);
        let ender = match known(self.ender) {
            Some(id) => Some(id),
            None => dir.identity(&self.names.done(n))?,
        };
        let holder = match known(self.holder) {
            Some(id) => Some(id),
            None => dir.identity(&self.names.turn(n))?,
        };
        Ok(match (ender, holder) {
            (Some(ender), Some(holder)) => ender != holder,
            // While an end is the newest only the holder itself removes the name of its turn, and
            // only if it ended well.
            (Some(_), None) => false,
            // The end of the turn before ours never goes while ours lasts.
            (None, _) => true,
        })
    }
}
