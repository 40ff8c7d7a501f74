//! The advisory locks of one file, as this host's programs hold them.
//!
//! A [`Table`] knows who holds what and who is in whose way; it neither waits nor wakes. Answers
//! are those of Linux (fs/locks.c): flock(2) and fcntl(2) do not see each other, and fcntl locks
//! are converted, split and merged. What a FUSE request does not always say is which of the two
//! calls it stands for; such a lock has no [`Space`], and is in the way of both, except of its own
//! program, which must not wait for itself.
//!
//! [`Waits`] finds programs that would wait for each other for ever.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use crate::sys::process::boottime;

/// What a lock is held against: locks of different spaces do not see each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Space {
    /// flock(2).
    Flock,
    /// fcntl(2) and lockf(3); locks of open file descriptions (`F_OFD_SETLK`) too.
    Posix,
}

/// What a lock lets others do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Others may hold shared locks too: `F_RDLCK`, `LOCK_SH`.
    Shared,
    /// Nobody else may hold a lock: `F_WRLCK`, `LOCK_EX`.
    Exclusive,
}

/// A stretch of bytes, with both ends included as in `struct fuse_file_lock`; `start <= end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Range {
    /// The first byte.
    pub start: u64,
    /// The last byte; `i64::MAX` for a lock up to the end of the file, wherever that is.
    pub end: u64,
}

impl Range {
    /// The whole file; the only range of flock(2).
    pub const WHOLE: Range = Range {
        start: 0,
        end: i64::MAX as u64,
    };

    /// Whether a byte is in both.
    pub fn overlaps(&self, other: &Range) -> bool {
        self.start <= other.end && other.start <= self.end
    }

    /// Whether the two are one stretch together: they overlap, or one begins where the other ends.
    fn touches(&self, other: &Range) -> bool {
        let reaches = |a: &Range, b: &Range| a.start <= b.end.saturating_add(1);
        reaches(self, other) && reaches(other, self)
    }

    /// What is left, before and behind, when `cut` is taken away.
    fn without(&self, cut: &Range) -> impl Iterator<Item = Range> + use<> {
        // Neither can overflow: something stands before `cut`, and behind it.
        let before = (self.start < cut.start).then(|| Range {
            start: self.start,
            end: self.end.min(cut.start - 1),
        });
        let behind = (self.end > cut.end).then(|| Range {
            start: self.start.max(cut.end + 1),
            end: self.end,
        });
        before.into_iter().chain(behind)
    }
}

/// Who holds a lock, or asks for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    /// The kernel's id of the owner: a table of descriptors (one for all threads of a process) for
    /// fcntl locks, an open file description for flock and `F_OFD_SETLK`.
    pub owner: u64,
    /// `None` where flock and fcntl could not be told apart.
    pub space: Option<Space>,
    /// The open file by which the lock was last asked for: a number that never comes again, unlike
    /// the owner, which is an address in the kernel.
    pub file: u64,
    /// The process, by the id of its thread group; `F_GETLK` tells it.
    pub pid: u32,
}

impl Holder {
    /// Whether locks of the two that overlap are in each other's way, if one is exclusive.
    fn is_foreign(&self, other: &Holder) -> bool {
        if self.owner == other.owner {
            return false;
        }
        match (self.space, other.space) {
            (Some(one), Some(other)) => one == other,
            _ => self.pid != other.pid,
        }
    }

    fn is_same(&self, other: &Holder) -> bool {
        (self.owner, self.space) == (other.owner, other.space)
    }

    /// Whether an unlock by `owner` in `space` means this holder. It can mean any space if one of
    /// the two is not known: else the lock would stay until the file is closed.
    fn is_meant(&self, owner: u64, space: Option<Space>) -> bool {
        self.owner == owner && (space.is_none() || self.space.is_none() || self.space == space)
    }
}

/// A lock that is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lock {
    /// By whom.
    pub holder: Holder,
    /// On which bytes.
    pub range: Range,
    /// Against whom.
    pub kind: Kind,
}

/// The locks of one file.
#[derive(Debug, Default)]
pub struct Table {
    /// The locks of one owner in one space stand together, by their start; they do not overlap,
    /// and those of a kind do not touch. Owners stand as they came, as in the kernel's list, since
    /// `F_GETLK` answers with the first.
    locks: Vec<Lock>,
}

