//! Guarded files: for each guarded name a queue of work, and a worker that takes the lock, does
//! what is queued, and answers.
//!
//! A request that must wait for a lock is parked here with its reply, and the thread that
//! brought it goes back to the kernel; else the request that would free the lock might find no
//! thread. Nothing here knows FUSE: work arrives as bytes, closures and replies.
//!
//! [`queue`] holds what waits, [`shift`] the worker's run from taking a turn to ending it ([`acquire`]
//! is how it gets one), [`append`] an open file that is appended to, [`batch`] what is done with
//! appends under a turn ([`permit`] says what may be), [`at_once`] which are made by the thread that
//! has brought them, [`behind`] which are answered before they are made, [`pulse`] whether the turn is
//! still ours, [`mend`] what is done after a broken one, [`records`] the holding back of unfinished records, [`signals`] how a waiting program is interrupted,
//! [`counts`] and [`events`] what has happened, [`standing`] who has a lock and who waits for it,
//! [`stuck`] who must not wait, [`keeper`] what must be done later, [`locks`] who holds which
//! advisory lock.

pub mod acquire;
pub mod append;
pub mod at_once;
pub mod batch;
pub mod behind;
pub mod counts;
pub mod dotlocks;
pub mod events;
pub mod family;
pub mod file;
pub mod holds;
pub mod keeper;
pub mod locks;
pub mod looked;
pub mod mend;
pub mod permit;
pub mod pieces;
pub mod pulse;
pub mod queue;
pub mod records;
pub mod rhythm;
pub mod shift;
pub mod signals;
pub mod standing;
pub mod stuck;
pub mod syscall;
pub mod visible;
pub mod workers;

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use parking_lot::Mutex;

pub use append::AppendFile;
pub use file::{GuardedFile, Target};
pub use holds::{Hold, Outlook};
pub use queue::{Guard, Job, LockRequest, Waiter, Work};

use crate::backing::Credentials;
use crate::config::Rule;
use crate::lock::dotlock::Foreign;
use crate::lock::{Identity, Owner, RealDirectory};
use crate::sys::process::boottime;

/// What makes two guarded names the same: the directory, and the name in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Device of the directory.
    pub dev: u64,
    /// Inode number of the directory.
    pub ino: u64,
    /// The name in it.
    pub name: OsString,
}

impl Key {
    /// The key of `name` in the directory that `dir` identifies.
    pub fn new(dir: Identity, name: OsString) -> Key {
        Key {
            dev: dir.dev,
            ino: dir.ino,
            name,
        }
    }

    /// Whether the name is in the directory that `dir` identifies.
    fn is_in(&self, dir: Identity) -> bool {
        (self.dev, self.ino) == (dir.dev, dir.ino)
    }
}

/// What all guards of a mount share.
pub struct Shared {
    /// For calls in the name of the programs.
    pub credentials: Arc<Credentials>,
    /// Who we are, for claims.
    pub owner: Arc<Owner>,
    /// The largest write that the kernel hands over in one piece.
    pub max_write: usize,
    /// Threads for guards that have work.
    pub workers: workers::Workers,
    /// Work that falls due later.
    pub keeper: keeper::Keeper,
    /// The guards that are in use, or were until a moment ago.
    by_key: DashMap<Key, Arc<Guard>>,
    /// Lock files (`X.lock`) that programs have made, or opened for writing, through this mount.
    dotlocks: dotlocks::Made,
    /// Lock files of other programs that keep us waiting, as they were first seen.
    foreign: DashMap<Key, Foreign>,
    /// Held while a file is written to on this host, under whichever name; spread over files by
    /// their inode numbers.
    writing: Box<[Mutex<()>]>,
    /// The guard (by address) under which such a file was written to last on this host; 0: another
    /// way.
    writers: Box<[AtomicUsize]>,
    /// More than one thread reads requests.
    may_lend: bool,
    /// A thread of requests makes an append.
    borrowing: at_once::Borrowing,
    /// What has happened so far.
    pub events: events::Events,
    /// How much was answered and is not done.
    behind: behind::OfMount,
    /// How often other records came into force; see [`Guards::set_records_changed`]. And of which names
    /// it was noted since the last time where the file ends.
    records_changed: AtomicU64,
    tails_noted: DashMap<Key, u64>,
    /// Puts a file in the place of another that programs may have open; see [`Guards::set_put`].
    put: OnceLock<Box<Put>>,
    /// Directories of guarded files, by device and inode number.
    directories: DashMap<(u64, u64), KnownDirectory>,
}

