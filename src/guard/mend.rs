//! After a broken turn: the file is fenced against what its holder may still have under way.
//!
//! The steps are those of [`crate::lock::fence`]; here is what they do to the file itself.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use crate::backing::{Caller, Credentials, Kind, Kinds, copy};
use crate::config::{Fence as Policy, Rule};
use crate::lock::fence::{self, Fence};
use crate::lock::{Directory, Identity, LockNames, RealDirectory, Unfinished, tail};
use crate::sys;
use crate::sys::fs::{SetTime, Stat};
use crate::sys::process::boottime;

/// The pause before a file is copied again that changed while it was copied, and the longest: only
/// the old holder does that, and if it lives its turn comes to an end soon.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
/// How long one turn tries that; then the waiting calls are looked at, and the next one tries.
const LONGEST_TRIAL: Duration = Duration::from_secs(5);
/// As much of the end of a file is searched for the end of a record at a time.
const TAIL: u64 = 64 * 1024;
/// How far back: longer records are not held back either.
const LONGEST_RECORD: u64 = super::records::HELD_BACK_MAX as u64;

/// Puts the file that is named in the place of the guarded one.
pub type Put<'a> = dyn Fn(&CStr) -> io::Result<()> + 'a;

/// A file whose lock was broken, and how it is to be mended.
pub struct Mending<'a> {
    /// Its directory.
    pub dir: &'a RealDirectory,
    /// Its name there.
    pub name: &'a CStr,
    /// The names of its lock.
    pub names: &'a LockNames,
    /// What the rule says of fences and records.
    pub rule: &'a Rule,
    /// For messages.
    pub label: &'a str,
    /// The turn that has inherited the duty.
    pub turn: u64,
    /// The claim that holds it.
    pub claim: &'a CStr,
    /// Shows a sign of life, where that is due: a copy may take longer than `stale_after`.
    pub show_life: &'a dyn Fn(),
    /// Whether that turn may still do something.
    pub is_prompt: &'a dyn Fn() -> io::Result<()>,
    /// How the copy takes the place of the file.
    pub put: &'a Put<'a>,
}

/// A copy that is to take the place of the file.
struct Copy {
    old: Identity,
    size: u64,
    new: Identity,
}

