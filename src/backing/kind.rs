//! What kind of file system a file is on: NFS needs to be written in one certain way.

use std::io;
use std::os::fd::AsFd;

use dashmap::DashMap;

use crate::sys;

/// `NFS_SUPER_MAGIC` of statfs(2).
const NFS: i64 = 0x6969;

/// The kind of a file system, as far as it changes what must be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// NFS of any version. While a descriptor is open for buffered writing, its client takes
    /// changes of the file for its own and keeps stale pages; so guarded files are written with
    /// `O_DIRECT|O_DSYNC`. NFS direct I/O knows no alignment rule.
    Nfs,
    /// Anything else; written through the page cache, and synced.
    Other,
}

/// The kinds of the file systems met so far, by device number.
#[derive(Debug, Default)]
pub struct Kinds {
    by_device: DashMap<u64, Kind>,
}

impl Kinds {
    /// The kind of the file system with device number `dev`, on which `fd` is open.
    ///
    /// # Errors
    /// Those of `fstatfs(2)`.
    pub fn of(&self, dev: u64, fd: impl AsFd) -> io::Result<Kind> {
        if let Some(kind) = self.by_device.get(&dev) {
            return Ok(*kind);
        }
        // f_type's width differs between architectures.
        #[allow(clippy::unnecessary_cast)]
        let kind = match sys::fs::fstatfs(fd)?.f_type as i64 {
            NFS => Kind::Nfs,
            _ => Kind::Other,
        };
        self.by_device.insert(dev, kind);
        Ok(kind)
    }
}
