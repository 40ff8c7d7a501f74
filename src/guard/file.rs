//! A guarded file that a program has open, and which file below that is.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;

use super::queue::Guard;
use crate::backing::{Caller, Kind};
use crate::lock::Identity;
use crate::sys;
use crate::sys::fs::Stat;
use crate::sys::process::boottime;

/// How often a file may be replaced elsewhere while it is opened.
const REPLACED_AGAIN: usize = 10;

/// An open guarded file.
#[derive(Debug)]
pub struct GuardedFile {
    /// Its guard, once that was needed. It has counted this user.
    guard: OnceLock<Arc<Guard>>,
    /// Who has opened it.
    pub opener: Caller,
    /// The open flags for the file below.
    pub flags: i32,
    /// What kind of file system it is on.
    pub kind: Kind,
    target: Mutex<Target>,
    /// The file has been replaced under its name through this mount.
    replaced: AtomicBool,
    /// It was renamed away, and is known not to have been replaced: looked up once, as it costs.
    moved: AtomicBool,
}

/// The file below.
#[derive(Debug, Clone)]
pub struct Target {
    /// Open as the program asked for.
    pub fd: Arc<OwnedFd>,
    /// Which file it is.
    pub id: Identity,
    /// When the server was asked whether it may be opened so, or a little earlier, on [`boottime`]'s
    /// clock; zero where it was not asked, or that does not matter.
    pub opened: Duration,
}

impl Drop for GuardedFile {
    fn drop(&mut self) {
        if let Some(guard) = self.guard.get() {
            guard.leave();
        }
    }
}

impl GuardedFile {
    /// A file that `opener` has opened; `flags` are those for the file below.
    pub fn new(opener: Caller, flags: i32, kind: Kind, target: Target) -> GuardedFile {
        GuardedFile {
            guard: OnceLock::new(),
            opener,
            flags,
            kind,
            target: Mutex::new(target),
            replaced: AtomicBool::new(false),
            moved: AtomicBool::new(false),
        }
    }

    /// Its guard; `enter` gives it where it was not needed before, and counts one more user.
    ///
    /// # Errors
    /// Those of `enter`.
    pub fn guard(&self, enter: impl FnOnce() -> io::Result<Arc<Guard>>) -> io::Result<&Arc<Guard>> {
        if self.guard.get().is_none()
            && let Err(twice) = self.guard.set(enter()?)
        {
            twice.leave();
        }
        Ok(self.guard.get().expect("it has just been set"))
    }

    /// Its guard, if that was needed.
    pub fn known_guard(&self) -> Option<&Arc<Guard>> {
        self.guard.get()
    }

    /// The file below as it is now; it changes when the name gets another file.
    pub fn target(&self) -> Target {
        self.target.lock().clone()
    }

    /// The same file by another descriptor, which was opened by another name.
    pub fn set_descriptor(&self, fd: OwnedFd) {
        self.target.lock().fd = Arc::new(fd);
    }

    /// The file has been replaced under its name.
    pub fn set_replaced(&self) {
        self.replaced.store(true, Ordering::Release);
    }

    /// Whether that is so, and the name has not been followed since.
    pub fn is_replaced(&self) -> bool {
        self.replaced.load(Ordering::Acquire)
    }

    /// Makes sure that the target is what the lock on the name is for, the file behind the name
    /// being `named`: where our file was *replaced*, we follow the name; a file that was renamed
    /// away or deleted keeps its POSIX meaning.
    ///
    /// # Errors
    /// Those of `statx(2)` and `open(2)`.
    pub fn follow(&self, guard: &Guard, named: Option<&Stat>) -> io::Result<Target> {
        let target = self.target();
        let Some(named) = named.filter(|named| Identity::from(**named) != target.id) else {
            self.moved.store(false, Ordering::Release);
            return Ok(target);
        };
        let replaced = self.replaced.load(Ordering::Acquire)
            || match sys::fs::statx(&*target.fd, c"", libc::AT_STATX_FORCE_SYNC) {
                Ok(_) if self.moved.load(Ordering::Acquire) => false,
                Ok(stat) => {
                    stat.nlink == 0 || guard.is_kept(target.id)? || guard.was_fenced(target.id)?
                }
                Err(error) if error.raw_os_error() == Some(libc::ESTALE) => true,
                Err(error) => return Err(error),
            };
        self.moved.store(!replaced, Ordering::Release);
        if !replaced || !named.is_file() {
            return Ok(target);
        }
        log::debug!("{}: following the name to its new file", guard.label);
        self.reopen(guard)
    }

    /// Opens the file that the name has now.
    ///
    /// # Errors
    /// Those of `open(2)`.
    pub fn reopen(&self, guard: &Guard) -> io::Result<Target> {
        let _assumed = guard.shared.credentials.assume(&self.opener)?;
        let began = boottime();
        let mut opened = guard.open_by_name(self.flags);
        for _ in 0..REPLACED_AGAIN {
            match &opened {
                // An NFS client knew the name by a file that is gone.
                Err(error) if error.raw_os_error() == Some(libc::ESTALE) => guard.look()?,
                _ => break,
            };
            opened = guard.open_by_name(self.flags);
        }
        let fd = opened?;
        let id = sys::fs::statx(&fd, c"", 0)?.into();
        let target = Target {
            fd: Arc::new(fd),
            id,
            opened: began,
        };
        *self.target.lock() = target.clone();
        self.replaced.store(false, Ordering::Release);
        Ok(target)
    }
}
