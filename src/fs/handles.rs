//! The table of open files and directories.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use dashmap::DashMap;

use super::dirs::DirStream;
use super::in_force::are_alike;
use super::nodes::Node;
use super::private::Private;
use super::reading;
use super::versions::Version;
use crate::config::Rule;
use crate::guard::{AppendFile, GuardedFile, Hold, Key, Target};
use crate::lock::Identity;
use parking_lot::Mutex;

/// What a program has open.
#[derive(Debug)]
pub struct Handle {
    /// The inode.
    pub node: Arc<Node>,
    /// The flags that the program gave.
    pub flags: i32,
    /// What is open below.
    pub open: Open,
    /// The kernel keeps a page cache for it.
    pub cached: bool,
    /// A file that became one to be appended to: the program has set `O_APPEND` after it opened
    /// it (`F_SETFL` of fcntl(2)).
    pub late: OnceLock<Arc<AppendFile>>,
    /// Whether the descriptor below has `O_APPEND` set now.
    pub appends_below: AtomicBool,
    /// The lock that lasts until the last close.
    pub hold: Mutex<Option<Hold>>,
    /// The program may have changed the file through it.
    pub written: AtomicBool,
    /// The program has read from it.
    pub read: AtomicBool,
    /// The version that it was opened at, under the lock.
    pub version: Option<Version>,
    /// The lock for reading that it is counted for.
    pub reader: Option<reading::Number>,
    /// The private copy that the program works on.
    pub private: Option<Private>,
    /// The owners of advisory locks that were taken through it.
    pub lock_owners: Mutex<Vec<u64>>,
    /// The guarded name that it was opened by.
    pub key: Option<Key>,
    /// Its number in the table.
    pub number: OnceLock<u64>,
}

/// What is open below.
#[derive(Debug)]
pub enum Open {
    /// A file, read and written as it is.
    File(Arc<OwnedFd>),
    /// A guarded file, read, or written in place.
    Guarded(Arc<GuardedFile>),
    /// A guarded file, to be appended to.
    Append(Arc<AppendFile>),
    /// A directory.
    Dir(DirStream),
}

impl Handle {
    /// A handle.
    pub fn new(node: Arc<Node>, flags: i32, open: Open) -> Handle {
        let below = node.rule.is_none() && flags & libc::O_APPEND != 0;
        let key = match open {
            Open::Guarded(_) | Open::Append(_) => node.guard_key(),
            Open::File(_) | Open::Dir(_) => None,
        };
        Handle {
            node,
            flags,
            cached: matches!(open, Open::File(_)),
            open,
            late: OnceLock::new(),
            appends_below: AtomicBool::new(below),
            hold: Mutex::new(None),
            written: AtomicBool::new(false),
            read: AtomicBool::new(false),
            version: None,
            reader: None,
            private: None,
            lock_owners: Mutex::default(),
            key,
            number: OnceLock::new(),
        }
    }

    /// The file as one that is appended to, if it is one.
    pub fn appending(&self) -> Option<&Arc<AppendFile>> {
        match &self.open {
            Open::Append(file) => Some(file),
            _ => self.late.get(),
        }
    }

    /// The guarded file, if it is one.
    pub fn guarded(&self) -> Option<&GuardedFile> {
        match &self.open {
            Open::Guarded(file) => Some(file),
            Open::Append(file) => Some(&file.file),
            Open::File(_) | Open::Dir(_) => None,
        }
    }

    /// The descriptor below.
    pub fn fd(&self) -> Arc<OwnedFd> {
        match &self.open {
            Open::File(fd) => Arc::clone(fd),
            Open::Guarded(file) => file.target().fd,
            Open::Append(file) => file.target().fd,
            Open::Dir(stream) => stream.fd(),
        }
    }

    /// The file below, and which it is.
    pub fn target(&self) -> Target {
        match self.guarded() {
            Some(file) => file.target(),
            None => Target {
                fd: self.fd(),
                id: self.node.file,
                opened: Duration::ZERO,
            },
        }
    }

    /// Which file is open below.
    pub fn id(&self) -> Identity {
        self.target().id
    }

    /// An owner asks for an advisory lock through it.
    pub fn locked_by(&self, owner: u64) {
        let mut owners = self.lock_owners.lock();
        if !owners.contains(&owner) {
            owners.push(owner);
        }
    }

    /// Whether the program may write through it.
    pub fn is_writable(&self) -> bool {
        self.flags & libc::O_ACCMODE != libc::O_RDONLY
    }

    /// The process that has locked the file since it was opened; 0 where there is none.
    pub fn holder(&self) -> u32 {
        self.hold.lock().as_ref().map_or(0, Hold::pid)
    }

