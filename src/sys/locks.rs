//! Advisory locks of this process's own: flock(2), and open file description locks (fcntl(2)).

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use super::check;

/// A lock that somebody else holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// `F_RDLCK` or `F_WRLCK`.
    pub kind: i32,
    /// The first byte.
    pub start: u64,
    /// The last byte; `i64::MAX` up to the end of the file.
    pub end: u64,
    /// Whose it is; 0 where that cannot be told.
    pub pid: u32,
}

/// `flock(2)`.
///
/// # Errors
/// Those of the call.
pub fn flock(fd: impl AsFd, operation: i32) -> io::Result<()> {
    // SAFETY: takes numbers.
    check(unsafe { libc::flock(fd.as_fd().as_raw_fd(), operation) }).map(drop)
}

/// `F_OFD_SETLK` on the bytes from `start` to `end`, both included: sets or removes a lock,
/// without waiting.
///
/// # Errors
/// Those of fcntl(2): `EAGAIN` or `EACCES` where another lock is in the way.
pub fn set(fd: impl AsFd, kind: i32, start: u64, end: u64) -> io::Result<()> {
    let lock = description(kind, start, end);
    // SAFETY: the structure is valid for reading.
    check(unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) })
        .map(drop)
}

/// `F_OFD_GETLK`: a lock that is in the way of such a one, if there is one.
///
/// # Errors
/// Those of fcntl(2).
pub fn test(fd: impl AsFd, kind: i32, start: u64, end: u64) -> io::Result<Option<Found>> {
    let mut lock = description(kind, start, end);
    // SAFETY: the structure is valid for reading and writing.
    check(unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) })?;
    let kind = i32::from(lock.l_type);
    if kind == libc::F_UNLCK {
        return Ok(None);
    }
    let start = u64::try_from(lock.l_start).unwrap_or(0);
    let end = match u64::try_from(lock.l_len) {
        Ok(len) if len > 0 => start.saturating_add(len - 1),
        _ => i64::MAX as u64,
    };
    Ok(Some(Found {
        kind,
        start,
        end,
        // -1 for a lock that belongs to no process.
        pid: u32::try_from(lock.l_pid).unwrap_or(0),
    }))
}

fn description(kind: i32, start: u64, end: u64) -> libc::flock {
    // SAFETY: all fields are numbers, for which zero is a value; `l_pid` must be 0.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as _;
    lock.l_whence = libc::SEEK_SET as _;
    lock.l_start = i64::try_from(start).unwrap_or(i64::MAX);
    // 0 stands for "up to the end, wherever that will be".
    lock.l_len = match end {
        end if end >= i64::MAX as u64 => 0,
        end => (end - start + 1) as i64,
    };
    lock
}
