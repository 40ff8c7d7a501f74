//! The protocol: claims, and the steps by which a turn is looked for, taken, kept alive and ended.
//!
//! Each step is a function that makes at most one change to the directory, so that a checker can
//! drive them one by one, in any order and interleaving; [`Turns::attempt`] strings them together
//! once, without waiting. Waiting is the caller's: between attempts, for as long as it likes.

mod breaking;
mod cleaning;

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::directory::{Directory, Identity, display};
use super::names::{self, LockNames, Step};
use super::record::{self, Owner, Unfinished};
pub use breaking::Death;
use breaking::Watched;
pub use cleaning::KEEP_OLD;
use cleaning::Old;

/// How long what is known of the newest turn may be acted upon. A name is removed only well
/// after this ([`KEEP_OLD`]), so that a `link` based on such knowledge cannot bring back a number
/// that was used and cleaned away.
const KNOWLEDGE: Duration = Duration::from_secs(1);
/// A `link` that took longer than this is distrusted: the names it was based on may have been
/// cleaned away before it reached the server.
const SLOW_LINK: Duration = Duration::from_secs(1);
/// A listing that took longer than this is not trusted: a name goes [`KEEP_OLD`] after a later one
/// has come, so a quicker listing shows one of the two.
const SLOWEST_LISTING: Duration = Duration::from_secs(4);
/// How long one waits for a turn before the directory is listed, and how long between listings
/// after a while; see [`Turns::is_listing_due`]. Most turns that others wait for are over before the
/// first.
const FIRST_LISTING: Duration = Duration::from_millis(100);
const LATER_LISTINGS: Duration = Duration::from_secs(1);
/// So many claims of others are known.
const MANY_HOLDERS: usize = 256;

/// A process that takes turns, on whichever host. Only to tell one from another, by a digest: nothing
/// rests on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder(u64);

impl Holder {
    /// The process with this record.
    fn of(owner: &Owner) -> Holder {
        Self::digest(&(&owner.host, &owner.boot, owner.pid_namespace, owner.pid))
    }

    /// One that is only known by its claim.
    pub(crate) fn of_claim(claim: Identity) -> Holder {
        Self::digest(&claim)
    }

    fn digest(what: &impl Hash) -> Holder {
        let mut hasher = DefaultHasher::new();
        what.hash(&mut hasher);
        Holder(hasher.finish())
    }
}

/// The protocol's state for one guarded file, as one daemon knows it.
#[derive(Debug)]
pub struct Turns {
    names: LockNames,
    owner: Arc<Owner>,
    stale_after: Duration,
    refresh_every: Duration,
    claims: HashMap<Actor, Claim>,
    known: Option<Known>,
    /// The newest turn was known at some time.
    began: bool,
    /// When the last listing began that showed which turn is the newest.
    listed: Duration,
    /// The last listing took so long that it says nothing.
    listed_slowly: bool,
    /// A turn that an unanswered `link` may have taken, and the last sign of life before that.
    unresolved: Option<(u64, Duration)>,
    /// Whose claim holds a turn, and whose has ended one: for a number that never changes.
    holder: Option<(u64, Identity)>,
    ender: Option<(u64, Identity)>,
    /// A turn that we have ended ourselves.
    ended_well: Option<u64>,
    /// What has been seen of the turn that we wait for.
    watched: Option<Watched>,
    /// The turn that we wait for; when the directory is to be listed, and how long after that it
    /// is to be listed again.
    waiting: Option<(u64, Duration, Duration)>,
    /// Which process each claim is of.
    holders: HashMap<Identity, Holder>,
    old: Vec<Old>,
    leftovers: HashMap<CString, Duration>,
}

/// As whom the calls are made: a user's id, or `None` for the daemon itself. Each has a claim of
/// its own, because `fs.protected_hardlinks` forbids linking another user's file.
pub type Actor = Option<u32>;

#[derive(Debug, Clone)]
struct Claim {
    name: CString,
    identity: Identity,
    /// When its time was last set, on [`boottime`](crate::sys::process::boottime)'s clock, noted
    /// before the call was made.
    refreshed: Duration,
}

/// What is known of the newest turn, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    newest: Newest,
    /// When the look began that found it.
    seen: Duration,
    /// A turn that is taken was seen to be held by somebody else's claim.
    foreign: bool,
}

/// The newest turn of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Newest {
    /// Turn N is over, and nobody has taken the next. 0: there never was one.
    Over(u64),
    /// Turn N is taken.
    Taken(u64),
}

impl Newest {
    /// The number of a turn that is taken.
    pub fn taken(self) -> Option<u64> {
        match self {
            Newest::Taken(n) => Some(n),
            Newest::Over(_) => None,
        }
    }
}

/// A turn that is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// Its number.
    pub n: u64,
    /// Whose claim holds it.
    pub actor: Actor,
    /// The claim's name, for the dotlock.
    pub claim: CString,
    /// The claim's inode.
    pub identity: Identity,
    /// When it was taken.
    pub taken: Duration,
    /// When the last sign of life was sent before it was taken: whoever watches it has seen that at
    /// the earliest.
    pub sign: Duration,
    /// The turn before it was broken: before anything else, what its holder may have under way
    /// must be kept from the file ([`crate::lock::fence`]). A turn that has not seen to this must
    /// not end well.
    pub inherits: bool,
}

/// What one attempt to take a turn came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// The turn is ours.
    Held(Turn),
    /// Turn N is somebody else's.
    Taken(u64),
    /// Turn N is over, and the next is left to others.
    Left(u64),
    /// Turn N was somebody else's, who is dead; it is over now.
    Broken {
        /// Its number.
        n: u64,
        /// Whose it was, in words.
        holder: String,
        /// How it is known that nobody looks after it.
        death: Death,
    },
    /// Something moved; try again at once.
    Again,
}