impl Table {
    /// The lock in the way of one that `holder` asks for, if any. Where there are several it is
    /// the one that `F_GETLK` answers on Linux: of the owner that came first, with the lowest
    /// start.
    pub fn conflict(&self, holder: &Holder, range: Range, kind: Kind) -> Option<Lock> {
        self.in_the_way(holder, range, kind).next().copied()
    }

    /// The owners of all locks in the way of one that `holder` asks for, each once.
    pub fn conflicts(&self, holder: &Holder, range: Range, kind: Kind) -> Vec<u64> {
        let mut owners: Vec<u64> = Vec::new();
        for lock in self.in_the_way(holder, range, kind) {
            if !owners.contains(&lock.holder.owner) {
                owners.push(lock.holder.owner);
            }
        }
        owners
    }

    /// All locks in the way of one that `holder` asks for.
    pub fn in_the_way(
        &self,
        holder: &Holder,
        range: Range,
        kind: Kind,
    ) -> impl Iterator<Item = &Lock> {
        self.locks.iter().filter(move |lock| {
            (kind == Kind::Exclusive || lock.kind == Kind::Exclusive)
                && lock.range.overlaps(&range)
                && lock.holder.is_foreign(holder)
        })
    }

    /// Takes a lock: what the same owner holds in the same space on these bytes becomes of this
    /// kind. The caller has seen that there is no [conflict](Table::conflict).
    pub fn set(&mut self, lock: Lock) {
        let same = |old: &Lock| old.holder.is_same(&lock.holder);
        let first = self.locks.iter().position(same);
        let first = first.unwrap_or(self.locks.len());
        let count = self.locks[first..].iter().take_while(|old| same(old));
        let last = first + count.count();

        let mut new = lock;
        let mut kept: Vec<Lock> = Vec::new();
        for old in &self.locks[first..last] {
            if old.kind != new.kind {
                kept.extend(old.without(&new.range));
            } else if old.range.touches(&new.range) {
                new.range.start = new.range.start.min(old.range.start);
                new.range.end = new.range.end.max(old.range.end);
            } else {
                kept.push(*old);
            }
        }
        let place = kept.partition_point(|old| old.range.start < new.range.start);
        kept.insert(place, new);
        self.locks.splice(first..last, kept);
    }

    /// Before a lock is asked for: flock(2) gives the old one up to get another, even if it then
    /// does not get it. (fcntl keeps it.)
    pub fn give_up_flock(&mut self, wanted: &Lock) {
        if wanted.holder.space == Some(Space::Flock) {
            self.locks
                .retain(|lock| !lock.holder.is_same(&wanted.holder) || lock.kind == wanted.kind);
        }
    }

    /// Gives up what `owner` holds on these bytes, if anything: `F_UNLCK`, `LOCK_UN`. With `None`
    /// in every space, else in `space` and where the space of the lock is not known.
    pub fn unset(&mut self, owner: u64, space: Option<Space>, range: Range) {
        let meant = |lock: &Lock| lock.holder.is_meant(owner, space) && lock.range.overlaps(&range);
        if !self.locks.iter().any(meant) {
            return;
        }
        let mut kept = Vec::with_capacity(self.locks.len() + 1);
        for lock in self.locks.drain(..) {
            if meant(&lock) {
                kept.extend(lock.without(&range));
            } else {
                kept.push(lock);
            }
        }
        self.locks = kept;
    }

    /// Gives up all that `owner` holds, as at a `close(2)`. Spaces count as in
    /// [`unset`](Table::unset).
    pub fn drop_owner(&mut self, owner: u64, space: Option<Space>) {
        self.locks
            .retain(|lock| !lock.holder.is_meant(owner, space));
    }

    /// Gives up all that was locked by way of an open file, as at its last `close(2)`. The kernel
    /// tells of that a while after the program went on, which may have locked the file again
    /// meanwhile, as the same owner, by way of another.
    pub fn drop_file(&mut self, file: u64) {
        self.locks.retain(|lock| lock.holder.file != file);
    }

    /// Whether nobody holds a lock.
    pub fn is_empty(&self) -> bool {
        self.locks.is_empty()
    }

    /// All locks.
    pub fn iter(&self) -> impl Iterator<Item = &Lock> {
        self.locks.iter()
    }
}

impl Lock {
    /// What is left of the lock outside of `cut`.
    fn without(&self, cut: &Range) -> impl Iterator<Item = Lock> + use<> {
        let lock = *self;
        lock.range
            .without(cut)
            .map(move |range| Lock { range, ..lock })
    }
}

