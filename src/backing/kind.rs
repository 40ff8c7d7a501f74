//! What kind of file system a file is on: NFS needs to be written in one certain way.

use std::io;
use std::os::fd::AsFd;

use dashmap::DashMap;

use crate::sys;

/// `NFS_SUPER_MAGIC` of statfs(2).
const NFS: i64 = 0x6969;

/// File systems of this host's disks: whoever has opened a file reads and writes it, and nobody is
/// asked again who that is. The numbers are those of linux/magic.h, and of XFS and F2FS.
const ON_DISK: [i64; 5] = [
    0xEF53,      // ext2, ext3, ext4
    0x5846_5342, // XFS
    0x9123_683E, // btrfs
    0xF2F5_2010, // F2FS
    0xCA45_1A4E, // bcachefs
];
/// The same in its memory.
const IN_MEMORY: [i64; 2] = [
    0x0102_1994, // tmpfs
    0x8584_58F6, // ramfs
];

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
    by_device: DashMap<u64, Known>,
}

/// What is known of a file system.
#[derive(Debug, Clone, Copy)]
struct Known {
    kind: Kind,
    local: bool,
    tells: bool,
}

impl Kinds {
    /// The kind of the file system with device number `dev`, on which `fd` is open.
    ///
    /// # Errors
    /// Those of `fstatfs(2)`.
    pub fn of(&self, dev: u64, fd: impl AsFd) -> io::Result<Kind> {
        self.known(dev, fd).map(|known| known.kind)
    }

    /// Whether that is a file system of this host alone, on which a file that is open is read and
    /// written whoever does it.
    ///
    /// # Errors
    /// Those of `fstatfs(2)`.
    pub fn is_local(&self, dev: u64, fd: impl AsFd) -> io::Result<bool> {
        self.known(dev, fd).map(|known| known.local)
    }

    /// Whether the times of a directory there tell that its entries have changed, and a position in it
    /// is good for another descriptor. Those of /proc change without a sign, and in memory positions
    /// are counts, before Linux 6.6.
    ///
    /// # Errors
    /// Those of `fstatfs(2)`.
    pub fn tells_of_changes(&self, dev: u64, fd: impl AsFd) -> io::Result<bool> {
        self.known(dev, fd).map(|known| known.tells)
    }

    fn known(&self, dev: u64, fd: impl AsFd) -> io::Result<Known> {
        if let Some(known) = self.by_device.get(&dev) {
            return Ok(*known);
        }
        // f_type's width differs between architectures.
        #[allow(clippy::unnecessary_cast)]
        let number = sys::fs::fstatfs(fd)?.f_type as i64;
        let on_disk = ON_DISK.contains(&(number & 0xFFFF_FFFF));
        let known = Known {
            kind: if number == NFS {
                Kind::Nfs
            } else {
                Kind::Other
            },
            local: on_disk || IN_MEMORY.contains(&(number & 0xFFFF_FFFF)),
            tells: on_disk || number == NFS,
        };
        self.by_device.insert(dev, known);
        Ok(known)
    }
}