/// How a turn of ours ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// By us.
    Clean,
    /// Somebody else had ended it before.
    Broken,
}

impl Turns {
    /// The protocol for the file with these names. The claim of a turn that is held is refreshed
    /// every quarter of `stale_after`, the time after which others may take its holder for dead.
    pub fn new(names: LockNames, owner: Arc<Owner>, stale_after: Duration) -> Turns {
        Turns {
            names,
            owner,
            stale_after,
            refresh_every: stale_after / 4,
            claims: HashMap::new(),
            known: None,
            began: false,
            listed: Duration::ZERO,
            listed_slowly: false,
            unresolved: None,
            holder: None,
            ender: None,
            ended_well: None,
            watched: None,
            waiting: None,
            holders: HashMap::new(),
            old: Vec::new(),
            leftovers: HashMap::new(),
        }
    }

    /// The file's lock names.
    pub fn names(&self) -> &LockNames {
        &self.names
    }

    /// Tries once to take the next turn, as `actor`, at the time `now`; but if turn `n` is over and
    /// nobody has taken the next, only unless `leave(n)`.
    ///
    /// # Errors
    /// Those of the directory; no turn is held then (one that was perhaps taken is found by the
    /// next attempt, since its inode says that it is ours).
    pub fn attempt(
        &mut self,
        dir: &impl Directory,
        actor: Actor,
        now: impl Fn() -> Duration,
        leave: &mut dyn FnMut(u64) -> bool,
    ) -> io::Result<Progress> {
        self.listed_slowly = false;
        match self.attempt_once(dir, actor, now, leave) {
            // This host slept, or was cut off, while it looked: nothing is known, and nothing wrong.
            Err(_) if self.listed_slowly => {
                self.known = None;
                Ok(Progress::Again)
            }
            Ok(Progress::Taken(n)) => {
                self.learn_holder(dir, n);
                Ok(Progress::Taken(n))
            }
            other => other,
        }
    }

    fn attempt_once(
        &mut self,
        dir: &impl Directory,
        actor: Actor,
        now: impl Fn() -> Duration,
        leave: &mut dyn FnMut(u64) -> bool,
    ) -> io::Result<Progress> {
        self.prepare_claim(dir, actor, &now)?;
        let known = self.newest(dir, actor, &now);
        let Some(newest) = self.unless_claim_is_gone(actor, known)? else {
            return Ok(Progress::Again);
        };
        match newest {
            Newest::Over(n) => self.take_or_leave(dir, actor, n, now, leave),
            Newest::Taken(n) => {
                if let Some(holder) = self.holder_of_ours(dir, n)? {
                    // Taken by a call of ours whose answer was an error; the claim may have been
                    // touched since.
                    let sign = self.unresolved.filter(|(of, _)| *of == n);
                    let sign = sign.map_or(Duration::ZERO, |(_, sign)| sign);
                    return self.confirm(dir, holder, (n, sign), now);
                }
                if self.is_over(dir, n, now())? {
                    return self.take_or_leave(dir, actor, n, now, leave);
                }
                if self.is_listing_due(n, now()) {
                    let listed = self.discover(dir, actor, &now, Duration::ZERO);
                    if self.unless_claim_is_gone(actor, listed)? != Some(Newest::Taken(n)) {
                        return Ok(Progress::Again);
                    }
                }
                // Most turns are over before that; who looks later breaks it later.
                if !self.was_listed_for(n) {
                    return Ok(Progress::Taken(n));
                }
                let Some(death) = self.judge(dir, n, now)? else {
                    return Ok(Progress::Taken(n));
                };
                let holder = self.describe_holder(dir, n);
                self.break_turn(dir, actor, n)?;
                Ok(Progress::Broken { n, holder, death })
            }
        }
    }

    /// Turn `n` is over: takes the next, unless it is left to others.
    fn take_or_leave(
        &mut self,
        dir: &impl Directory,
        actor: Actor,
        n: u64,
        now: impl Fn() -> Duration,
        leave: &mut dyn FnMut(u64) -> bool,
    ) -> io::Result<Progress> {
        if !leave(n) {
            return self.take(dir, actor, n + 1, now);
        }
        let Some(holder) = dir.identity(&self.names.turn(n + 1))? else {
            return Ok(Progress::Left(n));
        };
        // As where our own link to it is refused.
        self.known = self.known.filter(|known| known.newest == Newest::Over(n));
        if let Some(known) = self.known {
            self.learn(Newest::Taken(n + 1), known.seen);
        }
        self.holder = Some((n + 1, holder));
        if self.claims.values().any(|claim| claim.identity == holder) {
            return Ok(Progress::Again);
        }
        Ok(Progress::Taken(n + 1))
    }

    /// Who holds turn `n`, if an attempt has just found that somebody does.
    pub fn holder_of(&self, n: u64) -> Option<Holder> {
        let (_, claim) = self.holder.filter(|(of, _)| *of == n)?;
        self.holders.get(&claim).copied()
    }

    /// Finds out which process holds turn `n`: it has a claim for each user, so the record in one that
    /// is new is read.
    fn learn_holder(&mut self, dir: &impl Directory, n: u64) {
        let Some((_, claim)) = self.holder.filter(|(of, _)| *of == n) else {
            return;
        };
        if self.holders.contains_key(&claim) {
            return;
        }
        if self.holders.len() >= MANY_HOLDERS {
            self.holders.clear();
        }
        // It may have been cleaned away by now.
        let Ok(text) = dir.read_if_ours(&self.names.turn(n)) else {
            return;
        };
        let owner = Owner::parse(&text);
        let holder = owner.map_or(Holder::of_claim(claim), |owner| Holder::of(&owner));
        self.holders.insert(claim, holder);
    }