impl Mending<'_> {
    /// Does all that is to be done before the first update under the turn.
    ///
    /// # Errors
    /// Those of the directory and the file; `ETIMEDOUT` where the turn has become slow, or the file
    /// does not hold still. The duty goes on to the next turn then.
    pub fn mend(&self) -> io::Result<()> {
        (self.is_prompt)()?;
        let (dir, names) = (self.dir, self.names);
        fence::retract(dir, names, self.at(), self.is_prompt)?;
        let newest = fence::newest(dir, names, self.at())?;
        if let Some((k, Some(fence))) = &newest {
            let completed = fence::complete(dir, fence, |staged| self.put(staged, fence))?;
            if completed {
                log::info!("{}: completed fence {k} of another host", self.label);
            }
        }
        fence::sweep(dir, names, self.at(), self.is_prompt)?;
        if self.rule.fence == Policy::Off {
            log::warn!("{}: goes on without a fence, as its rule says", self.label);
            return Ok(());
        }
        let Some(now) = dir.look(self.name)?.filter(Stat::is_file) else {
            return Ok(());
        };
        if now.size > self.rule.fence_limit {
            return self.too_large(now.size);
        }
        let number = rand::random();
        let (making, staged) = (names.copy(number), names.stage(number));
        let (k, last) = newest.map_or((0, 0), |(k, fence)| {
            (k, fence.map_or(0, |fence| fence.turn))
        });
        let fenced = self.fence(&making, &staged, k + 1, last);
        if fenced.is_err() {
            // Unless it was published: then whoever mends next needs it.
            let unpublished = fence::newest(dir, names, self.at()).is_ok_and(|newest| {
                let fence = newest.and_then(|(_, fence)| fence);
                fence.is_none_or(|fence| fence.staged != staged)
            });
            if unpublished {
                let _ = dir.remove(&making);
                let _ = dir.remove(&staged);
            }
        }
        fenced
    }

    fn at(&self) -> fence::At<'_> {
        (self.claim, boottime())
    }

    fn too_large(&self, size: u64) -> io::Result<()> {
        let (label, limit) = (self.label, self.rule.fence_limit);
        let sizes = format!("{size} bytes, more than fence_limit ({limit})");
        if self.rule.fence == Policy::Require {
            log::error!("{label}: its lock was broken, and it cannot be fenced: {sizes}");
            return Err(io::Error::from_raw_os_error(libc::EFBIG));
        }
        log::warn!(
            "{label}: its lock was broken, and it is not fenced: {sizes}; a late write of the old \
             holder may still reach it"
        );
        Ok(())
    }

    fn fence(&self, making: &CStr, staged: &CStr, k: u64, last: u64) -> io::Result<()> {
        let (dir, names) = (self.dir, self.names);
        let Some(copy) = self.copy(making, last)? else {
            return Ok(());
        };
        dir.rename(making, staged)?;
        let fence = Fence {
            turn: self.turn,
            old: copy.old.ino,
            size: copy.size,
            new: copy.new.ino,
            staged: staged.to_owned(),
        };
        let is_prompt = || (self.is_prompt)();
        if !fence::publish(dir, names, (k, &fence), is_prompt)? {
            log::warn!("{}: another host fences it", self.label);
            return Err(io::Error::from_raw_os_error(libc::ETIMEDOUT));
        }
        (self.is_prompt)()?;
        if !fence::complete(dir, &fence, |staged| self.put(staged, &fence))? {
            // A later mender has been here.
            return Err(io::Error::from_raw_os_error(libc::ETIMEDOUT));
        }
        fence::clean(dir, names, k);
        log::warn!(
            "{}: fenced after turn {} was broken: {} bytes were copied (fence {k})",
            self.label,
            self.turn - 1,
            copy.size
        );
        Ok(())
    }

    /// Renames a fence's copy over the file, if that is still the file which it is a copy of.
    fn put(&self, staged: &CStr, fence: &Fence) -> io::Result<()> {
        match self.dir.look(self.name)? {
            Some(now) if now.ino == fence.old => {
                let like_it = |copy: &Stat| {
                    copy.is_file() && copy.nlink == 1 && (copy.uid, copy.gid) == (now.uid, now.gid)
                };
                if self.dir.look(staged)?.is_none_or(|copy| like_it(&copy)) {
                    return (self.put)(staged);
                }
                // Who may make names in the directory can forge a fence, but must not get a file
                // replaced that is not theirs.
                log::error!(
                    "{}: somebody has forged a fence that would put another file in its place; it \
                     is not",
                    self.label
                );
                self.dir.remove(staged)?;
                Err(io::Error::from_raw_os_error(libc::ETIMEDOUT))
            }
            _ => {
                // Renamed away, as logrotate does, or deleted: the name must not get it back.
                log::warn!(
                    "{}: was moved or removed while it was fenced, and stays so",
                    self.label
                );
                self.dir.remove(staged)
            }
        }
    }

    /// Step: copies the file, up to where it is whole. `None` where there is no file any more.
    fn copy(&self, making: &CStr, last: u64) -> io::Result<Option<Copy>> {
        let kind = Kinds::default().of(0, self.dir.fd())?;
        // Not by the client's pages; see Overlay::flags_below.
        let direct = if kind == Kind::Nfs { libc::O_DIRECT } else { 0 };
        let flags = libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK | direct;
        let source = sys::fs::openat(self.dir.fd(), self.name, flags, 0)?;
        let look = || sys::fs::statx(&source, c"", libc::AT_STATX_FORCE_SYNC);
        let deadline = boottime() + LONGEST_TRIAL;
        let mut pause = FIRST_PAUSE;
        loop {
            (self.is_prompt)()?;
            let before = look()?;
            let size = self.whole(&source, &before, last)?;
            let new = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW | direct;
            let copy = sys::fs::openat(self.dir.fd(), making, new, 0o600)?;
            copy::data(&source, &copy, size, || {
                (self.show_life)();
                (self.is_prompt)()
            })?;
            copy::attributes(&source, &copy, &before)?;
            sys::fs::set_times(&copy, SetTime::To(before.atime), SetTime::To(before.mtime))?;
            sys::fs::fsync(&copy, false)?;
            let after = look()?;
            let named = self.dir.look(self.name)?;
            if named.map(Identity::from) != Some(before.into()) {
                self.dir.remove(making)?;
                return Ok(None);
            }
            let new = sys::fs::statx(&copy, c"", libc::AT_STATX_FORCE_SYNC)?;
            if (after.size, after.ctime) == (before.size, before.ctime) && new.size == size {
                return Ok(Some(Copy {
                    old: before.into(),
                    size,
                    new: new.into(),
                }));
            }
            self.dir.remove(making)?;
            if boottime() >= deadline {
                log::warn!(
                    "{}: cannot be copied for a fence, since it changes all the while: is there a \
                     program that writes to it without dotlockfs?",
                    self.label
                );
                return Err(io::Error::from_raw_os_error(libc::ETIMEDOUT));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
            (self.show_life)();
        }
    }

    /// How many bytes of the file are whole: without a part of a write that was under way, and, if
    /// records are known, without half a record.
    fn whole(&self, source: &OwnedFd, stat: &Stat, last: u64) -> io::Result<u64> {
        let mut size = stat.size;
        let cut = |size: &mut u64, end: u64, what: &str| {
            if end < *size {
                let (label, bytes) = (self.label, *size - end);
                log::warn!("{label}: {bytes} bytes at {end} are left out: {what}");
                *size = end;
            }
        };
        if let Some(write) = self.unfinished(stat.ino, last)? {
            let end = write.whole(size);
            cut(&mut size, end, "a write that did not come to its end");
        }
        if let Some(terminator) = &self.rule.record {
            let left = tail::look(self.dir, self.names)?.filter(|left| *left <= size);
            let end = last_end(source, size, terminator)?.max(left.unwrap_or(0));
            cut(&mut size, end, "a record that was not finished");
        }
        Ok(size)
    }

    /// The write that a holder of a broken turn has noted in its claim. `last` is the turn of the
    /// fence before: what was before that is mended.
    fn unfinished(&self, ino: u64, last: u64) -> io::Result<Option<Unfinished>> {
        for turn in (last.max(1)..self.turn).rev() {
            let name = self.names.turn(turn);
            let (holder, ender) = (
                self.dir.identity(&name)?,
                self.dir.identity(&self.names.done(turn))?,
            );
            if holder.is_none() || holder == ender {
                // One that ended well: all was well then.
                return Ok(None);
            }
            let write = Unfinished::parse(&self.dir.read_if_ours(&name)?);
            let write = write.filter(|write| (write.turn, write.ino) == (turn, ino));
            if write.is_some() {
                return Ok(write);
            }
        }
        Ok(None)
    }
}