/// Owners whose last descriptor may just have been closed. The kernel tells of that a moment
/// later than the program goes on, and meanwhile the next who asks must not be refused.
#[derive(Debug, Default)]
pub struct Closing {
    owners: Vec<(u64, Duration)>,
}

impl Closing {
    /// How long the kernel may take to tell, on a busy machine.
    const MOMENT: Duration = Duration::from_secs(1);

    /// A descriptor was closed through which these owners had locks.
    pub fn begin(&mut self, owners: &[u64]) {
        let now = boottime();
        self.owners
            .retain(|(owner, since)| now < *since + Self::MOMENT && !owners.contains(owner));
        self.owners.extend(owners.iter().map(|owner| (*owner, now)));
    }

    /// Whether this owner's locks may be about to go.
    pub fn includes(&self, owner: u64) -> bool {
        let now = boottime();
        let is_meant = |(of, since): &(u64, Duration)| *of == owner && now < *since + Self::MOMENT;
        self.owners.iter().any(is_meant)
    }
}

/// Who waits for whom, for the locks of all files.
///
/// As on Linux, only traditional fcntl locks are meant to be looked after: two threads of one
/// program may well wait for each other's flock(2) on purpose.
#[derive(Debug, Default)]
pub struct Waits {
    /// For each waiting owner, the owners in its way. Its threads can wait for several locks.
    waiting: HashMap<u64, Vec<(u64, Vec<u64>)>>,
    /// Waits so far.
    begun: u64,
}

/// A wait that is under way.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "it stands until it is ended"]
pub struct Wait {
    waiter: u64,
    number: u64,
}

impl Waits {
    /// How many owners are looked at before a search is given up. Linux follows ten.
    const SEARCHED: usize = 1000;

    /// Whether `waiter` would wait for itself, by way of others, if it waited for these owners. A
    /// search that takes too long says no.
    pub fn would_deadlock(&self, waiter: u64, in_the_way: &[u64]) -> bool {
        let mut next = in_the_way.to_vec();
        let mut seen = HashSet::new();
        while let Some(owner) = next.pop() {
            if owner == waiter {
                return true;
            }
            if !seen.insert(owner) {
                continue;
            }
            if seen.len() > Self::SEARCHED {
                return false;
            }
            for (_, owners) in self.waiting.get(&owner).into_iter().flatten() {
                next.extend(owners);
            }
        }
        false
    }

    /// `waiter` waits for these owners from now on.
    pub fn begin(&mut self, waiter: u64, in_the_way: Vec<u64>) -> Wait {
        self.begun += 1;
        let number = self.begun;
        let waits = self.waiting.entry(waiter).or_default();
        waits.push((number, in_the_way));
        Wait { waiter, number }
    }

    /// Others are in the way now.
    pub fn change(&mut self, wait: &Wait, in_the_way: Vec<u64>) {
        for (number, owners) in self.waiting.get_mut(&wait.waiter).into_iter().flatten() {
            if *number == wait.number {
                *owners = in_the_way;
                return;
            }
        }
    }