    /// What a listing has shown; `None` where it could not be made because our claim was removed
    /// behind our back. The next attempt makes another.
    fn unless_claim_is_gone(
        &self,
        actor: Actor,
        newest: io::Result<Newest>,
    ) -> io::Result<Option<Newest>> {
        match newest {
            Err(error) if is_gone(&error) && !self.claims.contains_key(&actor) => Ok(None),
            other => other.map(Some),
        }
    }

    /// Whether it is time, while we wait for turn `n`, to list the directory. An NFSv3 client tells
    /// by the time of the directory's last change whether a name that was not there may be there
    /// now, and that time is as coarse as a tick of the server's clock: if the end of the turn came
    /// within the tick of the last look, it is not seen before something else changes.
    fn is_listing_due(&mut self, n: u64, now: Duration) -> bool {
        let (due, pause) = match self.waiting {
            Some((of, due, pause)) if of == n => (due, pause),
            _ => (now + FIRST_LISTING, FIRST_LISTING),
        };
        let is_due = now >= due;
        let pause = if is_due {
            (pause * 2).min(LATER_LISTINGS)
        } else {
            pause
        };
        self.waiting = Some((n, if is_due { now + pause } else { due }, pause));
        is_due
    }

    /// Whether the directory was listed while we waited for turn `n`.
    fn was_listed_for(&self, n: u64) -> bool {
        self.waiting
            .is_some_and(|(of, _, pause)| of == n && pause > FIRST_LISTING)
    }

    /// The newest turn, from memory as long as that is young enough. Who takes one turn after
    /// another knows that the last is the newest; but if somebody has made a later one behind our
    /// back, others wait for that, and break it after `stale_after`. So we list often enough to see
    /// it before.
    fn newest(
        &mut self,
        dir: &impl Directory,
        actor: Actor,
        now: impl Fn() -> Duration,
    ) -> io::Result<Newest> {
        let time = now();
        let fresh = |known: &Option<Known>| {
            let is_listed = time.saturating_sub(self.listed) < self.refresh_every;
            known.filter(|known| is_young(known.seen, time) && is_listed)
        };
        if let Some(known) = fresh(&self.known) {
            return Ok(known.newest);
        }
        // That an old turn still stands does not say that it is the newest: a late call may have
        // brought its name back.
        match self.known {
            // After an error what a listing showed before it is not enough.
            _ if self.known.is_none() && self.began => {
                self.discover(dir, actor, now, Duration::ZERO)
            }
            _ => self.discover(dir, actor, now, KNOWLEDGE / 2),
        }
    }

    /// Step: makes the actor's claim, or refreshes it where that is due. A claim is used again
    /// and again, so this comes *before* the `link` of a new turn: a turn must not begin with a
    /// sign of life that looks old.
    ///
    /// # Errors
    /// Those of the directory.
    pub fn prepare_claim(
        &mut self,
        dir: &impl Directory,
        actor: Actor,
        now: impl Fn() -> Duration,
    ) -> io::Result<()> {
        let time = now();
        if let Some(claim) = self.claims.get_mut(&actor) {
            if time.saturating_sub(claim.refreshed) < self.refresh_every {
                return Ok(());
            }
            match dir.touch(&claim.name, claim.identity) {
                Ok(()) => {
                    claim.refreshed = time;
                    return Ok(());
                }
                Err(error) if is_gone(&error) => {
                    log::warn!(
                        "claim {} was removed; making a new one",
                        display(&claim.name)
                    );
                    self.claims.remove(&actor);
                }
                Err(error) => return Err(error),
            }
        }
        self.new_claim(dir, actor, time)
    }

    fn new_claim(&mut self, dir: &impl Directory, actor: Actor, time: Duration) -> io::Result<()> {
        let token = record::new_token();
        let name = self.names.claim(&self.owner.host, self.owner.pid, &token);
        let identity = dir.create(&name, self.owner.to_text(&token).as_bytes())?;
        let claim = Claim {
            name,
            identity,
            refreshed: time,
        };
        self.claims.insert(actor, claim);
        Ok(())
    }

    /// Step: finds the newest turn by a listing of the directory that is no older than `max_age`,
    /// and removes what dead daemons left.
    ///
    /// # Errors
    /// Those of the directory.
    pub fn discover(
        &mut self,
        dir: &impl Directory,
        actor: Actor,
        now: impl Fn() -> Duration,
        max_age: Duration,
    ) -> io::Result<Newest> {
        let began = now();
        let claim = self.claim(actor)?.name.clone();
        let listed = dir.steps(&self.names, &claim, began, max_age);
        let (steps, seen) = listed.inspect_err(|error| {
            if is_gone(error) {
                // It is made anew by the next attempt, if it is the claim that is gone.
                self.claims.remove(&actor);
            }
        })?;
        let time = now();
        if time.saturating_sub(seen) > SLOWEST_LISTING {
            // Names may have come and gone behind its back.
            log::warn!(
                "{}: listing its directory took longer than {SLOWEST_LISTING:?}, too long to take \
                 the lock; is the server overloaded?",
                display(&claim)
            );
            self.listed_slowly = true;
            return Err(io::Error::from_raw_os_error(libc::ETIMEDOUT));
        }
        let newest = newest_of(&steps);
        self.learn(newest, seen);
        self.listed = seen;
        let done = match newest {
            Newest::Over(n) => n,
            Newest::Taken(_) => {
                let ends = steps.iter().filter_map(|(step, _)| match step {
                    Step::Done(n) => Some(*n),
                    _ => None,
                });
                ends.max().unwrap_or(0)
            }
        };
        let old = steps.into_iter().filter_map(|(step, name)| match step {
            // A turn before its end: who finds the turn without its end takes it for a living one.
            Step::Turn(n) if n < done => Some(((n, 0), name)),
            Step::Done(n) if n < done => Some(((n, 1), name)),
            Step::Kept(_) | Step::Witness | Step::Claim => Some(((0, 0), name)),
            _ => None,
        });
        let mut old: Vec<_> = old
            .filter(|(_, name)| self.claims.values().all(|claim| claim.name != *name))
            .collect();
        old.sort();
        let last = match newest {
            Newest::Over(n) => n,
            Newest::Taken(n) => n - 1,
        };
        self.remove_leftovers(dir, last, old.into_iter().map(|(_, name)| name), time);
        Ok(newest)
    }

