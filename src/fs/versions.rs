//! Which version of a file a process has read, so that an update that was made from an older one
//! is refused.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;

use crate::guard::Key;
use crate::guard::family::{Process, has_ended};
use crate::lock::Identity;
use crate::sys::fs::{Stat, Timestamp};

/// From so many names on, processes that have ended are forgotten now and then.
const MANY: usize = 1024;

/// A version of a file: another file, or other contents. (Not the time of its last change: making
/// another name of a file, as editors do for a backup, changes that.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    id: Identity,
    size: u64,
    mtime: Timestamp,
}

impl From<Stat> for Version {
    fn from(stat: Stat) -> Version {
        Version {
            id: stat.into(),
            size: stat.size,
            mtime: stat.mtime,
        }
    }
}

/// What was read, by name.
#[derive(Debug, Default)]
pub struct Versions {
    read: DashMap<Key, Vec<(Process, Version)>>,
    /// From so many names on the dead are forgotten.
    limit: AtomicUsize,
}

impl Versions {
    /// These processes have read this version of the file.
    pub fn read(&self, key: Key, readers: &[Process], version: Version) {
        if self.read.len() >= self.limit.load(Ordering::Relaxed).max(MANY) {
            self.forget_the_dead();
            // Not again before there are twice as many.
            self.limit.store(self.read.len() * 2, Ordering::Relaxed);
        }
        let mut read = self.read.entry(key).or_default();
        for reader in readers {
            match read.iter_mut().find(|(process, _)| process == reader) {
                Some((_, known)) => *known = version,
                None => read.push((*reader, version)),
            }
        }
        if read.len() > MANY && read.len().is_power_of_two() {
            read.retain(|(process, _)| !has_ended(*process));
        }
    }

    /// One of these processes has made this version; it need not read what it has written.
    pub fn written(&self, key: &Key, readers: &[Process], version: Version) {
        if let Some(mut read) = self.read.get_mut(key) {
            for (process, known) in read.iter_mut() {
                if readers.contains(process) {
                    *known = version;
                }
            }
        }
    }

    /// What the first of these processes that has read the file has seen.
    pub fn last_read(&self, key: &Key, readers: &[Process]) -> Option<Version> {
        let read = self.read.get(key)?;
        readers.iter().find_map(|reader| {
            let found = read.iter().find(|(process, _)| process == reader);
            found.map(|(_, version)| *version)
        })
    }

    fn forget_the_dead(&self) {
        let mut known: HashMap<Process, bool> = HashMap::new();
        let mut is_dead =
            |process: Process| *known.entry(process).or_insert_with(|| has_ended(process));
        self.read.retain(|_, read| {
            read.retain(|(process, _)| !is_dead(*process));
            !read.is_empty()
        });
    }
}
