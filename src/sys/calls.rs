//! How many system calls this process has made that cost a way to the server.
//!
//! A daemon serves one mount, so what the process has called is what the mount has cost. They are
//! counted where they are made, so none is left out.

use std::sync::atomic::{AtomicU64, Ordering};

/// A call that is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// `linkat(2)`: the steps of a turn.
    Link,
    /// `statx(2)` with `AT_STATX_FORCE_SYNC`: a GETATTR on NFS.
    Getattr,
    /// `pwrite(2)`. On NFS each is one WRITE or more.
    Write,
    /// `fsync(2)` and `fdatasync(2)`.
    Sync,
}

const NUMBER: usize = Call::Sync as usize + 1;

static CALLS: [AtomicU64; NUMBER] = [const { AtomicU64::new(0) }; NUMBER];

/// One more is made.
pub(super) fn count(call: Call) {
    CALLS[call as usize].fetch_add(1, Ordering::Relaxed);
}

/// How many there have been.
pub fn made(call: Call) -> u64 {
    CALLS[call as usize].load(Ordering::Relaxed)
}
