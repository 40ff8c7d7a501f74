//! Advisory locks: flock(2), and fcntl(2) with its lockf(3) and open file description locks.
//!
//! On guarded files they are kept in the guard, and hold across hosts by its turns. On others they
//! go through to the file system below ([`super::below`]).

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fuser::{FileHandle, Request};

use super::Overlay;
use super::below::Wait;
use super::handles::Handle;
use crate::guard::holds::MOMENT;
use crate::guard::locks::{Holder, Kind, Lock, Range, Space};
use crate::guard::{Guard, Job, LockRequest, Waiter, Work, syscall};
use crate::sys;

/// A request of the kernel for a lock, or for news of one.
pub(super) struct Asked {
    pub fh: FileHandle,
    /// The kernel's id for who will own the lock.
    pub owner: u64,
    pub range: Range,
    /// `F_RDLCK`, `F_WRLCK` or `F_UNLCK`.
    pub kind: i32,
    /// The process, as the kernel tells it.
    pub pid: u32,
}

/// Gets a lock that is in the way, or `None`.
pub(super) type Tested = Box<dyn FnOnce(io::Result<Option<Lock>>) + Send>;

/// Gets how a request for a lock came out.
pub(super) type Locked = Box<dyn FnOnce(io::Result<()>) + Send>;

impl Asked {
    /// The lock, unless it is to be given up.
    fn lock(&self, tid: u32) -> io::Result<Option<Lock>> {
        let kind = match self.kind {
            libc::F_RDLCK => Kind::Shared,
            libc::F_WRLCK => Kind::Exclusive,
            libc::F_UNLCK => return Ok(None),
            _ => return Err(io::Error::from_raw_os_error(libc::EINVAL)),
        };
        Ok(Some(Lock {
            holder: Holder {
                owner: self.owner,
                space: self.space(tid),
                file: self.fh.0,
                pid: self.pid,
            },
            range: self.range,
            kind,
        }))
    }

    /// Which call the request stands for; the kernel's request has a flag for it, which fuser does
    /// not hand over. flock(2) knows no ranges; for the rest the thread's call is looked at.
    fn space(&self, tid: u32) -> Option<Space> {
        if self.range != Range::WHOLE {
            return Some(Space::Posix);
        }
        match syscall::of_sleeping_thread(tid).number {
            Some(libc::SYS_flock) => Some(Space::Flock),
            Some(libc::SYS_fcntl) => Some(Space::Posix),
            _ => None,
        }
    }
}

/// Whether the thread waits for a traditional fcntl lock, of those that the system looks for
/// circles in. Where that cannot be seen it is taken to do so if the lock says nothing else.
fn waits_traditionally(tid: u32, lock: &Lock) -> bool {
    let call = syscall::of_sleeping_thread(tid);
    match call.number {
        Some(libc::SYS_fcntl) => call.command == Some(libc::F_SETLKW as u64),
        Some(_) => false,
        None => lock.holder.space == Some(Space::Posix),
    }
}

impl Overlay {
    /// Takes a lock or gives it up. `wait`: for as long as others are in the way.
    pub(super) fn set_lock(
        self: &Arc<Self>,
        req: &Request,
        asked: &Asked,
        wait: bool,
        reply: Locked,
    ) {
        let tid = req.pid();
        let found = || Ok((self.handles.get(asked.fh.0)?, asked.lock(tid)?));
        let (handle, lock) = match found() {
            Ok(found) => found,
            Err(error) => return reply(Err(error)),
        };
        if !self.locks_by_guard(&handle) {
            let waiter = self.waiter(req);
            return match lock {
                Some(lock) => {
                    let find_circles = wait && waits_traditionally(tid, &lock);
                    let wait = if wait {
                        Wait::For(find_circles)
                    } else {
                        Wait::No
                    };
                    self.below.lock(&handle, lock, wait, &waiter, reply);
                }
                None => {
                    reply(
                        self.below
                            .unlock(&handle, asked.owner, asked.space(tid), asked.range),
                    )
                }
            };
        }
        let guard = match self.guard_of_handle(&handle) {
            Ok(guard) => guard,
            Err(error) => return reply(Err(error)),
        };
        let Some(lock) = lock else {
            // Who gets the lock next must find what was written under it.
            let written = match handle.is_writable() {
                true => sys::fs::flush(&*handle.fd()),
                false => Ok(()),
            };
            let ours = match handle.written.load(Ordering::Acquire) {
                true => handle.lock_is_ours(),
                false => Ok(()),
            };
            guard.unlock(asked.owner, asked.space(tid), asked.range);
            return reply(written.and(ours));
        };
        let overlay = Arc::clone(self);
        let locked = Arc::clone(&handle);
        let user = Arc::clone(&guard);
        let granted = move |result: io::Result<()>| {
            reply(result.and_then(|()| {
                let refreshed = overlay
                    .refresh(&locked, tid)
                    .and_then(|()| user.may_begin());
                if refreshed.is_err() {
                    // A lock under which something old would be read is none.
                    user.unlock(lock.holder.owner, lock.holder.space, lock.range);
                }
                refreshed
            }));
        };
        handle.locked_by(asked.owner);
        let patience = if wait { Duration::MAX } else { MOMENT };
        let request = LockRequest {
            lock,
            wait,
            test: false,
            deadlock_owner: (wait && waits_traditionally(tid, &lock)).then_some(asked.owner),
            granted: Box::new(granted),
        };
        let waiter = Waiter {
            patience: Some(patience),
            ..self.waiter(req)
        };
        guard.submit(Job::new(Work::Lock(request), waiter));
    }

