//! Fences: keeping what a broken turn's holder may still have under way from the file.
//!
//! A turn is broken when its holder is dead, hangs, or is cut off; but a write that it has sent may
//! reach the server at any later time, and go by the handle of the file that it was sent to. So
//! whoever has the next turn gives the guarded name X another file before anything else: it copies
//! the present file, of which it notes the size, and renames the copy over X. A late write then
//! meets the old file (measured on NFSv4.2 and NFSv3: it fails with ESTALE), and the holder that
//! wakes up can tell from the noted size whether its last append had come before the copy.
//!
//! The one who mends may itself die, hang or be late, at each of these steps:
//!
//! - [`retract`]: the notes of earlier ones, by which they would publish a fence, are removed.
//!   `link(2)` of a file that has no name fails, so none of them can from now on.
//! - [`newest`] and [`complete`]: a fence that was published, and whose copy is still there, is put
//!   in its place. (Who made it may have gone on to write after that; so one more follows.)
//! - [`sweep`]: other staged files, which replacements and dead menders have left, are removed: a
//!   late rename of them over X finds nothing.
//! - The file is copied to `.X.copy.R`, and that is renamed to `.X.stage.R`, where R is random, so
//!   that the name is used only once. (Were it made under that name, a server that repeats the call
//!   would make an empty one after it was renamed.)
//! - [`publish`]: `.X.fence.K` is made of the note by `link(2)`, K being the next number. The first
//!   one decides what the file is.
//! - [`complete`]: the copy is renamed over X. However late or often this is done, it is done once.

use std::ffi::{CStr, CString};
use std::io;
use std::time::Duration;

use super::directory::{Directory, Identity, display};
use super::names::{LAST, LockNames, Step};

/// How many fences are kept. A holder that sleeps through so many cannot tell any more what became
/// of its last write.
const KEPT: u64 = 16;

/// A claim of ours, for the listings that are needed, and the present time.
pub type At<'a> = (&'a CStr, Duration);

/// A fence, as it is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    /// The turn under which it was made: it is against all turns before.
    pub turn: u64,
    /// The inode number of the file that late writes may meet.
    pub old: u64,
    /// How many bytes of that file are in the new one. What ends behind them is not.
    pub size: u64,
    /// The inode number of the new file.
    pub new: u64,
    /// Where the new file stands until it is put in its place.
    pub staged: CString,
}

/// What became of a write under a turn that was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// What ends within so many bytes is in the file; what ends behind them is not, and cannot
    /// come any more.
    Cut(u64),
    /// It cannot be told.
    Unknown,
}

impl Fence {
    /// What the file of a fence contains.
    pub fn to_text(&self) -> String {
        let Fence {
            turn,
            old,
            size,
            new,
            ..
        } = self;
        let bytes = self.staged.as_bytes();
        let number = bytes.rsplit(|byte| *byte == b'.').next().unwrap_or(&[]);
        format!(
            "dotlockfs fence 1\nturn {turn}\nold {old}\nsize {size}\nnew {new}\nstage {}\n",
            String::from_utf8_lossy(number)
        )
    }

    /// Reads it back; `None` for anything that is not a fence of the file with these names.
    pub fn parse(contents: &[u8], names: &LockNames) -> Option<Fence> {
        let text = std::str::from_utf8(contents).ok()?;
        let mut lines = text.split('\n');
        if lines.next()? != "dotlockfs fence 1" {
            return None;
        }
        let mut field = |name: &str| -> Option<u64> {
            let line = lines.next()?.strip_prefix(name)?;
            line.strip_prefix(' ')?.parse().ok()
        };
        Some(Fence {
            turn: field("turn")?,
            old: field("old")?,
            size: field("size")?,
            new: field("new")?,
            staged: names.stage(field("stage")?),
        })
    }
}

/// The protocol's names of the file, from a fresh listing.
fn list(
    dir: &impl Directory,
    names: &LockNames,
    (claim, now): At<'_>,
) -> io::Result<Vec<(Step, CString)>> {
    Ok(dir.steps(names, claim, now, Duration::ZERO)?.0)
}

/// Step: no fence can be published any more by whoever had a turn before. `still_ours` is asked
/// between the listing and the removals: what a later mender has made since must not be met.
///
/// # Errors
/// Those of the directory and of `still_ours`.
pub fn retract(
    dir: &impl Directory,
    names: &LockNames,
    at: At<'_>,
    still_ours: impl Fn() -> io::Result<()>,
) -> io::Result<()> {
    remove(dir, list(dir, names, at)?, still_ours, |step| {
        step == Step::Note
    })
}

