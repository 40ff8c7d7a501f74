//! Advisory locks on files that are not guarded: they are taken on the file below, so that they
//! hold against whoever locks it there, by the file system's own means.
//!
//! The programs' owners are not ours: all their locks would be one process's. So each owner gets a
//! descriptor of its own below, and with it open file description locks, whose owner that is. What
//! this host's programs hold is kept here too, for the questions that such locks do not answer:
//! whose a lock is, and who waits for whom.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use parking_lot::Mutex;

use super::advisory::Locked;
use super::handles::Handle;
use super::nodes::Node;
use crate::backing::proc_path;
use crate::guard::Waiter;
use crate::guard::locks::{Closing, Holder, Kind, Lock, Range, Space, Table, Waits};
use crate::guard::signals::{self, Signals};
use crate::lock::Identity;
use crate::sys;

/// The first pause between two attempts to get a lock, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// The locks of all files.
#[derive(Debug, Default)]
pub struct Below {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    files: DashMap<Identity, Arc<Mutex<File>>>,
    waits: Mutex<Waits>,
}

/// The locks of one file.
#[derive(Debug, Default)]
struct File {
    table: Table,
    /// Whose locks may be about to go.
    closing: Closing,
    /// A descriptor for each owner, with the space of its locks.
    descriptors: HashMap<(u64, Space), OwnedFd>,
}

/// Whether a program waits for those in the way of its lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// It would rather fail.
    No,
    /// It waits; and if it is true, a circle of waits is an error.
    For(bool),
}

/// What keeps a lock from being granted.
enum Obstacle {
    /// Programs on this host, by their owners.
    Here(Vec<u64>),
    /// Others.
    Elsewhere,
}

impl Obstacle {
    /// The owners in the way, as far as they are known.
    fn owners(&self) -> Vec<u64> {
        match self {
            Obstacle::Here(owners) => owners.clone(),
            Obstacle::Elsewhere => Vec::new(),
        }
    }
}

impl Below {
    /// Takes a lock.
    pub(super) fn lock(
        &self,
        handle: &Arc<Handle>,
        lock: Lock,
        wait: Wait,
        waiter: &Waiter,
        reply: Locked,
    ) {
        handle.locked_by(lock.holder.owner);
        let obstacle = match self.shared.attempt(handle, lock) {
            Ok(None) => return reply(Ok(())),
            Ok(Some(obstacle)) => obstacle,
            Err(error) => return reply(Err(error)),
        };
        if wait == Wait::No && !self.shared.may_be_gone(handle, &obstacle) {
            return reply(Err(io::Error::from_raw_os_error(libc::EAGAIN)));
        }
        let (shared, handle, tid) = (Arc::clone(&self.shared), Arc::clone(handle), waiter.tid);
        let reply = Arc::new(Mutex::new(Some(reply)));
        let answer = Arc::clone(&reply);
        let started = std::thread::Builder::new()
            .name("lock".to_owned())
            .spawn(move || {
                let result = shared.wait(&handle, lock, (wait, tid), obstacle);
                if let Some(reply) = answer.lock().take() {
                    reply(result);
                }
            });
        if started.is_err()
            && let Some(reply) = reply.lock().take()
        {
            reply(Err(io::Error::from_raw_os_error(libc::ENOLCK)));
        }
    }

    /// Gives a lock up.
    ///
    /// # Errors
    /// Those of fcntl(2) and flock(2).
    pub(super) fn unlock(
        &self,
        handle: &Handle,
        owner: u64,
        space: Option<Space>,
        range: Range,
    ) -> io::Result<()> {
        let id = handle.node.file;
        let Some(file) = self.shared.files.get(&id).map(|file| Arc::clone(&file)) else {
            return Ok(());
        };
        let mut file = file.lock();
        for meant in [Space::Flock, Space::Posix] {
            if space.is_none_or(|space| space == meant)
                && let Some(fd) = file.descriptors.get(&(owner, meant))
            {
                set(fd, meant, None, range)?;
            }
        }
        file.table.unset(owner, space, range);
        self.shared.tidy(id, file);
        Ok(())
    }

