//! The classic lock file `X.lock`, held within a turn, for programs that know nothing of turns.
//!
//! liblockfile, procmail, dovecot, mutt, exim and postfix make it with `link(2)` or `O_EXCL` and
//! remove it with `unlink(2)`. Among dotlockfs hosts nothing rests on it: they have their turns.

use std::ffi::CStr;
use std::io;

use super::directory::{Directory, display};
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