/// Removes those of the listed names that `which` chooses, if the turn is still ours after the
/// listing.
fn remove(
    dir: &impl Directory,
    steps: Vec<(Step, CString)>,
    still_ours: impl Fn() -> io::Result<()>,
    which: impl Fn(Step) -> bool,
) -> io::Result<()> {
    still_ours()?;
    for (_, name) in steps.into_iter().filter(|(step, _)| which(*step)) {
        log::info!("removing {}, left behind by a dead holder", display(&name));
        match dir.remove(&name) {
            // A directory can neither be linked nor take the place of a file.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
            Err(error) => {
                log::warn!(
                    "could not remove {}, and calls fail until it is gone: {error}",
                    display(&name)
                );
                return Err(error);
            }
            Ok(()) => {}
        }
    }
    Ok(())
}

/// Step: the newest fence, with its number; without what it says where somebody has forged it: a real
/// one is published whole.
///
/// # Errors
/// Those of the directory.
pub fn newest(
    dir: &impl Directory,
    names: &LockNames,
    at: At<'_>,
) -> io::Result<Option<(u64, Option<Fence>)>> {
    let numbers = list(dir, names, at)?.into_iter().filter_map(number);
    match numbers.max() {
        None => Ok(None),
        Some(k) => Ok(Some((k, read(dir, names, k)?))),
    }
}

fn number((step, _): (Step, CString)) -> Option<u64> {
    match step {
        Step::Fence(k) => Some(k),
        _ => None,
    }
}

fn read(dir: &impl Directory, names: &LockNames, k: u64) -> io::Result<Option<Fence>> {
    let name = names.fence(k);
    let text = dir.read_if_ours(&name)?;
    let fence = Fence::parse(&text, names);
    if fence.is_none() {
        log::error!(
            "{}: does not hold what dotlockfs writes there; somebody else has made it",
            display(&name)
        );
    }
    Ok(fence)
}

/// Step: removes all staged files, now that no fence that was published needs one. `still_ours`
/// as for [`retract`].
///
/// # Errors
/// Those of the directory and of `still_ours`.
pub fn sweep(
    dir: &impl Directory,
    names: &LockNames,
    at: At<'_>,
    still_ours: impl Fn() -> io::Result<()>,
) -> io::Result<()> {
    remove(dir, list(dir, names, at)?, still_ours, |step| {
        matches!(step, Step::Stage | Step::Copy)
    })
}

/// Step: makes `fence` the `k`-th of the file, unless there is one. Gives whether it is.
///
/// # Errors
/// Those of the directory; the fence may have been published or not, and whoever mends next finds
/// that out.
pub fn publish(
    dir: &impl Directory,
    names: &LockNames,
    (k, fence): (u64, &Fence),
    still_ours: impl FnOnce() -> io::Result<()>,
) -> io::Result<bool> {
    if k > LAST {
        log::error!(
            "the numbers of fences are used up, which takes a name that was made to harm: remove {}",
            display(&names.fence(LAST))
        );
        return Err(io::Error::from_raw_os_error(libc::EUCLEAN));
    }
    let note = names.note(rand::random());
    let identity = dir.create(&note, fence.to_text().as_bytes())?;
    let linked = still_ours().and_then(|()| dir.link(&note, &names.fence(k)));
    let published = match linked {
        Ok(()) => Ok(true),
        // Also after a lost answer.
        Err(error) => match dir.identity(&names.fence(k))? {
            Some(theirs) if theirs == identity => Ok(true),
            Some(_) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            _ => Err(error),
        },
    };
    // With the note goes the possibility to publish it late.
    let removed = dir.remove(&note);
    if published.is_ok() {
        removed?;
    }
    published
}

/// Step: puts the file of a published fence in the place of X, by `rename`, if that has not been
/// done. Gives whether it was left to be done.
///
/// # Errors
/// Those of the directory.
pub fn complete(
    dir: &impl Directory,
    fence: &Fence,
    rename: impl FnOnce(&CStr) -> io::Result<()>,
) -> io::Result<bool> {
    let Some(Identity { ino, .. }) = dir.identity(&fence.staged)? else {
        return Ok(false);
    };
    if ino != fence.new {
        // That name is used once. Somebody has forged it, or the fence; it is swept away.
        log::error!("{} is another file than it was", display(&fence.staged));
        return Ok(false);
    }
    match rename(&fence.staged) {
        Ok(()) => Ok(true),
        // An earlier call has done it, whose answer was lost.
        Err(_) if dir.identity(&fence.staged)?.is_none() => Ok(true),
        Err(error) => Err(error),
    }
}

/// Step: what became of a write to the file with inode number `ino`, which was sent under turn
/// `turn`. The caller has a later turn, and has mended what that inherited.
///
/// # Errors
/// Those of the directory.
pub fn fate(
    dir: &impl Directory,
    names: &LockNames,
    (turn, ino): (u64, u64),
    at: At<'_>,
) -> io::Result<Fate> {
    let mut numbers: Vec<u64> = list(dir, names, at)?
        .into_iter()
        .filter_map(number)
        .collect();
    numbers.sort_unstable();
    // The first that is against the turn: all before it are against earlier ones only.
    let mut before = 0;
    for k in numbers {
        let Some(fence) = read(dir, names, k)? else {
            return Ok(Fate::Unknown);
        };
        if fence.turn > turn {
            let is_first = k == before + 1;
            let is_meant = is_first && fence.old == ino;
            return Ok(if is_meant {
                Fate::Cut(fence.size)
            } else {
                Fate::Unknown
            });
        }
        before = k;
    }
    Ok(Fate::Unknown)
}

