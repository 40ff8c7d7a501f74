//! Waiting for names in directories, by inotify(7).

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::{check, check_size};

/// More than the largest event.
const BUFFER: usize = 4096;

/// Directories in which names may appear.
#[derive(Debug)]
pub struct Watch(OwnedFd);

impl Watch {
    /// A watch of no directory yet.
    ///
    /// # Errors
    /// Those of `inotify_init1(2)`.
    pub fn new() -> io::Result<Watch> {
        // SAFETY: takes flags only; a non-negative result is a new descriptor that nobody else owns.
        unsafe {
            let fd = check(libc::inotify_init1(libc::IN_CLOEXEC))?;
            Ok(Watch(OwnedFd::from_raw_fd(fd)))
        }
    }

    /// Watches this directory too.
    ///
    /// # Errors
    /// Those of `inotify_add_watch(2)`.
    pub fn add(&self, directory: &CStr) -> io::Result<()> {
        let events = libc::IN_CREATE | libc::IN_MOVED_TO | libc::IN_ONLYDIR;
        // SAFETY: the path is NUL-terminated and outlives the call.
        check(unsafe { libc::inotify_add_watch(self.0.as_raw_fd(), directory.as_ptr(), events) })
            .map(drop)
    }

    /// Waits until a name has appeared in one of them.
    ///
    /// # Errors
    /// Those of `read(2)`.
    pub fn wait(&self) -> io::Result<()> {
        let mut buffer = [0u8; BUFFER];
        // SAFETY: the buffer has room for as many bytes as are asked for, and nobody looks at them.
        check_size(unsafe {
            libc::read(self.0.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len())
        })
        .map(drop)
    }
}