    /// Step: takes turn `n`, which must be the one after the newest.
    ///
    /// # Errors
    /// Those of the directory.
    pub fn take(
        &mut self,
        dir: &impl Directory,
        actor: Actor,
        n: u64,
        now: impl Fn() -> Duration,
    ) -> io::Result<Progress> {
        if n > names::LAST {
            log::error!(
                "{}: the numbers of turns are used up, which takes a name that was made to harm; \
                 while nobody uses the file, remove those in its directory with {} in them",
                display(&self.names.turn(names::LAST)),
                names::LAST
            );
            self.known = None;
            return Err(io::Error::from_raw_os_error(libc::EUCLEAN));
        }
        let sent = now();
        let claim = self.claim(actor)?.clone();
        match dir.link(&claim.name, &self.names.turn(n)) {
            Ok(()) if self.is_prompt(sent, now()) => {
                self.learn(Newest::Taken(n), sent);
                self.begin(dir, actor, (n, claim.refreshed), now())
            }
            Ok(()) => self.confirm(dir, actor, (n, claim.refreshed), now),
            Err(error) if is_gone(&error) => {
                self.claims.remove(&actor);
                self.known = None;
                Ok(Progress::Again)
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // Somebody was first; or we were, and NFSv3 lost the answer and sent the call
                // again. The next attempt looks at the inode. That it is taken does not say that
                // it is the newest now: it was at the time when the one before it was.
                match self.known {
                    Some(known) if known.newest == Newest::Over(n - 1) => {
                        self.learn(Newest::Taken(n), known.seen);
                    }
                    _ => self.known = None,
                }
                match self.holder_of_ours(dir, n)? {
                    Some(holder) => {
                        let sign = self.claim(holder)?.refreshed;
                        self.confirm(dir, holder, (n, sign), now)
                    }
                    None => Ok(Progress::Taken(n)),
                }
            }
            Err(error) => {
                self.known = None;
                self.unresolved = Some((n, claim.refreshed));
                Err(error)
            }
        }
    }

    /// Step: a `link` whose answer was an error may have taken a turn after all. When nobody
    /// wants it any more it is ended, if it is ours.
    ///
    /// # Errors
    /// Those of the directory.
    pub fn resolve(&mut self, dir: &impl Directory, time: Duration) -> io::Result<()> {
        let Some((n, _)) = self.unresolved else {
            return Ok(());
        };
        let holder = dir.identity(&self.names.turn(n))?;
        let ours = self
            .claims
            .iter()
            .find(|(_, claim)| Some(claim.identity) == holder);
        if let Some((&actor, _)) = ours {
            let turn = self.held(actor, n, time)?;
            // Whether it has inherited anything is not known.
            self.give_back(dir, &turn, time)?;
        }
        self.unresolved = None;
        Ok(())
    }

    /// Whether a `link` that was sent at the time `sent` and is answered now can have met the
    /// names that it was based on.
    fn is_prompt(&self, sent: Duration, now: Duration) -> bool {
        let young = self
            .known
            .is_some_and(|known| now.saturating_sub(known.seen) < KNOWLEDGE + SLOW_LINK);
        young && now.saturating_sub(sent) < SLOW_LINK
    }

    /// Step: after a `link` that was slow, or whose answer was lost: the turn counts only if it
    /// is the newest and not over; else it is given back. `sign`: the last sign of life before that
    /// `link`.
    ///
    /// # Errors
    /// Those of the directory.
    pub fn confirm(
        &mut self,
        dir: &impl Directory,
        actor: Actor,
        (n, sign): (u64, Duration),
        now: impl Fn() -> Duration,
    ) -> io::Result<Progress> {
        let result = self.confirm_once(dir, actor, (n, sign), now);
        if result.is_err() {
            // The next attempt finds by the inode that it is ours.
            self.known = None;
            self.unresolved = Some((n, sign));
        }
        result
    }

    fn confirm_once(
        &mut self,
        dir: &impl Directory,
        actor: Actor,
        (n, sign): (u64, Duration),
        now: impl Fn() -> Duration,
    ) -> io::Result<Progress> {
        let newest = self.discover(dir, actor, &now, Duration::ZERO)?;
        // A second look, in another way.
        if newest == Newest::Taken(n) && dir.identity(&self.names.done(n))?.is_none() {
            return self.begin(dir, actor, (n, sign), now());
        }
        let turn = self.held(actor, n, now())?;
        self.give_back(dir, &turn, now())?;
        self.known = None;
        self.unresolved = None;
        Ok(Progress::Again)
    }

    /// The turn is ours: what does it inherit?
    fn begin(
        &mut self,
        dir: &impl Directory,
        actor: Actor,
        (n, sign): (u64, Duration),
        time: Duration,
    ) -> io::Result<Progress> {
        let mut turn = self.held(actor, n, time)?;
        turn.sign = sign;
        turn.inherits = self.inspect(dir, n - 1).inspect_err(|_| {
            // The next attempt finds by the inode that it is ours.
            self.known = None;
            self.unresolved = Some((n, sign));
        })?;
        self.unresolved = None;
        Ok(Progress::Held(turn))
    }