    /// Looks whether a lock could be taken: `F_GETLK`.
    pub(super) fn test_lock(self: &Arc<Self>, req: &Request, asked: &Asked, reply: Tested) {
        let found = || {
            let handle = self.handles.get(asked.fh.0)?;
            let lock = asked.lock(req.pid())?;
            let lock = lock.ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
            Ok((handle, lock))
        };
        let (handle, mut lock) = match found() {
            Ok(found) => found,
            Err(error) => return reply(Err(error)),
        };
        lock.holder.space = Some(Space::Posix);
        if !self.locks_by_guard(&handle) {
            return reply(self.below.test(&handle, &lock));
        }
        let guard = match self.guard_of_handle(&handle) {
            Ok(guard) => guard,
            Err(error) => return reply(Err(error)),
        };
        if let Some(other) = guard.conflict(&lock) {
            return reply(Ok(Some(other)));
        }
        let user = Arc::clone(&guard);
        let granted = move |result: io::Result<()>| {
            reply(match result {
                Ok(()) => Ok(None),
                Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {
                    let elsewhere = Lock {
                        holder: Holder {
                            owner: 0,
                            space: Some(Space::Posix),
                            file: 0,
                            // A number that is right there would be wrong here.
                            pid: 0,
                        },
                        range: Range::WHOLE,
                        kind: Kind::Exclusive,
                    };
                    Ok(Some(user.conflict(&lock).unwrap_or(elsewhere)))
                }
                Err(error) => Err(error),
            });
        };
        let request = LockRequest {
            lock,
            wait: false,
            test: true,
            deadlock_owner: None,
            granted: Box::new(granted),
        };
        let waiter = Waiter {
            patience: Some(MOMENT),
            ..self.waiter(req)
        };
        guard.submit(Job::new(Work::Lock(request), waiter));
    }

    fn locks_by_guard(&self, handle: &Handle) -> bool {
        let rule = handle.node.rule.as_ref();
        rule.is_some_and(|rule| rule.advisory) && handle.guarded().is_some()
    }

    fn guard_of_handle(&self, handle: &Handle) -> io::Result<Arc<Guard>> {
        let stale = || io::Error::from_raw_os_error(libc::ESTALE);
        let file = handle.guarded().ok_or_else(stale)?;
        file.guard(|| self.guard_of(&handle.node)).cloned()
    }

    /// A lock was granted: what is read from now on must be what the name holds now.
    fn refresh(&self, handle: &Arc<Handle>, tid: u32) -> io::Result<()> {
        let (Some(file), Some(key)) = (handle.guarded(), &handle.key) else {
            return Ok(());
        };
        let Some(guard) = file.known_guard() else {
            return Ok(());
        };
        // A private copy is what it must be.
        if handle.private.is_some() {
            return Ok(());
        }
        let assumed = self.credentials.assume(&file.opener)?;
        let named = guard.look()?;
        drop(assumed);
        let before = file.target().id;
        // The kernel has one set of pages for all that is open of a node.
        let others = self.handles.of_name(key).into_iter().filter(|other| {
            other.cached && Arc::ptr_eq(&other.node, &handle.node) && other.id() == before
        });
        file.follow(guard, named.as_ref())?;
        for other in others {
            if let Some(Err(error)) = other
                .guarded()
                .map(|file| file.follow(guard, named.as_ref()))
            {
                log::debug!("{}: cannot follow the name: {error}", guard.label());
            }
        }
        if handle.node.cached_opens.load(Ordering::Acquire) > 0 {
            self.invalidate(&handle.node, 0);
        }
        self.note_read(tid, &handle.node, handle.flags, &file.target());
        Ok(())
    }

    /// A process has closed a descriptor: its fcntl locks on the file go.
    pub(super) fn close_locks(&self, handle: &Handle, owner: u64) {
        let by_handle = handle.lock_owners.lock().clone();
        if !self.locks_by_guard(handle) {
            self.below.close(&handle.node, owner);
            return self.below.closing(&handle.node, &by_handle);
        }
        if let Some(guard) = handle.key.as_ref().and_then(|key| self.guards.find(key)) {
            guard.drop_owner(owner, Some(Space::Posix));
            guard.closing(&by_handle);
        }
    }

    /// The last descriptor of an open file is gone: what was locked by way of it goes.
    pub(super) fn end_locks(&self, handle: &Handle) {
        let Some(&file) = handle.number.get() else {
            return;
        };
        if handle.lock_owners.lock().is_empty() {
            return;
        }
        match handle.guarded().and_then(|file| file.known_guard()) {
            Some(guard) if self.locks_by_guard(handle) => guard.drop_file(file),
            _ => self.below.end(&handle.node, file),
        }
    }
}
