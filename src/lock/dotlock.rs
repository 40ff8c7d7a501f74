//! The classic lock file `X.lock`, held within a turn, for programs that know nothing of turns.
//!
//! liblockfile, procmail, dovecot, mutt, exim and postfix make it with `link(2)` or `O_EXCL` and
//! remove it with `unlink(2)`. Among dotlockfs hosts nothing rests on it: they have their turns.

use std::ffi::CStr;
use std::io;
use std::time::Duration;

use super::directory::{Directory, Sign, display};
use super::names::LockNames;
use super::record::Owner;
use super::turns::Turn;

/// What an attempt to make `X.lock` came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dotlock {
    /// It is ours.
    Held,
    /// Another program has it.
    Foreign,
}

/// Tries once to make `lock` a name of the claim that holds the turn. The caller holds the turn, so a lock file of a
/// dotlockfs daemon that stands there is left from a turn that is over, and is removed.
///
/// # Errors
/// Those of the directory.
pub fn take(dir: &impl Directory, turn: &Turn, lock: &CStr) -> io::Result<Dotlock> {
    for _ in 0..2 {
        let error = match dir.link(&turn.claim, lock) {
            Ok(()) => return Ok(Dotlock::Held),
            Err(error) => error,
        };
        if dir.identity(lock)? == Some(turn.identity) {
            // The answer to our link was lost on the way, or is left from an earlier turn of ours.
            return Ok(Dotlock::Held);
        }
        if error.kind() != io::ErrorKind::AlreadyExists {
            return Err(error);
        }
        let ours = dir
            .read(lock)
            .is_ok_and(|text| Owner::parse(&text).is_some());
        if !ours {
            return Ok(Dotlock::Foreign);
        }
        log::debug!("removing {}, left from a turn that is over", display(lock));
        dir.remove(lock)?;
    }
    Ok(Dotlock::Foreign)
}

/// A lock file of another program, as it was first seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Foreign {
    sign: Sign,
    since: Duration,
}

/// Whether the lock file of another program is left from one that is dead. `seen` keeps what was
/// seen before. It is observed for `stale_after`, since most programs never touch their lock files
/// again; only one that names a process of our own host, as dovecot writes it (`pid:host`), can be
/// judged at once. A bare number says nothing: it may be of any host.
///
/// # Errors
/// Those of the directory.
pub fn is_left_behind(
    dir: &impl Directory,
    lock: &CStr,
    seen: &mut Option<Foreign>,
    (host, stale_after): (&str, Duration),
    now: Duration,
) -> io::Result<bool> {
    let Some(sign) = dir.sign(lock)? else {
        *seen = None;
        return Ok(false);
    };
    let first = match *seen {
        Some(first) if first.sign == sign => first,
        _ => {
            let first = Foreign { sign, since: now };
            *seen = Some(first);
            if dir
                .read(lock)
                .is_ok_and(|text| names_dead_process(&text, host))
            {
                return Ok(true);
            }
            first
        }
    };
    Ok(now.saturating_sub(first.since) >= stale_after)
}

fn names_dead_process(text: &[u8], host: &str) -> bool {
    let Some((pid, of)) = std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.lines().next()?.trim().split_once(':'))
    else {
        return false;
    };
    let Ok(pid) = pid.parse::<u32>() else {
        return false;
    };
    let is_gone = || {
        std::fs::metadata(format!("/proc/{pid}"))
            .is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    };
    of == host && pid > 0 && is_gone()
}

/// Removes the lock file that was judged, and no other. It is renamed first, to a name that nobody
/// else uses: what is removed by its own name may be another program's, which came meanwhile.
///
/// # Errors
/// Those of the directory.
pub fn remove_foreign(
    dir: &impl Directory,
    names: &LockNames,
    lock: &CStr,
    judged: &Foreign,
) -> io::Result<()> {
    let aside = names.stage(rand::random());
    dir.rename(lock, &aside)?;
    if dir.identity(&aside)? == Some(judged.sign.identity) {
        return match dir.remove(&aside) {
            // Somebody keeps things in it; aside it keeps nobody out.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                log::warn!(
                    "{}: a lock directory left behind by a dead program was not empty; it is {} now, \
                     to be looked into and removed",
                    display(lock),
                    display(&aside)
                );
                Ok(())
            }
            other => other,
        };
    }
    // Given back, unless there is one again.
    dir.link(&aside, lock)?;
    dir.remove(&aside)
}

/// Removes `lock`, if it is still a name of the turn's claim.
///
/// # Errors
/// Those of the directory.
pub fn release(dir: &impl Directory, turn: &Turn, lock: &CStr) -> io::Result<()> {
    // Another program may have taken our lock for stale and made its own; the look costs a round
    // trip, but removing somebody's lock would cost a file.
    if dir.identity(lock)? == Some(turn.identity) {
        dir.remove(lock)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::RealDirectory;
    use std::ffi::OsStr;
    use std::sync::Arc;

    #[test]
    fn only_what_is_known_to_be_dead_is_removed() {
        let world = tempfile::tempdir().unwrap();
        let dir = RealDirectory::new(Arc::new(std::fs::File::open(world.path()).unwrap().into()));
        let names = LockNames::new(OsStr::new("mbox"));
        let (lock, path) = (c"mbox.lock", world.path().join("mbox.lock"));
        let limit = Duration::from_secs(1800);
        let judge = |text: &str, seen: &mut Option<Foreign>, now: u64| {
            std::fs::write(&path, text).unwrap();
            let now = Duration::from_secs(now);
            is_left_behind(&dir, lock, seen, ("here", limit), now).unwrap()
        };
        let own = std::process::id();
        for (text, dead) in [
            ("4194999:here\n".to_owned(), true),
            ("4194999:elsewhere\n".to_owned(), false),
            ("4194999\n".to_owned(), false),
            (format!("{own}:here\n"), false),
            (":here".to_owned(), false),
            ("\u{0}\u{ff}".to_owned(), false),
        ] {
            assert_eq!(judge(&text, &mut None, 0), dead, "{text:?}");
        }
        let mut seen = None;
        std::fs::write(&path, "").unwrap();
        let mut look = |now| {
            is_left_behind(
                &dir,
                lock,
                &mut seen,
                ("here", limit),
                Duration::from_secs(now),
            )
            .unwrap()
        };
        assert!(!look(100) && !look(1800));
        assert!(look(1900));
        let judged = seen.unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(world.path().join("other"), "").unwrap();
        std::fs::rename(world.path().join("other"), &path).unwrap();
        if dir.identity(lock).unwrap() != Some(judged.sign.identity) {
            remove_foreign(&dir, &names, lock, &judged).unwrap();
            assert!(path.exists(), "it is another program's");
        }
        let judged = Foreign {
            sign: dir.sign(lock).unwrap().unwrap(),
            ..judged
        };
        remove_foreign(&dir, &names, lock, &judged).unwrap();
        assert!(!path.exists());
    }
}