/// The end of the last whole record within the first `size` bytes; or `size` where there is none as
/// far back as a record can reach.
fn last_end(file: &OwnedFd, size: u64, terminator: &[u8]) -> io::Result<u64> {
    let overlap = terminator.len() as u64 - 1;
    let mut end = size;
    while end > 0 && size - end <= LONGEST_RECORD {
        let start = end.saturating_sub(TAIL);
        let until = (end + overlap).min(size);
        let mut piece = vec![0; (until - start) as usize];
        let mut done = 0;
        while done < piece.len() {
            match sys::fs::pread(file, &mut piece[done..], start + done as u64)? {
                0 => return Ok(size),
                len => done += len,
            }
        }
        let found = piece
            .windows(terminator.len())
            .rposition(|window| window == terminator);
        if let Some(at) = found {
            return Ok(start + (at + terminator.len()) as u64);
        }
        end = start;
    }
    // No file of such records, it seems.
    Ok(size)
}

/// Runs `mend` as one after another of those who may be permitted to: the daemon, the owner of the
/// file, the program that waits.
///
/// # Errors
/// The first refusal, where all are refused; other errors at once.
pub fn as_whoever_may(
    credentials: &Credentials,
    dir: &RealDirectory,
    name: &CString,
    caller: &Caller,
    mend: impl Fn() -> io::Result<()>,
) -> io::Result<()> {
    let owner = dir.look(name)?.map(|stat| Caller {
        uid: stat.uid,
        gid: stat.gid,
        groups: [].into(),
    });
    let mut refusal = None;
    for who in [Some(credentials.own().clone()), owner, Some(caller.clone())] {
        let Some(who) = who else { continue };
        let _assumed = credentials.assume(&who)?;
        match mend() {
            Err(error) if matches!(error.raw_os_error(), Some(libc::EACCES | libc::EPERM)) => {
                refusal.get_or_insert(error);
            }
            other => return other,
        }
    }
    Err(refusal.unwrap_or_else(|| io::Error::from_raw_os_error(libc::EACCES)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn half_a_record_is_found_however_long_it_is() {
        let world = tempfile::tempdir().unwrap();
        let path = world.path().join("log");
        let long = "x".repeat(3 * TAIL as usize + 7);
        for (whole, half, terminator) in [
            ("a\n", "b", "\n"),
            ("a\n", "", "\n"),
            ("", "", "\n"),
            ("a--", "b-", "--"),
            ("a\n", long.as_str(), "\n"),
            (&format!("{long}--"), long.as_str(), "--"),
        ] {
            std::fs::write(&path, format!("{whole}{half}")).unwrap();
            let file: OwnedFd = File::open(&path).unwrap().into();
            let size = (whole.len() + half.len()) as u64;
            let end = last_end(&file, size, terminator.as_bytes()).unwrap();
            assert_eq!(end, whole.len() as u64);
        }
        std::fs::write(&path, "no record").unwrap();
        let file: OwnedFd = File::open(&path).unwrap().into();
        assert_eq!(last_end(&file, 9, b"\n").unwrap(), 9);
        // A terminator across two pieces.
        let text = format!("{}--{}", "a".repeat(99), "b".repeat(TAIL as usize - 1));
        std::fs::write(&path, &text).unwrap();
        let file: OwnedFd = File::open(&path).unwrap().into();
        assert_eq!(last_end(&file, text.len() as u64, b"--").unwrap(), 101);
    }
}