/// Step: removes fences that are so old that no write is expected to come back to them. The newest
/// always stays, since numbers must not start again.
pub fn clean(dir: &impl Directory, names: &LockNames, newest: u64) {
    // They go one by one, as they come.
    if let Some(old) = newest.checked_sub(KEPT).filter(|old| *old > 0) {
        let _ = dir.remove(&names.fence(old));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::RealDirectory;
    use std::ffi::OsStr;
    use std::path::Path;
    use std::sync::Arc;

    const NOW: At<'_> = (c"claim", Duration::ZERO);

    fn open(world: &Path) -> RealDirectory {
        std::fs::write(world.join("claim"), "").unwrap();
        RealDirectory::new(Arc::new(std::fs::File::open(world).unwrap().into()))
    }

    fn fence(names: &LockNames, turn: u64, old: u64, size: u64) -> Fence {
        Fence {
            turn,
            old,
            size,
            new: old + 1,
            staged: names.stage(turn),
        }
    }

    #[test]
    fn a_fence_reads_back() {
        let names = LockNames::new(OsStr::new("log"));
        let fence = fence(&names, 7, 100, 5000);
        assert_eq!(
            Fence::parse(fence.to_text().as_bytes(), &names),
            Some(fence)
        );
        for hostile in [
            "",
            "dotlockfs fence 1\n",
            "dotlockfs fence 2\nturn 1\n",
            "\0",
        ] {
            assert_eq!(Fence::parse(hostile.as_bytes(), &names), None);
        }
    }

    #[test]
    fn the_first_to_publish_decides_and_a_retracted_note_publishes_nothing() {
        let world = tempfile::tempdir().unwrap();
        let (dir, names) = (open(world.path()), LockNames::new(OsStr::new("log")));
        let (one, other) = (fence(&names, 5, 100, 10), fence(&names, 6, 100, 20));
        let is_ours = || Ok(());
        assert!(publish(&dir, &names, (1, &one), is_ours).unwrap());
        assert!(!publish(&dir, &names, (1, &other), is_ours).unwrap());
        assert_eq!(newest(&dir, &names, NOW).unwrap(), Some((1, Some(one))));
        let retracting = || retract(&dir, &names, NOW, || Ok(()));
        assert!(publish(&dir, &names, (2, &other), retracting).is_err());
        assert_eq!(newest(&dir, &names, NOW).unwrap().unwrap().0, 1);
    }

    #[test]
    fn the_first_fence_after_a_turn_tells_its_fate() {
        let world = tempfile::tempdir().unwrap();
        let (dir, names) = (open(world.path()), LockNames::new(OsStr::new("log")));
        let of = |turn, ino| fate(&dir, &names, (turn, ino), NOW).unwrap();
        assert_eq!(of(4, 100), Fate::Unknown);
        for (k, turn, old, size) in [(1, 5, 100, 10), (2, 8, 101, 30)] {
            let fence = fence(&names, turn, old, size);
            assert!(publish(&dir, &names, (k, &fence), || Ok(())).unwrap());
        }
        assert_eq!(of(4, 100), Fate::Cut(10));
        assert_eq!(of(4, 101), Fate::Unknown, "the file was another one");
        assert_eq!(
            of(5, 101),
            Fate::Cut(30),
            "a fence is not against its own turn"
        );
        assert_eq!(of(8, 102), Fate::Unknown);
        std::fs::remove_file(world.path().join(".log.fence.1")).unwrap();
        assert_eq!(of(4, 101), Fate::Unknown, "perhaps there was one before");
    }

    #[test]
    fn a_staged_file_is_put_in_its_place_once() {
        let world = tempfile::tempdir().unwrap();
        let (dir, names) = (open(world.path()), LockNames::new(OsStr::new("log")));
        let staged = names.stage(5);
        let new = dir.create(&staged, b"new").unwrap().ino;
        let fence = Fence {
            new,
            ..fence(&names, 5, 100, 3)
        };
        let rename = |name: &CStr| dir.rename(name, c"log");
        assert!(complete(&dir, &fence, rename).unwrap());
        assert!(!complete(&dir, &fence, rename).unwrap());
        assert_eq!(std::fs::read(world.path().join("log")).unwrap(), b"new");
        dir.create(&names.stage(6), b"left").unwrap();
        sweep(&dir, &names, NOW, || Ok(())).unwrap();
        assert!(dir.identity(&names.stage(6)).unwrap().is_none());
    }
}