    /// The lock that is in the way of another.
    ///
    /// # Errors
    /// Those of fcntl(2).
    pub(super) fn test(&self, handle: &Handle, lock: &Lock) -> io::Result<Option<Lock>> {
        let file = self.shared.files.get(&handle.node.file);
        let file = file.map(|file| Arc::clone(&file));
        if let Some(file) = &file {
            let file = file.lock();
            if let Some(other) = file.table.conflict(&lock.holder, lock.range, lock.kind) {
                return Ok(Some(other));
            }
            // To its own locks below the owner must not seem a stranger.
            if let Some(fd) = file.descriptors.get(&(lock.holder.owner, Space::Posix)) {
                return test(fd, lock);
            }
        }
        test(&handle.fd(), lock)
    }

    /// A descriptor was closed through which these owners have taken locks.
    pub(super) fn closing(&self, node: &Node, owners: &[u64]) {
        if owners.is_empty() {
            return;
        }
        let file = self.shared.files.get(&node.file);
        if let Some(file) = file.map(|file| Arc::clone(&file)) {
            file.lock().closing.begin(owners);
        }
    }

    /// A process has closed a descriptor: its fcntl locks go.
    pub(super) fn close(&self, node: &Node, owner: u64) {
        self.give_up(node, |table| table.drop_owner(owner, Some(Space::Posix)));
    }

    /// An open file has come to its end: what was locked by way of it goes.
    pub(super) fn end(&self, node: &Node, file: u64) {
        self.give_up(node, |table| table.drop_file(file));
    }

    fn give_up(&self, node: &Node, locks: impl FnOnce(&mut Table)) {
        if self.shared.files.is_empty() {
            return;
        }
        let file = self.shared.files.get(&node.file);
        let Some(file) = file.map(|file| Arc::clone(&file)) else {
            return;
        };
        let mut file = file.lock();
        locks(&mut file.table);
        self.shared.tidy(node.file, file);
    }
}

impl Shared {
    /// Tries once.
    fn attempt(&self, handle: &Handle, lock: Lock) -> io::Result<Option<Obstacle>> {
        let id = handle.node.file;
        let entry = Arc::clone(&self.files.entry(id).or_default());
        let mut file = entry.lock();
        if !self
            .files
            .get(&id)
            .is_some_and(|now| Arc::ptr_eq(&now, &entry))
        {
            // It has just been forgotten, since nobody held anything.
            drop(file);
            return self.attempt(handle, lock);
        }
        let (owner, space) = (lock.holder.owner, lock.holder.space);
        file.table.give_up_flock(&lock);
        let owners = file.table.conflicts(&lock.holder, lock.range, lock.kind);
        if !owners.is_empty() {
            self.tidy(id, file);
            return Ok(Some(Obstacle::Here(owners)));
        }
        // Where the two cannot be told apart the file system below may tell.
        let space = space.unwrap_or(Space::Posix);
        let result = (|| {
            let fd = match file.descriptors.entry((owner, space)) {
                std::collections::hash_map::Entry::Occupied(fd) => fd.into_mut(),
                std::collections::hash_map::Entry::Vacant(place) => place.insert(another(handle)?),
            };
            match set(fd, space, Some(lock.kind), lock.range) {
                Ok(()) => Ok(None),
                Err(error) if would_block(&error) => Ok(Some(Obstacle::Elsewhere)),
                Err(error) => Err(error),
            }
        })();
        if matches!(result, Ok(None)) {
            file.table.set(lock);
        } else {
            self.tidy(id, file);
        }
        result
    }

    /// Whether one of those in the way may have closed the file already.
    fn may_be_gone(&self, handle: &Handle, obstacle: &Obstacle) -> bool {
        let Obstacle::Here(owners) = obstacle else {
            return false;
        };
        let file = self.files.get(&handle.node.file);
        let file = file.map(|file| Arc::clone(&file));
        file.is_some_and(|file| {
            let file = file.lock();
            owners.iter().any(|owner| file.closing.includes(*owner))
        })
    }

