//! Lock files (`X.lock`) that programs make through the mount, and what goes through under them.
//!
//! A program that locks X so is taken at its word: every host keeps away from X while the lock
//! file stands, so what the program itself does to X, and its family, needs no turn. (With one it
//! would have to wait for a host that has the turn and waits for the lock file.)

use dashmap::DashMap;

use super::Key;
use super::family::{Process, has_ended, related};
use crate::lock::Identity;

/// A lock file that a program has made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockFile {
    /// Which file it is.
    pub id: Identity,
    /// The process that made it, in such a way that only one can: by `link(2)`, `O_EXCL`,
    /// `rename(2)`, `symlink(2)` or `mkdir(2)`; and those above it, since scripts lock by commands
    /// that end at once (`lockfile`, `ln`). `None` where it was only opened for writing: then the
    /// lock is perhaps one on the file, not the file, and counts for the whole host.
    pub makers: Option<Vec<Process>>,
}

impl LockFile {
    /// Who made it, or the nearest process above that is left.
    pub fn holder(&self) -> Option<u32> {
        let mut makers = self.makers.iter().flatten();
        let left = makers.find(|maker| !has_ended(**maker))?;
        Some(left.pid)
    }

    /// Whether a process belongs to who made it. If nobody is left that could have, it counts for
    /// the whole host.
    pub fn is_of(&self, pid: u32) -> bool {
        self.holder().is_none_or(|maker| related(pid, maker))
    }
}

/// The lock files that programs have made through a mount.
#[derive(Debug, Default)]
pub struct Made {
    files: DashMap<Key, LockFile>,
}

impl Made {
    /// A program has made the lock file `key`, or opened it for writing.
    pub fn insert(&self, key: Key, file: LockFile) {
        let mut entry = self.files.entry(key).or_insert_with(|| file.clone());
        if file.makers.is_some() || entry.id != file.id {
            *entry = file;
        }
    }

    /// The lock file `key` was removed or renamed.
    pub fn remove(&self, key: &Key) {
        if !self.files.is_empty() {
            self.files.remove(key);
        }
    }

    /// The lock file beside `file` is no longer the one that was made.
    pub(super) fn forget(&self, file: &Key, id: Identity) {
        self.files
            .remove_if(&lock_of(file), |_, made| made.id == id);
    }

    /// The lock file that was made beside `file`, if one was.
    pub fn beside(&self, file: &Key) -> Option<LockFile> {
        if self.files.is_empty() {
            return None;
        }
        self.files.get(&lock_of(file)).map(|made| made.clone())
    }
}

/// The key of the lock file of a file.
fn lock_of(file: &Key) -> Key {
    let mut name = file.name.clone();
    name.push(".lock");
    Key {
        name,
        ..file.clone()
    }
}