    /// Step: whether turn `n` is over; fresh, with one GETATTR where nothing has changed.
    ///
    /// # Errors
    /// Those of the directory.
    pub fn is_over(&mut self, dir: &impl Directory, n: u64, time: Duration) -> io::Result<bool> {
        let ender = dir.identity(&self.names.done(n))?;
        let over = ender.is_some();
        self.ender = ender.map(|id| (n, id)).or(self.ender);
        let seen = match self.known {
            Some(known) if known.newest == Newest::Taken(n) && is_young(known.seen, time) => {
                known.seen
            }
            // That the turn is over does not say that it is the newest: others may have come and
            // gone since it was.
            _ => {
                self.known = self.known.filter(|_| !over);
                return Ok(over);
            }
        };
        if over {
            // What came after it within this time cannot have been cleaned away yet, so the next
            // `link` would find it.
            self.learn(Newest::Over(n), seen);
        } else {
            // It was the newest a moment ago, and its end would still stand if it had ended.
            self.learn(Newest::Taken(n), time);
        }
        Ok(over)
    }

    /// Step: whether turn `n`, which we have, is ours still: after a time in which it may have been
    /// broken. That there is no end of it says nothing, since that may have been removed again; it
    /// must be the newest turn.
    ///
    /// # Errors
    /// Those of the directory.
    pub fn is_newest(
        dir: &impl Directory,
        names: &LockNames,
        (n, claim): (u64, &CStr),
        now: Duration,
    ) -> io::Result<bool> {
        let (steps, _) = dir.steps(names, claim, now, Duration::ZERO)?;
        Ok(newest_of(&steps) == Newest::Taken(n) && dir.identity(&names.done(n))?.is_none())
    }

    /// Which of our claims holds turn `n`, if one of them does.
    fn holder_of_ours(&mut self, dir: &impl Directory, n: u64) -> io::Result<Option<Actor>> {
        if self.known.is_some_and(|known| known.foreign) {
            return Ok(None);
        }
        let holder = dir.identity(&self.names.turn(n))?;
        self.holder = holder.map(|id| (n, id)).or(self.holder);
        let ours = self
            .claims
            .iter()
            .find(|(_, claim)| Some(claim.identity) == holder)
            .map(|(actor, _)| *actor);
        if let Some(known) = &mut self.known {
            known.foreign = ours.is_none() && holder.is_some();
        }
        Ok(ours)
    }

    fn learn(&mut self, newest: Newest, seen: Duration) {
        self.began = true;
        // That somebody else holds a turn stays true for as long as it is the same turn.
        let foreign = self
            .known
            .is_some_and(|known| known.foreign && known.newest == newest);
        self.known = Some(Known {
            newest,
            seen,
            foreign,
        });
    }

    /// Step: shows that the holder lives, where that is due, and looks whether the turn is still the
    /// newest: if somebody has made a later one behind our back, it is waited for and broken by
    /// others, who do not look at ours any more. Gives the time of the last sign.
    ///
    /// # Errors
    /// `ENOENT` or `ESTALE` where the turn is lost; those of the directory, the turn being held
    /// still.
    pub fn refresh(
        &mut self,
        dir: &impl Directory,
        turn: &Turn,
        now: impl Fn() -> Duration,
    ) -> io::Result<Duration> {
        let (time, every) = (now(), self.refresh_every);
        let claim = self
            .claims
            .get_mut(&turn.actor)
            .ok_or_else(|| io::Error::from_raw_os_error(libc::ESTALE))?;
        if time.saturating_sub(claim.refreshed) >= every {
            dir.touch(&claim.name, claim.identity)?;
            claim.refreshed = time;
            if !Self::is_newest(dir, &self.names, (turn.n, &claim.name), time)? {
                return Err(io::Error::from_raw_os_error(libc::ESTALE));
            }
        }
        Ok(claim.refreshed)
    }

    /// Step: ends a turn of ours. With `slow` it may have been broken, and others may have come and
    /// gone since; then what is the newest turn is not known.
    ///
    /// # Errors
    /// Those of the directory; the turn is still held, as far as others can see, and ending it
    /// must be tried again.
    pub fn end(
        &mut self,
        dir: &impl Directory,
        turn: &Turn,
        (time, slow): (Duration, bool),
    ) -> io::Result<Ended> {
        let done = self.names.done(turn.n);
        // Until the answer is there nothing is known.
        self.known = None;
        let error = match dir.link(&turn.claim, &done) {
            Ok(()) => {
                if !slow {
                    self.learn(Newest::Over(turn.n), time);
                    self.ended_well = Some(turn.n);
                }
                self.old.push(Old::new(turn, time));
                return Ok(Ended::Clean);
            }
            Err(error) => error,
        };
        if is_gone(&error) {
            // Our claim was removed behind our back. What ends the turn then is not the claim
            // that took it, so it looks broken, which is the safe way to look.
            self.claims.remove(&turn.actor);
            self.end_by_another(dir, turn, time)?;
            return Ok(Ended::Broken);
        }
        match dir.identity(&done)? {
            // The answer to an earlier call was lost.
            Some(ender) if ender == turn.identity => {
                self.old.push(Old::new(turn, time));
                Ok(Ended::Clean)
            }
            Some(_) => Ok(Ended::Broken),
            None => Err(error),
        }
    }

    /// Step: gives back a turn under which nothing was done. It is ended by a claim that is not
    /// the holder's, so that it looks broken: had the turn before it been broken, the duty to see
    /// to that passes on to the next holder. (Ended clean, it would hide the broken turn.)
    ///
    /// # Errors
    /// Those of the directory.
    pub fn give_back(
        &mut self,
        dir: &impl Directory,
        turn: &Turn,
        time: Duration,
    ) -> io::Result<()> {
        let claim = self.claims.remove(&turn.actor);
        let ended = self.end_by_another(dir, turn, time);
        let unused = match (&ended, claim) {
            // The old claim's other names stay: they say whose the turn was.
            (Ok(()), claim) => claim,
            // It says so to us, too, when this is tried again.
            (Err(_), Some(claim)) => self.claims.insert(turn.actor, claim),
            (Err(_), None) => None,
        };
        if let Some(claim) = unused {
            let _ = dir.remove(&claim.name);
        }
        ended?;
        // Others may have come and gone since it was the newest.
        self.known = None;
        Ok(())
    }