    /// The wait is over, with the lock or without.
    #[expect(clippy::needless_pass_by_value, reason = "a wait ends once")]
    pub fn end(&mut self, wait: Wait) {
        if let Some(waits) = self.waiting.get_mut(&wait.waiter) {
            waits.retain(|(number, _)| *number != wait.number);
            if waits.is_empty() {
                self.waiting.remove(&wait.waiter);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Kind::{Exclusive, Shared};
    use super::Space::{Flock, Posix};
    use super::*;

    fn range(start: u64, end: u64) -> Range {
        Range { start, end }
    }

    /// A holder whose process has the number of the owner.
    fn holder(owner: u64, space: Option<Space>) -> Holder {
        let pid = u32::try_from(owner).unwrap();
        Holder {
            owner,
            space,
            file: owner,
            pid,
        }
    }

    fn fcntl(owner: u64, start: u64, end: u64, kind: Kind) -> Lock {
        Lock {
            holder: holder(owner, Some(Posix)),
            range: range(start, end),
            kind,
        }
    }

    fn table(locks: &[Lock]) -> Table {
        let mut table = Table::default();
        for lock in locks {
            table.set(*lock);
        }
        table
    }

    /// What an owner holds: start, end, kind.
    fn held(table: &Table, owner: u64) -> Vec<(u64, u64, Kind)> {
        let locks = table.iter().filter(|lock| lock.holder.owner == owner);
        locks
            .map(|lock| (lock.range.start, lock.range.end, lock.kind))
            .collect()
    }

    fn in_the_way(table: &Table, lock: Lock) -> Option<(u64, u64, u64)> {
        table
            .conflict(&lock.holder, lock.range, lock.kind)
            .map(|found| (found.holder.owner, found.range.start, found.range.end))
    }

    #[test]
    fn shared_locks_stand_together_and_exclusive_ones_alone() {
        let shared = table(&[fcntl(1, 0, 9, Shared)]);
        assert_eq!(in_the_way(&shared, fcntl(2, 0, 9, Shared)), None);
        let exclusive = fcntl(2, 9, 20, Exclusive);
        assert_eq!(in_the_way(&shared, exclusive), Some((1, 0, 9)));
        let other = table(&[fcntl(1, 0, 9, Exclusive)]);
        assert_eq!(in_the_way(&other, fcntl(2, 5, 5, Shared)), Some((1, 0, 9)));
        assert_eq!(in_the_way(&other, fcntl(2, 10, 20, Exclusive)), None);
        assert_eq!(in_the_way(&other, fcntl(1, 0, 9, Exclusive)), None);
    }

    #[test]
    fn the_lock_in_the_way_is_of_the_first_owner_and_its_lowest() {
        let table = table(&[
            fcntl(1, 200, 209, Exclusive),
            fcntl(2, 0, 9, Exclusive),
            fcntl(1, 100, 109, Exclusive),
        ]);
        let asked = fcntl(3, 0, 1000, Shared);
        assert_eq!(in_the_way(&table, asked), Some((1, 100, 109)));
        assert_eq!(table.conflicts(&asked.holder, asked.range, Shared), [1, 2]);
        assert_eq!(in_the_way(&table, fcntl(3, 0, 50, Shared)), Some((2, 0, 9)));
    }

    #[test]
    fn an_unlock_in_the_middle_splits() {
        let mut table = table(&[fcntl(1, 0, 99, Exclusive)]);
        table.unset(1, Some(Posix), range(40, 59));
        assert_eq!(held(&table, 1), [(0, 39, Exclusive), (60, 99, Exclusive)]);
        assert_eq!(in_the_way(&table, fcntl(2, 40, 59, Exclusive)), None);
        assert_eq!(
            in_the_way(&table, fcntl(2, 40, 60, Exclusive)),
            Some((1, 60, 99))
        );
        table.unset(1, Some(Posix), range(0, 39));
        table.unset(2, Some(Posix), Range::WHOLE);
        assert_eq!(held(&table, 1), [(60, 99, Exclusive)]);
        table.unset(1, Some(Posix), Range::WHOLE);
        assert!(table.is_empty());
    }

    #[test]
    fn touching_locks_of_a_kind_become_one() {
        let mut merged = table(&[
            fcntl(1, 20, 29, Shared),
            fcntl(1, 0, 9, Shared),
            fcntl(2, 10, 19, Shared),
        ]);
        assert_eq!(held(&merged, 1), [(0, 9, Shared), (20, 29, Shared)]);
        merged.set(fcntl(1, 10, 19, Shared));
        assert_eq!(held(&merged, 1), [(0, 29, Shared)]);
        assert_eq!(held(&merged, 2), [(10, 19, Shared)]);

        let apart = table(&[fcntl(1, 0, 9, Shared), fcntl(1, 10, 19, Exclusive)]);
        assert_eq!(held(&apart, 1), [(0, 9, Shared), (10, 19, Exclusive)]);
    }

    #[test]
    fn a_part_is_upgraded_and_downgraded() {
        let mut table = table(&[fcntl(1, 0, 99, Shared), fcntl(1, 40, 59, Exclusive)]);
        assert_eq!(
            held(&table, 1),
            [(0, 39, Shared), (40, 59, Exclusive), (60, 99, Shared)]
        );
        table.set(fcntl(1, 30, 49, Exclusive));
        assert_eq!(
            held(&table, 1),
            [(0, 29, Shared), (30, 59, Exclusive), (60, 99, Shared)]
        );
        table.set(fcntl(1, 20, 70, Shared));
        assert_eq!(held(&table, 1), [(0, 99, Shared)]);
    }

    #[test]
    fn an_owner_keeps_its_place_when_it_converts_its_lock() {
        let mut table = table(&[fcntl(1, 50, 59, Shared), fcntl(2, 0, 9, Exclusive)]);
        table.set(fcntl(1, 50, 59, Exclusive));
        assert_eq!(
            in_the_way(&table, fcntl(3, 0, 99, Shared)),
            Some((1, 50, 59))
        );
    }

    #[test]
    fn both_ends_of_the_numbers_are_ordinary() {
        let end = u64::MAX;
        let mut table = table(&[fcntl(1, 0, 0, Shared), fcntl(1, end, end, Shared)]);
        assert_eq!(held(&table, 1), [(0, 0, Shared), (end, end, Shared)]);
        table.set(fcntl(1, 1, end - 1, Shared));
        assert_eq!(held(&table, 1), [(0, end, Shared)]);
        table.set(fcntl(1, end, end, Exclusive));
        table.set(fcntl(1, 0, 0, Exclusive));
        let parts = [
            (0, 0, Exclusive),
            (1, end - 1, Shared),
            (end, end, Exclusive),
        ];
        assert_eq!(held(&table, 1), parts);
        table.unset(1, None, range(0, end));
        assert!(table.is_empty());

        let last = Range::WHOLE.end;
        table.set(fcntl(1, 0, last, Exclusive));
        table.unset(1, None, range(last, last));
        table.unset(1, None, range(0, 0));
        assert_eq!(held(&table, 1), [(1, last - 1, Exclusive)]);
        assert_eq!(in_the_way(&table, fcntl(2, last, last, Exclusive)), None);
    }

    #[test]
    fn flock_and_fcntl_do_not_see_each_other() {
        let mut table = table(&[fcntl(1, 0, 9, Exclusive)]);
        let flock = holder(2, Some(Flock));
        assert_eq!(table.conflict(&flock, Range::WHOLE, Exclusive), None);
        table.set(Lock {
            holder: flock,
            range: Range::WHOLE,
            kind: Exclusive,
        });
        assert_eq!(in_the_way(&table, fcntl(2, 10, 10, Exclusive)), None);
        // One open file with locks of both spaces.
        table.set(fcntl(2, 20, 29, Exclusive));
        table.unset(2, Some(Posix), Range::WHOLE);
        assert_eq!(held(&table, 2), [(0, Range::WHOLE.end, Exclusive)]);
        table.drop_owner(2, Some(Flock));
        assert_eq!(held(&table, 2), []);
        assert_eq!(held(&table, 1), [(0, 9, Exclusive)]);
        table.drop_owner(1, Some(Posix));
        assert!(table.is_empty());
    }

    #[test]
    fn a_lock_of_unknown_space_is_in_the_way_of_other_programs_only() {
        let unknown = Holder {
            owner: 1,
            space: None,
            file: 1,
            pid: 7,
        };
        let lock = Lock {
            holder: unknown,
            range: Range::WHOLE,
            kind: Exclusive,
        };
        let table = table(&[lock]);
        for space in [None, Some(Flock), Some(Posix)] {
            let other = |pid| Holder {
                owner: 2,
                space,
                file: 2,
                pid,
            };
            assert_eq!(table.conflict(&other(7), lock.range, Shared), None);
            let found = table.conflict(&other(8), lock.range, Shared);
            assert_eq!(found, Some(lock));

            let mut reverse = Table::default();
            reverse.set(Lock {
                holder: other(7),
                ..lock
            });
            assert_eq!(reverse.conflict(&unknown, lock.range, Shared), None);
            let stranger = Holder { pid: 9, ..unknown };
            assert!(reverse.conflict(&stranger, lock.range, Shared).is_some());
        }
    }

    #[test]
    fn two_descriptors_of_a_program_still_conflict_in_a_known_space() {
        let mut table = Table::default();
        let one = Holder {
            owner: 1,
            space: Some(Flock),
            file: 1,
            pid: 7,
        };
        table.set(Lock {
            holder: one,
            range: Range::WHOLE,
            kind: Exclusive,
        });
        let two = Holder { owner: 2, ..one };
        assert!(table.conflict(&two, Range::WHOLE, Shared).is_some());
    }

    #[test]
    fn the_late_end_of_an_open_file_leaves_what_was_locked_by_another() {
        for space in SPACES {
            let mut lock = fcntl(1, 0, 9, Exclusive);
            lock.holder.space = space;
            let mut table = table(&[lock]);
            lock.holder.file = 2;
            table.set(lock);
            table.drop_file(1);
            assert_eq!(held(&table, 1), [(0, 9, Exclusive)]);
            table.drop_file(2);
            assert!(table.is_empty());
        }
    }

    #[test]
    fn an_unlock_of_unknown_space_means_every_space_and_the_other_way_round() {
        let lock = |space| Lock {
            holder: holder(1, space),
            range: range(0, 9),
            kind: Exclusive,
        };
        let all = [lock(None), lock(Some(Flock)), lock(Some(Posix))];
        let mut locks = table(&all);
        assert_eq!(locks.iter().count(), 3);
        locks.unset(1, None, range(0, 4));
        assert_eq!(held(&locks, 1), [(5, 9, Exclusive); 3]);
        locks.drop_owner(1, None);
        assert!(locks.is_empty());

        let mut locks = table(&all);
        locks.unset(1, Some(Posix), Range::WHOLE);
        assert_eq!(locks.iter().collect::<Vec<_>>(), [&all[1]]);
        let mut locks = table(&all);
        locks.drop_owner(1, Some(Flock));
        assert_eq!(locks.iter().collect::<Vec<_>>(), [&all[2]]);
    }

    /// Numbers that look random, the same in each run (Knuth's MMIX constants).
    struct Random(u64);

    impl Random {
        fn below(&mut self, limit: usize) -> usize {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            usize::try_from((self.0 >> 33) % limit as u64).unwrap()
        }
    }

    /// A file of which a few bytes at the beginning, a few at the end of all numbers, and all
    /// between as one, are looked at.
    const CELLS: usize = 17;
    const MIDDLE: usize = CELLS / 2;

    fn cell(number: usize) -> Range {
        let from_end = |number: usize| u64::MAX - (CELLS - 1 - number) as u64;
        match number {
            ..MIDDLE => range(number as u64, number as u64),
            MIDDLE => range(MIDDLE as u64, from_end(MIDDLE)),
            _ => range(from_end(number), from_end(number)),
        }
    }

    const SPACES: [Option<Space>; 3] = [None, Some(Flock), Some(Posix)];
    const OWNERS: usize = 4;

    /// What each owner holds in each space on each cell.
    type Model = [[[Option<Kind>; CELLS]; SPACES.len()]; OWNERS];

    /// Two owners each belong to one program.
    fn modelled(owner: usize, space: usize) -> Holder {
        Holder {
            owner: owner as u64,
            space: SPACES[space],
            file: 0,
            pid: u32::try_from(owner / 2).unwrap(),
        }
    }

    /// Whether the spaces are the same, or one is not known.
    fn may_be_same(one: usize, other: usize) -> bool {
        one == other || one == 0 || other == 0
    }

    fn owners_in_the_way(
        model: &Model,
        asked: (usize, usize),
        cells: std::ops::RangeInclusive<usize>,
        kind: Kind,
    ) -> Vec<u64> {
        let mut found = Vec::new();
        for (owner, spaces) in model.iter().enumerate() {
            let blocks = spaces.iter().enumerate().any(|(space, held)| {
                let known = asked.1 != 0 && space != 0;
                owner != asked.0
                    && may_be_same(space, asked.1)
                    && (known || owner / 2 != asked.0 / 2)
                    && held[cells.clone()].iter().any(|held| match held {
                        None => false,
                        Some(held) => (*held, kind) != (Shared, Shared),
                    })
            });
            if blocks {
                found.push(owner as u64);
            }
        }
        found
    }

    fn check(table: &Table, model: &Model) {
        let mut expected = 0;
        for (owner, spaces) in model.iter().enumerate() {
            for (space, held) in spaces.iter().enumerate() {
                for (number, kind) in held.iter().enumerate() {
                    // A lock for each run of cells: none is split or left unmerged.
                    let before = number.checked_sub(1).and_then(|before| held[before]);
                    expected += usize::from(kind.is_some() && *kind != before);
                    let bytes = cell(number);
                    let found: Vec<&Lock> = table
                        .iter()
                        .filter(|lock| lock.holder == modelled(owner, space))
                        .filter(|lock| lock.range.overlaps(&bytes))
                        .collect();
                    assert_eq!(found.first().map(|lock| lock.kind), *kind);
                    assert!(found.len() <= 1);
                    assert!(
                        found
                            .iter()
                            .all(|lock| lock.range.start <= bytes.start
                                && lock.range.end >= bytes.end)
                    );
                }
            }
        }
        assert_eq!(table.iter().count(), expected);
        assert_eq!(table.is_empty(), expected == 0);
    }

    #[test]
    fn many_steps_do_what_they_do_byte_by_byte() {
        let mut random = Random(4);
        let mut table = Table::default();
        let mut model: Model = Default::default();
        let mut refused = 0;
        for _ in 0..10_000 {
            let (owner, space) = (random.below(OWNERS), random.below(SPACES.len()));
            let (one, two) = (random.below(CELLS), random.below(CELLS));
            let cells = one.min(two)..=one.max(two);
            let bytes = range(cell(*cells.start()).start, cell(*cells.end()).end);
            let holder = modelled(owner, space);
            match random.below(16) {
                0 => {
                    table.drop_owner(holder.owner, holder.space);
                    for (other, held) in model[owner].iter_mut().enumerate() {
                        if may_be_same(space, other) {
                            *held = Default::default();
                        }
                    }
                }
                1..8 => {
                    table.unset(holder.owner, holder.space, bytes);
                    for (other, held) in model[owner].iter_mut().enumerate() {
                        if may_be_same(space, other) {
                            held[cells.clone()].fill(None);
                        }
                    }
                }
                choice => {
                    let kind = if choice < 13 { Shared } else { Exclusive };
                    let expected = owners_in_the_way(&model, (owner, space), cells.clone(), kind);
                    let mut owners = table.conflicts(&holder, bytes, kind);
                    owners.sort_unstable();
                    assert_eq!(owners, expected);
                    let first = table.conflict(&holder, bytes, kind);
                    assert_eq!(first.is_some(), !expected.is_empty());
                    if let Some(lock) = first {
                        assert!(expected.contains(&lock.holder.owner));
                        assert!(lock.range.overlaps(&bytes));
                        refused += 1;
                    } else {
                        table.set(Lock {
                            holder,
                            range: bytes,
                            kind,
                        });
                        model[owner][space][cells].fill(Some(kind));
                    }
                }
            }
            check(&table, &model);
        }
        assert!(
            refused > 500,
            "{refused} conflicts are too few to mean much"
        );
    }

    #[test]
    fn two_that_wait_for_each_other_are_found() {
        let mut waits = Waits::default();
        assert!(!waits.would_deadlock(1, &[2]));
        let wait = waits.begin(1, vec![2]);
        assert!(waits.would_deadlock(2, &[1]));
        assert!(waits.would_deadlock(2, &[5, 1]));
        assert!(!waits.would_deadlock(3, &[1]));
        waits.end(wait);
        assert!(!waits.would_deadlock(2, &[1]));
        assert!(waits.waiting.is_empty());
    }

    #[test]
    fn a_circle_of_three_is_found() {
        let mut waits = Waits::default();
        let _one = waits.begin(1, vec![9, 2]);
        let two = waits.begin(2, vec![8]);
        assert!(!waits.would_deadlock(3, &[1]));
        waits.change(&two, vec![7, 3]);
        assert!(waits.would_deadlock(3, &[1]));
        waits.end(two);
        assert!(!waits.would_deadlock(3, &[1]));
    }

    #[test]
    fn each_thread_of_an_owner_can_wait() {
        let mut waits = Waits::default();
        let one = waits.begin(1, vec![2]);
        let two = waits.begin(1, vec![3]);
        assert!(waits.would_deadlock(2, &[1]));
        assert!(waits.would_deadlock(3, &[1]));
        waits.end(one);
        assert!(!waits.would_deadlock(2, &[1]));
        assert!(waits.would_deadlock(3, &[1]));
        waits.end(two);
        assert!(!waits.would_deadlock(3, &[1]));
    }

    #[test]
    fn a_search_ends() {
        let mut waits = Waits::default();
        // A circle that the asking owner is not part of.
        let _one = waits.begin(1, vec![2]);
        let _two = waits.begin(2, vec![1]);
        assert!(!waits.would_deadlock(3, &[1]));
        let last = Waits::SEARCHED as u64;
        let _chain: Vec<Wait> = (10..10 * last)
            .map(|owner| waits.begin(owner, vec![owner + 1]))
            .collect();
        assert!(waits.would_deadlock(500, &[10]));
        assert!(!waits.would_deadlock(9 * last, &[10]));
    }
}
