//! Private copies: with `update = "atomic"` a program works on a copy that is renamed over the
//! file at the last close, so that nobody ever sees half an update.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::backing::{Caller, Credentials, copy, proc_path};
use crate::guard::{Guard, Target};
use crate::lock::LockNames;
use crate::sys;

/// A file of the program's own, beside the guarded one, under a name that listings hide. It is
/// removed when this is dropped, unless it has been put in its place.
#[derive(Debug)]
pub struct Private {
    guard: Arc<Guard>,
    dir: Arc<OwnedFd>,
    name: CString,
    /// As whom it was made.
    caller: Caller,
    credentials: Arc<Credentials>,
    /// The update must not be put in its place.
    failed: AtomicBool,
    /// The program that closed it last was killed.
    killed: AtomicBool,
    /// It was renamed, or removed.
    gone: AtomicBool,
}

impl Private {
    /// The name of a copy that is yet to be made, of the file that `guard` guards in `dir`.
    pub fn new_file(
        guard: &Arc<Guard>,
        dir: Arc<OwnedFd>,
        credentials: &Arc<Credentials>,
        caller: &Caller,
    ) -> Private {
        Private {
            guard: Arc::clone(guard),
            dir,
            name: LockNames::new(&guard.key().name).stage(rand::random()),
            caller: caller.clone(),
            credentials: Arc::clone(credentials),
            failed: AtomicBool::new(false),
            killed: AtomicBool::new(false),
            gone: AtomicBool::new(false),
        }
    }

    /// Copies the guarded file, with owner, mode and extended attributes (access control lists
    /// are such), as `caller`, whose credentials are in force; the copy is opened with `flags`.
    ///
    /// # Errors
    /// Those of the file system; `EPERM` where the copy cannot get the owner of the file, `EACCES`
    /// where the caller may not read the file.
    pub fn copy_of(
        guard: &Arc<Guard>,
        dir: Arc<OwnedFd>,
        original: &Target,
        flags: i32,
        credentials: &Arc<Credentials>,
        caller: &Caller,
    ) -> io::Result<(Private, Target)> {
        let private = Private::new_file(guard, dir, credentials, caller);
        let stat = sys::fs::statx(&*original.fd, c"", libc::AT_STATX_FORCE_SYNC)?;
        let new = flags | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
        let copy = sys::fs::openat(&*private.dir, &private.name, new, 0o600)?;
        // Who may write a file may not always read it, and then gets no copy of it.
        let path = proc_path(&*original.fd);
        let read = libc::O_RDONLY | (flags & libc::O_DIRECT);
        let source = sys::fs::openat(&*original.fd, &path, read, 0)?;
        // A large file takes its time, and the lock is held.
        copy::data(&source, &copy, u64::MAX, || {
            guard.show_life();
            Ok(())
        })?;
        let attributes = {
            let _own = (caller.uid != credentials.own().uid)
                .then(|| credentials.assume(credentials.own()))
                .transpose()?;
            copy::attributes(&source, &copy, &stat)
        };
        attributes.or_else(|_| copy::attributes(&source, &copy, &stat))?;
        let id = sys::fs::statx(&copy, c"", 0)?.into();
        let target = Target {
            fd: Arc::new(copy),
            id,
            opened: Duration::ZERO,
        };
        Ok((private, target))
    }

    /// Its name in the directory.
    pub fn name(&self) -> &CStr {
        &self.name
    }

    /// The update must not be put in its place: it could not be written, or the program was
    /// killed in the middle of it.
    pub fn abandon(&self) {
        self.failed.store(true, Ordering::Release);
    }

    /// Whether it must not be put in its place.
    pub fn is_abandoned(&self) -> bool {
        self.failed.load(Ordering::Acquire) || self.killed.load(Ordering::Acquire)
    }

    /// The program that has closed it was killed by a signal, or was not, or goes on writing.
    pub fn set_killed(&self, killed: bool) {
        self.killed.store(killed, Ordering::Release);
    }

    /// The directory it is in.
    pub fn dir(&self) -> &OwnedFd {
        &self.dir
    }

    /// It has been renamed.
    pub fn published(&self) {
        self.gone.store(true, Ordering::Release);
    }

    /// Removes it, if it is still there.
    pub fn discard(&self) {
        if self.gone.swap(true, Ordering::AcqRel) {
            return;
        }
        let remove = || {
            let _assumed = self.credentials.assume(&self.caller)?;
            sys::fs::unlinkat(&*self.dir, &self.name, 0)
        };
        if let Err(error) = remove()
            && error.kind() != io::ErrorKind::NotFound
        {
            log::warn!(
                "{}: could not remove a copy that is not needed: {error}",
                self.guard.label()
            );
        }
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        self.discard();
    }
}
