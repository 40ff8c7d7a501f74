//! The directory below the mount: whose credentials calls are made with, what kind of file
//! system it is, and how a file that is only known by a descriptor is reached again.

pub mod copy;
pub mod credentials;
pub mod freshness;
pub mod kind;

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

pub use credentials::{Caller, Credentials};
pub use freshness::{Freshness, Freshnesses};
pub use kind::{Kind, Kinds};

/// A path by which this process reaches the file that `fd` refers to, even where `fd` is an
/// `O_PATH` descriptor and the file has no name any more. See proc_pid_fd(5).
pub fn proc_path(fd: impl AsFd) -> CString {
    CString::new(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())).expect("holds no NUL byte")
}

/// Checks that what [`proc_path`] relies on is there.
///
/// # Errors
/// A sentence for the user.
pub fn check_proc() -> io::Result<()> {
    match std::fs::metadata("/proc/self/fd") {
        Ok(_) => Ok(()),
        Err(error) => Err(io::Error::new(
            error.kind(),
            format!("/proc is not mounted, and files are reached through it: {error}"),
        )),
    }
}
