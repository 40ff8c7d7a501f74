//! Listings of directories that the kernel keeps (`FOPEN_CACHE_DIR`), so that a tree that is walked
//! again costs an OPENDIR and a RELEASEDIR for each directory.
//!
//! The kernel compares its idea of the directory's mtime only. That is as old as attributes may be,
//! and two changes within one tick of the file system's clock have the same mtime. So it may keep a
//! listing only of a directory that was left alone for a while before it was read, and may use it
//! only while mtime and ctime below are those of then. That is decided when a directory is opened: who
//! keeps one open, and goes back to its beginning, may see what it was for as long as attributes live.

use std::time::{Duration, SystemTime};

use fuser::FopenFlags;

use crate::sys::fs::{Stat, Timestamp};

/// How long a directory must have been left alone. File systems keep times in steps of up to two
/// seconds (FAT).
const LEFT_ALONE: Duration = Duration::from_secs(3);

/// What the kernel does with a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// It asks for it, and keeps nothing.
    Once,
    /// It drops what it has, and keeps what it reads.
    Fill,
    /// It goes by what it has kept.
    Keep,
}

impl Use {
    /// What OPENDIR is answered for that.
    pub fn flags(self) -> FopenFlags {
        match self {
            Use::Once => FopenFlags::empty(),
            Use::Fill => FopenFlags::FOPEN_CACHE_DIR,
            Use::Keep => FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE,
        }
    }
}

/// What is known of a directory's last listing.
#[derive(Debug, Clone, Copy)]
pub struct Listing {
    mtime: Timestamp,
    ctime: Timestamp,
    /// When these times were first seen, in the time of `boottime`.
    seen: Duration,
    /// How many have the directory open and fill what is kept, or go by it. What is kept is filled
    /// by one alone: another, which stands in the middle of an older listing, could go on with that.
    open: u32,
    /// Somebody fills it who has opened it at these times.
    filling: bool,
    /// It was filled, and all that was told is true for everybody.
    kept: bool,
}

impl Listing {
    /// A directory is opened that has these attributes, at the time `now` of `boottime`. Where the
    /// clock of its file system is this host's, `clock` is what that shows.
    pub fn at_open(
        last: Option<Listing>,
        stat: &Stat,
        now: Duration,
        clock: Option<SystemTime>,
    ) -> (Listing, Use) {
        let of_now = Listing {
            mtime: stat.mtime,
            ctime: stat.ctime,
            seen: now,
            open: last.map_or(0, |last| last.open),
            filling: false,
            kept: false,
        };
        let is_of_now = |last: &Listing| last.mtime == stat.mtime && last.ctime == stat.ctime;
        let mut listing = last.filter(is_of_now).unwrap_or(of_now);
        let left_alone = now.saturating_sub(listing.seen) >= LEFT_ALONE
            || clock.is_some_and(|clock| age(stat.ctime, clock) >= LEFT_ALONE);
        let used = match (left_alone, listing.kept, listing.open) {
            (true, true, _) => Use::Keep,
            (true, false, 0) => Use::Fill,
            _ => Use::Once,
        };
        listing.filling |= used == Use::Fill;
        listing.open += u32::from(used != Use::Once);
        (listing, used)
    }

    /// A directory is closed that was opened for `used`. With `sound`, all that was told of its
    /// entries is true for everybody.
    pub fn at_release(&mut self, used: Use, sound: bool) {
        if used == Use::Once {
            return;
        }
        self.open = self.open.saturating_sub(1);
        if used == Use::Fill {
            self.kept = self.filling && sound;
            self.filling = false;
        } else if !sound {
            self.kept = false;
        }
    }
}