/// A directory of guarded files, with what its listings showed.
#[derive(Default)]
struct KnownDirectory {
    dir: Weak<RealDirectory>,
    /// The descriptor (by address) that was last given for it; one that is new may be of another
    /// directory, which has got the inode number.
    given: usize,
}

/// Puts the file of this name in the directory of a guard in the place of the guarded file.
pub type Put = dyn Fn(&Guard, &std::ffi::CStr) -> std::io::Result<()> + Send + Sync;

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("owner", &self.owner)
            .finish_non_exhaustive()
    }
}

/// Of so many names it is known that their tails are noted.
const MANY_TAILS: usize = 1 << 16;
/// How many files can be written to at the same time without one waiting for another by chance.
const WRITING: usize = 1024;

impl Shared {
    fn writing(&self, file: Identity) -> &Mutex<()> {
        &self.writing[(file.ino % WRITING as u64) as usize]
    }

    /// Whether a file of this name may end in what another rule has let through.
    fn has_unknown_tail(&self, key: &Key) -> bool {
        let changes = self.records_changed.load(Ordering::Acquire);
        changes > 0
            && self
                .tails_noted
                .get(key)
                .is_none_or(|noted| *noted != changes)
    }

    /// It was noted where the file ends.
    fn note_tail(&self, key: &Key) {
        let changes = self.records_changed.load(Ordering::Acquire);
        if changes > 0 {
            if self.tails_noted.len() >= MANY_TAILS {
                // They are noted once more.
                self.tails_noted.clear();
            }
            self.tails_noted.insert(key.clone(), changes);
        }
    }

    fn writer(&self, file: Identity) -> &AtomicUsize {
        &self.writers[(file.ino % WRITING as u64) as usize]
    }
}

/// All guards of a mount.
#[derive(Debug)]
pub struct Guards {
    shared: Arc<Shared>,
}

impl Guards {
    /// No guards yet; they are made as files are opened. So many `threads` read requests.
    ///
    /// # Errors
    /// Where no thread can be started.
    pub fn new(
        credentials: Arc<Credentials>,
        owner: Arc<Owner>,
        max_write: usize,
        threads: usize,
    ) -> std::io::Result<Guards> {
        Ok(Guards {
            shared: Arc::new(Shared {
                by_key: DashMap::new(),
                dotlocks: dotlocks::Made::default(),
                foreign: DashMap::new(),
                writing: std::iter::repeat_with(Mutex::default)
                    .take(WRITING)
                    .collect(),
                writers: std::iter::repeat_with(AtomicUsize::default)
                    .take(WRITING)
                    .collect(),
                may_lend: threads > 1,
                borrowing: at_once::Borrowing::default(),
                events: events::Events::default(),
                behind: behind::OfMount::default(),
                records_changed: AtomicU64::new(0),
                tails_noted: DashMap::new(),
                put: OnceLock::new(),
                directories: DashMap::new(),
                credentials,
                owner,
                max_write,
                workers: workers::Workers::default(),
                keeper: keeper::Keeper::start()?,
            }),
        })
    }

    /// A file is written to on this host, but not by an append of its guard: to be said before and
    /// after.
    pub fn note_writer(&self, file: Identity) {
        self.shared.writer(file).store(0, Ordering::Release);
    }

    /// The guard of a name, made where there is none; it counts one more user, who must call
    /// [`Guard::leave`].
    pub fn enter(
        &self,
        key: Key,
        dir: Arc<OwnedFd>,
        rule: &Arc<Rule>,
        label: impl FnOnce() -> String,
    ) -> Arc<Guard> {
        self.forget_if_gone(&key, &dir);
        let make = |key: &Key| {
            let dir = self.directory(key, dir);
            Guard::new(key, dir, rule, &label(), &self.shared)
        };
        match self.shared.by_key.entry(key) {
            Entry::Occupied(mut entry) => {
                if !entry.get().enter(rule) {
                    // It has just been retired, and must not be used again.
                    let guard = make(entry.key());
                    entry.insert(guard);
                }
                entry.get().clone()
            }
            Entry::Vacant(entry) => {
                let guard = make(entry.key());
                entry.insert(guard).clone()
            }
        }
    }