    /// Ends a turn by a link to a new claim. Where the disk is full an empty file must do, for
    /// which there may be room: else nobody could go on before somebody has made some.
    fn end_by_another(
        &mut self,
        dir: &impl Directory,
        turn: &Turn,
        time: Duration,
    ) -> io::Result<()> {
        let done = self.names.done(turn.n);
        let ended = match self.new_claim(dir, turn.actor, time) {
            Ok(()) => dir.link(&self.claim(turn.actor)?.name, &done),
            Err(error) if is_full(&error) => {
                let token = record::new_token();
                let empty = self.names.claim(&self.owner.host, self.owner.pid, &token);
                dir.create(&empty, b"")?;
                let ended = dir.link(&empty, &done);
                let _ = dir.remove(&empty);
                ended
            }
            Err(error) => return Err(error),
        };
        ended.or_else(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => Ok(()),
            _ => Err(error),
        })
    }

    /// Step: notes in the claim that a write in several calls begins, or, for `None`, that what was
    /// noted has come to its end.
    ///
    /// # Errors
    /// Those of the directory; the write must not begin then, or is not known to have ended.
    pub fn note_write(
        &self,
        dir: &impl Directory,
        turn: &Turn,
        write: Option<Unfinished>,
    ) -> io::Result<()> {
        let record = self.owner.to_text(&record::new_token()).len() as u64;
        let note = Unfinished::to_text(write);
        dir.annotate(&turn.claim, turn.identity, record, note.as_bytes())
    }

    /// Actors that have a claim.
    pub fn actors(&self) -> Vec<Actor> {
        self.claims.keys().copied().collect()
    }

    /// Step: removes the actor's claim, when the file is no longer in use here. The newest end of
    /// a turn keeps its inode, if it was ours.
    pub fn retire(&mut self, dir: &impl Directory, actor: Actor) {
        if let Some(claim) = self.claims.remove(&actor)
            && let Err(error) = dir.remove(&claim.name)
        {
            log::debug!("could not remove claim {}: {error}", display(&claim.name));
        }
    }

    /// Who holds turn `n`, in words, for messages.
    pub fn describe_holder(&self, dir: &impl Directory, n: u64) -> String {
        match dir
            .read(&self.names.turn(n))
            .map(|text| Owner::parse(&text))
        {
            Ok(Some(owner)) => owner.to_string(),
            Ok(None) => "an unknown program (its claim holds no record)".to_owned(),
            Err(_) => "an unknown program (its claim cannot be read)".to_owned(),
        }
    }

    fn claim(&self, actor: Actor) -> io::Result<&Claim> {
        self.claims
            .get(&actor)
            .ok_or_else(|| io::Error::from_raw_os_error(libc::ESTALE))
    }

    fn held(&self, actor: Actor, n: u64, time: Duration) -> io::Result<Turn> {
        let claim = self.claim(actor)?;
        Ok(Turn {
            n,
            actor,
            claim: claim.name.clone(),
            identity: claim.identity,
            taken: time,
            sign: claim.refreshed,
            inherits: false,
        })
    }
}

/// The newest turn among the names of a file.
fn newest_of(steps: &[(Step, CString)]) -> Newest {
    let (mut turn, mut done) = (0, 0);
    for (step, _) in steps {
        match *step {
            Step::Turn(n) => turn = turn.max(n),
            Step::Done(n) => done = done.max(n),
            _ => {}
        }
    }
    if done >= turn {
        Newest::Over(done)
    } else {
        Newest::Taken(turn)
    }
}

/// Whether what was seen then may be acted upon now.
fn is_young(seen: Duration, now: Duration) -> bool {
    now.saturating_sub(seen) < KNOWLEDGE
}

/// Whether an error of a call says that the file it is about is gone. NFS says so with `ESTALE`
/// where a local file system says `ENOENT`.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESTALE))
}

/// Whether an error says that there is no room, for anybody or for this user.
fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT))
}

#[cfg(test)]
mod tests {
    use super::cleaning::LEFTOVER;
    use super::*;
    use crate::lock::RealDirectory;
    use crate::lock::directory::Sign;
    use crate::sys::process::boottime;
    use std::cell::{Cell, RefCell};
    use std::ffi::{CStr, OsStr};

    /// A real directory in which calls can be made to go wrong.
    struct Faulty {
        real: RealDirectory,
        /// The next `link` to a name that ends so is made, but answered with this error.
        lose_answer: RefCell<Option<(&'static str, i32)>>,
        links: Cell<usize>,
    }

    impl Directory for Faulty {
        fn link(&self, old: &CStr, new: &CStr) -> io::Result<()> {
            self.links.set(self.links.get() + 1);
            let result = self.real.link(old, new);
            let mut lose = self.lose_answer.borrow_mut();
            match *lose {
                Some((end, errno)) if new.to_str().unwrap().ends_with(end) => {
                    *lose = None;
                    Err(io::Error::from_raw_os_error(errno))
                }
                _ => result,
            }
        }
        fn sign(&self, name: &CStr) -> io::Result<Option<Sign>> {
            self.real.sign(name)
        }
        fn rename(&self, old: &CStr, new: &CStr) -> io::Result<()> {
            self.real.rename(old, new)
        }
        fn annotate(&self, name: &CStr, id: Identity, at: u64, text: &[u8]) -> io::Result<()> {
            self.real.annotate(name, id, at, text)
        }
        fn steps(
            &self,
            names: &LockNames,
            claim: &CStr,
            now: Duration,
            max_age: Duration,
        ) -> io::Result<(Vec<(Step, CString)>, Duration)> {
            self.real.steps(names, claim, now, max_age)
        }
        fn create(&self, name: &CStr, contents: &[u8]) -> io::Result<Identity> {
            self.real.create(name, contents)
        }
        fn touch(&self, name: &CStr, id: Identity) -> io::Result<()> {
            self.real.touch(name, id)
        }
        fn remove(&self, name: &CStr) -> io::Result<()> {
            self.real.remove(name)
        }
        fn read(&self, name: &CStr) -> io::Result<Vec<u8>> {
            self.real.read(name)
        }
    }