/// How long ago a time was; zero where it is to come.
fn age(time: Timestamp, clock: SystemTime) -> Duration {
    let clock = clock
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    match u64::try_from(time.sec) {
        Ok(sec) => clock.saturating_sub(Duration::new(sec, time.nsec)),
        Err(_) => clock,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(mtime: i64, ctime: i64) -> Stat {
        let here = crate::sys::fs::statx(std::fs::File::open("/").unwrap(), c"", 0).unwrap();
        let time = |sec| Timestamp { sec, nsec: 5 };
        Stat {
            mtime: time(mtime),
            ctime: time(ctime),
            ..here
        }
    }

    #[derive(Default)]
    struct World {
        last: Option<Listing>,
        clock: bool,
    }

    impl World {
        fn opens(&mut self, mtime: i64, ctime: i64, now: u64) -> Use {
            let now = Duration::from_secs(now);
            let clock = self.clock.then(|| SystemTime::UNIX_EPOCH + now);
            let stat = directory(mtime, ctime);
            let (listing, used) = Listing::at_open(self.last, &stat, now, clock);
            self.last = Some(listing);
            used
        }

        fn closes(&mut self, used: Use, sound: bool) {
            self.last.as_mut().unwrap().at_release(used, sound);
        }

        fn lists(&mut self, mtime: i64, ctime: i64, now: u64) -> Use {
            let used = self.opens(mtime, ctime, now);
            self.closes(used, true);
            used
        }
    }

    fn with_clock() -> World {
        World {
            last: None,
            clock: true,
        }
    }

    #[test]
    fn one_that_was_left_alone_is_kept() {
        // The server's clock may differ; what counts is since when the times were seen.
        let mut world = World::default();
        let used = [100, 101, 103, 104].map(|now| world.lists(1, 1, now));
        assert_eq!(used, [Use::Once, Use::Once, Use::Fill, Use::Keep]);
        let mut world = with_clock();
        assert_eq!(
            [100, 101].map(|now| world.lists(1, 1, now)),
            [Use::Fill, Use::Keep]
        );
    }

    #[test]
    fn one_that_was_changed_is_read_again() {
        for (mtime, ctime) in [(2, 2), (1, 2), (0, 1)] {
            let mut world = with_clock();
            assert_eq!(world.lists(1, 1, 100), Use::Fill);
            assert_eq!(world.lists(1, 1, 100), Use::Keep);
            assert_eq!(world.lists(mtime, ctime, 100), Use::Fill, "{mtime} {ctime}");
        }
        // Perhaps in the same tick as it was read.
        let mut world = with_clock();
        let used = [100, 101, 103].map(|now| world.lists(99, 99, now));
        assert_eq!(used, [Use::Once, Use::Once, Use::Fill]);
        // The clock was set back.
        assert_eq!(with_clock().lists(200, 200, 100), Use::Once);
    }

    #[test]
    fn one_alone_fills_it() {
        let mut world = with_clock();
        assert_eq!(world.opens(1, 1, 100), Use::Fill);
        assert_eq!(world.lists(1, 1, 100), Use::Once);
        // It was changed before the first has come to its end, who may have read what was before.
        assert_eq!(world.lists(2, 2, 100), Use::Once);
        world.closes(Use::Fill, true);
        assert_eq!(world.opens(2, 2, 100), Use::Fill);
        world.closes(Use::Fill, true);
        // Somebody stands in the middle of it when it is changed.
        assert_eq!(world.opens(2, 2, 100), Use::Keep);
        assert_eq!(world.lists(3, 3, 100), Use::Once);
        world.closes(Use::Keep, true);
        assert_eq!(world.opens(3, 3, 100), Use::Fill);
    }

    #[test]
    fn what_may_be_wrong_for_others_is_not_kept() {
        let mut world = with_clock();
        assert_eq!(world.opens(1, 1, 100), Use::Fill);
        world.closes(Use::Fill, false);
        assert_eq!(world.opens(1, 1, 100), Use::Fill);
        world.closes(Use::Fill, true);
        assert_eq!(world.lists(1, 1, 100), Use::Keep);
    }
}