    fn directory(&self, key: &Key, fd: Arc<OwnedFd>) -> Arc<RealDirectory> {
        let directories = &self.shared.directories;
        if directories.len() > 1024 {
            directories.retain(|_, known| known.dir.strong_count() > 0);
        }
        let mut known = directories.entry((key.dev, key.ino)).or_default();
        if let Some(dir) = known.dir.upgrade() {
            return dir;
        }
        known.given = Arc::as_ptr(&fd).addr();
        let dir = Arc::new(RealDirectory::new(fd));
        known.dir = Arc::downgrade(&dir);
        dir
    }

    /// A directory may have been removed on another host, and made anew with the same inode number:
    /// the guards of its files are no good for the new one. Who has a file of it open keeps them.
    fn forget_if_gone(&self, key: &Key, fd: &Arc<OwnedFd>) {
        let (at, given) = ((key.dev, key.ino), Arc::as_ptr(fd).addr());
        let known = match self.shared.directories.get_mut(&at) {
            Some(mut known) if known.given != given => {
                known.given = given;
                known.dir.upgrade()
            }
            _ => return,
        };
        if known.is_some_and(|dir| dir.is_stale()) {
            let is_of_it = |key: &Key| (key.dev, key.ino) == at;
            let guards = &self.shared.by_key;
            // What is held is held until it is known to be lost: perhaps the server is just being
            // restarted.
            guards.retain(|key, guard| !is_of_it(key) || guard.is_busy());
            self.shared.directories.remove(&at);
        }
    }

    /// The guard of a name, if the name is in use.
    pub fn find(&self, key: &Key) -> Option<Arc<Guard>> {
        if self.shared.by_key.is_empty() {
            return None;
        }
        self.shared.by_key.get(key).map(|guard| guard.clone())
    }

    /// The same, where the key is made only if any name is in use.
    pub fn find_with(&self, key: impl FnOnce() -> Key) -> Option<Arc<Guard>> {
        if self.shared.by_key.is_empty() {
            return None;
        }
        self.find(&key())
    }

    /// Gives the way by which a file is put in the place of another that programs may have open.
    pub fn set_put(&self, put: Box<Put>) {
        let _ = self.shared.put.set(put);
    }

    /// From now on files may end in what is half a record by their rule, and was acknowledged under
    /// another.
    pub fn set_records_changed(&self) {
        self.shared.records_changed.fetch_add(1, Ordering::AcqRel);
    }

    /// The lock files that programs have made through this mount.
    pub fn lock_files(&self) -> &dotlocks::Made {
        &self.shared.dotlocks
    }

    /// A guard of a file in this directory that has something queued, or may hold a turn.
    pub fn busy_in(&self, dir: Identity) -> Option<Arc<Guard>> {
        self.shared
            .by_key
            .iter()
            .find(|guard| guard.key().is_in(dir) && guard.is_busy())
            .map(|guard| Arc::clone(&guard))
    }

    /// What has happened to the guarded files of the mount so far.
    pub fn events(&self) -> &events::Events {
        &self.shared.events
    }

    /// Who serves the mount.
    pub fn owner(&self) -> &Owner {
        &self.shared.owner
    }

    /// All guards that there are just now.
    pub fn all(&self) -> Vec<Arc<Guard>> {
        let guards = self.shared.by_key.iter();
        guards.map(|guard| Arc::clone(&guard)).collect()
    }

    /// The guards of names in this directory.
    pub fn all_in(&self, dir: Identity) -> Vec<Arc<Guard>> {
        let guards = self.shared.by_key.iter();
        guards
            .filter(|guard| guard.key().is_in(dir))
            .map(|guard| Arc::clone(&guard))
            .collect()
    }

    /// Waits, one after another, until nobody has a queue or the plans of the threads locked.
    pub fn take_locks(&self) {
        for guard in self.all() {
            drop(guard.queue.lock());
        }
        self.shared.workers.take_lock();
        self.shared.keeper.take_lock();
    }

    /// Finishes all that is queued, for at most `limit`, gives every lock back and removes our
    /// claims. Gives whether all was finished.
    pub fn finish(&self, limit: Duration) -> bool {
        let deadline = boottime() + limit;
        let guards = self.all();
        let mut finished = true;
        for guard in &guards {
            guard.let_all_go();
        }
        for guard in guards {
            finished &= guard.finish(deadline);
        }
        finished
    }
}