    impl Turns {
        /// An attempt that leaves the turn to nobody.
        fn attempt_now(
            &mut self,
            dir: &impl Directory,
            actor: Actor,
            now: impl Fn() -> Duration,
        ) -> io::Result<Progress> {
            self.attempt(dir, actor, now, &mut |_| false)
        }
    }

    struct World {
        dir: Faulty,
        folder: tempfile::TempDir,
    }

    impl World {
        fn new() -> World {
            let folder = tempfile::tempdir().unwrap();
            let fd = std::fs::File::open(folder.path()).unwrap();
            World {
                dir: Faulty {
                    real: RealDirectory::new(Arc::new(fd.into())),
                    lose_answer: RefCell::new(None),
                    links: Cell::new(0),
                },
                folder,
            }
        }

        /// A daemon; each has claims of its own.
        fn daemon(&self) -> Turns {
            let owner = Arc::new(Owner::this_process().unwrap());
            Turns::new(
                LockNames::new(OsStr::new("log")),
                owner,
                Duration::from_secs(60),
            )
        }

        fn names(&self) -> Vec<String> {
            let mut names: Vec<String> = std::fs::read_dir(self.folder.path())
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .filter(|name| !name.contains(".claim."))
                .collect();
            names.sort();
            names
        }
    }

    fn held(progress: io::Result<Progress>) -> Turn {
        match progress.unwrap() {
            Progress::Held(turn) => turn,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn turns_follow_one_another() {
        let world = World::new();
        let (mut a, mut b) = (world.daemon(), world.daemon());
        let first = held(a.attempt_now(&world.dir, None, boottime));
        assert_eq!(first.n, 1);
        assert_eq!(
            b.attempt_now(&world.dir, None, boottime).unwrap(),
            Progress::Taken(1)
        );
        assert_eq!(
            a.end(&world.dir, &first, (boottime(), false)).unwrap(),
            Ended::Clean
        );
        let second = held(b.attempt_now(&world.dir, None, boottime));
        assert_eq!(second.n, 2);
        assert_eq!(
            a.attempt_now(&world.dir, None, boottime).unwrap(),
            Progress::Taken(2)
        );
        assert_eq!(
            b.end(&world.dir, &second, (boottime(), false)).unwrap(),
            Ended::Clean
        );
        assert_eq!(
            world.names(),
            [".log.done.1", ".log.done.2", ".log.turn.1", ".log.turn.2"]
        );
    }

    #[test]
    fn a_turn_whose_answer_was_lost_is_found_again() {
        for errno in [libc::EEXIST, libc::EIO, libc::ETIMEDOUT] {
            let world = World::new();
            let mut a = world.daemon();
            *world.dir.lose_answer.borrow_mut() = Some((".turn.1", errno));
            let turn = match a.attempt_now(&world.dir, None, boottime) {
                Ok(Progress::Held(turn)) => turn,
                Err(_) => held(a.attempt_now(&world.dir, None, boottime)),
                other => panic!("{other:?}"),
            };
            assert_eq!(turn.n, 1);
            *world.dir.lose_answer.borrow_mut() = Some((".done.1", errno));
            assert_eq!(
                a.end(&world.dir, &turn, (boottime(), false)).unwrap(),
                Ended::Clean
            );
        }
    }

    #[test]
    fn a_slow_link_counts_only_if_its_turn_is_the_newest() {
        let world = World::new();
        let (mut a, mut b) = (world.daemon(), world.daemon());
        // Each look at the clock is two seconds later than the one before.
        let time = Cell::new(boottime());
        let slow_clock = || {
            time.set(time.get() + 2 * SLOW_LINK);
            time.get()
        };
        let turn = held(a.attempt_now(&world.dir, None, slow_clock));
        a.end(&world.dir, &turn, (boottime(), false)).unwrap();
        // Number 2 was used and cleaned away while the link that brings it back was under way.
        b.prepare_claim(&world.dir, None, boottime).unwrap();
        std::fs::write(world.folder.path().join(".log.done.7"), "").unwrap();
        assert_eq!(
            b.take(&world.dir, None, 2, slow_clock).unwrap(),
            Progress::Again
        );
        assert!(
            world.names().contains(&".log.done.2".to_owned()),
            "given back"
        );
        assert_eq!(held(b.attempt_now(&world.dir, None, boottime)).n, 8);
    }

    #[test]
    fn a_turn_given_back_does_not_look_as_if_it_had_ended_well() {
        let world = World::new();
        let mut a = world.daemon();
        let turn = held(a.attempt_now(&world.dir, None, boottime));
        a.give_back(&world.dir, &turn, boottime()).unwrap();
        let names = LockNames::new(OsStr::new("log"));
        let holder = world.dir.identity(&names.turn(1)).unwrap();
        let ender = world.dir.identity(&names.done(1)).unwrap();
        assert!(holder.is_some() && ender.is_some() && holder != ender);
    }

    #[test]
    fn a_turn_that_another_ended_is_seen_to_be_lost() {
        let world = World::new();
        let mut a = world.daemon();
        let turn = held(a.attempt_now(&world.dir, None, boottime));
        std::fs::write(world.folder.path().join(".log.done.1"), "").unwrap();
        assert!(a.is_over(&world.dir, 1, boottime()).unwrap());
        assert_eq!(
            a.end(&world.dir, &turn, (boottime(), false)).unwrap(),
            Ended::Broken
        );
    }

    #[test]
    fn a_claim_that_was_removed_is_made_again() {
        let world = World::new();
        let mut a = world.daemon();
        let turn = held(a.attempt_now(&world.dir, None, boottime));
        a.end(&world.dir, &turn, (boottime(), false)).unwrap();
        for entry in std::fs::read_dir(world.folder.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.to_str().unwrap().contains(".claim.") {
                std::fs::remove_file(path).unwrap();
            }
        }
        assert_eq!(
            a.attempt_now(&world.dir, None, boottime).unwrap(),
            Progress::Again
        );
        assert_eq!(held(a.attempt_now(&world.dir, None, boottime)).n, 2);
    }

    #[test]
    fn at_rest_one_name_stays() {
        let world = World::new();
        let mut a = world.daemon();
        for _ in 0..3 {
            let turn = held(a.attempt_now(&world.dir, None, boottime));
            a.end(&world.dir, &turn, (boottime(), false)).unwrap();
        }
        assert!(a.clean(&world.dir, None, boottime()).is_some(), "too early");
        assert_eq!(world.names().len(), 6);
        assert_eq!(a.clean(&world.dir, None, boottime() + KEEP_OLD), None);
        assert_eq!(world.names(), [".log.done.3"]);
        // What a dead daemon has left is removed after a while, but for the newest end.
        for name in [".log.turn.1", ".log.done.1", ".log.turn.2"] {
            std::fs::write(world.folder.path().join(name), "").unwrap();
        }
        a.discover(&world.dir, None, boottime, Duration::ZERO)
            .unwrap();
        a.discover(
            &world.dir,
            None,
            || boottime() + LEFTOVER / 2,
            Duration::ZERO,
        )
        .unwrap();
        assert_eq!(world.names().len(), 4);
        a.discover(
            &world.dir,
            None,
            || boottime() + 2 * LEFTOVER,
            Duration::ZERO,
        )
        .unwrap();
        assert_eq!(world.names(), [".log.done.3"]);
    }

    /// A waiter that gave up long ago knows an old turn as taken. That it is over now does not
    /// make it the newest.
    #[test]
    fn old_knowledge_brings_no_number_back() {
        let world = World::new();
        let (mut a, mut b, mut c) = (world.daemon(), world.daemon(), world.daemon());
        let start = boottime();
        let turn = held(a.attempt_now(&world.dir, None, || start));
        assert_eq!(
            b.attempt_now(&world.dir, None, || start).unwrap(),
            Progress::Taken(1)
        );
        a.end(&world.dir, &turn, (start, false)).unwrap();
        let mut time = start;
        for _ in 0..4 {
            time += Duration::from_millis(10);
            // The first attempt goes by a listing that is a moment old.
            let turn = loop {
                if let Progress::Held(turn) = c.attempt_now(&world.dir, None, || time).unwrap() {
                    break turn;
                }
            };
            c.end(&world.dir, &turn, (time, false)).unwrap();
        }
        time += KEEP_OLD;
        c.clean(&world.dir, None, time);
        time += KEEP_OLD;
        c.clean(&world.dir, None, time);
        assert_eq!(world.names(), [".log.done.1", ".log.done.5", ".log.turn.1"]);
        assert_eq!(held(c.attempt_now(&world.dir, None, || time)).n, 6);
        assert_eq!(
            b.attempt_now(&world.dir, None, || time).unwrap(),
            Progress::Taken(6)
        );
    }

    /// A call hung for a while; what it tells is as old as the question.
    #[test]
    fn a_turn_that_is_taken_is_not_the_newest_for_that() {
        let world = World::new();
        let mut daemons: Vec<Turns> = (0..4).map(|_| world.daemon()).collect();
        let start = boottime();
        let first = held(daemons[0].attempt_now(&world.dir, None, || start));
        let taken = daemons[3].attempt_now(&world.dir, None, || start).unwrap();
        assert_eq!(taken, Progress::Taken(1));
        daemons[0].end(&world.dir, &first, (start, false)).unwrap();
        let mut time = start;
        for holder in [1, 2, 2, 2, 2] {
            time += Duration::from_millis(10);
            let daemon = &mut daemons[holder];
            let turn = loop {
                if let Progress::Held(turn) = daemon.attempt_now(&world.dir, None, || time).unwrap()
                {
                    break turn;
                }
            };
            daemon.end(&world.dir, &turn, (time, false)).unwrap();
        }
        // Turns 3 to 5 are cleaned away, and turn 2 is not.
        for _ in 0..2 {
            time += KEEP_OLD;
            daemons[2].clean(&world.dir, None, time);
        }
        assert!(!world.names().contains(&".log.turn.3".to_owned()));
        let late = &mut daemons[3];
        assert!(late.is_over(&world.dir, 1, start).unwrap());
        let taken = late.take(&world.dir, None, 2, || time).unwrap();
        assert_eq!(taken, Progress::Taken(2));
        assert_eq!(held(late.attempt_now(&world.dir, None, || time)).n, 7);
    }

    #[test]
    fn waiting_costs_no_link() {
        let world = World::new();
        let (mut a, mut b) = (world.daemon(), world.daemon());
        held(a.attempt_now(&world.dir, None, boottime));
        b.attempt_now(&world.dir, None, boottime).unwrap();
        let before = world.dir.links.get();
        for _ in 0..10 {
            assert_eq!(
                b.attempt_now(&world.dir, None, boottime).unwrap(),
                Progress::Taken(1)
            );
        }
        assert_eq!(world.dir.links.get(), before);
    }
}