    /// Something was done through it under a lock, and is to be acknowledged.
    ///
    /// # Errors
    /// `EIO` where the lock was lost to another host: the one since the file was opened, or an
    /// advisory one that was taken through this descriptor.
    pub fn lock_is_ours(&self) -> io::Result<()> {
        if let Some(hold) = &*self.hold.lock() {
            return hold.still_ours();
        }
        let Some(guard) = self.guarded().and_then(GuardedFile::known_guard) else {
            return Ok(());
        };
        let owners = self.lock_owners.lock().clone();
        match owners.is_empty() {
            true => Ok(()),
            false => guard.locks_are_ours(&owners),
        }
    }

    /// A change of the file through it has failed.
    pub fn note_failure(&self, error: &io::Error) {
        let hold = self.hold.lock();
        let guard = hold.as_ref().map(Hold::guard);
        if let Some(guard) = guard.or_else(|| self.guarded()?.known_guard()) {
            guard.note_failure(error);
        }
    }

    /// The program is about to change the file through it.
    ///
    /// # Errors
    /// `EIO` where the lock for it was lost to another host.
    pub fn may_change(&self) -> io::Result<()> {
        self.written.store(true, Ordering::Release);
        match &*self.hold.lock() {
            Some(hold) if !hold.is_lost() => {
                if let Some(private) = &self.private {
                    private.set_killed(false);
                }
                hold.set_not_closing();
                Ok(())
            }
            Some(hold) if hold.is_lost() => Err(io::Error::from_raw_os_error(libc::EIO)),
            _ => Ok(()),
        }
    }
}

/// The table.
#[derive(Debug, Default)]
pub struct Handles {
    by_id: DashMap<u64, Arc<Handle>>,
    /// Those of guarded files, by the names that they were opened by.
    by_key: DashMap<Key, Vec<Arc<Handle>>>,
    last: AtomicU64,
}

impl Handles {
    /// Enters a handle, here and with its inode, and gives its number, which no other ever gets.
    /// `expected`: its inode has counted it as coming.
    ///
    /// # Errors
    /// `ESTALE`, unless it is expected, where its name goes by another rule since the inode was looked
    /// up; the kernel then looks up the path again.
    pub fn insert(
        &self,
        handle: Arc<Handle>,
        expected: bool,
        rules_have_changed: bool,
    ) -> io::Result<u64> {
        let stale = || io::Error::from_raw_os_error(libc::ESTALE);
        let is_file = !matches!(handle.open, Open::Dir(_));
        if is_file && !handle.node.opened(&handle, expected) {
            return Err(stale());
        }
        if let Some(key) = &handle.key {
            let mut of_key = self.by_key.entry(key.clone()).or_default();
            let rule = of_key.first().map(|other| other.node.rule.as_ref());
            // (A directory that was renamed gives its names other rules, too, and no other nodes.)
            let is_checked = rules_have_changed && !expected;
            if is_checked && rule.is_some_and(|rule| !are_alike(rule, handle.node.rule.as_ref())) {
                drop(of_key);
                handle.node.closed(&handle);
                return Err(stale());
            }
            of_key.push(Arc::clone(&handle));
        }
        let id = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let id = *handle.number.get_or_init(|| id);
        if handle.cached {
            handle.node.cached_opens.fetch_add(1, Ordering::AcqRel);
        }
        self.by_id.insert(id, handle);
        Ok(id)
    }

    /// The handle with this number.
    ///
    /// # Errors
    /// `EBADF` where there is none.
    pub fn get(&self, id: u64) -> io::Result<Arc<Handle>> {
        let handle = self.by_id.get(&id).map(|handle| Arc::clone(&handle));
        handle.ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))
    }

    /// Takes a handle out.
    pub fn remove(&self, id: u64) -> Option<Arc<Handle>> {
        let (_, handle) = self.by_id.remove(&id)?;
        handle.node.closed(&handle);
        if let Some(key) = &handle.key {
            if let Some(mut of_key) = self.by_key.get_mut(key) {
                of_key.retain(|other| !Arc::ptr_eq(other, &handle));
            }
            self.by_key.remove_if(key, |_, of_key| of_key.is_empty());
        }
        if handle.cached {
            handle.node.cached_opens.fetch_sub(1, Ordering::AcqRel);
        }
        Some(handle)
    }

    /// The rule by which a guarded name is open, if it is.
    pub fn rule_of_name(&self, key: &Key) -> Option<Arc<Rule>> {
        self.by_key.get(key)?.first()?.node.rule.clone()
    }

    /// What is open by a guarded name.
    pub fn of_name(&self, key: &Key) -> Vec<Arc<Handle>> {
        self.by_key
            .get(key)
            .map_or_else(Vec::new, |handles| handles.clone())
    }

    /// Waits, part by part, until nobody has the table locked.
    pub fn take_locks(&self) {
        // Counting takes the lock of each part.
        let _ = (self.by_id.len(), self.by_key.len());
    }

    /// Takes all handles out.
    pub fn drain(&self) -> Vec<Arc<Handle>> {
        let ids: Vec<u64> = self.by_id.iter().map(|entry| *entry.key()).collect();
        ids.into_iter().filter_map(|id| self.remove(id)).collect()
    }
}
