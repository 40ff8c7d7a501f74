//! How long the kernel may use what it was told of a file that is not guarded.
//!
//! An NFS client keeps attributes for a while itself, as its mount options say (nfs(5)), and the
//! kernel's time above us comes on top of that. Hence a third of what the mount keeps at the least:
//! what is seen through us is never older than that by more than this, and where the mount keeps
//! nothing (`noac`, `actimeo=0`) neither do we. Asking again costs a way to the daemon and back,
//! and not to the server: the client answers by what it has kept.

use std::time::Duration;

use dashmap::DashMap;

use crate::sys;

/// The longest time that a name may be used: as long as the kernel remembers a path it lets
/// everybody walk it, and takes a lock file for present. Also the time on all other file systems,
/// so that what is changed directly below is seen soon.
const LIFETIME: Duration = Duration::from_secs(1);
/// What an NFS client goes by if the mount does not say (`NFS_DEF_ACREGMIN` and `NFS_DEF_ACDIRMIN`
/// of linux/nfs_fs.h), in seconds.
const ACREGMIN: u32 = 3;
const ACDIRMIN: u32 = 30;
/// The part of the mount's times that the kernel above us may add to them.
const PART: u32 = 3;

/// Lifetimes on one file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Freshness {
    /// Of names.
    pub entry: Duration,
    /// Of the attributes of directories.
    pub directory: Duration,
    /// Of the attributes of other files.
    pub file: Duration,
}

impl Default for Freshness {
    fn default() -> Self {
        Freshness {
            entry: LIFETIME,
            directory: LIFETIME,
            file: LIFETIME,
        }
    }
}

/// The lifetimes on the file systems met so far, by device number.
#[derive(Debug, Default)]
pub struct Freshnesses {
    by_device: DashMap<u64, Freshness>,
}

impl Freshnesses {
    /// The lifetimes on the file system with this device number.
    pub fn of(&self, dev: u64) -> Freshness {
        if let Some(known) = self.by_device.get(&dev) {
            return *known;
        }
        let options = sys::mount_table::nfs_options(dev);
        let freshness = options.map_or_else(Freshness::default, |options| of_nfs(&options));
        self.by_device.insert(dev, freshness);
        freshness
    }
}

/// The lifetimes by the options that an NFS mount shows.
fn of_nfs(options: &str) -> Freshness {
    let mut seconds = (ACREGMIN, ACDIRMIN);
    let mut names = true;
    for option in options.split(',') {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        // Those that cannot be read count as the shortest.
        let number = || value.parse().unwrap_or(0);
        match name {
            "acregmin" => seconds.0 = number(),
            "acdirmin" => seconds.1 = number(),
            "actimeo" => seconds = (number(), number()),
            "noac" => seconds = (0, 0),
            "lookupcache" => names = value != "none",
            // A maximum below the minimum would count.
            "acregmax" => seconds.0 = seconds.0.min(number()),
            "acdirmax" => seconds.1 = seconds.1.min(number()),
            _ => {}
        }
        if name == "noac" {
            break;
        }
    }
    let part = |seconds: u32| Duration::from_secs(seconds.into()) / PART;
    let (file, directory) = (part(seconds.0), part(seconds.1));
    let entry = if names {
        directory.min(LIFETIME)
    } else {
        Duration::ZERO
    };
    Freshness {
        entry,
        directory,
        file,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(freshness: Freshness) -> [u128; 3] {
        let Freshness {
            entry,
            directory,
            file,
        } = freshness;
        [entry, directory, file].map(|time| time.as_millis())
    }

    #[test]
    fn the_options_of_the_mount_count() {
        let table = [
            ("rw,vers=4.2,rsize=1048576,hard", [1000, 10_000, 1000]),
            ("rw,acregmin=30,acregmax=60", [1000, 10_000, 10_000]),
            ("rw,acregmax=0", [1000, 10_000, 0]),
            ("rw,acdirmin=1,acdirmax=1", [333, 333, 1000]),
            (
                "acregmin=0,acregmax=0,acdirmin=0,acdirmax=0,noac",
                [0, 0, 0],
            ),
            ("noac,acregmin=3", [0, 0, 0]),
            ("rw,actimeo=6", [1000, 2000, 2000]),
            ("rw,lookupcache=none", [0, 10_000, 1000]),
            ("rw,lookupcache=pos", [1000, 10_000, 1000]),
            ("rw,acregmin=soon", [1000, 10_000, 0]),
        ];
        for (options, expected) in table {
            assert_eq!(millis(of_nfs(options)), expected, "{options}");
        }
    }
}
