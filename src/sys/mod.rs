//! The thinnest wrappers around system calls that the standard library does not offer.
//!
//! All `unsafe` code of the project stands here. A wrapper turns `-1` into an
//! [`io::Error`] and raw numbers into types, and decides nothing: *why* a call
//! is made is explained where it is made.

pub mod calls;
pub mod creds;
pub mod dirents;
pub mod fds;
pub mod fs;
pub mod locks;
pub mod mount;
pub mod mount_table;
pub mod process;
pub mod watch;

use std::ffi::{CString, OsStr};
use std::io;
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;

/// Turns the `-1` of a system call into the error that `errno` names.
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Like [`check`], for calls that give a byte count.
fn check_size(result: libc::ssize_t) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Repeats a call that a signal has interrupted.
///
/// # Errors
/// All others of the call.
pub fn again<T>(mut call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            other => return other,
        }
    }
}

/// A file name for a system call.
///
/// # Errors
/// `EINVAL` for a name that holds a NUL byte.
pub fn c_name(name: &OsStr) -> io::Result<CString> {
    CString::new(name.as_bytes()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}