    /// Tries until it succeeds, the program gets a signal, or the wait would never end.
    fn wait(
        &self,
        handle: &Handle,
        lock: Lock,
        (wait, tid): (Wait, u32),
        mut obstacle: Obstacle,
    ) -> io::Result<()> {
        let owner = lock.holder.owner;
        let mut pause = FIRST_PAUSE;
        // It stands all the while: of two who wait for each other it is the later who finds that out.
        let mut standing = None;
        let mut suspected = false;
        let result = loop {
            if wait == Wait::No && !self.may_be_gone(handle, &obstacle) {
                break Err(io::Error::from_raw_os_error(libc::EAGAIN));
            }
            if wait == Wait::For(true) {
                let owners = obstacle.owners();
                let mut waits = self.waits.lock();
                let in_a_circle = waits.would_deadlock(owner, &owners);
                if in_a_circle && suspected {
                    break Err(io::Error::from_raw_os_error(libc::EDEADLK));
                }
                suspected = in_a_circle;
                if in_a_circle {
                    // The others may not have noticed yet that what they waited for is free.
                    pause = 2 * LONGEST_PAUSE;
                } else if let Some(wait) = &standing {
                    waits.change(wait, owners);
                } else {
                    standing = Some(waits.begin(owner, owners));
                }
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
            match self.attempt(handle, lock) {
                Ok(None) => break Ok(()),
                Ok(Some(another)) => obstacle = another,
                Err(error) => break Err(error),
            }
            if signals::of_thread(tid) == Signals::Pending {
                break Err(io::Error::from_raw_os_error(libc::EINTR));
            }
        };
        if let Some(wait) = standing {
            self.waits.lock().end(wait);
        }
        result
    }

    /// Forgets what nobody holds any more. A descriptor that goes takes its locks along.
    fn tidy(&self, id: Identity, mut file: parking_lot::MutexGuard<'_, File>) {
        let File {
            table, descriptors, ..
        } = &mut *file;
        descriptors.retain(|(owner, space), _| {
            table.iter().any(|lock| {
                let Holder {
                    owner: of,
                    space: in_space,
                    ..
                } = lock.holder;
                of == *owner && in_space.unwrap_or(Space::Posix) == *space
            })
        });
        let is_empty = table.is_empty();
        drop(file);
        if is_empty {
            self.files.remove_if(&id, |_, file| {
                file.try_lock().is_some_and(|file| file.table.is_empty())
            });
        }
    }
}

/// Another open file description of the file that a handle has open. For reading and writing, where
/// that may be: the owner may have the file open in other ways too, and an exclusive lock takes one
/// that writes.
fn another(handle: &Handle) -> io::Result<OwnedFd> {
    let fd = handle.fd();
    let open = |access| sys::fs::openat(&*fd, &proc_path(&*fd), access, 0);
    open(libc::O_RDWR)
        .or_else(|_| open(handle.flags & libc::O_ACCMODE))
        // The file's mode may have changed since; then several owners share one description.
        .or_else(|_| fd.try_clone())
}

fn set(fd: &OwnedFd, space: Space, kind: Option<Kind>, range: Range) -> io::Result<()> {
    match space {
        Space::Flock => {
            let operation = match kind {
                None => libc::LOCK_UN,
                Some(Kind::Shared) => libc::LOCK_SH,
                Some(Kind::Exclusive) => libc::LOCK_EX,
            };
            sys::locks::flock(fd, operation | libc::LOCK_NB)
        }
        Space::Posix => {
            let kind = match kind {
                None => libc::F_UNLCK,
                Some(Kind::Shared) => libc::F_RDLCK,
                Some(Kind::Exclusive) => libc::F_WRLCK,
            };
            sys::locks::set(fd, kind, range.start, range.end)
        }
    }
}

fn test(fd: &OwnedFd, lock: &Lock) -> io::Result<Option<Lock>> {
    let kind = match lock.kind {
        Kind::Shared => libc::F_RDLCK,
        Kind::Exclusive => libc::F_WRLCK,
    };
    let found = sys::locks::test(fd, kind, lock.range.start, lock.range.end)?;
    Ok(found.map(|found| Lock {
        holder: Holder {
            owner: 0,
            space: Some(Space::Posix),
            file: 0,
            pid: found.pid,
        },
        range: Range {
            start: found.start,
            end: found.end,
        },
        kind: if found.kind == libc::F_RDLCK {
            Kind::Shared
        } else {
            Kind::Exclusive
        },
    }))
}

fn would_block(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES))
}
