//! Listings of directories that the kernel keeps (`FOPEN_CACHE_DIR`), so that a tree that is walked
//! again costs an OPENDIR and a RELEASEDIR for each directory.
//!
//! The kernel compares its idea of the directory's mtime only. That is as old as attributes may be,
//! and two changes within one tick of the file system's clock have the same mtime. So it may keep a
//! listing only of a directory that was left alone for a while before it was read, and may use it
//! only while mtime and ctime below are those of then.

use std::time::{Duration, SystemTime};

use fuser::FopenFlags;

use crate::sys::fs::{Stat, Timestamp};

/// How long a directory must have been left alone. File systems keep times in steps of up to two
/// seconds (FAT).
const LEFT_ALONE: Duration = Duration::from_secs(3);

/// What is known of a directory's last listing.
#[derive(Debug, Clone, Copy)]
pub struct Listing {
    mtime: Timestamp,
    ctime: Timestamp,
    /// When these times were first seen, in the time of `boottime`.
    seen: Duration,
    /// The kernel may have kept what it read since.
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
    ) -> (Listing, FopenFlags) {
        let last = last.filter(|last| last.mtime == stat.mtime && last.ctime == stat.ctime);
        let mut listing = last.unwrap_or(Listing {
            mtime: stat.mtime,
            ctime: stat.ctime,
            seen: now,
            kept: false,
        });
        let left_alone = now.saturating_sub(listing.seen) >= LEFT_ALONE
            || clock.is_some_and(|clock| age(stat.ctime, clock) >= LEFT_ALONE);
        let flags = match (left_alone, listing.kept) {
            (false, _) => FopenFlags::empty(),
            // What was kept before is dropped.
            (true, false) => FopenFlags::FOPEN_CACHE_DIR,
            (true, true) => FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE,
        };
        listing.kept = left_alone;
        (listing, flags)
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

    const CACHE: FopenFlags = FopenFlags::FOPEN_CACHE_DIR;
    const KEEP: FopenFlags = CACHE.union(FopenFlags::FOPEN_KEEP_CACHE);
    const NONE: FopenFlags = FopenFlags::empty();

    fn directory(mtime: i64, ctime: i64) -> Stat {
        let here = crate::sys::fs::statx(std::fs::File::open("/").unwrap(), c"", 0).unwrap();
        let time = |sec| Timestamp { sec, nsec: 5 };
        Stat {
            mtime: time(mtime),
            ctime: time(ctime),
            ..here
        }
    }

    /// Opens a directory again and again: (mtime, ctime, now), all in seconds.
    fn opens(clock: bool, opens: &[(i64, i64, u64)]) -> Vec<FopenFlags> {
        let mut last = None;
        let mut opened = |&(mtime, ctime, now): &(i64, i64, u64)| {
            let now = Duration::from_secs(now);
            let clock = clock.then(|| SystemTime::UNIX_EPOCH + now);
            let (listing, flags) = Listing::at_open(last, &directory(mtime, ctime), now, clock);
            last = Some(listing);
            flags
        };
        opens.iter().map(&mut opened).collect()
    }

    #[test]
    fn one_that_was_left_alone_is_kept() {
        // The server's clock may differ; what counts is since when the times were seen.
        let flags = opens(false, &[(1, 1, 100), (1, 1, 101), (1, 1, 103), (1, 1, 104)]);
        assert_eq!(flags, [NONE, NONE, CACHE, KEEP]);
        let flags = opens(true, &[(1, 1, 100), (1, 1, 101)]);
        assert_eq!(flags, [CACHE, KEEP]);
    }

    #[test]
    fn one_that_was_changed_is_read_again() {
        for changed in [(2, 2), (1, 2), (0, 1)] {
            let (mtime, ctime) = changed;
            let flags = opens(true, &[(1, 1, 100), (1, 1, 100), (mtime, ctime, 100)]);
            assert_eq!(flags, [CACHE, KEEP, CACHE], "{changed:?}");
        }
        // Perhaps in the same tick as it was read.
        let flags = opens(true, &[(99, 99, 100), (99, 99, 101), (99, 99, 103)]);
        assert_eq!(flags, [NONE, NONE, CACHE]);
        // The clock was set back.
        assert_eq!(opens(true, &[(200, 200, 100)]), [NONE]);
    }
}
